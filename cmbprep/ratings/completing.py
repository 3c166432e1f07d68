"""Segment the lesions that an act makes or moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cmbprep.ratings.acts import Add, Merge, Move, Payload, Split, Verdict
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.outline import Outline
from cmbprep.ratings.replay import Item, RefusedActError, State
from cmbprep.ratings.segmenting import Segmenter

#: A new lesion of which more lies in another one is that one.
SAME_FRACTION = 0.5


def complete(
    automatic: Automatic, state: State, payload: Payload, segmenter: Callable[[], Segmenter]
) -> dict[str, Outline]:
    """Return the outlines of the lesions that an act makes or moves, by their keys.

    Parameters
    ----------
    automatic
        The scan.
    state
        What holds before the act.
    payload
        The act, checked and numbered.
    segmenter
        Returns the scan's images; called only where something is segmented.

    Raises
    ------
    RefusedActError
        If a position is not on the scan, or a lesion is added where there is one.
    """
    match payload:
        case Add(lesion=str(key)):
            _require_inside(segmenter(), payload.centre_ras)
            outline = segmenter().at_point(payload.centre_ras)
            _require_free(segmenter(), state, outline)
            return {key: outline}
        case Move():
            _require_inside(segmenter(), payload.centre_ras)
            return {payload.lesion: segmenter().at_point(payload.centre_ras)}
        case Merge(lesion=str(key)):
            parts = [_voxels(automatic, state, part, segmenter()) for part in payload.lesions]
            return {key: segmenter().of_voxels(np.unique(np.concatenate(parts), axis=0))}
        case Split(lesions=tuple(keys)):
            for centre in payload.centres:
                _require_inside(segmenter(), centre)
            voxels = _voxels(automatic, state, payload.lesion, segmenter())
            return dict(zip(keys, segmenter().divide(voxels, payload.centres), strict=True))
        case Verdict() if payload.lesion in automatic.candidates:
            item = state.items.get(payload.lesion)
            if item is None or item.outline is None:
                return {payload.lesion: _candidate(automatic, payload.lesion, segmenter())}
    return {}


def _require_inside(segmenter: Segmenter, centre: Sequence[float]) -> None:
    if not segmenter.contains(centre):
        raise RefusedActError("this position is not on the scan")


def _require_free(segmenter: Segmenter, state: State, outline: Outline) -> None:
    voxels = outline.voxels(segmenter.shape)
    labels = segmenter.labels[tuple(voxels.T)]
    own = {tuple(voxel) for voxel in voxels}
    for item in state.items.values():
        if item.deleted_by is not None:
            continue
        if item.outline is not None:
            shared = len(own.intersection(map(tuple, item.outline.voxels(segmenter.shape))))
        elif item.kind == "listed":
            shared = int(np.count_nonzero(labels == int(item.key[1:])))
        else:
            continue
        if shared > SAME_FRACTION * len(voxels):
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
