"""What a network is given: axes, voxel sizes, intensities; and what is cut out of its map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cmbprep.detectors.normalisation import normalise
from cmbprep.detectors.segmentation import measure_region
from cmbprep.spatial.grids import Grid, connected_parts, resample_to_grid, respaced_grid
from cmbprep.spatial.orientation import is_orientation, nearest_axis_order
from tests.detectors.phantom import oblique_affine

SHAPE = (9, 11, 7)


def stored(image: np.ndarray, affine: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]):
    """The same image with other storage axes."""
    image, affine = image.transpose(order), affine[:, [*order, 3]].copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
        affine[:3, axis] *= -1
        image = np.flip(image, axis)
    return image, affine


@pytest.mark.parametrize("order", sorted(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_however_stored_the_network_sees_the_same(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    affine = oblique_affine((0.5, 0.7, 2.0))
    other, other_affine = stored(image, affine, order, flips)
    axes = nearest_axis_order(other_affine)
    np.testing.assert_array_equal(axes.apply(other), image)
    np.testing.assert_allclose(axes.affine(other_affine, other.shape), affine, atol=1e-12)
    np.testing.assert_array_equal(axes.undo(axes.apply(other)), other)


def test_a_network_of_another_orientation_sees_its_own() -> None:
    image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    axes = nearest_axis_order(np.diag([1.0, 1, 2, 1]), "PSR")
    seen = axes.apply(image)
    np.testing.assert_array_equal(seen, image.transpose(1, 2, 0)[::-1])
    affine = axes.affine(np.diag([1.0, 1, 2, 1]), SHAPE)
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [0, 10, 0, 1])


@pytest.mark.parametrize(
    ("codes", "right"),
    [("RAS", True), ("LPS", True), ("SRA", True), ("RLS", False), ("RA", False), ("XYZ", False)],
)
def test_orientations_are_three_letters_of_three_pairs(codes: str, right: bool) -> None:
    assert is_orientation(codes) is right


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 2.0, 3.1)])
def test_a_respaced_grid_covers_the_field_of_view_from_its_middle(
    spacing: tuple[float, float, float],
) -> None:
    affine, shape = oblique_affine((0.5, 0.7, 3.0)), (60, 40, 20)
    grid = respaced_grid(shape, affine, spacing)
    np.testing.assert_allclose(grid.spacing, spacing)
    middles = [
        a[:3, :3] @ ((np.array(n) - 1) / 2) + a[:3, 3]
        for a, n in ((affine, shape), (grid.affine, grid.shape))
    ]
    np.testing.assert_allclose(middles[0], middles[1], atol=1e-9)
    extents = np.array(grid.shape) * spacing - np.array(shape) * (0.5, 0.7, 3.0)
    assert (np.abs(extents) <= np.array(spacing) / 2 + 1e-9).all()


def test_there_and_back_keeps_a_blob_where_it_was() -> None:
    affine, shape = oblique_affine((0.8, 0.8, 2.0)), (40, 44, 18)
    centre = np.array([21.3, 17.6, 8.4])
    offset = (np.indices(shape).reshape(3, -1).T - centre) * (0.8, 0.8, 2.0)
    blob = np.exp(-0.5 * (offset**2).sum(axis=1) / 2.5**2).reshape(shape).astype(np.float32)
    grid = respaced_grid(shape, affine, (1.1, 1.1, 1.1))
    there = resample_to_grid(blob, affine, grid, extend=True)
    back = resample_to_grid(there, grid.affine, Grid(shape, affine), extend=True, smooth=False)
    found = np.indices(shape).reshape(3, -1) @ back.ravel() / back.sum()
    assert np.abs(found - centre).max() < 0.05


def test_an_even_image_stays_even_to_its_border() -> None:
    shape, affine = (20, 20, 6), np.diag([1.0, 1, 5, 1])
    grid = respaced_grid(shape, affine, (0.7, 0.7, 1.0))
    np.testing.assert_allclose(
        resample_to_grid(np.ones(shape), affine, grid, extend=True), 1, atol=1e-6
    )


@pytest.mark.parametrize("method", ["zscore-brain", "minmax-brain", "percentile-brain"])
def test_gain_and_offset_of_the_scanner_do_not_matter(method: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, SHAPE).astype(np.float32)
    mask = rng.random(SHAPE) < 0.7
    one = normalise(image, mask, np.ones(3), method)
    other = normalise(image * 7 + 40, mask, np.ones(3), method)
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_normalisations_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, SHAPE).astype(np.float32)
    mask = rng.random(SHAPE) < 0.7
    image[~mask] = 500
    z = normalise(image, mask, np.ones(3), "zscore-brain")[mask]
    assert z.mean() == pytest.approx(0, abs=1e-5) and z.std() == pytest.approx(1, abs=1e-5)
    m = normalise(image, mask, np.ones(3), "minmax-brain")
    assert m[mask].min() == 0 and m[mask].max() == pytest.approx(1) and m.max() > 5
    p = normalise(image, mask, np.ones(3), "percentile-brain", (10, 60))
    assert p.min() == 0 and p.max() == 1
    assert np.mean(p[mask] == 0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(p[mask] == 1) == pytest.approx(0.4, abs=0.01)
    assert normalise(image, mask, np.ones(3), "none") is image


@pytest.mark.parametrize(
    "method", ["zscore-brain", "minmax-brain", "percentile-brain", "background-ratio", "none"]
)
def test_an_image_without_contrast_is_finite(method: str) -> None:
    for level in (0.0, 0.1, 1e7):
        image = np.full(SHAPE, level, np.float32)
        assert np.isfinite(normalise(image, np.ones(SHAPE, bool), np.ones(3), method)).all()


def test_parts_are_ordered_by_peak_then_position_and_small_ones_left_out() -> None:
    heat = np.zeros((12, 12, 12), np.float32)
    heat[9:11, 2, 2] = (0.7, 0.9)
    heat[1:3, 2, 2] = (0.9, 0.6)
    heat[6, 6, 6:9] = 0.95
    heat[3, 9, 9] = 0.99
    parts = connected_parts(heat, 0.5, least=2)
    assert [round(peak, 2) for peak, _ in parts] == [0.95, 0.9, 0.9]
    assert [tuple(voxels[0]) for _, voxels in parts] == [(6, 6, 6), (1, 2, 2), (9, 2, 2)]


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity_decides_what_is_one_part(connectivity: int, count: int) -> None:
    heat = np.zeros((6, 6, 6))
    heat[1, 1, 1] = heat[2, 2, 1] = heat[3, 3, 2] = 1
    assert len(connected_parts(heat, 0.5, connectivity)) == count


@pytest.mark.parametrize("dilation", [1.0, 1.5])
def test_a_measured_void_has_its_true_volume_centre_and_contrast(dilation: float) -> None:
    affine = oblique_affine((0.5, 0.5, 1.0))
    shape, centre, radius = (60, 60, 30), np.array([29.3, 30.6, 14.4]), 3.0
    offset = (np.indices(shape).reshape(3, -1).T - centre) * (0.5, 0.5, 1.0)
    distance = np.linalg.norm(offset, axis=1).reshape(shape)
    image = (100 - 70 / (1 + np.exp((distance - radius) / 0.15))).astype(np.float32)
    voxels = np.argwhere(distance < radius * dilation)
    region = measure_region(image, np.ones(shape, bool), affine, voxels, 3)
    assert region.seed == 3
    # A mask that is too large does not make the void larger.
    assert region.volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.08)
    np.testing.assert_allclose(region.centre_ras, affine[:3, :3] @ centre + affine[:3, 3], atol=0.1)
    assert region.contrast == pytest.approx(0.7, abs=0.02)


def test_voxels_that_are_not_dark_keep_their_own_volume() -> None:
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    image = np.full((20, 20, 8), 100, np.float32)
    image[8:12, 8:12, 4] = 180
    voxels = np.argwhere(image > 100)
    region = measure_region(image, np.ones(image.shape, bool), affine, voxels)
    assert region.volume_mm3 == pytest.approx(16 * 0.5)
    assert region.contrast == 0
    np.testing.assert_allclose(region.centre_ras, (4.75, 4.75, 8.0))
    everything = np.argwhere(image > 0)
    assert measure_region(image, np.ones(image.shape, bool), affine, everything).contrast == 0
