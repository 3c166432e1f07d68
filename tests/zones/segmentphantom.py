"""A tiny head with the labels that FreeSurfer would give it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmbprep.zones.parcellation import CLASSES

__all__ = ["SHAPE", "SegmentedHead", "segmented_head"]

SHAPE = (72, 84, 64)


@dataclass(frozen=True)
class SegmentedHead:
    """Labels, the template's classes at each voxel, brain mask, and coordinates (mm, RAS+)."""

    labels: np.ndarray
    template: np.ndarray
    brain: np.ndarray
    affine: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    def at(self, x: float, y: float, z: float) -> tuple[int, int, int]:
        voxel = np.linalg.inv(self.affine) @ [x, y, z, 1]
        i, j, k = np.round(voxel[:3]).astype(int)
        return int(i), int(j), int(k)


def segmented_head() -> SegmentedHead:
    """Make the head: an ellipsoid on a grid of 1 mm, symmetric about x = 0."""
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(SHAPE) - 1) / 2
    x, y, z = (grid + shift for grid, shift in zip(np.indices(SHAPE), affine[:3, 3], strict=True))
    radius = np.sqrt((x / 30) ** 2 + (y / 36) ** 2 + (z / 26) ** 2)
    labels = np.zeros(SHAPE, np.int32)

    def put(where: np.ndarray, left: int, right: int | None = None) -> None:
        labels[where & (x < 0)] = left
        labels[where & (x > 0)] = left if right is None else right

    def box(low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
        place = (np.abs(x), y, z)
        inside = [(a < part) & (part < b) for part, a, b in zip(place, low, high, strict=True)]
        return np.logical_and.reduce(inside)

    put(radius <= 1, 2, 41)
    shell = (radius > 0.88) & (radius <= 1)
    put(shell, 1029, 2029)  # superior parietal
    put(shell & (z < -4), 1015, 2015)  # middle temporal
    put(shell & (y > 8), 1028, 2028)  # superior frontal
    put(shell & (y < -24), 1011, 2011)  # lateral occipital
    put(box((2, -12, 4), (6, 12, 9)), 4, 43)
    put(box((0, -8, -4), (8, 2, 3)), 10, 49)
    put(box((7, 2, 0), (10, 10, 6)), 11, 50)
    put(box((14, -8, -4), (19, 10, 6)), 12, 51)
    put(box((23, -8, -4), (25, 10, 6)), 1035, 2035)
    put(box((0, -14, 10), (2, 14, 12)), 253)
    put(box((0, -4, -9), (6, 4, -4)), 28, 60)
    put(box((0, -5, -22), (6, 5, -9)), 16)
    put((y < -6) & (z < -12) & (radius <= 1), 8, 47)
    template = np.zeros(SHAPE, np.uint8)
    template[radius <= 1] = 1 + CLASSES.index("frontal")
    template[radius <= 0.75] = 1 + CLASSES.index("core white matter")
    # The rim of the brain mask is fluid that nobody has labelled.
    return SegmentedHead(labels, template, radius <= 1.06, affine, x, y, z)
