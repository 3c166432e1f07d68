"""Curves over the threshold on the predicted probability, pooled over weighted scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.evaluate.scoring import Steps
from cmbprep.ratings.statistics import ratio

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
