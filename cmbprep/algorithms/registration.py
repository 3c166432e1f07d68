"""Registration of scans to each other and to a template, and the judgement of the result.

Every registration starts from :func:`~.pose_search.search_pose`, so it does not rely on
headers that agree; ANTs (Avants et al. 2011) then refines it at 2 mm. All of it runs on
one thread and is the same to the last bit on every run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.errors import ScanError

from .bias import clean_intensities, head_mask
from .grids import Grid, crop_grid, resample_to_grid, working_grid
from .itk import SEED, image_grid, load_ants, to_ants
from .local_fit import local_shifts
from .pose_search import Pose, normalised_mutual_information, search_pose
from .transforms import (
    DisplacementMap,
    LinearMap,
    PointMap,
    apply_transforms,
    compose_on_grid,
    jacobian_determinant,
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
#: How far around the brain the deformable part looks, mm: to the inner table of the skull.
RIM = 8.0
#: How far the linear part looks, mm: the scalp steadies the scale where it shows.
LINEAR_RIM = 16.0
#: Where scalp is looked for, mm from the brain, and how bright it must be against the brain to
#: be there: of eight kinds of images, those with scalp had 0.54 and more, those without 0.13 and
#: less. With fewer voxels of it in view, nothing is known and the whole head is tried first.
SCALP_MM = (5.0, 22.0)
SCALP_LEVEL = 0.3
MIN_SCALP_VOXELS = 200


#: What can be thought of a registration, best first.
VERDICTS = ("ok", "doubtful", "failed")


@dataclass(frozen=True, kw_only=True)
class RegistrationQuality:
    """What can be said of a registration without knowing the truth.

    Attributes
    ----------
    similarity
        Normalised mutual information within the brain and a rim of 8 mm, both images
        smoothed by 3 mm (standard deviation): 1 (none) to 2.
    overlap
        Part of the reference's brain that lies in the image's field of view, 0 to 1.
    covered
        Part of that which lies where the image shows a head and no air, 0 to 1.
    interior
        The same, of a registration to the template, deeper than 10 mm in the brain, where
        ventricles and nuclei must be; None where less than 8 ml of that is seen.
    local_shift_mm
        Of a rigid registration: median of the shifts by which parts of the brain fit best.
    brain_volume_ml
        Volume that the reference's whole brain has in the image's space.
    scale
        Cube root of the linear part's determinant: size of the reference against the
        person.
    jacobian_low, jacobian_high
        1st and 99th percentile within the brain, of the non-linear part; 1 and 1 for a
        linear registration.
    folding_fraction
        Part of the brain's voxels at which the map folds.
    rotation_deg, shift_mm
        How far the headers were off: angle, and distance that the brain's centre moved.
    verdict
        ``ok``; ``doubtful``, where it is used and flagged; ``failed``, where it must not be used.
    reasons
        Why it is doubtful or has failed; empty if it is ok.
    """

    similarity: float
    overlap: float
    covered: float = 1.0
    interior: float | None = None
    local_shift_mm: float | None = None
    brain_volume_ml: float
    scale: float = 1.0
    jacobian_low: float = 1.0
    jacobian_high: float = 1.0
    folding_fraction: float = 0.0
    rotation_deg: float
    shift_mm: float
    verdict: str = "ok"
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"a verdict is one of {VERDICTS}, not {self.verdict!r}")
        if (self.verdict == "ok") != (not self.reasons):
            raise ValueError("a verdict that is not ok has reasons, and only that one")
        if not 0 <= self.overlap <= 1:
            raise ValueError("the overlap lies between 0 and 1")


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
AFFINE = (_Stage("Affine[0.1]", (80, 50), (6.0, 4.0)),)
# The last level only brings the field to full resolution: iterating there takes three
# times as long.
DEFORMABLE = (_Stage("SyN[0.25,3,0]", (60, 40, 0), (8.0, 4.0, 2.0)),)


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
    best: TemplateRegistration | None = None
    for pose, variant in _poses(moving, moving_grid, fixed, brain, fixed_grid, scaling=True):
        found = _deform(
            (moving, moving_grid),
            (variant, brain, fixed_grid),
            pose.transform.inverse(),
            (template_mask, grid),
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


def _deform(
    image: tuple[NDArray[np.float32], Grid],
    template: tuple[NDArray[np.float32], NDArray[np.bool_], Grid],
    start: LinearMap,
    prior: tuple[nib.spatialimages.SpatialImage, Grid],
) -> TemplateRegistration:
    """Register affinely and then deformably from a starting pose (template to image).

    ``prior`` is the mask that is brought over, and the grid that it is brought onto.
    """
    moving, moving_grid = image
    fixed, brain, fixed_grid = template
    distance = ndimage.distance_transform_edt(~brain, sampling=fixed_grid.spacing)
    near, wide = distance <= RIM, distance <= LINEAR_RIM
    region = wide & _field_of_view(fixed_grid, moving_grid, start)
    crop = _bounding_box(wide, margin=0)
    fixed_part = fixed[crop]
    fixed_pair = fixed_part, crop_grid(fixed_grid, [s.start for s in crop], fixed_part.shape)
    moving_pair = (moving, moving_grid)
    linear, _, _ = _register(fixed_pair, moving_pair, region[crop], start, AFFINE)
    region = near & _field_of_view(fixed_grid, moving_grid, linear)
    linear, warp, inverse = _register(fixed_pair, moving_pair, region[crop], linear, DEFORMABLE)
    assert warp is not None and inverse is not None

    to_image = compose_on_grid((warp, linear), fixed_grid)
    to_template = compose_on_grid((linear.inverse(), inverse), moving_grid)
    mask_image = nib.Nifti1Image(
        (np.asarray(prior[0].dataobj) > 0).astype(np.float32), prior[0].affine
    )
    carried = apply_transforms(mask_image, prior[1], (to_template,))
    quality = _judge_template(
        (fixed, brain, near, fixed_grid), (moving, moving_grid), warp, to_image, linear
    )
    return TemplateRegistration(to_template, to_image, linear.inverse(), carried, quality)


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
            region = _carry_mask(near, moving_grid, fixed_grid, linear)
            if np.count_nonzero(region) < 1000:
                raise ScanError(
                    "the scan and its anatomical image do not overlap",
                    hint="check that both are of the same person and show the brain",
                )
            linear, _, _ = _register(
                (fixed, fixed_grid), (variant, moving_grid), region, linear, (stage,)
            )
        quality = _judge_rigid((fixed, fixed_grid), (moving, brain, moving_grid), (variant, linear))
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


def _carry_mask(
    mask: NDArray[np.bool_], mask_grid: Grid, grid: Grid, to_mask: LinearMap
) -> NDArray[np.bool_]:
    """Bring a mask onto a grid; ``to_mask`` takes points of the grid to the mask's space."""
    image = nib.Nifti1Image(mask.astype(np.uint8), mask_grid.affine)
    carried = apply_transforms(image, grid, (to_mask,), interpolation="nearest")
    return np.asarray(carried.dataobj) > 0


