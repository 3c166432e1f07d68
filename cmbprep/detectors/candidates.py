"""Candidates for microbleeds: dark blobs at every plausible size, with almost no misses.

The image is divided by its local background, so that a value tells how much darker a voxel
is than the tissue around it. A scale-normalised Laplacian of Gaussian, its scales given in
millimetres, responds to dark blobs; its local maxima over space and scale are the
candidates. Telling bleeds from veins and sulci is left to later stages.

References
----------
Lindeberg T. Int J Comput Vis 1998;30:79-116 (scale-normalised derivatives).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

# --- Intensity along rays from a point: the shape of a dark spot, at physical distances ----------


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


#: Radii of the blobs looked for, mm.
RADII_MM = (1.0, 1.5, 2.2, 3.2, 4.6)
#: Brighter than this, against the local background, is fluid and counts as tissue.
BRIGHTEST = 1.15
# Smallest response that counts: a void of a tenth of the tissue's signal, well resolved,
# responds with about 0.05.
_MIN_RESPONSE = 0.04
# The wall of a blob is looked for at one and a half radii and these many mm beyond.
_WALL_MM = (0.7, 2.0)
# Of 26 directions, so many may be open.
_OPEN_WAYS = 8
# Slices thicker than this add less to the response than the in-plane directions, mm.
_THICK_MM = 1.5

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """Dark blobs, the strongest response first.

    Parameters
    ----------
    voxels
        (n, 3) positions in voxel coordinates of the image searched, finer than the voxel.
    radii_mm
        (n,) radius of the blob that fits best.
    responses
        (n,) scale-normalised response.
    """

    voxels: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    responses: NDArray[np.float64]

    def __post_init__(self) -> None:
        n = len(self.radii_mm)
        if self.voxels.shape != (n, 3) or self.responses.shape != (n,):
            raise ValueError("positions, radii and responses of candidates do not belong together")

    def __len__(self) -> int:
        return len(self.radii_mm)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Candidates:
        """Return the candidates that an index array or a mask picks."""
        return Candidates(self.voxels[index], self.radii_mm[index], self.responses[index])


def relative_intensity(
    image: FloatArray, mask: BoolArray, spacing: NDArray[np.float64], width_mm: float = 8.0
) -> tuple[FloatArray, FloatArray]:
    """Image over its local background, and that background.

    The background is the mean of the mask's voxels under a window of standard deviation
    ``width_mm``, without those below 0.5 or above 1.6 of the median of all, so that voids,
    dropout and ventricles do not pull it.

    Returns
    -------
    ratio, background
        (X, Y, Z) float32 each; ``ratio`` is 1 in tissue like its surroundings and clipped to
        0..3.
    """
    sigma = width_mm / spacing
    level = float(np.median(image[mask])) if mask.any() else 0.0
    if level <= 0:
        level = 1.0
    kept = mask & (image > 0.5 * level) & (image < 1.6 * level)
    weight = _wide_window(kept.astype(np.float32), sigma)
    background = _wide_window(np.where(kept, image, 0).astype(np.float32), sigma)
    # A little of the overall level keeps places without tissue around them finite.
    background += np.float32(1e-3 * level)
    background /= weight + np.float32(1e-3)
    return np.clip(image / background, 0, 3).astype(np.float32), background


def _wide_window(image: FloatArray, sigma: NDArray[np.float64]) -> FloatArray:
    """Smooth with two box filters an axis: a wide window whose cost does not grow with it."""
    result = image
    for axis, s in enumerate(sigma):
        # Two boxes of width w have the variance (w^2 - 1) / 6; w is odd so as not to shift.
        width = 2 * int(np.sqrt(6 * s**2 + 1) / 2) + 1
        for _ in range(2):
            result = ndimage.uniform_filter1d(result, width, axis=axis, mode="constant")
    return result


def blob_response(ratio: FloatArray, spacing: NDArray[np.float64], radius_mm: float) -> FloatArray:
    """Scale-normalised Laplacian of Gaussian: positive at dark blobs of about the radius.

    Along an axis whose voxels are larger than the blob, the difference to the two
    neighbours stands for the derivative; thick slices count for less, because a neighbour
    that is 5 mm away says little about a blob of 3 mm.
    """
    sigma = radius_mm / np.sqrt(2)
    smooth = ratio
    for axis, size in enumerate(spacing):
        if sigma > 0.4 * size:
            smooth = ndimage.gaussian_filter1d(
                smooth, sigma / size, axis=axis, mode="nearest", truncate=3.0
            )
    response = np.zeros(ratio.shape, np.float32)
    reference = max(_THICK_MM, 1.5 * float(spacing.min()))
    for axis, size in enumerate(spacing):
        if ratio.shape[axis] < 3:
            continue
        weight = min(1.0, (reference / size) ** 2) * max(sigma / size, 0.6) ** 2
        _add_second_difference(response, smooth, axis, weight)
    return response


def _add_second_difference(out: FloatArray, image: FloatArray, axis: int, weight: float) -> None:
    """Add weight * (left - 2 centre + right) along an axis; nothing at the two ends."""

    def part(start: int, stop: int | None) -> tuple[slice, ...]:
        return tuple(slice(start, stop) if a == axis else slice(None) for a in range(3))

    second = image[part(2, None)] + image[part(0, -2)]
    second -= 2 * image[part(1, -1)]
    second *= np.float32(weight)
    out[part(1, -1)] += second


def find_candidates(
    ratio: FloatArray, mask: BoolArray, spacing: NDArray[np.float64], *, limit: int = 3000
) -> Candidates:
    """Find dark blobs inside a mask.

    Parameters
    ----------
    ratio
        Image over its local background, (X, Y, Z), from :func:`relative_intensity`.
    mask
        Where candidates may lie.
    spacing
        Voxel size, mm.
    limit
        Most candidates kept: those with the best walls (:func:`_walls`). The response is no
        good judge between bleeds and the rest, since sulci and the brain's edge respond more
        strongly than a small bleed.
    """
    # Outside the mask there is no tissue to be darker than: a neutral value makes no blobs.
    # Fluid counts as tissue, or all that lies between bright sulci would be a dark blob.
    filled = np.where(mask, np.minimum(ratio, np.float32(BRIGHTEST)), np.float32(1))
    found: list[NDArray[np.float64]] = []
    # Radii far below the voxel are left out.
    usable = [r for r in RADII_MM if r / np.sqrt(2) >= 0.5 * float(spacing.min())]
    for radius in usable or [RADII_MM[-1]]:
        response = blob_response(filled, spacing, radius)
        index = _local_maxima(response, mask & (response >= _MIN_RESPONSE))
        values = response[tuple(index.T)].astype(np.float64)
        position = index + _peak_offset(response, index)
        found.append(np.column_stack([position, np.full(len(index), radius), values]))
    rows = np.concatenate(found)
    # Strongest first; equal ones by position, so that the order is never left to chance.
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0], -rows[:, 4]))]
    rows = rows[_suppress_neighbours(rows, spacing)]
    # Here what lies outside the mask is seen as it is, or each dent of the border had a wall.
    seen = np.minimum(ratio, np.float32(BRIGHTEST))
    # Rounding keeps noise of the last bits out of the choice.
    walls = np.round(_walls(seen, rows, spacing), 5)
    kept = np.sort(np.argsort(-walls, kind="stable")[:limit])
    return Candidates(rows[kept, :3], rows[kept, 3], rows[kept, 4])


def _walls(
    ratio: FloatArray, rows: NDArray[np.float64], spacing: NDArray[np.float64]
) -> FloatArray:
    """How much brighter than its middle a blob's wall is in most directions.

    Looked at is the wall in 26 directions, and the eight darkest of these are left out: a bleed
    beside the skull is open there, a vein to two sides, the end of the tissue to nine or more.
    Costs a fortieth of the full profiles that :mod:`cmbprep.detectors.features` takes.
    """
    ways = RAY_VECTORS[np.abs(RAY_VECTORS).max(axis=1) == 1]
    ways = ways / np.linalg.norm(ways, axis=1, keepdims=True)
    middle = ndimage.map_coordinates(ratio, rows[:, :3].T, order=1, mode="nearest")
    wall = np.full((len(rows), len(ways)), -np.inf, np.float32)
    for beyond in _WALL_MM:
        reach = 1.5 * rows[:, 3] + beyond
        points = rows[:, None, :3] + ways[None] * reach[:, None, None] / spacing
        value = ndimage.map_coordinates(ratio, points.reshape(-1, 3).T, order=1, mode="mirror")
        np.maximum(wall, value.reshape(wall.shape), out=wall)
    return np.asarray(np.sort(wall, axis=1)[:, _OPEN_WAYS] - middle, np.float32)


def _local_maxima(response: FloatArray, where: BoolArray) -> NDArray[np.int_]:
    """Indices of the voxels that no one of their 26 neighbours exceeds.

    Looking only where the response is high enough costs a tenth of a maximum filter.
    """
    index = np.argwhere(where)
    top = np.array(response.shape) - 1
    for step in itertools.product((-1, 0, 1), repeat=3):
        if any(step):
            neighbour = np.clip(index + step, 0, top)
            index = index[response[tuple(index.T)] >= response[tuple(neighbour.T)]]
    return index


def _peak_offset(response: FloatArray, index: NDArray[np.integer]) -> NDArray[np.float64]:
    """Offset (voxels, at most half) of the vertex of the parabola through a maximum."""
    offset = np.zeros(index.shape, np.float64)
    centre = response[tuple(index.T)].astype(np.float64)
    top = np.array(response.shape) - 1
    for axis, step in enumerate(np.eye(3, dtype=int)):
        if response.shape[axis] < 3:
            continue
        left, right = (
            response[tuple(np.clip(place, 0, top).T)].astype(np.float64)
            for place in (index - step, index + step)
        )
        curvature = left - 2 * centre + right
        safe = np.where(curvature < -1e-9, curvature, -1.0)
        offset[:, axis] = np.where(curvature < -1e-9, 0.5 * (left - right) / safe, 0.0)
    return np.clip(offset, -0.5, 0.5)


def _suppress_neighbours(
    rows: NDArray[np.float64], spacing: NDArray[np.float64]
) -> NDArray[np.int_]:
    """Rows left when each takes away the weaker ones that lie within its radius."""
    if not len(rows):
        return np.zeros(0, int)
    points = rows[:, :3] * spacing
    tree = spatial.cKDTree(points)
    alive = np.ones(len(rows), bool)
    for i, reach in enumerate(np.maximum(1.2, 0.8 * rows[:, 3])):
        if alive[i]:
            near = np.array(tree.query_ball_point(points[i], reach))
            alive[near[near > i]] = False
    return np.flatnonzero(alive)


def edge_distance(
    mask: BoolArray, spacing: NDArray[np.float64], voxels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance (mm) from positions (n, 3, voxel coordinates) to the nearest end of a mask.

    The end of the image does not count as an end of the mask: a slab is cut there, the
    brain is not.
    """
    inner = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1), border_value=1)
    surface = np.argwhere(mask & ~inner)
    if not len(surface) or not len(voxels):
        return np.full(len(voxels), np.inf)
    distance, _ = spatial.cKDTree(surface * spacing).query(voxels * spacing)
    return np.asarray(distance)
