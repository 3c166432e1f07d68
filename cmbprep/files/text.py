"""Text files from elsewhere: JSON objects and tab-separated tables that may not be clean.

Sidecars, descriptions and tables come from converters, spreadsheets and editors. They are read
as far as there is only one sensible reading, and every correction is named in a warning.
Nothing but a regular file is ever opened: a FIFO would be waited for without end.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError, about
from cmbprep.files.json_text import (
    MAX_DEPTH,
    count_levels,
    parse_json,
    repair_json,
    replace_unsafe,
    valid_text,
)

#: Largest JSON file and largest table that are read: many times what BIDS files need.
MAX_JSON_BYTES = 16 * 2**20
MAX_TABLE_BYTES = 64 * 2**20

#: How BIDS tables write a missing value.
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
    with about(path):
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
                raise CmbprepError(
                    f"it is {kind}, not a file",
                    hint="remove or rename it, or put the file in its place",
                )
            _check_size(found.st_size, limit)
            with open(path, "rb") as stream:
                # One byte more, to notice a file that grows; room for the limit is not taken.
                data = stream.read(found.st_size + 1)
        except OSError as error:
            raise _unreachable(path, error) from error
        _check_size(len(data), limit)
        if data.startswith(_POINTERS):
            raise CmbprepError(
                "its content was not fetched: this is a pointer file of git-annex or Git LFS",
                hint=_FETCH,
            )
    return data


_POINTERS = (b"version https://git-lfs", b"version https://hawser", b"/annex/objects/")
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket"}


def _unreachable(path: Path, error: OSError) -> CmbprepError:
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        return CmbprepError("there is no such file", hint="check the path")
    if isinstance(error, FileNotFoundError) and "annex" in os.fspath(path.readlink()):
        return CmbprepError(
            "its content was not fetched: it is a link of git-annex without target", hint=_FETCH
        )
    if isinstance(error, FileNotFoundError):
        hint = f"restore the file that it points to, or {_FETCH}"
        return CmbprepError("it is a link to a file that does not exist", hint=hint)
    if isinstance(error, PermissionError):
        hint = "make it readable (chmod), or ask its owner"
        return CmbprepError("its permissions do not allow reading it", hint=hint)
    reason = error.strerror or type(error).__name__
    return CmbprepError(f"it cannot be read ({reason})", hint="check the disk")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise CmbprepError(
            f"it is too large for such a file ({size / 2**20:.0f} MB; at most "
            f"{limit / 2**20:.0f} MB)",
            hint="check that it is the right file, and shorten it",
        )


# --- text ------------------------------------------------------------------------------

_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "it starts with a byte order mark"),
    (codecs.BOM_UTF32_LE, "utf-32", "it is UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "it is UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "it is UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "it is UTF-16"),
)


def _decode(data: bytes, *, strict: bool) -> tuple[str, list[str]]:
    """Decode the bytes of a file; return its text and what is unusual about the encoding."""
    if not data.strip(b"\0"):
        raise _empty()
    mark = next((mark for mark in _MARKS if data.startswith(mark[0])), None)
    notes = [] if mark is None else [f"{mark[2]}; BIDS asks for plain UTF-8"]
    try:
        text = data.decode(mark[1] if mark else "utf-8").removeprefix("\ufeff")
    except UnicodeError as error:
        if mark or strict:
            fault = f"{mark[2]}, but damaged" if mark else "it is not UTF-8 text"
            raise CmbprepError(fault, hint=f"restore it, or {_UTF8}") from error
        text = _decode_latin(data)
        notes = [f"it is not UTF-8 and was read as Latin-1; accents may be wrong, so {_UTF8}"]
    if "\0" in text:
        raise CmbprepError(
            "it contains NUL bytes, so it is damaged or not a text file",
            hint=f"restore it, or {_UTF8}",
        )
    if not text.strip():
        raise _empty()
    return text, notes


def _empty() -> CmbprepError:
    return CmbprepError("it is empty", hint="restore it, or write it again")


def _decode_latin(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


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
    with about(path):
        text, notes = _decode(read_bytes(path, limit=MAX_JSON_BYTES), strict=not repair)
        content, duplicates, faults = _parse_object(text, notes, repair=repair)
    for keys, note in (
        (duplicates, "keys are there twice, and the last value is used"),
        (faults["number"], "values that are not finite numbers are left out"),
        (faults["text"], "characters that are not valid Unicode are replaced"),
    ):
        if keys:
            notes.append(f"{note}: {_some(keys)}")
    return ReadObject(content, _named(path, notes), tuple(faults["number"]))


def _parse_object(
    text: str, notes: list[str], *, repair: bool
) -> tuple[dict[str, Any], list[str], dict[str, list[str]]]:
    """Parse a JSON object; return it, keys that are there twice, and where values were replaced."""
    duplicates: list[str] = []
    try:
        content, safe = parse_json(text, duplicates)
    except RecursionError as error:
        raise _too_deep() from error
    except (ValueError, OverflowError) as error:
        content, safe = _repaired(text, duplicates, notes, error, repair=repair), False
    if not isinstance(content, dict):
        hint = 'write it like {"EchoTime": 0.02}' if repair else "restore it, or make it again"
        raise CmbprepError("it is not a JSON object", hint=hint)
    # A text with fewer brackets has fewer levels.
    if text.count("{") + text.count("[") > MAX_DEPTH and count_levels(content) > MAX_DEPTH:
        raise _too_deep()
    faults: dict[str, list[str]] = {"number": [], "text": []}
    # Looking at each value takes longer than all the rest, and hardly any file needs it.
    if not safe:
        content, found = replace_unsafe(content)
        for key, kind in found:
            faults[kind].append(key)
    return content, duplicates, faults


def _repaired(
    text: str, duplicates: list[str], notes: list[str], error: Exception, *, repair: bool
) -> Any:
    """Parse a JSON text whose syntax is wrong; return its content, and note the repair."""
    failure = CmbprepError(
        f"it cannot be read as JSON ({error})",
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
        raise _too_deep() from error
    except (ValueError, OverflowError):
        raise failure from error
    what = ", ".join(kinds) if kinds else "unescaped line ends or tabs in a text"
    notes.append(f"its JSON is not valid and was corrected ({what})")
    return content


def _too_deep() -> CmbprepError:
    return CmbprepError(
        f"its brackets are nested too deep (more than {MAX_DEPTH} levels)",
        hint="restore or correct the file",
    )


def _named(path: Path, notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{valid_text(path.name)}: {note}" for note in notes)


def _some(keys: Sequence[str], count: int = 5) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(shorten(valid_text(key)) for key in keys[:count]) + more


def shorten(text: str, most: int = 60) -> str:
    """Cut a text from a file for a message.

    Examples
    --------
    >>> shorten("participant_id", 12)
    'participant…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


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
    faults: dict[str, list[str]] = {kind: [] for kind in _TABLE_FAULTS}
    with about(path):
        text, notes = _decode(read_bytes(path, limit=MAX_TABLE_BYTES), strict=False)
        lines = list(_lines(text, faults))
        if not lines:
            raise _empty()
        _check_separator(lines[0][1])
        names = _cells(*lines[0], faults["quoted"])
        places = _columns(names, faults)
        if not places:
            raise CmbprepError("its header is empty", hint="write names of columns")
    # A file that was cut short ends in the middle of a cell.
    cut = lines[-1][0] if text[-1] not in "\r\n" else None
    rows = tuple(_rows(lines[1:], len(names), places, faults, cut))
    notes += [
        _TABLE_FAULTS[kind].format(_some(found), s="s" if len(found) > 1 else "")
        for kind, found in faults.items()
        if found
    ]
    return Table(tuple(places), rows, _named(path, notes))


