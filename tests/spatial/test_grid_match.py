"""Whether two images lie on the same grid: right by the corners, in voxels."""

from __future__ import annotations

from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.spatial.transform import Rotation

from cmbprep.spatial.grids import grid_gap, same_grid

SHAPE = (64, 80, 20)
AFFINE = np.diag([3.0, 3.0, 8.0, 1.0]) + np.outer([-96, -120, -80, 0], [0, 0, 0, 1])

sizes = st.floats(0.2, 8.0)
shapes = st.tuples(*[st.integers(1, 400)] * 3)
angles = st.tuples(*[st.floats(-np.pi, np.pi)] * 3)
places = st.tuples(*[st.floats(-300, 300)] * 3)


def rigid(rotation: tuple[float, ...], place: tuple[float, ...]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rotation).as_matrix()
    matrix[:3, 3] = place
    return matrix


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    scale = np.diag([*(draw(sizes) * draw(st.sampled_from([-1, 1])) for _ in range(3)), 1.0])
    return rigid(draw(angles), draw(places)) @ scale


def shifted(affine: np.ndarray, voxels: tuple[float, ...]) -> np.ndarray:
    """Shift a grid by parts of its own voxels."""
    step = np.eye(4)
    step[:3, 3] = voxels
    return affine @ step


@given(shapes, affines(), st.integers(0, 2), st.floats(0, 0.0199), st.sampled_from([-1, 1]))
def test_a_shift_below_the_tolerance_along_any_axis(
    shape: tuple[int, ...], affine: np.ndarray, axis: int, part: float, sign: int
) -> None:
    step = [0.0, 0.0, 0.0]
    step[axis] = sign * part
    assert same_grid(shape, affine, shape, shifted(affine, tuple(step)))
    step[axis] = sign * (part + 0.0202)
    assert not same_grid(shape, affine, shape, shifted(affine, tuple(step)))


@given(shapes, affines())
def test_single_precision_of_a_header_does_not_matter(
    shape: tuple[int, ...], affine: np.ndarray
) -> None:
    assert same_grid(shape, affine, shape, affine.astype(np.float32))


@given(shapes, affines(), affines())
def test_the_order_of_the_two_does_not_matter(
    shape: tuple[int, ...], one: np.ndarray, other: np.ndarray
) -> None:
    assert grid_gap(shape, one, shape, other).voxels == pytest.approx(
        grid_gap(shape, other, shape, one).voxels
    )


@given(shapes, affines(), st.tuples(*[st.floats(-0.05, 0.05)] * 3), angles, places)
def test_a_common_motion_does_not_matter(
    shape: tuple[int, ...],
    affine: np.ndarray,
    jitter: tuple[float, ...],
    rotation: tuple[float, ...],
    place: tuple[float, ...],
) -> None:
    motion = rigid(rotation, place)
    other = shifted(affine, jitter)
    before = grid_gap(shape, affine, shape, other)
    after = grid_gap(shape, motion @ affine, shape, motion @ other)
    assert after.voxels == pytest.approx(before.voxels, abs=1e-6)
    assert after.mm == pytest.approx(before.mm, abs=1e-6)
    assert before.voxels == pytest.approx(max(map(abs, jitter)), abs=1e-9)


@given(shapes, affines(), st.sets(st.integers(0, 2), min_size=1))
def test_a_flipped_axis_is_another_grid(
    shape: tuple[int, ...], affine: np.ndarray, axes: set[int]
) -> None:
    """Also where the flipped grid covers the same space, and for an axis of one voxel."""
    flip = np.eye(4)
    for axis in axes:
        flip[axis, axis], flip[axis, 3] = -1, shape[axis] - 1
    assert not same_grid(shape, affine, shape, affine @ flip)


def test_four_micrometres_are_no_difference_and_four_tenths_are_one() -> None:
    near, far = AFFINE.copy(), AFFINE.copy()
    near[2, 3] += 0.004
    far[2, 3] += 0.4
    assert same_grid(SHAPE, AFFINE, SHAPE, near)
    gap = grid_gap(SHAPE, AFFINE, SHAPE, far)
    assert (gap.mm, gap.voxels) == (pytest.approx(0.4), pytest.approx(0.05))
    assert str(gap) == "corners up to 0.4 mm (0.05 voxels) apart"


def test_the_voxel_axis_of_a_shift_counts_not_its_length() -> None:
    """0.1 mm is little along slices of 8 mm, and much within slices of 1 mm."""
    affine = np.diag([1.0, 1.0, 8.0, 1.0])
    along, within = affine.copy(), affine.copy()
    along[2, 3] = within[0, 3] = 0.1
    assert same_grid(SHAPE, affine, SHAPE, along)
    assert not same_grid(SHAPE, affine, SHAPE, within)


def test_a_small_rotation_moves_the_far_end_of_a_large_grid() -> None:
    """A tenth of a degree changes no matrix element by more than 0.002, and corners by 0.5 mm."""
    turned = rigid((0, 0, np.deg2rad(0.1)), (0, 0, 0))
    shape = (400, 400, 400)
    assert np.allclose(turned, np.eye(4), atol=2e-3)
    assert not same_grid(shape, np.eye(4), shape, turned)
    assert same_grid((10, 10, 10), np.eye(4), (10, 10, 10), turned)


def test_shapes() -> None:
    for extra in ((), (1,), (1, 1)):
        assert same_grid(SHAPE, AFFINE, (*SHAPE, *extra), AFFINE)
    for other in ((64, 80, 19), (80, 64, 20), (64, 80), (*SHAPE, 2), (64, 80, 20, 1, 2)):
        assert not same_grid(SHAPE, AFFINE, other, AFFINE)
    assert str(grid_gap(SHAPE, AFFINE, (64, 80, 19, 1), AFFINE)) == (
        "shape (64, 80, 20) against (64, 80, 19)"
    )
    assert same_grid((*SHAPE, 2), AFFINE, (*SHAPE, 2), AFFINE)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_an_affine_that_cannot_be_used_is_no_grid(value: float) -> None:
    broken = AFFINE.copy()
    broken[0, 0] = value
    for one, other in product((AFFINE, broken), repeat=2):
        assert same_grid(SHAPE, one, SHAPE, other) == (one is other is AFFINE)
    assert not same_grid(SHAPE, AFFINE[:3], SHAPE, AFFINE)
    assert str(grid_gap(SHAPE, AFFINE, SHAPE, broken)) == "an affine is unusable"
