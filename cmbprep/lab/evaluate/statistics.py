"""Curves over the threshold on the predicted probability, pooled over weighted scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.evaluate.scoring import Steps

FloatArray = NDArray[np.float64]

#: False positives per scan at which the sensitivity is read off: those of the LUNA16 challenge
#: (Setio et al., Med Image Anal 2017;42:1), whose mean sensitivity is a common summary.
FROC_LEVELS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Pooled:
    """Hits and false positives of every scan at every threshold, shape (n_scans, n_thresholds).

    ``thresholds`` fall and hold every distinct probability of the set.
    """

    thresholds: FloatArray
    hits: FloatArray
    false: FloatArray


def ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Divide; NaN where there is nothing below the line."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def pool_steps(steps: list[Steps]) -> Pooled:
    """Bring the step functions of all scans to common thresholds."""
    parts = [step.thresholds for step in steps if len(step.thresholds)]
    thresholds = np.unique(np.concatenate(parts))[::-1] if parts else np.empty(0)
    shape = (len(steps), len(thresholds))
    hits, false = np.zeros(shape), np.zeros(shape)
    for row, step in enumerate(steps):
        # How many of the scan's own (falling) thresholds are at or above each common one.
        reached = np.searchsorted(-step.thresholds, -thresholds, side="right")
        hits[row] = np.concatenate([[0], step.hits])[reached]
        false[row] = np.concatenate([[0], step.false])[reached]
    return Pooled(thresholds, hits, false)


def average_precision(pooled: Pooled, lesions: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the area under the precision-recall curve as a sum of steps, without interpolation.

    AP = sum over thresholds of (recall gained) x (precision there): what information retrieval
    calls (non-interpolated) average precision (Manning, Raghavan and Schuetze, Introduction to
    Information Retrieval, 2008, section 8.4). Predictions of equal probability are one step.
    Lesions that no threshold finds keep the recall, and so AP, below 1.

    Parameters
    ----------
    lesions
        True lesions of each scan, shape (n_scans,).
    weights
        Shape (n_draws, n_scans).
    """
    total = weights @ lesions
    hits, false = weights @ pooled.hits, weights @ pooled.false
    gained = ratio(np.diff(hits, axis=1, prepend=0), total[:, None])
    precision = np.nan_to_num(ratio(hits, hits + false))
    return np.where(total > 0, (gained * precision).sum(axis=1), np.nan)


def sensitivity_at(
    pooled: Pooled, lesions: FloatArray, weights: FloatArray, levels: FloatArray
) -> FloatArray:
    """Read the FROC curve: the best sensitivity with at most so many false positives per scan.

    Where the curve ends before a level is reached, its end counts.

    Returns
    -------
    array
        Shape (n_draws, n_levels).
    """
    total, scans = weights @ lesions, weights.sum(axis=1)
    hits, false = weights @ pooled.hits, weights @ pooled.false
    rate = ratio(false, scans[:, None])
    best = [np.where(rate <= level + 1e-12, hits, 0).max(axis=1, initial=0) for level in levels]
    return ratio(np.stack(best, axis=1), total[:, None])


