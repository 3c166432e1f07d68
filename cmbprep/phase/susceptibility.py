"""Is it iron or calcium: what the local field tells about the source of a void.

Iron in old blood is paramagnetic, calcium is diamagnetic, and both are dark in the
magnitude. Around either lies the field of a dipole, of opposite signs. All functions here
take a :class:`~cmbprep.phase.local_field.LocalField`; what they call positive is the
sign of the phase, which scanners define in two ways (:mod:`cmbprep.phase.sign`).

References
----------
Shmueli K, de Zwart JA, van Gelderen P, Li TQ, Dodd SJ, Duyn JH. Magnetic susceptibility
mapping of brain tissue in vivo using MRI phase data. Magn Reson Med 2009;62:1510-1522.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.phase.dipole import dipole_at, dipole_kernel
from cmbprep.phase.local_field import LocalField, blur, padded_shape

FloatArray = NDArray[np.float32]

#: Smallest absolute value of the dipole kernel (-2/3..1/3) that a field is divided by. Larger ones
#: give fewer streaks and too small values.
DIVISION_THRESHOLD = 0.19


def susceptibility_map(field: LocalField) -> FloatArray:
    """Estimate susceptibility by truncated division in k-space.

    Where the dipole kernel is smaller than the threshold, its inverse is replaced by the
    threshold's, sign kept (Shmueli 2009). Inside voids the field is replaced by the mean
    around first, which is what the field inside a ball is.

    Parameters
    ----------
    field
        The local field.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) float32, ppm, relative to the brain's mean; 0 outside the mask. Values
        are too small by some ten percent; in thick slices only their signs mean something.
    """
    from scipy import fft

    box = field.box
    values, weight = field.local[box], field.trust[box]
    mask = field.noise[box] > 0
    # Half a ball of filling radius: wide against a void, narrow against the brain.
    sigma = 2.0 / field.spacing
    total, mean = blur(weight, sigma), blur(values * weight, sigma)
    share = np.clip(2 * weight, 0, 1)
    filled = (share * values + (1 - share) * mean / np.maximum(total, np.float32(1e-3))) * mask
    shape = padded_shape(filled.shape, 16.0 / field.spacing)
    kernel = dipole_kernel(shape, field.spacing, field.b0)
    held = np.copysign(np.maximum(np.abs(kernel), np.float32(DIVISION_THRESHOLD)), kernel)
    spectrum = fft.rfftn(filled.astype(np.float32), s=shape, workers=1) / held
    spectrum[0, 0, 0] = 0
    chi = fft.irfftn(spectrum, s=shape, workers=1, overwrite_x=True)
    chi = chi[tuple(slice(0, n) for n in filled.shape)]
    result = np.zeros(field.local.shape, np.float32)
    chi -= np.float32(chi[mask].mean())
    result[box] = chi * mask
    return result


# --- one lesion -------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """What the field tells about the source of a lesion.

    Attributes
    ----------
    susceptibility
        ``paramagnetic``, ``diamagnetic`` or ``unknown``.
    score
        Log odds of paramagnetic over diamagnetic, positive for paramagnetic; 0 if nothing
        is known.
    moment
        Susceptibility times volume, ppm mm^3, right-handed. Too small, by up to a third,
        because the smooth background takes over part of the field.
    t_value
        Moment by its standard error.
    chi
        Mean of the susceptibility map in the lesion, ppm, right-handed.
    """

    susceptibility: str
    score: float = 0.0
    moment: float = 0.0
    t_value: float = 0.0
    chi: float = 0.0


UNKNOWN = Source("unknown")


def classify_susceptibility(
    field: LocalField,
    chi: FloatArray,
    voxels: NDArray[np.intp],
    *,
    sign: int | None,
    darkness: NDArray[np.floating] | None = None,
    others: NDArray[np.bool_] | None = None,
) -> Source:
    """Return whether a lesion is paramagnetic or diamagnetic.

    Parameters
    ----------
    field, chi
        Local field and susceptibility map.
    voxels
        (n, 3) of the lesion.
    sign
        From :func:`phase_sign`; None gives ``unknown``.
    darkness
        (n,) loss of signal, 0..1, in each voxel: where in the void the source lies.
    others
        (X, Y, Z): voxels of other lesions, whose surroundings are left out.
    """
    if sign is None or not len(voxels):
        return UNKNOWN
    fit = _fit_dipole(field, voxels, darkness, others)
    inside = float(np.mean(chi[tuple(voxels.T)])) * sign
    if fit is None:
        return Source("unknown", chi=inside)
    moment, error = fit
    t_value = moment * sign / error
    score = PER_T * math.asinh(t_value / 2) + PER_CHI * math.asinh(inside / 0.05)
    called = "diamagnetic" if score < DIAMAGNETIC_BELOW else "unknown"
    if score > PARAMAGNETIC_FROM:
        called = "paramagnetic"
    return Source(called, score, moment * sign, t_value, inside)


#: Log odds for each unit of asinh(t / 2), and of asinh(chi / 0.05 ppm): a logistic regression
#: without intercept, so that a flipped sign flips the score, on simulated lesions of five
#: protocols (``benchmarks/susceptibility.py fit``).
PER_T, PER_CHI = 3.5, 0.75
#: Scores beyond these are called. To lose a bleed is worse than to keep a calcification.
PARAMAGNETIC_FROM, DIAMAGNETIC_BELOW = 1.0, -1.2
#: The field is looked at out to this far from a lesion's surface, mm.
REACH_MM = 4.0


def _fit_dipole(
    field: LocalField,
    voxels: NDArray[np.intp],
    darkness: NDArray[np.floating] | None,
    others: NDArray[np.bool_] | None,
) -> tuple[float, float] | None:
    """Fit the lesion's dipole field and a smooth background to the field around it.

    Returns the moment (ppm mm^3, in the sign of the phase) and its standard error.
    """
    spacing = field.spacing
    weights = np.ones(len(voxels)) if darkness is None else np.clip(darkness, 0.02, 1)
    weights = weights / weights.sum()
    centre = weights @ voxels
    extent = np.abs(voxels - centre).max(axis=0) * spacing
    reach = REACH_MM + extent
    low = np.maximum(np.ceil(centre - reach / spacing), 0).astype(int)
    high = np.minimum(np.floor(centre + reach / spacing) + 1, field.local.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    trust = field.trust[box].copy()
    if others is not None:
        trust[others[box]] = 0
    index = np.argwhere(trust > 0.05)
    offsets = (index + low - centre) * spacing
    keep = np.linalg.norm(offsets / (reach / reach.min()), axis=1) <= reach.min()
    index, offsets = index[keep], offsets[keep]
    if len(index) < 40:
        return None
    values, weight, noise = (
        image[tuple(index.T)].astype(np.float64)
        for image in (field.total[box], trust, field.noise[box])
    )
    weight /= 1 + (noise / max(float(np.median(noise)), 1e-9)) ** 2
    dipole = _source_field(field, voxels, weights, index + low)
    scale = 10.0
    x, y, z = (offsets / scale).T
    smooth = np.stack(
        [np.ones_like(x), x, y, z, x * y, y * z, x * z, x**2 - y**2, 2 * z**2 - x**2 - y**2], 1
    )
    return _robust_fit(dipole, smooth, values, weight)


def _source_field(
    field: LocalField,
    voxels: NDArray[np.intp],
    weights: NDArray[np.float64],
    at: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Field of a source of 1 ppm mm^3, spread over the voxels by weight, at voxels `at`."""
    every = -(-len(voxels) // 80)
    voxels, weights = voxels[::every], weights[::every] / weights[::every].sum()
    # A thick voxel feels the mean over its height: sample it in as many places as fit.
    parts = np.maximum(np.round(field.spacing / field.spacing.min()), 1).astype(int)
    shifts = np.stack(
        np.meshgrid(*[(np.arange(p) + 0.5) / p - 0.5 for p in parts], indexing="ij"), -1
    ).reshape(-1, 3)
    least = float(field.spacing.min())
    result = np.zeros(len(at))
    for voxel, weight in zip(voxels, weights, strict=True):
        for shift in shifts:
            offsets = (at + shift - voxel) * field.spacing
            result += weight / len(shifts) * dipole_at(offsets, field.b0, least_mm=least)
    return result


def _robust_fit(
    dipole: NDArray[np.float64],
    smooth: NDArray[np.float64],
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> tuple[float, float] | None:
    """Weighted least squares, outliers weighed down twice."""
    design = np.column_stack([dipole / np.abs(dipole).max(), smooth])
    if len(values) < 3 * design.shape[1]:
        return None
    current = weight.copy()
    for _ in range(3):
        root = np.sqrt(current)[:, None]
        fit, *_ = np.linalg.lstsq(design * root, values * root[:, 0], rcond=None)
        rest = values - design @ fit
        spread = 1.4826 * float(np.median(np.abs(rest))) + 1e-9
        current = weight / np.maximum(1, np.abs(rest) / (2.5 * spread))
    covariance = np.linalg.pinv((design * current[:, None]).T @ design)
    variance = float((current * rest**2).sum() / max(current.sum() - design.shape[1], 1))
    # Neighbours are not independent: a point spread of about two voxels a side.
    error = math.sqrt(max(covariance[0, 0] * variance, 1e-18)) * 2.0
    moment = float(fit[0]) / float(np.abs(dipole).max())
    return moment, error / float(np.abs(dipole).max())
