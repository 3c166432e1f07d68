"""Real backgrounds: a fine scan is shown at coarser voxel sizes, a coarse one as it is."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import voxel_sizes

from cmbprep.lab.training.scans import FINE_MM, RealBackground, load_backgrounds, shown_coarser
from cmbprep.outputs.files import write_image
from tests.reports.outputtree import Tree


def background(spacing: tuple[float, float, float]) -> RealBackground:
    """A ball of tissue with a bright wedge, 80 mm across."""
    rng = np.random.default_rng(3)
    shape = tuple(round(90 / step) for step in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-40, 10, 5)
    grid = np.indices(shape).astype(float)
    middle = (np.array(shape) - 1) / 2
    offset = [(g - m) * s for g, m, s in zip(grid, middle, spacing, strict=True)]
    mask = sum(o**2 for o in offset) < 40.0**2
    image = np.where(mask, 100.0, 2.0) + np.where(mask & (offset[0] > 10), 60.0, 0.0)
    image = (image + rng.normal(0, 1, shape)).astype(np.float32)
    return RealBackground("ball", image, mask, affine)


def middle_of(scan: RealBackground) -> np.ndarray:
    voxels = np.argwhere(scan.mask).mean(axis=0)
    return scan.affine[:3, :3] @ voxels + scan.affine[:3, 3]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (2.0, 1.0, 1.0), (0.8, 0.8, 0.8)])
def test_fine_scan_is_shown_coarser_in_its_place(spacing: tuple[float, float, float]) -> None:
    own = background(spacing)
    shown = shown_coarser(own, np.random.default_rng(7))
    sizes = voxel_sizes(shown.affine)
    assert (sizes >= np.array(spacing) - 1e-6).all() and (sizes > spacing).any()
    assert sizes.max() <= 6.1
    np.testing.assert_allclose(middle_of(shown), middle_of(own), atol=1.0)
    volume = shown.mask.sum() * sizes.prod()
    assert volume == pytest.approx(own.mask.sum() * np.prod(spacing), rel=0.05)
    assert shown.places.any() and not (shown.places & ~shown.mask).any()
    # What was bright is still brighter, by less than it was.
    points = np.argwhere(shown.mask) @ shown.affine[:3, :3].T + shown.affine[:3, 3]
    bright = points[:, 0] > middle_of(own)[0] + 15
    values = shown.image[shown.mask]
    assert 1.1 < np.median(values[bright]) / np.median(values[~bright]) < 1.7


def test_each_time_another_protocol_but_seeded() -> None:
    own = background((1.0, 1.0, 2.0))
    first, again, other = (shown_coarser(own, np.random.default_rng(n)) for n in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    assert not np.allclose(first.affine, other.affine)


def test_coarse_scan_stays_and_no_number_is_drawn() -> None:
    own = background((FINE_MM, FINE_MM, 4.0))
    rng = np.random.default_rng(5)
    assert shown_coarser(own, rng) is own
    assert rng.random() == np.random.default_rng(5).random()


def test_results_that_count_no_more_are_no_backgrounds(tmp_path, caplog) -> None:
    tree = Tree(tmp_path)
    for name in ("sub-1_T2starw", "sub-1_acq-b_T2starw", "sub-1_acq-c_T2starw", "sub-2_T2starw"):
        files = tree.add(name)
        mask = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
        write_image(
            files.path("probseg").parent / f"{files.names.src}_desc-brain_mask.nii.gz", mask
        )
    root = tree.finish()
    assert [item.name for item in load_backgrounds(root, ["1", "2"])] == ["1", "1", "1", "2"]
    assert "training" not in caplog.text
    record = root / "logs" / "sub-1_inputs.json"
    content = json.loads(record.read_text())
    content["withdrawn"] = [{"name": "sub-1_acq-b_T2starw", "reason": "it left the dataset"}]
    content["scans"] = [s for s in content["scans"] if "acq-b" not in s["name"]]
    record.write_text(json.dumps(content))
    (root / "logs" / "sub-1_acq-c_T2starw_error.json").write_text('{"message": "no memory"}')
    (root / "logs" / "sub-2_T2starw_error.json").write_text('{"message": "no memory"}')
    with caplog.at_level("WARNING", logger="cmbprep"):
        found = load_backgrounds(root, ["1", "2"])
    assert [item.name for item in found] == ["1"]
    assert "sub-1_acq-b is not used for training: withdrawn (it left the dataset)" in caplog.text
    assert "sub-1_acq-c is not used for training: failed (no memory)" in caplog.text
    assert "sub-2 has no scan with a result" in caplog.text
