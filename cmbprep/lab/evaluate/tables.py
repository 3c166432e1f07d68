"""TSV tables with their JSON dictionaries, and the whole evaluation as JSON.

What the columns hold is described in ``tables.json``; ``rules.txt`` says how things were counted,
in sentences that stand in every output.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmbprep.files.tsv import MISSING
from cmbprep.lab.evaluate.collect import SCAN_SPLITS, Collection, Request
from cmbprep.lab.evaluate.evaluation import WHOLE, Evaluation, Options, Row
from cmbprep.lab.evaluate.matching import Mark
from cmbprep.lab.evaluate.metrics import FIGURES, Confusion
from cmbprep.lab.evaluate.scoring import ScanResult
from cmbprep.lab.evaluate.thresholds import Outcome
from cmbprep.lab.shared import read_data

_Rows = Iterable[tuple[object, ...]]


@dataclass(frozen=True)
class Table:
    """A table: its file's stem, what it is, its columns with descriptions, its rows."""

    name: str
    description: str
    columns: dict[str, str]
    rows: tuple[tuple[object, ...], ...]

    def cells(self) -> list[list[str]]:
        """Return the rows as text."""
        return [[_cell(value) for value in row] for row in self.rows]

    def tsv(self) -> str:
        """Return the text of the table."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")
        writer.writerows([self.columns, *self.cells()])
        return out.getvalue()

    def dictionary(self, rules: Sequence[str]) -> str:
        """Return its BIDS data dictionary, with the rules by which the numbers were counted."""
        entries: dict[str, Any] = {"Description": self.description, "Rules": list(rules)}
        entries |= {name: {"Description": text} for name, text in self.columns.items()}
        return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"

    def records(self) -> list[dict[str, object]]:
        """Return the rows for a JSON file."""
        return [
            {
                name: _round(value) if isinstance(value, float) else value
                for name, value in zip(self.columns, row, strict=True)
            }
            for row in self.rows
        ]


def _cell(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value + 0.0:.6g}" if math.isfinite(value) else MISSING
    return str(value)


def make_tables(evaluation: Evaluation, collection: Collection) -> tuple[Table, ...]:
    """Return all tables of an evaluation."""
    described = read_data("cmbprep.lab.evaluate", "tables.json")
    definitions = "; ".join(f"{figure.name}: {figure.definition}" for figure in FIGURES)
    described["figures"]["columns"]["figure"] = definitions
    if any(record.status == "no result" for record in collection.records):
        states = described["scans"]["columns"]["status"].removesuffix(".")
        states += "; no result: neither a truth nor a result that counts."
        described["scans"]["columns"]["status"] = states
    sample, short = evaluation.sample, evaluation.options.rule.short
    rows: dict[str, _Rows] = {
        "figures": (
            (r.split, r.group, r.figure, r.value, r.low, r.high, r.scans, r.lesions, short)
            for r in evaluation.rows
        ),
        "scans": _scans(evaluation, collection),
        "lesions": (row for result in evaluation.results for row in _lesions(result)),
        "froc": _froc(evaluation),
        "froc_levels": ((r.fp_per_scan, r.sensitivity, r.low, r.high) for r in evaluation.levels),
        "calibration": _calibration(evaluation),
        "zone_confusion": _confusion(sample.zones),
        "region_confusion": (row for row in _confusion(sample.regions) if row[-1]),
        "false_positives": (
            (r.origin, r.mimics, r.mimics_marked, r.false_positives, r.share)
            for r in evaluation.origins
        ),
    }
    return tuple(
        Table(name, about["description"], about["columns"], tuple(rows[name]))
        for name, about in described.items()
    )


def _scans(evaluation: Evaluation, collection: Collection) -> _Rows:
    results = {result.scan: result for result in evaluation.results}
    for record in collection.records:
        result = results.get(record.scan) if record.counted else None
        yield (
            record.scan,
            record.status,
            record.counted,
            *(None if result is None else result.groups.get(split) for split in SCAN_SPLITS),
            *((None,) * 7 if result is None else _scan_counts(result)),
            record.paired_by,
            record.truth_from,
            record.predicted_from,
            record.note,
        )


def _scan_counts(result: ScanResult) -> tuple[object, ...]:
    both = result.truth_count + result.predicted_count
    return (
        result.truth_count,
        result.predicted_count,
        len(result.hits),
        len(result.false_positives),
        len(result.misses),
        2 * len(result.hits) / both if both else None,
        len(result.ignored_truth) + len(result.ignored_predicted),
    )


def _side(mark: Mark | None) -> tuple[object, ...]:
    if mark is None:
        return (None,) * 8
    place = (float(round(value, 3)) for value in mark.centre)
    return (mark.index, *place, mark.volume_mm3, mark.diameter_mm, mark.zone, mark.region)


def _lesions(result: ScanResult) -> _Rows:
    pairs: list[tuple[str, Mark | None, Mark | None, object, object, object]] = [
        ("hit", hit.truth, hit.predicted, hit.distance_mm, hit.dice, None) for hit in result.hits
    ]
    pairs += [("miss", mark, None, None, None, None) for mark in result.misses]
    pairs += [
        ("false positive", None, false.predicted, None, None, false.origin)
        for false in result.false_positives
    ]
    pairs += [("ignored", mark, None, None, None, None) for mark in result.ignored_truth]
    pairs += [("ignored", None, mark, None, None, None) for mark in result.ignored_predicted]
    for outcome, true, mark, *rest in pairs:
        chance = None if mark is None else mark.probability
        yield (result.scan, outcome, *_side(true), *_side(mark), chance, *rest)


def _froc(evaluation: Evaluation) -> _Rows:
    sample = evaluation.sample
    if sample.pooled is None:
        return
    total, scans = sample.truth.sum(), len(sample.subjects)
    hits, false = sample.pooled.hits.sum(axis=0), sample.pooled.false.sum(axis=0)
    for threshold, h, f in zip(sample.pooled.thresholds, hits, false, strict=True):
        sensitivity = float(h / total) if total else None
        precision = float(h / (h + f)) if h + f else None
        yield (float(threshold), float(f / scans), sensitivity, precision)


def _calibration(evaluation: Evaluation) -> _Rows:
    if evaluation.sample.bins is None:
        return
    count, chance, correct = (part.sum(axis=0) for part in evaluation.sample.bins)
    edges = np.linspace(0, 1, len(count) + 1)
    for i, n in enumerate(count):
        mean = float(chance[i] / n) if n else None
        share = float(correct[i] / n) if n else None
        yield (float(edges[i]), float(edges[i + 1]), int(n), mean, share)


def _confusion(confusion: Confusion) -> _Rows:
    summed = confusion.tables.sum(axis=0)
    for (i, j), number in np.ndenumerate(summed):
        yield (confusion.names[i], confusion.names[j], int(number))


def as_json(
    evaluation: Evaluation,
    collection: Collection,
    rules: Sequence[str],
    outcomes: Iterable[Outcome],
    source: dict[str, object],
) -> str:
    """Return the whole evaluation but the single lesions as JSON text."""
    outcomes = list(outcomes)
    options, rule = evaluation.options, evaluation.options.rule
    tables = {table.name: table.records() for table in make_tables(evaluation, collection)}
    whole = {row.figure: row for row in evaluation.rows if row.split == WHOLE}
    listed = ("froc_levels", "calibration", "zone_confusion", "region_confusion")
    content = {
        "source": source,
        "rule": {
            "short": rule.short,
            "match": rule.match,
            "distance_mm": rule.distance_mm if rule.match == "centroid" else None,
            "min_iou": rule.min_overlap if rule.match == "overlap" else None,
            "connectivity": rule.connectivity,
            "count_invisible": rule.count_invisible,
            "min_diameter_mm": rule.min_diameter_mm,
        },
        "rules": list(rules),
        "bootstrap": {"draws": options.n_draws, "seed": options.seed},
        "counts": _counts(evaluation, collection),
        "figures": {
            figure.name: {**_values(whole[figure.name]), "definition": figure.definition}
            for figure in FIGURES
        },
        "splits": _splits(evaluation),
        **{name: tables[name] for name in (*listed, "false_positives", "scans")},
        "floors": [
            {
                "floor": o.floor.name,
                "sign": o.sign,
                "limit": o.floor.limit,
                "value": _round(o.value),
                "holds": o.holds,
            }
            for o in outcomes
        ],
        "floors_hold": all(o.holds for o in outcomes),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _counts(evaluation: Evaluation, collection: Collection) -> dict[str, int]:
    results = evaluation.results
    states = [record.status for record in collection.records]
    return {
        "scans": len(results),
        "subjects": len({result.subject for result in results}),
        "scans_without_true_lesions": sum(not r.truth_count for r in results),
        "scans_without_prediction": states.count("no prediction"),
        "scans_without_truth": states.count("no truth"),
        "true_lesions": sum(r.truth_count for r in results),
        "predicted_lesions": sum(r.predicted_count for r in results),
        "hits": sum(len(r.hits) for r in results),
        "misses": sum(len(r.misses) for r in results),
        "false_positives": sum(len(r.false_positives) for r in results),
        "ignored_true_lesions": sum(len(r.ignored_truth) for r in results),
        "ignored_predictions": sum(len(r.ignored_predicted) for r in results),
    }


def _values(row: Row) -> dict[str, float | None]:
    return {"value": _round(row.value), "low": _round(row.low), "high": _round(row.high)}


def _splits(evaluation: Evaluation) -> dict[str, dict[str, dict[str, object]]]:
    splits: dict[str, dict[str, dict[str, object]]] = {}
    for row in evaluation.rows:
        if row.split != WHOLE:
            start: dict[str, object] = {"scans": row.scans, "lesions": row.lesions}
            group = splits.setdefault(row.split, {}).setdefault(row.group, start)
            group[row.figure] = _values(row)
    return splits


def _round(value: float | None) -> float | None:
    """Format a number with six digits; further ones differ between machines."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value + 0.0:.6g}")


