"""Counting lesions: by zone, rating and region, with pattern and burden classes.

Diamagnetic rows are mimics: they are kept to be seen and are never counted. A lesion
without a rating counts among all, not among the definite or the possible ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cmbprep.lesions import ZONES, Lesion
from cmbprep.zones import BURDEN_SCALES, Pattern, has_cerebellar, pattern

__all__ = ["SCALES", "UNKNOWN_ZONE", "Tally"]

#: Burden scales that one scan is enough for; the others count new lesions.
SCALES = ("count", "prevention", "thrombolysis", "caa")
UNKNOWN_ZONE = "zone unknown"


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
        """The rows that are microbleeds, definite or possible."""
        return tuple(item for item in self.lesions if item.susceptibility != "diamagnetic")

    @cached_property
    def definite(self) -> tuple[Lesion, ...]:
        """The rows that are definite microbleeds."""
        return tuple(item for item in self.counted if item.rating == "definite")

    @property
    def mimics(self) -> tuple[Lesion, ...]:
        """The diamagnetic rows."""
        return tuple(item for item in self.lesions if item.susceptibility == "diamagnetic")

    def count(
        self, *, zone: str | None = None, rating: str | None = None, region: str | None = None
    ) -> int:
        """Count microbleeds that fit what is given; :data:`UNKNOWN_ZONE` for those without."""
        return len(self.select(zone=zone, rating=rating, region=region))

    def select(
        self, *, zone: str | None = None, rating: str | None = None, region: str | None = None
    ) -> list[Lesion]:
        """Choose the microbleeds that fit what is given."""
        return [
            item
            for item in self.counted
            if (zone is None or (item.zone or UNKNOWN_ZONE) == zone)
            and (rating is None or item.rating == rating)
            and (region is None or item.region == region)
        ]

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones to show: the three, and unknown where there is such a lesion."""
        return (*ZONES, UNKNOWN_ZONE) if self.count(zone=UNKNOWN_ZONE) else ZONES

    @property
    def regions(self) -> tuple[tuple[str, str, int, int], ...]:
        """Zone, region, definite and all microbleeds, for each region that has any."""
        keys = {
            (item.zone or UNKNOWN_ZONE, item.region or "region unknown") for item in self.counted
        }
        order = {zone: number for number, zone in enumerate((*ZONES, UNKNOWN_ZONE))}
        rows = []
        for zone, region in sorted(keys, key=lambda key: (order[key[0]], key[1])):
            here = [
                item
                for item in self.counted
                if (item.zone or UNKNOWN_ZONE, item.region or "region unknown") == (zone, region)
            ]
            definite = sum(item.rating == "definite" for item in here)
            rows.append((zone, region, definite, len(here)))
        return tuple(rows)

    @property
    def volume(self) -> float:
        """Total volume of the microbleeds, mm³."""
        return volume_of(self.counted)

    @property
    def pattern(self) -> Pattern:
        """Pattern of the definite microbleeds."""
        return pattern(self.definite)

    @property
    def pattern_of_all(self) -> Pattern:
        """Pattern with the possible ones."""
        return pattern(self.counted)

    @property
    def cerebellar(self) -> bool:
        """Whether a definite microbleed lies in the cerebellum."""
        return has_cerebellar(self.definite)

    def burden(self, scale: str, *, definite: bool = True) -> str:
        """Class of the number of microbleeds on one of :data:`SCALES`."""
        return BURDEN_SCALES[scale].classify(self.burden_count(scale, definite=definite))

    def burden_count(self, scale: str, *, definite: bool = True) -> int:
        """Give the number that a burden scale classifies."""
        chosen = self.definite if definite else self.counted
        if BURDEN_SCALES[scale].counts.startswith("lobar"):
            chosen = tuple(item for item in chosen if item.zone == "lobar")
        return len(chosen)


def volume_of(lesions: Iterable[Lesion]) -> float:
    """Sum the volumes of lesions, mm³."""
    return float(sum(item.volume_mm3 for item in lesions))
