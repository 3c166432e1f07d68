"""``docs/walkthrough.md`` names modules and functions that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs/walkthrough.md"
#: Dotted names in backticks, in the order of the page, each once.
NAMES = tuple(dict.fromkeys(re.findall(r"`([A-Za-z_]\w*(?:\.\w+)+)`", PAGE.read_text("utf-8"))))


def test_the_page_follows_the_packages_in_order() -> None:
    assert len(NAMES) > 40
    packages = list(dict.fromkeys(name.partition(".")[0] for name in NAMES))
    steps = ["cli", "config", "participant", "bids", "workflows", "interfaces", "reports", "group"]
    assert [package for package in packages if package in steps] == steps


@pytest.mark.parametrize("name", NAMES)
def test_names_exist(name: str) -> None:
    parts = name.split(".")
    found = importlib.import_module(f"cmbprep.{parts.pop(0)}")
    while parts:
        part = parts.pop(0)
        if not hasattr(found, part):
            found = importlib.import_module(f"{found.__name__}.{part}")
        else:
            found = getattr(found, part)
