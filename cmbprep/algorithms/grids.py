"""Voxel grids in the scanner's space, and resampling onto coarser working grids.

Coordinates are millimetres in RAS+ (x to the right, y to the front, z upwards); an
affine is the 4x4 matrix from voxel indices (centres at whole numbers) to them, as in
nibabel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .grid_match import GRID_TOLERANCE, GridGap, grid_gap, same_grid
from .threads import map_in_threads

__all__ = [
    "GRID_TOLERANCE",
    "Grid",
    "GridGap",
    "boxed_grid",
    "crop_grid",
    "grid_gap",
    "resample_to_grid",
    "respaced_grid",
    "same_grid",
    "working_grid",
]

#: Gaussian full width at half maximum over its standard deviation.
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True, eq=False)
class Grid:
    """A three-dimensional lattice of voxels in scanner space.

    Parameters
    ----------
    shape
        Number of voxels along each axis.
    affine : array of shape (4, 4)
        From voxel indices to RAS+ millimetres.

    Raises
    ------
    ValueError
        If the shape is not three positive numbers or the affine cannot be inverted.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a grid has three axes of at least one voxel, not {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("the affine is not a finite 4x4 matrix")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError("the affine cannot be inverted")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", affine)

    def offset_in(self, other: Grid) -> tuple[int, int, int] | None:
        """Where the first voxel lies in another grid, if voxels fall on voxels there.

        The two may cover different fields of view. None where any voxel would be off by more
        than a thousandth: files keep affines in single precision.
        """
        between = np.linalg.inv(other.affine) @ self.affine
        offset = np.round(between[:3, 3])
        corners = np.array(list(product(*[(0, n - 1) for n in self.shape])))
        off = corners @ between[:3, :3].T + between[:3, 3] - (corners + offset)
        if np.abs(off).max() > 1e-3:
            return None
        i, j, k = (int(n) for n in offset)
        return i, j, k

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance between voxel centres along each axis, mm."""
        return np.asarray(voxel_sizes(self.affine), dtype=np.float64)

    def points(self, slices: slice = slice(None)) -> NDArray[np.float64]:
        """Voxel centres, RAS+ mm, shape (n, 3) in C order; ``slices`` of the first axis."""
        first = np.arange(self.shape[0])[slices]
        axes = (first, np.arange(self.shape[1]), np.arange(self.shape[2]))
        index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]


def crop_grid(grid: Grid, corner: ArrayLike, shape: ArrayLike) -> Grid:
    """Give the part of a grid that starts at a voxel and has a shape."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.asarray(corner, dtype=float)
    i, j, k = (int(n) for n in np.asarray(shape))
    return Grid((i, j, k), affine)


def boxed_grid(grid: Grid, box: Sequence[slice]) -> Grid:
    """Give the part of a grid that lies in a box."""
    return crop_grid(grid, [s.start for s in box], [s.stop - s.start for s in box])


def working_grid(
    shape: tuple[int, int, int], affine: ArrayLike, spacing: float, *, margin: float = 0.0
) -> Grid:
    """Lay a grid without shear over the field of view of another one.

    The axes are the nearest orthonormal ones to those given (polar decomposition), in
    the same order and with the same signs. No axis gets finer than it was: a 5 mm slice
    stays 5 mm thick.

    Parameters
    ----------
    shape, affine
        The grid to cover.
    spacing
        Voxel size wanted, mm; axes that are coarser keep theirs.
    margin
        Width added on each side of the field of view, mm.
    """
    source = Grid(shape, np.asarray(affine, dtype=np.float64))
    left, _, right = np.linalg.svd(source.affine[:3, :3] / source.spacing)
    directions = left @ right
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in source.shape])).reshape(3, -1)
    along = directions.T @ (source.affine[:3, :3] @ corners + source.affine[:3, 3:])
    low, high = along.min(axis=1) - margin, along.max(axis=1) + margin
    steps = np.maximum(source.spacing, spacing)
    counts = np.maximum(np.round((high - low) / steps), 1).astype(int)
    # Centre the lattice on the field of view.
    first = (low + high) / 2 - (counts - 1) / 2 * steps
    result = np.eye(4)
    result[:3, :3] = directions * steps
    result[:3, 3] = directions @ first
    return Grid((int(counts[0]), int(counts[1]), int(counts[2])), result)


