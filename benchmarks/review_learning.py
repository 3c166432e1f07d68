"""What the detector learns from a reader who knows the truth of a simulated cohort.

    cmbprep-tools simulate BIDS_DIR --participants 12 --seed 77 --protocol demo ...
    cmbprep BIDS_DIR OUT participant
    python benchmarks/review_learning.py BIDS_DIR OUT DEST [--apply]

The scripted reader reads every scan as a person does, through the acts of the review: lesions that
the detector lists are accepted where a microbleed was simulated (centres at most 5 mm apart, one to
one) and rejected elsewhere; visible microbleeds that it has not listed are accepted among the
candidates below the threshold, or added where there is none; then the scan is finished. Half of the
people are read under one name and half under another, so that ``train --ratings --reader`` can be
fitted to either half. Each fit is measured on the half that it has not seen.

Without ``--apply``, the figures are those of the stored candidates, weighed before and after. With
it, cmbprep is run again with the site's file on a copy of the results, and what it then lists is
compared with the truth. All lesions are simulated.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cmbprep.cli.main import main as run_cmbprep
from cmbprep.detectors.calibration import LastStage, read_site_model
from cmbprep.detectors.learned import CANDIDATES, LearnedDetector
from cmbprep.lab.cli import main as run_tools
from cmbprep.lab.evaluate.matching import LesionSet, Mark, Rule
from cmbprep.lab.evaluate.reading import read_marks
from cmbprep.lab.evaluate.scoring import ScanResult, score_scan
from cmbprep.lab.training.ratings import read_ratings
from cmbprep.lab.training.site import figures, fit_last_stage
from cmbprep.ratings.matching import assign, centre_distances
from cmbprep.ratings.store import Reader
from cmbprep.review.scans import ReviewScan, find_scans
from cmbprep.review.session import ReviewSession
from cmbprep.zones.tally import Tally

READERS = ("Scripted reader A", "Scripted reader B")
#: A candidate this near to a microbleed is that microbleed, mm.
CANDIDATE_MM = 3.0
MATCH_MM = 5.0


def main() -> None:
    """Read the cohort, fit to each half, measure on the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bids", type=Path, help="simulated dataset")
    parser.add_argument("out", type=Path, help="results of cmbprep on it")
    parser.add_argument("dest", type=Path, help="where the fits go")
    parser.add_argument("--apply", action="store_true", help="run cmbprep again with each fit")
    arguments = parser.parse_args()
    truth = arguments.bids / "derivatives" / "truth"
    scans = find_scans(arguments.out)
    halves = split(scans)
    for reader, names in zip(READERS, halves, strict=True):
        read_half(arguments.out, reader, {name: scans[name] for name in names}, truth)
    for number, reader in enumerate(READERS):
        model = arguments.dest / f"half{number + 1}"
        print(f"\nFit to {reader}:", flush=True)
        options = ["--ratings", str(arguments.out), "--reader", reader]
        status = run_tools(["train", str(model), *options])
        other = READERS[1 - number]
        if status == 1:
            print("What the refused fit would have done:")
            rated = read_ratings([arguments.out], reader=reader)
            measure(arguments.out, other, fit_last_stage(rated, LearnedDetector().last_stage))
        if status:
            continue
        measure(arguments.out, other, read_site_model(model / "site.json").stage)
        if arguments.apply:
            apply(arguments, model, halves[1 - number], scans, truth)


