"""Warnings on voxel size, slice thickness and number of slices, which limit every detector."""

from __future__ import annotations

import math

import numpy as np

from cmbprep.detectors.base import DetectorInput

__all__ = ["scan_warnings"]

#: Smallest number of slices through which a vessel can be followed.
_FEW_SLICES = 5
#: Voxels coarser than this (median of the three sizes, mm) tell little.
_COARSE_MM = 1.6


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
