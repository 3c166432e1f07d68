"""What the group page shows of follow-up: rates, people and pairs without a result, and all pairs.

Everything is read from the table of follow-ups. A participant counts once: with the comparison of
the baseline with the last visit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmbprep.group.followup_table import poisson_interval
from cmbprep.group.page_data import Measure, short_number
from cmbprep.group.prevalence import RATINGS, Prevalence
from cmbprep.group.tables import Table
from cmbprep.zones.burden import BURDEN_SCALES

Values = Mapping[str, Any]
#: Comparisons that stand for a participant.
WHOLE = ("both", "baseline_to_last")
COMPARED = {
    **dict.fromkeys(WHOLE, "baseline to last visit"),
    "next": "one visit to the next",
    "order_unknown": "order not known",
}
STATUSES = {
    "complete": "compared",
    "registration_failed": "not registered",
    "not_computed": "not computed",
    "no_result": "visit without a result",
}
#: What became of a lesion -> heading.
FATES = {
    "n_new": "New",
    "n_persistent": "Persistent",
    "n_gone": "Gone",
    "n_not_assessable": "Not assessable",
    "n_one_visit": "At one visit only",
}
#: Scales of the number of new microbleeds -> column of the table, heading.
CLASSES = {
    "aria": ("aria_h_new", "ARIA-H, new microhaemorrhages"),
    "rdes291": ("rdes291_new", "RDES291, new microbleeds"),
}
#: Points of the plots, by the scan of the last visit.
MEASURES = (
    Measure(
        "followup_new", "New microbleeds", count=True, column="followup_new_{rating}", section=True
    ),
    Measure(
        "followup_rate", "New microbleeds per year", column="followup_rate_{rating}", section=True
    ),
)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """New microbleeds of one rating, per person-year.

    Attributes
    ----------
    new
        Of each participant.
    years
        Person-years.
    """

    new: tuple[int, ...]
    years: float

    @property
    def people(self) -> int:
        """Number of participants."""
        return len(self.new)

    @property
    def value(self) -> float:
        """New microbleeds per person-year."""
        return sum(self.new) / self.years

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval of a Poisson rate."""
        return poisson_interval(sum(self.new), self.years)

    @property
    def with_new(self) -> Prevalence:
        """Participants with a new one."""
        return Prevalence(sum(number > 0 for number in self.new), self.people)


@dataclass(frozen=True, kw_only=True)
class RateRow:
    """A row of the table of rates: which pairs, and the rate of each rating; None without any."""

    name: str
    title: str
    rates: Mapping[str, Rate | None]


@dataclass(frozen=True)
class Left:
    """Pairs of visits or participants that are left out, for one reason."""

    reason: str
    pairs: int
    people: tuple[str, ...]


@dataclass(frozen=True)
class ClassRow:
    """Participants by class of the number of new microbleeds: scale, class, rating -> people."""

    scale: str
    title: str
    people: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class FollowUpSection:
    """What the page shows of follow-up.

    Attributes
    ----------
    people, compared
        Participants with several visits, and those who are in a rate of one rating at least.
    pairs
        Rows of the table of follow-ups.
    rates, classes
        Rates of new microbleeds, and participants by class of their number.
    without
        Pairs without a result, by the reason.
    left_out
        Participants who are in no rate, by the reason.
    columns, rows
        The table of pairs, which the page's script draws.
    """

    people: int
    compared: int
    pairs: int
    rates: tuple[RateRow, ...]
    classes: tuple[ClassRow, ...]
    without: tuple[Left, ...]
    left_out: tuple[Left, ...]
    columns: tuple[dict[str, str], ...]
    rows: tuple[Values, ...]

    def packed(self, scans: Sequence[Values]) -> dict[str, Any]:
        """Return the table of pairs for the page: columns, and places of the scans in its rows.

        Parameters
        ----------
        scans
            Rows of the table of scans, in the order of the page.
        """
        at = {values.get("scan"): place for place, values in enumerate(scans)}
        return {
            "columns": list(self.columns),
            "data": {
                **{item["name"]: [_shown(line, item) for line in self.rows] for item in _COLUMNS},
                **{name: [line.get(name) for line in self.rows] for name in _LISTED.values()},
            },
            "first": [at.get(line.get("scan_first")) for line in self.rows],
            "second": [at.get(line.get("scan_second")) for line in self.rows],
        }

    def points(self) -> dict[str, dict[str, Any]]:
        """Return the values of :data:`MEASURES` by scan of the last visit; empty without any."""
        found: dict[str, dict[str, Any]] = {}
        for line in self.rows:
            if not _stands(line) or not line.get("scan_second"):
                continue
            years = line.get("years_between")
            own: dict[str, Any] = {}
            for rating in RATINGS:
                new = line.get(f"n_new_{rating}")
                own[f"followup_new_{rating}"] = new
                rate = None if new is None or not years or years < 0 else new / years
                own[f"followup_rate_{rating}"] = rate
            if any(value is not None for value in own.values()):
                found[str(line["scan_second"])] = own
        return found