def _field_of_view(grid: Grid, other: Grid, to_other: LinearMap) -> NDArray[np.bool_]:
    """Which voxels of a grid lie within the other grid."""
    return _carry_mask(np.ones(other.shape, dtype=bool), other, grid, to_other)


def _bounding_box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice, slice]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    parts = [
        slice(max(s.start - margin, 0), min(s.stop + margin, n))
        for s, n in zip(found, mask.shape, strict=True)
    ]
    return parts[0], parts[1], parts[2]


#: Voxels of the working grid that a similarity must rest on: 8 ml.
FEWEST_VOXELS = 1000


def _similarity(
    a: NDArray[np.floating], b: NDArray[np.floating], region: NDArray[np.bool_], grid: Grid
) -> float:
    """Normalised mutual information within a region, 32 bins between the percentiles."""
    if np.count_nonzero(region) < FEWEST_VOXELS:
        return 1.0
    codes = []
    for image in (a, b):
        smooth = ndimage.gaussian_filter(np.nan_to_num(image), JUDGED_SMOOTHING / grid.spacing)
        values = smooth[region]
        low, high = np.percentile(values, (1.0, 99.0))
        scaled = np.clip((values - low) / max(float(high - low), 1e-12), 0, 1)
        codes.append(np.rint(scaled * 31).astype(int))
    joint = np.bincount(codes[0] * 32 + codes[1], minlength=1024).reshape(32, 32)
    return normalised_mutual_information(joint)


