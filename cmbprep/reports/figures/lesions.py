"""Figures of lesions: each one close up, and all of them on projections of the brain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.lesions import Lesion
from cmbprep.reports.colours import LESION_OUTLINE, OTHER_LESION_OUTLINE, ZONE_COLOURS
from cmbprep.reports.figures.canvas import GAP, SIDES, WIDTH, Box, Canvas, draw_grey, mark_sides
from cmbprep.reports.figures.sections import (
    PLANES,
    Crop,
    Frame,
    Plane,
    Volume,
    as_float,
    contour_path,
    encode_picture,
    foreground_window,
    grey_levels,
    outline_path,
    percentile,
    spread,
)
from cmbprep.reports.text import region_title

__all__ = ["describe_lesion", "lesion_figure", "overview_figure"]

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
    probability = "n/a" if lesion.probability is None else f"{lesion.probability:.2f}"
    parts = [
        str(lesion.index),
        lesion.rating or "not rated",
        f"probability {probability}",
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
    close = _close_window(volume, crop, window)
    title = text or describe_lesion(lesion)
    title = title if title.startswith("Lesion") else f"Lesion {title}"
    canvas = Canvas(WIDTH, 0, title, f"Close-ups and where they lie. {SIDES}")
    canvas.text((GAP + 4, 20), title, size=15, weight="600", colour="#f0f6fc")
    shown, _ = spread(volume, inside, margin=8.0)
    side = (WIDTH - 8 * GAP) / 7
    locator_height = _draw_locator(canvas, volume, shown, window, middle, crop, side)
    for column, plane in enumerate(PLANES.values()):
        at = middle[plane.normal]
        section = volume.section(plane, at, crop)
        # No more pixels than can be told apart, however fine the scan is.
        section = section[tuple(slice(None, None, 1 + n // 640) for n in section.shape)]
        cut = marked.section(plane, at, crop)
        uri, size = encode_picture(grey_levels(section, close), lossless=True)
        for outlined in (False, True):
            left = GAP + (1 + 2 * column + outlined) * (side + GAP)
            box = _fit(volume.frame, crop, plane, (left, 30.0, side, side))
            canvas.picture(uri, size, box, pixelated=True)
            if outlined:
                _draw_outlines(canvas, cut, lesion.index, box)
                _number_neighbours(canvas, volume.frame, plane, crop, box, neighbours, middle)
            else:
                _ticks(canvas, plane, crop, box, centre)
            mark_sides(canvas, box, plane, volume.frame.position(plane, at, centre))
            if outlined:
                _scale_bar(canvas, volume.frame, plane, crop, box)
    canvas.height = 30 + max(side, locator_height) + GAP
    return canvas.render()


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
    crop = Crop(tuple(map(int, low)), tuple(map(int, high)))  # type: ignore[arg-type]
    cut = marked.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] == index
    middle = []
    for axis in range(3):
        nearest = int(np.clip(round(float(centre[axis])), low[axis], high[axis] - 1))
        area = cut.sum(axis=tuple(other for other in range(3) if other != axis))
        if area.any():
            best = np.flatnonzero(area == area.max()) + low[axis]
            nearest = int(best[np.argmin(np.abs(best - centre[axis]))])
        middle.append(nearest)
    return crop, middle


def _close_window(volume: Volume, crop: Crop, window: tuple[float, float]) -> tuple[float, float]:
    """Range of grey levels for a close-up: its own brightness, black as in the whole scan.

    A coil's bias would otherwise leave some close-ups dark and others washed out. The black
    level is shared, so that a lesion looks as dark as it is against its surroundings.
    """
    block = tuple(slice(low, high) for low, high in zip(crop.low, crop.high, strict=True))
    values = np.nan_to_num(as_float(volume.data[block]))
    low, high = window
    bright = float(percentile(values, 98))
    return low, max(1.1 * bright, low + 0.2 * (high - low))


def _fit(frame: Frame, crop: Crop, plane: Plane, cell: Box) -> Box:
    """Fit a section into a cell, in true proportions, centred."""
    across = crop.size(plane.across) * frame.spacing[plane.across]
    up = crop.size(plane.up) * frame.spacing[plane.up]
    left, top, width, height = cell
    scale = min(width / across, height / up)
    # A section of one thin slice, or of a column of voxels, is still to be seen.
    w, h = max(across * scale, 1.0), max(up * scale, 1.0)
    return (left + (width - w) / 2, top + (height - h) / 2, w, h)


def _place(plane: Plane, crop: Crop, box: Box, voxel: NDArray) -> tuple[float, float]:
    """Where a voxel coordinate lies in a drawn section."""
    left, top, width, height = box
    across = (voxel[plane.across] + 0.5 - crop.low[plane.across]) / crop.size(plane.across)
    up = (voxel[plane.up] + 0.5 - crop.low[plane.up]) / crop.size(plane.up)
    return float(left + across * width), float(top + (1 - up) * height)


def _draw_locator(
    canvas: Canvas,
    volume: Volume,
    shown: Crop,
    window: tuple[float, float],
    middle: list[int],
    crop: Crop,
    side: float,
) -> float:
    """Draw the whole axial section with a frame where the close-ups are."""
    plane = PLANES["axial"]
    across = shown.size(0) * volume.frame.spacing[0]
    up = shown.size(1) * volume.frame.spacing[1]
    height = min(side * up / across, 1.35 * side)
    box = _fit(volume.frame, shown, plane, (GAP, 30.0, side, height))
    draw_grey(canvas, box, volume.section(plane, middle[2], shown), (0.0, window[1]), 1.5)
    x0, y1 = _place(plane, shown, box, np.array(crop.low) - 0.5)
    x1, y0 = _place(plane, shown, box, np.array(crop.high) - 0.5)
    canvas.rectangle((x0, y0, x1 - x0, y1 - y0), stroke=LESION_OUTLINE, width=1.3)
    mark_sides(canvas, box, plane, volume.frame.position(plane, middle[2], middle))
    return height


def _ticks(canvas: Canvas, plane: Plane, crop: Crop, box: Box, centre: NDArray) -> None:
    """Point at the lesion from the four edges, without covering it."""
    x, y = _place(plane, crop, box, centre)
    left, top, width, height = box
    long_x, long_y = 0.13 * width, 0.13 * height
    path = (
        f"M{left:.1f} {y:.1f}h{long_x:.1f}M{left + width:.1f} {y:.1f}h{-long_x:.1f}"
        f"M{x:.1f} {top:.1f}v{long_y:.1f}M{x:.1f} {top + height:.1f}v{-long_y:.1f}"
    )
    # A dark rim, so that they show on light ground too.
    canvas.path(path, "#000000", width=3, opacity=0.6)
    canvas.path(path, LESION_OUTLINE, width=1.3)


def _scale_bar(canvas: Canvas, frame: Frame, plane: Plane, crop: Crop, box: Box) -> None:
    left, top, width, height = box
    scale = width / (crop.size(plane.across) * frame.spacing[plane.across])
    # The longest that fits; none in a section of a few small voxels.
    size = next((size for size in (10.0, 1.0, 0.1) if size * scale <= width), None)
    if size is None:
        return
    right, bottom = left + width - 6, top + height - 7
    canvas.path(f"M{right:.1f} {bottom:.1f}h{-size * scale:.1f}", "#f0f6fc", width=2)
    canvas.text(
        (right, bottom - 4), f"{size:g} mm", size=9.5, anchor="end", colour="#f0f6fc", outline=True
    )


def _number_neighbours(
    canvas: Canvas,
    frame: Frame,
    plane: Plane,
    crop: Crop,
    box: Box,
    neighbours: Sequence[Lesion],
    middle: list[int],
) -> None:
    """Write the numbers of other lesions that the section passes close by."""
    for other in neighbours:
        voxel = frame.voxel(other.centre)
        off = abs(voxel[plane.normal] - middle[plane.normal]) * frame.spacing[plane.normal]
        within = all(
            crop.low[axis] <= voxel[axis] < crop.high[axis] for axis in (plane.across, plane.up)
        )
        if within and off <= max(other.diameter_mm / 2, frame.spacing[plane.normal] / 2):
            x, y = _place(plane, crop, box, voxel)
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
    crop = shown if inside is None else _union(core, shown)
    canvas = Canvas(WIDTH, 0, "All lesions", f"Projections of the brain, numbered. {SIDES}")
    views = [("axial", None), ("coronal", None), ("sagittal", "left"), ("sagittal", "right")]
    frame = volume.frame
    extents = [
        crop.size(PLANES[name].across) * frame.spacing[PLANES[name].across] for name, _ in views
    ]
    tallest = max(crop.size(PLANES[name].up) * frame.spacing[PLANES[name].up] for name, _ in views)
    scale = (WIDTH - GAP * (len(views) + 1)) / sum(extents)
    # A tall and narrow scan would make a drawing without end, and one of a few small voxels
    # very large ones.
    scale = min(scale, TALLEST / tallest, WIDEST_MM)
    left, top = GAP, 28.0
    for (name, side), extent in zip(views, extents, strict=True):
        plane = PLANES[name]
        up = crop.size(plane.up) * frame.spacing[plane.up]
        size = max(extent * scale, 1.0), max(up * scale, 1.0)
        box = (left, top + (tallest - up) * scale / 2, *size)
        _draw_projection(canvas, volume, inside, plane, crop, box)
        chosen = [lesion for lesion in lesions if _on_side(lesion, side)]
        _draw_footprints(canvas, marked, plane, crop, box, chosen)
        _draw_markers(canvas, frame, plane, crop, box, chosen)
        heading = name if side is None else f"{name}, {side} half and midline"
        canvas.text((left + 2, 19), heading.capitalize(), size=13, weight="600")
        canvas.text((box[0] + 3, box[1] + 13), plane.left_mark, size=11, outline=True)
        right = box[0] + box[2] - 3
        canvas.text((right, box[1] + 13), plane.right_mark, size=11, anchor="end", outline=True)
        left += extent * scale + GAP
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


def _union(first: Crop, second: Crop) -> Crop:
    low = np.minimum(first.low, second.low)
    high = np.maximum(first.high, second.high)
    return Crop(tuple(map(int, low)), tuple(map(int, high)))  # type: ignore[arg-type]


def _on_side(lesion: Lesion, side: str | None) -> bool:
    if side is None:
        return True
    if lesion.hemisphere in ("left", "right"):
        return lesion.hemisphere == side
    # Midline or unknown: with both halves, so that none is lost.
    return True


def _draw_projection(
    canvas: Canvas, volume: Volume, inside: Volume | None, plane: Plane, crop: Crop, box: Box
) -> None:
    """Draw the mean along the line of sight, inside the brain where that is known."""
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
    draw_grey(canvas, box, mean, (0.0, 1.5 * max(high_value, 1e-6)))
    outline = count > 0
    canvas.path(contour_path(outline, box), "#8b949e", width=1.2)


def _draw_footprints(
    canvas: Canvas,
    marked: Volume,
    plane: Plane,
    crop: Crop,
    box: Box,
    lesions: Sequence[Lesion],
) -> None:
    """Shade what the lesions cover along the line of sight."""
    for lesion in lesions:
        centre = marked.frame.voxel(lesion.centre)
        near, _ = _close_up(marked.frame, centre, 24.0, marked, lesion.index)
        block = tuple(slice(near.low[axis], near.high[axis]) for axis in range(3))
        flat = (marked.data[block] == lesion.index).any(axis=plane.normal).T[::-1]
        if not flat.any():
            continue
        x0, y1 = _place(plane, crop, box, np.array(near.low) - 0.5)
        x1, y0 = _place(plane, crop, box, np.array(near.high) - 0.5)
        path = contour_path(flat, (x0, y0, x1 - x0, y1 - y0))
        canvas.path(path, "none", fill="rgba(240,246,252,0.35)")


def _draw_markers(
    canvas: Canvas,
    frame: Frame,
    plane: Plane,
    crop: Crop,
    box: Box,
    lesions: Sequence[Lesion],
) -> None:
    """Draw a numbered mark for each lesion; numbers step aside where they would collide."""
    taken: list[tuple[float, float]] = []
    for lesion in lesions:
        x, y = _place(plane, crop, box, frame.voxel(lesion.centre))
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
