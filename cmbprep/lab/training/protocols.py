"""Random protocols to train on: no two alike, and none of the presets.

A detector that has seen a few protocols knows those. Field, echo times, voxel, contrast,
noise and artefacts are drawn from ranges that hold what is used for microbleeds, so that
the presets of :mod:`cmbprep.lab.simulate.protocols`, which are kept for testing, lie within
them and are not among them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cmbprep.lab.simulate.protocols import Protocol

#: Kind -> share of the scans.
KINDS = {"clinical": 0.42, "slab": 0.43, "echo-planar": 0.15}
# Most voxels of a training scan: a larger one becomes a slab that holds part of the brain.
_VOXELS = 2.6e6
_LEAST_HEIGHT_MM = 45.0
# The head fits in this field of view, mm: in the plane, and through axial slices.
_PLANE_MM = (182.0, 216.0)
_HEIGHT_MM = 158.0


def draw_protocol(rng: np.random.Generator) -> Protocol:
    """Draw a protocol, with processed SWI, several echoes and phase where they are usual.

    Parameters
    ----------
    rng
        Source of randomness.
    """
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    draw = {"clinical": _clinical, "slab": _slab, "echo-planar": _echo_planar}[kind]
    return draw(rng)


def _clinical(rng: np.random.Generator) -> Protocol:
    """Slice by slice, thick slices, one echo."""
    strength = 1.5 if rng.random() < 0.6 else 3.0
    side = _log_uniform(rng, 0.6, 1.25)
    thickness = rng.uniform(2.5, 6.6)
    gap = rng.uniform(0.2, 1.5) if rng.random() < 0.6 else 0.0
    latest = 0.045 if strength < 2 else 0.032
    poor = rng.random() < 0.25
    return _make(
        rng,
        three_d=False,
        field_strength=strength,
        echo_times=(rng.uniform(0.014, latest),),
        repetition_time=rng.uniform(450, 1100),
        flip_angle=rng.uniform(12, 35),
        voxel=(side, side, thickness),
        gap=gap,
        motion=rng.uniform(0.2, 0.8) if poor else 0.0,
        fold=int(rng.integers(4, 20)) if poor and rng.random() < 0.5 else 0,
        phase=bool(rng.random() < 0.2),
    )


def _slab(rng: np.random.Generator) -> Protocol:
    """Three-dimensional, thin partitions, one echo or several, mostly with phase."""
    strength = float(rng.choice([1.5, 3.0, 7.0], p=[0.2, 0.68, 0.12]))
    side = _log_uniform(rng, 0.5, 1.1)
    thickness = max(side, _log_uniform(rng, 0.8, 3.2))
    latest = {1.5: 0.042, 3.0: 0.030, 7.0: 0.018}[strength]
    last = rng.uniform(0.5 * latest, latest)
    times: tuple[float, ...] = (last,)
    if rng.random() < 0.4:
        number = int(rng.integers(2, 4))
        times = tuple(np.linspace(rng.uniform(0.15, 0.45) * last, last, number))
    return _make(
        rng,
        three_d=True,
        field_strength=strength,
        echo_times=times,
        repetition_time=last * 1000 + rng.uniform(5, 20),
        flip_angle=rng.uniform(8, 22),
        voxel=(side, side, thickness),
        motion=rng.uniform(0.2, 0.6) if rng.random() < 0.15 else 0.0,
        phase=bool(rng.random() < 0.75),
        suffix="swi" if len(times) == 1 and rng.random() < 0.45 else None,
    )


def _echo_planar(rng: np.random.Generator) -> Protocol:
    """Coarse voxels, as in scans made for function rather than for bleeds."""
    side = rng.uniform(1.6, 3.2)
    return _make(
        rng,
        three_d=False,
        field_strength=3.0 if rng.random() < 0.8 else 1.5,
        echo_times=(rng.uniform(0.024, 0.042),),
        repetition_time=rng.uniform(1500, 3000),
        flip_angle=rng.uniform(60, 90),
        voxel=(side, side, rng.uniform(max(2.0, side), 4.6)),
        gap=rng.uniform(0.1, 0.8) if rng.random() < 0.4 else 0.0,
        filtered=True,
    )


def _make(
    rng: np.random.Generator,
    *,
    echo_times: tuple[float, ...],
    voxel: tuple[float, float, float],
    gap: float = 0.0,
    phase: bool = False,
    suffix: str | None = None,
    filtered: bool | None = None,
    **settings: Any,
) -> Protocol:
    """Draw what all kinds of protocols share; `settings` are other fields of it."""
    orientation = "axial"
    plane, height = _PLANE_MM, _HEIGHT_MM
    turned = rng.random()
    if turned < 0.12:
        orientation = "coronal" if turned < 0.06 else "sagittal"
        plane, height = (216.0, 186.0), (200.0 if turned < 0.06 else 160.0)
    if orientation == "coronal":
        plane = (182.0, 186.0)
    if rng.random() < 0.3:
        height *= rng.uniform(0.45, 0.9)  # a slab that does not hold the whole brain
    cell = voxel[0] * voxel[1] * (voxel[2] + gap)
    affordable = _VOXELS * cell / (plane[0] * plane[1])
    height = max(min(height, affordable), _LEAST_HEIGHT_MM)
    times = tuple(round(float(time), 5) for time in echo_times)
    return Protocol(
        name="training",
        source="drawn at random",
        echo_times=times,
        voxel=voxel,
        gap=gap,
        matrix=(_even(plane[0] / voxel[0]), _even(plane[1] / voxel[1])),
        slices=max(8, round(height / (voxel[2] + gap))),
        orientation=orientation,
        tilt=20.0,
        filtered=bool(rng.random() < 0.7) if filtered is None else filtered,
        snr=_log_uniform(rng, 14.0, 45.0),
        suffix=suffix or ("MEGRE" if len(times) > 1 else "T2starw"),
        phase=phase or suffix == "swi",
        phase_sign=1 if rng.random() < 0.5 else -1,
        **settings,
    )


def _even(number: float) -> int:
    return 2 * math.ceil(number / 2)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
