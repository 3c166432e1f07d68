"""Which results of an output dataset may be used further, and why others may not.

Other programs' results are files; those of cmbprep count only where its own records say that
the scan is complete. What is withdrawn, failed, incomplete or superseded may still lie there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cmbprep.errors import CmbprepError
from cmbprep.files.text import read_object
from cmbprep.outputs.names import MARKS, output_stem
from cmbprep.outputs.stages import StageRecord
from cmbprep.reports.results import ScanResult, collect_results, parse_entities

_DESCRIPTION = "dataset_description.json"
#: Folders between a file of a session and the top of its dataset, with one to spare.
_LEVELS = 5
_ENDINGS = ("_seg-CMB_dseg", *(f"_desc-preproc_{suffix}" for suffix in MARKS))


@dataclass(frozen=True, kw_only=True)
class CompleteScan:
    """A scan of which every stage is there and whole."""

    scan: ScanResult
    preproc: StageRecord
    detection: StageRecord


@dataclass(frozen=True, kw_only=True)
class UsableResults:
    """The scans of an output dataset, by the entities that names of their outputs start with.

    Parameters
    ----------
    complete
        Scans with a result.
    unusable
        Status and reason of each scan without a result.
    superseded
        The same of results that are there but count no more.
    refused
        The same of files that were not processed.
    unreadable
        Results without a fault but their lesion table; their scans are among the unusable.
    """

    complete: dict[str, CompleteScan]
    unusable: dict[str, str]
    superseded: dict[str, str]
    refused: dict[str, str]
    unreadable: list[StageRecord]

    def reason(self, stem: str) -> str:
        """Return status and reason of what has no result under a name."""
        for known in (self.unusable, self.superseded, self.refused):
            if stem in known:
                return known[stem]
        return "incomplete (no record of a finished result names it)"


def is_output(folder: Path) -> bool:
    """Check whether a folder is an output dataset of cmbprep, by description or records."""
    if any((folder / "logs").glob("sub-*_inputs.json")):
        return True
    try:
        makers = read_object(folder / _DESCRIPTION).content.get("GeneratedBy")
    except CmbprepError:
        return False
    items = makers if isinstance(makers, list) else []
    return any(isinstance(item, dict) and item.get("Name") == "cmbprep" for item in items)


def find_output(folder: Path) -> Path | None:
    """Find the output dataset of cmbprep that a folder is, or lies in.

    Returns
    -------
    Path or None
        Its top folder; None where the nearest dataset is another program's, or none is near.
    """
    for place in (folder, *folder.parents)[:_LEVELS]:
        if is_output(place):
            return place
        if (place / _DESCRIPTION).exists():
            return None
    return None


def usable_results(root: Path, *, subject: str | None = None) -> UsableResults:
    """Sort the scans of an output dataset into those with and without a result.

    Parameters
    ----------
    root
        The output dataset.
    subject
        Label to restrict it to; None for all.
    """
    found = UsableResults(complete={}, unusable={}, superseded={}, refused={}, unreadable=[])
    for person in collect_results(root, subject=subject):
        for scan in person.scans:
            stem = _stem(scan)
            if scan.status == "complete" and scan.preproc and scan.detection:
                found.complete[stem] = CompleteScan(
                    scan=scan, preproc=scan.preproc, detection=scan.detection
                )
            else:
                _note(found.unusable, stem, scan.status, scan.reason or "")
                if scan.status == "failed" and _ended_by_table(scan) and scan.detection:
                    found.unreadable.append(scan.detection)
        for name in person.superseded:
            if (own := _stem_of_sidecar(name)) is not None:
                _note(found.superseded, own, "superseded", "a later run has made other results")
        for item in person.refused:
            if (source := _stem_of_source(item.path)) is not None:
                _note(found.refused, source, "refused", item.reason)
    # What has a result under this name is not without one.
    for less, than in (
        (found.unusable, (found.complete,)),
        (found.superseded, (found.complete, found.unusable)),
        (found.refused, (found.complete, found.unusable)),
    ):
        for stem in [stem for stem in less if any(stem in other for other in than)]:
            del less[stem]
    return found


def _ended_by_table(scan: ScanResult) -> bool:
    return scan.error is not None and scan.error.get("step") == "report"


def _note(notes: dict[str, str], stem: str, status: str, reason: str) -> None:
    # For tables without quotation marks and lines without breaks.
    text = f"{status} ({' '.join(reason.replace(chr(34), chr(39)).split())})"
    if text not in notes.setdefault(stem, text):
        notes[stem] += f"; {text}"


def _stem(scan: ScanResult) -> str:
    """Return the start of the names of a scan's outputs, also where there are none."""
    return scan.src if scan.records else _expected(parse_entities(scan.name), scan.suffix)


def _stem_of_sidecar(name: str) -> str | None:
    stem = name.removesuffix(".json")
    return next((stem.removesuffix(end) for end in _ENDINGS if stem.endswith(end)), None)


def _stem_of_source(path: str) -> str | None:
    """Return the stem of a refused file; None for one that is no scan, as a T1w image."""
    name = PurePosixPath(path).name.partition(".")[0]
    suffix = name.rpartition("_")[2]
    entities = parse_entities(name)
    if suffix not in MARKS or "sub" not in entities:
        return None
    return _expected({k: v for k, v in entities.items() if k not in ("echo", "part")}, suffix)


def _expected(entities: dict[str, str], suffix: str) -> str:
    try:
        return output_stem(entities, suffix)
    except KeyError:
        return "_".join(f"{key}-{value}" for key, value in entities.items())
