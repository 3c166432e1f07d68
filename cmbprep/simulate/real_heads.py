"""Heads from real T1-weighted images: segmented here, and registered to the template.

A real head takes the place of the template head that simulated people are deformed from: it
brings its own folding, ventricles and skull. Its intensities are split into tissues as the
template's are; where a point of it lies in the template is known from a registration, so
that zones of lesions in it are as true as that registration.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import CmbprepError, UsageError
from .head import Deformation, TemplateHead
from .template_head import template_head

__all__ = ["find_heads", "load_real_head", "real_head"]

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
    from ..images import open_image

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

    from ..algorithms.bias import correct_bias
    from ..algorithms.masking import refine_brain_mask
    from ..algorithms.registration import register_to_template
    from ..templates import load_template

    template = load_template()
    reference = nib.as_closest_canonical(nib.load(template.t1w))
    mask = nib.as_closest_canonical(nib.load(template.brain_mask))
    corrected = correct_bias(image).image  # type: ignore[arg-type]
    registration = register_to_template(corrected, reference, mask)
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
    return TemplateHead(
        affine=head.affine,
        gm=head.gm,
        wm=head.wm,
        brain_distance=head.brain_distance,
        depth=head.depth,
        to_template=Deformation(matrix=np.eye(4), displacement=displacement, grid=grid),
    )
