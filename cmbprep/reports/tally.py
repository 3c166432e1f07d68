"""Counting lesions: by zone, rating and region, with pattern and burden classes.

Diamagnetic rows are mimics: they are kept to be seen and are never counted.

A count is a number only where it is known. A lesion that has no rating may be definite or
possible, and a lesion that was not compared with the zone atlas may lie in any zone and region;
where such a lesion could belong to a count, the count is None. A lesion in a ventricle or outside
the brain has its place, which is in no zone: it makes no count of zones unknown. The pattern and
the burden of lobar microbleeds treat every lesion without a zone as one that could be anywhere,
because a small error of the registration could give it one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cmbprep.lesions import ZONES, Lesion
from cmbprep.zones.burden import BURDEN_SCALES, Pattern, has_cerebellar, pattern

#: Burden scales that one scan is enough for; the others count new lesions.
SCALES = ("count", "prevention", "thrombolysis", "caa")
UNKNOWN_ZONE = "zone unknown"
UNKNOWN_REGION = "region unknown"


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
    """

    lesions: tuple[Lesion, ...]

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

    def count(
        self, *, zone: str | None = None, rating: str | None = None, region: str | None = None
    ) -> int | None:
        """Count the microbleeds of a zone, a rating and a region.

        Parameters
        ----------
        zone
            One of the zones, or :data:`UNKNOWN_ZONE` for microbleeds without one; None for all.
        rating, region
            None for all.

        Returns
        -------
        int or None
            None where a microbleed may belong to them or not.
        """
        least, most = self.bounds(zone=zone, rating=rating, region=region)
        return least if least == most else None

    def bounds(
        self, *, zone: str | None = None, rating: str | None = None, region: str | None = None
    ) -> tuple[int, int]:
        """Return the smallest and the largest number that :meth:`count` could have."""
        sure = maybe = 0
        for item in self.counted:
            fits = (_in_zone(item, zone), _in_region(item, region), _has_rating(item, rating))
            if False in fits:
                continue
            if None in fits:
                maybe += 1
            else:
                sure += 1
        return sure, sure + maybe

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

    @property
    def volume(self) -> float:
        """Total volume of the microbleeds, mm³."""
        return volume_of(self.counted)

    @property
    def volume_definite(self) -> float | None:
        """Total volume of the definite microbleeds, mm³; None where one lacks its rating."""
        return None if self.unrated else volume_of(self.definite)

    @property
    def near_boundary(self) -> int | None:
        """Number of microbleeds whose zone could be wrong; None where one does not say."""
        if any(item.boundary is None for item in self.counted):
            return None
        return sum(bool(item.boundary) for item in self.counted)

    @property
    def pattern(self) -> Pattern:
        """Pattern of the definite microbleeds."""
        return pattern(self.definite, self.unrated)

    @property
    def pattern_of_all(self) -> Pattern:
        """Pattern with the possible ones."""
        return pattern(self.counted)

    @property
    def cerebellar(self) -> bool | None:
        """Whether a definite microbleed lies in the cerebellum; None where it is not known."""
        return has_cerebellar(self.definite, self.unrated)

    def burden(self, scale: str, *, definite: bool = True) -> str | None:
        """Return the class of the number of microbleeds on one of :data:`SCALES`.

        None where lesions without a rating or a zone could change the class.
        """
        least, most = self.burden_bounds(scale, definite=definite)
        return BURDEN_SCALES[scale].classify_range(least, most)

    def burden_bounds(self, scale: str, *, definite: bool = True) -> tuple[int, int]:
        """Return the smallest and the largest number that a burden scale could classify."""
        sure = self.definite if definite else self.counted
        maybe = self.unrated if definite else ()
        if not BURDEN_SCALES[scale].counts.startswith("lobar"):
            return len(sure), len(sure) + len(maybe)
        least = sum(item.zone == "lobar" for item in sure)
        return least, sum(item.zone in ("lobar", None) for item in (*sure, *maybe))


def _in_zone(lesion: Lesion, zone: str | None) -> bool | None:
    if zone is None:
        return True
    if zone == UNKNOWN_ZONE or lesion.zone is not None or lesion.placed:
        return (lesion.zone or UNKNOWN_ZONE) == zone
    return None


def _in_region(lesion: Lesion, region: str | None) -> bool | None:
    if region is None:
        return True
    if lesion.region is not None:
        return lesion.region == region
    # A place outside the brain is no region; a zone without its region may be any of its regions.
    return False if lesion.zone is None and lesion.placed else None


def _has_rating(lesion: Lesion, rating: str | None) -> bool | None:
    if rating is None:
        return True
    return None if lesion.rating is None else lesion.rating == rating


def volume_of(lesions: Iterable[Lesion]) -> float:
    """Sum the volumes of lesions, mm³."""
    return float(sum(item.volume_mm3 for item in lesions))
