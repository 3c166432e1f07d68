"""The table of the recipe says what the evaluation found."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from benchmarks.recipe import Run, figure, make_page, people_of, read_run
from cmbprep.lab.cli import build_parser
from cmbprep.lab.evaluate.command import run
from cmbprep.lab.simulate.dataset import _write_dataset_files
from cmbprep.lab.simulate.protocols import draw_people, get_protocol
from cmbprep.lab.simulate.variants import USUAL

USED = Run(
    detector="classical",
    detector_version="1",
    threshold="0.15",
    participants=3,
    seed=9300,
    protocols=("ukb-swi", "demo"),
)
TRUTH = "index name x y z diameter_mm zone visible"
FOUND = "index name x y z probability zone"
# Found: 2 of 3 that count in A (one of the wrong zone, one false positive on a vein), none of 1
# in B. One true lesion is too small to count.
LESIONS = {
    "1": ("A", ["1 a 5 5 5 4 lobar true", "2 b 50 5 5 4 deep true"], ["1 a 5 6 5 0.9 lobar"]),
    "2": (
        "A",
        ["1 a 5 5 5 4 lobar true", "2 b 50 50 50 1 lobar true"],
        ["1 a 5 8 5 0.8 deep", "2 b 90 9 9 0.4 deep"],
    ),
    "3": ("B", ["1 a 5 5 5 4 lobar true"], []),
}


def write(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row.split(" ")) + "\n" for row in rows))


@pytest.fixture
def evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the command writes about three people with two protocols."""
    # The tables here are bare, without the records that results of the program have.
    monkeypatch.setattr("cmbprep.reports.usable.find_output", lambda _: None)
    raw, out = tmp_path / "raw", tmp_path / "out"
    truth = raw / "derivatives" / "truth"
    write(raw / "participants.tsv", "participant_id age")
    write(out / "dataset_description.json")
    (out / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "GeneratedBy": [{"Name": "cmbprep", "Version": "9.9"}]})
    )
    for label, (protocol, true, found) in LESIONS.items():
        stem = f"sub-{label}/anat/sub-{label}"
        write(raw / f"{stem}_T2starw.nii.gz")
        (raw / f"{stem}_T2starw.json").write_text(json.dumps({"ProtocolName": protocol}))
        write(truth / f"{stem}_seg-CMB_dseg.tsv", TRUTH, *true)
        write(out / f"{stem}_seg-CMB_dseg.tsv", FOUND, *found)
    write(
        truth / "sub-2/anat/sub-2_seg-mimics_dseg.tsv",
        "index name x y z diameter_mm kind visible",
        "1 v 90 9 10 3 calcification true",
    )
    parser = build_parser()
    file = tmp_path / "figures.json"
    arguments = [str(out), str(truth), "--json", str(file), "--min-diameter", "2"]
    assert run(parser.parse_args(["evaluate", *arguments])) == 0
    return json.loads(file.read_text())


def cells(page: str, label: str) -> list[str]:
    """The first numbers of a table's row, without their intervals."""
    (line,) = re.findall(rf"^\| {re.escape(label)} \| (.*) \|$", page, re.MULTILINE)
    return [cell.strip().partition("<br>")[0] for cell in line.split("|")]


def test_table_shows_all_scans_and_each_protocol(evaluation: dict) -> None:
    page = make_page(evaluation, USED)
    assert "|  | all | A | B |" in page
    assert cells(page, "Scans") == ["3", "2", "1"]
    assert cells(page, "True lesions") == ["4", "3", "1"]
    assert cells(page, "Sensitivity") == ["0.50", "0.67", "0.00"]
    assert cells(page, "Precision") == ["0.67", "0.67", "n/a"]
    assert cells(page, "F1") == ["0.57", "0.67", "0.00"]
    assert cells(page, "False positives per scan") == ["0.33", "0.50", "0.00"]
    assert cells(page, "Zone right, of those found") == ["0.50", "0.50", "n/a"]
    assert cells(page, "calcification") == ["1", "1.00", "1", "1"]
    widths = {line.count("|") for line in page.split("\n\n")[1].splitlines()}
    assert widths == {5}


def test_table_says_what_it_is_of(evaluation: dict) -> None:
    first = make_page(evaluation, USED).splitlines()[0]
    for part in (
        "cmbprep 9.9",
        "`classical` (version 1)",
        "seed 9300",
        "`ukb-swi`",
        "<=5mm",
        ">=2mm",
    ):
        assert part in first


def test_interval_is_shown_where_there_is_one() -> None:
    assert figure({"value": 0.5, "low": 0.25, "high": 1.0}) == "0.50<br>(0.25–1.00)"
    assert figure({"value": 0.5, "low": None, "high": None}) == "0.50"
    assert figure({"value": None, "low": None, "high": None}) == "n/a"


def test_people_are_read_from_what_the_simulator_writes(tmp_path: Path) -> None:
    names = ("clinical-2d-1.5t", "ukb-swi")
    protocols = [get_protocol(name) for name in names]
    _write_dataset_files(tmp_path, draw_people(5, 77, names, 1), protocols, 77, USUAL)
    assert people_of((tmp_path / "README.md").read_text("utf-8")) == (5, 77, names)
    assert people_of("# Another dataset\n") is None


def test_results_of_two_detectors_give_no_table(tmp_path: Path) -> None:
    args = argparse.Namespace(participants=2, seed=1, protocol=["demo"])
    head, table = "sub detector detector_version threshold", tmp_path / "group_cmb.tsv"
    write(table, head, "1 classical 1 0.15", "2 n/a n/a n/a", "3 classical 1 0.15")
    assert read_run(table, args).detector == "classical"
    write(table, head, "1 classical 1 0.15", "2 learned 1 0.3")
    with pytest.raises(SystemExit, match="learned"):
        read_run(table, args)
