"""From wrapped phase to the local field: what sources inside the brain do to the main field.

1. The phase of each echo is unwrapped (:mod:`cmbprep.phase.unwrapping`).
2. Where it cannot be trusted, inside voids, it is filled in from around.
3. The background, the field of air and bone outside the brain and the smooth phase of the
   receiving coils, is removed. It is harmonic inside the brain, so that its mean over any
   ball is its value in the middle: SHARP takes that mean away and undoes what this did to
   the local field [1]_, V-SHARP with balls that grow smaller towards the border of the
   mask [2]_. The balls are used by their exact transfer function,
   ``3 (sin kr - kr cos kr) / (kr)^3``, not as voxels, so that voxels need not be cubes.
4. The echoes' local fields are averaged with the weights (magnitude * TE)^2, which is the
   inverse of their variance.

Thick slices. Where slices are thicker than :data:`THICK_MM`, a ball is smaller than two
slices and a 2D scan may have gaps, so that nothing is known of how the field goes on through
the plane. There the background is removed slice by slice: a polynomial in the plane, then
what varies slowly in the plane. The result then holds the part of the local field that
changes within about :data:`IN_PLANE_SIGMA_MM` in the plane.

References
----------
.. [1] Schweser F, Deistung A, Lehr BW, Reichenbach JR. Quantitative imaging of intrinsic
   magnetic tissue properties using MRI signal phase: an approach to in vivo brain iron
   metabolism? NeuroImage 2011;54:2789-2807.
.. [2] Wu B, Li W, Guidon A, Liu C. Whole brain susceptibility mapping using compressed
   sensing. Magn Reson Med 2012;67:137-147.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from cmbprep.phase.dipole import radians_per_ppm
from cmbprep.phase.unwrapping import unwrap
from cmbprep.spatial.grids import bounding_box, neighbours
from cmbprep.spatial.noise import noise_level

FloatArray = NDArray[np.float32]
Box = tuple[slice, slice, slice]

#: Slices further apart than this (mm) are treated one by one.
THICK_MM = 3.6
#: Radii in mm of the balls whose mean is taken away.
BALL_RADII_MM = (8.0, 5.5, 3.8, 2.6, 1.8)
#: Where the transfer function of the largest ball's removal is smaller, it is not undone.
SHARP_THRESHOLD = 0.05
#: Standard deviation in mm of what counts as slow in the plane of thick slices.
IN_PLANE_SIGMA_MM = 6.0
#: Signal-to-noise ratio at which the phase is trusted by half.
HALF_TRUST_SNR = 4.0
#: A voxel whose signal is less than this part of its surroundings' is trusted by half.
HALF_TRUST_SIGNAL = 0.45
#: Standard deviation in mm of the surroundings that a voxel's signal is held against.
SURROUNDINGS_MM = 5.0
#: Distance from the mask's border, mm, from which the border takes no trust away.
BORDER_MM = 3.0
#: Echoes used at most: those that tell most of the field.
MOST_ECHOES = 4


@dataclass(frozen=True, eq=False)
class LocalField:
    """The field inside the brain.

    Attributes
    ----------
    local
        (X, Y, Z) float32, ppm relative to the main field, background removed; 0 outside
        the mask. Its sign is that of the phase: multiply by the scanner's sign
        (:func:`cmbprep.phase.sign.phase_sign`) to have it right-handed.
    total
        (X, Y, Z) float32, ppm: the unwrapped field with its background, up to a constant.
    trust
        (X, Y, Z) float32, 0..1: how far the field can be believed, from signal, coherence
        and the distance to the mask's border; 0 outside the mask.
    noise
        (X, Y, Z) float32, ppm: standard deviation of the field by thermal noise.
    depth
        (X, Y, Z) float32, mm: distance to the nearest voxel outside the mask.
    spacing, b0
        mm, and the direction of the main field along the axes (unit length).
    in_plane_only
        Whether slices were treated one by one.
    box
        Smallest part of the grid that holds the mask.
    """

    local: FloatArray
    total: FloatArray
    trust: FloatArray
    noise: FloatArray
    depth: FloatArray
    spacing: NDArray[np.float64]
    b0: NDArray[np.float64]
    in_plane_only: bool
    box: Box


def local_field(
    phases: Sequence[FloatArray],
    magnitudes: Sequence[FloatArray],
    echo_times: Sequence[float],
    mask: NDArray[np.bool_],
    spacing: ArrayLike,
    b0: ArrayLike,
    *,
    field_strength: float,
) -> LocalField:
    """Compute the local field of a gradient-echo scan.

    Parameters
    ----------
    phases
        One an echo, rad, shape (X, Y, Z), wrapped or not; NaN where it is unknown: such voxels
        are filled in from around and have no trust.
    magnitudes
        As many, of the same shape, in one unit.
    echo_times
        Seconds, one an echo.
    mask
        The brain, shape (X, Y, Z).
    spacing
        Voxel size in mm along the three axes, gaps between slices included.
    b0
        Direction of the main field along the axes (see
        :func:`cmbprep.phase.dipole.main_field_direction`).
    field_strength
        Tesla.

    Returns
    -------
    LocalField
        On the grid of the input.

    Raises
    ------
    ValueError
        If shapes, counts or values do not fit.
    """
    step = np.asarray(spacing, dtype=np.float64)
    direction = np.asarray(b0, dtype=np.float64)
    if not len(phases) == len(magnitudes) == len(echo_times) > 0:
        raise ValueError("each echo needs a phase, a magnitude and an echo time")
    if any(image.shape != mask.shape for image in (*phases, *magnitudes)) or mask.ndim != 3:
        raise ValueError("phases, magnitudes and mask must have one three-dimensional shape")
    if not mask.any():
        raise ValueError("the mask is empty")
    if min(*echo_times, field_strength) <= 0:
        raise ValueError("echo times and field strength must be positive")
    if not np.linalg.norm(direction) > 0:
        raise ValueError("the main field needs a direction")
    box = bounding_box(mask)
    inside = mask[box]
    kept = _best_echoes(magnitudes, echo_times, mask)
    signals = [np.asarray(magnitudes[i][box], dtype=np.float32) for i in kept]
    angles = [np.asarray(phases[i][box], dtype=np.float32) for i in kept]
    for n, angle in enumerate(angles):
        unknown = ~np.isfinite(angle)
        if unknown.any():
            angles[n] = np.where(unknown, np.float32(0), angle)
            # As in a void: next to no signal, so that it counts only where nothing else does.
            least = np.float32(1e-3 * np.median(signals[n][inside]))
            signals[n] = np.where(unknown, least, signals[n])
    scales = [radians_per_ppm(field_strength, echo_times[i]) for i in kept]
    unwrapped = unwrap(angles, signals, inside)
    del angles
    brain = _Brain(inside, step, _distance_to_outside(inside, step))
    parts = _combine(unwrapped, signals, scales, brain)
    whole = [np.zeros(mask.shape, np.float32) for _ in range(5)]
    for target, part in zip(whole, (*parts, brain.distance), strict=True):
        target[box] = part
    local, total, trust, noise, depth = whole
    return LocalField(
        local,
        total,
        trust,
        noise,
        depth,
        spacing=step,
        b0=direction / np.linalg.norm(direction),
        in_plane_only=brain.thick,
        box=box,
    )


@dataclass(frozen=True, eq=False)
class _Brain:
    """Where the field is wanted: mask, voxel size, and distance to the voxels outside, mm."""

    mask: NDArray[np.bool_]
    spacing: NDArray[np.float64]
    distance: FloatArray

    @property
    def thick(self) -> bool:
        return bool(self.spacing.max() > THICK_MM)

    @property
    def fine(self) -> NDArray[np.bool_]:
        """Axes with voxels up to twice as long as the shortest."""
        return np.asarray(self.spacing <= 2.0 * self.spacing.min())


def _distance_to_outside(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> FloatArray:
    """Distance in mm of each voxel to the nearest one outside of the mask or the image."""
    # The transform gives distances, too, but by way of three images of float64 at a time.
    nearest = ndimage.distance_transform_edt(
        np.pad(mask, 1), sampling=spacing, return_distances=False, return_indices=True
    )
    square = np.zeros(mask.shape)
    for axis, places in enumerate(nearest[:, 1:-1, 1:-1, 1:-1]):
        own = np.arange(1, mask.shape[axis] + 1, dtype=np.int32)
        away = (places - own.reshape([-1 if a == axis else 1 for a in range(3)])) * spacing[axis]
        away *= away
        square += away
    return np.sqrt(square, out=square).astype(np.float32)


def _best_echoes(
    magnitudes: Sequence[FloatArray], echo_times: Sequence[float], mask: NDArray[np.bool_]
) -> list[int]:
    """Return the echoes with the largest signal times echo time, in the order of the input."""
    worth = [float(np.median(m[mask])) * t for m, t in zip(magnitudes, echo_times, strict=True)]
    best = sorted(range(len(worth)), key=lambda i: (-worth[i], i))[:MOST_ECHOES]
    return sorted(best)


def _combine(
    unwrapped: list[FloatArray], signals: list[FloatArray], scales: list[float], brain: _Brain
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Local field, total field, trust and noise from the unwrapped echoes."""
    mask, spacing = brain.mask, brain.spacing
    local, total, trust, weights, squares = (np.zeros(mask.shape, np.float32) for _ in range(5))
    inside = mask.astype(np.float32)
    around = blur(inside, SURROUNDINGS_MM / spacing)
    for phase, signal, scale in zip(unwrapped, signals, scales, strict=True):
        level = noise_level(signal, mask)
        level = max(level, 1e-3 * float(np.median(signal[mask])), 1e-12)
        ratio = signal / np.float32(level)
        mean = _mean_around(signal, inside, around, SURROUNDINGS_MM / spacing)
        relative = signal / np.maximum(mean, np.float32(1e-12))
        believed = _echo_trust(phase, relative, ratio, brain)
        field = _fill(phase / np.float32(scale), believed, brain)
        if brain.thick:
            removed = _remove_in_plane(field, believed, brain)
        else:
            removed = _v_sharp(field, brain)
        # The median is taken so that echoes of unlike constants can be averaged.
        constant = np.float32(np.median(field[mask]))
        weight = (ratio * np.float32(scale)) ** 2 * np.maximum(believed, np.float32(1e-3))
        local += weight * removed
        total += weight * (field - constant)
        trust += weight * believed
        weights += weight
        squares += (ratio * np.float32(scale)) ** 2
    weights = np.maximum(weights, np.float32(1e-12))
    border = np.clip(brain.distance / np.float32(BORDER_MM), 0, 1)
    noise = 1 / np.sqrt(np.maximum(squares, np.float32(1e-6)))
    return (
        local / weights * inside,
        total / weights * inside,
        trust / weights * border * inside,
        noise * inside,
    )


