"""What the tests of the group level share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.outputtree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "out")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures that take a second: test_standard_space.py tests them."""
    monkeypatch.setattr("cmbprep.group.page_maps.glass_brain", lambda *_: "")
