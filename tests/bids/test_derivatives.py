"""Results of other programs: what is found for whom, and what is said when nothing is."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.bids.derivatives import DerivativeFolder, parse_folders
from cmbprep.bids.model import Anatomy, GivenAnatomy, GivenFile, Unit
from cmbprep.bids.units import find_units
from cmbprep.errors import UsageError
from tests.bidsdata import add_image, make_dataset, save

TEMPLATE = "MNI152NLin2009cAsym"
SMALL = np.ones((20, 22, 18), np.uint8)
#: A T1w image's grid, which is not the scans' (2.5 mm, 24 x 28 x 20).
T1W = (np.ones((30, 32, 28), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))


def fmriprep(root: Path, stem: str = "sub-01", *, xfm: bool = True) -> Path:
    """Add what fMRIPrep writes for a T1w image."""
    subject, *rest = stem.split("_")
    sessions = [part for part in rest if part.startswith("ses-")]
    anat = root.joinpath(subject, *sessions, "anat")
    save(anat / f"{stem}_desc-preproc_T1w.nii.gz", *T1W)
    save(anat / f"{stem}_desc-brain_mask.nii.gz", *T1W, dtype=np.uint8)
    save(anat / f"{stem}_desc-aparcaseg_dseg.nii.gz", *T1W, dtype=np.int16)
    # Of no use: in another space.
    save(anat / f"{stem}_space-{TEMPLATE}_desc-preproc_T1w.nii.gz", *T1W)
    if xfm:
        for one, other in (("T1w", TEMPLATE), (TEMPLATE, "T1w")):
            (anat / f"{stem}_from-{one}_to-{other}_mode-image_xfm.h5").touch()
    return anat


def freesurfer(root: Path, name: str = "sub-01", *files: str) -> Path:
    mri = root / name / "mri"
    mri.mkdir(parents=True)
    for file in files or ("T1.mgz", "brainmask.mgz", "aparc+aseg.mgz", "orig.mgz"):
        nib.save(nib.MGHImage(SMALL, np.eye(4)), mri / file)
    return mri


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = make_dataset(tmp_path / "bids")
    add_image(root, "sub-01/anat/sub-01_T2starw.nii.gz")
    add_image(root, "sub-01/anat/sub-01_T1w.nii.gz")
    return root


def unit_of(bids: Path, *given: str) -> Unit:
    (unit,) = find_units(bids, derivatives=parse_folders(given))
    return unit


def given_of(unit: Unit) -> tuple[Anatomy, GivenAnatomy]:
    assert unit.anatomy is not None and unit.anatomy.given is not None
    return unit.anatomy, unit.anatomy.given


def name_of(file: GivenFile | None) -> str | None:
    return None if file is None else file.path.name


# --- the option --------------------------------------------------------------------------


def test_a_folder_is_named_or_goes_by_its_own_name(tmp_path: Path) -> None:
    for name in ("fs 7.4", "a=b"):
        (tmp_path / name).mkdir()
    assert parse_folders([f"fs={tmp_path / 'fs 7.4'}"]) == (
        DerivativeFolder("fs", tmp_path / "fs 7.4"),
    )
    assert [folder.name for folder in parse_folders([f"{tmp_path}/fs 7.4/"])] == ["fs7.4"]
    # An equals sign in a path is no separator of a name.
    assert parse_folders([f"{tmp_path}/a=b"])[0].path == tmp_path / "a=b"


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match=r"nowhere: there is no such folder.*--derivatives"):
        parse_folders([f"x={tmp_path}/nowhere"])
    with pytest.raises(UsageError, match="two derivatives go by the name a"):
        parse_folders([f"{tmp_path}/a", f"a={tmp_path}"])
    with pytest.raises(UsageError, match="'raw' cannot be the name"):
        parse_folders([f"raw={tmp_path}"])


# --- what is found -----------------------------------------------------------------------


def test_all_that_fmriprep_leaves_is_found(bids: Path, tmp_path: Path) -> None:
    anat = fmriprep(tmp_path / "fp")
    (anat / "sub-01_from-fsnative_to-T1w_mode-image_xfm.txt").touch()
    anatomy, given = given_of(unit_of(bids, f"fmriprep={tmp_path / 'fp'}"))
    assert anatomy.path == anat / "sub-01_desc-preproc_T1w.nii.gz"
    assert anatomy.name == "sub-01_T1w"
    assert {file.source for file in given.used.values()} == {"fmriprep"}
    assert set(given.used) == {"t1w", "brain_mask", "to_reference", "from_reference"}
    assert name_of(given.segmentation) == "sub-01_desc-aparcaseg_dseg.nii.gz"
    # Its own segmentation lies in the T1w image's space.
    assert given.from_fsnative is None


def test_one_transform_alone_is_of_no_use(bids: Path, tmp_path: Path) -> None:
    anat = fmriprep(tmp_path / "fp")
    (anat / f"sub-01_from-{TEMPLATE}_to-T1w_mode-image_xfm.h5").unlink()
    _, given = given_of(unit_of(bids, f"{tmp_path}/fp"))
    assert given.transforms is None and set(given.used) == {"t1w", "brain_mask"}


def test_all_that_freesurfer_leaves_is_found(bids: Path, tmp_path: Path) -> None:
    mri = freesurfer(tmp_path / "fs")
    anatomy, given = given_of(unit_of(bids, f"{tmp_path}/fs"))
    assert anatomy.path == mri / "T1.mgz"
    assert anatomy.stem == "sub-01"
    assert name_of(given.brain_mask) == "brainmask.mgz"
    assert name_of(given.segmentation) == "aparc+aseg.mgz"
    assert given.transforms is None


def test_fastsurfer_without_a_corrected_image_leaves_the_raw_one(
    bids: Path, tmp_path: Path
) -> None:
    freesurfer(tmp_path / "fs", "sub-01", "orig.mgz", "mask.mgz", "aparc.DKTatlas+aseg.deep.mgz")
    anatomy, given = given_of(unit_of(bids, f"{tmp_path}/fs"))
    assert anatomy.path == bids / "sub-01/anat/sub-01_T1w.nii.gz"
    assert given.t1w is None
    assert name_of(given.brain_mask) == "mask.mgz"
    assert name_of(given.segmentation) == "aparc.DKTatlas+aseg.deep.mgz"


@pytest.mark.parametrize("order", [("fp", "fs"), ("fs", "fp")])
def test_fmriprep_gives_the_image_and_freesurfer_what_it_lacks(
    bids: Path, tmp_path: Path, order: tuple[str, str]
) -> None:
    anat = fmriprep(tmp_path / "fp")
    (anat / "sub-01_desc-aparcaseg_dseg.nii.gz").unlink()
    (anat / "sub-01_from-fsnative_to-T1w_mode-image_xfm.txt").touch()
    freesurfer(tmp_path / "fs")
    _, given = given_of(unit_of(bids, *(f"{tmp_path}/{name}" for name in order)))
    assert name_of(given.t1w) == "sub-01_desc-preproc_T1w.nii.gz"
    assert name_of(given.brain_mask) == "sub-01_desc-brain_mask.nii.gz"
    assert given.segmentation == GivenFile("fs", tmp_path / "fs/sub-01/mri/aparc+aseg.mgz")
    # FreeSurfer's own space is not that of the T1w image.
    assert name_of(given.from_fsnative) == "sub-01_from-fsnative_to-T1w_mode-image_xfm.txt"


def test_a_person_without_a_raw_t1w_has_the_one_given(bids: Path, tmp_path: Path) -> None:
    (bids / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    fmriprep(tmp_path / "fp")
    assert given_of(unit_of(bids, f"{tmp_path}/fp"))[1].t1w is not None


def test_a_mask_of_the_raw_t1w_is_used_with_it(bids: Path, tmp_path: Path) -> None:
    mask = tmp_path / "masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    add_image(bids, "sub-01/anat/sub-01_T1w.nii.gz", np.ones((30, 30, 30), np.float32))
    save(mask, np.ones((30, 30, 30), np.uint8))
    unit = unit_of(bids, f"{tmp_path}/masks")
    anatomy, given = given_of(unit)
    assert given.used == {"brain_mask": GivenFile("masks", mask)}
    assert anatomy.path.parent.parent.parent == bids
    assert unit.scans[0].brain_mask is None


def test_a_mask_of_the_same_name_belongs_to_the_image_whose_grid_it_has(
    bids: Path, tmp_path: Path
) -> None:
    """The mask of ``sub-01_T2starw`` and that of ``sub-01_T1w`` have one name."""
    anat = fmriprep(tmp_path / "fp")
    mask = anat / "sub-01_desc-brain_mask.nii.gz"
    save(mask, np.ones((24, 28, 20), np.uint8))  # the scan's grid
    unit = unit_of(bids, f"{tmp_path}/fp")
    assert unit.scans[0].brain_mask == GivenFile("fp", mask)
    assert given_of(unit)[1].brain_mask is None


@pytest.mark.parametrize(("shift", "is_its"), [(0.004, True), (-0.04, True), (0.3, False)])
def test_a_mask_near_the_grid_of_its_scan_is_taken(
    bids: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, shift: float, is_its: bool
) -> None:
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    affine[1, 3] = shift
    mask = tmp_path / "masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    save(mask, np.ones((24, 28, 20), np.uint8), affine)
    (scan,) = unit_of(bids, f"{tmp_path}/masks").scans
    assert (scan.brain_mask is not None) is is_its
    said = "not quite on the grid" in caplog.text and "0.3 mm (0.12 voxels)" in caplog.text
    assert said is not is_its


@pytest.mark.parametrize(
    ("name", "is_its"),
    [
        ("sub-01_acq-fine_desc-brain_mask.nii.gz", True),
        ("sub-01_acq-fine_space-orig_desc-brain_mask.nii.gz", True),
        ("sub-01_acq-other_desc-brain_mask.nii.gz", False),
        ("sub-01_desc-brain_mask.nii.gz", False),
    ],
)
def test_the_mask_of_a_scan_goes_by_its_entities(
    bids: Path, tmp_path: Path, name: str, is_its: bool
) -> None:
    (bids / "sub-01/anat/sub-01_T2starw.nii.gz").unlink()
    add_image(bids, "sub-01/anat/sub-01_acq-fine_T2starw.nii.gz")
    save(tmp_path / "masks/sub-01/anat" / name, np.ones((24, 28, 20), np.uint8))
    (scan,) = unit_of(bids, f"{tmp_path}/masks").scans
    assert (name_of(scan.brain_mask) == name) is is_its


def test_a_segmentation_without_any_t1w_image_is_noted(bids: Path, tmp_path: Path) -> None:
    (bids / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    freesurfer(tmp_path / "fs", "sub-01", "orig.mgz", "mask.mgz", "aseg.mgz")
    unit = unit_of(bids, f"{tmp_path}/fs")
    assert unit.anatomy is None
    assert unit.scans[0].warnings == ("fs has no corrected T1w image, and there is no raw one",)


# --- sessions ----------------------------------------------------------------------------


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    root = make_dataset(tmp_path / "bids")
    for session in "abc":
        add_image(root, f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T2starw.nii.gz")
    return root


def chosen(visits: Path, folder: Path) -> list[str | None]:
    units = find_units(visits, derivatives=parse_folders([str(folder)]))
    return [given_of(unit)[0].entities.get("ses") for unit in units]


def test_each_session_has_its_own_anatomy_or_the_nearest(visits: Path, tmp_path: Path) -> None:
    fmriprep(tmp_path / "fp", "sub-01_ses-a")
    fmriprep(tmp_path / "fp", "sub-01_ses-c")
    assert chosen(visits, tmp_path / "fp") == ["a", "a", "c"]
    units = find_units(visits, derivatives=parse_folders([f"{tmp_path}/fp"]))
    noted = ["another session" in " ".join(unit.scans[0].warnings) for unit in units]
    assert noted == [False, True, False]


def test_a_raw_t1w_of_another_session_is_no_matter_where_one_is_given(
    visits: Path, tmp_path: Path
) -> None:
    add_image(visits, "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
    noted = [bool(unit.scans[0].warnings) for unit in find_units(visits)]
    assert noted == [False, True, True]
    freesurfer(tmp_path / "fs")
    units = find_units(visits, derivatives=parse_folders([f"{tmp_path}/fs"]))
    assert [unit.scans[0].warnings for unit in units] == [(), (), ()]


def test_an_anatomy_made_from_all_sessions_goes_before_that_of_another(
    visits: Path, tmp_path: Path
) -> None:
    freesurfer(tmp_path / "fs", "sub-01")
    freesurfer(tmp_path / "fs", "sub-01_ses-b")
    freesurfer(tmp_path / "fs", "sub-01_ses-b.long.sub-01")
    assert chosen(visits, tmp_path / "fs") == [None, "b", None]


def test_a_participant_whose_label_begins_alike_is_another(bids: Path, tmp_path: Path) -> None:
    freesurfer(tmp_path / "fs", "sub-012")
    unit = unit_of(bids, f"{tmp_path}/fs")
    assert unit.anatomy is not None and unit.anatomy.given is None


# --- nothing there -----------------------------------------------------------------------


def test_a_folder_without_participants_is_an_error(bids: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: the derivative empty holds no participants"):
        unit_of(bids, f"{tmp_path}/empty")


def test_a_participant_without_results_is_noted_and_goes_on(bids: Path, tmp_path: Path) -> None:
    fmriprep(tmp_path / "fp", "sub-02")
    unit = unit_of(bids, f"{tmp_path}/fp")
    assert unit.scans[0].warnings == ("fp has nothing for sub-01 that can be used",)
    assert unit.anatomy is not None and unit.anatomy.given is None


def test_a_damaged_mask_is_left_out(bids: Path, tmp_path: Path) -> None:
    anat = fmriprep(tmp_path / "fp")
    (anat / "sub-01_desc-brain_mask.nii.gz").write_bytes(b"no image")
    unit = unit_of(bids, f"{tmp_path}/fp")
    assert given_of(unit)[1].brain_mask is None


def test_without_the_option_nothing_changes(bids: Path) -> None:
    (unit,) = find_units(bids)
    assert unit.anatomy is not None and unit.anatomy.given is None
    assert unit.scans[0].brain_mask is None
