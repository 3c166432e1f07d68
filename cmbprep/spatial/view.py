"""What the field of view of a scan shows of another space, such as the template's.

Points of that space are taken to the scan and lie in its grid or not. The template is looked at in
blocks of voxels, of which the centres are taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import PointMap, map_points

#: Voxels of the template on each side of a block.
BLOCK = 4
#: Part of a zone from which it counts as seen.
WHOLE = 0.99


def in_view(
    points: NDArray[np.float64], to_scan: Iterable[PointMap], scan: Grid
) -> NDArray[np.bool_]:
    """Return which points lie in the field of view of a scan.

    Parameters
    ----------
    points : array of shape (n, 3)
        RAS+ mm in the first space of the chain.
    to_scan
        Maps of points, in the order of use, to the scan.
    scan
        Its grid.

    Returns
    -------
    array of shape (n,)
        Whether each point lies in a voxel of the scan.
    """
    to_voxel = np.linalg.inv(scan.affine)
    voxels = map_points(points, to_scan) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    # A voxel reaches half of its size beyond its centre.
    inside = (voxels >= -0.5) & (voxels <= np.array(scan.shape) - 0.5)
    found: NDArray[np.bool_] = inside.all(axis=1)
    return found


def seen_blocks(template: Grid, to_scan: Iterable[PointMap], scan: Grid) -> NDArray[np.bool_]:
    """Return which blocks of the template's voxels a scan shows.

    Parameters
    ----------
    template
        Grid of the template.
    to_scan
        Maps of points, in the order of use, from the template to the scan.
    scan
        Its grid.

    Returns
    -------
    array of shape (i, j, k)
        For each block of :data:`BLOCK` voxels, whether its centre lies in the field of view.
    """
    shape = block_shape(template.shape)
    centres = np.argwhere(np.ones(shape, dtype=bool)) * BLOCK + (BLOCK - 1) / 2
    points = centres @ template.affine[:3, :3].T + template.affine[:3, 3]
    return in_view(points, to_scan, scan).reshape(shape)


def block_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many blocks there are along each axis of so many voxels."""
    return tuple(-(-n // BLOCK) for n in shape)


def fine(blocks: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Spread blocks over the voxels of the template."""
    full = blocks
    for axis in range(3):
        full = np.repeat(full, BLOCK, axis=axis)
    return full[: shape[0], : shape[1], : shape[2]]


def label_coverage(
    atlas: NDArray[np.integer], grid: Grid, to_scan: Iterable[PointMap], scan: Grid
) -> dict[int, tuple[int, int]]:
    """Count the voxels of each label of an atlas, and those in the field of view.

    Parameters
    ----------
    atlas
        Labels, (X, Y, Z); 0 is background.
    grid
        Grid of the atlas.
    to_scan
        Maps of points, in the order of use, from the space of the atlas to the scan.
    scan
        Its grid.

    Returns
    -------
    dict
        Label -> voxels, voxels in the field of view. Every second voxel of each axis is looked at.
    """
    step = 2
    coarse = atlas[::step, ::step, ::step]
    index = np.argwhere(coarse > 0)
    labels = coarse[tuple(index.T)].astype(np.intp)
    points = (index * step) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    seen = in_view(points, to_scan, scan)
    total = np.bincount(labels)
    shown = np.bincount(labels[seen], minlength=total.size)
    return {int(n): (int(total[n]), int(shown[n])) for n in np.flatnonzero(total)}
