"""The command: from two folders to figures, files and exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.cli import build_parser
from cmbprep.lab.evaluate.command import FLOOR_FAILED, run

HEADER = "index\tname\tx\ty\tz\tvolume_mm3\tprobability\trating\tzone\tregion\tsusceptibility"


def evaluate(*arguments) -> int:
    parser = build_parser()
    return run(parser.parse_args(["evaluate", *map(str, arguments)]))


def table(path, *rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join(["\t".join(header.split()), *("\t".join(r.split()) for r in rows)]) + "\n"
    )


def truth_mask(path, *centres, affine=None):
    data = np.zeros((40, 40, 20), dtype=np.uint8)
    for x, y, z in centres:
        data[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def make_folders(tmp_path):
    """Three subjects: truth as masks, our tables as prediction; 4 true, 5 predicted, 3 hits."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    truth = raw / "derivatives" / "truth"
    (raw / "participants.tsv").parent.mkdir(parents=True)
    (raw / "participants.tsv").write_text("participant_id\tsite\nsub-1\tA\nsub-2\tB\nsub-3\tB\n")
    truth_mask(truth / "sub-1" / "anat" / "sub-1_label-CMB_mask.nii.gz", (5, 5, 5), (30, 5, 5))
    truth_mask(truth / "sub-2" / "anat" / "sub-2_label-CMB_mask.nii.gz", (5, 30, 5), (30, 30, 9))
    truth_mask(truth / "sub-3" / "anat" / "sub-3_label-CMB_mask.nii.gz")
    table(
        out / "sub-1" / "anat" / "sub-1_seg-CMB_dseg.tsv",
        "1 a 5 6 5 27 0.9 definite lobar frontal unknown",
        "2 b 30 5 6 27 0.8 definite lobar frontal unknown",
        "3 c 30 9 6 27 0.9 definite deep thalamus diamagnetic",
    )
    table(
        out / "sub-2" / "anat" / "sub-2_seg-CMB_dseg.tsv",
        "1 a 5 31 5 27 0.7 definite lobar frontal unknown",
        "2 b 15 15 5 8 0.3 possible lobar frontal unknown",
    )
    table(
        out / "sub-3" / "anat" / "sub-3_seg-CMB_dseg.tsv",
        "1 a 5 31 5 27 0.2 possible lobar frontal unknown",
    )
    return out, truth


