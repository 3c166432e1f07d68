"""Which of the candidates that are nothing a pass over the samples looks at.

Most of them are plainly nothing after a pass or two, and what a network learns from one is as
small as the loss it makes. So a pass takes each with a chance that grows with the loss that it
made when it was last seen, and weighs it by the inverse, so that what is minimised stays the same
on average (importance sampling; Katharopoulos and Fleuret 2018, arXiv:1803.00942).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST", "chances", "draw"]

#: Smallest chance of a candidate: bounds its weight, and every one is met again.
LEAST = 0.1


def chances(loss: NDArray[np.floating], share: float) -> NDArray[np.float64]:
    """Chance of each candidate to be taken.

    Parameters
    ----------
    loss
        (n,) that it made when it was last seen; NaN if it has not been: it counts as the average.
    share
        Part of all that is to be taken on average, from :data:`LEAST` to 1.

    Returns
    -------
    numpy.ndarray
        (n,) in proportion to the root of the loss, which hardly lets weights vary, but within
        :data:`LEAST` and 1; their mean is `share`.
    """
    if not LEAST <= share <= 1:
        raise ValueError(f"the share must be {LEAST} to 1, not {share}")
    seen = np.isfinite(loss)
    usual = float(np.mean(loss[seen])) if seen.any() else 1.0
    size = np.sqrt(np.maximum(np.where(seen, loss, usual), 1e-8), dtype=np.float64)
    # The mean grows with the factor, from LEAST to 1.
    low, high = 0.0, 1.0 / float(size.min())
    for _ in range(60):
        middle = (low + high) / 2
        if np.clip(middle * size, LEAST, 1).mean() > share:
            high = middle
        else:
            low = middle
    return np.asarray(np.clip(low * size, LEAST, 1))


def draw(chance: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int_]:
    """Draw rows, each with its chance; how many is their sum, rounded up or down.

    Systematic sampling of the shuffled rows (Madow 1949, doi:10.1214/aoms/1177729988): chances
    are laid end to end, and every row that a whole number, moved at random, falls into is taken.
    """
    order = rng.permutation(len(chance))
    ends = np.cumsum(chance[order]) + rng.random()
    counted = np.floor(ends)
    return np.asarray(order[np.diff(counted, prepend=0.0) > 0])
