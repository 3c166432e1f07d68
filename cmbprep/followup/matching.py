"""Matching the lesions of two registered visits, one to one.

Two lesions may be the same one if their distance is plausible under the errors that are known:

- of the registration, the same in all directions;
- of each position, which a voxel knows to its own size only (the variance of a uniform
  distribution over the voxel along each of its axes: a thick slice leaves much room across, and
  little within);
- of each size: the middle of a larger void is less sharply defined, and it moves with echo time.

The errors add up to a covariance; the Mahalanobis distance under it must be below the 99.9 %
quantile of its distribution. Of all one-to-one assignments of plausible pairs, the one with the
most pairs is taken, and of these the nearest (:func:`cmbprep.ratings.matching.assign`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.ratings.matching import assign
from cmbprep.spatial.transforms import LinearMap

#: 99.9 % quantile of the chi distribution with three degrees of freedom.
GATE = math.sqrt(16.266)
#: Part of a lesion's diameter that its middle is uncertain by (one standard deviation).
SIZE_PART = 0.15


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """Where a lesion is, and how well that is known.

    Attributes
    ----------
    centre
        mm, RAS+, in the lesion's own scan.
    spread
        3 x 3 covariance of the centre, mm².
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, centre: Sequence[float], diameter_mm: float, affine: NDArray[np.float64]) -> Place:
        """Derive the uncertainty from the lesion's size and the voxels of its scan.

        Parameters
        ----------
        centre
            mm, RAS+.
        diameter_mm
            Of the lesion.
        affine
            4 x 4, voxel to RAS+ mm of its scan.
        """
        axes = np.asarray(affine, float)[:3, :3]
        spread = axes @ axes.T / 12 + np.eye(3) * (SIZE_PART * diameter_mm) ** 2
        return cls(centre=np.asarray(centre, float), spread=spread)

    def moved(self, transform: LinearMap) -> Place:
        """Return the place in another scan."""
        turn = transform.matrix[:3, :3]
        centre = transform(self.centre[None])[0]
        return Place(centre=centre, spread=turn @ self.spread @ turn.T)


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How far two lesions are apart.

    Attributes
    ----------
    distance_mm
        Between their centres.
    ratio
        Mahalanobis distance; at most :data:`GATE` where they may be the same lesion.
    """

    distance_mm: float
    ratio: float

    @property
    def plausible(self) -> bool:
        """Whether they may be the same lesion."""
        return self.ratio <= GATE


def nearness(one: Place, other: Place, error_mm: float) -> Nearness:
    """Compare two places in the same space.

    Parameters
    ----------
    one, other
        Both in the space of one scan.
    error_mm
        Error of the registration, mm: one standard deviation along each axis.
    """
    offset = other.centre - one.centre
    spread = one.spread + other.spread + np.eye(3) * error_mm**2
    ratio = float(np.sqrt(offset @ np.linalg.solve(spread, offset)))
    return Nearness(distance_mm=float(np.linalg.norm(offset)), ratio=ratio)


def match_places(
    first: Sequence[Place], second: Sequence[Place], to_second: LinearMap, error_mm: float
) -> list[tuple[int, int, Nearness]]:
    """Match the lesions of two visits one to one.

    The result is the same when the visits are exchanged and the map is inverted.

    Parameters
    ----------
    first, second
        Lesions of each visit in the space of their own scan.
    to_second
        Rigid map of points of the first scan to points of the second.
    error_mm
        Error of the registration, mm.

    Returns
    -------
    list of (index in first, index in second, nearness)
        In the order of the first visit's lesions.
    """
    if not first or not second:
        return []
    moved = [place.moved(to_second) for place in first]
    found = [[nearness(one, other, error_mm) for other in second] for one in moved]
    ratio = np.array([[item.ratio for item in row] for row in found])
    # The canonical order of ties: by position in the space of each visit's own scan.
    rows, columns = (
        np.lexsort(np.round([place.centre for place in places], 2).T[::-1])
        for places in (first, second)
    )
    pairs = assign(ratio[np.ix_(rows, columns)], ratio[np.ix_(rows, columns)] <= GATE)
    chosen = [(int(rows[i]), int(columns[j])) for i, j in pairs]
    return [(i, j, found[i][j]) for i, j in sorted(chosen)]
