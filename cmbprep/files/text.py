"""Text files from elsewhere: JSON objects and tab-separated tables that may not be clean.

Sidecars, descriptions and tables come from converters, spreadsheets and editors. They are read
as far as there is only one sensible reading, and every correction is named in a warning.
Nothing but a regular file is ever opened: a FIFO would be waited for without end.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError
from cmbprep.files.json_text import (
    MAX_DEPTH,
    count_levels,
    json_safe,
    parse_json,
    repair_json,
    replace_unsafe,
    valid_text,
)

__all__ = [
    "MAX_JSON_BYTES",
    "MAX_TABLE_BYTES",
    "ReadObject",
    "Table",
    "json_safe",
    "read_bytes",
    "read_object",
    "read_table",
]

#: Largest JSON file and largest table that are read: many times what BIDS files need.
MAX_JSON_BYTES = 16 * 2**20
MAX_TABLE_BYTES = 64 * 2**20

MISSING = "n/a"

_FETCH = "fetch its content: datalad get, git annex get, or git lfs pull"
_UTF8 = "save it as UTF-8 text"


@dataclass(frozen=True)
class ReadObject:
    """Content of a JSON file.

    Parameters
    ----------
    content
        Keys and values. A value that JSON cannot hold (NaN, an infinity, a number beyond
        double precision) is None.
    warnings
        Sentences on what was corrected or left out; each names the file.
    dropped
        Keys of the values that are None for that reason, as ``key.key[position]``.
    """

    content: dict[str, Any]
    warnings: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Content of a tab-separated table.

    Parameters
    ----------
    columns
        Names of the columns, each once.
    rows
        Column -> cell, as text without surrounding blanks; ``n/a`` where a row ends early.
    warnings
        Sentences on what was corrected or left out; each names the file.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    warnings: tuple[str, ...] = ()


# --- bytes -----------------------------------------------------------------------------


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a regular file after checking what it is.

    Parameters
    ----------
    path
        The file; links are followed.
    limit
        Largest size in bytes.

    Raises
    ------
    CmbprepError
        If there is no such file, if it is not a regular file, if its content was not
        fetched (a dangling link, or a pointer file of git-annex or Git LFS), if it is larger
        than the limit, or if it cannot be read.
    """
    path = Path(path)
    try:
        found = path.stat()
    except OSError as error:
        raise _unreachable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise CmbprepError(
            f"it is {_kind(found.st_mode)}, not a file",
            path=path,
            hint="remove or rename it, or put the file in its place",
        )
    if found.st_size > limit:
        raise _too_large(path, found.st_size, limit)
    try:
        with open(path, "rb") as stream:
            # One byte more, to notice a file that grows; room for the limit is not taken.
            data = stream.read(found.st_size + 1)
    except OSError as error:
        raise _unreachable(path, error) from error
    if len(data) > limit:
        raise _too_large(path, len(data), limit)
    if _is_pointer(data):
        raise CmbprepError(
            "its content was not fetched: this is a pointer file of git-annex or Git LFS",
            path=path,
            hint=_FETCH,
        )
    return data


def _unreachable(path: Path, error: OSError) -> CmbprepError:
    if isinstance(error, FileNotFoundError):
        if not path.is_symlink():
            return CmbprepError("there is no such file", path=path, hint="check the path")
        if "annex" in os.fspath(path.readlink()):
            return CmbprepError(
                "its content was not fetched: it is a link of git-annex without target",
                path=path,
                hint=_FETCH,
            )
        return CmbprepError(
            "it is a link to a file that does not exist",
            path=path,
            hint=f"restore the file that it points to, or {_FETCH}",
        )
    if isinstance(error, PermissionError):
        return CmbprepError(
            "its permissions do not allow reading it",
            path=path,
            hint="make it readable (chmod), or ask its owner",
        )
    reason = error.strerror or type(error).__name__
    return CmbprepError(f"it cannot be read ({reason})", path=path, hint="check the disk")


def _kind(mode: int) -> str:
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe (FIFO)"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for test, name in kinds if test(mode)), "a device")


def _too_large(path: Path, size: int, limit: int) -> CmbprepError:
    return CmbprepError(
        f"it is too large for such a file ({size / 2**20:.0f} MB; at most {limit / 2**20:.0f} MB)",
        path=path,
        hint="check that it is the right file, and shorten it",
    )


_POINTERS = (b"version https://git-lfs", b"version https://hawser", b"/annex/objects/")


def _is_pointer(data: bytes) -> bool:
    return data.startswith(_POINTERS)


# --- text ------------------------------------------------------------------------------

