"""Times of a participant's sessions: their dates and order, as tables of the raw dataset say.

The order comes from dates, else from the rows of ``sessions.tsv``, and is never guessed from
labels. Where tables contradict each other, it is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from itertools import pairwise
from typing import Any

from cmbprep.group.ages import DAYS_PER_YEAR, listed_ages
from cmbprep.group.covariates import Covariates, KeyedTable, find_value, normal_key
from cmbprep.group.notes import Notes
from cmbprep.group.rows import Row

#: How the baseline was found -> what it means; the levels of the column ``baseline_rule``.
RULES = {
    "only visit": "The participant has scans of one session only.",
    "acq_time": "The earliest session with scans, by acq_time in scans.tsv or sessions.tsv.",
    "sessions.tsv": "Of the sessions with scans, the one that stands first in sessions.tsv.",
    "option": "The session that --baseline-session names.",
}
#: Largest difference of an interval between two tables: a session may take several days.
MAX_DAYS_APART = 7
#: Longest time between two sessions, years: MRI is not older. Longer ones come from dates of which
#: only some are shifted, and from placeholders such as 9999-12-31.
MAX_YEARS_APART = 60


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What tables say of the times of a participant's sessions.

    Parameters
    ----------
    order, rule, problem
        From :func:`order_sessions`, of the sessions with scans.
    first
        The first session of all, with or without scans; None where it is not known.
    dates
        Session -> date, where intervals between them can be trusted.
    times
        Name of a scan -> when it was acquired, or its session.
    ages
        Session -> age that ``sessions.tsv`` gives.
    """

    order: tuple[str, ...]
    rule: str | None
    problem: str | None
    first: str | None
    dates: Mapping[str, datetime]
    times: Mapping[str, datetime]
    ages: Mapping[str, float]


def read_timeline(
    subject: str,
    scans: Sequence[Row],
    sessions: Sequence[str],
    covariates: Covariates,
    notes: Notes,
) -> Timeline:
    """Read the times of a participant's sessions from the tables of the raw dataset.

    Parameters
    ----------
    subject
        Label of the participant.
    scans
        The rows of the participant that count as scans, at least one.
    sessions
        Their sessions (an empty label without sessions).
    covariates
        The tables of the raw dataset.
    notes
        Takes what is in doubt.
    """
    table = covariates.sessions.get(subject, KeyedTable())
    in_table = {
        session: at
        for session in table.rows
        if (at := _read_time(table, session, "sessions", f"sub-{subject}", notes))
    }
    own = {row.name: at for row in scans if (at := _scan_time(row, covariates, notes))}
    of_scans: dict[str, datetime] = {}
    for row in scans:
        if row.name in own:
            session = session_of(row)
            of_scans[session] = min(own[row.name], of_scans.get(session, own[row.name]))
    dates, doubt, conflict = _join_dates(of_scans, in_table, sessions)
    ages, listed = listed_ages(subject, covariates, notes), tuple(table.rows)
    order, rule, problem = order_sessions(sessions, dates, listed, ages)
    whole, *_ = order_sessions(sorted({*sessions, *listed}), dates, listed, ages)
    if conflict:
        order, rule, problem, whole = (), None, conflict, ()
    if rule == "acq_time" and not _rises(order, ages):
        doubt = doubt or "age in sessions.tsv falls from a visit to a later one by acq_time ({})"
    if doubt:
        notes.add(doubt, f"sub-{subject}")
    return Timeline(
        order=order,
        rule=rule,
        problem=problem,
        # The age of participants.tsv is that at this session.
        first=whole[0] if whole else None,
        dates={} if doubt else dates,
        times={row.name: in_table[session_of(row)] for row in scans if session_of(row) in in_table}
        | own,
        ages=ages,
    )


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
) -> tuple[dict[str, datetime], str | None, str | None]:
    """Join the dates of two tables.

    Each table may have shifted dates of its own, so one that dates every session is taken alone,
    and both are mixed only where they agree.

    Returns
    -------
    dates
        Session -> date; empty where the dates give no order.
    doubt
        Why intervals between the dates cannot be trusted.
    conflict
        Why not even the order is known.
    """
    agree = all(of_scans[s].date() == of_sessions[s].date() for s in of_scans if s in of_sessions)
    whole = [dates for dates in (of_scans, of_sessions) if set(sessions) <= dates.keys()]
    if len({tuple(sorted(sessions, key=dates.__getitem__)) for dates in whole}) > 1 or not (
        whole or agree
    ):
        return {}, None, "acq_time in scans.tsv and in sessions.tsv contradict each other"
    dates = {**(of_sessions if agree else {}), **(whole[0] if whole else of_scans)}
    if dates and (max(dates.values()) - min(dates.values())).days > MAX_YEARS_APART * DAYS_PER_YEAR:
        doubt = (
            f"acq_time of sessions is more than {MAX_YEARS_APART} years apart and not used "
            "({}); what to do: correct them, or shift all dates of a participant alike"
        )
        return {}, doubt, None
    own = {dates[session].date() for session in sessions if session in dates}
    if len(sessions) > 1 and len(own) == 1 and set(sessions) <= dates.keys():
        # Often the date was removed and the time of day kept, which gives no order.
        return {}, "all sessions have the same date in acq_time, which is not used ({})", None
    gaps = [[(at[s] - at[sessions[0]]).days for s in sessions] for at in whole]
    differ = len(gaps) > 1 and max(abs(a - b) for a, b in zip(*gaps, strict=True)) > MAX_DAYS_APART
    doubt = "acq_time in scans.tsv and in sessions.tsv give other intervals ({}): days are n/a"
    return dates, doubt if differ else None, None


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


def missing_rows(rows: Iterable[Row], covariates: Covariates) -> tuple[str, ...]:
    """Return notes on tables of sessions and scans that have no row for what has scans.

    Parameters
    ----------
    rows
        The rows of the table of scans.
    covariates
        The tables of the raw dataset; a table that is not there is not missed.
    """
    notes = Notes()
    for row in rows:
        session = session_of(row)
        sessions = covariates.sessions.get(row.subject)
        if row.counts_as_scan and session and sessions and session not in sessions.rows:
            notes.add(
                "sessions.tsv has no row of {}, whose columns are n/a; what to do: write session_id"
                " as the folder of the session is named",
                f"sub-{row.subject}_ses-{session}",
            )
        scans = covariates.scans.get((row.subject, session))
        if row.counts_as_scan and scans and not scans.rows.keys() & set(source_keys(row)):
            notes.add(
                "scans.tsv has no row of {}, whose columns are n/a; what to do: write filename as "
                "the path of the file, such as anat/sub-01_T2starw.nii.gz",
                row.name,
            )
    return notes.sentences()


def _scan_time(row: Row, covariates: Covariates, notes: Notes) -> datetime | None:
    """Return when a scan was acquired, by ``scans.tsv``: the earliest time of its files."""
    table = covariates.scans.get((row.subject, session_of(row)), KeyedTable())
    found = [_read_time(table, key, "scans", row.name, notes) for key in source_keys(row)]
    return min((at for at in found if at is not None), default=None)


def _read_time(table: KeyedTable, key: str, kind: str, who: str, notes: Notes) -> datetime | None:
    text = find_value(table, key, "acq_time")
    if text is None:
        return None
    if (at := parse_time(text)) is None:
        notes.add(
            f"acq_time in {kind}.tsv is no date and is not used ({{}}); what to do: write it as "
            "2001-12-31T23:59:59",
            f"{who}: {text}",
        )
    return at


def session_of(row: Row) -> str:
    """Return the label of a row's session; empty without one."""
    return row.entities.get("ses", "")