def _echo_trust(
    phase: FloatArray, relative: FloatArray, ratio: FloatArray, brain: _Brain
) -> FloatArray:
    """How far an echo's phase can be believed, 0..1.

    Three factors: the signal-to-noise `ratio`; `relative`, the signal against its
    surroundings, because a voxel dark by dephasing has no one phase; and the differences to
    the neighbours, which say nothing once they come near half a turn.
    """
    mask = brain.mask
    relative = np.minimum(np.where(mask, relative, np.float32(0)), np.float32(4))
    trust = ratio**2 / (ratio**2 + np.float32(HALF_TRUST_SNR**2))
    trust *= relative**4 / (relative**4 + np.float32(HALF_TRUST_SIGNAL**4))
    steepest = np.zeros(phase.shape, np.float32)
    for axis in np.flatnonzero(brain.fine):
        low, high = neighbours(int(axis))
        jump = np.abs(phase[high] - phase[low])
        jump *= mask[high] & mask[low]
        for side in (low, high):
            np.maximum(steepest[side], jump, out=steepest[side])
    trust *= np.clip((np.float32(0.9 * np.pi) - steepest) / np.float32(0.4 * np.pi), 0, 1)
    trust *= mask
    return np.asarray(trust, dtype=np.float32)


def _smooth(image: FloatArray, weight: FloatArray, brain: _Brain, sigma: ArrayLike) -> FloatArray:
    """Weighted Gaussian mean in the brain; where no weight is near, the image itself."""
    return _mean_around(image, weight, blur(weight, sigma), sigma) * brain.mask


