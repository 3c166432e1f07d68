"""Registration of scans to each other and to a template.

Every registration starts from :func:`cmbprep.registration.pose.search_pose`, so it does not rely on
headers that agree; ANTs (Avants et al. 2011) then refines it, to 2 mm where it is rigid and to
2.5 mm where it deforms. All of it is the same to the
last bit on every run and on any number of processors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.brain.bias import clean_intensities, head_mask
from cmbprep.errors import ScanError
from cmbprep.registration.contrast import (
    LOCAL_MM,
    Drawing,
    draw_as,
    normalise_locally,
    tissue_parts,
)
from cmbprep.registration.evidence import (
    BrainParts,
    PartShifts,
    find_shifts,
    follow_parts,
    gather_evidence,
    weigh,
)
from cmbprep.registration.outline import align_outlines
from cmbprep.registration.pose import HeadImage, Pose, search_pose
from cmbprep.registration.quality import (
    LITTLE_SEEN_IN_TEMPLATE,
    RIM,
    SETTLED,
    VERDICTS,
    RegistrationQuality,
    judge_rigid,
    judge_template,
)
from cmbprep.spatial.ants import Fit, Stage, image_grid, run_stage
from cmbprep.spatial.ants_process import AntsProcess
from cmbprep.spatial.grids import (
    FWHM_PER_SIGMA,
    Grid,
    bounding_box,
    boxed_grid,
    resample_to_grid,
    signed_distance,
    working_grid,
)
from cmbprep.spatial.propagate import carry_mask, field_of_view
from cmbprep.spatial.transforms import (
    DisplacementMap,
    LinearMap,
    apply_transforms,
    compose_on_grid,
    map_points,
)

__all__ = [
    "VERDICTS",
    "RegistrationQuality",
    "RigidRegistration",
    "TemplateRegistration",
    "register_rigid",
    "register_to_template",
]

#: Voxel size at which rigid registration works, mm; thicker slices stay as thick as they are.
RIGID_SPACING = 2.0
#: The same for registration to the template. At 2 mm it takes twice as long, and median errors of
#: simulated people are smaller by less than 0.1 mm.
SPACING = 2.5
#: How far the linear part looks, mm: the scalp steadies the scale where it shows. The box that is
#: deformed reaches as far: the field is held to 0 at its border, which only 4 mm outside of what
#: the deformation looks at added 0.1 to 0.4 mm to the 95 % of a tuning person.
LINEAR_RIM = 16.0
#: How much of what surrounds the brain local contrast sees after a start from outlines, mm.
FINE_RIM = 5.0
#: Where scalp is looked for, mm from the brain, and how bright it must be against the brain to
#: be there: of eight kinds of images, those with scalp had 0.54 and more, those without 0.13 and
#: less. With fewer voxels of it in view, nothing is known and the whole head is tried first.
SCALP_MM = (5.0, 22.0)
SCALP_LEVEL = 0.3
MIN_SCALP_VOXELS = 200


@dataclass(frozen=True, eq=False)
class RigidRegistration:
    """A scan laid onto another one of the same person.

    Attributes
    ----------
    to_reference
        Takes points of the scan to points of the reference; its inverse goes back.
    quality
        How good it seems.
    """

    to_reference: LinearMap
    quality: RegistrationQuality


@dataclass(frozen=True, eq=False)
class TemplateRegistration:
    """An image of a head laid onto a template.

    Attributes
    ----------
    to_template
        Takes points of the image to points of the template; sampled at 2.5 mm over the
        image's field of view.
    to_image
        Takes points of the template to points of the image; sampled at 2.5 mm over the
        template's field of view.
    linear
        The affine part alone, image to template.
    brain_prior
        The template's brain mask at 2.5 mm over the image's field of view, between 0 and 1,
        float32.
    quality
        How good it seems.
    """

    to_template: DisplacementMap
    to_image: DisplacementMap
    linear: LinearMap
    brain_prior: nib.Nifti1Image
    quality: RegistrationQuality


# Six numbers need not all voxels, nor do twelve: on tuning people, errors were the same to 0.1 mm
# with all of them. The parts lie on a lattice.
RIGID_COARSE = Stage("Rigid[0.1]", (60,), (4.0,), sampled=0.05)
RIGID_FINE = Stage("Rigid[0.1]", (30,), (2.0,), sampled=0.25)
AFFINE = Stage("Affine[0.1]", (80, 50), (7.5, 5.0), sampled=0.5)
# How the template is deformed after that. First by mutual information, whose last level only
# brings the field to full resolution. Then the template is redrawn in the image's contrast, and
# deformed by local contrast, anew each time: what mutual information got wrong would stay
# otherwise (thick slices of a tuning person: 95 % within 8.0 mm, not 4.8). The second drawing is
# the sharper one for the first, and worth iterations at full resolution.
LEVELS = (7.5, 5.0, 2.5)
DEFORMABLE = Stage("SyN[0.25,3,0]", (40, 15, 0), LEVELS)
REDRAWN = (
    Stage("SyN[0.25,4,0]", (40, 20, 0), LEVELS),
    Stage("SyN[0.25,4,0]", (60, 30, 5), LEVELS),
)
# The first of them, from an affine part that is set anew.
AGAIN = REDRAWN[0]
#: The likelier start is kept unless with another one this much more of the brain's inside fits best
#: where it lies.
CLEARLY = 0.05


def register_to_template(
    image: SpatialImage,
    template: SpatialImage,
    template_mask: SpatialImage,
    brain: SpatialImage | None = None,
    *,
    same_contrast: bool = False,
    most_starts: int | None = None,
) -> TemplateRegistration:
    """Register an image of a head to a template, whatever its contrast and header.

    The pose is that in which the outlines of the brains lie on each other, and what surrounds them
    is left out. Or it is searched for by intensities, against the whole template head or against
    its brain alone where the image shows no scalp. It is then refined: affine, and SyN, by mutual
    information and by local contrast. Unless nearly all of the brain's inside fits best where it is
    laid, a second start is tried, and more of them while none is judged to be ok. The best is
    taken.

    Parameters
    ----------
    image
        Bias-corrected magnitude image, whole head or slab.
    template
        T1w of a whole head.
    template_mask
        Its brain mask, in the same space.
    brain
        Brain mask of the image, found in the image itself; without one, its intensities must do.
    same_contrast
        Whether the image is a T1w image like the template: then intensities are followed first.
    most_starts
        How many poses are started from at most; None for all that may be needed.

    Raises
    ------
    ScanError
        If the image shows too little to register.
    """
    shown = _coarse_head(image, None, SPACING)
    reference = _coarse_head(template, template_mask, SPACING)
    best: TemplateRegistration | None = None
    refused: ScanError | None = None
    with AntsProcess() as process:
        for tried, (start, rough, fine) in enumerate(
            islice(_starts(shown, reference, brain, same_contrast), most_starts)
        ):
            try:
                deformation, quality = _TemplateFit(rough, fine, process).run(start)
            except ScanError as error:  # The next start may lead somewhere.
                refused = error
                continue
            back = deformation.linear.inverse()
            to_template = compose_on_grid((back, deformation.inverse), shown.grid)
            prior = _carry_prior(template_mask, shown.grid, to_template)
            found = TemplateRegistration(to_template, deformation.to_image, back, prior, quality)
            if best is None or _is_better(quality, best.quality, CLEARLY):
                best = found
            if best.quality.verdict != "failed" and (best.quality.agreeing or 0.0) >= SETTLED:
                break
            if best.quality.verdict == "ok" and tried > 0:
                break
    if best is None:
        raise refused or _nothing_fits()
    return best


#: An image and a template.
_Heads = tuple[HeadImage, HeadImage]
#: A pose to start from (template to image), the image and the template that it is refined with by
#: mutual information, and those for local contrast.
_Start = tuple[LinearMap, _Heads, _Heads]


def _starts(
    shown: HeadImage, reference: HeadImage, brain: SpatialImage | None, same_contrast: bool
) -> Iterator[_Start]:
    """Yield poses to start from, likeliest first."""
    outline = None if brain is None else _outline_start(shown, reference, brain)
    if outline is not None and not same_contrast:
        yield outline
    for number, (pose, variant) in enumerate(_poses(shown, reference, scaling=True)):
        heads = shown, reference._replace(values=variant)
        yield pose.transform.inverse(), heads, heads
        if outline is not None and same_contrast and number == 0:
            yield outline


def _outline_start(shown: HeadImage, reference: HeadImage, brain: SpatialImage) -> _Start | None:
    """Lay the outlines of the brains onto each other, and leave out what surrounds them.

    Mutual information sees the brains alone, and local contrast their rims, too: the border of a
    brain that was found is a voxel or two beside the true one.

    None where nothing of the brain's outline is in the image.
    """
    values = resample_to_grid(np.asarray(brain.dataobj) > 0, brain.affine, shown.grid)
    found = shown._replace(mask=values >= 0.5)
    try:
        pose = align_outlines(found, reference).inverse()
    except ValueError:
        return None
    rough, fine = (
        (cut_out(found, rim)._replace(mask=shown.mask), cut_out(reference, rim))
        for rim in (0.0, FINE_RIM)
    )
    return pose, rough, fine


def cut_out(head: HeadImage, rim: float) -> HeadImage:
    """Return a head with 0 outside of its brain and a rim, which fades over a template's voxel.

    Parameters
    ----------
    head
        With its brain mask.
    rim
        Of what lies around the brain, mm.
    """
    distance = signed_distance(head.mask, head.grid.spacing, rim + SPACING) - rim
    inside = np.clip(0.5 - distance / SPACING, 0, 1).astype(np.float32)
    return head._replace(values=head.values * inside)


def _is_better(new: RegistrationQuality, old: RegistrationQuality, by: float = 0.0) -> bool:
    """Compare two registrations by verdict, and then by how much of the brain's inside fits.

    Of a slab, doubts do not count: one that is laid too small seems to show enough of the brain.
    """
    part = min(quality.overlap for quality in (new, old)) < LITTLE_SEEN_IN_TEMPLATE

    def rank(quality: RegistrationQuality) -> int:
        return 0 if part and quality.verdict == "doubtful" else VERDICTS.index(quality.verdict)

    judged = [rank(quality) for quality in (new, old)]
    fits = [quality.agreeing or 0.0 for quality in (new, old)]
    return judged[0] < judged[1] or (judged[0] == judged[1] and fits[0] > fits[1] + by)


def _coarse_head(image: SpatialImage, mask: SpatialImage | None, spacing: float) -> HeadImage:
    """Bring an image to its working grid, with its brain mask, or one of where it shows a head."""
    data, fine = clean_intensities(image), image_grid(image)
    grid = working_grid(fine.shape, fine.affine, spacing)
    values = resample_to_grid(data, fine.affine, grid)
    if mask is None:
        return HeadImage(values, head_mask(values, grid.spacing), grid)
    brain = resample_to_grid(np.asarray(mask.dataobj) > 0, mask.affine, grid) >= 0.5
    return HeadImage(values, brain, grid)


#: Values of the template in its box, and of the image.
_Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class _Deformation:
    """Maps of points from the template to an image: first the warp, then the linear map."""

    linear: LinearMap
    warp: DisplacementMap
    inverse: DisplacementMap
    to_image: DisplacementMap


class _TemplateFit:
    """An image and a template that is fitted to it, both on their working grids.

    Parameters
    ----------
    rough
        The image and the template for mutual information.
    fine
        The same two for local contrast, with as much of what surrounds the brain as that needs.
    process
        That ANTs runs in.
    """

    def __init__(self, rough: _Heads, fine: _Heads, process: AntsProcess) -> None:
        self.process, self.rough = process, rough
        self.image, self.template = image, template = fine
        distance = signed_distance(template.mask, template.grid.spacing, LINEAR_RIM)
        self.near = distance <= RIM
        self.wide = distance <= LINEAR_RIM
        self.box = bounding_box(self.wide)
        self.box_grid = boxed_grid(template.grid, self.box)
        self.parts = tissue_parts(template.values[self.box], distance[self.box])
        self.brain = template.mask[self.box]
        self.contrast = normalise_locally(image.values, image.grid.spacing, LOCAL_MM)

    def run(self, start: LinearMap) -> tuple[_Deformation, RegistrationQuality]:
        """Fit affinely, deformably, and by local contrast, from a pose (template to image)."""
        image, template = self.rough
        pair = template.values[self.box], image.values
        linear, _, _ = run_stage(self._fit(pair, self.wide, start, AFFINE))
        first = self._deform(pair, linear, DEFORMABLE)
        found, drawing = self._sharpen(first, self._redrawn(first))
        shifts = self._shifts(drawing)
        evidence = None if shifts is None else weigh(shifts, self.template.grid.spacing)
        if shifts is not None and evidence is not None and evidence.agreeing < SETTLED:
            # The parts say where they belong. Mutual information had little to go by.
            linear = follow_parts(shifts, self.box_grid, found.to_image, found.linear)
            first = self._deform((drawing.contrast, self.contrast), linear, AGAIN)
            then, redrawn = self._sharpen(first, self._redrawn(first))
            further = gather_evidence(redrawn, self.brain, self.template.grid.spacing)
            if further is not None and further.agreeing > evidence.agreeing:
                found, evidence = then, further
        maps = found.warp, found.to_image, found.linear
        return found, judge_template(self.template, self.near, self.image, *maps, evidence)

    def _sharpen(self, found: _Deformation, drawing: Drawing) -> tuple[_Deformation, Drawing]:
        """Deform the redrawn template by local contrast, and redraw it again."""
        for stage in REDRAWN:
            further = self._deform((drawing.contrast, self.contrast), found.linear, stage)
            then = self._redrawn(further)
            if then.explained <= drawing.explained:
                break  # A step that explains no more of the image is not taken.
            found, drawing = further, then
        return found, drawing

    def _shifts(self, drawing: Drawing) -> PartShifts | None:
        return find_shifts(drawing, self.brain, self.template.grid.spacing)

    def _deform(self, pair: _Pair, linear: LinearMap, stage: Stage) -> _Deformation:
        linear, warp, inverse = self.process.run(self._fit(pair, self.near, linear, stage))
        assert warp is not None and inverse is not None
        to_image = compose_on_grid((warp, linear), self.template.grid)
        return _Deformation(linear, warp, inverse, to_image)

    def _fit(self, pair: _Pair, region: NDArray[np.bool_], linear: LinearMap, stage: Stage) -> Fit:
        """Set out the box around the template's brain, looked at where the image shows it."""
        seen = field_of_view(self.box_grid, self.image.grid, linear) & region[self.box]
        return Fit((pair[0], self.box_grid), (pair[1], self.image.grid), seen, linear, stage)

    def _redrawn(self, found: _Deformation) -> Drawing:
        """Redraw the template in the image's contrast, as far as the image has been found."""
        image = nib.Nifti1Image(self.image.values, self.image.grid.affine)
        carried = apply_transforms(image, self.box_grid, (found.to_image,), fill=float("nan"))
        return draw_as(
            self.parts,
            np.asarray(carried.dataobj, dtype=np.float32),
            self.near[self.box],
            self.brain,
            self.template.grid.spacing,
        )


