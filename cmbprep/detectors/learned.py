"""The learned detector: many candidates, and a small network that looks around each.

1. Candidates and their features, as :mod:`cmbprep.detectors.classical` makes them; almost no
   bleed is missed here, and almost all candidates are something else.
2. Those that the classical model finds the most suspicious are cut out at fixed physical
   scales (:mod:`cmbprep.detectors.views`), with phase and early echoes where there are any.
3. A network tells nothing, microbleed and calcification apart. What it says of a bleed is averaged
   with what the classical model says (:func:`blended`), which knows less and errs
   elsewhere; and calibrated to a probability, for the number of bleeds that the scan seems to hold
   (:mod:`cmbprep.detectors.calibration`).
   A site may have fitted this last stage to its own ratings (:mod:`cmbprep.detectors.calibration`).
4. Each lesion is segmented, and where there is phase its field says whether it is
   paramagnetic (:mod:`cmbprep.detectors.susceptibility`).

The axes are brought into one order first, so that it does not matter how a scan is stored.
Weights and card are in :mod:`cmbprep.models`; :mod:`cmbprep.lab.training` makes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cmbprep.detectors.assembly import OperatingPoints, Outlined, outline_candidates
from cmbprep.detectors.base import CandidateTable, Detection, DetectorInput
from cmbprep.detectors.calibration import LastStage, Prevalence, one_a_place, read_site_model
from cmbprep.detectors.classical import CLASSICAL, ClassicalDetector
from cmbprep.detectors.features import FEATURES
from cmbprep.detectors.patches import Patches
from cmbprep.detectors.scan_warnings import character, domain_warnings, scan_warnings
from cmbprep.detectors.susceptibility import marked
from cmbprep.detectors.views import COLUMNS, MEANINGS, ScanViews, view_scan, with_rows
from cmbprep.errors import UsageError
from cmbprep.models import onnx_session, read_model

#: Name of the model's files.
MODEL = "candidates"
#: Candidates of a scan that the network looks at.
LOOKED_AT = 400
# Candidates that the network looks at at a time: bounds the memory.
_BATCH = 64

#: Columns of the table of candidates.
CANDIDATES: Mapping[str, str] = {
    "x": "centre in scanner coordinates, RAS+, mm",
    "y": "centre in scanner coordinates, RAS+, mm",
    "z": "centre in scanner coordinates, RAS+, mm",
    "lesion": "index of the lesion that grew from it or holds it; 0 if none is listed there",
    "probability": "that it is a microbleed",
    "odds": "log-odds of a microbleed from network and classical model, before the last stage",
    "shift": "what the number of microbleeds in the scan adds to the log-odds",
    **MEANINGS,
}

FloatArray = NDArray[np.float32]


class LearnedDetector:
    """Detector with the network that comes with the program; see the module.

    Parameters
    ----------
    threshold
        Probability from which a lesion is listed; None for the operating point ``possible``
        of the model's card.
    folder
        Where the model's three files are; None for the packaged ones.
    site
        File of a site's own last stage; None for the packaged one.

    Attributes
    ----------
    sha256
        Of the network.
    last_stage
        What gives the probability.

    Raises
    ------
    UsageError
        If the site's file cannot be used with this network.
    """

    name = "learned"

    def __init__(
        self,
        threshold: float | None = None,
        *,
        folder: Traversable | None = None,
        site: Path | None = None,
    ) -> None:
        content, self._card, self.sha256 = read_model(MODEL, folder)
        if tuple(self._card["columns"]) != COLUMNS:
            raise ValueError("the model was fitted to another description of candidates")
        points = self._card["operating_points"]
        listed = float(points["possible"] if threshold is None else threshold)
        self._points = OperatingPoints(listed, float(points["definite"]))
        self._prefilter = ClassicalDetector(folder=folder)
        blend = self._card["classical"]
        if blend["sha256"] != self._prefilter.sha256:
            raise ValueError(f"{CLASSICAL} is not the one that the network was calibrated with")
        self._share = float(blend["share"])
        self._session = onnx_session(content)
        self.version = str(self._card["version"])
        line = self._card["calibration"]["microbleed"]
        self._packaged_stage = LastStage(line["slope"], line["offset"])
        self.last_stage = self._packaged_stage
        self._prevalence = Prevalence(**self._card["prevalence"])
        self._site_sha256 = ""
        if site is not None:
            self._use_site(site)

    @property
    def parameters(self) -> Mapping[str, object]:
        """Name, version and hash of the model, and both thresholds."""
        return {
            "detector": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "threshold": self._points.possible,
            "definite": self._points.definite,
            **({"site_sha256": self._site_sha256} if self._site_sha256 else {}),
        }

    def _use_site(self, path: Path) -> None:
        model = read_site_model(path)
        known = set(model.stage.columns) <= set(COLUMNS)
        if model.network_sha256 != self.sha256 or not known:
            raise UsageError(
                f"{path.name} was fitted to another version of the detector",
                hint="run cmbprep with this version, and cmbprep-tools train --ratings again",
            )
        self.last_stage = model.stage
        self._site_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.version = f"{self.version}+{self._site_sha256[:12]}"

    def detect(self, scan: DetectorInput) -> Detection:
        """Find microbleeds in one scan."""
        views = view_scan(scan)
        suspicion = self._prefilter.rate(views.table[:, : len(FEATURES)])
        first = np.argsort(-np.round(suspicion, 6), kind="stable")[:LOOKED_AT]
        views = with_rows(views, np.sort(first))
        bleed, calcified, odds, shift = self._rate(views)
        # Calcium is listed only where phase can prove it.
        shown = np.where(calcified > bleed, calcified, bleed) if scan.phases else bleed
        outlined = outline_candidates(views.scan, views.box, views.candidates, shown, self._points)
        rows = outlined.rows
        chances = np.column_stack([bleed[rows], odds[rows], np.full(len(rows), shift)])
        weighed = _candidate_table(with_rows(views, rows), outlined, chances)
        return self._finish(scan, views, replace(outlined.found, candidates=weighed))

    def _rate(
        self, views: ScanViews
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
        """Rate the candidates.

        Returns
        -------
        bleed, calcified
            Probability of each class.
        odds
            Log-odds of a bleed, before the last stage.
        shift
            What the number of bleeds in this scan adds to log-odds.
        """
        if not len(views.candidates):
            return np.zeros(0), np.zeros(0), np.zeros(0), 0.0
        logits = self._run(views.patches(), views.table.astype(np.float32))
        logits = blended(
            logits, self._prefilter.log_odds(views.table[:, : len(FEATURES)]), self._share
        )
        odds = np.round(log_odds(logits, 1), 4)
        usual = self._packaged_stage.log_odds(odds, views.table, COLUMNS)
        places = views.candidates.voxels * views.scan.spacing
        shift = self._prevalence.shift(usual[one_a_place(places, usual)])
        bleed = special.expit(self.last_stage.log_odds(odds, views.table, COLUMNS) + shift)
        calcified = calibrated(logits, 2, self._card["calibration"]["calcification"])
        # Rounding keeps noise of the last bits, which differs between processors, out of the
        # order and the tables.
        return np.round(bleed, 5), np.round(calcified, 5), odds, shift

    def _run(self, patches: Patches, table: FloatArray) -> NDArray[np.float64]:
        parts = []
        for start in range(0, len(table), _BATCH):
            rows = slice(start, start + _BATCH)
            views = {name: view[rows] for name, view in vars(patches).items()}
            parts.append(self._session.run(None, {**views, "table": table[rows]})[0])
        return np.concatenate(parts).astype(np.float64)

    def _finish(self, scan: DetectorInput, views: ScanViews, found: Detection) -> Detection:
        """Back to the stored axes; iron told from calcium; what a reader must know."""
        labels, heat = views.order.undo(found.labels), views.order.undo(found.probability)
        lesions, doubts = marked(scan, labels, found.lesions)
        known = self._card["known"]
        warnings = [*scan_warnings(scan, tuple(known["spacing_mm"])), *doubts]
        warnings += domain_warnings(scan, character(views), known)
        return replace(
            found, probability=heat, labels=labels, lesions=lesions, warnings=tuple(warnings)
        )


def calibrated(
    logits: NDArray[np.floating], kind: int, values: Mapping[str, float]
) -> NDArray[np.float64]:
    """Probability of a class from the network's logits (n, 3): a straight line in log-odds.

    Parameters
    ----------
    logits
        Of nothing, microbleed, calcification.
    kind
        Class.
    values
        ``slope`` and ``offset``.
    """
    return np.asarray(special.expit(values["slope"] * log_odds(logits, kind) + values["offset"]))


def blended(
    logits: NDArray[np.floating], odds: NDArray[np.floating], share: float
) -> NDArray[np.float64]:
    """Average what a network says of a bleed, in log-odds, with what another model says.

    The odds of nothing against a calcification stay the network's.

    Parameters
    ----------
    logits
        (n, 3) of nothing, microbleed, calcification.
    odds
        (n,) log-odds of a bleed of the other model.
    share
        Of the other model, 0 to 1.
    """
    mixed = np.array(logits, float)
    others = np.logaddexp(mixed[:, 0], mixed[:, 2])
    mixed[:, 1] = others + (1 - share) * (mixed[:, 1] - others) + share * np.asarray(odds)
    return mixed


def log_odds(logits: NDArray[np.floating], kind: int) -> NDArray[np.float64]:
    """Log-odds (n,) of a class against the others from the network's logits (n, 3)."""
    logits = np.asarray(logits, float)
    others = np.delete(logits, kind, axis=1)
    return np.asarray(logits[:, kind] - np.logaddexp(others[:, 0], others[:, 1]))


def _candidate_table(
    views: ScanViews, outlined: Outlined, chances: NDArray[np.float64]
) -> CandidateTable:
    """Describe candidates; ``outlined`` is in the ordered scan, as the views are.

    ``chances`` (n, 3) are the probability, log-odds and shift of each.
    """
    found, listed = outlined.found, outlined.listed
    affine = views.box_affine
    points = views.candidates.voxels @ affine[:3, :3].T + affine[:3, 3]
    top = np.array(found.labels.shape) - 1
    voxels = np.clip(np.round(views.candidates.voxels + views.corner).astype(int), 0, top)
    lesion = found.labels[tuple(voxels.T)]
    # The middle of a ring-shaped or oblong lesion need not be one of its voxels.
    lesion[np.array(listed, int)] = np.arange(1, len(listed) + 1)
    rows = np.column_stack([points, lesion, chances, views.table])
    return CandidateTable(columns=CANDIDATES, rows=rows)