def respaced_grid(shape: tuple[int, int, int], affine: ArrayLike, spacing: ArrayLike) -> Grid:
    """Lay a grid of other voxel sizes over the field of view of another one.

    The axes keep their order and directions; an axis may get finer or coarser.

    Parameters
    ----------
    shape, affine
        The grid to cover.
    spacing
        Voxel sizes wanted along its axes, mm. They are kept; the field of view is covered to
        the nearest voxel, from its middle.
    """
    source = Grid(shape, np.asarray(affine, dtype=np.float64))
    ratio = np.asarray(spacing, dtype=np.float64) / source.spacing
    counts = np.maximum(np.round(np.array(source.shape) / ratio), 1).astype(int)
    # In voxels of the source, whose field of view goes from -0.5 to n - 0.5.
    first = (np.array(source.shape) - 1) / 2 - (counts - 1) / 2 * ratio
    result = np.eye(4)
    result[:3, :3] = source.affine[:3, :3] * ratio
    result[:3, 3] = source.affine[:3, :3] @ first + source.affine[:3, 3]
    return Grid((int(counts[0]), int(counts[1]), int(counts[2])), result)


def resample_to_grid(
    data: NDArray[np.generic],
    affine: ArrayLike,
    grid: Grid,
    *,
    order: int = 1,
    smooth: bool = True,
    extend: bool = False,
) -> NDArray[np.float32]:
    """Resample an image onto a grid in the same space, without aliasing.

    Where the grid is coarser, the image is first smoothed along each of its axes by the
    Gaussian that brings its resolution to the grid's.

    Parameters
    ----------
    data : array of shape (i, j, k)
    affine : array of shape (4, 4)
        Voxel to RAS+ mm of ``data``.
    grid
        Where to sample.
    order
        Of the spline: 0 nearest neighbour (no smoothing then), 1 linear, 3 cubic.
    smooth
        Whether to smooth; without it, values are read off at the points of the grid.
    extend
        Whether the image goes on beyond its border as it is there; else it is 0 outside.
    """
    source = Grid(data.shape, np.asarray(affine, dtype=np.float64))
    to_source = np.linalg.inv(source.affine) @ grid.affine
    values = np.asarray(data, dtype=np.float32)
    if order > 0 and smooth:
        # Source voxels spanned by one step of the grid, along each source axis.
        stride = np.abs(to_source[:3, :3]).max(axis=1)
        sigma = np.sqrt(np.maximum(stride**2 - 1.0, 0.0)) / FWHM_PER_SIGMA
        if sigma.any():
            values = _smooth(values, sigma)
    mode = "nearest" if extend else "grid-constant"
    return ndimage.affine_transform(
        values, to_source, output_shape=grid.shape, order=order, mode=mode, cval=0.0
    )


def _halves(length: int) -> list[slice]:
    middle = (length + 1) // 2
    return [slice(0, middle), slice(middle, length)] if length > 1 else [slice(0, length)]


def _smooth(values: NDArray[np.float32], sigma: NDArray[np.floating]) -> NDArray[np.float32]:
    """Smooth by a Gaussian that ends at three standard deviations."""
    # In C order, whatever the order of the image: what comes after it is twice as fast.
    result = np.empty(values.shape, dtype=np.float32)

    def along_first_axis(part: slice) -> None:
        width = (sigma[0], 0.0, 0.0)
        here = (slice(None), slice(None), part)
        ndimage.gaussian_filter(
            values[here], width, truncate=3.0, mode="nearest", output=result[here]
        )

    def along_the_others(part: slice) -> None:
        width = (0.0, *sigma[1:])
        here = result[part]
        ndimage.gaussian_filter(here, width, truncate=3.0, mode="nearest", output=here)

    map_in_threads(along_first_axis, _halves(values.shape[2]))
    map_in_threads(along_the_others, _halves(values.shape[0]))
    return result
