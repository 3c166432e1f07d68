"""Voxel grids in the scanner's space, and resampling onto coarser working grids.

Coordinates are millimetres in RAS+ (x to the right, y to the front, z upwards); an
affine is the 4x4 matrix from voxel indices (centres at whole numbers) to them, as in
nibabel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TypeVar

import numpy as np
from nibabel.affines import from_matvec, to_matvec, voxel_sizes
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

# --- Comparison of two voxel grids ---------------------------------------------------------------
#
# The affines that two files give for one grid are rarely equal to the last digit: converters
# round, and the quaternion of the qform holds less than the matrix of the sform. The position
# of the corners shows whether a difference matters; a difference of matrix elements does not,
# because a small rotation moves the far end of a large grid.


#: Largest distance of corresponding corners, in voxels, at which two grids are one. Rounding
#: in headers stays far below it; a shift by less has no visible effect on the values.
GRID_TOLERANCE = 0.02


@dataclass(frozen=True)
class GridGap:
    """Difference between two grids.

    Parameters
    ----------
    shape, other_shape
        Voxels per axis, without trailing axes of length one.
    voxels
        Largest distance of corresponding corners along any voxel axis, in voxels; infinite if
        the shapes differ or an affine cannot be used.
    mm
        Largest distance of corresponding corners, mm; infinite likewise.
    """

    shape: tuple[int, ...]
    other_shape: tuple[int, ...]
    voxels: float
    mm: float

    def __str__(self) -> str:
        if self.shape != self.other_shape:
            return f"shape {self.shape} against {self.other_shape}"
        if not np.isfinite(self.voxels):
            return "an affine is unusable"
        return f"corners up to {self.mm:.3g} mm ({self.voxels:.2g} voxels) apart"


def grid_gap(
    shape: Sequence[int], affine: ArrayLike, other_shape: Sequence[int], other_affine: ArrayLike
) -> GridGap:
    """Measure how far apart two grids put the corners of their field of view.

    Parameters
    ----------
    shape, other_shape
        Voxels per axis. Trailing axes of length one are ignored; axes beyond the third must
        agree as the others.
    affine, other_affine : array of shape (4, 4)
        From voxel indices to mm.

    Returns
    -------
    GridGap
        Distances; the one in voxels is measured with the voxels of either grid, and the
        larger value is taken, so that the order of the two does not matter.
    """
    first, second = trimmed_shape(shape), trimmed_shape(other_shape)
    one, two = _usable(affine), _usable(other_affine)
    if first != second or one is None or two is None:
        return GridGap(first, second, np.inf, np.inf)
    # Outer corners: along an axis of one voxel, the centres would not show its direction.
    corners = np.array(list(product(*[(-0.5, n - 0.5) for n in first[:3]], (1.0,)))).T
    apart = (two - one) @ corners
    in_voxels = max(np.abs(np.linalg.inv(matrix) @ apart).max() for matrix in (one, two))
    return GridGap(first, second, float(in_voxels), float(np.linalg.norm(apart, axis=0).max()))


def same_grid(
    shape: Sequence[int], affine: ArrayLike, other_shape: Sequence[int], other_affine: ArrayLike
) -> bool:
    """Return whether two images lie on the same grid.

    They do if the shapes agree and all corresponding corners of the field of view agree
    within a small part of a voxel along each voxel axis. A flipped axis is another grid.

    Parameters
    ----------
    shape, other_shape
        Voxels per axis. Trailing axes of length one are ignored.
    affine, other_affine : array of shape (4, 4)
        From voxel indices to mm.

    Examples
    --------
    >>> import numpy as np
    >>> affine, shifted = np.diag([3.0, 3.0, 8.0, 1.0]), np.diag([3.0, 3.0, 8.0, 1.0])
    >>> shifted[2, 3] = 0.004
    >>> same_grid((64, 80, 20), affine, (64, 80, 20, 1), shifted)
    True
    >>> shifted[2, 3] = 0.4
    >>> same_grid((64, 80, 20), affine, (64, 80, 20), shifted)
    False
    """
    return grid_gap(shape, affine, other_shape, other_affine).voxels <= GRID_TOLERANCE


def trimmed_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Drop trailing axes of length one beyond the third, and add those that are missing."""
    sizes = [int(n) for n in shape]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    return (*sizes, *[1] * (3 - len(sizes)))


