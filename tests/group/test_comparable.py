"""Results made with different settings, and tables that a person changed, are named or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmbprep.cli.main import main
from cmbprep.errors import UsageError
from cmbprep.group import run_group
from tests.group.cohort import cohort, read
from tests.reports.outputtree import Tree, make_lesion
from tests.reports.test_individual import Page

pytestmark = pytest.mark.usefixtures("quick")

MADE: dict[str, Any] = {
    "detector": "learned",
    "detector_parameters": {"version": "5", "threshold": 0.6},
    "border_mm": 10.0,
}


def group(tree: Tree, **options: Any) -> tuple[str, ...]:
    return run_group(tree.finish(), participants_tsv=None, **options).notes


def refuse(tree: Tree, *parts: str, participants: Path | None = None) -> None:
    """Check that --strict names these parts and writes nothing."""
    root = tree.finish()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        run_group(root, participants_tsv=participants, strict=True)
    assert caught.value.exit_status == 2
    for part in parts:
        assert part in str(caught.value)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("scan", "title", "values"),
    [
        ({"version": "2.0.0"}, "versions of the program", ("1.2.3 (2 scans)", "2.0.0 (1 scan: ")),
        ({"scheme": "BOMBS"}, "schemes of the zones", ("MARS (2 scans)", "BOMBS (1 scan: ")),
        ({"detector": "classical"}, "detectors", ("learned (2 scans)", "classical (1 scan: ")),
        ({"border_mm": 8.0}, "borders in the white matter", ("10 (2 scans)", "8 (1 scan: ")),
        ({"border_mm": None}, "borders", ("10 (2 scans)", "not recorded (1 scan: ")),
        ({"threshold": 0.7}, "thresholds", ("0.6 (2 scans)", "0.7 (1 scan: ")),
        ({"zones": "segmentation"}, "sources of the zones", ("atlas (2", "segmentation (1 scan: ")),
        (
            {"detector_parameters": {"version": "4", "threshold": 0.6}},
            "versions of the detector",
            ("5 (2 scans)", "4 (1 scan: "),
        ),
    ],
)
def test_a_setting_that_differs_is_named_with_its_scans(
    tree: Tree, scan: dict[str, Any], title: str, values: tuple[str, ...]
) -> None:
    tree.add("sub-1_T2starw", parameters=MADE)
    tree.add("sub-2_T2starw", parameters=MADE)
    of_scan = {key: scan.get(key) for key in ("version", "scheme") if key in scan}
    made = {key: value for key, value in scan.items() if key not in of_scan}
    tree.add("sub-3_T2starw", parameters={**MADE, **made}, **of_scan)
    refuse(tree, title, *values, "sub-3_T2starw")
    (note,) = group(tree)
    assert title in note and all(value in note for value in values) and "sub-3_T2starw" in note
    assert title in Page((tree.root / "group.html").read_text()).text


def test_scans_without_a_result_mix_nothing(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)], parameters=MADE)
    tree.fail("sub-2_T2starw", "it broke")
    tree.refuse("3", "sub-3_part-phase_T2starw.nii.gz", "a phase image")
    assert group(tree, strict=True) == ()


def replaced(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


def with_column(name: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        head, *rows = text.splitlines()
        return "\n".join([f"{head}\t{name}", *(f"{row}\tlook again" for row in rows)]) + "\n"

    return edit


def test_a_changed_table_counts_as_it_stands_and_is_named(tree: Tree) -> None:
    table = tree.add("sub-1_T2starw", [make_lesion(1), make_lesion(2)]).path("table")
    table.write_text(replaced("definite", "possible")(table.read_text()))
    refuse(tree, "sub-1_T2starw", "changed after")
    (note,) = group(tree)
    assert note.startswith("1 lesion table was changed after the program wrote it: sub-1_T2starw")
    (row,) = read(tree.root / "group_cmb.tsv")
    assert (row["n_definite"], row["n_possible"], row["n_warnings"]) == ("1", "1", "1")
    assert "was changed after it was written" in row["warnings"]


def test_columns_of_another_hand_are_named_and_not_used(tree: Tree) -> None:
    table = tree.add("sub-1_T2starw", [make_lesion(1)]).path("table")
    table.write_text(with_column("comment")(table.read_text()))
    refuse(tree, "columns that are not used: comment")
    (note,) = group(tree)
    assert "columns that are not used: comment" in note
    assert "look again" not in (tree.root / "group_lesions.tsv").read_text()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (with_column("Rating"), "the header has the columns 'rating' and 'Rating'"),
        (with_column("zone"), "the header has the columns 'zone' twice"),
        (replaced("rating", "Rating"), "no column rating (it has 'Rating')"),
        (lambda text: text + text.splitlines(keepends=True)[-1], "two rows have the index 1"),
        (lambda text: text + text.splitlines(keepends=True)[0], "line 3 is not a row"),
    ],
)
def test_what_is_there_twice_is_damage_and_never_merged(
    tree: Tree, edit: Callable[[str], str], reason: str
) -> None:
    table = tree.add("sub-1_T2starw", [make_lesion(1)]).path("table")
    table.write_text(edit(table.read_text()))
    tree.add("sub-2_T2starw", [make_lesion(1)])
    refuse(tree, "1 lesion table is damaged", "sub-1_T2starw", reason)
    (note,) = group(tree)
    assert reason in note
    first, second = read(tree.root / "group_cmb.tsv")
    assert (first["status"], first["n_any"], second["n_any"]) == ("failed", "n/a", "1")
    assert [row["scan"] for row in read(tree.root / "group_lesions.tsv")] == ["sub-2_T2starw"]


def test_results_of_older_versions_are_compared_by_size(tree: Tree) -> None:
    files = tree.add("sub-1_T2starw", [make_lesion(1)])
    table, content = files.path("table"), json.loads(files.sidecar.read_text())
    del content["Cmbprep"]["Table"]
    content["Cmbprep"]["Files"] = {"table": table.stat().st_size}
    files.sidecar.write_text(json.dumps(content))
    assert group(tree) == ()
    table.write_text(with_column("comment")(table.read_text()))
    assert "columns that are not used: comment" in group(tree)[0]


def test_strict_refuses_a_doubtful_table_of_participants(tree: Tree, tmp_path: Path) -> None:
    cohort(tree)
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tsite\tSite\nsub-1\tA\tB\n")
    refuse(tree, "site and Site", participants=table)


def test_the_command_refuses_with_status_2(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("sub-1_T2starw", parameters=MADE)
    tree.add("sub-2_T2starw", parameters=MADE, version="2.0.0")
    words = [str(tree.root / "bids"), str(tree.finish()), "group"]
    assert main([*words, "--strict"]) == 2
    assert "2.0.0 (1 scan: sub-2_T2starw)" in capsys.readouterr().err
    assert list(tree.root.glob("group*")) == []
    assert main(words) == 0
    assert "2.0.0 (1 scan: sub-2_T2starw)" in capsys.readouterr().err
