"""The lesion table: its columns, a value object for one row, reading and writing.

The table is the product's main output (``*_seg-CMB_dseg.tsv``): one row per lesion, in
the order of the labels of the ``dseg`` image that it describes (BIDS derivatives,
"Segmentations": columns ``index`` and ``name`` are required, more are allowed).

A table that is read again is believed only if it is whole and consistent; see
:func:`read_lesions`. Every other table is an error: a count of zero is a result, and a table
that was damaged has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbprep.errors import CmbprepError
from cmbprep.files.tsv import (
    MISSING,
    REMAKE,
    format_tsv,
    listing,
    nearest,
    parse_boolean,
    parse_integer,
    parse_number,
    read_tsv,
)

if TYPE_CHECKING:
    from cmbprep.zones.schemes import Scheme

__all__ = ["COLUMNS", "MISSING", "Lesion", "format_lesions", "read_lesions"]

#: Column name -> its entry in the BIDS data dictionary. Ranges, levels and decimals follow from
#: it; whether a value may be missing, and how it is parsed, from the fields of :class:`Lesion`.
COLUMNS: dict[str, dict[str, Any]] = json.loads(
    resources.files("cmbprep.data").joinpath("lesions.json").read_text(encoding="utf-8")
)
RATINGS, ZONES, HEMISPHERES, SUSCEPTIBILITIES = (
    tuple(COLUMNS[name]["Levels"]) for name in ("rating", "zone", "hemisphere", "susceptibility")
)
_POSITIVE = ("volume_mm3", "diameter_mm")
_PARSERS: dict[str, Callable[[str], Any]] = {
    "int": parse_integer,
    "float": parse_number,
    "bool": parse_boolean,
    "str": str,
}


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One microbleed, or a candidate for one: a row of the lesion table.

    Positions are in millimetres in RAS+ scanner coordinates. ``None`` stands for a value
    that is not known and is written as ``n/a``.
    """

    index: int
    name: str
    x: float
    y: float
    z: float
    x_mni: float | None = None
    y_mni: float | None = None
    z_mni: float | None = None
    volume_mm3: float
    diameter_mm: float
    probability: float | None = None
    rating: str | None = None
    zone: str | None = None
    region: str | None = None
    hemisphere: str | None = None
    region_fraction: float | None = None
    boundary_distance_mm: float | None = None
    boundary: bool | None = None
    contrast: float | None = None
    susceptibility: str = "unknown"

    def __post_init__(self) -> None:
        if self.index < 1:
            raise ValueError(f"a lesion's index counts from 1, not {self.index}")
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None and (fault := check(value)) is not None:
                raise ValueError(f"lesion {self.index}: {name} {fault}")

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre of mass, mm, RAS+ scanner coordinates."""
        return (self.x, self.y, self.z)

    @property
    def placed(self) -> bool:
        """Whether the lesion was compared with the zone atlas.

        A placed lesion may still have no zone: it lies in a ventricle, which is its region, or
        outside the brain, where only its distance from the nearest zone is known. Without an
        atlas on the scan's grid, as after a failed registration, none of the three is known,
        and the lesion may lie in any zone.
        """
        return not (self.zone is None and self.region is None and self.boundary_distance_mm is None)


def _check_of(name: str) -> Callable[[Any], str | None] | None:
    """Return what finds the fault of a value of a column; None where any value is sound."""
    entry = COLUMNS[name]
    if name in _POSITIVE:
        return lambda x: None if math.isfinite(x) and x > 0 else f"{x} is not positive"
    if "Maximum" in entry:
        low, high = entry["Minimum"], entry["Maximum"]
        return lambda x: None if low <= x <= high else f"{x} is outside {low}..{high}"
    if "Units" in entry:
        return lambda x: None if math.isfinite(x) else "is not finite"
    if (levels := entry.get("Levels")) and "true" not in levels:
        return lambda x: None if x in levels else f"{x!r} is none of {', '.join(levels)}"
    return None


#: Column -> check of its values. A table has thousands of cells, so what is checked is found once.
_CHECKS = {name: check for name in COLUMNS if (check := _check_of(name)) is not None}
#: Column -> how it is parsed, and whether a value may be missing.
_KINDS = {
    field.name: (_PARSERS[str(field.type).partition(" |")[0]], "None" in str(field.type))
    for field in fields(Lesion)
}


def _cell(name: str, value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # Fixed decimals, so that the same result gives the same bytes.
        decimals = 2 if "Units" in COLUMNS[name] else 3
        # + 0.0 turns -0.0 into 0.0
        return f"{round(value, decimals) + 0.0:.{decimals}f}"
    return str(value)


def format_lesions(lesions: Iterable[Lesion]) -> str:
    """Return the text of a lesion table (TSV with a header; header only if there are none)."""
    return format_tsv(
        COLUMNS, ([_cell(name, getattr(lesion, name)) for name in COLUMNS] for lesion in lesions)
    )


def read_lesions(
    path: Path, *, scheme: Scheme | None = None, labels: Collection[int] | None = None
) -> list[Lesion]:
    """Read a lesion table that :func:`format_lesions` wrote, and check all that can be checked.

    A table is believed only if

    - it is UTF-8 text with tabs between the cells, and every row has as many cells as the header;
    - every column of :data:`COLUMNS` is there once, in any order; others are ignored;
    - no cell of these columns is empty, and index, name, position, size and susceptibility are
      not ``n/a``;
    - numbers are finite and within their range, and levels are those of the data dictionary;
    - index and name are unique, and template coordinates are there together or not at all;
    - zones and regions are those of the scheme, where one is given;
    - the indices are the labels of the image, where these are given.

    Parameters
    ----------
    path
        The table.
    scheme
        Scheme of the zones, as the sidecar names it.
    labels
        Values of the ``dseg`` image, without 0.

    Returns
    -------
    list of Lesion
        In the order of the rows; empty if the table has its header and no rows.

    Raises
    ------
    CmbprepError
        If any of this does not hold; the message names the line.
    """
    path = Path(path)
    table = read_tsv(path, tuple(COLUMNS))
    at = [(name, table.header.index(name)) for name in _KINDS]
    lesions: list[Lesion] = []
    for line, cells in table.rows:
        try:
            lesion = Lesion(**{name: _parse(name, cells[place]) for name, place in at})
            _check_place(lesion, scheme)
        except ValueError as error:
            raise CmbprepError(
                f"line {line} is not a row of a lesion table ({error})", path=path, hint=REMAKE
            ) from error
        lesions.append(lesion)
    for column in ("index", "name"):
        values = [getattr(lesion, column) for lesion in lesions]
        if len(set(values)) != len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise CmbprepError(f"two rows have the {column} {twice}", path=path, hint=REMAKE)
    if labels is not None:
        _check_labels([lesion.index for lesion in lesions], labels, path)
    return lesions


def _check_place(lesion: Lesion, scheme: Scheme | None) -> None:
    known = [value is not None for value in (lesion.x_mni, lesion.y_mni, lesion.z_mni)]
    if any(known) and not all(known):
        raise ValueError("one of x_mni, y_mni, z_mni is missing")
    if scheme is None or lesion.region is None:
        return
    try:
        zone = scheme.zone_of(lesion.region)
    except KeyError:
        names = dict.fromkeys(region.name for region in scheme.regions)
        raise ValueError(
            f"{scheme.name} has no region {lesion.region!r}{nearest(lesion.region, names)}"
        ) from None
    if lesion.zone != zone:
        raise ValueError(
            f"the region {lesion.region} is in {_zone_title(zone)}, not in "
            f"{_zone_title(lesion.zone)}"
        )


def _zone_title(zone: str | None) -> str:
    return "no zone" if zone is None else f"the zone {zone}"


def _check_labels(indices: Collection[int], labels: Collection[int], path: Path) -> None:
    rows, seen = set(indices), {int(label) for label in labels}
    if rows == seen:
        return
    parts = []
    if seen - rows:
        parts.append(f"no row for {listing(map(str, sorted(seen - rows)))}")
    if rows - seen:
        parts.append(f"no label for {listing(map(str, sorted(rows - seen)))}")
    raise CmbprepError(
        f"the table has {_number(len(rows), 'row')} and its label image has "
        f"{_number(len(seen), 'label')}: {'; '.join(parts)}",
        path=path,
        hint=REMAKE,
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _parse(name: str, text: str) -> Any:
    """Parse a cell of a column; None for ``n/a``."""
    parser, may_be_missing = _KINDS[name]
    if text == MISSING:
        if not may_be_missing:
            raise ValueError(f"{name} is missing")
        return None
    if not text.strip():
        raise ValueError(f"{name} is empty")
    try:
        return parser(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
