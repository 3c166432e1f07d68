"""Correction of the smooth intensity bias of receive coils (N4).

The field is smooth, so it is estimated on a coarse copy of the image, inside the head,
and brought to the scan's own voxels as a logarithm; the scan itself is never resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.errors import ScanError
from cmbprep.spatial.ants import image_grid, load_ants, to_ants
from cmbprep.spatial.grids import Grid, largest_piece, resample_to_grid, working_grid

#: Finest voxel size at which the field is estimated, mm.
FIT_SPACING = 4.0
#: N4's time grows with the voxels it fits; past this many the voxel size is raised.
FIT_VOXELS = 2500
#: Distance between the control points of the first fitting level, mm; each level halves it.
KNOT_SPACING = 200.0
#: Fitting levels inside a brain mask (to 25 mm), and inside the whole head (to 50 mm),
#: where a finer field would take scalp and muscle for bias.
BRAIN_LEVELS, HEAD_LEVELS = 4, 3
#: Bounds of the field against its median in the head; beyond them it is extrapolation.
FIELD_RANGE = (0.1, 10.0)
#: Fewest foreground voxels that a fit makes sense on.
MIN_VOXELS = 200


@dataclass(frozen=True, eq=False)
class BiasCorrection:
    """A corrected scan, and the field that it was divided by.

    Attributes
    ----------
    image
        Corrected intensities, float32, on the scan's own grid.
    field
        Multiplicative bias, float32, same grid; its median within the head (or the mask
        given) is 1, so intensities keep their level.
    """

    image: nib.Nifti1Image
    field: nib.Nifti1Image


def clean_intensities(image: SpatialImage) -> NDArray[np.float32]:
    """Return the voxels as finite float32, with 0 where they are not finite.

    Raises
    ------
    ScanError
        If the image is not three-dimensional or has no positive voxel.
    """
    if len(image.shape) != 3:
        raise ScanError(
            f"the image has {len(image.shape)} dimensions where 3 are needed",
            hint="choose one volume or echo of it",
        )
    data = np.asarray(image.dataobj, dtype=np.float32)
    finite = np.isfinite(data)
    if not finite.all():
        data = np.where(finite, data, np.float32(0))
    if not (data > 0).any():
        raise ScanError("the image has no positive voxel", hint="export it again")
    return data


def otsu_threshold(values: NDArray[np.floating]) -> float:
    """Threshold that best separates two classes of values (Otsu 1979).

    Values above the 99.5th percentile count as that percentile, so a few very bright
    voxels do not decide.
    """
    top = float(np.percentile(values, 99.5))
    clipped = np.minimum(values, top)
    try:
        counts, edges = np.histogram(clipped, bins=256)
    except ValueError:
        # They differ by less than their precision: one class, and all of it is foreground.
        return float(clipped.min())
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    sum_below = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sum_below / below - (sum_below[-1] - sum_below) / above
        between = np.nan_to_num(below * above * gap**2)
    return float(centres[int(np.argmax(between))])


def head_mask(data: NDArray[np.floating], spacing: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Outline the head against air: bright enough, one piece, holes filled.

    The threshold is Otsu's on square roots, which draws the dark side of a biased image
    in.

    Parameters
    ----------
    data : array of shape (i, j, k)
        Intensities; those below 0 count as 0.
    spacing : array of shape (3,)
        Voxel size, mm.
    """
    roots = np.sqrt(np.maximum(data, 0.0))
    bright = roots > 0.8 * otsu_threshold(roots[roots > 0])
    radius = np.maximum(np.round(3.0 / spacing), 0).astype(int)
    opened = ndimage.binary_opening(bright, np.ones(np.minimum(2 * radius // 2 + 1, 3)))
    if not opened.any():
        return bright
    largest = largest_piece(opened)
    filled = ndimage.binary_closing(np.pad(largest, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    # Slice by slice, so that openings at the cut neck or at a slab's faces do not leak.
    for axis in range(3):
        for index in range(filled.shape[axis]):
            section = (slice(None),) * axis + (index,)
            filled[section] = ndimage.binary_fill_holes(filled[section])
    return np.asarray(filled | largest)


def correct_bias(
    image: SpatialImage, mask: SpatialImage | None = None, *, iterations: int = 50
) -> BiasCorrection:
    """Divide a scan by its smooth intensity bias (N4; Tustison et al. 2010).

    Parameters
    ----------
    image
        Three-dimensional magnitude image of any contrast, orientation and voxel size;
        voxels that are not finite count as 0.
    mask
        Where to fit, on the scan's own grid or any other in the same space (a brain mask
        gives the best field of the brain). Without it, the head.
    iterations
        At most, at each fitting level.

    Raises
    ------
    ScanError
        If the image is not three-dimensional or shows too little to fit.
    """
    data = clean_intensities(image)
    full = image_grid(image)
    values, inside, coarse = _fit_region(data, full, mask)
    if np.count_nonzero(inside) < MIN_VOXELS:
        raise ScanError(
            "too little of the image is brighter than air to correct its bias",
            hint="check that it shows a head and that its voxel size is right",
        )
    levels = HEAD_LEVELS if mask is None else BRAIN_LEVELS
    log_field = _fit_log_field(values, inside, coarse, (iterations,) * levels)
    field = _upsample(log_field, coarse, full)
    corrected = data / field
    return BiasCorrection(
        nib.Nifti1Image(corrected, full.affine), nib.Nifti1Image(field, full.affine)
    )


def _fit_region(
    data: NDArray[np.float32], full: Grid, mask: SpatialImage | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Grid]:
    """Coarse copy of the image, where to fit on it, and its grid."""
    spacing = FIT_SPACING
    while True:
        coarse = working_grid(full.shape, full.affine, spacing)
        values = np.maximum(resample_to_grid(data, full.affine, coarse), 0.0)
        if mask is None:
            inside = head_mask(values, coarse.spacing)
        else:
            given = np.asarray(mask.dataobj) > 0
            inside = resample_to_grid(given, mask.affine, coarse) >= 0.5
        inside &= values > 0
        excess = np.count_nonzero(inside) / FIT_VOXELS
        if excess <= 1.0:
            return values, inside, coarse
        spacing = max(spacing * float(np.cbrt(excess)), spacing + 0.25)


def _fit_log_field(
    values: NDArray[np.float32],
    inside: NDArray[np.bool_],
    grid: Grid,
    iterations: tuple[int, ...],
) -> NDArray[np.float32]:
    """Logarithm of the bias on a coarse grid, with median 0 inside the mask."""
    ants = load_ants()
    # N4 works on logarithms: a level well above zero keeps noise from ruling the fit.
    level = float(np.median(values[inside]))
    lifted = np.maximum(values, 0.02 * level) / level
    field = ants.n4_bias_field_correction(
        to_ants(lifted, grid),
        mask=to_ants(inside.astype(np.float32), grid),
        shrink_factor=1,
        convergence={"iters": list(iterations), "tol": 1e-6},
        spline_param=KNOT_SPACING,
        return_bias_field=True,
    ).numpy()
    low, high = FIELD_RANGE
    log_field = np.log(np.maximum(field, 1e-6))
    log_field -= np.median(log_field[inside])
    # Far from the mask a B-spline runs away: hold it to what the mask shows, a little wider.
    lowest, highest = log_field[inside].min() - 0.3, log_field[inside].max() + 0.3
    bounded = np.clip(log_field, max(lowest, np.log(low)), min(highest, np.log(high)))
    return np.asarray(bounded, dtype=np.float32)


def _upsample(log_field: NDArray[np.float32], coarse: Grid, full: Grid) -> NDArray[np.float32]:
    to_coarse = np.linalg.inv(coarse.affine) @ full.affine
    fine = ndimage.affine_transform(
        log_field, to_coarse, output_shape=full.shape, order=1, mode="nearest"
    )
    return np.exp(fine, out=fine)
