"""Statistics against published examples, repeated data and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from cmbprep.ratings.statistics import (
    bland_altman,
    calibration_error,
    cohen_kappa,
    icc_a1,
    kappa_of_tables,
    linear_weights,
    percentile_interval,
    reliability_bins,
    subject_weights,
    tabulate,
)

# Shrout and Fleiss, Psychol Bull 1979;86:420, table 2: six targets, four judges.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]],
    dtype=float,
)

# Bland and Altman, Lancet 1986;i:307: peak flow of 17 people, first readings (l/min).
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def ones(n: int) -> np.ndarray:
    return np.ones((1, n))


def test_icc_of_shrout_and_fleiss():
    assert icc_a1(SHROUT_FLEISS, ones(6))[0] == pytest.approx(0.29, abs=0.005)


def test_icc_by_hand():
    # Two raters, the second always one higher: mean squares 4 (scans), 1.5 (raters), 0 (error).
    counts = np.array([[0.0, 1], [2, 3], [4, 5]])
    assert icc_a1(counts, ones(3))[0] == pytest.approx(8 / (8 + 2 * 1.5 / 3))
    # A difference between the raters counts against absolute agreement.
    assert icc_a1(np.array([[0.0, 0], [2, 2], [4, 4]]), ones(3))[0] == pytest.approx(1)


def test_icc_where_it_is_not_defined():
    assert np.isnan(icc_a1(np.array([[1.0, 2.0]]), ones(1))[0])
    assert np.isnan(icc_a1(np.full((4, 2), 3.0), ones(4))[0])


def test_limits_of_bland_and_altman():
    bias, low, high = bland_altman(np.array(MINI, float), np.array(WRIGHT, float), ones(17))
    # Published: mean difference -2.1, SD 38.8 (large meter less mini meter).
    assert bias[0] == pytest.approx(-2.1, abs=0.05)
    assert (high - low)[0] / (2 * 1.96) == pytest.approx(38.8, abs=0.05)


def test_limits_of_one_scan_are_not_defined():
    bias, low, high = bland_altman(np.array([2.0]), np.array([3.0]), ones(1))
    assert bias[0] == 1
    assert np.isnan(low[0])
    assert np.isnan(high[0])


def test_kappa_by_hand():
    # Both yes 20, only the first 5, only the second 10, neither 15: (0.7 - 0.5) / (1 - 0.5).
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(first, second, ones(50))[0] == pytest.approx(0.4)


def test_kappa_where_chance_agrees_always():
    assert np.isnan(cohen_kappa(np.ones(5), np.ones(5), ones(5))[0])
    assert np.isnan(kappa_of_tables(np.zeros((3, 2, 2)), ones(3))[0])
    assert cohen_kappa(np.array([1, 0]), np.array([0, 1]), ones(2))[0] == pytest.approx(-1)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), min_size=3, max_size=8
    )
)
def test_weights_are_repetitions(rows):
    data = np.array(rows, dtype=float)
    weights = data[None, :, 2]
    repeated = np.repeat(data[:, :2], data[:, 2].astype(int), axis=0)
    if len(repeated) < 2:
        return
    n = len(repeated)
    np.testing.assert_allclose(
        icc_a1(data[:, :2], weights), icc_a1(repeated, ones(n)), rtol=1e-8, atol=1e-10
    )
    np.testing.assert_allclose(
        bland_altman(data[:, 0], data[:, 1], weights),
        bland_altman(repeated[:, 0], repeated[:, 1], ones(n)),
        rtol=1e-8,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        cohen_kappa(data[:, 0] > 4, data[:, 1] > 4, weights),
        cohen_kappa(repeated[:, 0] > 4, repeated[:, 1] > 4, ones(n)),
        rtol=1e-8,
        atol=1e-10,
    )


def test_weighted_kappa_of_cohen():
    # Cohen, Psychol Bull 1968;70:213: linear weights on three classes, counted by hand. Rows
    # 10, 10, 10; columns 11, 9, 10; distances: 4 neighbours and 1 opposite of 30.
    table = np.array([[[8.0, 1, 1], [2, 8, 0], [1, 0, 9]]])
    disagreement = (1 * 0.5 + 1 + 2 * 0.5 + 0 + 1 + 0) / 30
    chance = (10 * 9 * 0.5 + 10 * 10 + 10 * 11 * 0.5 + 10 * 10 * 0.5 + 10 * 11 + 10 * 9 * 0.5) / 900
    found = kappa_of_tables(table, ones(1), linear_weights(3))[0]
    assert found == pytest.approx(1 - disagreement / chance)


@pytest.mark.parametrize("scheme", [None, "linear"])
def test_kappa_agrees_with_scikit_learn(scheme):
    rng = np.random.default_rng(1)
    first = rng.integers(0, 4, 60)
    second = np.where(rng.random(60) < 0.6, first, rng.integers(0, 4, 60))
    weights = linear_weights(4) if scheme else None
    found = kappa_of_tables(tabulate(first, second, 4), ones(60), weights)[0]
    assert found == pytest.approx(cohen_kappa_score(first, second, weights=scheme))


def test_what_is_not_known_is_in_no_table():
    tables = tabulate([0, None, 1], [0, 1, None], 2)
    assert tables.sum(axis=(1, 2)).tolist() == [1, 0, 0]


def test_reliability_bins():
    count, chance, correct = reliability_bins(
        np.array([0.0, 0.1, 0.3, 0.95, 1.0]), np.array([0.0, 1, 0, 1, 1]), 10
    )
    np.testing.assert_array_equal(count, [1, 1, 0, 1, 0, 0, 0, 0, 0, 2])
    np.testing.assert_allclose(chance[-1], 1.95)
    np.testing.assert_allclose(correct[-1], 2)


def test_calibration_error_by_hand():
    # Four at 0.8 of which two are right; one at 0.3, wrong: 4/5 x 0.3 + 1/5 x 0.3.
    probability, correct = np.array([0.8] * 4 + [0.3]), np.array([1.0, 1, 0, 0, 0])
    bins = [part[None, :] for part in reliability_bins(probability, correct, 10)]
    assert calibration_error(*bins, ones(1))[0] == pytest.approx(0.3)
    assert np.isnan(calibration_error(*bins, 0 * ones(1))[0])


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