def _shift_and_rotation(
    linear: LinearMap, centre: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Distance (mm) that a point moves, angle (degrees) and scale of a linear map."""
    left, _, right = np.linalg.svd(linear.matrix[:3, :3])
    cosine = np.clip((np.trace(left @ right) - 1) / 2, -1, 1)
    shift = float(np.linalg.norm(map_points(centre, (linear,))[0] - centre))
    scale = float(np.cbrt(np.linalg.det(linear.matrix[:3, :3])))
    return shift, float(np.degrees(np.arccos(cosine))), scale


#: Smoothing before the similarity is judged, mm: noise and fine anatomy do not count.
JUDGED_SMOOTHING = 3.0
#: Bounds outside which a registration is doubtful. How much two images can agree depends on
#: their contrasts. Real T1w and T2*w scans that were seen to fit the template reached 1.13
#: and more. Of two T2*w scans seen to fit their T1w, 1.08 and 1.12; the first, moved by
#: 20 mm or turned by 20 degrees and more, fell to between 1.02 and 1.04, the second turned
#: by 20 degrees to 1.043: an error of that size can pass.
VOLUME_ML = (900.0, 2100.0)
#: Volumes that no brain has. Between the two, a verdict is doubtful.
NO_BRAIN_ML = (700.0, 2500.0)
MIN_SIMILARITY = 1.05
MIN_RIGID_SIMILARITY = 1.04
#: Depth in the brain from which only its inside counts, mm: the outline alone makes phantoms agree
#: with a head (1.08 to 1.21 with the rim, six of them).
INSIDE_MM = 10.0
#: Agreement there below which a registration has failed, or is doubtful. Balls and ellipsoids had
#: 1.001 to 1.003 (with bias, or after bias correction, 1.009 to 1.020); three real T2*w scans
#: 1.028 and more, T1w ones 1.142 and more, simulated scans of tuning people 1.076 to 1.186.
NO_INTERIOR, FAINT_INTERIOR = 1.01, 1.02
#: Part of the brain below which a registration rests on too little to be sure of. A slab of 40 mm
#: of an echo-planar scan (0.35 to 0.44 of the brain) was laid 2 to 4 mm off, and by its similarity
#: the wrong place was no worse than the right one.
LITTLE_SEEN = 0.5
MAX_FOLDING = 0.001
MIN_COVERED = 0.8
#: Of their own T1w, a simulated thick scan had 0.6 mm, two real echo-planar ones 1.5 and 4.0 mm;
#: of another person's, one of each kind had 5.8 and 8.0 mm.
MAX_LOCAL_SHIFT = 5.0
JACOBIAN = (0.3, 3.0)
MAX_ROTATION = 40.0
MAX_STRETCH = 1.5


def _judge_template(
    template: tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Grid],
    image: tuple[NDArray[np.float32], Grid],
    warp: DisplacementMap,
    to_image: DisplacementMap,
    linear: LinearMap,
) -> RegistrationQuality:
    values, brain, near, grid = template
    moving = nib.Nifti1Image(image[0], image[1].affine)
    warped = np.asarray(
        apply_transforms(moving, grid, (to_image,), fill=float("nan")).dataobj, dtype=np.float32
    )
    seen = np.isfinite(warped)
    overlap = float(np.count_nonzero(seen & brain) / np.count_nonzero(brain))
    similarity = _similarity(values, warped, near & seen, grid)
    interior = _interior(values, warped, brain, seen, grid)
    local = jacobian_determinant(compose_on_grid((warp,), grid))[brain]
    total = jacobian_determinant(to_image)[brain]
    volume = float(total.sum()) * abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000.0
    shift, angle, scale = _shift_and_rotation(linear, grid.points()[brain.ravel()].mean(axis=0))
    stretch = float(np.linalg.cond(linear.matrix[:3, :3]))
    low, high = (float(v) for v in np.percentile(local, (1, 99)))
    folding = float(np.mean(total <= 0))
    head = head_mask(image[0], image[1].spacing)
    covered = _covered(head, image[1], brain, grid, to_image)
    quality = RegistrationQuality(
        similarity=similarity,
        overlap=overlap,
        covered=covered,
        interior=interior,
        brain_volume_ml=volume,
        scale=scale,
        jacobian_low=low,
        jacobian_high=high,
        folding_fraction=folding,
        rotation_deg=angle,
        shift_mm=shift,
    )
    verdict, reasons = _verdict(_template_checks(quality, stretch))
    return replace(quality, verdict=verdict, reasons=reasons)


def _template_checks(
    quality: RegistrationQuality, stretch: float
) -> tuple[tuple[str, bool, str], ...]:
    """Ask what a registration to the template must fulfil; ``stretch`` is of its affine part."""
    overlap, volume, folding = quality.overlap, quality.brain_volume_ml, quality.folding_fraction
    shown = f"the image shows {overlap:.0%} of the brain"
    return (
        (
            "failed",
            quality.similarity < MIN_SIMILARITY,
            _agreement("the image", quality.similarity),
        ),
        *_inside_checks(quality.interior),
        ("failed", overlap < 0.2, shown),
        ("doubtful", 0.2 <= overlap < LITTLE_SEEN, shown),
        (
            "failed" if not NO_BRAIN_ML[0] <= volume <= NO_BRAIN_ML[1] else "doubtful",
            not VOLUME_ML[0] <= volume <= VOLUME_ML[1],
            f"the brain would measure {volume:.0f} ml",
        ),
        ("failed", folding > MAX_FOLDING, f"the map folds at {folding:.1%} of the brain"),
        (
            "failed",
            quality.jacobian_low < JACOBIAN[0] or quality.jacobian_high > JACOBIAN[1],
            "the brain is stretched beyond belief",
        ),
        ("failed", stretch > MAX_STRETCH, "the affine part distorts the head"),
        (
            "failed",
            quality.covered < MIN_COVERED,
            f"{1 - quality.covered:.0%} of the brain falls outside the head",
        ),
        (
            "doubtful",
            quality.rotation_deg > MAX_ROTATION,
            f"the head is turned by {quality.rotation_deg:.0f} degrees against its header",
        ),
    )


def _interior(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    brain: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    grid: Grid,
) -> float | None:
    """Give the agreement deep in the brain; None where too little of that is seen."""
    depth = ndimage.distance_transform_edt(brain, sampling=grid.spacing)
    inside = (depth > INSIDE_MM) & seen
    if np.count_nonzero(inside) < FEWEST_VOXELS:
        return None
    return _similarity(a, b, inside, grid)


def _inside_checks(interior: float | None) -> tuple[tuple[str, bool, str], ...]:
    if interior is None:
        return ()
    verdict = "failed" if interior < NO_INTERIOR else "doubtful"
    text = f"the image does not look like a brain inside ({interior:.3f})"
    return ((verdict, interior < FAINT_INTERIOR, text),)


def _verdict(checks: Sequence[tuple[str, bool, str]]) -> tuple[str, tuple[str, ...]]:
    """Give the worst verdict of the checks that struck, and their reasons."""
    struck = [(verdict, text) for verdict, failed, text in checks if failed]
    worst = max((verdict for verdict, _ in struck), key=VERDICTS.index, default="ok")
    return worst, tuple(text for _, text in struck)


def _agreement(what: str, similarity: float) -> str:
    return f"{what} and what it is registered to agree little ({similarity:.3f})"


def _covered(
    head: NDArray[np.bool_],
    head_grid: Grid,
    brain: NDArray[np.bool_],
    brain_grid: Grid,
    to_head: PointMap,
) -> float:
    """Part of the brain within the image's field of view that lies in what is no air."""
    points = map_points(brain_grid.points()[brain.ravel()], (to_head,))
    inverse = np.linalg.inv(head_grid.affine)
    voxels = (points @ inverse[:3, :3].T + inverse[:3, 3]).T
    values = ndimage.map_coordinates(
        head.astype(np.float32), voxels, order=1, mode="grid-constant", cval=-9.0
    )
    seen = values >= 0
    return float(np.mean(values[seen] >= 0.5)) if seen.any() else 0.0


def _judge_rigid(
    scan: tuple[NDArray[np.float32], Grid],
    reference: tuple[NDArray[np.float32], NDArray[np.bool_], Grid],
    result: tuple[NDArray[np.float32], LinearMap],
) -> RegistrationQuality:
    values, grid = scan
    moving, brain, moving_grid = reference
    variant, linear = result
    carried = _carry_mask(brain, moving_grid, grid, linear)
    shifts = local_shifts(scan, carried, (moving, moving_grid), linear)
    off = float(np.median(shifts)) if shifts.size else 0.0
    image = nib.Nifti1Image(variant, moving_grid.affine)
    matched = np.asarray(apply_transforms(image, grid, (linear,)).dataobj)
    near = ndimage.distance_transform_edt(~carried, sampling=grid.spacing) <= RIM
    similarity = _similarity(values, matched, near, grid)
    seen = _field_of_view(moving_grid, grid, linear.inverse()) & brain
    overlap = float(np.count_nonzero(seen) / np.count_nonzero(brain))
    covered = _covered(head_mask(values, grid.spacing), grid, brain, moving_grid, linear.inverse())
    volume = float(np.count_nonzero(brain) * np.prod(moving_grid.spacing)) / 1000.0
    centre = grid.points()[near.ravel()].mean(axis=0)
    shift, angle, scale = _shift_and_rotation(linear, centre)
    verdict, reasons = _verdict(
        (
            ("failed", similarity < MIN_RIGID_SIMILARITY, _agreement("the scan", similarity)),
            ("doubtful", overlap < LITTLE_SEEN, f"the scan shows {overlap:.0%} of the brain"),
            (
                "failed",
                covered < MIN_COVERED,
                f"{1 - covered:.0%} of the brain falls outside the scan's head",
            ),
            (
                "failed",
                off > MAX_LOCAL_SHIFT,
                f"parts of the brain fit better {off:.1f} mm aside, as in another person's image",
            ),
            ("doubtful", angle > MAX_ROTATION, f"the headers differ by {angle:.0f} degrees"),
        )
    )
    return RegistrationQuality(
        similarity=similarity,
        overlap=overlap,
        covered=covered,
        local_shift_mm=off,
        brain_volume_ml=volume,
        scale=scale,
        rotation_deg=angle,
        shift_mm=shift,
        verdict=verdict,
        reasons=reasons,
    )
