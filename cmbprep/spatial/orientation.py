"""Storage order of an image's axes: there to the one a network was trained with, and back.

The same scan can be stored with flipped or swapped axes. A method that looks at axes gives
the same answer for all of them only if it always sees one order.

Axes are reordered and flipped, never rotated: values stay as they are, and an oblique scan
stays oblique.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

# Voxels this much longer than the others make their axis the slice axis.
_THICK = 1.1


def is_orientation(codes: str) -> bool:
    """Return whether three letters name three different axes, one of each pair.

    Examples
    --------
    >>> is_orientation("RAS"), is_orientation("PSR"), is_orientation("RLS")
    (True, True, False)
    """
    pairs = {frozenset("RL"), frozenset("AP"), frozenset("SI")}
    named = [pair for code in codes for pair in pairs if code in pair]
    return len(codes) == len(named) == 3 and set(named) == pairs


@dataclass(frozen=True, eq=False)
class AxisOrder:
    """A change of the order and direction of axes.

    Parameters
    ----------
    forth, back
        (3, 2) transforms in nibabel's form, of the image and of the result.
    """

    forth: NDArray[np.float64]
    back: NDArray[np.float64]

    def apply(self, array: NDArray) -> NDArray:
        """Bring an array (X, Y, Z) into the order, in C order."""
        return np.ascontiguousarray(orientations.apply_orientation(array, self.forth))

    def undo(self, array: NDArray) -> NDArray:
        """Bring an array back into the order of the scan, in C order."""
        return np.ascontiguousarray(orientations.apply_orientation(array, self.back))

    def affine(self, affine: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Affine of what :meth:`apply` gives for an image of this shape and affine."""
        return np.asarray(affine, float) @ orientations.inv_ornt_aff(self.forth, shape)


def nearest_axis_order(affine: NDArray[np.floating], codes: str = "RAS") -> AxisOrder:
    """Find the order of axes that comes closest to an orientation.

    Parameters
    ----------
    affine
        4x4, voxel to RAS+ mm.
    codes
        Where the three axes shall point: ``RAS`` for right, front (anterior), up (superior).
    """
    own = orientations.io_orientation(affine)
    wanted = orientations.axcodes2ornt(tuple(codes))
    return AxisOrder(
        orientations.ornt_transform(own, wanted), orientations.ornt_transform(wanted, own)
    )


def slices_last(affine: NDArray[np.floating]) -> AxisOrder:
    """Return the order nearest to RAS in which the axis of the thickest voxels is the last.

    Parameters
    ----------
    affine
        4x4, voxel to RAS+ mm.
    """
    spacing = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    thickest = int(np.argmax(spacing))
    codes = "RAS"
    if spacing[thickest] > _THICK * float(np.median(spacing)):
        along = codes[int(orientations.io_orientation(affine)[thickest, 0])]
        codes = codes.replace(along, "") + along
    return nearest_axis_order(affine, codes)
