import numpy as np
import pytest
from scipy import special

from cmbprep.detectors.calibration import Prevalence
from cmbprep.detectors.learned import calibrated
from cmbprep.detectors.views import COLUMNS
from cmbprep.lab.training.calibration import fit_adaptive, fit_line, operating_points, tune
from cmbprep.lab.training.samples import BLEED, NOTHING, Samples


def samples_of(target, spot, scan):
    n = len(target)
    return Samples(
        near=np.zeros((n, 1, 1, 1), np.float16),
        across=np.zeros((n, 1), np.float16),
        wide=np.zeros((n, 1), np.float16),
        table=np.zeros((n, len(COLUMNS)), np.float32),
        target=np.asarray(target, np.int8),
        spot=np.asarray(spot, np.int32),
        scan=np.asarray(scan, np.int32),
        diameter=np.zeros(n, np.float32),
    )


def test_a_known_line_is_found():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 4, 40000)
    target = (rng.random(40000) < special.expit(0.6 * odds - 1.5)).astype(float)
    line = fit_line(odds, target)
    assert line["slope"] == pytest.approx(0.6, abs=0.03)
    assert line["offset"] == pytest.approx(-1.5, abs=0.06)


def test_calibrated_is_the_softmax_where_the_line_is_the_identity():
    logits = np.random.default_rng(1).normal(0, 3, (50, 3))
    for kind in range(3):
        found = calibrated(logits, kind, {"slope": 1.0, "offset": 0.0})
        assert np.allclose(found, special.softmax(logits, axis=1)[:, kind])


def test_operating_points_by_counting():
    # Ten candidates, best first: 1 1 1 0 1 0 0 0 0 0; one bleed has no candidate.
    probability = np.linspace(0.95, 0.05, 10)
    target = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0], bool)
    points, counted = operating_points(probability, target, missed=1, scans=2)
    # F1 is 2*3/(3+5)=0.75 after three, 2*4/(5+5)=0.8 after five.
    assert points["possible"] == pytest.approx(0.55)
    # All of the first three are right, at probabilities of 0.75 and more; but definite is never
    # said below 0.9.
    assert points["definite"] == 0.9
    assert counted["possible"] == {"sensitivity": 0.8, "false_positives_a_scan": 0.5}
    assert counted["definite"] == {"sensitivity": 0.2, "false_positives_a_scan": 0.0}
    # Where precision is lost above that, the point is higher.
    sure, _ = operating_points(0.9 + probability / 10, target, missed=1, scans=2)
    assert sure["definite"] == pytest.approx(0.975)


def test_possible_lists_at_most_half_a_false_positive_a_scan():
    # One scan of three is crowded: its bleeds weigh little, but its false positives are listed.
    probability = np.array([0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55])
    target = np.array([1, 1, 0, 1, 0, 1, 0, 1, 0, 1], bool)
    for scans, listed in ((2, 4), (4, 6), (6, 8), (100, 10)):
        points, _ = operating_points(probability, target, missed=0, scans=scans)
        above = probability >= points["possible"]
        assert above.sum() == listed
        assert (above & ~target).sum() <= 0.5 * scans


def test_several_candidates_of_one_bleed_count_once():
    logits = np.array([[-3.0, 3, -9], [-2.0, 2, -9], [3.0, -3, -9], [3.0, -4, -9]] * 30)
    scan = np.repeat(np.arange(30), 4)
    target = np.tile([BLEED, BLEED, NOTHING, NOTHING], 30)
    spot = np.tile([0, 0, -1, -1], 30)
    tuning = tune(logits, samples_of(target, spot, scan), scans=30, missed=0)
    assert tuning.summary["bleeds"] == 30
    assert tuning.summary["possible"] == {"sensitivity": 1.0, "false_positives_a_scan": 0.0}


def test_crowded_scans_count_as_if_they_were_not():
    """Twenty bleeds weigh as two; what is certain stays so, what is doubtful becomes less."""
    logits = np.array([[0.0, 0.0, -9.0]] * 40)
    target = [BLEED] * 20 + [NOTHING] * 20
    spot = [*range(20), *[-1] * 20]
    samples = samples_of(target, spot, np.zeros(40))
    tuning = tune(logits, samples, scans=1, missed=0, adaptive=False)
    probability = calibrated(logits[:1], BLEED, tuning.lines["microbleed"])[0]
    assert probability == pytest.approx(2.2 / 22.2, abs=0.01)


def test_the_line_and_the_pull_of_the_average_are_found_together():
    # Scans with very different numbers of bleeds; the network's log-odds refer to balanced
    # classes and are twice too sure.
    rng = np.random.default_rng(5)
    odds, target, scan = [], [], []
    for number in range(150):
        bleeds = int(rng.choice([0, 0, 1, 2, 4, 20]))
        truth = np.zeros(100, bool)
        truth[:bleeds] = True
        odds.append(2 * rng.normal(np.where(truth, 5.0, -5.0), np.sqrt(10.0)))
        target.append(truth)
        scan.append(np.full(100, number))
    odds, target, scan = map(np.concatenate, (odds, target, scan))
    line, prevalence = fit_adaptive(odds, target, scan)
    assert line["slope"] == pytest.approx(0.5, abs=0.08)
    assert prevalence.strength < 6
    worth = {True: 0.0, False: 0.0}
    true = {True: 0, False: 0}
    for number in range(150):
        own = scan == number
        value = line["slope"] * odds[own] + line["offset"]
        for adaptive in (True, False):
            shift = prevalence.shift(value) if adaptive else 0.0
            if target[own].sum() >= 20:
                worth[adaptive] += special.expit(value + shift).sum()
                true[adaptive] += target[own].sum()
    assert worth[True] == pytest.approx(true[True], rel=0.2)
    assert worth[False] < 0.85 * true[False], "without it, crowded scans are underrated"
    assert isinstance(prevalence, Prevalence)
