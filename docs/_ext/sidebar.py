"""A sidebar that lists what is near the page: the pages beside those that lead to it.

Furo lists every page in the sidebar of every page. The API has hundreds of pages, so such a list
makes a page twice as large, and the build slower.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def _close_branches(
    _app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object
) -> None:
    """Make the table of contents that the theme asks for close the branches of other pages."""
    if (toctree := context.get("toctree")) is not None:
        context["toctree"] = lambda **options: toctree(**{**options, "collapse": True})


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the handler, which comes before that of the theme."""
    app.connect("html-page-context", _close_branches, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
