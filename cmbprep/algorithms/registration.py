"""Registration of scans to each other and to a template, and the judgement of the result.

Every registration starts from :func:`~.pose_search.search_pose`, so it does not rely on
headers that agree; ANTs (Avants et al. 2011) then refines it at 2 mm. All of it runs on
one thread and is the same to the last bit on every run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.errors import ScanError

from .bias import clean_intensities, head_mask
from .grids import Grid, resample_to_grid, working_grid
from .itk import SEED, image_grid, load_ants, to_ants
from .pose_search import Pose, normalised_mutual_information, search_pose
from .transforms import (
    DisplacementMap,
    LinearMap,
    apply_transforms,
    compose_on_grid,
    jacobian_determinant,
    map_points,
    read_transform,
    write_transform,
)

__all__ = [
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
        ``ok`` or ``doubtful``.
    reasons
        Why it is doubtful; empty if it is ok.
    """

    similarity: float
    overlap: float
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
        if self.verdict not in ("ok", "doubtful"):
            raise ValueError(f"a verdict is ok or doubtful, not {self.verdict!r}")
        if (self.verdict == "ok") != (not self.reasons):
            raise ValueError("a doubtful verdict has reasons, and only that one")
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

    def arguments(self, fixed: str, moving: str, spacing: float) -> list[str]:
        shrink = [max(1, round(wanted / spacing)) for wanted in self.resolution]
        return [
            *("--metric", f"Mattes[{fixed},{moving},1,32,None]"),
            *("--transform", self.transform),
            *("--convergence", f"[{_joined(self.iterations)},1e-6,10]"),
            *("--shrink-factors", _joined(shrink)),
            *("--smoothing-sigmas", _joined([factor / 2 for factor in shrink])),
        ]


def _joined(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)


RIGID_COARSE = _Stage("Rigid[0.1]", (60,), (4.0,))
RIGID_FINE = _Stage("Rigid[0.1]", (30,), (2.0,))
AFFINE = (_Stage("Affine[0.1]", (80, 50), (6.0, 4.0)),)
# The last level only brings the field to full resolution: iterating there takes three
# times as long.
DEFORMABLE = (_Stage("SyN[0.1,3,0.5]", (60, 40, 0), (8.0, 4.0, 2.0)),)


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

    The pose is searched for against the whole template head and against its brain alone
    (echo-planar images show next to nothing of skull and scalp); whichever fits better
    is what the image is then registered to: affine, then SyN, by mutual information
    within the brain and a rim around it.

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
    pose, fixed = _pose_and_reference(data, grid, fixed, brain, fixed_grid, scaling=True)

    moving_grid = working_grid(grid.shape, grid.affine, SPACING)
    moving = resample_to_grid(data, grid.affine, moving_grid)
    start = pose.transform.inverse()
    distance = ndimage.distance_transform_edt(~brain, sampling=fixed_grid.spacing)
    near, wide = distance <= RIM, distance <= LINEAR_RIM
    region = wide & _field_of_view(fixed_grid, moving_grid, start)
    crop = _bounding_box(wide, margin=0)
    fixed_pair = fixed[crop], _cropped(fixed_grid, crop)
    moving_pair = (moving, moving_grid)
    linear, _, _ = _register(fixed_pair, moving_pair, region[crop], start, AFFINE)
    region = wide & _field_of_view(fixed_grid, moving_grid, linear)
    linear, warp, inverse = _register(fixed_pair, moving_pair, region[crop], linear, DEFORMABLE)
    assert warp is not None and inverse is not None

    to_image = compose_on_grid((warp, linear), fixed_grid)
    to_template = compose_on_grid((linear.inverse(), inverse), moving_grid)
    mask_image = nib.Nifti1Image(
        (np.asarray(template_mask.dataobj) > 0).astype(np.float32), template_mask.affine
    )
    prior = apply_transforms(mask_image, grid, (to_template,))
    quality = _judge_template(
        (fixed, brain, near, fixed_grid), (moving, moving_grid), warp, to_image, linear
    )
    return TemplateRegistration(to_template, to_image, linear.inverse(), prior, quality)


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
    pose, moving = _pose_and_reference(data, grid, moving, brain, moving_grid, scaling=False)

    fixed_grid = working_grid(grid.shape, grid.affine, SPACING)
    fixed = resample_to_grid(data, grid.affine, fixed_grid)
    linear = pose.transform
    near = ndimage.distance_transform_edt(~brain, sampling=moving_grid.spacing) <= LINEAR_RIM
    # Twice, because the region is only as good as the pose it is carried over with.
    for stage in (RIGID_COARSE, RIGID_FINE):
        region = _carry_mask(near, moving_grid, fixed_grid, linear)
        if np.count_nonzero(region) < 1000:
            raise ScanError(
                "the scan and its anatomical image do not overlap",
                hint="check that both are of the same person and show the brain",
            )
        linear, _, _ = _register(
            (fixed, fixed_grid), (moving, moving_grid), region, linear, (stage,)
        )
    quality = _judge_rigid((fixed, fixed_grid), (moving, brain, moving_grid), linear)
    return RigidRegistration(linear, quality)


