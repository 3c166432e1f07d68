"""How dark an image is at a place, against how dark it is at the places around.

A lesion that the detector lists at one visit only may still be in the image of the other one.
:func:`signal_loss` measures the loss of signal there as the contrast of the lesion tables is
measured, 1 - value / surroundings, but as its mean in a window of the lesion's size, not at the
darkest voxel: a narrow vein beside the place is no lesion.

The place is known to the error of the registration only: the window is moved within that error,
and the highest loss counts. Noise, veins and sulci are dark too. :func:`losses_around` measures the
places around in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from cmbprep.detectors.segmentation import MAX_RADIUS_MM, surroundings

#: Standard deviation of the window, as a part of the lesion's diameter.
WINDOW_PART = 0.25
#: Variance of the window along each voxel axis, in squared voxel sizes, besides the lesion's.
VOXEL_PART = 1 / 8
#: The window is moved up to this many standard deviations of the registration's error.
REACH = 2.0
#: Step of these moves, mm.
STEP_MM = 1.0
#: Distances of the places around that a place is compared with, mm, and places at each distance.
AROUND_MM, DIRECTIONS = (10.0, 14.0, 18.0, 22.0), 12
#: Known lesions are at least this far from such a place, mm.
CLEAR_MM = 8.0
#: Places around that are enough for a comparison.
ENOUGH = 12
# Losses below this are fluid, which would hide a void beside it.
_BRIGHTEST = -0.15
# Rim in which the surroundings are measured, beyond the lesion, mm.
_RIM_MM = 5.0

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BrainImage:
    """An image with its brain; :meth:`of` makes it.

    Attributes
    ----------
    values
        Corrected magnitude, (X, Y, Z); 0 where it is not finite.
    brain
        Brain mask without the voxels that are not finite, (X, Y, Z).
    affine
        4 x 4, voxel to RAS+ mm.
    """

    values: NDArray[np.float32]
    brain: NDArray[np.bool_]
    affine: FloatArray

    @classmethod
    def of(
        cls, values: NDArray[np.floating], brain: NDArray[np.bool_], affine: FloatArray
    ) -> BrainImage:
        """Leave voxels that are not finite out of the brain.

        Raises
        ------
        ValueError
            If the image and the mask differ in shape.
        """
        if values.shape != brain.shape:
            raise ValueError(f"image {values.shape} and brain mask {brain.shape} differ in shape")
        known = np.isfinite(values)
        # A large image is not copied without need.
        filled = values if known.all() else np.where(known, values, 0)
        return cls(filled.astype(np.float32, copy=False), brain & known, np.asarray(affine, float))

    def voxel(self, point: FloatArray) -> FloatArray:
        """Return the voxel coordinates (3,) of a point, RAS+ mm."""
        return np.asarray((np.linalg.inv(self.affine) @ np.append(point, 1.0))[:3])

    def holds(self, point: FloatArray) -> bool:
        """Return whether a point, RAS+ mm, lies in the brain."""
        index = np.round(self.voxel(point)).astype(int)
        inside = np.all((index >= 0) & (index < self.brain.shape))
        return bool(inside and self.brain[tuple(index)])

    def around(self, point: FloatArray, margin_mm: float) -> BrainImage:
        """Return the part of the image around a point; empty where the image does not reach."""
        half = np.ceil(margin_mm / voxel_sizes(self.affine)).astype(int)
        middle = np.round(self.voxel(point)).astype(int)
        low = np.clip(middle - half, 0, self.brain.shape)
        high = np.clip(middle + half + 1, low, self.brain.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ low
        return BrainImage(self.values[box], self.brain[box], affine)


def window(diameter_mm: float, affine: FloatArray) -> FloatArray:
    """Return the covariance of the window of a lesion in an image, mm², (3, 3)."""
    axes = np.asarray(affine, float)[:3, :3]
    own = np.eye(3) * (WINDOW_PART * diameter_mm) ** 2
    return np.asarray(own + VOXEL_PART * axes @ axes.T)


def signal_loss(
    image: BrainImage, point: FloatArray, diameter_mm: float, error_mm: float
) -> float | None:
    """Return the mean loss of signal in a window at a place, at most 1.

    Parameters
    ----------
    image
        The image that is looked at.
    point
        Where the lesion is expected in it, RAS+ mm.
    diameter_mm
        Of the lesion.
    error_mm
        Error of that place, mm: one standard deviation along each axis.

    Returns
    -------
    float or None
        The highest within the error; 0 as in the surroundings. None where the brain around the
        place is too small to tell.
    """
    diameter = min(diameter_mm, 2 * MAX_RADIUS_MM)
    reach = REACH * error_mm
    part = image.around(point, diameter / 2 + _RIM_MM + reach)
    if not part.brain.any():
        return None
    grid = np.indices(part.brain.shape).reshape(3, -1).T
    points = grid @ part.affine[:3, :3].T + part.affine[:3, 3]
    distance = np.linalg.norm(points - point, axis=1).reshape(part.brain.shape)
    # The voxel that holds the place counts, however thick it is.
    core = part.brain & (distance <= max(diameter / 2, distance.min() + 1e-6))
    if not core.any():
        return None
    lowest = float(part.values[core].min())
    level = surroundings(part.values, part.brain, distance, diameter / 2, lowest)
    if level is None or level <= 0:
        return None
    loss = np.clip(1 - part.values[part.brain] / level, _BRIGHTEST, 1).astype(np.float64)
    inverse = np.asarray(np.linalg.inv(window(diameter, image.affine)), np.float64)
    offsets = points[part.brain.ravel()] - point
    return max(_window_mean(offsets - move, loss, inverse) for move in _moves(reach))


def _window_mean(offsets: FloatArray, values: FloatArray, inverse: FloatArray) -> float:
    weight = np.exp(-0.5 * np.einsum("ni,ij,nj->n", offsets, inverse, offsets))
    return float((weight * values).sum() / max(float(weight.sum()), 1e-12))


def _moves(reach_mm: float) -> FloatArray:
    """Return moves on a lattice within a distance, mm, (n, 3); no move first."""
    most = math.floor(reach_mm / STEP_MM)
    steps = np.arange(-most, most + 1) * STEP_MM
    moves = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(moves, axis=1)
    order = np.argsort(length, kind="stable")
    return np.asarray(moves[order][length[order] <= reach_mm])


def losses_around(
    image: BrainImage,
    point: FloatArray,
    diameter_mm: float,
    error_mm: float,
    known: Sequence[FloatArray] = (),
) -> FloatArray:
    """Return the loss of signal at the places around one.

    Parameters
    ----------
    image, point, diameter_mm, error_mm
        As of :func:`signal_loss`.
    known
        Centres of the lesions that are known in the image, RAS+ mm.

    Returns
    -------
    array of shape (n,)
        Of the places in the brain that are far from known lesions; at most 48.
    """
    found = []
    for place in _places_around(point):
        near = any(float(np.linalg.norm(place - centre)) < CLEAR_MM for centre in known)
        if near or not image.holds(place):
            continue
        loss = signal_loss(image, place, diameter_mm, error_mm)
        if loss is not None:
            found.append(loss)
    return np.array(found)


def _places_around(centre: FloatArray) -> FloatArray:
    """Return points around a place, evenly over the directions (spirals over spheres)."""
    found = []
    for turn, distance in enumerate(AROUND_MM):
        step = np.arange(DIRECTIONS) + 0.5
        up = 1 - 2 * step / DIRECTIONS
        angle = math.pi * (1 + math.sqrt(5)) * step + turn
        flat = np.sqrt(1 - up**2)
        way = np.column_stack([flat * np.cos(angle), flat * np.sin(angle), up])
        found.append(centre + distance * way)
    return np.concatenate(found)
