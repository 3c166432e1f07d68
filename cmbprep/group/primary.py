"""The scan that stands for a visit where there are several."""

from __future__ import annotations

import math
from collections.abc import Iterable

from cmbprep.group.rows import Row
from cmbprep.reports.quality import figures_of, merit

#: The rule in words, for dictionaries and pages.
PRIMARY_RULE = (
    "Of several scans of a visit, the first by: with a result; registration without doubt; fewer "
    "zones that the field of view is not known to cover; fewer quality figures outside their usual "
    "range; smaller voxels; thinner slices; name."
)
_VERDICTS = {"ok": 0, "doubtful": 1}


def choose_primary(rows: Iterable[Row]) -> Row:
    """Return the scan that stands for a visit.

    Parameters
    ----------
    rows
        The scans of a participant's session, at least one.
    """
    found = list(rows)
    # Judging a scan takes longer than all the rest, and most visits have one scan.
    return min(found, key=_rank) if len(found) > 1 else found[0]


def _rank(row: Row) -> tuple[bool, int, int, int, float, float, str]:
    scan = row.scan
    if scan is None:
        return True, 0, 0, 0, math.inf, math.inf, row.name
    sizes = scan.voxel_size or (math.inf,) * 3
    unusual = sum(
        figure.level == "check" for record in scan.records for figure in figures_of(record)
    )
    verdict = merit(scan, "zone_verdict", f"{merit(scan, 'route')}_registration_verdict")
    return (
        row.status != "complete",
        _VERDICTS.get(str(verdict), 2),
        len(scan.unseen),
        unusual,
        # Rounded, because headers hold single precision.
        round(math.prod(sizes), 4),
        round(max(sizes), 3),
        row.name,
    )
