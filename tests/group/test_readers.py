"""What readers noted on a scan as a whole, in the columns of the group table."""

from __future__ import annotations

import pytest

from cmbprep.group.readers import noted
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.reading import read_scan as reading_of
from tests.ratings.madeup import automatic, make_dataset
from tests.ratings.reviewing import read_scan

SCAN = "sub-01_T2starw"
ALL = {"L1": "definite", "L2": "definite", "L3": "definite"}


def note(**values):
    return {"type": "scan", "siderosis": None, "quality": None, "findings": [], **values}


@pytest.fixture
def read(tmp_path):
    """Return a function: notes of one reader each -> values by a rule."""
    root = make_dataset(tmp_path / "out")

    def found(*notes, finish=True, **choice):
        for number, values in enumerate(notes):
            acts = [] if values is None else [note(**values)]
            name = ["Anna", "Ben", "Cleo", "Dora"][number]
            read_scan(root, SCAN, name, ALL, acts=acts, finish=finish)
        return noted(reading_of(automatic(root), ReaderChoice(**choice)))

    return found


NOTHING = dict.fromkeys(("reader_siderosis", "reader_quality", "reader_findings"))


def test_nothing_is_stated_for_a_scan_that_nobody_has_read(read):
    assert noted(None) == read() == NOTHING


def test_nothing_is_stated_by_a_reader_who_stated_nothing(read):
    assert read(None) == NOTHING


def test_notes_of_a_reading_that_is_not_finished_do_not_count(read):
    assert read({"siderosis": True, "quality": "good"}, finish=False) == NOTHING


def test_what_one_reader_stated(read):
    values = {"siderosis": False, "quality": "usable", "findings": ["white;\tmatter", "infarct"]}
    assert read(values) == {
        "reader_siderosis": "absent",
        "reader_quality": "usable",
        "reader_findings": "infarct; white, matter",
    }


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([True, False], {"any": "present", "all": "absent", "majority": None, "first": "present"}),
        ([False, True, True], {"any": "present", "all": "absent", "majority": "present"}),
        ([True, None, True, False], {"any": "present", "all": "absent", "majority": "present"}),
        ([None, True], {"any": "present", "all": "present", "majority": "present", "first": None}),
        ([False, False], {"any": "absent", "all": "absent", "majority": "absent"}),
    ],
)
def test_siderosis_by_the_rules_of_consensus(read, stated, expected):
    notes = [{"siderosis": value} for value in stated]
    for number, (rule, value) in enumerate(expected.items()):
        found = read(*(notes if number == 0 else ()), rule=rule)
        assert found["reader_siderosis"] == value, rule


def test_of_several_readers_the_worst_quality_and_all_findings(read):
    found = read(
        {"quality": "good", "findings": ["infarct", "atrophy"]},
        {"quality": "unusable", "findings": ["infarct"]},
        {"findings": ["tumour"]},
        rule="all",
    )
    assert found["reader_quality"] == "unusable"
    assert found["reader_findings"] == "atrophy; infarct; tumour"