@pytest.fixture
def folders(tmp_path):
    return make_folders(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All files of an evaluation, written twice."""
    top = tmp_path_factory.mktemp("written")
    both = make_folders(top)
    for side in ("a", "b"):
        files = ["--json", top / side / "e.json", "--out", top / side / "page"]
        status = evaluate(*both, *files, "--floor", "f1=0.99", "--bootstrap", 50)
        assert status == FLOOR_FAILED
    return top


def figures(path):
    return {k: v["value"] for k, v in json.loads(path.read_text())["figures"].items()}


def test_figures_of_masks_against_tables(folders, tmp_path, capsys):
    assert evaluate(*folders, "--json", tmp_path / "e.json") == 0
    found = figures(tmp_path / "e.json")
    assert found["sensitivity"] == pytest.approx(3 / 4)
    assert found["precision"] == pytest.approx(3 / 5)
    assert found["fp_per_scan_without_lesions"] == 1
    content = json.loads((tmp_path / "e.json").read_text())
    assert content["splits"]["site"]["A"]["sensitivity"]["value"] == 1
    assert content["counts"]["false_positives"] == 2
    assert "at most 5 mm" in capsys.readouterr().out


def test_choices_of_what_counts(folders, tmp_path):
    file = tmp_path / "e.json"
    evaluate(*folders, "--json", file, "--rating", "definite")
    assert figures(file)["precision"] == 1
    evaluate(*folders, "--json", file, "--threshold", 0.75)
    assert figures(file)["sensitivity"] == pytest.approx(2 / 4)
    evaluate(*folders, "--json", file, "--count-diamagnetic")
    assert figures(file)["precision"] == pytest.approx(3 / 6)
    evaluate(*folders, "--json", file, "--distance", 0.9)
    assert figures(file)["sensitivity"] == 0
    evaluate(*folders, "--json", file, "--participant-label", 1)
    assert figures(file)["sensitivity"] == 1


def test_floors_give_the_exit_status(folders, capsys):
    assert evaluate(*folders, "--floor", "sensitivity=0.75", "fp_per_scan=1") == 0
    assert evaluate(*folders, "--floor", "sensitivity=0.76") == FLOOR_FAILED == 3
    assert "DOES NOT HOLD" in capsys.readouterr().out
    several = ["--floor", "sensitivity=0.7", "--floor", "sensitivity@site:B=0.6"]
    assert evaluate(*folders, *several) == FLOOR_FAILED


def test_wrong_input(folders, tmp_path):
    out, truth = folders
    for arguments in (
        (tmp_path / "absent", truth),
        (out, tmp_path / "absent"),
        (out, truth, "--floor", "beauty=1"),
        (out, truth, "--distance", "-1"),
        (out, truth, "--threshold", "2"),
        (out, truth, "--match", "overlap"),  # our tables here have no voxels
        (out, truth, "--raw", tmp_path / "absent"),
        (out, truth, "--participant-label", "9"),
        (out, truth, "--bootstrap", "-1"),
        (out, truth, "--mimic-distance", "nan"),
        (out, truth, "--min-diameter", "-1"),
        (out, truth, "--out", tmp_path / "e", "--json", tmp_path / "e" / "figures.json"),
    ):
        with pytest.raises(UsageError) as caught:
            evaluate(*arguments)
        assert caught.value.exit_status == 2
    assert not (tmp_path / "e").exists()


def test_scans_that_have_no_partner(folders, tmp_path, capsys):
    out, truth = folders
    (out / "sub-2" / "anat" / "sub-2_seg-CMB_dseg.tsv").unlink()
    table(
        out / "sub-8" / "anat" / "sub-8_seg-CMB_dseg.tsv", "1 a 5 31 5 27 0.2 n/a n/a n/a unknown"
    )
    file = tmp_path / "e.json"
    evaluate(out, truth, "--json", file)
    assert figures(file)["sensitivity"] == pytest.approx(2 / 4)
    assert figures(file)["fp_per_scan"] == pytest.approx(1 / 3)  # sub-8 does not count
    status = {r["scan"]: (r["status"], r["counted"]) for r in json.loads(file.read_text())["scans"]}
    assert status == {
        "sub-1": ("evaluated", True),
        "sub-2": ("no prediction", True),
        "sub-3": ("evaluated", True),
        "sub-8": ("no truth", False),
    }
    text = capsys.readouterr().out
    assert "no prediction (counted as nothing found): sub-2" in text
    assert "no truth (not counted): sub-8" in text

    evaluate(out, truth, "--json", file, "--missing", "leave-out")
    assert figures(file)["sensitivity"] == 1
    status = {r["scan"]: (r["status"], r["counted"]) for r in json.loads(file.read_text())["scans"]}
    assert status["sub-2"] == ("no prediction", False)


def test_other_tools_masks_on_another_grid(tmp_path):
    # Truth on a 1 mm grid; prediction flipped left to right, anisotropic, somewhere else.
    truth_mask(tmp_path / "t" / "sub-1_label-CMB_mask.nii.gz", (5, 6, 7), (20, 6, 7))
    data = np.zeros((45, 40, 12), dtype=np.float32)
    data[35, 6, 4] = 0.9  # x = 40 - 35 = 5, y = 6, z = 2 * 4 - 1 = 7
    data[10, 6, 4] = 0.8  # x = 30: nothing there
    affine = np.array([[-1.0, 0, 0, 40], [0, 1, 0, 0], [0, 0, 2, -1], [0, 0, 0, 1]])
    (tmp_path / "p").mkdir()
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "p" / "sub-1_prediction.nii.gz")
    for match in ("centroid", "overlap"):
        file = tmp_path / f"{match}.json"
        evaluate(tmp_path / "p", tmp_path / "t", "--json", file, "--match", match, "--bootstrap", 0)
        found = figures(file)
        assert found["sensitivity"] == pytest.approx(1 / 2)
        assert found["precision"] == pytest.approx(1 / 2)
        assert found["average_precision"] == pytest.approx(1 / 2)


def test_grids_apart_are_pointed_out(tmp_path, capsys):
    away = np.eye(4)
    away[:3, 3] = 500
    truth_mask(tmp_path / "t" / "sub-1_label-CMB_mask.nii.gz", (5, 6, 7))
    truth_mask(tmp_path / "p" / "sub-1_label-CMB_mask.nii.gz", (5, 6, 7), affine=away)
    evaluate(tmp_path / "p", tmp_path / "t")
    assert "check the affines" in capsys.readouterr().out


def test_simulated_truth_with_what_cannot_be_seen_and_mimics(tmp_path):
    header = "index name x y z volume_mm3 chi_ppm visible kind"
    anat = tmp_path / "t" / "sub-1" / "anat"
    table(
        anat / "sub-1_acq-a_seg-CMB_dseg.tsv",
        "1 a 0 0 0 8 1.5 true microbleed",
        "2 b 20 0 0 1 0.1 false microbleed",
        header=header,
    )
    table(anat / "sub-1_acq-a_seg-mimic_dseg.tsv", "1 v 40 0 0 30 0.4 true vein", header=header)
    table(
        tmp_path / "p" / "sub-1" / "anat" / "sub-1_acq-a_seg-CMB_dseg.tsv",
        "1 a 0 1 0 8 0.9 definite lobar frontal unknown",
        "2 b 21 0 0 8 0.9 definite lobar frontal unknown",
        "3 c 41 0 0 8 0.9 definite lobar frontal unknown",
    )
    file = tmp_path / "e.json"
    evaluate(tmp_path / "p", tmp_path / "t", "--json", file)
    content = json.loads(file.read_text())
    assert figures(file)["sensitivity"] == 1
    assert figures(file)["precision"] == pytest.approx(1 / 2)
    assert content["counts"]["ignored_predictions"] == 1
    vein = content["false_positives"][0]
    assert (vein["origin"], vein["mimics"], vein["mimics_marked"], vein["false_positives"]) == (
        "vein",
        1,
        1,
        1,
    )
    evaluate(tmp_path / "p", tmp_path / "t", "--json", file, "--count-invisible")
    assert figures(file)["precision"] == pytest.approx(2 / 3)


def test_same_input_same_bytes_and_no_path(written):
    first = sorted(path for path in (written / "a").rglob("*") if path.is_file())
    assert len(first) == 1 + 2 * 9 + 1
    for path in first:
        content = path.read_bytes()
        assert content == (written / "b" / path.relative_to(written / "a")).read_bytes()
        assert str(written).encode() not in content


def test_page_is_whole_and_alone(written):
    text = (written / "a" / "page" / "evaluation.html").read_text()
    assert text.count("<svg") >= 6
    assert "does not hold" in text
    assert "at most 5 mm apart" in text
    # Nothing is loaded, and every reference within the plots has its target.
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "@import" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert set(targets) <= set(ids)


def test_every_table_says_its_rules(written):
    tables = sorted((written / "a" / "page").glob("*.tsv"))
    assert tables
    for path in tables:
        dictionary = json.loads(path.with_suffix(".json").read_text())
        assert "at most 5 mm" in dictionary["Rules"][0]
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        assert set(lines[0]) <= set(dictionary)
        assert {len(line) for line in lines} == {len(lines[0])}


def test_a_file_that_cannot_be_written(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        evaluate(*folders, "--json", tmp_path / "file" / "e.json")


def test_arguments_load_nothing_heavy():
    code = (
        "import sys; from cmbprep.lab.cli import build_parser; build_parser(); "
        "print([m for m in ('numpy', 'scipy', 'nibabel', 'matplotlib', 'jinja2', 'ants') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
