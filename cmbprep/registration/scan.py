"""A scan's way to the template, along a chain of fallbacks.

1. Through the T1w image of the same person, if there is one: rigid to it, and from there as
   the T1w image goes.
2. Straight to the template, where there is no T1w image, where its own registration has
   failed, or where the scan cannot be laid onto it.
3. None: where that fails, too, nothing says where a lesion lies, and none gets a zone.

Each step is judged
(:class:`cmbprep.registration.quality.RegistrationQuality`); a result that is doubtful is
used and said to be so, one that has failed is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, from_matvec
from nibabel.spatialimages import SpatialImage

from cmbprep.brain.mask_selection import DISAGREEMENT, dice
from cmbprep.brain.mask_selection import doubts as implausible
from cmbprep.brain.network import BrainExtraction, find_brain
from cmbprep.brain.refine import carry_brain_mask, refine_brain_mask
from cmbprep.errors import ScanError
from cmbprep.registration.fit import (
    RegistrationQuality,
    RigidRegistration,
    TemplateRegistration,
    register_rigid,
    register_to_template,
)
from cmbprep.registration.turned import fits_better, turn_back, turn_header, turns
from cmbprep.spatial.grids import Grid, resample_to_grid
from cmbprep.spatial.transforms import LinearMap, PointMap

#: Error of registration to reckon with, mm, by the way that a scan has taken and its slices: how
#: far from other zones lesions must lie so that hardly any is misplaced. Set on people that no
#: figure is reported on (``benchmarks/anatomy zones --tuning``).
EXPECTED_ERROR_MM = {"t1w": 2.0, "template": 3.0, "template, thick slices": 3.5}
#: Said where the mirror image of a scan fits the T1w image, and what that means for the result.
MIRRORED = (
    "it fits as a mirror image, so left and right are exchanged in the header of one of the two"
)
SIDES_IN_DOUBT = "left and right are in doubt, as the scan is a mirror image of the T1w image"
#: So much more of the brain's inside must fit then. A real scan had 0.90, and 0.52 when mirrored.
MIRRORED_GAIN = 0.15
#: Distance between slices from which they are thick, mm.
THICK_MM = 4.0


def error_class(route: str, slice_mm: float) -> str:
    """Return the key of :data:`EXPECTED_ERROR_MM` for a scan.

    Parameters
    ----------
    route
        ``t1w`` or ``template``.
    slice_mm
        Largest distance between voxel centres along an axis, mm.
    """
    if route not in ("t1w", "template"):
        raise ValueError(f"a way to the template is t1w or template, not {route!r}")
    thick = route == "template" and slice_mm >= THICK_MM
    return f"{route}, thick slices" if thick else route


@dataclass(frozen=True, eq=False, kw_only=True)
class AnatomicalImage:
    """A T1w image with what is known of it.

    Attributes
    ----------
    image
        Bias-corrected.
    brain_mask
        On any grid in its space.
    verdict
        Of its registration to the template.
    """

    image: SpatialImage
    brain_mask: SpatialImage
    verdict: str = "ok"


@dataclass(frozen=True, eq=False, kw_only=True)
class ScanRegistration:
    """The way that a scan has taken to the template.

    Attributes
    ----------
    route
        ``t1w``, ``template`` or ``none``.
    rigid
        Registration to the T1w image, whether it was used or not; None without such an image.
    direct
        Registration straight to the template; None where it was not tried.
    brain_mask
        On the scan's own grid; by the route, and by the last that was tried where it is ``none``.
    quality
        Of the route, or of what was tried last.
    warnings
        What went wrong on the way.
    spacing_mm
        Largest distance between the scan's voxels along an axis.
    """

    route: str
    rigid: RigidRegistration | None
    direct: TemplateRegistration | None
    brain_mask: nib.Nifti1Image
    quality: RegistrationQuality
    warnings: tuple[str, ...] = ()
    spacing_mm: float

    @property
    def tolerance_mm(self) -> float:
        """Error of registration to reckon with, mm."""
        if self.route == "none":
            return float("inf")
        return EXPECTED_ERROR_MM[error_class(self.route, self.spacing_mm)]

    def chain(self, t1w_to_template: PointMap | None = None) -> tuple[PointMap, ...]:
        """Return the maps of points from the scan to the template; empty without a way.

        Parameters
        ----------
        t1w_to_template
            Needed where the route is ``t1w``.
        """
        if self.route == "t1w":
            assert self.rigid is not None and t1w_to_template is not None
            return (self.rigid.to_reference, t1w_to_template)
        if self.route == "template":
            assert self.direct is not None
            return (self.direct.to_template,)
        return ()


def register_head(
    image: SpatialImage,
    template: SpatialImage,
    template_mask: SpatialImage,
    *,
    same_contrast: bool = False,
) -> TemplateRegistration:
    """Find the brain in an image, register the image to the template, and compare the two.

    Where that gives rise to doubt, the header is turned, as far as the head seems to be
    (:mod:`.turned`), and the registration that fits better is taken.

    A registration is doubtful where the brain was found elsewhere. A doubtful one has failed where
    the brain that was found elsewhere is doubtful, too, or none was found: nothing is left that one
    could trust.

    Parameters
    ----------
    image
        Bias-corrected magnitude image, whole head or slab.
    template, template_mask
        Head and brain mask of the template.
    same_contrast
        Whether it is a T1w image like the template.

    Raises
    ------
    ScanError
        If the image shows too little to register.
    """
    brain = find_brain(image)
    found = _register_upright(image, brain, template, template_mask, same_contrast)
    for turn, gain in turns(image, found):
        turned = turn_header(image, turn)
        if (brain := find_brain(turned)) is None:
            continue
        try:
            # The likeliest start tells whether the head lies so.
            other = _register_upright(turned, brain, template, template_mask, same_contrast, 1)
        except ScanError:  # It does not.
            continue
        if fits_better(other.quality, found.quality, gain):
            return turn_back(other, turn, template_mask)
    return found


def _register_upright(
    image: SpatialImage,
    brain: BrainExtraction | None,
    template: SpatialImage,
    template_mask: SpatialImage,
    same_contrast: bool,
    most_starts: int | None = None,
) -> TemplateRegistration:
    """Register an image whose header is about right, and compare the brains."""
    mask = None if brain is None else brain.mask
    found = register_to_template(
        image,
        template,
        template_mask,
        mask,
        same_contrast=same_contrast,
        most_starts=most_starts,
    )
    if found.quality.verdict == "failed":
        return found
    overlap = 0.0 if brain is None else _brain_overlap(found, brain)
    elsewhere = f"the brain found in the image itself lies elsewhere (Dice {overlap:.2f})"
    if found.quality.verdict == "ok":
        # Of two sound ones, one must be wrong.
        if brain is None or overlap >= DISAGREEMENT or implausible(brain):
            return found
        verdict, why = "doubtful", elsewhere
    elif brain is None:
        verdict, why = "failed", "no brain was found in the image itself either"
    elif overlap < DISAGREEMENT and implausible(brain):
        verdict, why = "failed", f"{elsewhere} and is doubtful, too"
    else:
        return found
    reasons = (*found.quality.reasons, why)
    return replace(found, quality=replace(found.quality, verdict=verdict, reasons=reasons))


def _brain_overlap(found: TemplateRegistration, brain: BrainExtraction) -> float:
    """Dice of the template's brain and the one found in the image."""
    prior = found.brain_prior
    grid = Grid(prior.shape, prior.affine)
    own = resample_to_grid(np.asarray(brain.mask.dataobj) > 0, brain.mask.affine, grid) >= 0.5
    carried = np.asarray(prior.dataobj) >= 0.5
    return dice(*(nib.Nifti1Image(m.astype(np.uint8), grid.affine) for m in (own, carried)))


