"""Colours and words that figures and pages share.

The colours are told apart with the common kinds of colour blindness (after Okabe and
Ito), on dark and on light ground.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CONTOURS", "FIELD_STOPS", "HEAT_STOPS", "ZONE_COLOURS", "plain", "region_title"]

#: Contours on grey pictures: first, second, third.
CONTOURS = ("#ffb000", "#2fd6c8", "#ff6eb4")

#: Zone of a lesion -> colour.
ZONE_COLOURS: Mapping[str, str] = {
    "lobar": "#56b4e9",
    "deep": "#e69f00",
    "infratentorial": "#4bb36a",
}

#: A field that is divided out: darker than it should be, unchanged, brighter.
FIELD_STOPS = ("#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b")

#: A frequency, from rare to the most frequent.
HEAT_STOPS = ("#7a0c2e", "#d1495b", "#f79d5c", "#ffe66d")


def plain(name: str) -> str:
    """Make an identifier readable: ``basal_ganglia`` -> ``basal ganglia``."""
    return name.replace("_", " ").strip()


def region_title(hemisphere: str | None, region: str | None, zone: str | None) -> str:
    """Name a place: side, region, and its zone in brackets.

    Examples
    --------
    >>> region_title("left", "basal_ganglia", "deep")
    'left basal ganglia (deep)'
    >>> region_title(None, None, None)
    'region unknown'
    """
    if region is None and zone is None:
        return "region unknown"
    side = hemisphere if hemisphere in ("left", "right") else None
    words = [word for word in (side, plain(region) if region else None) if word]
    if zone and zone != region:
        words.append(f"({plain(zone)})" if words else plain(zone))
    return " ".join(words)
