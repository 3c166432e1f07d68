"""Pictures of what is missed, and of what is wrongly listed, in simulated people.

    python benchmarks/held_out_pictures.py FOLDER learned PICTURE.png [--lower learned-all]

It reads the scans, their truth and the results that ``benchmarks/held_out.py`` has written into
FOLDER, matched as ``cmbprep-tools evaluate`` does. Shown are the false positives with the highest
probabilities, the widest of the bleeds that are missed, and others of these evenly by their
width, each in the three planes of its voxels, 36 mm wide. With the results of a lower threshold it
counts what lies at the misses. All lesions are simulated.
"""

from __future__ import annotations

import argparse
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
from detection import MATCH_MM
from detection_pictures import Shown, draw
from held_out import MIN_DIAMETER_MM, PROTOCOLS, scan_label

from cmbprep.detectors.base import DetectorInput
from cmbprep.lab.evaluate.collect import Request, collect
from cmbprep.lab.evaluate.matching import Mark, Rule
from cmbprep.lab.evaluate.reading import read_marks
from cmbprep.lab.simulate.protocols import get_protocol
from cmbprep.lab.training.scans import detector_inputs


def main() -> int:
    """Draw what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of benchmarks/held_out.py")
    parser.add_argument("name", help="folder of the results in it")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--lower", help="results of a lower threshold")
    parser.add_argument("--each", type=int, default=12, help="of each kind")
    parser.add_argument("--across", type=int, default=4, help="in a row")
    arguments = parser.parse_args()
    wrong, missed = sort_out(arguments.folder, arguments.name)
    if arguments.lower:
        names = (arguments.name, arguments.lower)
        fates = Counter(fate(arguments.folder, names, scan, mark) for scan, mark, _ in missed)
        print("nearest to a miss:", dict(fates.most_common()))
    widest, rest = missed[: arguments.each], missed[arguments.each :]
    spread = np.linspace(0, len(rest) - 1, min(arguments.each, len(rest))).round().astype(int)
    kinds = {
        "listed wrongly": wrong[: arguments.each],
        "widest that are missed": widest,
        "others that are missed": [rest[number] for number in spread],
    }
    rows: list[tuple[str, list[Shown]]] = []
    for title, marks in kinds.items():
        shown = [show(arguments.folder, *mark) for mark in marks]
        parts = [shown[i : i + arguments.across] for i in range(0, len(shown), arguments.across)]
        rows += [(title if number == 0 else "", part) for number, part in enumerate(parts)]
    draw(rows, arguments.across, arguments.picture)
    return 0


def sort_out(
    folder: Path, name: str
) -> tuple[list[tuple[str, Mark, str]], list[tuple[str, Mark, str]]]:
    """Return false positives, most probable first, and false negatives, widest first.

    Each comes with its scan and a few words.
    """
    rule = Rule(distance_mm=MATCH_MM, min_diameter_mm=MIN_DIAMETER_MM)
    results = collect(Request(output=folder / name, truth=folder / "truth", rule=rule)).results
    wrong: list[tuple[str, Mark, str]] = []
    missed: list[tuple[str, Mark, str]] = []
    for result in results:
        for one in result.false_positives:
            mark = one.predicted
            wrong.append((result.scan, mark, f"{mark.probability:.2f}, {one.origin}"))
        for mark in result.misses:
            words = f"{mark.diameter_mm:.1f} mm, {_nearest(mark, result.mimics)}"
            missed.append((result.scan, mark, words))
    print(f"{len(wrong)} listed wrongly, {len(missed)} missed")
    wrong.sort(key=lambda one: -(one[1].probability or 0.0))
    missed.sort(key=lambda one: -(one[1].diameter_mm or 0.0))
    return wrong, missed


def _nearest(mark: Mark, others: tuple[Mark, ...]) -> str:
    """Kind of the nearest compact thing whose surface is within 5 mm of a bleed's."""
    gaps = {
        float(np.linalg.norm(np.subtract(mark.centre, one.centre)))
        - ((mark.diameter_mm or 0.0) + (one.diameter_mm or 0.0)) / 2: one.kind or "?"
        for one in others
        if not one.extended and one.visible
    }
    gap = min(gaps, default=np.inf)
    return gaps[gap] if gap <= MATCH_MM else "nothing near"


def fate(folder: Path, names: tuple[str, str], scan: str, bleed: Mark) -> str:
    """Return the candidate nearest to a missed bleed, listed or below the threshold."""
    nearest = []
    for name in names:
        path = folder / name / scan.split("_", maxsplit=1)[0] / "anat" / f"{scan}_seg-CMB_dseg.tsv"
        gaps = [
            (float(np.linalg.norm(np.subtract(m.centre, bleed.centre))), m)
            for m in read_marks(path)
        ]
        near = min(gaps, key=lambda one: one[0], default=None)
        nearest.append(near[1] if near is not None and near[0] <= MATCH_MM else None)
    listed, lower = nearest
    if lower is None:
        return "no mark"
    if lower.susceptibility == "diamagnetic":
        return "a mark that is called diamagnetic"
    return "a mark that is not listed" if listed is None else "a mark that is listed"


def show(folder: Path, scan: str, mark: Mark, words: str) -> Shown:
    """Cut out the place of a mark."""
    image = _image(folder, scan)
    bright = float(np.percentile(image.magnitude[image.brain_mask], 99.5))
    text = f"{words}\n{scan.removeprefix('sub-')}"
    return Shown(image.magnitude, image.affine, np.asarray(mark.centre), bright, text)


@lru_cache(maxsize=8)
def _image(folder: Path, scan: str) -> DetectorInput:
    """Make what the detector was given, from the name of its results."""
    person, _, label = scan.removeprefix("sub-").partition("_acq-")
    names = {scan_label(name, kind): name for name in PROTOCOLS for kind in ("", "swi")}
    name = names[label]
    with np.load(folder / f"{name}-{person}.npz") as stored:
        data = {key: stored[key] for key in ("echoes", "affine", "brain")}
    given = detector_inputs(list(data["echoes"]), data["affine"], data["brain"], get_protocol(name))
    return next(one for one in given if scan_label(name, one.sequence) == label)


if __name__ == "__main__":
    raise SystemExit(main())
