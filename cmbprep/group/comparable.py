"""Whether the results of a cohort may be counted together: settings, and tables that were changed.

Counts depend on the detector, its threshold and the zones. Results that were made with different
settings are named, with the scans of each value; ``--strict`` refuses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cmbprep.errors import UsageError
from cmbprep.files.tsv import MISSING, listing
from cmbprep.group.notes import Note
from cmbprep.group.rows import Row
from cmbprep.group.tables import Table, cell

#: Columns of the table of scans that must have one value -> what they are.
SETTINGS: Mapping[str, str] = {
    "cmbprep_version": "versions of the program",
    "detector": "detectors",
    "detector_version": "versions of the detector",
    "threshold": "thresholds",
    "scheme": "schemes of the zones",
    "border_mm": "borders in the white matter (mm)",
    "zone_source": "sources of the zones",
    "template": "templates",
}


def mixed_settings(rows: Sequence[Row], scans: Table) -> tuple[str, ...]:
    """Return a sentence on each setting that differs between the scans with a result.

    Parameters
    ----------
    rows, scans
        The scans, and the table of them.
    """
    used = [
        (row.name, values)
        for row, values in zip(rows, scans.values, strict=True)
        if row.tally is not None
    ]
    found = []
    for name, title in SETTINGS.items():
        members: dict[str, list[str]] = {}
        for scan, values in used:
            members.setdefault(_shown(values.get(name)), []).append(scan)
        if len(members) > 1:
            told = f"the results were made with several {title}: "
            public = told + _by_value(members, named=False)
            found.append(Note(told + _by_value(members), public))
    return tuple(found)


def _shown(value: Any) -> str:
    text = cell(value)
    return "not recorded" if text == MISSING else text


def _by_value(members: Mapping[str, Sequence[str]], *, named: bool = True) -> str:
    """Name the scans of each value, the most frequent one first and by its number alone."""
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    parts = []
    for number, (value, scans) in enumerate(ordered):
        count = f"{len(scans)} scan{'' if len(scans) == 1 else 's'}"
        names = f": {listing(scans)}" if named and number else ""
        parts.append(f"{value} ({count}{names})")
    return "; ".join(parts)


_AGAIN = "what to do: run the participant level again for these scans"


def changed_tables(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return a sentence on lesion tables that a person has changed, and one on damaged ones."""
    changed, damaged = [], []
    for row in rows:
        if row.scan is None or row.status == "withdrawn":
            continue
        if row.scan.edits:
            changed.append(f"{row.name} ({'; '.join(row.scan.edits)})")
        if row.scan.damaged:
            damaged.append(f"{row.name} ({row.reason})")
    notes = []
    if changed:
        what = "1 lesion table was" if len(changed) == 1 else f"{len(changed)} lesion tables were"
        told = f"{what} changed after the program wrote it"
        notes.append(Note(f"{told}: {listing(changed)}", told))
    if damaged:
        what = "1 lesion table is" if len(damaged) == 1 else f"{len(damaged)} lesion tables are"
        told = f"{what} damaged, so that the scan has no counts"
        notes.append(Note(f"{told}: {listing(damaged)}; {_AGAIN}", f"{told}; {_AGAIN}"))
    return tuple(notes)


def require_comparable(doubts: Sequence[str]) -> None:
    """Refuse results that must not be counted together without a decision (``--strict``).

    Parameters
    ----------
    doubts
        From :func:`mixed_settings`, :func:`changed_tables` and the tables of the raw dataset.

    Raises
    ------
    UsageError
        If there is any.
    """
    if doubts:
        raise UsageError(
            f"--strict: nothing was written, because {'; '.join(doubts)}",
            hint="process these scans again with the same settings, correct or restore the tables, "
            "or leave --strict out to write the tables with notes",
        )
