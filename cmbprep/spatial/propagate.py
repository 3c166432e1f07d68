"""Carry labels and masks between a scan and the template, or another image.

Atlas and lesions are carried within the boxes that matter: an atlas is needed within the
brain, a lesion mask around the lesions. On a scan of 512x512x96 voxels that is the difference
between seconds and half a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.spatial.grids import Grid, bounding_box, boxed_grid, crop_grid
from cmbprep.spatial.transforms import LinearMap, PointMap, apply_transforms, map_points

#: Voxels outside the brain mask that still get a region, mm: a lesion at the edge of a
#: mask that is a little tight must find its zone.
ATLAS_MARGIN_MM = 10.0


def carry_atlas(
    atlas: nib.Nifti1Image,
    mask: NDArray[np.bool_],
    grid: Grid,
    chain: Sequence[PointMap],
) -> NDArray[np.uint8]:
    """Bring an atlas onto a scan, within the brain and a margin around it.

    Parameters
    ----------
    atlas
        Labels in the template's space.
    mask : array of shape (i, j, k)
        Brain mask of the scan.
    grid
        The scan's grid.
    chain
        Maps of points from the scan to the template.

    Returns
    -------
    array of shape (i, j, k)
        Labels on the scan's grid; 0 farther than 10 mm from the mask.
    """
    labels = np.zeros(grid.shape, dtype=np.uint8)
    if not mask.any():
        return labels
    pad = np.ceil(ATLAS_MARGIN_MM / grid.spacing).astype(int)
    box = bounding_box(mask, pad)
    part = boxed_grid(grid, box)
    carried = np.asarray(apply_transforms(atlas, part, chain, interpolation="nearest").dataobj)
    near = ndimage.distance_transform_edt(~mask[box], sampling=grid.spacing) <= ATLAS_MARGIN_MM
    labels[box] = np.where(near, carried, 0)
    return labels


def carry_lesions(
    labels: NDArray[np.integer],
    grid: Grid,
    template: Grid,
    to_template: Sequence[PointMap],
    to_scan: Sequence[PointMap],
) -> NDArray[np.uint8]:
    """Bring lesion labels into the template's space as one mask.

    Every lesion is there: one that falls between the template's voxels marks the voxel
    that holds its centre, unless that lies outside the template's field of view.

    Parameters
    ----------
    labels : array of shape (i, j, k)
        Lesions on the scan's grid, 0 where there is none.
    grid
        The scan's grid.
    template
        The template's grid.
    to_template, to_scan
        Maps of points from the scan to the template, and from the template to the scan.

    Returns
    -------
    array of the template's shape
        1 in a lesion, 0 elsewhere.
    """
    mask = np.zeros(template.shape, dtype=np.uint8)
    to_voxel = np.linalg.inv(template.affine)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        # A border of zeros: the outermost voxels end half a voxel beyond their centres.
        low = np.array([part.start for part in box]) - 1
        lesion = np.pad(np.asarray(labels[box] == label, dtype=np.uint8), 1)
        voxels = np.argwhere(lesion)
        part = crop_grid(grid, low, lesion.shape)
        points = voxels @ part.affine[:3, :3].T + part.affine[:3, 3]
        placed = map_points(points, to_template)
        indices = placed @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        centre = np.round(indices.mean(axis=0)).astype(int)
        # The source voxel reaches beyond its centre: one voxel of the scan on each side.
        reach = np.ceil(1 + grid.spacing.max() / template.spacing).astype(int)
        first = np.maximum(np.floor(indices.min(axis=0)).astype(int) - reach, 0)
        last = np.minimum(np.ceil(indices.max(axis=0)).astype(int) + reach + 1, template.shape)
        if np.any(last <= first):
            continue
        target = crop_grid(template, first, last - first)
        image = nib.Nifti1Image(lesion, part.affine)
        carried = apply_transforms(image, target, to_scan, interpolation="nearest")
        region = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        mask[region] |= np.asarray(carried.dataobj)
        if np.all(centre >= 0) and np.all(centre < template.shape):
            mask[tuple(centre)] = 1
    return mask


def carry_mask(
    mask: NDArray[np.bool_], mask_grid: Grid, grid: Grid, to_mask: LinearMap
) -> NDArray[np.bool_]:
    """Bring a mask onto a grid; ``to_mask`` takes points of the grid to the mask's space."""
    image = nib.Nifti1Image(mask.astype(np.uint8), mask_grid.affine)
    carried = apply_transforms(image, grid, (to_mask,), interpolation="nearest")
    return np.asarray(carried.dataobj) > 0


def field_of_view(grid: Grid, other: Grid, to_other: LinearMap) -> NDArray[np.bool_]:
    """Which voxels of a grid lie within the other grid."""
    return carry_mask(np.ones(other.shape, dtype=bool), other, grid, to_other)
