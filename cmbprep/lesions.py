"""The lesion table: its columns, a value object for one row, reading and writing.

The table is the product's main output (``*_seg-CMB_dseg.tsv``): one row per lesion, in
the order of the labels of the ``dseg`` image that it describes (BIDS derivatives,
"Segmentations": columns ``index`` and ``name`` are required, more are allowed).

A table that is read again is believed only if it is whole and consistent; see
:func:`read_lesions`. Every other table is an error: a count of zero is a result, and a table
that was damaged has none.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cmbprep.errors import CmbprepError
from cmbprep.files.tsv import MISSING, listing, nearest, parse_integer, parse_number, read_tsv

__all__ = ["COLUMNS", "MISSING", "Lesion", "format_lesions", "read_lesions"]

RATINGS = ("definite", "possible")
ZONES = ("lobar", "deep", "infratentorial")
HEMISPHERES = ("left", "right", "midline")
SUSCEPTIBILITIES = ("paramagnetic", "diamagnetic", "unknown")
_LEVELS = {
    "rating": RATINGS,
    "zone": ZONES,
    "hemisphere": HEMISPHERES,
    "susceptibility": SUSCEPTIBILITIES,
}

#: Column name -> its entry in the BIDS data dictionary.
COLUMNS: dict[str, dict[str, object]] = {
    "index": {
        "Description": "Label of the lesion in the dseg image; counts from 1.",
        "Format": "integer",
    },
    "name": {"Description": "Name of the lesion, unique within the scan."},
    "x": {
        "Description": "Centre of mass in scanner coordinates, RAS+: to the right.",
        "Units": "mm",
    },
    "y": {
        "Description": "Centre of mass in scanner coordinates, RAS+: to the front.",
        "Units": "mm",
    },
    "z": {"Description": "Centre of mass in scanner coordinates, RAS+: upwards.", "Units": "mm"},
    "x_mni": {"Description": "x of the centre in the coordinates of the template.", "Units": "mm"},
    "y_mni": {"Description": "y of the centre in the coordinates of the template.", "Units": "mm"},
    "z_mni": {"Description": "z of the centre in the coordinates of the template.", "Units": "mm"},
    "volume_mm3": {
        "Description": "Volume of the void, less what thick slices seem to add to it. Blooming "
        "makes it larger than the deposit, the more so the longer the echo time and the higher "
        "the field.",
        "Units": "mm^3",
    },
    "diameter_mm": {
        "Description": "Diameter of the sphere of the same volume.",
        "Units": "mm",
    },
    "probability": {
        "Description": "Probability that the lesion is a microbleed, as the detector gives it.",
        "Minimum": 0,
        "Maximum": 1,
    },
    "rating": {
        "Description": "Class of the probability, after the two classes that raters use "
        "(definite and possible in MARS, certain and uncertain in BOMBS).",
        "Levels": {
            "definite": "At or above the detector's operating point for definite lesions.",
            "possible": "Below it, and at or above the threshold for being listed.",
        },
    },
    "zone": {
        "Description": "Anatomical zone under the scheme that the sidecar names; n/a in a "
        "ventricle, outside the brain, and where the registration has failed.",
        "Levels": {
            "lobar": "Cortex and subcortical white matter.",
            "deep": "Deep grey matter, capsules, and what else the scheme counts as deep.",
            "infratentorial": "Brainstem and cerebellum.",
        },
    },
    "region": {
        "Description": "Anatomical region within the zone, as the scheme names it; ventricle for "
        "a lesion that lies in one and has no zone."
    },
    "hemisphere": {
        "Description": "Side of the person's brain.",
        "Levels": {
            "left": "Left.",
            "right": "Right.",
            "midline": "The lesion lies on the midline.",
        },
    },
    "region_fraction": {
        "Description": "Part of the lesion's labelled voxels that lies in the region named.",
        "Minimum": 0,
        "Maximum": 1,
    },
    "boundary_distance_mm": {
        "Description": "Distance from the centre to the nearest voxel of another zone; without a "
        "zone, of any.",
        "Units": "mm",
    },
    "boundary": {
        "Description": "Whether an error of registration could change the zone: the distance is "
        "below zone_tolerance_mm, which the sidecar tells, the registration is doubtful or has "
        "failed, or the lesion lies in a ventricle or outside the brain.",
        "Levels": {"true": "It could.", "false": "It could not."},
    },
    "contrast": {
        "Description": "Relative signal loss at the darkest point: 1 - lesion / surroundings.",
        "Minimum": 0,
        "Maximum": 1,
    },
    "susceptibility": {
        "Description": "Sign of the susceptibility against brain tissue, from the phase image.",
        "Levels": {
            "paramagnetic": "As blood products.",
            "diamagnetic": "As calcium; such a row is a mimic, kept to be seen.",
            "unknown": "There is no phase image, or it does not tell.",
        },
    },
}

# Decimals written; fixed, so that the same result gives the same bytes.
_DECIMALS = {
    **dict.fromkeys(("x", "y", "z", "x_mni", "y_mni", "z_mni"), 2),
    **dict.fromkeys(("volume_mm3", "diameter_mm", "boundary_distance_mm"), 2),
    **dict.fromkeys(("probability", "region_fraction", "contrast"), 3),
}


class NamedRegion(Protocol):
    """A region as far as a table of lesions needs to know it."""

    @property
    def name(self) -> str: ...


class RatingScheme(Protocol):
    """What a table of lesions is checked against (:class:`cmbprep.zones.schemes.Scheme`)."""

    @property
    def name(self) -> str: ...

    @property
    def regions(self) -> Sequence[NamedRegion]: ...

    def zone_of(self, region_name: str) -> str | None: ...


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
        for name in ("x", "y", "z", "x_mni", "y_mni", "z_mni", "boundary_distance_mm"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"lesion {self.index}: {name} is not finite")
        for name in ("volume_mm3", "diameter_mm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"lesion {self.index}: {name} {value} is not positive")
        for name in ("probability", "region_fraction", "contrast"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"lesion {self.index}: {name} {value} is outside 0..1")
        for name, allowed in _LEVELS.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(
                    f"lesion {self.index}: {name} {value!r} is none of {', '.join(allowed)}"
                )

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


def _cell(name: str, value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # + 0.0 turns -0.0 into 0.0
        return f"{round(value, _DECIMALS.get(name, 3)) + 0.0:.{_DECIMALS.get(name, 3)}f}"
    return str(value)


def format_lesions(lesions: Iterable[Lesion]) -> str:
    """Return the text of a lesion table (TSV with a header; header only if there are none)."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for lesion in lesions:
        writer.writerow([_cell(name, getattr(lesion, name)) for name in COLUMNS])
    return out.getvalue()


