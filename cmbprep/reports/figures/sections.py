"""Sections through a volume as a person expects to see them.

Whatever the order and direction in which voxels are stored, a section is shown with the
person's left at the left (neurological convention), front or top upwards, and voxels in
their true proportions. Oblique scans are shown along their own axes, not resampled.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import ArrayLike, NDArray

#: Left, top, width and height in a drawing.
Box = tuple[float, float, float, float]
#: ``data:`` URI of a picture, and its columns and rows.
Picture = tuple[str, tuple[int, int]]

#: Rows and columns of the raster that a contour is drawn on, at most.
MAX_CONTOUR = 1600
#: Pixels of a picture for each pixel of the drawing, at most, where no voxel may get lost.
MAX_DETAIL = 4.0
#: Edges of voxels that are drawn one by one, at most.
MAX_EDGES = 20_000


@dataclass(frozen=True)
class Plane:
    """One of the three planes: its normal, its horizontal and its vertical axis."""

    name: str
    normal: int
    across: int
    up: int
    letter: str
    left_mark: str
    right_mark: str


#: The planes, with the marks that stand at the left and right edge of a section.
PLANES: Mapping[str, Plane] = {
    "axial": Plane("axial", 2, 0, 1, "z", "L", "R"),
    "coronal": Plane("coronal", 1, 0, 2, "y", "L", "R"),
    "sagittal": Plane("sagittal", 0, 1, 2, "x", "P", "A"),
}


@dataclass(frozen=True)
class Frame:
    """The storage order of a scan, and how to turn arrays on its grid to RAS+.

    Parameters
    ----------
    orientation : array of shape (3, 2)
        As :func:`nibabel.io_orientation` gives it.
    shape
        Number of voxels along the turned axes.
    affine : array of shape (4, 4)
        Turned voxel indices -> RAS+ mm.
    """

    orientation: NDArray[np.float64]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @classmethod
    def of(cls, shape: tuple[int, ...], affine: ArrayLike) -> Frame:
        """Work out the turn for arrays of that shape and affine."""
        matrix = np.asarray(affine, dtype=np.float64)
        orientation = nib.io_orientation(matrix)
        turned = matrix @ nib.orientations.inv_ornt_aff(orientation, shape)
        order = np.argsort(orientation[:, 0])
        counts = tuple(int(shape[axis]) for axis in order)
        return cls(orientation, (counts[0], counts[1], counts[2]), turned)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size along the turned axes, mm."""
        return np.asarray(voxel_sizes(self.affine), dtype=np.float64)

    def extent(self, crop: Crop, plane: Plane) -> tuple[float, float]:
        """Width and height of the sections of a crop, mm."""
        across, up = (crop.size(axis) * self.spacing[axis] for axis in (plane.across, plane.up))
        return float(across), float(up)

    def turn(self, data: NDArray) -> NDArray:
        """Return the array with its axes to the right, to the front and upwards (a view)."""
        return np.asarray(nib.apply_orientation(data, self.orientation))

    def position(self, plane: Plane, index: int, at: ArrayLike | None = None) -> float:
        """Coordinate of a section along its normal, mm RAS+.

        In an oblique scan it changes over the section; it is given where the section
        passes the voxel ``at`` (the middle of the scan by default).
        """
        voxel = np.append((np.array(self.shape) - 1) / 2.0 if at is None else at, 1.0)
        voxel[plane.normal] = index
        return float((self.affine @ voxel)[plane.normal])

    @property
    def tilt(self) -> float:
        """Largest angle between an axis of the scan and the nearest one of the room, degrees."""
        directions = self.affine[:3, :3] / self.spacing
        return float(np.degrees(np.arccos(np.clip(np.diag(directions), -1, 1)).max()))

    def voxel(self, point: ArrayLike) -> NDArray[np.float64]:
        """Turned voxel coordinates of a point given in mm RAS+.

        A point further away than any scan reaches is brought nearer, so that what is computed
        from its place stays finite.
        """
        found = np.linalg.solve(self.affine, np.append(np.asarray(point, float), 1.0))[:3]
        return np.clip(np.nan_to_num(found), -1e6, 1e6)


