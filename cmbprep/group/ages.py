"""Age at each visit, from what tables of the raw dataset say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from cmbprep.group.covariates import Covariates, KeyedTable, find_column
from cmbprep.group.notes import Notes

DAYS_PER_YEAR = 365.25
OLDEST = 130
#: How the name of a unit begins -> years.
_UNITS = {"y": 1.0, "a": 1.0, "mo": 1 / 12, "w": 7 / DAYS_PER_YEAR, "d": 1 / DAYS_PER_YEAR}


def listed_ages(subject: str, covariates: Covariates, notes: Notes) -> dict[str, float]:
    """Return the ages that ``sessions.tsv`` gives, by session, years."""
    table = covariates.sessions.get(subject, KeyedTable())
    found = {
        session: _read_age(table, session, "sessions", f"sub-{subject}", covariates, notes)
        for session in table.rows
    }
    return {session: age for session, age in found.items() if age is not None}


def ages_at(
    subject: str,
    sessions: Iterable[str],
    first: str | None,
    listed: Mapping[str, float],
    dates: Mapping[str, datetime],
    covariates: Covariates,
    notes: Notes,
) -> dict[str, float]:
    """Return the age at each session, as far as it is known.

    Where ``sessions.tsv`` gives none, the age of ``participants.tsv`` is that at the first
    session, and the days since then are added. Without dates, later sessions have no age.

    Parameters
    ----------
    subject
        Label of the participant.
    sessions
        The sessions of which the age is wanted.
    first
        The participant's first session; None where it is not known.
    listed
        From :func:`listed_ages`.
    dates
        Dates of sessions, as far as they are known.
    covariates
        The tables of the raw dataset.
    notes
        Takes what cannot be read.
    """
    ages = {session: listed[session] for session in sessions if session in listed}
    missing = [session for session in sessions if session not in ages]
    if not missing or first is None:
        return ages
    table = covariates.participants
    age = _read_age(table, subject, "participants", f"sub-{subject}", covariates, notes)
    if age is None:
        return ages
    for session in missing:
        if session == first:
            ages[session] = age
        elif session in dates and first in dates:
            days = (dates[session].date() - dates[first].date()).days
            later = round(age + days / DAYS_PER_YEAR, 2)
            if 0 <= later <= OLDEST:
                ages[session] = later
            else:
                notes.add(
                    "age in participants.tsv and the dates of the sessions give an impossible age, "
                    "which is n/a ({})",
                    f"sub-{subject}_ses-{session}",
                )
    return ages


def _read_age(
    table: KeyedTable, key: str, kind: str, who: str, covariates: Covariates, notes: Notes
) -> float | None:
    column = find_column(table.columns, "age")
    text = None if column is None else table.value(key, column)
    if column is None or text is None:
        return None
    units = covariates.dictionaries.get(kind, {}).get(column, {}).get("Units")
    factor = years_per_unit(str(units or "years"))
    if factor is None:
        notes.add(
            f"{kind}.json gives {column} in {units!r}, which is not understood, so that age is n/a "
            "({}); what to do: write years",
            who,
            f"{kind}.json gives {column} in a unit that is not understood, so that age is n/a ({{}}"
            "); what to do: write years",
        )
        return None
    number = re.fullmatch(r"(\d+)(?:[.,](\d+))?", text)
    age = float(f"{number[1]}.{number[2] or 0}") * factor if number else OLDEST + 1
    if age > OLDEST:
        notes.add(
            f"{column} in {kind}.tsv is no age in years and n/a ({{}}); what to do: write a "
            "number, such as 71.5",
            f"{who}: {text}",
        )
        return None
    return round(age, 4)


def years_per_unit(units: str) -> float | None:
    """Return how many years a unit of time is; None for a unit that is not understood."""
    return next((years for start, years in _UNITS.items() if units.lower().startswith(start)), None)