def _usable(affine: ArrayLike) -> NDArray[np.float64] | None:
    """Return an affine as a matrix; None if it cannot be inverted."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return None
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        return None
    return matrix


# --- The box that holds a mask, and the distance from its surface --------------------------------


def bounding_box(mask: NDArray[np.bool_], margin: ArrayLike = 0) -> tuple[slice, slice, slice]:
    """Return the box of a mask, and so many voxels around it as far as the image goes.

    Parameters
    ----------
    mask
        (X, Y, Z).
    margin
        Voxels, along each axis or along all.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError("an empty mask has no box")
    i, j, k = (
        slice(max(s.start - int(n), 0), min(s.stop + int(n), size))
        for s, n, size in zip(found[0], np.broadcast_to(margin, 3), mask.shape, strict=True)
    )
    return i, j, k


def neighbours(axis: int, ndim: int = 3) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the indices of all voxels with a neighbour along an axis, and of these neighbours."""
    low, high = [slice(None)] * ndim, [slice(None)] * ndim
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest 6-connected piece of a mask; of equal ones the first."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))


def signed_distance(
    mask: NDArray[np.bool_], spacing: NDArray[np.floating], reach: float
) -> NDArray[np.float64]:
    """Distance between each voxel and the nearest one on the other side of a mask's surface.

    Parameters
    ----------
    mask
        (X, Y, Z), not empty.
    spacing
        Voxel size along each axis, mm.
    reach
        Outside the box that holds the mask and this much around it, mm, nothing is measured:
        most of an image is far away.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z), mm; negative within the mask, infinite where nothing was measured.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    # One voxel more, for the nearest outside of the mask.
    box = bounding_box(mask, np.ceil(reach / np.asarray(spacing)).astype(int) + 1)
    part = mask[box]
    distance = np.full(mask.shape, np.inf)
    outside = ndimage.distance_transform_edt(~part, sampling=spacing)
    distance[box] = outside - ndimage.distance_transform_edt(part, sampling=spacing)
    return distance


# --- Connected parts of masks and of probability maps --------------------------------------------


#: Number of neighbours that count as connected -> largest number of steps along axes.
CONNECTIVITIES = {6: 1, 18: 2, 26: 3}


def connected_parts(
    probability: NDArray[np.floating], threshold: float, connectivity: int = 6, least: int = 1
) -> list[tuple[float, NDArray[np.int_]]]:
    """Find the connected parts of a map at or above a threshold, the highest first.

    Parameters
    ----------
    probability
        (X, Y, Z).
    threshold
        Lowest value of a voxel that belongs to a part.
    connectivity
        6, 18 or 26 neighbours.
    least
        Smallest number of voxels of a part.

    Returns
    -------
    list of (peak, voxels)
        Highest value, and (m, 3) voxel coordinates; parts with the same peak are in the order
        of the position of their peak.
    """
    structure = ndimage.generate_binary_structure(3, CONNECTIVITIES[connectivity])
    labels, _ = ndimage.label(probability >= threshold, structure)
    parts = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        voxels = np.argwhere(labels[box] == label) + [s.start for s in box]
        if len(voxels) < least:
            continue
        values = probability[tuple(voxels.T)]
        peak = int(np.argmax(values))
        parts.append((float(values[peak]), tuple(voxels[peak]), voxels))
    parts.sort(key=lambda part: (-part[0], part[1]))
    return [(peak, voxels) for peak, _, voxels in parts]


def one_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest 6-connected piece of a mask, and fill its holes.

    Parameters
    ----------
    mask
        (X, Y, Z).

    Returns
    -------
    ndarray
        The same shape. A hole is what no 6-connected way leads out of; the end of the image
        is outside. Of pieces of one size the first is kept; without any voxel, none is given.
    """
    # In the box that holds it: most of a scan is air.
    found = ndimage.find_objects(mask.view(np.uint8), 1)
    if not found or found[0] is None:
        return mask.copy()
    part = largest_piece(mask[found[0]])
    # The rim is air, so that what opens to the side of the box is no hole.
    whole = np.zeros_like(mask)
    whole[found[0]] = ndimage.binary_fill_holes(np.pad(part, 1))[1:-1, 1:-1, 1:-1]
    return whole


# --- Independent pieces of work, side by side ----------------------------------------------------
#
# numpy and scipy let go of Python's lock while they compute, so that threads do. Each piece is
# computed as it would be alone, so the results do not depend on how many processors there are.


#: As many as a registration is given processors (``--omp-nthreads``) where there are two.
THREADS = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function for each item, on :data:`THREADS` threads; results in the items' order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


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

    shape: tuple[int, ...]
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
        i, j, k = offset.astype(int).tolist()
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
    """Return the part of a grid that starts at a voxel and has a shape."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.asarray(corner, dtype=float)
    return Grid(tuple(np.asarray(shape)), affine)


