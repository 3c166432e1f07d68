"""What an output dataset says of each scan: one object that all pages and tables start from.

Only the output dataset is read: the sidecars that close each stage, the lesion tables,
and the records under ``logs/`` of what was found, refused, withdrawn and failed. The last
run's record of a scan says which results belong to it, by sidecar and fingerprint. Results
with another fingerprint are of other input or settings and are not used; damaged files
make a scan one without a result and stop nothing.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cmbprep.bids.nifti_header import BLOCK_SIZE, parse_header
from cmbprep.errors import CmbprepError, about
from cmbprep.files.text import shorten
from cmbprep.files.tsv import listing
from cmbprep.lesions import ZONES, Lesion
from cmbprep.outputs.files import read_json
from cmbprep.outputs.names import output_stem
from cmbprep.outputs.records import entries_of
from cmbprep.outputs.stages import STAGES, StageRecord, find_records, read_record

if TYPE_CHECKING:
    from cmbprep.ratings.reading import ScanReading

logger = logging.getLogger("cmbprep")

#: Status of a scan, or of a file that was refused -> what it means.
STATUSES = {
    "complete": "There is a result.",
    "failed": "The scan could not be processed; counts are n/a.",
    "incomplete": "The run ended before the scan was done; counts are n/a.",
    "refused": "The file is no scan that can be used; counts are n/a.",
    "withdrawn": "The scan is no longer in the dataset; counts are n/a, and the scan is in no "
    "other table, summary or map.",
}


_LABEL = re.compile(r"[A-Za-z0-9+]+")

#: Bytes of a compressed image in which its header ends, with the name that gzip may keep.
_PACKED_HEADER = 4096

#: Smallest part of a zone seen with which its microbleeds count as all seen.
MIN_COVERAGE = 0.8


def read_voxel_size(path: Path) -> tuple[float, float, float] | None:
    """Read the voxel size of a ``.nii.gz``, mm; None where it cannot be read.

    Only the beginning of the file is unpacked, so that a group level over thousands of
    scans takes seconds.
    """
    try:
        # Opening a pipe would wait for a writer that never comes.
        if not path.is_file():
            return None
        with open(path, "rb") as stream:
            packed = stream.read(_PACKED_HEADER)
        # 16: with the header of gzip.
        block = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(packed, BLOCK_SIZE)
        header, _ = parse_header(block, path)
    except (OSError, zlib.error, CmbprepError):
        return None
    sizes = [float(size) for size in header["pixdim"][1:4]]
    if not all(0 < size < 1000 for size in sizes):
        return None
    return sizes[0], sizes[1], sizes[2]


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
        Rows of the lesion table; the lesions of the readers where a review is applied
        (:mod:`.reviewed`).
    reading
        What readers have made of the scan; None where reviews were not looked for.
    error
        Record of a failure: ``step``, ``message``, ``traceback``; None where there is none.
    problem
        What is missing or damaged of a scan that did not fail; None if all is there.
    withdrawn
        Why earlier results of this scan count no more; None for a scan of the dataset.
    sources
        Names of the raw files.
    warnings
        What was amiss with the input.
    edits
        How the lesion table differs from what the program wrote, in sentences.
    damaged
        Whether the lesion table is damaged and not used.
    """

    name: str
    src: str
    suffix: str
    unit: str
    preproc: StageRecord | None = None
    detection: StageRecord | None = None
    lesions: tuple[Lesion, ...] = ()
    reading: ScanReading | None = None
    error: Mapping[str, str] | None = None
    problem: str | None = None
    withdrawn: str | None = None
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def status(self) -> str:
        """One of :data:`STATUSES`; ``incomplete`` where a stage is missing."""
        if self.withdrawn is not None:
            return "withdrawn"
        if self.error is not None:
            return "failed"
        whole = self.problem is None and len(self.records) == 2
        return "complete" if whole else "incomplete"

    @property
    def reason(self) -> str | None:
        """Why there is no result, in one sentence."""
        if self.withdrawn is not None:
            return self.withdrawn
        if self.error is not None:
            return self.error.get("message", "").rstrip(".") or "the run ended with an error"
        if self.status == "complete":
            return None
        return self.problem or "the run ended before the scan was done"

    @property
    def automatic_lesions(self) -> tuple[Lesion, ...]:
        """Lesions of the detector, also where a review is applied."""
        return self.lesions if self.reading is None else self.reading.automatic.lesions

    @property
    def reviewed(self) -> bool:
        """Whether the lesions are those of readers."""
        return self.reading is not None and self.reading.reviewed

    @cached_property
    def entities(self) -> Mapping[str, str]:
        """BIDS entities of the source by short name."""
        return parse_entities(self.name)

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """The finished stages."""
        return tuple(record for record in (self.preproc, self.detection) if record is not None)

    def recorded(self, key: str) -> Any:
        """Return what the first stage that has it recorded under a key; None if none has it."""
        return next((found for record in self.records if (found := record.block.get(key))), None)

    @property
    def scheme(self) -> str | None:
        """Name of the rating scheme; None without a finished detection."""
        return None if self.detection is None else self.detection.files.names.scheme.upper()

    @property
    def template(self) -> str | None:
        """Template that the lesions were brought to; None without a finished detection."""
        return None if self.detection is None else self.detection.files.names.template

    @cached_property
    def coverage(self) -> Mapping[str, float | None]:
        """Part of each zone that is seen, 0 to 1; None where it is not recorded."""
        found = {} if self.detection is None else self.detection.block.get("Coverage")
        values = found if isinstance(found, dict) else {}
        return {zone: values[zone] if _is_part(values.get(zone)) else None for zone in ZONES}

    @property
    def unseen(self) -> frozenset[str]:
        """Zones of which less than :data:`MIN_COVERAGE` is known to be seen.

        Older results record no coverage of zones. They show every zone where the registration
        found that much of the whole brain in the field of view.
        """
        parts = self.coverage
        if all(part is None for part in parts.values()):
            parts = dict.fromkeys(ZONES, self.brain_in_view)
        return frozenset(z for z, part in parts.items() if part is None or part < MIN_COVERAGE)

    @property
    def brain_in_view(self) -> float | None:
        """Part of the brain in the field of view, 0 to 1; None without a usable registration."""
        quality = {} if self.preproc is None else self.preproc.block.get("Quality", {})
        found = [
            item["overlap"]
            for key, item in quality.items()
            if key.endswith("_registration")
            and isinstance(item, dict)
            and item.get("verdict") != "failed"
            and _is_part(item.get("overlap"))
        ]
        return min(found, default=None)

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
        """Every warning on the scan, from its input to its reviews, each once."""
        found = [*self.warnings, *self.edits]
        for record in self.records:
            found += [str(text) for text in record.block.get("Warnings", ())]
        if self.reading is not None:
            found += self.reading.warnings
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
    """All that is known of one participant, over the sessions.

    Parameters
    ----------
    anatomies
        The T1w images that the scans were processed with.
    superseded
        Sidecars of results that count no more: names in the participant's folder.
    """

    subject: str
    scans: tuple[ScanResult, ...] = ()
    anatomies: tuple[StageRecord, ...] = ()
    refused: tuple[Refused, ...] = ()
    superseded: tuple[str, ...] = ()


