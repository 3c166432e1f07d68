"""What the network's output means: probabilities, calibrated on people left out of the fit.

The fit shows the network far more bleeds than a scan holds. Simulated people of the role
``tune`` have natural numbers, so that a straight line in log-odds fitted to them (Platt 1999)
gives probabilities that hold where about as many are to be found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from .samples import BLEED, CALCIFICATION, Samples

__all__ = ["Tuning", "fit_line", "operating_points", "tune"]

#: Precision, on tuning scans, from which a lesion is called definite.
DEFINITE_PRECISION = 0.95
#: Smallest probabilities of the two operating points.
LEAST = {"possible": 0.2, "definite": 0.5}


@dataclass(frozen=True)
class Tuning:
    """Calibration and operating points.

    Attributes
    ----------
    lines
        Class name -> slope and offset.
    points
        ``possible`` and ``definite``.
    summary
        What was counted, JSON-ready.
    """

    lines: dict[str, dict[str, float]]
    points: dict[str, float]
    summary: dict[str, object]


def tune(logits: NDArray[np.float64], samples: Samples, scans: int, missed: int) -> Tuning:
    """Calibrate on tuning samples.

    Parameters
    ----------
    logits
        (n, 3) of the samples.
    samples
        Of the role ``tune``.
    scans
        How many scans they come from.
    missed
        Visible bleeds without any candidate.
    """
    from ..detectors.learned import calibrated

    best = _one_a_spot(logits, samples)
    lines = {}
    for name, kind in (("microbleed", BLEED), ("calcification", CALCIFICATION)):
        others = np.delete(logits[best], kind, axis=1)
        odds = logits[best, kind] - np.logaddexp(others[:, 0], others[:, 1])
        lines[name] = fit_line(odds, (samples.target[best] == kind).astype(float))
    probability = calibrated(logits[best], BLEED, lines["microbleed"])
    target = samples.target[best] == BLEED
    points, counted = operating_points(probability, target, missed, scans)
    return Tuning(lines, points, {"scans": scans, "bleeds": int(target.sum()) + missed, **counted})


def _one_a_spot(logits: NDArray[np.float64], samples: Samples) -> NDArray[np.int_]:
    """Rows with one candidate, the most bleed-like, of each spot: the others merge with it."""
    odds = logits[:, BLEED] - special.logsumexp(logits, axis=1)
    order = np.argsort(-odds, kind="stable")
    key = samples.scan.astype(np.int64) * 1_000_000 + samples.spot
    # Candidates that belong to no spot each stand for themselves.
    alone = samples.spot < 0
    key[alone] = -1 - np.arange(int(alone.sum()))
    _, first = np.unique(key[order], return_index=True)
    return np.sort(order[first])


def fit_line(odds: NDArray[np.float64], target: NDArray[np.float64]) -> dict[str, float]:
    """Slope and offset of a logistic regression of the target on log-odds."""

    def loss(line: NDArray[np.float64]) -> float:
        value = line[0] * odds + line[1]
        penalty = 0.5 * (line[0] - 1) ** 2
        return float((np.logaddexp(0, value) - target * value).sum() + penalty)

    line = optimize.minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return {"slope": round(float(line[0]), 4), "offset": round(float(line[1]), 4)}


def operating_points(
    probability: NDArray[np.float64], target: NDArray[np.bool_], missed: int, scans: int
) -> tuple[dict[str, float], dict[str, object]]:
    """Choose ``possible`` (largest F1) and ``definite`` (precision) on tuning scans.

    Returns
    -------
    points, counted
        And what holds at each on the tuning scans; not an estimate for others.
    """
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(target[order])
    listed = np.arange(1, len(order) + 1)
    total = int(target.sum()) + missed
    f1 = 2 * hits / (listed + total)
    possible = max(float(probability[order[int(np.argmax(f1))]]), LEAST["possible"])
    precision = hits / listed
    good = np.flatnonzero((precision >= DEFINITE_PRECISION) & (probability[order] >= 0.5))
    definite = float(probability[order[good[-1]]]) if len(good) else 0.9
    points = {
        "possible": round(possible, 3),
        "definite": round(max(definite, possible, LEAST["definite"]), 3),
    }
    counted: dict[str, object] = {}
    for name, point in points.items():
        above = probability >= point
        counted[name] = {
            "sensitivity": round(float((above & target).sum()) / max(total, 1), 3),
            "false_positives_a_scan": round(float((above & ~target).sum()) / max(scans, 1), 3),
        }
    return points, counted
