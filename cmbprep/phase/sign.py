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
from scipy import ndimage

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
        Standard errors by which the cues together differ from zero, signed.
    veins, base
        What thin dark structures and the field above the skull base contribute to it.
    """

    sign: int | None
    confidence: float
    veins: float = 0.0
    base: float = 0.0


#: Standard errors from which a sign is believed.
CLEAR_SIGN = 3.0
#: Only the brain deeper than this (mm) is asked, away from sinuses and skull base; deeper in
#: thick slices, where the background is removed less well at the border.
INNER_MM, INNER_THICK_MM = 5.0, 8.0
#: Side in mm of the blocks whose values are compared: as large as a scan allows that shows a
#: part of a brain.
BLOCKS_MM = (6.0, 20.0)
#: A thin dark structure that fills this part of a square of this side (mm) is a sheet: the falx
#: is dark but diamagnetic.
SHEET_SHARE, SHEET_MM = 0.35, 25.0
#: Skewness of the field above the skull base that counts as one standard error, and how many
#: of them it counts for at most: it never decides alone.
BASE_SKEWNESS, BASE_AT_MOST = 0.15, 2.0
#: ppm between the first and the last hundredth of that field, from which it is that of air: dura
#: and veins alone, or a phase that was filtered, have less.
BASE_LEAST_PPM = 0.15
#: Height in mm above the lower surface of the brain in which that field is looked at, and the
#: volume in ml of a brain that is whole enough.
BASE_MM, WHOLE_ML = 15.0, 400.0


def phase_sign(
    field: LocalField, magnitude: FloatArray, chi: FloatArray | None = None
) -> PhaseSign:
    """Find the sign of the phase from what is known of the brain.

    Two cues. Thin dark structures of the magnitude, veins above all and the rims of iron-rich
    nuclei, are paramagnetic: with the right sign, darkness and susceptibility go together. Sheets
    of dura are dark and diamagnetic and left out. And air in the sinuses and ears below the brain
    raises the field above it. The first cue can decide alone; the second adds to or takes from it.

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
    veins = _veins(field, magnitude, chi)
    base = float(np.clip(base_skewness(field) / BASE_SKEWNESS, -BASE_AT_MOST, BASE_AT_MOST))
    confidence = veins + base
    clear = abs(confidence) >= CLEAR_SIGN
    return PhaseSign((1 if confidence > 0 else -1) if clear else None, confidence, veins, base)


def _veins(field: LocalField, magnitude: FloatArray, chi: FloatArray) -> float:
    """Standard errors by which thin dark structures are paramagnetic; 0 if there are too few.

    The covariance of darkness and susceptibility is taken in blocks of the brain.
    """
    spacing = field.spacing
    box = field.box
    inner = INNER_THICK_MM if field.in_plane_only else INNER_MM
    trusted = (field.trust[box] > 0.3) & (field.depth[box] > inner)
    if np.count_nonzero(trusted) < 1000:
        return 0.0
    logarithm = np.log(np.maximum(magnitude[box], 1e-6))
    thin, strength = _high_pass([logarithm, chi[box]], trusted, spacing)
    usual = float(np.median(np.abs(strength[trusted]))) / 0.6745
    level = float(np.median(np.abs(thin[trusted]))) / 0.6745
    if not (usual > 0 and level > 0):
        return 0.0
    # Only what stands out in both: most thin dark things, sulci say, have no field.
    dark = np.where(thin < -1.5 * level, np.clip(-thin, 0, 0.7), 0)
    left_out = sheets(dark > 0, trusted, spacing)
    dark[left_out] = 0
    strength = np.clip(strength / np.float32(usual), -8, 8)
    dark[np.abs(strength) < 4] = 0
    volume = np.count_nonzero(trusted & ~left_out) * float(np.prod(spacing))
    side = np.clip(np.cbrt(volume / 60), *BLOCKS_MM)
    blocks = np.maximum(np.round(side / spacing).astype(int), 1)
    sums, weights = _block_sums(dark * strength, blocks), _block_sums(dark, blocks)
    used = weights > 0
    if np.count_nonzero(used) < 10:
        return 0.0
    # Square roots, so that no block outvotes the others.
    weights = np.sqrt(weights[used])
    values = sums[used] / weights**2
    mean = float((values * weights).sum() / weights.sum())
    spread = float((weights**2 * (values - mean) ** 2).sum())
    error = math.sqrt(spread) / float(weights.sum())
    return mean / max(error, 1e-9)