def read_lesions(
    path: Path, *, scheme: RatingScheme | None = None, labels: Collection[int] | None = None
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
    at = tuple(table.positions(COLUMNS).items())
    lesions: list[Lesion] = []
    for line, cells in table.rows:
        try:
            lesion = Lesion(**{name: _parse(name, cells[place]) for name, place in at})  # type: ignore[arg-type]
            _check_place(lesion, scheme)
        except ValueError as error:
            raise CmbprepError(
                f"line {line} is not a row of a lesion table ({error})", path=path, hint=_HINT
            ) from error
        lesions.append(lesion)
    for column in ("index", "name"):
        values = [getattr(lesion, column) for lesion in lesions]
        if len(set(values)) != len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise CmbprepError(f"two rows have the {column} {twice}", path=path, hint=_HINT)
    if labels is not None:
        _check_labels([lesion.index for lesion in lesions], labels, path)
    return lesions


def _check_place(lesion: Lesion, scheme: RatingScheme | None) -> None:
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
        hint=_HINT,
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _parse(name: str, text: str) -> object:
    """Parse a cell of a column; None for ``n/a``."""
    if text == MISSING:
        if name in _REQUIRED:
            raise ValueError(f"{name} is missing")
        return None
    if not text.strip():
        raise ValueError(f"{name} is empty")
    parse = _PARSERS.get(name)
    try:
        return text if parse is None else parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _parse_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text[:40]!r} is neither true nor false")
    return text == "true"


_REQUIRED = frozenset(
    ("index", "name", "x", "y", "z", "volume_mm3", "diameter_mm", "susceptibility")
)
_PARSERS: dict[str, Callable[[str], object]] = {
    "index": parse_integer,
    "boundary": _parse_boolean,
    **dict.fromkeys(_DECIMALS, parse_number),
}
_HINT = "run the participant level again for this scan, or restore the file from a backup"
