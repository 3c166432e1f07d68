"""Tables of participants as spreadsheets and people leave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmbprep.group.participants import Participants, missing_participants, read_participants


def read(tmp_path: Path, content: str | bytes) -> tuple[Participants, tuple[str, ...]]:
    path = tmp_path / "participants.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_participants(path)


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
    assert first == (
        "participants.tsv has several rows of sub-1, which disagree; unknown for this "
        "participant: age"
    )
    assert second == "participants.tsv has several rows of sub-2, which agree"


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
    assert found == Participants()
    (text,) = notes
    assert note in text and text.startswith("participants.tsv")


def test_a_table_that_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "participants.tsv"
    assert read_participants(None) == (Participants(), ())
    assert read_participants(path) == (Participants(), ())
    path.symlink_to(".git/annex/objects/x")
    found, (note,) = read_participants(path)
    assert found == Participants() and "datalad get" in note
    path.unlink()
    path.mkdir()
    found, (note,) = read_participants(path)
    assert found == Participants() and "a folder" in note


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
    (note,) = missing_participants(table, ["02", "01"], "participants.tsv")
    assert note.startswith("participants.tsv has no row of any participant")
    assert example in note and "no column could be joined" in note


def test_how_many_are_not_in_the_table(tmp_path: Path) -> None:
    table, _ = read(tmp_path, "participant_id\tage\nsub-01\t71\n02\t60\nsub-99\t5\n")
    assert missing_participants(table, ["01", "02"], "participants.tsv") == ()
    labels = ["01", "02", "03", "04", "05", "06"]
    (note,) = missing_participants(table, labels, "participants.tsv")
    assert note == (
        "participants.tsv has no row of 4 of the 6 participants of these results "
        "(sub-03, sub-04, sub-05 and 1 more); its columns are n/a for them"
    )


def test_a_table_without_rows_and_one_that_is_not_there(tmp_path: Path) -> None:
    table, _ = read(tmp_path, "participant_id\tage\n")
    (note,) = missing_participants(table, ["01"], "participants.tsv")
    assert "no row of any participant" in note
    assert missing_participants(Participants(), ["01"], "participants.tsv") == ()
