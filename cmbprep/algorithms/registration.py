"""Registration of scans to each other and to a template.

Every registration starts from :func:`~.pose_search.search_pose`, so it does not rely on
headers that agree; ANTs (Avants et al. 2011) then refines it at 2 mm. All of it runs on
one thread and is the same to the last bit on every run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.errors import ScanError

from .bias import clean_intensities, head_mask
from .carrying import carry_mask, field_of_view
from .contrast import normalise_locally, redraw
from .grids import Grid, crop_grid, resample_to_grid, working_grid
from .itk import SEED, image_grid, load_ants, to_ants
from .pose_search import Pose, search_pose
from .registration_quality import (
    RIM,
    VERDICTS,
    RegistrationQuality,
    judge_rigid,
    judge_template,
)
from .transforms import (
    DisplacementMap,
    LinearMap,
    apply_transforms,
    compose_on_grid,
    map_points,
    read_transform,
    write_transform,
)

__all__ = [
    "VERDICTS",
    "RegistrationQuality",
    "RigidRegistration",
    "TemplateRegistration",
    "register_rigid",
    "register_to_template",
]

#: Voxel size at which registration works, mm; thicker slices stay as thick as they are.
SPACING = 2.0
#: How far the linear part looks, mm: the scalp steadies the scale where it shows.
LINEAR_RIM = 16.0
#: The brain prior is carried over within the brain's box and this much around it, mm: the maps to
#: the image and to the template undo each other but for far less.
PRIOR_MARGIN_MM = 10.0
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
        Takes points of the image to points of the template; sampled at 2 mm over the
        image's field of view.
    to_image
        Takes points of the template to points of the image; sampled at 2 mm over the
        template's field of view.
    linear
        The affine part alone, image to template.
    brain_prior
        The template's brain mask on the image's own grid, between 0 and 1, float32.
    quality
        How good it seems.
    """

    to_template: DisplacementMap
    to_image: DisplacementMap
    linear: LinearMap
    brain_prior: nib.Nifti1Image
    quality: RegistrationQuality


@dataclass(frozen=True)
class _Stage:
    """One stage of antsRegistration, coarse to fine."""

    transform: str
    iterations: tuple[int, ...]
    resolution: tuple[float, ...]
    """Voxel size of each level, mm; a grid that is coarser is used as it is."""
    sampled: float | None = None
    """Part of the voxels that the metric looks at, on a lattice; all of them if None."""

    def arguments(self, fixed: str, moving: str, spacing: float) -> list[str]:
        shrink = [max(1, round(wanted / spacing)) for wanted in self.resolution]
        sampling = "None" if self.sampled is None else f"Regular,{self.sampled:g}"
        return [
            *("--metric", f"Mattes[{fixed},{moving},1,32,{sampling}]"),
            *("--transform", self.transform),
            *("--convergence", f"[{_joined(self.iterations)},1e-6,10]"),
            *("--shrink-factors", _joined(shrink)),
            *("--smoothing-sigmas", _joined([factor / 2 for factor in shrink])),
        ]


def _joined(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)


# Six numbers need not all voxels: on a tuning person with thick slices the error was 0.1 mm
# with these parts and with all of them, at half the time.
RIGID_COARSE = _Stage("Rigid[0.1]", (60,), (4.0,), sampled=0.25)
RIGID_FINE = _Stage("Rigid[0.1]", (30,), (2.0,), sampled=0.5)
AFFINE = _Stage("Affine[0.1]", (80, 50), (6.0, 4.0))


@dataclass(frozen=True)
class _Recipe:
    """How a template is deformed to an image, after the affine part.

    First by mutual information, whose last level only brings the field to full resolution:
    iterating there takes eight times as long as at 4 mm. Then the template is redrawn in the
    image's contrast, and deformed by local contrast, anew each time: what mutual information got
    wrong would stay otherwise (thick slices of a tuning person: 95 % within 8.0 mm, not 4.8).
    The second drawing is the sharper one for the first, and worth iterations at 2 mm.
    """

    deformable: _Stage
    redrawn: tuple[_Stage, ...]


