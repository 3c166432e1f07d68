"""Links in datasets: scans, folders and participants keep the names that the dataset gives them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cmbprep.bids.index import FEW_PARTICIPANTS
from cmbprep.bids.model import Unit
from cmbprep.bids.units import find_units
from cmbprep.outputs.dataset import raw_uri
from tests.bidsdata import GRE_SIDECAR, make_dataset

T2 = "sub-{0}/anat/sub-{0}_T2starw.nii.gz"
T1 = "sub-{0}/anat/sub-{0}_T1w.nii.gz"


def names_in_outputs(root: Path, units: list[Unit]) -> list[str]:
    return [raw_uri(scan.source, raw=root.absolute()) for unit in units for scan in unit.scans]


def unit_of(root: Path, subject: str) -> Unit:
    (unit,) = [unit for unit in find_units(root) if unit.subject == subject]
    return unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a dataset with sub-01."""
    return make_dataset(tmp_path / "study", [T2.format("01")])


@pytest.fixture
def many(root: Path) -> Path:
    """Return a dataset with so many participants that pybids looks from its top."""
    return make_dataset(root, [T2.format(f"x{n}") for n in range(FEW_PARTICIPANTS)])


def link_image(root: Path) -> None:
    """A link as git-annex makes it."""
    key = root / ".git/annex/objects/k1/v9/MD5E-s1--0.nii.gz/MD5E-s1--0.nii.gz"
    key.parent.mkdir(parents=True)
    key.touch()
    folder = root / "sub-02/anat"
    folder.mkdir(parents=True)
    (folder / "sub-02_T2starw.nii.gz").symlink_to(os.path.relpath(key, folder))


def link_image_outside(root: Path) -> None:
    store = root.parent / "store"
    store.mkdir()
    (store / "scan0001.nii").touch()
    (root / "sub-02/anat").mkdir(parents=True)
    (root / T2.format("02")).symlink_to(store / "scan0001.nii")


def link_folder(root: Path) -> None:
    make_dataset(root.parent / "store", ["scans/sub-02_T2starw.nii.gz"])
    (root / "sub-02").mkdir()
    (root / "sub-02/anat").symlink_to("../../store/scans")


def link_participant(root: Path) -> None:
    make_dataset(root.parent / "store", ["P7/anat/sub-02_T2starw.nii.gz"])
    (root / "sub-02").symlink_to(root.parent / "store/P7")


def link_of_link(root: Path) -> None:
    link_participant(root)
    (root / "sub-02").rename(root / "real")
    (root / "sub-02").symlink_to("real")


@pytest.mark.parametrize(
    "link", [link_image, link_image_outside, link_folder, link_participant, link_of_link]
)
def test_sources_name_the_path_in_the_dataset(many: Path, link: object) -> None:
    assert callable(link)
    link(many)
    top = many.parent / "linked"
    top.symlink_to(many)
    uri = f"bids:raw:{T2.format('02')}"
    for place in (many, top):
        assert uri in names_in_outputs(place, find_units(place))
        assert names_in_outputs(place, find_units(place, participants=["02"])) == [uri]


def test_a_session_may_be_a_link(root: Path) -> None:
    make_dataset(root.parent / "store", ["visit/anat/sub-02_ses-b_T2starw.nii.gz"])
    (root / "sub-02").mkdir()
    (root / "sub-02/ses-b").symlink_to(root.parent / "store/visit")
    units = find_units(root, participants=["02"], sessions=["ses-b"])
    assert [unit.label for unit in units] == ["sub-02_ses-b"]
    assert names_in_outputs(root, units) == [
        "bids:raw:sub-02/ses-b/anat/sub-02_ses-b_T2starw.nii.gz"
    ]


def test_sidecars_are_read_through_links(root: Path) -> None:
    link_folder(root)
    (root / "sub-02/sub-02_T2starw.json").write_text('{"MagneticFieldStrength": 7}')
    (scan,) = unit_of(root, "02").scans
    assert scan.metadata["EchoTime"] == GRE_SIDECAR["EchoTime"]
    assert scan.metadata["MagneticFieldStrength"] == GRE_SIDECAR["MagneticFieldStrength"]


def test_content_that_was_not_fetched_stays_a_scan(root: Path) -> None:
    (root / "sub-02/anat").mkdir(parents=True)
    link = root / T2.format("02")
    link.symlink_to("../../.git/annex/objects/gone")
    (scan,) = unit_of(root, "02").scans
    assert scan.source == link


