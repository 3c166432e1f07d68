import csv
import json
from dataclasses import asdict

import numpy as np
import pytest

from cmbprep.detectors.learned import CANDIDATES, LearnedDetector
from cmbprep.errors import UsageError
from cmbprep.lab.cli import main
from cmbprep.lab.training.ratings import read_ratings
from cmbprep.lesions import format_lesions
from cmbprep.outputs.files import write_image
from cmbprep.outputs.names import Names
from cmbprep.outputs.stages import BLOCK, StageFiles
from tests.reports.outputtree import label_image, make_lesion

COLUMNS = tuple(CANDIDATES)


def write_scan(root, subject, rows, sha256="net"):
    """Write what a run leaves behind of one scan, as far as ratings need it."""
    names = Names(
        subject=subject,
        session=None,
        src=f"sub-{subject}",
        suffix="T2starw",
        template="T",
        reference="T",
        target="T",
        scheme="MARS",
    )
    files = StageFiles(root, "lesions", names)
    files.sidecar.parent.mkdir(parents=True, exist_ok=True)
    block = {
        "Stage": "lesions",
        "Names": asdict(names),
        "Parameters": {"detector": {"sha256": sha256}},
    }
    files.sidecar.write_text(json.dumps({BLOCK: block}))
    before = StageFiles(root, "preproc", names)
    before.sidecar.write_text(json.dumps({BLOCK: {"Stage": "preproc", "Names": asdict(names)}}))
    with open(files.path("candidates"), "w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "name", *COLUMNS])
        for number, row in enumerate(rows, start=1):
            writer.writerow([number, "x", *(row.get(name, 0) for name in COLUMNS)])
    listed = sorted({row["lesion"] for row in rows if row.get("lesion")})
    lesions = [make_lesion(index) for index in listed]
    files.path("table").write_text(format_lesions(lesions))
    write_image(files.path("dseg"), label_image(lesions))
    return str(files.path("table").relative_to(root))


def write_ratings(root, rows):
    with open(root / "ratings.tsv", "w", newline="") as stream:
        writer = csv.DictWriter(
            stream, ("table", "verdict", "index", "x", "y", "z"), delimiter="\t", restval="n/a"
        )
        writer.writeheader()
        writer.writerows(rows)


def candidate(x, lesion=0, odds=0.0):
    return {"x": x, "lesion": lesion, "odds": odds}


def test_verdicts_reach_the_right_candidates(tmp_path):
    table = write_scan(
        tmp_path,
        "01",
        [
            candidate(0, lesion=1, odds=1),
            candidate(1, lesion=1, odds=3),  # the better of the two of lesion 1
            candidate(20, lesion=2, odds=2),
            candidate(40, odds=-2),  # the one that is added
            candidate(43, odds=-4),
            candidate(80, odds=-3),
        ],
    )
    write_ratings(
        tmp_path,
        [
            {"table": table, "verdict": "accepted", "index": 1},
            {"table": table, "verdict": "rejected", "index": 2},
            {"table": table, "verdict": "added", "x": 42, "y": 0, "z": 0},
            {"table": table, "verdict": "added", "x": 60, "y": 0, "z": 0},
        ],
    )
    rated = read_ratings([tmp_path])
    # The other candidate of lesion 1, and the one beside the added one, are the same again.
    assert rated.column("x").tolist() == [1, 20, 40, 80]
    assert rated.target.tolist() == [True, False, True, False]
    assert (rated.scans, rated.people, rated.beyond) == (1, 1, 1)
    assert rated.networks == {"net"}


def test_a_scan_without_anything_counts_and_others_do_not(tmp_path):
    empty = write_scan(tmp_path, "01", [candidate(0, odds=-3)])
    write_scan(tmp_path, "02", [candidate(0, odds=-3)])
    write_ratings(tmp_path, [{"table": empty, "verdict": "none"}])
    rated = read_ratings([tmp_path])
    assert rated.scans == 1
    assert not rated.target.any()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"verdict": "maybe", "index": 1}, "line 2"),
        ({"verdict": "accepted", "index": "n/a"}, "needs the index"),
        ({"verdict": "accepted", "index": 7}, "lesion 1 has no verdict"),
        ({"verdict": "added", "x": "here"}, "no position"),
        ({"verdict": "none"}, "lesion 1 has no verdict"),
    ],
)
def test_what_cannot_be_is_named(tmp_path, row, message):
    table = write_scan(tmp_path, "01", [candidate(0, lesion=1)])
    write_ratings(tmp_path, [{"table": table, **row}])
    with pytest.raises(UsageError, match=message):
        read_ratings([tmp_path])


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("candidates", lambda text: text[:0], "the table is empty"),
        ("candidates", lambda text: text.replace("\t", ";"), "semicolons"),
        ("candidates", lambda text: text.replace("odds", "odd"), "no column odds"),
        ("candidates", lambda text: text.removesuffix("\n"), "cut short"),
        ("candidates", lambda text: text[: text.rindex("\t")] + "\n", "line 3 has"),
        ("candidates", lambda text: text[: text.rindex("2\tx")], "lesion 2 is in only one"),
        ("candidates", lambda text: text.replace("\t20\t", "\ttwenty\t"), "line 3"),
        ("candidates", lambda text: text.replace("\n2\t", "\n3\t"), "count from 1"),
        ("table", lambda text: text[:0], "the table is empty"),
        ("table", lambda text: text.splitlines()[0] + "\n", "0 rows .* 2 labels"),
        ("table", lambda text: text.replace("definite", "certain"), "line 2"),
    ],
)
def test_damaged_tables_are_no_ratings_of_nothing(tmp_path, file, damage, message):
    table = write_scan(tmp_path, "01", [candidate(0, lesion=1), candidate(20, lesion=2)])
    verdicts = [{"table": table, "verdict": "accepted", "index": index} for index in (1, 2)]
    write_ratings(tmp_path, verdicts)
    assert read_ratings([tmp_path]).target.tolist() == [True, True]
    name = {"table": "seg-CMB", "candidates": "seg-candidates"}[file]
    path = tmp_path / "sub-01" / "anat" / f"sub-01_{name}_dseg.tsv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError, match=message) as caught:
        read_ratings([tmp_path])
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the table is empty"),
        ("table;verdict;index\n", "semicolons"),
        ("table\tverdict\tindex\n{0}\taccepted\n", "line 2 has 2 cells"),
        ("table\tverdict\tindex\n", "table of ratings is empty"),
        ("table\tverdict\tindex\n{0}\taccepted\t1\n{0}\trejected\t1\n", "accepted and rejected"),
    ],
)
def test_damaged_ratings_are_named(tmp_path, content, message):
    table = write_scan(tmp_path, "01", [candidate(0, lesion=1)])
    (tmp_path / "ratings.tsv").write_text(content.format(table))
    with pytest.raises(UsageError, match=message):
        read_ratings([tmp_path])