_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "it starts with a byte order mark"),
    (codecs.BOM_UTF32_LE, "utf-32", "it is UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "it is UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "it is UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "it is UTF-16"),
)


def _decode(data: bytes, path: Path, *, strict: bool) -> tuple[str, list[str]]:
    """Decode the bytes of a file; return its text and what is unusual about the encoding."""
    if not data.strip(b" \t\r\n\0"):
        raise CmbprepError("it is empty", path=path, hint="restore it, or write it again")
    for mark, encoding, note in _MARKS:
        if data.startswith(mark):
            try:
                text = data.decode(encoding).removeprefix("\ufeff")
            except UnicodeError as error:
                raise CmbprepError(
                    f"{note}, but damaged", path=path, hint=f"restore it, or {_UTF8}"
                ) from error
            return _without_nul(text, path), [f"{note}; BIDS asks for plain UTF-8"]
    try:
        return _without_nul(data.decode("utf-8"), path), []
    except UnicodeDecodeError as error:
        if strict:
            raise CmbprepError(
                "it is not UTF-8 text", path=path, hint=f"restore it, or {_UTF8}"
            ) from error
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    note = f"it is not UTF-8 and was read as Latin-1; accents may be wrong, so {_UTF8}"
    return _without_nul(text, path), [note]


def _without_nul(text: str, path: Path) -> str:
    if "\0" in text:
        raise CmbprepError(
            "it contains NUL bytes, so it is damaged or not a text file",
            path=path,
            hint=f"restore it, or {_UTF8}",
        )
    return text


# --- JSON ------------------------------------------------------------------------------


def read_object(path: Path, *, repair: bool = True) -> ReadObject:
    """Read a JSON object, repaired as far as only one reading is sensible.

    Parameters
    ----------
    path
        The file.
    repair
        Whether another encoding than UTF-8 and faults of the syntax (commas before a closing
        bracket, ``inf``, ``.5``) are accepted with a warning. Values that JSON cannot hold
        are None in either case.

    Raises
    ------
    CmbprepError
        Whatever is wrong with the file, if it cannot be read.
    """
    path = Path(path)
    text, notes = _decode(read_bytes(path, limit=MAX_JSON_BYTES), path, strict=not repair)
    duplicates: list[str] = []
    try:
        content, safe = parse_json(text, duplicates)
    except _JSON_ERRORS as error:
        content, note = _repaired(text, duplicates, path, error, repair=repair)
        safe = False
        notes.append(note)
    if not isinstance(content, dict):
        hint = 'write it like {"EchoTime": 0.02}' if repair else "restore it, or make it again"
        raise CmbprepError("it is not a JSON object", path=path, hint=hint)
    if count_levels(content) > MAX_DEPTH:
        raise _too_deep(path)
    clean: dict[str, Any] = content
    faults: list[tuple[str, str]] = []
    # Looking at each value takes longer than all the rest, and hardly any file needs it.
    if not safe:
        clean, faults = replace_unsafe(content)
    dropped = [key for key, kind in faults if kind == "number"]
    replaced = [key for key, kind in faults if kind == "text"]
    if duplicates:
        notes.append(f"keys are there twice, and the last value is used: {_some(duplicates)}")
    if dropped:
        notes.append(f"values that are not finite numbers are left out: {_some(dropped)}")
    if replaced:
        notes.append(f"characters that are not valid Unicode are replaced: {_some(replaced)}")
    return ReadObject(clean, _named(path, notes), tuple(dropped))


_JSON_ERRORS = (ValueError, RecursionError, OverflowError)


def _repaired(
    text: str, duplicates: list[str], path: Path, error: Exception, *, repair: bool
) -> tuple[Any, str]:
    """Parse a JSON text whose syntax is wrong; return its content and a note on the repair."""
    if isinstance(error, RecursionError):
        raise _too_deep(path) from error
    failure = CmbprepError(
        f"it cannot be read as JSON ({error})",
        path=path,
        hint="correct it (a JSON validator shows where) or restore it",
    )
    if not repair:
        raise failure from error
    repaired, kinds = repair_json(text)
    duplicates.clear()
    try:
        # Tabs and line ends inside strings can only be meant as they are.
        content, _ = parse_json(repaired, duplicates, strict=False)
    except RecursionError:
        raise _too_deep(path) from error
    except _JSON_ERRORS:
        raise failure from error
    what = ", ".join(kinds) if kinds else "unescaped line ends or tabs in a text"
    return content, f"its JSON is not valid and was corrected ({what})"


