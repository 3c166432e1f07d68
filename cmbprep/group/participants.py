"""The table of participants of a raw dataset, for what is joined to the group tables."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Participants", "read_participants"]

MISSING = "n/a"


@dataclass(frozen=True)
class Participants:
    """Columns and rows of ``participants.tsv``, by label without ``sub-``."""

    columns: tuple[str, ...] = ()
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def value(self, subject: str, column: str) -> str | None:
        """Give a participant's value; None where it is missing."""
        value = self.rows.get(subject, {}).get(column, MISSING)
        return None if value in ("", MISSING) else value


def read_participants(path: Path | None) -> tuple[Participants, tuple[str, ...]]:
    """Read a table of participants.

    A table that cannot be used stops nothing: the group level goes on without it.

    Returns
    -------
    participants
        Empty where there is no usable table.
    notes
        Why it was left out, in a sentence.
    """
    if path is None or not path.exists():
        return Participants(), ()
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            names = [name for name in reader.fieldnames or () if name]
            if "participant_id" not in names:
                return Participants(), (
                    f"{path.name} has no column participant_id and is left out",
                )
            rows: dict[str, dict[str, str]] = {}
            for row in reader:
                label = (row["participant_id"] or "").strip().removeprefix("sub-")
                # The first row of a participant counts; BIDS allows one.
                rows.setdefault(label, {name: (row.get(name) or "").strip() for name in names})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return Participants(), (
            f"{path.name} cannot be read and is left out ({type(error).__name__})",
        )
    columns = tuple(dict.fromkeys(name for name in names if name != "participant_id"))
    return Participants(columns, rows), ()
