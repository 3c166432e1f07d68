"""Failures of the machine in words: a full disk, too little memory, a folder without permission.

Nodes fail in processes of their own, of which only the text of a traceback comes back, so the
same words are found for an exception and for such a text.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cmbprep.errors import CmbprepError

MEMORY_HINT = (
    "run it again with a lower --nprocs, or give --mem the memory in GB that may be used; "
    "finished scans are kept"
)

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Part of a disk that is free again after a failed write, from which on it is not called full.
_ROOM_AGAIN = 0.2
#: Error number -> what to do about it.
_HINTS = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), "check the permissions of the file and its folder"
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "raise the number of open files (ulimit -n), or lower --nprocs",
    ),
    errno.EROFS: "the file system is read-only: mount it for writing, or give another folder",
    errno.EIO: "the disk or the network file system reports an error; run it again once it is "
    "sound, finished scans are kept",
    errno.ESTALE: "the network file system was mounted anew meanwhile; run it again, finished "
    "scans are kept",
    errno.EAGAIN: "the limit on processes (ulimit -u) is reached; run it again with a lower "
    "--nprocs",
    errno.ENAMETOOLONG: "shorten the path of the folder or the file",
}
#: Errors that can come from a file of the input, which is not there or may not be read.
_OF_INPUT = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}

# An exception's line in a traceback: its dotted name, a colon, the message. nipype wraps
# a node's traceback into one of its own, indented.
_EXCEPTION = re.compile(
    r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Failure))(?:: (.*))?$"
)
_ERRNO = re.compile(r"\[Errno (\d+)\] ([^:\n]*)(?:: (['\"])(.*?)\3)?(?=$|\s|,)", re.MULTILINE)
_FULL_WORDS = re.compile(r"No space left on device|Disk quota exceeded")
_MEMORY_WORDS = re.compile(
    r"^\s*(?:[\w.]*\.)?_?(?:Array)?MemoryError\b|\[Errno 12\]|std::bad_alloc|"
    r"Failed to allocate memory",
    re.MULTILINE,
)


class _SystemFault(NamedTuple):
    """An error number of the system, with the file that it came with."""

    number: int
    text: str = ""
    path: str | None = None


def explain(error: BaseException | str, folders: Sequence[Path] = ()) -> str:
    """Return what went wrong, with which file or disk, and what to do.

    Parameters
    ----------
    error
        An exception, or the text of a traceback.
    folders
        Folders that the program was writing to. The fullest of them is named when a disk is full
        and the error itself names no file.

    Returns
    -------
    str
        One line, or the message of a :class:`~cmbprep.errors.CmbprepError` as it is.
    """
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    faults = _system_faults(error, text)
    full = [fault for fault in faults if fault.number in _FULL]
    if full or _FULL_WORDS.search(text):
        return _explain_full_disk(full[0] if full else _SystemFault(errno.ENOSPC), folders)
    if isinstance(error, CmbprepError):
        return str(error)
    message = last_message(text)
    if _MEMORY_WORDS.search(text):
        return f"the memory ran out ({message}). What to do: {MEMORY_HINT}."
    if isinstance(error, RecursionError) or message.startswith("RecursionError"):
        return (
            f"a file is nested too deeply to be read ({message}). What to do: look for a JSON or "
            "YAML file with many brackets in each other."
        )
    if gone := _removed(faults, folders):
        return (
            f"{gone}: this was removed while the program used it. What to do: run it again, "
            "finished scans are kept."
        )
    if faults and (isinstance(error, OSError) or "[Errno " in message):
        return _explain_system(faults[-1])
    return message


def is_machine_fault(text: str, folders: Sequence[Path] = ()) -> bool:
    """Return whether the text of a traceback blames the machine: memory, disk or a lost process.

    Parameters
    ----------
    text
        The traceback.
    folders
        Folders that the program was writing to; a file that is missing there was removed.
    """
    if MEMORY_HINT in text or _MEMORY_WORDS.search(text) or _FULL_WORDS.search(text):
        return True
    faults = _system_faults(text, text)
    removed = _removed(faults, folders) is not None
    return removed or any(fault.number not in _OF_INPUT for fault in faults)


def _system_faults(error: BaseException | str, text: str) -> list[_SystemFault]:
    """Find error numbers of the system, in the order of the traceback."""
    found = [
        _SystemFault(int(n), words, path or None) for n, words, _, path in _ERRNO.findall(text)
    ]
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename2 or error.filename
        path = os.fsdecode(name) if isinstance(name, str | bytes) else None
        found.append(_SystemFault(error.errno, error.strerror or "", path))
    return found


def _explain_system(fault: _SystemFault) -> str:
    what = fault.text[:1].lower() + fault.text[1:] or os.strerror(fault.number)
    place = f"{fault.path}: " if fault.path else ""
    hint = _HINTS.get(fault.number)
    return f"{place}{what}." + (f" What to do: {hint}." if hint else "")


def _explain_full_disk(fault: _SystemFault, folders: Sequence[Path]) -> str:
    place = _full_folder(fault, folders)
    disk = place and f"the disk of {place} (mounted at {mount_point(place)})"
    room = place and _room(place)
    remedy = "free some space"
    if not disk:
        state = "a disk is full (no space left)"
    elif fault.number == errno.EDQUOT:
        state = f"the quota on {disk} is used up"
    elif not room:
        state = f"{disk} is full"
    elif room.files_free == 0 and room.files and room.free > 0:
        state = (
            f"{disk} has no room for more files (0 of {room.files} inodes free, "
            f"{_megabytes(room.free)} MB free)"
        )
        remedy = "remove files that are not needed"
    elif room.free > _ROOM_AGAIN * room.size:
        # What did not fit has been removed by now.
        state = f"{disk} ran full ({_megabytes(room.size)} MB in all)"
    else:
        state = f"{disk} is full ({_megabytes(room.free)} MB free of {_megabytes(room.size)})"
    return f"{state}. What to do: {remedy} and run it again; finished scans are kept."


class _Room(NamedTuple):
    """What is left on a disk, in bytes and in files (inodes)."""

    free: int
    size: int
    files_free: int
    files: int


def _room(folder: Path) -> _Room | None:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return None
    return _Room(
        stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize, stat.f_favail, stat.f_files
    )


def _full_folder(fault: _SystemFault, folders: Sequence[Path]) -> Path | None:
    """Return the folder whose disk is full: of the file that failed, else the fullest.

    What has failed is removed by now, so bytes are compared, not whether any are left.
    """
    if fault.path and Path(fault.path).is_absolute():
        return _existing(Path(fault.path).parent)
    candidates = [_existing(folder) for folder in (*folders, Path(tempfile.gettempdir()))]
    rooms = [(place, room) for place in candidates if (room := _room(place)) is not None]
    fullest = min(
        rooms,
        key=lambda found: (not (found[1].files and found[1].files_free == 0), found[1].free),
        default=(None, None),
    )
    return fullest[0]


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    while path != path.parent and not os.path.isdir(path):  # noqa: PTH112 - never raises
        path = path.parent
    return path


def mount_point(path: Path) -> Path:
    """Return the place where the file system of a path is mounted."""
    path = Path(os.path.realpath(path))
    while path != path.parent and not os.path.ismount(path):
        path = path.parent
    return path


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}" if size >= 1e7 or size == 0 else f"{size / 1e6:.1f}"


def _removed(faults: Sequence[_SystemFault], folders: Sequence[Path]) -> Path | None:
    """Return the folder of the program, or the file in one, that has gone."""
    for fault in faults:
        if fault.number != errno.ENOENT or not fault.path:
            continue
        around = [folder for folder in folders if Path(fault.path).is_relative_to(folder)]
        for folder in sorted(around):
            if not os.path.isdir(folder):  # noqa: PTH112 - never raises
                return folder
        if around:
            return Path(fault.path)
    return None


def last_message(text: str) -> str:
    """Return the message of the last exception in the text of a traceback."""
    found = [match for line in text.splitlines() if (match := _EXCEPTION.match(line))]
    if not found:
        return text.strip().rpartition("\n")[2] or "failed without a message"
    kind, message = found[-1].groups()
    if kind.startswith("cmbprep.errors."):
        return str(message)
    return f"{kind}: {message}" if message else str(kind)