def _mean_around(
    image: FloatArray, weight: FloatArray, total: FloatArray, sigma: ArrayLike
) -> FloatArray:
    """Weighted Gaussian mean, with the blurred weight given, which several images may share."""
    mean = blur(image * weight, sigma)
    known = total > 1e-4
    return np.asarray(np.where(known, mean / np.where(known, total, 1), image), dtype=np.float32)


def blur(image: FloatArray, sigma: ArrayLike) -> FloatArray:
    """Smooth by a Gaussian that ends at three standard deviations (voxels); 0 outside."""
    blurred: FloatArray = ndimage.gaussian_filter(image, sigma, mode="constant", truncate=3.0)
    return blurred


def _fill(field: FloatArray, trust: FloatArray, brain: _Brain) -> FloatArray:
    """Put the mean of trusted voxels around in the place of those without trust."""
    sigma = np.maximum(1.2 * brain.spacing.min(), 1.5) / brain.spacing
    near = _smooth(field, trust, brain, sigma * brain.fine)
    share = np.clip(2 * trust, 0, 1)
    return np.asarray((share * field + (1 - share) * near) * brain.mask, dtype=np.float32)


# --- balls ------------------------------------------------------------------------------


def _v_sharp(field: FloatArray, brain: _Brain) -> FloatArray:
    """Remove the harmonic part by means over balls that fit in the mask."""
    from scipy import fft

    mask, distance = brain.mask, brain.distance
    padded = padded_shape(field.shape, BALL_RADII_MM[0] / brain.spacing)
    wave = _wave_number(padded, brain.spacing)
    folded = _folded(padded)
    inner = tuple(slice(0, n) for n in field.shape)
    # A constant is harmonic; without it, the step at the mask's border is smaller.
    centred = np.where(mask, field - np.float32(np.median(field[mask])), np.float32(0))
    spectrum = fft.rfftn(centred, s=padded, workers=1)
    removed = np.zeros(field.shape, np.float32)
    covered = np.zeros(field.shape, bool)
    largest = 1 - _ball(wave * BALL_RADII_MM[0])
    for radius in BALL_RADII_MM:
        fits = (distance >= radius) & ~covered
        covered |= fits
        if not fits.any():
            continue
        transfer = largest if radius == BALL_RADII_MM[0] else 1 - _ball(wave * radius)
        shell = spectrum * transfer[folded]
        part = fft.irfftn(shell, s=padded, workers=1, overwrite_x=True)[inner]
        removed[fits] = part[fits]
    spectrum = fft.rfftn(removed, s=padded, workers=1)
    keep = largest > SHARP_THRESHOLD
    spectrum *= (keep / np.where(keep, largest, 1))[folded]
    result = fft.irfftn(spectrum, s=padded, workers=1, overwrite_x=True)[inner]
    return np.asarray(result * covered, dtype=np.float32)


