"""The table of participants: one row per person, with the baseline's scan and the covariates.

Persons of the results and of ``participants.tsv`` have a row, also those without any result: a
prevalence needs its denominator.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from types import MappingProxyType
from typing import Any

from cmbprep.files.text import shorten
from cmbprep.files.tsv import listing
from cmbprep.group.covariates import Covariates, KeyedTable
from cmbprep.group.deidentified import IDENTIFIES, UNKNOWN
from cmbprep.group.dictionary import ENTITIES, Dictionary, describe
from cmbprep.group.notes import Note
from cmbprep.group.rows import Row
from cmbprep.group.tables import Table
from cmbprep.group.timeline import session_of, source_keys
from cmbprep.group.visits import Person, Visits

#: Columns of the table of scans that say which scan it is, not what was found.
_OF_SCAN = {
    *("participant_id", "session_id", "scan", *ENTITIES, "suffix", "status", "reason"),
    *("visit", "is_baseline", "is_primary", "days_since_baseline"),
}
#: Columns of this table that hold what columns of the same name in the raw dataset say.
_SAME = {"site", "age", "acq_time"}

_NONE: tuple[Row | None, Mapping[str, Any]] = (None, MappingProxyType({}))
FollowUp = Mapping[str, Mapping[str, Any]]
_NO_FOLLOW_UP: FollowUp = MappingProxyType({})


def participant_table(
    rows: Sequence[Row],
    scans: Table,
    visits: Visits,
    covariates: Covariates,
    follow_up: FollowUp = _NO_FOLLOW_UP,
) -> tuple[Table, tuple[str, ...]]:
    """Make the table of participants.

    Parameters
    ----------
    rows, scans, visits
        The scans, the table of them, and their visits.
    covariates
        The tables of the raw dataset.
    follow_up
        Participant -> values of the columns on follow-up; others are n/a.

    Returns
    -------
    table
        One row per participant, sorted by label. Columns of the raw dataset stand last, with a
        prefix where the name is taken.
    notes
        Which columns have a prefix, and who has no scan, in sentences.
    """
    by_subject: dict[str, list[Row]] = {}
    chosen: dict[str, tuple[Row | None, Mapping[str, Any]]] = {}
    for row, values, visit in zip(rows, scans.values, visits.scans, strict=True):
        by_subject.setdefault(row.subject, []).append(row)
        if visit.is_baseline and visit.is_primary:
            chosen[row.subject] = row, values
    found = [name for name in scans.dictionary if name not in _OF_SCAN]
    fixed = _fixed(scans.dictionary, found)
    names = _covariate_names(covariates, fixed)
    lines = []
    for subject in sorted({*by_subject, *covariates.participants.rows}):
        own, person = by_subject.get(subject, []), visits.persons.get(subject)
        baseline, known = chosen.get(subject, _NONE)
        line: dict[str, Any] = {
            "participant_id": f"sub-{subject}",
            **_state(own, person, baseline),
            "n_visits": len(person.sessions) if person else 0,
            "n_scans": sum(row.counts_as_scan for row in own),
            "site": next(iter(covariates.sites(subject)), None),
            **{name: known[name] for name in found if name in known},
            **follow_up.get(subject, {}),
        }
        for kind, table, key in _tables_of(subject, person, baseline, covariates):
            line |= {new: table.value(key, old) for old, new in names[kind].items()}
        lines.append(line)
    described = {
        new: {**covariates.describe(kind, old), IDENTIFIES: UNKNOWN}
        for kind, own_names in names.items()
        for old, new in own_names.items()
    }
    notes = (*_prefixed(names), *_without_scan(lines))
    return Table({**fixed, **described}, tuple(lines)), notes


def _fixed(scans: Dictionary, found: Iterable[str]) -> Dictionary:
    """Return the dictionary of the columns that do not depend on the dataset."""
    own = describe("participants")
    place = list(own).index("baseline_rule") + 1
    head, tail = list(own.items())[:place], list(own.items())[place:]
    return {**dict(head), **{name: scans[name] for name in found}, **dict(tail)}


def _covariate_names(covariates: Covariates, taken: Iterable[str]) -> dict[str, dict[str, str]]:
    """Name the columns of the raw dataset: table -> column -> name in this table.

    A column keeps its name where that is free. Else the name of its table is put before it, and a
    number after it where that is taken too. Names that differ by capitals only count as taken,
    because not every program tells them apart.
    """
    used = {name.lower() for name in taken}
    columns = [(kind, name) for kind, own in covariates.columns.items() for name in own]
    found: dict[tuple[str, str], str] = {}
    # Names that are free come first: no other column may take one of them.
    for column in columns:
        _, name = column
        if name.lower() not in used:
            found[column] = name
            used.add(name.lower())
    for column in columns:
        if column not in found:
            found[column] = _free_name("_".join(column), used)
            used.add(found[column].lower())
    return {
        kind: {name: found[kind, name] for name in own} for kind, own in covariates.columns.items()
    }


def _free_name(name: str, used: Container[str]) -> str:
    """Return a name that is not used yet: itself, else with the first number that is free."""
    numbered = (f"{name}_{n}" for n in count(2))
    return next(new for new in chain((name,), numbered) if new.lower() not in used)


def _tables_of(
    subject: str, person: Person | None, baseline: Row | None, covariates: Covariates
) -> Iterator[tuple[str, KeyedTable, str]]:
    """Yield the tables that say something of a participant's baseline, with its key in each."""
    yield "participants", covariates.participants, subject
    if person is not None and person.baseline is not None:
        yield "sessions", covariates.sessions.get(subject, KeyedTable()), person.baseline
    if baseline is not None:
        table = covariates.scans.get((subject, session_of(baseline)), KeyedTable())
        # Of several echoes, the first one.
        yield "scans", table, next((key for key in source_keys(baseline) if key in table.rows), "")


