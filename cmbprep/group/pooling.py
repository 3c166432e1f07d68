"""Differences between the protocols of a cohort that forbid pooling, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cmbprep.group.prevalence import GROUPINGS, Group, Values, group_people, natural_key
from cmbprep.group.protocols import protocol_of

#: Property of a protocol -> title, and what it does to the numbers.
EFFECTS = {
    "sequence": ("Sequence", "susceptibility-weighted images show more microbleeds than T2*"),
    "field": ("Field strength", "a stronger field shows more microbleeds, and larger ones"),
    "echo_time": ("Echo time", "a longer echo time makes microbleeds larger, and more visible"),
    "slice_thickness": ("Slice thickness", "thinner slices show more small microbleeds"),
}


@dataclass(frozen=True)
class Difference:
    """A property of the protocol that is not the same in all sites.

    Attributes
    ----------
    title, effect
        The property, and what it does to the numbers.
    values
        Value -> sites that have it.
    """

    title: str
    effect: str
    values: dict[str, list[str]]


@dataclass(frozen=True)
class Pooling:
    """How the people of a cohort were scanned, by site.

    Attributes
    ----------
    sites
        Site -> protocol in words -> people.
    differences
        Properties that differ.
    confounded
        Whether no two sites share a protocol, so that site and protocol cannot be told apart.
    """

    sites: dict[str, dict[str, int]]
    differences: tuple[Difference, ...]
    confounded: bool

    @property
    def n_protocols(self) -> int:
        """Number of different protocols."""
        return len({name for protocols in self.sites.values() for name in protocols})

    @property
    def mixed_sites(self) -> list[str]:
        """Sites with several protocols."""
        return [site for site, protocols in self.sites.items() if len(protocols) > 1]


def compare_protocols(members: Sequence[Values]) -> Pooling:
    """Compare how people were scanned.

    Parameters
    ----------
    members
        One row of the table of scans per person.
    """
    groups = group_people(members, GROUPINGS[0])
    sites = {group.label: _protocols(group) for group in groups}
    found = []
    for name, (title, effect) in EFFECTS.items():
        values: dict[str, list[str]] = {}
        for group in groups:
            for value in {str(getattr(protocol_of(item), name)) for item in group.members}:
                values.setdefault(value, []).append(group.label)
        if len(values) > 1:
            ordered = {key: values[key] for key in sorted(values, key=natural_key)}
            found.append(Difference(title, effect, ordered))
    own = [set(protocols) for protocols in sites.values()]
    apart = all(not one & other for n, one in enumerate(own) for other in own[:n])
    return Pooling(sites, tuple(found), len(own) > 1 and apart)


def _protocols(group: Group) -> dict[str, int]:
    counted = Counter(protocol_of(values).physics for values in group.members)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
