"""Logs of reviews: one append-only file for each scan, reader and round.

A line is one act, written by one call and flushed to the disk before the reader gets an answer. A
writer that is killed leaves at most a last line that is not whole; it is passed over by readers
and cut off by the next writer.

Each reader and round has files of its own, so that readers never share a file, on one machine or on
several. A log has one writer at a time: :func:`cmbprep.running.locks.try_lock` uses locks of the
kernel (``flock``), which NFS hands on to the server, and so to other machines, unless it was
mounted with local locks. Where a file system has no locks, or keeps them to a machine, the name of
the other machine in the lock file and the length of the log, looked at before each act, show that
another writer was there. Two such writers of the same reader and scan could still write in the same
instant: an act would then be lost or damaged, which the next reader of the log names.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.ratings.acts import Act, format_act, parse_act
from cmbprep.ratings.replay import standing_acts
from cmbprep.running.locks import Lock, holder, try_lock

logger = logging.getLogger("cmbprep")

#: Largest log that is read: a review of 300 candidates takes less than a megabyte.
MAX_LOG_BYTES = 256 * 2**20
#: Logs up to this size are kept in memory: the work list shows all of them again and again.
KEPT_LOG_BYTES = 2**20
_DESC = re.compile(r"reviewed([1-9][0-9]*)([a-z][a-z0-9]*)")
_NAME = re.compile(r"(?P<src>sub-[^/]+)_desc-(?P<label>reviewed[a-z0-9]+)_acts\.jsonl")
#: How the names of logs end.
LOG_ENDING = "_acts.jsonl"


class OpenElsewhereError(CmbprepError):
    """Another process writes this reader's log of the scan."""


class ForeignActsError(CmbprepError):
    """The log cannot be read or holds acts that do not belong to it; none of them is used."""


class ChangedElsewhereError(CmbprepError):
    """Another process has written to the log since it was read."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who reads, and in which round.

    Attributes
    ----------
    name
        As the reader writes it.
    round
        Counts from 1; a reader who reads the same scans again begins another round.
    """

    name: str
    round: int = 1

    def __post_init__(self) -> None:
        if not re.match(r"[a-z]", self.short):
            raise UsageError(
                f"the reader's name {self.name!r} does not begin with a Latin letter",
                hint="give a name that begins with one of the letters A to Z",
            )
        if len(self.short) > 60:
            raise UsageError("the name of the reader is longer than 60 letters", hint="shorten it")
        if not 1 <= self.round <= 999:
            raise UsageError(f"there is no round {self.round}", hint="rounds count from 1")

    @property
    def short(self) -> str:
        """Name in lower-case letters and digits, as file names have it."""
        plain = unicodedata.normalize("NFKD", self.name).encode("ascii", "ignore").decode()
        return re.sub(r"[^a-z0-9]", "", plain.lower())

    @property
    def label(self) -> str:
        """Value of the entity ``desc`` of the reader's files.

        Examples
        --------
        >>> Reader(name="Anna B.").label
        'reviewed1annab'
        """
        return f"reviewed{self.round}{self.short}"


def require_spelling(acts: Sequence[Act], reader: Reader) -> None:
    """Require that the acts of a log are of the reader whose name is written so.

    Raises
    ------
    UsageError
        If another name gives the same names of files.
    """
    if acts and acts[0].reader != reader.name:
        raise UsageError(
            f"the reader {acts[0].reader!r} has the same file names as {reader.name!r}",
            hint="use the same spelling, or another name",
        )


def require_own_names(folders: Iterable[tuple[Path, str]], reader: Reader) -> None:
    """Require that no log of any round is of another reader with the same names of files.

    Parameters
    ----------
    folders
        Folder of each scan's results, and what the names of its outputs start with.
    reader
        Who is to read.

    Raises
    ------
    UsageError
        If another name gives the same names of files.
    """
    for folder, src in folders:
        for path in sorted(folder.glob(f"{src}_desc-reviewed*{reader.short}_acts.jsonl")):
            name = _NAME.fullmatch(path.name)
            label = _DESC.fullmatch(name["label"]) if name and name["src"] == src else None
            if label is None or label[2] != reader.short:
                continue
            # A damaged log is explained where its scan is opened.
            with suppress(ForeignActsError):
                require_spelling(read_log(path), reader)


def log_path(folder: Path, src: str, reader: Reader) -> Path:
    """Return the path of a log.

    Parameters
    ----------
    folder
        Of the scan's results.
    src
        What the names of the scan's outputs start with.
    reader
        Reader and round.
    """
    return folder / f"{src}_desc-{reader.label}_acts.jsonl"


def find_logs(folder: Path, src: str) -> dict[Reader, list[Act]]:
    """Read all logs of a scan, by reader and round, in the order of their names.

    The name of the reader is that of the first act. A log with acts that do not belong to it is
    passed over with a warning.
    """
    found = {}
    for reader, acts, damage in scan_logs(folder, src):
        if damage is not None:
            logger.warning("%s", damage)
        elif acts:
            found[reader] = acts
    return found


