"""What the tools share: options, tables that lie beside the code as JSON, errors of files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError, UsageError

_TYPES = {"int": int, "float": float, "path": Path}


def read_data(package: str, name: str) -> Any:
    """Read a JSON file that lies in a package."""
    return json.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


def add_options(parser: argparse.ArgumentParser, groups: dict[str, list[dict[str, Any]]]) -> None:
    """Declare the options of a sub-command.

    Parameters
    ----------
    parser
        Of the sub-command.
    groups
        Heading of a group, empty for none -> keyword arguments of ``add_argument``: types
        by name, and the option itself as ``name``.
    """
    for title, options in groups.items():
        group = parser.add_argument_group(title) if title else parser
        for option in options:
            settings = {key: value for key, value in option.items() if key != "name"}
            if "type" in settings:
                settings["type"] = _TYPES[settings["type"]]
            group.add_argument(option["name"], **settings)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Raise what is wrong with a file as an error of the arguments that named it."""
    try:
        yield
    except CmbprepError as error:
        raise UsageError(error.message, path=error.path, hint=error.hint) from error
