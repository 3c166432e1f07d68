"""Bootstrap over subjects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cmbprep.lab.evaluate.metrics import weighted_median
from cmbprep.lab.evaluate.statistics import percentile_interval, subject_weights


def test_scans_of_a_subject_are_drawn_together():
    weights = subject_weights(["b", "a", "b", "c"], 200, 0)
    assert weights.shape == (200, 4)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 0] + weights[:, 1] + weights[:, 3], 3)


def test_same_seed_same_draws():
    subjects = [str(i) for i in range(10)]
    first = subject_weights(subjects, 50, 4)
    np.testing.assert_array_equal(first, subject_weights(subjects, 50, 4))
    assert not np.array_equal(first, subject_weights(subjects, 50, 5))


def test_interval_of_a_share_is_the_binomial_one():
    # 40 subjects, half of them hits: the bootstrap distribution is binomial.
    hit = np.repeat([0.0, 1.0], 20)
    weights = subject_weights([str(i) for i in range(40)], 20000, 1)
    low, high = percentile_interval(weights @ hit / 40)
    expected = stats.binom.ppf([0.025, 0.975], 40, 0.5) / 40
    assert (low, high) == pytest.approx(tuple(expected), abs=0.026)


def test_interval_needs_a_majority_of_defined_draws():
    assert percentile_interval(np.array([1.0, np.nan, np.nan, 2.0])) is None
    assert percentile_interval(np.array([])) is None
    low, high = percentile_interval(np.array([1.0, np.nan, 2.0, 3.0]))
    assert low < high


def test_weighted_median_is_that_of_repeated_values():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 6, 9).astype(float)
    weights = rng.integers(0, 4, (50, 9)).astype(float)
    expected = [np.median(np.repeat(values, row.astype(int))) for row in weights]
    np.testing.assert_allclose(weighted_median(values, weights), expected)
    assert np.isnan(weighted_median(np.array([np.nan]), np.ones((1, 1)))[0])
    assert np.isnan(weighted_median(np.array([1.0]), np.zeros((1, 1)))[0])