def _state(own: Sequence[Row], person: Person | None, baseline: Row | None) -> dict[str, Any]:
    """Return status, reason and baseline of a participant."""
    if person is None:
        return _without_scans(own)
    if baseline is None:
        return {"status": "no baseline", "reason": person.problem}
    reason, session = baseline.reason, session_of(baseline)
    done = sorted({f"ses-{session_of(row)}" for row in own if row.status == "complete"})
    if baseline.status != "complete" and done:
        reason = f"{reason}; there is a result of {listing(done)}"
    return {
        "status": baseline.status,
        "reason": reason,
        "baseline_session": f"ses-{session}" if session else None,
        "baseline_scan": baseline.name,
        "baseline_rule": person.rule,
    }


def _without_scans(own: Sequence[Row]) -> dict[str, Any]:
    """Return the status of a participant without scans: refused, withdrawn or not there."""
    if not own:
        text = "listed in participants.tsv, and these results have no scan of this participant"
        return {"status": "no scan", "reason": text}
    # Refused before withdrawn.
    status = min(row.status for row in own)
    reasons = dict.fromkeys(f"{row.name}: {row.reason}" for row in own if row.status == status)
    return {"status": status, "reason": listing(reasons, 3)}


def _prefixed(names: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    found = [
        f"{old} of {kind}.tsv is {new}"
        for kind, own in names.items()
        for old, new in own.items()
        if old != new and old.lower() not in _SAME
    ]
    if not found:
        return ()
    note = "columns have another name in group_participants.tsv, because theirs is taken there: "
    return (note + listing(found),)


def _without_scan(lines: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    missing = [line["participant_id"] for line in lines if line["status"] == "no scan"]
    if not missing:
        return ()
    what = "1 participant has" if len(missing) == 1 else f"{len(missing)} participants have"
    note = f"{what} a row in participants.tsv and no scan in these results"
    where = "status no scan in group_participants.tsv"
    return (Note(f"{note} ({listing(map(shorten, missing), 3)}); {where}", f"{note}; {where}"),)
