"""Prediction of an image part by part, with smooth seams and memory bounded by the part.

Neighbouring tiles overlap. A network sees less than it needs near a tile's border, so the outer
quarter of an overlap is not used at all; over the middle half one tile fades into the next.
What lies beyond the image itself is the network's own affair (its padding), as if it had been
given the whole image: a network that sees no further than a quarter of the overlap gives the
same result with tiles as without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def tile_starts(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Where tiles begin so that they cover an axis and overlap by at least ``overlap``.

    Parameters
    ----------
    length, tile, overlap
        In voxels; ``tile`` is at most ``length``, ``overlap`` less than ``tile``.

    Examples
    --------
    >>> tile_starts(100, 40, 10)
    (0, 30, 60)
    >>> tile_starts(40, 40, 10)
    (0,)
    """
    if not 0 < tile <= length or not 0 <= overlap < tile:
        raise ValueError(f"tiles of {tile} with overlap {overlap} do not cover {length} voxels")
    room = length - tile
    count = 1 + -(-room // (tile - overlap))
    # Whole numbers only, so that no rounding of floats decides.
    return tuple(room * k // max(count - 1, 1) for k in range(count))


def seam_weights(
    length: int, tile: int, starts: Sequence[int], overlap: int
) -> tuple[FloatArray, ...]:
    """Weight of each tile along an axis; they add up to 1 in every voxel.

    Returns
    -------
    tuple of array of shape (tile,)
        Zero in the outer quarter of an overlap, except at the two ends of the axis, where
        there is no other tile.
    """
    margin = overlap // 4
    ramp = max(overlap - 2 * margin, 1)
    from_edge = np.arange(tile) + 0.5 - margin
    rise = np.clip(from_edge / ramp, 0, 1)
    rise = rise * rise * (3 - 2 * rise)
    total = np.zeros(length)
    weights = []
    for start in starts:
        own = np.ones(tile)
        if start > 0:
            own *= rise
        if start + tile < length:
            own *= rise[::-1]
        total[start : start + tile] += own
        weights.append(own)
    return tuple(
        (own / total[start : start + tile]).astype(np.float32)
        for own, start in zip(weights, starts, strict=True)
    )


def predict_tiled(
    channels: FloatArray,
    where: NDArray[np.bool_],
    tile: Sequence[int],
    overlap: Sequence[int],
    predict: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """Predict an image tile by tile.

    Parameters
    ----------
    channels
        (C, X, Y) or (C, X, Y, Z) input.
    where
        (X, Y[, Z]) where the result is wanted; tiles without any of it are left out, so that
        elsewhere the result may be 0 or too small.
    tile, overlap
        Voxels along each axis. An axis shorter than its tile is padded with zeros on both
        sides.
    predict
        Gives the (x, y[, z]) result of one (C, x, y[, z]) tile.

    Returns
    -------
    array of shape (X, Y[, Z])
    """
    shape = where.shape
    before = [max(t - n, 0) // 2 for n, t in zip(shape, tile, strict=True)]
    after = [max(t - n, 0) - b for n, t, b in zip(shape, tile, before, strict=True)]
    widths = list(zip(before, after, strict=True))
    if any(after):
        channels = np.pad(channels, [(0, 0), *widths])
        where = np.pad(where, widths)
    result = np.zeros(where.shape, np.float32)
    axes = []
    for length, size, common in zip(where.shape, tile, overlap, strict=True):
        starts = tile_starts(length, size, common)
        axes.append(list(zip(starts, seam_weights(length, size, starts, common), strict=True)))
    for corner in itertools.product(*axes):
        place = tuple(
            slice(start, start + size) for (start, _), size in zip(corner, tile, strict=True)
        )
        if not where[place].any():
            continue
        part = predict(np.ascontiguousarray(channels[(slice(None), *place)]))
        for axis, (_, weight) in enumerate(corner):
            part = part * weight.reshape([-1 if a == axis else 1 for a in range(len(tile))])
        result[place] += part
    inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    return result[inner]
