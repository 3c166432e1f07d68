"""Checks of the folders that a run needs, before anything is written."""

from __future__ import annotations

import errno
import os
import tempfile
from functools import partial
from pathlib import Path

from cmbprep.errors import UsageError
from cmbprep.running.faults import explain


def resolve(path: Path) -> Path:
    """Follow the links of a path.

    Raises
    ------
    UsageError
        When its links go round in a circle, or a part of it cannot be looked into.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(
            "this path cannot be followed", path=path, hint="check its links and permissions"
        ) from error


def check_current_folder() -> None:
    """Refuse to run from a folder that was deleted.

    Raises
    ------
    UsageError
        When the current folder is gone.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(
            "the current folder was deleted", hint="change to a folder that exists and try again"
        ) from error


def check_outside(path: Path, raw: Path, *, what: str) -> None:
    """Refuse a folder among the raw data; its ``derivatives/`` is allowed.

    Parameters
    ----------
    path
        The folder.
    raw
        The raw dataset, without links.
    what
        What the folder is for: ``output`` or ``work``.

    Raises
    ------
    UsageError
        When the folder is the dataset, or lies inside it.
    """
    real = resolve(path)
    if real == raw:
        raise UsageError(
            f"the {what} folder is the raw dataset itself",
            path=path,
            hint="give another folder, for instance the dataset's derivatives/cmbprep",
        )
    if raw in real.parents and real.relative_to(raw).parts[0] != "derivatives":
        raise UsageError(
            f"the {what} folder lies inside the raw dataset",
            path=path,
            hint="give a folder outside it, or one in its derivatives/ folder",
        )


def check_folder(path: Path, *, hint: str) -> None:
    """Refuse a folder that cannot be made or written to. Nothing is left behind.

    Parameters
    ----------
    path
        The folder; it need not exist.
    hint
        What the person can do.

    Raises
    ------
    UsageError
        Naming the folder, or the nearest one above it that exists.
    """
    refuse = partial(UsageError, path=path, hint=hint)
    try:
        place = path
        while not place.exists():
            if place.is_symlink():
                raise UsageError("this link leads nowhere", path=place, hint=hint)
            place = place.parent
    except OSError as error:
        why = os.strerror(error.errno or errno.EIO)
        raise UsageError(f"this folder cannot be used ({why})", path=place, hint=hint) from error
    above = f"this folder cannot be made: {place} "
    if not place.is_dir():
        raise refuse("this is a file, not a folder" if place == path else f"{above}is a file")
    closed = refuse(
        "this folder cannot be written to" if place == path else f"{above}cannot be written to"
    )
    if not os.access(place, os.W_OK | os.X_OK):
        raise closed
    # Asking is not enough: root may write to /proc, says the system.
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(explain(error, [place])) from error
        raise closed from error


def check_temporary_folder() -> None:
    """Refuse a ``TMPDIR`` that cannot be written to.

    Raises
    ------
    UsageError
        When ``TMPDIR`` is unusable, or there is no folder for temporary files at all.
    """
    remedy = "set TMPDIR to a folder that can be written to"
    given = os.environ.get("TMPDIR")
    if given and not Path(given).is_dir():
        raise UsageError(
            "there is no such folder", path=given, hint="make it, or set TMPDIR to another one"
        )
    if given:
        check_folder(Path(given), hint=remedy)
        return
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise UsageError("there is no folder for temporary files", hint=remedy) from error
