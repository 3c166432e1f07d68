"""A ball of known susceptibility in an ellipsoid of tissue, with the phase it would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.field import dipole_field
from cmbprep.phase.dipole import dipole_at, radians_per_ppm

FIELD_STRENGTH = 3.0


@dataclass(frozen=True, eq=False)
class Phantom:
    """What is scanned and what should come out."""

    phases: list[NDArray[np.float32]]
    magnitudes: list[NDArray[np.float32]]
    echo_times: list[float]
    mask: NDArray[np.bool_]
    spacing: NDArray[np.float64]
    b0: NDArray[np.float64]
    truth: NDArray[np.float32]  # ppm, field of the ball
    ball: NDArray[np.bool_]


def make_phantom(
    *,
    chi: float = 1.0,
    radius: float = 3.0,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    extent: tuple[float, float, float] = (64.0, 72.0, 60.0),
    b0: tuple[float, float, float] = (0.0, 0.0, 1.0),
    echo_times: tuple[float, ...] = (0.02,),
    background: float = 2.0,
    snr: float = 40.0,
    sign: int = 1,
    seed: int = 1,
) -> Phantom:
    """Make a phantom; the background is harmonic: outer dipoles and low-order polynomials."""
    step = np.asarray(spacing)
    direction = np.asarray(b0) / np.linalg.norm(b0)
    shape = tuple(round(e / s) for e, s in zip(extent, spacing, strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    half = np.asarray(extent) / 2
    mask = ((grid / (half - 3)) ** 2).sum(-1) < 1
    centre = np.array([6.0, -5.0, 3.0])
    # Thick voxels see the mean over their height, at which seven samples are enough.
    parts = np.maximum(np.round(2 * step / step.min()), 1).astype(int)
    shifts = np.stack(
        np.meshgrid(
            *[((np.arange(p) + 0.5) / p - 0.5) * s for p, s in zip(parts, step, strict=True)]
        ),
        -1,
    ).reshape(-1, 3)
    volume = 4 / 3 * np.pi * radius**3
    truth, share = np.zeros(shape), np.zeros(shape)
    for shift in shifts:
        offset = grid + shift - centre
        distance = np.linalg.norm(offset, axis=-1)
        field = chi * volume * dipole_at(offset, direction, least_mm=radius)
        truth += np.where(distance > radius, field, 0) / len(shifts)
        share += (distance <= radius) / len(shifts)
    x, y, z = np.moveaxis(grid / half, -1, 0)
    total = truth + background * (
        0.3 * x + 0.2 * y - 0.25 * z + 0.25 * (x * y) + 0.2 * (2 * z**2 - x**2 - y**2) / 3
    )
    for place, moment in ((1.5, 3e5), (-1.4, -2e5)):
        total += background * moment * dipole_at(grid - [0, place * half[1], 0], direction) / 9.4
    rng = np.random.default_rng(seed)
    magnitudes, phases = [], []
    for echo_time in echo_times:
        signal = mask * (1 - 0.9 * share) * np.exp(-echo_time * 20.0) + 0.0
        angle = sign * radians_per_ppm(FIELD_STRENGTH, echo_time) * total + 0.7
        noise = rng.standard_normal((2, *shape)) / snr
        image = signal * np.exp(1j * angle) + noise[0] + 1j * noise[1]
        magnitudes.append(np.abs(image).astype(np.float32))
        phases.append(np.angle(image).astype(np.float32))
    return Phantom(
        phases,
        magnitudes,
        list(echo_times),
        mask,
        step,
        direction,
        truth.astype(np.float32),
        share > 0.5,
    )


#: Centres in voxels of the two balls of :func:`make_veined_block`.
BALLS = ((30, 40, 20), (60, 50, 28))


def make_veined_block(
    sign: int, chi: float, balls: tuple[float, float] = (0.0, 0.0), *, echo_time: float = 0.02
) -> Phantom:
    """A block of tissue with 60 straight veins, dark and of the given susceptibility.

    `balls` are the susceptibilities of two dark balls of 2 mm radius at :data:`BALLS`; 0
    leaves a ball out. `ball` of the result holds both.
    """
    shape, spacing = (90, 90, 50), np.array([1.0, 1.0, 1.5])
    rng = np.random.default_rng(3)
    tubes = np.zeros(shape, bool)
    length = np.arange(-12, 12, 0.3)
    for _ in range(60):
        way = rng.standard_normal(3)
        way /= np.linalg.norm(way)
        start = rng.uniform(0.15, 0.85, 3) * np.asarray(shape)
        points = np.rint(start + length[:, None] * way / spacing).astype(int)
        points = points[np.all((points >= 0) & (points < shape), axis=1)]
        tubes[tuple(points.T)] = True
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    sources = chi * tubes.astype(np.float32)
    both = np.zeros(shape, bool)
    for centre, strength in zip(BALLS, balls, strict=True):
        distance = np.linalg.norm((index - centre) * spacing, axis=-1)
        tubes &= distance > 7
        sources[distance <= 7] = 0
        if strength:
            sources[distance <= 2.0] = strength
            both |= distance <= 2.0
    field = dipole_field(sources.astype(np.float32), spacing)
    angle = sign * radians_per_ppm(FIELD_STRENGTH, echo_time) * field
    signal = np.where(both, 0.15, np.where(tubes, 0.7, 1.0)) * np.exp(1j * angle)
    signal = signal + (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / 40
    mask = np.zeros(shape, bool)
    mask[4:-4, 4:-4, 3:-3] = True
    return Phantom(
        [np.angle(signal).astype(np.float32)],
        [np.abs(signal).astype(np.float32)],
        [echo_time],
        mask,
        spacing,
        np.array([0.0, 0.0, 1.0]),
        field,
        both,
    )
