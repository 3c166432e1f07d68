"""Proportions with exact intervals, and distributions, one scan per person."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from statsmodels.stats.proportion import proportion_confint

from cmbprep.group.prevalence import (
    BY_PROTOCOL,
    COUNT_CLASSES,
    GROUPINGS,
    OUTCOMES,
    Distribution,
    exact_interval,
    group_people,
    natural_key,
    people,
)
from tests.group.test_protocols import scan

OUTCOME = {item.name: item for item in OUTCOMES}


@given(st.integers(1, 400), st.data())
def test_the_interval_is_exact(total: int, data: st.DataObject) -> None:
    positive = data.draw(st.integers(0, total))
    low, high = exact_interval(positive, total)
    expected = proportion_confint(positive, total, method="beta")
    assert (low, high) == pytest.approx((expected[0], expected[1]), abs=1e-9)
    mirrored = exact_interval(total - positive, total)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-9)
    if positive:
        assert low == pytest.approx(beta.ppf(0.025, positive, total - positive + 1), abs=1e-9)


def test_intervals_of_the_literature() -> None:
    # Newcombe RG. Stat Med 1998;17:857-872, table I, method 5: 81 of 263, 15 of 148, 0 of 20.
    for positive, total, low, high in (
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ):
        assert exact_interval(positive, total) == pytest.approx((low, high), abs=5e-5)
    assert exact_interval(0, 0) == (0.0, 1.0)


def row(**changes: Any) -> dict[str, Any]:
    known = {"is_baseline": True, "is_primary": True, "n_definite": 0, "n_any": 0}
    return scan(**{**known, **changes})


def test_one_scan_stands_for_a_person() -> None:
    chosen = row()
    others = [
        row(is_baseline=False),
        row(is_primary=False),
        row(is_primary=None),
        row(status="failed"),
        row(status="withdrawn"),
    ]
    assert people([*others, chosen]) == [chosen]


def test_what_is_not_known_is_in_no_proportion() -> None:
    members = [
        row(n_definite=0),
        row(n_definite=3),
        # Some are listed, but not all of the brain was seen.
        row(n_definite=None, n_listed_definite=2),
    ]
    found = OUTCOME["all"].prevalence(members, "definite")
    assert (found.positive, found.total, found.unknown) == (1, 2, 1)
    numbers = Distribution.of(members, "definite")
    assert (numbers.counts, numbers.unknown) == ((0, 3), 1)


@pytest.mark.parametrize(
    ("name", "positive", "total"),
    [("strictly-lobar", 1, 3), ("strictly-deep", 0, 3), ("mixed", 1, 3)],
)
def test_undetermined_patterns_are_not_known(name: str, positive: int, total: int) -> None:
    patterns = ("strictly lobar", "mixed", "none", "undetermined", None)
    members = [row(pattern_any=pattern) for pattern in patterns]
    found = OUTCOME[name].prevalence(members, "any")
    assert (found.positive, found.total, found.unknown) == (positive, total, 2)


def test_classes_hold_everybody_once() -> None:
    numbers = Distribution(tuple(range(101)))
    assert sum(numbers.classes) == 101
    assert dict(zip((label for label, _ in COUNT_CLASSES), numbers.classes, strict=True)) == {
        **dict.fromkeys(("0", "1", "2", "3", "4"), 1),
        "5–9": 5,
        "10–19": 10,
        "20 or more": 81,
    }
    assert (numbers.quartiles, numbers.total, numbers.most) == ((25.0, 50.0, 75.0), 5050, 100)
    empty = Distribution(())
    assert (empty.quartiles, empty.total, empty.most) == (None, None, None)


def test_groups_say_which_protocols_they_pool() -> None:
    members = [
        row(site="site 10"),
        row(site="site 9", EchoTime=0.04),
        row(site="site 9"),
        row(site=None, EchoTime=None, Manufacturer="Maker"),
    ]
    by = {grouping.name: group_people(members, grouping) for grouping in (BY_PROTOCOL, *GROUPINGS)}
    assert [group.label for group in by["site"]] == ["site 9", "site 10", "site not given"]
    assert [len(group.protocols) for group in by["site"]] == [2, 1, 1]
    assert [group.label for group in by["echo-time"]] == ["20 ms", "40 ms", "echo time not given"]
    assert [group.label for group in by["scanner"]] == ["Maker", "scanner not given"]
    assert all(len(group.protocols) == 1 for group in by["protocol"]), "nothing is pooled"
    for groups in by.values():
        assert sum(len(group.members) for group in groups) == len(members)


def test_numbers_in_names_are_sorted_by_size() -> None:
    names = ["site 10", "7 T", "1.5 T", "a", "site 9", ""]
    assert sorted(names, key=natural_key) == ["", "1.5 T", "7 T", "a", "site 9", "site 10"]
