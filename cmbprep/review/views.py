"""What the page is told, as JSON: a scan with its lesions, and the state of its review."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cmbprep.lesions import Lesion
from cmbprep.ratings.acts import Act, format_act
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.consensus import Review
from cmbprep.ratings.lesion_view import as_lesion
from cmbprep.ratings.outline import Outline
from cmbprep.ratings.replay import Item, State
from cmbprep.ratings.reviewed import reviewed_rows
from cmbprep.reports.packing import PageGrid


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
    listed = _listed_order(automatic, blinded=blinded)
    items = [
        _item_view(Item(key=key, verdict=None), lesion, grid, blinded=blinded)
        for key, lesion in listed.items()
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
        "state": state_view(automatic, state, grid, blinded=blinded),
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


def _listed_order(automatic: Automatic, *, blinded: bool) -> dict[str, Lesion]:
    """Return the automatic lesions as they are read: the most probable first, or from below."""
    lesions = automatic.by_key
    if not blinded:
        return lesions
    # The order by probability would show what is hidden.
    return dict(sorted(lesions.items(), key=lambda item: (item[1].z, item[1].y, item[1].x)))


def state_view(
    automatic: Automatic, state: State, grid: PageGrid, *, blinded: bool
) -> dict[str, Any]:
    """Return what holds, as the page reads it."""
    listed = [key for key in _listed_order(automatic, blinded=blinded) if key in state.items]
    others = sorted((key for key in state.items if key[0] != "L"), key=_after_listed)
    return {
        "items": {key: _state_item(automatic, item, grid) for key, item in state.items.items()},
        "order": [*listed, *others],
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


def _after_listed(key: str) -> tuple[int, int]:
    return "NC".index(key[0]), int(key[1:])


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


def others_view(reviews: Sequence[Review], grid: PageGrid) -> list[dict[str, Any]]:
    """Return what other readers decided, for a session that settles disagreements."""
    return [
        {
            "reader": review.reader.name,
            "round": review.reader.round,
            "verdicts": {key: _last(review.state, key).verdict for key in review.state.items},
            "added": [
                {
                    "key": row.item.key,
                    "verdict": row.item.verdict,
                    "centre_ijk": grid.voxel(row.lesion.centre),
                }
                for row in reviewed_rows(review.automatic, review.state)
                if row.item.kind == "added"
            ],
        }
        for review in reviews
    ]


def _last(state: State, key: str) -> Item:
    """Return the item, or the one that stands for it after a merge or a split."""
    item = state.items[key]
    return item if item.deleted_by is None else _last(state, item.deleted_by)


def act_view(act: Act) -> dict[str, Any]:
    """Return an act without the voxels, which are in the state."""
    content: dict[str, Any] = json.loads(format_act(act))
    content.pop("outlines", None)
    return content
