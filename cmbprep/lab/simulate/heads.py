"""The template head that simulated heads start from, made from the packaged template.

The packaged T1-weighted template at 1 mm is an average of many heads; its three tissues
are told apart by intensity, which keeps more of its folding than tissue priors at a
coarser resolution do.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.lab.simulate.anatomy import upsample
from cmbprep.lab.simulate.deformation import Deformation, TemplateHead, Volume


@lru_cache(maxsize=1)
def load_template_head() -> TemplateHead:
    """Read the packaged template and make the template head, once in a process."""
    import nibabel as nib

    from cmbprep.templates import load_template

    template = load_template()
    t1w = nib.as_closest_canonical(nib.load(template.t1w))
    mask = nib.as_closest_canonical(nib.load(template.brain_mask))
    return template_head(
        np.asarray(t1w.dataobj, dtype=np.float32), np.asarray(mask.dataobj) > 0, t1w.affine
    )


def template_head(
    t1w: Volume, brain: NDArray[np.bool_], affine: NDArray[np.float64]
) -> TemplateHead:
    """Make a template head from a T1-weighted image with its skull, and a brain mask.

    Parameters
    ----------
    t1w
        Intensities, shape (X, Y, Z), without strong bias.
    brain
        Brain mask with the fluid around the brain.
    affine
        4x4, voxel -> RAS+ mm; axes along those of the space.
    """
    brain_depth = signed_depth(brain, affine)
    gm, wm = tissue_memberships(t1w, brain, brain_depth)
    skin = head_mask(t1w, brain)
    return TemplateHead(
        affine=np.asarray(affine, dtype=np.float64),
        gm=gm,
        wm=wm,
        brain_distance=-brain_depth,
        depth=signed_depth(skin, affine),
    )


def tissue_memberships(
    t1w: Volume, brain: NDArray[np.bool_], brain_depth: Volume
) -> tuple[Volume, Volume]:
    """Share a T1-weighted brain out among fluid, grey and white matter by intensity.

    Parameters
    ----------
    t1w, brain
        Intensities and brain mask, shape (X, Y, Z).
    brain_depth
        Distance in mm below the brain's surface.

    Returns
    -------
    gm, wm : numpy.ndarray
        0..1; what they leave of the brain is fluid.
    """
    from scipy import ndimage

    fluid, grey, white = _three_means(t1w[brain])
    # A voxel half-way between two means is half of each.
    gm = np.interp(t1w, [fluid, grey, white], [0.0, 1.0, 0.0]).astype(np.float32)
    wm = np.interp(t1w, [grey, white], [0.0, 1.0]).astype(np.float32)
    deep = brain_depth > 18
    ventricle = ndimage.binary_opening(deep & (t1w < (fluid + grey) / 2), iterations=2)
    # White matter beside a ventricle averages to the intensity of grey matter.
    rim = ndimage.binary_dilation(ventricle, iterations=3) & ~ventricle & deep & (gm > 0)
    share = np.clip((t1w - fluid) / (white - fluid), 0, 1)
    gm[rim] = 0
    wm[rim] = share[rim]
    gm[~brain] = 0
    wm[~brain] = 0
    return gm, wm


def _three_means(values: NDArray[np.float32]) -> tuple[float, float, float]:
    means = np.percentile(values, [5, 45, 90]).astype(np.float64)
    for _ in range(50):
        borders = (means[1:] + means[:-1]) / 2
        classes = np.digitize(values, borders)
        updated = np.array([values[classes == k].mean() for k in range(3)])
        if np.allclose(updated, means, atol=1e-3):
            break
        means = updated
    return float(means[0]), float(means[1]), float(means[2])


def head_mask(t1w: Volume, brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of the head with its cavities, from a T1-weighted image.

    Made on every second voxel, which is fine enough for skin.
    """
    from scipy import ndimage

    half = (slice(None, None, 2),) * 3
    smooth = ndimage.gaussian_filter(t1w[half], 0.75)
    mask = (smooth > 0.15 * np.percentile(t1w[brain][::7], 90)) | brain[half]
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    mask = ndimage.binary_closing(np.pad(mask, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    # Plane by plane: sinuses open downwards, where the image ends.
    for k in range(mask.shape[2]):
        mask[:, :, k] = ndimage.binary_fill_holes(mask[:, :, k])
    x, y, z = t1w.shape
    repeated = mask.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return np.asarray(repeated[:x, :y, :z])


def signed_depth(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Volume:
    """Distance in mm to a mask's surface, positive inside, on the mask's grid.

    Computed on every second voxel: it is smooth, and eight times cheaper so. The mask goes
    on beyond the lower edge of the grid as the head does beyond the image.
    """
    from scipy import ndimage

    spacing = 2 * np.linalg.norm(affine[:3, :3], axis=0)
    coarse = np.pad(mask[::2, ::2, ::2], ((1, 1), (1, 1), (0, 1)))
    coarse = np.pad(coarse, ((0, 0), (0, 0), (12, 0)), mode="edge")
    signed = ndimage.distance_transform_edt(coarse, sampling=spacing)
    signed -= ndimage.distance_transform_edt(~coarse, sampling=spacing)
    signed -= np.sign(signed) * spacing.mean() / 2
    signed = signed[1:-1, 1:-1, 12:-1].astype(np.float32)
    x, y, z = mask.shape
    finer = upsample(np.pad(signed, ((0, 1),) * 3, mode="edge"), (2, 2, 2))
    return np.ascontiguousarray(finer[:x, :y, :z])


# --- Heads from real T1-weighted images: segmented here, and registered to the template ----------
#
# A real head takes the place of the template head that simulated people are deformed from: it
# brings its own folding, ventricles and skull. Its intensities are split into tissues as the
# template's are; where a point of it lies in the template is known from a registration, so
# that zones of lesions in it are as true as that registration.


#: Spacing of the grid on which the map to the template is kept, mm.
MAP_STEP = 4.0


def find_heads(dataset: Path) -> list[Path]:
    """Find one T1w image of each subject of a BIDS dataset, in the order of the subjects.

    Raises
    ------
    UsageError
        If there is none.
    """
    found = []
    for subject in sorted(Path(dataset).glob("sub-*")):
        images = sorted(subject.glob("anat/*_T1w.nii*")) or sorted(
            subject.glob("ses-*/anat/*_T1w.nii*")
        )
        found += images[:1]
    if not found:
        raise UsageError(
            "there is no T1w image in it", path=dataset, hint="give a BIDS dataset with T1w images"
        )
    return found


@lru_cache(maxsize=1)
def load_real_head(path: Path) -> TemplateHead:
    """Read a T1w image and make a head of it; the last one is kept."""
    from cmbprep.bids.images import open_image

    try:
        return real_head(open_image(path)[0])
    except CmbprepError as error:
        raise UsageError(
            f"no head can be made of it ({error.message})", path=path, hint=error.hint
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"no head can be made of it ({error})", path=path) from error


def real_head(image: object) -> TemplateHead:
    """Make a head to start from out of a T1-weighted image.

    Parameters
    ----------
    image : nibabel.spatialimages.SpatialImage
        Whole head with its skull; defaced is fine.

    Returns
    -------
    TemplateHead
        On the template's grid, laid onto it by the affine part of the registration alone;
        its ``to_template`` is the rest.
    """
    import nibabel as nib
    from scipy import ndimage

    from cmbprep.brain.bias import correct_bias
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.scan import register_head
    from cmbprep.templates import load_template

    template = load_template()
    reference = nib.as_closest_canonical(nib.load(template.t1w))
    mask = nib.as_closest_canonical(nib.load(template.brain_mask))
    corrected = correct_bias(image).image  # type: ignore[arg-type]
    registration = register_head(corrected, reference, mask, same_contrast=True)
    if registration.quality.verdict != "ok":
        raise CmbprepError(
            "its registration to the template is doubtful: "
            + "; ".join(registration.quality.reasons)
        )
    brain = refine_brain_mask(corrected, registration.brain_prior)
    back = np.linalg.inv(registration.linear.matrix)
    matrix = np.linalg.inv(corrected.affine) @ back @ reference.affine
    t1w, inside = (
        ndimage.affine_transform(
            np.asarray(one.dataobj, dtype=np.float32),
            matrix[:3, :3],
            matrix[:3, 3],
            reference.shape,
            order=1,
        )
        for one in (corrected, brain)
    )
    head = template_head(t1w, inside >= 0.5, reference.affine)
    grid = np.diag([MAP_STEP, MAP_STEP, MAP_STEP, 1.0])
    grid[:3, 3] = reference.affine[:3, 3]
    shape = tuple(int(n / MAP_STEP) + 2 for n in reference.shape)
    index = np.indices(shape).reshape(3, -1).T
    points = index @ grid[:3, :3].T + grid[:3, 3]
    mapped = registration.to_template(points @ back[:3, :3].T + back[:3, 3])
    displacement = (mapped - points).T.reshape(3, *shape).astype(np.float32)
    to_template = Deformation(matrix=np.eye(4), displacement=displacement, grid=grid)
    return replace(head, to_template=to_template)