def split(scans: Iterable[str]) -> tuple[list[str], list[str]]:
    """Share people out two by two, so that each half has both protocols of a cohort of two."""
    people = sorted({name.split("_")[0] for name in scans})
    first = {person for number, person in enumerate(people) if number // 2 % 2 == 0}
    chosen = sorted(scans)
    return (
        [name for name in chosen if name.split("_")[0] in first],
        [name for name in chosen if name.split("_")[0] not in first],
    )


def truth_of(scan: ReviewScan, truth: Path) -> tuple[Mark, ...]:
    """Read the simulated microbleeds of a scan."""
    automatic = scan.automatic
    below = automatic.detection.files.sidecar.parent.name
    names = automatic.detection.files.names
    folder = truth / f"sub-{names.subject}" / below
    return read_marks(folder / f"{automatic.src}_seg-CMB_dseg.tsv")


def read_half(out: Path, reader: str, scans: Mapping[str, ReviewScan], truth: Path) -> None:
    """Read scans as somebody who knows the truth."""
    session = ReviewSession(out, Reader(name=reader), scans)
    counts = dict.fromkeys(("accepted", "rejected", "candidates", "added"), 0)
    try:
        for name, scan in scans.items():
            state = session.scan(name)["state"]
            if state["finished"]:
                continue
            for kind, act in acts_on(scan, truth_of(scan, truth)):
                session.act(name, act)
                counts[kind] += 1
            session.act(name, {"type": "finish"})
    finally:
        session.close()
    told = ", ".join(f"{kind}: {number}" for kind, number in counts.items())
    print(f"{reader} has read {len(scans)} scans; {told}", flush=True)


def acts_on(scan: ReviewScan, marks: tuple[Mark, ...]) -> list[tuple[str, dict[str, object]]]:
    """Return what a reader who knows the truth does on a scan."""
    automatic = scan.automatic
    lesions = automatic.by_key
    accepted = pairs(marks, {key: item.centre for key, item in lesions.items()}, MATCH_MM)
    found = []
    for key in lesions:
        verdict = "definite" if key in accepted.values() else "rejected"
        kind = "accepted" if verdict == "definite" else "rejected"
        found.append((kind, {"type": "verdict", "lesion": key, "verdict": verdict}))
    missed = tuple(mark for mark in marks if mark.index not in accepted and mark.visible)
    places = {key: item.centre_ras for key, item in automatic.candidates.items()}
    below = pairs(missed, places, CANDIDATE_MM)
    for mark in missed:
        if mark.index in below:
            act = {"type": "verdict", "lesion": below[mark.index], "verdict": "definite"}
            found.append(("candidates", act))
        else:
            act = {"type": "add", "centre_ras": list(mark.centre), "verdict": "definite"}
            found.append(("added", act))
    return found


def pairs(
    marks: tuple[Mark, ...], places: Mapping[str, tuple[float, float, float]], distance_mm: float
) -> dict[int, str]:
    """Match microbleeds to places, one to one; index of the microbleed -> key of the place."""
    keys = list(places)
    distance = centre_distances(
        np.array([mark.centre for mark in marks], float).reshape(-1, 3),
        np.array([places[key] for key in keys], float).reshape(-1, 3),
    )
    found = assign(distance, distance <= distance_mm)
    return {marks[row].index: keys[column] for row, column in found}


def measure(out: Path, reader: str, stage: LastStage) -> None:
    """Print the figures of a half's candidates, before and after a fit."""
    rated = read_ratings([out], reader=reader)
    detector = LearnedDetector()
    threshold = float(str(detector.parameters["threshold"]))
    names = tuple(CANDIDATES)
    stages = {"before": detector.last_stage, "after": stage}
    found = {
        when: figures(
            one.log_odds(rated.column("odds"), rated.table, names) + rated.column("shift"),
            rated,
            threshold,
        )
        for when, one in stages.items()
    }
    print(f"Candidates of {reader}, {rated.scans} scans: before, after", flush=True)
    for name, value in found["before"].items():
        print(f"  {name:26}{value:8.4f}{found['after'][name]:8.4f}")


def apply(
    arguments: argparse.Namespace,
    model: Path,
    names: list[str],
    scans: Mapping[str, ReviewScan],
    truth: Path,
) -> None:
    """Run cmbprep with a fit on the other half, and compare what it lists with the truth."""
    copy = model / "out"
    if not copy.exists():
        shutil.copytree(arguments.out, copy)
    people = sorted({scans[name].automatic.detection.files.names.subject for name in names})
    run_cmbprep(
        [
            str(arguments.bids),
            str(copy),
            "participant",
            "--participant-label",
            *people,
            "--detector",
            str(model / "site.json"),
            "--nprocs",
            "1",
        ]
    )
    print(
        f"What is listed in {len(names)} scans of the other half: sensitivity, false "
        "positives a scan, F1"
    )
    for when, folder in (("before", arguments.out), ("after", copy)):
        present = find_scans(folder)
        results = [score(present[name], truth) for name in names]
        hits = sum(len(result.hits) for result in results)
        bleeds = sum(result.truth_count for result in results)
        listed = sum(result.predicted_count for result in results)
        print(
            f"  {when:8}{hits / max(bleeds, 1):7.3f} ({hits} of {bleeds})"
            f"{(listed - hits) / len(results):8.3f}{2 * hits / max(bleeds + listed, 1):8.3f}"
        )


def score(scan: ReviewScan, truth: Path) -> ScanResult:
    """Compare the lesions of a scan with the truth."""
    listed = tuple(
        Mark(index=lesion.index, centre=lesion.centre, probability=lesion.probability)
        for lesion in Tally(scan.automatic.lesions).counted
    )
    return score_scan(
        LesionSet(marks=truth_of(scan, truth)),
        LesionSet(marks=listed),
        Rule(distance_mm=MATCH_MM),
        scan=scan.id,
        subject=scan.automatic.detection.files.names.subject,
    )


if __name__ == "__main__":
    main()
