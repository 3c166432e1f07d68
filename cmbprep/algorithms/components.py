"""Connected parts of a probability map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["CONNECTIVITIES", "connected_parts"]

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
