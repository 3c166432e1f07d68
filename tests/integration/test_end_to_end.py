"""The main job from the command line to the tables, on a simulated participant."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.cli.main import main
from cmbprep.lesions import read_lesions
from tests.integration.conftest import digests

pytestmark = pytest.mark.slow

OUTPUTS = """\
.bidsignore
atlas-MARS_dseg.tsv
dataset_description.json
group.html
group_cmb.json
group_cmb.tsv
group_lesions.json
group_lesions.tsv
"""


def test_every_promised_file_is_there(processed: Path, simulated: Path) -> None:
    (table,) = processed.glob("sub-*/anat/*_seg-CMB_dseg.tsv")
    stem = table.name.removesuffix("_seg-CMB_dseg.tsv")
    anat, found = table.parent, {path.name for path in table.parent.iterdir()}
    for ending in (
        "desc-preproc_T2starw",
        "desc-brain_mask",
        "desc-brainT1w_mask",
        "label-CMB_probseg",
        "label-CMB_mask",
        "seg-CMB_dseg",
        "atlas-MARS_dseg",
        "space-MNI152NLin2009cAsym_label-CMB_mask",
    ):
        assert {f"{stem}_{ending}.nii.gz", f"{stem}_{ending}.json"} <= found
    assert f"{stem}_from-T2starw_to-T1w_mode-image_xfm.txt" in found
    assert f"{stem}_from-T1w_to-T2starw_mode-image_xfm.txt" in found
    assert any("from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm" in name for name in found)
    assert any("from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm" in name for name in found)
    for name in OUTPUTS.split():
        assert (processed / name).is_file(), name
    subject = anat.parent.name
    assert (processed / f"{subject}.html").is_file()
    assert not (processed / ".work").exists()
    raw = nib.load(next(simulated.glob(f"{subject}/anat/*_T2starw.nii.gz")))
    for path in anat.glob(f"{stem}_*dseg.nii.gz"):
        image = nib.load(path)
        assert image.shape == raw.shape
        assert np.allclose(image.affine, raw.affine, atol=1e-4)


def test_the_output_is_valid_bids(processed: Path) -> None:
    check_bids(processed)


def test_the_simulated_dataset_is_valid_bids(simulated: Path) -> None:
    check_bids(simulated)


def check_bids(root: Path) -> None:
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    run = subprocess.run(
        [validator, "--format", "json", str(root)], capture_output=True, text=True, check=False
    )
    report = json.loads(run.stdout)
    errors = [i for i in report["issues"]["issues"] if i["severity"] == "error"]
    assert errors == []


def test_tables_and_images_say_the_same(processed: Path) -> None:
    (table,) = processed.glob("sub-*/anat/*_seg-CMB_dseg.tsv")
    lesions = read_lesions(table)
    dseg = nib.load(str(table).replace(".tsv", ".nii.gz"))
    labels = np.asarray(dseg.dataobj)
    assert sorted(set(np.unique(labels)) - {0}) == [lesion.index for lesion in lesions]
    for lesion in lesions:
        voxel = np.linalg.inv(dseg.affine) @ [*lesion.centre, 1]
        nearest = np.argwhere(labels == lesion.index) - voxel[:3]
        assert np.linalg.norm(nearest * dseg.header.get_zooms(), axis=1).min() < 4
    rows = list(csv.DictReader((processed / "group_cmb.tsv").open(), delimiter="\t"))
    paramagnetic = [lesion for lesion in lesions if lesion.susceptibility != "diamagnetic"]
    assert len(rows) == 1
    assert int(rows[0]["n_total"]) == len(paramagnetic)


def test_large_implanted_bleeds_are_found_where_they_were_put(
    processed: Path, simulated: Path
) -> None:
    (table,) = processed.glob("sub-*/anat/*_seg-CMB_dseg.tsv")
    truth = simulated / "derivatives" / "truth" / table.relative_to(processed)
    found = np.array([lesion.centre for lesion in read_lesions(table)]).reshape(-1, 3)
    wanted = [lesion.centre for lesion in read_lesions(truth) if lesion.diameter_mm >= 3]
    assert wanted, "choose a seed that has bleeds"
    hits = [bool((np.linalg.norm(found - centre, axis=1) < 5).any()) for centre in wanted]
    assert np.mean(hits) >= 0.5


def test_a_second_run_changes_nothing(processed: Path, simulated: Path) -> None:
    before = digests(processed)
    stamps = {path: path.stat().st_mtime_ns for path in processed.glob("sub-*/anat/*.nii.gz")}
    assert len(stamps) == 11
    assert main([str(simulated), str(processed), "participant", "--nprocs", "1"]) == 0
    assert main([str(simulated), str(processed), "group"]) == 0
    assert digests(processed) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_dry_run_writes_nothing(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(simulated), str(tmp_path / "out"), "participant", "--dry-run"]) == 0
    assert "run lesions" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cmbprep", *arguments],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def test_a_killed_run_ends_with_the_same_bytes_as_an_unbroken_one(
    processed: Path, simulated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [str(simulated), str(out), "participant", "--nprocs", "2"]
    process = start(arguments)
    # Kill it when the first stage is being written, wherever the rest is by then.
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if any(out.glob("sub-*/anat/*")):
            break
        time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(out.glob("*.html"))
    assert main(arguments) == 0
    group = {name for name in digests(processed) if "group" in name or "frequency" in name}
    unbroken = {name: d for name, d in digests(processed).items() if name not in group}
    assert digests(out) == unbroken
    assert not (out / ".work").exists()
