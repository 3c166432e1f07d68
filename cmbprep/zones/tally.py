"""Counting lesions: by rating, zone, region and side, with pattern and burden classes.

Diamagnetic rows are mimics: they are kept to be seen and are never counted.

A count is a number only where it is known. A lesion that has no rating may be definite or
possible, and a lesion that was not compared with the zone atlas may lie in any zone and region;
where such a lesion could belong to a count, the count is None. So it is where the scan does not
show a zone that the count is of. A lesion in a ventricle or outside the brain has its place, which
is in no zone: it makes no count of zones unknown. The pattern and the burden of lobar microbleeds
treat every lesion without a zone as one that could be anywhere, because a small error of the
registration could give it one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

from cmbprep.lesions import ZONES, Lesion
from cmbprep.zones.burden import BURDEN_SCALES, DEFAULT_RULE, Pattern, has_cerebellar, pattern

#: Burden scales that one scan is enough for; the others count new lesions.
SCALES = ("count", "prevention", "thrombolysis", "caa", "rdes289")
UNKNOWN_ZONE = "zone unknown"
UNKNOWN_REGION = "region unknown"


class Count(NamedTuple):
    """What is counted; None for all.

    Parameters
    ----------
    rating
        ``definite`` or ``possible``.
    zone
        One of the zones, or :data:`UNKNOWN_ZONE` for microbleeds without one.
    region, hemisphere
        As the lesion table has them. With a region, the zone that it lies in must be given.
    """

    rating: str | None = None
    zone: str | None = None
    region: str | None = None
    hemisphere: str | None = None


class _Traits(NamedTuple):
    """What decides which counts a lesion belongs to."""

    rating: str | None
    zone: str | None
    region: str | None
    hemisphere: str | None
    placed: bool


@cache
def _fits(lesion: _Traits, what: Count) -> bool | None:
    """Return whether a lesion belongs to a count; None where that is not known."""
    fits = (
        _is(lesion.rating, what.rating, known=lesion.rating is not None),
        _is(
            lesion.zone or UNKNOWN_ZONE,
            what.zone,
            # A place outside the brain is known to be in no zone.
            known=what.zone == UNKNOWN_ZONE or lesion.zone is not None or lesion.placed,
        ),
        # So it is in no region and on no side; a zone without its region may be any of its regions.
        _is(lesion.region, what.region, known=lesion.region is not None or _is_outside(lesion)),
        _is(
            lesion.hemisphere,
            what.hemisphere,
            known=lesion.hemisphere is not None or _is_outside(lesion),
        ),
    )
    return False if False in fits else None if None in fits else True


@cache
def _members(lesion: _Traits, wanted: tuple[Count, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places of the counts that a lesion belongs to, and of those it may belong to."""
    fits = [_fits(lesion, what) for what in wanted]
    return (
        tuple(place for place, known in enumerate(fits) if known),
        tuple(place for place, known in enumerate(fits) if known is None),
    )


def _is(value: str | None, wanted: str | None, *, known: bool) -> bool | None:
    if wanted is None:
        return True
    return value == wanted if known else None


def _is_outside(lesion: _Traits) -> bool:
    return lesion.zone is None and lesion.placed


def is_mimic(lesion: Lesion) -> bool:
    """Return whether a row of the lesion table is diamagnetic, and so no microbleed."""
    return lesion.susceptibility == "diamagnetic"


