"""From two folders to the results of all scans, and a record of what became of each file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import UsageError
from .context import find_dataset, read_sites, scan_groups
from .files import ScanFiles, find_scans
from .lesionset import LesionSet
from .matching import Rule
from .pairing import pair_scans
from .reading import read_lesion_set, read_mimics, with_hidden
from .scoring import ScanResult, score_scan

__all__ = ["Collection", "Request", "ScanRecord", "collect"]

EVALUATED = "evaluated"
NO_PREDICTION = "no prediction"
NO_TRUTH = "no truth"


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
    subjects: tuple[str, ...] | None = None
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
    pairing = pair_scans(truth, predicted)
    if not pairing.pairs:
        raise UsageError(
            f"no scan of the truth ({truth[0].name}, ...) has a prediction "
            f"({predicted[0].name}, ...)",
            path=request.output,
            hint="give both the same BIDS entities",
        )
    dataset = request.raw or find_dataset(request.truth)
    sites = read_sites(dataset)
    work: list[tuple[ScanFiles, ScanFiles | None, str | None]] = [*pairing.pairs]
    work += [(scan, None, None) for scan in pairing.truth_only]
    results, records = [], []
    for number, (true_files, files, how) in enumerate(
        sorted(work, key=lambda w: (w[0].name, w[1].name if w[1] else ""))
    ):
        if progress:
            progress(number, len(work))
        if files is None and request.missing == "leave-out":
            records.append(ScanRecord(scan=true_files.name, status=NO_PREDICTION, counted=False))
            continue
        groups = scan_groups(true_files, files, dataset=dataset, output=request.output, sites=sites)
        result, record = _score(request, true_files, files, how, groups)
        results.append(result)
        records.append(record)
    records += [
        ScanRecord(scan=scan.name, status=NO_TRUTH, counted=False)
        for scan in pairing.predicted_only
    ]
    if progress:
        progress(len(work), len(work))
    return Collection(tuple(results), tuple(sorted(records, key=lambda r: (r.scan, r.status))))


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
    if files is not None:
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
        paired_by=how,
        truth_from=truth.origin,
        predicted_from=None if predicted is None else predicted.origin,
        note=_note(truth, predicted),
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
    """Say where two grids have no place in common: one of the headers must be wrong."""
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
