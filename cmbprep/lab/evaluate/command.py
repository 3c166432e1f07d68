"""``cmbprep-tools evaluate``: lesion-wise figures against a truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.errors import UsageError

if TYPE_CHECKING:
    from cmbprep.lab.evaluate.collect import Collection, Request
    from cmbprep.lab.evaluate.evaluation import Evaluation, Options
    from cmbprep.lab.evaluate.thresholds import Outcome

__all__ = ["FLOOR_FAILED", "add_arguments", "run"]

#: Exit status if a floor does not hold.
FLOOR_FAILED = 3

_SUMMARY = (
    "sensitivity",
    "precision",
    "f1",
    "fp_per_scan",
    "fp_per_scan_without_lesions",
    "average_precision",
    "froc_mean",
    "dice_mean",
    "volume_error_median",
    "count_icc",
    "count_bias",
    "presence_kappa",
    "zone_agreement",
    "ece",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.description = (
        "Compare predicted microbleeds with a truth, lesion by lesion, and say by which rules. "
        "Exit status: 0; 2 if an argument or file is wrong; 3 if a floor does not hold."
    )
    parser.add_argument(
        "output_dir",
        type=Path,
        metavar="OUTPUT_DIR",
        help="the prediction: outputs of cmbprep, or any tool's masks, probability maps or tables",
    )
    parser.add_argument(
        "truth",
        type=Path,
        metavar="TRUTH",
        help="the truth: a folder of lesion masks or lesion tables, matched by BIDS entities",
    )
    write = parser.add_argument_group("what to write")
    write.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    write.add_argument(
        "--out", type=Path, metavar="DIR", help="write evaluation.html and a TSV of each table"
    )
    write.add_argument(
        "--floor",
        action="append",
        default=[],
        nargs="+",
        metavar="FIGURE=VALUE",
        help="exit with status 3 unless the figure is at least VALUE (at most, for figures of "
        "which less is better); FIGURE@SPLIT:GROUP=VALUE for a group, as in "
        "sensitivity@zone:deep=0.8",
    )
    _add_matching(parser.add_argument_group("when two lesions match"))
    _add_selection(parser.add_argument_group("what counts"))
    numbers = parser.add_argument_group("figures")
    numbers.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="draws of subjects for the 95 %% intervals; 0 for none (default: %(default)s)",
    )
    numbers.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the draws (default: %(default)s)"
    )
    numbers.add_argument(
        "--bins",
        type=int,
        default=10,
        metavar="N",
        help="bins of the reliability curve (default: %(default)s)",
    )
    numbers.add_argument(
        "--size-edges",
        type=float,
        nargs="+",
        default=[2.0, 5.0, 10.0],
        metavar="MM",
        help="diameters at which size classes begin (default: 2 5 10)",
    )


def _add_matching(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--match",
        choices=("centroid", "overlap"),
        default="centroid",
        help="by the distance of centres, or by common voxels (default: %(default)s)",
    )
    group.add_argument(
        "--distance",
        type=float,
        default=5.0,
        metavar="MM",
        help="largest distance of centres (default: %(default)s)",
    )
    group.add_argument(
        "--min-overlap",
        type=float,
        default=0.0,
        metavar="F",
        help="smallest intersection over union; 0: any common voxel (default: %(default)s)",
    )
    group.add_argument(
        "--connectivity",
        type=int,
        choices=(6, 18, 26),
        default=6,
        help="which voxels of a mask or map are one lesion (default: %(default)s)",
    )


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--participant-label", nargs="+", metavar="L", help="only these participants"
    )
    group.add_argument(
        "--truth-pattern", metavar="GLOB", help="file names of the truth, as in '*_CMB.nii.gz'"
    )
    group.add_argument("--prediction-pattern", metavar="GLOB", help="file names of the prediction")
    group.add_argument(
        "--raw",
        type=Path,
        metavar="BIDS_DIR",
        help="dataset with participants.tsv and sidecars, for the splits by site, protocol and "
        "sequence (default: looked for at and above TRUTH)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="leave out predictions of lower probability (default: none of a table or mask; 0.5 "
        "for bare probability maps)",
    )
    group.add_argument(
        "--rating",
        choices=("all", "definite"),
        default="all",
        help="definite: leave out predictions rated possible (default: %(default)s)",
    )
    group.add_argument(
        "--count-diamagnetic",
        action="store_true",
        help="count predictions that the detector itself calls diamagnetic",
    )
    group.add_argument(
        "--count-invisible",
        action="store_true",
        help="count truth lesions flagged as not visible in the scan",
    )
    group.add_argument(
        "--min-diameter",
        type=float,
        default=0.0,
        metavar="MM",
        help="leave out smaller truth lesions, neither missed nor false if found "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--missing",
        choices=("misses", "leave-out"),
        default="misses",
        help="what a scan with truth but without prediction is: one in which nothing was found, "
        "or none (default: %(default)s)",
    )
    group.add_argument(
        "--mimic-distance",
        type=float,
        default=2.0,
        metavar="MM",
        help="how near to a known mimic a false positive lies on it (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Returns
    -------
    int
        0, or :data:`FLOOR_FAILED` if a floor does not hold.

    Raises
    ------
    UsageError
        If an argument or a file is wrong.
    """
    from cmbprep.lab.evaluate.collect import collect
    from cmbprep.lab.evaluate.evaluation import evaluate
    from cmbprep.lab.evaluate.tables import conventions
    from cmbprep.lab.evaluate.thresholds import check_floors, parse_floor

    request, options = _settings(args)
    floors = [parse_floor(text) for texts in args.floor for text in texts]
    collection = collect(request, _progress if sys.stderr.isatty() else None)
    evaluation = evaluate(collection.results, options)
    outcomes = check_floors(evaluation, floors)
    rules = conventions(request, options)
    source = _source(request)
    sys.stdout.write(_summary(evaluation, collection, rules, outcomes))
    tables = {} if args.out is None else _tables(args, evaluation, collection, rules)
    if args.json is not None:
        from cmbprep.lab.evaluate.tables import as_json

        _write(args.json, as_json(evaluation, collection, rules, outcomes, source))
    for path, text in tables.items():
        _write(path, text)
    if args.out is not None:
        from cmbprep.lab.evaluate.page import make_page

        page = args.out / "evaluation.html"
        _write(page, make_page(evaluation, collection, rules, outcomes, source))
        sys.stdout.write(f"\nPage with plots: {page}\n")
    return 0 if all(outcome.holds for outcome in outcomes) else FLOOR_FAILED