def parse_entities(name: str) -> dict[str, str]:
    """Split a BIDS name into entities.

    Examples
    --------
    >>> parse_entities("sub-1_acq-fast_T2starw")
    {'sub': '1', 'acq': 'fast'}
    """
    pairs = (part.partition("-") for part in name.split("_"))
    return {key: value for key, dash, value in pairs if dash}


def _is_part(value: Any) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def lesion_number(lesion: Lesion) -> str:
    """Return the number in a lesion's name, as figure names have it: three digits."""
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
    places = (f"sub-{label}_inputs.json", f"sub-{label}_ses-*_inputs.json")
    # Without a subject, the first pattern matches the records of sessions too.
    for path in sorted({path for place in places for path in (root / "logs").glob(place)}):
        try:
            with about(path.name, hint="run the participant level again for this participant"):
                _add_inputs(drafts, root, path)
        except CmbprepError as error:
            # What there is of the unit's scans is found by its results below.
            logger.warning("%s", error)
    known = {path for draft in drafts.values() for path in draft.used}
    for record in find_records(root, *STAGES, subject=subject, known=known):
        _draft(drafts, record.files.names.subject).add_record(record)
    unrecorded = sorted(name for draft in drafts.values() for name in draft.unrecorded)
    if unrecorded:
        logger.warning(
            "%s: there is no sound record of the last run in logs/; all results that are there "
            "are used",
            listing(unrecorded),
        )
    for path in sorted((root / "logs").glob(f"sub-{label}_*_error.json")):
        _add_error(drafts, root, path)
    return [drafts[key].freeze() for key in sorted(drafts)]


