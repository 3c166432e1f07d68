"""What the tests of the group level share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
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


class ThisProcess:
    """Stands for a pool of processes: what is submitted is done here and now."""

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments))
        return done


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes a second: the pictures that test_standard_space.py tests, and processes.

    The template behind the maps is resampled once for all tests. Follow-ups are computed in the
    process of the test; test_followup.py computes them in processes of their own.
    """
    monkeypatch.setattr(
        "cmbprep.running.processes.process_pool", lambda _: nullcontext(ThisProcess())
    )
    monkeypatch.setattr("cmbprep.group.page_maps.template_background", _background_once)
    monkeypatch.setattr("cmbprep.group.page_maps.glass_brain", lambda *_: "")
