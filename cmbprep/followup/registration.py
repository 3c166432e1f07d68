"""Registration of two visits of a participant that favours neither of them.

Each scan is registered to the other one, and the halfway map between the first registration and
the inverse of the second is taken. Exchanging the scans gives the inverse map. How far the two
registrations are apart in the brain is a check that needs no truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cmbprep.errors import ScanError
from cmbprep.registration.fit import RigidRegistration, register_rigid
from cmbprep.registration.quality import RegistrationQuality, check_verdict
from cmbprep.spatial.transforms import LinearMap, map_points

#: Error of a registration of two visits to reckon with at least, mm, along each axis (one
#: standard deviation).
LEAST_ERROR_MM = 0.7
#: Distance between the two registrations in the brain (root mean square), mm, above which the
#: result is doubtful, and above which it has failed.
DOUBTFUL_MM, FAILED_MM = 2.0, 4.0
#: Voxels of the brain that the distance is measured at.
POINTS = 2000


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadScan:
    """A scan with its brain mask.

    Attributes
    ----------
    image
        Bias-corrected magnitude image.
    brain_mask
        In its space.
    """

    image: SpatialImage
    brain_mask: SpatialImage

    def brain_points(self) -> NDArray[np.float64]:
        """Return voxel centres in the brain, RAS+ mm, (n, 3); at most :data:`POINTS`."""
        voxels = np.argwhere(np.asarray(self.brain_mask.dataobj) > 0)
        affine = np.asarray(self.brain_mask.affine)
        voxels = voxels[:: 1 + (len(voxels) - 1) // POINTS]
        return np.asarray(voxels @ affine[:3, :3].T + affine[:3, 3], float)


@dataclass(frozen=True, eq=False, kw_only=True)
class VisitRegistration:
    """Two visits laid onto each other.

    Attributes
    ----------
    to_second
        Rigid map of points of the first scan to points of the second.
    gap_mm
        Distance between the two registrations in the brain, root mean square, mm; None where only
        one of them is used.
    similarity, overlap
        The lower of the two registrations' (:class:`.RegistrationQuality`).
    verdict, reasons
        ``ok``, ``doubtful`` or ``failed``, and why it is not ok.
    """

    to_second: LinearMap
    gap_mm: float | None
    similarity: float
    overlap: float
    verdict: str = "ok"
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_verdict(self.verdict, self.reasons)

    @property
    def error_mm(self) -> float:
        """Error to reckon with, mm, along each axis (one standard deviation)."""
        if self.gap_mm is None:
            return DOUBTFUL_MM
        return max(LEAST_ERROR_MM, self.gap_mm / 2)

    def inverse(self) -> VisitRegistration:
        """Return the registration of the second scan to the first."""
        return VisitRegistration(**(vars(self) | {"to_second": self.to_second.inverse()}))


def halfway(one: LinearMap, other: LinearMap) -> LinearMap:
    """Return the rigid map halfway between two.

    The step from the first map to the second, a screw motion, is taken by half. Halfway between
    the inverses is the inverse, and the order of the two does not matter.
    """
    step = one.inverse().matrix @ other.matrix
    turn = Rotation.from_matrix(step[:3, :3])
    half = (turn**0.5).as_matrix()
    # Two half steps make a step: the shift s of one solves (R + 1) s = t.
    shift = np.linalg.solve(half + np.eye(3), step[:3, 3])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = half, shift
    return LinearMap(one.matrix @ matrix)


def register_visits(first: HeadScan, second: HeadScan) -> VisitRegistration:
    """Register two scans of a participant to each other.

    Raises
    ------
    ScanError
        If neither scan can be registered to the other one.
    """
    results: list[RigidRegistration | ScanError] = []
    for scan, reference in ((first, second), (second, first)):
        try:
            images = scan.image, reference.image, reference.brain_mask
            results.append(register_rigid(*images, name="image of the other visit"))
        except ScanError as error:
            results.append(error)
    forward, backward = results
    if isinstance(forward, ScanError) and isinstance(backward, ScanError):
        raise forward
    if isinstance(forward, RigidRegistration) and isinstance(backward, RigidRegistration):
        back = backward.to_reference.inverse()
        points = first.brain_points(), second.brain_points()
        gap = registration_gap(forward.to_reference, back, *points)
        used = _usable(forward, back, backward.quality)
        return judge(used, gap, (forward.quality, backward.quality))
    if isinstance(forward, RigidRegistration):
        return judge([forward.to_reference], None, (forward.quality,))
    assert isinstance(backward, RigidRegistration)
    return judge([backward.to_reference.inverse()], None, (backward.quality,))


def _usable(
    forward: RigidRegistration, back: LinearMap, quality: RegistrationQuality
) -> list[LinearMap]:
    """Return the maps that have not failed; both where both have."""
    maps = ((forward.to_reference, forward.quality), (back, quality))
    return [one for one, its in maps if its.verdict != "failed"] or [one for one, _ in maps]


def registration_gap(
    forward: LinearMap,
    back: LinearMap,
    in_first: NDArray[np.float64],
    in_second: NDArray[np.float64],
) -> float:
    """Return the distance between two maps of the first scan to the second, mm.

    Parameters
    ----------
    forward, back
        The registration of the first scan, and the inverse of that of the second.
    in_first, in_second
        Points in the brain of each scan, (n, 3), RAS+ mm: neither scan counts more.
    """
    apart = map_points(in_first, (forward,)) - map_points(in_first, (back,))
    also = map_points(in_second, (forward.inverse(),)) - map_points(in_second, (back.inverse(),))
    squares = [float((part**2).sum(axis=1).mean()) for part in (apart, also)]
    return float(np.sqrt(np.mean(squares)))


def judge(
    maps: Sequence[LinearMap], gap_mm: float | None, qualities: Sequence[RegistrationQuality]
) -> VisitRegistration:
    """Join the two registrations and judge the result.

    Parameters
    ----------
    maps
        Of the first scan to the second: both registrations, or the one that can be used.
    gap_mm
        Distance between the two; None where there is only one.
    qualities
        Of all that were tried.
    """
    single = len(maps) == 1
    gap = None if single else gap_mm
    failed = all(quality.verdict == "failed" for quality in qualities)
    reasons = [
        text
        for quality in qualities
        if failed or quality.verdict == "doubtful"
        for text in quality.reasons
    ]
    if single:
        reasons.append("only one of the two scans could be registered to the other")
    verdict = "failed" if failed else "doubtful" if reasons else "ok"
    if gap is not None and gap > DOUBTFUL_MM:
        reasons.append(f"the registrations of either scan to the other differ by {gap:.1f} mm")
        verdict = "failed" if failed or gap > FAILED_MM else "doubtful"
    return VisitRegistration(
        to_second=maps[0] if single else halfway(maps[0], maps[1]),
        gap_mm=gap,
        similarity=min(quality.similarity for quality in qualities),
        overlap=min(quality.overlap for quality in qualities),
        verdict=verdict,
        reasons=tuple(dict.fromkeys(reasons)),
    )
