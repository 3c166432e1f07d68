"""The place of a lesion at two visits, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.reports.colours import LESION_OUTLINE
from cmbprep.reports.figures.canvas import GAP, SIDES, WIDTH, Canvas, mark_sides
from cmbprep.reports.figures.lesions import close_window, scale_bar, ticks
from cmbprep.reports.figures.sections import (
    PLANES,
    Crop,
    Tile,
    Volume,
    encode_picture,
    fit,
    foreground_window,
    grey_levels,
    outline_path,
)

#: Planes that are shown: the one that is read, and one across its slices.
SHOWN = ("axial", "coronal")


@dataclass(frozen=True, eq=False, kw_only=True)
class Surroundings:
    """What a visit shows around a place.

    Attributes
    ----------
    heading
        Which visit it is.
    image
        (i, j, k); not a number where the scan shows nothing.
    lesion
        Voxels of the lesion, (i, j, k); None where it is not listed.
    """

    heading: str
    image: NDArray[np.floating]
    lesion: NDArray[np.bool_] | None


def visits_figure(
    visits: Sequence[Surroundings], affine: ArrayLike, centre: ArrayLike, title: str
) -> str:
    """Show the surroundings of a lesion at two visits.

    Parameters
    ----------
    visits
        The earlier and the later one, on one grid.
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm of that grid.
    centre
        Of the lesion, RAS+ mm.
    title
        The line above.

    Returns
    -------
    str
        The figure as SVG.
    """
    canvas = Canvas(WIDTH, 0, title, f"The same place at two visits. {SIDES}")
    canvas.text((GAP + 4, 20), title, size=15, weight="600", colour="#f0f6fc")
    side = (WIDTH - 5 * GAP) / 4
    bottom = 0.0
    for column, (name, visit) in enumerate(product(SHOWN, visits)):
        volume = Volume.of(np.nan_to_num(visit.image), affine)
        plane, frame = PLANES[name], volume.frame
        voxel = frame.voxel(centre)
        crop = Crop.of(np.zeros(3, int), np.array(frame.shape))
        window = close_window(volume, crop, foreground_window(volume, None, (0.1, 99.0)))
        index = int(np.clip(round(float(voxel[plane.normal])), 0, frame.shape[plane.normal] - 1))
        left = GAP + column * (side + GAP)
        box = fit(frame, crop, plane, (left, 48.0, side, side))
        tile = Tile(frame, plane, crop, index, box)
        canvas.text((left + 2, 41), f"{visit.heading}, {name}", size=12, colour="#c9d1d9")
        picture = encode_picture(grey_levels(tile.cut(volume), window), lossless=True)
        canvas.picture(picture, box, pixelated=True)
        if visit.lesion is not None:
            cut = tile.cut(volume.on_same_grid(visit.lesion))
            canvas.path(outline_path(cut > 0, box), LESION_OUTLINE, width=1.6)
        else:
            ticks(canvas, tile, voxel)
        mark_sides(canvas, tile, voxel)
        scale_bar(canvas, tile)
        bottom = max(bottom, box[1] + box[3])
    canvas.height = bottom + GAP
    return canvas.render()
