"""Matching: one to one, optimal, the same whatever the order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmbprep.ratings.matching import assign, centre_distances


def points(*x: float) -> np.ndarray:
    return np.array([(value, 0.0, 0.0) for value in x]).reshape(-1, 3)


def by_distance(truth, predicted, limit=5.0, probability=None):
    distance = centre_distances(points(*truth), points(*predicted))
    return assign(distance, distance <= limit, probability)


def test_optimal_finds_the_pair_that_greedy_loses():
    # Nearest first would take 4-3 and leave 0 and 8.5 (8.5 mm apart) alone.
    assert by_distance([0, 4], [3, 8.5]) == [(0, 0), (1, 1)]


def test_most_pairs_come_before_small_distances():
    # One pair at 0 mm, or two at 4.9 mm each: two.
    assert by_distance([0, 4.9], [4.9, 9.8]) == [(0, 0), (1, 1)]


def test_of_as_many_pairs_the_nearer_ones():
    assert by_distance([0, 3], [1, 2.5]) == [(0, 0), (1, 1)]
    assert by_distance([0], [2, 1, -3]) == [(0, 1)]


def test_each_lesion_is_matched_once():
    assert by_distance([0], [-1, 1]) == [(0, 0)]  # two predictions on one lesion
    assert by_distance([-1, 1], [0]) == [(0, 0)]  # one prediction on two lesions


def test_equal_distances_go_to_the_more_probable():
    assert by_distance([0], [-1, 1], probability=np.array([0.4, 0.9])) == [(0, 1)]
    assert by_distance([0], [-1, 1], probability=np.array([0.9, 0.4])) == [(0, 0)]
    # ... but a nearer one wins over a more probable one.
    assert by_distance([0], [-1, 1.1], probability=np.array([0.1, 1.0])) == [(0, 0)]


def test_nothing_to_match():
    assert by_distance([], [1, 2]) == []
    assert by_distance([1, 2], []) == []
    assert by_distance([0], [100]) == []


def test_the_limit_itself_is_allowed():
    assert by_distance([0], [5]) == [(0, 0)]


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.data(),
)
def test_no_assignment_is_better(n_truth, n_predicted, data):
    draw = st.integers(0, 9)
    cost = np.array(
        [[data.draw(draw) for _ in range(n_predicted)] for _ in range(n_truth)], dtype=float
    )
    allowed = cost <= 6
    best = (0, 0.0)
    small, large = sorted((n_truth, n_predicted))
    for order in permutations(range(large), small):
        pairs = [
            (i, j) if n_truth <= n_predicted else (j, i)
            for i, j in zip(range(small), order, strict=True)
        ]
        pairs = [pair for pair in pairs if allowed[pair]]
        best = max(best, (len(pairs), -sum(cost[pair] for pair in pairs)))
    found = assign(cost, allowed)
    assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)
    assert all(allowed[pair] for pair in found)
    assert (len(found), -sum(cost[pair] for pair in found)) == best


def test_a_large_crowd_is_matched_exactly():
    # 300 lesions in a row, each 4 mm from the next, predictions 1.5 mm beside them: one group.
    truth = np.arange(300) * 4.0
    found = by_distance(truth, truth + 1.5)
    assert found == [(i, i) for i in range(300)]