def _carry_prior(mask: SpatialImage, grid: Grid, to_template: DisplacementMap) -> nib.Nifti1Image:
    """Bring the template's brain mask onto an image's working grid, between 0 and 1."""
    fine = image_grid(mask)
    soft = np.asarray(np.asarray(mask.dataobj) > 0, dtype=np.float32)
    # As soft as the grid is coarse.
    width = np.sqrt(np.maximum((grid.spacing.min() / fine.spacing) ** 2 - 1, 0)) / FWHM_PER_SIGMA
    image = nib.Nifti1Image(ndimage.gaussian_filter(soft, width, truncate=3.0), mask.affine)
    return apply_transforms(image, grid, (to_template,))


def register_rigid(
    scan: SpatialImage,
    reference: SpatialImage,
    reference_mask: SpatialImage,
    *,
    name: str = "T1w image",
) -> RigidRegistration:
    """Register a scan to another one of the same person, whatever their headers say.

    Parameters
    ----------
    scan
        Bias-corrected magnitude image; thick slices, another orientation and partial
        coverage are fine.
    reference
        Bias-corrected image of the whole head, usually the T1w.
    reference_mask
        Its brain mask, on any grid in its space.
    name
        What the reasons of the verdict call the reference.

    Raises
    ------
    ScanError
        If the scan shows too little to register.
    """
    fixed = _coarse_head(scan, None, RIGID_SPACING)
    moving = _coarse_head(reference, reference_mask, RIGID_SPACING)
    near = signed_distance(moving.mask, moving.grid.spacing, LINEAR_RIM) <= LINEAR_RIM
    parts = BrainParts(_coarse_head(reference, reference_mask, SPACING))
    best: RigidRegistration | None = None
    for pose, variant in _poses(fixed, moving, scaling=False):
        linear = pose.transform
        # Twice, because the region is only as good as the pose it is carried over with.
        for stage in (RIGID_COARSE, RIGID_FINE):
            region = carry_mask(near, moving.grid, fixed.grid, linear)
            if np.count_nonzero(region) < 1000:
                raise ScanError(
                    f"the scan and the {name} do not overlap",
                    hint="check that both are of the same person and show the brain",
                )
            images = (fixed.values, fixed.grid), (variant, moving.grid)
            linear, _, _ = run_stage(Fit(*images, region, linear, stage))
        # Distortion and shading lead mutual information astray by millimetres.
        linear = parts.follow_rigidly(fixed, linear.inverse()).inverse()
        evidence = parts.evidence(fixed, linear.inverse())
        quality = judge_rigid(fixed, moving, variant, linear, evidence, name)
        if best is None or _is_better(quality, best.quality):
            best = RigidRegistration(linear, quality)
        if best.quality.verdict == "ok":
            break
    if best is None:
        raise _nothing_fits()
    return best


