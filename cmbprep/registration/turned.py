"""Heads that lie another way round than their header says.

The brain is found in upright heads alone, and the outline of a brain fits nearly as well upside
down. Where a registration gives rise to doubt, the header is turned, and all is done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, from_matvec
from nibabel.spatialimages import SpatialImage
from scipy.spatial.transform import Rotation

from cmbprep.registration.fit import TemplateRegistration
from cmbprep.registration.quality import MAX_ROTATION, RegistrationQuality, move_of
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import LinearMap, compose_on_grid

#: Where less of the brain's inside than this fits, the head may lie the other way round. Two real
#: scans whose headers had been turned upside down seemed to fit in 0.51 and 0.62. Whole heads with
#: right headers had 0.76 and more; one that was cut in half had 0.58, and is looked at in vain.
MAY_BE_TURNED = 0.7
#: With another way round, this much more of it must fit.
TURNED_GAIN = 0.1
#: With the way round that a registration has found by itself, it may be this much less.
TURNED_LOSS = 0.05


def turns(image: SpatialImage, found: TemplateRegistration) -> Iterator[tuple[LinearMap, float]]:
    """Yield turns of a header to try, and how much more of the brain must fit with them.

    None where there is no doubt: the registration has not turned the head by much, and enough of
    the brain's inside fits.

    Parameters
    ----------
    image
        Whose header may be wrong.
    found
        Its registration, by the header as it is.
    """
    centre = apply_affine(image.affine, (np.array(image.shape[:3]) - 1) / 2)
    quality = found.quality
    if quality.rotation_deg > MAX_ROTATION:
        left, _, right = np.linalg.svd(found.linear.matrix[:3, :3])
        tried = [(left @ right, -TURNED_LOSS)]
    elif (quality.agreeing or 0.0) < MAY_BE_TURNED:
        halves = (Rotation.from_rotvec(np.pi * axis).as_matrix() for axis in np.eye(3))
        tried = [(half, TURNED_GAIN) for half in halves]
    else:
        tried = []
    for matrix, gain in tried:
        yield LinearMap(from_matvec(matrix, centre - matrix @ centre)), gain


def turn_header(image: SpatialImage, turn: LinearMap) -> nib.Nifti1Image:
    """Return an image whose points have been turned; its voxels stay."""
    return nib.Nifti1Image(np.asanyarray(image.dataobj), turn.matrix @ image.affine)


def fits_better(new: RegistrationQuality, old: RegistrationQuality, gain: float) -> bool:
    """Return whether a registration has not failed, and fits in that much more of the brain."""
    return new.verdict != "failed" and (new.agreeing or 0.0) > (old.agreeing or 0.0) + gain


def turn_back(
    found: TemplateRegistration, turn: LinearMap, template_mask: SpatialImage
) -> TemplateRegistration:
    """Return the registration of an image from that of one with a turned header.

    Parameters
    ----------
    found
        Of the image whose header had been turned.
    turn
        Takes points of the image to those of the turned one.
    template_mask
        Brain mask of the template.
    """
    back = turn.inverse()
    field, prior = found.to_template, found.brain_prior
    own = Grid(field.displacement.shape[:3], back.matrix @ field.affine)
    there = Grid(found.to_image.displacement.shape[:3], found.to_image.affine)
    linear = LinearMap(found.linear.matrix @ turn.matrix)
    brain = np.argwhere(np.asarray(template_mask.dataobj) > 0).mean(axis=0)
    shift, angle, _ = move_of(linear.inverse(), apply_affine(template_mask.affine, brain))
    quality = replace(found.quality, rotation_deg=angle, shift_mm=shift)
    if angle > MAX_ROTATION and quality.verdict != "failed":
        why = f"the head is turned by {angle:.0f} degrees against its header"
        quality = replace(quality, verdict="doubtful", reasons=(*quality.reasons, why))
    return replace(
        found,
        to_template=compose_on_grid((turn, field), own),
        to_image=compose_on_grid((found.to_image, back), there),
        linear=linear,
        brain_prior=nib.Nifti1Image(np.asanyarray(prior.dataobj), back.matrix @ prior.affine),
        quality=quality,
    )
