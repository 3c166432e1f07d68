"""The lesion table: its columns, a value object for one row, reading and writing.

The table is the product's main output (``*_seg-CMB_dseg.tsv``): one row a lesion, in
the order of the labels of the ``dseg`` image that it describes (BIDS derivatives,
"Segmentations": columns ``index`` and ``name`` are required, more are allowed).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from .errors import CmbprepError

__all__ = ["COLUMNS", "Lesion", "format_lesions", "read_lesions"]

MISSING = "n/a"
RATINGS = ("definite", "possible")
ZONES = ("lobar", "deep", "infratentorial")
HEMISPHERES = ("left", "right", "midline")
SUSCEPTIBILITIES = ("paramagnetic", "diamagnetic", "unknown")

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


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One microbleed, or a candidate for one: a row of the lesion table.

    Positions are in millimetres in RAS+ scanner coordinates. ``None`` stands for a value
    that could not be had and is written as ``n/a``.
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
        for value in (self.x, self.y, self.z):
            if not math.isfinite(value):
                raise ValueError(f"lesion {self.index}: a coordinate is not finite")
        if not self.volume_mm3 > 0:
            raise ValueError(f"lesion {self.index}: volume {self.volume_mm3} is not positive")
        for name in ("probability", "region_fraction", "contrast"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"lesion {self.index}: {name} {value} is outside 0..1")
        for name, allowed in (
            ("rating", RATINGS),
            ("zone", ZONES),
            ("hemisphere", HEMISPHERES),
            ("susceptibility", SUSCEPTIBILITIES),
        ):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"lesion {self.index}: {name} {value!r} is none of {allowed}")

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre of mass, mm, RAS+ scanner coordinates."""
        return (self.x, self.y, self.z)


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
    """Give the text of a lesion table (TSV with a header; header only if there are none)."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for lesion in lesions:
        writer.writerow([_cell(name, getattr(lesion, name)) for name in COLUMNS])
    return out.getvalue()


def read_lesions(path: Path) -> list[Lesion]:
    """Read a lesion table that :func:`format_lesions` wrote; unknown columns are ignored.

    Raises
    ------
    CmbprepError
        If the table lacks a required column or a value is not of its column's kind.
    """
    kinds = {field.name: str(field.type) for field in fields(Lesion)}
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    lesions = []
    for number, row in enumerate(rows, start=2):
        try:
            values = {
                name: _parse(kinds[name], text)
                for name, text in row.items()
                if name in kinds and text is not None and text != MISSING
            }
            lesions.append(Lesion(**values))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise CmbprepError(
                f"line {number} is not a row of a lesion table ({error})", path=path
            ) from error
    return lesions


def _parse(kind: str, text: str) -> object:
    if kind.startswith("int"):
        return int(text)
    if kind.startswith("float"):
        return float(text)
    if kind.startswith("bool"):
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"
    return text
