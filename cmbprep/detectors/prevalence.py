"""How many microbleeds a scan holds changes what each candidate most likely is.

Most people have none or a few microbleeds; some have dozens, and in them a doubtful spot most
likely is one more. A detector that is calibrated for the average person is too sure of itself
in the former and not sure enough in the latter. So the expected number is estimated from the
scan itself, as priors of classes are estimated from unlabelled data (Saerens 2002), pulled
towards the average person.

References
----------
Saerens M, Latinne P, Decaestecker C. Neural Comput 2002;14:21-41.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import spatial, special

__all__ = ["Prevalence", "one_a_place"]

#: Candidates nearer to each other than this are one thing, mm.
NEAR_MM = 4.0
_ROUNDS = 200


@dataclass(frozen=True)
class Prevalence:
    """Number of microbleeds that a scan is expected to hold.

    Attributes
    ----------
    expected
        Of the average person: what log-odds without a shift refer to.
    strength
        How strongly a scan is pulled towards it: as if so many microbleeds, at the average
        rate, had been seen before.
    """

    expected: float
    strength: float

    def __post_init__(self) -> None:
        if not (self.expected > 0 and self.strength > 0):
            raise ValueError("the expected number and its strength must be positive")

    def shift(self, log_odds: NDArray[np.floating]) -> float:
        """What to add to the log-odds (n,) of a scan's candidates, one for each thing.

        It is the logarithm of the scan's rate over the average one. The rate is the mean of a
        gamma distribution around the average, given the number of microbleeds that the
        candidates are worth at this rate.
        """
        odds = np.asarray(log_odds, float)
        shift = 0.0
        for _ in range(_ROUNDS):
            worth = float(special.expit(odds + shift).sum())
            new = math.log((self.strength + worth) / (self.strength + self.expected))
            if abs(new - shift) < 1e-6:
                break
            shift = new
        # Rounding keeps noise of the last bits out of the tables.
        return round(shift, 4)


def one_a_place(
    points_mm: NDArray[np.floating], log_odds: NDArray[np.floating]
) -> NDArray[np.int_]:
    """Index of the most probable candidate of each group of near ones.

    Parameters
    ----------
    points_mm
        (n, 3) positions.
    log_odds
        (n,); equal ones are taken in the order given.
    """
    if not len(points_mm):
        return np.zeros(0, int)
    tree = spatial.cKDTree(points_mm)
    free = np.ones(len(points_mm), bool)
    kept = []
    for index in np.argsort(-np.asarray(log_odds), kind="stable"):
        if free[index]:
            kept.append(int(index))
            free[tree.query_ball_point(points_mm[index], NEAR_MM)] = False
    return np.array(sorted(kept))
