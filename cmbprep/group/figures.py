"""The frequency map as a figure of the group page."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.reports.colours import HEAT_STOPS
from cmbprep.reports.figures.canvas import (
    SIDES,
    Canvas,
    draw_grey,
    new_sheet,
)
from cmbprep.reports.figures.sections import (
    PLANES,
    Tile,
    Volume,
    as_float,
    colour_map,
    encode_picture,
    foreground_window,
    spread,
    thin,
)


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
