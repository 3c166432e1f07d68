"""The dark spot that a reader points at, told apart from darker things that it touches.

A lesion at the cortex lies beside sulci, veins and the skull, which are as dark or darker. A region
that grows from the darkest voxel near the reader's position would go over to them. So the position
is first brought to the lesion's own darkest voxel, downhill, and where the dark region around that
voxel also holds something darker, each voxel goes to the nearer of the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: The darkest voxel of a lesion lies at most this far from where a reader points, mm.
NEAR_MM = 2.0
#: Surroundings that the depth of a lesion is measured against, and that are looked at, mm.
REACH_MM = 8.0
#: Part of a lesion's depth that noise and texture may have.
NOISE = 0.15

BoolArray = NDArray[np.bool_]
_NEIGHBOURS = np.ones((3, 3, 3), bool)


def basin(
    image: NDArray[np.floating],
    brain: BoolArray,
    spacing: NDArray[np.floating],
    position: NDArray[np.floating],
) -> tuple[NDArray[np.int_], BoolArray] | None:
    """Find the dark spot at a position.

    Parameters
    ----------
    image, brain
        (X, Y, Z) magnitude and brain mask.
    spacing
        Voxel size, mm.
    position
        Voxel coordinates, (3,).

    Returns
    -------
    darkest, own
        Voxel coordinates (3,) of its darkest voxel, and (X, Y, Z) where it may reach: everywhere
        but nearer to something darker that it touches. None where nothing is dark.
    """
    # A reader points at a voxel; a slice may be thicker than a lesion.
    position = np.clip(np.round(position), 0, np.array(image.shape) - 1)
    low = np.maximum(np.floor(position - REACH_MM / spacing), 0).astype(int)
    high = np.minimum(np.ceil(position + REACH_MM / spacing) + 1, image.shape).astype(int)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    patch, inside = np.asarray(image[window], float), brain[window]
    steps = (np.indices(patch.shape).reshape(3, -1).T + low - position) * spacing
    distance = np.linalg.norm(steps, axis=1).reshape(patch.shape)
    near = inside & (distance <= max(NEAR_MM, 1.01 * float(spacing.min())))
    start = near & (distance <= max(1.0, 1.01 * float(spacing.min())))
    if not start.any():
        return None
    surround = float(np.median(patch[inside]))
    darkest = _darkest(patch, start)
    while (lower := _downhill(patch, near, darkest, surround)) != darkest:
        darkest = lower
    depth = surround - patch[darkest]
    if depth <= 0:
        return None
    own = np.ones(image.shape, bool)
    own[window] = _nearer(patch, inside, darkest, depth, spacing)
    return np.array(darkest) + low, own


Voxel = tuple[int, int, int]


def _darkest(patch: NDArray[np.float64], where: BoolArray) -> Voxel:
    i, j, k = np.unravel_index(np.argmin(np.where(where, patch, np.inf)), patch.shape)
    return int(i), int(j), int(k)


def _part(mask: BoolArray, voxel: Voxel) -> BoolArray:
    """Return the connected part of a mask that holds a voxel."""
    parts, _ = ndimage.label(mask, _NEIGHBOURS)
    return np.asarray(parts == parts[voxel])


def _downhill(patch: NDArray[np.float64], near: BoolArray, voxel: Voxel, surround: float) -> Voxel:
    """Return the darkest voxel that can be reached without climbing higher than the noise."""
    level = patch[voxel] + NOISE * max(0.0, surround - patch[voxel])
    return _darkest(patch, _part(near & (patch <= level), voxel))


def _nearer(
    patch: NDArray[np.float64],
    inside: BoolArray,
    darkest: Voxel,
    depth: float,
    spacing: NDArray[np.floating],
) -> BoolArray:
    """Return the voxels that are not nearer to something darker than to the spot itself."""
    bottom = patch[darkest]
    others = inside & (patch < bottom - NOISE * depth)

    def merged(level: float) -> bool:
        return bool((_part(inside & (patch <= level), darkest) & others).any())

    high = bottom + depth / 2
    if not merged(high):
        return np.ones(patch.shape, bool)
    low = bottom
    # The highest level at which the spot still stands alone, to 1 % of its depth.
    while high - low > 0.01 * depth:
        middle = (low + high) / 2
        low, high = (low, middle) if merged(middle) else (middle, high)
    spot = _part(inside & (patch <= low), darkest)
    others = inside & (patch <= low) & ~spot
    apart = [ndimage.distance_transform_edt(~mask, spacing) for mask in (spot, others)]
    return np.asarray(apart[0] <= apart[1])