def conventions(request: Request, options: Options) -> tuple[str, ...]:
    """Return the rules of an evaluation, the matching rule first."""
    edges = ", ".join(f"{edge:g}" for edge in options.size_edges_mm)
    text = render_text(
        "rules.txt", rule=request.rule, request=request, options=options, edges=edges
    )
    return tuple(text.splitlines())


def make_summary(
    evaluation: Evaluation,
    collection: Collection,
    rules: Sequence[str],
    outcomes: Sequence[Outcome],
) -> str:
    """Return the figures that are shown on the screen."""
    return render_text(
        "summary.txt",
        evaluation=evaluation,
        records=collection.records,
        rules=rules,
        outcomes=outcomes,
    )


def render_text(name: str, **values: object) -> str:
    """Fill in one of the templates beside this module; in HTML, values are escaped."""
    import jinja2

    page = name.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=not page,
        lstrip_blocks=not page,
        keep_trailing_newline=not page,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    environment.globals |= {"span": _span, "figures": {f.name: f for f in FIGURES}}
    return str(environment.get_template(name).render(**values))


def _number(value: float | None) -> str:
    """Show a figure to three decimals."""
    return MISSING if value is None else f"{value + 0.0:.3f}"


def _span(low: float | None, high: float | None) -> str:
    """Show an interval; nothing where there is none."""
    return "" if low is None or high is None else f"{low + 0.0:.3f} to {high + 0.0:.3f}"