#: What is corrected or left out in a table, in the order of the warnings.
_TABLE_FAULTS = {
    "twice": "columns are there twice, and only the first is used: {}",
    "case": "columns differ only by capitals and are kept apart: {}",
    "nameless": "columns without a name are ignored: number {}",
    "short": "rows end early, and their last columns are missing (line{s} {})",
    "cut": "the file ends within a row, so it may be cut short; the last value there (line {}) is "
    "not used; restore the file",
    "invisible": "control characters and invisible marks are removed (line{s} {})",
    "trailing": "rows have empty cells beyond the last column, which are ignored (line{s} {})",
    "long": "rows have more cells than the header and are left out (line{s} {})",
    "quoted": "quotation marks around cells are removed (line{s} {}); BIDS tables have no quoting",
}


def split_lines(text: str) -> list[str]:
    """Split a text at line ends of any system, unlike ``str.splitlines`` at no rarer character."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def without_quotes(cell: str) -> str:
    """Remove quotation marks around a whole cell, as spreadsheets and R write them."""
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if quoted else cell


#: What no editor shows and a terminal may obey: control characters, zero-width marks, and marks
#: that change the direction of writing.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2069\ufeff]")


def _lines(text: str, faults: dict[str, list[str]]) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not blank, without invisible characters."""
    for number, line in enumerate(split_lines(text), 1):
        clean = line if line.isascii() and line.isprintable() else _INVISIBLE.sub("", line)
        if clean != line:
            faults["invisible"].append(str(number))
        if clean.strip():
            yield number, clean


def _check_separator(header: str) -> None:
    if "\t" in header:
        return
    marks = ((",", "commas"), (";", "semicolons"), ("|", "vertical bars"), (" ", "spaces"))
    for mark, name in marks:
        if mark in header.strip():
            raise CmbprepError(
                f"its columns are separated by {name}, not by tabs",
                hint="export it as tab-separated text",
            )


def _cells(number: int, line: str, quoted: list[str]) -> list[str]:
    cells = [cell.strip() for cell in line.split("\t")]
    plain = [without_quotes(cell).strip() for cell in cells]
    if plain != cells:
        quoted.append(str(number))
    return plain


def _columns(names: Sequence[str], faults: dict[str, list[str]]) -> dict[str, int]:
    """Return the names of the columns that are used, with their places."""
    places: dict[str, int] = {}
    taken: dict[str, str] = {}
    for place, name in enumerate(names):
        if not name:
            faults["nameless"].append(str(place + 1))
        elif name in places:
            faults["twice"].append(name)
        else:
            first = taken.setdefault(name.lower(), name)
            if first != name:
                faults["case"].append(f"{first} and {name}")
            places[name] = place
    return places


def _rows(
    lines: Sequence[tuple[int, str]],
    width: int,
    places: Mapping[str, int],
    faults: dict[str, list[str]],
    cut: int | None,
) -> Iterator[dict[str, str]]:
    """Yield the rows; ``cut`` is the number of a line that may be cut short."""
    for number, line in lines:
        cells = _cells(number, line, faults["quoted"])
        if any(cells[width:]):
            faults["long"].append(str(number))
            continue
        if number == cut and len(cells) < width:
            faults["cut"].append(str(number))
            cells.pop()
        elif len(cells) != width:
            faults["trailing" if len(cells) > width else "short"].append(str(number))
        cells += [MISSING] * (width - len(cells))
        yield {name: cells[place] for name, place in places.items()}
