"""What a scan shows of another space, such as the template's.

Points of that space are taken to the scan. A point is seen if it lies in the scan's field of view,
and not in a region where the image is empty (:mod:`.empty`). The template is looked at in blocks
of voxels, of which the centres are taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbprep.spatial.empty import empty_regions
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import PointMap, map_points

#: Voxels of the template on each side of a block.
BLOCK = 4
#: Part of a zone from which it counts as seen.
WHOLE = 0.99


class LabelCount(NamedTuple):
    """Voxels of a label: all, those in the field of view, and those of them that are not empty."""

    total: int
    in_field: int
    seen: int


@dataclass(frozen=True, eq=False)
class LabelCoverage:
    """What a scan shows of the labels of an atlas.

    Attributes
    ----------
    counts
        Label -> numbers of voxels.
    empty
        Voxels of the scan, (I, J, K), in large regions of the brain without signal.
    """

    counts: dict[int, LabelCount]
    empty: NDArray[np.bool_]


def in_view(
    points: NDArray[np.float64],
    to_scan: Iterable[PointMap],
    scan: Grid,
    empty: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Return which points a scan shows.

    Parameters
    ----------
    points : array of shape (n, 3)
        RAS+ mm in the first space of the chain.
    to_scan
        Maps of points, in the order of use, to the scan.
    scan
        Its grid.
    empty : array of shape (X, Y, Z), optional
        Voxels of the scan that show nothing, from :func:`.empty_regions`.

    Returns
    -------
    array of shape (n,)
        Whether each point lies in a voxel of the scan that is not empty.
    """
    voxels, found = _scan_voxels(points, to_scan, scan)
    if empty is not None:
        found[found] = ~empty[tuple(voxels[found].T)]
    return found


def _scan_voxels(
    points: NDArray[np.float64], to_scan: Iterable[PointMap], scan: Grid
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the voxel of the scan that each point lies in, and which points lie in one."""
    to_voxel = np.linalg.inv(scan.affine)
    voxels = map_points(points, to_scan) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    # A voxel reaches half of its size beyond its centre.
    inside = ((voxels >= -0.5) & (voxels <= np.array(scan.shape) - 0.5)).all(axis=1)
    nearest = np.clip(np.rint(voxels), 0, np.array(scan.shape) - 1)
    return nearest.astype(np.intp), inside


def seen_blocks(
    template: Grid,
    to_scan: Iterable[PointMap],
    scan: Grid,
    empty: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Return which blocks of the template's voxels a scan shows.

    Parameters
    ----------
    template
        Grid of the template.
    to_scan
        Maps of points, in the order of use, from the template to the scan.
    scan
        Its grid.
    empty : array of shape (X, Y, Z), optional
        Voxels of the scan that show nothing.

    Returns
    -------
    array of shape (i, j, k)
        For each block of :data:`BLOCK` voxels, whether the scan shows its centre.
    """
    shape = block_shape(template.shape)
    centres = np.argwhere(np.ones(shape, dtype=bool)) * BLOCK + (BLOCK - 1) / 2
    points = centres @ template.affine[:3, :3].T + template.affine[:3, 3]
    return in_view(points, to_scan, scan, empty).reshape(shape)


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
    atlas: NDArray[np.integer],
    grid: Grid,
    to_scan: Iterable[PointMap],
    scan: Grid,
    values: NDArray[Any] | None = None,
) -> LabelCoverage:
    """Count the voxels of each label of an atlas, those in view, and those with signal.

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
    values
        The scan's image, (I, J, K). None for a scan with signal in its whole field of view.

    Returns
    -------
    LabelCoverage
        Every second voxel of each axis of the atlas is looked at.
    """
    step = 2
    coarse = atlas[::step, ::step, ::step]
    index = np.argwhere(coarse > 0)
    labels = coarse[tuple(index.T)].astype(np.intp)
    points = (index * step) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    voxels, inside = _scan_voxels(points, to_scan, scan)
    brain = np.zeros(scan.shape, dtype=bool)
    brain[tuple(voxels[inside].T)] = True
    empty = np.zeros_like(brain) if values is None else empty_regions(values, brain, scan.spacing)
    seen = inside & ~empty[tuple(voxels.T)]
    total = np.bincount(labels)
    in_field, shown = (np.bincount(labels[one], minlength=total.size) for one in (inside, seen))
    counts = {
        int(n): LabelCount(int(total[n]), int(in_field[n]), int(shown[n]))
        for n in np.flatnonzero(total)
    }
    return LabelCoverage(counts, empty)
