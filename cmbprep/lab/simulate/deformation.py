"""Deformations that make one head from another, and volumes on their grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class TemplateHead:
    """The template that heads are made from, on one grid.

    Attributes
    ----------
    affine
        4x4, voxel -> RAS+ mm of the template space.
    gm, wm
        Tissue probabilities, 0..1.
    brain_distance
        Signed distance in mm to the surface of the brain with its fluid, negative inside.
    depth
        Distance in mm below the skin, negative outside the head; cavities are inside.
    to_template
        Map from the space of `affine` to the template's, for a head that is not the template.
    """

    affine: NDArray[np.float64]
    gm: Volume
    wm: Volume
    brain_distance: Volume
    depth: Volume
    to_template: Deformation | None = None


@dataclass(frozen=True)
class Deformation:
    """Map from head coordinates to template coordinates: affine plus a smooth displacement.

    Attributes
    ----------
    matrix
        4x4, head mm -> template mm.
    displacement
        Shape (3, X, Y, Z): mm to add after the matrix, on a coarse grid in head
        coordinates; between its nodes it is linear.
    grid
        4x4, voxel of `displacement` -> head mm.
    """

    matrix: NDArray[np.float64]
    displacement: NDArray[np.float32]
    grid: NDArray[np.float64]

    def __call__(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map points of shape (N, 3) in head mm to template mm."""
        from scipy import ndimage

        points = np.asarray(points, dtype=np.float64)
        voxels = _apply(np.linalg.inv(self.grid), points).T
        moved = _apply(self.matrix, points)
        for axis in range(3):
            moved[:, axis] += ndimage.map_coordinates(
                self.displacement[axis], voxels, order=1, mode="nearest"
            )
        return moved

    def inverse(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map points of shape (N, 3) in template mm to head mm, by fixed-point iteration.

        It converges because the displacement changes slowly (its gradient is below 1).
        """
        wanted = np.asarray(points, dtype=np.float64)
        back = np.linalg.inv(self.matrix)
        found = _apply(back, wanted)
        for _ in range(20):
            found = found + (wanted - self(found)) @ back[:3, :3].T
        return found


@dataclass(frozen=True)
class Chain:
    """Two maps, one after the other."""

    first: Deformation
    second: Deformation

    def __call__(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map points of shape (N, 3) by the first map and then the second."""
        return self.second(self.first(points))

    def inverse(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map points of shape (N, 3) back."""
        return self.first.inverse(self.second.inverse(points))


def _apply(affine: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = points @ affine[:3, :3].T + affine[:3, 3]
    return result


def along(axis: int) -> tuple[int, int, int]:
    """Return the shape that lays a line of values along one axis of an image."""
    x, y, z = (-1 if k == axis else 1 for k in range(3))
    return (x, y, z)
