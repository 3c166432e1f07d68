"""The classical detector: dark blobs, physical features, a small logistic model.

1. Candidates: multi-scale Laplacian-of-Gaussian maxima on the scan's own grid
   (:mod:`cmbprep.algorithms.candidates`).
2. Features of each at physical scales: depth, size, roundness, walls, how far the darkness
   can be followed (:mod:`cmbprep.algorithms.candidate_features`).
3. An additive logistic model gives the probability
   (:mod:`cmbprep.detectors.additive_model`; its weights, data and figures are in
   ``classical.json``, made by :mod:`cmbprep.training.first_look`).
4. Each lesion is segmented (:mod:`cmbprep.algorithms.segmentation`).

It uses the magnitude only. The approach follows that of Chesebro AG, et al. Sci Rep
2021;11:4004 (circles and geometric features) and Barnes SR, et al. Magn Reson Imaging
2011;29:844-852 (features of connected dark regions), with features of our own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray

from ..algorithms.candidate_features import FEATURES, Surroundings, measure
from ..algorithms.candidates import Candidates, find_candidates, relative_intensity
from ..algorithms.distances import bounding_box
from ..algorithms.noise import noise_level
from ..algorithms.segmentation import segment_lesions
from .additive_model import AdditiveModel
from .assembly import assemble, scan_warnings
from .base import Detection, DetectorInput
from .susceptibility import marked

__all__ = ["CLASSICAL", "ClassicalDetector", "MeasuredCandidates", "measure_candidates"]

#: Name of the model's file.
CLASSICAL = "classical.json"
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
    folder
        Where the model's file is; None for the packaged one.
    """

    name = "classical"

    def __init__(
        self, threshold: float | None = None, *, folder: Traversable | None = None
    ) -> None:
        place = resources.files(__package__) if folder is None else folder
        content = place.joinpath(CLASSICAL).read_bytes()
        values = json.loads(content)
        self.sha256 = hashlib.sha256(content).hexdigest()
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

    def rate(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of candidates from their features, (n, len(FEATURES))."""
        return self._model.probability(table)

    def log_odds(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of the same."""
        return self._model.log_odds(table)

    def detect(self, scan: DetectorInput) -> Detection:
        """Find microbleeds in one scan."""
        measured = measure_candidates(scan.magnitude, scan.brain_mask, scan.spacing)
        candidates, box = measured.candidates, measured.box
        probability = self._model.probability(measured.table)
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
        found = assemble(
            regions,
            [float(probability[rows[region.seed]]) for region in regions],
            shape=scan.magnitude.shape,
            slice_mm=float(scan.spacing.max()),
            corner=corner,
            threshold=self._threshold,
            definite=self._definite,
        )
        lesions, doubts = marked(scan, found.labels, found.lesions)
        warnings = (*scan_warnings(scan, _KNOWN_SPACING_MM), *doubts)
        return replace(found, lesions=lesions, warnings=warnings)


@dataclass(frozen=True, eq=False)
class MeasuredCandidates:
    """Candidates of a scan.

    Attributes
    ----------
    candidates
        Positions in voxels of the box.
    table
        (n, len(FEATURES)) features of each.
    box
        Part of the scan that was looked at.
    ratio
        Of the box: image over its local background.
    noise
        Standard deviation of the noise, relative to the median of the brain.
    """

    candidates: Candidates
    table: NDArray[np.float64]
    box: tuple[slice, slice, slice]
    ratio: NDArray[np.float32]
    noise: float


def measure_candidates(
    magnitude: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing: NDArray[np.float64],
) -> MeasuredCandidates:
    """Find and measure the candidates of a scan."""
    box = bounding_box(mask, [math.ceil(_MARGIN_MM / size) for size in spacing])
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
    return MeasuredCandidates(kept, table, box, ratio, maps.noise)
