"""Labelled candidates: what the network learns from.

A scan has hundreds of candidates of which most are plainly nothing. Kept are those that
:class:`~cmbprep.detectors.classical.ClassicalDetector` finds the most suspicious, every one
that is something, and a few of the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.scan_warnings import character
from cmbprep.detectors.views import ScanViews, view_scan, with_rows
from cmbprep.lab.training.scans import KnownSpot, TrainingScan

#: Classes of candidates.
NOTHING, BLEED, CALCIFICATION, IGNORED = 0, 1, 2, -1
#: The most suspicious candidates of a scan that are kept, and others.
SUSPICIOUS, RANDOM = 240, 30
#: A candidate is a spot if it is within this part of its diameter, and at least this many mm.
_WITHIN, _AT_LEAST = 0.6, 1.8


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of candidates of one or more scans, without what they look like.

    Attributes
    ----------
    table
        (n, len(COLUMNS)) float32.
    target
        (n,) int8: one of the classes above.
    spot
        (n,) int32: number of the spot of the truth within its scan, -1 if none.
    scan
        (n,) int32: number of the scan.
    diameter
        (n,) float32: mm, of the spot; 0 if none.
    """

    table: NDArray[np.float32]
    target: NDArray[np.int8]
    spot: NDArray[np.int32]
    scan: NDArray[np.int32]
    diameter: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len({len(getattr(self, each.name)) for each in fields(self)}) != 1:
            raise ValueError("the columns of samples must be of one length")

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, eq=False)
class Samples(Labels):
    """Candidates of one or more scans: what is known of them, and what they look like.

    Attributes
    ----------
    near, across, wide
        float16 views, see :class:`cmbprep.detectors.patches.Patches`.
    """

    near: NDArray[np.float16]
    across: NDArray[np.float16]
    wide: NDArray[np.float16]


def label_candidates(
    views: ScanViews, spots: tuple[KnownSpot, ...]
) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Return the class of each candidate, and the number of its spot (or -1).

    Distances count from the voxel's border: the middle of a bleed between two thick slices
    is millimetres away from the slice that shows it. Hidden bleeds, and candidates in the
    margin of a spot that are not at it, are ignored.
    """
    spacing = views.scan.spacing
    to_box = np.linalg.inv(views.box_affine)
    points = views.candidates.voxels
    target = np.full(len(points), NOTHING, np.int8)
    owner = np.full(len(points), -1, np.int32)
    closest = np.full(len(points), np.inf)
    classes = {"microbleed": BLEED, "hidden": IGNORED, "calcification": CALCIFICATION}
    for number, spot in enumerate(spots):
        if spot.kind == "other":
            continue
        centre = to_box[:3, :3] @ np.asarray(spot.centre) + to_box[:3, 3]
        offset = np.maximum(np.abs(points - centre) - 0.5, 0) * spacing
        distance = np.linalg.norm(offset, axis=1)
        reach = max(_WITHIN * spot.diameter, _AT_LEAST)
        near = (distance <= reach) & (distance < closest)
        target[near] = classes[spot.kind]
        owner[near] = number
        closest[near] = distance[near]
        margin = (distance <= reach + 2.0) & (target == NOTHING)
        target[margin] = IGNORED
    return target, owner


def collect(scan: TrainingScan, number: int, rng: np.random.Generator) -> tuple[Samples, dict]:
    """Label and cut out the candidates of a scan.

    Returns
    -------
    samples, summary
        And how many visible bleeds there are, and how many have a candidate.
    """
    from cmbprep.detectors.classical import ClassicalDetector

    views = view_scan(scan.scan)
    target, owner = label_candidates(views, scan.spots)
    suspicion = ClassicalDetector().rate(views.table[:, : -_extra_columns()])
    order = np.argsort(-suspicion, kind="stable")
    kept = set(order[:SUSPICIOUS].tolist())
    kept |= set(np.flatnonzero((target == BLEED) | (target == CALCIFICATION)).tolist())
    rest = order[SUSPICIOUS:]
    kept |= set(rng.choice(rest, min(RANDOM, len(rest)), replace=False).tolist())
    rows = np.array(sorted(i for i in kept if target[i] != IGNORED), int)
    patches = with_rows(views, rows).patches()
    diameters = np.array([spot.diameter for spot in scan.spots] + [0.0], np.float32)
    samples = Samples(
        near=patches.near.astype(np.float16),
        across=patches.across.astype(np.float16),
        wide=patches.wide.astype(np.float16),
        table=views.table[rows].astype(np.float32),
        target=target[rows],
        spot=owner[rows],
        scan=np.full(len(rows), number, np.int32),
        diameter=diameters[owner[rows]],
    )
    visible = [i for i, s in enumerate(scan.spots) if s.kind == "microbleed" and s.diameter >= 2]
    found = set(owner[target == BLEED].tolist())
    return samples, {
        "visible": len(visible),
        "with_candidate": sum(i in found for i in visible),
        "candidates": len(target),
        "kept": len(rows),
        "character": character(views),
    }


def _extra_columns() -> int:
    from cmbprep.detectors.features import FEATURES
    from cmbprep.detectors.views import COLUMNS

    return len(COLUMNS) - len(FEATURES)


def save_samples(samples: Samples, path: Path, summary: dict[str, Any]) -> None:
    """Write samples (npz) and their summary (json beside it); whole or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **{each.name: getattr(samples, each.name) for each in fields(samples)})
    path.with_suffix(".json").write_text(json.dumps(summary) + "\n", encoding="utf-8")
    partial.rename(path)


def load_samples(paths: Sequence[Path]) -> Samples:
    """Read and join samples; scans are numbered anew in the order of the files."""
    return Samples(**_columns(paths, Samples))


def load_labels(paths: Sequence[Path]) -> Labels:
    """Read and join samples as :func:`load_samples` does, but for their views.

    Views are nearly all of what samples take in memory.
    """
    return Labels(**_columns(paths, Labels))


def _columns(paths: Sequence[Path], kind: type[Labels]) -> dict[str, Any]:
    """Read and join columns; each is laid out first and then filled, to hold nothing twice."""
    lengths = []
    for path in paths:
        with np.load(path) as stored:
            lengths.append(len(stored["target"]))
    ends = np.cumsum(lengths, dtype=int)
    columns: dict[str, Any] = {}
    for number, (path, length) in enumerate(zip(paths, lengths, strict=True)):
        rows = slice(ends[number] - length, ends[number])
        with np.load(path) as stored:
            for each in fields(kind):
                values = stored[each.name]
                if each.name not in columns:
                    shape = (int(ends[-1]), *values.shape[1:])
                    columns[each.name] = np.empty(shape, values.dtype)
                columns[each.name][rows] = number if each.name == "scan" else values
    return columns
