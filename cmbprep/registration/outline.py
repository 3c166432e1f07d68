"""Pose of a scan from the outline of its brain, whatever its contrast.

Where an image has little contrast within the brain and bright fat around it, the intensities of a
head and a template have little in common, and the scalp draws the brain's outline to itself. The
network that finds the brain knows such images. Laying its mask onto the template's needs no
contrast at all.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from cmbprep.registration.pose import HeadImage
from cmbprep.spatial.grids import map_in_threads, resample_to_grid, signed_distance, working_grid
from cmbprep.spatial.transforms import LinearMap

#: Voxel size at which outlines are compared, mm.
SPACING = 6.0
#: Distances from an outline count up to this, mm.
REACH = 24.0
#: Angles tried about each axis, degrees, and shifts along the head's height, mm: the middle of a
#: brain that is cut off is not that of the template's.
ANGLES = (-20.0, 0.0, 20.0)
HEIGHTS = (-25.0, 0.0, 25.0)
#: Starting points that are followed to their optimum.
FOLLOWED = 4
#: Scales are held to this much of the template's size, and more of it costs.
SCALE_SPREAD = 0.15
#: Cost of a scale that is off by this spread, mm.
SCALE_COST = 0.5
#: First steps: rotation, hundredths of a radian, shift, mm, and log scale, %.
STEPS = (8.0, 8.0, 8.0, 6.0, 6.0, 6.0, 4.0)


def align_outlines(image: HeadImage, reference: HeadImage) -> LinearMap:
    """Find the pose and size in which the outlines of two brains lie on each other.

    Only what lies in the image's field of view is compared, so that a brain may be cut off.

    Parameters
    ----------
    image
        Its mask is of the brain, upright to some 40 degrees.
    reference
        With its brain mask, whole.

    Returns
    -------
    LinearMap
        Takes points of the image to points of the reference: rotation, shift and one scale.

    Raises
    ------
    ValueError
        If a mask is empty.
    """
    points, distance = _outline(image)
    target, to_voxel = _reference_distance(reference)
    near = np.abs(distance) < REACH
    points, distance = points[near], distance[near]
    centre = points[distance < 0].mean(axis=0)
    across = reference.brain_centre - centre

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        matrix = to_voxel @ _matrix(parameters, centre)
        where = (points @ matrix[:3, :3].T + matrix[:3, 3]).T
        found = ndimage.map_coordinates(target, where, order=1, mode="nearest")
        # Distances grow with the reference: those of the image are brought to its size.
        scaled = np.clip(distance * np.exp(parameters[6] / 100.0), -REACH, REACH)
        odd = np.sqrt(2 * SCALE_COST * distance.size) * parameters[6] / 100.0 / SCALE_SPREAD
        return np.append(found - scaled, odd)

    def jacobian(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        sides = [residuals(parameters + move) - residuals(parameters - move) for move in np.eye(7)]
        return np.stack(sides, axis=1) / 2.0

    starts = [
        np.concatenate([rotation.as_rotvec() * 100.0, across + np.array([0, 0, height]), [0.0]])
        for rotation in (
            Rotation.from_euler("xyz", angles, degrees=True) for angles in product(ANGLES, repeat=3)
        )
        for height in HEIGHTS
    ]

    def cost(start: NDArray[np.float64]) -> float:
        return float(_robust(residuals(start) ** 2)[0].sum())

    def follow(start: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        # Small steps: a search along a line may leap by half a turn, where a brain fits, too.
        found = least_squares(
            residuals, start, jacobian, loss=_robust, x_scale=STEPS, ftol=1e-5, max_nfev=100
        )
        # The last bits of sums depend on the processor and its threads.
        return round(float(found.cost), 3), np.round(found.x, 3)

    costs = np.array(map_in_threads(cost, starts))
    likeliest = [starts[i] for i in np.argsort(costs, kind="stable")[:FOLLOWED]]
    best = min(map_in_threads(follow, likeliest), key=lambda found: found[0])
    return LinearMap(_matrix(best[1], centre))


def _robust(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cost of each squared residual, about twice its size from 1 mm on, and two derivatives.

    A mask that runs into the face or misses a lobe must not pull as the square of its error. The
    last residual is that of the scale, and costs its square.
    """
    root = np.sqrt(1.0 + squares)
    found = np.stack([2.0 * (root - 1.0), 1.0 / root, -0.5 / root**3])
    found[:, -1] = squares[-1], 1.0, 0.0
    return found


def _outline(image: HeadImage) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Points of the field of view, and their signed distance from the outline, mm.

    The border of the field of view is no outline: a brain that it cuts goes on.
    """
    grid = working_grid(image.grid.shape, image.grid.affine, SPACING)
    soft = resample_to_grid(image.mask.astype(np.float32), image.grid.affine, grid)
    mask = soft >= 0.5
    if not mask.any():
        raise ValueError("a brain without a voxel has no outline")
    if mask.all():
        raise ValueError("a brain that fills the field of view has no outline")
    outside = ndimage.distance_transform_edt(~mask, sampling=grid.spacing)
    distance = outside - ndimage.distance_transform_edt(mask, sampling=grid.spacing)
    return grid.points(), np.clip(distance, -REACH, REACH).ravel()


def _reference_distance(
    reference: HeadImage,
) -> tuple[NDArray[np.float32], NDArray[np.floating]]:
    """Signed distance from the reference's outline, within :data:`REACH`; and mm to voxels."""
    distance = signed_distance(reference.mask, reference.grid.spacing, REACH)
    clipped = np.clip(distance, -REACH, REACH).astype(np.float32)
    return clipped, np.linalg.inv(reference.grid.affine)


def _matrix(parameters: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation vector (hundredths of a radian), shift (mm) and log scale (%) as a matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = (
        np.exp(parameters[6] / 100.0) * Rotation.from_rotvec(parameters[:3] / 100.0).as_matrix()
    )
    # Not by BLAS, whose last bits depend on the processor.
    turned = np.einsum("ij,j->i", matrix[:3, :3], centre, optimize=False)
    matrix[:3, 3] = centre + parameters[3:6] - turned
    return matrix
