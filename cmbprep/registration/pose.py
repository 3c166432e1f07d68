"""Coarse search for the pose of a scan in a reference head, from many starting points.

Gradient descent finds the right pose only from nearby. Headers of clinical scans can be
off by tens of degrees and millimetres, so the pose is first searched for on 8 mm images:
a lattice of rotations and shifts about several centres, the best few of which are
followed to their optimum. Quarter and half turns, which headers with exchanged or mirrored
axes make, are tried, too, and must fit clearly better to be believed. The measure is
normalised mutual information (Studholme et al. 1999), which asks for no common contrast and
tolerates partial overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from cmbprep.spatial.grids import Grid, map_in_threads, resample_to_grid, working_grid
from cmbprep.spatial.transforms import LinearMap

#: Values and grid of an image.
Image = tuple[NDArray[np.floating], Grid]

SPACING = 8.0
BINS = 24
#: Angles tried about each axis, degrees.
ANGLES = (-30.0, 0.0, 30.0)
#: Shifts tried along each axis of the reference, mm (x, y, z).
SHIFTS = ((0.0,), (-20.0, 0.0, 20.0), (-50.0, -25.0, 0.0, 25.0, 50.0))
#: Starting points that are followed to their optimum: near the header's pose, and turned.
FOLLOWED, FOLLOWED_TURNED = 6, 2
#: A pose found from a quarter or half turn must be this much better than one found nearby.
TURNED_GAIN = 1.15
#: At most this many points of the scan are looked at; more only cost time.
MAX_POINTS = 8000
#: Smallest part of the scan's head that must fall into the reference's field of view.
MIN_OVERLAP = 0.5


class HeadImage(NamedTuple):
    """An image of a head on its working grid.

    Parameters
    ----------
    values
        (X, Y, Z).
    mask
        Where it shows a head; of a reference, its brain.
    grid
        Of both.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    grid: Grid

    @property
    def brain_centre(self) -> NDArray[np.float64]:
        """Centre of the mask, RAS+ mm."""
        centre: NDArray[np.float64] = self.grid.points()[self.mask.ravel()].mean(axis=0)
        return centre


@dataclass(frozen=True)
class Pose:
    """A coarse alignment and how good it is.

    Attributes
    ----------
    transform
        Takes points of the scan to points of the reference.
    similarity
        Normalised mutual information, 1 (none) to 2 (one image tells the other).
    """

    transform: LinearMap
    similarity: float


class Matcher:
    """Similarity of a scan and a reference under a linear map, all over the scan."""

    def __init__(self, scan: Image, reference: Image) -> None:
        self.points = scan[1].points()
        self.codes = quantise(scan[0], BINS).ravel()
        self.target = quantise(reference[0], BINS).astype(np.float32)
        self.to_voxel = np.linalg.inv(reference[1].affine)

    def within(self, region: NDArray[np.bool_]) -> Matcher:
        """Return a copy that looks at some points within a region of the scan's grid."""
        index = np.flatnonzero(region)
        index = index[:: 1 + (index.size - 1) // MAX_POINTS]
        part = copy(self)
        part.points, part.codes = self.points[index], self.codes[index]
        return part

    def __call__(self, matrix: NDArray[np.float64]) -> float:
        """Return the similarity under a map of points, shape (4, 4); 0 if too little overlaps."""
        whole = self.to_voxel @ matrix
        voxels = self.points @ whole[:3, :3].T + whole[:3, 3]
        values = ndimage.map_coordinates(self.target, voxels.T, order=1, mode="constant", cval=-1.0)
        inside = values > -0.5
        if np.count_nonzero(inside) < MIN_OVERLAP * inside.size:
            return 0.0
        pairs = self.codes[inside] * BINS + np.rint(np.maximum(values[inside], 0)).astype(int)
        return normalised_mutual_information(pairs, BINS)


def normalised_mutual_information(pairs: NDArray[np.integer], bins: int) -> float:
    """Return (H(a) + H(b)) / H(a, b) from pairs of codes, each ``code of a * bins + code of b``."""
    joint = np.bincount(pairs, minlength=bins * bins).reshape(bins, bins)

    def entropy(counts: NDArray[np.integer]) -> float:
        p = counts[counts > 0] / counts.sum()
        return float(-(p * np.log(p)).sum())

    both = entropy(joint)
    return (entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))) / both if both > 0 else 1.0


