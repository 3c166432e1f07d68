"""Connected parts of masks and of probability maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["CONNECTIVITIES", "connected_parts", "one_piece"]

#: Number of neighbours that count as connected -> largest number of steps along axes.
CONNECTIVITIES = {6: 1, 18: 2, 26: 3}


def connected_parts(
    probability: NDArray[np.floating], threshold: float, connectivity: int = 6, least: int = 1
) -> list[tuple[float, NDArray[np.int_]]]:
    """Find the connected parts of a map at or above a threshold, the highest first.

    Parameters
    ----------
    probability
        (X, Y, Z).
    threshold
        Lowest value of a voxel that belongs to a part.
    connectivity
        6, 18 or 26 neighbours.
    least
        Smallest number of voxels of a part.

    Returns
    -------
    list of (peak, voxels)
        Highest value, and (m, 3) voxel coordinates; parts with the same peak are in the order
        of the position of their peak.
    """
    structure = ndimage.generate_binary_structure(3, CONNECTIVITIES[connectivity])
    labels, _ = ndimage.label(probability >= threshold, structure)
    parts = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        voxels = np.argwhere(labels[box] == label) + [s.start for s in box]
        if len(voxels) < least:
            continue
        values = probability[tuple(voxels.T)]
        peak = int(np.argmax(values))
        parts.append((float(values[peak]), tuple(voxels[peak]), voxels))
    parts.sort(key=lambda part: (-part[0], part[1]))
    return [(peak, voxels) for peak, _, voxels in parts]


def one_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest 6-connected piece of a mask, and fill its holes.

    Parameters
    ----------
    mask
        (X, Y, Z).

    Returns
    -------
    ndarray
        The same shape. A hole is what no 6-connected way leads out of; the end of the image
        is outside. Of pieces of one size the first is kept; without any voxel, none is given.
    """
    # In the box that holds it: most of a scan is air.
    found = ndimage.find_objects(mask.view(np.uint8), 1)
    if not found or found[0] is None:
        return mask.copy()
    part = mask[found[0]]
    labels, count = ndimage.label(part)
    if count > 1:
        part = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    # The rim is air, so that what opens to the side of the box is no hole.
    whole = np.zeros_like(mask)
    whole[found[0]] = ndimage.binary_fill_holes(np.pad(part, 1))[1:-1, 1:-1, 1:-1]
    return whole
