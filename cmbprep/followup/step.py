"""Compute the follow-up of a pair of visits and write it; what is there already is reused."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep import __version__
from cmbprep.errors import CmbprepError, ScanError
from cmbprep.followup.pair import BLOCK, FollowUp, ScanPair, read_pair
from cmbprep.followup.registration import VisitRegistration, register_visits
from cmbprep.followup.scan import FollowedScan
from cmbprep.followup.status import RULES, Fate, follow_lesions, unassessed
from cmbprep.followup.table import COLUMNS, format_followup
from cmbprep.outputs.files import (
    file_digest,
    read_json,
    write_atomically,
    write_image,
    write_json,
    write_text,
)
from cmbprep.registration.quality import VERDICTS
from cmbprep.spatial.transforms import LinearMap, read_transform, write_transform

logger = logging.getLogger("cmbprep")


def follow_pair(pair: ScanPair) -> FollowUp:
    """Return the follow-up of two scans; compute and write what is missing or out of date.

    Raises
    ------
    CmbprepError
        If a file of the two scans cannot be read.
    """
    found = read_pair(pair)
    if found is not None:
        return found
    to_second, quality = _registration(pair)
    first, second = (scan.visit() for scan in (pair.first, pair.second))
    limits = [*pair.limits]
    if quality["Verdict"] == "doubtful":
        limits.append(f"registration doubtful: {'; '.join(quality['Reasons'])}")
    if None in (first.candidates, second.candidates):
        limits.append("the detector does not tell its candidates: what is new may have been there")
    if quality["Verdict"] == "failed":
        reason = f"the registration of the visits has failed: {'; '.join(quality['Reasons'])}"
        fates, shown = unassessed(first, second, reason), None
    else:
        error = float(quality["ErrorToReckonWith"])
        fates = follow_lesions(first, second, to_second, error, ordered=pair.ordered)
        shown = to_second
    _write(pair, fates, shown, quality, limits)
    written = read_pair(pair)
    if written is None:
        raise CmbprepError(
            "the follow-up was changed while it was written",
            path=pair.table.name,
            hint="let one run work on a participant at a time, and run again",
        )
    return written


def _registration(pair: ScanPair) -> tuple[LinearMap, Mapping[str, Any]]:
    """Return the map of points of the first scan to the second, and what is known of it."""
    one, other = pair.by_name
    wanted = pair.registration_fingerprint
    block = pair.block(pair.registration, wanted)
    if block is None:
        pair.registration.unlink(missing_ok=True)
        found, route = register_scans(one, other)
        with write_atomically(pair.transform) as temporary:
            write_transform(found.to_second, temporary)
        quality = {
            "Route": route,
            "Verdict": found.verdict,
            "Reasons": list(found.reasons),
            "Gap": None if found.gap_mm is None else round(found.gap_mm, 3),
            "ErrorToReckonWith": round(found.error_mm, 3),
            "Similarity": round(found.similarity, 4),
            "Overlap": round(found.overlap, 4),
        }
        block = {"Fingerprint": wanted, "Registration": quality}
        _write_sidecar(pair, pair.registration, _ABOUT_TRANSFORM, block, [pair.transform])
    transform = read_transform(pair.transform)
    assert isinstance(transform, LinearMap)
    forward = transform if pair.first is one else transform.inverse()
    return forward, block["Registration"]


def register_scans(first: FollowedScan, second: FollowedScan) -> tuple[VisitRegistration, str]:
    """Register two scans directly, and through their T1w images where that is not ok.

    Returns
    -------
    registration, route
        The better one by its verdict; the route is ``direct`` or ``t1w``.
    """
    direct = _register(first.head(), second.head())
    if direct.verdict == "ok":
        return direct, "direct"
    through = _through_t1w(first, second)
    if through is None or VERDICTS.index(through.verdict) >= VERDICTS.index(direct.verdict):
        return direct, "direct"
    return through, "t1w"


def _register(one: Any, other: Any) -> VisitRegistration:
    try:
        return register_visits(one, other)
    except ScanError as error:
        return VisitRegistration(
            to_second=LinearMap(np.eye(4)),
            gap_mm=None,
            similarity=1.0,
            overlap=0.0,
            verdict="failed",
            reasons=(error.message,),
        )


def _through_t1w(first: FollowedScan, second: FollowedScan) -> VisitRegistration | None:
    """Chain the registrations of both scans to their T1w images, and of these to each other."""
    heads = first.anatomical_head(), second.anatomical_head()
    if heads[0] is None or heads[1] is None:
        return None
    assert first.anatomy is not None and second.anatomy is not None
    same = first.anatomy.files.sidecar == second.anatomy.files.sidecar
    between = LinearMap(np.eye(4)) if same else None
    found = None
    if between is None:
        found = _register(heads[0], heads[1])
        between = found.to_second
    chain = second.to_anatomy().inverse().matrix @ between.matrix @ first.to_anatomy().matrix
    return VisitRegistration(
        to_second=LinearMap(chain),
        gap_mm=None,
        similarity=1.0 if found is None else found.similarity,
        overlap=1.0 if found is None else found.overlap,
        verdict="ok" if found is None else found.verdict,
        reasons=() if found is None else found.reasons,
    )


_ABOUT_TRANSFORM = {
    "Description": "Rigid transform that brings the scan onto that of another visit, halfway "
    "between the registrations of either scan to the other (ITK, LPS)",
    "Units": {"Gap": "mm", "ErrorToReckonWith": "mm"},
}


def _write(
    pair: ScanPair,
    fates: Sequence[Fate],
    to_second: LinearMap | None,
    quality: Mapping[str, Any],
    limits: Sequence[str],
) -> None:
    """Write the images, the table, and last the sidecar that vouches for them."""
    _keep_edited(pair)
    pair.sidecar.unlink(missing_ok=True)
    scans = (pair.first, pair.second)
    files = []
    for number, scan in enumerate(scans):
        listed = [(fate.first, fate.second)[number] for fate in fates]
        indices = {lesion.index: k for k, lesion in enumerate(listed, start=1) if lesion}
        path = pair.image(scan)
        _write_labels(path, scan, indices)
        if path.with_suffix("").with_suffix(".json") != pair.sidecar:
            own = {"Description": _ABOUT_IMAGE, "Sources": _sources(pair)}
            files.append(write_json(path.with_suffix("").with_suffix(".json"), own))
        files.append(path)
    sources = pair.first.source, pair.second.source
    text = format_followup(fates, to_second, sources=sources, limits=limits)
    files.append(write_text(pair.table, text))
    visits = {
        key: {"Scan": scan.name, "Source": scan.source, "Readers": scan.readers}
        for key, scan in zip(("First", "Second"), scans, strict=True)
    }
    block = {
        "Fingerprint": pair.fingerprint,
        **visits,
        "Order": "known" if pair.ordered else "unknown",
        "Registration": dict(quality),
        "Limits": list(limits),
        "Rules": dict(RULES),
        "Table": file_digest(pair.table),
    }
    about: dict[str, Any] = {**COLUMNS, "Description": _ABOUT_IMAGE}
    _write_sidecar(pair, pair.sidecar, about, block, files)


def _keep_edited(pair: ScanPair) -> None:
    """Keep a copy of a table that a person has changed, before it is made anew; say where."""
    try:
        block = read_json(pair.sidecar).get(BLOCK) if pair.sidecar.is_file() else None
    except CmbprepError:
        return
    if not isinstance(block, Mapping) or not isinstance(block.get("Table"), str):
        return
    if not pair.table.is_file() or file_digest(pair.table) == block["Table"]:
        return
    kept = write_text(
        pair.root / "logs" / f"{pair.table.stem}_edited.tsv",
        pair.table.read_text("utf-8", "replace"),
    )
    logger.warning(
        "%s was changed after the program wrote it, and is made anew because what it depends on "
        "has changed or a lesion is missing in it; the changed table is kept as %s; what to do: "
        "correct lesions in the review, which the follow-up takes over",
        pair.table.name,
        f"logs/{kept.name}",
    )


_ABOUT_IMAGE = (
    "Lesions of two visits, numbered together: what became of each is in the table of the same "
    "name at the visit whose name comes later"
)


def _sources(pair: ScanPair) -> list[str]:
    paths = [scan.detection.files.path("dseg") for scan in (pair.first, pair.second)]
    return [f"bids::{path.relative_to(pair.root).as_posix()}" for path in paths]


def _write_sidecar(
    pair: ScanPair,
    path: Path,
    about: Mapping[str, Any],
    block: Mapping[str, Any],
    files: Sequence[Path],
) -> None:
    sizes = {file.relative_to(pair.root).as_posix(): file.stat().st_size for file in files}
    own = {"Version": __version__, **block, "Files": sizes}
    write_json(path, {**about, "Sources": _sources(pair), BLOCK: own})


def _write_labels(path: Path, scan: FollowedScan, indices: Mapping[int, int]) -> None:
    """Write the lesions of a scan under their common numbers."""
    labels = scan.labels()
    table: NDArray[np.int16] = np.zeros(int(labels.max(initial=0)) + 1, np.int16)
    for own, common in indices.items():
        if own < len(table):
            table[own] = common
    like = nib.Nifti1Image.from_filename(scan.preproc.files.path("preproc"))
    image = nib.Nifti1Image(table[np.asarray(labels, int)], like.affine)
    image.header.set_data_dtype(np.int16)
    write_image(path, image)