@pytest.mark.parametrize("size", ["root", "many"])
def test_links_that_lead_in_circles_end(size: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(size)
    (root / "sub-01/anat/up").symlink_to("..")
    (root / "sub-01/anat/sub-01_acq-up_T2starw.nii.gz").symlink_to("../..")
    (root / "sub-01/ses-1").symlink_to(".")
    (root / "sub-01/func").symlink_to("../..")
    (root / "sub-01/anat/sub-01_acq-self_T2starw.nii.gz").symlink_to(
        "sub-01_acq-self_T2starw.nii.gz"
    )
    units = [unit for unit in find_units(root) if unit.subject == "01"]
    assert names_in_outputs(root, units) == [f"bids:raw:{T2.format('01')}"]
    reasons = {
        refusal.path.relative_to(root / "sub-01").as_posix(): refusal.reason
        for unit in units
        for refusal in unit.refused
    }
    assert "folder" in reasons["anat/sub-01_acq-up_T2starw.nii.gz"]
    assert "itself" in reasons["anat/sub-01_acq-self_T2starw.nii.gz"]
    # The participant is no session of itself: its names lack the session.
    assert "another participant or session" in reasons["ses-1/anat/sub-01_T2starw.nii.gz"]


def test_a_folder_of_another_participant(root: Path) -> None:
    (root / "sub-02").mkdir()
    (root / "sub-02/anat").symlink_to("../sub-01/anat")
    (refusal,) = unit_of(root, "02").refused
    assert refusal.path == root / "sub-02/anat/sub-01_T2starw.nii.gz"
    assert "another participant" in refusal.reason
    assert "sub-02_T2starw.nii.gz" in refusal.hint
    assert unit_of(root, "01").scans


@pytest.mark.parametrize("folder", ["sub-02", "sub-02/anat", "sub-02/ses-1", "sub-02/ses-1/swi"])
@pytest.mark.parametrize("kind", ["missing", "loop", "file"])
def test_a_folder_that_is_not_there_is_named(root: Path, folder: str, kind: str) -> None:
    path = root / folder
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("../store")  # a link as some systems check it out
    else:
        path.symlink_to(path.name if kind == "loop" else "/nowhere/at/all")
    for asked in (None, ["02"]):
        units = find_units(root, participants=asked)
        (unit,) = [unit for unit in units if unit.subject == "02"]
        assert unit.scans == ()
        (refusal,) = unit.refused
        assert refusal.path == path
        words = {"missing": "is not there", "loop": "itself", "file": "not a folder"}
        assert words[kind] in refusal.reason
        assert any(unit.scans for unit in units) == (asked != ["02"])
    if "ses-1" in folder:
        (unit,) = find_units(root, participants=["02"], sessions=["1"])
        assert unit.refused == (refusal,)


def test_a_dataset_whose_store_is_gone(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    for label in ("01", "02"):
        (root / f"sub-{label}").symlink_to(f"/nowhere/{label}")
    from cmbprep.errors import UsageError

    with pytest.raises(UsageError, match=r"2 files were refused.*what it leads to is not there"):
        find_units(root)


@pytest.mark.parametrize(
    ("path", "raw", "name"),
    [
        ("/data/raw/sub-1/anat/x.nii", "/data/raw", "sub-1/anat/x.nii"),
        ("/data/a/../raw/sub-1/anat/x.nii", "/data/raw/", "sub-1/anat/x.nii"),
        ("/data/raw/sub-1/anat/x.nii", "/data/a/../raw", "sub-1/anat/x.nii"),
        # The dataset by another name, for instance in a container.
        ("/elsewhere/sub-1/ses-2/anat/x.nii", "/data/raw", "sub-1/ses-2/anat/x.nii"),
        ("/sub-9/raw/sub-1/anat/sub-1_x.nii", "/data/raw", "sub-1/anat/sub-1_x.nii"),
        ("/elsewhere/x.nii", "/data/raw", "x.nii"),
    ],
)
def test_names_of_raw_files_need_no_look_at_the_disk(path: str, raw: str, name: str) -> None:
    assert raw_uri(Path(path), raw=Path(raw)) == f"bids:raw:{name}"


def test_a_relative_path_and_a_resolved_one_have_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_dataset(tmp_path / "real", [T2.format("01")])
    (tmp_path / "raw").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    uri = f"bids:raw:{T2.format('01')}"
    assert raw_uri(root / T2.format("01"), raw=Path("raw")) == uri
    assert raw_uri(Path("raw") / T2.format("01"), raw=Path("raw")) == uri
