"""The field of a magnetic dipole in the main field, and where the main field points.

A small body whose susceptibility differs from its surroundings by chi (ppm, SI) changes
the field around it, relative to the main field, by

    chi * volume / (4 pi) * (3 cos^2 theta - 1) / r^3      (ppm)

with theta the angle against the main field; in k-space, as a product with
``1/3 - (k . b)^2 / k^2`` (Salomir R, et al. Concepts Magn Reson B 2003;19B:26-34; Marques
JP, Bowtell R. Concepts Magn Reson B 2005;25B:65-78).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Gyromagnetic ratio of the proton over 2 pi, MHz/T (CODATA).
GAMMA_BAR = 42.577478


def radians_per_ppm(field_strength: float, echo_time: float) -> float:
    """Phase in rad that a field offset of 1 ppm gathers in an echo time (T, s)."""
    return 2 * np.pi * GAMMA_BAR * field_strength * echo_time


def main_field_direction(affine: ArrayLike) -> NDArray[np.float64]:
    """Return the direction of the main field along an image's axes.

    Parameters
    ----------
    affine
        4x4, voxel to scanner mm (RAS+): the main field of a lying patient is along z. Axes
        must be at right angles.

    Returns
    -------
    numpy.ndarray
        Unit vector of shape (3,). Its sign does not matter to the dipole.
    """
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    along = matrix[2] / np.sqrt((matrix**2).sum(axis=0))
    result: NDArray[np.float64] = along / np.linalg.norm(along)
    return result


def dipole_kernel(shape: Sequence[int], spacing: ArrayLike, b0: ArrayLike) -> NDArray[np.float32]:
    """Dipole kernel in k-space, laid out as ``scipy.fft.rfftn`` does.

    Parameters
    ----------
    shape
        Of the image, three axes.
    spacing
        mm.
    b0
        Direction of the main field along the axes.

    Returns
    -------
    numpy.ndarray
        float32, shape (X, Y, Z // 2 + 1); -2/3..1/3, and 0 at the origin.
    """
    step = np.asarray(spacing, dtype=np.float64)
    direction = np.asarray(b0, dtype=np.float64)
    direction = direction / np.linalg.norm(direction)
    kx = np.fft.fftfreq(shape[0], step[0]).astype(np.float32)[:, None, None]
    ky = np.fft.fftfreq(shape[1], step[1]).astype(np.float32)[None, :, None]
    kz = np.fft.rfftfreq(shape[2], step[2]).astype(np.float32)[None, None, :]
    square = kx**2 + ky**2 + kz**2
    square[0, 0, 0] = 1
    bx, by, bz = (np.float32(value) for value in direction)
    kernel: NDArray[np.float32] = np.float32(1 / 3) - (kx * bx + ky * by + kz * bz) ** 2 / square
    kernel[0, 0, 0] = 0
    return kernel


def dipole_at(
    offsets: NDArray[np.floating], b0: ArrayLike, *, least_mm: float = 0.0
) -> NDArray[np.float64]:
    """Field in ppm of a dipole of 1 ppm mm^3 at offsets from it.

    Parameters
    ----------
    offsets
        mm along the axes, shape (..., 3).
    b0
        Direction of the main field along the same axes.
    least_mm
        Closer than this, distance counts as this: keeps the value finite.
    """
    direction = np.asarray(b0, dtype=np.float64)
    direction = direction / np.linalg.norm(direction)
    square = (np.asarray(offsets, dtype=np.float64) ** 2).sum(axis=-1)
    square = np.maximum(square, max(least_mm, 1e-6) ** 2)
    along = offsets @ direction
    result: NDArray[np.float64] = (3 * along**2 / square - 1) / (4 * np.pi * square**1.5)
    return result
