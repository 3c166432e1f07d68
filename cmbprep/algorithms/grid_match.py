"""Comparison of two voxel grids.

The affines that two files give for one grid are rarely equal to the last digit: converters
round, and the quaternion of the qform holds less than the matrix of the sform. The position
of the corners shows whether a difference matters; a difference of matrix elements does not,
because a small rotation moves the far end of a large grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["GRID_TOLERANCE", "GridGap", "grid_gap", "same_grid", "trimmed_shape"]

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
    shape: Sequence[int],
    affine: ArrayLike,
    other_shape: Sequence[int],
    other_affine: ArrayLike,
    *,
    tolerance: float = GRID_TOLERANCE,
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
    tolerance
        Largest distance of corresponding corners, in voxels.

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
    return grid_gap(shape, affine, other_shape, other_affine).voxels <= tolerance


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
