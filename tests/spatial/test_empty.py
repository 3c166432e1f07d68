"""Large regions of the brain without signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.spatial.empty import SMALLEST_ML, empty_regions

SPACINGS = ((1.0, 1.0, 1.0), (0.5, 0.5, 3.0), (4.0, 1.0, 1.0))


def head(spacing: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.bool_], Any]:
    """Return positions, mm from the middle, the brain (a ball of 30 mm) and an image of it."""
    shape = tuple(int(80 / size) for size in spacing)
    at = np.moveaxis(np.indices(shape), 0, -1) * np.array(spacing)
    at = at - at.reshape(-1, 3).mean(axis=0)
    brain = np.linalg.norm(at, axis=-1) < 30
    values = np.where(brain, 100.0, 20.0).astype(np.float32)
    return at, brain, values


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("nothing", [0.0, -0.0, np.nan, np.inf])
def test_a_block_without_signal_is_found_to_the_voxel(
    spacing: tuple[float, ...], nothing: float
) -> None:
    at, brain, values = head(spacing)
    block = (np.abs(at) < 10).all(axis=-1)
    values[block] = nothing
    for flip in (slice(None), slice(None, None, -1)):
        found = empty_regions(values[flip], brain[flip], np.array(spacing))
        missed, beyond = block[flip] & ~found, found & ~block[flip]
        assert not beyond.any()
        # The corners of a block are farther from its inside than its sides are.
        assert np.count_nonzero(missed) < 0.1 * np.count_nonzero(block)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_black_bleed_is_seen(spacing: tuple[float, ...]) -> None:
    at, brain, values = head(spacing)
    for centre in ((0, 0, 0), (0, 0, 29.0)):
        values[np.linalg.norm(at - centre, axis=-1) <= 4] = 0
    values[(np.abs(at[..., 0]) < 1.5) & (np.abs(at[..., 1]) < 1.5)] = 0  # a vein
    values[::7, ::5, ::3] = 0
    assert not empty_regions(values, brain, np.array(spacing)).any()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("tight_mm", [0.0, 4.0])
def test_a_background_of_zero_is_no_empty_brain(
    spacing: tuple[float, ...], tight_mm: float
) -> None:
    """The registered brain may reach a little beyond the signal."""
    at, brain, values = head(spacing)
    values[np.linalg.norm(at, axis=-1) >= 30 - tight_mm] = 0
    assert not empty_regions(values, brain, np.array(spacing)).any()


def test_a_brain_that_is_cut_off_is_empty_up_to_the_signal() -> None:
    at, brain, values = head((1.0, 1.0, 1.0))
    kept = brain & (at[..., 2] > -10)
    values[~kept] = 0
    found = empty_regions(values, brain, np.ones(3))
    assert not (found & kept).any()
    lost = brain & ~kept
    assert np.count_nonzero(found & lost) > 0.95 * np.count_nonzero(lost)


def test_an_image_without_any_zero_or_any_signal() -> None:
    _, brain, values = head((1.0, 1.0, 1.0))
    assert not empty_regions(values, brain, np.ones(3)).any()
    assert not empty_regions(np.zeros_like(values), np.zeros_like(brain), np.ones(3)).any()
    assert empty_regions(np.zeros_like(values), brain, np.ones(3))[brain].all()


def test_small_empty_regions_are_left_out() -> None:
    at, brain, values = head((1.0, 1.0, 1.0))
    radii = {
        factor: (0.75 * factor * SMALLEST_ML * 1000 / np.pi) ** (1 / 3) for factor in (0.9, 1.1)
    }
    for factor, radius in radii.items():
        hole = np.linalg.norm(at, axis=-1) < radius
        found = empty_regions(np.where(hole, 0, values), brain, np.ones(3))
        assert found.any() == (factor > 1)
