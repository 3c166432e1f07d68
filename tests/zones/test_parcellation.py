"""What the template's atlases are drawn from, and the border that can be moved."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.templates import load_template
from cmbprep.zones.parcellation import CLASSES, TISSUES, Parcellation, draw_atlas
from cmbprep.zones.schemes import BOMBS, MARS, RIGHT_OFFSET

DEEP = 1 + MARS.region_names.index("deep and periventricular white matter")


def voxels(path: Path | None) -> np.ndarray:
    assert path is not None
    return np.asarray(nib.load(path).dataobj)


@cache
def template() -> tuple[Parcellation, np.ndarray]:
    """The packaged parcellation at 2 mm: millimetres there are half as many."""
    found = load_template()
    packed, brain = voxels(found.parcellation), voxels(found.brain_mask) > 0
    return Parcellation.unpack(packed[::2, ::2, ::2]), brain[::2, ::2, ::2]


def test_packing_loses_nothing(rng: np.random.Generator) -> None:
    parts = [rng.integers(0, n, (9, 8, 7)).astype(np.uint8) for n in (len(CLASSES) + 1, 3, 3)]
    again = Parcellation.unpack(Parcellation(*parts).pack())
    for part, found in zip(parts, (again.classes, again.side, again.tissue), strict=True):
        assert np.array_equal(part, found)


def test_a_parcellation_checks_itself() -> None:
    zeros = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="grid"):
        Parcellation(zeros, zeros, zeros[1:])
    with pytest.raises(ValueError, match="below 3"):
        Parcellation(zeros, zeros, zeros + 3)


def test_the_packaged_parcellation_is_of_the_packaged_brain() -> None:
    parcellation, brain = template()
    known = np.isin(parcellation.classes, range(1, len(CLASSES) + 1))
    assert (known & brain).sum() > 0.6 * brain.sum()
    assert set(np.unique(parcellation.tissue[brain])) == set(range(len(TISSUES)))


def test_a_wider_border_makes_more_white_matter_deep() -> None:
    parcellation, brain = template()
    deep = []
    for border in (2.0, 5.0, 8.0):
        labels = draw_atlas(parcellation, brain, replace(MARS, border_mm=border))
        assert np.array_equal(labels > 0, brain)
        deep.append(int((labels % RIGHT_OFFSET == DEEP).sum()))
    assert deep[0] < deep[1] < deep[2]


def test_a_wider_junction_takes_subcortical_white_matter_and_moves_no_zone() -> None:
    parcellation, brain = template()
    mars = draw_atlas(parcellation, brain, MARS)
    narrow, wide = (
        draw_atlas(parcellation, brain, replace(BOMBS, border_mm=border), mars)
        for border in (1.0, 3.0)
    )
    junction = [(labels % RIGHT_OFFSET == 1).sum() for labels in (narrow, wide)]
    assert junction[0] < junction[1]
    zones = {region.index: region.zone for region in BOMBS.regions}
    table = np.array([str(zones.get(value)) for value in range(256)])
    assert np.array_equal(table[narrow], table[wide])


@pytest.mark.slow
def test_with_the_default_border_the_packaged_atlas_comes_out() -> None:
    found = load_template()
    parcellation = Parcellation.unpack(voxels(found.parcellation))
    brain, mars = voxels(found.brain_mask) > 0, voxels(found.atlas("mars"))
    assert np.array_equal(draw_atlas(parcellation, brain, MARS), mars)
    assert np.array_equal(
        draw_atlas(parcellation, brain, BOMBS, mars), voxels(found.atlas("bombs"))
    )