def followup_section(table: Table | None, participants: Table) -> FollowUpSection | None:
    """Return what the page shows of follow-up; None where nobody has several visits.

    Parameters
    ----------
    table
        The table of follow-ups; None where there are no pairs of visits.
    participants
        The table of participants, with those of whom no pair of visits could be made.
    """
    lines = () if table is None else table.values
    several = [item for item in participants.values if (item.get("n_visits") or 1) > 1]
    people = dict.fromkeys(str(line["participant_id"]) for line in (*lines, *several))
    if not people:
        return None
    settings = table is not None and "settings_changed" in table.dictionary
    unpaired = {str(item["participant_id"]): item for item in several}
    for line in lines:
        unpaired.pop(str(line["participant_id"]), None)
    standing = {str(line["participant_id"]): line for line in lines if _stands(line)}
    rated = {
        person
        for person, line in standing.items()
        if any(_in_rate(line, rating) for rating in RATINGS)
    }
    return FollowUpSection(
        people=len(people),
        compared=len(rated),
        pairs=len(lines),
        rates=tuple(_rates(list(standing.values()), settings=settings)),
        classes=tuple(_classes(list(standing.values()))),
        without=_gathered((_no_result(line), line) for line in lines),
        left_out=_gathered(
            (*_not_rated(lines, standing, rated), *map(_unpaired, unpaired.values()))
        ),
        columns=tuple(item for item in _COLUMNS if _has_values(item, lines)),
        rows=lines,
    )


def _stands(line: Values) -> bool:
    """Return whether a pair is that of its participant's baseline and last visit."""
    return line.get("comparison") in WHOLE


def _in_rate(line: Values, rating: str) -> bool:
    years = line.get("years_between")
    return line.get(f"n_new_{rating}") is not None and years is not None and years > 0


def _unchanged(line: Values) -> bool:
    """Return whether neither protocol nor settings changed, as far as the table has them."""
    settings = line.get("settings_changed", False)
    return line.get("protocol_changed") is False and settings in (False, None)


def _rates(lines: Sequence[Values], *, settings: bool) -> Iterator[RateRow]:
    same = [line for line in lines if _unchanged(line)]
    other = [line for line in lines if not _unchanged(line)]
    for name, title, chosen in (
        ("unchanged", f"Same protocol{' and settings' if settings else ''} at both visits", same),
        ("changed", f"Another protocol{' or other settings' if settings else ''}", other),
        ("all", "All", lines),
    ):
        rates = {rating: _rate(chosen, rating) for rating in RATINGS}
        if name == "all" or any(rates.values()):
            yield RateRow(name=name, title=title, rates=rates)


def _rate(lines: Iterable[Values], rating: str) -> Rate | None:
    used = [line for line in lines if _in_rate(line, rating)]
    if not used:
        return None
    return Rate(
        new=tuple(line[f"n_new_{rating}"] for line in used),
        years=sum(line["years_between"] for line in used),
    )


def _classes(lines: Sequence[Values]) -> Iterator[ClassRow]:
    for scale, (column, title) in CLASSES.items():
        counted = {
            rating: Counter(line.get(f"{column}_{rating}") for line in lines) for rating in RATINGS
        }
        for level, text in BURDEN_SCALES[scale].titles.items():
            own = {rating: counted[rating][level] for rating in RATINGS}
            if any(own.values()):
                yield ClassRow(title, text, own)


