"""What a field of view shows of the template and of an atlas."""

from __future__ import annotations

import numpy as np

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
    counts = label_coverage(atlas, TEMPLATE, [shifted(0, 0, 0.4)], scan)
    # Every second voxel of each axis; those at 0, 2 and 4 along z are in view, and 6 is not.
    assert counts == {3: (40, 40), 101: (40, 20)}
