"""What a field of view shows of the template and of an atlas."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import DisplacementMap, LinearMap
from cmbprep.spatial.view import fine, in_view, label_coverage, seen_blocks

TEMPLATE = Grid((10, 8, 12), np.diag([1.0, 1, 1, 1]))


def shifted(x: float, y: float, z: float) -> LinearMap:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return LinearMap(matrix)


def test_a_voxel_reaches_half_of_its_size_beyond_its_centre() -> None:
    scan = Grid((2, 2, 2), np.diag([2.0, 2, 4, 1]))
    points = np.array([(-1.0, -1, -2), (3, 3, 6), (3.1, 0, 0), (0, 0, 6.1), (0, -1.1, 0)])
    assert in_view(points, [], scan).tolist() == [True, True, False, False, False]
    moved = in_view(points, [shifted(-0.2, 0.2, -0.2)], scan)
    assert moved.tolist() == [False, False, True, True, True]


def test_blocks_are_seen_by_their_centres_after_all_maps() -> None:
    field = np.zeros((*TEMPLATE.shape, 3), np.float32)
    field[..., 2] = -6
    chain = [DisplacementMap(field, TEMPLATE.affine), shifted(0, 0, 1)]
    # Along z the centres lie at 1.5, 5.5 and 9.5, and come to -3.5, 0.5 and 4.5 in the scan.
    seen = seen_blocks(TEMPLATE, chain, Grid((20, 20, 4), np.diag([1.0, 1, 1, 1])))
    assert seen.shape == (3, 2, 3)
    assert seen[..., 1].all() and not seen[..., [0, 2]].any()
    full = fine(seen, TEMPLATE.shape)
    assert full.shape == TEMPLATE.shape
    assert full[..., 4:8].all() and np.count_nonzero(full) == 10 * 8 * 4


def test_the_part_of_a_label_in_view_is_counted() -> None:
    atlas = np.zeros(TEMPLATE.shape, np.uint8)
    atlas[:, :, :4], atlas[:, :, 4:8] = 3, 101
    scan = Grid((10, 8, 6), np.diag([1.0, 1, 1, 1]))
    counts = label_coverage(atlas, TEMPLATE, [shifted(0, 0, 0.4)], scan).counts
    # Every second voxel of each axis; those at 0, 2 and 4 along z are in view, and 6 is not.
    assert counts == {3: (40, 40, 40), 101: (40, 20, 20)}


def test_empty_regions_of_the_image_are_not_seen() -> None:
    """A block of zeros fills the right half of the second label, with turned and thick voxels."""
    grid = Grid((60, 60, 60), np.eye(4))
    atlas = np.zeros(grid.shape, np.uint8)
    atlas[5:55, 5:55, 5:30], atlas[5:55, 5:55, 30:55] = 3, 101
    turn, size = np.deg2rad(20), np.array([2.0, 1.5, 4.0])
    affine = np.eye(4)
    affine[:3, :3] = [
        [np.cos(turn), -np.sin(turn), 0],
        [np.sin(turn), np.cos(turn), 0],
        [0, 0, 1],
    ] * size
    affine[:3, 3] = 13, -16, -6
    for mirrored in (False, True):
        scan = Grid((43, 54, 18), affine)
        if mirrored:
            flip = np.diag([-1.0, 1, 1, 1])
            flip[0, 3] = scan.shape[0] - 1
            scan = Grid(scan.shape, affine @ flip)
        at = np.moveaxis(np.indices(scan.shape), 0, -1) @ scan.affine[:3, :3].T
        at += scan.affine[:3, 3]
        values = np.where((at[..., 0] > 30) & (at[..., 2] > 29.5), 0.0, 100.0)
        found = label_coverage(atlas, grid, [], scan, values)
        assert found.counts[3] == (7500, 7500, 7500)
        total, in_field, seen = found.counts[101]
        assert total == in_field
        assert seen / total == pytest.approx(0.5, abs=0.04)
        blocks = seen_blocks(grid, [], scan, found.empty)
        assert blocks[3, 7, 10] and not blocks[11, 7, 10]
        assert blocks[11, 7, 3]
