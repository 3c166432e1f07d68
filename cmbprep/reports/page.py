"""Self-contained HTML pages: templates, style and script put into one file."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cmbprep.outputs.settings import flatten
from cmbprep.reports.colours import ZONE_COLOURS
from cmbprep.reports.figures.canvas import check_figure
from cmbprep.reports.quality import SIGNS, figures_of, load_ranges
from cmbprep.reports.text import format_probability, format_value, plain, quality_title
from cmbprep.zones.tally import is_mimic

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

#: Largest figure that is placed in a page, bytes; those that are drawn are far smaller.
MAX_FIGURE = 32 * 2**20


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
    environment.filters |= {
        "value": format_value,
        "probability": format_probability,
        "plain": plain,
        "flatten": flatten,
        "quality_title": quality_title,
        "judged": figures_of,
    }
    environment.tests["mimic"] = is_mimic
    environment.globals |= {
        "zone_colours": ZONE_COLOURS,
        "signs": SIGNS,
        "range_sources": load_ranges()["sources"],
    }
    return environment


def render_page(template: str, **context: Any) -> str:
    """Fill a template; all text is escaped, and nothing is loaded from elsewhere."""
    return _environment().get_template(template).render(**context) + "\n"


def embed_figure(path: Path) -> tuple[Markup | None, str]:
    """Read a figure to be placed in a page; never raises an error of the file.

    Parameters
    ----------
    path
        The SVG file.

    Returns
    -------
    svg
        The figure, or None where it cannot be placed in the page: a figure that is cut short
        would swallow what follows, and one that brings a script or loads something is not one
        of ours.
    reason
        Why it cannot; empty for a usable figure.
    """
    from markupsafe import Markup

    try:
        if not path.is_file():
            return None, f"the figure {path.name} is not in the dataset"
        content = path.read_bytes() if path.stat().st_size <= MAX_FIGURE else b""
    except (OSError, ValueError):
        return None, f"the figure {path.name} cannot be read"
    try:
        text = content.decode("utf-8")
        check_figure(text)
    except ValueError:
        return None, f"the figure {path.name} is damaged"
    return Markup(text), ""  # noqa: S704 - checked: no element but those of our own figures


def link_to(path: Path, root: Path) -> str:
    """Return the address of a file relative to a page at the top of the dataset."""
    return quote(path.relative_to(root).as_posix())
