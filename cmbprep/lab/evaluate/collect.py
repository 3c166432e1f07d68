"""From two folders to the results of all scans, and a record of what became of each file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.files.text import read_object, read_table
from cmbprep.lab.evaluate.files import (
    DERIVATIVE_ENTITIES,
    FoundScans,
    Pairing,
    ScanFiles,
    find_scans,
    pair_scans,
    parse_name,
)
from cmbprep.lab.evaluate.matching import LesionSet, Rule
from cmbprep.lab.evaluate.reading import read_lesion_set, read_mimics, with_hidden
from cmbprep.lab.evaluate.scoring import ScanResult, score_scan

logger = logging.getLogger(__name__)


# --- Where and how each scan was made: site, protocol, sequence and field strength ---------------
#
# The site is a column of ``participants.tsv``. The others come from the raw scan's name and
# sidecar, or, where the raw dataset is not at hand, from the sidecar of the prediction's
# preprocessed image.


#: Splits whose groups are whole scans.
SCAN_SPLITS = ("protocol", "sequence", "field", "site")
UNKNOWN = "n/a"

_SEQUENCES = ("T2starw", "MEGRE", "swi", "SWI", "GRE")
_SITE_COLUMNS = ("site", "site_id", "center", "centre", "institution")


def find_dataset(truth: Path) -> Path | None:
    """Find the dataset that a truth folder belongs to: the nearest one with participants.tsv.

    The folder itself, or one of the two above it (``<dataset>/derivatives/truth``).
    """
    here = truth.resolve()
    for folder in (here, *list(here.parents)[:2]):
        if (folder / "participants.tsv").is_file():
            return folder
    return None


def read_sites(dataset: Path | None) -> dict[str, str]:
    """Return the site of each subject (label without ``sub-``) as participants.tsv gives it."""
    if dataset is None or not (dataset / "participants.tsv").is_file():
        return {}
    try:
        table = read_table(dataset / "participants.tsv")
    except CmbprepError as error:
        # A split is lost, not the evaluation.
        logger.warning("sites are unknown: %s", error)
        return {}
    for warning in table.warnings:
        logger.warning("%s", warning)
    sites = {}
    for row in table.rows:
        site = next((row[name] for name in _SITE_COLUMNS if row.get(name)), None)
        if site and site != UNKNOWN and row.get("participant_id"):
            sites[row["participant_id"].removeprefix("sub-")] = site
    return sites


def scan_groups(
    truth: ScanFiles,
    predicted: ScanFiles | None,
    *,
    dataset: Path | None,
    output: Path | None,
    sites: dict[str, str],
) -> dict[str, str]:
    """Return the group of a scan in each of :data:`SCAN_SPLITS`; ``n/a`` where unknown."""
    entities = truth.entities | ({} if predicted is None else predicted.entities)
    modality = entities.pop("mod", None)
    made = None
    if output is not None and predicted is not None:
        made = _image(output, entities, modality, preprocessed=True)
    if modality is None and made is not None:
        modality = parse_name(made)[1]
    raw = None if dataset is None else _image(dataset, entities, modality)
    image = raw or made
    sidecar = {} if image is None else _sidecar(image, dataset)
    sequence = UNKNOWN if image is None else parse_name(image)[1]
    strength = sidecar.get("MagneticFieldStrength")
    return {
        "protocol": str(sidecar.get("ProtocolName") or entities.get("acq") or UNKNOWN),
        "sequence": sequence,
        "field": f"{strength:g} T" if isinstance(strength, int | float) else UNKNOWN,
        "site": sites.get(entities["sub"], UNKNOWN),
    }


def _image(
    folder: Path, entities: dict[str, str], modality: str | None, *, preprocessed: bool = False
) -> Path | None:
    """Find the blood-sensitive image that agrees with the entities best."""
    top = folder / f"sub-{entities['sub']}"
    if "ses" in entities:
        top = top / f"ses-{entities['ses']}"
    found = []
    for where in (top / "anat", top / "swi"):
        for path in sorted(where.glob("*.nii*")) if where.is_dir() else ():
            own, suffix, _ = parse_name(path)
            if suffix not in _SEQUENCES or own.get("part") == "phase":
                continue
            if modality is not None and modality not in (suffix, own.get("mod")):
                continue
            if (own.get("desc") == "preproc") is not preprocessed or "space" in own:
                continue
            own = {k: v for k, v in own.items() if k not in DERIVATIVE_ENTITIES}
            if all(own.get(k, v) == v for k, v in entities.items()):
                found.append((-len(own.keys() & entities.keys()), len(own), path.name, path))
    return min(found)[3] if found else None


def _sidecar(image: Path, dataset: Path | None) -> dict[str, object]:
    """Read the sidecar of an image over the one that its dataset gives for its suffix."""
    stem = image.name[: -len(parse_name(image)[2])]
    sources = [] if dataset is None else [dataset / f"{parse_name(image)[1]}.json"]
    merged: dict[str, object] = {}
    for path in (*sources, image.parent / f"{stem}.json"):
        try:
            merged |= read_object(path).content
        except CmbprepError:
            continue  # a split is lost, not the evaluation
    return merged


EVALUATED = "evaluated"
NO_PREDICTION = "no prediction"
NO_TRUTH = "no truth"
NO_RESULT = "no result"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to compare, and which of the predictions count.

    Parameters
    ----------
    output, truth
        Folders of the prediction and of the truth.
    raw
        BIDS dataset with participants.tsv and the scans' sidecars; None to look for it above
        the truth.
    subjects
        Labels; None for all.
    threshold
        Smallest probability that counts; None for all listed lesions (0.5 in bare maps).
    rating
        ``definite`` leaves out predictions rated possible.
    count_diamagnetic
        Whether predictions that the detector itself calls diamagnetic count as microbleeds.
    missing
        ``misses``: a scan with truth but without prediction counts as one in which nothing was
        found. ``leave-out``: it is listed and does not count.
    """

    output: Path
    truth: Path
    raw: Path | None = None
    subjects: Sequence[str] | None = None
    truth_pattern: str | None = None
    prediction_pattern: str | None = None
    rule: Rule = field(default_factory=Rule)
    threshold: float | None = None
    rating: Literal["all", "definite"] = "all"
    count_diamagnetic: bool = False
    missing: Literal["misses", "leave-out"] = "misses"
    mimic_distance_mm: float = 2.0


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """What became of a scan of either side."""

    scan: str
    status: str
    counted: bool
    paired_by: str | None = None
    truth_from: str | None = None
    predicted_from: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Collection:
    """Results of the scans that count, and a record of every scan, in the order of names."""

    results: tuple[ScanResult, ...]
    records: tuple[ScanRecord, ...]


