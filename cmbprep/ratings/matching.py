"""Matching the lesions of one scan: one to one, and the best possible.

Two lesions *may* be matched if the rule of the caller says so (centres close enough, or regions
that overlap enough). Of all one-to-one assignments of pairs that may be matched, the one is taken

1. that has the most pairs,
2. of these, the smallest sum of costs (distance, or 1 - IoU),
3. of these, the highest sum of predicted probabilities,
4. of these, the one that comes first when both sides are put in the order of their
   coordinates, so that the order of rows in a file or labels in an image plays no part.

A greedy rule (nearest pair first) can leave a lesion unmatched that another assignment would
have matched; an optimal one cannot. The assignment problem is solved by
:func:`scipy.optimize.linear_sum_assignment`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

# Costs become whole numbers, so that equal means equal on every machine.
_COST_QUANTUM = 1e-3
_PROBABILITY_QUANTUM = 1e-3


def centre_distances(truth: FloatArray, predicted: FloatArray) -> FloatArray:
    """Return the distances between centres, shape (n_truth, n_predicted), in their unit."""
    difference = truth[:, None, :] - predicted[None, :, :]
    return np.asarray(np.sqrt((difference**2).sum(axis=-1)), dtype=float)


def assign(
    cost: FloatArray, allowed: BoolArray, probability: FloatArray | None = None
) -> list[tuple[int, int]]:
    """Match rows (truth) and columns (predictions) one to one, as the module says.

    The caller puts rows and columns in a canonical order; it decides what is still equal.

    Parameters
    ----------
    cost
        Shape (n_truth, n_predicted), not negative, in mm or as 1 - IoU; taken to 0.001.
    allowed
        Shape (n_truth, n_predicted): which pairs may be matched.
    probability
        Shape (n_predicted,), 0..1; breaks ties of the sum of costs.

    Returns
    -------
    list of (row, column)
        In the order of the rows.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    n_rows, n_columns = allowed.shape
    rows, columns = np.nonzero(allowed)
    if not len(rows):
        return []
    # Groups of lesions that have nothing to do with each other are solved apart: the numbers
    # stay small enough to be exact, and far lesions cannot change a tie.
    size = n_rows + n_columns
    graph = csr_matrix((np.ones(len(rows)), (rows, columns + n_rows)), shape=(size, size))
    _, group = connected_components(graph, directed=False)
    pairs: list[tuple[int, int]] = []
    for number in np.unique(group[rows]):
        r = np.flatnonzero(group[:n_rows] == number)
        c = np.flatnonzero(group[n_rows:] == number)
        block = np.ix_(r, c)
        chances = None if probability is None else probability[c]
        pairs += [
            (int(r[i]), int(c[j])) for i, j in _assign_group(cost[block], allowed[block], chances)
        ]
    return sorted(pairs)


def _assign_group(
    cost: FloatArray, allowed: BoolArray, probability: FloatArray | None
) -> list[tuple[int, int]]:
    from scipy.optimize import linear_sum_assignment

    n = min(cost.shape)
    # One whole number holds all three criteria: a unit of each weighs more than the largest
    # possible sum of the next.
    chance = np.zeros(cost.shape[1]) if probability is None else 1 - probability
    third = np.rint(chance / _PROBABILITY_QUANTUM)
    second = np.rint(np.where(allowed, cost, 0) / _COST_QUANTUM)
    weight = second * (n * third.max() + 1) + third[None, :]
    forbidden = n * weight.max() + 1
    rows, columns = linear_sum_assignment(np.where(allowed, weight, forbidden))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]
