"""Patterns and burden classes: what a person's microbleeds amount to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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


#: Rule of the pattern -> what cerebellar microbleeds count as. The rules differ in nothing else.
PATTERN_RULES: Mapping[str, str] = {
    "boston": "Cerebellar microbleeds count neither as lobar nor as deep, as in the Boston "
    "criteria version 2.0 (Charidimou A et al., Lancet Neurol 2022;21:714-725).",
    "deep": "Cerebellar microbleeds count as deep, as in studies that contrast strictly lobar "
    "microbleeds with deep or infratentorial ones, among them the Rotterdam Scan Study (Akoudad S "
    "et al., Cerebrovasc Dis 2014;37:382-388; the full text was not read).",
}
DEFAULT_RULE = "boston"
#: Zone -> sides of the pattern that a microbleed in it may have.
_SIDES_OF = {
    "lobar": frozenset(("lobar",)),
    "deep": frozenset(("deep",)),
    "infratentorial": frozenset(("deep", "cerebellar")),
}
#: Pattern by the side that decides where lobar and deep ones are not together.
_ALONE = {"lobar": Pattern.LOBAR, "deep": Pattern.DEEP, "cerebellar": Pattern.CEREBELLAR}


def pattern(
    lesions: Iterable[Lesion],
    uncertain: Iterable[Lesion] = (),
    *,
    unseen: Iterable[str] = (),
    rule: str = DEFAULT_RULE,
) -> Pattern:
    """Classify the pattern of a person's microbleeds.

    Parameters
    ----------
    lesions
        Rows of one or more lesion tables of one person. Diamagnetic ones are mimics and are
        left out; the choice of ratings (definite alone, or possible too) is the caller's.
    uncertain
        Rows that may belong to them or not, such as those without a rating.
    unseen
        Zones that may hold more microbleeds, because the scan does not show them.
    rule
        One of :data:`PATTERN_RULES`.

    Returns
    -------
    Pattern
        ``strictly deep`` means in the deep zone, the brainstem or both, and by the rule ``deep``
        the cerebellum too. By the rule ``boston``, cerebellar microbleeds do not change the
        pattern of the others; see :func:`has_cerebellar`. ``undetermined`` means that the
        pattern depends on lesions whose zone is not known, on the uncertain ones, or on zones
        that were not seen: only ``mixed`` is certain beside them.
    """
    if rule not in PATTERN_RULES:
        raise ValueError(f"the pattern rule {rule!r} is none of {', '.join(PATTERN_RULES)}")
    certain = _sides(_counted(lesions), rule)
    known = _pattern_of(certain)
    if known is Pattern.MIXED:
        return known
    if None in certain:
        return Pattern.UNDETERMINED
    # Every pattern that one more lesion would make must be the same one.
    more = _sides(_counted(uncertain), rule) | {
        _by_rule(side, rule) for zone in unseen for side in _SIDES_OF[zone]
    }
    if all(side is not None and _pattern_of(certain | {side}) is known for side in more):
        return known
    return Pattern.UNDETERMINED


def _sides(lesions: Iterable[Lesion], rule: str) -> frozenset[str | None]:
    return frozenset(_by_rule(_side(lesion), rule) for lesion in lesions)


def _by_rule(side: str | None, rule: str) -> str | None:
    return "deep" if side == "cerebellar" and rule == "deep" else side


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


def has_cerebellar(
    lesions: Iterable[Lesion], uncertain: Iterable[Lesion] = (), *, unseen: Iterable[str] = ()
) -> bool | None:
    """Determine whether a microbleed lies in the cerebellum (diamagnetic ones left out).

    Parameters
    ----------
    lesions
        Rows of one or more lesion tables of one person.
    uncertain
        Rows that may belong to them or not, such as those without a rating.
    unseen
        Zones that may hold more microbleeds, because the scan does not show them.

    Returns
    -------
    bool or None
        None where it is not known: no lesion is known to lie there, and one may.
    """
    counted = _counted(lesions)
    if any(lesion.region == CEREBELLUM for lesion in counted):
        return True
    may_be = any(map(_may_be_cerebellar, (*counted, *_counted(uncertain))))
    return None if may_be or "infratentorial" in unseen else False


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
        Names of the classes, such as ``2to4``: a spreadsheet takes ``2-4`` for a date, and ``>=5``
        for a formula.
    source
        Where the classes come from.

    Examples
    --------
    >>> BURDEN_SCALES["count"].classify(3)
    '2to4'
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

    @property
    def titles(self) -> dict[str, str]:
        """Class -> the numbers in it, in words, in rising order."""
        following = [*(limit - 1 for limit in self.lower[1:]), None]
        return {
            name: f"{low} or more"
            if high is None
            else str(low)
            if low == high
            else f"{low} to {high}"
            for name, low, high in zip(self.classes, self.lower, following, strict=True)
        }

    def classify(self, count: float) -> str:
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

    def classify_range(self, least: int, most: float) -> str | None:
        """Return the class of a number that lies in a range; None if the range has several.

        Parameters
        ----------
        least, most
            Smallest and largest number; ``most`` may be infinite.

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
