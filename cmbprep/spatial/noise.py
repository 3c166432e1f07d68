"""Noise level of an image, from the image alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def noise_level(image: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise, in the units of the image.

    The median absolute second difference inside the mask, along the axis that has the least
    of it, scaled to the standard deviation of white Gaussian noise. Anatomy changes slowly
    against the voxel and the median ignores the edges; on coarse grids some texture of the
    cortex remains in the figure, so that it is an upper bound there.

    Parameters
    ----------
    image, mask
        (X, Y, Z) image and the voxels to measure in.

    Returns
    -------
    float
        0 where there are too few voxels to tell.

    References
    ----------
    After Immerkaer J. Comput Vis Image Underst 1996;64:300-302.
    """
    levels = []
    for axis in range(image.ndim):
        if image.shape[axis] < 3:
            continue
        second = np.diff(image.astype(np.float32), n=2, axis=axis)
        inner = tuple(slice(1, -1) if a == axis else slice(None) for a in range(image.ndim))
        values = second[mask[inner]]
        if values.size:
            levels.append(float(np.median(np.abs(values))) / 0.6745 / math.sqrt(6))
    return min(levels) if levels else 0.0