def boxed_grid(grid: Grid, box: Sequence[slice]) -> Grid:
    """Return the part of a grid that lies in a box."""
    return crop_grid(grid, [s.start for s in box], [s.stop - s.start for s in box])


def working_grid(shape: tuple[int, ...], affine: ArrayLike, spacing: float) -> Grid:
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
    """
    source = Grid(shape, np.asarray(affine, dtype=np.float64))
    left, _, right = np.linalg.svd(source.affine[:3, :3] / source.spacing)
    directions = left @ right
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in source.shape])).reshape(3, -1)
    along = directions.T @ (source.affine[:3, :3] @ corners + source.affine[:3, 3:])
    low, high = along.min(axis=1), along.max(axis=1)
    steps = np.maximum(source.spacing, spacing)
    counts = np.maximum(np.round((high - low) / steps), 1).astype(int)
    # Centre the lattice on the field of view.
    first = (low + high) / 2 - (counts - 1) / 2 * steps
    return Grid(tuple(counts), from_matvec(directions * steps, directions @ first))


def respaced_grid(shape: tuple[int, ...], affine: ArrayLike, spacing: ArrayLike) -> Grid:
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
    matrix, origin = to_matvec(source.affine)
    return Grid(tuple(counts), from_matvec(matrix * ratio, matrix @ first + origin))


def resample_to_grid(
    data: NDArray[np.generic],
    affine: ArrayLike,
    grid: Grid,
    *,
    smooth: bool = True,
    extend: bool = False,
) -> NDArray[np.float32]:
    """Resample an image linearly onto a grid in the same space, without aliasing.

    Where the grid is coarser, the image is first smoothed along each of its axes by the
    Gaussian that brings its resolution to the grid's.

    Parameters
    ----------
    data : array of shape (i, j, k)
    affine : array of shape (4, 4)
        Voxel to RAS+ mm of ``data``.
    grid
        Where to sample.
    smooth
        Whether to smooth; without it, values are read off at the points of the grid.
    extend
        Whether the image goes on beyond its border as it is there; else it is 0 outside.
    """
    source = Grid(data.shape, np.asarray(affine, dtype=np.float64))
    to_source = np.linalg.inv(source.affine) @ grid.affine
    values = np.asarray(data, dtype=np.float32)
    if smooth:
        # Source voxels spanned by one step of the grid, along each source axis.
        stride = np.abs(to_source[:3, :3]).max(axis=1)
        sigma = np.sqrt(np.maximum(stride**2 - 1.0, 0.0)) / FWHM_PER_SIGMA
        if sigma.any():
            values = _smooth(values, sigma)
    mode = "nearest" if extend else "grid-constant"
    return ndimage.affine_transform(values, to_source, output_shape=grid.shape, order=1, mode=mode)


def _halves(length: int) -> list[slice]:
    middle = (length + 1) // 2
    return [slice(0, middle), slice(middle, length)] if length > 1 else [slice(0, length)]


def _smooth(values: NDArray[np.float32], sigma: NDArray[np.floating]) -> NDArray[np.float32]:
    """Smooth by a Gaussian that ends at three standard deviations."""
    # In C order, whatever the order of the image: what comes after it is twice as fast.
    result = np.empty(values.shape, dtype=np.float32)
    blur = partial(ndimage.gaussian_filter, truncate=3.0, mode="nearest")

    def along_first_axis(part: slice) -> None:
        blur(values[:, :, part], (sigma[0], 0.0, 0.0), output=result[:, :, part])

    def along_the_others(part: slice) -> None:
        blur(result[part], (0.0, *sigma[1:]), output=result[part])

    map_in_threads(along_first_axis, _halves(values.shape[2]))
    map_in_threads(along_the_others, _halves(values.shape[0]))
    return result
