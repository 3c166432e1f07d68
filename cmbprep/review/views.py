"""What the page is told, as JSON: a scan with its lesions, and the state of its review."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cmbprep.lesions import Lesion
from cmbprep.ratings.acts import Act, format_act
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.lesion_view import as_lesion
from cmbprep.ratings.outline import Outline
from cmbprep.ratings.replay import Item, State
from cmbprep.review.images import PageGrid

__all__ = ["act_view", "scan_view", "state_view"]


def scan_view(
    automatic: Automatic,
    state: State,
    grid: PageGrid,
    *,
    images: Sequence[dict[str, str]],
    blinded: bool,
) -> dict[str, Any]:
    """Return a scan as the page reads it.

    Parameters
    ----------
    automatic
        The scan.
    state
        What holds.
    grid
        The scan's grid in the page's order.
    images
        What can be shown.
    blinded
        Leave out what the detector has rated.
    """
    items = [
        _item_view(Item(key=key, verdict=None), lesion, grid, blinded=blinded)
        for key, lesion in automatic.by_key.items()
    ]
    for key in automatic.candidates:
        item = Item(key=key, verdict=None)
        items.append(_item_view(item, as_lesion(automatic, item), grid, blinded=blinded))
    items += [
        _item_view(item, as_lesion(automatic, item), grid, blinded=blinded)
        for item in state.items.values()
        if item.kind == "added"
    ]
    scheme = automatic.scheme
    regions = {region.name: region.zone for region in scheme.regions}
    return {
        "name": automatic.name,
        "shape": list(grid.shape),
        "affine": grid.affine.round(6).tolist(),
        "spacing": grid.spacing,
        "images": list(images),
        "items": items,
        "scheme": {
            "name": scheme.name,
            "regions": [{"name": name, "zone": zone} for name, zone in regions.items()],
        },
        "state": state_view(automatic, state, grid),
        "acts": state.acts,
    }


def _item_view(item: Item, lesion: Lesion, grid: PageGrid, *, blinded: bool) -> dict[str, Any]:
    return {
        "key": item.key,
        "kind": item.kind,
        **_geometry(lesion, grid),
        "probability": None if blinded else lesion.probability,
        "rating": None if blinded or item.kind == "added" else lesion.rating,
        "zone": lesion.zone,
        "region": lesion.region,
        "hemisphere": lesion.hemisphere,
        "susceptibility": None if blinded else lesion.susceptibility,
        "contrast": lesion.contrast,
    }


def _geometry(lesion: Lesion, grid: PageGrid) -> dict[str, Any]:
    return {
        "centre_ijk": grid.voxel(lesion.centre),
        "centre_ras": [round(value, 2) for value in lesion.centre],
        "diameter_mm": round(lesion.diameter_mm, 2),
        "volume_mm3": round(lesion.volume_mm3, 2),
    }


def state_view(automatic: Automatic, state: State, grid: PageGrid) -> dict[str, Any]:
    """Return what holds, as the page reads it."""
    return {
        "items": {key: _state_item(automatic, item, grid) for key, item in state.items.items()},
        "order": sorted(state.items, key=_reading_order),
        "finished": state.finished,
        "undo_depth": state.undo_depth,
        "redo_depth": state.redo_depth,
        "scan": {
            "siderosis": state.scan.siderosis,
            "quality": state.scan.quality,
            "findings": list(state.scan.findings),
            "note": state.scan.note,
        },
        "comment": state.comment,
    }


def _reading_order(key: str) -> tuple[int, int]:
    return "LNC".index(key[0]), int(key[1:])


def _state_item(automatic: Automatic, item: Item, grid: PageGrid) -> dict[str, Any]:
    lesion = as_lesion(automatic, item)
    view = {
        "kind": item.kind,
        "verdict": item.verdict,
        "reason": item.reason,
        "region": lesion.region,
        "zone": lesion.zone,
        "hemisphere": lesion.hemisphere,
        "comment": item.comment,
        "deleted_by": item.deleted_by,
        "reviewed_at": item.reviewed_at,
        **_geometry(lesion, grid),
    }
    if item.outline is not None:
        view |= _outline_view(item.outline, grid)
    return view


def _outline_view(outline: Outline, grid: PageGrid) -> dict[str, Any]:
    return {
        "contrast": outline.contrast,
        "segmented": outline.segmented,
        "runs": grid.runs(outline.voxels(grid.own_shape)),
    }


def act_view(act: Act) -> dict[str, Any]:
    """Return an act without the voxels, which are in the state."""
    content: dict[str, Any] = json.loads(format_act(act))
    content.pop("outlines", None)
    return content
