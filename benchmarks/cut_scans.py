"""Bleeds in the first and last slices of a scan that does not show the whole brain.

    python benchmarks/cut_scans.py --model FOLD --first 54 --people 4

Simulated people of the role ``train`` are scanned as for a fit, each scan is cut into slabs of
about 30 mm, and each slab is searched as if it were a scan. Give people that the model was not
fitted to. Prints the part of the visible bleeds of 2 mm and more that is found with a
probability, and how many other things are: those within a slice (or 2 mm) of a cut, and the rest.
A bleed is found if the detection nearest to it is at most 5 mm away; one may be that of two bleeds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from detection import open_detector
from nibabel.affines import voxel_sizes

from cmbprep.detectors.base import DetectorInput
from cmbprep.lab.training.generation import FAMILIES, Task, training_scans
from cmbprep.lab.training.scans import TrainingScan

SLAB_MM = 30.0
NEAR_MM = 2.0
MATCH_MM = 5.0
LEAST_VOXELS = 2000
LEVELS = (0.3, 0.5, 0.7, 0.9)

Place = tuple[float, float, float]


class Slab:
    """A part of a scan, and where it was cut."""

    def __init__(
        self, scan: DetectorInput, axis: int, ends: tuple[int, int], brain: tuple[int, int]
    ) -> None:
        start, stop = ends
        part = tuple(slice(start, stop) if k == axis else slice(None) for k in range(3))
        affine = scan.affine.copy()
        affine[:3, 3] += scan.affine[:3, axis] * start
        self.axis, self.length = axis, stop - start
        self.size = float(voxel_sizes(affine)[axis])
        self.cut_below, self.cut_above = start > brain[0], stop < brain[1]
        self.scan = replace(
            scan,
            magnitude=np.ascontiguousarray(scan.magnitude[part]),
            affine=affine,
            brain_mask=np.ascontiguousarray(scan.brain_mask[part]),
            echoes=tuple(echo[part] for echo in scan.echoes),
            phases=tuple(phase[part] for phase in scan.phases),
        )

    def slice_of(self, place: Place) -> float:
        """Position along the axis that was cut, voxels."""
        inverse = np.linalg.inv(self.scan.affine)
        return float((inverse[:3, :3] @ np.asarray(place) + inverse[:3, 3])[self.axis])

    def shows(self, place: Place) -> bool:
        """Whether a place lies in the slab."""
        return -0.5 <= self.slice_of(place) <= self.length - 0.5

    def where(self, place: Place) -> str:
        """Return whether a place is next to a cut."""
        along = self.slice_of(place)
        distances = [along + 0.5] * self.cut_below + [self.length - 0.5 - along] * self.cut_above
        near = any(d * self.size <= max(NEAR_MM, self.size) for d in distances)
        return "at a cut" if near else "elsewhere"


def main() -> int:
    """Simulate, cut, search and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of another model of `learned`")
    parser.add_argument("--first", type=int, default=160, help="number of the first person")
    parser.add_argument("--people", type=int, default=4)
    arguments = parser.parse_args()
    detector = open_detector("learned", arguments.model, threshold=0.05)
    hits: dict[str, list[float]] = defaultdict(list)
    wrong: dict[str, list[float]] = defaultdict(list)
    for number in range(arguments.first, arguments.first + arguments.people):
        rng = np.random.default_rng([FAMILIES["train"][0], number])
        for scan in training_scans(Task("train", number, Path()), rng):
            for slab in slabs(scan.scan):
                note(scan, slab, detector.detect(slab.scan).lesions, hits, wrong)
    for where in ("at a cut", "elsewhere"):
        found, other = np.array(hits[where]), np.array(wrong[where])
        print(f"{where}: {len(found)} bleeds")
        for level in LEVELS:
            share = float((found >= level).mean())
            print(f"  at {level}: {share:.3f} found, {(other >= level).sum()} other things")
    return 0


def slabs(scan: DetectorInput) -> Iterator[Slab]:
    """Cut a scan across its slices, from the first that shows the brain to the last."""
    sizes = voxel_sizes(scan.affine)
    axis = int(np.argmax(sizes))
    shown = np.flatnonzero(scan.brain_mask.any(axis=tuple({0, 1, 2} - {axis})))
    first, last = int(shown[0]), int(shown[-1]) + 1
    step = max(6, round(SLAB_MM / float(sizes[axis])))
    cuts = list(range(first, last, step))
    if last - cuts[-1] <= step // 2:
        cuts.pop()
    for start, stop in zip(cuts, [*cuts[1:], last], strict=True):
        slab = Slab(scan, axis, (start, stop), (first, last))
        if np.count_nonzero(slab.scan.brain_mask) >= LEAST_VOXELS:
            yield slab


def note(
    scan: TrainingScan,
    slab: Slab,
    lesions: tuple,
    hits: dict[str, list[float]],
    wrong: dict[str, list[float]],
) -> None:
    """Note what is found at bleeds, and what is at nothing that was put in."""
    places = np.array([lesion.centre_ras for lesion in lesions]).reshape(-1, 3)
    explained = np.zeros(len(lesions), bool)
    for spot in scan.spots:
        if not slab.shows(spot.centre):
            continue
        distance = np.linalg.norm(places - np.asarray(spot.centre), axis=1)
        nearest = int(np.argmin(distance)) if len(distance) else -1
        found = nearest >= 0 and distance[nearest] <= MATCH_MM
        if found:
            explained[nearest] = True
        if spot.kind == "microbleed" and spot.diameter >= 2:
            listed = found and lesions[nearest].susceptibility != "diamagnetic"
            hits[slab.where(spot.centre)].append(lesions[nearest].probability if listed else 0.0)
    for lesion, known in zip(lesions, explained, strict=True):
        if not known:
            wrong[slab.where(lesion.centre_ras)].append(lesion.probability)


if __name__ == "__main__":
    raise SystemExit(main())
