"""A candidate's views as they would be if the scan had been mirrored.

Axes are those of the ordered scan: two within the finest plane, and the one through the slices.
Which planes a channel shows is defined in :mod:`cmbprep.detectors.patches`; mirroring an axis
turns the rows or columns of the views that hold it round, and the order of those stacked along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.patches import ACROSS_SHAPE, NEAR_SHAPE, WIDE_SHAPE

#: Planes of the near view that show the image; then three of susceptibility, three of growth, mask.
DEPTHS = NEAR_SHAPE[0] - 7
#: Order of the near view's channels after mirroring through the slices.
NEAR_THROUGH = (
    *reversed(range(DEPTHS)),
    *(DEPTHS + offset for offset in (2, 1, 0, 5, 4, 3, 6)),
)
#: Order of the channels of a plane across, after mirroring along the axis at right angles to it.
ACROSS_BESIDE = (2, 1, 0, *range(3, ACROSS_SHAPE[1]))
#: Order of the wide view's channels after mirroring through the slices.
WIDE_THROUGH = (*reversed(range(WIDE_SHAPE[0] - 2)), WIDE_SHAPE[0] - 1, WIDE_SHAPE[0] - 2)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Mirror:
    """One of the 16 symmetries of a slab.

    Attributes
    ----------
    first, second, through
        Axes that are mirrored: both within the finest plane, and the one through the slices.
    swap
        Whether the axes within the plane then change places.
    """

    first: bool = False
    second: bool = False
    through: bool = False
    swap: bool = False

    def views(
        self, near: FloatArray, across: FloatArray, wide: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the three views mirrored; arrays as :class:`cmbprep.detectors.patches.Patches`."""
        planes = [across[:, 0], across[:, 1]]
        beside = list(ACROSS_BESIDE)
        if self.first:
            near, wide = near[:, :, ::-1], wide[:, :, ::-1]
            planes = [planes[0][:, :, ::-1], planes[1][:, beside]]
        if self.second:
            near, wide = near[:, :, :, ::-1], wide[:, :, :, ::-1]
            planes = [planes[0][:, beside], planes[1][:, :, ::-1]]
        if self.through:
            near, wide = near[:, list(NEAR_THROUGH)], wide[:, list(WIDE_THROUGH)]
            planes = [plane[..., ::-1] for plane in planes]
        if self.swap:
            near, wide = near.swapaxes(2, 3), wide.swapaxes(2, 3)
            planes = planes[::-1]
        stacked = np.stack(planes, axis=1)
        return np.ascontiguousarray(near), stacked, np.ascontiguousarray(wide)
