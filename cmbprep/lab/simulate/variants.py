"""Variants of simulated scans: what sites do to real ones, and heads that differ more.

Real scans come skull-stripped, resampled to a common space, or in files without a unit of
length; real heads have wide fluid below the skull, a falx and strong cortical veins. The
presets of :mod:`.protocols` have none of this, so that scans made earlier keep their bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import UsageError
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.structures import on_scan
from cmbprep.lab.simulate.vessels import Tube
from cmbprep.spatial.grids import Grid, resample_to_grid

if TYPE_CHECKING:
    from cmbprep.lab.simulate.field import Geometry
    from cmbprep.lab.simulate.scanner import Acquisition
    from cmbprep.lab.simulate.truth import Truth

#: Limits of the options: factor of radii, mm of fluid, mm of a voxel.
MOST_VEINS, MOST_RIM, VOXELS_MM = 4.0, 10.0, (0.3, 6.0)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is different in a dataset.

    Attributes
    ----------
    stripped
        Scans are 0 outside the brain and the fluid around it.
    resampled
        Voxel size in mm of the isotropic grid, along the axes of the scanner, that scans are
        interpolated to; None keeps the scan's own grid.
    unitless
        The headers of scans have no unit of length.
    veins
        Factor on the radii of cortical veins.
    rim
        mm of fluid between brain and skull, in addition to the usual.
    dura
        Heads have a falx and a tentorium.
    """

    stripped: bool = False
    resampled: float | None = None
    unitless: bool = False
    veins: float = 1.0
    rim: float = 0.0
    dura: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.veins <= MOST_VEINS:
            raise UsageError(f"--veins must be above 0 and at most {MOST_VEINS:g}")
        if not 0 <= self.rim <= MOST_RIM:
            raise UsageError(f"--rim must lie between 0 and {MOST_RIM:g} mm")
        low, high = VOXELS_MM
        if self.resampled is not None and not low <= self.resampled <= high:
            raise UsageError(f"--resampled must lie between {low:g} and {high:g} mm")

    def describe(self) -> str:
        """Return a sentence for the dataset's README; empty for the usual."""
        words = ["skull-stripped"] if self.stripped else []
        if self.resampled is not None:
            words.append(f"resampled to {self.resampled:g} mm")
        if self.unitless:
            words.append("no unit of length in the header")
        if self.veins != 1:
            words.append(f"radii of cortical veins times {self.veins:g}")
        if self.rim:
            words.append(f"{self.rim:g} mm more fluid below the skull")
        if self.dura:
            words.append("with falx and tentorium")
        return f"\n\nVariant: {', '.join(words)}." if words else ""


#: Scans as scanners make them.
USUAL = Variant()


def scale_veins(tubes: Sequence[Tube], factor: float) -> list[Tube]:
    """Return the vessels with the radii of cortical veins multiplied."""
    if factor == 1:
        return list(tubes)
    return [
        replace(tube, radii=tube.radii * factor) if tube.kind == "cortical" else tube
        for tube in tubes
    ]


def brain_on_scan(head: Head, geometry: Geometry) -> NDArray[np.bool_]:
    """Brain and fluid around it on the grid of a scan."""
    return on_scan(head, head.brain_mask().astype(np.float32), geometry) > 0.5


def strip_skull(scan: Acquisition, head: Head) -> Acquisition:
    """Return the scan with 0 outside the brain and its fluid."""
    brain = brain_on_scan(head, scan.geometry)
    return replace(scan, echoes=tuple(np.where(brain, e, np.complex64(0)) for e in scan.echoes))


def isotropic_grid(shape: tuple[int, ...], affine: NDArray[np.float64], size: float) -> Grid:
    """Lay a grid of cubes along the scanner's axes over a field of view."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape])).reshape(3, -1)
    places = affine[:3, :3] @ corners + affine[:3, 3:]
    low, high = places.min(axis=1), places.max(axis=1)
    laid = np.diag([size, size, size, 1.0])
    laid[:3, 3] = np.round(low + size / 2, 3)
    counts = np.maximum(np.round((high - low) / size), 1).astype(int)
    return Grid(tuple(int(n) for n in counts), laid)


def resample_image(
    image: NDArray[np.number], affine: NDArray[np.float64], grid: Grid
) -> NDArray[np.number]:
    """Interpolate an image linearly, without aliasing; a complex one in both parts."""
    if np.iscomplexobj(image):
        real, imaginary = (resample_to_grid(p, affine, grid) for p in (image.real, image.imag))
        return np.asarray(real + 1j * imaginary, np.complex64)
    return resample_to_grid(image, affine, grid)


def resample_labels(
    labels: NDArray[np.uint8], affine: NDArray[np.float64], grid: Grid
) -> NDArray[np.uint8]:
    """Take labels to another grid, the nearest voxel's.

    A label that would be lost, because its voxels are smaller than the grid's, keeps the voxel
    nearest to its middle.
    """
    from scipy import ndimage

    to_source = np.linalg.inv(affine) @ grid.affine
    carried = np.asarray(
        ndimage.affine_transform(labels, to_source, output_shape=grid.shape, order=0)
    )
    for label in np.setdiff1d(labels, carried):
        middle = np.argwhere(labels == label).mean(axis=0)
        there = np.round(np.linalg.inv(to_source) @ [*middle, 1.0])[:3].astype(int)
        carried[tuple(np.clip(there, 0, np.array(grid.shape) - 1))] = label
    return carried


def resample_truth(truth: Truth, affine: NDArray[np.float64], grid: Grid) -> Truth:
    """Take the truth's labels to another grid; tables, in mm, are those of the scan as acquired."""

    def carry(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resample_labels(labels, affine, grid)

    return replace(
        truth,
        microbleeds=carry(truth.microbleeds),
        others=carry(truth.others),
        zones=None if truth.zones is None else carry(truth.zones),
    )
