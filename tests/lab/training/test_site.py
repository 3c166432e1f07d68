import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from cmbprep.detectors import get_detector
from cmbprep.detectors.calibration import LastStage, SiteModel, read_site_model
from cmbprep.detectors.learned import CANDIDATES, LearnedDetector
from cmbprep.detectors.views import COLUMNS
from cmbprep.errors import UsageError
from cmbprep.lab.training.ratings import RatedCandidates
from cmbprep.lab.training.site import FOLDS, assess, choose_penalty, figures, fit_last_stage

NAMES = tuple(CANDIDATES)
PACKAGED = LastStage(1.0, 0.0)


def cohort(people, rng, *, slope=1.0, offset=0.0, deceived=0.0):
    """Candidates of a site where one column (sharpness) also tells bleeds from the rest."""
    n = people * 12
    table = np.zeros((n, len(NAMES)))
    table[:, NAMES.index("odds")] = rng.normal(-1, 2, n)
    table[:, NAMES.index("sharpness")] = rng.normal(0, 1, n)
    truth = slope * table[:, NAMES.index("odds")] + offset
    truth = truth + deceived * table[:, NAMES.index("sharpness")]
    return RatedCandidates(
        columns=NAMES,
        table=table,
        target=rng.random(n) < special.expit(truth),
        person=np.repeat(np.arange(people), 12),
        scans=people,
        people=people,
        beyond=0,
        networks=frozenset({"x"}),
    )


def test_the_stage_of_a_site_that_is_like_the_packaged_one_stays():
    stage = fit_last_stage(cohort(60, np.random.default_rng(0)), PACKAGED)
    assert stage.slope == pytest.approx(1, abs=0.15)
    assert stage.offset == pytest.approx(0, abs=0.3)
    assert stage.columns == (), "columns that tell nothing are left out"


def test_what_tells_bleeds_at_this_site_is_learned_and_gains_on_others():
    site = cohort(120, np.random.default_rng(1), offset=-1.5, deceived=2.0)
    stage = fit_last_stage(site, PACKAGED)
    assert stage.columns == ("sharpness",), "columns that never change get no weight"
    assert stage.weights[0] > 1.2
    assert stage.offset < -0.8
    found = assess(site, PACKAGED, 0.5)
    assert found["after"]["log_loss"] < 0.8 * found["before"]["log_loss"]
    assert found["after"]["calibration_error"] < 0.5 * found["before"]["calibration_error"]


def noisy(people, rng, **site):
    """The same with columns that tell nothing, as most of them do with few ratings."""
    found = cohort(people, rng, **site)
    columns = [NAMES.index(name) for name in COLUMNS]
    found.table[:, columns] = rng.normal(0, 1, (len(found.table), len(columns)))
    return found


def test_a_few_people_are_enough_to_calibrate_and_weigh_no_columns():
    """Twelve people of a site whose probabilities are too high; others of the same site gain."""
    rng = np.random.default_rng(5)
    gains = []
    for _ in range(5):
        stage = fit_last_stage(noisy(12, rng, offset=-1.5), PACKAGED)
        assert stage.columns == ()
        others = noisy(60, rng, offset=-1.5)
        before, after = (
            figures(one.log_odds(others.column("odds"), others.table, NAMES), others, 0.5)
            for one in (PACKAGED, stage)
        )
        gains.append(before["log_loss"] - after["log_loss"])
    assert min(gains) > 0.02, gains


def test_the_penalty_is_chosen_without_the_people_left_out():
    """A fold whose verdicts are turned round changes nothing that is fitted to the others."""
    site = noisy(30, np.random.default_rng(6), offset=-1.0)
    kept = site.person % FOLDS != 0
    first = choose_penalty(site, kept, PACKAGED)
    turned = replace(site, target=np.where(kept, site.target, ~site.target))
    assert choose_penalty(turned, kept, PACKAGED) == first


def test_held_out_figures_do_not_gain_from_noise():
    site = noisy(30, np.random.default_rng(2))
    found = assess(site, PACKAGED, 0.5)
    fitted = figures(
        fit_last_stage(site, PACKAGED).log_odds(site.column("odds"), site.table, NAMES), site, 0.5
    )
    assert fitted["log_loss"] < found["before"]["log_loss"], "it does fit the noise"
    assert found["after"]["log_loss"] > fitted["log_loss"], "and is not praised for it"


def test_figures_by_counting():
    site = cohort(1, np.random.default_rng(3))
    site = RatedCandidates(
        columns=NAMES,
        table=site.table[:4],
        target=np.array([True, True, False, False]),
        person=np.zeros(4, int),
        scans=2,
        people=1,
        beyond=1,
        networks=frozenset(),
    )
    found = figures(special.logit(np.array([0.9, 0.3, 0.8, 0.1])), site, 0.5)
    assert found["sensitivity"] == pytest.approx(1 / 3, abs=1e-4), (
        "one of three, one has no candidate"
    )
    assert found["false_positives_a_scan"] == 0.5
    assert found["calibration_error"] == pytest.approx((0.1 + 0.7 + 0.8 + 0.1) / 4)
    expected = -np.log([0.9, 0.3, 0.2, 0.9]).mean()
    assert found["log_loss"] == pytest.approx(expected, abs=1e-4)


def test_too_few_ratings_are_refused():
    with pytest.raises(UsageError, match="are needed"):
        fit_last_stage(cohort(4, np.random.default_rng(4)), PACKAGED)


def test_the_file_is_taken_by_the_detector_and_changes_its_version(tmp_path):
    packaged = LearnedDetector()
    stage = LastStage(0.5, -1.0, ("depth",), (0.4,), (0.2,), (0.3,))
    path = tmp_path / "site.json"
    path.write_text(json.dumps(SiteModel(packaged.sha256, stage, {"name": "x"}).to_json()))
    found = get_detector(path)
    assert found.last_stage == stage == read_site_model(path).stage
    assert found.version.startswith(packaged.version + "+")
    assert found.parameters != packaged.parameters


@pytest.mark.parametrize("text", ["{", "{}", '{"kind": "something"}'])
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"wrong\.json"):
        get_detector(path)


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(SiteModel("0" * 64, PACKAGED, {}).to_json()))
    with pytest.raises(UsageError, match="another version"):
        get_detector(path)


def test_weights_count_scaled_columns_within_bounds():
    stage = LastStage(2.0, 1.0, ("b",), (10.0,), (2.0,), (0.5,))
    table = np.array([[0.0, 12.0], [0.0, 1000.0]])
    found = stage.log_odds(np.array([1.0, 1.0]), table, ("a", "b"))
    assert found == pytest.approx([2 + 1 + 0.5, 2 + 1 + 0.5 * 4])
