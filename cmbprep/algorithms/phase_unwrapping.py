"""Phase without its jumps of 2 pi: path-following unwrapping along the most reliable paths.

Neighbouring voxels whose phases differ by more than pi are taken to lie a full turn apart.
In what order neighbours are compared decides how far an error spreads, so they are
compared along a minimum spanning tree of the voxels, whose edges cost the more the weaker
the signal and the larger the difference: a void with noise in it is a leaf of the tree, and
its errors stay inside. One tree serves all echoes.

References
----------
Dymerska B, et al. Phase unwrapping with a rapid opensource minimum spanning tree algorithm
(ROMEO). Magn Reson Med 2021;85:2294-2308, which grows its regions in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["unwrap", "wrapped"]

FloatArray = NDArray[np.float32]

#: No edge is free, because sparse graphs take a zero for a missing edge.
_LEAST_COST = 1e-3


def wrapped(phase: FloatArray) -> FloatArray:
    """Bring phases in rad to -pi..pi."""
    turn = np.float32(2 * np.pi)
    return np.asarray(phase - turn * np.round(phase / turn), dtype=np.float32)


def unwrap(
    phases: Sequence[FloatArray], magnitudes: Sequence[FloatArray], mask: NDArray[np.bool_]
) -> list[FloatArray]:
    """Unwrap the phase of each echo inside a mask.

    Parameters
    ----------
    phases
        One an echo, rad, shape (X, Y, Z); any multiple of 2 pi may be missing.
    magnitudes
        As many, of the same shape, in any unit; the reliability of a voxel.
    mask
        Shape (X, Y, Z). Parts that do not touch each other's faces may come out full turns
        apart.

    Returns
    -------
    list of numpy.ndarray
        Unwrapped phase of each echo in rad, float32, 0 outside the mask. Each echo's
        may be off by one multiple of 2 pi as a whole.

    Raises
    ------
    ValueError
        If shapes or counts differ, or the mask is empty.
    """
    if len(phases) != len(magnitudes) or not phases:
        raise ValueError("each phase needs a magnitude, and there must be at least one")
    if any(image.shape != mask.shape for image in (*phases, *magnitudes)):
        raise ValueError("phases, magnitudes and mask must have one shape")
    if not mask.any():
        raise ValueError("the mask is empty")
    parents, order = _tree(phases, magnitudes, mask)
    results = []
    for phase in phases:
        values = phase[mask].astype(np.float64)
        turns = np.rint((values[parents] - values) / (2 * np.pi)).astype(np.int32)
        _sum_to_root(turns, parents, order)
        result = np.zeros(mask.shape, np.float32)
        result[mask] = values + 2 * np.pi * turns
        results.append(result)
    return results


def _tree(
    phases: Sequence[FloatArray], magnitudes: Sequence[FloatArray], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Give each voxel's parent in the spanning tree, and an order with parents first."""
    from scipy import sparse
    from scipy.sparse import csgraph

    size = int(mask.sum())
    numbers = np.full(mask.shape, -1, np.int32)
    numbers[mask] = np.arange(size, dtype=np.int32)
    first, second, costs = [], [], []
    for axis in range(mask.ndim):
        low, high = _neighbours(axis, mask.ndim)
        both = mask[low] & mask[high]
        first.append(numbers[low][both])
        second.append(numbers[high][both])
        costs.append(_edge_cost(phases, magnitudes, low, high, both))
    edges = (np.concatenate(costs), (np.concatenate(first), np.concatenate(second)))
    del first, second, costs, numbers
    graph = sparse.coo_matrix(edges, shape=(size, size)).tocsr()
    parts, labels = csgraph.connected_components(graph, directed=False)
    tree = csgraph.minimum_spanning_tree(graph)
    del graph, edges
    if parts > 1:
        # One voxel of each part is tied to the first part, so that one walk reaches all.
        starts = np.unique(labels, return_index=True)[1].astype(np.int32)
        ties = np.full(parts - 1, 10.0, np.float32)
        rows = np.full(parts - 1, starts[0], np.int32)
        tree = tree + sparse.coo_matrix((ties, (rows, starts[1:])), shape=(size, size)).tocsr()
    order, parents = csgraph.breadth_first_order(tree, 0, directed=False)
    parents[0] = 0
    return parents, order


def _neighbours(axis: int, ndim: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low, high = [slice(None)] * ndim, [slice(None)] * ndim
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)


def _edge_cost(
    phases: Sequence[FloatArray],
    magnitudes: Sequence[FloatArray],
    low: tuple[slice, ...],
    high: tuple[slice, ...],
    both: NDArray[np.bool_],
) -> FloatArray:
    """Cost of going from a voxel to its neighbour: the echoes' mean, weighted by signal."""
    total = np.zeros(int(both.sum()), np.float32)
    weight = np.full(total.shape, 1e-12, np.float32)
    for phase, magnitude in zip(phases, magnitudes, strict=True):
        here, there = magnitude[low][both], magnitude[high][both]
        weaker, stronger = np.minimum(here, there), np.maximum(here, there)
        jump = np.abs(wrapped(phase[high][both] - phase[low][both])) / np.float32(np.pi)
        coherence = (1 - jump) * weaker / np.maximum(stronger, np.float32(1e-12))
        total += stronger * coherence
        weight += stronger
    cost: FloatArray = 1 - total / weight
    # Weak signal on both sides is no more reliable than on one.
    level = np.float32(np.median(weight))
    cost += np.float32(0.5) * np.exp(-2 * weight / level)
    return np.maximum(cost, np.float32(_LEAST_COST))


def _sum_to_root(
    values: NDArray[np.int32], parents: NDArray[np.int32], order: NDArray[np.int32]
) -> None:
    """Replace each value by the sum of all from its voxel up to the root, in place.

    The pointer to the parent is doubled in reach at each step, so that the number of steps
    is the logarithm of the tree's depth.
    """
    root = order[0]
    values[root] = 0
    above = parents.copy()
    while np.any(above != root):
        values += values[above]
        above = above[above]