def collect(request: Request, progress: Callable[[int, int], None] | None = None) -> Collection:
    """Read and score all scans.

    Parameters
    ----------
    progress
        Called with the number of scans done and the number of all.

    Raises
    ------
    UsageError
        If a folder or file is wrong, or no scan has both truth and prediction.
    """
    truth = find_scans(request.truth, request.truth_pattern, request.subjects)
    predicted = find_scans(request.output, request.prediction_pattern, request.subjects)
    # Scans without a result take part, so that no other result is taken for theirs.
    pairing = pair_scans([*truth.scans, *truth.gaps], [*predicted.scans, *predicted.gaps])
    work = _work(pairing, predicted)
    if not any(files and not files.gap for _, files, _ in work):
        raise _nothing_paired(request, truth, predicted, work)
    dataset = request.raw or find_dataset(request.truth)
    sites = read_sites(dataset)
    results, records = [], []
    for number, (true_files, files, how) in enumerate(
        sorted(work, key=lambda w: (w[0].name, w[1].name if w[1] else ""))
    ):
        if progress:
            progress(number, len(work))
        if (files is None or files.gap) and request.missing == "leave-out":
            name = _name(true_files, files)
            records.append(
                ScanRecord(scan=name, status=NO_PREDICTION, counted=False, note=_gap(files))
            )
            continue
        groups = scan_groups(true_files, files, dataset=dataset, output=request.output, sites=sites)
        result, record = _score(request, true_files, files, how, groups)
        results.append(result)
        records.append(record)
    records += _unpaired(pairing, predicted, {id(files) for _, files, _ in work})
    if progress:
        progress(len(work), len(work))
    return Collection(tuple(results), tuple(sorted(records, key=lambda r: (r.scan, r.status))))


#: Truth, prediction (None, or one that says why it has no result), how they were paired.
_Work = tuple[ScanFiles, ScanFiles | None, str | None]


def _work(pairing: Pairing, predicted: FoundScans) -> list[_Work]:
    """List the scans with a truth, each with its prediction or why there is none."""
    work: list[_Work] = [pair for pair in pairing.pairs if not pair[0].gap]
    alone = [scan for scan in pairing.truth_only if not scan.gap]
    # Refused files and superseded results explain a gap; they do not take part in pairing.
    known = pair_scans(alone, list(predicted.others))
    reasons = {id(scan): other for scan, other, _ in reversed(known.pairs)}
    return work + [(scan, reasons.get(id(scan)), None) for scan in alone]


