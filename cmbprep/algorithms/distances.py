"""The box that holds a mask, and the distance from its surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

__all__ = ["bounding_box", "signed_distance"]


def bounding_box(mask: NDArray[np.bool_], margin: ArrayLike = 0) -> tuple[slice, slice, slice]:
    """Give the box of a mask, and so many voxels around it as far as the image goes.

    Parameters
    ----------
    mask
        (X, Y, Z).
    margin
        Voxels, along each axis or along all.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError("an empty mask has no box")
    i, j, k = (
        slice(max(s.start - int(n), 0), min(s.stop + int(n), size))
        for s, n, size in zip(found[0], np.broadcast_to(margin, 3), mask.shape, strict=True)
    )
    return i, j, k


def signed_distance(
    mask: NDArray[np.bool_], spacing: NDArray[np.floating], reach: float
) -> NDArray[np.float64]:
    """Distance between each voxel and the nearest one on the other side of a mask's surface.

    Parameters
    ----------
    mask
        (X, Y, Z), not empty.
    spacing
        Voxel size along each axis, mm.
    reach
        Outside the box that holds the mask and this much around it, mm, nothing is measured:
        most of an image is far away.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z), mm; negative within the mask, infinite where nothing was measured.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    # One voxel more, for the nearest outside of the mask.
    box = bounding_box(mask, np.ceil(reach / np.asarray(spacing)).astype(int) + 1)
    part = mask[box]
    distance = np.full(mask.shape, np.inf)
    outside = ndimage.distance_transform_edt(~part, sampling=spacing)
    distance[box] = outside - ndimage.distance_transform_edt(part, sampling=spacing)
    return distance
