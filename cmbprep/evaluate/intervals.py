"""Percentile bootstrap over subjects.

Subjects, not scans or lesions, are drawn: lesions of one person, and scans of one person, are
not independent. A draw is a row of weights: how often each scan is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "percentile_interval", "subject_weights"]

FloatArray = NDArray[np.float64]

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
    times = (
        np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        if n_draws
        else (np.zeros((0, len(names))))
    )
    return np.asarray(times[:, member], dtype=float)


def percentile_interval(values: FloatArray) -> tuple[float, float] | None:
    """Give the 2.5th and 97.5th percentile of the draws in which the figure is defined.

    None if it is undefined in half of the draws or more: such an interval would tell of a
    selected part of the draws.
    """
    defined = values[np.isfinite(values)]
    if not len(values) or 2 * len(defined) <= len(values):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)
