"""Visits of simulated participants: the same microbleeds, and some new ones."""

import csv
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.simulate.dataset import simulate_dataset
from cmbprep.lab.simulate.protocols import draw_people
from cmbprep.lab.simulate.visits import (
    HYPERTENSION_RATIO,
    NEW_PER_YEAR,
    YEAR_DAYS,
    draw_visits,
    new_rate,
)

PEOPLE = draw_people(400, 5, ("demo",), 1)


def visits_of(index, count=2, **options):
    return draw_visits(PEOPLE[index], np.random.default_rng([5, 3, index]), count=count, **options)


def test_one_visit_has_no_session_and_the_microbleeds_of_the_participant():
    (visit,) = visits_of(0, count=1)
    assert (visit.session, visit.days) == (None, 0)
    assert visit.microbleeds == PEOPLE[0].microbleeds


def test_visits_follow_each_other_and_microbleeds_stay():
    for index in range(50):
        visits = visits_of(index, count=4, per_year=2.0)
        assert [visit.session for visit in visits] == ["01", "02", "03", "04"]
        for earlier, later in pairwise(visits):
            assert later.acquired > earlier.acquired
            assert (later.acquired - earlier.acquired).days == later.days - earlier.days
            assert later.microbleeds >= earlier.microbleeds
        assert visits[0].microbleeds == PEOPLE[index].microbleeds


def test_new_microbleeds_come_at_the_rate_that_is_asked_for():
    expected, new = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for index, person in enumerate(PEOPLE):
        first, second = visits_of(index)
        years = second.days / YEAR_DAYS
        expected[person.hypertension] += new_rate(person, NEW_PER_YEAR) * years
        new[person.hypertension] += second.microbleeds - first.microbleeds
    for group in (True, False):
        assert abs(new[group] - expected[group]) < 4 * np.sqrt(expected[group])
    assert HYPERTENSION_RATIO > 1
    assert all(visits_of(i, per_year=0)[1].microbleeds == PEOPLE[i].microbleeds for i in range(20))


def test_visits_take_the_protocols_in_turn():
    visits = visits_of(0, count=3, protocols=("ukb-swi", "demo"))
    assert [visit.protocol for visit in visits] == ["ukb-swi", "demo", "ukb-swi"]
    assert [visit.protocol for visit in visits_of(0)] == ["demo", "demo"]


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"per_year": -1}, {"per_year": 51}, {"protocols": ("none",)}]
)
def test_wrong_numbers_and_protocols_are_refused(options):
    with pytest.raises(UsageError):
        visits_of(0, **options)


@pytest.mark.slow
def test_a_dataset_with_visits_has_one_head_and_numbers_that_stay(tmp_path):
    folder = tmp_path / "bids"
    simulate_dataset(folder, participants=1, seed=3, protocols=["demo"], visits=2, new_per_year=3.0)
    with open(folder / "sub-01" / "sub-01_sessions.tsv", newline="") as stream:
        sessions = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["session_id"] for row in sessions] == ["ses-01", "ses-02"]
    assert sessions[0]["acq_time"] < sessions[1]["acq_time"]
    known = {}
    for session in ("01", "02"):
        stem = f"sub-01_ses-{session}"
        scan = folder / "sub-01" / f"ses-{session}" / "anat" / f"{stem}_T2starw.nii.gz"
        assert nib.load(scan).ndim == 3
        truth = folder / "derivatives" / "truth" / "sub-01" / f"ses-{session}" / "anat"
        known[session] = {}
        for seg in ("CMB", "mimics"):
            with open(truth / f"{stem}_seg-{seg}_dseg.tsv", newline="") as stream:
                for row in csv.DictReader(stream, delimiter="\t"):
                    if row["person_index"] != "n/a":
                        known[session][row["person_index"]] = row
    shared = known["01"].keys() & known["02"].keys()
    assert set(known["01"]) == shared
    for number in shared:
        one, other = known["01"][number], known["02"][number]
        assert one["kind"] == other["kind"]
        assert one["deposit_mm3"] == other["deposit_mm3"]
        places = [[float(row[f"{axis}_mni"]) for axis in "xyz"] for row in (one, other)]
        assert np.linalg.norm(np.subtract(*places)) < 3.0
    new = known["02"].keys() - shared
    assert new
    assert {known["02"][number]["kind"] for number in new} == {"microbleed"}
