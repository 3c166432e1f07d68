"""The group tables: one row per scan, and one row per lesion."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cmbprep.group.columns import (
    ACQUISITION,
    Column,
    acquisition,
    entity_columns,
    identity,
    scan_columns,
)
from cmbprep.group.participants import Participants
from cmbprep.group.rows import Row, make_rows
from cmbprep.lesions import COLUMNS, Lesion
from cmbprep.reports.results import SubjectResult

__all__ = ["LesionTable", "ScanTable"]

MISSING = "n/a"


@dataclass(frozen=True, eq=False)
class ScanTable:
    """The table of scans.

    Parameters
    ----------
    columns
        What the table holds.
    rows
        Sorted by participant, session and name.
    values
        One list of values per row, in the order of the columns.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    values: tuple[tuple[Any, ...], ...]

    @classmethod
    def build(cls, subjects: Sequence[SubjectResult], participants: Participants) -> ScanTable:
        """Make the table from the results of all participants."""
        rows = tuple(make_rows(subjects))
        columns = tuple(scan_columns(rows, participants))
        values = tuple(tuple(column.value(row) for column in columns) for row in rows)
        return cls(columns, rows, values)

    def count(self, status: str) -> int:
        """Count the rows of a status."""
        return sum(row.status == status for row in self.rows)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column; None for each row where there is no such column."""
        names = [column.name for column in self.columns]
        if name not in names:
            return [None] * len(self.rows)
        at = names.index(name)
        return [line[at] for line in self.values]

    def to_tsv(self) -> str:
        """Return the text of the table."""
        return _tsv([column.name for column in self.columns], self.values)

    def dictionary(self) -> dict[str, Any]:
        """Return the data dictionary."""
        return {column.name: column.entry() for column in self.columns}


@dataclass(frozen=True, eq=False)
class LesionTable:
    """The table of all lesions: the scan's entities, then the columns of its lesion table."""

    entities: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    @classmethod
    def build(cls, subjects: Sequence[SubjectResult]) -> LesionTable:
        """Make the table from the results of all participants."""
        rows = make_rows(subjects)
        entities = entity_columns(rows)
        values = []
        for row in rows:
            if row.tally is None:
                continue
            start = (*identity(row), *(row.entities.get(name) for name in entities))
            acquired = tuple(acquisition(row, key) for key in ("sequence", *ACQUISITION))
            counted = {lesion.index for lesion in row.tally.counted}
            values += [
                (*start, *_lesion_values(lesion), lesion.index in counted, *acquired)
                for lesion in row.tally.lesions
            ]
        return cls(entities, tuple(values))

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        start = ["participant_id", "session_id", "scan", *self.entities]
        return [*start, *COLUMNS, "counted", "sequence", *ACQUISITION]

    def to_tsv(self) -> str:
        """Return the text of the table."""
        return _tsv(self.names, self.values)

    def dictionary(self) -> dict[str, Any]:
        """Return the data dictionary."""
        entries: dict[str, Any] = {
            "participant_id": {"Description": "Participant."},
            "session_id": {"Description": "Session; n/a in a dataset without sessions."},
            "scan": {"Description": "Scan: entities and suffix of the source."},
            "counted": {
                "Description": "Whether the lesion is counted as a microbleed.",
                "Levels": {"true": "It is.", "false": "It is a mimic: diamagnetic."},
            },
            "sequence": {"Description": "Kind of image that the detector took the scan for."},
        }
        for name in self.entities:
            entries[name] = {"Description": f"BIDS entity {name} of the scan."}
        for name, (description, units) in ACQUISITION.items():
            entries[name] = {"Description": description, **({"Units": units} if units else {})}
        entries.update(COLUMNS)
        return {name: entries[name] for name in self.names}


def _tsv(names: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(
        out,
        delimiter="\t",
        lineterminator="\n",
        quoting=csv.QUOTE_NONE,
        escapechar=None,
        quotechar=None,
    )
    writer.writerow(names)
    for line in lines:
        writer.writerow([cell(value) for value in line])
    return out.getvalue()


def cell(value: Any) -> str:
    """Write a value as BIDS tables have it: ``n/a`` where it is missing, no tabs in text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, list | tuple):
        return ",".join(cell(item) for item in value) or MISSING
    return " ".join(str(value).split()) or MISSING


def _lesion_values(lesion: Lesion) -> tuple[Any, ...]:
    return tuple(getattr(lesion, name) for name in COLUMNS)
