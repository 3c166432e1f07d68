"""The forest plot shows every coefficient where its numbers are."""

from __future__ import annotations

import re

import pytest

from cmbprep.group.models.forest import Line, draw_forest
from cmbprep.reports.figures.canvas import check_figure


def line(
    label: str, ratio: float | None, low: float | None, high: float | None, **more: object
) -> Line:
    return Line(label=label, ratio=ratio, low=low, high=high, group="count", **more)  # type: ignore[arg-type]


def centres(svg: str) -> list[float]:
    return [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]


def test_equal_factors_are_equal_lengths() -> None:
    svg = draw_forest(
        "m", [line("a", 0.5, 0.25, 1.0), line("b", 1.0, 0.5, 2.0), line("c", 2.0, 1.0, 4.0)], "x"
    )
    check_figure(svg)
    first, second, third = centres(svg)
    assert second - first == pytest.approx(third - second, abs=0.05)
    assert "0.50 (0.25 to 1.00)" in svg


def test_a_coefficient_without_estimate_is_listed() -> None:
    svg = draw_forest("m", [line("site: B against A", None, None, None)], "x")
    check_figure(svg)
    assert centres(svg) == [] and "site: B against A" in svg and ">n/a<" in svg


@pytest.mark.parametrize("ends", [(1e-9, 1e9), (0.0, float("inf"))])
def test_an_endless_interval_stays_in_the_picture(ends: tuple[float, float]) -> None:
    svg = draw_forest("m", [line("a", 1.5, *ends, wider=ends)], "x")
    check_figure(svg)
    assert all(0 <= float(x) <= 680 for x in re.findall(r'd="M([\d.]+)', svg))
    assert "detector&#x27;s doubt" in svg
    assert "&lt; 0.001 to &gt; 1000" in svg


def test_parts_have_headings_where_there_are_several() -> None:
    two = [
        line("age", 1.1, 1.0, 1.2),
        Line(label="age", ratio=2.0, low=1.0, high=4.0, group="zeros"),
    ]
    svg = draw_forest("m", two, "x")
    assert "number of microbleeds" in svg and "excess zeros" in svg
    assert "number of microbleeds" not in draw_forest("m", two[:1], "x")
