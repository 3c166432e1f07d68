"""Reference tables made from the program itself, so that they cannot say something else.

``{command-options} MODULE:FUNCTION [COMMAND]`` lists the options of the argparse parser that the
function gives, or of one of its sub-commands; ``{data-dictionary} MODULE:NAME`` lists the columns
of a table from their BIDS dictionary, or from a function that gives one; ``{packages}`` lists the
parts of the package in their order, each with the first line of its docstring; ``{review-keys}``
lists the keys of the review page.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cmbprep.group.dictionary import outline
from cmbprep.zones.burden import BURDEN_SCALES, PATTERN_RULES
from cmbprep.zones.tally import SCALES


def load(target: str) -> Any:
    """Return the object that ``module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def scan_columns() -> dict[str, Any]:
    """Return the columns of the table of scans, those that differ in a field as one."""
    return outline("scans")


def lesion_columns() -> dict[str, Any]:
    """Return the columns of the table of lesions."""
    return outline("lesions")


def participant_columns() -> dict[str, Any]:
    """Return the columns of ``group_participants.tsv`` that are its own."""
    return outline("participants")


def model_columns() -> dict[str, Any]:
    """Return the columns of ``group_models.tsv``."""
    return outline("models")


def burden_scales() -> dict[str, Any]:
    """Return the burden scales that the tables have, each with its classes and source."""
    found = {}
    for name in SCALES:
        scale = BURDEN_SCALES[name]
        classes = ", ".join(scale.classes)
        found[name] = {"Description": f"{scale.counts}: {classes}. {scale.source}"}
    return found


def pattern_rules() -> dict[str, Any]:
    """Return the rules of the pattern."""
    return {name: {"Description": text} for name, text in PATTERN_RULES.items()}


def packages() -> Iterator[tuple[str, str]]:
    """Yield name and purpose of each part of the package, from the bottom up."""
    repository = Path(__file__).resolve().parents[2]
    tree = ast.parse((repository / "tests/test_layers.py").read_text("utf-8"))
    (layers,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYERS"
    )
    for name in layers:
        folder = repository / "cmbprep" / name
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        yield name, docstring.partition("\n")[0].replace("``", "")


#: An action of the review page in ``keys.js``: its name, group, purpose and default key.
_ACTION = re.compile(r'^    (\w+): \["([^"]+)", "([^"]+)", "([^"]+)"\],$', re.MULTILINE)
_ARROWS = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→"}


def review_keys() -> dict[str, list[tuple[str, str]]]:
    """Return the keys of the review page and what they do, by group, from the page's own table."""
    repository = Path(__file__).resolve().parents[2]
    text = (repository / "cmbprep/review/page/keys.js").read_text("utf-8")
    groups: dict[str, list[tuple[str, str]]] = {}
    for _, group, purpose, key in _ACTION.findall(text):
        *modifiers, last = [key] if len(key) == 1 else key.split("+")
        printed = _ARROWS.get(last, last.upper() if len(last) == 1 else last)
        groups.setdefault(group, []).append(("+".join([*modifiers, printed]), purpose))
    return groups


def description_list(entries: Iterator[tuple[str, str]]) -> nodes.definition_list:
    """Return a definition list of literal terms and plain explanations."""
    listing = nodes.definition_list()
    for term, text in entries:
        item = nodes.definition_list_item()
        item += nodes.term("", "", nodes.literal("", term))
        item += nodes.definition("", nodes.paragraph("", text))
        listing += item
    return listing


class CommandOptions(SphinxDirective):
    """All options of a parser, group by group."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a list for each group of options that is not empty."""
        parser: argparse.ArgumentParser = load(self.arguments[0])()
        for command in self.arguments[1:]:
            (commands,) = (
                action
                for action in parser._actions
                if isinstance(action, argparse._SubParsersAction)
            )
            parser = commands.choices[command]
        found: list[nodes.Node] = []
        for group in parser._action_groups:
            actions = [one for one in group._group_actions if one.help != argparse.SUPPRESS]
            if actions:
                found.append(nodes.rubric("", (group.title or "").capitalize()))
                found.append(description_list(map(self.describe, actions)))
        return found

    @staticmethod
    def describe(action: argparse.Action) -> tuple[str, str]:
        """Return an option as it is typed, and its help with the default filled in."""
        value = action.metavar or ("|".join(map(str, action.choices or ())) or action.dest)
        if action.nargs == 0:
            value = ""
        elif action.nargs in ("+", "*"):
            value = f"{value} [{value} ...]"
        typed = ", ".join(action.option_strings) if action.option_strings else ""
        if action.choices and action.option_strings:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        values = {key: item for key, item in vars(action).items() if not key.startswith("_")}
        return f"{typed} {value}".strip(), (action.help or "") % {**values, "prog": "cmbprep"}


class DataDictionary(SphinxDirective):
    """All columns of a table with units and levels."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return one list."""
        found = load(self.arguments[0])
        columns: Mapping[str, Mapping[str, Any] | str] = found() if callable(found) else found
        return [description_list((name, self.describe(entry)) for name, entry in columns.items())]

    @staticmethod
    def describe(entry: Mapping[str, Any] | str) -> str:
        """Return description, unit and levels as one text."""
        if isinstance(entry, str):
            return f"{entry[0].upper()}{entry[1:]}."
        text = str(entry["Description"])
        if unit := entry.get("Units"):
            text += f" Unit: {unit}."
        if isinstance(levels := entry.get("Levels"), Mapping):
            text += " " + " ".join(f"{level}: {meaning}" for level, meaning in levels.items())
        return text


class Packages(SphinxDirective):
    """The parts of the package."""

    def run(self) -> list[nodes.Node]:
        """Return one list."""
        return [description_list(packages())]


class ReviewKeys(SphinxDirective):
    """The keys of the review page."""

    def run(self) -> list[nodes.Node]:
        """Return a table of two columns for each group of actions."""
        found: list[nodes.Node] = []
        for group, keys in review_keys().items():
            body = nodes.tbody("", *[self.row(key, purpose) for key, purpose in keys])
            columns = [nodes.colspec(colwidth=20), nodes.colspec(colwidth=80)]
            table = nodes.table("", nodes.tgroup("", *columns, body, cols=2), align="left")
            found += [nodes.rubric("", group), table]
        return found

    @staticmethod
    def row(key: str, purpose: str) -> nodes.row:
        """Return a row of the table."""
        cells = (nodes.paragraph("", "", nodes.literal("", key)), nodes.paragraph("", purpose))
        return nodes.row("", *[nodes.entry("", cell) for cell in cells])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("command-options", CommandOptions)
    app.add_directive("data-dictionary", DataDictionary)
    app.add_directive("packages", Packages)
    app.add_directive("review-keys", ReviewKeys)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
