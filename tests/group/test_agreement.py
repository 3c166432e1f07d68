"""Agreement of the readers of a made-up dataset, against numbers counted by hand."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import pytest

from cmbprep.errors import UsageError
from cmbprep.group import run_group
from cmbprep.group.agreement import _readings, comparisons, read
from cmbprep.group.agreement_tables import _two
from cmbprep.lab.cli import main
from cmbprep.lab.shared import read_data
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.zones.burden import DEFAULT_RULE, PATTERN_RULES
from tests.ratings.madeup import MISSED, make_dataset, ras
from tests.ratings.reviewing import read_scan

SCANS = [f"sub-{number:02d}_T2starw" for number in range(1, 9)]
ALL = {"L1": "definite", "L2": "definite", "L3": "definite"}
NONE = dict.fromkeys(ALL, "rejected")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight scans with three listed lesions each (two definite ones), read by two people.

    Anna accepts all three of the first five, nothing of the sixth. Bob does the same, but adds
    one to the first, accepts a candidate of the second, and calls one of the third only possible.
    The seventh is read partly by Anna. The eighth is read by nobody.
    """
    root = make_dataset(tmp_path_factory.mktemp("agreement") / "out", SCANS)
    for name in SCANS[:5]:
        read_scan(root, name, "Anna B.", ALL)
    read_scan(root, SCANS[5], "Anna B.", NONE)
    read_scan(root, SCANS[6], "Anna B.", {"L1": "definite"}, finish=False)
    read_scan(root, SCANS[0], "Bob", ALL, added=[ras(MISSED)])
    read_scan(root, SCANS[1], "Bob", {**ALL, "C4": "definite"})
    read_scan(root, SCANS[2], "Bob", {**ALL, "L3": "possible"})
    for name in SCANS[3:5]:
        read_scan(root, name, "Bob", ALL)
    read_scan(root, SCANS[5], "Bob", NONE)
    return root


