"""A small writer of SVG: what the figures need, the same bytes every time.

The figures are inlined into one page side by side, so nothing in them may clash: the
only ids are hashes of the pictures they name, and class names start with ``cmb-``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.reports.figures.sections import (
    PLANES,
    Box,
    Crop,
    Frame,
    Picture,
    Plane,
    Tile,
    encode_picture,
    evenly,
    fit,
    grey_levels,
)

NAMESPACE = "http://www.w3.org/2000/svg"
#: The elements that figures are made of, and those that hold text only.
ELEMENTS = frozenset(
    ("svg", "title", "desc", "style", "defs", "g", "image", "use", "rect", "path", "circle", "text")
)
TEXT_ELEMENTS = frozenset(("title", "desc", "style", "text"))
#: What makes a style sheet load a file; escapes could hide it.
_LOADS = re.compile(r"url\s*\(|@import|\\", re.IGNORECASE)

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def number(value: float) -> str:
    """Write a coordinate with at most two decimals, as briefly as SVG allows."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


#: Characters that XML cannot hold, as in a name read from a damaged table.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _escape(content: str) -> str:
    """Escape text for XML and replace the characters that XML cannot hold."""
    return escape(_NO_XML.sub("\ufffd", content))


def check_figure(text: str) -> None:
    """Check that a text is a figure as :class:`Canvas` writes them, and nothing else.

    Text that two parsers understand differently would be unsafe in a page, so what a figure has
    no need of is refused: comments, declarations, scripts, links to other files.

    Raises
    ------
    ValueError
        If it is not well-formed, or holds what our figures do not.
    """
    if not text.startswith("<svg") or "<!" in text or "<?" in text:
        raise ValueError("not a figure")
    try:
        # Without declarations, no entity can be defined.
        root = ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"not well-formed ({error})") from error
    if root.tag != f"{{{NAMESPACE}}}svg":
        raise ValueError("not a figure")
    for element in root.iter():
        space, _, name = element.tag[1:].rpartition("}")
        # Text holds nothing but text.
        if space != NAMESPACE or name not in ELEMENTS or (name in TEXT_ELEMENTS and len(element)):
            raise ValueError(f"the element {name} is not one of a figure, or holds others")
        for key, value in element.items():
            # A page's parser does not tell capitals from small letters.
            if not _harmless(key.rpartition("}")[2].lower(), value):
                raise ValueError(f"the attribute {key} is not one of a figure")
        if name == "style" and _LOADS.search(element.text or ""):
            raise ValueError("the style sheet loads something")


def _harmless(key: str, value: str) -> bool:
    if key == "href":
        return value.startswith(("#", "data:image/png;", "data:image/jpeg;"))
    return not key.startswith("on") and not _LOADS.search(value)


def shorten(text: str, length: int) -> str:
    """Cut a text to a number of characters; an ellipsis marks the cut."""
    return text if len(text) <= length else text[: length - 1].rstrip(" ·") + "…"


def _brightness(colour: str) -> float:
    """Mean of the channels of a colour given as ``#rrggbb``, 0..1."""
    return sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) / (3 * 255)


