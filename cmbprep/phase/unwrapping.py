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

from cmbprep.spatial.grids import neighbours

FloatArray = NDArray[np.float32]

#: No edge is free, because sparse graphs take a zero for a missing edge.
_LEAST_COST = 1e-3
#: Neighbours whose edge costs less are joined before the tree is grown, the first of these
#: costs with which that changes nothing; see :func:`unwrap`.
_CALM = (0.4, 0.25, 0.0)

Pairs = tuple[NDArray[np.int32], NDArray[np.int32], FloatArray]


def wrapped(phase: FloatArray) -> FloatArray:
    """Bring phases in rad to -pi..pi."""
    turn = np.float32(2 * np.pi)
    return np.asarray(phase - turn * np.round(phase / turn), dtype=np.float32)


def unwrap(
    phases: Sequence[FloatArray], magnitudes: Sequence[FloatArray], mask: NDArray[np.bool_]
) -> list[FloatArray]:
    """Unwrap the phase of each echo inside a mask.

    A tree over all voxels is large, and in most of the brain it does not matter: where no
    neighbours across a cheap edge come out more than half a turn apart, every way along
    cheap edges gives the same. So runs of voxels along the last axis that are joined by
    cheap edges are taken for one node each, and the tree is grown over the runs. If it then
    turns out that the way did matter, fewer edges are called cheap, and in the end none.
    Whatever is called cheap, the result is that of the tree over the voxels.

    Parameters
    ----------
    phases
        One an echo, rad, shape (X, Y, Z); any multiple of 2 pi may be missing.
    magnitudes
        As many, of the same shape, in any unit; the reliability of a voxel.
    mask
        Shape (X, Y, Z), not empty. Parts that do not touch each other's faces may come out full
        turns apart.

    Returns
    -------
    list of numpy.ndarray
        Unwrapped phase of each echo in rad, float32, 0 outside the mask. Each echo's
        may be off by one multiple of 2 pi as a whole.
    """
    values = [phase[mask].astype(np.float64) for phase in phases]
    pairs = _pairs(phases, magnitudes, mask)
    turns = next(found for calm in _CALM if (found := _turns(values, pairs, calm)) is not None)
    results = []
    for value, turn in zip(values, turns, strict=True):
        result = np.zeros(mask.shape, np.float32)
        result[mask] = value + 2 * np.pi * turn
        results.append(result)
    return results


def _pairs(
    phases: Sequence[FloatArray], magnitudes: Sequence[FloatArray], mask: NDArray[np.bool_]
) -> list[Pairs]:
    """For each axis the pairs of neighbours, numbered as ``image[mask]`` is, and their costs."""
    numbers = np.full(mask.shape, -1, np.int32)
    numbers[mask] = np.arange(np.count_nonzero(mask), dtype=np.int32)
    angles = [phase[mask] for phase in phases]
    signals = [magnitude[mask] for magnitude in magnitudes]
    pairs = []
    for axis in range(mask.ndim):
        low, high = neighbours(axis, mask.ndim)
        both = mask[low] & mask[high]
        first, second = numbers[low][both], numbers[high][both]
        pairs.append((first, second, _edge_cost(angles, signals, first, second)))
    return pairs


def _turns(
    values: list[NDArray[np.float64]], pairs: list[Pairs], calm: float
) -> list[NDArray[np.int32]] | None:
    """Return the full turns that each voxel lacks, by a tree over runs of calm voxels.

    Parameters
    ----------
    values
        Phase of the voxels of the mask, one array an echo, rad.
    pairs
        From :func:`_pairs`.
    calm
        Voxels are joined along the last axis where the edge costs less; 0 joins none.

    Returns
    -------
    list of numpy.ndarray or None
        (n,) an echo. None if neighbours across an edge that costs less than `calm` come
        out more than half a turn apart, so that the runs may have been wrong.
    """
    first, second, cost = pairs[-1]
    # Voxels are numbered along the last axis: a run is a range of numbers.
    joined = np.zeros(len(values[0]), bool)
    joined[second[cost < calm]] = True
    run = np.cumsum(~joined, dtype=np.int32) - np.int32(1)
    apart = cost >= calm
    between = [*pairs[:-1], (first[apart], second[apart], cost[apart])]
    cheapest = [_cheapest(run, axis) for axis in between]
    parents, order, here, there = _tree(run, cheapest)
    results = []
    for value in values:
        steps = np.zeros(len(value), np.int32)
        steps[1:] = _whole_turns(value[:-1], value[1:])
        within = np.cumsum(steps * joined, dtype=np.int32)
        offsets = _whole_turns(value[there], value[here]) + within[there] - within[here]
        _sum_to_root(offsets, parents, order)
        result = within + offsets[run]
        result -= result[0]
        # Along the last axis what is joined is smooth as it is made.
        if calm and not _is_smooth(value + 2 * np.pi * result, pairs[:-1], calm):
            return None
        results.append(result)
    return results


