"""How far two registered images are off locally: a check that needs no truth.

A rigid map that is right leaves nothing to gain by shifting a part of the brain. Where it is
wrong, or where the two images are of different people, parts fit better some millimetres
aside.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize

from .grids import Grid
from .pose_search import Matcher
from .threads import map_in_threads
from .transforms import LinearMap

__all__ = ["local_shifts"]

#: Distance between the centres of the parts, and their width, mm.
STEP, WIDTH = 36.0, 44.0
#: A part must have this many voxels to be looked at.
MIN_VOXELS = 300
#: Shifts are sought this far, mm.
REACH = 10.0
#: Smoothing of both images, mm: noise makes no shifts, and thick slices are alike.
SMOOTHING = 1.5


def local_shifts(
    scan: tuple[NDArray[np.floating], Grid],
    region: NDArray[np.bool_],
    reference: tuple[NDArray[np.floating], Grid],
    to_reference: LinearMap,
) -> NDArray[np.float64]:
    """Find the shift by which each part of a scan fits a reference best.

    Parameters
    ----------
    scan
        Image and grid.
    region
        Where the scan shows the brain, on its grid.
    reference
        Image and grid.
    to_reference
        Takes points of the scan to points of the reference.

    Returns
    -------
    array of shape (n,)
        Length of the shift of each part, mm; empty if no part is large enough.
    """
    image, grid = (_smooth(*scan), scan[1])
    target = _smooth(*reference)
    points = grid.points()[region.ravel()]
    if len(points) < MIN_VOXELS:
        return np.empty(0)
    low, high = points.min(axis=0), points.max(axis=0)
    axes = [
        np.linspace(a + WIDTH / 2, b - WIDTH / 2, max(int(np.ceil((b - a - WIDTH) / STEP)) + 1, 1))
        if b - a > WIDTH
        else np.array([(a + b) / 2])
        for a, b in zip(low, high, strict=True)
    ]
    index = np.flatnonzero(region.ravel())
    matcher = Matcher(image, grid, target, reference[1])
    parts = []
    for centre in product(*axes):
        inside = np.all(np.abs(points - np.array(centre)) <= WIDTH / 2, axis=1)
        if np.count_nonzero(inside) < MIN_VOXELS:
            continue
        part = np.zeros(region.size, dtype=bool)
        part[index[inside]] = True
        parts.append(matcher.within(part.reshape(region.shape)))
    return np.array(map_in_threads(lambda part: _best_shift(part, to_reference.matrix), parts))


def _smooth(values: NDArray[np.floating], grid: Grid) -> NDArray[np.float32]:
    sigma = np.maximum(SMOOTHING / grid.spacing, 0)
    return np.asarray(ndimage.gaussian_filter(values, sigma), dtype=np.float32)


def _best_shift(matcher: Matcher, matrix: NDArray[np.float64]) -> float:
    def cost(shift: NDArray[np.float64]) -> float:
        moved = matrix.copy()
        moved[:3, 3] += shift
        return -matcher(moved)

    found = minimize(
        cost,
        np.zeros(3),
        method="Powell",
        bounds=[(-REACH, REACH)] * 3,
        options={"xtol": 0.3, "ftol": 1e-4, "maxfev": 80},
    )
    return float(np.linalg.norm(found.x))
