"""Rays from a point: distances in mm, and what lies beyond the end of the image."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.detectors.candidates import OPPOSITE, RAY_VECTORS, radial_profiles

RADII = np.arange(0.0, 8.1, 0.5)


def test_rays_are_of_length_one_in_millimetres_whatever_the_voxel() -> None:
    spacing = np.array([0.5, 0.9, 2.0])
    shape = (80, 44, 20)
    centre = (np.array(shape) - 1) / 2
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    offset = [(g - c) * s for g, c, s in zip(grids, centre, spacing, strict=True)]
    slope = (offset[0] + 2 * offset[1] - offset[2]).astype(np.float32)
    profiles, directions = radial_profiles(slope, centre[None], spacing, RADII)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    expected = RADII[None] * (directions @ [1, 2, -1])[:, None]
    np.testing.assert_allclose(profiles[0], expected, atol=1e-4)


def test_opposite_rays_see_a_mirrored_slope() -> None:
    assert (RAY_VECTORS[OPPOSITE] == -RAY_VECTORS).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_ball_at_the_end_of_the_image_is_closed_and_a_tube_through_it_is_open(
    axis: int, last: bool
) -> None:
    shape = [31, 31, 31]
    shape[axis] = 16
    centre = np.array([15, 15, 15])
    centre[axis] = 15 if last else 0
    square = sum(
        (np.arange(n).reshape([-1 if k == j else 1 for k in range(3)]) - c) ** 2
        for j, (n, c) in enumerate(zip(shape, centre, strict=True))
    )
    across = (
        square
        - (
            np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(3)])
            - centre[axis]
        )
        ** 2
    )
    out = np.zeros(3)
    out[axis] = 1 if last else -1
    ends = []
    for inside in (square <= 9, np.broadcast_to(across <= 9, shape)):
        image = np.where(inside, 0.2, 1.0).astype(np.float32)
        profiles, directions = radial_profiles(image, centre[None], np.ones(3), RADII)
        ends.append(profiles[0, int(np.argmax(directions @ out))])
    ball, tube = ends
    assert ball[RADII >= 6].min() > 0.95
    assert tube.max() < 0.25
