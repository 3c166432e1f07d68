"""Who has microbleeds, and how many: one scan per person, by group, with exact intervals.

A person of whom a number is not known (``n/a``) is in no proportion and in no distribution, also
where lesions are listed: leaving out those without lesions alone would make every prevalence too
high. Such people are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cmbprep.group.protocols import ScanProtocol, protocol_of
from cmbprep.lesions import ZONES

Values = Mapping[str, Any]
#: Which microbleeds count -> how the page calls them.
RATINGS = {"definite": "definite", "any": "definite or possible"}
#: Classes of a number of microbleeds: label and smallest number.
COUNT_CLASSES = (
    ("0", 0),
    ("1", 1),
    ("2", 2),
    ("3", 3),
    ("4", 4),
    ("5–9", 5),
    ("10–19", 10),
    ("20 or more", 20),
)


def stands_for_person(values: Values) -> bool:
    """Return whether a row of the table of scans stands for its person in the statistics.

    It does if it is the primary scan of the baseline visit and has a result. A person whose primary
    baseline scan has none is in no statistic.
    """
    chosen = values.get("is_baseline") is True and values.get("is_primary") is True
    return chosen and values["status"] == "complete"


def people(scans: Iterable[Values]) -> list[Values]:
    """Return one row of the table of scans per person."""
    return [values for values in scans if stands_for_person(values)]


def exact_interval(positive: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion.

    See Clopper CJ, Pearson ES. Biometrika 1934;26:404-413. Without any observation it is 0 to 1.

    Examples
    --------
    >>> [round(limit, 4) for limit in exact_interval(0, 10)]
    [0.0, 0.3085]
    """
    if total == 0:
        return 0.0, 1.0
    from scipy.special import betaincinv

    tail, negative = (1 - level) / 2, total - positive
    low = betaincinv(positive, negative + 1, tail) if positive else 0.0
    high = betaincinv(positive + 1, negative, 1 - tail) if negative else 1.0
    return float(low), float(high)


