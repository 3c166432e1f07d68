"""Views of the surroundings of a candidate at fixed physical scales, for a network.

Three kinds of flat views are cut around each candidate, each a stack of planes:

- *near*: the finest plane at 0.75 mm, and parallel planes up to 6 mm away;
- *across*: the two planes at right angles to it, which show whether a dark spot goes on
  through the slices as a vessel does;
- *wide*: 48 mm of the finest plane at 2 mm: gyri, ventricles, the border of the brain.

Positions are in millimetres along the voxel axes, so that the voxel size changes how sharp a
view is but not what it shows. Images are expected with the axis of the thickest voxels last
(:func:`cmbprep.spatial.orientation.slices_last`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_NEAR_STEP, _NEAR_SIZE = 0.75, 28
_DEPTHS = np.arange(-6.0, 6.1, 1.5)
_SIDE_DEPTHS = np.array([-3.0, 0.0, 3.0])
_THROUGH_STEP, _THROUGH_SIZE = 1.5, 16
_BESIDE = np.array([-1.0, 0.0, 1.0])
_WIDE_STEP, _WIDE_SIZE = 2.0, 24
_WIDE_DEPTHS = np.array([-10.0, -5.0, 0.0, 5.0, 10.0])
# Blur that brings an image to the resolution of the wide view, mm.
_WIDE_BLUR = 0.8

#: Channels and size of the views: (channels, rows, columns); `across` is two planes.
NEAR_SHAPE = (len(_DEPTHS) + 2 * len(_SIDE_DEPTHS) + 1, _NEAR_SIZE, _NEAR_SIZE)
ACROSS_SHAPE = (2, len(_BESIDE) + 3, _NEAR_SIZE, _THROUGH_SIZE)
WIDE_SHAPE = (len(_WIDE_DEPTHS) + 2, _WIDE_SIZE, _WIDE_SIZE)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PatchMaps:
    """Images that views are cut from; all (X, Y, Z) on one grid, the slice axis last.

    Attributes
    ----------
    ratio
        Image over its local background: 1 is tissue like its surroundings.
    mask
        Brain.
    susceptibility
        Relative susceptibility, ppm; None without phase.
    growth
        Ratio of an early echo less that of the late ones: how much darker a place has become
        with the echo time; None where there is one echo only.
    spacing
        Voxel size, mm.
    """

    ratio: FloatArray
    mask: NDArray[np.bool_]
    susceptibility: FloatArray | None
    growth: FloatArray | None
    spacing: NDArray[np.float64]

    def __post_init__(self) -> None:
        for image in (self.mask, self.susceptibility, self.growth):
            if image is not None and image.shape != self.ratio.shape:
                raise ValueError("the maps that patches are cut from must be of one shape")


@dataclass(frozen=True)
class Patches:
    """Views of n candidates, float32.

    Attributes
    ----------
    near, across, wide
        n times :data:`NEAR_SHAPE`, :data:`ACROSS_SHAPE` and :data:`WIDE_SHAPE`. Tissue like its
        surroundings is 0, darker is negative.
    """

    near: FloatArray
    across: FloatArray
    wide: FloatArray


def cut_patches(maps: PatchMaps, centres: NDArray[np.floating]) -> Patches:
    """Cut the views of candidates.

    Parameters
    ----------
    maps
        What to cut from.
    centres
        (n, 3) voxel coordinates.

    Returns
    -------
    Patches
        Linearly interpolated. Beyond the end of the image lies its mirror image, about the middle
        of the last slice: were that to go on, a bleed in it would look like a vessel. In the wide
        view the edge goes on.
    """
    points_of = np.asarray(centres, np.float64).reshape(-1, 3)
    shown = np.clip(maps.ratio, 0, 2) - np.float32(1)
    shown = np.where(maps.mask, shown, np.clip(shown, -1, 0.5)).astype(np.float32)
    mask = maps.mask.astype(np.float32)
    none = np.zeros((1, 1, 1), np.float32)
    susceptibility = none if maps.susceptibility is None else _bounded(maps.susceptibility)
    growth = none if maps.growth is None else np.clip(maps.growth, -1, 1).astype(np.float32)
    smooth = ndimage.gaussian_filter(shown, _WIDE_BLUR / maps.spacing, mode="nearest", truncate=3)
    smooth_mask = ndimage.uniform_filter(mask, _odd(_WIDE_STEP / maps.spacing))

    def look(image: FloatArray, points: NDArray[np.floating], beyond: str = "mirror") -> FloatArray:
        return _sample(image, points_of, points / maps.spacing, beyond)

    near_plane = _plane(0, 1)
    near = np.concatenate(
        [
            look(shown, _stack(near_plane, 2, _DEPTHS)),
            look(susceptibility, _stack(near_plane, 2, _SIDE_DEPTHS)),
            look(growth, _stack(near_plane, 2, _SIDE_DEPTHS)),
            look(mask, _stack(near_plane, 2, np.zeros(1))),
        ],
        axis=1,
    )
    across = []
    for axis, other in ((0, 1), (1, 0)):
        plane = _plane(axis, 2)
        middle = _stack(plane, other, np.zeros(1))
        parts = [look(shown, _stack(plane, other, _BESIDE)), look(susceptibility, middle)]
        parts += [look(growth, middle), look(mask, middle)]
        across.append(np.concatenate(parts, axis=1))
    wide_plane = _plane(0, 1, wide=True)
    wide = np.concatenate(
        [
            look(smooth, _stack(wide_plane, 2, _WIDE_DEPTHS), "nearest"),
            look(smooth_mask, _stack(wide_plane, 2, np.array([-10.0, 10.0])), "nearest"),
        ],
        axis=1,
    )
    return Patches(near=near, across=np.stack(across, axis=1), wide=wide)


def _bounded(susceptibility: FloatArray) -> FloatArray:
    """Compress susceptibilities, ppm, to within about -1..1: what matters is their sign."""
    return np.tanh(susceptibility * np.float32(2)).astype(np.float32)


def _odd(sizes: NDArray[np.floating]) -> list[int]:
    """Odd numbers of voxels nearest below, at least 1, so that a window is centred."""
    return [max(1, 2 * int((size + 1) // 2) - 1) for size in sizes]


def _plane(axis: int, other: int, *, wide: bool = False) -> NDArray[np.float64]:
    """Points (rows, columns, 3) in mm of a plane along two axes; columns may be the slices."""
    if wide:
        rows = columns = (np.arange(_WIDE_SIZE) - (_WIDE_SIZE - 1) / 2) * _WIDE_STEP
    else:
        rows = (np.arange(_NEAR_SIZE) - (_NEAR_SIZE - 1) / 2) * _NEAR_STEP
        columns = rows
        if other == 2:
            columns = (np.arange(_THROUGH_SIZE) - (_THROUGH_SIZE - 1) / 2) * _THROUGH_STEP
    points = np.zeros((len(rows), len(columns), 3))
    points[..., axis] = rows[:, None]
    points[..., other] = columns[None, :]
    return points


def _stack(
    plane: NDArray[np.floating], axis: int, offsets: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Copies (k, rows, columns, 3) of a plane, moved along an axis."""
    points = np.repeat(plane[None], len(offsets), axis=0)
    points[..., axis] += offsets[:, None, None]
    return points


def _sample(
    image: FloatArray, centres: NDArray[np.float64], offsets: NDArray[np.floating], beyond: str
) -> FloatArray:
    """Values (n, *offsets.shape[:-1]) at offsets (voxels) from centres."""
    shape = (len(centres), *offsets.shape[:-1])
    if image.size == 1:
        return np.full(shape, image.flat[0], np.float32)
    values = np.empty(shape, np.float32)
    for row, centre in enumerate(centres):
        points = (offsets + centre).reshape(-1, 3).T
        values[row] = ndimage.map_coordinates(
            image, points, order=1, mode=beyond, output=np.float32
        ).reshape(shape[1:])
    return values
