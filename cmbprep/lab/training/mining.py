"""How a network is fitted: the options, and which candidates a pass over the samples looks at.

A pass looks at all spots, and a part of the rest.

Most of the rest is plainly nothing after a pass or two, and what a network learns from such a
candidate is as small as the loss it makes. So a pass takes each with a chance that grows with the
loss that it made when it was last seen, and weighs it by the inverse, so that what is minimised
stays the same on average (importance sampling; Katharopoulos and Fleuret 2018, arXiv:1803.00942).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Smallest chance of a candidate: bounds its weight, and every one is met again.
LEAST = 0.1


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to fit.

    Attributes
    ----------
    epochs, batch, rate
        Passes over the samples, candidates a step, largest learning rate (one cycle).
    seed
        Of weights, order and augmentation.
    width
        See :class:`cmbprep.lab.training.network.CandidateNetwork`.
    whole
        Number of passes, the first ones, that take candidates without a spot whatever they are.
    easy
        Part of the candidates without a spot that these passes take, and that they weigh as in
        all others.
    surprising
        Part that later passes take, the more likely the larger their loss.
    members
        Networks whose logits are averaged.
    short
        Multiply in bfloat16: some times faster on processors with AMX, about as good.
    """

    epochs: int = 12
    batch: int = 128
    rate: float = 2e-3
    seed: int = 0
    width: int = 24
    whole: int = 2
    easy: float = 0.6
    surprising: float = 0.2
    members: int = 2
    short: bool = False


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


class Passes:
    """Draws what each pass looks at.

    Parameters
    ----------
    spot
        (n,) number of the spot that each candidate belongs to; below 0 if it is none.
    options
        ``epochs``, ``whole``, ``easy`` and ``surprising`` count.

    Attributes
    ----------
    loss
        (n,) float32 of each candidate when it was last seen; NaN before that. Whoever fits fills
        it in.
    """

    def __init__(self, spot: NDArray[np.integer], options: FitOptions) -> None:
        self.loss = np.full(len(spot), np.nan, np.float32)
        self._options = options
        self._spots = np.flatnonzero(spot >= 0)
        self._rest = np.flatnonzero(spot < 0)

    def lengths(self) -> list[int]:
        """Most candidates that each pass looks at."""
        options = self._options
        whole = len(self._spots) + int(options.easy * len(self._rest))
        other = len(self._spots) + int(np.ceil(options.surprising * len(self._rest))) + 1
        return [whole if number < options.whole else other for number in range(options.epochs)]

    def draw(
        self, number: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
        """Draw a pass.

        Parameters
        ----------
        number
            Of the pass, from 0.
        rng
            Source of randomness.

        Returns
        -------
        rows
            Candidates to look at, in random order, each once.
        counts
            (n,) for how many each candidate stands if it is looked at. Over all passes the rest
            counts as ``easy`` of it does.
        """
        options, rest = self._options, self._rest
        counts = np.ones(len(self.loss), np.float32)
        if number < options.whole:
            taken = rng.choice(rest, int(options.easy * len(rest)), replace=False)
        else:
            chance = chances(self.loss[rest], options.surprising)
            counts[rest] = options.easy / chance
            taken = rest[draw(chance, rng)]
        return rng.permutation(np.concatenate([self._spots, taken])), counts
