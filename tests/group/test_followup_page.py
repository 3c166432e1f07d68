"""The follow-up on the group page: who counts, and why others do not."""

from __future__ import annotations

from typing import Any

import pytest

from cmbprep.group.followup_page import FollowUpSection, followup_section
from cmbprep.group.tables import Table


def pair(person: int, **changes: Any) -> dict[str, Any]:
    line = {
        "participant_id": f"sub-{person}",
        "comparison": "both",
        "session_first": "ses-a",
        "session_second": "ses-b",
        "scan_first": f"sub-{person}_ses-a_T2starw",
        "scan_second": f"sub-{person}_ses-b_T2starw",
        "status": "complete",
        "years_between": 2.0,
        "n_new_definite": 1,
        "n_new_any": 3,
        "protocol_changed": False,
        "settings_changed": False,
    }
    return {**line, **changes}


def section(*lines: dict[str, Any], people: tuple[dict[str, Any], ...] = ()) -> FollowUpSection:
    names = dict.fromkeys(name for line in lines for name in line)
    table = Table({name: {} for name in names}, lines)
    found = followup_section(table if lines else None, Table({}, people))
    assert found is not None
    return found


def numbers(found: FollowUpSection, rating: str = "any") -> dict[str, tuple[int, int] | None]:
    rates = {row.name: row.rates[rating] for row in found.rates}
    return {name: item and (item.people, sum(item.new)) for name, item in rates.items()}


def test_a_participant_with_three_visits_of_unknown_order_counts_once() -> None:
    unknown = {"comparison": "order_unknown", "years_between": None, "n_new_any": None}
    pairs = [pair(1, **unknown, session_first=f"ses-{n}") for n in "abc"]
    found = section(*pairs, pair(2))
    assert (found.people, found.compared, found.pairs) == (2, 1, 4)
    (left,) = found.left_out
    assert (left.reason, left.people) == ("the order of the visits is not known", ("sub-1",))
    assert numbers(found) == {"unchanged": (1, 3), "all": (1, 3)}


def test_visits_between_are_in_no_rate() -> None:
    between = pair(1, comparison="next", n_new_any=9)
    whole = pair(1, comparison="baseline_to_last")
    found = section(between, between, whole)
    assert (found.people, found.compared) == (1, 1)
    assert numbers(found)["all"] == (1, 3)
    assert found.left_out == ()


@pytest.mark.parametrize("changed", [{"protocol_changed": True}, {"settings_changed": True}])
def test_a_change_of_protocol_or_settings_stands_apart(changed: dict[str, Any]) -> None:
    found = section(pair(1), pair(2, n_new_any=5, **changed))
    assert numbers(found) == {"unchanged": (1, 3), "changed": (1, 5), "all": (2, 8)}


def test_each_rating_has_its_own_people() -> None:
    found = section(pair(1), pair(2, n_new_definite=None))
    assert numbers(found, "any")["all"] == (2, 6)
    assert numbers(found, "definite")["all"] == (1, 1)
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"years_between": None}, "the time between the visits is not known"),
        ({"years_between": 0.0}, "the time between the visits is not known"),
        (
            {"n_new_definite": None, "n_new_any": None},
            "the number of new microbleeds is not known",
        ),
        (
            {"status": "registration_failed", "reason": "no overlap", "n_new_any": None},
            "not registered: no overlap",
        ),
        (
            {"status": "no_result", "reason": "no result of ses-b", "comparison": "next"},
            "visit without a result: no result of ses-b",
        ),
        # --deidentified leaves the words out.
        ({"status": "not_computed"}, "not computed"),
    ],
)
def test_who_is_in_no_rate_is_named_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    if changes.get("status", "complete") != "complete":
        changes = {**changes, "n_new_definite": None, "n_new_any": None}
    found = section(pair(1), pair(2, **changes))
    (left,) = found.left_out
    assert (left.reason, left.people) == (reason, ("sub-2",))
    assert found.compared == 1
    assert len(found.without) == (changes.get("status", "complete") != "complete")


def test_several_visits_without_any_pair_are_named() -> None:
    people = (
        {"participant_id": "sub-1", "n_visits": 2},
        {"participant_id": "sub-3", "n_visits": 3, "follow_up_reason": "no result of ses-c"},
        {"participant_id": "sub-4", "n_visits": 1},
    )
    found = section(pair(1), people=people)
    (left,) = found.left_out
    assert left.people == ("sub-3",) and left.reason.endswith("no result of ses-c")
    assert (section(people=people).people, section(people=people).pairs) == (2, 0)
    assert followup_section(None, Table({}, people[2:])) is None


def test_points_are_those_of_the_last_visits() -> None:
    found = section(pair(1), pair(2, comparison="next"), pair(3, years_between=None))
    assert found.points() == {
        "sub-1_ses-b_T2starw": {
            "followup_new_definite": 1,
            "followup_rate_definite": 0.5,
            "followup_new_any": 3,
            "followup_rate_any": 1.5,
        },
        "sub-3_ses-b_T2starw": {
            "followup_new_definite": 1,
            "followup_rate_definite": None,
            "followup_new_any": 3,
            "followup_rate_any": None,
        },
    }


def test_a_column_that_says_nothing_is_left_out() -> None:
    known = {f"n_one_visit_{rating}": 0 for rating in ("definite", "any")}
    names = {item["name"] for item in section(pair(1, **known)).columns}
    assert "n_new_any" in names
    assert not names & {"n_one_visit_any", "n_gone_any", "limits"}
    unknown = {**known, "n_one_visit_any": 2, "comparison": "order_unknown"}
    names = {item["name"] for item in section(pair(1), pair(2, **unknown)).columns}
    assert "n_one_visit_any" in names and "n_one_visit_definite" not in names
    assert section(pair(1, n_new_any=None, n_new_definite=None)).points() == {}