def _too_deep(path: Path) -> CmbprepError:
    return CmbprepError(
        f"its brackets are nested too deep (more than {MAX_DEPTH} levels)",
        path=path,
        hint="restore or correct the file",
    )


def _named(path: Path, notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{valid_text(path.name)}: {note}" for note in notes)


def _some(keys: Sequence[str], count: int = 5) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(valid_text(key) for key in keys[:count]) + more


# --- tables ----------------------------------------------------------------------------


def read_table(path: Path) -> Table:
    """Read a tab-separated table with a header.

    BIDS tables have no quoting: quotation marks are text. Only where a whole cell is wrapped
    in them, as spreadsheets do, they are removed with a warning. A row that ends early has
    missing values at its end; a row with more cells than the header is left out, as nobody
    can tell which cell belongs to which column. Of columns of the same name the first counts.

    Raises
    ------
    CmbprepError
        If the file cannot be read, is empty, or has no tabs but other separators.
    """
    path = Path(path)
    text, notes = _decode(read_bytes(path, limit=MAX_TABLE_BYTES), path, strict=False)
    # Only these end a line: str.splitlines would also split at rarer characters.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = next(number for number, line in enumerate(lines) if line.strip())
    header = lines[start]
    _check_separator(header, path)
    quoted: list[int] = []
    names = _cells(header, start + 1, quoted)
    places, header_notes = _columns(names)
    if not places:
        raise CmbprepError("its header is empty", path=path, hint="write names of columns")
    rows, row_notes = _rows(lines, start, len(names), places, quoted)
    notes += header_notes + row_notes
    if quoted:
        notes.append(
            f"quotation marks around cells are removed ({_lines(quoted)}); BIDS tables have "
            "no quoting"
        )
    columns = tuple(name for _, name in places)
    return Table(columns, tuple(rows), _named(path, notes))


def _check_separator(header: str, path: Path) -> None:
    if "\t" in header:
        return
    for mark, name in ((",", "commas"), (";", "semicolons")):
        if mark in header:
            raise CmbprepError(
                f"its columns are separated by {name}, not by tabs",
                path=path,
                hint="export it as tab-separated text",
            )


def _cells(line: str, number: int, quoted: list[int]) -> list[str]:
    cells = []
    for cell in line.split("\t"):
        cell = cell.strip()
        if len(cell) > 1 and cell[0] == cell[-1] == '"':
            cell = cell[1:-1].replace('""', '"').strip()
            if number not in quoted[-1:]:
                quoted.append(number)
        cells.append(cell)
    return cells


def _columns(names: Sequence[str]) -> tuple[list[tuple[int, str]], list[str]]:
    """Choose the columns that are used; return their places and names, and notes."""
    places: list[tuple[int, str]] = []
    taken: dict[str, str] = {}
    twice, case, nameless = [], [], []
    for place, name in enumerate(names):
        if not name:
            nameless.append(str(place + 1))
            continue
        if any(name == other for _, other in places):
            twice.append(name)
            continue
        if name.lower() in taken:
            case.append(f"{taken[name.lower()]} and {name}")
        taken.setdefault(name.lower(), name)
        places.append((place, name))
    notes = []
    if twice:
        notes.append(f"columns are there twice, and only the first is used: {_some(twice)}")
    if case:
        notes.append(f"columns differ only by capitals and are kept apart: {_some(case)}")
    if nameless:
        notes.append(f"columns without a name are ignored: number {_some(nameless)}")
    return places, notes


def _rows(
    lines: Sequence[str],
    start: int,
    width: int,
    places: Sequence[tuple[int, str]],
    quoted: list[int],
) -> tuple[list[dict[str, str]], list[str]]:
    rows: list[dict[str, str]] = []
    short: list[int] = []
    trailing: list[int] = []
    long: list[int] = []
    for number, line in enumerate(lines[start + 1 :], start=start + 2):
        if not line.strip():
            continue
        cells = _cells(line, number, quoted)
        if len(cells) > width:
            if any(cells[width:]):
                long.append(number)
                continue
            trailing.append(number)
        elif len(cells) < width:
            short.append(number)
            cells += [MISSING] * (width - len(cells))
        rows.append({name: cells[place] for place, name in places})
    kinds = (
        (short, "rows end early, and their last columns are missing"),
        (trailing, "rows have empty cells beyond the last column, which are ignored"),
        (long, "rows have more cells than the header and are left out"),
    )
    return rows, [f"{text} ({_lines(numbers)})" for numbers, text in kinds if numbers]


def _lines(numbers: Iterable[int]) -> str:
    found = [str(number) for number in numbers]
    return f"line{'s' if len(found) > 1 else ''} {_some(found)}"
