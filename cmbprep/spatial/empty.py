"""Large parts of the brain in which an image has no signal: exactly 0, or no finite number.

Such parts come from a mask that was applied too tightly, from padding, or from a block of data
that is missing. Nothing can be found there. A single dark voxel is different: a microbleed or a
vein may have the value 0, and it is seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.spatial.grids import bounding_box

#: Distance from the nearest signal, mm, from which a voxel of the brain belongs to the inside of an
#: empty region. The border of a registered brain may lie this far outside the signal.
DEPTH_MM = 5.0
#: Smallest volume of an empty region, ml. Microbleeds have at most 0.5 ml (10 mm).
SMALLEST_ML = 2.0


def empty_regions(
    values: NDArray[Any], brain: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return the voxels of large regions of the brain in which an image has no signal.

    Empty voxels of the background belong to a region only next to empty brain, so that a
    background of 0 around a brain with signal gives none.

    Parameters
    ----------
    values : array of shape (X, Y, Z)
        The image.
    brain : array of shape (X, Y, Z)
        Voxels of the brain. Points of it at most :data:`DEPTH_MM` apart are enough.
    spacing : array of shape (3,)
        Voxel size, mm.

    Returns
    -------
    array of shape (X, Y, Z)
        Whether each voxel lies in an empty region: at least :data:`SMALLEST_ML` of connected
        voxels around voxels of the brain that are more than :data:`DEPTH_MM` and half a voxel
        away from any signal.
    """
    found = np.zeros(values.shape, dtype=bool)
    inside = brain & _without_signal(values)
    if not inside.any():
        return found
    # The surface of the signal lies up to half a voxel from the centres of its voxels.
    depth = DEPTH_MM + float(np.max(spacing)) / 2
    reach = depth + float(np.max(spacing))
    box = bounding_box(inside, np.ceil(reach / spacing).astype(int) + 1)
    empty = _without_signal(values[box])
    core = inside[box] & (_distance(~empty, spacing) > depth)
    # The core's surroundings are empty, too, up to the signal.
    near = empty & (_distance(core, spacing) <= reach)
    regions, _ = ndimage.label(near)
    sizes = np.bincount(regions.ravel()) * float(np.prod(spacing)) / 1000
    found[box] = near & (sizes >= SMALLEST_ML)[regions]
    return found


def _without_signal(values: NDArray[Any]) -> NDArray[np.bool_]:
    return (values == 0) | ~np.isfinite(values)


def _distance(target: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each voxel to a mask, mm; infinite where the mask is empty."""
    if not target.any():
        return np.full(target.shape, np.inf)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~target, sampling=spacing)
    return distance
