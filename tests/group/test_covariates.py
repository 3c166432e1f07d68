"""Tables of the raw dataset as converters, spreadsheets and people leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmbprep.group.covariates import (
    Covariates,
    KeyedTable,
    missing_participants,
    read_covariates,
    read_keyed_table,
)
from tests.group.datasets import write_dataset


def read(tmp_path: Path, content: str | bytes) -> tuple[KeyedTable, tuple[str, ...]]:
    path = tmp_path / "participants.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_keyed_table(path, "participants")


def test_a_sound_table_gives_no_notes(tmp_path: Path) -> None:
    found, notes = read(tmp_path, "participant_id\tage\tsite\nsub-1\t71\tA\n2\tn/a\t\n")
    assert notes == ()
    assert found.columns == ("age", "site")
    assert (found.value("1", "age"), found.value("1", "site")) == ("71", "A")
    assert (found.value("2", "age"), found.value("2", "site")) == (None, None)
    assert found.value("3", "age") is None


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("participant_id\tage\nsub-1\t71\n".encode("utf-8-sig"), "byte order mark"),
        ("participant_id\tage\nsub-1\t71\n".encode("utf-16"), "UTF-16"),
        ("participant_id\tage\tcity\nsub-1\t71\tZürich\n".encode("latin-1"), "not UTF-8"),
        (b'"participant_id"\t"age"\r\n"sub-1"\t"71"\r\n', "quotation marks"),
        (b"participant_id\tage\tsex\nsub-1\t71\n", "end early"),
        (b"participant_id\tage\tage\nsub-1\t71\t72\n", "twice"),
        (b"participant_id\tage\tAge\nsub-1\t71\t72\n", "capitals"),
        (b"participant_id\tage\nsub-1\t71\n\t50\nn/a\t4\n", "2 rows without participant_id"),
        (b"participant_id\tage\nsub-1\t71\nsub-2\t5\t6\n", "left out (line 3)"),
        (b"age\tparticipant_id\r\n71\tsub-1\r\n", None),
    ],
)
def test_what_is_not_clean_is_read_with_a_note(
    tmp_path: Path, content: bytes, note: str | None
) -> None:
    found, notes = read(tmp_path, content)
    assert found.value("1", "age") == "71"
    assert set(found.rows) == {"1"}
    if note is None:
        assert notes == ()
    else:
        (text,) = notes
        assert note in text and text.startswith("participants.tsv")


def test_rows_of_a_participant_that_disagree_are_unknown(tmp_path: Path) -> None:
    found, notes = read(
        tmp_path,
        "participant_id\tage\tsex\tsite\nsub-1\t71\tF\tn/a\nsub-2\t60\tM\tB\n"
        "sub-1\t72\tF\tA\n1\t71\tF\tA\nsub-2\t60\tM\tB\n",
    )
    assert found.value("1", "age") is None
    assert (found.value("1", "sex"), found.value("1", "site")) == ("F", "A")
    assert (found.value("2", "age"), found.value("2", "site")) == ("60", "B")
    first, second = notes
    assert first == ("participants.tsv has several rows of sub-1, which disagree; n/a there: age")
    assert second == "participants.tsv has several rows of sub-2, which agree"


def test_one_row_per_session_in_participants_tsv_is_one_note(tmp_path: Path) -> None:
    rows = "".join(f"sub-{n}\t{7 * n}\nsub-{n}\t{7 * n + 1}\n" for n in range(100))
    found, notes = read(tmp_path, f"participant_id\tage\n{rows}")
    (note,) = notes
    assert note == (
        "participants.tsv has several rows of sub-0, sub-1, sub-2 and 97 more, which disagree; "
        "n/a there: age"
    )
    assert found.value("50", "age") is None


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"", "empty"),
        (b"participant\tage\nsub-1\t1\n", "rename participant to participant_id"),
        (b"Participant_ID\tage\nsub-1\t1\n", "rename Participant_ID to participant_id"),
        (b"subject_id\tage\nsub-1\t1\n", "rename subject_id to participant_id"),
        (b"name\tage\nx\t1\n", "there are name, age"),
        (b"participant_id,age\nsub-1,71\n", "commas"),
        (b"participant_id;age\nsub-1;71\n", "semicolons"),
        (b"PK\x03\x04\x00\x00", "NUL"),
        (b"/annex/objects/x\n", "datalad get"),
    ],
)
def test_a_table_that_cannot_be_used_is_left_out_with_a_note(
    tmp_path: Path, content: bytes, note: str
) -> None:
    found, notes = read(tmp_path, content)
    assert found == KeyedTable()
    (text,) = notes
    assert note in text and text.startswith("participants.tsv")


def test_a_table_that_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "participants.tsv"
    assert read_covariates(None, []) == (Covariates(), ())
    assert read_covariates(tmp_path / "nowhere", [("1", "")]) == (Covariates(), ())
    assert read_keyed_table(path, "participants") == (KeyedTable(), ())
    path.symlink_to(".git/annex/objects/x")
    found, (note,) = read_keyed_table(path, "participants")
    assert found == KeyedTable() and "datalad get" in note
    path.unlink()
    path.mkdir()
    found, (note,) = read_keyed_table(path, "participants")
    assert found == KeyedTable() and "a folder" in note


@pytest.mark.parametrize(
    ("ids", "example"),
    [
        (("1", "2"), "it has 1, the results have sub-01"),
        (("SUB-01", "SUB-02"), "it has SUB-01, the results have sub-01"),
        (("sub-1", "sub-2"), "it has sub-1, the results have sub-01"),
        (("sub_01",), "it has sub_01, the results have sub-01"),
    ],
)
def test_a_table_of_nobody_is_named_with_both_examples(
    tmp_path: Path, ids: tuple[str, ...], example: str
) -> None:
    rows = "".join(f"{name}\t71\n" for name in ids)
    table, _ = read(tmp_path, f"participant_id\tage\n{rows}")
    (note,) = missing_participants(table, ["02", "01"])
    assert note.startswith("participants.tsv has no row of any participant")
    assert example in note and "no column could be joined" in note


def test_how_many_are_not_in_the_table(tmp_path: Path) -> None:
    table, _ = read(tmp_path, "participant_id\tage\nsub-01\t71\n02\t60\nsub-99\t5\n")
    assert missing_participants(table, ["01", "02"]) == ()
    labels = ["01", "02", "03", "04", "05", "06"]
    (note,) = missing_participants(table, labels)
    assert note == (
        "participants.tsv has no row of 4 of the 6 participants of these results "
        "(sub-03, sub-04, sub-05 and 1 more); its columns are n/a for them"
    )


def test_a_table_without_rows_and_one_that_is_not_there(tmp_path: Path) -> None:
    table, _ = read(tmp_path, "participant_id\tage\n")
    (note,) = missing_participants(table, ["01"])
    assert "no row of any participant" in note
    assert missing_participants(KeyedTable(), ["01"]) == ()


def test_sessions_and_scans_are_found_by_their_keys(tmp_path: Path) -> None:
    write_dataset(
        tmp_path,
        sessions={"1": "session_id\tage\nses-a\t70\nb\t72\n"},
        scans={
            ("1", "a"): "filename\tacq_time\nanat/sub-1_ses-a_T2starw.nii\t2001-01-01\n",
            ("2", ""): "filename\tcoil\nsub-2\\anat\\sub-2_swi.nii.gz\t32\nn/a\t8\n",
        },
    )
    found, notes = read_covariates(tmp_path, [("1", "a"), ("1", "b"), ("2", ""), ("3", "")])
    assert {key: found.sessions["1"].value(key, "age") for key in "ab"} == {"a": "70", "b": "72"}
    assert found.scans["1", "a"].value("sub-1_ses-a_T2starw", "acq_time") == "2001-01-01"
    assert found.scans["2", ""].value("sub-2_swi", "coil") == "32"
    assert set(found.scans) == {("1", "a"), ("2", "")} and set(found.sessions) == {"1"}
    assert notes == ("sub-2_scans.tsv: 1 rows without filename are left out",)


def test_the_same_fault_of_many_tables_is_one_note(tmp_path: Path) -> None:
    labels = [f"{number:02}" for number in range(12)]
    write_dataset(tmp_path, sessions=dict.fromkeys(labels, "session\tage\nses-a\t70\n"))
    _, (note,) = read_covariates(tmp_path, [(label, "a") for label in labels])
    assert note == (
        "sub-00_sessions.tsv, sub-01_sessions.tsv, sub-02_sessions.tsv and 9 more has no column "
        "session_id and is left out; what to do: rename session to session_id"
    )
    many = {label: f"session_id\tage\nses-a\t70\nses-{label}\t7\t7\n" for label in labels}
    for number, label in enumerate(labels):
        many[label] = many[label].replace("ses-a\t70\n", "ses-a\t70\n" * (number + 1))
    write_dataset(tmp_path, sessions=many)
    _, notes = read_covariates(tmp_path, [(label, "a") for label in labels])
    assert len(notes) == 11 and notes[-1].startswith("there are ")


def test_dictionaries_are_carried(tmp_path: Path) -> None:
    sex = {"Description": "Sex", "Levels": {"F": "female", "M": "male"}, "TermURL": "x"}
    write_dataset(
        tmp_path,
        participants="participant_id\tsex\theight\tgroup\nsub-1\tF\t170\ta\n",
        sessions={"1": "session_id\tnihss\tmrs\nses-a\t3\t1\n", "2": "session_id\tmrs\nses-a\t2\n"},
        dictionaries={
            "participants.json": {"sex": sex, "height": {"LongName": "Height", "Units": "cm"}},
            "sessions.json": {"nihss": {"Description": "Stroke scale.", "Units": "points"}},
            "sub-1/sub-1_sessions.json": {
                "mrs": {"Description": "Rankin"},
                "nihss": {"Units": "x"},
            },
        },
    )
    found, notes = read_covariates(tmp_path, [("1", "a"), ("2", "a")])
    assert notes == ()
    assert found.describe("participants", "sex") == {
        **sex,
        "Description": "Sex (from participants.tsv).",
    }
    assert found.describe("participants", "height") == {
        "LongName": "Height",
        "Units": "cm",
        "Description": "Height (from participants.tsv).",
    }
    assert found.describe("participants", "group") == {
        "Description": "Column group (from participants.tsv)."
    }
    assert found.describe("sessions", "nihss") == {
        "Description": "Stroke scale (from sessions.tsv).",
        "Units": "points",
    }
    assert found.describe("sessions", "mrs") == {"Description": "Rankin (from sessions.tsv)."}


@pytest.mark.parametrize("content", ["{", "[1]", json.dumps({"sex": "F"})])
def test_a_damaged_dictionary_stops_nothing(tmp_path: Path, content: str) -> None:
    write_dataset(tmp_path, participants="participant_id\tsex\nsub-1\tF\n")
    (tmp_path / "participants.json").write_text(content)
    found, notes = read_covariates(tmp_path, [("1", "")])
    assert found.participants.value("1", "sex") == "F"
    assert found.describe("participants", "sex") == {
        "Description": "Column sex (from participants.tsv)."
    }
    assert len(notes) == (0 if "sex" in content else 1)


@pytest.mark.parametrize(
    ("participants", "sessions", "sites"),
    [
        ("site\nA", "", ["A"]),
        ("Site\nA", "", ["A"]),
        ("Site\tSITE\nA\tB", "", []),
        ("Site\tsite\nA\tB", "", ["B"]),
        ("site\nA", "site\nB", ["B", "A"]),
        ("site\nA", "site\nA", ["A"]),
        ("site\nA", "site\nn/a", ["A"]),
        ("centre\nA", "", []),
    ],
)
def test_sites(tmp_path: Path, participants: str, sessions: str, sites: list[str]) -> None:
    head, values = participants.split("\n")
    tables = {}
    if sessions:
        name, value = sessions.split("\n")
        tables = {"1": f"session_id\t{name}\nses-a\t{value}\n"}
    write_dataset(
        tmp_path, participants=f"participant_id\t{head}\nsub-1\t{values}\n", sessions=tables
    )
    found, _ = read_covariates(tmp_path, [("1", "a")])
    assert found.sites("1", "a") == sites


def test_a_column_that_one_table_writes_with_other_capitals_is_joined_and_named(tmp_path):
    sessions = {str(n): "session_id\tsite\nses-a\tOslo\n" for n in (1, 2)}
    sessions["3"] = "session_id\tSite\nses-a\tRome\n"
    scans = {(str(n), "a"): f"filename\tnoise\nanat/sub-{n}_ses-a_T2starw\t1\n" for n in (1, 2)}
    scans["3", "a"] = "filename\tNOISE\nanat/sub-3_ses-a_T2starw\t1\n"
    write_dataset(tmp_path, sessions=sessions, scans=scans)
    found, notes = read_covariates(tmp_path, [(str(n), "a") for n in (1, 2, 3)])
    assert found.columns["sessions"] == ("site",) and found.columns["scans"] == ("noise",)
    assert found.sites("3", "a") == ["Rome"]
    first, second = notes
    assert "the column Site of sub-3_sessions.tsv is joined with site" in first
    assert "the column NOISE of sub-3_ses-a_scans.tsv is joined with noise" in second
