"""Results with the lesions of readers in place of the detector's, where scans were read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.errors import UsageError
from cmbprep.outputs.stages import StageRecord, result_folders
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.store import Reader
from cmbprep.reports.results import ScanResult, SubjectResult, collect_results

if TYPE_CHECKING:
    from cmbprep.ratings.automatic import Automatic

_LOG = re.compile(r"_desc-reviewed[1-9][0-9]*([a-z][a-z0-9]*)_acts\.jsonl$")


def find_readers(root: Path, *, subject: str | None = None) -> list[str]:
    """Return the short names of all who have begun to read, from the names of their logs.

    Parameters
    ----------
    root
        The output dataset.
    subject
        Label to restrict it to; None for all.
    """
    return sorted(
        {match[1] for name in _review_files(root, subject) if (match := _LOG.search(name))}
    )


def _review_files(root: Path, subject: str | None) -> Iterator[str]:
    """Return the names of all files of reviews."""
    for _, names in result_folders(root, subject=subject):
        yield from (name for name in names if "_desc-reviewed" in name)


def collect_reviewed(
    root: Path, choice: ReaderChoice, *, subject: str | None = None
) -> list[SubjectResult]:
    """Read what an output dataset holds, as :func:`.collect_results`, with the reviews applied.

    A scan that was read to the end has the lesions of its readers, and its field ``reading``
    says what became of the detector's. Every other scan keeps its automatic lesions.

    Parameters
    ----------
    root
        The output dataset.
    choice
        Whose reviews count.
    subject
        Label to restrict it to; None for all.
    """
    subjects = collect_results(root, subject=subject)
    if not any(_review_files(root, subject)):
        return subjects
    return [_read_subject(person, choice) for person in subjects]


def require_reader(root: Path, subjects: Iterable[SubjectResult], choice: ReaderChoice) -> None:
    """Require that the options name a reader who is there, and one of several.

    Parameters
    ----------
    root
        The output dataset.
    subjects
        From :func:`collect_reviewed`.
    choice
        What the options have chosen.

    Raises
    ------
    UsageError
        If the reader has read no scan of the dataset, or several readers have read scans to the
        end and it is not chosen whose lesions count.
    """
    readers = find_readers(root)
    if choice.reader is not None and Reader(name=choice.reader).short not in readers:
        raise UsageError(
            f"there is no review by {choice.reader!r}",
            path=root,
            hint=f"the readers are {', '.join(readers)}; give one of these names"
            if readers
            else "nobody has read these scans; begin with cmbprep-tools review",
        )
    if readers:
        from cmbprep.ratings.reading import require_choice

        scans = (scan for person in subjects for scan in person.scans)
        require_choice([scan.reading for scan in scans if scan.reading is not None], choice)


def _read_subject(subject: SubjectResult, choice: ReaderChoice) -> SubjectResult:
    scans = tuple(_read_scan(scan, subject, choice) for scan in subject.scans)
    return replace(subject, scans=scans)


def automatic_result(scan: ScanResult, anatomies: Sequence[StageRecord] = ()) -> Automatic | None:
    """Return a scan as a review looks at it; None if its result is not complete.

    Parameters
    ----------
    scan
        The scan.
    anatomies
        Stages of the T1w images of its participant: without them, a scan that was registered
        through its T1w image has no place in the template's space.
    """
    from cmbprep.ratings.automatic import Automatic, find_anatomy

    if scan.status != "complete" or scan.preproc is None or scan.detection is None:
        return None
    return Automatic(
        name=scan.name,
        preproc=scan.preproc,
        detection=scan.detection,
        anatomy=find_anatomy(scan.preproc, anatomies),
        lesions=scan.lesions,
    )


def _read_scan(scan: ScanResult, subject: SubjectResult, choice: ReaderChoice) -> ScanResult:
    from cmbprep.ratings.reading import read_scan

    automatic = automatic_result(scan, subject.anatomies)
    if automatic is None:
        return scan
    reading = read_scan(automatic, choice)
    return replace(scan, lesions=reading.lesions, reading=reading)