def test_an_unknown_scan_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"ratings\.tsv"):
        read_ratings([tmp_path])
    write_ratings(tmp_path, [{"table": "sub-9/anat/x.tsv", "verdict": "none"}])
    with pytest.raises(UsageError, match="sub-9"):
        read_ratings([tmp_path])


def test_the_command_writes_a_model_that_the_detector_takes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    sha256 = LearnedDetector().sha256
    rows = []
    for number in range(12):
        odds = rng.normal(0, 2, 6)
        bleed = rng.random(6) < 1 / (1 + np.exp(-odds))
        table = write_scan(
            tmp_path,
            f"{number:02d}",
            [candidate(20 * i, lesion=i + 1, odds=odds[i]) for i in range(6)],
            sha256,
        )
        rows += [
            {"table": table, "verdict": "accepted" if bleed[i] else "rejected", "index": i + 1}
            for i in range(6)
        ]
    write_ratings(tmp_path, rows)
    assert main(["train", str(tmp_path / "model"), "--ratings", str(tmp_path)]) == 0
    assert "after" in capsys.readouterr().out
    detector = LearnedDetector(site=tmp_path / "model" / "site.json")
    # The packaged offset says that bleeds are rare; here every second candidate is one.
    assert detector.last_stage.offset > LearnedDetector().last_stage.offset
    card = json.loads((tmp_path / "model" / "site.json").read_text())
    assert card["ratings"]["scans"] == 12
    assert set(card["held_out"]) >= {"before", "after"}


