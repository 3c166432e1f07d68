"""What the group page says of the people who have read the scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmbprep.group.rows import Row
from cmbprep.ratings.acts import REASONS, SCAN_QUALITIES

if TYPE_CHECKING:
    from cmbprep.ratings.reading import ScanReading


@dataclass(kw_only=True)
class ReaderSummary:
    """Scans of one reader, over all rounds, by how far they were read.

    Attributes
    ----------
    name
        As the reader writes it.
    done, used, partly, older
        Scans that were read to the end; those of them whose lesions count; those that were begun;
        and those that were read on an older result.
    """

    name: str
    done: int = 0
    used: int = 0
    partly: int = 0
    older: int = 0


@dataclass(kw_only=True)
class Reading:
    """How much of a cohort was read, and what became of the detector's lesions there.

    Attributes
    ----------
    scans, read
        Scans with a result, and those of them with the lesions of readers.
    readers
        By name.
    statuses
        Number of scans by how far they were read.
    rejected
        Reason -> rejected lesions of the detector; a lesion with several reasons is in each.
    n_rejected, n_added
        Lesions of the detector that were rejected, and microbleeds that it had not listed.
    listed, counted
        Lesions that the detector lists in the scans that were read, and microbleeds of the readers.
    """

    scans: int = 0
    read: int = 0
    readers: dict[str, ReaderSummary] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    n_rejected: int = 0
    n_added: int = 0
    listed: int = 0
    counted: int = 0

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Reasons of rejections, in a fixed order, with their numbers."""
        titles = {"sulcus": "sulcus or flow void", "": "no reason given"}
        return [
            (titles.get(reason, reason), self.rejected[reason])
            for reason in (*REASONS, "")
            if self.rejected[reason]
        ]


def noted(reading: ScanReading | None) -> dict[str, str | None]:
    """Return what the readers whose lesions count noted on a scan as a whole.

    Parameters
    ----------
    reading
        The readers of the scan; None where nobody has begun.

    Returns
    -------
    dict
        Values of ``reader_siderosis``, ``reader_quality`` and ``reader_findings`` in the table of
        scans; None where nothing was stated.
    """
    reviews = () if reading is None else reading.used
    notes = [review.state.scan for review in reviews]
    stated = [note.siderosis for note in notes if note.siderosis is not None]
    qualities = [note.quality for note in notes if note.quality is not None]
    # A cell has no line breaks, and the semicolon stands between findings.
    findings = {
        " ".join(text.replace(";", ",").split()) for note in notes for text in note.findings
    }
    rule = None if reading is None else reading.rule
    return {
        "reader_siderosis": _siderosis(stated, rule or "first"),
        "reader_quality": max(qualities, key=SCAN_QUALITIES.index, default=None),
        "reader_findings": "; ".join(sorted(findings - {""})) or None,
    }


def _siderosis(stated: Sequence[bool], rule: str) -> str | None:
    """Return the agreed statement; None where there is none."""
    if not stated:
        return None
    number, present = len(stated), sum(stated)
    if rule == "majority" and 2 * present == number:
        return None
    holds = {
        "any": present > 0,
        "all": present == number,
        "majority": 2 * present > number,
        "first": stated[0],
    }
    return "present" if holds[rule] else "absent"


def summarise_reading(rows: Sequence[Row]) -> Reading:
    """Count what readers have done on the scans that have a result."""
    found = Reading()
    for row in rows:
        if row.tally is None or row.scan is None:
            continue
        found.scans += 1
        reading = row.scan.reading
        if reading is None:
            found.statuses["unread"] += 1
            continue
        found.statuses[reading.status] += 1
        _add_readers(found, row)
        if not reading.reviewed:
            continue
        found.read += 1
        found.listed += len(reading.automatic.lesions)
        found.counted += len(row.tally.counted)
        found.n_rejected += len(reading.rejected)
        found.n_added += len(reading.added)
        for item in reading.rejected:
            found.rejected.update((item.reason or "").split(", "))
    found.readers = dict(sorted(found.readers.items()))
    return found


def _add_readers(found: Reading, row: Row) -> None:
    assert row.scan is not None and row.scan.reading is not None
    reading = row.scan.reading
    used = {review.reader.short for review in reading.used}
    own = {review.reader.short: review.reader.name for review in reading.reviews}
    for short, name in own.items():
        reader = found.readers.setdefault(short, ReaderSummary(name=name))
        reviews = [review for review in reading.reviews if review.reader.short == short]
        if any(review.counts for review in reviews):
            reader.done += 1
        elif any(not review.stale for review in reviews):
            reader.partly += 1
        else:
            reader.older += 1
        reader.used += short in used
