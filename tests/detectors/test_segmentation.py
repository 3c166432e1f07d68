"""Volumes of known spheres, on every kind of grid, and the ways a region could go wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.detectors.segmentation import ball_diameter, partial_volume, segment_lesions


def sphere_image(
    spacing: tuple[float, float, float], diameter: float, shift: NDArray[np.float64], noise: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A dark ball in even tissue, averaged to the voxels; and its centre in voxels."""
    fine = 4
    shape = np.maximum(np.ceil((diameter + 20) / np.array(spacing)).astype(int), 7)
    centre = (shape - 1) / 2 + shift
    mm = [
        ((np.arange(n * fine) + 0.5) / fine - 0.5 - c) * s
        for n, c, s in zip(shape, centre, spacing, strict=True)
    ]
    x, y, z = np.meshgrid(*mm, indexing="ij", sparse=True)
    inside = x**2 + y**2 + z**2 <= (diameter / 2) ** 2
    part = inside.reshape(shape[0], fine, shape[1], fine, shape[2], fine).mean(axis=(1, 3, 5))
    image = 100 * (1 - part)
    rng = np.random.default_rng(int(diameter * 10))
    return (image + rng.normal(0, noise, image.shape)).astype(np.float32), centre


def rotated(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    a = np.deg2rad(25)
    affine = np.eye(4)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = (5, -20, 33)
    return affine


@pytest.mark.parametrize(
    ("spacing", "diameter"),
    [
        ((1.0, 1.0, 1.0), 3.0),
        ((1.0, 1.0, 1.0), 8.0),
        ((0.5, 0.5, 1.5), 4.0),
        ((1.0, 1.0, 3.0), 6.0),
        ((3.0, 1.0, 1.0), 6.0),
        ((0.9, 0.9, 6.0), 10.0),
        ((2.2, 2.2, 4.1), 10.0),
    ],
)
def test_volume_of_a_sphere(spacing: tuple[float, float, float], diameter: float) -> None:
    truth = math.pi / 6 * diameter**3
    affine = rotated(spacing)
    errors = []
    for k in range(5):
        shift = np.random.default_rng(k).uniform(-0.5, 0.5, 3)
        image, centre = sphere_image(spacing, diameter, shift, noise=3.0)
        (region,) = segment_lesions(
            image, np.ones(image.shape, bool), affine, centre[None], [diameter / 2]
        )
        errors.append(region.volume_mm3 / truth - 1)
        expected = affine[:3, :3] @ centre + affine[:3, 3]
        assert np.linalg.norm(np.array(region.centre_ras) - expected) < 0.3 * max(spacing)
        assert region.contrast > 0.75
    assert abs(np.median(errors)) < 0.15
    assert np.abs(errors).max() < 0.4


def test_a_vessel_that_touches_is_cut() -> None:
    image, centre = sphere_image((1, 1, 1), 5.0, np.zeros(3), noise=0.0)
    alone = segment_lesions(image, np.ones(image.shape, bool), np.eye(4), centre[None], [2.5])
    c = np.round(centre).astype(int)
    image[c[0] :, c[1], c[2]] = 10
    touched = segment_lesions(image, np.ones(image.shape, bool), np.eye(4), centre[None], [2.5])
    assert touched[0].volume_mm3 < 1.25 * alone[0].volume_mm3
    reach = np.linalg.norm(touched[0].voxels - centre, axis=1).max()
    assert reach <= 5.0


def test_no_region_is_wider_than_a_microbleed() -> None:
    image, centre = sphere_image((1, 1, 1), 20.0, np.zeros(3), noise=0.0)
    for region in segment_lesions(
        image, np.ones(image.shape, bool), np.eye(4), centre[None], [4.6]
    ):
        assert ball_diameter(region.volume_mm3) <= 12.5


def test_two_lesions_share_no_voxel_and_the_first_wins() -> None:
    image, centre = sphere_image((1, 1, 1), 5.0, np.zeros(3), noise=0.0)
    other, _ = sphere_image((1, 1, 1), 5.0, np.array([7.0, 0, 0]), noise=0.0)
    both = np.minimum(image, other)
    brain = np.ones(image.shape, bool)
    seeds = centre + np.array([[0.0, 0, 0], [7, 0, 0], [0.4, 0, 0]])
    regions = segment_lesions(both, brain, np.eye(4), seeds, [2.5, 2.5, 2.5])
    assert [region.seed for region in regions] == [0, 1]
    sets = [set(map(tuple, region.voxels.tolist())) for region in regions]
    assert not sets[0] & sets[1]


def test_a_region_stays_in_the_brain() -> None:
    image, centre = sphere_image((1, 1, 1), 6.0, np.zeros(3), noise=0.0)
    brain = np.ones(image.shape, bool)
    brain[int(centre[0]) + 1 :] = False
    (region,) = segment_lesions(image, brain, np.eye(4), centre[None], [3.0])
    assert brain[tuple(region.voxels.T)].all()


def test_bright_spots_give_nothing() -> None:
    image, centre = sphere_image((1, 1, 1), 4.0, np.zeros(3), noise=0.0)
    bright = 200 - image
    assert not segment_lesions(bright, np.ones(image.shape, bool), np.eye(4), centre[None], [2.0])


def test_partial_volume_of_a_half_covered_voxel() -> None:
    loss = np.zeros((5, 5, 5))
    loss[2, 2, 2], loss[3, 2, 2] = 1.0, 0.4
    assert partial_volume(loss, loss >= 0.5, 1.0, 2.0) == pytest.approx(2.8)


@pytest.mark.parametrize(
    ("spacing", "diameter"),
    [
        ((0.5, 0.5, 2.0), 6.0),
        ((0.8, 0.8, 3.0), 8.0),
        ((1.0, 1.0, 1.0), 8.0),
        ((3.0, 0.8, 0.8), 8.0),
    ],
)
@pytest.mark.parametrize("end", [-1, 1])
def test_a_seed_at_the_end_of_a_void_finds_all_of_it(
    spacing: tuple[float, float, float], diameter: float, end: int
) -> None:
    """As from its middle, though the first look sees a slice or two."""
    image, centre = sphere_image(spacing, diameter, np.array([0.2, -0.3, 0.1]), noise=1.0)
    brain, affine = np.ones(image.shape, bool), rotated(spacing)
    axis = int(np.argmax(spacing))
    edge = centre.copy()
    edge[axis] += end * (diameter / 2 - 0.5) / spacing[axis]
    (whole,) = segment_lesions(image, brain, affine, centre[None], [diameter / 2])
    (found,) = segment_lesions(image, brain, affine, edge[None], [1.0])
    assert found.volume_mm3 == pytest.approx(whole.volume_mm3, rel=0.1)
    assert np.linalg.norm(np.subtract(found.centre_ras, whole.centre_ras)) < 0.3


def test_growing_again_does_not_go_over_to_a_larger_void_nearby() -> None:
    small, centre = sphere_image((1, 1, 1), 4.0, np.zeros(3), noise=0.0)
    image = np.full((40, *small.shape[1:]), 100, np.float32)
    image[: small.shape[0]] = small
    other = np.array([centre[0] + 9, centre[1], centre[2]])
    grid = np.indices(image.shape)
    away = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, other, strict=True)))
    image = np.minimum(image, np.clip((away - 4.0) * 100, 0, 100)).astype(np.float32)
    (region,) = segment_lesions(image, np.ones(image.shape, bool), np.eye(4), centre[None], [2.0])
    assert region.volume_mm3 == pytest.approx(math.pi / 6 * 4.0**3, rel=0.2)


@pytest.mark.parametrize("gap", [1, 2])
def test_growing_again_does_not_go_over_to_a_fainter_band_nearby(gap: int) -> None:
    """A faint small void at a wide band that is less dark than it, as a sulcus is."""
    spacing = (1.0, 1.0, 4.0)
    image, centre = sphere_image(spacing, 3.0, np.zeros(3), noise=0.0)
    image = np.concatenate([image, np.full((14, *image.shape[1:]), 100, np.float32)])
    image = (100 - 0.45 * (100 - image)).astype(np.float32)
    brain, affine = np.ones(image.shape, bool), np.diag([*spacing, 1.0])
    (alone,) = segment_lesions(image, brain, affine, centre[None], [1.5])
    start = int(centre[0]) + gap
    image[start : start + 8] = np.minimum(image[start : start + 8], 75)
    (region,) = segment_lesions(image, brain, affine, centre[None], [1.5])
    # The band is cut where it leaves the void's surroundings, as a vessel is.
    assert np.linalg.norm(np.subtract(region.centre_ras, alone.centre_ras)) < 3.0
    assert region.volume_mm3 < 5 * alone.volume_mm3
