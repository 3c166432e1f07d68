"""Drawings filled with rows of sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .sections import Crop, Frame, Plane, encode_picture, grey_levels
from .svg import Canvas

__all__ = [
    "GAP",
    "SIDES",
    "WIDTH",
    "Box",
    "Painter",
    "Sheet",
    "draw_grey",
    "mark_sides",
    "new_sheet",
]

WIDTH = 1200.0
GAP = 4.0
SIDES = "L and R are the person's left and right (neurological convention)."
Box = tuple[float, float, float, float]
Painter = Callable[[Canvas, Box, Plane, int], None]


@dataclass
class Sheet:
    """A drawing filled row by row."""

    canvas: Canvas
    frame: Frame
    shown: Crop
    top: float = 0.0

    @property
    def middle(self) -> NDArray[np.float64]:
        """The voxel in the middle of what is shown."""
        return (np.array(self.shown.low) + np.array(self.shown.high) - 1) / 2.0

    def heading(self, content: str) -> None:
        """Write a line above what comes next."""
        self.canvas.text((GAP + 2, self.top + 17), content, size=13, weight="600")
        self.top += 25

    def legend(self, entries: Sequence[tuple[str, str]], note: str = "") -> None:
        """Write the meaning of the colours, and a note."""
        if note and self.frame.tilt > 2:
            note += f" The scan is oblique by {self.frame.tilt:.0f}°; positions hold mid-section."
        if entries:
            self.canvas.legend((GAP + 2, self.top + 17), entries)
            self.top += 24
        if note:
            self.canvas.text((GAP + 2, self.top + 16), note, size=12, colour="#8b949e")
            self.top += 24

    def row(self, plane: Plane, indices: Sequence[int], columns: int, paint: Painter) -> None:
        """Place sections side by side, painted by ``paint``."""
        for box, index in self.boxes(plane, indices, columns):
            paint(self.canvas, box, plane, index)
            mark_sides(self.canvas, box, plane, self.frame.position(plane, index, self.middle))
        self.top += self.size(plane, columns)[1] + GAP

    def size(self, plane: Plane, columns: int) -> tuple[float, float]:
        """Width and height of one section in a row of that many."""
        spacing = self.frame.spacing
        across = self.shown.size(plane.across) * spacing[plane.across]
        up = self.shown.size(plane.up) * spacing[plane.up]
        width = (WIDTH - GAP * (columns + 1)) / columns
        height = width * up / across
        if height > 1.35 * width:
            width, height = 1.35 * width * across / up, 1.35 * width
        # A slab of one thin slice, or a column of voxels, is still to be seen.
        return max(width, 1.0), max(height, 1.0)

    def boxes(
        self, plane: Plane, indices: Sequence[int], columns: int
    ) -> Iterator[tuple[Box, int]]:
        """Give the place of each section of a row."""
        cell = (WIDTH - GAP * (columns + 1)) / columns
        width, height = self.size(plane, columns)
        for column, index in enumerate(indices):
            left = GAP + column * (cell + GAP) + (cell - width) / 2
            yield (left, self.top, width, height), index

    def finish(self) -> str:
        """Give the SVG."""
        self.canvas.height = self.top + GAP
        return self.canvas.render()


def new_sheet(title: str, description: str, frame: Frame, shown: Crop, style: str = "") -> Sheet:
    """Begin a drawing of sections through a scan."""
    return Sheet(Canvas(WIDTH, 0, title, f"{description} {SIDES}", style), frame, shown)


def mark_sides(canvas: Canvas, box: Box, plane: Plane, position: float) -> None:
    """Write the sides and the coordinate of a section on it."""
    left, top, width, height = box
    canvas.text((left + 3, top + 13), plane.left_mark, size=11, outline=True)
    canvas.text((left + width - 3, top + 13), plane.right_mark, size=11, anchor="end", outline=True)
    label = f"{plane.letter} {position:+.0f}".replace("-", "−")
    canvas.text((left + 3, top + height - 4), label, size=10.5, colour="#adbac7", outline=True)


def draw_grey(
    canvas: Canvas,
    box: Box,
    section: NDArray,
    window: tuple[float, float],
    detail: float = 1.25,
    quality: int = 80,
) -> None:
    """Draw a section in grey; ``detail`` is picture pixels per pixel of the drawing."""
    size = (max(2, round(box[2] * detail)), max(2, round(box[3] * detail)))
    uri, size = encode_picture(grey_levels(section, window), size=size, quality=quality)
    canvas.picture(uri, size, box)
