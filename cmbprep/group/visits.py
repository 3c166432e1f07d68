"""Visits: the order of a participant's sessions, the baseline, and the scan that stands for each.

The order of sessions comes from dates, else from the rows of ``sessions.tsv``, and is never
guessed from labels. Where it is not known, or tables contradict each other, visit and baseline
are n/a, and a note says what to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from itertools import pairwise
from typing import Any

from cmbprep.errors import UsageError
from cmbprep.group.ages import ages_at, listed_ages
from cmbprep.group.covariates import Covariates, KeyedTable, normal_key
from cmbprep.group.notes import Notes
from cmbprep.group.primary import choose_primary
from cmbprep.group.rows import Row

#: How the baseline was found -> what it means; the levels of the column ``baseline_rule``.
RULES = {
    "only visit": "The participant has scans of one session only.",
    "acq_time": "The earliest session with scans, by acq_time in scans.tsv or sessions.tsv.",
    "sessions.tsv": "Of the sessions with scans, the one that stands first in sessions.tsv.",
    "option": "The session that --baseline-session names.",
}
_REMEDY = (
    "what to do: write acq_time of each session to sessions.tsv or scans.tsv, list all sessions "
    "in their order in sessions.tsv, or give --baseline-session"
)


@dataclass(frozen=True, kw_only=True)
class ScanVisit:
    """The visit of one scan; None where a value is not known.

    Parameters
    ----------
    site
        From ``sessions.tsv``, else ``participants.tsv``.
    age
        Age at the scan, years.
    acq_time
        Date and time of the scan, else of its session.
    visit
        Rank of the session among those of the participant with scans, from 1.
    is_baseline
        Whether this is the participant's baseline.
    is_primary
        Whether the scan stands for its visit.
    days_since_baseline
        Days from the baseline to this visit; negative before it.
    """

    site: str | None = None
    age: float | None = None
    acq_time: str | None = None
    visit: int | None = None
    is_baseline: bool | None = None
    is_primary: bool | None = None
    days_since_baseline: int | None = None


@dataclass(frozen=True, kw_only=True)
class Person:
    """The visits of one participant who has scans.

    Parameters
    ----------
    sessions
        Sessions with scans (an empty label without sessions), in order where it is known.
    baseline
        The baseline session; None where there is none.
    rule
        How it was found, one of :data:`RULES`; None where there is none.
    problem
        Why there is no baseline; None where there is one.
    """

    sessions: tuple[str, ...]
    baseline: str | None = None
    rule: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Visits:
    """The visits of all scans and participants.

    Parameters
    ----------
    scans
        One for each row of the table of scans, in its order.
    persons
        Participant -> visits, for each participant with scans.
    """

    scans: tuple[ScanVisit, ...]
    persons: Mapping[str, Person] = field(default_factory=dict)


def find_visits(
    rows: Sequence[Row], covariates: Covariates, baseline_session: str | None = None
) -> tuple[Visits, tuple[str, ...]]:
    """Find the visit of each scan, the baseline of each participant, and the primary scans.

    Parameters
    ----------
    rows
        The rows of the table of scans.
    covariates
        The tables of the raw dataset.
    baseline_session
        Label of the session that is everybody's baseline; None for the earliest one.

    Returns
    -------
    visits
        Of all rows; a row that does not count as a scan has a site only.
    notes
        What is not known and what to do about it, in sentences.

    Raises
    ------
    UsageError
        If no scan has the session that is to be the baseline.
    """
    require_session(rows, baseline_session)
    notes, persons, values = Notes(), {}, [ScanVisit()] * len(rows)
    by_subject: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_subject.setdefault(row.subject, []).append(place)
    for subject, places in by_subject.items():
        own = [rows[place] for place in places]
        person, visits = _visits_of(subject, own, covariates, baseline_session, notes)
        if person.sessions:
            persons[subject] = person
        for place, visit in zip(places, visits, strict=True):
            values[place] = visit
    return Visits(scans=tuple(values), persons=persons), notes.sentences()


def require_session(rows: Iterable[Row], session: str | None) -> None:
    """Require that a session has scans.

    Raises
    ------
    UsageError
        If it has none; the hint names those that have.
    """
    known = sorted({session_of(row) for row in rows if row.counts_as_scan} - {""})
    if session is None or session in known:
        return
    raise UsageError(
        f"no scan of these results is of the session {session!r}, which --baseline-session names",
        hint=f"give one of {', '.join(known)}" if known else "leave it out: there are no sessions",
    )


def session_of(row: Row) -> str:
    """Return the label of a row's session; empty without one."""
    return row.entities.get("ses", "")