def _tables(
    args: argparse.Namespace,
    evaluation: Evaluation,
    collection: Collection,
    rules: tuple[str, ...],
) -> dict[Path, str]:
    """Return the text of each table and dictionary by its file, none of which is ``--json``'s."""
    from cmbprep.lab.evaluate.tables import make_tables

    files: dict[Path, str] = {}
    for table in make_tables(evaluation, collection):
        files[args.out / f"{table.name}.tsv"] = table.tsv()
        files[args.out / f"{table.name}.json"] = table.dictionary(rules)
    if args.json is not None and args.json.absolute() in {path.absolute() for path in files}:
        raise UsageError(
            "--out writes a file of this name too",
            path=args.json,
            hint="give the file of --json another name or folder",
        )
    return files


def _settings(args: argparse.Namespace) -> tuple[Request, Options]:
    from cmbprep.lab.evaluate.collect import Request
    from cmbprep.lab.evaluate.evaluation import Options
    from cmbprep.lab.evaluate.matching import Rule

    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise UsageError(f"the threshold is 0..1, not {args.threshold:g}")
    if args.raw is not None and not args.raw.is_dir():
        raise UsageError("there is no such folder", path=args.raw)
    if not args.mimic_distance >= 0:
        raise UsageError(f"the mimic distance is 0 mm or more, not {args.mimic_distance:g}")
    try:
        rule = Rule(
            match=args.match,
            distance_mm=args.distance,
            min_overlap=args.min_overlap,
            connectivity=args.connectivity,
            count_invisible=args.count_invisible,
            min_diameter_mm=args.min_diameter,
        )
        options = Options(
            rule=rule,
            n_draws=args.bootstrap,
            seed=args.seed,
            n_bins=args.bins,
            size_edges_mm=tuple(args.size_edges),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    request = Request(
        output=args.output_dir,
        truth=args.truth,
        raw=args.raw,
        subjects=None if args.participant_label is None else tuple(args.participant_label),
        truth_pattern=args.truth_pattern,
        prediction_pattern=args.prediction_pattern,
        rule=rule,
        threshold=args.threshold,
        rating=args.rating,
        count_diamagnetic=args.count_diamagnetic,
        missing=args.missing,
        mimic_distance_mm=args.mimic_distance,
    )
    return request, options


def _source(request: Request) -> dict[str, object]:
    """Return the names of the compared datasets, as they give them, without their paths."""
    from cmbprep import __version__

    prediction = _description(request.output)
    generators = prediction.get("GeneratedBy")
    first = generators[0] if isinstance(generators, list) and generators else {}
    made_by = (
        f"{first.get('Name', '')} {first.get('Version', '')}" if isinstance(first, dict) else ""
    )
    return {
        "prediction": made_by.strip() or None,
        "truth": _description(request.truth).get("Name"),
        "evaluated_with": __version__,
    }


def _description(folder: Path) -> dict[str, object]:
    try:
        content = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a plain folder has none
    return content if isinstance(content, dict) else {}


def _summary(
    evaluation: Evaluation,
    collection: Collection,
    rules: tuple[str, ...],
    outcomes: list[Outcome],
) -> str:
    from cmbprep.lab.evaluate.metrics import FIGURES
    from cmbprep.lab.evaluate.page import number, span

    labels = {figure.name: figure.label for figure in FIGURES}
    results = evaluation.results
    lines = [
        f"Rule: {rules[0]}",
        (
            f"{len(results)} scans of {len({r.subject for r in results})} subjects, "
            f"{sum(r.truth_count for r in results)} true and "
            f"{sum(r.predicted_count for r in results)} predicted lesions."
        ),
    ]
    for status in ("no prediction", "no truth", "no result"):
        scans = [record for record in collection.records if record.status == status]
        if scans:
            counted = "counted as nothing found" if scans[0].counted else "not counted"
            lines.append(f"With {status} ({counted}): {', '.join(r.scan for r in scans)}")
    lines += [f"{r.scan}: {r.note}" for r in collection.records if r.note]
    lines.append("")
    for name in _SUMMARY:
        row = evaluation.row(name)
        if row is not None and row.value is not None:
            interval = span(row.low, row.high)
            lines.append(
                f"{labels[name]:<42}{number(row.value):>9}{f'  ({interval})' if interval else ''}"
            )
    for outcome in outcomes:
        verdict = "holds" if outcome.holds else "DOES NOT HOLD"
        floor = outcome.floor
        lines.append(
            f"floor {floor.name} {outcome.sign} {floor.limit:g}: {number(outcome.value)}, {verdict}"
        )
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror})", path=path) from error


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"\rreading scans: {done}/{total}{chr(10) if done == total else ''}")
    sys.stderr.flush()