def withdraw(root):
    (root / "logs" / "sub-01_inputs.json").write_text(
        json.dumps(
            {
                "unit": "sub-01",
                "scans": [],
                "withdrawn": [{"name": "sub-01_T2starw", "reason": "it left the dataset"}],
            }
        )
    )


def fail(root):
    (root / "logs" / "sub-01_T2starw_error.json").write_text(
        json.dumps({"message": "the registration failed"})
    )


def leave_unfinished(root):
    (root / "sub-01" / "anat" / "sub-01_desc-preproc_T2starw.json").unlink()


def forget(root):
    # The record of the last run does not name the scan of the results that are there.
    (root / "logs" / "sub-01_inputs.json").write_text(
        json.dumps({"unit": "sub-01", "scans": [], "withdrawn": []})
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (withdraw, "withdrawn (it left the dataset)"),
        (fail, "failed (the registration failed)"),
        (leave_unfinished, "incomplete ("),
        (forget, "incomplete ("),
    ],
)
def test_ratings_of_results_that_count_no_more_are_left_out(tmp_path, caplog, change, reason):
    (tmp_path / "logs").mkdir()
    old = write_scan(tmp_path, "01", [candidate(0, lesion=1)])
    sound = write_scan(tmp_path, "02", [candidate(0, lesion=1), candidate(20)])
    write_ratings(
        tmp_path, [{"table": name, "verdict": "accepted", "index": 1} for name in (old, sound)]
    )
    assert read_ratings([tmp_path]).scans == 2
    change(tmp_path)
    with caplog.at_level("WARNING", logger="cmbprep"):
        rated = read_ratings([tmp_path])
    assert (rated.scans, rated.people, rated.target.tolist()) == (1, 1, [True, False])
    assert f"the ratings of {old} are not used: {reason}" in caplog.text

    write_ratings(tmp_path, [{"table": old, "verdict": "accepted", "index": 1}])
    with pytest.raises(UsageError, match="none of the scans"):
        read_ratings([tmp_path])


def test_ratings_of_a_superseded_result_are_left_out(tmp_path, caplog):
    old = write_scan(tmp_path, "01", [candidate(0, lesion=1)])
    # The last run has given the outputs of the same scan another name.
    for path in sorted((tmp_path / "sub-01" / "anat").iterdir()):
        copy = path.with_name(path.name.replace("sub-01", "sub-01_acq-T2starw", 1))
        copy.write_bytes(path.read_bytes())
    for path in (tmp_path / "sub-01" / "anat").glob("*.json"):
        content = json.loads(path.read_text())
        content[BLOCK]["Scan"] = "sub-01_acq-T2starw_T2starw"
        if path.name.startswith("sub-01_acq"):
            content[BLOCK]["Names"]["src"] = "sub-01_acq-T2starw"
        path.write_text(json.dumps(content))
    new = old.replace("sub-01_seg", "sub-01_acq-T2starw_seg")
    write_ratings(
        tmp_path, [{"table": name, "verdict": "accepted", "index": 1} for name in (old, new)]
    )
    with caplog.at_level("WARNING", logger="cmbprep"):
        rated = read_ratings([tmp_path])
    assert rated.scans == 1
    assert caplog.text.count("are not used: superseded") == 1
