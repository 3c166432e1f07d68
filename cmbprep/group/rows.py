"""Rows of the table of scans: one a scan, and one a file that was refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cmbprep.bids.model import SEQUENCES, parse_name
from cmbprep.outputs.stages import StageRecord
from cmbprep.reports.results import Refused, ScanResult, SubjectResult, parse_entities
from cmbprep.zones.burden import DEFAULT_RULE
from cmbprep.zones.tally import Tally


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table of scans: a scan, or a file that was refused.

    Parameters
    ----------
    subject
        Label of the participant.
    name
        Name of the scan, or of the file that was refused.
    entities
        BIDS entities of the source; a refused file has its unit's participant and session.
    suffix
        BIDS suffix of the source; None if it is not the suffix of a scan.
    status
        One of :data:`.STATUSES`.
    reason
        Why there is no result.
    scan, anatomy
        The scan, and the T1w image that it was registered to; None for a refused file.
    pattern_rule
        Rule of the pattern, one of :data:`.PATTERN_RULES`.
    private
        Whether reasons, warnings and names of readers are left out.
    """

    subject: str
    name: str
    entities: Mapping[str, str]
    suffix: str | None
    status: str
    reason: str | None
    scan: ScanResult | None = None
    anatomy: StageRecord | None = None
    pattern_rule: str = DEFAULT_RULE
    private: bool = False

    @property
    def counts_as_scan(self) -> bool:
        """Whether this is a scan of the dataset: neither refused nor withdrawn."""
        return self.status not in ("refused", "withdrawn")

    @cached_property
    def tally(self) -> Tally | None:
        """The lesions, counted; None where there is no result."""
        if self.scan is None or self.status != "complete":
            return None
        return Tally(self.scan.lesions, self.pattern_rule, self.scan.unseen)

    @cached_property
    def _all_warnings(self) -> tuple[str, ...]:
        own = () if self.scan is None else self.scan.doubts
        other = () if self.anatomy is None else self.anatomy.block.get("Warnings", ())
        return tuple(dict.fromkeys((*own, *map(str, other))))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings on the scan and on its T1w image, each once; none where they are private."""
        return () if self.private else self._all_warnings

    @property
    def n_warnings(self) -> int:
        """Number of warnings, also where they are private."""
        return len(self._all_warnings)

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """The finished stages of the scan, its T1w image's included."""
        own = self.scan.records if self.scan is not None else ()
        return (*own, self.anatomy) if self.anatomy is not None else own


def make_rows(subjects: Sequence[SubjectResult], *, pattern_rule: str = DEFAULT_RULE) -> list[Row]:
    """Make the rows, sorted by participant, session and name."""
    rows = (replace(row, pattern_rule=pattern_rule) for item in subjects for row in _rows(item))
    return sorted(rows, key=lambda row: (row.subject, row.entities.get("ses", ""), row.name))


def _rows(subject: SubjectResult) -> Iterator[Row]:
    anatomies = {f"{item.files.names.src}_T1w": item for item in subject.anatomies}
    for scan in subject.scans:
        given = {} if scan.preproc is None else scan.preproc.block.get("Parameters", {})
        yield Row(
            subject=subject.subject,
            name=scan.name,
            entities={"sub": subject.subject, **parse_entities(scan.name)},
            suffix=_suffix(scan.name),
            status=scan.status,
            reason=scan.reason,
            scan=scan,
            anatomy=anatomies.get(str(given.get("anatomy"))),
        )
    # A scan with earlier results that is refused now has a row already, with the reason.
    withdrawn = {scan.name for scan in subject.scans if scan.status == "withdrawn"}
    for refused in subject.refused:
        row = _refused_row(subject.subject, refused)
        if row.name not in withdrawn:
            yield row


def _refused_row(subject: str, refused: Refused) -> Row:
    # The path of a refused file may be that of a folder, or name another session.
    own = dict(parse_name(refused.path).entities)
    for name in ("sub", "ses"):
        own.pop(name, None)
    return Row(
        subject=subject,
        name=refused.path.rpartition("/")[2].partition(".")[0],
        entities={"sub": subject, **parse_entities(refused.unit), **own},
        suffix=_suffix(refused.path),
        status="refused",
        reason=refused.reason,
    )


def _suffix(name: str) -> str | None:
    # The extension of another image format (.mgz) is not removed by parse_name.
    suffix = parse_name(name).suffix.partition(".")[0]
    return suffix if suffix in SEQUENCES else None
