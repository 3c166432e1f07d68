"""An item of a review as a row of the lesion table."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from cmbprep.lesions import Lesion
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.outline import Outline
from cmbprep.ratings.replay import POSITIVE, Item

_OF_OUTLINE = tuple(
    item.name
    for item in fields(Outline)
    if item.name not in ("centre_ras", "runs", "segmented", "contrast")
)


def as_lesion(automatic: Automatic, item: Item, index: int | None = None) -> Lesion:
    """Return an item as a lesion, with the position, region and verdict that the reader gave it.

    Parameters
    ----------
    automatic
        The result that the item belongs to.
    item
        What the reader decided.
    index
        Label of the lesion; that of the automatic lesion or the number in the key if None.
    """
    number = int(item.key[1:]) if index is None else index
    values: dict[str, Any] = {"index": number, "name": f"CMB-{number:03d}"}
    lesion = automatic.by_key.get(item.key)
    if lesion is not None:
        found = replace(lesion, **values)
        if item.outline is not None:
            found = replace(found, **_outlined(item.outline))
    else:
        candidate = automatic.candidates.get(item.key)
        if candidate is not None:
            values["probability"] = candidate.probability
        if item.outline is not None:
            values |= _outlined(item.outline)
        elif candidate is not None:
            x, y, z = candidate.centre_ras
            size = candidate.diameter_mm
            volume = math.pi / 6 * size**3
            values |= {"x": x, "y": y, "z": z, "diameter_mm": size, "volume_mm3": volume}
        else:
            raise ValueError(f"the item {item.key} has no place")
        found = Lesion(**values)
    if item.region is not None:
        # The reader has decided: no error of registration can change it.
        found = replace(
            found,
            region=item.region,
            zone=automatic.scheme.zone_of(item.region),
            region_fraction=None,
            boundary=False,
        )
    return replace(found, rating=item.verdict if item.verdict in POSITIVE else None)


def _outlined(outline: Outline) -> dict[str, Any]:
    x, y, z = outline.centre_ras
    values = {name: getattr(outline, name) for name in _OF_OUTLINE}
    return {**values, "x": x, "y": y, "z": z, "contrast": outline.contrast}
