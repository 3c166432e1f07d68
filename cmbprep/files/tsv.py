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

from cmbprep.errors import CmbprepError, about
from cmbprep.files.text import MAX_TABLE_BYTES, MISSING, read_bytes, split_lines, without_quotes

__all__ = [
    "MISSING",
    "REMAKE",
    "Table",
    "format_tsv",
    "listing",
    "nearest",
    "parse_boolean",
    "parse_integer",
    "parse_number",
    "read_tsv",
]

#: What to do about a damaged table of the program's own.
REMAKE = "run the participant level again for this scan, or restore the file from a backup"

_SEPARATORS = {";": "semicolons", ",": "commas", "|": "vertical bars"}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


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
    hint: str = REMAKE,
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
    with about(path, hint=hint):
        text = _read_text(path)
        if closed and text and text[-1] not in "\r\n":
            raise CmbprepError(
                "the last line does not end with a line break, so it may be cut short"
            )
        numbered = [
            (number, line)
            for number, line in enumerate(split_lines(text), start=1)
            if line.strip(" ")
        ]
        if not numbered or not numbered[0][1].strip():
            raise CmbprepError("the table is empty; even a table without rows has a header")
        clean = without_quotes if unquote else str
        (_, header), *rows = [
            (number, tuple(map(clean, line.split("\t")))) for number, line in numbered
        ]
        _check_header(header, required)
        for number, cells in rows:
            if len(cells) != len(header):
                raise CmbprepError(
                    f"line {number} has {len(cells)} cells and the header has {len(header)}"
                )
    return Table(path, header, tuple(rows))


def _read_text(path: Path) -> str:
    content = read_bytes(path, limit=MAX_TABLE_BYTES)
    if b"\0" in content:
        raise CmbprepError("the file holds bytes that are not text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CmbprepError(f"byte {error.start + 1} of the file is not UTF-8") from error


def _check_header(header: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing and len(header) == 1:
        for mark, word in _SEPARATORS.items():
            if mark in header[0]:
                raise CmbprepError(
                    f"{word} separate the names in the header, not tabs",
                    hint="write the table with tabs, or restore the file",
                )
    headless = bool(required) and len(missing) == len(required)
    alike: dict[str, str] = {}
    for name in header:
        key = name.strip().casefold()
        if key in alike and not headless:
            both = f"{alike[key]!r} twice" if alike[key] == name else f"{alike[key]!r} and {name!r}"
            raise CmbprepError(f"the header has the columns {both}")
        alike[key] = name
    if not missing:
        return
    near = [alike[name.casefold()] for name in missing if name.casefold() in alike]
    fault = f"the table has no column {listing(missing)}"
    if near:
        fault += f" (it has {listing(map(repr, near))})"
    if not any(name.startswith('"') for name in header):
        raise CmbprepError(fault)
    raise CmbprepError(
        f"{fault}, because its names are in quotation marks",
        hint="write names without quotation marks: BIDS tables have no quoting",
    )


def format_tsv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return the text of a table without quoting, as BIDS has it.

    Parameters
    ----------
    header
        Names of the columns.
    rows
        Cells of each row, as text without tabs and line ends.
    """
    return "".join("\t".join(cells) + "\n" for cells in (header, *rows))


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


def parse_boolean(text: str) -> bool:
    """Parse ``true`` or ``false``.

    Raises
    ------
    ValueError
        If the text is neither.
    """
    if text not in ("true", "false"):
        raise ValueError(f"{text[:40]!r} is neither true nor false")
    return text == "true"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name most like this one as part of a message; empty if none is near."""
    found = get_close_matches(name.casefold(), [item for item in known if item], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def listing(items: Iterable[str], limit: int = 5) -> str:
    """Join names with commas; after so many, say how many more there are."""
    names = list(items)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
