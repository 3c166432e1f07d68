"""Segmentation of single lesions, with volumes finer than the voxel.

Lesions are grown from points (:func:`segment_lesions`), or their voxels are given and only
measured (:func:`measure_region`).

A grown lesion is the region around its darkest point that is darker than half-way between that
point and the parenchyma around it. It must hang together, be seen from the centre in a
straight line, and end at a multiple of the lesion's own radius: a vessel or a sulcus that
touches the lesion is cut where it leaves it.

The half-way level is where the edge of an object lies after blurring by the voxel or the
point-spread function, as long as the object is about two voxels wide; smaller ones are
seen as large as the point-spread function (Greenberg 2009 tells why the volume of a void
is not that of the deposit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.detectors.candidates import radial_profiles

#: Largest distance of a lesion's voxel from its centre, mm.
MAX_RADIUS_MM = 6.0
# A voxel further out than this multiple of the lesion's median radius is a leak.
_LEAK_RATIO = 1.6
# Rim in which the parenchyma around a lesion is measured, mm from its edge.
_RIM_MM = (1.0, 5.0)
# A region is grown again from its middle this often at most.
_MOVES = 6
# ... if it loses this part of the signal: voids wide enough to need it do.
_DEEP = 0.5
# Losses below this part of the depth are noise, not a partial volume.
_FRINGE_FLOOR = 0.1

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Region:
    """One segmented lesion.

    Parameters
    ----------
    seed
        Number of the seed (counted from 0) that it was grown from.
    voxels
        (m, 3) integer voxel coordinates.
    centre_ras
        Centre of mass of the signal loss, mm, RAS+ scanner coordinates.
    volume_mm3
        Volume inside the half-depth surface.
    contrast
        1 - darkest / surroundings, 0..1.
    """

    seed: int
    voxels: NDArray[np.int_]
    centre_ras: tuple[float, float, float]
    volume_mm3: float
    contrast: float

    def __post_init__(self) -> None:
        if self.voxels.ndim != 2 or self.voxels.shape[1] != 3 or not len(self.voxels):
            raise ValueError("a region needs at least one voxel")
        if not self.volume_mm3 > 0 or not 0 <= self.contrast <= 1:
            raise ValueError("a region's volume must be positive and its contrast in 0..1")


def partial_volume(
    loss: NDArray[np.floating],
    region: BoolArray,
    depth: float,
    voxel_volume: float,
    brain: BoolArray | None = None,
) -> float:
    """Volume (mm^3) of a region whose border voxels count for the part of them that is dark.

    A voxel that a void covers in part shows that part of the signal loss: every voxel of the
    region and of its one-voxel fringe counts with ``loss / depth``, within 0 and 1. For a
    void with a sharp edge and at least one voxel that is wholly inside, the sum is the
    volume, whatever the voxel size.

    Parameters
    ----------
    loss
        Signal loss against the surroundings, (X, Y, Z).
    region
        The half-depth region.
    depth
        Loss in the darkest voxel.
    voxel_volume
        mm^3.
    brain
        Where the fringe may lie; everywhere if None.
    """
    share = np.clip(loss / depth, 0, 1)
    fringe = _dilated(region) & ~region
    if brain is not None:
        fringe &= brain
    # A fringe voxel at or above one half that is no part of the region belongs to something
    # else. Noise alone also looks like a small loss, hence the floor.
    fringe &= (share < 0.5) & (share > _FRINGE_FLOOR)
    return float(share[region].sum() + share[fringe].sum()) * voxel_volume


def segment_lesions(
    image: FloatArray,
    mask: BoolArray,
    affine: NDArray[np.floating],
    seeds: NDArray[np.floating],
    radii_mm: Sequence[float] | NDArray[np.floating],
    within: BoolArray | None = None,
) -> list[Region]:
    """Grow one region from each seed; no two share a voxel.

    Parameters
    ----------
    image
        (X, Y, Z) magnitude, free of strong bias.
    mask
        Brain; a region does not leave it.
    affine
        4x4, voxel to RAS+ mm.
    seeds
        (n, 3) voxel coordinates, the most certain first: an earlier seed keeps the voxels
        that two would claim.
    radii_mm
        (n,) rough radius of each lesion.
    within
        Where regions may grow besides the brain, (X, Y, Z); everywhere if None.

    Returns
    -------
    list of Region
        In the order of the seeds. A seed whose region would touch that of an earlier one is
        part of it and gives none; nor does one in nothing darker than its surroundings.
    """
    scan = _Scan.of(image, mask, affine)
    taken = np.zeros(image.shape, bool)
    closed = taken if within is None else ~within
    regions = []
    for number, (seed, radius) in enumerate(zip(seeds, radii_mm, strict=True)):
        grown = _grow(scan, taken | closed, np.asarray(seed, float), float(radius))
        if grown is not None and not (_dilated(grown.body) & taken[grown.window]).any():
            region = _measure(number, scan, grown.window, grown.body, grown.levels)
            taken[tuple(region.voxels.T)] = True
            regions.append(region)
    return regions


def measure_region(
    image: FloatArray,
    mask: BoolArray,
    affine: NDArray[np.floating],
    voxels: NDArray[np.int_],
    number: int = 0,
) -> Region:
    """Measure a lesion whose voxels are known, as those that are grown here are measured.

    Parameters
    ----------
    image
        (X, Y, Z) magnitude, free of strong bias.
    mask
        Brain.
    affine
        4x4, voxel to RAS+ mm.
    voxels
        (m, 3) voxel coordinates of the lesion.
    number
        What the region gets as its ``seed``.

    Returns
    -------
    Region
        Where the voxels are not darker than what surrounds them, or nothing surrounds them,
        the centre and volume are those of the voxels, and the contrast is 0.
    """
    scan = _Scan.of(image, mask, affine)
    room = np.ceil(_RIM_MM[1] / scan.spacing).astype(int) + 1
    low = np.maximum(voxels.min(axis=0) - room, 0)
    high = np.minimum(voxels.max(axis=0) + room + 1, image.shape)
    window = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    patch = image[window]
    body = np.zeros(patch.shape, bool)
    body[tuple((voxels - low).T)] = True
    lowest = float(patch[body].min())
    # Half a voxel less: the distance from the region's edge, not from its voxels' centres.
    distance = ndimage.distance_transform_edt(~body, scan.spacing) - 0.5 * scan.spacing.min()
    surround = surroundings(patch, mask[window], distance, 0.0, lowest)
    if surround is not None and float(np.quantile(patch[body], 0.15)) < surround:
        return _measure(number, scan, window, body, (lowest, surround))
    return scan.region(number, voxels, voxels.mean(axis=0), len(voxels) * scan.voxel_volume, 0.0)


@dataclass(frozen=True, eq=False)
class _Scan:
    """An image with its brain mask and geometry."""

    image: FloatArray
    mask: BoolArray
    affine: NDArray[np.float64]
    spacing: NDArray[np.float64]

    @classmethod
    def of(cls, image: FloatArray, mask: BoolArray, affine: NDArray[np.floating]) -> _Scan:
        matrix = np.asarray(affine, np.float64)
        return cls(image, mask, matrix, voxel_sizes(matrix))

    @property
    def voxel_volume(self) -> float:
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    def region(
        self,
        number: int,
        voxels: NDArray[np.int_],
        centre_voxel: NDArray[np.float64],
        volume: float,
        contrast: float,
    ) -> Region:
        x, y, z = (float(v) for v in self.affine[:3, :3] @ centre_voxel + self.affine[:3, 3])
        return Region(
            seed=number,
            voxels=voxels,
            centre_ras=(x, y, z),
            volume_mm3=volume,
            contrast=contrast,
        )


def _dilated(mask: BoolArray) -> BoolArray:
    """Add the 26 neighbours of each voxel."""
    return np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3, 3), bool)))


@dataclass(frozen=True, eq=False)
class _Growth:
    """The voxels of a region within a window of the image, and how dark it and its rim are."""

    window: tuple[slice, slice, slice]
    body: BoolArray
    loss: FloatArray
    levels: tuple[float, float]

    @property
    def corner(self) -> NDArray[np.int_]:
        """First voxel of the window."""
        return np.array([part.start for part in self.window])

    def holds_more(self, other: _Growth) -> bool:
        """Whether it holds the other's darkest voxel, and is darker or loses more signal.

        One that is less dark, or faint, may have gone over to something else, a sulcus say.
        """
        lowest, surround = self.levels
        before = other.levels[0]
        if lowest > before or lowest > (1 - _DEEP) * surround:
            return False
        if lowest == before and self.loss.sum() <= other.loss.sum():
            return False
        darkest = np.unravel_index(np.argmax(other.loss), other.loss.shape)
        place = np.array(darkest) + other.corner - self.corner
        return bool(
            (place >= 0).all() and (place < self.body.shape).all() and self.body[tuple(place)]
        )


def _grow(
    scan: _Scan, taken: BoolArray, seed: NDArray[np.float64], radius: float
) -> _Growth | None:
    """Grow a region, and again from its middle as long as more of the lesion comes to light.

    A seed in the last slice of a void sees that slice and the next; from the middle of these
    it sees further.
    """
    grown = _grow_once(scan, taken, seed, radius)
    if grown is None:
        return None
    for _ in range(_MOVES):
        middle = ndimage.center_of_mass(grown.loss) + grown.corner
        volume = np.count_nonzero(grown.body) * float(np.prod(scan.spacing))
        wider = max(radius, (3 * volume / (4 * math.pi)) ** (1 / 3))
        further = _grow_once(scan, taken, middle, wider)
        if further is None or not further.holds_more(grown):
            break
        grown = further
    return grown


def _grow_once(
    scan: _Scan, taken: BoolArray, seed: NDArray[np.float64], radius: float
) -> _Growth | None:
    half = (MAX_RADIUS_MM + _RIM_MM[1]) / scan.spacing
    low = np.clip(np.floor(seed - half), 0, None).astype(int)
    high = np.minimum(np.ceil(seed + half) + 1, scan.image.shape).astype(int)
    window = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    patch = scan.image[window]
    free = scan.mask[window] & ~taken[window]
    grid = np.indices(patch.shape).reshape(3, -1).T + low
    distance = np.linalg.norm((grid - seed) * scan.spacing, axis=1).reshape(patch.shape)

    core = free & (distance <= max(0.75 * radius, 0.6 * float(np.linalg.norm(scan.spacing)), 1.0))
    if not core.any():
        return None
    darkest = np.unravel_index(np.argmin(np.where(core, patch, np.inf)), patch.shape)
    lowest = float(patch[darkest])
    surround = surroundings(patch, scan.mask[window], distance, radius, lowest)
    if surround is None or surround <= lowest:
        return None
    level = (surround + lowest) / 2
    centre = (np.array(darkest) + low + seed) / 2 if radius > scan.spacing.max() else seed
    allowed = _line_of_sight(scan, centre, level, grid).reshape(patch.shape)
    dark = (patch <= level) & free & allowed
    dark[darkest] = True
    parts, _ = ndimage.label(dark)
    body = parts == parts[darkest]
    loss = np.where(body, np.clip(surround - patch, 1e-6, None), 0).astype(np.float32)
    return _Growth(window, body, loss, (lowest, surround))


def surroundings(
    patch: FloatArray, brain: BoolArray, distance: NDArray[np.float64], radius: float, lowest: float
) -> float | None:
    """Return the intensity of the parenchyma around a lesion: the median of a rim, voids left out.

    Parameters
    ----------
    patch, brain
        Image and brain mask around the lesion, (X, Y, Z).
    distance
        Of each voxel from the lesion's middle, mm, (X, Y, Z).
    radius
        Of the lesion, mm.
    lowest
        Intensity of its darkest voxel.

    Returns
    -------
    float or None
        None where the rim has fewer than five voxels of brain.
    """
    rim = brain & (distance >= radius + _RIM_MM[0]) & (distance <= radius + _RIM_MM[1])
    if np.count_nonzero(rim) < 5:
        return None
    values = patch[rim]
    middle = float(np.median(values))
    # The lesion's own fringe and neighbouring voids are no parenchyma.
    tissue = values[values > (middle + lowest) / 2]
    return float(np.median(tissue)) if tissue.size else middle


def _line_of_sight(
    scan: _Scan, centre: NDArray[np.float64], level: float, grid: NDArray[np.int_]
) -> BoolArray:
    """Voxels that are near enough to the centre to belong to a compact lesion."""
    step, spacing = 0.25, scan.spacing
    radii = np.arange(0.0, MAX_RADIUS_MM + step, step)
    profiles, directions = radial_profiles(scan.image, centre[None], spacing, radii)
    above = profiles[0] > level
    first = np.where(above.any(axis=1), radii[np.argmax(above, axis=1)], MAX_RADIUS_MM)
    # Median of opposite pairs' shorter half: a tube is long both ways in few directions.
    bound = _LEAK_RATIO * float(np.median(first)) + 0.5 * float(spacing.min())
    offset = (grid - centre) * spacing
    distance = np.linalg.norm(offset, axis=1)
    nearest = np.argmax(offset @ directions.T, axis=1)
    # A voxel counts as seen if the ray nearest to it is still dark half a voxel before it.
    slack = 0.5 * np.linalg.norm(spacing)
    seen = distance <= first[nearest] + slack
    # A thick voxel is as far away as its nearer part is.
    thicker = 0.5 * (spacing - spacing.min())
    nearer = np.linalg.norm(np.maximum(np.abs(offset) - thicker, 0), axis=1)
    within = nearer <= min(max(bound, float(spacing.min())), MAX_RADIUS_MM)
    return np.asarray(seen & within)


def _measure(
    number: int,
    scan: _Scan,
    window: tuple[slice, slice, slice],
    body: BoolArray,
    levels: tuple[float, float],
) -> Region:
    """Volume, centre and contrast of a region from its darkest and surrounding levels."""
    lowest, surround = levels
    patch, corner = scan.image[window], np.array([part.start for part in window])
    # The minimum of many voxels lies below the true level by the noise; a low rank does not.
    full = surround - float(np.quantile(patch[body], 0.15))
    volume = partial_volume(surround - patch, body, full, scan.voxel_volume, scan.mask[window])
    weight = np.where(body, np.clip(surround - patch, 1e-6, None), 0)
    centre = np.array(ndimage.center_of_mass(weight)) + corner
    contrast = 1 - lowest / surround if surround > 0 else 0.0
    voxels = np.argwhere(body) + corner
    return scan.region(number, voxels, centre, volume, float(np.clip(contrast, 0, 1)))


# --- Size of a void, from the size of the dark region that it makes -------------------------------
#
# The region of a sharp-edged ball has the ball's volume (:mod:`.segmentation`). A microbleed's
# void is no such ball: its edge is soft, and in a slice thicker than itself it does not even fill
# its darkest voxel, so that the depth is taken for too small and the part of the other voxels for
# too large. Both make the region seem larger, the more so the thicker the slices are against it.


#: Logarithm of how many times its volume a void seems to have where its diameter is one slice
#: thick. Fitted on 834 bleeds that version 2 of the learned detector found in 40 simulated scans
#: for its training and tuning: left out of the fit, the median error fell from 15 to 10 %, with
#: slices of 5.5 mm and more from 36 to 18 %. With version 4, and regions grown again from their
#: middle, on 670 bleeds in magnitude images of thirteen such people ``recipe.py volumes``
#: finds median ratios of 0.98 to 1.08 from the thinnest to the thickest slices, a median error of
#: 12 %, and little left to take off (0.03); regions were kept from going over to fainter ones
#: only after that, which left the median error of the test people at 12 %. Processed SWI darkens
#: what lies around a void: there volumes are 1.8 times (median, 204 bleeds) those of the void in
#: the magnitude.
GAIN = 0.2


def void_volume(region: float, slice_mm: float) -> float:
    """Take off what the void of a bleed seems to gain.

    Parameters
    ----------
    region
        Volume of the dark region, mm^3.
    slice_mm
        Largest distance of voxels along an axis, mm.

    Returns
    -------
    float
        mm^3: nearly ``region`` where it is many slices wide.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """
    if not (region > 0 and slice_mm > 0):
        raise ValueError("the volume of a region and the thickness of slices are positive")
    return region * math.exp(-GAIN * slice_mm / ball_diameter(region))


def ball_diameter(volume: float) -> float:
    """Diameter (mm) of the ball of a volume (mm^3)."""
    return (6 * volume / math.pi) ** (1 / 3)
