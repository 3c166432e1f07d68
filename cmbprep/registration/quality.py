"""The judgement of a registration: what can be said of it without knowing the truth.

A result is looked at in several ways, none of which sees every error: whether the parts of the
brain fit best where they lie (:mod:`.evidence`), local shifts, what lies on air, volume, stretch
and folds. None asks for a level of similarity, which depends on the contrasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize

from cmbprep.registration.evidence import Evidence
from cmbprep.registration.pose import (
    HeadImage,
    Image,
    Matcher,
    normalised_mutual_information,
    quantise,
)
from cmbprep.spatial.grids import Grid, bounding_box, boxed_grid, map_in_threads
from cmbprep.spatial.propagate import carry_mask, field_of_view
from cmbprep.spatial.transforms import (
    DisplacementMap,
    LinearMap,
    PointMap,
    apply_transforms,
    compose_on_grid,
    jacobian_determinant,
    map_points,
)

# --- How far two registered images are off locally: a check that needs no truth ------------------
#
# A rigid map that is right leaves nothing to gain by shifting a part of the brain. Where it is
# wrong, or where the two images are of different people, parts fit better some millimetres
# aside.


#: Distance between the centres of the parts, and their width, mm.
STEP, WIDTH = 36.0, 44.0
#: A part must have this many voxels to be looked at.
MIN_VOXELS = 300
#: Shifts are sought this far, mm.
REACH = 10.0
#: Smoothing of both images, mm: noise makes no shifts, and thick slices are alike.
SMOOTHING = 1.5


def local_shifts(
    scan: Image, region: NDArray[np.bool_], reference: Image, to_reference: LinearMap
) -> NDArray[np.float64]:
    """Find the shift by which each part of a scan fits a reference best.

    Parameters
    ----------
    scan
        Image and grid.
    region
        Where the scan shows the brain, on its grid.
    reference
        Image and grid.
    to_reference
        Takes points of the scan to points of the reference.

    Returns
    -------
    array of shape (n,)
        Length of the shift of each part, mm; empty if no part is large enough.
    """
    points = scan[1].points()[region.ravel()]
    if len(points) < MIN_VOXELS:
        return np.empty(0)
    low, high = points.min(axis=0), points.max(axis=0)
    axes = [
        np.linspace(a + WIDTH / 2, b - WIDTH / 2, max(int(np.ceil((b - a - WIDTH) / STEP)) + 1, 1))
        if b - a > WIDTH
        else np.array([(a + b) / 2])
        for a, b in zip(low, high, strict=True)
    ]
    index = np.flatnonzero(region.ravel())
    matcher = Matcher(_smooth(*scan, SMOOTHING), _smooth(*reference, SMOOTHING))
    parts = []
    for centre in product(*axes):
        inside = np.all(np.abs(points - np.array(centre)) <= WIDTH / 2, axis=1)
        if np.count_nonzero(inside) < MIN_VOXELS:
            continue
        part = np.zeros(region.size, dtype=bool)
        part[index[inside]] = True
        parts.append(matcher.within(part.reshape(region.shape)))
    return np.array(map_in_threads(lambda part: _best_shift(part, to_reference.matrix), parts))


def _smooth(values: NDArray[np.floating], grid: Grid, width: float) -> Image:
    return ndimage.gaussian_filter(values, width / grid.spacing), grid


def _best_shift(matcher: Matcher, matrix: NDArray[np.float64]) -> float:
    def cost(shift: NDArray[np.float64]) -> float:
        moved = matrix.copy()
        moved[:3, 3] += shift
        return -matcher(moved)

    found = minimize(
        cost,
        np.zeros(3),
        method="Powell",
        bounds=[(-REACH, REACH)] * 3,
        options={"xtol": 0.3, "ftol": 1e-4, "maxfev": 80},
    )
    return float(np.linalg.norm(found.x))


#: How far around the brain a deformable registration looks, and its judgement, mm: to the inner
#: table of the skull.
RIM = 8.0

#: What can be thought of a registration, best first.
VERDICTS = ("ok", "doubtful", "failed")


def check_verdict(verdict: str, reasons: Sequence[str]) -> None:
    """Check that a verdict is one of :data:`VERDICTS`, and has reasons if it is not ok.

    Raises
    ------
    ValueError
        If it is not, or has none.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"a verdict is one of {VERDICTS}, not {verdict!r}")
    if (verdict == "ok") != (not reasons):
        raise ValueError("a verdict that is not ok has reasons, and only that one")


