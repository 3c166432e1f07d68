"""What the network's output means: probabilities, calibrated on people left out of the fit.

The fit shows the network far more bleeds than a scan holds. Tuning scans either hold as many as
people do, or many; a straight line in log-odds (Platt 1999) is fitted to them together with how
much the number of bleeds that a scan seems to hold counts
(:mod:`cmbprep.detectors.calibration`), so that probabilities hold for both. Operating points are
set as if all had as many as people do (:data:`NATURAL_BLEEDS`), but ``possible`` not so low that
many false ones are listed in those who have many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from cmbprep.detectors.calibration import Prevalence
from cmbprep.detectors.learned import log_odds
from cmbprep.lab.training.samples import BLEED, CALCIFICATION, Labels

#: Visible microbleeds of a scan, on average over simulated people
#: (:mod:`cmbprep.lab.simulate.protocols`).
NATURAL_BLEEDS = 2.2
#: A scan with more bleeds than this was made with many on purpose.
CROWDED = 15
#: Precision, on tuning scans, from which a lesion is called definite.
DEFINITE_PRECISION = 0.95
#: False positives per scan that ``possible`` may list on tuning scans, the crowded ones included.
MOST_FALSE = 0.5
#: Share of the classical model where what it says is averaged with what the networks say; chosen on
#: tuning people and on real scans left out of small fits (docs/validation/detection.md).
CLASSICAL_SHARE = 0.2
#: Smallest probabilities of the two operating points.
LEAST = {"possible": 0.2, "definite": 0.9}


@dataclass(frozen=True)
class Tuning:
    """Calibration and operating points.

    Attributes
    ----------
    lines
        Class name -> slope and offset.
    prevalence
        How the number of bleeds of a scan counts; None if it does not.
    points
        ``possible`` and ``definite``.
    summary
        What was counted, JSON-ready.
    """

    lines: dict[str, dict[str, float]]
    prevalence: Prevalence | None
    points: dict[str, float]
    summary: dict[str, object]


def tune(
    logits: NDArray[np.float64],
    samples: Labels,
    scans: int,
    missed: int,
    *,
    adaptive: bool = True,
) -> Tuning:
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
    adaptive
        Whether the detector shifts log-odds by what the scan seems to hold; otherwise crowded
        scans are weighed as if they held as many bleeds as people have.
    """
    best = _one_a_spot(logits, samples)
    weight = _weights(samples, best)
    target = {kind: samples.target[best] == kind for kind in (BLEED, CALCIFICATION)}
    odds = {kind: log_odds(logits[best], kind) for kind in target}
    lines = {"calcification": fit_line(odds[CALCIFICATION], target[CALCIFICATION], weight)}
    prevalence = None
    if adaptive:
        own = samples.scan[best]
        lines["microbleed"], prevalence = fit_adaptive(odds[BLEED], target[BLEED], own)
        value = _value(lines["microbleed"], odds[BLEED])
        value = value + _shifts(value, own, prevalence)
        weight = _weights(samples, best, whole_scans=True)
    else:
        lines["microbleed"] = fit_line(odds[BLEED], target[BLEED], weight)
        value = _value(lines["microbleed"], odds[BLEED])
    points, counted = operating_points(special.expit(value), target[BLEED], missed, scans, weight)
    bleeds = {"bleeds": int(target[BLEED].sum()), "bleeds_without_candidate": missed}
    return Tuning(lines, prevalence, points, {"scans": scans, **bleeds, **counted})


def _value(line: dict[str, float], odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(line["slope"] * odds + line["offset"])


def _shifts(
    log_odds: NDArray[np.float64], scan: NDArray[np.integer], prevalence: Prevalence
) -> NDArray[np.float64]:
    """Shift of each candidate: that of its scan."""
    shifts = np.zeros(len(log_odds))
    for number in np.unique(scan):
        own = scan == number
        shifts[own] = prevalence.shift(log_odds[own])
    return shifts


def fit_adaptive(
    odds: NDArray[np.float64], target: NDArray[np.bool_], scan: NDArray[np.integer]
) -> tuple[dict[str, float], Prevalence]:
    """Fit a line in log-odds together with how far a scan may leave the average.

    Parameters
    ----------
    odds
        (n,) log-odds of a bleed, one candidate for each thing.
    target
        (n,) whether it is one.
    scan
        (n,) number of its scan; each scan counts the same.
    """
    _, index, counts = np.unique(scan, return_inverse=True, return_counts=True)
    weight = counts.mean() / counts[index]

    def loss(values: NDArray[np.float64]) -> float:
        slope, offset, strength = values
        prevalence = Prevalence(NATURAL_BLEEDS, float(np.exp(np.clip(strength, -3, 4))))
        line = slope * odds + offset
        line = line + _shifts(line, scan, prevalence)
        penalty = 0.5 * (slope - 1) ** 2 + 0.1 * (strength - np.log(2)) ** 2
        return float((weight * (np.logaddexp(0, line) - target * line)).sum() + penalty)

    start = np.array([1.0, -2.0, np.log(2)])
    found = optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-3}).x
    line = {"slope": round(float(found[0]), 4), "offset": round(float(found[1]), 4)}
    return line, Prevalence(NATURAL_BLEEDS, round(float(np.exp(np.clip(found[2], -3, 4))), 3))