def scan_logs(
    folder: Path, src: str
) -> Iterator[tuple[Reader, list[Act], ForeignActsError | None]]:
    """Yield reader, acts and damage of each log of a scan, in the order of their names.

    A damaged log has no acts, and its reader the name that the file has.
    """
    for path in sorted(folder.glob(f"{src}_desc-reviewed*_acts.jsonl")):
        name = _NAME.fullmatch(path.name)
        label = _DESC.fullmatch(name["label"]) if name and name["src"] == src else None
        if label is None:
            continue
        number = int(label[1])
        try:
            acts = read_log(path)
        except ForeignActsError as error:
            yield Reader(name=label[2], round=number), [], error
            continue
        yield Reader(name=acts[0].reader if acts else label[2], round=number), acts, None


def read_log(path: Path) -> list[Act]:
    """Read the acts of a log; empty where there is none.

    A line that is not an act is passed over with a warning, but for a last line without a line
    break: its writer was killed.

    A log that has not changed since it was read is not read again.

    Raises
    ------
    ForeignActsError
        If an act is of another scan, reader or round, or of another result than the others, or
        the file cannot be read.
    """
    try:
        state = path.stat()
    except OSError:
        state = None
    if state is None or state.st_size > KEPT_LOG_BYTES:
        return _parse(_read(path), path)
    marks = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return list(_read_once(path, marks))


@lru_cache(maxsize=2000)
def _read_once(path: Path, _marks: tuple[int, ...]) -> tuple[Act, ...]:
    return tuple(_parse(_read(path), path))


def _read(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > MAX_LOG_BYTES:
            raise ForeignActsError(
                f"this review is not used: its log {path.name} is larger than any review",
                path=path,
                hint="move it away and read the scan again",
            )
        return path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise ForeignActsError(
            f"this review is not used: its log {path.name} cannot be read ({error.strerror})",
            path=path,
            hint="give yourself the right to read it",
        ) from error


def _parse(content: bytes, path: Path) -> list[Act]:
    acts = []
    numbers = {}
    *lines, _torn = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            acts.append(act := parse_act(line.decode("utf-8")))
            numbers[id(act)] = number
        except (ValueError, RecursionError) as error:
            logger.warning("%s: line %d is not used: %s", path.name, number, error)
    for act in acts:
        reason = _foreign(act, acts[0], path)
        if reason is not None:
            raise _not_used(f"line {numbers[id(act)]} {reason}", path)
    standing = standing_acts(acts)[0]
    for act in standing:
        if act.based_on.digest != standing[0].based_on.digest:
            what = "was made on another automatic result than the lines before it"
            raise _not_used(f"line {numbers[id(act)]} {what}", path)
    return acts


def _foreign(act: Act, first: Act, path: Path) -> str | None:
    """Return why an act does not belong to a log; None where it does."""
    name = _NAME.fullmatch(path.name)
    label = _DESC.fullmatch(name["label"]) if name else None
    if name is None or label is None:
        return None
    if act.scan != name["src"]:
        return f"is of the scan {act.scan!r}"
    if act.round != int(label[1]):
        return f"is of round {act.round}"
    try:
        own = Reader(name=act.reader).short == label[2]
    except UsageError:
        own = False
    if not own or act.reader != first.reader:
        return f"is of the reader {act.reader!r}"
    return None


def _not_used(reason: str, path: Path) -> ForeignActsError:
    return ForeignActsError(
        f"this review is damaged and not used: {reason}",
        path=path,
        hint="take this line out of the log, or move the log away and read the scan again",
    )


class ReviewLog:
    """The log of one scan, reader and round, open for writing.

    Parameters
    ----------
    path
        The log; made with the first act.
    locks
        Folder of the lock files.

    Raises
    ------
    OpenElsewhereError
        If another process has the log open for writing.
    """

    def __init__(self, path: Path, locks: Path) -> None:
        self.path = path
        label = path.name.removesuffix(".jsonl")
        lock = try_lock(locks, [label])
        if lock is None:
            raise OpenElsewhereError(
                f"this scan is open elsewhere under the same name and round, by "
                f"{holder(locks, [label])}",
                hint="close it there, or read under another name or round",
            )
        self._lock: Lock = lock
        #: Who on another machine had the log open and did not close it; None for nobody.
        self.left_open: str | None = lock.left
        self.acts: list[Act] = []
        self._size = 0
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        content = _read(self.path)
        self.acts = _parse(content, self.path)
        self._size = content.rfind(b"\n") + 1
        if len(content) > self._size:
            os.truncate(self.path, self._size)

    def append(self, act: Act) -> None:
        """Write an act; it is on the disk when this returns.

        Raises
        ------
        ChangedElsewhereError
            If the file has changed since it was read; it is read again, and nothing is written.
        OSError
            If the act could not be written; the log is then as it was before.
        """
        line = format_act(act).encode("utf-8") + b"\n"
        new = not self.path.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(self.path, flags, 0o666)
        try:
            if os.fstat(descriptor).st_size != self._size:
                self._load()
                raise ChangedElsewhereError(
                    "this scan was changed elsewhere under the same name and round",
                    hint="look at the scan again and repeat the last step",
                )
            try:
                written = os.write(descriptor, line)
                if written != len(line):
                    # Part of a line is written where the disk or the quota ends.
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, self._size)
                raise
        finally:
            os.close(descriptor)
        if new:
            _flush_folder(self.path.parent)
        self._size += len(line)
        self.acts.append(act)

    def close(self) -> None:
        """Free the log for other processes."""
        self._lock.release()


def _flush_folder(folder: Path) -> None:
    """Bring the name of a new file to the disk, where the file system can do so for a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
