"""The table of participants of a raw dataset, for what is joined to the group tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmbprep.errors import CmbprepError
from cmbprep.files.text import Table, read_table

MISSING = "n/a"
KEY = "participant_id"


@dataclass(frozen=True)
class Participants:
    """Columns and rows of ``participants.tsv``, by label without ``sub-``."""

    columns: tuple[str, ...] = ()
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Label -> how the table writes it.
    written: dict[str, str] = field(default_factory=dict, compare=False)

    def value(self, subject: str, column: str) -> str | None:
        """Return a participant's value; None where it is missing."""
        value = self.rows.get(subject, {}).get(column, MISSING)
        return None if value in ("", MISSING) else value


def read_participants(path: Path | None) -> tuple[Participants, tuple[str, ...]]:
    """Read a table of participants.

    A table that cannot be used stops nothing: the group level goes on without it.

    Returns
    -------
    participants
        Empty where there is no usable table. Where several rows of a participant disagree,
        the values in question are missing.
    notes
        What was corrected, is in doubt, or was left out, in sentences.
    """
    if path is None or not os.path.lexists(path):
        return Participants(), ()
    try:
        table = read_table(path)
    except CmbprepError as error:
        hint = f"; what to do: {error.hint}" if error.hint else ""
        return Participants(), (f"{path.name} is left out: {error.message}{hint}",)
    if KEY not in table.columns:
        return Participants(), (*table.warnings, _without_key(path.name, table.columns))
    columns = tuple(name for name in table.columns if name != KEY)
    rows, notes = _by_label(table, columns, path.name)
    written = {row[KEY].removeprefix("sub-"): row[KEY] for row in reversed(table.rows)}
    return Participants(columns, rows, written), (*table.warnings, *notes)


def missing_participants(
    participants: Participants, subjects: Iterable[str], file: str
) -> tuple[str, ...]:
    """Return which participants of the results are not in the table.

    Parameters
    ----------
    participants
        The table; an empty one gives no notes, because others say why it is empty.
    subjects
        Labels of the participants that have results.
    file
        Name of the table, for the notes.
    """
    labels = sorted(set(subjects))
    missing = [label for label in labels if label not in participants.rows]
    if not participants.columns or not missing:
        return ()
    if len(missing) == len(labels):
        note = (
            f"{file} has no row of any participant of these results"
            f"{_examples(participants, labels[0])}, so that no column could be joined; what to "
            f"do: write {KEY} exactly as the folders of the participants are named"
        )
    else:
        named = ", ".join(f"sub-{label}" for label in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        note = (
            f"{file} has no row of {len(missing)} of the {len(labels)} participants of these "
            f"results ({named}{more}); its columns are n/a for them"
        )
    return (note,)


def _examples(participants: Participants, label: str) -> str:
    if not participants.rows:
        return ""
    first = next(iter(participants.rows))
    return f" (it has {participants.written.get(first, first)}, the results have sub-{label})"


def _without_key(file: str, columns: Sequence[str]) -> str:
    meant = [name for name in columns if name.lower().startswith(("participant", "subject", "sub"))]
    remedy = f"rename {meant[0]} to {KEY}" if meant else f"add it; there are {', '.join(columns)}"
    return f"{file} has no column {KEY} and is left out; what to do: {remedy}"


def _by_label(
    table: Table, columns: Sequence[str], file: str
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Sort the rows by participant, and say which participants have several or none."""
    found: dict[str, list[dict[str, str]]] = {}
    nameless = 0
    for row in table.rows:
        label = row[KEY].removeprefix("sub-")
        if label in ("", MISSING):
            nameless += 1
        else:
            found.setdefault(label, []).append(row)
    rows, notes = {}, []
    for label, own in found.items():
        known = {name: {row[name] for row in own} - {"", MISSING} for name in columns}
        # A missing value contradicts nothing.
        rows[label] = {
            name: next(iter(values)) if len(values) == 1 else MISSING
            for name, values in known.items()
        }
        if len(own) > 1:
            conflicts = [name for name, values in known.items() if len(values) > 1]
            notes.append(_of_duplicate(file, label, conflicts))
    if nameless:
        notes.append(f"{file}: {nameless} rows without {KEY} are left out")
    return rows, notes


def _of_duplicate(file: str, label: str, conflicts: Iterable[str]) -> str:
    several = f"{file} has several rows of sub-{label}"
    names = ", ".join(conflicts)
    if not names:
        return f"{several}, which agree"
    return f"{several}, which disagree; unknown for this participant: {names}"
