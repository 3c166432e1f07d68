"""Lesions of a reader: segmented and placed by the same functions as those of the detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.detectors.segmentation import (
    Region,
    ball_diameter,
    measure_region,
    segment_lesions,
    void_volume,
)
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.basin import basin
from cmbprep.ratings.outline import Outline, encode_runs
from cmbprep.ratings.replay import Item, RefusedActError
from cmbprep.ratings.template import template_coordinates
from cmbprep.ratings.voxels import read_voxels
from cmbprep.spatial.grids import bounding_box
from cmbprep.zones.assign import assign_zones

#: Rough radius of a lesion that a reader points at, mm.
SEED_RADIUS_MM = 1.5


class Segmenter:
    """Segments lesions on one scan; its images are read when they are first needed.

    Parameters
    ----------
    automatic
        The scan's automatic result.
    """

    def __init__(self, automatic: Automatic) -> None:
        self._automatic = automatic

    @cached_property
    def image(self) -> NDArray[np.float32]:
        """The scan after bias correction, (X, Y, Z)."""
        path = self._automatic.preproc.files.path("preproc")
        return np.asarray(read_voxels(path), dtype=np.float32)

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """Voxel to RAS+ mm, (4, 4)."""
        return np.asarray(self._open("preproc").affine, dtype=np.float64)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Of the scan."""
        i, j, k = self._open("preproc").shape[:3]
        return int(i), int(j), int(k)

    @cached_property
    def brain(self) -> NDArray[np.bool_]:
        """Brain mask, (X, Y, Z)."""
        path = self._automatic.preproc.files.path("brain_mask")
        return read_voxels(path) > 0

    @cached_property
    def labels(self) -> NDArray[np.integer]:
        """Automatic lesions by their index, (X, Y, Z)."""
        return self._labels("dseg")

    @cached_property
    def atlas(self) -> NDArray[np.integer]:
        """Regions of the scheme, (X, Y, Z)."""
        return self._labels("atlas")

    @cached_property
    def _placed(self) -> bool:
        """Whether the scan has an atlas."""
        return bool(self.atlas.any())

    @cached_property
    def _atlas_box(self) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """First voxel of the atlas, and the first beyond it, along each axis."""
        if not self._placed:
            return np.array(self.shape), np.zeros(3, int)
        box = bounding_box(self.atlas > 0)
        return np.array([s.start for s in box]), np.array([s.stop for s in box])

    def _open(self, key: str) -> nib.Nifti1Image:
        return nib.Nifti1Image.from_filename(self._automatic.preproc.files.path(key))

    def _labels(self, key: str) -> NDArray[np.integer]:
        path = self._automatic.detection.files.path(key)
        values = read_voxels(path)
        return values if np.issubdtype(values.dtype, np.integer) else values.astype(np.int16)

    def load(self) -> None:
        """Read the images now."""
        for array in (self.image, self.brain, self.labels, self.atlas):
            assert array.shape == self.shape

    def contains(self, centre_ras: ArrayLike) -> bool:
        """Return whether a position (mm, RAS+) lies on the scan."""
        voxel = np.round(self._voxel(centre_ras))
        return bool((voxel >= 0).all() and (voxel < self.shape).all())

    def in_brain(self, centre_ras: ArrayLike) -> bool:
        """Return whether a position (mm, RAS+), which is on the scan, lies in the brain mask."""
        i, j, k = np.round(self._voxel(centre_ras)).astype(int)
        return bool(self.brain[i, j, k])

    def at_point(self, centre_ras: Sequence[float], radius_mm: float = SEED_RADIUS_MM) -> Outline:
        """Segment the lesion at a position.

        Parameters
        ----------
        centre_ras
            mm, RAS+; on the scan.
        radius_mm
            Rough radius of the lesion.

        Returns
        -------
        Outline
            Where nothing is darker than its surroundings, a ball of one voxel around the position.
        """
        position = self._voxel(centre_ras)
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        spot = basin(self.image, self.brain, spacing, position)
        if spot is not None:
            seed, own = spot
            found = segment_lesions(
                self.image, self.brain, self.affine, 1.0 * seed[None], [radius_mm], within=own
            )
            if found:
                return self._outline(found[0], segmented=True)
        return self._ball(centre_ras, np.round(position).astype(int))

    def of_voxels(self, voxels: NDArray[np.int_]) -> Outline:
        """Measure and place a lesion whose voxels are known, shape (m, 3)."""
        region = measure_region(self.image, self.brain, self.affine, voxels)
        return self._outline(region, segmented=region.contrast > 0)

    def divide(
        self, voxels: NDArray[np.int_], centres: Sequence[Sequence[float]]
    ) -> list[NDArray[np.int_]]:
        """Divide the voxels of a lesion among positions (mm, RAS+): each goes to the nearest.

        Raises
        ------
        RefusedActError
            If a position is not on the lesion, or no voxel is nearest to it.
        """
        points = voxels @ self.affine[:3, :3].T + self.affine[:3, 3]
        distance = np.linalg.norm(points[:, None] - np.asarray(centres, float)[None], axis=2)
        # The reader points at what is dark, of which the rim may not be in the outline.
        near = max(SEED_RADIUS_MM, float(np.linalg.norm(self.affine[:3, :3], axis=0).max()))
        if not len(voxels) or (distance.min(axis=0) > near).any():
            raise RefusedActError("a lesion can be split only at positions on it")
        nearest = np.argmin(distance, axis=1)
        parts = [voxels[nearest == number] for number in range(len(centres))]
        if not all(map(len, parts)):
            raise RefusedActError(
                "the positions are too close to each other: a part of the lesion would be empty"
            )
        return parts

    def voxels_of(self, item: Item) -> NDArray[np.int_]:
        """Return the voxels of an item, shape (m, 3); none for a candidate without an outline."""
        if item.outline is not None:
            return item.outline.voxels(self.shape)
        if item.kind == "listed":
            return np.argwhere(self.labels == int(item.key[1:]))
        return np.empty((0, 3), int)

    def _voxel(self, centre_ras: ArrayLike) -> NDArray[np.float64]:
        inverse = np.linalg.inv(self.affine)
        return np.asarray(inverse[:3, :3] @ np.asarray(centre_ras, float) + inverse[:3, 3])

    def _ball(self, centre_ras: Sequence[float], voxel: NDArray[np.int_]) -> Outline:
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        steps = np.indices((3, 3, 3)).reshape(3, -1).T - 1
        near = np.linalg.norm(steps * spacing, axis=1) <= 1.01 * spacing.min()
        voxels = voxel + steps[near]
        voxels = voxels[((voxels >= 0) & (voxels < self.shape)).all(axis=1)]
        volume = len(voxels) * float(np.prod(spacing))
        x, y, z = (float(value) for value in centre_ras)
        region = Region(
            seed=0,
            voxels=voxels,
            centre_ras=(x, y, z),
            volume_mm3=volume,
            contrast=0.0,
        )
        return self._outline(region, segmented=False)

    def _outline(self, region: Region, *, segmented: bool) -> Outline:
        volume = region.volume_mm3
        if region.contrast > 0:
            volume = void_volume(volume, float(np.linalg.norm(self.affine[:3, :3], axis=0).max()))
        return Outline(
            centre_ras=_rounded(region.centre_ras),
            runs=encode_runs(region.voxels, self.shape),
            volume_mm3=round(volume, 2),
            diameter_mm=round(ball_diameter(volume), 2),
            contrast=round(region.contrast, 3),
            segmented=segmented,
            **self._place(region.voxels),
            **self._template(region.centre_ras),
        )

    def _template(self, centre_ras: Sequence[float]) -> dict[str, Any]:
        found = template_coordinates(self._automatic, [centre_ras])
        return dict(zip(("x_mni", "y_mni", "z_mni"), found[0], strict=True)) if found else {}

    def _place(self, voxels: NDArray[np.int_]) -> dict[str, Any]:
        """Return the columns of the lesion table that describe where a lesion lies."""
        # Beyond the box of the atlas and the lesion there is no zone: it changes no answer.
        low, high = self._atlas_box
        low, high = np.minimum(low, voxels.min(axis=0)), np.maximum(high, voxels.max(axis=0) + 1)
        atlas = self.atlas[tuple(map(slice, low, high))]
        labels = np.zeros(atlas.shape, np.uint8)
        labels[tuple((voxels - low).T)] = 1
        quality = self._automatic.detection.block.get("Quality", {})
        tolerance = quality.get("zone_tolerance_mm")
        (place,) = assign_zones(
            labels, self.affine, atlas, self._automatic.scheme, tolerance_mm=tolerance
        )
        columns = place.columns()
        if quality.get("zone_verdict", "ok") != "ok" or not self._placed:
            columns["boundary"] = True
        for name, decimals in (("region_fraction", 3), ("boundary_distance_mm", 2)):
            if columns[name] is not None:
                columns[name] = round(float(columns[name]), decimals)
        return columns


def _rounded(point: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 2) for value in point)
    return x, y, z
