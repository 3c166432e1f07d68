"""The HTML page of an evaluation: one file, with nothing loaded from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbprep.lab.evaluate.collect import Collection
from cmbprep.lab.evaluate.evaluation import Evaluation, Row
from cmbprep.lab.evaluate.scoring import DUPLICATE, ELSEWHERE
from cmbprep.lab.evaluate.tables import make_tables, render_text
from cmbprep.lab.evaluate.thresholds import Outcome
from cmbprep.lab.shared import read_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# --- The plots of the page, as SVG text with the same bytes for the same numbers -----------------


# Colours of Okabe and Ito, which people with colour blindness tell apart.
_BLUE, _ORANGE, _GREY, _GREEN = "#0072B2", "#D55E00", "#6b7280", "#009E73"

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "svg.fonttype": "path",
}

Plot = tuple[str, str, str]


def draw_plots(evaluation: Evaluation) -> list[Plot]:
    """Draw all plots for which there are numbers.

    Returns
    -------
    list of (title, caption, SVG element)
    """
    captions = read_data("cmbprep.lab.evaluate", "plots.json")
    drawn = ((title, _render(title, evaluation, draw)) for title, draw in _PLOTS.items())
    return [(title, captions[title], svg) for title, svg in drawn if svg is not None]


def _render(
    title: str, evaluation: Evaluation, draw: Callable[[Evaluation, Axes], bool]
) -> str | None:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The salt differs by plot, so that no two on the page share the id of an element.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"cmbprep {title}"}):
        figure = Figure(figsize=(4.4, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        if not draw(evaluation, axes):
            return None
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    # Glyphs and markers keep plain ids, the same in every plot: make them the plot's own.
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'id="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _froc(evaluation: Evaluation, axes: Axes) -> bool:
    sample = evaluation.sample
    if sample.pooled is None or not sample.truth.sum() or not len(sample.pooled.thresholds):
        return False
    scans, total = len(sample.subjects), sample.truth.sum()
    rate = np.concatenate([[0], sample.pooled.false.sum(axis=0) / scans])
    sensitivity = np.concatenate([[0], sample.pooled.hits.sum(axis=0) / total])
    axes.step(rate, sensitivity, where="post", color=_BLUE)
    axes.plot(rate[-1], sensitivity[-1], "s", color=_BLUE)
    shown = [
        level
        for level in evaluation.levels
        if level.low is not None and level.fp_per_scan <= rate[-1] * 1.0001
    ]
    for level in shown:
        assert level.low is not None and level.high is not None
        axes.plot([level.fp_per_scan] * 2, [level.low, level.high], color=_GREY, linewidth=1)
    if rate[-1] > 4:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks([t for t in (0, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if t <= rate[-1] * 1.5])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
    axes.set(xlabel="False positives per scan", ylabel="Sensitivity", ylim=(0, 1.02))
    axes.set_xlim(left=0)
    return True


def _precision_recall(evaluation: Evaluation, axes: Axes) -> bool:
    sample = evaluation.sample
    if sample.pooled is None or not sample.truth.sum() or not len(sample.pooled.thresholds):
        return False
    hits, false = sample.pooled.hits.sum(axis=0), sample.pooled.false.sum(axis=0)
    some = hits + false > 0
    recall = hits[some] / sample.truth.sum()
    precision = hits[some] / (hits + false)[some]
    axes.step(
        np.concatenate([[0], recall]), np.concatenate([precision[:1], precision]), where="pre"
    )
    axes.lines[-1].set_color(_BLUE)
    axes.set(xlabel="Recall (sensitivity)", ylabel="Precision", xlim=(0, 1.02), ylim=(0, 1.02))
    return True


def _reliability(evaluation: Evaluation, axes: Axes) -> bool:
    if evaluation.sample.bins is None:
        return False
    count, chance, correct = (part.sum(axis=0) for part in evaluation.sample.bins)
    full = count > 0
    if not full.any():
        return False
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    x, y = chance[full] / count[full], correct[full] / count[full]
    axes.plot(x, y, "o-", color=_BLUE)
    for a, b, n in zip(x, y, count[full], strict=True):
        # Below the point, but not on the axis.
        place = (5, -9) if b > 0.1 else (3, 5)
        axes.annotate(
            f"{int(n)}", (a, b), textcoords="offset points", xytext=place, fontsize=7, color=_GREY
        )
    axes.set(xlabel="Mean probability", ylabel="Share matched", xlim=(0, 1.02), ylim=(-0.02, 1.05))
    return True


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    points, times = np.unique(np.stack([x, y], axis=1), axis=0, return_counts=True)
    axes.scatter(points[:, 0], points[:, 1], s=12 + 10 * times, color=_BLUE, alpha=0.7, linewidth=0)


def _counts(evaluation: Evaluation, axes: Axes) -> bool:
    truth, predicted = evaluation.sample.truth, evaluation.sample.predicted
    top = max(truth.max(), predicted.max(), 1)
    axes.plot([0, top], [0, top], color=_GREY, linestyle="--", linewidth=1)
    _dots(axes, truth, predicted)
    axes.set(xlabel="True count", ylabel="Predicted count")
    _whole_ticks(axes)
    return True


def _bland_altman(evaluation: Evaluation, axes: Axes) -> bool:
    truth, predicted = evaluation.sample.truth, evaluation.sample.predicted
    _dots(axes, (truth + predicted) / 2, predicted - truth)
    for name, style in (
        ("count_bias", "-"),
        ("count_limit_low", "--"),
        ("count_limit_high", "--"),
    ):
        row = evaluation.row(name)
        if row is not None and row.value is not None:
            axes.axhline(row.value, color=_ORANGE, linestyle=style, linewidth=1)
            axes.annotate(
                f"{row.value:.2f}",
                (1, row.value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=7,
                color=_ORANGE,
            )
    axes.set(xlabel="Mean of the two counts", ylabel="Predicted - true count")
    return True


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _split(split: str) -> Callable[[Evaluation, Axes], bool]:
    def draw(evaluation: Evaluation, axes: Axes) -> bool:
        groups = list(dict.fromkeys(r.group for r in evaluation.rows if r.split == split))
        if not groups or groups == ["n/a"]:
            return False
        for name, colour, shift in (
            ("sensitivity", _BLUE, -0.12),
            ("precision", _ORANGE, 0.12),
        ):
            rows = [evaluation.row(name, split, group) for group in groups]
            _bars(axes, rows, colour, shift, name)
        lesions = [evaluation.row("sensitivity", split, group) for group in groups]
        labels = [
            f"{group}\n({'' if row is None else row.lesions} lesions)"
            for group, row in zip(groups, lesions, strict=True)
        ]
        axes.set_yticks(range(len(groups)), labels)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(groups) - 0.4, -0.6))
        axes.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        return True

    return draw


def _bars(axes: Axes, rows: Sequence[Row | None], colour: str, shift: float, label: str) -> None:
    for place, row in enumerate(rows):
        if row is None or row.value is None:
            continue
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place + shift] * 2, color=colour, linewidth=1.5)
        axes.plot(row.value, place + shift, "o", color=colour, markersize=5)
    axes.plot([], [], "o-", color=colour, label=label)


def _volumes(evaluation: Evaluation, axes: Axes) -> bool:
    from matplotlib.ticker import LogLocator, NullFormatter

    pairs = [
        (hit.truth.volume_mm3, hit.predicted.volume_mm3)
        for result in evaluation.results
        for hit in result.hits
        if hit.truth.volume_mm3 and hit.predicted.volume_mm3
    ]
    if not pairs:
        return False
    data: Any = np.array(pairs)
    low, high = data.min() / 1.3, data.max() * 1.3
    axes.plot([low, high], [low, high], color=_GREY, linestyle="--", linewidth=1)
    axes.scatter(data[:, 0], data[:, 1], s=14, color=_BLUE, alpha=0.7, linewidth=0)
    axes.set(
        xscale="log", yscale="log", xlabel="True volume (mm³)", ylabel="Predicted volume (mm³)"
    )
    axes.set(xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        # Volumes often span one decade, in which powers of ten would leave a single number.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    return True


def _zones(evaluation: Evaluation, axes: Axes) -> bool:
    confusion = evaluation.sample.zones
    if not confusion.names:
        return False
    summed = confusion.tables.sum(axis=0)
    share = summed / np.maximum(summed.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.2)
    axes.grid(visible=False)
    for i in range(len(confusion.names)):
        for j in range(len(confusion.names)):
            axes.text(
                j,
                i,
                f"{int(summed[i, j])}",
                ha="center",
                va="center",
                color="white" if share[i, j] > 0.7 else "black",
            )
    axes.set_xticks(range(len(confusion.names)), confusion.names)
    axes.set_yticks(range(len(confusion.names)), confusion.names)
    axes.set(xlabel="Predicted zone", ylabel="True zone")
    return True


def _false_positives(evaluation: Evaluation, axes: Axes) -> bool:
    unknown = (DUPLICATE, ELSEWHERE)
    rows = [row for row in evaluation.origins if row.false_positives or row.origin in unknown]
    if not any(row.false_positives for row in rows):
        return False
    place = np.arange(len(rows))
    colours = [_GREY if row.origin in unknown else _ORANGE for row in rows]
    bars = axes.barh(place, [row.false_positives for row in rows], color=colours)
    axes.bar_label(bars, padding=2, fontsize=8)
    axes.set_yticks(place, [row.origin for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="False positives")
    axes.margins(x=0.12)
    return True


_PLOTS: dict[str, Callable[[Evaluation, Axes], bool]] = {
    "FROC": _froc,
    "Precision and recall": _precision_recall,
    "Reliability": _reliability,
    "Counts": _counts,
    "Bland and Altman": _bland_altman,
    **{f"By {name}": _split(name) for name in ("size", "zone", "protocol", "sequence", "site")},
    "Volumes": _volumes,
    "Zones": _zones,
    "False positives": _false_positives,
}


def make_page(
    evaluation: Evaluation,
    collection: Collection,
    rules: Sequence[str],
    outcomes: Sequence[Outcome],
    source: dict[str, object],
) -> str:
    """Return the text of the page."""
    return render_text(
        "page.html",
        evaluation=evaluation,
        records=collection.records,
        rules=rules,
        outcomes=outcomes,
        source=source,
        plots=draw_plots(evaluation),
        tables={table.name: table for table in make_tables(evaluation, collection)},
    )