def _whole_turns(near: NDArray[np.float64], far: NDArray[np.float64]) -> NDArray[np.int32]:
    """Full turns to add to `far` so that it comes nearest to `near`."""
    return np.rint((near - far) / (2 * np.pi)).astype(np.int32)


def _is_smooth(value: NDArray[np.float64], pairs: list[Pairs], calm: float) -> bool:
    """Whether no two neighbours across a cheap edge lie more than half a turn apart."""
    # A little more: an echo of little weight may lie half a turn apart to the last bit.
    most = 1.0001 * np.pi
    return all(
        bool(np.all(np.abs(value[first] - value[second])[cost < calm] <= most))
        for first, second, cost in pairs
    )


def _cheapest(run: NDArray[np.int32], pairs: Pairs) -> Pairs:
    """Keep the cheapest pair of voxels of each pair of runs, the first of equal ones."""
    first, second, cost = pairs
    low, high = run[first], run[second]
    if not len(low):
        return pairs
    # Two runs side by side touch in one stretch, whose pairs follow each other.
    new = np.ones(len(low), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    starts = np.flatnonzero(new)
    if len(starts) == len(low):
        return pairs
    stretch = np.cumsum(new, dtype=np.int32) - np.int32(1)
    least = np.minimum.reduceat(cost, starts)
    found = np.flatnonzero(cost == least[stretch])
    kept = found[np.diff(stretch[found], prepend=-1) > 0]
    return first[kept], second[kept], cost[kept]


def _tree(
    run: NDArray[np.int32], cheapest: list[Pairs]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Grow the spanning tree over runs.

    Returns
    -------
    parents, order
        Parent of each run, the root its own; an order with parents first.
    here, there
        Of each run, the voxel by which it hangs on its parent, and that of the parent.
    """
    from scipy import sparse
    from scipy.sparse import csgraph

    size = int(run[-1]) + 1
    first, second, cost = (np.concatenate(part) for part in zip(*cheapest, strict=True))
    low, high = run[first], run[second]
    graph = sparse.coo_matrix((cost, (low, high)), shape=(size, size)).tocsr()
    tree = csgraph.minimum_spanning_tree(graph)
    del graph
    order, parents = csgraph.breadth_first_order(tree, 0, directed=False)
    heads = np.flatnonzero(np.diff(run, prepend=-1)).astype(np.int32)
    if len(order) < size:
        # One run of each part is tied to the first part, so that one walk reaches all.
        _, labels = csgraph.connected_components(tree, directed=False)
        starts = np.unique(labels, return_index=True)[1].astype(np.int32)
        ties = np.full(len(starts) - 1, 10.0, np.float32)
        rows = np.full(len(starts) - 1, starts[0], np.int32)
        tied = sparse.coo_matrix((ties, (rows, starts[1:])), shape=(size, size))
        order, parents = csgraph.breadth_first_order(tree + tied.tocsr(), 0, directed=False)
    parents[0] = 0
    here, there = heads, heads[parents]
    if size < len(run):
        _hang(parents, cheapest, run, here, there)
    return parents, order, here, there


def _hang(
    parents: NDArray[np.int32],
    cheapest: list[Pairs],
    run: NDArray[np.int32],
    here: NDArray[np.int32],
    there: NDArray[np.int32],
) -> None:
    """Write into `here` and `there` the voxels of the pair between each run and its parent."""
    size = len(parents)
    own = np.arange(size, dtype=np.int64)
    wanted = np.minimum(own, parents) * size + np.maximum(own, parents)
    for first, second, _ in cheapest:
        # In the order of voxels, the pairs are in the order of their keys.
        keys = run[first].astype(np.int64) * size + run[second]
        if not len(keys):
            continue
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hung = np.flatnonzero(keys[place] == wanted)
        low, high = first[place[hung]], second[place[hung]]
        below = parents[hung] > hung
        here[hung], there[hung] = np.where(below, low, high), np.where(below, high, low)


def _edge_cost(
    phases: Sequence[FloatArray],
    magnitudes: Sequence[FloatArray],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
) -> FloatArray:
    """Cost of going from a voxel to its neighbour: the echoes' mean, weighted by signal."""
    total = np.zeros(len(first), np.float32)
    weight = np.full(total.shape, 1e-12, np.float32)
    for phase, magnitude in zip(phases, magnitudes, strict=True):
        here, there = magnitude[first], magnitude[second]
        weaker, stronger = np.minimum(here, there), np.maximum(here, there)
        jump = np.abs(wrapped(phase[second] - phase[first])) / np.float32(np.pi)
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
