"""Scaling of a magnitude image for a network, by the intensities inside the brain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.candidates import relative_intensity

NORMALISATIONS = ("zscore-brain", "minmax-brain", "percentile-brain", "background-ratio", "none")

FloatArray = NDArray[np.float32]


def normalise(
    image: FloatArray,
    mask: NDArray[np.bool_],
    spacing: NDArray[np.float64],
    method: str,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> FloatArray:
    """Scale an image.

    Parameters
    ----------
    image, mask
        (X, Y, Z) magnitude, and the brain, which is not empty.
    spacing
        Voxel size, mm.
    method
        ``zscore-brain``: mean 0 and standard deviation 1 in the brain. ``minmax-brain``:
        lowest to highest value of the brain become 0 to 1; what is outside the brain may
        lie beyond. ``percentile-brain``: the same between two percentiles, and clipped to
        0..1. ``background-ratio``: over the local background, 0..3 and 1 in tissue like its
        surroundings (:func:`cmbprep.detectors.candidates.relative_intensity`). ``none``.
    percentiles
        For ``percentile-brain``.

    Returns
    -------
    array of shape (X, Y, Z), float32
        An image without contrast is only shifted.
    """
    if method == "none":
        return image
    if method == "background-ratio":
        return relative_intensity(image, mask, spacing)[0]
    values = image[mask].astype(np.float64)
    if method == "zscore-brain":
        low, scale = float(values.mean()), float(values.std())
    elif method == "minmax-brain":
        low, scale = float(values.min()), float(np.ptp(values))
    elif method == "percentile-brain":
        low, high = (float(v) for v in np.percentile(values, percentiles))
        scale = high - low
    else:
        raise ValueError(f"normalisation {method!r} is none of {NORMALISATIONS}")
    # Rounding leaves a trace of contrast in an image that has none.
    if not scale > 1e-6 * max(abs(low), 1e-30):
        scale = 1.0
    scaled = ((image - np.float32(low)) / np.float32(scale)).astype(np.float32)
    return np.clip(scaled, 0, 1) if method == "percentile-brain" else scaled
