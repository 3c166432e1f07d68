"""Intensity along rays from a point: the shape of a dark spot, at physical distances."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["OPPOSITE", "RAY_VECTORS", "radial_profiles"]


def _ray_vectors() -> NDArray[np.float64]:
    """The 50 integer directions (1,0,0), (1,1,0), (1,1,1), (2,1,0) with all signs and orders.

    The set maps to itself when axes are flipped or swapped, so that features made from it do
    not depend on how an image is stored.
    """
    kinds = {(0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 2)}
    grid = itertools.product(range(-2, 3), repeat=3)
    vectors = [v for v in grid if tuple(sorted(map(abs, v))) in kinds]
    return np.array(vectors, float)


#: (50, 3) directions along the voxel axes, not normalised.
RAY_VECTORS = _ray_vectors()
#: Index of the opposite of each ray.
OPPOSITE = np.array([int(np.flatnonzero((-v == RAY_VECTORS).all(axis=1))[0]) for v in RAY_VECTORS])


def radial_profiles(
    image: NDArray[np.float32],
    centres: NDArray[np.floating],
    spacing: NDArray[np.floating],
    radii_mm: NDArray[np.floating],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Sample an image along rays from each centre.

    Parameters
    ----------
    image
        (X, Y, Z).
    centres
        (n, 3) voxel coordinates.
    spacing
        Voxel size, mm.
    radii_mm
        (r,) distances from the centre.

    Returns
    -------
    profiles, directions
        (n, 50, r) float32 linearly interpolated values (beyond the image, its mirror image),
        and the (50, 3) unit vectors in millimetres along the voxel axes.
    """
    directions = RAY_VECTORS / np.linalg.norm(RAY_VECTORS, axis=1, keepdims=True)
    steps = directions[:, None, :] * radii_mm[None, :, None] / spacing
    points = np.asarray(centres, float)[:, None, None, :] + steps[None]
    values = ndimage.map_coordinates(
        image, points.reshape(-1, 3).T, order=1, mode="mirror", output=np.float32
    )
    return values.reshape(points.shape[:3]), directions