def _poses(
    image: HeadImage, reference: HeadImage, *, scaling: bool
) -> Iterator[tuple[Pose, NDArray[np.float32]]]:
    """Candidate poses with the values of the reference they were found for, most likely first.

    The reference is the whole head, or its brain alone: where an image has no scalp, a reference
    with one would draw the edge of its brain out to the reference's scalp, and the other way
    round.

    Parameters
    ----------
    image
        With a mask of where it shows a head.
    reference
        With its brain mask.
    """

    @cache
    def search(whole: bool) -> tuple[Pose, NDArray[np.float32]]:
        head, brain, _ = reference
        values = head if whole else np.where(brain, head, np.float32(0))
        return search_pose(image, reference._replace(values=values), scaling=scaling), values

    scalp = _shows_scalp(image, reference, search(True)[0].transform)
    for whole in (scalp, not scalp):
        pose, values = search(whole)
        if pose.similarity > 0:
            yield pose, values


def _nothing_fits() -> ScanError:
    return ScanError(
        "no pose was found in which the image fits the head that it is registered to",
        hint="check that it shows a head and that its voxel size is right",
    )


def _shows_scalp(image: HeadImage, reference: HeadImage, to_reference: LinearMap) -> bool:
    """Return whether an image is bright where the reference has scalp, above the skull base.

    Echo-planar images with fat suppression, and images of brains cut out, are dark there.
    """
    values, brain, grid = reference
    level = float(np.median(values[brain]))
    distance = signed_distance(brain, grid.spacing, SCALP_MM[1])
    scalp = (distance > SCALP_MM[0]) & (distance < SCALP_MM[1]) & (values > 0.5 * level)
    points = grid.points()
    height = points[:, 2].reshape(grid.shape)
    scalp &= height > height[brain].mean()
    levels = []
    for region in (brain, scalp):
        to_voxel = LinearMap(image.grid.affine).inverse()
        where = map_points(points[region.ravel()], (to_reference.inverse(), to_voxel)).T
        sampled = ndimage.map_coordinates(image.values, where, order=1, cval=-np.inf)
        sampled = sampled[np.isfinite(sampled)]
        if sampled.size < MIN_SCALP_VOXELS:
            return True
        levels.append(float(np.median(sampled)))
    return levels[1] > SCALP_LEVEL * levels[0]
