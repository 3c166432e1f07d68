"""Local shifts of two images whose distance is known."""

import numpy as np
import pytest

from cmbprep.registration.quality import (
    RegistrationQuality,
    _template_checks,
    _verdict,
    local_shifts,
)
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import LinearMap
from tests.registration import headphantom

SHAPE = (48, 56, 52)
AFFINE = headphantom.grid_affine(SHAPE, (4.0, 4.0, 4.0))


def pair(codes="RAS"):
    shape = tuple({"R": 48, "L": 48, "A": 56, "P": 56, "S": 52, "I": 52}[code] for code in codes)
    affine = headphantom.grid_affine(shape, (4.0, 4.0, 4.0), codes=codes)
    scan = headphantom.head(shape, affine, contrast="T2starw")
    brain = np.asarray(headphantom.brain(shape, affine).dataobj) > 0
    reference = headphantom.head(SHAPE, AFFINE)
    return (
        (np.asarray(scan.dataobj, np.float32), Grid(shape, affine)),
        brain,
        (np.asarray(reference.dataobj, np.float32), Grid(SHAPE, AFFINE)),
    )


@pytest.mark.parametrize("codes", ["RAS", "PSL"])
def test_a_map_that_is_right_leaves_little_to_shift(codes):
    shifts = local_shifts(*pair(codes), LinearMap(np.eye(4)))
    assert len(shifts) >= 8
    assert np.median(shifts) < 1.5


def test_a_map_that_is_off_is_off_everywhere_by_as_much():
    off = np.eye(4)
    off[:3, 3] = (4, -4, 4)
    shifts = local_shifts(*pair(), LinearMap(off))
    assert np.median(shifts) == pytest.approx(np.sqrt(48), abs=1.5)


def test_brightness_does_not_matter():
    scan, brain, reference = pair()
    brighter = (40 * scan[0] + 7, scan[1])
    one, two = (local_shifts(s, brain, reference, LinearMap(np.eye(4))) for s in (scan, brighter))
    assert np.allclose(one, two, atol=0.5)


def test_nothing_is_said_of_what_is_too_small():
    scan, brain, reference = pair()
    assert local_shifts(scan, np.zeros_like(brain), reference, LinearMap(np.eye(4))).size == 0


@pytest.mark.parametrize(
    ("seen", "agreeing", "verdict"),
    [
        (1.0, 0.60, "ok"),
        (0.7, 0.92, "ok"),
        (0.7, 0.85, "doubtful"),
        (0.7, None, "doubtful"),
        (0.45, 0.95, "doubtful"),
        (0.15, 0.95, "failed"),
    ],
)
def test_a_slab_is_sure_only_where_all_that_is_seen_of_the_brain_fits(seen, agreeing, verdict):
    quality = RegistrationQuality(
        similarity=1.2,
        overlap=seen,
        agreeing=agreeing,
        brain_volume_ml=1500.0,
        rotation_deg=3.0,
        shift_mm=4.0,
    )
    found, reasons = _verdict(_template_checks(quality, 1.1))
    assert found == verdict
    assert found == "ok" or f"{seen:.0%}" in " ".join(reasons)
