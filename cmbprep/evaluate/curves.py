"""Curves over the threshold on the predicted probability, pooled over weighted scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scoring import Steps

__all__ = [
    "FROC_LEVELS",
    "Pooled",
    "average_precision",
    "calibration_error",
    "pool_steps",
    "reliability_bins",
    "sensitivity_at",
]

FloatArray = NDArray[np.float64]

#: False positives a scan at which the sensitivity is read off: those of the LUNA16 challenge
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
    """Give the area under the precision-recall curve as a sum of steps, without interpolation.

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
    with np.errstate(invalid="ignore", divide="ignore"):
        gained = np.diff(hits, axis=1, prepend=0) / total[:, None]
        precision = np.where(hits + false > 0, hits / (hits + false), 0)
    return np.where(total > 0, (gained * precision).sum(axis=1), np.nan)


def sensitivity_at(
    pooled: Pooled, lesions: FloatArray, weights: FloatArray, levels: FloatArray
) -> FloatArray:
    """Read the FROC curve: the best sensitivity with at most so many false positives a scan.

    Where the curve ends before a level is reached, its end counts.

    Returns
    -------
    array
        Shape (n_draws, n_levels).
    """
    total, scans = weights @ lesions, weights.sum(axis=1)
    hits, false = weights @ pooled.hits, weights @ pooled.false
    best = np.zeros((len(weights), len(levels)))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = false / scans[:, None]
        for column, level in enumerate(levels):
            within = np.where(rate <= level + 1e-12, hits, 0)
            if within.shape[1]:
                best[:, column] = within.max(axis=1)
        sensitivity = best / total[:, None]
    return np.where((total > 0)[:, None], sensitivity, np.nan)


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
    count = np.bincount(which, minlength=n_bins).astype(float)
    sums = [
        np.bincount(which, weights=values, minlength=n_bins).astype(float)
        for values in (probability, correct)
    ]
    return count, sums[0], sums[1]


def calibration_error(
    count: FloatArray, probability_sum: FloatArray, correct_sum: FloatArray, weights: FloatArray
) -> FloatArray:
    """Give the expected calibration error.

    ECE = sum over bins of (share of predictions) x abs(share correct - mean probability)
    (Naeini, Cooper and Hauskrecht, AAAI 2015).

    Parameters
    ----------
    count, probability_sum, correct_sum
        Per scan and bin, shape (n_scans, n_bins) each.
    """
    n = weights @ count
    total = n.sum(axis=1)
    gap = np.abs(weights @ correct_sum - weights @ probability_sum).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, gap / total, np.nan)
