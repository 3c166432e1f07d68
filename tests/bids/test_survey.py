"""Odd datasets: whatever is wrong with one participant, the others go on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmbprep.bids import scans
from cmbprep.bids import units as inputs
from cmbprep.bids.index import FEW_PARTICIPANTS
from cmbprep.bids.model import Refusal, Unit
from cmbprep.bids.units import find_units
from cmbprep.errors import UsageError
from tests.bidsdata import make_dataset

T2 = "sub-{0}/anat/sub-{0}_T2starw.nii.gz"
T1 = "sub-{0}/anat/sub-{0}_T1w.nii.gz"
BAD = "03"


@pytest.fixture(params=[2, FEW_PARTICIPANTS + 2], ids=["few", "many"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a dataset of sound participants and sub-03, indexed one by one or together."""
    labels = [f"x{n:02}" for n in range(request.param)]
    return make_dataset(tmp_path, [T2.format(label) for label in (BAD, *labels)])


def check_others(units: list[Unit], size: int) -> Unit:
    """Return the unit of sub-03, after a check that all others are there."""
    others = [unit for unit in units if unit.subject != BAD]
    assert len(others) == size
    assert all(len(unit.scans) == 1 and not unit.refused for unit in others)
    (unit,) = [unit for unit in units if unit.subject == BAD]
    return unit


def size_of(root: Path) -> int:
    return len(list(root.glob("sub-x*")))


def refusal_of(root: Path) -> Refusal:
    unit = check_others(find_units(root), size_of(root))
    assert unit.scans == ()
    (refusal,) = unit.refused
    assert json.dumps([str(refusal.path), refusal.reason, refusal.hint]).encode("utf-8")
    return refusal


# --- what is in the place of an image --------------------------------------------------


def test_a_name_that_is_not_utf8_is_refused_by_name(root: Path) -> None:
    odd = os.fsdecode(b"sub-03_acq-\xff_T2starw.nii.gz")
    (root / "sub-03/anat" / odd).touch()
    unit = check_others(find_units(root), size_of(root))
    assert [scan.name for scan in unit.scans] == ["sub-03_T2starw"]
    (refusal,) = unit.refused
    assert refusal.path.name == r"sub-03_acq-\xff_T2starw.nii.gz"
    assert "not UTF-8" in refusal.reason


@pytest.mark.parametrize(
    "name", [b"\xff.txt", b"anat/sub-03_acq-\xff_FLAIR.nii.gz", b"\xff/anat/sub-03_T2starw.nii.gz"]
)
def test_other_names_that_are_not_utf8_change_nothing(root: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(root / "sub-03") + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    unit = check_others(find_units(root), size_of(root))
    assert [scan.name for scan in unit.scans] == ["sub-03_T2starw"]
    assert unit.refused == ()


def test_a_session_whose_name_is_not_utf8(root: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(root / "sub-03") + b"/ses-\xff/anat"))
    folder.mkdir(parents=True)
    (folder / "sub-03_ses-1_T2starw.nii.gz").touch()
    unit = check_others(find_units(root), size_of(root))
    assert [scan.name for scan in unit.scans] == ["sub-03_T2starw"]


def test_the_path_of_the_dataset_is_not_utf8(tmp_path: Path) -> None:
    root = make_dataset(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), [T2.format("01")])
    with pytest.raises(UsageError, match="not UTF-8") as e:
        find_units(root)
    assert str(e.value).encode("utf-8")
    (tmp_path / "plain").symlink_to(root)
    (unit,) = find_units(tmp_path / "plain")
    assert unit.scans


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "sub-03_T2starw.nii.gz").touch()


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_folder(path: Path) -> None:
    path.symlink_to("..")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


ODD = [
    (fifo, "pipe"),
    (folder, "folder"),
    (link_to_device, "device"),
    (link_to_folder, "folder"),
    (link_to_itself, "itself"),
]


