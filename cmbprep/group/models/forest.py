"""A forest plot: ratios with their intervals on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from cmbprep.reports.figures.canvas import Canvas, shorten

#: Readable at 700 pixels, where a page shows it at its own size.
WIDTH = 680.0
LABELS, NUMBERS, ROW = 216.0, 172.0, 24.0
#: Dark on white, as it goes into a paper; blue and vermilion can be told apart by everybody
#: (Okabe M, Ito K 2008).
PAPER, INK, QUIET, GRID = "#ffffff", "#1f2328", "#57606a", "#d0d7de"
POINT, DOUBT = "#0072b2", "#d55e00"
#: The scale reaches no further than this, either way; arrows mark intervals that do.
LIMIT = 100.0
#: Steps of the scale within a factor of ten, from fine to coarse.
_STEPS = (
    (1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 2.0, 5.0),
    (1.0,),
)
MAX_TICKS = 8
PARTS = {
    "count": "number of microbleeds",
    "presence": "presence",
    "class": "higher class",
    "zeros": "excess zeros",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One coefficient of the plot.

    Attributes
    ----------
    label
        What it is called.
    ratio, low, high
        The ratio with its interval; None where there is none.
    group
        Part of the model.
    quiet
        Whether it is a nuisance term.
    wider
        Interval with the detector's doubt; None without.
    pooled
        Whether it is pooled over the lines before it; it is a diamond from end to end.
    """

    label: str
    ratio: float | None
    low: float | None
    high: float | None
    group: str
    quiet: bool = False
    wider: tuple[float, float] | None = None
    pooled: bool = False


def draw_forest(
    title: str, lines: Sequence[Line], scale: str, *, headings: bool | None = None
) -> str:
    """Draw a forest plot as SVG.

    Parameters
    ----------
    title
        The formula, written above the plot.
    lines
        Coefficients; those of one group stand together.
    scale
        What the ratios are, written below the axis.
    headings
        Whether each group has its name above it; by default where there are several.
    """
    groups = [(name, list(inner)) for name, inner in groupby(lines, key=lambda line: line.group)]
    several = len(groups) > 1 if headings is None else headings
    rows = len(lines) + several * len(groups)
    doubt = any(line.wider for line in lines)
    height = 34 + ROW * max(rows, 1) + 44 + 20 * doubt
    description = "; ".join(
        f"{f'{line.group}, ' if headings else ''}{line.label}: {_numbers(line)}" for line in lines
    )
    canvas = Canvas(
        WIDTH, height, f"Forest plot of {title}", description, background=PAPER, ink=INK
    )
    canvas.text((8, 20), shorten(title, 90), size=12, weight="600")
    low, high = _range(lines)
    bottom = 34 + ROW * max(rows, 1)

    def place(value: float) -> float:
        value = min(max(value, low), high)
        share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return LABELS + share * (WIDTH - LABELS - NUMBERS)

    for tick in _ticks(low, high):
        x = place(tick)
        main = tick == 1.0
        canvas.path(f"M{x:.1f} 30V{bottom:.1f}", QUIET if main else GRID, width=1)
        canvas.text((x, bottom + 14), f"{tick:g}", size=11, anchor="middle", colour=QUIET)
    middle = (LABELS + WIDTH - NUMBERS) / 2
    canvas.text((middle, bottom + 31), f"{scale}, 95 % interval", size=11, anchor="middle")
    top = 34.0
    for name, inner in groups:
        if several:
            heading = shorten(PARTS.get(name, name), 90)
            canvas.text((8, top + 16), heading, size=11, colour=QUIET)
            top += ROW
        for line in inner:
            _draw_line(canvas, line, top + ROW / 2, place, (low, high))
            top += ROW
    if doubt:
        entries = [(POINT, "as counted"), (DOUBT, "with the detector's doubt")]
        canvas.legend((8, height - 8), entries)
    return canvas.render()


def _draw_line(
    canvas: Canvas,
    line: Line,
    y: float,
    place: Callable[[float], float],
    ends: tuple[float, float],
) -> None:
    colour = QUIET if line.quiet else INK
    weight = "600" if line.pooled else "400"
    canvas.text((8, y + 4), shorten(line.label, 34), size=12, colour=colour, weight=weight)
    numbers = (WIDTH - 8, y + 4), _numbers(line)
    canvas.text(*numbers, size=12, anchor="end", colour=colour, weight=weight)
    if line.ratio is None or line.low is None or line.high is None:
        return
    if line.wider is not None:
        left, right = map(place, line.wider)
        below = y + (9 if line.pooled else 5)
        canvas.path(f"M{left:.1f} {below:.1f}H{right:.1f}", DOUBT, width=1.5)
    left, right = place(line.low), place(line.high)
    if line.pooled:
        middle = place(line.ratio)
        edge = f"M{left:.1f} {y:.1f}L{middle:.1f} {y - 6:.1f}L{right:.1f} {y:.1f}"
        canvas.path(f"{edge}L{middle:.1f} {y + 6:.1f}Z", POINT, width=1.5, fill=POINT)
        return
    canvas.path(f"M{left:.1f} {y:.1f}H{right:.1f}", QUIET if line.quiet else POINT, width=2)
    for value, x, tip in ((line.low, left, 5), (line.high, right, -5)):
        if not ends[0] <= value <= ends[1]:
            canvas.path(
                f"M{x + tip:.1f} {y - 4:.1f}L{x:.1f} {y:.1f}L{x + tip:.1f} {y + 4:.1f}", POINT
            )
    if ends[0] <= line.ratio <= ends[1]:
        hint = f"{line.label}: {_numbers(line)}"
        canvas.circle((place(line.ratio), y), 4, fill=QUIET if line.quiet else POINT, hint=hint)


def _numbers(line: Line) -> str:
    if line.ratio is None or line.low is None or line.high is None:
        return "n/a"
    return f"{_short(line.ratio)} ({_short(line.low)} to {_short(line.high)})"


def _short(value: float) -> str:
    if not math.isfinite(value) or value >= 1000:
        return "> 1000"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """Return the ends of the scale: all intervals, the 1, and not more than a hundredfold."""
    ends = [end for line in lines for end in (line.low, line.high, *(line.wider or ())) if end]
    known = [min(max(end, 1 / LIMIT), LIMIT) for end in ends if not math.isnan(end)]
    low, high = min([*known, 0.8]), max([*known, 1.25])
    return low / 1.1, high * 1.1


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers on the scale: as fine a set as has room for its labels."""
    for steps in _STEPS:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [float(f"{step}e{power}") for power in powers for step in steps]
        shown = [value for value in found if low <= value <= high]
        if len(shown) <= MAX_TICKS:
            break
    return shown