def _visits_of(
    subject: str,
    rows: Sequence[Row],
    covariates: Covariates,
    baseline_session: str | None,
    notes: Notes,
) -> tuple[Person, list[ScanVisit]]:
    """Return the visits of one participant, and that of each row."""
    table = covariates.sessions.get(subject, KeyedTable())
    times = [_scan_time(row, covariates, notes) if row.counts_as_scan else None for row in rows]
    dated = [(session_of(row), at) for row, at in zip(rows, times, strict=True) if at]
    in_table = _session_times(subject, table, notes)
    sessions = sorted({session_of(row) for row in rows if row.counts_as_scan})
    dates, conflict = _join_dates(
        {session: min(t for s, t in dated if s == session) for session, _ in dated},
        in_table,
        sessions,
    )
    listed = listed_ages(subject, covariates, notes)
    order, rule, problem = order_sessions(sessions, dates, tuple(table.rows), listed)
    if conflict:
        notes.add(f"{conflict} and are not used ({{}})", f"sub-{subject}")
    person = _person(sessions, order, rule, problem, baseline_session)
    if person.problem and baseline_session is None:
        notes.add(
            f"{person.problem} ({{}}): their baseline is n/a, and they are in no figure per "
            f"participant; {_REMEDY}",
            f"sub-{subject}",
        )
    # The age of participants.tsv is that at the first session of all, with or without scans.
    everything = sorted({*sessions, *table.rows})
    whole_order, *_ = order_sessions(everything, dates, tuple(table.rows), listed)
    first = whole_order[0] if whole_order else None
    if first is None and person.rule == "option":
        first = person.baseline
    ages = ages_at(subject, sessions, first, listed, dates, covariates, notes)
    primary = {
        id(choose_primary(r for r in rows if r.counts_as_scan and session_of(r) == session))
        for session in sessions
    }
    known = bool(order) or person.baseline is not None or baseline_session is not None
    visits = []
    for row, at in zip(rows, times, strict=True):
        session = session_of(row)
        sites = covariates.sites(subject, session)
        if len(sites) > 1:
            notes.add(
                "sessions.tsv gives another site than participants.tsv, and is used ({})",
                f"sub-{subject}",
            )
        site = sites[0] if sites else None
        if not row.counts_as_scan:
            visits.append(ScanVisit(site=site))
            continue
        at = at or in_table.get(session)
        visits.append(
            ScanVisit(
                site=site,
                age=ages.get(session),
                acq_time=None if at is None else format_time(at),
                visit=order.index(session) + 1 if order else None,
                is_baseline=session == person.baseline if known else None,
                is_primary=id(row) in primary,
                days_since_baseline=_days(dates, person.baseline, session),
            )
        )
    return person, visits


def _person(
    sessions: Sequence[str],
    order: Sequence[str],
    rule: str | None,
    problem: str | None,
    baseline_session: str | None,
) -> Person:
    in_order = tuple(order or sessions)
    if baseline_session is None:
        baseline = order[0] if order else None
        return Person(sessions=in_order, baseline=baseline, rule=rule, problem=problem)
    if baseline_session in sessions:
        return Person(sessions=in_order, baseline=baseline_session, rule="option")
    missing = f"there is no scan of the session ses-{baseline_session}"
    return Person(sessions=in_order, problem=missing)


# --- order -------------------------------------------------------------------------------


def order_sessions(
    sessions: Sequence[str],
    dates: Mapping[str, datetime],
    listed: Sequence[str],
    ages: Mapping[str, float],
) -> tuple[tuple[str, ...], str | None, str | None]:
    """Bring the sessions of a participant into their order.

    Parameters
    ----------
    sessions
        The sessions.
    dates
        Dates, as far as they are known.
    listed
        Sessions in the order of the rows of ``sessions.tsv``.
    ages
        Ages that ``sessions.tsv`` gives.

    Returns
    -------
    order
        The sessions in order; empty where it is not known.
    rule
        One of :data:`RULES`; None where the order is not known.
    problem
        Why the order is not known.
    """
    if len(sessions) < 2:
        return tuple(sessions), "only visit", None
    times = [dates[session] for session in sessions if session in dates]
    if len(times) == len(sessions) and _are_apart(times):
        return tuple(sorted(sessions, key=dates.__getitem__)), "acq_time", None
    if not set(sessions) <= set(listed):
        return (), None, "the order of the sessions is not known"
    order = tuple(session for session in listed if session in sessions)
    if not (_rises(order, dates) and _rises(order, ages)):
        return (), None, "the order of the rows in sessions.tsv contradicts acq_time or age"
    return order, "sessions.tsv", None


