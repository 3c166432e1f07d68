"""Read tab-separated tables strictly: a damaged table is an error, never a shorter table.

BIDS tables have a header, cells that tabs separate, and no quoting: a quotation mark is text.
Every function here raises :class:`~cmbprep.errors.CmbprepError` for a table that cannot be
read, whatever is wrong with the file, so that callers need to catch one kind of error only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from cmbprep.errors import CmbprepError
from cmbprep.files.text import MAX_TABLE_BYTES, read_bytes

__all__ = ["MISSING", "Table", "listing", "nearest", "parse_integer", "parse_number", "read_tsv"]

MISSING = "n/a"
_SEPARATORS = {";": "semicolons", ",": "commas", "|": "vertical bars"}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_REMAKE = "run the participant level again for this scan, or restore the file from a backup"


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes
    ----------
    path
        The file.
    header
        Names of the columns, each once.
    rows
        Line number in the file (the header is line 1) and cells, as many as the header has.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def positions(self, names: Iterable[str]) -> dict[str, int]:
        """Return the position of each column named; all of them must be there."""
        return {name: self.header.index(name) for name in names}

    def dicts(self) -> list[tuple[int, dict[str, str]]]:
        """Return line number and cells by column name, for each row."""
        return [(line, dict(zip(self.header, cells, strict=True))) for line, cells in self.rows]


def read_tsv(
    path: Path,
    required: Sequence[str] = (),
    *,
    closed: bool = False,
    unquote: bool = False,
    hint: str = _REMAKE,
) -> Table:
    """Read a table and check its shape.

    Parameters
    ----------
    path
        The file. A byte order mark and line breaks of any system are accepted; lines without
        any text are passed over.
    required
        Columns that must be there, in any order; others may be there too.
    closed
        Whether the last line must end with a line break. Needed where the last column is a
        number, which is still a number after its last digits were cut off.
    unquote
        Remove quotation marks around a whole cell, as R writes them. Off for our own tables.
    hint
        What the person can do about a damaged file.

    Raises
    ------
    CmbprepError
        If the file cannot be read or is not text, has no header, lacks a column or has one
        twice, or a row has more or fewer cells than the header. The message names the line.
    """
    path = Path(path)
    text = _read_text(path, hint)
    if closed and text and text[-1] not in "\r\n":
        raise CmbprepError(
            "the last line does not end with a line break, so it may be cut short",
            path=path,
            hint=hint,
        )
    lines = text.split("\n") if "\r" not in text else re.split(r"\r\n|\n|\r", text)
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip(" "))
    first = next(numbered, None)
    if first is None or not first[1].strip():
        raise CmbprepError(
            "the table is empty; even a table without rows has a header", path=path, hint=hint
        )
    header = tuple(_cells(first[1], unquote))
    _check_header(header, required, path, hint)
    rows = []
    for number, line in numbered:
        cells = tuple(_cells(line, unquote))
        if len(cells) != len(header):
            raise CmbprepError(
                f"line {number} has {len(cells)} cells and the header has {len(header)}",
                path=path,
                hint=hint,
            )
        rows.append((number, cells))
    return Table(path, header, tuple(rows))


def _cells(line: str, unquote: bool) -> list[str]:
    cells = line.split("\t")
    if unquote:
        cells = [
            cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
            for cell in cells
        ]
    return cells


def _read_text(path: Path, hint: str) -> str:
    content = read_bytes(path, limit=MAX_TABLE_BYTES)
    if b"\0" in content:
        raise CmbprepError("the file holds bytes that are not text", path=path, hint=hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CmbprepError(
            f"byte {error.start + 1} of the file is not UTF-8", path=path, hint=hint
        ) from error


def _check_header(header: Sequence[str], required: Sequence[str], path: Path, hint: str) -> None:
    missing = [name for name in required if name not in header]
    if missing and len(header) == 1:
        for mark, word in _SEPARATORS.items():
            if mark in header[0]:
                raise CmbprepError(
                    f"{word} separate the names in the header, not tabs",
                    path=path,
                    hint="write the table with tabs, or restore the file",
                )
    headless = bool(required) and len(missing) == len(required)
    alike: dict[str, str] = {}
    for name in header:
        key = name.strip().casefold()
        if key in alike and not headless:
            both = f"{alike[key]!r} twice" if alike[key] == name else f"{alike[key]!r} and {name!r}"
            raise CmbprepError(f"the header has the columns {both}", path=path, hint=hint)
        alike[key] = name
    if missing:
        near = [alike[name.casefold()] for name in missing if name.casefold() in alike]
        quoted = any(name.startswith('"') for name in header)
        instead = f" (it has {listing(map(repr, near))})" if near else ""
        raise CmbprepError(
            f"the table has no column {listing(missing)}{instead}"
            + (", because its names are in quotation marks" if quoted else ""),
            path=path,
            hint="write names without quotation marks: BIDS tables have no quoting"
            if quoted
            else hint,
        )


def parse_number(text: str) -> float:
    """Parse a finite number in plain decimal notation.

    Raises
    ------
    ValueError
        If the text is none; ``nan``, ``inf``, ``1_000`` and ``1,5`` are none.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is not a finite number")
    return value


def parse_integer(text: str) -> int:
    """Parse a whole number of at most 18 digits.

    Raises
    ------
    ValueError
        If the text is none.
    """
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(text)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name most like this one as part of a message; empty if none is near."""
    found = get_close_matches(name.casefold(), [item for item in known if item], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def listing(items: Iterable[str], limit: int = 5) -> str:
    """Join names with commas; after so many, say how many more there are."""
    names = list(items)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