@pytest.mark.parametrize(("make", "word"), ODD)
def test_what_is_no_file_is_refused_and_never_opened(root: Path, make: Any, word: str) -> None:
    path = root / T2.format(BAD)
    path.unlink()
    make(path)
    refusal = refusal_of(root)
    assert refusal.path == path
    assert word in refusal.reason


def test_a_socket_is_no_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / T2.format(BAD)
    path.unlink()
    monkeypatch.chdir(path.parent)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
        assert "socket" in refusal_of(root).reason


@pytest.mark.parametrize(("make", "word"), ODD)
def test_a_t1w_image_that_is_no_file_is_not_chosen(root: Path, make: Any, word: str) -> None:
    make(root / T1.format(BAD))
    unit = check_others(find_units(root), size_of(root))
    assert unit.anatomy is None
    assert unit.spare_anatomies == ()
    assert unit.refused == ()
    assert any(word in warning for warning in unit.scans[0].warnings)


def test_images_with_spaces_and_other_letters_are_found(root: Path) -> None:
    place = root / "sub-03/anat"
    (root / T2.format(BAD)).rename(place / "sub-03_acq-é x_T2starw.nii.gz")
    unit = check_others(find_units(root), size_of(root))
    assert [scan.source.name for scan in unit.scans] == ["sub-03_acq-é x_T2starw.nii.gz"]


# --- folders that cannot be read -------------------------------------------------------


def deny(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    scandir = os.scandir

    def guarded(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(os.fspath(path)) == denied:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


@pytest.mark.parametrize("name", ["sub-03", "sub-03/anat"])
def test_a_folder_without_permission_is_named(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(monkeypatch, root / name)
    # Where pybids cannot list a folder it says nothing, and there is no scan.
    refusal = refusal_of(root)
    assert refusal.path == root / name
    assert "Permission denied" in refusal.reason
    assert "permission" in refusal.hint


def test_a_session_without_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sub-03/ses-1/anat").mkdir(parents=True)
    deny(monkeypatch, root / "sub-03/ses-1")
    units = [unit for unit in find_units(root) if unit.subject == BAD]
    assert [unit.session for unit in units] == [None, "1"]
    assert units[0].scans
    assert "Permission denied" in units[1].refused[0].reason


# --- whatever else ---------------------------------------------------------------------


class OddError(Exception):
    """An error that nobody expects."""


@pytest.mark.parametrize(
    "error", [OddError("wild \udcff"), OSError(5, "I/O error"), RecursionError()]
)
def test_a_participant_that_cannot_be_indexed_stops_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import bids.layout.index as index

    original = index.BIDSLayoutIndexer._index_file

    def failing(self: Any, path: Any, entities: Any) -> Any:
        if "sub-03" in str(path):
            raise error
        return original(self, path, entities)

    monkeypatch.setattr(index.BIDSLayoutIndexer, "_index_file", failing)
    refusal = refusal_of(root)
    assert refusal.path == root / "sub-03"
    words = error.strerror if isinstance(error, OSError) else type(error).__name__
    assert words is not None
    assert words in refusal.reason
    (only,) = find_units(root, participants=[BAD])
    assert only.refused == (refusal,)


def test_a_participant_whose_scans_cannot_be_grouped_stops_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = scans.screen

    def failing(name: Any, *args: Any, **options: Any) -> Any:
        if name.entities["sub"] == BAD:
            raise OddError("here")
        return screen(name, *args, **options)

    monkeypatch.setattr(scans, "screen", failing)
    assert "OddError: here" in refusal_of(root).reason


def test_ctrl_c_is_not_caught(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Iterator[None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(inputs, "survey_participant", stop)
    with pytest.raises(KeyboardInterrupt):
        find_units(root)


def test_files_of_pybids_in_the_dataset_change_nothing(root: Path) -> None:
    for name in (
        "layout_config.json",
        "sub-03/layout_config.json",
        "sub-03/anat/layout_config.json",
    ):
        (root / name).write_text("[")
    unit = check_others(find_units(root), size_of(root))
    assert unit.scans
    assert unit.refused == ()
