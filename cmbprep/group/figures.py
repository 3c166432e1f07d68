"""Figures of the group page: distributions of counts, and the frequency map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.reports.colours import HEAT_STOPS
from cmbprep.reports.figures.canvas import (
    SIDES,
    WIDTH,
    Canvas,
    draw_grey,
    new_sheet,
    shorten,
)
from cmbprep.reports.figures.sections import (
    PLANES,
    Box,
    Tile,
    Volume,
    as_float,
    colour_map,
    encode_picture,
    foreground_window,
    spread,
    thin,
)

#: Classes of the histograms: label and smallest count; the classes are ordered.
COUNT_CLASSES = (
    ("0", 0),
    ("1", 1),
    ("2", 2),
    ("3", 3),
    ("4", 4),
    ("5–9", 5),
    ("10–19", 10),
    ("≥ 20", 20),
)
QUIET = "#8b949e"


def classify_counts(counts: Sequence[int]) -> list[int]:
    """Count how many values fall into each of :data:`COUNT_CLASSES`."""
    limits = [lower for _, lower in COUNT_CLASSES]
    numbers, _ = np.histogram(counts, [*limits, np.inf])
    return [int(number) for number in numbers]


def count_figure(groups: Sequence[tuple[str, str, Sequence[int]]], *, columns: int = 3) -> str:
    """Draw a histogram of counts for each group, side by side.

    Parameters
    ----------
    groups
        Title, a line below it, and counts of each.
    columns
        Histograms in a row.

    Returns
    -------
    str
        The figure as SVG. Bars are shares of the group, so that groups can be compared;
        the numbers above them are participants.
    """
    cell, height, chart = WIDTH / columns, 190.0, 120.0
    rows = -(-len(groups) // columns)
    canvas = Canvas(
        WIDTH,
        rows * height + 8,
        "Participants by number of microbleeds",
        "One histogram a protocol.",
    )
    for number, (title, line, counts) in enumerate(groups):
        left, top = (number % columns) * cell + 16, (number // columns) * height + 8
        canvas.text((left, top + 14), shorten(title, 52), size=12, weight="600")
        line = shorten(f"{len(counts)} participants · {line}".rstrip(" ·"), 60)
        canvas.text((left, top + 29), line, size=11, colour=QUIET)
        _bars(canvas, (left, top + 34, cell - 32, chart), classify_counts(counts))
    return canvas.render()


def _bars(canvas: Canvas, box: Box, numbers: Sequence[int]) -> None:
    left, top, width, height = box
    total, step = max(1, sum(numbers)), width / len(numbers)
    base, room = top + height - 4, height - 20
    tallest = max(*numbers, 1)
    for index, ((label, _), number) in enumerate(zip(COUNT_CLASSES, numbers, strict=True)):
        tall = room * number / tallest
        colour = "#6e7681" if index == 0 else "#56b4e9"
        canvas.rectangle((left + index * step + 2, base - tall, step - 4, tall), fill=colour)
        middle = left + (index + 0.5) * step
        canvas.text((middle, base + 14), label, size=10.5, anchor="middle", colour=QUIET)
        if number:
            share = f"{number}" if total < 1000 else f"{100 * number / total:.0f}%"
            canvas.text((middle, base - tall - 4), share, size=10.5, anchor="middle")
    canvas.path(f"M{left:.1f} {base:.1f}h{width:.1f}", "#30363d", width=1)


def frequency_figure(
    frequency: NDArray, affine: ArrayLike, background: NDArray | None = None
) -> str:
    """Show a frequency map on a template.

    Each section shows the highest frequency in the slab that reaches half-way to its
    neighbours, so that no place is left out between sections.

    Parameters
    ----------
    frequency : array of shape (i, j, k)
        Fractions, 0 to 1.
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.
    background : array of shape (i, j, k) or None
        Template on the same grid.

    Returns
    -------
    str
        The figure as SVG.
    """
    shares = np.clip(np.nan_to_num(as_float(frequency)), 0.0, None)
    values = Volume.of(shares, affine)
    image = values if background is None else values.on_same_grid(background)
    shown, core = spread(image, None)
    window = (0.0, 1.1 * foreground_window(image, None, (1.0, 99.0))[1])
    top = float(values.data.max()) or 1.0
    sheet = new_sheet("Frequency map", "Where microbleeds lie.", values.frame, shown)

    def paint(canvas: Canvas, tile: Tile, reach: int) -> None:
        if background is not None:
            section = as_float(tile.cut(image))
            draw_grey(canvas, tile.box, np.float32(0.8) * section, window)
        else:
            canvas.rectangle(tile.box, fill="#161b22")
        normal = tile.plane.normal
        slab = [
            replace(tile, index=place).cut(values)
            for place in range(
                max(shown.low[normal], tile.index - reach),
                min(shown.high[normal], tile.index + reach + 1),
            )
        ]
        highest = thin(np.max(slab, axis=0), tile.box)
        canvas.picture(encode_picture(_heat(highest / top), lossless=True), tile.box)

    for name, rows, columns in (("axial", 2, 8), ("coronal", 1, 8), ("sagittal", 1, 7)):
        normal = PLANES[name].normal
        reach = int(np.ceil((core.size(normal) - 1) / (rows * columns + 1) / 2))
        sheet.mosaic(core, [(name, rows, columns)], partial(paint, reach=reach))
    ramp = colour_map(np.sqrt(np.linspace(0, 1, 128)), HEAT_STOPS)
    sheet.colour_bar(ramp, "0", f"{100 * top:.3g} % of people")
    sheet.legend((), f"{SIDES} Each section shows the highest value of its slab.")
    return sheet.finish()


def _heat(shares: NDArray) -> NDArray[np.uint8]:
    pixels = np.zeros((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = colour_map(np.sqrt(shares), HEAT_STOPS)
    pixels[..., 3] = np.where(shares > 0, 235, 0)
    return pixels