@dataclass(frozen=True)
class Crop:
    """A range of voxels along each turned axis, ends excluded."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @classmethod
    def of(cls, low: NDArray, high: NDArray) -> Crop:
        """Make a crop of arrays of three."""
        return cls(tuple(map(int, low)), tuple(map(int, high)))  # type: ignore[arg-type]

    @property
    def block(self) -> tuple[slice, slice, slice]:
        """The same as slices."""
        i, j, k = (slice(a, b) for a, b in zip(self.low, self.high, strict=True))
        return i, j, k

    def size(self, axis: int) -> int:
        """Number of voxels along an axis."""
        return self.high[axis] - self.low[axis]


@dataclass(frozen=True, eq=False)
class Volume:
    """An array on a scan's grid, turned to RAS+."""

    data: NDArray
    frame: Frame

    @classmethod
    def of(cls, data: NDArray, affine: ArrayLike) -> Volume:
        """Turn an array; nothing is copied."""
        array = np.asarray(data)
        if array.ndim != 3:
            raise ValueError(f"a volume has three axes, not {array.ndim}")
        frame = Frame.of(array.shape, affine)
        return cls(frame.turn(array), frame)

    def on_same_grid(self, data: NDArray) -> Volume:
        """Turn another array on the same grid."""
        array = self.frame.turn(np.asarray(data))
        if array.shape != self.data.shape:
            raise ValueError(f"shape {array.shape} differs from the scan's {self.data.shape}")
        return Volume(array, self.frame)

    def section(self, plane: Plane, index: int, crop: Crop) -> NDArray:
        """Cut a section: rows from the top down, columns from left to right."""
        cut: list[slice | int] = list(crop.block)
        cut[plane.normal] = index
        return np.asarray(self.data[tuple(cut)].T[::-1])

    @property
    def whole(self) -> Crop:
        """The crop that cuts nothing off."""
        return Crop((0, 0, 0), self.frame.shape)


@dataclass(frozen=True)
class Tile:
    """A section at its place in a drawing.

    Parameters
    ----------
    frame, plane, crop, index
        The scan, and which part of which section is shown.
    box
        Where it is drawn.
    """

    frame: Frame
    plane: Plane
    crop: Crop
    index: int
    box: Box

    def cut(self, volume: Volume) -> NDArray:
        """Cut the section out of a volume; see :meth:`Volume.section`."""
        return volume.section(self.plane, self.index, self.crop)

    def place(self, voxel: ArrayLike) -> tuple[float, float]:
        """Where a voxel coordinate lies in the drawing."""
        left, top, width, height = self.box
        at, low = np.asarray(voxel, dtype=float), self.crop.low
        across, up = self.plane.across, self.plane.up
        right = (at[across] + 0.5 - low[across]) / self.crop.size(across)
        above = (at[up] + 0.5 - low[up]) / self.crop.size(up)
        return float(left + right * width), float(top + (1 - above) * height)

    def around(self, crop: Crop) -> Box:
        """Where another crop lies in the drawing."""
        x0, y1 = self.place(np.array(crop.low) - 0.5)
        x1, y0 = self.place(np.array(crop.high) - 0.5)
        return x0, y0, x1 - x0, y1 - y0


def fit(frame: Frame, crop: Crop, plane: Plane, cell: Box, *, centred: bool = True) -> Box:
    """Fit a section into a cell, in true proportions; in height it may stand at the top."""
    across, up = frame.extent(crop, plane)
    left, top, width, height = cell
    scale = min(width / across, height / up)
    # A section of one thin slice, or of a column of voxels, is still to be seen.
    w, h = max(across * scale, 1.0), max(up * scale, 1.0)
    return left + (width - w) / 2, top + (height - h) / 2 if centred else top, w, h


def evenly(core: Crop, plane: Plane, count: int, *, to_the_edge: bool = False) -> list[int]:
    """Evenly spaced sections inside the brain, each once.

    ``to_the_edge`` includes nearly the first and the last section.
    """
    low, high = core.low[plane.normal], core.high[plane.normal] - 1
    if to_the_edge:
        inset = 0.03 * (high - low)
        places = np.linspace(low + inset, high - inset, count)
    else:
        places = np.linspace(low, high, count + 2)[1:-1]
    return sorted({round(place) for place in places})


