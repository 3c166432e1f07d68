"""TSV tables with their JSON dictionaries, and the whole evaluation as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmbprep.lab.evaluate.collect import SCAN_SPLITS, Collection, Request
from cmbprep.lab.evaluate.evaluation import WHOLE, Evaluation, Options
from cmbprep.lab.evaluate.matching import Mark
from cmbprep.lab.evaluate.metrics import FIGURES, Confusion
from cmbprep.lab.evaluate.thresholds import Outcome

__all__ = [
    "Table",
    "as_json",
    "conventions",
    "make_tables",
]


MISSING = "n/a"


@dataclass(frozen=True)
class Table:
    """A table: its file's stem, what it is, its columns with descriptions, its rows."""

    name: str
    description: str
    columns: dict[str, str]
    rows: tuple[tuple[object, ...], ...]

    def tsv(self) -> str:
        """Return the text of the table."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return out.getvalue()

    def dictionary(self, rules: Sequence[str]) -> str:
        """Return its BIDS data dictionary, with the rules by which the numbers were counted."""
        entries: dict[str, Any] = {"Description": self.description, "Rules": list(rules)}
        entries |= {name: {"Description": text} for name, text in self.columns.items()}
        return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


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
    return (
        _figures(evaluation),
        _scans(evaluation, collection),
        _lesions(evaluation),
        _froc(evaluation),
        _froc_levels(evaluation),
        _calibration(evaluation),
        _confusion("zone_confusion", "zone", evaluation.sample.zones),
        _confusion("region_confusion", "region", evaluation.sample.regions),
        _origins(evaluation),
    )


def _figures(evaluation: Evaluation) -> Table:
    short = evaluation.options.rule.short
    return Table(
        "figures",
        "Every figure, of all scans and of every group of every split.",
        {
            "split": f"What the group is a group of; {WHOLE}: everything.",
            "group": "The group.",
            "figure": "; ".join(f"{figure.name}: {figure.definition}" for figure in FIGURES),
            "value": "The figure; n/a where undefined.",
            "low": "Lower end of the 95 % interval.",
            "high": "Upper end of the 95 % interval.",
            "scans": "Scans of the group.",
            "lesions": "True lesions of the group.",
            "rule": "The matching rule in short.",
        },
        tuple(
            (r.split, r.group, r.figure, r.value, r.low, r.high, r.scans, r.lesions, short)
            for r in evaluation.rows
        ),
    )


def _scans(evaluation: Evaluation, collection: Collection) -> Table:
    results = {result.scan: result for result in evaluation.results}
    states = ["evaluated", "no prediction", "no truth"]
    if any(record.status == "no result" for record in collection.records):
        states.append("no result: neither a truth nor a result that counts")
    rows = []
    for record in collection.records:
        result = results.get(record.scan) if record.counted else None
        counts: tuple[object, ...] = (None,) * 7
        groups: dict[str, str] = {}
        if result is not None:
            groups = dict(result.groups)
            both = result.truth_count + result.predicted_count
            counts = (
                result.truth_count,
                result.predicted_count,
                len(result.hits),
                len(result.false_positives),
                len(result.misses),
                2 * len(result.hits) / both if both else None,
                len(result.ignored_truth) + len(result.ignored_predicted),
            )
        rows.append(
            (
                record.scan,
                record.status,
                record.counted,
                *(groups.get(split) for split in SCAN_SPLITS),
                *counts,
                record.paired_by,
                record.truth_from,
                record.predicted_from,
                record.note,
            )
        )
    return Table(
        "scans",
        "Every scan of the truth and of the prediction, and what became of it.",
        {
            "scan": "Entities of the scan.",
            "status": "; ".join(states) + ".",
            "counted": "Whether the scan takes part in the figures.",
            "protocol": "ProtocolName of the sidecar, or the acq entity.",
            "sequence": "Suffix of the raw scan.",
            "field": "Field strength, from the sidecar.",
            "site": "Site, from participants.tsv.",
            "truth": "True lesions that count.",
            "predicted": "Predicted lesions that count.",
            "hits": "Matched pairs.",
            "false_positives": "Predictions without a match.",
            "misses": "True lesions without a match.",
            "f1": "F1 of the scan; n/a if it has neither true nor predicted lesions.",
            "ignored": "True lesions that are not visible, and predictions on them.",
            "paired_by": "How truth and prediction were found to be of one scan.",
            "truth_from": "What the true lesions were read from.",
            "predicted_from": "What the predicted lesions were read from.",
            "note": "What is odd about the scan.",
        },
        tuple(rows),
    )


_SIDE = ("index", "x", "y", "z", "volume_mm3", "diameter_mm", "zone", "region")


def _side(mark: Mark | None) -> tuple[object, ...]:
    if mark is None:
        return (None,) * len(_SIDE)
    place = (float(round(value, 3)) for value in mark.centre)
    return (mark.index, *place, mark.volume_mm3, mark.diameter_mm, mark.zone, mark.region)


def _lesions(evaluation: Evaluation) -> Table:
    rows: list[tuple[object, ...]] = []
    for r in evaluation.results:
        entries: list[tuple[str, Mark | None, Mark | None, object, object, object]] = [
            ("hit", hit.truth, hit.predicted, hit.distance_mm, hit.dice, None) for hit in r.hits
        ]
        entries += [("miss", mark, None, None, None, None) for mark in r.misses]
        entries += [
            ("false positive", None, fp.predicted, None, None, fp.origin)
            for fp in r.false_positives
        ]
        entries += [("ignored", mark, None, None, None, None) for mark in r.ignored_truth]
        entries += [("ignored", None, mark, None, None, None) for mark in r.ignored_predicted]
        for outcome, true, mark, distance, dice, origin in entries:
            chance = None if mark is None else mark.probability
            rows.append(
                (r.scan, outcome, *_side(true), *_side(mark), chance, distance, dice, origin)
            )
    columns = {"scan": "Entities of the scan.", "outcome": "hit, miss, false positive, ignored."}
    columns |= {f"true_{name}": f"{name} of the true lesion." for name in _SIDE}
    columns |= {f"predicted_{name}": f"{name} of the predicted lesion." for name in _SIDE}
    columns |= {
        "probability": "Probability of the predicted lesion.",
        "distance_mm": "Distance of the centres of a matched pair.",
        "dice": "Dice of a matched pair.",
        "origin": "What a false positive lies on.",
    }
    description = "Every lesion of every scan that counts; positions in mm, RAS+."
    return Table("lesions", description, columns, tuple(rows))


def _froc(evaluation: Evaluation) -> Table:
    sample = evaluation.sample
    rows = []
    if sample.pooled is not None:
        total, scans = sample.truth.sum(), len(sample.subjects)
        hits, false = sample.pooled.hits.sum(axis=0), sample.pooled.false.sum(axis=0)
        for threshold, h, f in zip(sample.pooled.thresholds, hits, false, strict=True):
            rows.append(
                (
                    float(threshold),
                    float(f / scans),
                    float(h / total) if total else None,
                    float(h / (h + f)) if h + f else None,
                )
            )
    return Table(
        "froc",
        "Free-response ROC and precision-recall curve, all scans pooled.",
        {
            "threshold": "Predictions at or above this probability count.",
            "fp_per_scan": "False positives / scans.",
            "sensitivity": "Matched true lesions / true lesions (recall).",
            "precision": "Matched / all counted predictions.",
        },
        tuple(rows),
    )


def _froc_levels(evaluation: Evaluation) -> Table:
    return Table(
        "froc_levels",
        "The FROC curve at fixed rates of false positives.",
        {
            "fp_per_scan": "At most so many false positives per scan.",
            "sensitivity": "Best sensitivity of any threshold.",
            "low": "Lower end of the 95 % interval.",
            "high": "Upper end of the 95 % interval.",
        },
        tuple((r.fp_per_scan, r.sensitivity, r.low, r.high) for r in evaluation.levels),
    )


def _calibration(evaluation: Evaluation) -> Table:
    rows = []
    if evaluation.sample.bins is not None:
        count, chance, correct = (part.sum(axis=0) for part in evaluation.sample.bins)
        edges = np.linspace(0, 1, len(count) + 1)
        for i, n in enumerate(count):
            mean = float(chance[i] / n) if n else None
            share = float(correct[i] / n) if n else None
            rows.append((float(edges[i]), float(edges[i + 1]), int(n), mean, share))
    return Table(
        "calibration",
        "Reliability curve: how often predictions of a probability are right.",
        {
            "from": "Lower edge of the bin, in it.",
            "to": "Upper edge of the bin, not in it (1 is in the last).",
            "predictions": "Predictions in the bin.",
            "mean_probability": "Their mean probability.",
            "share_matched": "Share of them that is matched to a true lesion.",
        },
        tuple(rows),
    )


def _confusion(name: str, what: str, confusion: Confusion) -> Table:
    summed = confusion.tables.sum(axis=0)
    return Table(
        name,
        f"Matched lesions by true and predicted {what}; pairs without one are left out.",
        {
            f"true_{what}": f"The {what} of the true lesion.",
            f"predicted_{what}": f"The {what} of the predicted lesion.",
            "lesions": "Matched pairs.",
        },
        tuple(
            (a, b, int(summed[i, j]))
            for i, a in enumerate(confusion.names)
            for j, b in enumerate(confusion.names)
            if what == "zone" or summed[i, j]
        ),
    )


def _origins(evaluation: Evaluation) -> Table:
    return Table(
        "false_positives",
        "What the false positives lie on.",
        {
            "origin": "Kind of mimic, or what else.",
            "mimics": "Such mimics in all scans; n/a for structures that reach through the brain.",
            "mimics_marked": "Those with a false positive on them.",
            "false_positives": "False positives on them.",
            "share": "Share of all false positives.",
        },
        tuple(
            (r.origin, r.mimics, r.mimics_marked, r.false_positives, r.share)
            for r in evaluation.origins
        ),
    )


def as_json(
    evaluation: Evaluation,
    collection: Collection,
    rules: Sequence[str],
    outcomes: Iterable[Outcome],
    source: dict[str, object],
) -> str:
    """Return the whole evaluation but the single lesions as JSON text."""
    outcomes = list(outcomes)
    rule = evaluation.options.rule
    tables = {table.name: table for table in make_tables(evaluation, collection)}
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
        "bootstrap": {"draws": evaluation.options.n_draws, "seed": evaluation.options.seed},
        "counts": _counts(evaluation, collection),
        "figures": {
            figure.name: {**_values(evaluation, figure.name), "definition": figure.definition}
            for figure in FIGURES
        },
        "splits": _splits(evaluation),
        **{
            name: _records(tables[name])
            for name in (
                "froc_levels",
                "calibration",
                "zone_confusion",
                "region_confusion",
                "false_positives",
                "scans",
            )
        },
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
    return {
        "scans": len(results),
        "subjects": len({result.subject for result in results}),
        "scans_without_true_lesions": sum(1 for r in results if not r.truth_count),
        "scans_without_prediction": sum(
            1 for r in collection.records if r.status == "no prediction"
        ),
        "scans_without_truth": sum(1 for r in collection.records if r.status == "no truth"),
        "true_lesions": sum(r.truth_count for r in results),
        "predicted_lesions": sum(r.predicted_count for r in results),
        "hits": sum(len(r.hits) for r in results),
        "misses": sum(len(r.misses) for r in results),
        "false_positives": sum(len(r.false_positives) for r in results),
        "ignored_true_lesions": sum(len(r.ignored_truth) for r in results),
        "ignored_predictions": sum(len(r.ignored_predicted) for r in results),
    }


def _values(
    evaluation: Evaluation, figure: str, split: str = WHOLE, group: str = WHOLE
) -> dict[str, float | None]:
    row = evaluation.row(figure, split, group)
    assert row is not None
    return {"value": _round(row.value), "low": _round(row.low), "high": _round(row.high)}


def _splits(evaluation: Evaluation) -> dict[str, dict[str, dict[str, object]]]:
    splits: dict[str, dict[str, dict[str, object]]] = {}
    for row in evaluation.rows:
        if row.split != WHOLE:
            group = splits.setdefault(row.split, {}).setdefault(
                row.group, {"scans": row.scans, "lesions": row.lesions}
            )
            group[row.figure] = _values(evaluation, row.figure, row.split, row.group)
    return splits


def _records(table: Table) -> list[dict[str, object]]:
    return [
        {
            name: _round(value) if isinstance(value, float) else value
            for name, value in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def _round(value: float | None) -> float | None:
    """Format a number with six digits; further ones differ between machines."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value + 0.0:.6g}")


