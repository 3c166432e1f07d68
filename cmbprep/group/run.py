"""From an output dataset to the files of the group level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cmbprep.errors import UsageError
from cmbprep.group.frequency import FrequencyMap, write_frequency_maps
from cmbprep.group.participants import missing_participants, read_participants
from cmbprep.group.tables import LesionTable, ScanTable
from cmbprep.outputs.files import write_json, write_text
from cmbprep.reports.results import collect_results

__all__ = ["GroupResult", "run_group"]


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What a group level has made.

    Parameters
    ----------
    scans, lesions, page
        The two tables and the page.
    maps
        Frequency maps, one a template; empty where none could be made.
    n_scans, n_complete, n_failed, n_refused, n_withdrawn
        Rows of the table of scans by status; incomplete scans count as failed.
    n_incomplete
        How many of the failed ones are incomplete.
    notes
        What could not be done and why, in sentences.
    """

    scans: Path
    lesions: Path
    page: Path
    maps: tuple[Path, ...]
    n_scans: int
    n_complete: int
    n_failed: int
    n_refused: int
    n_withdrawn: int = 0
    n_incomplete: int = 0
    notes: tuple[str, ...] = ()


def run_group(root: Path, *, participants_tsv: Path | None) -> GroupResult:
    """Join the results of all participants.

    Parameters
    ----------
    root
        The output dataset; nothing else is read, but for
    participants_tsv
        the table of participants, whose columns are joined to the rows; None if there
        is none.

    Returns
    -------
    GroupResult
        Paths, numbers, and what could not be done. The same results give the same bytes.

    Raises
    ------
    UsageError
        If the output dataset holds no results.
    """
    root = Path(root)
    subjects = collect_results(root)
    if not any(subject.scans or subject.refused for subject in subjects):
        raise UsageError(
            "there are no results to join",
            path=root,
            hint="run the participant level first, with the same output folder",
        )
    participants, notes = read_participants(participants_tsv)
    scans = ScanTable.build(subjects, participants)
    if participants_tsv is not None:
        # Participants withdrawn from the dataset need no row in its table of participants.
        labels = {row.subject for row in scans.rows if row.status != "withdrawn"}
        notes += missing_participants(participants, labels, participants_tsv.name)
    lesions = LesionTable.build(subjects)
    maps, map_notes = write_frequency_maps(root, [s for item in subjects for s in item.scans])
    result = GroupResult(
        scans=write_text(root / "group_cmb.tsv", scans.to_tsv()),
        lesions=write_text(root / "group_lesions.tsv", lesions.to_tsv()),
        page=root / "group.html",
        maps=tuple(item.path for item in maps),
        n_scans=len(scans.rows),
        n_complete=scans.count("complete"),
        n_failed=scans.count("failed") + scans.count("incomplete"),
        n_refused=scans.count("refused"),
        n_withdrawn=scans.count("withdrawn"),
        n_incomplete=scans.count("incomplete"),
        notes=(*notes, *map_notes),
    )
    write_json(root / "group_cmb.json", scans.dictionary())
    write_json(root / "group_lesions.json", lesions.dictionary())
    _write_page(root, scans, maps, result)
    return result


def _write_page(
    root: Path, scans: ScanTable, maps: list[FrequencyMap], result: GroupResult
) -> None:
    from cmbprep.group.page import render_group_page

    write_text(result.page, render_group_page(root, scans, maps, result.notes))
