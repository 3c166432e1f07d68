"""A lesion at the rim of the brain, beside something darker, is outlined alone."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.detectors.segmentation import segment_lesions
from cmbprep.ratings.basin import basin

SHAPE = (40, 40, 20)
SPACING = np.array([1.0, 1.0, 2.0])
AFFINE = np.diag([*SPACING, 1.0])
CENTRE = np.array([28, 20, 10])


def ball(radius: float) -> np.ndarray:
    steps = (np.indices(SHAPE).reshape(3, -1).T - CENTRE) * SPACING
    return (np.linalg.norm(steps, axis=1) <= radius).reshape(SHAPE)


def head(gap: int, seed: int = 0) -> np.ndarray:
    """A lesion, and a darker plate whose edge lies some voxels from it."""
    image = np.full(SHAPE, 100.0)
    image[ball(2.5)] = 40
    image[31 + gap :] = 10
    return (image + np.random.default_rng(seed).normal(0, 2, SHAPE)).astype(np.float32)


BRAIN = np.ones(SHAPE, bool)


def outline(image: np.ndarray, position: np.ndarray) -> np.ndarray:
    found = basin(image, BRAIN, SPACING, position)
    assert found is not None
    darkest, own = found
    (region,) = segment_lesions(image, BRAIN, AFFINE, darkest[None], [1.5], within=own)
    mask = np.zeros(SHAPE, bool)
    mask[tuple(region.voxels.T)] = True
    return mask


@pytest.mark.parametrize("gap", [0, 1, 6])
@pytest.mark.parametrize("step", [(0, 0, 0), (0, 1, 0), (0, -1.4, 0), (-1, 1, 0)])
def test_a_lesion_beside_something_darker_is_outlined_alone(gap, step):
    """The reader points at the lesion, up to a voxel and a half from its middle."""
    found = outline(head(gap), CENTRE + np.array(step, float))
    truth = ball(2.5)
    assert not found[31 + gap :].any(), "the plate is no part of it"
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8


def test_without_it_the_region_goes_over_to_what_is_darker():
    """What the test above guards against: from the darkest voxel around, the plate is grown."""
    image = head(0)
    (region,) = segment_lesions(image, BRAIN, AFFINE, CENTRE[None] + [1.0, 0, 0], [4.0])
    assert (region.voxels[:, 0] >= 31).any()


def test_a_spot_in_nothing_darker_is_none():
    flat = np.full(SHAPE, 100, np.float32)
    assert basin(flat, BRAIN, SPACING, CENTRE.astype(float)) is None
    assert basin(head(6), ~BRAIN, SPACING, CENTRE.astype(float)) is None


def test_the_scan_may_end_beside_it():
    image = np.full(SHAPE, 100, np.float32)
    image[0, 0, 0] = 20
    darkest, own = basin(image, BRAIN, SPACING, np.array([0.4, 0, -0.4]))
    assert darkest.tolist() == [0, 0, 0] and own.all()
