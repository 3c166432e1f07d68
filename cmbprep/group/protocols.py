"""Scans grouped by how they were acquired, and what may be said of each group.

Numbers and sizes of microbleeds depend on field strength, echo time, slice thickness and
sequence, so nothing is pooled over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from cmbprep.group.rows import Row
from cmbprep.group.tables import ScanTable

__all__ = ["Outlier", "ProtocolGroup", "find_outliers", "group_by_protocol", "wilson_interval"]

#: Quantile of the normal distribution for intervals of 95 %.
Z95 = 1.959963984540054
#: Fewest scans of a protocol among which outliers are looked for.
MIN_SCANS = 8
#: Robust z from which a figure of merit counts as an outlier (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5


@dataclass(frozen=True, kw_only=True)
class ProtocolGroup:
    """Scans that were acquired alike.

    Parameters
    ----------
    site, scanner, field, sequence, echo_time, slice_thickness
        What they share, as text; ``unknown`` where the sidecars do not say.
    rows
        The scans that have a result.
    """

    site: str
    scanner: str
    field: str
    sequence: str
    echo_time: str
    slice_thickness: str
    rows: tuple[Row, ...]

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

    @property
    def participants(self) -> tuple[Row, ...]:
        """The first scan of each participant: the others are not independent of it."""
        first: dict[str, Row] = {}
        for row in self.rows:
            first.setdefault(row.subject, row)
        return tuple(first.values())

    def counts(self, *, definite: bool = True) -> list[int]:
        """Count microbleeds in the first scan of each participant, where the count is known."""
        rating = "definite" if definite else None
        counts = [row.tally.count(rating=rating) for row in self.participants if row.tally]
        return [count for count in counts if count is not None]

    def prevalence(self, *, definite: bool = True) -> tuple[int, int, float, float]:
        """Return participants with a microbleed, participants, and the 95 % interval.

        A participant of whom it is not known whether there is one is in neither number.
        """
        rating = "definite" if definite else None
        bounds = [row.tally.bounds(rating=rating) for row in self.participants if row.tally]
        positive = sum(least > 0 for least, _ in bounds)
        total = positive + sum(most == 0 for _, most in bounds)
        return (positive, total, *wilson_interval(positive, total))

    def zone(self, name: str) -> tuple[int, int]:
        """Count definite microbleeds in a zone, over the first scans of the participants.

        Returns
        -------
        least, most
            They differ where the zone or rating of a microbleed is not known.
        """
        bounds = [
            row.tally.bounds(zone=name, rating="definite") for row in self.participants if row.tally
        ]
        return sum(least for least, _ in bounds), sum(most for _, most in bounds)


def wilson_interval(positive: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson EB. J Am Stat Assoc 1927;22:209-212).

    Examples
    --------
    >>> [round(limit, 3) for limit in wilson_interval(0, 10)]
    [0.0, 0.278]
    """
    if total == 0:
        return 0.0, 1.0
    share = positive / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def group_by_protocol(table: ScanTable) -> list[ProtocolGroup]:
    """Group the scans that have a result by protocol, the largest group first.

    Echo times are compared by the millisecond, slices by the tenth of a millimetre.
    Where the sidecar gives no slice thickness, the coarsest voxel size stands for it.
    """
    sites = table.column("participants_site")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row, site, values in zip(table.rows, sites, _acquisitions(table), strict=True):
        if row.tally is not None:
            groups.setdefault((str(site) if site else "", *values), []).append(row)
    protocols = [
        ProtocolGroup(
            site=key[0],
            scanner=key[1],
            field=key[2],
            sequence=key[3],
            echo_time=key[4],
            slice_thickness=key[5],
            rows=tuple(rows),
        )
        for key, rows in groups.items()
    ]
    return sorted(protocols, key=lambda item: (-len(item.rows), item.title))


def _acquisitions(table: ScanTable) -> list[tuple[str, str, str, str, str]]:
    names = (
        "Manufacturer",
        "ManufacturersModelName",
        "MagneticFieldStrength",
        "sequence",
        "EchoTime",
        "echo_times",
        "SliceThickness",
        "voxel_i_mm",
        "voxel_j_mm",
        "voxel_k_mm",
    )
    lines = zip(*(table.column(name) for name in names), strict=True)
    return [_describe(*line) for line in lines]


def _describe(
    maker: Any,
    model: Any,
    field: Any,
    sequence: Any,
    echo_time: Any,
    echo_times: Any,
    thickness: Any,
    *voxel: Any,
) -> tuple[str, str, str, str, str]:
    scanner = " ".join(str(part) for part in (maker, model) if part) or "unknown"
    times = [t for t in (echo_times or ()) if _is_number(t)]
    if not times and _is_number(echo_time):
        times = [echo_time]
    echoes = "/".join(f"{1000 * t:.0f}" for t in times)
    sizes = [size for size in voxel if _is_number(size)]
    slices = thickness if _is_number(thickness) else max(sizes, default=None)
    return (
        scanner,
        f"{field:g} T" if _is_number(field) else "field unknown",
        str(sequence or "unknown"),
        f"{echoes} ms" if echoes else "unknown",
        f"{slices:.1f} mm" if slices is not None else "unknown",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A figure of merit far from those of the other scans of its protocol."""

    row: Row
    measure: str
    value: float
    centre: float
    z: float
    protocol: str


def find_outliers(
    table: ScanTable, protocols: Sequence[ProtocolGroup], limit: int = 200
) -> list[Outlier]:
    """Find scans whose figures of merit stand apart, the farthest first.

    Within each protocol of at least :data:`MIN_SCANS` scans a value is an outlier when its
    distance from the median exceeds :data:`OUTLIER_Z` robust standard deviations, that is
    1.4826 times the median absolute deviation.
    """
    at = {id(row): number for number, row in enumerate(table.rows)}
    stages = ("preproc_", "lesions_", "anatomy_")
    measures = [column.name for column in table.columns if column.name.startswith(stages)]
    found = []
    for measure in measures:
        values = table.column(measure)
        for protocol in protocols:
            here = [
                (row, float(values[at[id(row)]]))
                for row in protocol.rows
                if _is_number(values[at[id(row)]])
            ]
            if len(here) < MIN_SCANS:
                continue
            centre = median(value for _, value in here)
            spread = 1.4826 * median(abs(value - centre) for _, value in here)
            if spread <= 0:
                continue
            found += [
                Outlier(
                    row=row,
                    measure=measure,
                    value=value,
                    centre=centre,
                    z=(value - centre) / spread,
                    protocol=protocol.title,
                )
                for row, value in here
                if abs(value - centre) > OUTLIER_Z * spread
            ]
    found.sort(key=lambda item: (-abs(item.z), item.row.name, item.measure))
    return found[:limit]
