"""Agreement of two raters, here truth and prediction, over scans with frequency weights.

Every function takes weights of shape (n_draws, n_scans): how often each scan is counted in each
draw. A row of ones gives the plain statistic; rows of a bootstrap give its distribution.
All give shape (n_draws,), NaN where the statistic is not defined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bland_altman", "cohen_kappa", "icc_a1", "kappa_of_tables"]

FloatArray = NDArray[np.float64]


def icc_a1(ratings: FloatArray, weights: FloatArray) -> FloatArray:
    """Give the intraclass correlation for absolute agreement of single ratings.

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
    """Give the mean of predicted - truth and the 95 % limits of agreement.

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


def cohen_kappa(truth: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    """Give Cohen's kappa of two yes/no ratings, shape (n_scans,) each, 0 or 1."""
    tables = np.zeros((len(truth), 2, 2))
    tables[np.arange(len(truth)), truth.astype(int), predicted.astype(int)] = 1
    return kappa_of_tables(tables, weights)


def kappa_of_tables(tables: FloatArray, weights: FloatArray) -> FloatArray:
    """Give Cohen's unweighted kappa of contingency tables that are summed over scans.

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
