"""The HTML page of an evaluation: one file, with nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from .collect import Collection
from .evaluation import WHOLE, Evaluation, Row
from .figures import FIGURES
from .floors import Outcome
from .plots import draw_plots
from .tables import Table, make_tables

__all__ = ["make_page", "number", "span"]

_CARDS = ("sensitivity", "precision", "f1", "fp_per_scan", "average_precision", "count_icc")
_COLUMNS = ("sensitivity", "precision", "f1", "fp_per_scan", "dice_mean", "volume_error_median")
_TABLES = {
    "zone_confusion": "Zones of matched lesions",
    "false_positives": "Where the false positives lie",
    "calibration": "Calibration",
    "scans": "Scans",
}


def number(value: float | None) -> str:
    """Show a figure to three decimals; n/a where it is undefined."""
    return "n/a" if value is None else f"{value + 0.0:.3f}"


def span(low: float | None, high: float | None) -> str:
    """Show an interval; nothing where there is none."""
    return "" if low is None or high is None else f"{low + 0.0:.3f} to {high + 0.0:.3f}"


def make_page(
    evaluation: Evaluation,
    collection: Collection,
    rules: Sequence[str],
    outcomes: Sequence[Outcome],
    source: dict[str, object],
) -> str:
    """Give the text of the page."""
    import jinja2

    labels = {figure.name: figure.label for figure in FIGURES}
    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        text
    )
    return template.render(
        heading=_heading(evaluation, collection, source),
        rules=rules,
        cards=[{"label": labels[name], **_shown(evaluation.row(name))} for name in _CARDS],
        floors=[
            {
                "name": outcome.floor.name,
                "value": number(outcome.value),
                "sign": "≥" if outcome.sign == ">=" else "≤",
                "limit": f"{outcome.floor.limit:g}",
                "holds": outcome.holds,
            }
            for outcome in outcomes
        ],
        plots=draw_plots(evaluation),
        figures=[
            {"label": f.label, "definition": f.definition, **_shown(evaluation.row(f.name))}
            for f in FIGURES
        ],
        splits=_splits(evaluation, labels),
        tables=[
            _table(table) for table in make_tables(evaluation, collection) if table.name in _TABLES
        ],
        footer=f"Made by cmbprep {source['evaluated_with']}. For research; not a diagnosis.",
    )


def _heading(evaluation: Evaluation, collection: Collection, source: dict[str, object]) -> str:
    results = evaluation.results
    parts = [
        f"Scans: {len(results)}, of {len({r.subject for r in results})} subjects",
        f"true lesions: {sum(r.truth_count for r in results)}",
        f"predicted lesions: {sum(r.predicted_count for r in results)}",
    ]
    for status in ("no prediction", "no truth", "no result"):
        count = sum(1 for record in collection.records if record.status == status)
        if count:
            parts.append(f"scans with {status}: {count}")
    if source.get("prediction"):
        parts.insert(0, f"Prediction: {source['prediction']}")
    return " · ".join(parts)


def _shown(row: Row | None) -> dict[str, str]:
    if row is None:
        return {"value": "n/a", "interval": ""}
    return {"value": number(row.value), "interval": span(row.low, row.high)}


def _splits(evaluation: Evaluation, labels: dict[str, str]) -> list[dict[str, object]]:
    names = [name for name in dict.fromkeys(row.split for row in evaluation.rows) if name != WHOLE]
    splits: list[dict[str, object]] = []
    for name in names:
        rows = []
        for group in dict.fromkeys(row.group for row in evaluation.rows if row.split == name):
            first = evaluation.row(_COLUMNS[0], name, group)
            assert first is not None
            rows.append(
                {
                    "group": group,
                    "scans": first.scans,
                    "lesions": first.lesions,
                    "cells": [_shown(evaluation.row(column, name, group)) for column in _COLUMNS],
                }
            )
        splits.append(
            {"name": name, "columns": [labels[column] for column in _COLUMNS], "rows": rows}
        )
    return splits


def _table(table: Table) -> dict[str, object]:
    lines = [line.split("\t") for line in table.tsv().splitlines()[1:]]
    columns = list(table.columns)
    if table.name == "scans":
        odd = [row[columns.index("status")] != "evaluated" or row[-1] != "n/a" for row in lines]
    else:
        odd = [False] * len(lines)
    return {
        "title": _TABLES[table.name],
        "description": table.description,
        "columns": columns,
        "rows": [{"cells": cells, "odd": mark} for cells, mark in zip(lines, odd, strict=True)],
    }
