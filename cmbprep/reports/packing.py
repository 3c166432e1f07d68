"""Voxels for the viewer: a grid in its order of axes, and images as they are sent or embedded.

The axes are stored in the order nearest to right, front, up (RAS+); they are swapped and flipped,
never interpolated. The viewer is ``reports/viewer``; the report and the review both use it.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from cmbprep.ratings.outline import encode_runs
from cmbprep.spatial.orientation import AxisOrder, nearest_axis_order

#: Scripts of the viewer in the order in which a page needs them.
VIEWER_SCRIPTS = ("volume.js", "geometry.js", "contours.js", "view.js", "viewer.js")


@dataclass(frozen=True, eq=False)
class PageGrid:
    """A scan's grid with its axes in RAS+ order.

    Attributes
    ----------
    shape
        Of the reordered image.
    affine
        Its voxels to RAS+ mm, (4, 4).
    order
        From the scan's own order.
    own_shape
        Of the scan in its own order.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    order: AxisOrder
    own_shape: tuple[int, ...]

    @classmethod
    def of(cls, image: nib.Nifti1Image) -> PageGrid:
        """Return the grid of an image."""
        order = nearest_axis_order(image.affine)
        own = tuple(int(n) for n in image.shape[:3])
        # A view of one number: only its shape is wanted.
        i, j, k = order.apply(np.broadcast_to(np.uint8(0), own)).shape
        return cls((i, j, k), order.affine(image.affine, own), order, own)

    @property
    def spacing(self) -> list[float]:
        """Voxel size along each axis, mm."""
        return [round(float(n), 5) for n in np.linalg.norm(self.affine[:3, :3], axis=0)]

    def header(self, dtype: str) -> dict[str, Any]:
        """Return what the viewer must know of the grid, for voxels of a type of numpy."""
        return {
            "shape": list(self.shape),
            "spacing": self.spacing,
            "affine": np.round(self.affine, 6).tolist(),
            "dtype": dtype,
        }

    def voxel(self, centre_ras: Sequence[float]) -> list[float]:
        """Take a position (mm, RAS+) to voxel coordinates of the page."""
        inverse = np.linalg.inv(self.affine)
        point = inverse[:3, :3] @ np.asarray(centre_ras, float) + inverse[:3, 3]
        return [round(float(n), 2) for n in point]

    def runs(self, voxels: NDArray[np.integer]) -> list[list[int]]:
        """Return voxels of the scan's own order as runs of the page's order, x fastest.

        Parameters
        ----------
        voxels
            (m, 3) voxel coordinates in the scan's own order of axes.

        Returns
        -------
        list of [start, length]
        """
        if not len(voxels):
            return []
        forward = np.linalg.inv(orientations.inv_ornt_aff(self.order.forth, self.own_shape))
        moved = np.rint(voxels @ forward[:3, :3].T + forward[:3, 3]).astype(int)
        pairs = encode_runs(moved[:, ::-1], self.shape[::-1])
        return [list(pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]


@dataclass(frozen=True, eq=False)
class Packed:
    """An image as it is sent: a header of JSON, and voxels with x fastest."""

    header: dict[str, Any]
    voxels: bytes

    @property
    def head(self) -> bytes:
        """Length of the header (4 bytes, little-endian), and the header."""
        text = json.dumps(self.header).encode("utf-8")
        # The voxels begin at a multiple of their size, so that they can be used where they lie.
        text += b" " * (-len(text) % 4)
        return struct.pack("<I", len(text)) + text

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.voxels)

    def sliced(self, first: int) -> tuple[bytes, list[memoryview]]:
        """Return header and slices (bytes of one k each), those nearest to a slice first.

        The order is in the header, as ``slices``.
        """
        count = self.header["shape"][2]
        order = sorted(range(count), key=lambda k: abs(k - first))
        length = self.size // count
        view = memoryview(self.voxels)
        head = replace(self, header={**self.header, "slices": order}).head
        return head, [view[k * length : (k + 1) * length] for k in order]

    def embedded(self) -> str:
        """Return the image as text for a page: gzip in base64."""
        # The same image gives the same bytes: no time in the header of gzip.
        packed = gzip.compress(self.head + self.voxels, compresslevel=6, mtime=0)
        return base64.b64encode(packed).decode("ascii")


def viewer_files() -> dict[str, str]:
    """Read the scripts of the viewer: name -> text."""
    folder = resources.files("cmbprep.reports").joinpath("viewer")
    return {name: folder.joinpath(name).read_text("utf-8") for name in VIEWER_SCRIPTS}
