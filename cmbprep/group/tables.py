"""The group tables: one row per scan, and one row per lesion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cmbprep.group.columns import (
    Dictionary,
    describe_lesions,
    describe_scans,
    lesion_values,
    scan_values,
)
from cmbprep.group.participants import Participants
from cmbprep.group.rows import Row
from cmbprep.lesions import MISSING

__all__ = ["Table", "lesion_table", "scan_table"]


@dataclass(frozen=True, eq=False)
class Table:
    """A table with its data dictionary.

    Parameters
    ----------
    dictionary
        Column name -> its entry, in the order of the columns.
    values
        Column name -> value, for each row; a column that is left out is missing.
    """

    dictionary: Dictionary
    values: tuple[dict[str, Any], ...]

    def column(self, name: str) -> list[Any]:
        """Return the values of a column; None for each row where there is no such column."""
        return [line.get(name) if name in self.dictionary else None for line in self.values]

    def to_tsv(self) -> str:
        """Return the text of the table."""
        lines = [[cell(line.get(name)) for name in self.dictionary] for line in self.values]
        return "".join("\t".join(line) + "\n" for line in ([*self.dictionary], *lines))


def scan_table(rows: Sequence[Row], participants: Participants) -> Table:
    """Make the table of scans."""
    values = tuple(scan_values(row, participants) for row in rows)
    return Table(describe_scans(rows, participants), values)


def lesion_table(rows: Sequence[Row]) -> Table:
    """Make the table of all lesions: the scan's entities, then the columns of its lesion table."""
    values = []
    for row in rows:
        if row.tally is not None and row.tally.lesions:
            scan = scan_values(row, Participants())
            values += [lesion_values(lesion, scan) for lesion in row.tally.lesions]
    return Table(describe_lesions(rows), tuple(values))


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
