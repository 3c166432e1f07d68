"""From an output dataset to the files of the group level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing
from cmbprep.group.frequency import write_frequency_maps
from cmbprep.group.participants import missing_participants, read_participants
from cmbprep.group.rows import make_rows
from cmbprep.group.tables import lesion_table, scan_table
from cmbprep.outputs.files import write_json, write_text
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.results import ScanResult
from cmbprep.reports.reviewed import collect_reviewed, require_reader


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What a group level has made.

    Parameters
    ----------
    scans, lesions, page
        The two tables and the page.
    maps
        Frequency maps, one a template; empty where none could be made.
    statuses
        Number of rows of the table of scans by status; 0 for one that no row has.
    n_reviewed
        Scans with the lesions of readers.
    notes
        What could not be done and why, in sentences.
    """

    scans: Path
    lesions: Path
    page: Path
    maps: tuple[Path, ...]
    statuses: Mapping[str, int]
    n_reviewed: int = 0
    notes: tuple[str, ...] = ()


def run_group(
    root: Path, *, participants_tsv: Path | None, choice: ReaderChoice | None = None
) -> GroupResult:
    """Join the results of all participants, with the lesions of readers where scans were read.

    Parameters
    ----------
    root
        The output dataset; nothing else is read, but for
    participants_tsv
        the table of participants, whose columns are joined to the rows; None if there
        is none.
    choice
        Whose reviews count; by default those of the only reader.

    Returns
    -------
    GroupResult
        Paths, numbers, and what could not be done. The same results give the same bytes.

    Raises
    ------
    UsageError
        If the output dataset holds no results, or it must be chosen whose reviews count.
    """
    from cmbprep.group.page import render_group_page

    root = Path(root)
    choice = choice or ReaderChoice()
    subjects = collect_reviewed(root, choice)
    rows = make_rows(subjects)
    if not rows:
        raise UsageError(
            "there are no results to join",
            path=root,
            hint="run the participant level first, with the same output folder",
        )
    require_reader(root, subjects, choice)
    participants, notes = read_participants(participants_tsv)
    used = [row.scan for row in rows if row.scan]
    notes += _review_notes(used)
    scans = scan_table(rows, participants)
    if participants_tsv is not None:
        # Participants withdrawn from the dataset need no row in its table of participants.
        labels = {row.subject for row in rows if row.status != "withdrawn"}
        notes += missing_participants(participants, labels, participants_tsv.name)
    maps, map_notes = write_frequency_maps(root, used)
    notes += map_notes
    paths = {}
    for name, table in (("group_cmb", scans), ("group_lesions", lesion_table(rows))):
        paths[name] = write_text(root / f"{name}.tsv", table.to_tsv())
        write_json(root / f"{name}.json", table.dictionary)
    page = render_group_page(root, rows, scans, maps, notes)
    return GroupResult(
        scans=paths["group_cmb"],
        lesions=paths["group_lesions"],
        page=write_text(root / "group.html", page),
        maps=tuple(item.path for item in maps),
        statuses=Counter(row.status for row in rows),
        n_reviewed=sum(scan.reviewed for scan in used),
        notes=notes,
    )


def _review_notes(scans: Sequence[ScanResult]) -> tuple[str, ...]:
    """Return a sentence on the reviews that are not used; none without such reviews."""
    found = [
        f"{scan.name} ({'; '.join(scan.reading.warnings)})"
        for scan in scans
        if scan.reading is not None and scan.reading.warnings
    ]
    if not found:
        return ()
    what = "1 scan has a review" if len(found) == 1 else f"{len(found)} scans have reviews"
    return (f"{what} that could not be used: {listing(found)}",)