@dataclass(frozen=True, kw_only=True)
class RegistrationQuality:
    """What can be said of a registration without knowing the truth.

    Attributes
    ----------
    similarity
        Normalised mutual information within the brain and a rim of 8 mm, both images
        smoothed by 3 mm (standard deviation): 1 (none) to 2. It depends on the contrasts, and
        nothing is judged by it.
    overlap
        Part of the reference's brain that lies in the image's field of view, 0 to 1.
    covered
        Part of that which lies where the image shows a head and no air, 0 to 1.
    agreeing
        Part of the brain's inside that fits best within 3.6 mm of where it lies, 0 to 1
        (:class:`~cmbprep.registration.evidence.Evidence`); None where too little of it is seen.
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
    agreeing: float | None = None
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
        check_verdict(self.verdict, self.reasons)
        if not 0 <= self.overlap <= 1:
            raise ValueError("the overlap lies between 0 and 1")


#: Voxels of the working grid that a similarity must rest on: 16 ml of the template's.
FEWEST_VOXELS = 1000


def _similarity(
    a: NDArray[np.floating], b: NDArray[np.floating], region: NDArray[np.bool_], grid: Grid
) -> float:
    """Normalised mutual information within a region, 32 bins between the percentiles."""
    if np.count_nonzero(region) < FEWEST_VOXELS:
        return 1.0
    one, other = (
        quantise(_smooth(np.nan_to_num(image), grid, JUDGED_SMOOTHING)[0][region], 32)
        for image in (a, b)
    )
    return normalised_mutual_information(one * 32 + other, 32)


def move_of(linear: LinearMap, centre: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the distance that a point moves (mm), angle (degrees) and scale of a linear map."""
    left, _, right = np.linalg.svd(linear.matrix[:3, :3])
    cosine = np.clip((np.trace(left @ right) - 1) / 2, -1, 1)
    shift = float(np.linalg.norm(map_points(centre, (linear,))[0] - centre))
    scale = float(np.cbrt(np.linalg.det(linear.matrix[:3, :3])))
    return shift, float(np.degrees(np.arccos(cosine))), scale


#: Smoothing before the similarity is judged, mm: noise and fine anatomy do not count.
JUDGED_SMOOTHING = 3.0
#: Bounds outside which a registration is doubtful, of the brain with the fluid around it.
VOLUME_ML = (900.0, 2300.0)
#: Volumes that no brain has. Between the two, a verdict is doubtful.
NO_BRAIN_ML = (700.0, 2500.0)
#: Part of the brain's inside that must fit where it lies: below, a registration has failed, or is
#: doubtful. Set on simulated people of eight contrasts that no figure is reported on.
NO_EVIDENCE, FAINT_EVIDENCE = 0.40, 0.50
#: The same for an image of the same head, which has been moved to where its parts fit best. Right
#: poses had 0.84 and more, of simulated people in nine contrasts and of two real ones; images of
#: other persons had 0.24 to 0.57 (six real pairs).
NO_EVIDENCE_RIGID, FAINT_EVIDENCE_RIGID = 0.60, 0.70
#: ... and from which it is settled. Below, the affine part is set anew by where the parts of the
#: brain fit best: on a flat scan of a tuning person that brought 0.59 to 0.81, and the median error
#: from 3.8 to 3.1 mm.
SETTLED = 0.9
#: Part of the brain below which a registration rests on too little to be sure of. To the template,
#: whose size is free, less than 0.8 is enough only where the registration is settled. Of 12 slabs
#: of tuning people, 40 to 80 mm high, settled ones of 0.5 and more lay off by 2.4 to 3.7 mm.
LITTLE_SEEN, LITTLE_SEEN_IN_TEMPLATE = 0.5, 0.8
MAX_FOLDING = 0.001
MIN_COVERED = 0.8
#: Of their own T1w, a simulated thick scan had 0.6 mm, two real echo-planar ones 1.5 and 4.0 mm;
#: of another person's, one of each kind had 5.8 and 8.0 mm.
MAX_LOCAL_SHIFT = 5.0
JACOBIAN = (0.3, 3.0)
MAX_ROTATION = 40.0
MAX_STRETCH = 1.5


