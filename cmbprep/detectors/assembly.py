"""From measured regions to a :class:`~cmbprep.detectors.base.Detection`: what detectors share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.base import DetectedLesion, Detection
from cmbprep.detectors.segmentation import Region, ball_diameter, void_volume

__all__ = ["assemble"]


def assemble(
    regions: Sequence[Region],
    probabilities: Sequence[float],
    *,
    shape: tuple[int, ...],
    slice_mm: float,
    corner: Sequence[int] | NDArray[np.int_] = (0, 0, 0),
    threshold: float,
    definite: float,
    warnings: Sequence[str] = (),
    heat: NDArray[np.float32] | None = None,
) -> Detection:
    """Paint the maps and describe the lesions.

    Parameters
    ----------
    regions, probabilities
        The more probable first, equal ones by position.
    shape
        Of the scan.
    slice_mm
        Largest distance of the scan's voxels along an axis, mm.
    corner
        Voxel of the scan that the regions' voxels count from.
    threshold
        Lowest probability that is listed.
    definite
        Lowest probability that is rated definite.
    warnings
        For the reader.
    heat
        Probability map of the scan; if None, each region is painted with its probability.
    """
    paint = heat is None
    heat = np.zeros(shape, np.float32) if heat is None else heat
    labels = np.zeros(shape, np.int32)
    lesions: list[DetectedLesion] = []
    for region, probability in zip(regions, probabilities, strict=True):
        voxels = tuple((region.voxels + np.asarray(corner)).T)
        if paint:
            heat[voxels] = np.maximum(heat[voxels], np.float32(probability))
        if probability < threshold:
            continue
        index = len(lesions) + 1
        labels[voxels] = index
        volume = region.volume_mm3
        # Without contrast there is no void: the volume is that of the voxels.
        if region.contrast > 0:
            volume = void_volume(volume, slice_mm)
        lesions.append(
            DetectedLesion(
                index=index,
                centre_ras=region.centre_ras,
                volume_mm3=volume,
                diameter_mm=ball_diameter(volume),
                probability=probability,
                rating="definite" if probability >= definite else "possible",
                contrast=region.contrast,
            )
        )
    return Detection(
        probability=heat, labels=labels, lesions=tuple(lesions), warnings=tuple(warnings)
    )
