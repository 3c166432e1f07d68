"""Outputs of cmbprep: its records say which scans have a result, and why others have none."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.cli import build_parser
from cmbprep.lab.evaluate.command import run
from cmbprep.outputs.files import write_image
from cmbprep.reports.usable import find_output, is_output
from tests.reports.outputtree import Tree, make_lesion


def evaluate(*arguments) -> int:
    parser = build_parser()
    return run(parser.parse_args(["evaluate", *map(str, arguments)]))


def truth_of(folder, *scans, lesions=2):
    """A truth by another program, of lesions at (20 n, 0, 0)."""
    for scan in scans:
        path = folder / scan.partition("_")[0] / "anat" / f"{scan}_seg-CMB_dseg.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{n}\t{20 * n}\t0\t0\n" for n in range(1, lesions + 1)]
        path.write_text("index\tx\ty\tz\n" + "".join(rows))
    return folder


def found_lesions(count=2):
    return [make_lesion(n, x=20.0 * n, y=0.0, z=0.0) for n in range(1, count + 1)]


def add(tree, name, count=2, **values):
    """A complete scan with its mask and map, as the participant level leaves them."""
    files = tree.add(name, found_lesions(count), **values)
    data = np.zeros((4, 4, 4), np.uint8)
    data.flat[:count] = 1
    for key in ("mask", "probseg"):
        image = nib.Nifti1Image(data.astype(np.float32 if key == "probseg" else np.uint8), None)
        write_image(files.path(key), image)
    return files


@pytest.fixture
def folders(tmp_path):
    tree = Tree(tmp_path / "out")
    add(tree, "sub-1_T2starw")
    add(tree, "sub-2_T2starw")
    return tree.finish(), truth_of(tmp_path / "truth", "sub-1", "sub-2")


def record_of(root, **changes):
    path = root / "logs" / "sub-1_inputs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def withdraw(root):
    record_of(
        root, scans=[], withdrawn=[{"name": "sub-1_T2starw", "reason": "the scan left the dataset"}]
    )


def fail(root):
    content = {"scan": "sub-1_T2starw", "step": "register", "message": 'no "way"\n\tto MNI'}
    (root / "logs" / "sub-1_T2starw_error.json").write_text(json.dumps(content))


def files_of(root, ending):
    return root / "sub-1" / "anat" / f"sub-1{ending}"


def lose_label_image(root):
    for ending in ("_seg-CMB_dseg.json", "_seg-CMB_dseg.nii.gz"):
        files_of(root, ending).unlink()
    table = files_of(root, "_seg-CMB_dseg.tsv")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))


def lose_sidecar_and_table(root):
    for ending in ("_seg-CMB_dseg.json", "_seg-CMB_dseg.tsv"):
        files_of(root, ending).unlink()


def lose_all_but_mask(root):
    for path in files_of(root, "").parent.iterdir():
        if path.name != "sub-1_label-CMB_mask.nii.gz":
            path.unlink()


def lose_preproc(root):
    files_of(root, "_desc-preproc_T2starw.json").unlink()


def damage_table(root):
    table = files_of(root, "_seg-CMB_dseg.tsv")
    table.write_text(table.read_text().replace("definite", "certain"))


def leave_no_result(root):
    shutil.rmtree(root / "sub-1")


def forget(root):
    # The last run planned nothing of the kind: no record refers to what is there.
    record_of(root, scans=[], withdrawn=[])


CHANGES = [
    (withdraw, "withdrawn (the scan left the dataset)"),
    (fail, "failed (no 'way' to MNI)"),
    (lose_label_image, "incomplete ("),
    (lose_sidecar_and_table, "incomplete ("),
    (lose_all_but_mask, "incomplete ("),
    (lose_preproc, "incomplete ("),
    (damage_table, "failed (the lesion table"),
    (leave_no_result, "incomplete ("),
    (forget, "incomplete ("),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_only_complete_scans_are_scored_and_others_named(folders, tmp_path, capsys, change, reason):
    out, truth = folders
    file, page = tmp_path / "e.json", tmp_path / "page"
    assert evaluate(out, truth, "--json", file) == 0
    content = json.loads(file.read_text())
    assert (content["counts"]["hits"], content["counts"]["misses"]) == (4, 0)
    assert {scan["note"] for scan in content["scans"]} == {None}
    change(out)
    capsys.readouterr()
    assert evaluate(out, truth, "--json", file, "--out", page) == 0
    content = json.loads(file.read_text())
    counts = content["counts"]
    assert (counts["hits"], counts["misses"], counts["predicted_lesions"]) == (2, 2, 2)
    assert counts["scans_without_prediction"] == 1
    first, second = content["scans"]
    assert (first["scan"], first["status"], first["counted"]) == ("sub-1", "no prediction", True)
    assert first["note"].startswith(f"without a result, {reason}")
    assert first["predicted_from"] is None and first["predicted"] == 0
    assert (second["status"], second["note"]) == ("evaluated", None)
    text = capsys.readouterr().out
    assert "With no prediction (counted as nothing found): sub-1" in text
    assert f"sub-1: without a result, {reason}" in text
    assert f"\twithout a result, {reason}" in (page / "scans.tsv").read_text()
    shown = (page / "evaluation.html").read_text().replace("&#39;", "'")
    assert f"without a result, {reason}" in shown

    assert evaluate(out, truth, "--json", file, "--missing", "leave-out") == 0
    content = json.loads(file.read_text())
    assert content["figures"]["sensitivity"]["value"] == 1
    assert content["scans"][0]["note"].startswith(f"without a result, {reason}")
    assert content["scans"][0]["counted"] is False


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_an_output_without_any_result_is_no_output_of_zeros(folders, change, reason):
    out, truth = folders
    shutil.rmtree(out / "sub-2")
    (out / "logs" / "sub-2_inputs.json").unlink()
    change(out)
    with pytest.raises(UsageError) as caught:
        evaluate(out, truth)
    assert f"sub-1: {reason}" in str(caught.value)


def test_a_pattern_does_not_bring_back_what_was_withdrawn(folders, tmp_path):
    out, truth = folders
    withdraw(out)
    file = tmp_path / "e.json"
    pattern = ("--prediction-pattern", "sub-?_label-CMB_mask.nii.gz")
    evaluate(out, truth, *pattern, "--json", file)
    first, second = json.loads(file.read_text())["scans"]
    assert first["note"] == "without a result, withdrawn (the scan left the dataset)"
    assert (second["status"], second["predicted_from"]) == ("evaluated", "mask")


def test_scans_of_the_records_without_truth_are_named(folders, tmp_path, capsys):
    out, truth = folders
    shutil.rmtree(truth / "sub-1")
    withdraw(out)
    file = tmp_path / "e.json"
    evaluate(out, truth, "--json", file, "--out", tmp_path / "page")
    content = json.loads(file.read_text())
    assert content["counts"]["scans"] == 1
    first = content["scans"][0]
    assert (first["scan"], first["status"], first["counted"]) == ("sub-1", "no result", False)
    assert first["note"] == "without a result, withdrawn (the scan left the dataset)"
    assert "With no result (not counted): sub-1" in capsys.readouterr().out
    dictionary = json.loads((tmp_path / "page" / "scans.json").read_text())
    assert "no result" in dictionary["status"]["Description"]
    evaluate(out, truth, "--participant-label", "2", "--json", file)
    assert [scan["scan"] for scan in json.loads(file.read_text())["scans"]] == ["sub-2"]


def test_a_refused_file_is_the_reason_for_a_truth_without_prediction(tmp_path, capsys):
    tree = Tree(tmp_path / "out")
    add(tree, "sub-1_swi")
    add(tree, "sub-2_T2starw")
    tree.refuse("3", "sub-3/anat/sub-3_T2starw.nii.gz", "it has two volumes")
    # A refused file beside a scan with a result is no reason for anything.
    tree.refuse("1", "sub-1/anat/sub-1_T2starw.nii.gz", "it is empty")
    truth = truth_of(tmp_path / "truth", "sub-1_acq-swi", "sub-2", "sub-3")
    evaluate(tree.finish(), truth, "--json", tmp_path / "e.json")
    scans = {s["scan"]: s for s in json.loads((tmp_path / "e.json").read_text())["scans"]}
    assert set(scans) == {"sub-1_acq-swi", "sub-2", "sub-3"}
    assert scans["sub-3"]["status"] == "no prediction"
    assert scans["sub-3"]["note"] == "without a result, refused (it has two volumes)"
    assert scans["sub-1_acq-swi"]["note"] is None


def test_another_scan_is_not_taken_for_one_that_failed(tmp_path):
    # The truth is of the T2starw by its name; the swi of the same person is another image.
    tree = Tree(tmp_path / "out")
    add(tree, "sub-1_swi", src="sub-1_acq-swi")
    add(tree, "sub-2_T2starw")
    tree.fail("sub-1_T2starw", "no memory")
    truth = truth_of(tmp_path / "truth", "sub-1", "sub-2")
    evaluate(tree.finish(), truth, "--json", tmp_path / "e.json")
    scans = {s["scan"]: s for s in json.loads((tmp_path / "e.json").read_text())["scans"]}
    assert scans["sub-1"]["status"] == "no prediction"
    assert scans["sub-1"]["note"] == "without a result, failed (no memory)"
    assert scans["sub-1_acq-swi"]["status"] == "no truth"


def test_a_superseded_result_is_listed_and_not_scored(tmp_path, capsys):
    # An earlier run called the outputs of the same scan otherwise, and found nothing.
    tree = Tree(tmp_path / "out")
    add(tree, "sub-1_swi", count=0, src="sub-1")
    add(tree, "sub-1_swi", src="sub-1_acq-swi")
    truth = truth_of(tmp_path / "truth", "sub-1")
    evaluate(tree.finish(), truth, "--json", tmp_path / "e.json")
    content = json.loads((tmp_path / "e.json").read_text())
    assert content["counts"]["hits"] == 2 and content["counts"]["scans"] == 1
    old, new = content["scans"]
    assert (old["scan"], old["status"], old["counted"]) == ("sub-1", "no result", False)
    assert old["note"].startswith("without a result, superseded (")
    assert (new["scan"], new["status"]) == ("sub-1_acq-swi", "evaluated")
    assert "With no result (not counted): sub-1" in capsys.readouterr().out


def test_a_truth_made_by_cmbprep_is_held_to_its_records(folders, tmp_path):
    out, truth = folders
    withdraw(out)
    evaluate(truth, out, "--json", tmp_path / "e.json")
    first, second = json.loads((tmp_path / "e.json").read_text())["scans"]
    assert (first["status"], first["counted"]) == ("no truth", False)
    assert first["note"] == "truth without a result, withdrawn (the scan left the dataset)"
    assert second["status"] == "evaluated"


@pytest.mark.parametrize("place", ["", "sub-1", "sub-1/anat", ".."])
def test_records_are_found_from_within_and_above(folders, tmp_path, place, monkeypatch):
    out, truth = folders
    shutil.move(truth, tmp_path.parent / f"{tmp_path.name}-truth")
    truth = tmp_path.parent / f"{tmp_path.name}-truth"
    withdraw(out)
    monkeypatch.chdir(out / place)
    if place.startswith("sub-1"):
        with pytest.raises(UsageError, match=r"withdrawn \(the scan left the dataset\)"):
            evaluate(".", truth)
        return
    evaluate(".", truth, "--json", tmp_path / "e.json")
    first, second = json.loads((tmp_path / "e.json").read_text())["scans"]
    assert "withdrawn" in first["note"] and second["status"] == "evaluated"


def test_what_an_output_of_cmbprep_is(tmp_path):
    description = tmp_path / "dataset_description.json"
    for makers, own in (
        ([{"Name": "cmbprep", "Version": "0"}], True),
        ([{"Name": "other"}, {"Name": "cmbprep"}], True),
        ([{"Name": "cmbprep-tools simulate"}], False),
        (7, False),
        (["cmbprep"], False),
    ):
        description.write_text(json.dumps({"Name": "x", "GeneratedBy": makers}))
        assert is_output(tmp_path) is own
        assert find_output(tmp_path / "sub-1" / "anat") == (tmp_path if own else None)
    # A dataset of another program inside an output is that program's.
    description.write_text(json.dumps({"GeneratedBy": [{"Name": "cmbprep"}]}))
    other = tmp_path / "derivatives" / "other"
    other.mkdir(parents=True)
    (other / "dataset_description.json").write_text("{}")
    assert find_output(other / "sub-1") is None
    # Records alone tell it too, where the description is lost.
    description.unlink()
    assert not is_output(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "sub-1_inputs.json").write_text("{}")
    assert is_output(tmp_path)
