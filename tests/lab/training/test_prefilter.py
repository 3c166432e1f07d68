import numpy as np
import pytest
from scipy import special

from cmbprep.detectors.classical import AdditiveModel
from cmbprep.detectors.features import FEATURES
from cmbprep.detectors.views import COLUMNS
from cmbprep.lab.training.prefilter import fit_first_look
from cmbprep.lab.training.samples import BLEED, CALCIFICATION, NOTHING, Samples

DEPTH = FEATURES.index("depth")


def samples(scans, bleeds, rng):
    """Scans of 60 candidates of which deeper ones are bleeds, and one calcification each."""
    per = 60
    table = rng.normal(0, 1, (scans * per, len(COLUMNS))).astype(np.float32)
    target = np.full((scans, per), NOTHING, np.int8)
    target[:, :bleeds] = BLEED
    target[:, bleeds] = CALCIFICATION
    spot = np.where(target == NOTHING, -1, np.arange(per)).ravel()
    target = target.ravel()
    table[target == BLEED, DEPTH] += 3
    n = len(target)
    return Samples(
        near=np.zeros((n, 1, 1, 1), np.float16),
        across=np.zeros((n, 1), np.float16),
        wide=np.zeros((n, 1), np.float16),
        table=table,
        target=target,
        spot=spot.astype(np.int32),
        scan=np.repeat(np.arange(scans), per).astype(np.int32),
        diameter=np.full(n, 3, np.float32),
    )


def test_it_learns_what_bleeds_are_and_its_probability_holds_at_natural_numbers():
    rng = np.random.default_rng(0)
    card = fit_first_look(samples(40, 20, rng), samples(120, 2, rng), 120, 0, ["one"])
    model = AdditiveModel.from_json(card["model"])
    fresh = samples(400, 2, rng)
    probability = model.probability(fresh.table[:, : len(FEATURES)].astype(float))
    bleed = fresh.target == BLEED
    assert probability[bleed].mean() > 20 * probability[~bleed].mean()
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 1.0)):
        chosen = (probability >= low) & (probability < high)
        assert bleed[chosen].mean() == pytest.approx(probability[chosen].mean(), abs=0.12)
    assert card["operating_points"]["possible"] <= card["operating_points"]["definite"]
    assert card["data"]["real_backgrounds"] == ["one"]


def test_the_number_of_bleeds_put_in_does_not_change_what_it_says():
    rng = np.random.default_rng(1)
    tuning = samples(120, 2, rng)
    few = fit_first_look(samples(80, 5, rng), tuning, 120, 0, [])
    many = fit_first_look(samples(80, 30, rng), tuning, 120, 0, [])
    table = rng.normal(0, 1, (50, len(FEATURES)))
    table[:, DEPTH] = np.linspace(-2, 5, 50)
    odds = [AdditiveModel.from_json(card["model"]).log_odds(table) for card in (few, many)]
    assert np.abs(special.expit(odds[0]) - special.expit(odds[1])).mean() < 0.05