def quantise(values: NDArray[np.floating], bins: int) -> NDArray[np.intp]:
    """Return codes from 0 to ``bins - 1``, spread evenly over the 1st to the 99th percentile."""
    low, high = np.percentile(values, (1.0, 99.0))
    scaled = np.clip((values - low) / max(float(high - low), 1e-12), 0.0, 1.0)
    return np.asarray(np.rint(scaled * (bins - 1)), dtype=np.intp)


def search_pose(scan: HeadImage, reference: HeadImage, *, scaling: bool = False) -> Pose:
    """Find the pose of a scan in a reference head, whatever its header says.

    Parameters
    ----------
    scan
        Magnitude image, bias corrected. It may be a slab. Its mask is where it shows the head; the
        surroundings within 16 mm are looked at too.
    reference
        Image of a whole head or brain. The centre of its mask is probably that of the scan's.
    scaling
        Whether to fit one scale factor besides rotation and shift.
    """
    affine, reference_centre = scan.grid.affine, reference.brain_centre
    grid = working_grid(scan.grid.shape, affine, SPACING)
    low = resample_to_grid(scan.values, affine, grid)
    head = resample_to_grid(scan.mask, affine, grid) >= 0.5
    region = ndimage.binary_dilation(head, iterations=2)
    target_grid = working_grid(reference.grid.shape, reference.grid.affine, SPACING)
    target = resample_to_grid(reference.values, reference.grid.affine, target_grid)
    matcher = Matcher((low, grid), (target, target_grid)).within(region)
    centre = grid.points()[head.ravel()].mean(axis=0)

    across = reference_centre - centre
    tilts = [Rotation.from_euler("xyz", a, degrees=True) for a in product(ANGLES, repeat=3)]
    # The 23 other ways in which a cube comes to lie on itself.
    turns = [turn for turn in Rotation.create_group("O") if turn.magnitude() > 0.01]
    bests = []
    for starts, followed in (
        ([np.zeros(7), *_starting_points(tilts, (np.zeros(3), across))], FOLLOWED),
        (_starting_points(turns, (across,)), FOLLOWED_TURNED),
    ):
        scores = np.array(map_in_threads(lambda p: matcher(_matrix(p, centre)), starts))
        likeliest = [starts[i] for i in np.argsort(-scores, kind="stable")[:followed]]
        found = map_in_threads(lambda p: _follow(matcher, p, centre, scaling), likeliest)
        bests.append(max(found, key=lambda pair: pair[0]))
    near, far = bests
    best = far if far[0] - 1 > TURNED_GAIN * max(near[0] - 1, 0) else near
    return Pose(LinearMap(_matrix(best[1], centre)), best[0])


def _starting_points(
    rotations: Iterable[Rotation], bases: Sequence[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Parameters: rotation vector (hundredths of a radian), shift (mm), log scale (%)."""
    return [
        np.concatenate([rotation.as_rotvec() * 100.0, base + shift, [0.0]])
        for rotation in rotations
        for base in bases
        for shift in product(*SHIFTS)
    ]


def _matrix(parameters: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    rotation = Rotation.from_rotvec(parameters[:3] / 100.0).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = np.exp(parameters[6] / 100.0) * rotation
    matrix[:3, 3] = centre + parameters[3:6] - matrix[:3, :3] @ centre
    return matrix


def _follow(
    matcher: Matcher, start: NDArray[np.float64], centre: NDArray[np.float64], scaling: bool
) -> tuple[float, NDArray[np.float64]]:
    free = 7 if scaling else 6

    def cost(values: NDArray[np.float64]) -> float:
        return -matcher(_matrix(np.concatenate([values, start[free:]]), centre))

    steps = np.concatenate([np.full(3, 8.0), np.full(3, 6.0), [6.0]])[:free]
    found = minimize(
        cost,
        start[:free],
        method="Powell",
        options={"xtol": 0.2, "ftol": 1e-4, "maxfev": 600, "direc": np.diag(steps)},
    )
    return -float(found.fun), np.concatenate([found.x, start[free:]])
