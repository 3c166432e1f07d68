"""Carrying labels between scan and template: the box tricks change nothing but the time."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from cmbprep.spatial.grids import Grid, crop_grid
from cmbprep.spatial.propagate import carry_atlas, carry_lesions
from cmbprep.spatial.transforms import LinearMap, apply_transforms, map_points

TEMPLATE = Grid(
    (60, 70, 60), np.array([[1, 0, 0, -30], [0, 1, 0, -35], [0, 0, 1, -30], [0, 0, 0, 1.0]])
)


def rotation(degrees: float, shift: tuple[float, float, float]) -> LinearMap:
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return LinearMap(matrix)


def scan_grid(flip: bool) -> Grid:
    """An oblique grid of thick slices, left-handed if flipped."""
    affine = np.diag([0.9, 0.9, 4.0, 1.0])
    if flip:
        affine[0, 0] = -0.9
    affine[:3, 3] = (-0.45 * 55 * np.sign(affine[0, 0]), -0.45 * 60, -2.0 * 11)
    return Grid((55, 60, 12), rotation(12, (0, 0, 0)).matrix @ affine)


@pytest.mark.parametrize("flip", [False, True])
def test_the_atlas_is_the_whole_resampling_within_the_margin(flip: bool) -> None:
    grid, to_template = scan_grid(flip), rotation(-7, (2, 1, -1))
    rng = np.random.default_rng(3)
    blocks = rng.integers(1, 20, size=(6, 7, 6)).repeat(10, 0).repeat(10, 1).repeat(10, 2)
    atlas = nib.Nifti1Image(blocks.astype(np.uint8), TEMPLATE.affine)
    mask = np.zeros(grid.shape, dtype=bool)
    mask[25:35, 28:40, 5:7] = True
    whole = np.asarray(
        apply_transforms(atlas, grid, [to_template], interpolation="nearest").dataobj
    )
    carried = carry_atlas(atlas, mask, grid, [to_template])
    assert np.array_equal(carried[mask], whole[mask])
    labelled = np.argwhere(carried > 0)
    assert labelled[:, 0].min() == 25 - 11  # 10 mm of 0.9 mm voxels
    assert set(np.unique(carried)) - {0} <= set(np.unique(whole))


@pytest.mark.parametrize("flip", [False, True])
def test_a_lesion_lands_where_its_points_land(flip: bool) -> None:
    grid, to_template = scan_grid(flip), rotation(-7, (2, 1, -1))
    labels = np.zeros(grid.shape, dtype=np.int32)
    labels[20:24, 30:34, 4] = 1
    labels[40, 20, 8] = 2
    mask = carry_lesions(labels, grid, TEMPLATE, [to_template], [to_template.inverse()])
    for label in (1, 2):
        centre = np.argwhere(labels == label).mean(axis=0)
        voxel = apply_affine(
            np.linalg.inv(TEMPLATE.affine),
            map_points([apply_affine(grid.affine, centre)], [to_template]),
        )[0]
        assert mask[tuple(np.round(voxel).astype(int))] == 1
    voxel_volume = abs(np.linalg.det(grid.affine[:3, :3]))
    assert mask.sum() == pytest.approx(17 * voxel_volume, rel=0.1)
    whole = apply_transforms(
        nib.Nifti1Image((labels > 0).astype(np.uint8), grid.affine),
        TEMPLATE,
        [to_template.inverse()],
        interpolation="nearest",
    )
    assert np.abs(mask.astype(int) - np.asarray(whole.dataobj)).sum() <= 2


def test_a_lesion_smaller_than_a_template_voxel_is_not_lost() -> None:
    affine = np.diag([0.2, 0.2, 0.2, 1.0])
    affine[0, 3] = -20
    grid = Grid((200, 20, 20), affine)
    labels = np.zeros(grid.shape, dtype=np.int32)
    labels[2::10, 2, 2] = np.arange(1, 21)
    identity = LinearMap(np.eye(4))
    mask = carry_lesions(labels, grid, TEMPLATE, [identity], [identity])
    assert mask.sum() == 20


def test_a_lesion_outside_the_template_is_left_out() -> None:
    grid = Grid((5, 5, 5), np.diag([1.0, 1, 1, 1]))
    labels = np.zeros(grid.shape, dtype=np.int32)
    labels[2, 2, 2] = 1
    far = rotation(0, (500, 0, 0))
    assert carry_lesions(labels, grid, TEMPLATE, [far], [far.inverse()]).sum() == 0


def test_an_empty_mask_and_no_lesions_give_empty_images() -> None:
    grid, identity = scan_grid(False), LinearMap(np.eye(4))
    atlas = nib.Nifti1Image(np.ones(TEMPLATE.shape, dtype=np.uint8), TEMPLATE.affine)
    assert not carry_atlas(atlas, np.zeros(grid.shape, dtype=bool), grid, [identity]).any()
    labels = np.zeros(grid.shape, dtype=np.int32)
    assert not carry_lesions(labels, grid, TEMPLATE, [identity], [identity]).any()


def test_a_cropped_grid_keeps_the_places_of_its_voxels() -> None:
    grid = scan_grid(True)
    part = crop_grid(grid, (3, 4, 5), (7, 6, 2))
    inside = apply_affine(part.affine, (2, 1, 1))
    assert np.allclose(inside, apply_affine(grid.affine, (5, 5, 6)))
