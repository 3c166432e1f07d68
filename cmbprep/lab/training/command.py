"""The command ``cmbprep-tools train``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.lab.training.brain.command import need_torch, run_brain
from cmbprep.lab.training.log import logger
from cmbprep.lab.training.mining import FitOptions

if TYPE_CHECKING:
    from cmbprep.detectors.calibration import LastStage
    from cmbprep.lab.training.ratings import RatedCandidates

#: Name of the file that a fit to ratings writes.
SITE_FILE = "site.json"


def run(args: argparse.Namespace) -> int:
    """Run ``train`` with parsed arguments; give the exit status.

    Samples and networks that are there are kept, so that a run that was stopped goes on.

    Raises
    ------
    UsageError
        If the arguments are wrong or PyTorch is not installed.
    """
    if args.model == "brain":
        return run_brain(args)
    if args.ratings:
        return _run_ratings(args)
    if (
        min(args.people, args.tune_people, args.real_scans, args.nprocs, args.epochs, args.networks)
        < 1
    ):
        raise UsageError(
            "the numbers of people, scans, processes, epochs, networks must be 1 or more"
        )
    if (args.results is None) != (not args.subjects):
        raise UsageError("--results and --subjects go together")
    if len(args.source) not in (0, len(args.subjects)):
        raise UsageError("give one --source for each of --subjects, or none")
    if not args.samples_only:
        need_torch()
    from cmbprep.lab.training.generation import generate, plan_tasks

    args.dest.mkdir(parents=True, exist_ok=True)
    subjects = tuple(label.removeprefix("sub-") for label in args.subjects)
    tasks = plan_tasks(
        args.dest / "samples",
        {"train": args.people, "tune": args.tune_people},
        {"train": args.real_scans} if subjects else None,
        args.results,
        subjects,
    )
    log = args.dest / "train.log"
    say = logger(log)
    generate(
        tasks,
        args.nprocs,
        lambda done, total, stem, seconds: say(f"[{done}/{total}] {stem}: {seconds:.0f} s"),
    )
    if args.samples_only:
        return 0
    summary = _fit(args, [task.stem for task in tasks], subjects, log)
    say(json.dumps(summary))
    return 0


def _run_ratings(args: argparse.Namespace) -> int:
    from cmbprep.detectors.calibration import SiteModel
    from cmbprep.detectors.learned import LearnedDetector
    from cmbprep.lab.training.ratings import read_ratings
    from cmbprep.lab.training.site import FOLDS, PENALTIES, assess, fit_last_stage, worse
    from cmbprep.outputs.files import write_json

    rated = read_ratings(args.ratings, reader=args.reader, rule=args.consensus)
    detector = LearnedDetector()
    if rated.networks != {detector.sha256}:
        raise UsageError(
            "the results come from another version of the learned detector",
            hint="run cmbprep again with this version, then fit",
        )
    stage = fit_last_stage(rated, detector.last_stage)
    threshold = float(str(detector.parameters["threshold"]))
    found = assess(rated, detector.last_stage, threshold)
    sys.stdout.write(_report(rated, found, threshold) + _used(stage))
    sys.stdout.flush()
    if names := worse(found):
        raise CmbprepError(
            "the fit would make the detector worse on people left out of it "
            f"({' and '.join(name.replace('_', ' ') for name in names)}); nothing was written",
            hint="go on with the packaged model, and rate more scans",
        )
    card = {
        "name": "learned, last stage of a site",
        "intended_use": "Research, on scans like those that were rated.",
        "ratings": {
            "scans": rated.scans,
            "scans_reviewed": rated.reviewed,
            "reader": args.reader,
            "consensus": args.consensus,
            "people": rated.people,
            "microbleeds": int(rated.target.sum()),
            "other_candidates": int((~rated.target).sum()),
            "microbleeds_without_candidate": rated.beyond,
        },
        "penalties_tried": [list(map(str, penalty)) for penalty in PENALTIES],
        "held_out": {"folds_of_people": FOLDS, "threshold": threshold, **found},
    }
    args.dest.mkdir(parents=True, exist_ok=True)
    path = args.dest / SITE_FILE
    write_json(path, SiteModel(detector.sha256, stage, card).to_json())
    sys.stdout.write(f"use it: cmbprep ... --detector {path}\n")
    return 0


def _report(rated: RatedCandidates, found: dict[str, dict[str, float]], threshold: float) -> str:
    from cmbprep.lab.training.site import ENOUGH

    bleeds = int(rated.target.sum())
    lines = [
        (
            f"rated: {rated.scans} scans of {rated.people} people ({rated.reviewed} scans in the "
            f"review), {bleeds} microbleeds with a candidate, {rated.beyond} without"
        ),
        f"{'people left out of the fit':34}{'before':>9}{'after':>9}",
    ]
    for name in found["before"]:
        label = name.replace("_", " ")
        if name in ("sensitivity", "false_positives_a_scan", "f1"):
            label += f" at {threshold:g}"
        lines.append(f"{label:34}{found['before'][name]:9.3f}{found['after'][name]:9.3f}")
    if bleeds < ENOUGH[0] or rated.people < ENOUGH[1]:
        lines.append(
            f"these are few ratings: with fewer than {ENOUGH[0]} microbleeds or {ENOUGH[1]} "
            "people, the figures are uncertain"
        )
    return "\n".join(lines) + "\n"


def _used(stage: LastStage) -> str:
    what = f"{len(stage.columns)} columns" if stage.columns else "slope and offset alone"
    return f"what cross-validation over people chose to fit: {what}\n"


def _fit(
    args: argparse.Namespace, stems: list[str], subjects: tuple[str, ...], log: Path
) -> dict[str, object]:
    from cmbprep.detectors.classical import CLASSICAL, ClassicalDetector
    from cmbprep.detectors.features import FEATURES
    from cmbprep.detectors.learned import MODEL, blended
    from cmbprep.lab.training.calibration import CLASSICAL_SHARE, tune
    from cmbprep.lab.training.card import card, read_summaries
    from cmbprep.lab.training.fitting import predict
    from cmbprep.lab.training.members import fit_members
    from cmbprep.lab.training.network import to_onnx
    from cmbprep.lab.training.prefilter import fit_first_look
    from cmbprep.lab.training.samples import load_labels, load_samples
    from cmbprep.outputs.files import write_json

    dest = args.dest

    def files(role: str) -> list[Path]:
        chosen = [stem for stem in stems if stem.startswith(f"{role}_")]
        return [p for stem in chosen for p in sorted((dest / "samples").glob(f"{stem}_*.npz"))]

    # Some of the people with many bleeds are left out of the fit as well, to tune on.
    left_out = {f"train_simulated_{number:04d}" for number in range(args.people) if number % 6 == 5}
    everyone = files("train")
    held = files("tune") + [path for path in everyone if _stem(path) in left_out]
    fitted = [path for path in everyone if _stem(path) not in left_out]
    sources = dict(zip(subjects, args.source or ["not stated"] * len(subjects), strict=True))
    options = FitOptions(
        epochs=args.epochs, seed=args.seed, short=args.short, members=args.networks
    )
    network = fit_members(fitted, options, dest, log, nprocs=args.nprocs)
    tuning_samples, known = load_samples(held), read_summaries(held)
    missed = sum(summary["visible"] - summary["with_candidate"] for summary in known)
    samples, summaries = load_labels(fitted), read_summaries(fitted)
    first_look = fit_first_look(samples, tuning_samples, len(held), missed, subjects)
    write_json(dest / CLASSICAL, first_look)
    classical = ClassicalDetector(folder=dest)
    odds = classical.log_odds(tuning_samples.table[:, : len(FEATURES)].astype(float))
    logits = blended(predict(network, tuning_samples), odds, CLASSICAL_SHARE)
    tuning = tune(logits, tuning_samples, len(held), missed)
    (dest / f"{MODEL}.onnx").write_bytes(to_onnx(network))
    content = card(tuning, samples, summaries, sources, options, classical.sha256)
    write_json(dest / f"{MODEL}.json", content)
    return {"operating_points": tuning.points, **tuning.summary}


def _stem(path: Path) -> str:
    """Name of the task that a file of samples comes from."""
    return path.stem.rpartition("_")[0]
