"""Brain masks from a template's, refined by the image's own edges.

The template's mask, brought over by registration, is right to a few millimetres. Within
that margin the border is moved to where the image has it, by a random walk (Grady 2006)
that starts from what is surely inside and surely outside and crosses edges reluctantly.
"""

from __future__ import annotations

from itertools import product

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from cmbprep.brain.bias import clean_intensities
from cmbprep.errors import ScanError
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.grids import (
    Grid,
    crop_grid,
    neighbours,
    one_piece,
    resample_to_grid,
    signed_distance,
    working_grid,
)
from cmbprep.spatial.transforms import LinearMap, apply_transforms

SPACING = 2.0
#: How far the border may move from the prior's, mm.
MARGIN = 5.0
#: How much an edge as strong as the brain's own spread holds the walk back.
EDGE_WEIGHT = 40.0
#: Pull towards the prior, against a walk's step within even tissue.
PRIOR_WEIGHT = 0.05
#: Width over which the prior goes from sure to undecided, mm.
PRIOR_SOFTNESS = 2.0
#: Smoothing of the result, mm: threads along sulci and dural folds are not brain border.
BORDER_SMOOTHING = 1.5


def refine_brain_mask(image: SpatialImage, prior: SpatialImage) -> nib.Nifti1Image:
    """Move the border of a brain mask to the image's own edges.

    Parameters
    ----------
    image
        Bias-corrected magnitude image of any contrast.
    prior
        Mask or probability (cut at one half) on any grid in the same space.

    Returns
    -------
    Nifti1Image
        uint8, 0 and 1, on the grid of ``image``: one piece without holes.

    Raises
    ------
    ScanError
        If the prior lies outside the image.
    """
    data, full = clean_intensities(image), image_grid(image)
    grid = working_grid(full.shape, full.affine, SPACING)
    values = resample_to_grid(data, full.affine, grid)
    soft = resample_to_grid(np.asarray(prior.dataobj, dtype=np.float32), prior.affine, grid)
    inside = soft >= 0.5
    if np.count_nonzero(inside) < 100:
        raise ScanError(
            "the brain mask lies outside the image", hint="look at the registration of this scan"
        )
    probability = _random_walk(values, -signed_distance(inside, grid.spacing, MARGIN), grid)
    probability = ndimage.gaussian_filter(probability, BORDER_SMOOTHING / grid.spacing)
    mask = one_piece(_at_least_half(probability, grid, full))
    return nib.Nifti1Image(mask.astype(np.uint8), full.affine)


def carry_brain_mask(scan: SpatialImage, mask: SpatialImage, to_mask: LinearMap) -> nib.Nifti1Image:
    """Bring the brain mask of another image of the same person onto a scan, and refine it.

    Parameters
    ----------
    scan
        Bias-corrected scan.
    mask
        Brain mask of the other image, usually the T1w.
    to_mask
        Takes points of the scan to points of the other image.
    """
    soft = nib.Nifti1Image((np.asarray(mask.dataobj) > 0).astype(np.float32), mask.affine)
    carried = apply_transforms(soft, image_grid(scan), (to_mask,))
    return refine_brain_mask(scan, carried)


def _at_least_half(probability: NDArray[np.float32], grid: Grid, fine: Grid) -> NDArray[np.bool_]:
    """Bring a probability onto a finer grid, and cut it at one half: in its box, as most is air.

    Between voxels it is linear, so that it is no half farther than one of them from any half.
    """
    high = np.argwhere(probability >= 0.5)
    result = np.zeros(fine.shape, dtype=bool)
    if not len(high):
        return result
    corners = np.array(list(product(*zip(high.min(axis=0) - 1, high.max(axis=0) + 1, strict=True))))
    across = np.linalg.inv(fine.affine) @ grid.affine
    where = corners @ across[:3, :3].T + across[:3, 3]
    low = np.clip(np.floor(where.min(axis=0)), 0, np.array(fine.shape) - 1).astype(int)
    end = np.clip(np.ceil(where.max(axis=0)) + 1, low + 1, fine.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, end, strict=True))
    part = crop_grid(fine, low, end - low)
    result[box] = resample_to_grid(probability, grid.affine, part) >= 0.5
    return result


def _random_walk(
    values: NDArray[np.float32], distance: NDArray[np.float64], grid: Grid
) -> NDArray[np.float32]:
    """Probability that a walk ends inside, with the prior as one more neighbour.

    The distance is that from the prior's border, mm; negative outside.
    """
    brain = values[distance > MARGIN] if (distance > MARGIN).any() else values[distance > 0]
    low, high = np.percentile(brain, (5, 95))
    scaled = np.clip(values, 0, high) / max(float(high), 1e-12)
    spread = max(float(high - low) / max(float(high), 1e-12), 0.05)
    free = np.abs(distance) <= MARGIN
    size = int(np.count_nonzero(free))
    number = np.full(free.shape, -1)
    number[free] = np.arange(size)
    fixed = (distance > 0).astype(np.float64)
    prior = 1.0 / (1.0 + np.exp(-distance[free] / PRIOR_SOFTNESS))
    diagonal = np.full(size, PRIOR_WEIGHT)
    right = PRIOR_WEIGHT * prior
    rows, columns, weights = [], [], []
    for axis in range(3):
        a, b = neighbours(axis)
        step = (scaled[b] - scaled[a]) / spread
        # Walks cross thick slices more slowly.
        weight = np.exp(-EDGE_WEIGHT * step**2) * (SPACING / grid.spacing[axis]) ** 2 + 1e-4
        for here, there in ((a, b), (b, a)):
            moving = free[here]
            both = moving & free[there]
            np.add.at(diagonal, number[here][moving], weight[moving])
            edge = moving & ~free[there]
            np.add.at(right, number[here][edge], weight[edge] * fixed[there][edge])
            rows.append(number[here][both])
            columns.append(number[there][both])
            weights.append(-weight[both])
    matrix = sparse.csr_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), (size, size)
    ) + sparse.diags(diagonal)
    solved, _ = cg(matrix, right, x0=prior, rtol=1e-4, maxiter=300, M=sparse.diags(1 / diagonal))
    result = fixed.astype(np.float32)
    result[free] = solved
    return result
