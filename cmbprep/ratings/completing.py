"""Segment the lesions that an act makes or moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cmbprep.ratings.acts import Add, Merge, Move, Payload, Split, Verdict
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.outline import Outline
from cmbprep.ratings.replay import POSITIVE, Item, RefusedActError, State
from cmbprep.ratings.segmenting import Segmenter

#: Two lesions are one if they share more than this of the smaller one.
SAME_FRACTION = 0.5


def complete(
    automatic: Automatic, state: State, payload: Payload, segmenter: Callable[[], Segmenter]
) -> dict[str, Outline]:
    """Return the outlines of the lesions that an act makes or moves, by their keys.

    No two lesions that count may be the same one, so an act that would make it so is refused.
    Undo and redo lead back to what held before, and need no check.

    Parameters
    ----------
    automatic
        The scan.
    state
        What holds before the act.
    payload
        The act, checked and numbered.
    segmenter
        Returns the scan's images; called only where something is segmented or compared.

    Raises
    ------
    RefusedActError
        If a position is not on the scan, a lesion is already at the place, or a position at which
        a lesion is split is not on it.
    """
    match payload:
        case Add(lesion=str(key)):
            _require_inside(segmenter(), payload.centre_ras)
            outline = segmenter().at_point(payload.centre_ras)
            others = [item for item in state.items.values() if item.deleted_by is None]
            _require_free(segmenter(), others, outline.voxels(segmenter().shape))
            return {key: outline}
        case Move(lesion=key):
            _require_inside(segmenter(), payload.centre_ras)
            outline = segmenter().at_point(payload.centre_ras)
            others = [item for item in state.items.values() if item.key != key and _holds(item)]
            _require_free(segmenter(), others, outline.voxels(segmenter().shape))
            return {key: outline}
        case Merge(lesion=str(key)):
            parts = [_voxels(automatic, state, part, segmenter()) for part in payload.lesions]
            voxels = np.unique(np.concatenate(parts), axis=0)
            if any(item.key in payload.lesions for item in state.positive):
                _require_free(segmenter(), _counted(state, *payload.lesions), voxels)
            return {key: segmenter().of_voxels(voxels)}
        case Split(lesions=tuple(keys)):
            for centre in payload.centres:
                _require_inside(segmenter(), centre)
            whole = _voxels(automatic, state, payload.lesion, segmenter())
            parts = segmenter().divide(whole, payload.centres)
            if any(item.key == payload.lesion for item in state.positive):
                others = _counted(state, payload.lesion)
                for part in parts:
                    _require_free(segmenter(), others, part)
            return {key: segmenter().of_voxels(part) for key, part in zip(keys, parts, strict=True)}
        case Verdict():
            return _judge(automatic, state, payload, segmenter)
    return {}


def _judge(
    automatic: Automatic, state: State, payload: Verdict, segmenter: Callable[[], Segmenter]
) -> dict[str, Outline]:
    """Return the outline of a candidate that gets its first verdict."""
    key = payload.lesion
    made: dict[str, Outline] = {}
    item = state.items.get(key, Item(key=key, verdict=None))
    if key in automatic.candidates and item.outline is None:
        made = {key: _candidate(automatic, key, segmenter())}
        item = replace(item, outline=made[key])
    if payload.verdict in POSITIVE:
        others = _counted(state, key)
        if item.outline is None:
            # Lesions of one label image do not overlap.
            others = [other for other in others if other.outline is not None]
        if others:
            _require_free(segmenter(), others, segmenter().voxels_of(item))
    return made


def _holds(item: Item) -> bool:
    """Return whether another lesion must not be moved onto an item."""
    return item.positive or (item.kind != "candidate" and item.open)


def _counted(state: State, *but: str) -> list[Item]:
    """Return the lesions that count, but for some."""
    return [item for item in state.positive if item.key not in but]


def _require_inside(segmenter: Segmenter, centre: Sequence[float]) -> None:
    if not segmenter.contains(centre):
        raise RefusedActError("this position is not on the scan")


def _require_free(segmenter: Segmenter, others: Iterable[Item], voxels: NDArray[np.int_]) -> None:
    """Refuse voxels, shape (m, 3), that are the same lesion as another one."""
    own = np.ravel_multi_index(tuple(voxels.T), segmenter.shape)
    for item in others:
        if item.outline is not None:
            theirs = item.outline.voxels(segmenter.shape)
            size = len(theirs)
            there = np.ravel_multi_index(tuple(theirs.T), segmenter.shape)
            shared = len(np.intersect1d(own, there))
        elif item.kind == "listed":
            index = int(item.key[1:])
            shared = int(np.count_nonzero(segmenter.labels[tuple(voxels.T)] == index))
            size = int(np.count_nonzero(segmenter.labels == index)) if shared else 0
        else:
            continue
        if shared > SAME_FRACTION * min(len(own), size):
            raise RefusedActError(f"the lesion {item.key} is at this place already")


def _candidate(automatic: Automatic, key: str, segmenter: Segmenter) -> Outline:
    candidate = automatic.candidates[key]
    if not segmenter.contains(candidate.centre_ras):
        raise RefusedActError(f"the candidate {key} is not on the scan")
    return segmenter.at_point(candidate.centre_ras, candidate.diameter_mm / 2)


def _voxels(automatic: Automatic, state: State, key: str, segmenter: Segmenter) -> NDArray[np.int_]:
    """Return the voxels of a lesion, shape (m, 3)."""
    item = state.items.get(key, Item(key=key, verdict=None))
    if item.outline is None and key in automatic.candidates:
        return _candidate(automatic, key, segmenter).voxels(segmenter.shape)
    return segmenter.voxels_of(item)