def as_float(data: ArrayLike) -> NDArray[np.float32]:
    """Convert intensities to float32; those beyond its range become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(data, dtype=np.float32)


def percentile(values: NDArray, percentiles: float | Sequence[float]) -> NDArray:
    """Compute percentiles of finite values; their differences may exceed the data type."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(np.percentile(values, percentiles))
    if np.isfinite(found).all():
        return found
    return np.asarray(np.percentile(values.astype(np.float64), percentiles))


def foreground_window(
    volume: Volume, inside: Volume | None = None, percentiles: tuple[float, float] = (0.5, 99.5)
) -> tuple[float, float]:
    """Darkest and brightest intensity to show, from a sample of the voxels.

    Parameters
    ----------
    volume
        The image.
    inside
        Where to look; the whole image if it is None or empty.
    percentiles
        Of the intensities looked at.
    """
    step = tuple(slice(None, None, max(1, size // 96)) for size in volume.frame.shape)
    sample = as_float(volume.data[step])
    values = sample[inside.data[step] > 0] if inside is not None else sample.ravel()
    values = values[np.isfinite(values)]
    if values.size < 50:
        values = sample[np.isfinite(sample)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in percentile(values, percentiles))
    return (low, high) if high > low else (low, low + 1.0)


def grey_levels(section: NDArray, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Turn intensities to grey levels 0..255; NaN is shown as 0."""
    low, high = window
    # A window may be empty: that of an image without positive values starts at 0, too.
    span = high - low if high > low else 1.0
    values = as_float(section)
    if span > float(np.finfo(np.float32).max):
        values = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.nan_to_num(values, posinf=low + span, neginf=low)
        scaled = np.clip((values - low) / span, 0.0, 1.0)
    return np.asarray(np.round(255.0 * scaled), dtype=np.uint8)


def colour_map(values: NDArray, stops: tuple[str, ...]) -> NDArray[np.uint8]:
    """Colour values 0..1 along evenly spaced stops given as ``#rrggbb``; adds an axis of 3."""
    table = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], float)
    at = np.clip(np.nan_to_num(values), 0.0, 1.0) * (len(stops) - 1)
    channels = [np.interp(at, np.arange(len(stops)), table[:, channel]) for channel in range(3)]
    return np.asarray(np.round(np.stack(channels, axis=-1)), dtype=np.uint8)


def thin(section: NDArray, box: Box) -> NDArray:
    """Reduce a section that has many more pixels than its place in a drawing.

    Each block of pixels becomes one with the highest value in it; a section with no more than
    :data:`MAX_DETAIL` pixels for each pixel of the drawing stays as it is.

    Parameters
    ----------
    section : array of shape (rows, columns)
    box
        Left, top, width and height of the section in the drawing.
    """
    for axis, length in enumerate((box[3], box[2])):
        step = -(-section.shape[axis] // max(1, round(MAX_DETAIL * length)))
        if step > 1:
            starts = np.arange(0, section.shape[axis], step)
            section = np.maximum.reduceat(section, starts, axis=axis)
    return section


def encode_picture(
    pixels: NDArray[np.uint8],
    *,
    size: tuple[int, int] | None = None,
    lossless: bool = False,
    quality: int = 80,
) -> Picture:
    """Make a ``data:`` URI of a grey, RGB or RGBA picture.

    Parameters
    ----------
    pixels : array of shape (rows, columns) or (rows, columns, 3 or 4)
    size
        Columns and rows to resample to (smoothly), if not its own.
    lossless
        PNG rather than JPEG.
    quality
        Of the JPEG.

    Returns
    -------
    uri
        The URI.
    size
        Columns and rows.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if size is not None and picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    if lossless:
        picture.save(stream, format="PNG", optimize=True)
    else:
        picture.save(stream, format="JPEG", quality=quality, optimize=True)
    kind = "png" if lossless else "jpeg"
    code = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{kind};base64,{code}", picture.size


def contour_path(mask: NDArray, box: Box) -> str:
    """Outline a mask smoothly, as SVG path data.

    The mask is brought to the resolution of the display first, so the path stays short
    however fine the scan is.

    Parameters
    ----------
    mask : array of shape (rows, columns)
        A section; what is above 0 is inside.
    box
        Left, top, width and height of the section in the drawing.
    """
    inside = np.asarray(mask) > 0
    if not inside.any():
        return ""
    from contourpy import contour_generator
    from PIL import Image

    left, top, width, height = box
    columns, rows = (min(max(2, round(size)), MAX_CONTOUR) for size in (width, height))
    picture = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))
    levels = np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR), float)
    # A rim of zeros closes contours at the edge of the section.
    levels = np.pad(levels, 1)
    xs = left + (np.arange(columns + 2) - 0.5) * width / columns
    ys = top + (np.arange(rows + 2) - 0.5) * height / rows
    parts = []
    for line in contour_generator(xs, ys, levels).lines(127.5):
        points = np.round(np.asarray(line), 1)
        if len(points) < 3:
            continue
        # Every second point is enough at this resolution.
        thinned = points[:-1][::2]
        steps = np.round(np.diff(thinned, axis=0), 1)
        start = f"M{_brief(thinned[0, 0])} {_brief(thinned[0, 1])}"
        moves = "".join([f"l{_brief(dx)} {_brief(dy)}" for dx, dy in steps.tolist()])
        parts.append(f"{start}{moves}z")
    return "".join(parts)


def _brief(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def outline_path(mask: NDArray, box: Box) -> str:
    """Outline a mask along the edges of its voxels, as SVG path data.

    Unlike :func:`contour_path` this shows exactly which voxels belong to it. A mask with more
    edges than a drawing can show is outlined smoothly all the same.
    """
    inside = np.pad(np.asarray(mask) > 0, 1)
    if sum(int((np.diff(inside, axis=axis)).sum()) for axis in (0, 1)) > MAX_EDGES:
        return contour_path(mask, box)
    left, top, width, height = box
    rows, columns = inside.shape[0] - 2, inside.shape[1] - 2
    dx, dy = width / columns, height / rows
    parts = []
    # Edges between a voxel and the one below it, then between it and the one to its right.
    for row, column in np.argwhere(inside[:-1] != inside[1:]):
        parts.append(f"M{left + (column - 1) * dx:.2f} {top + row * dy:.2f}h{dx:.2f}")
    for row, column in np.argwhere(inside[:, :-1] != inside[:, 1:]):
        parts.append(f"M{left + column * dx:.2f} {top + (row - 1) * dy:.2f}v{dy:.2f}")
    return "".join(parts)


def _extent(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int_], NDArray[np.int_]] | None:
    """First and last index + 1 of what is inside, along each axis."""
    low, high = [], []
    for axis in range(3):
        line = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        if line.size == 0:
            return None
        low.append(int(line[0]))
        high.append(int(line[-1]) + 1)
    return np.array(low), np.array(high)


def spread(volume: Volume, mask: Volume | None, margin: float = 35.0) -> tuple[Crop, Crop]:
    """Choose what part of a scan to show.

    Parameters
    ----------
    volume
        The image.
    mask
        The brain, or None.
    margin
        Distance around the brain beyond which nothing is shown, mm.

    Returns
    -------
    shown
        The head, cut at the margin around the brain.
    core
        The brain (the head, where there is no mask): where sections are taken.
    """
    step = max(1, max(volume.frame.shape) // 256)
    coarse = np.nan_to_num(as_float(volume.data[::step, ::step, ::step]))
    bright = coarse > 0.12 * percentile(coarse, 99.0)
    # Rows that hold hardly any bright voxel are ghosts and noise.
    head = _extent(bright)
    shape = np.array(volume.frame.shape)
    low, high = (head[0] * step, np.minimum(head[1] * step, shape)) if head else (0 * shape, shape)
    brain = _extent(np.asarray(mask.data > 0)) if mask is not None else None
    if brain is not None:
        reach = np.ceil(margin / volume.frame.spacing).astype(int)
        low = np.minimum(np.maximum(low, brain[0] - reach), brain[0])
        high = np.maximum(np.minimum(high, brain[1] + reach), brain[1])
    shown = Crop.of(low, high)
    return shown, shown if brain is None else Crop.of(*brain)
