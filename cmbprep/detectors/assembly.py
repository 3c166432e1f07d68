"""From measured regions to a :class:`~cmbprep.detectors.base.Detection`: what detectors share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.base import DetectedLesion, Detection, DetectorInput
from cmbprep.detectors.candidates import Candidates
from cmbprep.detectors.segmentation import (
    Region,
    ball_diameter,
    segment_lesions,
    void_volume,
)
from cmbprep.spatial.grids import Grid, boxed_grid

#: Candidates less probable than this leave no trace in the probability map.
FAINTEST = 0.01


class OperatingPoints(NamedTuple):
    """Lowest probability that is listed, and that is rated definite."""

    possible: float
    definite: float


@dataclass(frozen=True, eq=False)
class Outlined:
    """Lesions that were grown from candidates.

    Parameters
    ----------
    rows
        (n,) index of the candidates that are in the map, the most probable first.
    listed
        Positions in ``rows`` of those that the lesions grew from, in the order of the lesions.
    found
        Maps and lesions.
    """

    rows: NDArray[np.int_]
    listed: list[int]
    found: Detection


def outline_candidates(
    scan: DetectorInput,
    box: tuple[slice, slice, slice],
    candidates: Candidates,
    probability: NDArray[np.float64],
    points: OperatingPoints,
) -> Outlined:
    """Segment a lesion at each candidate that is probable enough to be in the map.

    Parameters
    ----------
    scan
        The scan.
    box
        Part of it that the candidates' voxels count in.
    candidates, probability
        (n,) each. Probabilities are rounded, so that noise of the last bits, which differs
        between processors, does not decide about the order.
    points
        Operating points.
    """
    rows = np.flatnonzero(probability >= min(FAINTEST, points.possible))
    x, y, z = candidates.voxels[rows].T
    rows = rows[np.lexsort((z, y, x, -probability[rows]))]
    part = boxed_grid(Grid(scan.magnitude.shape, scan.affine), box)
    regions = segment_lesions(
        scan.magnitude[box],
        scan.brain_mask[box],
        part.affine,
        candidates.voxels[rows],
        candidates.radii_mm[rows],
    )
    chances = [float(probability[rows[region.seed]]) for region in regions]
    found = assemble(scan, regions, chances, points, corner=[part.start for part in box])
    listed = [r.seed for r, p in zip(regions, chances, strict=True) if p >= points.possible]
    return Outlined(rows, listed, found)


def assemble(
    scan: DetectorInput,
    regions: Sequence[Region],
    probabilities: Sequence[float],
    points: OperatingPoints,
    *,
    corner: Sequence[int] = (0, 0, 0),
    heat: NDArray[np.float32] | None = None,
) -> Detection:
    """Paint the maps and describe the lesions.

    Parameters
    ----------
    scan
        The scan.
    regions, probabilities
        The more probable first, equal ones by position.
    points
        Operating points.
    corner
        Voxel of the scan that the regions' voxels count from.
    heat
        Probability map of the scan; if None, each region is painted with its probability.
    """
    paint = heat is None
    heat = np.zeros(scan.magnitude.shape, np.float32) if heat is None else heat
    labels = np.zeros(scan.magnitude.shape, np.int32)
    lesions: list[DetectedLesion] = []
    for region, probability in zip(regions, probabilities, strict=True):
        voxels = tuple((region.voxels + np.asarray(corner)).T)
        if paint:
            heat[voxels] = np.maximum(heat[voxels], np.float32(probability))
        if probability < points.possible:
            continue
        index = len(lesions) + 1
        labels[voxels] = index
        volume = region.volume_mm3
        # Without contrast there is no void: the volume is that of the voxels.
        if region.contrast > 0:
            volume = void_volume(volume, float(scan.spacing.max()))
        lesions.append(
            DetectedLesion(
                index=index,
                centre_ras=region.centre_ras,
                volume_mm3=volume,
                diameter_mm=ball_diameter(volume),
                probability=probability,
                rating="definite" if probability >= points.definite else "possible",
                contrast=region.contrast,
            )
        )
    return Detection(probability=heat, labels=labels, lesions=tuple(lesions))