@dataclass
class _Draft:
    """A participant's results while they are being gathered: scan name -> its parts."""

    subject: str
    scans: dict[str, dict[str, Any]] = field(default_factory=dict)
    anatomies: dict[Path, StageRecord] = field(default_factory=dict)
    refused: dict[tuple[str, str], Refused] = field(default_factory=dict)
    #: Units whose record says which results belong to each scan.
    settled: set[str] = field(default_factory=set)
    #: Sidecars that a record refers to, and those that nothing refers to.
    used: set[Path] = field(default_factory=set)
    superseded: set[str] = field(default_factory=set)
    #: Units whose results are used as they are found.
    unrecorded: set[str] = field(default_factory=set)

    def scan(self, name: str) -> dict[str, Any]:
        """Return the parts of a scan, which are made on first sight."""
        if name not in self.scans:
            stem, _, suffix = name.rpartition("_")
            self.scans[name] = {
                "name": name,
                "src": stem,
                "suffix": suffix,
                "unit": _unit_of(name, self.subject),
            }
        return self.scans[name]

    def add_planned(self, root: Path, entry: Mapping[str, Any]) -> None:
        """Add a scan with the results that its record names, if they are there and whole."""
        parts = self.scan(str(entry["name"]))
        problems = []
        for stage, wanted in entry["stages"].items():
            try:
                record = _planned_record(root, stage, wanted)
                self._check_owner(record, str(entry["name"]))
            except CmbprepError as error:
                problems.append(f"{stage}: {_within(root, error)}")
                continue
            self.used.add(record.files.sidecar)
            if stage == "anatomy":
                self.anatomies[record.files.sidecar] = record
            else:
                _add_stage(parts, stage, record)
        if problems:
            parts["problem"] = "; ".join(problems)

    def _check_owner(self, record: StageRecord, name: str) -> None:
        """Refuse a result that the record of a run gives to another scan than its own."""
        own = record.files.stage == "anatomy" or record.block.get("Scan", name) == name
        if record.files.names.subject != self.subject or not own:
            raise CmbprepError(f"{record.files.sidecar.name} is the result of another scan")

    def add_record(self, record: StageRecord) -> None:
        """Add a result that was found by its name alone, where no record tells more."""
        sidecar, names = record.files.sidecar, record.files.names
        unit = f"sub-{names.subject}" + (f"_ses-{names.session}" if names.session else "")
        name = record.block.get("Scan", f"{names.src}_{names.suffix}")
        if unit in self.settled:
            self.superseded.add(sidecar.name)
            if record.files.stage != "anatomy" and name not in self.scans:
                # Not withdrawn, and yet unknown to the last run: its record was changed.
                self.scan(name)["problem"] = (
                    "there are results, but the record of the last run does not name this scan; "
                    "run the participant level again"
                )
            return
        self.unrecorded.add(unit)
        if record.files.stage == "anatomy":
            self.anatomies[sidecar] = record
            return
        parts = self.scan(name)
        key = "preproc" if record.files.stage == "preproc" else "detection"
        if key in parts and names.src != _expected_stem(name):
            self.superseded.add(sidecar.name)
            return
        if key in parts:
            self.superseded.add(parts[key].files.sidecar.name)
        _add_stage(parts, record.files.stage, record)

    def freeze(self) -> SubjectResult:
        return SubjectResult(
            subject=self.subject,
            scans=tuple(ScanResult(**self.scans[name]) for name in sorted(self.scans)),
            anatomies=tuple(self.anatomies[key] for key in sorted(self.anatomies)),
            refused=tuple(self.refused[key] for key in sorted(self.refused)),
            superseded=tuple(sorted(self.superseded)),
        )


def _unit_of(name: str, subject: str) -> str:
    entities = parse_entities(name)
    return f"sub-{subject}" + (f"_ses-{entities['ses']}" if "ses" in entities else "")


def _is_of(unit: str, name: str) -> bool:
    """Return whether a scan is of a unit, by its name."""
    return _unit_of(name, parse_entities(name).get("sub", "")) == unit


def _expected_stem(name: str) -> str | None:
    """Return the stem that outputs of a scan have, if its suffix is one of a scan."""
    try:
        return output_stem(parse_entities(name), name.rpartition("_")[2])
    except KeyError:
        return None


def _draft(drafts: dict[str, _Draft], subject: str) -> _Draft:
    return drafts.setdefault(subject, _Draft(subject))


