"""Refit of the detector's last stage to a site's own ratings.

A logistic regression on the network's log-odds and on what is measured of each candidate,
pulled towards the packaged stage by a penalty, so that a few ratings change little and
hundreds can teach what this site's false positives look like. What it gains is measured on
people left out of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from cmbprep.detectors.calibration import LastStage
from cmbprep.detectors.learned import CANDIDATES
from cmbprep.detectors.views import COLUMNS
from cmbprep.errors import UsageError
from cmbprep.lab.training.ratings import RatedCandidates

#: What the fit is pulled back with: (slope, offset, each weight of a scaled column).
PENALTY = (20.0, 0.5, 10.0)
#: Fewest microbleeds, other candidates and people that a fit makes sense with.
LEAST = (10, 10, 5)
#: With fewer microbleeds or people than this, the figures before and after say little.
ENOUGH = (50, 20)
#: Parts that people are shared out to; each is left out once.
FOLDS = 5


def fit_last_stage(rated: RatedCandidates, packaged: LastStage) -> LastStage:
    """Fit to all rated candidates.

    Parameters
    ----------
    rated
        Candidates and verdicts.
    packaged
        Where the fit starts, and what it is pulled towards.

    Raises
    ------
    UsageError
        If there are too few.
    """
    counts = (int(rated.target.sum()), int((~rated.target).sum()), rated.people)
    if any(count < least for count, least in zip(counts, LEAST, strict=True)):
        raise UsageError(
            f"there are {counts[0]} rated microbleeds and {counts[1]} other candidates in "
            f"{counts[2]} people; at least {LEAST[0]}, {LEAST[1]} and {LEAST[2]} are needed",
            hint="rate more scans, also ones without microbleeds",
        )
    return _fit(rated, np.ones(len(rated.target), bool), packaged)


def _fit(rated: RatedCandidates, used: NDArray[np.bool_], packaged: LastStage) -> LastStage:
    names = tuple(CANDIDATES)
    columns = np.array([rated.columns.index(name) for name in COLUMNS])
    values = rated.table[used][:, columns]
    spread = values.std(axis=0)
    # A column that is the same everywhere tells nothing here and would tell nonsense elsewhere.
    varied = np.flatnonzero(spread > 1e-3)
    shape = LastStage(
        packaged.slope,
        packaged.offset,
        tuple(COLUMNS[i] for i in varied),
        tuple(np.round(values.mean(axis=0)[varied], 5).tolist()),
        tuple(np.round(spread[varied], 5).tolist()),
        (0.0,) * len(varied),
    )
    odds, shift = rated.column("odds")[used], rated.column("shift")[used]
    design = np.column_stack([odds, np.ones(len(odds)), shape.scaled(rated.table[used], names)])
    start = np.array([packaged.slope, packaged.offset, *shape.weights])
    pull = np.concatenate([PENALTY[:2], np.full(len(varied), PENALTY[2])])
    target = rated.target[used].astype(float)

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value = design @ line + shift
        error = special.expit(value) - target
        gap = line - start
        total = (np.logaddexp(0, value) - target * value).sum() + 0.5 * (pull * gap**2).sum()
        return float(total), design.T @ error + pull * gap

    line = np.round(optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x, 6)
    return LastStage(
        float(line[0]),
        float(line[1]),
        shape.columns,
        shape.centre,
        shape.scale,
        tuple(line[2:].tolist()),
    )


def assess(
    rated: RatedCandidates, packaged: LastStage, threshold: float
) -> dict[str, dict[str, float]]:
    """Figures before and after, each person judged by a stage that was fitted without them.

    Returns
    -------
    dict
        ``before`` and ``after``, see :func:`figures`.
    """
    names = tuple(CANDIDATES)
    odds, shift = rated.column("odds"), rated.column("shift")
    before = packaged.log_odds(odds, rated.table, names) + shift
    after = before.copy()
    # Shared out by number, which ratings do not depend on.
    fold = rated.person % FOLDS
    for part in np.unique(fold):
        left_out = fold == part
        if rated.target[~left_out].any() and not rated.target[~left_out].all():
            stage = _fit(rated, ~left_out, packaged)
            own = stage.log_odds(odds[left_out], rated.table[left_out], names)
            after[left_out] = own + shift[left_out]
    return {
        "before": figures(before, rated, threshold),
        "after": figures(after, rated, threshold),
    }


def worse(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of the figures that decide, and that are worse after than before.

    These are the log loss of the candidates, and F1 of what is listed: one tells how true the
    probabilities are, the other what a person gets to see. Sensitivity and false positives alone
    do not decide: a threshold trades one for the other.
    """
    before, after = found["before"], found["after"]
    names = []
    if after["log_loss"] > before["log_loss"]:
        names.append("log_loss")
    if after["f1"] < before["f1"]:
        names.append("f1")
    return names


def figures(
    log_odds: NDArray[np.float64], rated: RatedCandidates, threshold: float
) -> dict[str, float]:
    """What a stage does on rated candidates.

    Returns
    -------
    dict
        ``log_loss`` and ``calibration_error`` (expected, ten classes of probability) of the
        candidates; ``sensitivity`` (of microbleeds of the raters, those without a candidate
        included), ``false_positives_a_scan`` and ``f1`` at the threshold.
    """
    probability = special.expit(log_odds)
    target = rated.target
    listed = probability >= threshold
    losses = np.logaddexp(0, log_odds) - target * log_odds
    classes = np.minimum((probability * 10).astype(int), 9)
    error = sum(
        abs(probability[classes == k].sum() - target[classes == k].sum()) for k in range(10)
    )
    bleeds = int(target.sum()) + rated.beyond
    hits = int((listed & target).sum())
    return {
        "log_loss": round(float(losses.mean()), 4),
        "calibration_error": round(float(error) / len(target), 4),
        "sensitivity": round(hits / max(bleeds, 1), 4),
        "false_positives_a_scan": round(float((listed & ~target).sum()) / rated.scans, 4),
        "f1": round(2 * hits / max(bleeds + int(listed.sum()), 1), 4),
    }
