"""The figures of a participant's report: arrays and an affine in, SVG text out.

All arrays of one figure lie on one grid; ``affine`` takes its voxel indices to RAS+ mm.
The figures are pure functions of their input: the same input gives the same text.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.reports.colours import CONTOURS, FIELD_STOPS
from cmbprep.reports.figures.canvas import SIDES, Canvas, Painter, draw_grey, new_sheet
from cmbprep.reports.figures.sections import (
    Box,
    Picture,
    Tile,
    Volume,
    as_float,
    colour_map,
    contour_path,
    encode_picture,
    foreground_window,
    spread,
)

#: Voxel size at which the head is outlined for the picture of the field, mm.
HEAD_SPACING = 4.0
#: Largest range of the field's colours, octaves: no coil's field is wider.
MAX_REACH = 10.0
#: On hover the second picture blinks over the first, as in a comparison by flicker.
FLICKER = (
    ".cmb-over{opacity:0}"
    "@keyframes cmb-blink{0%,49%{opacity:0}50%,100%{opacity:1}}"
    ".cmb-flip:hover .cmb-over{animation:cmb-blink 1.2s infinite}"
)


def bias_figure(
    before: NDArray,
    after: NDArray,
    affine: ArrayLike,
    mask: NDArray | None,
    *,
    field: NDArray | None = None,
) -> str:
    """Show a scan before and after bias correction, and the field between them.

    The field is shown in the head: in the air around, it is no more than the continuation of
    what was fitted inside.

    Parameters
    ----------
    before, after : arrays of shape (i, j, k)
        Intensities; both are shown with the same window.
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.
    mask : array of shape (i, j, k) or None
        The brain.
    field : array of shape (i, j, k) or None
        What the scan was divided by; ``before / after`` if it is not given.

    Returns
    -------
    str
        The figure as SVG.
    """
    first = Volume.of(before, affine)
    second = first.on_same_grid(after)
    inside = first.on_same_grid(mask) if mask is not None and np.any(mask) else None
    shown, core = spread(first, inside)
    low, high = foreground_window(second, inside, (0.5, 99.0))
    window = (0.0 if low > 0 else low, high * 1.1 if high > 0 else high)
    sheet = new_sheet(
        "Bias correction",
        "Sections before correction, after it, and the field that was divided out.",
        first.frame,
        shown,
    )
    divisor = None if field is None else first.on_same_grid(field)
    reach = _field_reach(first, second, inside)
    for heading, painter in (
        ("Before", _grey_painter(first, window)),
        ("After, same window", _grey_painter(second, window)),
        (
            "Field that was divided out, with the contour of the brain",
            _field_painter((first, second), divisor, inside, reach),
        ),
    ):
        sheet.heading(heading)
        sheet.mosaic(core, [("axial", 1, 7)], painter)
    ramp = colour_map(np.linspace(0, 1, 128), FIELD_STOPS)
    sheet.colour_bar(ramp, f"×{2**-reach:.2f}", f"×{2**reach:.2f}")
    sheet.legend((), SIDES)
    return sheet.finish()


def _grey_painter(
    volume: Volume, window: tuple[float, float], detail: float = 1.25, quality: int = 80
) -> Painter:
    """Return a function that paints sections in grey; see :func:`.canvas.draw_grey`."""
    return lambda canvas, tile: draw_grey(
        canvas, tile.box, tile.cut(volume), window, detail, quality
    )


def _field_painter(
    images: tuple[Volume, Volume], divisor: Volume | None, inside: Volume | None, reach: float
) -> Painter:
    """Return a function that paints the field in the head; ``images`` are before and after."""
    first, second = images
    head = _head(first, inside)

    def paint(canvas: Canvas, tile: Tile) -> None:
        with np.errstate(all="ignore"):
            if divisor is not None:
                ratio = as_float(tile.cut(divisor))
            else:
                ratio = as_float(tile.cut(first)) / as_float(tile.cut(second))
            logs = np.log2(ratio)
        known = np.isfinite(logs) & tile.cut(head)
        pixels = colour_map(0.5 + np.where(known, logs, 0.0) / (2 * reach), FIELD_STOPS)
        pixels[~known] = 13, 17, 23
        size = (max(2, round(tile.box[2])), max(2, round(tile.box[3])))
        canvas.picture(encode_picture(pixels, size=size, quality=80), tile.box)
        if inside is not None:
            canvas.path(contour_path(tile.cut(inside), tile.box), "#24292f")

    return paint


def _head(volume: Volume, inside: Volume | None) -> Volume:
    """Outline the head, in voxels coarse enough to be quick; what is inside belongs to it."""
    from scipy import ndimage

    from cmbprep.brain.bias import head_mask

    spacing = volume.frame.spacing
    step = np.maximum(np.round(HEAD_SPACING / spacing), 1).astype(int)
    values = np.nan_to_num(as_float(volume.data), posinf=0, neginf=0)
    # The mean of each block: a thin scalp would fall between single voxels. The last block of an
    # axis may be incomplete; its middle is then nearer than half a block, or the last voxel.
    middles = [
        np.minimum(np.arange(0, size, n) + n // 2, size - 1)
        for size, n in zip(values.shape, step.tolist(), strict=True)
    ]
    coarse = ndimage.uniform_filter(values, step, mode="nearest")[np.ix_(*middles)]
    head: NDArray = np.ones(coarse.shape, bool)
    if (coarse > 0).any():
        head = head_mask(coarse, spacing * step)
    # Rounded off, so that the coarse voxels do not show.
    level = ndimage.gaussian_filter(head.astype(np.float32), 1.0)
    for axis, (times, size) in enumerate(zip(step, volume.data.shape, strict=True)):
        level = level.repeat(times, axis=axis)[(slice(None),) * axis + (slice(size),)]
    head = ndimage.uniform_filter(level, step) > 0.5
    if inside is not None:
        head = head | (inside.data > 0)
    return Volume(head, volume.frame)


def _field_reach(first: Volume, second: Volume, inside: Volume | None) -> float:
    """Half the range of the field's colours, in octaves."""
    step = tuple(slice(None, None, max(1, size // 64)) for size in first.frame.shape)
    top, bottom = as_float(first.data[step]), as_float(second.data[step])
    known = (top > 0) & (bottom > 0)
    if inside is not None:
        known &= inside.data[step] > 0
    with np.errstate(all="ignore"):
        logs = np.abs(np.log2(top[known] / bottom[known]))
    logs = logs[np.isfinite(logs)]
    if logs.size == 0:
        return 1.0
    return float(np.clip(np.ceil(4 * np.percentile(logs, 98)) / 4, 0.25, MAX_REACH))


def mask_figure(image: NDArray, affine: ArrayLike, mask: NDArray) -> str:
    """Show a brain mask's contour on many sections in three planes.

    Parameters
    ----------
    image, mask : arrays of shape (i, j, k)
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.

    Returns
    -------
    str
        The figure as SVG.
    """
    volume = Volume.of(image, affine)
    inside = volume.on_same_grid(mask)
    shown, core = spread(volume, inside)
    window = foreground_window(volume, inside)
    sheet = new_sheet("Brain mask", "Contour of the brain mask.", volume.frame, shown)

    def paint(canvas: Canvas, tile: Tile) -> None:
        draw_grey(canvas, tile.box, tile.cut(volume), (0.0, window[1]))
        canvas.path(contour_path(tile.cut(inside), tile.box), CONTOURS[0])

    layout = [("axial", 2, 8), ("coronal", 1, 8), ("sagittal", 1, 7)]
    sheet.mosaic(core, layout, paint, to_the_edge=True)
    sheet.legend([(CONTOURS[0], "brain mask")], SIDES)
    return sheet.finish()


def registration_figure(
    fixed: NDArray,
    moving: NDArray,
    affine: ArrayLike,
    contours: Mapping[str, NDArray] | None = None,
    *,
    fixed_name: str = "reference",
    moving_name: str = "registered image",
) -> str:
    """Show two registered images, one above the other; the pointer makes them flicker.

    Parameters
    ----------
    fixed, moving : arrays of shape (i, j, k)
        The reference, and the other image resampled onto its grid.
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm of that grid.
    contours
        Name -> mask on the grid, drawn on both images. The first decides which sections
        are shown.
    fixed_name, moving_name
        What the images are called.

    Returns
    -------
    str
        The figure as SVG.
    """
    first = Volume.of(fixed, affine)
    second = first.on_same_grid(moving)
    masks = {name: first.on_same_grid(data) for name, data in (contours or {}).items()}
    guide = next(iter(masks.values()), None)
    shown, core = spread(first, guide, margin=20.0)
    below, above = (
        _grey_painter(volume, (0.0, 1.05 * foreground_window(volume, guide)[1]), 1.1, 76)
        for volume in (first, second)
    )

    def lines(canvas: Canvas, tile: Tile) -> None:
        for colour, mask in zip(CONTOURS, masks.values(), strict=False):
            canvas.path(contour_path(tile.cut(mask), tile.box), colour)

    def reference(canvas: Canvas, tile: Tile) -> None:
        below(canvas, tile)
        canvas.open_group("cmb-over")
        above(canvas, tile)
        canvas.close_group()
        lines(canvas, tile)

    def registered(canvas: Canvas, tile: Tile) -> None:
        above(canvas, tile)
        lines(canvas, tile)

    sheet = new_sheet(
        f"Registration of {moving_name} to {fixed_name}",
        "The same sections of both images, with the same contours.",
        first.frame,
        shown,
        FLICKER,
    )

    sheet.heading(f"Above: {fixed_name}.   Below: {moving_name}.   Rest the pointer to alternate.")
    for name, columns in (("axial", 7), ("coronal", 7), ("sagittal", 6)):
        sheet.canvas.open_group("cmb-flip")
        for painter in (reference, registered):
            sheet.mosaic(core, [(name, 1, columns)], painter)
        sheet.canvas.close_group()
        sheet.top += 6
    sheet.legend(list(zip(CONTOURS, masks, strict=False)), SIDES)
    return sheet.finish()


def zones_figure(
    image: NDArray,
    affine: ArrayLike,
    atlas: NDArray,
    colours: Mapping[int, str],
    names: Mapping[int, str],
) -> str:
    """Show the regions of an atlas on a scan.

    Parameters
    ----------
    image, atlas : arrays of shape (i, j, k)
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.
    colours, names
        Label -> its colour (``#rrggbb``) and its name for the legend; labels that share
        both get one entry.

    Returns
    -------
    str
        The figure as SVG.
    """
    volume = Volume.of(image, affine)
    regions = volume.on_same_grid(atlas)
    inside = Volume(np.asarray(regions.data > 0), volume.frame)
    shown, core = spread(volume, inside, margin=12.0)
    window = foreground_window(volume, inside)
    sheet = new_sheet("Zones", "Anatomical regions on the scan.", volume.frame, shown)
    table = np.zeros((1 + max([*colours, 1]), 3), dtype=np.uint8)
    for label, colour in colours.items():
        table[label] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]

    def paint(canvas: Canvas, tile: Tile) -> None:
        draw_grey(canvas, tile.box, tile.cut(volume), (0.0, window[1]))
        canvas.picture(_region_overlay(tile.cut(regions), tile.box, table), tile.box)

    sheet.mosaic(core, [("axial", 2, 7), ("coronal", 1, 7), ("sagittal", 1, 6)], paint)
    present = set(np.unique(regions.data).tolist())
    entries = dict.fromkeys(
        (colours[label], names.get(label, str(label))) for label in colours if label in present
    )
    sheet.legend(list(entries), SIDES)
    return sheet.finish()


def _region_overlay(section: NDArray, box: Box, table: NDArray) -> Picture:
    """Colour the regions of a section: faint inside, solid at their borders."""
    columns, rows = (max(1, round(size * 1.5)) for size in box[2:])
    down = np.minimum((np.arange(rows) + 0.5) * section.shape[0] / rows, section.shape[0] - 1)
    over = np.minimum((np.arange(columns) + 0.5) * section.shape[1] / columns, section.shape[1] - 1)
    labels = np.asarray(section)[np.ix_(down.astype(int), over.astype(int))].astype(np.int64)
    labels[(labels < 0) | (labels >= len(table))] = 0
    border = np.zeros(labels.shape, dtype=bool)
    border[:-1] |= labels[:-1] != labels[1:]
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    pixels = np.zeros((*labels.shape, 4), dtype=np.uint8)
    pixels[..., :3] = table[labels]
    pixels[..., 3] = np.where(labels > 0, np.where(border, 235, 62), 0)
    return encode_picture(pixels, lossless=True)
