"""Patterns and burden classes: what a person's microbleeds amount to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

from cmbprep.lesions import Lesion
from cmbprep.zones.schemes import CEREBELLUM


class Pattern(StrEnum):
    """Distribution of a person's microbleeds over the zones."""

    NONE = "none"
    LOBAR = "strictly lobar"
    DEEP = "strictly deep"
    MIXED = "mixed"
    CEREBELLAR = "cerebellar only"
    UNDETERMINED = "undetermined"


#: Pattern by the side that decides where lobar and deep ones are not together.
_ALONE = {"lobar": Pattern.LOBAR, "deep": Pattern.DEEP, "cerebellar": Pattern.CEREBELLAR}


def pattern(lesions: Iterable[Lesion], uncertain: Iterable[Lesion] = ()) -> Pattern:
    """Classify the pattern of a person's microbleeds.

    Parameters
    ----------
    lesions
        Rows of one or more lesion tables of one person. Diamagnetic ones are mimics and are
        left out; the choice of ratings (definite alone, or possible too) is the caller's.
    uncertain
        Rows that may belong to them or not, such as those without a rating.

    Returns
    -------
    Pattern
        ``strictly deep`` means in the deep zone, the brainstem or both. Cerebellar microbleeds
        count neither as lobar nor as deep, as in the Boston criteria version 2.0 (Charidimou A
        et al., Lancet Neurol 2022;21:714-725), and do not change the pattern of the others; see
        :func:`has_cerebellar`. ``undetermined`` means that the pattern depends on lesions whose
        zone is not known, or on the uncertain ones: only ``mixed`` is certain beside them.
    """
    certain = _sides(_counted(lesions))
    known = _pattern_of(certain)
    if known is Pattern.MIXED:
        return known
    if None in certain:
        return Pattern.UNDETERMINED
    # Every pattern that one more lesion would make must be the same one.
    more = _sides(_counted(uncertain))
    if all(side is not None and _pattern_of(certain | {side}) is known for side in more):
        return known
    return Pattern.UNDETERMINED


def _sides(lesions: Iterable[Lesion]) -> frozenset[str | None]:
    return frozenset(_side(lesion) for lesion in lesions)


def _side(lesion: Lesion) -> str | None:
    """Return ``lobar``, ``deep`` or ``cerebellar``; None where it is not known."""
    if lesion.zone != "infratentorial":
        return lesion.zone
    if lesion.region is None:
        return None
    return "cerebellar" if lesion.region == CEREBELLUM else "deep"


def _pattern_of(sides: frozenset[str | None]) -> Pattern:
    known = sides - {None}
    if {"lobar", "deep"} <= known:
        return Pattern.MIXED
    return next((found for side, found in _ALONE.items() if side in known), Pattern.NONE)


def has_cerebellar(lesions: Iterable[Lesion], uncertain: Iterable[Lesion] = ()) -> bool | None:
    """Determine whether a microbleed lies in the cerebellum (diamagnetic ones left out).

    Parameters
    ----------
    lesions
        Rows of one or more lesion tables of one person.
    uncertain
        Rows that may belong to them or not, such as those without a rating.

    Returns
    -------
    bool or None
        None where it is not known: no lesion is known to lie there, and one may.
    """
    counted = _counted(lesions)
    if any(lesion.region == CEREBELLUM for lesion in counted):
        return True
    return None if any(map(_may_be_cerebellar, (*counted, *_counted(uncertain)))) else False


def _may_be_cerebellar(lesion: Lesion) -> bool:
    if lesion.region is not None:
        return lesion.region == CEREBELLUM
    return lesion.zone == "infratentorial" or not lesion.placed


def _counted(lesions: Iterable[Lesion]) -> list[Lesion]:
    return [lesion for lesion in lesions if lesion.susceptibility != "diamagnetic"]


@dataclass(frozen=True, kw_only=True)
class BurdenScale:
    """Classes of a number of microbleeds.

    Attributes
    ----------
    name
        Short name, used in tables.
    counts
        What is counted.
    lower
        Smallest number of each class; the first is 0.
    classes
        Names of the classes.
    source
        Where the classes come from.

    Examples
    --------
    >>> BURDEN_SCALES["count"].classify(3)
    '2-4'
    """

    name: str
    counts: str
    lower: tuple[int, ...]
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.classes) or not self.lower or self.lower[0] != 0:
            raise ValueError(f"burden scale {self.name}: each class needs a lower limit, from 0")
        if any(b <= a for a, b in zip(self.lower, self.lower[1:], strict=False)):
            raise ValueError(f"burden scale {self.name}: limits do not rise")

    def classify(self, count: int) -> str:
        """Return the class of a number of microbleeds.

        Raises
        ------
        ValueError
            If the number is negative.
        """
        if count < 0:
            raise ValueError(f"a number of microbleeds cannot be {count}")
        at = max(i for i, limit in enumerate(self.lower) if limit <= count)
        return self.classes[at]

    def classify_range(self, least: int, most: int) -> str | None:
        """Return the class of a number that lies in a range; None if the range has several.

        Raises
        ------
        ValueError
            If the numbers are negative or not in order.
        """
        if least > most:
            raise ValueError(f"a number of microbleeds cannot be from {least} to {most}")
        found = self.classify(least)
        return found if found == self.classify(most) else None


def _scales() -> dict[str, BurdenScale]:
    text = (
        resources.files("cmbprep.data").joinpath("burden_scales.json").read_text(encoding="utf-8")
    )
    found = {}
    for values in json.loads(text):
        lower, classes = tuple(values.pop("lower")), tuple(values.pop("classes"))
        found[values["name"]] = BurdenScale(**values, lower=lower, classes=classes)
    return found


#: Burden scales by name. They describe a count; none of them is advice on treatment.
BURDEN_SCALES = _scales()
