"""The group level joins what the participant level left, and counts by hand agree."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from cmbprep.cli.main import main
from cmbprep.errors import UsageError
from cmbprep.group import run_group
from cmbprep.group.cohort import Cohort
from cmbprep.group.page import render_group_page
from cmbprep.group.prevalence import OUTCOMES, people
from cmbprep.group.rows import make_rows
from cmbprep.group.tables import lesion_table, quality_table, scan_table
from cmbprep.lesions import Lesion
from cmbprep.reports.results import collect_results
from tests.group.cohort import MAP, UNPLACED, cohort, read, visits_of
from tests.group.pages import rows_of
from tests.reports.outputtree import Tree, make_lesion
from tests.reports.test_individual import Page

pytestmark = pytest.mark.usefixtures("quick")

COUNTS = [
    "n_any",
    "n_definite",
    "n_possible",
    "n_any_lobar",
    "n_any_deep",
    "n_any_infratentorial",
    "n_diamagnetic",
    "volume_any_mm3",
]


def test_counts_by_hand(tree: Tree) -> None:
    result = run_group(cohort(tree), participants_tsv=None)
    rows = {row["scan"]: row for row in read(result.scans)}
    assert [rows["sub-1_ses-a_T2starw"][name] for name in COUNTS] == [
        "3",
        "2",
        "1",
        "1",
        "1",
        "1",
        "1",
        "60",
    ]
    first = rows["sub-1_ses-a_T2starw"]
    assert first["participant_id"] == "sub-1"
    assert first["session_id"] == "ses-a"
    assert first["n_any_frontal_left"] == "1"
    assert first["n_any_basal_ganglia_left"] == "0"
    assert first["pattern_definite"] == "strictly lobar"
    assert first["pattern_any"] == "mixed"
    assert first["cerebellar_definite"] == "true"
    assert first["burden_count_definite"] == "2to4"
    assert first["Manufacturer"] == "Maker"
    assert float(first["MagneticFieldStrength"]) == 3
    assert float(first["EchoTime"]) == pytest.approx(0.02)
    assert [first[f"voxel_{axis}_mm"] for axis in "ijk"] == ["0.9", "0.9", "3"]
    assert first["n_warnings"] == "2"
    assert first["cmbprep_version"] == "1.2.3"
    quality = {row["scan"]: row for row in read(result.tables["group_quality"])}
    assert quality["sub-1_ses-a_T2starw"]["preproc_snr"] == "20"
    assert result.statuses == {"complete": 4, "failed": 1, "refused": 1}


def test_scan_without_lesions_is_zero_and_failed_scan_is_not(tree: Tree) -> None:
    rows = {row["scan"]: row for row in read(run_group(cohort(tree), participants_tsv=None).scans)}
    assert {rows["sub-2_T2starw"][name] for name in COUNTS} == {"0"}
    assert rows["sub-2_T2starw"]["pattern_definite"] == "none"
    for name, status in (("sub-3_T2starw", "failed"), ("sub-4_part-phase_T2starw", "refused")):
        assert rows[name]["status"] == status
        assert {rows[name][column] for column in COUNTS} == {"n/a"}
        assert {
            rows[name][c]
            for c in ("pattern_definite", "burden_count_definite", "n_any_frontal_left")
        } == {"n/a"}
    assert rows["sub-3_T2starw"]["reason"] == "it broke badly"


def test_every_column_is_described_and_none_else(tree: Tree) -> None:
    result = run_group(cohort(tree), participants_tsv=None)
    for table in result.tables.values():
        header = table.read_text().splitlines()[0].split("\t")
        assert len(header) == len(set(header))
        described = json.loads(table.with_suffix(".json").read_text())
        assert [name for name in described if name != "MeasurementToolMetadata"] == header
        width = {line.count("\t") for line in table.read_text().splitlines()}
        assert width == {len(header) - 1}


def test_all_lesions_are_listed_and_mimics_marked(tree: Tree) -> None:
    rows = read(run_group(cohort(tree), participants_tsv=None).lesions)
    assert [(row["scan"], row["index"], row["counted"]) for row in rows] == [
        ("sub-1_ses-a_T2starw", "1", "true"),
        ("sub-1_ses-a_T2starw", "2", "true"),
        ("sub-1_ses-a_T2starw", "3", "true"),
        ("sub-1_ses-a_T2starw", "4", "false"),
        ("sub-1_ses-b_T2starw", "1", "true"),
    ]
    assert rows[1]["region"] == "thalamus"
    assert rows[1]["hemisphere"] == "left"
    assert float(rows[1]["volume_mm3"]) == 20


def test_participants_are_joined(tree: Tree, tmp_path: Path) -> None:
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tage\tsite\nsub-1\t71\tA\n2\tn/a\tB\nsub-9\t50\tC\n")
    rows = {row["scan"]: row for row in read(run_group(cohort(tree), participants_tsv=table).scans)}
    assert rows["sub-1_ses-b_T2starw"]["age"] == "n/a", "it is not known which visit is the first"
    assert rows["sub-2_T2starw"]["age"] == "n/a"
    assert rows["sub-2_T2starw"]["site"] == "B"
    assert rows["sub-5_acq-x_swi"]["site"] == "n/a"
    (note,) = (n for n in run_group(tree.root, participants_tsv=table).notes if "has no row" in n)
    assert note.startswith("participants.tsv has no row of 3 of the 5 participants")
    table.write_text("participant_id\tage\n001\t71\n")
    result = run_group(tree.root, participants_tsv=table)
    (note,) = (note for note in result.notes if "no column could be joined" in note)
    assert "it has 001, the results have sub-1" in note
    assert "it has 001" in result.page.read_text()


@pytest.mark.parametrize("content", [b"name\tage\nx\t1\n", b"\xff\xfe\x00broken", b""])
def test_unusable_participants_stop_nothing(tree: Tree, tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "participants.tsv"
    table.write_bytes(content)
    result = run_group(cohort(tree), participants_tsv=table)
    assert any("participants.tsv" in note for note in result.notes)
    assert result.statuses["complete"] == 4


def only_row(tree: Tree, lesions: list[Lesion]) -> dict[str, str]:
    tree.add("sub-1_T2starw", lesions)
    (row,) = read(run_group(tree.finish(), participants_tsv=None).scans)
    return row


def columns(row: dict[str, str], names: str) -> list[str]:
    return [row[name] for name in names.split()]


ZONE_COUNTS = (
    "n_any_lobar n_any_deep n_any_infratentorial "
    "n_definite_lobar n_definite_deep n_definite_infratentorial n_any_frontal_left n_any_cerebellum"
)


def test_without_zones_nothing_is_known_of_zones(tree: Tree) -> None:
    row = only_row(tree, [make_lesion(1, **UNPLACED), make_lesion(2, **UNPLACED)])
    assert set(columns(row, ZONE_COUNTS)) == {"n/a"}
    known = "n_any n_definite n_possible n_any_zone_unknown volume_any_mm3 volume_definite_mm3"
    assert columns(row, known) == ["2", "2", "0", "2", "30", "30"]
    assert columns(
        row,
        "pattern_definite pattern_any cerebellar_definite burden_count_definite "
        "burden_caa_definite",
    ) == [
        "undetermined",
        "undetermined",
        "n/a",
        "2to4",
        "n/a",
    ]


def test_an_unplaced_possible_lesion_leaves_the_definite_counts(tree: Tree) -> None:
    row = only_row(tree, [make_lesion(1), make_lesion(2, rating="possible", **UNPLACED)])
    assert columns(row, ZONE_COUNTS) == ["n/a", "n/a", "n/a", "1", "0", "0", "n/a", "n/a"]
    assert columns(row, "pattern_definite pattern_any cerebellar_definite") == [
        "strictly lobar",
        "undetermined",
        "false",
    ]
    assert columns(row, "burden_caa_definite burden_caa_any") == ["0to1", "n/a"]


def test_an_unplaced_mimic_is_in_no_count_and_harms_none(tree: Tree) -> None:
    mimic = make_lesion(2, susceptibility="diamagnetic", **UNPLACED)
    row = only_row(tree, [make_lesion(1), mimic])
    assert columns(row, ZONE_COUNTS) == ["1", "0", "0", "1", "0", "0", "1", "0"]
    assert columns(row, "pattern_definite n_any_zone_unknown n_diamagnetic") == [
        "strictly lobar",
        "0",
        "1",
    ]


@pytest.mark.parametrize("region", ["ventricle", None])
def test_a_place_in_no_zone_leaves_the_counts_and_not_the_pattern(
    tree: Tree, region: str | None
) -> None:
    row = only_row(tree, [make_lesion(1), make_lesion(2, zone=None, region=region)])
    assert columns(row, ZONE_COUNTS) == ["1", "0", "0", "1", "0", "0", "1", "0"]
    assert columns(
        row, "n_any_zone_unknown pattern_definite cerebellar_definite burden_caa_definite"
    ) == [
        "1",
        "undetermined",
        "false",
        "n/a",  # one lobar microbleed, or two
    ]


def test_burden_of_lobar_ones_is_known_where_it_cannot_change(tree: Tree) -> None:
    lobar = [make_lesion(index) for index in range(1, 6)]
    row = only_row(tree, [*lobar, make_lesion(6, **UNPLACED)])
    assert columns(row, "n_any_lobar burden_caa_definite pattern_definite") == [
        "n/a",
        "5ormore",
        "undetermined",
    ]


def test_without_a_rating_numbers_of_definite_ones_are_unknown(tree: Tree) -> None:
    row = only_row(tree, [make_lesion(1), make_lesion(2, rating=None)])
    assert columns(row, "n_any n_definite n_possible n_any_lobar n_definite_lobar") == [
        "2",
        "n/a",
        "n/a",
        "2",
        "n/a",
    ]
    assert columns(row, "n_definite_deep volume_any_mm3 volume_definite_mm3") == ["0", "30", "n/a"]
    assert columns(
        row, "pattern_definite burden_count_definite burden_count_any burden_prevention_definite"
    ) == [
        "strictly lobar",
        "n/a",
        "2to4",
        "1to4",
    ]


def test_boundaries_are_counted_where_each_lesion_tells(tree: Tree) -> None:
    assert only_row(tree, [make_lesion(1, boundary=True)])["n_any_boundary"] == "1"
    assert (
        only_row(tree, [make_lesion(1), make_lesion(2, boundary=None)])["n_any_boundary"] == "n/a"
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:0], "the table is empty"),
        (lambda text: text.splitlines()[0].replace("\t", ";") + "\n", "semicolons"),
        (lambda text: text.splitlines()[0] + "\n", "0 rows and its label image has 2 labels"),
        (lambda text: text[: text.rindex("\n2\t") + 1], "1 row and its label image has 2 labels"),
        (lambda text: text.replace("frontal", "frontel"), "did you mean 'frontal'"),
        (lambda text: text.replace("lobar", "deep"), "frontal is in the zone lobar"),
        (lambda text: text.replace("rating", "class"), "no column rating"),
        (lambda text: text.replace("definite", "certain"), "rating 'certain'"),
    ],
)
def test_a_damaged_table_is_no_result(tree: Tree, damage: Any, reason: str) -> None:
    files = tree.add("sub-1_T2starw", [make_lesion(1), make_lesion(2)])
    tree.add("sub-2_T2starw", [make_lesion(1)])
    table = files.path("table")
    table.write_text(damage(table.read_text()))
    result = run_group(tree.finish(), participants_tsv=None)
    rows = {row["scan"]: row for row in read(result.scans)}
    lost = rows["sub-1_T2starw"]
    assert lost["status"] == "failed"
    assert reason in lost["reason"]
    assert set(columns(lost, ZONE_COUNTS)) | {lost[name] for name in COUNTS} == {"n/a"}
    assert set(
        columns(
            lost, "pattern_definite cerebellar_definite burden_count_definite n_any_zone_unknown"
        )
    ) == {"n/a"}
    assert rows["sub-2_T2starw"]["n_any"] == "1"
    assert {row["scan"] for row in read(result.lesions)} == {"sub-2_T2starw"}
    assert result.statuses == {"complete": 1, "failed": 1}
    assert reason in Page(result.page.read_text()).text
    assert nib.load(result.maps[0]).get_fdata().max() == 1


def test_withdrawn_scans_are_listed_and_in_no_number(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    tree.add("sub-2_T2starw")
    (one, two) = collect_results(tree.finish())
    (scan,) = one.scans
    reason = "its source is no longer in the dataset"
    gone = replace(one, scans=(replace(scan, withdrawn=reason),))
    rows = make_rows([gone, two])
    first, second = rows
    table = scan_table(rows, visits_of(rows))
    assert (first.status, first.reason, first.tally) == ("withdrawn", reason, None)
    assert [line.get("n_any") for line in table.values] == [None, 0]
    assert {first.status, second.status} <= set(table.dictionary["status"]["Levels"])
    assert [values["scan"] for values in people(table.values)] == ["sub-2_T2starw"]
    assert lesion_table(rows, table).values == ()


def test_warnings_stand_in_the_table_in_words(tree: Tree) -> None:
    rows = {row["scan"]: row for row in read(run_group(cohort(tree), participants_tsv=None).scans)}
    assert rows["sub-1_ses-a_T2starw"]["warnings"] == "look; look again"
    assert rows["sub-2_T2starw"]["n_warnings"] == "0"
    assert rows["sub-2_T2starw"]["warnings"] == "n/a"
    header = list(rows["sub-2_T2starw"])
    assert header.index("warnings") == header.index("n_warnings") + 1


def test_failures_stand_before_the_numbers(tree: Tree) -> None:
    tree.refuse("0", "sub-0_part-phase_T2starw.nii.gz", "a phase image")
    text = " ".join(run_group(cohort(tree), participants_tsv=None).page.read_text().split())
    order = [
        text.index(part) for part in ("it broke badly", "a phase image", "Who has microbleeds</h2>")
    ]
    assert order == sorted(order)


def test_page_names_what_is_not_known(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1, **UNPLACED)])
    tree.add("sub-2_T2starw", [make_lesion(1), make_lesion(2, zone="deep", region="thalamus")])
    tree.add("sub-3_T2starw", [make_lesion(1, rating=None)])
    root = tree.finish()
    page = Page(run_group(root, participants_tsv=None).page.read_text())
    assert "In 1 scan, microbleeds could not be compared with the zone atlas" in page.text
    assert "In 1 scan a microbleed has no rating" in page.text
    scans = scan_table(make_rows(collect_results(root))).values
    by_name = {item.name: item for item in OUTCOMES}
    found = {name: by_name[name].prevalence(scans, "definite") for name in ("all", "lobar")}
    assert [found["all"].positive, found["all"].total, found["all"].unknown] == [2, 2, 1]
    assert [found["lobar"].positive, found["lobar"].total, found["lobar"].unknown] == [1, 1, 2]


def test_nothing_to_join_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        run_group(tmp_path, participants_tsv=None)
    assert list(tmp_path.iterdir()) == []


def test_same_outputs_give_the_same_bytes(tree: Tree, tmp_path: Path) -> None:
    other = Tree(tmp_path / "other")
    first, second = (run_group(cohort(t), participants_tsv=None) for t in (tree, other))
    names = {path.name for path in tree.root.iterdir() if path.is_file()}
    assert {"group_cmb.tsv", "group_lesions.json", "group.html", MAP} <= names
    for name in names:
        assert (tree.root / name).read_bytes() == (other.root / name).read_bytes(), name
    assert first.statuses == second.statuses


def test_page_is_sound(tree: Tree) -> None:
    root = cohort(tree)
    (root / "sub-1.html").write_text("x")
    text = run_group(root, participants_tsv=None).page.read_text()
    page = Page(text)
    assert [load for load in page.loads if not load.startswith(("#", "data:"))] == []
    assert str(root) not in text
    content = rows_of(text)
    assert str(root) not in json.dumps(content)
    assert content["data"]["scan"] == [row["scan"] for row in read(root / "group_cmb.tsv")]
    for scan, report in zip(content["data"]["scan"], content["reports"], strict=True):
        assert report == ("sub-1.html" if scan.startswith("sub-1_") else None), scan
    assert "it broke badly" in page.text.replace("\t", " ")
    for link in page.links:
        assert link.startswith("#") or (root / link).exists(), link


def test_a_dry_run_writes_nothing(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("sub-1_T2starw")
    root = tree.finish()
    before = sorted(root.rglob("*"))
    assert main([str(root / "bids"), str(root), "group", "--dry-run"]) == 0
    assert "1 scans" in capsys.readouterr().out
    assert sorted(root.rglob("*")) == before


def test_options_without_effect_are_named(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("sub-1_T2starw")
    root = tree.finish()
    words = [str(root / "bids"), str(root), "group"]
    assert main([*words, "--participant-label", "1", "--threshold", "0.5"]) == 0
    told = capsys.readouterr().err
    assert "--participant-label has no effect" in told and "--threshold has no effect" in told
    assert main(words) == 0
    assert "no effect" not in capsys.readouterr().err


def test_a_scan_that_is_refused_now_has_one_row(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    root = tree.finish()
    path = root / "logs" / "sub-1_inputs.json"
    record = json.loads(path.read_text())
    record["scans"], record["withdrawn"] = [], [{"name": "sub-1_T2starw", "reason": "refused now"}]
    record["refused"] = [{"path": "sub-1/anat/sub-1_T2starw.nii.gz", "reason": "r", "hint": "h"}]
    path.write_text(json.dumps(record))
    rows = make_rows(collect_results(root))
    assert [(row.name, row.status) for row in rows] == [("sub-1_T2starw", "withdrawn")]


def dataset_with(tree: Tree, unit: str, **changes: Any) -> Path:
    """Change the record of what the last run found in a unit."""
    path = tree.finish() / "logs" / f"{unit}_inputs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tree.root


def test_no_name_of_a_refused_file_makes_or_doubles_a_column(tree: Tree, tmp_path: Path) -> None:
    plain = run_group(cohort(tree), participants_tsv=None)
    before = {name: list(read(path)[0]) for name, path in plain.tables.items()}
    taken = {name for header in before.values() for name in header}
    words = [name for name in sorted(taken) if name.isalpha()]
    name = "_".join(f"{word}-1" for word in [*words, "participants"])
    tree.refuse("4", f"sub-4/anat/sub-4_{name}_part-phase_T2starw.nii.gz", "a phase image")
    participants = tmp_path / "participants.tsv"
    participants.write_text(
        "participant_id\tscan\tstatus\tscan\tparticipants_scan\tacq\nsub-1\t1\t2\t3\t4\t5\n"
    )
    result = run_group(tree.finish(), participants_tsv=participants)
    for table in ("group_cmb", "group_lesions", "group_quality"):
        header = result.tables[table].read_text().splitlines()[0].split("\t")
        assert header == before[table]
    described = json.loads(result.scans.with_suffix(".json").read_text())
    assert described["status"]["Description"] == "Whether there is a result."
    (row,) = (row for row in read(result.scans) if "ce-1" in row["scan"])
    assert columns(row, "participant_id status ce sequence") == ["sub-4", "refused", "1", "n/a"]


@pytest.mark.parametrize(
    ("unit", "path", "scan", "session", "suffix", "acq"),
    [
        ("sub-1", "sub-1", "sub-1", "n/a", "n/a", "n/a"),
        ("sub-1_ses-a", "sub-1/ses-a", "ses-a", "ses-a", "n/a", "n/a"),
        ("sub-1_ses-a", "sub-1/ses-a/anat", "anat", "ses-a", "n/a", "n/a"),
        (
            "sub-1_ses-b",
            "sub-1/ses-b/anat/sub-1_ses-c_acq-x_T2starw.nii.gz",
            "sub-1_ses-c_acq-x_T2starw",
            "ses-b",
            "T2starw",
            "x",
        ),
        ("sub-1", "sub-1/anat/sub-2_ses-c_swi.mgz", "sub-2_ses-c_swi", "n/a", "swi", "n/a"),
        ("sub-1", "sub-1/anat/sub-1_acq-x_mag.nii", "sub-1_acq-x_mag", "n/a", "n/a", "x"),
    ],
)
def test_a_refused_file_stands_with_its_unit(
    tree: Tree, unit: str, path: str, scan: str, session: str, suffix: str, acq: str
) -> None:
    tree.unit("1", unit.partition("_ses-")[2] or None)
    refused = [{"path": path, "reason": "r", "hint": "h"}]
    root = dataset_with(tree, unit, refused=refused)
    (row,) = read(run_group(root, participants_tsv=None).scans)
    assert columns(row, "participant_id session_id scan suffix acq status") == [
        "sub-1",
        session,
        scan,
        suffix,
        acq,
        "refused",
    ]


def test_the_last_line_has_all_numbers(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.expect("sub-6_T2starw")
    tree.add("sub-7_T2starw")
    cohort(tree)
    gone = [{"name": "sub-7_T2starw", "reason": "gone"}]
    root = dataset_with(tree, "sub-7", scans=[], withdrawn=gone)
    assert main([str(root / "bids"), str(root), "group"]) == 0
    *_, warning, last = capsys.readouterr().err.splitlines()
    assert last == (
        "cmbprep: 4 scans complete, 1 failed, 1 incomplete, 1 withdrawn, 1 file refused; "
        f"the group report is {root / 'group.html'}"
    )
    assert warning.startswith("cmbprep: warning: 2 scans have no result")


def test_the_last_line_has_no_zeros(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("sub-1_T2starw")
    words = [str(tree.root / "bids"), str(tree.finish()), "group"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith("cmbprep: 1 scan complete; the group report is ")
    assert "warning" not in told
    refused = [{"path": f"sub-1_run-{run}_swi.nii", "reason": "r", "hint": "h"} for run in (1, 2)]
    dataset_with(tree, "sub-1", refused=refused)
    assert main(words) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("cmbprep: 1 scan complete, 2 files refused; ")


def test_withdrawn_and_refused_rows_are_not_counted_as_participants(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    tree.fail("sub-2_T2starw", "it broke")
    tree.refuse("3", "sub-3_part-phase_T2starw.nii.gz", "a phase image")
    tree.add("sub-4_T2starw")
    gone = [{"name": "sub-4_T2starw", "reason": "gone"}]
    root = dataset_with(tree, "sub-4", scans=[], withdrawn=gone)
    text = " ".join(Page(run_group(root, participants_tsv=None).page.read_text()).text.split())
    assert "2 participants · 1 scan with a result" in text


def test_withdrawn_participants_need_no_row_in_participants_tsv(tree: Tree, tmp_path: Path) -> None:
    tree.add("sub-1_T2starw")
    tree.add("sub-4_T2starw")
    gone = [{"name": "sub-4_T2starw", "reason": "gone"}]
    root = dataset_with(tree, "sub-4", scans=[], withdrawn=gone)
    participants = tmp_path / "participants.tsv"
    participants.write_text("participant_id\tage\nsub-1\t71\n")
    assert run_group(root, participants_tsv=participants).notes == ()


def test_versions_on_the_page_are_not_those_of_withdrawn_scans(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    old = {"detector": "older", "detector_parameters": {"threshold": 0.35}}
    files = tree.add("sub-4_T2starw", [make_lesion(1)], parameters=old)
    for sidecar in tree.root.rglob("sub-4*.json"):
        sidecar.write_text(sidecar.read_text().replace('"1.2.3"', '"0.0.1"'))
    assert "0.0.1" in files.sidecar.read_text()
    one, two = collect_results(tree.finish())
    gone = replace(two, scans=tuple(replace(scan, withdrawn="gone") for scan in two.scans))
    for subjects, shown in (([one, two], True), ([one, gone], False)):
        rows = make_rows(subjects)
        table = scan_table(rows)
        tables = {"cmb": table, "quality": quality_table(rows), "lesions": table}
        made = Cohort(root=tree.root, rows=rows, tables=tables)
        text = Page(render_group_page(made)).text
        for word in ("0.0.1", "older", "several versions", "several schemes or detectors"):
            assert (word in text) is shown, word


def test_a_number_that_is_not_known_is_no_zero_on_the_page(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1, rating=None), make_lesion(2)])
    root = tree.finish()

    def tiles() -> tuple[dict[str, str], str]:
        page = run_group(root, participants_tsv=None).page.read_text()
        return dict(re.findall(r'<b data-number="(\w+)">([^<]*)</b>', page)), page

    found, page = tiles()
    assert (found["definite"], found["any"], found["diamagnetic"]) == ("n/a", "2", "0")
    rows = re.findall(r'data-number="(most|total)">([^<]*)<', page)
    # All groups hold this one person: of the definite ones nothing is known.
    assert set(rows) == {(name, value) for name in ("most", "total") for value in ("n/a", "2")}
    tree.add("sub-2_T2starw", [make_lesion(1), make_lesion(2, rating="possible")])
    tree.finish()
    found, page = tiles()
    assert (found["definite"], found["any"]) == ("1", "4")
    told = "definite microbleeds listed (without 1 scan of which the number is not known)"
    assert told in page and "ones listed (without" not in page
