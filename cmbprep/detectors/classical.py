"""The classical detector: dark blobs, physical features, a small logistic model.

1. Candidates: multi-scale Laplacian-of-Gaussian maxima on the scan's own grid
   (:mod:`cmbprep.algorithms.candidates`).
2. Features of each at physical scales: depth, size, roundness, walls, how far the darkness
   can be followed (:mod:`cmbprep.algorithms.candidate_features`).
3. An additive logistic model gives the probability
   (:mod:`cmbprep.detectors.additive_model`; its weights, data and figures are in
   ``classical.json``, made by :mod:`cmbprep.detectors.fit_classical`).
4. Each lesion is segmented (:mod:`cmbprep.algorithms.segmentation`).

It uses the magnitude only. The approach follows that of Chesebro AG, et al. Sci Rep
2021;11:4004 (circles and geometric features) and Barnes SR, et al. Magn Reson Imaging
2011;29:844-852 (features of connected dark regions), with features of our own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..algorithms.candidate_features import FEATURES, Surroundings, measure
from ..algorithms.candidates import Candidates, find_candidates, relative_intensity
from ..algorithms.noise import noise_level
from ..algorithms.segmentation import Region, segment_lesions
from .additive_model import AdditiveModel
from .base import DetectedLesion, Detection, DetectorInput
from .susceptibility import marked

__all__ = ["ClassicalDetector", "measure_candidates"]

# Room around the brain that features may look at, mm.
_MARGIN_MM = 12.0
# Candidates less probable than this leave no trace in the probability map.
_FAINTEST = 0.01
# Voxel sizes that the model has seen, mm: finest in-plane, coarsest slice.
_KNOWN_SPACING_MM = (0.4, 6.5)


class ClassicalDetector:
    """Detector without a network; see the module for how it works.

    Parameters
    ----------
    threshold
        Probability from which a lesion is listed; None for the operating point ``possible``
        of the model's card. A threshold above the operating point ``definite`` leaves only
        definite lesions.
    """

    name = "classical"

    def __init__(self, threshold: float | None = None) -> None:
        text = resources.files(__package__).joinpath("classical.json").read_text("utf-8")
        values = json.loads(text)
        self._model = AdditiveModel.from_json(values["model"])
        if self._model.features != FEATURES:
            raise ValueError("classical.json was fitted for other features; fit it again")
        points = values["operating_points"]
        self._definite = float(points["definite"])
        self._threshold = float(points["possible"] if threshold is None else threshold)
        self.version = str(values["version"])

    @property
    def parameters(self) -> Mapping[str, object]:
        """Name, model version and both thresholds."""
        return {
            "detector": self.name,
            "version": self.version,
            "threshold": self._threshold,
            "definite": self._definite,
        }

    def detect(self, scan: DetectorInput) -> Detection:
        """Find microbleeds in one scan."""
        candidates, table, box = measure_candidates(scan.magnitude, scan.brain_mask, scan.spacing)
        probability = self._model.probability(table)
        # Equal probabilities are ordered by position; rounding keeps noise of the last bit,
        # which differs between processors, out of the order.
        probability = np.round(probability, 6)
        rows = np.flatnonzero(probability >= min(_FAINTEST, self._threshold))
        voxels = candidates.voxels[rows]
        order = np.lexsort((voxels[:, 2], voxels[:, 1], voxels[:, 0], -probability[rows]))
        rows = rows[order]
        corner = np.array([s.start for s in box])
        affine = np.asarray(scan.affine, float).copy()
        affine[:3, 3] += affine[:3, :3] @ corner
        regions = segment_lesions(
            scan.magnitude[box],
            scan.brain_mask[box],
            affine,
            candidates.voxels[rows],
            candidates.radii_mm[rows],
        )
        values = [float(probability[rows[region.seed]]) for region in regions]
        return self._assemble(scan, regions, values, corner)

    def _assemble(
        self,
        scan: DetectorInput,
        regions: list[Region],
        probabilities: list[float],
        corner: NDArray[np.int_],
    ) -> Detection:
        """Paint the maps and describe the lesions, the most probable first."""
        heat = np.zeros(scan.magnitude.shape, np.float32)
        labels = np.zeros(scan.magnitude.shape, np.int32)
        lesions: list[DetectedLesion] = []
        for region, probability in zip(regions, probabilities, strict=True):
            voxels = tuple((region.voxels + corner).T)
            heat[voxels] = np.maximum(heat[voxels], np.float32(probability))
            if probability < self._threshold:
                continue
            index = len(lesions) + 1
            labels[voxels] = index
            lesions.append(
                DetectedLesion(
                    index=index,
                    centre_ras=region.centre_ras,
                    volume_mm3=region.volume_mm3,
                    diameter_mm=region.diameter_mm,
                    probability=probability,
                    rating="definite" if probability >= self._definite else "possible",
                    contrast=region.contrast,
                )
            )
        known, doubts = marked(scan, labels, lesions)
        return Detection(
            probability=heat, labels=labels, lesions=known, warnings=(*_warnings(scan), *doubts)
        )


def measure_candidates(
    magnitude: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing: NDArray[np.float64],
) -> tuple[Candidates, NDArray[np.float64], tuple[slice, slice, slice]]:
    """Find and measure the candidates of a scan.

    Returns
    -------
    candidates, table, box
        Candidates with positions in voxels of the box, their features
        (n, len(FEATURES)), and the box of the scan that was looked at.
    """
    box = _brain_box(mask, spacing)
    image, brain = magnitude[box], mask[box]
    ratio, background = relative_intensity(image, brain, spacing)
    found = find_candidates(ratio, brain, spacing)
    level = float(np.median(image[brain]))
    level = level if level > 0 else 1.0
    maps = Surroundings(
        ratio=ratio,
        background=background / np.float32(level),
        mask=brain,
        noise=noise_level(image, brain) / level,
        spacing=spacing,
    )
    kept, table = measure(found, maps)
    return kept, table, box


def _brain_box(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> tuple[slice, slice, slice]:
    """Bounding box of the brain with a margin."""
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    margins = [math.ceil(_MARGIN_MM / size) for size in spacing]
    parts = [
        slice(max(s.start - m, 0), min(s.stop + m, n))
        for s, m, n in zip(box, margins, mask.shape, strict=True)
    ]
    return (parts[0], parts[1], parts[2])


def _warnings(scan: DetectorInput) -> tuple[str, ...]:
    """What puts a scan outside of what the model has seen."""
    found = []
    finest, coarsest = _KNOWN_SPACING_MM
    size = " x ".join(f"{s:.2f}" for s in scan.spacing)
    if scan.spacing.min() < finest or scan.spacing.max() > coarsest:
        found.append(
            f"The voxel size of {size} mm is outside of what the detector was fitted on "
            f"({finest} to {coarsest} mm); its probabilities may not hold."
        )
    elif np.median(scan.spacing) > 1.6:
        found.append(
            f"The voxel size of {size} mm is too coarse to tell microbleeds from vessels and "
            "sulci reliably; small microbleeds are not seen at all."
        )
    if min(scan.magnitude.shape) < 5:
        found.append("The scan has fewer than five slices; vessels cannot be followed through it.")
    return tuple(found)
