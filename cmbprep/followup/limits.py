"""What limits the comparison of two visits, besides their protocols.

Counts of two visits that were made with different settings differ for that reason alone, and a
zone that one of the scans does not show tells nothing of new lesions in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cmbprep.files.tsv import listing
from cmbprep.followup.scan import FollowedScan
from cmbprep.lesions import ZONES
from cmbprep.outputs.settings import detection_settings

#: Settings of two lists of the detector that must be the same -> what they are called.
_OF_DETECTOR = {
    "detector": "detector",
    "detector_version": "version of the detector",
    "threshold": "threshold",
}
_OF_ZONES = {
    "scheme": "scheme of the zones",
    "template": "template",
    "border_mm": "border in the white matter (mm)",
    "zone_source": "source of the zones",
}


def describe_settings(first: FollowedScan, second: FollowedScan) -> tuple[str, ...]:
    """Return how the lists of lesions of two visits were made differently.

    Parameters
    ----------
    first, second
        The scans of the two visits.

    Returns
    -------
    tuple of str
        One short text for each difference; empty if there is none. No name of a reader is in it.
    """
    return tuple(_differences(first, second))


def _differences(first: FollowedScan, second: FollowedScan) -> Iterator[str]:
    names = dict(_OF_ZONES)
    if first.source != second.source:
        yield f"source of the lesions {first.source} to {second.source}"
    elif first.reviewed and first.readers != second.readers:
        yield "other readers"
    elif not first.reviewed:
        names = {**_OF_DETECTOR, **names, "version": "version of cmbprep"}
    was, now = settings_of(first), settings_of(second)
    for name, title in names.items():
        if was[name] != now[name]:
            yield f"{title} {_shown(was[name])} to {_shown(now[name])}"


def settings_of(scan: FollowedScan) -> dict[str, Any]:
    """Return what the lesions of a scan were listed and placed with."""
    names = scan.detection.files.names
    return {
        **detection_settings(scan.detection),
        "scheme": names.scheme.upper(),
        "template": names.template,
        "version": scan.detection.block.get("Version"),
    }


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "not recorded" if value is None else text


def describe_coverage(first: FollowedScan, second: FollowedScan) -> tuple[str, ...]:
    """Return which zones the scans of two visits do not show."""
    found = []
    for visit, scan in (("first", first), ("second", second)):
        zones = [zone for zone in ZONES if zone in scan.unseen]
        if not zones:
            continue
        known = all(scan.coverage.get(zone) is not None for zone in zones)
        what = "does not show all" if known else "may not show all"
        found.append(
            f"the scan of the {visit} visit {what} of the zone{'s' * (len(zones) > 1)} "
            f"{listing(zones)}"
        )
    return tuple(found)
