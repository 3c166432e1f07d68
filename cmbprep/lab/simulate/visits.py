"""Visits of a simulated participant: the same head and microbleeds, and some new ones.

New microbleeds appear at a constant rate; hypertension multiplies it. What was there stays, with
its place, size and susceptibility. Each visit has a head position, noise and coils of its own,
and may have another protocol.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmbprep.errors import UsageError
from cmbprep.lab.simulate.protocols import Person, get_protocol

#: Days in a year, for intervals.
YEAR_DAYS = 365.25
#: Time between two visits, days: mean, standard deviation and shortest.
INTERVAL_DAYS = (YEAR_DAYS, 60.0, 90.0)
#: New microbleeds per person-year of a participant without hypertension.
NEW_PER_YEAR = 0.5
#: What hypertension multiplies the rate by.
HYPERTENSION_RATIO = 2.0
#: First visits lie in the 400 days after this one.
FIRST_DAY = dt.datetime(2021, 1, 4, 9, 0)  # noqa: DTZ001 - BIDS gives local time


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One visit of a participant.

    Attributes
    ----------
    number
        Counts from 1.
    session
        Label without ``ses-``; None where there is one visit and no session.
    acquired
        When the scans were acquired.
    days
        Since the first visit.
    microbleeds
        How many there are at this visit, those of earlier visits included.
    protocol
        Name of the preset.
    """

    number: int
    session: str | None
    acquired: dt.datetime
    days: int
    microbleeds: int
    protocol: str


def new_rate(person: Person, per_year: float) -> float:
    """Return the expected number of new microbleeds per year of a participant."""
    return per_year * (HYPERTENSION_RATIO if person.hypertension else 1.0)


def draw_visits(
    person: Person,
    rng: np.random.Generator,
    *,
    count: int,
    per_year: float = NEW_PER_YEAR,
    protocols: Sequence[str] = (),
) -> list[Visit]:
    """Draw the visits of a participant.

    Parameters
    ----------
    person
        Has the microbleeds of the first visit.
    rng
        Source of randomness.
    count
        Number of visits; one visit has no session.
    per_year
        New microbleeds per person-year without hypertension.
    protocols
        Presets that the visits take in turn; the participant's own if there are none.

    Raises
    ------
    UsageError
        If a number is wrong, or a protocol is unknown.
    """
    if count < 1:
        raise UsageError("the number of visits must be 1 or more")
    if not 0 <= per_year <= 50:
        raise UsageError("the rate of new microbleeds must be between 0 and 50 per year")
    names = [get_protocol(name).name for name in protocols or (person.protocol,)]
    start = FIRST_DAY + dt.timedelta(days=int(rng.integers(400)))
    mean, spread, shortest = INTERVAL_DAYS
    visits: list[Visit] = []
    days, microbleeds = 0, person.microbleeds
    for number in range(1, count + 1):
        if number > 1:
            interval = int(max(rng.normal(mean, spread), shortest))
            days += interval
            microbleeds += int(rng.poisson(new_rate(person, per_year) * interval / YEAR_DAYS))
        visits.append(
            Visit(
                number=number,
                session=f"{number:02d}" if count > 1 else None,
                acquired=start + dt.timedelta(days=days),
                days=days,
                microbleeds=microbleeds,
                protocol=names[(number - 1) % len(names)],
            )
        )
    return visits
