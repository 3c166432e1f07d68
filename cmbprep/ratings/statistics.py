"""Statistics over scans with frequency weights, and their bootstrap over subjects.

Every statistic takes weights of shape (n_draws, n_scans): how often each scan is counted in each
draw. A row of ones gives the plain statistic; rows of a bootstrap give its distribution. All give
shape (n_draws,), NaN where the statistic is not defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Divide; NaN where there is nothing below the line."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


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


# --- Agreement of two raters over scans ---------------------------------------------------------


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
    return kappa_of_tables(tabulate(truth.astype(int), predicted.astype(int), 2), weights)


def tabulate(
    first: Iterable[int | None], second: Iterable[int | None], n_classes: int
) -> FloatArray:
    """Return the contingency table of each scan, which holds its one pair of classes.

    Parameters
    ----------
    first, second
        Number of the class of each scan, from 0; None where it is not known.

    Returns
    -------
    array of shape (n_scans, n_classes, n_classes)
        All zero for a scan of which one of the classes is not known.
    """
    pairs = list(zip(first, second, strict=True))
    tables = np.zeros((len(pairs), n_classes, n_classes))
    for table, (row, column) in zip(tables, pairs, strict=True):
        if row is not None and column is not None:
            table[row, column] = 1
    return tables


def linear_weights(n_classes: int) -> FloatArray:
    """Return agreement weights of classes in order: 1 for the same class, 0 for the two ends."""
    step = np.abs(np.subtract.outer(np.arange(n_classes), np.arange(n_classes)))
    return np.asarray(1 - step / max(n_classes - 1, 1), dtype=float)


def kappa_of_tables(
    tables: FloatArray, weights: FloatArray, credit: FloatArray | None = None
) -> FloatArray:
    """Return Cohen's kappa of contingency tables that are summed over scans.

    Cohen, Educ Psychol Meas 1960;20:37; weighted: Cohen, Psychol Bull 1968;70:213. Not defined
    where chance agreement is complete.

    Parameters
    ----------
    tables
        Shape (n_scans, k, k): truth in rows, prediction in columns.
    credit
        Shape (k, k): how far two classes agree, 0..1 (:func:`linear_weights`); None for the
        unweighted kappa, in which only the same class agrees.
    """
    credit = np.eye(tables.shape[1]) if credit is None else credit
    summed = np.tensordot(weights, tables, axes=(1, 0))
    n = summed.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (summed * credit).sum(axis=(1, 2)) / n
        chance = summed.sum(axis=2)[:, :, None] * summed.sum(axis=1)[:, None, :]
        expected = (chance * credit).sum(axis=(1, 2)) / n**2
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
