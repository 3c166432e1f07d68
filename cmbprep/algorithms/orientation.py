"""One order of the voxel axes for images that are stored in any.

The same scan can be stored with flipped or swapped axes. A method that looks at axes, such as
a network, gives the same answer for all of them only if it always sees one order: here the
axes nearest to right, anterior and superior, with the axis of the thickest voxels last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AxisOrder", "axis_order"]

# Voxels this much longer than the others make their axis the slice axis.
_THICK = 1.1


@dataclass(frozen=True)
class AxisOrder:
    """How stored axes become ordered ones.

    Attributes
    ----------
    axes
        Stored axis of each ordered axis.
    flipped
        Whether it runs the other way, for each ordered axis.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError(f"{self.axes} is no order of three axes")

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Order the axes of an image (X, Y, Z); a contiguous copy."""
        turned = stored.transpose(self.axes)
        return np.ascontiguousarray(turned[self._steps()])

    def undo(self, ordered: NDArray[Any]) -> NDArray[Any]:
        """Bring an ordered image back to the stored axes; a contiguous copy."""
        return np.ascontiguousarray(ordered[self._steps()].transpose(np.argsort(self.axes)))

    def affine(self, stored: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Affine (4x4, voxel to mm) of the ordered image of a stored one.

        Parameters
        ----------
        stored
            Affine of the stored image.
        shape
            Shape of the stored image.
        """
        matrix = np.asarray(stored, float)
        result = np.eye(4)
        result[:3, 3] = matrix[:3, 3]
        for new, (old, flip) in enumerate(zip(self.axes, self.flipped, strict=True)):
            column = matrix[:3, old]
            result[:3, new] = -column if flip else column
            if flip:
                result[:3, 3] += column * (shape[old] - 1)
        return result

    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return (first, second, third)


def axis_order(affine: NDArray[np.floating]) -> AxisOrder:
    """Give the order of axes of an image: nearest to RAS+, the thickest voxels last.

    Parameters
    ----------
    affine
        4x4, voxel to RAS+ mm.
    """
    import nibabel as nib

    matrix = np.asarray(affine, float)
    orientation = nib.orientations.io_orientation(matrix)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    world = orientation[:, 0].astype(int)
    axes = [int(np.flatnonzero(world == k)[0]) for k in range(3)]
    thickest = int(np.argmax(spacing))
    if spacing[thickest] > _THICK * float(np.median(spacing)):
        axes.remove(thickest)
        axes.append(thickest)
    flips = [bool(orientation[axis, 1] < 0) for axis in axes]
    return AxisOrder((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
