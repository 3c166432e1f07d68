"""The table of a follow-up: one row per lesion of two visits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError
from cmbprep.files.tsv import MISSING, format_tsv, parse_integer, parse_number, read_tsv
from cmbprep.followup.status import BELOW, DARK, MATCHED, STATUSES, Fate
from cmbprep.lesions import RATINGS, ZONES, Lesion
from cmbprep.spatial.transforms import LinearMap


def _columns() -> dict[str, dict[str, Any]]:
    text = resources.files("cmbprep.data").joinpath("followup.json").read_text(encoding="utf-8")
    columns: dict[str, dict[str, Any]] = json.loads(text)
    columns["status"]["Levels"] = dict(STATUSES)
    return columns


#: What becomes of a damaged table.
_AGAIN = "cmbprep makes it again; correct lesions in the review, not in this table"
#: Column name -> its entry in the data dictionary.
COLUMNS = _columns()


@dataclass(frozen=True, kw_only=True)
class FollowedLesion:
    """A row of the table, as far as pages and the group level need it.

    Attributes
    ----------
    index
        Label in the images of both visits.
    status, reason
        See :data:`.STATUSES`.
    rating, zone, region
        None where not known.
    indices
        Index in the lesion table of the first and the second visit; None where not listed.
    centres
        At the first and the second visit, mm, RAS+; None where the place is not known.
    probabilities, volumes_mm3
        At the two visits; None where not known.
    distance_mm
        Between the two; None without a partner.
    """

    index: int
    status: str
    reason: str
    rating: str | None
    zone: str | None
    region: str | None
    indices: tuple[int | None, int | None]
    centres: tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]
    probabilities: tuple[float | None, float | None]
    volumes_mm3: tuple[float | None, float | None]
    distance_mm: float | None

    def __post_init__(self) -> None:
        if self.index < 1:
            raise ValueError(f"a lesion's index counts from 1, not {self.index}")
        for name, value, levels in (
            ("status", self.status, STATUSES),
            ("rating", self.rating, RATINGS),
            ("zone", self.zone, ZONES),
        ):
            if value is not None and value not in levels:
                raise ValueError(f"the {name} {value!r} is none of {', '.join(levels)}")
        listed = tuple(index is not None for index in self.indices)
        if listed == (False, False):
            raise ValueError("the lesion is listed at neither visit")
        if all(listed) and self.status != "persistent":
            raise ValueError(f"a lesion that is listed at both visits is not {self.status}")
        for status, only in (("new", "second"), ("gone", "first")):
            if self.status == status and listed != (only == "first", only == "second"):
                raise ValueError(f"a lesion that is {status} is listed at the {only} visit only")

    @property
    def below_threshold(self) -> bool:
        """Whether it is listed at one visit, and below the threshold at the other."""
        return self.reason in (BELOW, DARK)


def format_followup(
    fates: Sequence[Fate],
    to_second: LinearMap | None,
    *,
    sources: tuple[str, str],
    limits: Iterable[str],
) -> str:
    """Return the text of the table.

    Parameters
    ----------
    fates
        In the order of their labels.
    to_second
        Points of the first scan to points of the second; None where the registration has failed.
    sources
        Whose lesions those of the two visits are.
    limits
        Of the comparison of the two scans.
    """
    shared = {
        "source_first": sources[0],
        "source_second": sources[1],
        "limits": "; ".join(limits) or None,
    }
    rows = []
    for index, fate in enumerate(fates, start=1):
        values = {"index": index, "name": f"FU-{index:03d}", **_values(fate, to_second), **shared}
        rows.append([_cell(name, values.get(name)) for name in COLUMNS])
    return format_tsv(COLUMNS, rows)


def _values(fate: Fate, to_second: LinearMap | None) -> dict[str, Any]:
    lesion = fate.lesion
    found: dict[str, Any] = {
        "status": fate.status,
        "reason": fate.reason,
        "rating": fate.rating,
        "zone": lesion.zone,
        "region": lesion.region,
        "hemisphere": lesion.hemisphere,
        "loss_part": fate.loss_part,
    }
    if fate.near is not None:
        found["distance_mm"] = fate.near.distance_mm
        found["distance_ratio"] = fate.near.ratio
    for visit, own, other in (
        ("first", fate.first, fate.second),
        ("second", fate.second, fate.first),
    ):
        if own is not None:
            found |= _listed(visit, own)
            continue
        found[f"probability_{visit}"] = fate.probability
        if to_second is not None and other is not None:
            carry = to_second if visit == "second" else to_second.inverse()
            point = carry.matrix[:3, :3] @ other.centre + carry.matrix[:3, 3]
            found |= {f"{axis}_{visit}": float(v) for axis, v in zip("xyz", point, strict=True)}
    return found


def _listed(visit: str, lesion: Lesion) -> dict[str, Any]:
    return {
        f"index_{visit}": lesion.index,
        f"x_{visit}": lesion.x,
        f"y_{visit}": lesion.y,
        f"z_{visit}": lesion.z,
        f"probability_{visit}": lesion.probability,
        f"rating_{visit}": lesion.rating,
        f"volume_{visit}_mm3": lesion.volume_mm3,
    }


def _cell(name: str, value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        decimals = 3 if "Maximum" in COLUMNS[name] else 2
        return f"{round(value, decimals) + 0.0:.{decimals}f}"
    return str(value)


def read_followup(path: Path) -> tuple[FollowedLesion, ...]:
    """Read a table that :func:`format_followup` wrote.

    Raises
    ------
    CmbprepError
        If the table is damaged; the message names the line.
    """
    found = []
    for line, cells in read_tsv(path, tuple(COLUMNS), hint=_AGAIN).dicts():
        try:
            found.append(_parse(cells))
        except ValueError as error:
            raise CmbprepError(
                f"line {line} is not a row of a follow-up ({error})", path=path, hint=_AGAIN
            ) from error
    if len({item.index for item in found}) != len(found):
        raise CmbprepError("two rows have the same index", path=path, hint=_AGAIN)
    return tuple(found)


def _parse(cells: dict[str, str]) -> FollowedLesion:
    def text(name: str) -> str | None:
        return None if cells[name] == MISSING else cells[name]

    def number(name: str) -> float | None:
        return None if cells[name] == MISSING else parse_number(cells[name])

    def listed(visit: str) -> int | None:
        value = cells[f"index_{visit}"]
        return None if value == MISSING else parse_integer(value)

    def centre(visit: str) -> tuple[float, float, float] | None:
        x, y, z = (number(f"{axis}_{visit}") for axis in "xyz")
        return None if x is None or y is None or z is None else (x, y, z)

    both = listed("first") is not None and listed("second") is not None
    if both != (cells["reason"] == MATCHED):
        raise ValueError("it is listed at both visits and not matched, or the other way round")
    return FollowedLesion(
        index=parse_integer(cells["index"]),
        status=cells["status"],
        reason=cells["reason"],
        rating=text("rating"),
        zone=text("zone"),
        region=text("region"),
        indices=(listed("first"), listed("second")),
        centres=(centre("first"), centre("second")),
        probabilities=(number("probability_first"), number("probability_second")),
        volumes_mm3=(number("volume_first_mm3"), number("volume_second_mm3")),
        distance_mm=number("distance_mm"),
    )
