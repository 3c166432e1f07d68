"""Figures of merit of a scan: what sizes and counts of lesions depend on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.spatial.grids import Grid
from cmbprep.spatial.noise import noise_level


def image_quality(
    raw: NDArray[np.floating],
    corrected: NDArray[np.floating],
    mask: NDArray[np.bool_],
    affine: ArrayLike,
) -> dict[str, float | list[float]]:
    """Measure a scan within the brain.

    Parameters
    ----------
    raw, corrected : arrays of shape (i, j, k)
        Intensities before and after bias correction.
    mask : array of shape (i, j, k)
        The brain.
    affine : array of shape (4, 4)
        Voxel to RAS+ mm.

    Returns
    -------
    dict
        ``voxel_size_mm`` along the axes as stored; ``coverage_mm``, the extent of the field
        of view along each; ``brain_volume_ml``; ``snr``, the median intensity over the
        standard deviation of the noise; ``bias_ratio``, the 95th over the 5th percentile
        of the field that was divided out; ``brain_cut_fraction``, the part of the mask
        that lies in the outermost slices, more than about 0.01 where the scan does not
        cover the brain. Figures of an empty mask are left out.
    """
    grid = Grid(raw.shape, np.asarray(affine, dtype=float))
    spacing = grid.spacing
    result: dict[str, float | list[float]] = {
        "voxel_size_mm": [round(float(v), 4) for v in spacing],
        "coverage_mm": [round(float(v), 2) for v in spacing * np.array(raw.shape)],
        "brain_volume_ml": round(float(mask.sum() * spacing.prod() / 1000), 2),
    }
    inside = mask & (corrected > 0) & (raw > 0)
    if not inside.any():
        return result
    noise = noise_level(np.asarray(raw, dtype=np.float32), mask)
    low, high = np.percentile(raw[inside] / corrected[inside], [5, 95])
    if noise > 0:
        result["snr"] = round(float(np.median(raw[inside]) / noise), 2)
    result["bias_ratio"] = round(float(high / low), 3)
    result["brain_cut_fraction"] = round(_cut(mask), 4)
    return result


def _cut(mask: NDArray[np.bool_]) -> float:
    """Part of a mask in the first and last slice of the axis where it is cut most."""
    ends = [
        np.take(mask, 0, axis=axis).sum() + np.take(mask, -1, axis=axis).sum() for axis in range(3)
    ]
    return float(max(ends) / mask.sum())