def _unpaired(pairing: Pairing, predicted: FoundScans, used: set[int]) -> list[ScanRecord]:
    """Record the scans without a truth: with a result, without one, or superseded."""
    known = [(scan, _gap(scan)) for scan in pairing.predicted_only]
    known += [
        (scan, _gap(scan) or f"truth without a result, {true.gap}")
        for true, scan, _ in pairing.pairs
        if true.gap
    ]
    known += [
        (scan, _gap(scan))
        for scan in predicted.others
        if id(scan) not in used and not str(scan.gap).startswith("refused")
    ]
    rows = [(scan.name, NO_RESULT if scan.gap else NO_TRUTH, note) for scan, note in known]
    rows += [
        (scan.name, NO_TRUTH, f"truth without a result, {scan.gap}")
        for scan in pairing.truth_only
        if scan.gap
    ]
    return [
        ScanRecord(scan=name, status=status, counted=False, note=note)
        for name, status, note in rows
    ]


def _gap(files: ScanFiles | None) -> str | None:
    return None if files is None or not files.gap else f"without a result, {files.gap}"


def _nothing_paired(
    request: Request, truth: FoundScans, predicted: FoundScans, work: list[_Work]
) -> UsageError:
    gaps = [files for _, files, _ in work if files is not None]
    if gaps:
        return UsageError(
            f"no scan of the truth has a result ({gaps[0].name}: {gaps[0].gap})",
            path=request.output,
            hint="run the participant level again",
        )
    return UsageError(
        f"no scan of the truth ({truth.scans[0].name}, ...) has a prediction "
        f"({predicted.scans[0].name}, ...)",
        path=request.output,
        hint="give both the same BIDS entities",
    )


def _score(
    request: Request,
    true_files: ScanFiles,
    files: ScanFiles | None,
    how: str | None,
    groups: dict[str, str],
) -> tuple[ScanResult, ScanRecord]:
    rule = request.rule
    mimics, hidden = read_mimics(true_files)
    truth = with_hidden(read_lesion_set(true_files, connectivity=rule.connectivity), hidden)
    predicted = None
    if files is not None and not files.gap:
        predicted = _counted(
            read_lesion_set(files, connectivity=rule.connectivity, threshold=request.threshold),
            request,
        )
    try:
        result = score_scan(
            truth,
            predicted,
            rule,
            scan=_name(true_files, files),
            subject=true_files.entities["sub"],
            groups=groups,
            mimics=mimics,
            mimic_distance_mm=request.mimic_distance_mm,
        )
    except ValueError as error:
        raise UsageError(
            f"{true_files.name}: {error}", hint="use --match centroid, or give masks"
        ) from error
    record = ScanRecord(
        scan=result.scan,
        status=EVALUATED if predicted is not None else NO_PREDICTION,
        counted=True,
        paired_by=how if predicted is not None else None,
        truth_from=truth.origin,
        predicted_from=None if predicted is None else predicted.origin,
        note=_gap(files) or _note(truth, predicted),
    )
    return result, record


def _name(truth: ScanFiles, predicted: ScanFiles | None) -> str:
    """Name a pair by the side that says more: a truth may stand for several predictions."""
    if predicted is not None and len(predicted.key) > len(truth.key):
        return predicted.name
    return truth.name


def _counted(lesions: LesionSet, request: Request) -> LesionSet:
    marks = tuple(
        mark
        for mark in lesions.marks
        if (request.count_diamagnetic or mark.susceptibility != "diamagnetic")
        and (request.rating == "all" or mark.rating != "possible")
    )
    return replace(lesions, marks=marks)


def _note(truth: LesionSet, predicted: LesionSet | None) -> str | None:
    """Return a warning if the two grids do not overlap: one of the headers must be wrong."""
    if predicted is None or truth.labels is None or predicted.labels is None:
        return None
    low, high = zip(_extent(truth), _extent(predicted), strict=True)
    if np.any(np.max(low, axis=0) > np.min(high, axis=0)):
        return "the two grids have no place in common; check the affines"
    return None


def _extent(lesions: LesionSet) -> tuple[np.ndarray, np.ndarray]:
    assert lesions.labels is not None and lesions.affine is not None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in lesions.labels.shape])).reshape(3, -1).T
    world = corners @ lesions.affine[:3, :3].T + lesions.affine[:3, 3]
    return world.min(axis=0), world.max(axis=0)