@dataclass
class Canvas:
    """An SVG drawing that is being built up, in pixels from the top left corner.

    Parameters
    ----------
    width, height
        Size of the drawing. The height may be set when it is known, before :meth:`text`
        is asked for.
    title, description
        What a screen reader says.
    style
        Style sheet of the drawing.
    background, ink
        Colour behind everything, and of text that is given no other.
    """

    width: float
    height: float
    title: str
    description: str = ""
    style: str = ""
    background: str = "#0d1117"
    ink: str = "#c9d1d9"
    _parts: list[str] = field(default_factory=list, init=False, repr=False)
    _pictures: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def picture(self, picture: Picture, box: Box, *, pixelated: bool = False) -> None:
        """Place a raster picture; one that is used twice is stored once.

        Parameters
        ----------
        picture
            As :func:`.encode_picture` returns it.
        box
            Left, top, width, height in the drawing.
        pixelated
            Whether its pixels are drawn as rectangles rather than interpolated.
        """
        uri, (columns, rows) = picture
        key = "p" + hashlib.sha256(uri.encode()).hexdigest()[:12]
        rendering = ' style="image-rendering:pixelated"' if pixelated else ""
        self._pictures[key] = (
            f'<image id="{key}" width="{columns}" height="{rows}" '
            f'preserveAspectRatio="none"{rendering} href="{uri}"/>'
        )
        left, top, width, height = box
        place = f"translate({number(left)} {number(top)})"
        self._add(
            "use",
            href=f"#{key}",
            transform=f"{place} scale({width / columns:.5g} {height / rows:.5g})",
        )

    def _add(self, tag: str, content: str | None = None, /, **attributes: str | float) -> None:
        """Add an element; an underscore in an attribute's name stands for a hyphen."""
        words = [
            f'{name.replace("_", "-")}="{value if isinstance(value, str) else number(value)}"'
            for name, value in attributes.items()
        ]
        end = "/>" if content is None else f">{content}</{tag}>"
        self._parts.append(f"<{tag} {' '.join(words)}{end}")

    def path(
        self,
        data: str,
        colour: str,
        *,
        width: float = 1.2,
        opacity: float = 1.0,
        fill: str = "none",
    ) -> None:
        """Draw a path given as SVG path data."""
        extra = {"stroke_opacity": opacity} if opacity < 1 else {}
        if data:
            pen = {"stroke": colour, "stroke_width": number(width), "stroke_linejoin": "round"}
            self._add("path", d=data, fill=fill, **pen, **extra)

    def rectangle(
        self, box: Box, *, fill: str = "none", stroke: str = "none", width: float = 1.0
    ) -> None:
        """Draw a rectangle: left, top, width, height."""
        x, y, across, down = box
        style = {"fill": fill, "stroke": stroke, "stroke_width": number(width)}
        self._add("rect", x=x, y=y, width=across, height=down, **style)

    def circle(
        self,
        centre: tuple[float, float],
        radius: float,
        *,
        fill: str = "none",
        stroke: str = "none",
        width: float = 1.0,
        hint: str | None = None,
    ) -> None:
        """Draw a circle; ``hint`` is shown when the pointer rests on it."""
        inner = f"<title>{_escape(hint)}</title>" if hint else ""
        style = {"fill": fill, "stroke": stroke, "stroke_width": number(width)}
        self._add("circle", inner, cx=centre[0], cy=centre[1], r=radius, **style)

    def text(
        self,
        place: tuple[float, float],
        content: str,
        *,
        size: float = 12,
        colour: str | None = None,
        anchor: str = "start",
        weight: str = "400",
        outline: bool = False,
    ) -> None:
        """Write a line of text, its baseline at ``place``.

        ``outline`` draws a dark rim around the letters, for text on pictures.
        """
        rim = {"stroke": "#000", "stroke_width": "3", "stroke_linejoin": "round"}
        outer = {"paint_order": "stroke", **rim} if outline else {}
        font = {"text_anchor": anchor, "font_weight": weight, **outer}
        x, y = place
        self._add(
            "text", _escape(content), x=x, y=y, font_size=size, fill=colour or self.ink, **font
        )

    def legend(self, place: tuple[float, float], entries: Sequence[tuple[str, str]]) -> None:
        """Write a row of coloured squares with their meaning: (colour, text) each.

        A square that would not show on the ground has an outline.
        """
        left, baseline = place
        for colour, content in entries:
            rim = "#8b949e" if _brightness(colour) < 0.15 else "none"
            self.rectangle((left, baseline - 9, 10, 10), fill=colour, stroke=rim)
            self.text((left + 15, baseline), content, size=12)
            # Letters differ in width between fonts: leave room for a wide one.
            left += 15 + 7.2 * len(content) + 18

    def open_group(self, name: str) -> None:
        """Begin a group with a class of that name."""
        self._parts.append(f'<g class="{escape(name)}">')

    def close_group(self) -> None:
        """End the group begun last."""
        self._parts.append("</g>")

    def render(self) -> str:
        """Return the SVG document."""
        width, height = number(self.width), number(self.height)
        opening = (
            f'<svg xmlns="{NAMESPACE}" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" font-family="{escape(FONT)}">'
        )
        lines = [
            opening,
            f"<title>{_escape(self.title)}</title>",
            f"<desc>{_escape(self.description)}</desc>" if self.description else "",
            f"<style>{self.style}</style>" if self.style else "",
            "<defs>" + "".join(self._pictures.values()) + "</defs>" if self._pictures else "",
            f'<rect width="{width}" height="{height}" fill="{self.background}"/>',
            *self._parts,
            "</svg>",
        ]
        return "\n".join(line for line in lines if line) + "\n"