def _pose_and_reference(
    data: NDArray[np.float32],
    grid: Grid,
    reference: NDArray[np.float32],
    brain: NDArray[np.bool_],
    reference_grid: Grid,
    *,
    scaling: bool,
) -> tuple[Pose, NDArray[np.float32]]:
    """Coarse pose, and the reference as the image shows heads: whole, or brain alone.

    Where an image has no scalp, a reference with one would draw the edge of its brain out
    to the reference's scalp.
    """
    head = head_mask(data, grid.spacing)
    centre = reference_grid.points()[brain.ravel()].mean(axis=0)
    found = []
    for variant in (reference, np.where(brain, reference, np.float32(0))):
        pose = search_pose(
            data, grid.affine, head, variant, reference_grid.affine, centre, scaling=scaling
        )
        found.append((pose, variant))
    pose, variant = max(found, key=lambda pair: pair[0].similarity)
    if pose.similarity == 0:
        raise ScanError(
            "no pose was found in which the image fits the head that it is registered to",
            hint="check that it shows a head and that its voxel size is right",
        )
    return pose, variant


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


def _cropped(grid: Grid, crop: tuple[slice, slice, slice]) -> Grid:
    affine = np.array(grid.affine)
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in crop]
    i, j, k = (s.stop - s.start for s in crop)
    return Grid((i, j, k), affine)


def _similarity(
    a: NDArray[np.floating], b: NDArray[np.floating], region: NDArray[np.bool_], grid: Grid
) -> float:
    """Normalised mutual information within a region, 32 bins between the percentiles."""
    if np.count_nonzero(region) < 1000:
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
MIN_SIMILARITY = 1.05
MIN_RIGID_SIMILARITY = 1.04
MAX_FOLDING = 0.001
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
    local = jacobian_determinant(compose_on_grid((warp,), grid))[brain]
    total = jacobian_determinant(to_image)[brain]
    volume = float(total.sum()) * abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000.0
    shift, angle, scale = _shift_and_rotation(linear, grid.points()[brain.ravel()].mean(axis=0))
    stretch = float(np.linalg.cond(linear.matrix[:3, :3]))
    low, high = (float(v) for v in np.percentile(local, (1, 99)))
    folding = float(np.mean(total <= 0))
    checks = (
        (
            similarity < MIN_SIMILARITY,
            f"the image and the template agree little ({similarity:.3f})",
        ),
        (overlap < 0.5, f"the image shows {overlap:.0%} of the brain"),
        (not VOLUME_ML[0] <= volume <= VOLUME_ML[1], f"the brain would measure {volume:.0f} ml"),
        (folding > MAX_FOLDING, f"the map folds at {folding:.1%} of the brain"),
        (low < JACOBIAN[0] or high > JACOBIAN[1], "the brain is stretched beyond belief"),
        (stretch > MAX_STRETCH, "the affine part distorts the head"),
        (angle > MAX_ROTATION, f"the head is turned by {angle:.0f} degrees against its header"),
    )
    reasons = tuple(text for failed, text in checks if failed)
    return RegistrationQuality(
        similarity=similarity,
        overlap=overlap,
        brain_volume_ml=volume,
        scale=scale,
        jacobian_low=low,
        jacobian_high=high,
        folding_fraction=folding,
        rotation_deg=angle,
        shift_mm=shift,
        verdict="doubtful" if reasons else "ok",
        reasons=reasons,
    )


def _judge_rigid(
    scan: tuple[NDArray[np.float32], Grid],
    reference: tuple[NDArray[np.float32], NDArray[np.bool_], Grid],
    linear: LinearMap,
) -> RegistrationQuality:
    values, grid = scan
    moving, brain, moving_grid = reference
    carried = _carry_mask(brain, moving_grid, grid, linear)
    image = nib.Nifti1Image(moving, moving_grid.affine)
    matched = np.asarray(apply_transforms(image, grid, (linear,)).dataobj)
    near = ndimage.distance_transform_edt(~carried, sampling=grid.spacing) <= RIM
    similarity = _similarity(values, matched, near, grid)
    seen = _field_of_view(moving_grid, grid, linear.inverse()) & brain
    overlap = float(np.count_nonzero(seen) / np.count_nonzero(brain))
    bright = head_mask(values, grid.spacing)
    covered = float(np.mean(bright[carried])) if carried.any() else 0.0
    volume = float(np.count_nonzero(brain) * np.prod(moving_grid.spacing)) / 1000.0
    centre = grid.points()[near.ravel()].mean(axis=0)
    shift, angle, scale = _shift_and_rotation(linear, centre)
    checks = (
        (similarity < MIN_RIGID_SIMILARITY, f"the two images agree little ({similarity:.3f})"),
        (overlap < 0.3, f"the scan shows {overlap:.0%} of the brain"),
        (covered < 0.8, f"{1 - covered:.0%} of the brain falls outside the scan's head"),
        (angle > MAX_ROTATION, f"the headers differ by {angle:.0f} degrees"),
    )
    reasons = tuple(text for failed, text in checks if failed)
    return RegistrationQuality(
        similarity=similarity,
        overlap=overlap,
        brain_volume_ml=volume,
        scale=scale,
        rotation_deg=angle,
        shift_mm=shift,
        verdict="doubtful" if reasons else "ok",
        reasons=reasons,
    )
