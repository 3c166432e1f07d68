import numpy as np
import pytest
from scipy import special

from cmbprep.detectors.calibration import Prevalence, one_a_place


def scan(bleeds, rng, candidates=200, expected=2.0):
    """Log-odds of candidates, right for a scan with the expected number, and what they are."""
    truth = np.zeros(candidates, bool)
    truth[:bleeds] = True
    # Of variance twice their mean, they are their own log-likelihood ratios.
    evidence = rng.normal(np.where(truth, 5.0, -5.0), np.sqrt(10.0))
    return evidence + np.log(expected / candidates), truth


def test_an_average_scan_is_left_alone():
    # The candidates are worth exactly what is expected.
    odds = special.logit(np.array([0.9, 0.6, 0.5]))
    assert Prevalence(2.0, 3.0).shift(odds) == pytest.approx(0, abs=1e-3)


def test_empty_scans_go_down_and_crowded_ones_up_within_bounds():
    usual = Prevalence(2.0, 2.0)
    nothing = usual.shift(np.full(200, -12.0))
    assert nothing == pytest.approx(np.log(2 / 4), abs=1e-3), "the bound is what was seen before"
    assert usual.shift(np.full(10, 8.0)) == pytest.approx(np.log(12 / 4), abs=1e-3)
    assert usual.shift(np.zeros(0)) == pytest.approx(np.log(2 / 4), abs=1e-3)


def test_a_strong_prior_moves_less():
    odds = np.full(10, 3.0)
    shifts = [Prevalence(2.0, strength).shift(odds) for strength in (0.5, 2, 8, 100)]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[-1] < 0.1


@pytest.mark.parametrize("bleeds", [0, 2, 15, 40])
def test_probabilities_hold_whatever_the_number(bleeds):
    rng = np.random.default_rng(bleeds)
    usual = Prevalence(2.0, 1.0)
    plain = adapted = true = 0.0
    for _ in range(60):
        odds, truth = scan(bleeds, rng)
        plain += special.expit(odds).sum()
        adapted += special.expit(odds + usual.shift(odds)).sum()
        true += truth.sum()
    assert abs(adapted - true) <= max(0.2 * true, 60 * 0.9)
    if bleeds > 10:
        assert abs(adapted - true) < 0.4 * abs(plain - true)


def test_order_does_not_matter():
    rng = np.random.default_rng(3)
    odds, _ = scan(12, rng)
    assert Prevalence(2, 1).shift(odds) == Prevalence(2, 1).shift(rng.permutation(odds))


def test_near_candidates_are_one_thing_and_the_best_stands_for_it():
    points = np.array([[0, 0, 0], [3, 0, 0], [6, 0, 0], [20, 0, 0.0]])
    assert one_a_place(points, np.array([0.0, 1.0, 0.5, -3.0])).tolist() == [1, 3]
    assert one_a_place(np.zeros((0, 3)), np.zeros(0)).size == 0


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="positive"):
        Prevalence(0.0, 1.0)