def judge_template(
    template: HeadImage,
    near: NDArray[np.bool_],
    image: HeadImage,
    warp: DisplacementMap,
    to_image: DisplacementMap,
    linear: LinearMap,
    evidence: Evidence | None,
) -> RegistrationQuality:
    """Judge a registration of an image to a template.

    Parameters
    ----------
    template
        With its brain mask.
    near
        The template's brain with a rim of :data:`RIM`.
    image
        With a mask of where it shows a head.
    warp
        Points of the template to points that the linear map takes on.
    to_image
        Points of the template to points of the image, on the template's grid.
    linear
        The linear map alone, template to image.
    evidence
        Of the inside of the brain; None where too little of it is seen.
    """
    _, brain, grid = template
    similarity, overlap = _agreement_along(template, near, image, to_image)
    local, total = (_volume_changes(found, brain, grid) for found in (warp, to_image))
    volume = float(total.sum()) * abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000.0
    shift, angle, scale = move_of(linear, template.brain_centre)
    stretch = float(np.linalg.cond(linear.matrix[:3, :3]))
    low, high = (float(v) for v in np.percentile(local, (1, 99)))
    quality = RegistrationQuality(
        similarity=similarity,
        overlap=overlap,
        covered=_covered(image, template, to_image),
        agreeing=None if evidence is None else evidence.agreeing,
        brain_volume_ml=volume,
        scale=scale,
        jacobian_low=low,
        jacobian_high=high,
        folding_fraction=float(np.mean(total <= 0)),
        rotation_deg=angle,
        shift_mm=shift,
    )
    verdict, reasons = _verdict(_template_checks(quality, stretch))
    return replace(quality, verdict=verdict, reasons=reasons)


def _volume_changes(
    found: DisplacementMap, brain: NDArray[np.bool_], grid: Grid
) -> NDArray[np.float32]:
    """Local change of volume under a map in the brain, looked at in the brain's box alone."""
    box = bounding_box(brain, 1)
    part = boxed_grid(grid, box)
    return np.asarray(jacobian_determinant(compose_on_grid((found,), part))[brain[box]])


def _agreement_along(
    template: HeadImage, near: NDArray[np.bool_], image: HeadImage, to_image: DisplacementMap
) -> tuple[float, float]:
    """Similarity and overlap of an image brought to the template."""
    values, brain, grid = template
    moving = nib.Nifti1Image(image.values, image.grid.affine)
    carried = apply_transforms(moving, grid, (to_image,), fill=float("nan"))
    warped = np.asarray(carried.dataobj, dtype=np.float32)
    seen = np.isfinite(warped)
    overlap = float(np.count_nonzero(seen & brain) / np.count_nonzero(brain))
    return _similarity(values, warped, near & seen, grid), overlap


