"""A small brain-like phantom with known bleeds, veins and a sulcus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class Phantom:
    magnitude: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_]
    bleeds_ras: NDArray[np.float64]


def oblique_affine(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """An affine that is rotated by 20 and 12 degrees."""
    a, b = np.deg2rad([20.0, 12.0])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing)
    affine[:3, 3] = (-31.0, 12.0, -7.0)
    return affine


def make_phantom(spacing: tuple[float, float, float] = (1.0, 1.0, 2.0), seed: int = 3) -> Phantom:
    """Tissue with texture and noise; five round voids; three tubes; a dark sheet."""
    rng = np.random.default_rng(seed)
    size = np.array([96.0, 88.0, 72.0])
    shape = tuple(int(n) for n in np.ceil(size / spacing))
    mm = [np.arange(n) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*mm, indexing="ij")
    middle = (np.array(shape) - 1) * spacing / 2
    mask = ((x - middle[0]) / 44) ** 2 + ((y - middle[1]) / 40) ** 2 + (
        (z - middle[2]) / 33
    ) ** 2 < 1
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), 4.0 / np.array(spacing))
    image = 100 + 5 * texture / texture.std()
    centres = np.array([[30.0, 40, 36], [48, 60, 30], [62, 34, 44], [46, 24, 26], [66, 56, 34]])
    for centre, radius in zip(centres, [2.0, 2.5, 1.6, 3.0, 2.2], strict=True):
        r = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        image *= 1 - 0.8 / (1 + np.exp((r - radius) / 0.35))
    for start, direction in (((30, 60, 36), (1, 0.4, 0.2)), ((40, 40, 30), (0.1, 0.2, 1))):
        point = np.stack([x - start[0], y - start[1], z - start[2]], axis=-1)
        unit = np.array(direction) / np.linalg.norm(direction)
        off = np.linalg.norm(point - (point @ unit)[..., None] * unit, axis=-1)
        image *= 1 - 0.6 / (1 + np.exp((off - 1.2) / 0.3))
    image *= 1 - 0.5 / (1 + np.exp((np.abs(x - 72 - 0.1 * y) - 0.9) / 0.3)) * (y < 50)
    image = image + rng.normal(0, 2.5, shape)
    image[~mask] = 4.0
    affine = oblique_affine(spacing)
    voxels = centres / spacing
    ras = voxels @ affine[:3, :3].T + affine[:3, 3]
    return Phantom(np.maximum(image, 0).astype(np.float32), affine, mask, ras)
