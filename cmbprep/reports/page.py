"""Self-contained HTML pages: templates, style and script put into one file."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .palette import ZONE_COLOURS, plain
from .text import format_value

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

__all__ = ["embed_figure", "link_to", "render_page"]


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    folder = resources.files("cmbprep.reports").joinpath("templates")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(folder)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = format_value
    environment.filters["plain"] = plain
    environment.globals["zone_colours"] = ZONE_COLOURS
    return environment


def _asset(name: str) -> Markup:
    from markupsafe import Markup

    folder = resources.files("cmbprep.reports").joinpath("templates")
    # These files are part of the package.
    return Markup(folder.joinpath(name).read_text(encoding="utf-8"))  # noqa: S704


def render_page(template: str, **context: Any) -> str:
    """Fill a template; all text is escaped, and nothing is loaded from elsewhere."""
    page = _environment().get_template(template)
    return page.render(style=_asset("style.css"), script=_asset("page.js"), **context) + "\n"


def embed_figure(path: Path) -> Markup | None:
    """Read a figure to be placed in a page; None where there is no usable one.

    A figure that brings a script or loads something is not one of ours and is left out.
    """
    from markupsafe import Markup

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    start = text.find("<svg")
    # The end is looked for too: a figure cut short would swallow the rest of the page.
    if start < 0 or not text.rstrip().endswith("</svg>"):
        return None
    if re.search(r"<(script|foreignObject)\b|\son\w+\s*=|href=\"(?!#|data:image/)", text):
        return None
    return Markup(text[start:])  # noqa: S704


def link_to(path: Path, root: Path) -> str:
    """Give the address of a file relative to a page at the top of the dataset."""
    return quote(path.relative_to(root).as_posix())
