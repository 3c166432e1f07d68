"""Agreement statistics against published examples and against repeated data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbprep.lab.evaluate.statistics import bland_altman, cohen_kappa, icc_a1, kappa_of_tables

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
