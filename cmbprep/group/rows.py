"""Rows of the table of scans: one a scan, and one a file that was refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cmbprep.bids.model import SEQUENCES, parse_name
from cmbprep.outputs.stages import StageRecord
from cmbprep.reports.results import Refused, ScanResult, SubjectResult, parse_entities
from cmbprep.reports.tally import Tally

__all__ = ["Row", "make_rows"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table of scans: a scan, or a file that was refused."""

    subject: str
    scan: ScanResult | None = None
    refused: Refused | None = None
    anatomy: StageRecord | None = None

    @property
    def name(self) -> str:
        """Name of the scan, or of the file that was refused."""
        if self.scan is not None:
            return self.scan.name
        assert self.refused is not None
        return self.refused.path.rpartition("/")[2].partition(".")[0]

    @cached_property
    def entities(self) -> Mapping[str, str]:
        """BIDS entities of the source; a refused file has its unit's participant and session."""
        if self.refused is None:
            return {"sub": self.subject, **parse_entities(self.name)}
        # The path of a refused file may be that of a folder, or name another session.
        own = dict(parse_name(self.refused.path).entities)
        for name in ("sub", "ses"):
            own.pop(name, None)
        return {"sub": self.subject, **parse_entities(self.refused.unit), **own}

    @property
    def suffix(self) -> str | None:
        """BIDS suffix of the source; None if it is not the suffix of a scan."""
        name = self.name if self.refused is None else self.refused.path
        # The extension of another image format (.mgz) is not removed by parse_name.
        suffix = parse_name(name).suffix.partition(".")[0]
        return suffix if suffix in SEQUENCES else None

    @property
    def counts_as_scan(self) -> bool:
        """Whether this is a scan of the dataset: neither refused nor withdrawn."""
        return self.status not in ("refused", "withdrawn")

    @property
    def status(self) -> str:
        """One of :data:`.STATUSES`."""
        return "refused" if self.scan is None else self.scan.status

    @property
    def reason(self) -> str | None:
        """Why there is no result."""
        if self.refused is not None:
            return self.refused.reason
        return None if self.scan is None else self.scan.reason

    @cached_property
    def tally(self) -> Tally | None:
        """The lesions, counted; None where there is no result."""
        if self.scan is None or self.scan.status != "complete":
            return None
        return Tally(self.scan.lesions)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Warnings on the scan and on its T1w image, each once."""
        own = () if self.scan is None else self.scan.doubts
        other = () if self.anatomy is None else self.anatomy.block.get("Warnings", ())
        return tuple(dict.fromkeys((*own, *map(str, other))))

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """The finished stages of the scan, its T1w image's included."""
        own = self.scan.records if self.scan is not None else ()
        return (*own, self.anatomy) if self.anatomy is not None else own


def make_rows(subjects: Sequence[SubjectResult]) -> list[Row]:
    """Make the rows, sorted by participant, session and name."""
    return sorted(_rows(subjects), key=_order)


def _rows(subjects: Sequence[SubjectResult]) -> Iterator[Row]:
    for subject in subjects:
        anatomies = {f"{item.files.names.src}_T1w": item for item in subject.anatomies}
        for scan in subject.scans:
            yield Row(subject=subject.subject, scan=scan, anatomy=_anatomy(scan, anatomies))
        # A scan with earlier results that is refused now has a row already, with the reason.
        withdrawn = {scan.name for scan in subject.scans if scan.status == "withdrawn"}
        for refused in subject.refused:
            row = Row(subject=subject.subject, refused=refused)
            if row.name not in withdrawn:
                yield row


def _anatomy(scan: ScanResult, anatomies: Mapping[str, StageRecord]) -> StageRecord | None:
    """Find the T1w image that a scan was registered to."""
    if scan.preproc is None:
        return None
    return anatomies.get(str(scan.preproc.block.get("Parameters", {}).get("anatomy")))


def _order(row: Row) -> tuple[str, str, str]:
    return (row.subject, row.entities.get("ses", ""), row.name)