def _no_result(line: Values) -> str | None:
    """Return why a pair has no result; None where it has one."""
    if line["status"] == "complete":
        return None
    told, reason = STATUSES.get(line["status"], str(line["status"])), line.get("reason")
    return f"{told}: {reason}" if reason else told


def _not_rated(
    lines: Sequence[Values], standing: Mapping[str, Values], rated: set[str]
) -> Iterator[tuple[str, Values]]:
    """Yield why each participant who is in no rate is in none."""
    own: dict[str, list[Values]] = {}
    for line in lines:
        own.setdefault(str(line["participant_id"]), []).append(line)
    for person, pairs in own.items():
        if person in rated:
            continue
        line = standing.get(person, pairs[0])
        yield _why(line, stands=person in standing), line


def _why(line: Values, *, stands: bool) -> str:
    if reason := _no_result(line):
        return reason
    if not stands:
        return "the order of the visits is not known"
    if all(line.get(f"n_new_{rating}") is None for rating in RATINGS):
        return "the number of new microbleeds is not known"
    return "the time between the visits is not known"


def _unpaired(person: Values) -> tuple[str, Values]:
    """Return why a participant with several visits has no pair of them."""
    told = "there are no two visits with results that can be compared"
    reason = person.get("follow_up_reason")
    return (f"{told}: {reason}" if reason else told), person


def _gathered(found: Iterable[tuple[str | None, Values]]) -> tuple[Left, ...]:
    by_reason: dict[str, list[str]] = {}
    for reason, line in found:
        if reason is not None:
            by_reason.setdefault(reason, []).append(str(line["participant_id"]))
    items = [
        Left(reason, len(people), tuple(dict.fromkeys(people)))
        for reason, people in by_reason.items()
    ]
    return tuple(sorted(items, key=lambda item: (-item.pairs, item.reason)))


#: Number that is not known -> column of those that were listed all the same.
_LISTED = {f"n_new_{rating}": f"n_listed_new_{rating}" for rating in RATINGS}


def _columns() -> Iterator[dict[str, str]]:
    """Yield the columns of the table of pairs: name, heading, heading over several, kind."""
    text, number = {"kind": "text", "over": ""}, {"kind": "number", "over": ""}
    yield {"name": "participant_id", "title": "Participant", **text}
    yield {"name": "session_first", "title": "First visit", **text}
    yield {"name": "session_second", "title": "Second visit", **text}
    yield {"name": "comparison", "title": "Compared", **text}
    yield {"name": "status", "title": "Status", **text}
    yield {"name": "years_between", "title": "Years", **number}
    for name, over in FATES.items():
        for rating, title in RATINGS.items():
            column = {"name": f"{name}_{rating}", "title": title.capitalize()}
            listed = _LISTED.get(column["name"])
            more = {} if listed is None else {"listed": listed}
            yield {**column, **number, "over": over, **more}
    for rating, title in RATINGS.items():
        column = {"name": f"aria_h_new_{rating}", "title": title.capitalize()}
        yield {**column, **text, "over": "ARIA-H class of the new ones"}
    yield {"name": "protocol_changed", "title": "Protocol changed", **text}
    yield {"name": "settings_changed", "title": "Settings changed", **text}
    yield {"name": "limits", "title": "Limits", **text}
    yield {"name": "reason", "title": "Reason", **text}


_COLUMNS = tuple(_columns())
_WORDS = {"comparison": COMPARED, "status": STATUSES}


def _has_values(column: Mapping[str, str], lines: Iterable[Values]) -> bool:
    """Return whether a column says anything; where the order is known, one visit is always 0."""
    empty = (None, 0) if column["name"].startswith("n_one_visit") else (None,)
    return any(line.get(column["name"]) not in empty for line in lines)


def _shown(line: Values, column: Mapping[str, str]) -> Any:
    """Return a value as the table of pairs shows it."""
    name = column["name"]
    value = line.get(name)
    if value is None:
        return None
    if column["kind"] == "number":
        return short_number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.startswith("aria_h_new"):
        return BURDEN_SCALES["aria"].titles.get(value, str(value))
    return _WORDS.get(name, {}).get(value, str(value))
