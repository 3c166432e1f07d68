"""Sign convention of the phase: whether it grows or falls with the field.

DICOM and BIDS do not fix the sign, and scanners use both. The convention decides what looks
paramagnetic, so it is estimated from the scan itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.phase.local_field import LocalField, blur
from cmbprep.phase.susceptibility import susceptibility_map

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class PhaseSign:
    """Which way the phase of a scan grows.

    Attributes
    ----------
    sign
        +1 where phase grows with the field (right-handed), -1 where it falls, None where the
        data do not tell.
    confidence
        Standard errors by which the mean over the brain's parts differs from zero, signed.
    """

    sign: int | None
    confidence: float


#: Standard errors from which a sign is believed.
CLEAR_SIGN = 3.0
#: Only the brain deeper than this (mm) is asked, away from sinuses and skull base.
INNER_MM = 5.0


def phase_sign(
    field: LocalField, magnitude: FloatArray, chi: FloatArray | None = None
) -> PhaseSign:
    """Find the sign of the phase from what is known of the brain.

    Thin dark structures of the magnitude, veins above all and the rims of iron-rich nuclei,
    are paramagnetic. With the right sign, darkness in thin structures and susceptibility
    go together. Their covariance is taken in blocks of the brain; the sign is believed if
    the blocks' mean is well away from zero.

    Parameters
    ----------
    field
        The local field.
    magnitude
        (X, Y, Z), of the latest echo.
    chi
        Susceptibility map, if it is there already.
    """
    if chi is None:
        chi = susceptibility_map(field)
    spacing = field.spacing
    box = field.box
    trusted = (field.trust[box] > 0.3) & (field.depth[box] > INNER_MM)
    if np.count_nonzero(trusted) < 1000:
        return PhaseSign(None, 0.0)
    logarithm = np.log(np.maximum(magnitude[box], 1e-6))
    thin, strength = _high_pass([logarithm, chi[box]], trusted, spacing)
    usual = float(np.median(np.abs(strength[trusted]))) / 0.6745
    level = float(np.median(np.abs(thin[trusted]))) / 0.6745
    if not (usual > 0 and level > 0):
        return PhaseSign(None, 0.0)
    # Only what stands out in both: most thin dark things, sulci say, have no field.
    dark = np.where(thin < -1.5 * level, np.clip(-thin, 0, 0.7), 0)
    strength = np.clip(strength / np.float32(usual), -8, 8)
    dark[np.abs(strength) < 4] = 0
    blocks = np.maximum(np.round(20.0 / spacing).astype(int), 1)
    sums, weights = _block_sums(dark * strength, blocks), _block_sums(dark, blocks)
    used = weights > 0
    if np.count_nonzero(used) < 10:
        return PhaseSign(None, 0.0)
    # Square roots, so that no block outvotes the others.
    weights = np.sqrt(weights[used])
    values = sums[used] / weights**2
    mean = float((values * weights).sum() / weights.sum())
    spread = float((weights**2 * (values - mean) ** 2).sum())
    error = math.sqrt(spread) / float(weights.sum())
    confidence = mean / max(error, 1e-9)
    sign = None if abs(confidence) < CLEAR_SIGN else (1 if confidence > 0 else -1)
    return PhaseSign(sign, confidence)


def _high_pass(
    images: Sequence[FloatArray], trusted: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> list[FloatArray]:
    """What differs from the trusted surroundings within 3 mm in the plane, in each image."""
    weight = trusted.astype(np.float32)
    sigma = np.where(spacing <= 2 * spacing.min(), 3.0 / spacing, 0.0)
    total = np.maximum(blur(weight, sigma), 1e-3)
    return [
        np.asarray((image - blur(image * weight, sigma) / total) * weight, dtype=np.float32)
        for image in images
    ]


def _block_sums(image: FloatArray, blocks: NDArray[np.int_]) -> NDArray[np.float64]:
    edges = [np.arange(0, n, b) for n, b in zip(image.shape, blocks, strict=True)]
    sums = image.astype(np.float64)
    for axis, starts in enumerate(edges):
        sums = np.add.reduceat(sums, starts, axis=axis)
    return np.asarray(sums.ravel())