def _recipe(at_2mm: int) -> _Recipe:
    """Give a recipe with so many iterations at 2 mm in the end."""
    levels = (8.0, 4.0, 2.0)
    return _Recipe(
        _Stage("SyN[0.25,3,0]", (60, 40, 0), levels),
        (
            _Stage("SyN[0.25,4,0]", (60, 40, 0), levels),
            _Stage("SyN[0.25,4,0]", (60, 40, at_2mm), levels),
        ),
    )


# Of the thorough one, a T1w image needs half of the iterations at 2 mm. With half of those at 4 mm,
# too, the 95 % of a real head and its warped twin rose from 3.5 to 4.1 mm.
USUAL = _recipe(5)
THOROUGH = _recipe(10)
#: Width of the surroundings that local contrast is measured in, mm. Of 2 to 10 mm, 3 and 4 left
#: the smallest errors on a tuning person.
LOCAL_MM = 3.0


def _register(
    fixed: tuple[NDArray[np.float32], Grid],
    moving: tuple[NDArray[np.float32], Grid],
    region: NDArray[np.bool_],
    start: LinearMap,
    stages: Sequence[_Stage],
) -> tuple[LinearMap, DisplacementMap | None, DisplacementMap | None]:
    """Run antsRegistration; maps of points fixed -> moving: linear, and both warps.

    A point of the fixed image goes through the warp and then through the linear map; a
    point of the moving image through the inverse linear map and then the inverse warp.
    """
    ants = load_ants()
    fixed_image, moving_image = to_ants(*fixed), to_ants(*moving)
    mask = to_ants(region.astype(np.uint8), fixed[1])
    pointer: Any = ants.internal.get_pointer_string
    names = pointer(fixed_image), pointer(moving_image)
    spacing = float(fixed[1].spacing.max())
    with tempfile.TemporaryDirectory(prefix="cmbprep-") as folder:
        initial = Path(folder) / "start.txt"
        write_transform(start, initial)
        arguments = [
            *("--dimensionality", "3", "--float", "1", "--random-seed", str(SEED)),
            *("--winsorize-image-intensities", "[0.005,0.995]"),
            *("--initial-moving-transform", str(initial)),
            *(a for stage in stages for a in stage.arguments(*names, spacing)),
            *("--masks", f"[{pointer(mask)},NA]", "-u", "0", "-z", "1"),
            *("--output", str(Path(folder) / "out")),
        ]
        try:
            ants.registration(fixed=arguments, moving=None)
        except RuntimeError as error:
            raise ScanError(
                f"the registration broke off ({error})",
                hint="look at the image: it may show too little of the head",
            ) from error
        linear = read_transform(Path(folder) / "out0GenericAffine.mat")
        assert isinstance(linear, LinearMap)
        if not (Path(folder) / "out1Warp.nii.gz").exists():
            return linear, None, None
        warp = read_transform(Path(folder) / "out1Warp.nii.gz")
        inverse = read_transform(Path(folder) / "out1InverseWarp.nii.gz")
        assert isinstance(warp, DisplacementMap) and isinstance(inverse, DisplacementMap)
        return linear, warp, inverse


