"""What an output dataset says of each scan: one object that all pages and tables start from.

Only the output dataset is read: the sidecars that close each stage, the lesion tables,
and the records under ``logs/`` of what was found, refused and failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError
from cmbprep.lesions import Lesion, read_lesions
from cmbprep.outputs import StageRecord, find_records, read_json

from .headers import read_voxel_size

__all__ = ["Refused", "ScanResult", "SubjectResult", "collect_results", "lesion_number"]

STATUSES = ("complete", "failed", "incomplete")


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """All that is known of one scan.

    Parameters
    ----------
    name
        Source name: entities and suffix.
    src
        Entities that the names of its outputs start with.
    suffix
        Suffix of the source.
    unit
        ``sub-X`` or ``sub-X_ses-Y``.
    preproc, detection
        The finished stages ``preproc`` and ``lesions``; None where there is none.
    lesions
        Rows of the lesion table.
    error
        Record of a failure: ``step``, ``message``, ``traceback``; None where there is none.
    sources
        Names of the raw files.
    warnings
        What was amiss with the input.
    """

    name: str
    src: str
    suffix: str
    unit: str
    preproc: StageRecord | None = None
    detection: StageRecord | None = None
    lesions: tuple[Lesion, ...] = ()
    error: Mapping[str, str] | None = None
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """``complete``, ``failed`` or ``incomplete`` (begun, and never finished)."""
        if self.error is not None:
            return "failed"
        return "complete" if self.detection is not None else "incomplete"

    @property
    def reason(self) -> str | None:
        """Why there is no result, in one sentence."""
        if self.error is not None:
            return self.error.get("message", "").rstrip(".") or "the run ended with an error"
        return None if self.status == "complete" else "the run ended before the scan was done"

    @cached_property
    def entities(self) -> Mapping[str, str]:
        """BIDS entities of the source by short name."""
        return parse_entities(self.name)

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """The finished stages."""
        return tuple(record for record in (self.preproc, self.detection) if record is not None)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Top level of the sidecars: how the scan was acquired."""
        merged: dict[str, Any] = {}
        for record in self.records:
            merged.update(record.metadata)
        return merged

    @cached_property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Voxel size of the scan, mm, from the header of its prepared image."""
        if self.preproc is not None:
            return read_voxel_size(self.preproc.files.path("preproc"))
        if self.detection is not None:
            return read_voxel_size(self.detection.files.path("dseg"))
        return None

    @property
    def doubts(self) -> tuple[str, ...]:
        """Every warning on the scan, from its input to its lesions, each once."""
        found = list(self.warnings)
        for record in self.records:
            found += [str(text) for text in record.block.get("Warnings", ())]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A file that was not processed, and why."""

    unit: str
    path: str
    reason: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class SubjectResult:
    """All that is known of one participant, over the sessions."""

    subject: str
    scans: tuple[ScanResult, ...] = ()
    anatomies: tuple[StageRecord, ...] = ()
    refused: tuple[Refused, ...] = ()


def parse_entities(name: str) -> dict[str, str]:
    """Split a BIDS name into entities.

    Examples
    --------
    >>> parse_entities("sub-1_acq-fast_T2starw")
    {'sub': '1', 'acq': 'fast'}
    """
    pairs = (part.partition("-") for part in name.split("_"))
    return {key: value for key, dash, value in pairs if dash}


def lesion_number(lesion: Lesion) -> str:
    """Give the number in a lesion's name, as figure names have it: three digits."""
    match = re.search(r"(\d+)$", lesion.name)
    return f"{int(match.group(1)) if match else lesion.index:03d}"


