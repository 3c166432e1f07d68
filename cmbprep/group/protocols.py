"""Scans grouped by how they were acquired, and what may be said of each group.

Numbers and sizes of microbleeds depend on field strength, echo time, slice thickness and
sequence, so nothing is pooled over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cmbprep.group.rows import Row
from cmbprep.group.tables import STAGES, Table

#: Fewest scans of a protocol among which outliers are looked for.
MIN_SCANS = 8
#: Robust z from which a figure of merit counts as an outlier (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5


class ScanProtocol(NamedTuple):
    """How a scan was acquired, as text; ``unknown`` where the sidecars do not say."""

    site: str
    scanner: str
    field: str
    sequence: str
    echo_time: str
    slice_thickness: str

    @property
    def physics(self) -> str:
        """What numbers and sizes of microbleeds depend on, in one line."""
        echo, slices = f"TE {self.echo_time}", f"slices {self.slice_thickness}"
        return f"{self.sequence} · {self.field} · {echo} · {slices}"

    @property
    def place(self) -> str:
        """Scanner and site, as far as they are known."""
        return " · ".join(part for part in (self.scanner, self.site) if part not in ("", "unknown"))

    @property
    def title(self) -> str:
        """All of it in one line."""
        return " · ".join(part for part in (self.physics, self.place) if part)


@dataclass(frozen=True)
class ProtocolGroup:
    """Scans with a result that were acquired alike."""

    protocol: ScanProtocol
    rows: tuple[Row, ...]

    @property
    def participants(self) -> tuple[Row, ...]:
        """The first scan of each participant: the others are not independent of it."""
        return tuple({row.subject: row for row in reversed(self.rows)}.values())[::-1]

    def bounds(self, *, definite: bool = True, zone: str | None = None) -> list[tuple[int, float]]:
        """Return the smallest and largest count of each participant, in the first scan."""
        rating = "definite" if definite else None
        return [
            row.tally.bounds(rating=rating, zone=zone) for row in self.participants if row.tally
        ]

    def counts(self) -> list[int]:
        """Count definite microbleeds of each participant of whom the number is known."""
        return [least for least, most in self.bounds() if least == most]

    def prevalence(self, *, definite: bool = True) -> tuple[int, int, float, float]:
        """Return participants with a microbleed, participants, and the 95 % interval.

        A participant of whom it is not known whether there is one is in neither number.
        """
        bounds = self.bounds(definite=definite)
        positive = sum(least > 0 for least, _ in bounds)
        total = positive + sum(most == 0 for _, most in bounds)
        return (positive, total, *wilson_interval(positive, total))

    def zone(self, name: str) -> tuple[int, float]:
        """Count definite microbleeds in a zone, over the first scans of the participants.

        Returns
        -------
        least, most
            They differ where the zone or rating of a microbleed is not known, or a scan does not
            show the whole zone.
        """
        bounds = self.bounds(zone=name)
        return sum(least for least, _ in bounds), sum(most for _, most in bounds)


def wilson_interval(positive: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion.

    See Wilson EB. J Am Stat Assoc 1927;22:209-212. Without any observation it is 0 to 1.

    Examples
    --------
    >>> [round(limit, 3) for limit in wilson_interval(0, 10)]
    [0.0, 0.278]
    """
    if total == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(positive, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def group_by_protocol(rows: Sequence[Row], table: Table) -> list[ProtocolGroup]:
    """Group the scans that have a result by protocol, the largest group first.

    Echo times are compared by the millisecond, slices by the tenth of a millimetre.
    Where the sidecar gives no slice thickness, the coarsest voxel size stands for it.
    """
    groups: dict[ScanProtocol, list[Row]] = {}
    for row, values in zip(rows, table.values, strict=True):
        if row.tally is not None:
            groups.setdefault(protocol_of(values), []).append(row)
    found = [ProtocolGroup(protocol, tuple(members)) for protocol, members in groups.items()]
    return sorted(found, key=lambda item: (-len(item.rows), item.protocol.title))


def protocol_of(values: Mapping[str, Any]) -> ScanProtocol:
    """Return how a scan was acquired, from its row of the table of scans."""
    names = ("Manufacturer", "ManufacturersModelName")
    scanner = " ".join(str(values[name]) for name in names if values.get(name))
    field, echo_time = values.get("MagneticFieldStrength"), values.get("EchoTime")
    times = [t for t in (values.get("echo_times") or ()) if _is_number(t)]
    if not times and _is_number(echo_time):
        times = [echo_time]
    echoes = "/".join(f"{1000 * t:.0f}" for t in times)
    sizes = [values.get(f"voxel_{axis}_mm") for axis in "ijk"]
    thickness = values.get("SliceThickness")
    if not _is_number(thickness):
        thickness = max((size for size in sizes if _is_number(size)), default=None)
    return ScanProtocol(
        site=str(values.get("site") or ""),
        scanner=scanner or "unknown",
        field=f"{field:g} T" if _is_number(field) else "field unknown",
        sequence=str(values.get("sequence") or "unknown"),
        echo_time=f"{echoes} ms" if echoes else "unknown",
        slice_thickness="unknown" if thickness is None else f"{thickness:.1f} mm",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Outlier(NamedTuple):
    """A figure of merit far from those of the other scans of its protocol."""

    row: Row
    measure: str
    value: float
    centre: float
    z: float
    protocol: str


def find_outliers(
    rows: Sequence[Row], quality: Table, protocols: Sequence[ProtocolGroup], limit: int = 200
) -> list[Outlier]:
    """Find scans whose figures of merit (``quality``) stand apart, the farthest first.

    Within each protocol of at least :data:`MIN_SCANS` scans a value is an outlier when its
    distance from the median exceeds :data:`OUTLIER_Z` robust standard deviations, that is
    1.4826 times the median absolute deviation.
    """
    own = {id(row): item.protocol for item in protocols for row in item.rows}
    stages = tuple(f"{stage}_" for stage in STAGES)
    measures = [name for name in quality.dictionary if name.startswith(stages)]
    groups: dict[tuple[str, ScanProtocol], list[tuple[Row, float]]] = {}
    for row, values in zip(rows, quality.values, strict=True):
        for measure in measures:
            if id(row) in own and _is_number(values.get(measure)):
                group = groups.setdefault((measure, own[id(row)]), [])
                group.append((row, float(values[measure])))
    found: list[Outlier] = []
    for (measure, protocol), members in groups.items():
        numbers = np.array([value for _, value in members])
        centre = float(np.median(numbers))
        spread = 1.4826 * float(np.median(np.abs(numbers - centre)))
        if len(members) >= MIN_SCANS and spread > 0:
            found += [
                Outlier(row, measure, value, centre, (value - centre) / spread, protocol.title)
                for row, value in members
                if abs(value - centre) > OUTLIER_Z * spread
            ]
    found.sort(key=lambda item: (-abs(item.z), item.row.name, item.measure))
    return found[:limit]
