"""Warnings on scans that a detector cannot rate well, or that it was not fitted on.

Voxel size, slice thickness and number of slices limit every detector. A probability holds for scans
like those it was calibrated on: what can be measured in the scan itself is compared with the range
of the fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbprep.detectors.base import DetectorInput

if TYPE_CHECKING:
    from cmbprep.detectors.views import ScanViews

#: Smallest number of slices through which a vessel can be followed.
_FEW_SLICES = 5
#: Voxels coarser than this (median of the three sizes, mm) tell little.
_COARSE_MM = 1.6
#: What is measured of a scan: name -> how a sentence tells its value.
CHARACTER: Mapping[str, str] = {
    "contrast": "The spread of the brain's signal (its middle half, relative to its surroundings) "
    "is {}",
    "noise": "The noise (relative to the brain's signal) is {}",
    "brain_ml": "The part of the brain that the scan shows has {} ml",
}
#: So much beyond the range of the fit is still near enough.
_SLACK = 0.15


def character(views: ScanViews) -> dict[str, float]:
    """Measure a scan; see :data:`CHARACTER`."""
    mask = views.maps.mask
    low, high = np.quantile(views.maps.ratio[mask], (0.25, 0.75))
    volume = abs(float(np.linalg.det(np.asarray(views.scan.affine, float)[:3, :3])))
    return {
        "contrast": round(float(high - low), 4),
        "noise": round(float(views.noise), 4),
        "brain_ml": round(float(mask.sum()) * volume / 1000, 1),
    }


def known_range(characters: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Lowest and highest of each value over the scans of a fit."""
    found = {}
    for name in CHARACTER:
        values = [one[name] for one in characters if name in one]
        if values:
            found[name] = [min(values), max(values)]
    return found


def domain_warnings(
    scan: DetectorInput, measured: Mapping[str, float], known: Mapping[str, Any]
) -> list[str]:
    """Return warnings on what lies outside of the range that the detector was fitted on.

    Parameters
    ----------
    scan
        The scan.
    measured
        From :func:`character`.
    known
        The card's ``known``: ``bloom_tesla_ms`` and, where they are there, the ranges of
        :func:`known_range`.
    """
    found = []
    low, high = known["bloom_tesla_ms"]
    if scan.field_strength is not None and scan.echo_times:
        bloom = 1000 * max(scan.echo_times) * scan.field_strength
        if not low <= bloom <= high:
            found.append(
                f"Echo time times field strength is {bloom:.0f} ms T, outside of what the detector "
                f"was fitted on ({low:g} to {high:g}); its probabilities may not hold."
            )
    for name, text in CHARACTER.items():
        if name not in known or name not in measured:
            continue
        low, high = known[name]
        if not low * (1 - _SLACK) <= measured[name] <= high * (1 + _SLACK):
            found.append(
                f"{text.format(f'{measured[name]:.3g}')}, outside of what the detector was fitted "
                f"on ({low:.3g} to {high:.3g}); its probabilities may not hold."
            )
    if float(np.median(scan.magnitude[scan.brain_mask])) <= 0:
        found.append("The median signal of the brain is zero; the scan cannot be rated.")
    return found


def scan_warnings(
    scan: DetectorInput, known_spacing_mm: tuple[float, float] = (0.0, math.inf)
) -> tuple[str, ...]:
    """Return warnings on the resolution of a scan.

    Parameters
    ----------
    scan
        The scan.
    known_spacing_mm
        Finest and coarsest voxel size that the detector was fitted on.
    """
    found = []
    finest, coarsest = known_spacing_mm
    size = " x ".join(f"{s:.2f}" for s in scan.spacing)
    if scan.spacing.min() < finest or scan.spacing.max() > coarsest:
        found.append(
            f"The voxel size of {size} mm is outside of what the detector was fitted on "
            f"({finest} to {coarsest} mm); its probabilities may not hold."
        )
    elif np.median(scan.spacing) > _COARSE_MM:
        found.append(
            f"The voxel size of {size} mm is too coarse to tell microbleeds from vessels and "
            "sulci reliably; small microbleeds are not seen at all."
        )
    if min(scan.magnitude.shape) < _FEW_SLICES:
        found.append("The scan has fewer than five slices; vessels cannot be followed through it.")
    return tuple(found)
