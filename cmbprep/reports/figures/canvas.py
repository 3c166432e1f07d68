"""A small writer of SVG: what the figures need, the same bytes every time.

The figures are inlined into one page side by side, so nothing in them may clash: the
only ids are hashes of the pictures they name, and class names start with ``cmb-``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from cmbprep.reports.figures.sections import Crop, Frame, Plane, encode_picture, grey_levels

__all__ = [
    "FONT",
    "GAP",
    "SIDES",
    "WIDTH",
    "Box",
    "Canvas",
    "Painter",
    "Sheet",
    "check_figure",
    "draw_grey",
    "mark_sides",
    "new_sheet",
    "number",
    "shorten",
]


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
    parser = expat.ParserCreate(namespace_separator=" ")
    checks = _Checks()
    parser.buffer_text = True
    parser.StartElementHandler = checks.start
    parser.EndElementHandler = lambda _: checks.end()
    parser.CharacterDataHandler = checks.characters
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed ({error})") from error


class _Checks:
    """What is looked for in a figure, element by element."""

    def __init__(self) -> None:
        self._open: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Check an element and its attributes."""
        space, _, name = tag.rpartition(" ")
        # The root alone may stand alone, and text holds nothing but text.
        outside = not self._open and name != "svg"
        if space != NAMESPACE or name not in ELEMENTS or outside or self._in_text:
            raise ValueError(f"the element {name} is not one of a figure")
        for key, value in attributes.items():
            # A page's parser does not tell capitals from small letters.
            if not self._harmless(key.rpartition(" ")[2].lower(), value):
                raise ValueError(f"the attribute {key} is not one of a figure")
        self._open.append(name)

    def end(self) -> None:
        """Leave an element."""
        self._open.pop()

    def characters(self, content: str) -> None:
        """Check text: a style sheet must load nothing."""
        if self._open[-1] == "style" and _LOADS.search(content):
            raise ValueError("the style sheet loads something")

    @property
    def _in_text(self) -> bool:
        return bool(self._open) and self._open[-1] in TEXT_ELEMENTS

    @staticmethod
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
    background
        Colour behind everything.
    """

    width: float
    height: float
    title: str
    description: str = ""
    style: str = ""
    background: str = "#0d1117"
    _parts: list[str] = field(default_factory=list, init=False, repr=False)
    _pictures: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def picture(
        self,
        uri: str,
        size: tuple[int, int],
        box: tuple[float, float, float, float],
        *,
        pixelated: bool = False,
    ) -> None:
        """Place a raster picture; one that is used twice is stored once.

        Parameters
        ----------
        uri
            ``data:`` URI of the picture.
        size
            Its width and height in its own pixels.
        box
            Left, top, width, height in the drawing.
        pixelated
            Whether its pixels are drawn as rectangles rather than interpolated.
        """
        key = "p" + hashlib.sha256(uri.encode()).hexdigest()[:12]
        rendering = ' style="image-rendering:pixelated"' if pixelated else ""
        self._pictures[key] = (
            f'<image id="{key}" width="{size[0]}" height="{size[1]}" '
            f'preserveAspectRatio="none"{rendering} href="{uri}"/>'
        )
        left, top, width, height = box
        scale = f"{width / size[0]:.5g} {height / size[1]:.5g}"
        self._parts.append(
            f'<use href="#{key}" '
            f'transform="translate({number(left)} {number(top)}) scale({scale})"/>'
        )

    def path(
        self,
        data: str,
        colour: str,
        *,
        width: float = 1.2,
        opacity: float = 1.0,
        fill: str = "none",
        dashes: str | None = None,
    ) -> None:
        """Draw a path given as SVG path data."""
        if data:
            extra = f' stroke-opacity="{number(opacity)}"' if opacity < 1 else ""
            extra += f' stroke-dasharray="{dashes}"' if dashes else ""
            self._parts.append(
                f'<path d="{data}" fill="{fill}" stroke="{colour}" '
                f'stroke-width="{number(width)}" stroke-linejoin="round"{extra}/>'
            )

    def rectangle(
        self,
        box: tuple[float, float, float, float],
        *,
        fill: str = "none",
        stroke: str = "none",
        width: float = 1.0,
    ) -> None:
        """Draw a rectangle: left, top, width, height."""
        left, top, across, down = (number(value) for value in box)
        self._parts.append(
            f'<rect x="{left}" y="{top}" width="{across}" height="{down}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{number(width)}"/>'
        )

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
        self._parts.append(
            f'<circle cx="{number(centre[0])}" cy="{number(centre[1])}" r="{number(radius)}" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="{number(width)}">{inner}</circle>'
        )

    def text(
        self,
        place: tuple[float, float],
        content: str,
        *,
        size: float = 12,
        colour: str = "#c9d1d9",
        anchor: str = "start",
        weight: str = "400",
        outline: bool = False,
    ) -> None:
        """Write a line of text, its baseline at ``place``.

        ``outline`` draws a dark rim around the letters, for text on pictures.
        """
        rim = (
            ' paint-order="stroke" stroke="#000" stroke-width="3" stroke-linejoin="round"'
            if outline
            else ""
        )
        self._parts.append(
            f'<text x="{number(place[0])}" y="{number(place[1])}" font-size="{number(size)}" '
            f'fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"{rim}>'
            f"{_escape(content)}</text>"
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
        """Return the place of each section of a row."""
        cell = (WIDTH - GAP * (columns + 1)) / columns
        width, height = self.size(plane, columns)
        for column, index in enumerate(indices):
            left = GAP + column * (cell + GAP) + (cell - width) / 2
            yield (left, self.top, width, height), index

    def finish(self) -> str:
        """Return the SVG."""
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