def padded_shape(shape: Sequence[int], margin: NDArray[np.floating]) -> tuple[int, ...]:
    """Return the shape, larger by a margin at least, for which Fourier transforms are fast."""
    from scipy import fft

    room = np.array(shape) + np.ceil(margin).astype(int)
    return tuple(int(fft.next_fast_len(int(n), real=True)) for n in room)


def _wave_number(shape: tuple[int, ...], spacing: NDArray[np.float64]) -> FloatArray:
    """Length of the wave vector in rad/mm, of the frequencies from 0 on along each axis."""
    k = [np.fft.rfftfreq(n, d).astype(np.float32) for n, d in zip(shape, spacing, strict=True)]
    kx, ky, kz = np.meshgrid(*k, indexing="ij", sparse=True)
    return np.asarray(np.float32(2 * np.pi) * np.sqrt(kx**2 + ky**2 + kz**2), dtype=np.float32)


def _folded(shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Index that lays out what :func:`_wave_number` gives as ``rfftn`` does.

    Along the first two axes, negative frequencies are as long as the positive ones.
    """
    i, j = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape[:2])
    return i[:, None], j[None, :]


def _ball(kr: FloatArray) -> FloatArray:
    """Transfer function of the mean over a ball."""
    small = kr < 0.05
    safe = np.where(small, np.float32(1), kr)
    value = 3 * (np.sin(safe) - safe * np.cos(safe)) / safe**3
    return np.asarray(np.where(small, 1 - kr**2 / 10, value), dtype=np.float32)


# --- slice by slice ---------------------------------------------------------------------


def _remove_in_plane(field: FloatArray, trust: FloatArray, brain: _Brain) -> FloatArray:
    """Remove what varies slowly in the plane across the thickest axis, in each slice by itself."""
    mask, spacing = brain.mask, brain.spacing
    flat = int(np.argmax(spacing))
    sigma = IN_PLANE_SIGMA_MM / spacing
    sigma[flat] = 0
    weight = np.where(mask, np.maximum(trust, np.float32(0.02)), np.float32(0))
    rest = np.zeros(field.shape, np.float32)
    planes = np.moveaxis(field, flat, 0), np.moveaxis(weight, flat, 0), np.moveaxis(rest, flat, 0)
    steps = np.delete(spacing, flat)
    for plane, plane_weight, target in zip(*planes, strict=True):
        if np.count_nonzero(plane_weight) > 0:
            target[...] = _without_polynomial(plane, plane_weight, steps)
    # Twice, so that a slope that is left at the mask's border goes, too.
    for _ in range(2):
        rest -= _smooth(rest, weight, brain, sigma)
        rest *= mask
    return rest


def _without_polynomial(
    plane: FloatArray, weight: FloatArray, spacing: NDArray[np.float64]
) -> FloatArray:
    """Take from a slice the polynomial that fits it best, by weighted least squares."""
    x = ((np.arange(plane.shape[0]) - plane.shape[0] / 2) * spacing[0] / 100).astype(np.float32)
    y = ((np.arange(plane.shape[1]) - plane.shape[1] / 2) * spacing[1] / 100).astype(np.float32)
    voxels = np.nonzero(weight)
    order = 4 if len(voxels[0]) >= 60 else 0
    powers = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
    basis = np.stack([x[voxels[0]] ** i * y[voxels[1]] ** j for i, j in powers], axis=1)
    root = np.sqrt(weight[voxels])[:, None]
    fit, *_ = np.linalg.lstsq(basis * root, plane[voxels] * root[:, 0], rcond=None)
    result = np.zeros(plane.shape, np.float32)
    result[voxels] = plane[voxels] - basis @ fit.astype(np.float32)
    return result
