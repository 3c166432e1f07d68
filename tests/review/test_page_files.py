"""The files of the page: plain scripts, no markup from texts, nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "cmbprep"
PAGE = PACKAGE / "review" / "page"
INDEX = (PAGE / "index.html").read_text("utf-8")
SCRIPTS = sorted([*PAGE.glob("*.js"), *(PACKAGE / "reports" / "viewer").glob("*.js")])
STYLES = sorted(PAGE.glob("*.css"))
#: Ways to make elements or code from text.
UNSAFE = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    r"|setTimeout\(['\"]"
)


@pytest.mark.parametrize("path", [*SCRIPTS, *STYLES], ids=lambda path: path.name)
def test_each_file_is_named_once_in_the_page(path: Path) -> None:
    assert INDEX.count(f'"page/{path.name}?token=@TOKEN@"') == 1


def test_the_page_names_no_other_file() -> None:
    named = re.findall(r'(?:src|href)="([^"]+)"', INDEX)
    own = {f"page/{path.name}?token=@TOKEN@" for path in (*SCRIPTS, *STYLES)}
    assert set(named) == own | {"data:,"}
    assert not re.search(r"<style|\bstyle=|\bon\w+=|<script>", INDEX)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_and_make_no_markup(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith('"use strict";\n')
    assert re.search(UNSAFE, text) is None
    assert "</script" not in text
    assert not re.search(r"https?://|\bimport\(|^\s*(?:import|export) ", text, re.MULTILINE)


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_styles_load_nothing(path: Path) -> None:
    assert not re.search(r"url\(|@import", path.read_text("utf-8"))
