"""The order of visits comes from dates or from sessions.tsv, and never from labels."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest

from cmbprep.errors import UsageError
from cmbprep.group.covariates import read_covariates
from cmbprep.group.rows import Row
from cmbprep.group.timeline import session_of
from cmbprep.group.visits import ScanVisit, find_visits
from tests.group.datasets import make_row, write_dataset

#: What tables say of the sessions a, b and c -> visits, rule.
CASES = {
    "dates of sessions": (
        "acq_time\nb\t2001-01-01\na\t2002-01-01T10:00:00\nc\t2003-01-01",
        ("b", "a", "c"),
        "acq_time",
    ),
    "rows without dates": ("x\nc\t1\na\t2\nb\t3", ("c", "a", "b"), "sessions.tsv"),
    "one date is missing": (
        "acq_time\nc\t2001-01-01\na\tn/a\nb\t2003-01-01",
        ("c", "a", "b"),
        "sessions.tsv",
    ),
    "rows against dates": ("acq_time\nc\t2003-01-01\na\tn/a\nb\t2001-01-01", (), None),
    "rows against ages": ("age\nc\t73\na\tn/a\nb\t71", (), None),
    "a session without a row": ("x\nc\t1\na\t2", (), None),
    "nothing": ("", (), None),
    "times of day only": ("acq_time\nc\t10:00:00\na\t11:00:00\nb\t12:00:00", "cab", "sessions.tsv"),
    "dates removed": (
        "acq_time\nc\t1900-01-01T12:00:00\na\t1900-01-01T11:00:00\nb\t1900-01-01T10:00:00",
        "cab",
        "sessions.tsv",
    ),
    "twice on a day": (
        "acq_time\nc\t2001-01-01T15:00:00\na\t2001-01-01T09:00:00\nb\t2003-01-01",
        ("a", "c", "b"),
        "acq_time",
    ),
    "twice on a day, no time of day": (
        "acq_time\na\t2001-01-01T15:00:00\nc\t2001-01-01\nb\t2003-01-01",
        (),
        None,
    ),
    "shifted dates": (
        "acq_time\na\t1912-01-01\nb\t1911-01-01\nc\t1913-01-01",
        ("b", "a", "c"),
        "acq_time",
    ),
}


def visits_of(
    root: Path, rows: list[Row], baseline: str | None = None
) -> tuple[dict[str, ScanVisit], tuple[str, ...]]:
    covariates, _ = read_covariates(root, [(row.subject, session_of(row)) for row in rows])
    found, notes = find_visits(rows, covariates, baseline)
    return {row.name: visit for row, visit in zip(rows, found.scans, strict=True)}, notes


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_sessions(tmp_path: Path, case: str) -> None:
    table, order, rule = CASES[case]
    rows = [make_row(f"sub-1_ses-{session}_T2starw") for session in "abc"]
    if table:
        write_dataset(tmp_path, sessions={"1": f"session_id\t{table}\n"})
    covariates, _ = read_covariates(tmp_path, [("1", session) for session in "abc"])
    found, notes = find_visits(rows, covariates)
    person = found.persons["1"]
    assert person.rule == rule
    if not order:
        assert person.baseline is None and person.problem
        assert {(visit.visit, visit.is_baseline) for visit in found.scans} == {(None, None)}
        (note,) = (note for note in notes if "--baseline-session" in note)
        assert "sub-1" in note and "what to do" in note
        return
    assert person.sessions == tuple(order) and person.baseline == order[0]
    ranks = {session_of(row): visit.visit for row, visit in zip(rows, found.scans, strict=True)}
    assert ranks == {session: rank for rank, session in enumerate(order, 1)}
    assert {session for session, rank in ranks.items() if rank == 1} == {order[0]}
    assert [visit.is_baseline for visit in found.scans] == [s == order[0] for s in "abc"]
    assert not [note for note in notes if "--baseline-session" in note]


def test_dates_that_were_drawn_come_back(tmp_path: Path) -> None:
    """Labels, order of rows and the table with the dates tell nothing; a shift changes nothing."""
    draw, start = random.Random(4), datetime.fromisoformat("2015-03-01T00:05:00")
    truth: dict[str, tuple[int, int]] = {}
    tables: dict[str, dict[str, list[str]]] = {}
    rows = []
    for number in range(40):
        shift, days = draw.randint(-40000, 0), 0
        labels = draw.sample(["a", "b", "c", "d"], draw.randint(2, 4))
        for rank, label in enumerate(labels, 1):
            at = start + timedelta(days=shift + days, hours=draw.randint(1, 22))
            truth[f"sub-{number}_ses-{label}_T2starw"] = rank, days
            tables.setdefault(f"{number}", {})[label] = at.isoformat()
            days += draw.randint(1, 900)
        names = [f"sub-{number}_ses-{label}_T2starw" for label in draw.sample(labels, len(labels))]
        rows += [make_row(name) for name in names]
    in_scans = {subject: draw.random() < 0.5 for subject in tables}
    write_dataset(
        tmp_path,
        sessions={
            subject: "session_id\tacq_time\n"
            + "".join(f"ses-{label}\t{at}\n" for label, at in sorted(times.items()))
            for subject, times in tables.items()
            if not in_scans[subject]
        },
        scans={
            (
                subject,
                label,
            ): f"filename\tacq_time\nanat/sub-{subject}_ses-{label}_T2starw.nii\t{at}\n"
            for subject, times in tables.items()
            if in_scans[subject]
            for label, at in times.items()
        },
    )
    found, notes = visits_of(tmp_path, rows)
    assert notes == ()
    assert {name: (v.visit, v.days_since_baseline) for name, v in found.items()} == truth
    assert all(v.is_baseline == (truth[name][0] == 1) for name, v in found.items())
    assert len(truth) > 80 and 10 < sum(in_scans.values()) < 30


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    table = "session_id\tacq_time\nb\t2001-01-01\na\t2002-01-01\n"
    write_dataset(tmp_path, sessions={"1": table})
    rows = [make_row(f"sub-1_ses-{s}_run-{n}_T2starw") for s in "ab" for n in (1, 2)]
    first, _ = visits_of(tmp_path, rows)
    for other in permutations(rows):
        assert visits_of(tmp_path, list(other))[0] == first
    assert [name for name, visit in first.items() if visit.is_baseline and visit.is_primary] == [
        "sub-1_ses-b_run-1_T2starw"
    ]


def test_scans_of_one_session_need_no_table(tmp_path: Path) -> None:
    rows = [make_row("sub-1_T2starw"), make_row("sub-2_ses-x_T2starw"), make_row("sub-2_ses-x_swi")]
    found, notes = visits_of(tmp_path, rows)
    assert notes == ()
    assert {(v.visit, v.is_baseline, v.days_since_baseline) for v in found.values()} == {
        (1, True, 0)
    }
    assert [visit.is_primary for visit in found.values()] == [True, True, False]


def test_the_baseline_that_was_chosen(tmp_path: Path) -> None:
    table = "session_id\tacq_time\na\t2001-01-01\nb\t2001-01-11\n"
    write_dataset(tmp_path, sessions={"1": table})
    rows = [
        make_row(f"sub-{name}_T2starw") for name in ("1_ses-a", "1_ses-b", "2_ses-a", "3_ses-b")
    ]
    found, notes = visits_of(tmp_path, rows, "b")
    assert notes == ()
    assert [(v.visit, v.is_baseline, v.days_since_baseline) for v in found.values()] == [
        (1, False, -10),
        (2, True, 0),
        (1, False, None),
        (1, True, 0),
    ]
    covariates, _ = read_covariates(tmp_path, [("1", "a")])
    persons = find_visits(rows, covariates, "b")[0].persons
    assert [(p.baseline, p.rule) for p in persons.values()] == [
        ("b", "option"),
        (None, None),
        ("b", "option"),
    ]
    assert persons["2"].problem == "there is no scan of the session ses-b"


def test_a_chosen_baseline_needs_no_order(tmp_path: Path) -> None:
    rows = [make_row(f"sub-1_ses-{session}_T2starw") for session in "ab"]
    found, notes = visits_of(tmp_path, rows, "b")
    assert notes == ()
    assert [(v.visit, v.is_baseline, v.days_since_baseline) for v in found.values()] == [
        (None, False, None),
        (None, True, 0),
    ]


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["1_ses-a", "1_ses-b"], "give one of a, b"),
        (["1"], "there are no sessions"),
    ],
)
def test_a_baseline_that_nobody_has(names: list[str], hint: str) -> None:
    rows = [make_row(f"sub-{name}_T2starw") for name in names]
    gone = [make_row("sub-1_ses-c_T2starw", "withdrawn"), make_row("sub-1_ses-c_swi", "refused")]
    with pytest.raises(UsageError, match="'c'") as caught:
        find_visits([*rows, *gone], read_covariates(None, [])[0], "c")
    assert hint in str(caught.value)


def test_rows_that_are_no_scans_are_no_visits(tmp_path: Path) -> None:
    write_dataset(
        tmp_path,
        participants="participant_id\tsite\nsub-1\tA\n",
        sessions={"1": "session_id\tacq_time\na\t2001-01-01\nb\t2002-01-01\n"},
    )
    rows = [
        make_row("sub-1_ses-a_swi", "refused"),
        make_row("sub-1_ses-a_T2starw", "withdrawn"),
        make_row("sub-1_ses-b_T2starw"),
    ]
    found, (note,) = visits_of(tmp_path, rows)
    assert "refused files and no scan are no visits" in note and "(sub-1_ses-a)" in note
    first, second, third = found.values()
    assert first == second == ScanVisit(site="A")
    assert (third.visit, third.is_baseline, third.is_primary) == (1, True, True)


def test_dates_of_scans_and_of_sessions(tmp_path: Path) -> None:
    """A table that dates every session is used alone; contradictions are named."""
    rows = [make_row(f"sub-1_ses-{session}_T2starw") for session in "ab"]

    def write(of_sessions: dict[str, str], of_scans: dict[str, str]) -> Path:
        root = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        return write_dataset(
            root,
            sessions={
                "1": "session_id\tacq_time\n"
                + "".join(f"{label}\t{at}\n" for label, at in of_sessions.items())
            },
            scans={
                ("1", label): f"filename\tacq_time\nanat/sub-1_ses-{label}_T2starw.nii.gz\t{at}\n"
                for label, at in of_scans.items()
            },
        )

    whole = {"a": "2001-01-01", "b": "2001-02-01"}
    shifted = {"a": "1901-01-01", "b": "1901-02-02"}
    for of_sessions, of_scans, days in (
        (whole, {}, 31),
        (whole, shifted, 32),
        ({"a": "2001-01-01"}, shifted, 32),
        (whole, {"a": "1901-01-01"}, 31),
        ({"a": "2001-01-01"}, {"b": "2001-03-02"}, 60),
    ):
        found, notes = visits_of(write(of_sessions, of_scans), rows)
        assert [v.days_since_baseline for v in found.values()] == [0, days]
        assert notes == ()
    # The rows of sessions.tsv do not decide between tables that contradict each other.
    for of_sessions, of_scans in (
        (whole, {"a": "1901-03-01", "b": "1901-02-02"}),
        ({"a": "2001-01-01", "b": "n/a"}, {"a": "1901-01-01"}),
    ):
        found, notes = visits_of(write(of_sessions, of_scans), rows)
        assert [(v.visit, v.is_baseline) for v in found.values()] == [(None, None)] * 2
        (note,) = notes
        assert note.startswith("acq_time in scans.tsv and in sessions.tsv contradict each other")
    # The order is the same, the intervals are not.
    found, notes = visits_of(write(whole, {"a": "1901-01-01", "b": "1902-01-01"}), rows)
    assert [(v.visit, v.days_since_baseline) for v in found.values()] == [(1, 0), (2, None)]
    (note,) = notes
    assert "give other intervals (sub-1)" in note


def test_the_time_of_a_scan_is_that_of_its_first_echo(tmp_path: Path) -> None:
    write_dataset(
        tmp_path,
        sessions={"1": "session_id\tacq_time\na\t2001-01-01T08:00:00\n"},
        scans={
            ("1", "a"): "filename\tacq_time\n"
            "anat/sub-1_ses-a_echo-1_MEGRE.nii.gz\t2001-01-01T10:30:00\n"
            "anat/sub-1_ses-a_echo-2_MEGRE.nii.gz\t2001-01-01T10:20:00.500000Z\n"
            "anat/sub-1_ses-a_T1w.nii.gz\t2001-01-01T09:00:00\n"
            "anat/sub-1_ses-a_swi.nii.gz\tsoon\n"
        },
    )
    echoes = [f"sub-1_ses-a_echo-{number}_MEGRE.nii.gz" for number in (1, 2)]
    rows = [
        make_row("sub-1_ses-a_MEGRE", "failed", *echoes),
        make_row("sub-1_ses-a_swi"),
        make_row("sub-1_ses-a_T2starw"),
    ]
    found, notes = visits_of(tmp_path, rows)
    assert [visit.acq_time for visit in found.values()] == [
        "2001-01-01T10:20:00.500000",
        "2001-01-01T08:00:00",
        "2001-01-01T08:00:00",
    ]
    (note,) = notes
    assert note == (
        "acq_time in scans.tsv is no date and is not used (sub-1_ses-a_swi: soon); what to do: "
        "write it as 2001-12-31T23:59:59"
    )


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ("a\t2001-01-01\t71\nb\t2003-01-01\t70\n", "age in sessions.tsv falls"),
        ("a\t2001-01-01T09:00:00\t71\nb\t2001-01-01\t71\n", "all sessions have the same date"),
    ],
)
def test_doubtful_dates_give_no_intervals(tmp_path: Path, rows: str, note: str) -> None:
    write_dataset(tmp_path, sessions={"1": f"session_id\tacq_time\tage\n{rows}"})
    scans = [make_row(f"sub-1_ses-{session}_T2starw") for session in "ab"]
    found, (told,) = visits_of(tmp_path, scans)
    assert note in told and "(sub-1)" in told
    assert [(v.visit, v.days_since_baseline) for v in found.values()] == [(1, 0), (2, None)]
