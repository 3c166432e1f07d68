"""Single files of the output dataset: whole or not at all, and the same bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import CmbprepError
from cmbprep.outputs.files import (
    file_digest,
    read_json,
    write_atomically,
    write_image,
    write_json,
    write_text,
)


def test_files_are_on_the_disk_before_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    path = tmp_path / "a.json"

    def note(handle: int) -> None:
        assert os.fstat(handle).st_size > 0
        assert not path.exists()
        flushed.append(path)

    monkeypatch.setattr(os, "fsync", note)
    write_json(path, {"x": 1})
    assert flushed == [path]
    write_text(tmp_path / "b.txt", "x", flush=False)
    assert flushed == [path]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("old")

    def lose_power() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        lose_power()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"x": 1})
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.eye(4))
    first = write_image(tmp_path / "first.nii.gz", image)
    second = write_image(tmp_path / "second.nii.gz", image)
    assert file_digest(first) == file_digest(second)
    assert np.array_equal(np.asanyarray(nib.load(first).dataobj), image.get_fdata())


@pytest.mark.parametrize("content", ["[1]", "{", ""])
def test_what_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sidecar.json"
    path.write_text(content)
    with pytest.raises(CmbprepError, match=r"sidecar\.json"):
        read_json(path)
