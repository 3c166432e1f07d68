"""T1-weighted heads shown in the contrasts of T2*-weighted scans, as further real backgrounds.

There are many more free T1-weighted heads than gradient-echo scans without microbleeds. Their
sulci, gyri, ventricles and the border of the brain are as real; only their contrast is another
one. A curve over their grey values brings fluid, grey and white matter to levels that are drawn
anew each time, from dark fluid (strong T1 weighting, as in many SWI protocols) to fluid much
brighter than tissue (echo-planar images). Iron and veins do not show in a T1-weighted image, and
so not here either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["recoloured"]

#: Grey values of a T1-weighted image over that of white matter: fluid, grey matter, white matter,
#: and arteries, which inflow makes brighter still.
T1W_LEVELS = (0.3, 0.7, 1.0, 1.35)
# Percentile of the brain's grey values at which white matter lies.
_WHITE = 88
# Ranges of the new levels, over that of white matter: fluid, grey matter, arteries.
_FLUID = (0.4, 1.9)
_GREY = (0.88, 1.2)
_ARTERIES = (0.1, 1.0)
# How far from the brain fluid and vessels still look like those in it, mm; bone is dark beyond.
_RIM_MM = (1.0, 5.0)
# Level of the scalp's fat, which may be suppressed.
_OUTSIDE = (0.05, 0.8)


def recoloured(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Give a T1-weighted image the contrast of a T2*-weighted one that is drawn at random.

    Parameters
    ----------
    image
        (X, Y, Z), without bias, of a whole head.
    mask
        Its brain.
    spacing
        Size of the voxels, mm.
    rng
        Source of the levels.

    Returns
    -------
    ndarray
        The same shape; white matter is 1.

    Raises
    ------
    ValueError
        If the mask is empty, or the brain dark.
    """
    if not mask.any():
        raise ValueError("there is no brain in the mask of a T1-weighted background")
    white = float(np.percentile(image[mask], _WHITE))
    if not white > 0:
        raise ValueError("the brain of a T1-weighted background is dark")
    relative = np.maximum(image, 0) / np.float32(white)
    levels = (rng.uniform(*_FLUID), rng.uniform(*_GREY), 1.0, rng.uniform(*_ARTERIES))
    inner = np.interp(relative, T1W_LEVELS, levels).astype(np.float32)
    outer = relative * np.float32(rng.uniform(*_OUTSIDE))
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing).astype(np.float32)
    part = np.clip(1 - distance / np.float32(rng.uniform(*_RIM_MM)), 0, 1)
    return np.asarray(inner * part + outer * (1 - part), np.float32)