@dataclass(frozen=True)
class Tally:
    """The microbleeds of one scan, counted.

    Parameters
    ----------
    lesions
        All rows of the lesion table.
    rule
        Rule of the pattern, one of :data:`.PATTERN_RULES`.
    unseen
        Zones that the scan does not show, so that microbleeds in them are not listed.
    """

    lesions: tuple[Lesion, ...]
    rule: str = DEFAULT_RULE
    unseen: frozenset[str] = frozenset()

    @property
    def listed(self) -> Tally:
        """The same of what the scan shows: counts of listed microbleeds, wherever others lie."""
        return replace(self, unseen=frozenset())

    @cached_property
    def counted(self) -> tuple[Lesion, ...]:
        """The rows that are microbleeds, definite, possible or without a rating."""
        return tuple(item for item in self.lesions if not is_mimic(item))

    @cached_property
    def definite(self) -> tuple[Lesion, ...]:
        """The rows that are rated as definite microbleeds."""
        return tuple(item for item in self.counted if item.rating == "definite")

    @cached_property
    def unrated(self) -> tuple[Lesion, ...]:
        """The microbleeds without a rating."""
        return tuple(item for item in self.counted if item.rating is None)

    @cached_property
    def unplaced(self) -> tuple[Lesion, ...]:
        """The microbleeds that were not compared with the zone atlas."""
        return tuple(item for item in self.counted if not item.placed)

    @property
    def mimics(self) -> tuple[Lesion, ...]:
        """The diamagnetic rows."""
        return tuple(item for item in self.lesions if is_mimic(item))

    @cached_property
    def _traits(self) -> Counter[_Traits]:
        return Counter(
            _Traits(item.rating, item.zone, item.region, item.hemisphere, item.placed)
            for item in self.counted
        )

    def count(
        self,
        *,
        zone: str | None = None,
        rating: str | None = None,
        region: str | None = None,
        hemisphere: str | None = None,
    ) -> int | None:
        """Count the microbleeds of a zone, a rating, a region and a side.

        Parameters
        ----------
        zone, rating, region, hemisphere
            As in :class:`Count`.

        Returns
        -------
        int or None
            None where a microbleed may belong to them or not, or the zone was not seen.
        """
        least, most = self.bounds(zone=zone, rating=rating, region=region, hemisphere=hemisphere)
        return least if least == most else None

    def bounds(
        self,
        *,
        zone: str | None = None,
        rating: str | None = None,
        region: str | None = None,
        hemisphere: str | None = None,
    ) -> tuple[int, float]:
        """Return the smallest and the largest number that :meth:`count` could have."""
        what = Count(rating, zone, region, hemisphere)
        sure = maybe = 0
        for traits, number in self._traits.items():
            fits = _fits(traits, what)
            if fits is None:
                maybe += number
            elif fits:
                sure += number
        return sure, math.inf if self._misses(zone) else sure + maybe

    def count_all(self, wanted: tuple[Count, ...]) -> list[int | None]:
        """Return :meth:`count` of each, in a fraction of the time."""
        found: list[int | None] = [0] * len(wanted)
        doubtful = {place for place, what in enumerate(wanted) if self._misses(what.zone)}
        for traits, number in self._traits.items():
            fits, doubts = _members(traits, wanted)
            for place in fits:
                found[place] += number  # type: ignore[operator]
            doubtful.update(doubts)
        for place in doubtful:
            found[place] = None
        return found

    def _misses(self, zone: str | None) -> bool:
        """Return whether microbleeds of a zone may lie where the scan does not show them."""
        return zone in self.unseen if zone in ZONES else bool(self.unseen)

    def select(self, *, zone: str) -> list[Lesion]:
        """Choose the microbleeds that are known to lie in a zone, or in :data:`UNKNOWN_ZONE`."""
        return [item for item in self.counted if (item.zone or UNKNOWN_ZONE) == zone]

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones to show: the three, and unknown where there is such a lesion."""
        return (*ZONES, UNKNOWN_ZONE) if self.select(zone=UNKNOWN_ZONE) else ZONES

    @property
    def regions(self) -> tuple[tuple[str, str, int, int], ...]:
        """Zone, region, definite and all microbleeds listed, for each region that has any.

        Lesions without a place are listed under a region of their own.
        """
        groups: dict[tuple[str, str], list[Lesion]] = {}
        for item in self.counted:
            key = (item.zone or UNKNOWN_ZONE, item.region or UNKNOWN_REGION)
            groups.setdefault(key, []).append(item)
        order = {zone: number for number, zone in enumerate((*ZONES, UNKNOWN_ZONE))}
        return tuple(
            (*key, sum(item.rating == "definite" for item in groups[key]), len(groups[key]))
            for key in sorted(groups, key=lambda key: (order[key[0]], key[1]))
        )

    def rated(self, *, definite: bool) -> tuple[Lesion, ...]:
        """Return the definite microbleeds, or all."""
        return self.definite if definite else self.counted

    def _uncertain(self, *, definite: bool) -> tuple[Lesion, ...]:
        return self.unrated if definite else ()

    def volume_mm3(self, *, definite: bool, zone: str | None = None) -> float | None:
        """Return the volume in a zone or in all, mm³; None where :meth:`count` is not known."""
        if self.count(zone=zone, rating="definite" if definite else None) is None:
            return None
        return volume_of(
            item
            for item in self.rated(definite=definite)
            if zone is None or (item.zone or UNKNOWN_ZONE) == zone
        )

    def near_boundary(self, *, definite: bool = False) -> int | None:
        """Count the microbleeds whose zone could be wrong; None where it is not known."""
        lesions = self.rated(definite=definite)
        unknown = any(item.boundary is None for item in lesions)
        if unknown or self.unseen or self._uncertain(definite=definite):
            return None
        return sum(bool(item.boundary) for item in lesions)

    def pattern_of(self, *, definite: bool) -> Pattern:
        """Return the pattern of the definite microbleeds, or of all."""
        sure, maybe = self.rated(definite=definite), self._uncertain(definite=definite)
        return pattern(sure, maybe, unseen=self.unseen, rule=self.rule)

    @property
    def pattern(self) -> Pattern:
        """Pattern of the definite microbleeds."""
        return self.pattern_of(definite=True)

    @property
    def pattern_of_all(self) -> Pattern:
        """Pattern with the possible ones."""
        return self.pattern_of(definite=False)

    @property
    def cerebellar(self) -> bool | None:
        """Whether a definite microbleed lies in the cerebellum; None where it is not known."""
        return self.cerebellar_of(definite=True)

    def cerebellar_of(self, *, definite: bool) -> bool | None:
        """Return whether a microbleed, definite or any, lies in the cerebellum; None: unknown."""
        sure, maybe = self.rated(definite=definite), self._uncertain(definite=definite)
        return has_cerebellar(sure, maybe, unseen=self.unseen)

    def burden(self, scale: str, *, definite: bool = True) -> str | None:
        """Return the class of the number of microbleeds on one of :data:`SCALES`.

        None where lesions without a rating or a zone, or zones that were not seen, could change
        the class.
        """
        least, most = self.burden_bounds(scale, definite=definite)
        return BURDEN_SCALES[scale].classify_range(least, most)

    def burden_bounds(self, scale: str, *, definite: bool = True) -> tuple[int, float]:
        """Return the smallest and the largest number that a burden scale could classify."""
        sure, maybe = self.rated(definite=definite), self._uncertain(definite=definite)
        if not BURDEN_SCALES[scale].counts.startswith("lobar"):
            return len(sure), math.inf if self.unseen else len(sure) + len(maybe)
        least = sum(item.zone == "lobar" for item in sure)
        most = sum(item.zone in ("lobar", None) for item in (*sure, *maybe))
        return least, math.inf if "lobar" in self.unseen else most


def volume_of(lesions: Iterable[Lesion]) -> float:
    """Sum the volumes of lesions, mm³."""
    return float(sum(item.volume_mm3 for item in lesions))
