"""The main job from the command line to the tables, on a simulated participant."""

from __future__ import annotations

import csv
import json
import os
import re
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
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.transforms import apply_transforms, read_transform
from cmbprep.templates import load_template
from cmbprep.zones.schemes import MARS, RIGHT_OFFSET, VENTRICLE_INDEX
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
    assert int(rows[0]["n_any"]) == len(paramagnetic)


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
    assert main([str(simulated), str(out), "group"]) == 0
    assert digests(out) == digests(processed)
    assert not (out / ".work").exists()


# --- on results of another program: here, of cmbprep itself ----------------------------

#: Region of MARS -> label of FreeSurfer, left and right.
LABELS = {
    "frontal": (1028, 2028),
    "parietal": (1029, 2029),
    "temporal": (1030, 2030),
    "occipital": (1011, 2011),
    "insula": (1035, 2035),
    "basal ganglia": (12, 51),
    "thalamus": (10, 49),
    "internal capsule": (2, 41),
    "external capsule": (2, 41),
    "corpus callosum": (253, 253),
    "deep and periventricular white matter": (2, 41),
    "brainstem": (16, 16),
    "cerebellum": (8, 47),
}


@pytest.fixture(scope="module")
def given(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder as fMRIPrep leaves it, with a segmentation made from the zones' own atlas."""
    folder = tmp_path_factory.mktemp("derivatives") / "fmriprep"
    (source,) = processed.glob("sub-*/anat/*_desc-preproc_T1w.nii.gz")
    stem = source.name.removesuffix("_desc-preproc_T1w.nii.gz")
    anat = folder / source.parent.relative_to(processed)
    anat.mkdir(parents=True)
    shutil.copy(source, anat)
    for path in source.parent.glob(f"{stem}_from-*_mode-image_xfm.nii.gz"):
        shutil.copy(path, anat)
    to_template = read_transform(
        anat / f"{stem}_from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm.nii.gz"
    )
    atlas = nib.load(load_template().atlas("mars"))
    grid = image_grid(nib.load(source))
    zones = apply_transforms(atlas, grid, (to_template,), interpolation="nearest")
    table = np.zeros(256, np.int16)
    for index, name in enumerate(MARS.region_names, start=1):
        table[index], table[index + RIGHT_OFFSET] = LABELS[name]
    table[VENTRICLE_INDEX] = 4
    labels = table[np.asarray(zones.dataobj)]
    nib.save(nib.Nifti1Image(labels, grid.affine), anat / f"{stem}_desc-aparcaseg_dseg.nii.gz")
    brain = nib.Nifti1Image((labels > 0).astype(np.uint8), grid.affine)
    nib.save(brain, anat / f"{stem}_desc-brain_mask.nii.gz")
    return folder


def test_nothing_is_computed_twice_and_zones_are_the_persons(
    given: Path, simulated: Path, processed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--nprocs", "1", "--derivatives", f"fmriprep={given}"]
    assert main([str(simulated), str(out), "participant", *arguments]) == 0
    steps = capfd.readouterr().err
    assert "T1w: transforms given" in steps and "zones of the person" in steps
    assert not re.search("_T1w: .*(bias correction|registration)", steps)
    (sidecar,) = out.glob("sub-*/anat/*_seg-CMB_dseg.json")
    content = json.loads(sidecar.read_text("utf-8"))
    assert any(
        uri.startswith("bids:fmriprep:") and uri.endswith("_desc-aparcaseg_dseg.nii.gz")
        for uri in content["Sources"]
    )
    assert content["Cmbprep"]["Parameters"]["zones_from"] == "fmriprep"
    links = json.loads((out / "dataset_description.json").read_text("utf-8"))["DatasetLinks"]
    assert (out / links["fmriprep"]).resolve() == given.resolve()
    page = (out / f"{sidecar.parent.parent.name}.html").read_text("utf-8")
    assert "from the person" in page and "own segmentation (fmriprep)" in page
    # The same anatomy by another way: the zones agree but for the borders within white matter.
    (name,) = (path.name for path in processed.glob("sub-*/anat/*_atlas-MARS_dseg.nii.gz"))
    place = sidecar.parent.relative_to(out) / name
    one, other = (np.asarray(nib.load(root / place).dataobj) for root in (processed, out))
    zones = {region.index: region.zone for region in MARS.regions}
    table = np.array([str(zones.get(value)) for value in range(256)])
    both = (one > 0) & (other > 0)
    assert np.mean(table[one[both]] == table[other[both]]) > 0.93
    # The same names as without the option, and nothing left to do.
    theirs = {path.name for path in (processed / place).parent.iterdir()}
    assert {path.name for path in sidecar.parent.iterdir()} == theirs
    assert main([str(simulated), str(out), "participant", *arguments, "--dry-run"]) == 0
    assert "run " not in capfd.readouterr().out