def _rises(order: Sequence[str], known: Mapping[str, Any]) -> bool:
    along = [known[session] for session in order if session in known]
    return all(earlier <= later for earlier, later in pairwise(along))


def _are_apart(times: Sequence[datetime]) -> bool:
    """Return whether times give an order: on one day only if all have a time of day."""
    on_day = Counter(at.date() for at in times)
    return len(set(times)) == len(times) and all(
        on_day[at.date()] == 1 or at.time() != time.min for at in times
    )


def _join_dates(
    of_scans: Mapping[str, datetime], of_sessions: Mapping[str, datetime], sessions: Sequence[str]
) -> tuple[dict[str, datetime], str | None]:
    """Join the dates of two tables; the second value says why they cannot be used.

    Each table may have shifted dates of its own, so one that dates every session is taken alone,
    and both are mixed only where they agree.
    """
    agree = all(of_scans[s].date() == of_sessions[s].date() for s in of_scans if s in of_sessions)
    whole = [dates for dates in (of_scans, of_sessions) if set(sessions) <= dates.keys()]
    orders = {tuple(sorted(sessions, key=dates.__getitem__)) for dates in whole}
    if whole and (agree or len(orders) == 1):
        dates = {**(of_sessions if agree else {}), **whole[0]}
    elif agree:
        dates = {**of_sessions, **of_scans}
    else:
        return {}, "acq_time in scans.tsv and in sessions.tsv contradict each other"
    own = {dates[session].date() for session in sessions if session in dates}
    if len(sessions) > 1 and len(own) == 1 and set(sessions) <= dates.keys():
        # Often the date was removed and the time of day kept, which gives no order.
        return {}, None
    return dates, None


def _days(dates: Mapping[str, datetime], baseline: str | None, session: str) -> int | None:
    if baseline is None:
        return None
    if session == baseline:
        return 0
    if baseline not in dates or session not in dates:
        return None
    return (dates[session].date() - dates[baseline].date()).days


# --- values of the tables ----------------------------------------------------------------


def parse_time(text: str) -> datetime | None:
    """Read a date, with or without a time of day; None for anything else.

    A time zone is left out. Dates before 1925, which BIDS uses for shifted ones, are fine.
    """
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def format_time(at: datetime) -> str:
    """Write a date, and its time of day where that is known."""
    return at.date().isoformat() if at.time() == time.min else at.isoformat()


def source_keys(row: Row) -> tuple[str, ...]:
    """Return the keys of a scan's source files in ``scans.tsv``."""
    files = row.scan.sources if row.scan is not None else ()
    return tuple(normal_key(name, "filename") for name in files) or (row.name,)


def _scan_time(row: Row, covariates: Covariates, notes: Notes) -> datetime | None:
    """Return when a scan was acquired, by ``scans.tsv``: the earliest time of its files."""
    table = covariates.scans.get((row.subject, session_of(row)), KeyedTable())
    found = [_read_time(table, key, "scans", row.name, notes) for key in source_keys(row)]
    return min((at for at in found if at is not None), default=None)


def _session_times(subject: str, table: KeyedTable, notes: Notes) -> dict[str, datetime]:
    found = {key: _read_time(table, key, "sessions", f"sub-{subject}", notes) for key in table.rows}
    return {key: at for key, at in found.items() if at is not None}


def _read_time(table: KeyedTable, key: str, kind: str, who: str, notes: Notes) -> datetime | None:
    text = table.value(key, "acq_time")
    if text is None:
        return None
    if (at := parse_time(text)) is None:
        notes.add(
            f"acq_time in {kind}.tsv is no date as 2001-12-31T23:59:59 and is not used ({{}})",
            f"{who}: {text}",
        )
    return at