def reliability_bins(
    probability: FloatArray, correct: FloatArray, n_bins: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sort predictions into bins of equal width over 0..1; the last one includes 1.

    Returns
    -------
    count, probability_sum, correct_sum
        Shape (n_bins,) each.
    """
    which = np.minimum((probability * n_bins + 1e-9).astype(int), n_bins - 1)
    count, chance, right = (
        np.bincount(which, weights=values, minlength=n_bins).astype(float)
        for values in (np.ones(len(which)), probability, correct)
    )
    return count, chance, right


def calibration_error(
    count: FloatArray, probability_sum: FloatArray, correct_sum: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return the expected calibration error.

    ECE = sum over bins of (share of predictions) x abs(share correct - mean probability)
    (Naeini, Cooper and Hauskrecht, AAAI 2015).

    Parameters
    ----------
    count, probability_sum, correct_sum
        Per scan and bin, shape (n_scans, n_bins) each.
    """
    n = weights @ count
    gap = np.abs(weights @ correct_sum - weights @ probability_sum).sum(axis=1)
    return ratio(gap, n.sum(axis=1))


# --- Agreement of two raters, here truth and prediction, over scans with frequency weights -------
#
# Every function takes weights of shape (n_draws, n_scans): how often each scan is counted in each
# draw. A row of ones gives the plain statistic; rows of a bootstrap give its distribution.
# All give shape (n_draws,), NaN where the statistic is not defined.


def icc_a1(ratings: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the intraclass correlation for absolute agreement of single ratings.

    Two-way model, raters' mean differences count as error: ICC(2,1) of Shrout and Fleiss
    (Psychol Bull 1979;86:420), the same number as ICC(A,1) of McGraw and Wong (Psychol
    Methods 1996;1:30). Not defined for fewer than two scans or where nothing varies.

    Parameters
    ----------
    ratings
        Shape (n_scans, n_raters).
    weights
        Shape (n_draws, n_scans).
    """
    k = ratings.shape[1]
    n = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        raters = weights @ ratings / n[:, None]
        grand = raters.mean(axis=1)
        between_scans = k * (weights @ ratings.mean(axis=1) ** 2 - n * grand**2)
        between_raters = n * ((raters - grand[:, None]) ** 2).sum(axis=1)
        total = weights @ (ratings**2).sum(axis=1) - n * k * grand**2
        error = np.maximum(total - between_scans - between_raters, 0)
        msr = between_scans / (n - 1)
        msc = between_raters / (k - 1)
        mse = error / ((n - 1) * (k - 1))
        below = msr + (k - 1) * mse + k * (msc - mse) / n
        icc = (msr - mse) / below
    # Sums of squares of nothing that varies are 0 up to rounding.
    defined = (n > 1) & (total > 1e-9 * np.maximum(1, n))
    return np.where(defined & np.isfinite(icc), icc, np.nan)


def bland_altman(
    truth: FloatArray, predicted: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the mean of predicted - truth and the 95 % limits of agreement.

    Bland and Altman, Lancet 1986;i:307: mean -/+ 1.96 standard deviations (n - 1).

    Returns
    -------
    bias, lower, upper
        The limits are NaN for fewer than two scans.
    """
    n = weights.sum(axis=1)
    difference = predicted - truth
    with np.errstate(invalid="ignore", divide="ignore"):
        bias = weights @ difference / n
        square = (weights @ difference**2 - n * bias**2) / (n - 1)
        spread = 1.96 * np.sqrt(np.maximum(square, 0))
    spread = np.where(n > 1, spread, np.nan)
    return bias, bias - spread, bias + spread


def cohen_kappa(truth: NDArray[Any], predicted: NDArray[Any], weights: FloatArray) -> FloatArray:
    """Return Cohen's kappa of two yes/no ratings, shape (n_scans,) each, 0 or 1."""
    tables = np.zeros((len(truth), 2, 2))
    tables[np.arange(len(truth)), truth.astype(int), predicted.astype(int)] = 1
    return kappa_of_tables(tables, weights)


def kappa_of_tables(tables: FloatArray, weights: FloatArray) -> FloatArray:
    """Return Cohen's unweighted kappa of contingency tables that are summed over scans.

    Cohen, Educ Psychol Meas 1960;20:37. Not defined where chance agreement is complete.

    Parameters
    ----------
    tables
        Shape (n_scans, k, k): truth in rows, prediction in columns.
    """
    summed = np.tensordot(weights, tables, axes=(1, 0))
    n = summed.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(summed, axis1=1, axis2=2) / n
        expected = (summed.sum(axis=1) * summed.sum(axis=2)).sum(axis=1) / n**2
        kappa = (observed - expected) / (1 - expected)
    return np.where((n > 0) & (expected < 1 - 1e-12), kappa, np.nan)


# --- Percentile bootstrap over subjects ----------------------------------------------------------
#
# Subjects, not scans or lesions, are drawn: lesions of one person, and scans of one person, are
# not independent. A draw is a row of weights: how often each scan is in it.


#: Coverage of the intervals.
LEVEL = 0.95


def subject_weights(subjects: Sequence[str], n_draws: int, seed: int) -> FloatArray:
    """Draw subjects with replacement.

    Parameters
    ----------
    subjects
        The subject of each scan.
    n_draws
        Number of bootstrap samples.
    seed
        Of the generator; the same seed gives the same draws.

    Returns
    -------
    array
        Shape (n_draws, n_scans): how often each scan is in each draw.
    """
    names = sorted(set(subjects))
    member = np.array([names.index(subject) for subject in subjects], dtype=int)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, max(len(names), 1), size=(n_draws, len(names)))
    times = np.zeros(drawn.shape)
    for row, subjects_drawn in zip(times, drawn, strict=True):
        row += np.bincount(subjects_drawn, minlength=len(names))
    return times[:, member]


def percentile_interval(values: FloatArray) -> tuple[float, float] | None:
    """Return the 2.5th and 97.5th percentile of the draws in which the figure is defined.

    None if it is undefined in half of the draws or more: such an interval would tell of a
    selected part of the draws.
    """
    defined = values[np.isfinite(values)]
    if not len(values) or 2 * len(defined) <= len(values):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)
