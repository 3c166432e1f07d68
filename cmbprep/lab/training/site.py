"""Refit of the detector's last stage to a site's own ratings.

A logistic regression on the network's log-odds and on what is measured of each candidate,
pulled towards the packaged stage by a penalty, so that a few ratings change little and
hundreds can teach what this site's false positives look like. How strong the penalty is, and
whether the measured columns are used at all, is chosen by cross-validation over people: a few
ratings are enough for a new slope and offset (Platt 1999), but not for dozens of weights. What
the whole procedure gains, this choice included, is measured on people left out of it.

References
----------
Breiman L et al. Classification and Regression Trees. Wadsworth 1984, section 3.4.3.
Platt J. Advances in Large Margin Classifiers. MIT Press 1999:61-74.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from cmbprep.detectors.calibration import LastStage
from cmbprep.detectors.learned import CANDIDATES
from cmbprep.detectors.views import COLUMNS
from cmbprep.errors import UsageError
from cmbprep.lab.training.ratings import RatedCandidates

#: What the fit may be pulled back with, strongest first: (slope, offset, each weight of a scaled
#: column). An infinite penalty leaves the columns out.
PENALTIES = (
    (100.0, 5.0, math.inf),
    (20.0, 0.5, math.inf),
    *((20.0, 0.5, weights) for weights in (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)),
)
Penalty = tuple[float, float, float]
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
    used = np.ones(len(rated.target), bool)
    return _fit(rated, used, packaged, choose_penalty(rated, used, packaged))


def choose_penalty(rated: RatedCandidates, used: NDArray[np.bool_], packaged: LastStage) -> Penalty:
    """Choose the strongest penalty that nothing speaks against, by the log loss of people left out.

    It is the strongest whose loss is larger than the smallest by no more than one standard error
    of their difference over people (the rule of Breiman 1984): with few ratings, the smallest
    loss is often so by chance.

    Parameters
    ----------
    rated
        Candidates and verdicts.
    used
        (n,) which of them are used.
    packaged
        Where each fit starts.

    Returns
    -------
    tuple
        One of :data:`PENALTIES`.
    """
    people = int(rated.person.max()) + 1
    losses = np.zeros((len(PENALTIES), people))
    for part, others in _parts(rated, used):
        for row, penalty in enumerate(PENALTIES):
            value = _log_odds(_fit(rated, others, packaged, penalty), rated, part)
            loss = np.logaddexp(0, value) - rated.target[part] * value
            losses[row] += np.bincount(rated.person[part], loss, people)
    losses = losses[:, np.unique(rated.person[used])]
    more = losses - losses[np.argmin(losses.sum(axis=1))]
    # Of a sum over people: the standard error of the mean, times their number.
    error = more.std(axis=1, ddof=1) * np.sqrt(more.shape[1])
    return PENALTIES[int(np.argmax(more.sum(axis=1) <= error))]


def _parts(
    rated: RatedCandidates, used: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield the candidates of some people and those of all others, until each was left out once.

    Parts whose others are all microbleeds, or none, are passed over: no fit can be made of them.
    """
    # Shared out by number, which ratings do not depend on.
    fold = rated.person % FOLDS
    for number in np.unique(fold[used]):
        part, others = used & (fold == number), used & (fold != number)
        if rated.target[others].any() and not rated.target[others].all():
            yield part, others


def _log_odds(
    stage: LastStage, rated: RatedCandidates, part: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the log-odds of some candidates, (n_part,)."""
    own = stage.log_odds(rated.column("odds")[part], rated.table[part], tuple(CANDIDATES))
    return own + rated.column("shift")[part]


def _fit(
    rated: RatedCandidates, used: NDArray[np.bool_], packaged: LastStage, penalty: Penalty
) -> LastStage:
    names = tuple(CANDIDATES)
    columns = np.array([rated.columns.index(name) for name in COLUMNS])
    values = rated.table[used][:, columns]
    spread = values.std(axis=0)
    # A column that is the same everywhere tells nothing here and would tell nonsense elsewhere.
    varied = np.flatnonzero(spread > 1e-3) if math.isfinite(penalty[2]) else np.zeros(0, int)
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
    pull = np.concatenate([penalty[:2], np.full(len(varied), penalty[2])])
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

    The penalty is chosen without them as well.

    Returns
    -------
    dict
        ``before`` and ``after``, see :func:`figures`.
    """
    everyone = np.ones(len(rated.target), bool)
    before = _log_odds(packaged, rated, everyone)
    after = before.copy()
    for part, others in _parts(rated, everyone):
        stage = _fit(rated, others, packaged, choose_penalty(rated, others, packaged))
        after[part] = _log_odds(stage, rated, part)
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