def collect_results(root: Path, *, subject: str | None = None) -> list[SubjectResult]:
    """Read what an output dataset holds, participants and scans in the order of their names.

    Parameters
    ----------
    root
        The output dataset.
    subject
        Label to restrict it to; None for all.
    """
    drafts: dict[str, _Draft] = {}
    label = subject or "*"
    for place in (f"sub-{label}_inputs.json", f"sub-{label}_ses-*_inputs.json"):
        for path in sorted((root / "logs").glob(place)):
            _add_inputs(drafts, read_json(path))
    for record in find_records(root, "anatomy", subject=subject):
        _draft(drafts, record.files.names.subject).anatomies.append(record)
    for stage in ("preproc", "lesions"):
        for record in find_records(root, stage, subject=subject):
            _add_record(drafts, stage, record)
    for path in sorted((root / "logs").glob(f"sub-{label}_*_error.json")):
        _add_error(drafts, read_json(path))
    return [drafts[key].freeze() for key in sorted(drafts)]


@dataclass
class _Draft:
    """A participant's results while they are being gathered: scan name -> its parts."""

    subject: str
    scans: dict[str, dict[str, Any]] = field(default_factory=dict)
    anatomies: list[StageRecord] = field(default_factory=list)
    refused: dict[tuple[str, str], Refused] = field(default_factory=dict)

    def scan(self, name: str) -> dict[str, Any]:
        """Give the parts of a scan, which are made on first sight."""
        if name not in self.scans:
            stem, _, suffix = name.rpartition("_")
            entities = parse_entities(name)
            unit = f"sub-{self.subject}" + (f"_ses-{entities['ses']}" if "ses" in entities else "")
            self.scans[name] = {"name": name, "src": stem, "suffix": suffix, "unit": unit}
        return self.scans[name]

    def freeze(self) -> SubjectResult:
        return SubjectResult(
            subject=self.subject,
            scans=tuple(ScanResult(**self.scans[name]) for name in sorted(self.scans)),
            anatomies=tuple(self.anatomies),
            refused=tuple(self.refused[key] for key in sorted(self.refused)),
        )


def _draft(drafts: dict[str, _Draft], subject: str) -> _Draft:
    return drafts.setdefault(subject, _Draft(subject))


def _add_inputs(drafts: dict[str, _Draft], content: Mapping[str, Any]) -> None:
    unit = str(content.get("unit", ""))
    draft = _draft(drafts, parse_entities(unit).get("sub", unit))
    for scan in content.get("scans", ()):
        parts = draft.scan(str(scan["name"]))
        parts["sources"] = tuple(map(str, scan.get("files", ())))
        parts["warnings"] = tuple(map(str, scan.get("warnings", ())))
    for entry in content.get("refused", ()):
        values = {key: str(entry.get(key, "")) for key in ("path", "reason", "hint")}
        draft.refused[values["path"], unit] = Refused(unit=unit, **values)


def _add_record(drafts: dict[str, _Draft], stage: str, record: StageRecord) -> None:
    names = record.files.names
    draft = _draft(drafts, names.subject)
    # The scan's own name: its outputs may be called otherwise, to tell them apart.
    parts = draft.scan(str(record.block.get("Scan", f"{names.src}_{names.suffix}")))
    parts["src"] = names.src
    if stage == "preproc":
        parts["preproc"] = record
        return
    table = record.files.path("table")
    try:
        parts["lesions"] = tuple(read_lesions(table))
    except (OSError, CmbprepError) as error:
        # A result that cannot be read is no result, and above all no count of zero.
        message = f"the lesion table {table.name} cannot be read ({_without_folder(error)})"
        parts["error"] = {"step": "report", "message": message, "traceback": ""}
    parts["detection"] = record


def _without_folder(error: Exception) -> str:
    return error.message if isinstance(error, CmbprepError) else type(error).__name__


def _add_error(drafts: dict[str, _Draft], content: Mapping[str, Any]) -> None:
    name = str(content.get("scan", ""))
    draft = _draft(drafts, parse_entities(name).get("sub", ""))
    draft.scan(name)["error"] = {
        key: str(content.get(key) or "") for key in ("step", "message", "traceback")
    }
