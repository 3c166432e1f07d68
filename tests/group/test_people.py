"""One row per person: the baseline's scan, and the reason where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cmbprep.cli.main import main
from cmbprep.group import run_group
from cmbprep.group.covariates import read_covariates
from cmbprep.group.people import participant_table
from cmbprep.group.rows import make_rows
from cmbprep.group.run import GroupResult
from cmbprep.group.tables import scan_table
from cmbprep.group.visits import find_visits
from cmbprep.reports.results import collect_results
from tests.group.cohort import read
from tests.group.datasets import make_row, write_dataset
from tests.reports.outputtree import Tree, make_lesion

pytestmark = pytest.mark.usefixtures("quick")

PARTICIPANTS = """\
participant_id\tage\tsite\tsex\tstatus\tn_any\tAge_group
sub-1\t70\tA\tF\tpatient\t9\told
sub-2\t71\tB\tM\tcontrol\tn/a\told
sub-3\t72\tA\tF\tpatient\t1\told
sub-4\t73\tA\tF\tpatient\t1\told
sub-6\t75\tC\tM\tcontrol\t1\told
sub-7\t76\tC\tM\tcontrol\t1\told
"""
SEX = {"Description": "Sex", "Levels": {"M": "male", "F": "female"}}


def made(tree: Tree, tmp_path: Path, **options: Any) -> GroupResult:
    """Write results and raw tables of seven people, and run the group level."""
    lesions = [make_lesion(1), make_lesion(2, zone="deep", region="thalamus")]
    tree.add("sub-1_ses-a_T2starw", lesions)
    tree.add("sub-1_ses-b_run-1_T2starw", lesions[:1], voxel=(1.0, 1.0, 3.0))
    tree.add("sub-1_ses-b_run-2_T2starw", lesions[:1], acquisition={"EchoTime": 0.04})
    tree.add("sub-2_swi", lesions)
    tree.fail("sub-3_ses-a_T2starw", "it broke")
    tree.add("sub-3_ses-b_T2starw", lesions)
    tree.refuse("4", "sub-4/anat/sub-4_part-phase_T2starw.nii.gz", "a phase image")
    tree.add("sub-5_T2starw", lesions)
    for session in "ab":
        tree.add(f"sub-7_ses-{session}_T2starw")
    root = tree.finish()
    record = json.loads((root / "logs/sub-5_inputs.json").read_text())
    gone = [{"name": "sub-5_T2starw", "reason": "deleted"}]
    (root / "logs/sub-5_inputs.json").write_text(
        json.dumps({**record, "scans": [], "withdrawn": gone})
    )
    raw = write_dataset(
        tmp_path / "raw",
        participants=PARTICIPANTS,
        sessions={
            "1": "session_id\tacq_time\tmmse\nses-a\t1902-01-01\t28\nses-b\t1900-01-01\t29\n",
            "3": "session_id\tnihss\na\t4\nb\t2\n",
        },
        scans={("1", "b"): "filename\tcoil\nanat/sub-1_ses-b_run-2_T2starw.nii.gz\t32\n"},
        dictionaries={"participants.json": {"sex": SEX}},
    )
    return run_group(root, participants_tsv=raw / "participants.tsv", **options)


def people_of(result: GroupResult) -> dict[str, dict[str, str]]:
    return {row["participant_id"]: row for row in read(result.tables["group_participants"])}


def test_everybody_has_one_row_with_a_reason(tree: Tree, tmp_path: Path) -> None:
    result = made(tree, tmp_path)
    rows = read(result.tables["group_participants"])
    names = "participant_id status n_visits n_scans baseline_session baseline_scan baseline_rule"
    assert [[row[name] for name in names.split()] for row in rows] == [
        ["sub-1", "complete", "2", "3", "ses-b", "sub-1_ses-b_run-2_T2starw", "acq_time"],
        ["sub-2", "complete", "1", "1", "n/a", "sub-2_swi", "only visit"],
        ["sub-3", "failed", "2", "2", "ses-a", "sub-3_ses-a_T2starw", "sessions.tsv"],
        ["sub-4", "refused", "0", "0", "n/a", "n/a", "n/a"],
        ["sub-5", "withdrawn", "0", "0", "n/a", "n/a", "n/a"],
        ["sub-6", "no scan", "0", "0", "n/a", "n/a", "n/a"],
        ["sub-7", "no baseline", "2", "2", "n/a", "n/a", "n/a"],
    ]
    reasons = [row["reason"] for row in rows]
    assert reasons[:2] == ["n/a", "n/a"]
    assert reasons[2] == "it broke; there is a result of ses-b"
    assert reasons[3] == "sub-4_part-phase_T2starw: a phase image"
    assert reasons[4] == "sub-5_T2starw: deleted"
    assert "participants.tsv" in reasons[5] and "order of the sessions" in reasons[6]
    assert [row["n_any"] for row in rows] == ["1", "2", *["n/a"] * 5]
    described = json.loads(result.tables["group_participants"].with_suffix(".json").read_text())
    assert {row["status"] for row in rows} <= set(described["status"]["Levels"])
    assert {row["baseline_rule"] for row in rows} - {"n/a"} <= set(
        described["baseline_rule"]["Levels"]
    )


def test_values_are_those_of_the_baselines_scan(tree: Tree, tmp_path: Path) -> None:
    result = made(tree, tmp_path)
    scans = {row["scan"]: row for row in read(result.scans)}
    own = set(read(result.scans)[0]) & set(read(result.tables["group_participants"])[0])
    assert {"n_definite_lobar", "pattern_any", "burden_caa_any", "EchoTime", "age", "site"} <= own
    for person in people_of(result).values():
        if person["baseline_scan"] == "n/a":
            continue
        scan = scans[person["baseline_scan"]]
        assert (scan["is_baseline"], scan["is_primary"]) == ("true", "true")
        for name in own - {"reason"}:
            assert person[name] == scan[name], name
    flags = [(row["is_baseline"], row["is_primary"]) for row in scans.values()]
    assert flags.count(("true", "true")) == 3, "at most one scan per person"


def test_covariates_have_names_of_their_own(tree: Tree, tmp_path: Path) -> None:
    result = made(tree, tmp_path)
    people = people_of(result)
    first = people["sub-1"]
    assert [first[name] for name in ("age", "site", "acq_time", "sex", "mmse", "coil")] == [
        "70",
        "A",
        "1900-01-01",
        "F",
        "29",
        "32",
    ]
    assert (first["n_any"], first["participants_n_any"]) == ("1", "9")
    assert (first["status"], first["participants_status"]) == ("complete", "patient")
    assert people["sub-3"]["nihss"] == "4" and people["sub-1"]["nihss"] == "n/a"
    # Persons without a baseline keep what is known of them.
    for name, site in (("sub-6", "C"), ("sub-7", "C"), ("sub-5", "n/a")):
        assert (people[name]["site"], people[name]["mmse"]) == (site, "n/a")
    assert (people["sub-6"]["sex"], people["sub-6"]["participants_age"]) == ("M", "75")
    assert people["sub-6"]["age"] == "n/a", "there is no scan"
    described = json.loads(result.tables["group_participants"].with_suffix(".json").read_text())
    assert list(described) == list(first)
    assert described["sex"]["Levels"] == SEX["Levels"]
    assert list(described)[-10:] == [
        "participants_age",
        "participants_site",
        "sex",
        "participants_status",
        "participants_n_any",
        "Age_group",
        "sessions_acq_time",
        "mmse",
        "nihss",
        "coil",
    ]
    (note,) = (note for note in result.notes if "another name" in note)
    assert "status of participants.tsv is participants_status" in note
    assert "n_any of participants.tsv is participants_n_any" in note
    assert "participants_age" not in note, "age is taken from there anyway"


def test_names_that_differ_by_capitals_are_taken(tmp_path: Path) -> None:
    raw = write_dataset(
        tmp_path, participants="participant_id\tAGE\tSite\tparticipants_site\nsub-1\t70\tA\tB\n"
    )
    rows = [make_row("sub-1_T2starw")]
    covariates, _ = read_covariates(raw, [("1", "")])
    visits, _ = find_visits(rows, covariates)
    table, _ = participant_table(rows, scan_table(rows, visits.scans), visits, covariates)
    assert list(table.dictionary)[-3:] == [
        "participants_AGE",
        "participants_Site_2",
        "participants_site",
    ]
    (line,) = table.values
    assert [line[name] for name in list(table.dictionary)[-3:]] == ["70", "A", "B"]
    assert (line["age"], line["site"]) == (70, "A")


def test_a_column_keeps_its_name_where_that_is_free_whatever_the_order(tmp_path: Path) -> None:
    raw = write_dataset(
        tmp_path,
        participants="participant_id\tstatus\tparticipants_status\tscans_mood\nsub-1\ta\tb\tc\n",
        sessions={"1": "session_id\tmood\tMood_2\nses-a\td\te\n"},
        scans={("1", "a"): "filename\tmood\nanat/sub-1_ses-a_T2starw.nii.gz\tf\n"},
    )
    rows = [make_row("sub-1_ses-a_T2starw")]
    covariates, _ = read_covariates(raw, [("1", "a")])
    visits, _ = find_visits(rows, covariates)
    table, notes = participant_table(rows, scan_table(rows, visits.scans), visits, covariates)
    assert list(table.dictionary)[-6:] == [
        "participants_status_2",
        "participants_status",
        "scans_mood",
        "mood",
        "Mood_2",
        "scans_mood_2",
    ]
    (line,) = table.values
    values = [line[name] for name in list(table.dictionary)[-6:]]
    assert values == ["a", "b", "c", "d", "e", "f"]
    (note,) = notes
    assert "status of participants.tsv is participants_status_2" in note
    assert "mood of scans.tsv is scans_mood_2" in note


def test_follow_up_is_taken_over(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    tree.add("sub-2_T2starw")
    rows = make_rows(collect_results(tree.finish()))
    covariates, _ = read_covariates(None, [])
    visits, _ = find_visits(rows, covariates)
    scans = scan_table(rows, visits.scans)
    follow_up = {"1": {"last_session": "ses-b", "n_new_any": 3}}
    table, notes = participant_table(rows, scans, visits, covariates, follow_up)
    assert notes == ()
    assert [line.get("n_new_any") for line in table.values] == [3, None]
    assert list(table.dictionary)[-1] == "aria_h_new_any"
    assert {key for values in follow_up.values() for key in values} <= set(table.dictionary)


def test_the_phenotype_is_the_same_table(tree: Tree, tmp_path: Path) -> None:
    result = made(tree, tmp_path)
    people, phenotype = result.tables["group_participants"], result.tables["phenotype/cmb"]
    assert phenotype == tree.root / "phenotype" / "cmb.tsv"
    assert phenotype.read_bytes() == people.read_bytes()
    described = json.loads(phenotype.with_suffix(".json").read_text())
    assert described.pop("MeasurementToolMetadata")["Description"]
    assert described == json.loads(people.with_suffix(".json").read_text())


def test_the_option_chooses_the_baseline(
    tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tree, tmp_path)
    words = [str(tmp_path / "raw"), str(tree.root), "group", "--baseline-session"]
    assert main([*words, "ses-b"]) == 0
    assert "order of the sessions" not in capsys.readouterr().err
    people = {row["participant_id"]: row for row in read(tree.root / "group_participants.tsv")}
    names = ("status", "baseline_session", "baseline_rule", "n_any")
    assert {label: [row[name] for name in names] for label, row in people.items()} == {
        "sub-1": ["complete", "ses-b", "option", "1"],
        "sub-2": ["no baseline", "n/a", "n/a", "n/a"],
        "sub-3": ["complete", "ses-b", "option", "2"],
        "sub-4": ["refused", "n/a", "n/a", "n/a"],
        "sub-5": ["withdrawn", "n/a", "n/a", "n/a"],
        "sub-6": ["no scan", "n/a", "n/a", "n/a"],
        "sub-7": ["complete", "ses-b", "option", "0"],
    }
    assert people["sub-2"]["reason"] == "there is no scan of the session ses-b"
    before = (tree.root / "group_participants.tsv").read_bytes()
    for more in ([], ["--dry-run"]):
        assert main([*words, "c", *more]) == 2
        assert "give one of a, b" in capsys.readouterr().err
    assert (tree.root / "group_participants.tsv").read_bytes() == before


def test_dates_and_texts_are_left_out_where_asked(tree: Tree, tmp_path: Path) -> None:
    result = made(tree, tmp_path, deidentified=True)
    text = result.tables["group_participants"].read_text()
    assert "190" not in text and "it broke" not in text and "phase" not in text
    assert result.tables["phenotype/cmb"].read_text() == text
    assert people_of(result)["sub-1"]["sex"] == "F"


def test_the_same_tables_give_the_same_bytes(tree: Tree, tmp_path: Path) -> None:
    first = made(tree, tmp_path)
    before = {name: path.read_bytes() for name, path in first.tables.items()}
    assert {
        name: path.read_bytes() for name, path in made_again(tree, tmp_path).tables.items()
    } == before


def made_again(tree: Tree, tmp_path: Path) -> GroupResult:
    """Run the group level with the rows of participants.tsv in another order."""
    table = tmp_path / "raw" / "participants.tsv"
    head, *lines = table.read_text().splitlines(keepends=True)
    table.write_text(head + "".join(reversed(lines)))
    return run_group(tree.root, participants_tsv=table)