def rows(root):
    with open(root / "group_agreement.tsv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def find(table, first, second, figure, lesions="definite and possible"):
    found = [
        row
        for row in table
        if (row["first"], row["second"], row["figure"]) == (first, second, figure)
        and row["lesions"] == lesions
    ]
    assert len(found) == 1
    return found[0]


def test_the_table_has_the_figures_counted_by_hand(dataset, tmp_path, capsys):
    before = {path: path.read_bytes() for path in dataset.rglob("sub-*/anat/*")}
    options = ["--bootstrap", "50", "--json", str(tmp_path / "all.json")]
    assert main(["agreement", str(dataset), *options]) == 0
    table = rows(dataset)
    assert find(table, "Anna B.", "Bob", "presence_kappa")["value"] == "1.0"
    # 15 lesions of Anna, 17 of Bob, 15 of them the same.
    assert float(find(table, "Anna B.", "Bob", "lesion_f1")["value"]) == pytest.approx(
        30 / 32, abs=1e-4
    )
    definite = find(table, "Anna B.", "Bob", "lesion_f1", "definite")
    assert float(definite["value"]) == pytest.approx(2 * 14 / (15 + 16), abs=1e-4)
    assert find(table, "Anna B.", "Bob", "count_difference")["value"] == "0.3333"
    # The detector lists three in each of six scans; Bob confirms 15 of 18 and has two more.
    assert float(find(table, "Bob", "detector", "lesion_sensitivity")["value"]) == pytest.approx(
        15 / 17, abs=1e-4
    )
    assert find(table, "Bob", "detector", "false_positives_per_scan")["value"] == "0.5"
    assert find(table, "Bob", "detector", "presence_specificity")["value"] == "0.0"
    assert find(table, "consensus (majority)", "detector", "lesion_f1")["n_scans"] == "6"
    few = find(table, "Bob", "detector", "calibration_error")
    assert few["value"] == "n/a"
    assert few["note"].startswith("fewer than 20 lesions")
    printed = capsys.readouterr().out
    assert "Left out, unread: 1 (sub-08_T2starw)" in printed
    assert "Left out, partly read: 1 (sub-07_T2starw (Anna B., round 1))" in printed
    assert "2 readers (Anna B., Bob) read 6 scans of 6 participants to the end" in printed
    everything = json.loads((tmp_path / "all.json").read_text())
    assert everything["LeftOut"]["unread"] == ["sub-08_T2starw"]
    assert everything["Text"] in printed
    assert len(everything["Figures"]) == len(table)
    dictionary = json.loads((dataset / "group_agreement.json").read_text())
    assert set(dictionary) == set(table[0])
    assert {row["figure"] for row in table} == set(dictionary["figure"]["Levels"])
    assert before == {path: path.read_bytes() for path in dataset.rglob("sub-*/anat/*")}


def test_the_rule_of_the_pattern_decides_and_is_named(dataset, tmp_path, capsys):
    """Anna calls a lobar lesion and a cerebellar one; Bob the lobar one alone."""
    cerebellar = {"zone": "infratentorial", "region": "cerebellum"}
    lobar = {"zone": "lobar", "region": "frontal"}
    (scan,) = (item for item in read(dataset).scans if item.name == SCANS[0])
    first, second = scan.automatic.lesions[:2]
    both = (replace(first, **lobar), replace(second, **cerebellar))
    patterns = {}
    for rule in PATTERN_RULES:
        of_anna, _ = _readings(replace(scan, pattern_rule=rule), both, ["L1", "L2"])
        of_bob, _ = _readings(replace(scan, pattern_rule=rule), both[:1], ["L1"])
        patterns[rule] = (of_anna.pattern, of_bob.pattern)
    assert patterns == {
        "boston": ("strictly lobar", "strictly lobar"),
        "deep": ("mixed", "strictly lobar"),
    }
    options = ["--pattern-rule", "deep", "--bootstrap", "20", "--json", str(tmp_path / "all.json")]
    assert main(["agreement", str(dataset), *options]) == 0
    assert {row["pattern_rule"] for row in rows(dataset)} == {"deep"}
    assert json.loads((tmp_path / "all.json").read_text())["PatternRule"] == "deep"
    assert PATTERN_RULES["deep"] in capsys.readouterr().out


def test_the_choices_of_the_pattern_rule_are_those_of_the_group_level():
    options = read_data("cmbprep.lab", "options.json")["agreement"]["options"][""]
    (option,) = (item for item in options if item["name"] == "--pattern-rule")
    assert option["choices"] == list(PATTERN_RULES)
    assert option["default"] == DEFAULT_RULE


def test_the_same_command_writes_the_same_bytes(dataset):
    assert main(["agreement", str(dataset), "--bootstrap", "20", "--seed", "4"]) == 0
    first = (dataset / "group_agreement.tsv").read_bytes()
    assert main(["agreement", str(dataset), "--bootstrap", "20", "--seed", "4"]) == 0
    assert (dataset / "group_agreement.tsv").read_bytes() == first


def test_rounds_of_a_reader_are_compared_and_the_last_one_counts(tmp_path):
    root = make_dataset(tmp_path / "out", SCANS[:2])
    read_scan(root, SCANS[0], "Anna", ALL)
    read_scan(root, SCANS[0], "Anna", NONE, number=2)
    read_scan(root, SCANS[1], "Anna", ALL)
    found = {
        (item.kind, item.first, item.second): item
        for item in comparisons(read(root))
        if item.lesions == "definite"
    }
    assert set(found) == {
        ("rounds", "Anna, round 1", "Anna, round 2"),
        ("machine", "Anna", "detector"),
    }
    (pair,) = found["rounds", "Anna, round 1", "Anna, round 2"].scans
    assert (len(pair.first.spots), len(pair.second.spots)) == (3, 0)
    counts = [len(pair.first.spots) for pair in found["machine", "Anna", "detector"].scans]
    assert counts == [0, 3]


def test_a_review_of_an_older_result_is_named_and_does_not_count(tmp_path, capsys):
    root = make_dataset(tmp_path / "out", SCANS[:2])
    for name in SCANS[:2]:
        read_scan(root, name, "Anna", ALL)
    make_dataset(root, SCANS[:1], listed=2, fingerprint="f2")
    assert read(root).left_out["of an older result"] == [f"{SCANS[0]} (Anna, round 1)"]
    assert [scan.name for scan in read(root).read] == SCANS[1:2]
    assert main(["agreement", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "of an older result: 1" in printed
    assert "fewer than 5 participants" in printed


def test_a_dataset_that_nobody_has_read_is_refused_and_nothing_is_written(tmp_path, capsys):
    root = make_dataset(tmp_path / "out", SCANS[:1])
    assert main(["agreement", str(root)]) == 2
    assert "no scan was read to the end (1 unread)" in capsys.readouterr().err
    assert not (root / "group_agreement.tsv").exists()


@pytest.mark.parametrize(
    "options", [["--match-distance", "0"], ["--match-distance", "nan"], ["--bootstrap", "-1"]]
)
def test_wrong_options_are_refused(dataset, options, capsys):
    assert main(["agreement", str(dataset), *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_another_folder_is_refused(tmp_path):
    assert main(["agreement", str(tmp_path)]) == 2
    with pytest.raises(UsageError, match="no rule"):
        comparisons(read(make_dataset(tmp_path / "out", SCANS[:1])), rule="some")


@pytest.mark.usefixtures("quick")
def test_the_group_page_has_the_agreement_of_the_readers(dataset):
    run_group(dataset, participants_tsv=None, choice=ReaderChoice(rule="any"))
    page = (dataset / "group.html").read_text()
    assert "<h3>Agreement</h3>" in page
    assert "<caption>Anna B. and Bob: 6 scans</caption>" in page
    assert "<caption>Consensus (majority) and detector: 6 scans</caption>" in page


@pytest.mark.usefixtures("quick")
def test_the_group_page_of_a_dataset_that_nobody_has_read_has_none(tmp_path):
    root = make_dataset(tmp_path / "out", SCANS[:1])
    run_group(root, participants_tsv=None)
    assert "Agreement" not in (root / "group.html").read_text()


@pytest.mark.parametrize(
    ("number", "text"),
    [(1.0, "1.00"), (0.996, "0.996"), (0.99999, "0.999"), (0.994, "0.99"), (-0.001, "0.00")],
)
def test_a_share_below_one_is_not_written_as_one(number, text):
    assert _two(number) == text


def test_the_group_command_writes_the_table_of_the_tool_and_removes_an_old_one(dataset, tmp_path):
    root = tmp_path / "out"
    shutil.copytree(dataset, root)
    files = [root / f"group_agreement{ending}" for ending in (".tsv", ".json")]
    assert main(["agreement", str(root)]) == 0
    expected = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    choice = ReaderChoice(reader="Bob")
    result = run_group(root, participants_tsv=None, choice=choice)
    assert [path.read_bytes() for path in files] == expected
    assert result.tables["group_agreement"] == files[0]
    assert 'href="group_agreement.tsv"' in result.page.read_text()
    # Whosever lesions the tables have.
    result = run_group(root, participants_tsv=None, choice=ReaderChoice(automatic=True))
    assert [path.read_bytes() for path in files] == expected
    assert 'href="group_agreement.tsv"' in result.page.read_text()
    for log in root.rglob("*_acts.jsonl"):
        log.unlink()
    result = run_group(root, participants_tsv=None)
    assert not any(path.exists() for path in files)
    assert any("group_agreement.tsv" in note and "removed" in note for note in result.notes)
    assert "group_agreement" not in result.tables
    assert "group_agreement" not in result.page.read_text()