def register_to_template(
    image: nib.spatialimages.SpatialImage,
    template: nib.spatialimages.SpatialImage,
    template_mask: nib.spatialimages.SpatialImage,
    *,
    thorough: bool = False,
) -> TemplateRegistration:
    """Register an image of a head to a template, whatever its contrast and header.

    The pose is searched for against the whole template head, or against its brain alone where
    the image shows no scalp (echo-planar images, brains cut out). It is then refined: affine, and
    SyN, by mutual information within the brain and a rim around it. If the result is not judged
    to be ok, the other variant is tried, too, and the better of the two is taken.

    Parameters
    ----------
    image
        Bias-corrected magnitude image, whole head or slab.
    template
        T1w of a whole head.
    template_mask
        Its brain mask, in the same space.
    thorough
        Whether to iterate for longer, which pays where the image is not T1-weighted, as the
        template is.

    Raises
    ------
    ScanError
        If the image shows too little to register.
    """
    data, grid = clean_intensities(image), image_grid(image)
    fixed_grid = working_grid(image_grid(template).shape, template.affine, SPACING)
    fixed = resample_to_grid(clean_intensities(template), template.affine, fixed_grid)
    brain = (
        resample_to_grid(np.asarray(template_mask.dataobj) > 0, template_mask.affine, fixed_grid)
        >= 0.5
    )
    moving_grid = working_grid(grid.shape, grid.affine, SPACING)
    moving = resample_to_grid(data, grid.affine, moving_grid)
    recipe = THOROUGH if thorough else USUAL
    best: TemplateRegistration | None = None
    for pose, variant in _poses(moving, moving_grid, fixed, brain, fixed_grid, scaling=True):
        fit = _TemplateFit((moving, moving_grid), (variant, brain, fixed_grid))
        deformation, quality = fit.run(pose.transform.inverse(), recipe)
        to_template = compose_on_grid(
            (deformation.linear.inverse(), deformation.inverse), moving_grid
        )
        found = TemplateRegistration(
            to_template,
            deformation.to_image,
            deformation.linear.inverse(),
            _carry_prior(template_mask, grid, deformation, to_template),
            quality,
        )
        if best is None or _rank(found.quality) > _rank(best.quality):
            best = found
        if best.quality.verdict == "ok":
            break
    assert best is not None
    return best


def _rank(quality: RegistrationQuality) -> tuple[int, float]:
    """Sort key of registrations, the best last: the verdict, then the similarity."""
    return -VERDICTS.index(quality.verdict), quality.similarity


@dataclass(frozen=True, eq=False)
class _Deformation:
    """Maps of points from the template to an image: first the warp, then the linear map."""

    linear: LinearMap
    warp: DisplacementMap
    inverse: DisplacementMap
    to_image: DisplacementMap


class _TemplateFit:
    """An image and a template that is fitted to it, both on their working grids."""

    def __init__(
        self,
        image: tuple[NDArray[np.float32], Grid],
        template: tuple[NDArray[np.float32], NDArray[np.bool_], Grid],
    ) -> None:
        self.image, self.image_grid = image
        self.template, self.brain, self.grid = template
        self.distance = _signed_distance(self.brain, self.grid)
        self.near = self.distance <= RIM
        self.wide = self.distance <= LINEAR_RIM
        self.crop = _bounding_box(self.wide, margin=0)
        self.contrast = normalise_locally(self.image, self.image_grid.spacing, LOCAL_MM)

    def run(self, start: LinearMap, recipe: _Recipe) -> tuple[_Deformation, RegistrationQuality]:
        """Fit affinely, deformably, and by local contrast, from a pose (template to image)."""
        linear, _, _ = self._register(self.template, self.image, self.wide, start, AFFINE)
        first = found = self._deform(self.template, self.image, linear, recipe.deformable)
        before = self._judge(first)
        if before.verdict == "failed":
            return first, before
        drawn, explained = self._redrawn(found)
        for stage in recipe.redrawn:
            further = self._deform(drawn, self.contrast, found.linear, stage)
            drawn, now = self._redrawn(further)
            if now <= explained:
                break  # A step that explains no more of the image is not taken.
            found, explained = further, now
        quality = self._judge(found, before)
        if VERDICTS.index(before.verdict) < VERDICTS.index(quality.verdict):
            return first, before
        return found, quality

    def _register(
        self,
        fixed: NDArray[np.float32],
        moving: NDArray[np.float32],
        region: NDArray[np.bool_],
        linear: LinearMap,
        stage: _Stage,
    ) -> tuple[LinearMap, DisplacementMap | None, DisplacementMap | None]:
        seen = region & field_of_view(self.grid, self.image_grid, linear)
        part = fixed[self.crop]
        grid = crop_grid(self.grid, [s.start for s in self.crop], part.shape)
        pair = (part, grid), (moving, self.image_grid)
        return _register(*pair, seen[self.crop], linear, (stage,))

    def _deform(
        self,
        fixed: NDArray[np.float32],
        moving: NDArray[np.float32],
        linear: LinearMap,
        stage: _Stage,
    ) -> _Deformation:
        linear, warp, inverse = self._register(fixed, moving, self.near, linear, stage)
        assert warp is not None and inverse is not None
        to_image = compose_on_grid((warp, linear), self.grid)
        return _Deformation(linear, warp, inverse, to_image)

    def _redrawn(self, found: _Deformation) -> tuple[NDArray[np.float32], float]:
        """Redraw the template in the image's contrast, as far as the image has been found.

        Local contrast of the drawing, and how much of the image's it explains: their correlation
        in the brain.
        """
        image = nib.Nifti1Image(self.image, self.image_grid.affine)
        carried = apply_transforms(image, self.grid, (found.to_image,), fill=float("nan"))
        values = np.asarray(carried.dataobj, dtype=np.float32)
        seen = np.isfinite(values)
        drawing = redraw(self.template, self.distance, values, self.near & seen)
        drawn, shown = (
            normalise_locally(part, self.grid.spacing, LOCAL_MM)
            for part in (drawing, np.where(seen, values, np.float32(0)))
        )
        inside = self.brain & seen
        return drawn, _correlation(drawn[inside], shown[inside])

    def _judge(
        self, found: _Deformation, before: RegistrationQuality | None = None
    ) -> RegistrationQuality:
        """Judge a deformation; its agreement may be that of one before it."""
        return judge_template(
            (self.template, self.brain, self.near, self.grid),
            (self.image, self.image_grid),
            found.warp,
            found.to_image,
            found.linear,
            before,
        )


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's correlation; 0 where one of the two is even. Not by BLAS (threads)."""
    a, b = (values.astype(np.float64) - float(values.mean()) for values in (one, other))
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0