# --- Drawings filled with rows of sections -------------------------------------------------------


WIDTH = 1200.0
GAP = 4.0
SIDES = "L and R are the person's left and right (neurological convention)."
Painter = Callable[[Canvas, Tile], None]


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
        """Write the meaning of the colours, in as many lines as it needs, and a note."""
        if note and self.frame.tilt > 2:
            note += f" The scan is oblique by {self.frame.tilt:.0f}°; positions hold mid-section."
        lines: list[list[tuple[str, str]]] = []
        used = WIDTH
        for colour, name in entries:
            entry = colour, shorten(name, 150)
            width = 33 + 7.2 * len(entry[1])
            if used + width > WIDTH - 20:
                lines.append([])
                used = 0.0
            lines[-1].append(entry)
            used += width
        for line in lines:
            self.canvas.legend((GAP + 2, self.top + 17), line)
            self.top += 24
        if note:
            self.canvas.text((GAP + 2, self.top + 16), note, size=12, colour="#8b949e")
            self.top += 24

    def colour_bar(self, ramp: NDArray[np.uint8], low: str, high: str) -> None:
        """Draw a bar of colours, an array of shape (n, 3), with its ends."""
        box = (60.0, self.top + 8, 240.0, 10.0)
        self.canvas.picture(encode_picture(ramp[None], lossless=True), box)
        self.canvas.text((52.0, self.top + 17), low, size=12, anchor="end")
        self.canvas.text((308.0, self.top + 17), high, size=12)
        self.top += 26

    def row(self, plane: Plane, indices: Sequence[int], columns: int, paint: Painter) -> None:
        """Place sections side by side, painted by ``paint``."""
        cell, height = (WIDTH - GAP * (columns + 1)) / columns, 1.0
        for column, index in enumerate(indices):
            place = (GAP + column * (cell + GAP), self.top, cell, 1.35 * cell)
            box = fit(self.frame, self.shown, plane, place, centred=False)
            tile = Tile(self.frame, plane, self.shown, index, box)
            paint(self.canvas, tile)
            mark_sides(self.canvas, tile, self.middle)
            height = box[3]
        self.top += height + GAP

    def mosaic(
        self,
        core: Crop,
        layout: Sequence[tuple[str, int, int]],
        paint: Painter,
        *,
        to_the_edge: bool = False,
    ) -> None:
        """Place rows of sections evenly: plane, number of rows and columns for each plane."""
        for name, rows, columns in layout:
            indices = evenly(core, PLANES[name], rows * columns, to_the_edge=to_the_edge)
            for start in range(0, len(indices), columns):
                self.row(PLANES[name], indices[start : start + columns], columns, paint)

    def finish(self) -> str:
        """Return the SVG."""
        self.canvas.height = self.top + GAP
        return self.canvas.render()


def new_sheet(title: str, description: str, frame: Frame, shown: Crop, style: str = "") -> Sheet:
    """Begin a drawing of sections through a scan."""
    return Sheet(Canvas(WIDTH, 0, title, f"{description} {SIDES}", style), frame, shown)


def mark_sides(canvas: Canvas, tile: Tile, at: ArrayLike | None) -> None:
    """Write the sides of a section on it, and its coordinate where it passes a voxel."""
    left, top, width, height = tile.box
    plane = tile.plane
    canvas.text((left + 3, top + 13), plane.left_mark, size=11, outline=True)
    canvas.text((left + width - 3, top + 13), plane.right_mark, size=11, anchor="end", outline=True)
    if at is not None:
        position = tile.frame.position(plane, tile.index, at)
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
    canvas.picture(encode_picture(grey_levels(section, window), size=size, quality=quality), box)