# --- How things were counted, in sentences that stand in every output ----------------------------


def conventions(request: Request, options: Options) -> tuple[str, ...]:
    """Return the rules of an evaluation, the matching rule first."""
    rule = request.rule
    sentences = [rule.text]
    if rule.count_invisible:
        sentences.append("Truth lesions flagged as not visible count like the others.")
    else:
        sentences.append(
            "Truth lesions flagged as not visible are no misses, and predictions that may be "
            "matched to one of them and to no free visible lesion are no false positives."
        )
    if rule.min_diameter_mm:
        sentences.append(
            f"Truth lesions of less than {rule.min_diameter_mm:g} mm across are left out in the "
            "same way: no misses, and what may be matched to one of them is no false positive."
        )
    sentences.append(_selection(request))
    sentences.append(
        "Figures are pooled over scans (micro-average) unless their name says otherwise; a ratio "
        "without anything below the line is undefined (n/a) and holds no floor. Scans without "
        "true lesions take part in all pooled figures; false positives in them are also given "
        "apart."
    )
    if request.missing == "misses":
        sentences.append(
            "A scan with truth but without prediction counts as one in which nothing was found; "
            "a scan with prediction but without truth is listed and does not count."
        )
    else:
        sentences.append(
            "A scan with truth but without prediction, or the other way round, is listed and "
            "does not count."
        )
    edges = ", ".join(f"{edge:g}" for edge in options.size_edges_mm)
    sentences.append(
        f"By size (diameter of the sphere of the same volume; classes begin at {edges} mm) and "
        "by zone, hits and misses belong to the class of the true lesion, false positives to "
        "that of the predicted one."
    )
    sentences.append(
        "Curves: the predictions at or above each threshold are matched afresh; probabilities "
        "are taken to three decimals. They end at the least probable lesion that the prediction "
        "lists. The reliability curve and the expected calibration error use "
        f"{options.n_bins} bins of equal width over 0..1."
    )
    sentences.append(
        "A false positive lies on a mimic if they have voxels in common or its centre is at most "
        f"{request.mimic_distance_mm:g} mm from the mimic (of several, on the one with most "
        "voxels in common, else on the nearest); failing that, it is a second mark if "
        "it may be matched to a lesion that another prediction has. Structures that reach through "
        "the brain, such as veins, are not counted among the mimics that were marked."
    )
    if options.n_draws:
        sentences.append(
            f"Intervals: 95 %, percentile bootstrap over subjects, {options.n_draws} draws, seed "
            f"{options.seed}; none where there is one subject or where the figure is undefined "
            "in half of the draws."
        )
    return tuple(sentences)


def _selection(request: Request) -> str:
    parts = []
    if request.threshold is not None:
        parts.append(f"have a probability of at least {request.threshold:g} (or none)")
    if request.rating == "definite":
        parts.append("are not rated possible")
    if not request.count_diamagnetic:
        parts.append("are not called diamagnetic by the detector itself")
    count = (
        f"Predictions count that {' and '.join(parts)}. " if parts else "All predictions count. "
    )
    if request.threshold is None:
        count += "Bare probability maps are cut at 0.5. "
    return count + (
        "The probability of a lesion is its row's, or the largest within it of a probability map."
    )
