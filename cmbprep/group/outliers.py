"""Scans whose quality figures are far from those of their protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmbprep.group.page_data import Measure
from cmbprep.group.protocols import is_number, protocol_of

#: Fewest scans of a protocol among which outliers are looked for.
MIN_SCANS = 8
#: Robust z from which a quality figure counts as an outlier (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5


class Outlier(NamedTuple):
    """A quality figure far from those of the other scans of its protocol."""

    scan: str
    measure: Measure
    value: float
    centre: float
    z: float
    protocol: str


def find_outliers(
    scans: Sequence[Mapping[str, Any]],
    quality: Mapping[str, Mapping[str, Any]],
    measures: Sequence[Measure],
) -> list[Outlier]:
    """Find scans whose quality figures stand apart, the farthest first.

    Within each protocol of at least :data:`MIN_SCANS` scans a value is an outlier when its
    distance from the median exceeds :data:`OUTLIER_Z` robust standard deviations, that is
    1.4826 times the median absolute deviation.

    Parameters
    ----------
    scans
        Rows of the table of scans.
    quality
        Scan -> its row of the table of quality figures.
    measures
        Quality figures to look at.
    """
    protocols: dict[str, list[str]] = {}
    for values in scans:
        if values["status"] == "complete":
            protocols.setdefault(protocol_of(values).title, []).append(values["scan"])
    found: list[Outlier] = []
    for title, names in protocols.items():
        for measure in measures:
            own: list[tuple[str, Any]] = [
                (name, quality.get(name, {}).get(measure.name)) for name in names
            ]
            members = [(name, float(value)) for name, value in own if is_number(value)]
            if len(members) < MIN_SCANS:
                continue
            numbers = np.array([value for _, value in members])
            centre = float(np.median(numbers))
            spread = 1.4826 * float(np.median(np.abs(numbers - centre)))
            if spread > 0:
                found += [
                    Outlier(name, measure, value, centre, (value - centre) / spread, title)
                    for name, value in members
                    if abs(value - centre) > OUTLIER_Z * spread
                ]
    found.sort(key=lambda item: (-abs(item.z), item.scan, item.measure.name))
    return found
