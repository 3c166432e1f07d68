"""Strip plots of the group page, drawn in the browser by Bokeh.

The document holds no numbers: the page's script fills the columns of its sources from the rows that
the table shows too. All scans are one source, so one selection is seen in all plots. Those that are
highlighted are a source per plot: a plot out of view is filled when it comes into view.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    from cmbprep.group.page_data import Measure

#: Height of a plot, pixels.
HEIGHT = 260
#: Places on the scale of counts that are labelled.
COUNT_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
POINT, HIGHLIGHT = "#4c8dca", "#e8590c"


@cache
def strip_document(measures: tuple[Measure, ...]) -> str:
    """Return the plots as a document of Bokeh, JSON; the same measures give the same text."""
    from bokeh.document import Document
    from bokeh.models import ColumnDataSource, FixedTicker, Range1d

    shown = (shown_column(measure) for measure in measures if measure.count)
    names = ("x", "scan", "group", *shown, *(measure.name for measure in measures))
    rows = ColumnDataSource(data={name: [] for name in names}, name="rows")
    across = Range1d(start=-0.5, end=0.5, name="across")
    places = FixedTicker(ticks=[0], name="places")
    document = Document()
    # Without the freeze, Bokeh looks at all models again for each plot.
    with document.models.freeze():
        for measure in measures:
            own: dict[str, list[float]] = {"x": [], measure.name: []}
            marked = ColumnDataSource(data=own, name=f"marked-{measure.name}")
            plot = _strip(measure, rows, marked)
            plot.x_range = across
            plot.xaxis.ticker = places
            document.add_root(plot)
    return _renumbered(json.dumps(document.to_json(deferred=False), separators=(",", ":")))


def _strip(measure: Measure, rows: ColumnDataSource, marked: ColumnDataSource) -> figure:
    from bokeh.models import BoxSelectTool, CustomJS, HoverTool, Range1d, TapTool
    from bokeh.plotting import figure

    brush = BoxSelectTool(continuous=False)
    tools: list[Any] = [brush, "box_zoom", "wheel_zoom", "reset"]
    plot = figure(
        name=f"strip-{measure.name}",
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools=tools,
        active_drag=brush,
        active_scroll=None,
        toolbar_location="above",
        y_range=Range1d(start=0, end=1),
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_alpha=0.3,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.xgrid.grid_line_color = None
    points = plot.scatter(
        "x",
        measure.name,
        source=rows,
        fill_color=POINT,
        fill_alpha=0.55,
        line_color=None,
        size=5,
    )
    points.nonselection_glyph = points.selection_glyph = None
    # Overlays are painted on a canvas of their own: a highlight repaints no other point.
    shown = plot.scatter(
        "x",
        measure.name,
        source=marked,
        fill_color=HIGHLIGHT,
        line_color="#ffffff",
        size=8,
        level="overlay",
    )
    shown.nonselection_glyph = shown.selection_glyph = None
    value = f"@{shown_column(measure)}" if measure.count else f"@{{{measure.name}}}{{0.[0000]}}"
    hover = HoverTool(
        renderers=[points], tooltips=[("scan", "@scan"), ("group", "@group"), ("value", value)]
    )
    hover.limit = 4
    # A click opens the report and selects nothing.
    opened = CustomJS(code="cmb.openReport(cb_data.source.inspected.indices)")
    tap = TapTool(renderers=[points], behavior="inspect", callback=opened)
    plot.add_tools(hover, tap)
    _limits(plot, measure)
    return plot


def shown_column(measure: Measure) -> str:
    """Return the column of the numbers that a plot on a scale of counts shows as they are."""
    return f"shown_{measure.name}"


def _limits(plot: Any, measure: Measure) -> None:
    from bokeh.models import FixedTicker
    from bokeh.models.annotations import Span

    for limit in (measure.low, measure.high):
        if limit is not None:
            line = Span(location=limit, dimension="width", line_dash="dashed", line_width=1)
            plot.add_layout(line)
    if measure.count:
        plot.yaxis.ticker = FixedTicker(ticks=[_scaled(count) for count in COUNT_TICKS])
        plot.yaxis.major_label_overrides = {_scaled(n): str(n) for n in COUNT_TICKS}


def _scaled(count: int) -> float:
    """Place a count on the scale log2(1 + count): 0 has a place, and small ones are apart."""
    import math

    return round(math.log2(1 + count), 6)


def _renumbered(text: str) -> str:
    """Number the models anew: Bokeh counts on from one document to the next."""
    found = dict.fromkeys(re.findall(r'"id":"(p\d+)"', text))
    new = {old: f"p{number}" for number, old in enumerate(found, start=1)}
    return re.sub(r'"id":"(p\d+)"', lambda match: f'"id":"{new[match[1]]}"', text)


@cache
def bokeh_script() -> str:
    """Return the script of Bokeh that the page brings along."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
