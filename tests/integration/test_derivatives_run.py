"""A run on what another program has left of a participant: here, on what cmbprep itself has."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.cli.main import main
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.transforms import apply_transforms, read_transform
from cmbprep.templates import load_template
from cmbprep.zones.schemes import MARS, RIGHT_OFFSET, VENTRICLE_INDEX

pytestmark = pytest.mark.slow

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
