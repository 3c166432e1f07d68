"""Susceptibility-weighted images from magnitude and phase.

Haacke EM, Xu Y, Cheng YN, Reichenbach JR. Susceptibility weighted imaging (SWI). Magn
Reson Med 2004;52:612-618: the phase is high-pass filtered by dividing the complex image
by its low-pass version (a homodyne filter, in plane), a mask falls linearly from 1 at
phase zero to 0 at phase pi on the side of paramagnetic tissue, and the magnitude is
multiplied by the mask several times (four by default).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Width of the low-pass filter in samples of k-space, of 512.
FILTER_SIZE = 64
#: How often the magnitude is multiplied by the phase mask.
MASK_POWER = 4


def slice_axis(spacing: ArrayLike) -> int:
    """Return the axis across the slices: the coarsest, the last of equal ones."""
    steps = np.round(np.asarray(spacing, dtype=np.float64), 4)
    return int(len(steps) - 1 - np.argmax(steps[::-1]))


def high_pass_phase(
    signal: NDArray[np.complex64], size: int = FILTER_SIZE, *, across: int = 2
) -> NDArray[np.float32]:
    """Phase without its smooth part, by the homodyne filter.

    Parameters
    ----------
    signal
        Complex image, shape (X, Y, Z); filtered in the plane of two of its axes.
    size
        Width in k-space samples of the Hann window that is the low-pass filter, for an
        image of 512 samples (Haacke 2004 uses 64 x 64 of 512); it scales with the matrix.
    across
        The axis across the slices, which is not filtered.

    Returns
    -------
    numpy.ndarray
        Phase in radians, -pi..pi, float32.
    """
    from scipy import fft

    axes = tuple(axis for axis in range(3) if axis != across % 3)
    window = np.ones((1, 1, 1), np.float32)
    for axis in axes:
        length = signal.shape[axis]
        width = max(4.0, size * length / 512)
        k = np.fft.fftfreq(length, 1 / length)
        taper = np.where(np.abs(k) < width / 2, 0.5 * (1 + np.cos(2 * np.pi * k / width)), 0.0)
        shape = [1, 1, 1]
        shape[axis] = -1
        window = window * taper.astype(np.float32).reshape(shape)
    spectrum = fft.fftn(signal, axes=axes, workers=1)
    low = fft.ifftn(spectrum * window, axes=axes, workers=1)
    return np.angle(signal * np.conj(low)).astype(np.float32)


def phase_mask(phase: NDArray[np.float32], phase_sign: int = 1) -> NDArray[np.float32]:
    """Mask that falls from 1 to 0 as the phase goes to pi on the paramagnetic side.

    A vein along the main field, and the equator of a dipole, are those where the phase of a
    right-handed system (`phase_sign` +1) is positive for a paramagnetic vein along the field.

    Parameters
    ----------
    phase
        High-pass filtered phase in radians.
    phase_sign
        +1 where phase grows with the field (right-handed), -1 where it falls.
    """
    paramagnetic = phase * np.float32(phase_sign)
    return np.clip(1 - paramagnetic / np.float32(np.pi), 0, 1).astype(np.float32)


def swi(
    signal: NDArray[np.complex64], *, phase_sign: int = 1, across: int = 2
) -> NDArray[np.float32]:
    """Multiply the magnitude by the phase mask, :data:`MASK_POWER` times.

    Parameters
    ----------
    signal
        Complex image, shape (X, Y, Z).
    phase_sign, across
        See :func:`phase_mask` and :func:`high_pass_phase`.

    Returns
    -------
    numpy.ndarray
        float32, in the unit of the magnitude and nowhere above it.
    """
    mask = phase_mask(high_pass_phase(signal, across=across), phase_sign)
    return np.minimum(np.abs(signal) * mask**MASK_POWER, np.abs(signal)).astype(np.float32)