def _template_checks(
    quality: RegistrationQuality, stretch: float
) -> tuple[tuple[str, bool, str], ...]:
    """Ask what a registration to the template must fulfil; ``stretch`` is of its affine part."""
    overlap, volume, folding = quality.overlap, quality.brain_volume_ml, quality.folding_fraction
    shown = f"the image shows {overlap:.0%} of the brain"
    settled = (quality.agreeing or 0.0) >= SETTLED
    return (
        *_evidence_checks(quality.agreeing, "template", NO_EVIDENCE, FAINT_EVIDENCE),
        ("failed", overlap < 0.2, shown),
        ("doubtful", 0.2 <= overlap < LITTLE_SEEN, shown),
        (
            "doubtful",
            LITTLE_SEEN <= overlap < LITTLE_SEEN_IN_TEMPLATE and not settled,
            f"{shown}, and not all of its inside fits the template where it was laid",
        ),
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


def _verdict(checks: Sequence[tuple[str, bool, str]]) -> tuple[str, tuple[str, ...]]:
    """Return the worst verdict of the checks that struck, and their reasons."""
    struck = [(verdict, text) for verdict, failed, text in checks if failed]
    worst = max((verdict for verdict, _ in struck), key=VERDICTS.index, default="ok")
    return worst, tuple(text for _, text in struck)


def _evidence_checks(
    agreeing: float | None, target: str, none: float, faint: float
) -> tuple[tuple[str, bool, str], ...]:
    if agreeing is None:
        return (("doubtful", True, "too little of the inside of the brain is seen to check it"),)
    return (
        (
            "failed" if agreeing < none else "doubtful",
            agreeing < faint,
            f"only {agreeing:.0%} of the inside of the brain fits the {target} where it was laid",
        ),
    )


def _covered(image: HeadImage, reference: HeadImage, to_image: PointMap) -> float:
    """Part of the reference's brain within the image's field of view that is foreground there."""
    points = map_points(reference.grid.points()[reference.mask.ravel()], (to_image,))
    inverse = np.linalg.inv(image.grid.affine)
    voxels = (points @ inverse[:3, :3].T + inverse[:3, 3]).T
    values = ndimage.map_coordinates(
        image.mask.astype(np.float32), voxels, order=1, mode="grid-constant", cval=-9.0
    )
    seen = values >= 0
    return float(np.mean(values[seen] >= 0.5)) if seen.any() else 0.0


def judge_rigid(
    scan: HeadImage,
    reference: HeadImage,
    variant: NDArray[np.float32],
    linear: LinearMap,
    evidence: Evidence | None,
    name: str,
) -> RegistrationQuality:
    """Judge a rigid registration of a scan to an image of the same person.

    Parameters
    ----------
    scan
        With a mask of where it shows a head.
    reference
        The whole head, with its brain mask.
    variant
        The reference's values that the registration looked at, with or without what is around
        the brain.
    linear
        Points of the scan to points of the reference.
    evidence
        Of the inside of the brain; None where too little of it is seen.
    name
        What the reasons call the reference.
    """
    values, _, grid = scan
    moving, brain, moving_grid = reference
    carried = carry_mask(brain, moving_grid, grid, linear)
    shifts = local_shifts((values, grid), carried, (moving, moving_grid), linear)
    off = float(np.median(shifts)) if shifts.size else 0.0
    image = nib.Nifti1Image(variant, moving_grid.affine)
    matched = np.asarray(apply_transforms(image, grid, (linear,)).dataobj)
    near = ndimage.distance_transform_edt(~carried, sampling=grid.spacing) <= RIM
    similarity = _similarity(values, matched, near, grid)
    seen = field_of_view(moving_grid, grid, linear.inverse()) & brain
    overlap = float(np.count_nonzero(seen) / np.count_nonzero(brain))
    covered = _covered(scan, reference, linear.inverse())
    volume = float(np.count_nonzero(brain) * np.prod(moving_grid.spacing)) / 1000.0
    centre = grid.points()[near.ravel()].mean(axis=0)
    shift, angle, scale = move_of(linear, centre)
    verdict, reasons = _verdict(
        (
            *_evidence_checks(
                None if evidence is None else evidence.agreeing,
                name,
                NO_EVIDENCE_RIGID,
                FAINT_EVIDENCE_RIGID,
            ),
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
        agreeing=None if evidence is None else evidence.agreeing,
        local_shift_mm=off,
        brain_volume_ml=volume,
        scale=scale,
        rotation_deg=angle,
        shift_mm=shift,
        verdict=verdict,
        reasons=reasons,
    )
