"""Figures of lesions: each one close up, and all of them on projections of the brain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.lesions import Lesion
from cmbprep.reports.colours import LESION_OUTLINE, OTHER_LESION_OUTLINE, ZONE_COLOURS
from cmbprep.reports.figures.canvas import GAP, SIDES, WIDTH, Canvas, draw_grey, mark_sides
from cmbprep.reports.figures.sections import (
    PLANES,
    Box,
    Crop,
    Frame,
    Tile,
    Volume,
    as_float,
    contour_path,
    encode_picture,
    fit,
    foreground_window,
    grey_levels,
    outline_path,
    percentile,
    spread,
)
from cmbprep.reports.text import format_probability, region_title

#: Height of the projections at most, in pixels of the drawing.
TALLEST = 900.0
#: Pixels of the drawing for one millimetre in the projections, at most.
WIDEST_MM = 24.0


def describe_lesion(lesion: Lesion) -> str:
    """Describe a lesion in one line.

    Examples
    --------
    >>> describe_lesion(
    ...     Lesion(
    ...         index=2,
    ...         name="CMB-002",
    ...         x=1,
    ...         y=2,
    ...         z=3,
    ...         volume_mm3=20.6,
    ...         diameter_mm=3.4,
    ...         probability=0.93,
    ...         rating="definite",
    ...         zone="deep",
    ...         region="thalamus",
    ...         hemisphere="left",
    ...     )
    ... )
    '2 · definite · probability 0.93 · 3.4 mm, 21 mm³ · left thalamus (deep)'
    """
    parts = [
        str(lesion.index),
        lesion.rating or "not rated",
        f"probability {format_probability(lesion.probability)}",
        f"{lesion.diameter_mm:.1f} mm, {lesion.volume_mm3:.0f} mm³",
        region_title(lesion.hemisphere, lesion.region, lesion.zone),
    ]
    if lesion.susceptibility != "unknown":
        parts.append(lesion.susceptibility)
    return " · ".join(parts)


def lesion_figure(
    image: NDArray,
    affine: ArrayLike,
    labels: NDArray,
    lesion: Lesion,
    neighbours: Sequence[Lesion] = (),
    *,
    text: str | None = None,
    mask: NDArray | None = None,
    field_of_view: float = 40.0,
) -> str:
    """Show one lesion in three planes, plain and outlined, and where it lies.

    Voxels are drawn as they are, not interpolated; the outline follows their edges.

    Parameters
    ----------
    image, labels : arrays of shape (i, j, k)
        The scan, and the lesions' labels on its grid.
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.
    lesion
        The lesion to show.
    neighbours
        Other lesions, numbered where they are in view.
    text
        The line above; :func:`describe_lesion` by default.
    mask : array of shape (i, j, k) or None
        The brain, for the range of grey levels.
    field_of_view
        Width of the close-ups, mm.

    Returns
    -------
    str
        The figure as SVG.
    """
    volume = Volume.of(image, affine)
    marked = volume.on_same_grid(labels)
    inside = volume.on_same_grid(mask) if mask is not None else None
    window = foreground_window(volume, inside, (0.1, 99.0))
    centre = volume.frame.voxel(lesion.centre)
    crop, middle = _close_up(volume.frame, centre, field_of_view, marked, lesion.index)
    close = close_window(volume, crop, window)
    title = text or describe_lesion(lesion)
    title = title if title.startswith("Lesion") else f"Lesion {title}"
    canvas = Canvas(WIDTH, 0, title, f"Close-ups and where they lie. {SIDES}")
    canvas.text((GAP + 4, 20), title, size=15, weight="600", colour="#f0f6fc")
    shown, _ = spread(volume, inside, margin=8.0)
    side = (WIDTH - 8 * GAP) / 7
    locator = _locator(volume.frame, shown, middle, side)
    draw_grey(canvas, locator.box, locator.cut(volume), (0.0, window[1]), 1.5)
    canvas.rectangle(locator.around(crop), stroke=LESION_OUTLINE, width=1.3)
    mark_sides(canvas, locator, middle)
    for column, plane in enumerate(PLANES.values()):
        for outlined in (False, True):
            left = GAP + (1 + 2 * column + outlined) * (side + GAP)
            box = fit(volume.frame, crop, plane, (left, 30.0, side, side))
            tile = Tile(volume.frame, plane, crop, middle[plane.normal], box)
            section = tile.cut(volume)
            # No more pixels than can be told apart, however fine the scan is.
            section = section[tuple(slice(None, None, 1 + n // 640) for n in section.shape)]
            picture = encode_picture(grey_levels(section, close), lossless=True)
            canvas.picture(picture, box, pixelated=True)
            if outlined:
                _draw_outlines(canvas, tile.cut(marked), lesion.index, box)
                _number_neighbours(canvas, tile, neighbours)
            else:
                ticks(canvas, tile, centre)
            mark_sides(canvas, tile, centre)
            if outlined:
                scale_bar(canvas, tile)
    canvas.height = 30 + max(side, locator.box[3]) + GAP
    return canvas.render()


def _locator(frame: Frame, shown: Crop, middle: Sequence[int], side: float) -> Tile:
    """Return the place of the whole axial section, in which the close-ups are framed."""
    plane = PLANES["axial"]
    box = fit(frame, shown, plane, (GAP, 30.0, side, 1.35 * side), centred=False)
    return Tile(frame, plane, shown, middle[2], box)


def _draw_outlines(canvas: Canvas, cut: NDArray, index: int, box: Box) -> None:
    """Outline a lesion, and in another colour all others, in a section through the labels."""
    canvas.path(outline_path((cut > 0) & (cut != index), box), OTHER_LESION_OUTLINE, width=1.2)
    canvas.path(outline_path(cut == index, box), LESION_OUTLINE, width=1.6)


def _close_up(
    frame: Frame, centre: NDArray, width: float, marked: Volume, index: int
) -> tuple[Crop, list[int]]:
    """Cut a cube around a lesion, and choose the sections that show most of it."""
    half = width / 2 / frame.spacing
    shape = np.array(frame.shape)
    low = np.clip(np.floor(centre - half + 0.5).astype(int), 0, np.maximum(shape - 1, 0))
    high = np.clip(np.ceil(centre + half + 0.5).astype(int), low + 1, shape)
    crop = Crop.of(low, high)
    cut = marked.data[crop.block] == index
    middle = []
    for axis in range(3):
        nearest = int(np.clip(round(float(centre[axis])), low[axis], high[axis] - 1))
        area = cut.sum(axis=tuple(other for other in range(3) if other != axis))
        if area.any():
            best = np.flatnonzero(area == area.max()) + low[axis]
            nearest = int(best[np.argmin(np.abs(best - centre[axis]))])
        middle.append(nearest)
    return crop, middle


def close_window(volume: Volume, crop: Crop, window: tuple[float, float]) -> tuple[float, float]:
    """Range of grey levels for a close-up: its own brightness, black as in the whole scan.

    A coil's bias would otherwise leave some close-ups dark and others washed out. The black
    level is shared, so that a lesion looks as dark as it is against its surroundings.
    """
    values = np.nan_to_num(as_float(volume.data[crop.block]))
    low, high = window
    bright = float(percentile(values, 98))
    return low, max(1.1 * bright, low + 0.2 * (high - low))


def ticks(canvas: Canvas, tile: Tile, centre: NDArray) -> None:
    """Point at the lesion from the four edges, without covering it."""
    x, y = tile.place(centre)
    left, top, width, height = tile.box
    long_x, long_y = 0.13 * width, 0.13 * height
    path = (
        f"M{left:.1f} {y:.1f}h{long_x:.1f}M{left + width:.1f} {y:.1f}h{-long_x:.1f}"
        f"M{x:.1f} {top:.1f}v{long_y:.1f}M{x:.1f} {top + height:.1f}v{-long_y:.1f}"
    )
    # A dark rim, so that they show on light ground too.
    canvas.path(path, "#000000", width=3, opacity=0.6)
    canvas.path(path, LESION_OUTLINE, width=1.3)


def scale_bar(canvas: Canvas, tile: Tile) -> None:
    """Draw a bar of 10 mm, or of the longest length that fits, in the lower right corner."""
    left, top, width, height = tile.box
    scale = width / tile.frame.extent(tile.crop, tile.plane)[0]
    # The longest that fits; none in a section of a few small voxels.
    size = next((size for size in (10.0, 1.0, 0.1) if size * scale <= width), None)
    if size is None:
        return
    right, bottom = left + width - 6, top + height - 7
    canvas.path(f"M{right:.1f} {bottom:.1f}h{-size * scale:.1f}", "#f0f6fc", width=2)
    canvas.text(
        (right, bottom - 4), f"{size:g} mm", size=9.5, anchor="end", colour="#f0f6fc", outline=True
    )


def _number_neighbours(canvas: Canvas, tile: Tile, neighbours: Sequence[Lesion]) -> None:
    """Write the numbers of other lesions that the section passes close by."""
    plane, crop, spacing = tile.plane, tile.crop, tile.frame.spacing[tile.plane.normal]
    for other in neighbours:
        voxel = tile.frame.voxel(other.centre)
        off = abs(voxel[plane.normal] - tile.index) * spacing
        within = all(
            crop.low[axis] <= voxel[axis] < crop.high[axis] for axis in (plane.across, plane.up)
        )
        if within and off <= max(other.diameter_mm, spacing) / 2:
            x, y = tile.place(voxel)
            canvas.text(
                (x + 7, y - 5), str(other.index), size=10, colour=OTHER_LESION_OUTLINE, outline=True
            )


def overview_figure(
    image: NDArray,
    affine: ArrayLike,
    labels: NDArray,
    lesions: Sequence[Lesion],
    *,
    mask: NDArray | None = None,
) -> str:
    """Show all lesions, numbered, on projections through the brain.

    The grey picture is the mean along the line of sight inside the brain, and only says
    where one is; lesions are drawn by zone, possible ones hollow, diamagnetic ones as
    crosses.

    Parameters
    ----------
    image, labels : arrays of shape (i, j, k)
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.
    lesions
        The rows of the lesion table.
    mask : array of shape (i, j, k) or None
        The brain; the head without it.

    Returns
    -------
    str
        The figure as SVG.
    """
    volume = Volume.of(image, affine)
    inside = volume.on_same_grid(mask) if mask is not None and np.any(mask) else None
    marked = volume.on_same_grid(labels)
    shown, core = spread(volume, inside, margin=6.0)
    crop = Crop.of(np.minimum(core.low, shown.low), np.maximum(core.high, shown.high))
    canvas = Canvas(WIDTH, 0, "All lesions", f"Projections of the brain, numbered. {SIDES}")
    views = [("axial", None), ("coronal", None), ("sagittal", "left"), ("sagittal", "right")]
    extents = [volume.frame.extent(crop, PLANES[name]) for name, _ in views]
    tallest = max(up for _, up in extents)
    scale = (WIDTH - GAP * (len(views) + 1)) / sum(across for across, _ in extents)
    # A tall and narrow scan would make a drawing without end, and one of a few small voxels
    # very large ones.
    scale = min(scale, TALLEST / tallest, WIDEST_MM)
    left, top = GAP, 28.0
    for (name, side), (across, _) in zip(views, extents, strict=True):
        plane = PLANES[name]
        cell = (left, top, across * scale, tallest * scale)
        tile = Tile(volume.frame, plane, crop, 0, fit(volume.frame, crop, plane, cell))
        _draw_projection(canvas, volume, inside, tile)
        # Those in the midline or on an unknown side are in both halves, so that none is lost.
        other = {"left": "right", "right": "left"}.get(side or "")
        chosen = [lesion for lesion in lesions if other is None or lesion.hemisphere != other]
        _draw_footprints(canvas, marked, tile, chosen)
        _draw_markers(canvas, tile, chosen)
        heading = name if side is None else f"{name}, {side} half and midline"
        canvas.text((left + 2, 19), heading.capitalize(), size=13, weight="600")
        mark_sides(canvas, tile, None)
        left += across * scale + GAP
    bottom = top + tallest * scale + 20
    entries = [(colour, zone) for zone, colour in ZONE_COLOURS.items()]
    canvas.legend((GAP + 2, bottom), entries)
    canvas.text(
        (GAP + 520, bottom),
        "filled: definite · hollow: possible · cross: diamagnetic, a mimic, not counted",
        size=12,
        colour="#8b949e",
    )
    canvas.text((GAP + 2, bottom + 20), SIDES, size=12, colour="#8b949e")
    canvas.height = bottom + 30
    return canvas.render()


def _draw_projection(canvas: Canvas, volume: Volume, inside: Volume | None, tile: Tile) -> None:
    """Draw the mean along the line of sight, inside the brain where that is known."""
    plane, crop = tile.plane, tile.crop
    low, high = crop.low[plane.normal], crop.high[plane.normal]
    step = max(1, (high - low) // 96)
    total: NDArray = np.zeros((crop.size(plane.up), crop.size(plane.across)), dtype=np.float32)
    count = np.zeros_like(total)
    # Section by section: no copy of the volume is made.
    for index in range(low, high, step):
        section = np.nan_to_num(as_float(volume.section(plane, index, crop)))
        here = section > 0 if inside is None else inside.section(plane, index, crop) > 0
        with np.errstate(over="ignore", invalid="ignore"):
            total += np.where(here, section, 0)
        count += here
    mean = np.nan_to_num(total / np.maximum(count, 1))
    # Thin rims hold few voxels and are noisy: fade them out.
    mean *= np.minimum(1.0, 6.0 * count / max(1.0, float(count.max())))
    values = mean[count > 0]
    high_value = float(percentile(values, 99)) if values.size else 1.0
    draw_grey(canvas, tile.box, mean, (0.0, 1.5 * max(high_value, 1e-6)))
    canvas.path(contour_path(count > 0, tile.box), "#8b949e", width=1.2)


def _draw_footprints(canvas: Canvas, marked: Volume, tile: Tile, lesions: Sequence[Lesion]) -> None:
    """Shade what the lesions cover along the line of sight."""
    for lesion in lesions:
        centre = marked.frame.voxel(lesion.centre)
        near, _ = _close_up(marked.frame, centre, 24.0, marked, lesion.index)
        flat = (marked.data[near.block] == lesion.index).any(axis=tile.plane.normal).T[::-1]
        if flat.any():
            path = contour_path(flat, tile.around(near))
            canvas.path(path, "none", fill="rgba(240,246,252,0.35)")


def _draw_markers(canvas: Canvas, tile: Tile, lesions: Sequence[Lesion]) -> None:
    """Draw a numbered mark for each lesion; numbers step aside where they would collide."""
    taken: list[tuple[float, float]] = []
    for lesion in lesions:
        x, y = tile.place(tile.frame.voxel(lesion.centre))
        colour = ZONE_COLOURS.get(lesion.zone or "", "#8b949e")
        if lesion.susceptibility == "diamagnetic":
            canvas.path(f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8", "#c9d1d9", width=1.6)
        else:
            fill = colour if lesion.rating == "definite" else "#0d1117"
            canvas.circle(
                (x, y), 4.2, fill=fill, stroke=colour, width=1.8, hint=describe_lesion(lesion)
            )
        for dx, dy in ((7, 4), (-7, 4), (0, -8), (0, 16), (9, -7), (-9, -7), (9, 14), (-9, 14)):
            place = (x + dx, y + dy)
            if all(abs(place[0] - a) > 13 or abs(place[1] - b) > 11 for a, b in taken):
                break
        taken += [place, (x, y + 4)]
        anchor = "start" if place[0] > x else "end" if place[0] < x else "middle"
        canvas.text(place, str(lesion.index), size=11, anchor=anchor, weight="600", outline=True)