def _planned_record(root: Path, stage: str, wanted: Any) -> StageRecord:
    """Read the result of a stage that a record names.

    Raises
    ------
    CmbprepError
        If it is not there, is damaged, or was made from other input or parameters.
    """
    place = str(wanted.get("sidecar", "")) if isinstance(wanted, dict) else ""
    parts = PurePosixPath(place).parts
    if not parts or not parts[0].startswith("sub-") or ".." in parts:
        raise CmbprepError("the record of the run is damaged")
    sidecar = root.joinpath(*parts)
    # A link whose target is not there is told apart from a file that was never written.
    if not os.path.lexists(sidecar):
        raise CmbprepError("the run ended before this stage was done")
    record = read_record(root, sidecar)
    if record is None or record.files.stage != stage:
        raise CmbprepError(f"{sidecar.name} is not the sidecar of this stage")
    if record.block.get("Fingerprint") != wanted.get("fingerprint"):
        raise CmbprepError(
            "the result that is there was made from other input, parameters or version"
        )
    if broken := record.broken_file():
        raise CmbprepError(broken)
    return record


def _add_stage(parts: dict[str, Any], stage: str, record: StageRecord) -> None:
    """Add a finished stage to the parts of a scan, with its lesions."""
    # The outputs may be called otherwise than the scan, to tell them apart.
    parts["src"] = record.files.names.src
    if stage == "preproc":
        parts["preproc"] = record
        return
    parts["detection"] = record
    try:
        parts["lesions"] = tuple(record.lesions())
        parts["edits"] = record.edits()
    except CmbprepError as error:
        # A result that cannot be read is no result, and above all no count of zero.
        table = record.files.path("table").name
        message = f"the lesion table {table} is not used: {error.message}"
        parts["error"] = {"step": "report", "message": message, "traceback": ""}
        parts["damaged"] = True


def _add_inputs(drafts: dict[str, _Draft], root: Path, path: Path) -> None:
    """Add what the record of a unit says; one of another unit would change another person."""
    content = read_json(path)
    unit = str(content.get("unit", ""))
    subject = parse_entities(unit).get("sub", "")
    if not _LABEL.fullmatch(subject) or path.name != f"{unit}_inputs.json":
        raise CmbprepError(f"the record is of {shorten(unit)!r}, which is not what it is named for")
    draft = _draft(drafts, subject)
    entries, withdrawn = (
        [entry for entry in entries_of(content, key) if _is_of(unit, entry["name"])]
        for key in ("scans", "withdrawn")
    )
    if all(isinstance(entry.get("stages"), dict) for entry in entries) and "withdrawn" in content:
        draft.settled.add(unit)
    for entry in entries:
        parts = draft.scan(entry["name"])
        parts["sources"] = _texts(entry.get("files"))
        parts["warnings"] = _texts(entry.get("warnings"))
        if isinstance(entry.get("stages"), dict):
            draft.add_planned(root, entry)
    for entry in withdrawn:
        draft.scan(entry["name"])["withdrawn"] = str(entry.get("reason") or "withdrawn")
    refused = content.get("refused", ())
    for item in refused if isinstance(refused, list) else ():
        if isinstance(item, dict):
            values = {key: str(item.get(key) or "") for key in ("path", "reason", "hint")}
            values["reason"] = values["reason"] or "the record of the run does not say why"
            draft.refused[values["path"], unit] = Refused(unit=unit, **values)


def _within(root: Path, error: CmbprepError) -> str:
    """Return the text of an error; tables are the same wherever the output folder lies."""
    return str(error).rstrip(".").replace(f"{root}/", "")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _add_error(drafts: dict[str, _Draft], root: Path, path: Path) -> None:
    """Add the record of a failure; one that is damaged still says that the scan failed."""
    name = path.name.removesuffix("_error.json")
    subject = parse_entities(name).get("sub", "")
    if not _LABEL.fullmatch(subject):
        return
    try:
        content = read_json(path)
    except CmbprepError as error:
        damage = _within(root, error)
        content = {"message": f"the scan failed, and the record of it is damaged ({damage})"}
    draft = _draft(drafts, subject)
    unit = _unit_of(name, draft.subject)
    if unit in draft.settled and name not in draft.scans:
        return  # a scan that is no longer in the dataset
    draft.scan(name)["error"] = {
        key: str(content.get(key) or "") for key in ("step", "message", "traceback")
    }