def register_scan(
    scan: SpatialImage,
    anatomy: AnatomicalImage | None,
    template: SpatialImage,
    template_mask: SpatialImage,
) -> ScanRegistration:
    """Register a scan by the first way of the chain that is not judged to have failed.

    Parameters
    ----------
    scan
        Bias-corrected magnitude image.
    anatomy
        T1w image of the same person, if there is one.
    template, template_mask
        Head and brain mask of the template.

    Raises
    ------
    ScanError
        If the scan shows too little to register it to anything.
    """
    spacing = float(np.linalg.norm(scan.affine[:3, :3], axis=0).max())
    rigid, direct, route = None, None, "template"
    warnings: list[str] = []
    if anatomy is not None:
        rigid = _rigid(scan, anatomy)
        warnings += doubts(rigid.quality, "T1w image")
        if "failed" not in (anatomy.verdict, rigid.quality.verdict):
            route, quality = "t1w", rigid.quality
            mask = carry_brain_mask(scan, anatomy.brain_mask, rigid.to_reference)
        else:
            warnings.append("the T1w image was not used: the scan went straight to the template")
    if route == "template":
        direct = register_head(scan, template, template_mask)
        if rigid is not None and MIRRORED in rigid.quality.reasons:
            direct = replace(direct, quality=_doubt(direct.quality, SIDES_IN_DOUBT))
        quality = direct.quality
        warnings += doubts(quality, "template")
        if quality.verdict == "failed":
            route = "none"
            warnings.append("nothing tells where lesions lie in the brain: none of them has a zone")
        mask = refine_brain_mask(scan, direct.brain_prior)
    return ScanRegistration(
        route=route,
        rigid=rigid,
        direct=direct,
        brain_mask=mask,
        quality=quality,
        warnings=tuple(warnings),
        spacing_mm=spacing,
    )


