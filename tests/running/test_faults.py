"""Failures of the machine: which words they get."""

from __future__ import annotations

import errno
import os
import subprocess
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest

from cmbprep.errors import ScanError
from cmbprep.running.faults import explain, is_machine_fault, mount_point


def text_of(error: BaseException) -> str:
    """The traceback of an error, as it comes back from a process."""
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001 - any
        return traceback.format_exc() if raised is error else ""


def both(error: BaseException) -> list[BaseException | str]:
    return [error, text_of(error)]


def a_disk(free: float) -> SimpleNamespace:
    """What the system says of a disk of 5,000 MB, of which a part is free."""
    blocks = 5_000_000
    return SimpleNamespace(
        f_frsize=1000, f_blocks=blocks, f_bavail=int(free * blocks), f_files=1000, f_favail=500
    )


@pytest.mark.parametrize(
    ("free", "state"),
    [
        (0.0, "is full (0 MB free of 5000)"),
        (0.001, "is full (5.0 MB free of 5000)"),
        (0.19, "is full (950 MB free of 5000)"),
        # Room again, as after a write that has failed.
        (0.21, "ran full (5000 MB in all)"),
        (0.9, "ran full (5000 MB in all)"),
    ],
)
def test_a_full_disk_is_named_with_its_mount_point_and_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: a_disk(free))
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a" / "image.nii.gz"))
    for given in both(error):
        said = explain(given, [Path("/")])
        disk = f"the disk of {tmp_path} (mounted at {mount_point(tmp_path)})"
        assert said.startswith(f"{disk} {state}. What to do: free some space and run it again")
        assert "finished scans are kept" in said


def test_a_full_disk_is_found_behind_other_errors(tmp_path: Path) -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file", "result.pklz")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    for given in (error, "".join(traceback.format_exception(error))):
        assert explain(given, [tmp_path]).startswith("the disk of ")


def test_a_quota_is_told_from_a_full_disk(tmp_path: Path) -> None:
    for given in both(OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "x"))):
        assert explain(given).startswith(f"the quota on the disk of {tmp_path} ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_fullest_disk_is_named_where_the_error_names_none(
    small_disk: Path, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        (small_disk / "x").write_bytes(bytes(1 << 20))
    said = explain(caught.value, [tmp_path, small_disk / "work" / "deep"])
    assert said.startswith(f"the disk of {small_disk} (mounted at {small_disk}) is full (0 MB free")


def test_a_disk_is_named_that_has_room_again(small_disk: Path, tmp_path: Path) -> None:
    """What could not be written whole is removed before anybody asks."""
    said = explain("OSError: [Errno 28] No space left on device", [tmp_path, small_disk])
    assert said.startswith(f"the disk of {small_disk} ")


def test_a_disk_without_room_for_files_is_told_from_a_full_one(small_disk: Path) -> None:
    def fill() -> None:
        for number in range(20):
            (small_disk / f"{number}").touch()

    with pytest.raises(OSError, match="No space") as caught:
        fill()
    said = explain(caught.value, [small_disk])
    assert "has no room for more files (0 of 8 inodes free" in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8.00 TiB for an array"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_too_little_memory_has_a_remedy(error: BaseException) -> None:
    for given in both(error):
        assert "the memory ran out" in explain(given)
        assert "--nprocs" in explain(given)
        assert "--mem" in explain(given)


def test_numpy_and_bare_memory_errors_are_known() -> None:
    text = "Traceback:\nnumpy._core._exceptions._ArrayMemoryError: Unable to allocate 3 GiB"
    for given in (text, "Traceback:\nMemoryError", MemoryError()):
        assert "the memory ran out" in explain(given)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "permissions"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "disk"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EAGAIN, "--nprocs"),
    ],
)
def test_other_errors_of_the_system_name_file_and_remedy(number: int, words: str) -> None:
    for given in both(OSError(number, os.strerror(number), "/data/sub-01/a b.json")):
        said = explain(given)
        assert said.startswith("/data/sub-01/a b.json: ")
        assert words in said.partition("What to do: ")[2]
        assert "Errno" not in said


def test_a_work_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "work"
    for given in both(FileNotFoundError(errno.ENOENT, "No such file", str(gone / "n" / "r.pklz"))):
        assert explain(given, [tmp_path, gone]).startswith(f"{gone}: this was removed")
        # The folder of the program is there, but not its file.
        assert explain(given, [tmp_path]).startswith(f"{gone}/n/r.pklz: this was removed")
        assert "removed" not in explain(given, [Path("/elsewhere")])


def test_errors_of_our_own_keep_their_words() -> None:
    error = ScanError("all voxels are zero", path="a.nii.gz", hint="export it again")
    said = "a.nii.gz: all voxels are zero. What to do: export it again."
    assert explain(error) == said
    # The qualified name as a traceback has it.
    assert explain(f"Traceback:\ncmbprep.errors.ScanError: {said}\n") == said


def test_unknown_errors_keep_their_kind() -> None:
    for given in both(ZeroDivisionError("by zero")):
        assert explain(given) == "ZeroDivisionError: by zero"
    for given in both(RecursionError("maximum recursion depth exceeded")):
        assert "nested too deeply" in explain(given)
    assert explain("") == "failed without a message"


def test_names_that_are_bytes_or_numbers_are_no_trouble() -> None:
    assert "x.nii" in explain(OSError(errno.EACCES, "Permission denied", b"x.nii"))
    assert explain(OSError(errno.EACCES, "Permission denied", 3)).startswith("permission denied")
    assert explain(OSError("said without a number")) == "OSError: said without a number"


def test_a_file_that_was_removed_from_a_folder_of_the_run_is_no_fault_of_the_input(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    gone = f"FileNotFoundError: [Errno 2] No such file or directory: '{work}/node/result.pklz'"
    assert is_machine_fault(gone, [work])
    assert not is_machine_fault(gone, [tmp_path / "elsewhere"])
    assert explain(gone, [work]).startswith(f"{work}/node/result.pklz: this was removed while")
    work.rmdir()
    assert explain(gone, [work]).startswith(f"{work}: this was removed while")