def sheets(
    dark: NDArray[np.bool_], trusted: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Find thin sheets across an axis, as the falx is: dark all over a square of some size.

    A vein fills but a strip of such a square.

    Parameters
    ----------
    dark, trusted
        Thin dark voxels, and the voxels that were looked at, shape (X, Y, Z).
    spacing
        mm.

    Returns
    -------
    numpy.ndarray
        Shape (X, Y, Z): the sheets with 1.5 mm on both sides.
    """
    found = np.zeros(dark.shape, bool)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        size = np.ones(3, int)
        size[others] = np.maximum(np.round(SHEET_MM / spacing[others]), 1).astype(int)
        around = np.ones(3, int)
        around[axis] = 3  # a sheet may be tilted by a voxel
        wide = ndimage.maximum_filter(dark, tuple(around)).astype(np.float32)
        filled, seen = (
            ndimage.uniform_filter(part, tuple(size), mode="constant")
            for part in (wide, trusted.astype(np.float32))
        )
        sheet = filled > SHEET_SHARE * np.maximum(seen, np.float32(0.15))
        around[axis] = 2 * math.ceil(1.5 / spacing[axis]) + 1
        found |= ndimage.maximum_filter(sheet, tuple(around))
    return found


def base_skewness(field: LocalField) -> float:
    """Skewness of the field above the lower surface of the brain, -1..1, in the sign of the phase.

    Air below the brain raises the field above and below itself by twice as much as it lowers it
    beside; what a scanner's shim takes from the whole brain is removed first. 0 if the scan does
    not show the base of a whole brain.
    """
    up = int(np.argmax(np.abs(field.b0)))
    coarse = np.maximum(np.round(2.5 / field.spacing).astype(int), 1)
    part = tuple(slice(None, None, int(step)) for step in coarse)
    total, trust, depth = (
        np.moveaxis(image[part], up, 2) for image in (field.total, field.trust, field.depth)
    )
    if field.b0[up] < 0:
        total, trust, depth = (image[:, :, ::-1] for image in (total, trust, depth))
    brain = depth > 0
    spacing = np.append(np.delete(field.spacing * coarse, up), field.spacing[up] * coarse[up])
    if np.count_nonzero(brain) * float(np.prod(spacing)) < 1000 * WHOLE_ML:
        return 0.0
    points = np.argwhere(brain & (trust > 0.05))
    lowest = np.argmax(brain, axis=2)[tuple(points[:, :2].T)]
    half = np.median(points[:, 2])
    near = (points[:, 2] < half) & ((points[:, 2] - lowest) * spacing[2] < BASE_MM)
    # Where the image cuts the brain off, its lower surface is not its base.
    if np.count_nonzero(near) < 500 or np.mean(lowest[near] == 0) > 0.3:
        return 0.0
    rest, spread = _without_harmonics(points * spacing, total[tuple(points.T)])
    low, high = np.percentile(rest[near], (1, 99))
    if (high - low) * spread < BASE_LEAST_PPM:
        return 0.0
    rest = np.clip(rest, -10, 10)[near]
    return float((rest**3).sum() / max(float((np.abs(rest) ** 3).sum()), 1e-9))


def _without_harmonics(
    places: NDArray[np.float64], values: FloatArray
) -> tuple[NDArray[np.float64], float]:
    """Remove harmonics up to the second order by a robust fit; in standard deviations, and one."""
    x, y, z = ((places - places.mean(axis=0)) / 100).T
    terms = [np.ones_like(x), x, y, z, x * y, y * z, x * z, x**2 - y**2, 2 * z**2 - x**2 - y**2]
    basis, weight = np.stack(terms, axis=1), np.ones(len(x))
    for _ in range(4):
        root = np.sqrt(weight)
        fit, *_ = np.linalg.lstsq(basis * root[:, None], values * root, rcond=None)
        rest = values - basis @ fit
        spread = max(float(np.median(np.abs(rest))) / 0.6745, 1e-9)
        weight = 1 / np.maximum(1, np.abs(rest) / (2 * spread))
    return np.asarray(rest / spread), spread


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