def _signed_distance(brain: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Distance from the brain's surface, mm; negative within."""
    outside = ndimage.distance_transform_edt(~brain, sampling=grid.spacing)
    return outside - ndimage.distance_transform_edt(brain, sampling=grid.spacing)


def _carry_prior(
    mask: nib.spatialimages.SpatialImage, grid: Grid, found: _Deformation, back: DisplacementMap
) -> nib.Nifti1Image:
    """Bring the template's brain mask onto an image's own grid, between 0 and 1.

    Only within the box where the brain has been found, and :data:`PRIOR_MARGIN_MM` around it.
    """
    brain = np.asarray(mask.dataobj) > 0
    points = np.argwhere(brain)[::7] @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    inverse = np.asarray(np.linalg.inv(grid.affine), dtype=np.float64)
    voxels = map_points(points, (found.to_image, LinearMap(inverse)))
    margin = PRIOR_MARGIN_MM / grid.spacing
    low = np.clip(np.floor(voxels.min(axis=0) - margin), 0, np.array(grid.shape) - 1).astype(int)
    high = np.clip(np.ceil(voxels.max(axis=0) + margin) + 1, low + 1, grid.shape).astype(int)
    image = nib.Nifti1Image(brain.astype(np.float32), mask.affine)
    prior = np.zeros(grid.shape, np.float32)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    prior[box] = apply_transforms(image, crop_grid(grid, low, high - low), (back,)).dataobj
    return nib.Nifti1Image(prior, grid.affine)


def register_rigid(
    scan: nib.spatialimages.SpatialImage,
    reference: nib.spatialimages.SpatialImage,
    reference_mask: nib.spatialimages.SpatialImage,
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

    Raises
    ------
    ScanError
        If the scan shows too little to register.
    """
    data, grid = clean_intensities(scan), image_grid(scan)
    moving_grid = working_grid(image_grid(reference).shape, reference.affine, SPACING)
    moving = resample_to_grid(clean_intensities(reference), reference.affine, moving_grid)
    mask = np.asarray(reference_mask.dataobj) > 0
    brain = resample_to_grid(mask, reference_mask.affine, moving_grid) >= 0.5
    fixed_grid = working_grid(grid.shape, grid.affine, SPACING)
    fixed = resample_to_grid(data, grid.affine, fixed_grid)
    near = ndimage.distance_transform_edt(~brain, sampling=moving_grid.spacing) <= LINEAR_RIM
    best: RigidRegistration | None = None
    for pose, variant in _poses(fixed, fixed_grid, moving, brain, moving_grid, scaling=False):
        linear = pose.transform
        # Twice, because the region is only as good as the pose it is carried over with.
        for stage in (RIGID_COARSE, RIGID_FINE):
            region = carry_mask(near, moving_grid, fixed_grid, linear)
            if np.count_nonzero(region) < 1000:
                raise ScanError(
                    "the scan and its anatomical image do not overlap",
                    hint="check that both are of the same person and show the brain",
                )
            linear, _, _ = _register(
                (fixed, fixed_grid), (variant, moving_grid), region, linear, (stage,)
            )
        quality = judge_rigid((fixed, fixed_grid), (moving, brain, moving_grid), (variant, linear))
        found = RigidRegistration(linear, quality)
        if best is None or _rank(found.quality) > _rank(best.quality):
            best = found
        if best.quality.verdict == "ok":
            break
    assert best is not None
    return best


def _poses(
    data: NDArray[np.float32],
    grid: Grid,
    reference: NDArray[np.float32],
    brain: NDArray[np.bool_],
    reference_grid: Grid,
    *,
    scaling: bool,
) -> Iterator[tuple[Pose, NDArray[np.float32]]]:
    """Coarse poses with the reference as the image may show heads, the likelier one first.

    The reference is the whole head, or its brain alone: where an image has no scalp, a reference
    with one would draw the edge of its brain out to the reference's scalp, and the other way
    round.
    """
    head = head_mask(data, grid.spacing)
    centre = reference_grid.points()[brain.ravel()].mean(axis=0)

    def search(variant: NDArray[np.float32]) -> Pose:
        return search_pose(
            data, grid.affine, head, variant, reference_grid.affine, centre, scaling=scaling
        )

    alone = np.where(brain, reference, np.float32(0))
    whole_pose = search(reference)
    if _shows_scalp((data, grid), (reference, brain, reference_grid), whole_pose.transform):
        found = ((whole_pose, reference) if i == 0 else (search(alone), alone) for i in range(2))
    else:
        found = ((search(alone), alone) if i == 0 else (whole_pose, reference) for i in range(2))
    some = False
    for pose, variant in found:
        if pose.similarity > 0:
            some = True
            yield pose, variant
    if not some:
        raise ScanError(
            "no pose was found in which the image fits the head that it is registered to",
            hint="check that it shows a head and that its voxel size is right",
        )


def _shows_scalp(
    image: tuple[NDArray[np.float32], Grid],
    reference: tuple[NDArray[np.float32], NDArray[np.bool_], Grid],
    to_reference: LinearMap,
) -> bool:
    """Tell whether an image is bright where the reference has scalp, above the skull base.

    Echo-planar images with fat suppression, and images of brains cut out, are dark there.
    """
    values, brain, grid = reference
    level = float(np.median(values[brain]))
    distance = ndimage.distance_transform_edt(~brain, sampling=grid.spacing)
    scalp = (distance > SCALP_MM[0]) & (distance < SCALP_MM[1]) & (values > 0.5 * level)
    points = grid.points()
    height = points[:, 2].reshape(grid.shape)
    scalp &= height > height[brain].mean()
    levels = []
    for region in (brain, scalp):
        inside = np.asarray(np.linalg.inv(image[1].affine), dtype=np.float64)
        where = map_points(points[region.ravel()], (to_reference.inverse(), LinearMap(inside)))
        sampled = ndimage.map_coordinates(image[0], where.T, order=1, mode="constant", cval=-np.inf)
        sampled = sampled[np.isfinite(sampled)]
        if sampled.size < MIN_SCALP_VOXELS:
            return True
        levels.append(float(np.median(sampled)))
    return levels[1] > SCALP_LEVEL * levels[0]


def _bounding_box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice, slice]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    parts = [
        slice(max(s.start - margin, 0), min(s.stop + margin, n))
        for s, n in zip(found, mask.shape, strict=True)
    ]
    return parts[0], parts[1], parts[2]
