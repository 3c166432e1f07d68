"""The script that lays out public sets, on miniatures in their authors' layout."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from cmbprep.lab.cli import build_parser
from cmbprep.lab.evaluate.command import run

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "validation" / "lay_out.py"
AFFINE = np.array([[-0.9, 0, 0, 20], [0, -0.9, 0, 20], [0, 0, 1.8, -10], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def lay_out():
    spec = importlib.util.spec_from_file_location("lay_out", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def image(path, *dark, nan=False):
    """A bright noisy block with dark voxels at the places given (counted from 0)."""
    data = np.random.default_rng(1).normal(100, 3, (40, 40, 20)).astype(np.float32)
    for place in dark:
        data[place] = 10
    if nan:
        data[0, 0, 0] = np.nan
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)


def perfect(truth, predicted):
    """Evaluate a truth against tables written by hand; give the figures."""
    parser = build_parser()
    file = predicted / "e.json"
    arguments = [
        str(predicted),
        str(truth),
        "--json",
        str(file),
        "--distance",
        "0.1",
        "--bootstrap",
        "0",
    ]
    run(parser.parse_args(["evaluate", *arguments]))
    return {k: v["value"] for k, v in json.loads(file.read_text())["figures"].items()}


def predict(path, *voxels):
    """A prediction at voxels counted from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points = [nib.affines.apply_affine(AFFINE, voxel) for voxel in voxels]
    lines = ["x\ty\tz"] + ["\t".join(f"{value:.3f}" for value in point) for point in points]
    path.write_text("\n".join(lines) + "\n")


def test_valdo(lay_out, tmp_path):
    source = tmp_path / "Task2"
    for name in ("sub-101", "sub-205"):
        for kind in ("T1", "T2", "T2S"):
            image(source / name / f"{name}_space-T2S_desc-masked_{kind}.nii.gz", nan=True)
        mask = np.zeros((40, 40, 20), np.float32)
        if name == "sub-101":
            mask[9:12, 9:12, 5] = 1
        nib.save(nib.Nifti1Image(mask, AFFINE), source / name / f"{name}_space-T2S_CMB.nii.gz")
    dest = tmp_path / "bids"
    assert lay_out(["valdo", str(source), str(dest)]) == 0
    assert (dest / "participants.tsv").read_text() == (
        "participant_id\tsite\nsub-101\tSABRE\nsub-205\tRSS\n"
    )
    scan = nib.load(dest / "sub-101" / "anat" / "sub-101_T2starw.nii.gz")
    assert np.isfinite(scan.get_fdata()).all()
    predict(tmp_path / "out" / "sub-101_seg-CMB_dseg.tsv", (10, 10, 5))
    predict(tmp_path / "out" / "sub-205_seg-CMB_dseg.tsv")
    figures = perfect(dest / "derivatives" / "truth", tmp_path / "out")
    assert (figures["sensitivity"], figures["precision"]) == (1, 1)


def test_dou(lay_out, tmp_path, capsys):
    source = tmp_path / "cmb-3dcnn-data"
    image(source / "nii" / "01.nii", (10, 12, 5), (30, 12, 7))
    image(source / "nii" / "02.nii")
    (source / "ground_truth").mkdir()
    savemat(source / "ground_truth" / "01.mat", {"cen": np.array([[11, 13, 6], [31, 13, 8]])})
    savemat(source / "ground_truth" / "02.mat", {"cen": np.empty((0, 3))})
    dest = tmp_path / "bids"
    assert lay_out(["dou", str(source), str(dest)]) == 0
    # The points were counted from 1: there the image is dark.
    text = capsys.readouterr().out
    zero, one = (float(text.split(f" counting from {i}")[0].split()[-1]) for i in (0, 1))
    assert one > zero + 3
    predict(tmp_path / "out" / "sub-01_seg-CMB_dseg.tsv", (10, 12, 5), (30, 12, 7))
    predict(tmp_path / "out" / "sub-02_seg-CMB_dseg.tsv", (20, 20, 10))
    figures = perfect(dest / "derivatives" / "truth", tmp_path / "out")
    assert figures["sensitivity"] == 1
    assert figures["fp_per_scan_without_lesions"] == 1


def test_momeni(lay_out, tmp_path, capsys):
    top = tmp_path / "data" / "PublicDataShare_2020"
    image(top / "rCMB_DefiniteSubject" / "122_T1_swi.nii.gz", (10, 12, 5))
    image(top / "rCMB_DefiniteSubject" / "122_T2_swi.nii.gz", (10, 12, 5), (20, 12, 5))
    image(top / "NoCMBSubject" / "130_T1_swi.nii.gz")
    (top / "rCMBInformationInfo.csv").write_text(
        "NIFTI File Name,x,y,z,x,y,z\n"
        "122_T1_swi.nii.gz,11,13,6,,,\n"
        "122_T2_swi.nii.gz,11,13,6,21,13,6\n"
    )
    dest = tmp_path / "bids"
    assert lay_out(["momeni", str(tmp_path), str(dest)]) == 0
    scans = sorted(p.relative_to(dest).as_posix() for p in dest.rglob("*_swi.nii.gz"))
    assert scans == [
        "sub-122/ses-T1/anat/sub-122_ses-T1_swi.nii.gz",
        "sub-122/ses-T2/anat/sub-122_ses-T2_swi.nii.gz",
        "sub-130/ses-T1/anat/sub-130_ses-T1_swi.nii.gz",
    ]
    predict(tmp_path / "out" / "sub-122_ses-T1_seg-CMB_dseg.tsv", (10, 12, 5))
    predict(tmp_path / "out" / "sub-122_ses-T2_seg-CMB_dseg.tsv", (20, 12, 5))
    predict(tmp_path / "out" / "sub-130_ses-T1_seg-CMB_dseg.tsv")
    figures = perfect(dest / "derivatives" / "truth", tmp_path / "out")
    assert figures["sensitivity"] == pytest.approx(2 / 3)
    assert figures["precision"] == 1


def test_wrong_source(lay_out, tmp_path, capsys):
    with pytest.raises(SystemExit):
        lay_out(["valdo", str(tmp_path), str(tmp_path / "bids")])
    assert "no scan of the valdo set" in capsys.readouterr().err
