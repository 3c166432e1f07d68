"""``cmbprep-tools evaluate``: lesion-wise figures against a truth."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cmbprep.errors import UsageError

if TYPE_CHECKING:
    from cmbprep.lab.evaluate.collect import Collection, Request
    from cmbprep.lab.evaluate.evaluation import Evaluation, Options

T = TypeVar("T")

#: Exit status if a floor does not hold.
FLOOR_FAILED = 3


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
    from cmbprep.lab.evaluate.tables import as_json, conventions, make_summary
    from cmbprep.lab.evaluate.thresholds import check_floors, parse_floor

    request, options = _settings(args)
    floors = [parse_floor(text) for texts in args.floor for text in texts]
    collection = collect(request, _progress if sys.stderr.isatty() else None)
    evaluation = evaluate(collection.results, options)
    outcomes = check_floors(evaluation, floors)
    rules = conventions(request, options)
    source = _source(request)
    sys.stdout.write(make_summary(evaluation, collection, rules, outcomes))
    tables = {} if args.out is None else _tables(args, evaluation, collection, rules)
    if args.json is not None:
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
    if not args.mimic_distance_mm >= 0:
        raise UsageError(f"the mimic distance is 0 mm or more, not {args.mimic_distance_mm:g}")
    try:
        rule = _from_arguments(Rule, args)
        options = _from_arguments(Options, args, rule=rule)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return _from_arguments(Request, args, rule=rule), options


def _from_arguments(kind: Callable[..., T], args: argparse.Namespace, **more: object) -> T:
    """Make a value object whose fields are named as the arguments are."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in vars(args).items() if key in names}, **more)


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


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror})", path=path) from error


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"\rreading scans: {done}/{total}{chr(10) if done == total else ''}")
    sys.stderr.flush()