def _weights(
    samples: Labels, rows: NDArray[np.int_], *, whole_scans: bool = False
) -> NDArray[np.float64]:
    """Weight of candidates: bleeds in crowded scans count as if there were few.

    With `whole_scans`, all candidates of such a scan do: it counts as a part of a scan.
    """
    weight = np.ones(len(rows))
    bleed = samples.target[rows] == BLEED
    for scan in np.unique(samples.scan[rows]):
        own = samples.scan[rows] == scan
        bleeds = np.count_nonzero(own & bleed)
        if bleeds > CROWDED:
            weight[own if whole_scans else own & bleed] = NATURAL_BLEEDS / bleeds
    return weight


def _one_a_spot(logits: NDArray[np.float64], samples: Labels) -> NDArray[np.int_]:
    """Rows with one candidate, the most bleed-like, of each spot: the others merge with it."""
    odds = logits[:, BLEED] - special.logsumexp(logits, axis=1)
    order = np.argsort(-odds, kind="stable")
    key = samples.scan.astype(np.int64) * 1_000_000 + samples.spot
    # Candidates that belong to no spot each stand for themselves.
    alone = samples.spot < 0
    key[alone] = -1 - np.arange(int(alone.sum()))
    _, first = np.unique(key[order], return_index=True)
    return np.sort(order[first])


def fit_line(
    odds: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Slope and offset of a weighted logistic regression of the target on log-odds."""
    weight = np.ones(len(odds)) if weight is None else weight

    def loss(line: NDArray[np.float64]) -> float:
        value = line[0] * odds + line[1]
        penalty = 0.5 * (line[0] - 1) ** 2
        return float((weight * (np.logaddexp(0, value) - target * value)).sum() + penalty)

    line = optimize.minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return {"slope": round(float(line[0]), 4), "offset": round(float(line[1]), 4)}


def operating_points(
    probability: NDArray[np.float64],
    target: NDArray[np.bool_],
    missed: int,
    scans: int,
    weight: NDArray[np.float64] | None = None,
) -> tuple[dict[str, float], dict[str, object]]:
    """Choose ``possible`` (largest F1, few false) and ``definite`` (precision) on tuning scans.

    Where the number of bleeds counts in their probability, whoever has many bleeds has more
    doubtful spots lifted above a point than others. So ``possible`` is raised, if need be, until
    at most :data:`MOST_FALSE` false positives per scan are left, every scan counted in full.

    Parameters
    ----------
    probability, target, weight
        (n,) of the candidates.
    missed
        Bleeds without a candidate; they weigh as the others do on average.
    scans
        Number of scans.

    Returns
    -------
    points, counted
        And what holds at each on the tuning scans; not an estimate for others.
    """
    weight = np.ones(len(target)) if weight is None else weight
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum((target * weight)[order])
    listed = np.cumsum(weight[order])
    found = float((target * weight).sum())
    total = found * (1 + missed / max(int(target.sum()), 1))
    f1 = 2 * hits / np.maximum(listed + total, 1e-9)
    possible = max(float(probability[order[int(np.argmax(f1))]]), LEAST["possible"])
    false = np.sort(probability[~target])[::-1]
    allowed = int(MOST_FALSE * scans)
    if len(false) > allowed:
        # A step of the rounding above the first that is too many.
        possible = max(possible, float(false[allowed]) + 0.001)
    precision = hits / listed
    good = np.flatnonzero((precision >= DEFINITE_PRECISION) & (probability[order] >= 0.5))
    definite = float(probability[order[good[-1]]]) if len(good) else 0.9
    # Rounded down, so that the candidate at the point itself is listed.
    points = {
        "possible": int(1000 * possible) / 1000,
        "definite": int(1000 * max(definite, possible, LEAST["definite"])) / 1000,
    }
    counted: dict[str, object] = {}
    for name, point in points.items():
        above = probability >= point
        share = float((weight * (above & target)).sum()) / max(total, 1e-9)
        counted[name] = {
            "sensitivity": round(share, 3),
            "false_positives_a_scan": round(
                float((weight * (above & ~target)).sum()) / max(scans, 1), 3
            ),
        }
    return points, counted
