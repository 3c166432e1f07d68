"""What the tests of the group level share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.group.standard_space import template_background
from tests.reports.outputtree import Tree

_BACKGROUNDS: dict[tuple[object, ...], Any] = {}


def _background_once(
    template: str, shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> Any:
    key = (template, shape, affine.tobytes())
    if key not in _BACKGROUNDS:
        _BACKGROUNDS[key] = template_background(template, shape, affine)
    return _BACKGROUNDS[key]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "out")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures that take a second: test_standard_space.py tests them.

    The template behind the maps is resampled once for all tests.
    """
    monkeypatch.setattr("cmbprep.group.page_maps.template_background", _background_once)
    monkeypatch.setattr("cmbprep.group.page_maps.glass_brain", lambda *_: "")
