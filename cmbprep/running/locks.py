"""Locks on participants, so that two runs never work on the same results at the same time.

The kernel holds the locks (``flock``) and frees them when a process ends, however it ends. A lock
file is removed by its holder while it is still locked; who gets a lock looks whether the file is
still the one in the folder, so a removed file is never taken for a lock. A file left by a killed
process is harmless: the next run locks it anew.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from urllib.parse import quote

logger = logging.getLogger("cmbprep")

#: Errors of file systems that have no locks (some network and cluster file systems).
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
#: How often the folder of locks may vanish (another run tidies up) before that is an error.
_TRIES = 20
#: Seconds between two looks whether a lock is free.
WAIT_SECONDS = 2.0


class Lock(AbstractContextManager["Lock"]):
    """Locks that this process holds; a context manager that frees them.

    Attributes
    ----------
    files
        Path -> descriptor of each locked file. Empty where the file system has no locks.
    left
        Who on another machine has signed one of the files and not removed it: that process was
        killed, or the file system does not hand locks on to other machines. None for nobody.
    """

    def __init__(self) -> None:
        self.files: dict[Path, int] = {}
        self.left: str | None = None
        _HELD.add(self)

    def release(self) -> None:
        """Free the locks and remove their files; a second call does nothing."""
        while self.files:
            path, descriptor = self.files.popitem()
            # While it is locked: nobody else can have got this file since.
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
        _HELD.discard(self)

    def forget(self) -> None:
        """Close the files without freeing the locks, which the parent process holds."""
        while self.files:
            os.close(self.files.popitem()[1])

    def __exit__(self, *_: object) -> None:
        self.release()


_HELD: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_HELD):
        lock.forget()


# A forked worker shares its parent's descriptors, and would keep the locks alive after it.
os.register_at_fork(after_in_child=_forget_all)


def try_lock(folder: Path, labels: Sequence[str]) -> Lock | None:
    """Lock labels for this process, all of them or none; never wait.

    Parameters
    ----------
    folder
        Where the lock files lie; made if it is missing.
    labels
        What to lock, for instance ``sub-01_ses-a``.

    Returns
    -------
    Lock or None
        None if another process (or this one) holds one of them.

    Raises
    ------
    OSError
        When a lock file cannot be made.
    """
    taken = Lock()
    try:
        for label in sorted(set(labels)):
            path = _path(folder, label)
            descriptor = _try_file(path)
            if descriptor is None:
                taken.release()
                return None
            taken.files[path] = descriptor
            taken.left = taken.left or _other_host(descriptor)
            _sign(descriptor)
    except OSError as error:
        taken.release()
        if error.errno not in _WITHOUT_LOCKS:
            raise
        logger.debug("%s: this file system has no locks (%s); going on without", folder, error)
    return taken


def wait_for_lock(folder: Path, labels: Sequence[str], report: Callable[[str], None]) -> Lock:
    """Lock labels for this process; wait without a limit of time until all of them are free.

    Parameters
    ----------
    folder, labels
        As in :func:`try_lock`.
    report
        Called once, with the :func:`holder`, if there is something to wait for.
    """
    reported = False
    while (lock := try_lock(folder, labels)) is None:
        if not reported:
            report(holder(folder, labels))
            reported = True
        time.sleep(WAIT_SECONDS)
    return lock


def _try_file(path: Path) -> int | None:
    """Open and lock a file; return its descriptor, or None if it is locked already."""
    for _ in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the folder was removed meanwhile by a run that has ended
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_current(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by who held it before
    raise FileNotFoundError(errno.ENOENT, "the folder of locks is removed again and again", path)


def _is_current(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _other_host(descriptor: int) -> str | None:
    """Return who on another machine has signed a lock file; None for nobody."""
    try:
        content = json.loads(os.pread(descriptor, 1000, 0))
        return _signature(content) if content["host"] != socket.gethostname() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _signature(content: Mapping[str, object]) -> str:
    return f"process {content['pid']} on {content['host']} since {content['start']}"


def _sign(descriptor: int) -> None:
    """Write who holds the lock; without room on the disk it holds without a name."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    content = {"host": socket.gethostname(), "pid": os.getpid(), "start": now}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(content) + "\n").encode(), 0)


def holder(folder: Path, labels: Sequence[str]) -> str:
    """Return who holds the first of the labels that is locked.

    Returns
    -------
    str
        ``process 123 on HOST since TIME``, or ``another process`` if that is not known.
    """
    for label in sorted(set(labels)):
        path = _path(folder, label)
        try:
            with path.open(encoding="utf-8") as file:
                if not _is_locked(file.fileno()):
                    continue
                content = json.load(file)
            return _signature(content)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            break
    return "another process"


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _path(folder: Path, label: str) -> Path:
    """Return the file of a label; characters that a path gives a meaning to are escaped."""
    return folder / f"{quote(label, safe='')}.lock"
