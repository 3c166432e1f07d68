"""Common steps of detectors for scans with phase: field maps, iron versus calcium.

:func:`phase_maps` computes the maps of a scan once, however many ask for them;
:func:`judge` and :func:`marked` tell what each lesion is made of.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.detectors.base import DetectedLesion, DetectorInput
from cmbprep.phase.dipole import main_field_direction
from cmbprep.phase.local_field import LocalField, local_field
from cmbprep.phase.sign import PhaseSign, phase_sign
from cmbprep.phase.susceptibility import Source, classify_susceptibility, susceptibility_map

#: Field strength in tesla that the scale of the field is given for where none is known.
ASSUMED_TESLA = 3.0
#: Around a lesion out to here, mm, the signal of the tissue is looked up.
SHELL_MM = 5.0

_NO_SIGN = (
    "The sign convention of the phase is unknown, so that iron and calcium cannot be "
    "distinguished; susceptibility is unknown for all lesions."
)


@dataclass(frozen=True, eq=False)
class PhaseMaps:
    """What the phase of a scan gives.

    Attributes
    ----------
    field
        Local field; its sign is that of the phase.
    chi
        (X, Y, Z) float32, ppm: susceptibility map, in the sign of the phase.
    sign
        Which way the phase grows.
    warnings
        What is doubtful, in sentences.
    """

    field: LocalField
    chi: NDArray[np.float32]
    sign: PhaseSign
    warnings: tuple[str, ...] = ()


_MAPS: weakref.WeakKeyDictionary[DetectorInput, PhaseMaps] = weakref.WeakKeyDictionary()


def phase_maps(scan: DetectorInput) -> PhaseMaps | None:
    """Compute the maps of a scan; None where it has no phase.

    The maps are kept as long as the scan is, so that asking twice costs nothing.
    """
    if not scan.phases or not scan.echo_times:
        return None
    if scan not in _MAPS:
        _MAPS[scan] = _compute(scan)
    return _MAPS[scan]


def _compute(scan: DetectorInput) -> PhaseMaps:
    magnitudes = scan.echoes or (scan.magnitude,) * len(scan.phases)
    warnings = []
    if scan.field_strength is None:
        warnings.append(
            f"The field strength is unknown; fields are scaled as at {ASSUMED_TESLA:g} T, "
            "which changes no sign."
        )
    field = local_field(
        scan.phases,
        magnitudes,
        scan.echo_times,
        scan.brain_mask,
        scan.spacing,
        main_field_direction(scan.affine),
        field_strength=scan.field_strength or ASSUMED_TESLA,
    )
    chi = susceptibility_map(field)
    sign = phase_sign(field, magnitudes[int(np.argmax(scan.echo_times))], chi)
    if sign.sign is None:
        warnings.append(_NO_SIGN)
    return PhaseMaps(field, chi, sign, tuple(warnings))


def judge(
    scan: DetectorInput, labels: NDArray[np.int32]
) -> tuple[dict[int, Source], tuple[str, ...]]:
    """Return for each lesion whether it is paramagnetic or diamagnetic.

    Parameters
    ----------
    scan
        With phase, or nothing is known.
    labels
        (X, Y, Z): 0, or the index of the lesion.

    Returns
    -------
    sources
        Index of the lesion -> what is known of its source; empty without phase.
    warnings
        Sentences for the report.
    """
    maps = phase_maps(scan)
    if maps is None:
        return {}, ()
    echoes = scan.echoes or (scan.magnitude,)
    magnitude = echoes[int(np.argmax(scan.echo_times))] if scan.echoes else echoes[0]
    lesions = labels > 0
    found = {}
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        low = np.array([part.start for part in box])
        voxels = np.argwhere(labels[box] == index) + low
        found[index] = classify_susceptibility(
            maps.field,
            maps.chi,
            voxels,
            sign=maps.sign.sign,
            darkness=_darkness(magnitude, voxels, scan, lesions),
            others=lesions & (labels != index),
        )
    return found, maps.warnings


def _darkness(
    magnitude: NDArray[np.float32],
    voxels: NDArray[np.intp],
    scan: DetectorInput,
    lesions: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Loss of signal in each voxel of a lesion against the tissue around it, 0..1."""
    room = np.ceil(SHELL_MM / scan.spacing).astype(int)
    low = np.maximum(voxels.min(axis=0) - room, 0)
    high = voxels.max(axis=0) + room + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    tissue = scan.brain_mask[box] & ~lesions[box]
    inside = magnitude[tuple(voxels.T)].astype(np.float64)
    around = float(np.median(magnitude[box][tissue])) if tissue.any() else float(inside.max())
    return np.clip(1 - inside / max(around, 1e-12), 0, 1)


def marked(
    scan: DetectorInput, labels: NDArray[np.int32], lesions: Sequence[DetectedLesion]
) -> tuple[tuple[DetectedLesion, ...], tuple[str, ...]]:
    """Write into lesions what the phase says of them.

    Returns
    -------
    lesions
        The same ones in the same order, their ``susceptibility`` set.
    warnings
        As :func:`judge` gives them.
    """
    sources, warnings = judge(scan, labels)
    named = {index: source.susceptibility for index, source in sources.items()}
    found = (
        replace(one, susceptibility=named.get(one.index, one.susceptibility)) for one in lesions
    )
    return tuple(found), warnings
