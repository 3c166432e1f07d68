"""Visits: the order of a participant's sessions, the baseline, and the scan that stands for each.

Where the order of the sessions is not known, or tables contradict each other, visit and baseline
are n/a, and a note says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing
from cmbprep.group.ages import ages_at
from cmbprep.group.covariates import Covariates
from cmbprep.group.notes import Note, Notes
from cmbprep.group.primary import choose_primary
from cmbprep.group.rows import Row
from cmbprep.group.timeline import Timeline, format_time, read_timeline, session_of

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
        How it was found, one of :data:`.RULES`; None where there is none.
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


def read_in_vain(rows: Sequence[Row], visits: Sequence[ScanVisit]) -> tuple[str, ...]:
    """Return a note on visits where another scan than the primary one was read by a person.

    Whether a scan was read does not decide which is the primary one, so that the choice stays the
    same while reading goes on.

    Parameters
    ----------
    rows, visits
        The scans, and the visit of each.
    """
    primary, others = {}, []
    for row, visit in zip(rows, visits, strict=True):
        if visit.is_primary:
            primary[row.subject, session_of(row)] = row
        elif visit.is_primary is not None and row.scan is not None and row.scan.reviewed:
            others.append(row)
    found = []
    for row in others:
        scan = primary[row.subject, session_of(row)].scan
        if scan is not None and not scan.reviewed:
            found.append(f"{row.name}; primary is {scan.name}")
    if not found:
        return ()
    one = len(found) == 1
    what = "1 scan that was read does" if one else f"{len(found)} scans that were read do"
    note = (
        f"{what} not stand for the visit, because another scan of it is the primary one and was "
        "not read"
    )
    rest = ": figures per participant are the detector's there; what to do: read the primary scan "
    rest += "too"
    return (Note(f"{note} ({listing(found, 3)}){rest}", note + rest),)


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


def _visits_of(
    subject: str,
    rows: Sequence[Row],
    covariates: Covariates,
    baseline_session: str | None,
    notes: Notes,
) -> tuple[Person, list[ScanVisit]]:
    """Return the visits of one participant, and that of each row."""
    sites = [_site(subject, session_of(row), covariates, notes) for row in rows]
    scans = [row for row in rows if row.counts_as_scan]
    if not scans:
        return Person(sessions=()), [ScanVisit(site=site) for site in sites]
    sessions = sorted({session_of(row) for row in scans})
    for row in rows:
        if row.status == "refused" and row.suffix and session_of(row) not in sessions:
            notes.add(
                "sessions with refused files and no scan are no visits, also if they are the "
                "earliest ({})",
                f"sub-{subject}_ses-{session_of(row)}",
            )
    line = read_timeline(subject, scans, sessions, covariates, notes)
    person = _person(sessions, line, baseline_session)
    if person.problem and baseline_session is None:
        notes.add(
            f"{person.problem} ({{}}): their baseline is n/a, and they are in no figure per "
            f"participant; {_REMEDY}",
            f"sub-{subject}",
        )
    first = line.first
    if first is None and person.rule == "option":
        first = person.baseline
    ages = ages_at(subject, sessions, first, line.ages, line.dates, covariates, notes)
    primary = {
        id(choose_primary(row for row in scans if session_of(row) == session))
        for session in sessions
    }
    known = bool(line.order) or baseline_session is not None
    visits = []
    for row, site in zip(rows, sites, strict=True):
        session, at = session_of(row), line.times.get(row.name)
        if not row.counts_as_scan:
            visits.append(ScanVisit(site=site))
            continue
        visits.append(
            ScanVisit(
                site=site,
                age=ages.get(session),
                acq_time=None if at is None else format_time(at),
                visit=line.order.index(session) + 1 if line.order else None,
                is_baseline=session == person.baseline if known else None,
                is_primary=id(row) in primary,
                days_since_baseline=_days(line.dates, person.baseline, session),
            )
        )
    return person, visits


def _person(sessions: Sequence[str], line: Timeline, baseline_session: str | None) -> Person:
    in_order = line.order or tuple(sessions)
    if baseline_session is None:
        baseline = line.order[0] if line.order else None
        return Person(sessions=in_order, baseline=baseline, rule=line.rule, problem=line.problem)
    if baseline_session in sessions:
        return Person(sessions=in_order, baseline=baseline_session, rule="option")
    missing = f"there is no scan of the session ses-{baseline_session}"
    return Person(sessions=in_order, problem=missing)


def _days(dates: Mapping[str, datetime], baseline: str | None, session: str) -> int | None:
    if baseline is None:
        return None
    if session == baseline:
        return 0
    if baseline not in dates or session not in dates:
        return None
    return (dates[session].date() - dates[baseline].date()).days


def _site(subject: str, session: str, covariates: Covariates, notes: Notes) -> str | None:
    found = covariates.sites(subject, session)
    if len(found) > 1:
        notes.add(
            "sessions.tsv gives another site than participants.tsv, and is used ({})",
            f"sub-{subject}",
        )
    return found[0] if found else None