def _rigid(scan: SpatialImage, anatomy: AnatomicalImage) -> RigidRegistration:
    """Register to the T1w image; what cannot be registered lies as the headers have it."""
    try:
        found = register_rigid(scan, anatomy.image, anatomy.brain_mask)
    except ScanError as error:
        quality = RegistrationQuality(
            similarity=1.0,
            overlap=0.0,
            covered=0.0,
            brain_volume_ml=0.0,
            rotation_deg=0.0,
            shift_mm=0.0,
            verdict="failed",
            reasons=(error.message,),
        )
        return RigidRegistration(LinearMap(np.eye(4)), quality)
    if found.quality.verdict == "failed" and _fits_mirrored(scan, anatomy, found.quality):
        reasons = (MIRRORED, *found.quality.reasons)
        found = replace(found, quality=replace(found.quality, reasons=reasons))
    return found


def _fits_mirrored(
    scan: SpatialImage, anatomy: AnatomicalImage, quality: RegistrationQuality
) -> bool:
    """Return whether the mirror image of a scan fits a T1w image that the scan does not fit."""
    centre = apply_affine(scan.affine, (np.array(scan.shape[:3]) - 1) / 2)
    mirror = from_matvec(np.diag([-1.0, 1.0, 1.0]), [2 * centre[0], 0.0, 0.0])
    mirrored = nib.Nifti1Image(np.asanyarray(scan.dataobj), mirror @ scan.affine)
    try:
        other = register_rigid(mirrored, anatomy.image, anatomy.brain_mask).quality
    except ScanError:
        return False
    gain = (other.agreeing or 0.0) - (quality.agreeing or 0.0)
    return other.verdict != "failed" and gain > MIRRORED_GAIN


def _doubt(quality: RegistrationQuality, reason: str) -> RegistrationQuality:
    """Return a quality that is doubtful at best, for one more reason."""
    verdict = "failed" if quality.verdict == "failed" else "doubtful"
    return replace(quality, verdict=verdict, reasons=(*quality.reasons, reason))


def doubts(quality: RegistrationQuality, target: str) -> list[str]:
    """Return the reasons of a registration's QC status in one sentence; empty if it is ok."""
    said = "has failed" if quality.verdict == "failed" else "is doubtful"
    why = "; ".join(quality.reasons)
    return [f"the registration to the {target} {said}: {why}"] if why else []
