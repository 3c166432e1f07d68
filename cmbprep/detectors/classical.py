"""The classical detector: dark blobs, physical features, a small logistic model.

1. Candidates: multi-scale Laplacian-of-Gaussian maxima on the scan's own grid
   (:mod:`cmbprep.detectors.candidates`).
2. Features of each at physical scales: depth, size, roundness, walls, how far the darkness
   can be followed (:mod:`cmbprep.detectors.features`).
3. An additive logistic model gives the probability
   (:mod:`cmbprep.detectors.classical`; its weights, data and figures are in
   ``classical.json``, made by :mod:`cmbprep.lab.training.prefilter`).
4. Each lesion is segmented (:mod:`cmbprep.detectors.segmentation`).

It uses the magnitude only. The approach follows that of Chesebro AG, et al. Sci Rep
2021;11:4004 (circles and geometric features) and Barnes SR, et al. Magn Reson Imaging
2011;29:844-852 (features of connected dark regions), with features of our own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from cmbprep.detectors.assembly import OperatingPoints, outline_candidates
from cmbprep.detectors.base import Detection, DetectorInput
from cmbprep.detectors.candidates import Candidates, find_candidates, relative_intensity
from cmbprep.detectors.features import FEATURES, Surroundings, measure
from cmbprep.detectors.scan_warnings import scan_warnings
from cmbprep.detectors.susceptibility import marked
from cmbprep.spatial.grids import bounding_box
from cmbprep.spatial.noise import noise_level

# --- A small calibrated logistic model whose every term can be looked at -------------------------
#
# Each feature is scaled, clipped and bent by hinges, so that its effect is piecewise linear;
# the effects add up to the log-odds. The model is a JSON file of a few kilobytes that can be
# read by eye, and needs numpy only.


# Where the piecewise linear effects may bend, in scaled units.
HINGES = (-1.0, 0.0, 1.0)
_CLIP = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class AdditiveModel:
    """Log-odds as a sum of piecewise linear effects.

    Parameters
    ----------
    features
        Names of the columns that it takes.
    centre, scale
        (k,) by which the columns are scaled.
    weights
        (k, 1 + number of hinges): slope and changes of slope of each effect.
    intercept
        Log-odds at the centre.
    """

    features: tuple[str, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float

    def __post_init__(self) -> None:
        k = len(self.features)
        if self.centre.shape != (k,) or self.scale.shape != (k,):
            raise ValueError("centre and scale need one value for each feature")
        if self.weights.shape != (k, 1 + len(HINGES)):
            raise ValueError(f"weights need {1 + len(HINGES)} columns and a row for each feature")
        if not (self.scale > 0).all():
            raise ValueError("scales must be positive")

    def log_odds(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of each row of an (n, k) table of features."""
        basis = _basis(table, self.centre, self.scale)
        return np.asarray(basis @ self.weights.ravel() + self.intercept)

    def probability(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of each row of an (n, k) table of features."""
        return np.asarray(special.expit(self.log_odds(table)))

    def to_json(self) -> dict[str, object]:
        """Plain values; six digits are enough for any probability that is shown."""
        return {
            "hinges": list(HINGES),
            "intercept": round(self.intercept, 6),
            "effects": {
                name: {
                    "centre": float(f"{c:.6g}"),
                    "scale": float(f"{s:.6g}"),
                    "weights": [float(f"{w:.6g}") for w in row],
                }
                for name, c, s, row in zip(
                    self.features, self.centre, self.scale, self.weights, strict=True
                )
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> AdditiveModel:
        """Read what :meth:`to_json` gave."""
        if tuple(values["hinges"]) != HINGES:  # type: ignore[arg-type]
            raise ValueError("the model was made with other hinges")
        effects = json.loads(json.dumps(values["effects"]))
        return cls(
            features=tuple(effects),
            centre=np.array([e["centre"] for e in effects.values()], float),
            scale=np.array([e["scale"] for e in effects.values()], float),
            weights=np.array([e["weights"] for e in effects.values()], float),
            intercept=float(values["intercept"]),  # type: ignore[arg-type]
        )


def _basis(
    table: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, k * (1 + hinges)) piecewise linear basis, feature by feature."""
    z = np.clip((np.asarray(table, float) - centre) / scale, -_CLIP, _CLIP)
    parts = [z, *(np.maximum(z - hinge, 0) for hinge in HINGES)]
    return np.stack(parts, axis=2).reshape(len(z), z.shape[1] * len(parts))


def fit_additive_model(
    table: NDArray[np.float64],
    target: NDArray[np.floating],
    weight: NDArray[np.floating],
    features: Sequence[str],
    *,
    ridge: float = 1.0,
) -> AdditiveModel:
    """Fit by penalised maximum likelihood.

    Parameters
    ----------
    table
        (n, k) features.
    target
        (n,) 0 or 1.
    weight
        (n,) weight of each row; they carry the prevalence that the probability refers to.
    features
        k names.
    ridge
        Weight of the squared coefficients against the log-likelihood.
    """
    table = np.asarray(table, float)
    middle = np.median(table, axis=0)
    spread = np.subtract(*np.percentile(table, [90, 10], axis=0)) / 2.56
    scale = np.where(spread > 1e-6, spread, 1.0)
    basis = _basis(table, middle, scale)
    target = np.asarray(target, float)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = basis @ w[1:] + w[0]
        # log(1 + exp(odds)) - target * odds, without overflow
        value = weight @ (np.logaddexp(0, odds) - target * odds)
        error = weight * (special.expit(odds) - target)
        gradient = np.concatenate([[error.sum()], basis.T @ error + ridge * w[1:]])
        return float(value + 0.5 * ridge * w[1:] @ w[1:]), gradient

    start = np.zeros(1 + basis.shape[1])
    result = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 800})
    return AdditiveModel(
        features=tuple(features),
        centre=middle,
        scale=scale,
        weights=result.x[1:].reshape(len(features), -1),
        intercept=float(result.x[0]),
    )


#: Name of the model's file.
CLASSICAL = "classical.json"
# Room around the brain that features may look at, mm.
_MARGIN_MM = 12.0
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
        listed = float(points["possible"] if threshold is None else threshold)
        self._points = OperatingPoints(listed, float(points["definite"]))
        self.version = str(values["version"])

    @property
    def parameters(self) -> Mapping[str, object]:
        """Name, model version and both thresholds."""
        return {
            "detector": self.name,
            "version": self.version,
            "threshold": self._points.possible,
            "definite": self._points.definite,
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
        probability = np.round(self._model.probability(measured.table), 6)
        found = outline_candidates(
            scan, measured.box, measured.candidates, probability, self._points
        ).found
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
