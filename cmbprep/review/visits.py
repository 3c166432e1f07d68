"""What the page shows of other visits: follow-ups that were computed, and lesions linked by them.

Nothing is computed here. The participant level and the group level write the follow-up of a pair
of visits, and it is shown while it is of the lesions that are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmbprep.followup.pair import FollowUp, find_pairs
from cmbprep.followup.scan import FollowedScan
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.store import Reader
from cmbprep.reports.followup import followed_scans
from cmbprep.reports.packing import PageGrid
from cmbprep.reports.reviewed import collect_reviewed
from cmbprep.spatial.transforms import LinearMap, read_transform


def find_followups(root: Path, subject: str) -> list[FollowUp]:
    """Find the finished follow-ups of a participant.

    They are of the lesions of the only reader, or of the detector's: both are looked for.

    Parameters
    ----------
    root
        The output dataset.
    subject
        Label of the participant.

    Returns
    -------
    list of FollowUp
        One for each pair of scans, in the order of the sessions' names.
    """
    found: dict[tuple[str, str], FollowUp] = {}
    for choice in (ReaderChoice(), ReaderChoice(automatic=True)):
        for person in collect_reviewed(root, choice, subject=subject):
            for item in find_pairs(root, followed_scans(person)):
                one, other = item.pair.by_name
                found.setdefault((one.name, other.name), item)
    return [found[pair] for pair in sorted(found)]


def to_other_visit(found: FollowUp, name: str) -> LinearMap | None:
    """Return the map of points of a scan to points of the other one of the pair.

    Parameters
    ----------
    found
        The follow-up.
    name
        Of the scan.

    Returns
    -------
    LinearMap or None
        None where the registration has failed or is not rigid.
    """
    if found.failed:
        return None
    one, _ = found.pair.by_name
    transform = read_transform(found.pair.transform)
    if not isinstance(transform, LinearMap):
        return None
    return transform if one.name == name else transform.inverse()


def followup_view(
    found: Sequence[FollowUp],
    name: str,
    grid: PageGrid,
    *,
    reader: Reader,
    images: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return the follow-ups of a scan as the page reads them.

    Parameters
    ----------
    found
        The follow-ups of the participant.
    name
        Of the scan.
    grid
        The scan's grid in the page's order.
    reader
        Who reads: lesions that another reader has added have no key here.
    images
        Name of the other scan -> id of its image.

    Returns
    -------
    list of dict
        For each pair that the scan is in: ``title`` (the other visit), ``when`` (``earlier``,
        ``later`` or ``other``), ``image``, ``source``, ``limits``, ``lesions`` (key -> status and
        reason) and ``elsewhere`` (lesions that are listed at the other visit only).
    """
    views = []
    for item in found:
        scans = (item.pair.first, item.pair.second)
        own = next((n for n, scan in enumerate(scans) if scan.name == name), None)
        if own is not None:
            views.append(_pair_view(item, own, grid, _keys(scans[own], reader), images))
    return views


def _pair_view(
    found: FollowUp,
    own: int,
    grid: PageGrid,
    keys: Mapping[int, str],
    images: Mapping[str, str],
) -> dict[str, Any]:
    scan, other = (found.pair.first, found.pair.second)[:: 1 if own == 0 else -1]
    lesions: dict[str, dict[str, Any]] = {}
    elsewhere = []
    for lesion in found.lesions:
        told = {"status": lesion.status, "reason": lesion.reason}
        index, there, centre = lesion.indices[own], lesion.indices[1 - own], lesion.centres[own]
        if index is not None:
            if index in keys:
                lesions[keys[index]] = {**told, "there": there}
        elif centre is not None:
            elsewhere.append(
                {
                    **told,
                    "there": there,
                    "rating": lesion.rating,
                    "zone": lesion.zone,
                    "centre_ijk": grid.voxel(centre),
                }
            )
    when = ("later", "earlier")[own] if found.pair.ordered else "other"
    return {
        "title": f"visit {other.session}",
        "when": when,
        "image": images.get(other.name),
        "source": [scan.source, other.source],
        "limits": list(found.limits),
        "failed": found.failed,
        "lesions": lesions,
        "elsewhere": elsewhere,
    }


def _keys(scan: FollowedScan, reader: Reader) -> dict[int, str]:
    """Return the key of each lesion by its index in the table that was followed."""
    reading = scan.reading
    if reading is None or not reading.reviewed:
        return {lesion.index: f"L{lesion.index}" for lesion in scan.lesions}
    own = {review.reader for review in reading.used} == {reader}
    keys = {row.lesion.index: row.row.item.key for row in reading.rows}
    # Keys of lesions that a reader has added say nothing in the review of another one.
    return {index: key for index, key in keys.items() if own or not key.startswith("N")}
