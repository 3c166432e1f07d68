"""Curves and medians, counted by hand and beside an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cmbprep.lab.evaluate.curves import average_precision, pool_steps, sensitivity_at
from cmbprep.lab.evaluate.metrics import weighted_median
from cmbprep.lab.evaluate.scoring import Steps

ONE = np.ones((1, 1))


def steps(*events: tuple[float, bool]) -> Steps:
    """Steps of a scan from its predictions: probability, and whether it is a hit."""
    probability = np.array([p for p, _ in events])
    hit = np.array([h for _, h in events], dtype=bool)
    thresholds = np.unique(probability)[::-1]
    return Steps(
        thresholds,
        np.array([(hit & (probability >= t)).sum() for t in thresholds]),
        np.array([(~hit & (probability >= t)).sum() for t in thresholds]),
    )


RANKED = steps((0.9, True), (0.8, False), (0.7, True), (0.6, False), (0.5, False), (0.4, True))


def test_average_precision_by_hand():
    # Relevant at ranks 1, 3 and 6 of 6: (1/1 + 2/3 + 3/6) / 3.
    value = average_precision(pool_steps([RANKED]), np.array([3.0]), ONE)[0]
    assert value == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    # A fourth lesion that is never found adds nothing above, one below.
    value = average_precision(pool_steps([RANKED]), np.array([4.0]), ONE)[0]
    assert value == pytest.approx((1 + 2 / 3 + 3 / 6) / 4)


def test_equal_probabilities_are_one_step():
    # Three hits among four: one step with precision 3/4, whatever their order.
    tied = steps((0.5, True), (0.5, False), (0.5, True), (0.5, True))
    assert average_precision(pool_steps([tied]), np.array([3.0]), ONE)[0] == pytest.approx(0.75)


def test_average_precision_agrees_with_scikit_learn():
    rng = np.random.default_rng(5)
    scans = []
    every: list[tuple[float, bool]] = []
    for _ in range(6):
        events = [(round(float(rng.random()), 1), bool(rng.random() < 0.4)) for _ in range(12)]
        scans.append(steps(*events))
        every += events
    lesions = np.array([scan.hits[-1] for scan in scans], dtype=float)
    ours = average_precision(pool_steps(scans), lesions, np.ones((1, 6)))[0]
    theirs = average_precision_score([h for _, h in every], [p for p, _ in every])
    assert ours == pytest.approx(theirs)


def test_average_precision_at_the_limits():
    nothing = pool_steps([steps()])
    assert average_precision(nothing, np.array([2.0]), ONE)[0] == 0
    assert np.isnan(average_precision(nothing, np.array([0.0]), ONE)[0])
    perfect = pool_steps([steps((0.9, True), (0.2, True))])
    assert average_precision(perfect, np.array([2.0]), ONE)[0] == pytest.approx(1)


def test_froc_is_read_as_a_step_function():
    # Two scans; false positives after 1, 2 and 3 of the hits.
    pooled = pool_steps([RANKED, steps((0.75, True))])
    lesions = np.array([3.0, 1.0])
    levels = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 100.0])
    # 0 FP: 0.9. Up to 0.5 a scan (one FP): 0.9, 0.75, 0.7. 1.5 a scan (three): all.
    expected = np.array([1, 1, 3, 3, 4, 4]) / 4
    weights = np.ones((1, 2))
    np.testing.assert_allclose(sensitivity_at(pooled, lesions, weights, levels)[0], expected)
    # Each scan twice is the same set.
    np.testing.assert_allclose(sensitivity_at(pooled, lesions, 2 * weights, levels)[0], expected)
    # Without the first scan there is no false positive.
    alone = sensitivity_at(pooled, lesions, np.array([[0.0, 1.0]]), levels)[0]
    np.testing.assert_allclose(alone, 1)


def test_froc_without_lesions_is_not_defined():
    assert np.isnan(sensitivity_at(pool_steps([RANKED]), np.array([0.0]), ONE, np.array([1.0])))


def test_weighted_median_is_that_of_repeated_values():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 6, 9).astype(float)
    weights = rng.integers(0, 4, (50, 9)).astype(float)
    expected = [np.median(np.repeat(values, row.astype(int))) for row in weights]
    np.testing.assert_allclose(weighted_median(values, weights), expected)
    assert np.isnan(weighted_median(np.array([np.nan]), np.ones((1, 1)))[0])
    assert np.isnan(weighted_median(np.array([1.0]), np.zeros((1, 1)))[0])
