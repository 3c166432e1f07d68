"""Citations from the bibliography that the reports use too (``cmbprep/data/bibliography.json``).

The role ``cite`` names one or more keys, the directive ``bibliography`` lists all works. A key
that is not in the file is a warning, and so an error where ``sphinx-build -W`` is used.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

BIBLIOGRAPHY = Path(__file__).resolve().parents[2] / "cmbprep" / "data" / "bibliography.json"
logger = logging.getLogger(__name__)


@cache
def works() -> dict[str, dict[str, Any]]:
    """Return all works by key, in the order of their text."""
    entries = json.loads(BIBLIOGRAPHY.read_text("utf-8"))
    return {entry["key"]: entry for entry in sorted(entries, key=lambda entry: entry["text"])}


def label(entry: dict[str, Any]) -> str:
    """Return first author and year, as a reader expects in running text."""
    author = entry["text"].split(maxsplit=1)[0].rstrip(",")
    year = re.search(r"\b(?:19|20)\d\d(?=[;:])", entry["text"])
    return f"{author} {year[0]}" if year else author


class Cite(SphinxRole):
    """``{cite}`n4,syn`` becomes "(Tustison 2010; Avants 2008)", linked to the list."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the nodes of one citation."""
        parts: list[nodes.Node] = [nodes.Text("(")]
        for number, key in enumerate(part.strip() for part in self.text.split(",")):
            if key not in works():
                logger.warning(
                    "no work %r in %s", key, BIBLIOGRAPHY.name, location=self.get_location()
                )
                continue
            if number:
                parts.append(nodes.Text("; "))
            target = f"references.html#work-{key}"
            parts.append(nodes.reference("", label(works()[key]), refuri=target, internal=True))
        return [*parts, nodes.Text(")")], []


class Bibliography(SphinxDirective):
    """List all works, each with its DOI as a link."""

    def run(self) -> list[nodes.Node]:
        """Return the list."""
        listing = nodes.bullet_list()
        for key, entry in works().items():
            paragraph = nodes.paragraph("", entry["text"] + " ")
            if doi := entry.get("doi"):
                paragraph += nodes.reference("", f"doi:{doi}", refuri=f"https://doi.org/{doi}")
            listing += nodes.list_item("", paragraph, ids=[f"work-{key}"])
        return [listing]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the role and the directive."""
    app.add_role("cite", Cite())
    app.add_directive("bibliography", Bibliography)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
