"""A figure that fails is named and costs nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from cmbprep.errors import ScanError
from cmbprep.reports.figures.guarded import LONGEST, draw_all, explain, once


def failing(error: BaseException) -> Callable[[], str]:
    def draw() -> str:
        raise error

    return draw


def test_the_others_are_drawn_whatever_happens_to_one(caplog: pytest.LogCaptureFixture) -> None:
    errors = {
        "a": MemoryError(),
        "b": ValueError("wrong"),
        "c": OSError(28, "No space left on device"),
        "d": RecursionError("too deep"),
        "e": AssertionError(),
    }
    figures = {"first": lambda: "1"} | {name: failing(error) for name, error in errors.items()}
    figures["last"] = lambda: "2"
    with caplog.at_level(logging.DEBUG, "cmbprep"):
        drawn, missing = draw_all(figures, lambda name, text: f"{name}={text}")
    assert drawn == {"first": "first=1", "last": "last=2"}
    assert set(missing) == set(errors)
    assert all(missing.values())
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert "Traceback" in caplog.text
    assert "Traceback" not in "".join(missing.values())


def test_a_figure_that_cannot_be_stored_is_missing() -> None:
    def keep(name: str, text: str) -> str:
        raise OSError(28, "No space left on device", "/scratch/person/x.svg")

    drawn, missing = draw_all({"x.svg": lambda: "text"}, keep)
    assert drawn == {}
    assert missing == {"x.svg": "x.svg could not be read or written (No space left on device)"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interruption_ends_the_drawing(error: BaseException) -> None:
    with pytest.raises(type(error)):
        draw_all({"x": failing(error)}, lambda _, text: text)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "there was not enough memory to draw it"),
        (ValueError("a\n  b"), "drawing it failed (ValueError: a b)"),
        (ValueError("8/10 of it"), "drawing it failed (ValueError: 8/10 of it)"),
        (ValueError("see /data/person/x.nii.gz"), "drawing it failed (ValueError)"),
        (ValueError("'/data/person'"), "drawing it failed (ValueError)"),
        (ValueError(), "drawing it failed (ValueError)"),
        (
            FileNotFoundError("No such file or no access: '/data/person/x.nii'"),
            "a file could not be read or written (FileNotFoundError)",
        ),
        (
            PermissionError(13, "Permission denied", "/data/person/x.nii"),
            "x.nii could not be read or written (Permission denied)",
        ),
        (
            ScanError("it is empty", path="/data/person/x.nii", hint="export it again"),
            "drawing it failed (ScanError: it is empty)",
        ),
    ],
)
def test_the_reason_is_plain_and_tells_no_folder(error: Exception, reason: str) -> None:
    assert explain(error) == reason


def test_the_reason_is_short() -> None:
    assert len(explain(ValueError("long " * 1000))) <= LONGEST


def test_once_reads_once_and_keeps_an_error() -> None:
    calls: list[int] = []

    @once
    def read() -> int:
        calls.append(1)
        return 7

    assert [read(), read()] == [7, 7]
    assert len(calls) == 1

    @once
    def broken() -> int:
        calls.append(1)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            broken()
    assert len(calls) == 2
