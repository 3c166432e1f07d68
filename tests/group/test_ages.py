"""Age at the scan: what tables say, and what follows from dates; nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.group.datasets import make_row, write_dataset
from tests.group.test_visits import visits_of


def ages(
    root: Path,
    *,
    participant: str = "70",
    sessions: str = "",
    units: str | None = None,
    labels: str = "ab",
    baseline: str | None = None,
) -> tuple[list[float | None], tuple[str, ...]]:
    dictionaries: dict[str, dict[str, Any]] = {}
    if units is not None:
        dictionaries["participants.json"] = {"age": {"Units": units}}
    write_dataset(
        root,
        participants=f"participant_id\tage\nsub-1\t{participant}\n",
        sessions={"1": f"session_id\t{sessions}\n"} if sessions else {},
        dictionaries=dictionaries,
    )
    rows = [make_row(f"sub-1_ses-{label}_T2starw") for label in labels]
    found, notes = visits_of(root, rows, baseline)
    return [visit.age for visit in found.values()], notes


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        # 365.25 days a year: 1096 days are 3.00 years.
        ("acq_time\na\t2001-01-01\nb\t2004-01-02", [70.0, 73.0]),
        ("acq_time\nb\t2001-01-01\na\t2001-07-02", [70.5, 70.0]),
        ("acq_time\tage\na\t2001-01-01\t71\nb\t2004-01-02\tn/a", [71.0, 73.0]),
        ("acq_time\tAge\na\t2001-01-01\t69.5\nb\t2004-01-02\t72", [69.5, 72.0]),
        ("x\na\t1\nb\t2", [70.0, None]),
        # A first session without scans is the one that participants.tsv means.
        ("acq_time\nzero\t2000-01-01\na\t2001-01-01\nb\t2004-01-02", [71.0, 74.0]),
        ("x\nzero\t1\na\t2\nb\t3", [None, None]),
        ("", [None, None]),
    ],
)
def test_age_at_each_visit(tmp_path: Path, sessions: str, expected: list[float | None]) -> None:
    found, _ = ages(tmp_path, sessions=sessions)
    assert found == expected


def test_of_one_session_it_is_that_of_participants_tsv(tmp_path: Path) -> None:
    assert ages(tmp_path, labels="a") == ([70.0], ())


def test_with_a_chosen_baseline_it_is_that_of_the_baseline(tmp_path: Path) -> None:
    assert ages(tmp_path, baseline="b") == ([None, 70.0], ())


@pytest.mark.parametrize(
    ("text", "units", "age"),
    [
        ("70.25", "years", 70.25),
        ("70,25", None, 70.25),
        ("846", "months", 70.5),
        ("3652.5", "days", 10.0),
        ("521.785714", "Weeks", 10.0),
        ("71", "a", 71.0),
        ("n/a", "years", None),
    ],
)
def test_ages_are_read_in_their_units(
    tmp_path: Path, text: str, units: str | None, age: float | None
) -> None:
    found, notes = ages(tmp_path, participant=text, units=units, labels="a")
    assert notes == ()
    assert found == [pytest.approx(age, abs=1e-3) if age else None]


@pytest.mark.parametrize(
    ("text", "units", "note"),
    [
        (
            "89+",
            None,
            "age in participants.tsv is no age in years and n/a (sub-1: 89+); what",
        ),
        ("-3", None, "is no age in years"),
        ("700", None, "is no age in years"),
        ("old", None, "is no age in years"),
        ("70", "Jahre", "gives age in 'Jahre', which is not understood"),
    ],
)
def test_what_is_no_age_is_named(tmp_path: Path, text: str, units: str | None, note: str) -> None:
    found, (told,) = ages(tmp_path, participant=text, units=units, labels="a")
    assert found == [None]
    assert note in told
