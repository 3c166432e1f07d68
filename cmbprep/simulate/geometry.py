"""Where a scan lies, and where the head lies in the scanner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .protocols import Protocol

__all__ = ["Geometry", "plan_geometry", "rotation", "unfolded"]


@dataclass(frozen=True)
class Geometry:
    """Where a scan lies and where the head lies in the scanner.

    Attributes
    ----------
    affine
        4x4, voxel -> scanner mm (RAS+).
    shape
        Voxels of the image.
    pose
        4x4 rigid, head mm -> scanner mm.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    pose: NDArray[np.float64]

    @property
    def head_to_voxel(self) -> NDArray[np.float64]:
        """4x4, head mm -> voxel."""
        result: NDArray[np.float64] = np.linalg.inv(self.affine) @ self.pose
        return result


def plan_geometry(
    protocol: Protocol, centre: Sequence[float], rng: np.random.Generator
) -> Geometry:
    """Pose a head in the scanner and lay the slices.

    Parameters
    ----------
    protocol
        Gives matrix, spacing and orientation.
    centre
        Middle of the brain in head mm: it comes to lie near the isocentre.
    rng
        Source of randomness.
    """
    turn = rotation(np.deg2rad(rng.normal(0, (3.5, 2.0, 2.5))))
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = rng.normal(0, (3.0, 8.0, 5.0)) - turn @ np.asarray(centre)
    tilt = np.deg2rad(rng.uniform(-protocol.tilt, protocol.tilt))
    axes = {
        "axial": np.array([[-1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).T,
        "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T,
        "sagittal": np.array([[0, 1.0, 0], [0, 0, 1], [-1, 0, 0]]).T,
    }[protocol.orientation]
    directions = rotation((tilt, 0.0, 0.0)) @ axes
    shape = (*protocol.matrix, protocol.slices)
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(protocol.spacing)
    middle = pose[:3, :3] @ np.asarray(centre) + pose[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(affine=affine, shape=shape, pose=pose)


def rotation(angles: Iterable[float]) -> NDArray[np.float64]:
    """Rotation by angles in radians about x, then y, then z."""
    x, y, z = angles
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    result: NDArray[np.float64] = about_z @ about_y @ about_x
    return result


def unfolded(geometry: Geometry, fold: int) -> Geometry:
    """The geometry with `fold` voxels more at both ends of the phase-encoded axis."""
    affine = geometry.affine.copy()
    affine[:3, 3] -= fold * affine[:3, 1]
    x, y, z = geometry.shape
    return Geometry(affine=affine, shape=(x, y + 2 * fold, z), pose=geometry.pose)