@dataclass(frozen=True)
class Prevalence:
    """People with something, people of whom it is known, and people of whom it is not."""

    positive: int
    total: int
    unknown: int = 0

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval."""
        return exact_interval(self.positive, self.total)


@dataclass(frozen=True)
class Outcome:
    """What a person may have.

    Attributes
    ----------
    name, title
        For the page.
    column
        Column of the table of scans; ``{rating}`` stands for one of :data:`RATINGS`.
    pattern
        The value that the column must have; None for a number that must be above zero.
    """

    name: str
    title: str
    column: str
    pattern: str | None = None

    def of(self, values: Values, rating: str) -> bool | None:
        """Return whether a person has it; None where it is not known."""
        value = values.get(self.column.format(rating=rating))
        if self.pattern is None:
            return None if value is None else bool(value > 0)
        return None if value in (None, "undetermined") else value == self.pattern

    def prevalence(self, members: Iterable[Values], rating: str) -> Prevalence:
        """Count the people of a group who have it."""
        found = [self.of(values, rating) for values in members]
        return Prevalence(found.count(True), len(found) - found.count(None), found.count(None))


OUTCOMES = (
    Outcome("all", "a microbleed", "n_{rating}"),
    *(Outcome(zone, f"a microbleed in the {zone} zone", f"n_{{rating}}_{zone}") for zone in ZONES),
    Outcome("strictly-lobar", "strictly lobar ones", "pattern_{rating}", "strictly lobar"),
    Outcome("strictly-deep", "strictly deep ones", "pattern_{rating}", "strictly deep"),
    Outcome("mixed", "lobar and deep ones", "pattern_{rating}", "mixed"),
)


@dataclass(frozen=True)
class Distribution:
    """Numbers of microbleeds of the people of a group.

    Attributes
    ----------
    counts
        Of each person of whom the number is known, sorted.
    unknown
        People of whom it is not known.
    """

    counts: tuple[int, ...]
    unknown: int = 0

    @classmethod
    def of(cls, members: Iterable[Values], rating: str) -> Distribution:
        """Collect the numbers of a group."""
        found = [values.get(f"n_{rating}") for values in members]
        known = sorted(int(count) for count in found if count is not None)
        return cls(tuple(known), len(found) - len(known))

    @property
    def classes(self) -> list[int]:
        """Number of people in each of :data:`COUNT_CLASSES`."""
        limits = [lower for _, lower in COUNT_CLASSES[1:]]
        found = [0] * len(COUNT_CLASSES)
        for count in self.counts:
            found[sum(count >= limit for limit in limits)] += 1
        return found

    @property
    def quartiles(self) -> tuple[float, float, float] | None:
        """First quartile, median, third quartile (linear interpolation); None without people."""
        if not self.counts:
            return None
        import numpy as np

        low, middle, high = np.percentile(self.counts, (25, 50, 75))
        return float(low), float(middle), float(high)

    @property
    def total(self) -> int | None:
        """Microbleeds of all people whose number is known; None without such people."""
        return sum(self.counts) if self.counts else None

    @property
    def most(self) -> int | None:
        """Microbleeds of the person who has most; None where no number is known."""
        return max(self.counts, default=None)


@dataclass(frozen=True)
class Grouping:
    """A way to group scans.

    Attributes
    ----------
    name, title
        For the page.
    missing
        Label of the scans without a value.
    read
        Returns the label from a row of the table of scans and its protocol; empty without one.
    """

    name: str
    title: str
    missing: str
    read: Callable[[Values, ScanProtocol], str]

    def label(self, values: Values) -> str:
        """Return the group of a scan."""
        return self.read(values, protocol_of(values)) or self.missing


def _known(text: str) -> str:
    return "" if "unknown" in text.split() else text


#: By protocol, nothing is pooled; every other group may hold several protocols.
BY_PROTOCOL = Grouping("protocol", "protocol", "not given", lambda _, item: item.physics)
GROUPINGS = (
    Grouping("site", "site", "site not given", lambda values, _: str(values.get("site") or "")),
    Grouping("scanner", "scanner", "scanner not given", lambda _, item: _known(item.scanner)),
    Grouping(
        "field", "field strength", "field strength not given", lambda _, item: _known(item.field)
    ),
    Grouping(
        "echo-time", "echo time", "echo time not given", lambda _, item: _known(item.echo_time)
    ),
)


@dataclass(frozen=True, eq=False)
class Group:
    """People of one group, with the protocols among them."""

    label: str
    members: tuple[Values, ...]

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        """Protocols of the scans: sequence, field, echo time and slices, in words."""
        return tuple(sorted({protocol_of(values).physics for values in self.members}))

    def prevalence(self, outcome: Outcome, rating: str) -> Prevalence:
        """Count the people who have something."""
        return outcome.prevalence(self.members, rating)

    def distribution(self, rating: str) -> Distribution:
        """Collect the numbers of microbleeds."""
        return Distribution.of(self.members, rating)


def group_people(members: Sequence[Values], grouping: Grouping) -> list[Group]:
    """Group people; numbers in the order of size, names in that of the alphabet."""
    found: dict[str, list[Values]] = {}
    for values in members:
        found.setdefault(grouping.label(values), []).append(values)
    order = sorted(found, key=lambda label: (label == grouping.missing, natural_key(label)))
    return [Group(label, tuple(found[label])) for label in order]


def natural_key(text: str) -> tuple[tuple[float, str], ...]:
    """Return a key that sorts numbers in a text by size.

    Examples
    --------
    >>> sorted(["site 10", "site 9", "1.5 T", "3 T"], key=natural_key)
    ['1.5 T', '3 T', 'site 9', 'site 10']
    """
    import re

    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return tuple((float(part), "") if part[0].isdigit() else (float("inf"), part) for part in parts)
