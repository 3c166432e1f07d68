"""Places labelled lesions in the zones of an atlas that lies on the same grid.

Voxel ``i`` is the box from ``i - 0.5`` to ``i + 0.5`` along each axis (NIfTI convention), and
distances are taken from a point to the nearest face of such a box, in millimetres, so that thick
slices are not mistaken for points. Sides come from the atlas's labels, never from the order of
the voxels: a flipped or oblique grid gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from cmbprep.zones.schemes import Scheme

#: A lesion with at least this part of its region's voxels on each side lies on the midline.
MIDLINE_FRACTION = 0.25

# Distances that differ by less than this are the same but for rounding.
_ROUNDING_MM = 1e-6
# Edge of the blocks of the atlas's index, voxels.
_BLOCK = 8


@dataclass(frozen=True, kw_only=True)
class ZoneAssignment:
    """Where one lesion lies.

    Attributes
    ----------
    label
        Value of the lesion in the label image.
    zone, region, hemisphere
        Names under the scheme, ``None`` where none could be given; ``hemisphere`` is ``left``,
        ``right`` or ``midline``. In a ventricle the region is the ventricle's, and there is no
        zone.
    region_fraction
        Part of all the lesion's voxels that lies in the region named, 0 to 1; ``None`` without
        a region.
    boundary_distance_mm
        From the lesion's centre of mass to the nearest voxel of another zone; ``None`` if
        there is none in the image. Without a zone, to the nearest voxel of any.
    boundary
        Whether that distance is below the tolerance, or the lesion lies in no zone.
    note
        Empty, or why the zone is uncertain or missing.
    """

    label: int
    zone: str | None
    region: str | None
    hemisphere: str | None
    region_fraction: float | None
    boundary_distance_mm: float | None
    boundary: bool
    note: str = ""

    def columns(self) -> dict[str, Any]:
        """Return the values of the lesion table that describe the place, by column."""
        return {k: v for k, v in asdict(self).items() if k not in ("label", "note")}


def assign_zones(
    labels: ArrayLike,
    affine: ArrayLike,
    atlas: ArrayLike,
    scheme: Scheme,
    *,
    tolerance_mm: float | None = None,
) -> list[ZoneAssignment]:
    """Place every lesion in a zone, a region and a side, by its mask.

    The zone is chosen first, by the number of the lesion's voxels, then the region among those
    of that zone, then the side. (Choosing the region first could call a lesion lobar of which
    most is deep but spread over two capsules.) Equal numbers are settled by, in this order, what
    holds the voxel of the centre, what comes nearest to the centre, and the lowest index in
    the scheme.

    No lesion is forced into a zone. One of which more voxels lie in a ventricle than in all zones
    has none. One that has no voxel in the brain takes the nearest zone only if an error of the
    registration could have put it outside.

    Parameters
    ----------
    labels
        Lesion labels, shape (x, y, z), integers, 0 where there is no lesion.
    affine
        Voxel to millimetres, RAS+, shape (4, 4); its axes orthogonal, as NIfTI's qform has them.
    atlas
        The scheme's labels on the same grid, shape (x, y, z), integers.
    scheme
        What the atlas's labels mean.
    tolerance_mm
        Error of registration to reckon with; the scheme's own if not given.

    Returns
    -------
    list of ZoneAssignment
        One a lesion, in the order of their labels.

    Raises
    ------
    ValueError
        If shapes differ, an image is not of integers, the affine is singular, or the atlas has
        a label that the scheme does not know.
    """
    labels, atlas = _integers(labels, "lesion labels"), _integers(atlas, "atlas")
    if labels.shape != atlas.shape or labels.ndim != 3:
        raise ValueError(f"lesions {labels.shape} and atlas {atlas.shape} are not on one 3D grid")
    zooms = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    if not np.all(np.isfinite(zooms)) or not np.all(zooms > 0):
        raise ValueError("the affine is singular or not finite")
    boxes = ndimage.find_objects(labels)
    if not boxes:
        return []
    tolerance = scheme.tolerance_mm if tolerance_mm is None else tolerance_mm
    index = _AtlasIndex(atlas, zooms, scheme, tolerance)
    return [
        _assign(label, np.argwhere(labels[box] == label) + [part.start for part in box], index)
        for label, box in enumerate(boxes, start=1)
        if box is not None
    ]


def _integers(image: ArrayLike, what: str) -> NDArray[np.integer]:
    array = np.asarray(image)
    if array.dtype == bool:
        return array.view(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what} must be integers, not {array.dtype}")
    # find_objects takes no unsigned 32 or 64 bit integers.
    return array.astype(np.int64) if array.dtype in (np.uint32, np.uint64) else array


class _AtlasIndex:
    """An atlas with a note, for each small block of voxels, of the zones that it holds.

    With it the nearest voxel of a zone is found exactly, however far, by opening few blocks.
    ``zone``, ``region`` (without side) and ``side`` hold a code for every value of the atlas.
    """

    def __init__(
        self,
        atlas: NDArray[np.integer],
        zooms: NDArray[np.floating],
        scheme: Scheme,
        tolerance_mm: float,
    ) -> None:
        self.atlas, self.zooms, self.scheme, self.tolerance_mm = atlas, zooms, scheme, tolerance_mm
        self.zone, self.region, self.side = (np.zeros(256, np.int16) for _ in range(3))
        tissue = [region for region in scheme.regions if region.zone is not None]
        self.zones = list(dict.fromkeys(str(region.zone) for region in tissue))
        self.regions = list(scheme.region_names)
        for region in tissue:
            self.zone[region.index] = self.zones.index(str(region.zone)) + 1
            self.region[region.index] = self.regions.index(region.name) + 1
            self.side[region.index] = 1 if region.hemisphere == "left" else 2
        if atlas.min() < 0 or atlas.max() > 255:
            raise ValueError("the atlas has values outside 0..255")
        unknown = ~np.isin(np.arange(256), [0, *scheme.by_index])[atlas]
        if unknown.any():
            named = np.unique(atlas[unknown]).tolist()
            raise ValueError(f"the atlas has labels that the scheme does not know: {named}")
        bits = np.where(self.zone > 0, 1 << self.zone, 0).astype(np.uint8)[atlas]
        for axis in range(3):
            starts = np.arange(0, atlas.shape[axis], _BLOCK)
            bits = np.bitwise_or.reduceat(bits, starts, axis=axis)
        self.blocks = np.argwhere(bits)
        self.held = bits[tuple(self.blocks.T)]

    def nearest(
        self, centre: NDArray[np.floating], zones: Iterable[int], within_mm: float = np.inf
    ) -> tuple[float, int] | None:
        """Find the nearest voxel of some zones.

        Parameters
        ----------
        centre
            Where from, voxels, shape (3,).
        zones
            Codes of the zones.
        within_mm
            Look no farther.

        Returns
        -------
        tuple of float and int, or None
            Distance in mm and the atlas value there (the lowest of several).
        """
        zones = list(zones)
        blocks = self.blocks[(self.held & sum(1 << zone for zone in zones)) > 0]
        first = blocks * _BLOCK
        least = _gap(first, first + _BLOCK - 1, centre, self.zooms)
        wanted = np.isin(self.zone, zones)
        best, value = within_mm, None
        for at in np.argsort(least, kind="stable"):
            if least[at] > best + _ROUNDING_MM:
                break
            corner = first[at]
            values = self.atlas[tuple(slice(c, c + _BLOCK) for c in corner)]
            voxels = np.argwhere(wanted[values])
            distance = _gap(voxels + corner, voxels + corner, centre, self.zooms)
            closest = float(distance.min())
            if closest > best + _ROUNDING_MM:
                continue
            # The same distance up to rounding: the lowest label decides, not the order of voxels.
            tied = voxels[distance <= closest + _ROUNDING_MM]
            lowest = int(values[tuple(tied.T)].min())
            if value is None or closest < best - _ROUNDING_MM or lowest < value:
                value = lowest
            best = min(best, closest)
        return None if value is None else (best, value)


def _gap(
    first: NDArray[np.integer],
    last: NDArray[np.integer],
    point: NDArray[np.floating],
    zooms: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Distance (mm) from a point to boxes that reach from voxel ``first`` to ``last``, (n, 3)."""
    gaps = np.maximum(np.maximum(first - 0.5 - point, point - last - 0.5), 0) * zooms
    return np.sqrt((gaps**2).sum(axis=1))


def _assign(label: int, voxels: NDArray[np.integer], index: _AtlasIndex) -> ZoneAssignment:
    centre = voxels.mean(axis=0)
    values = index.atlas[tuple(voxels.T)]
    in_zone = index.zone[values] > 0
    # What the atlas labels without giving it a zone is a ventricle.
    fluid = (values > 0) & ~in_zone
    if not in_zone.any() or np.count_nonzero(fluid) > np.count_nonzero(in_zone):
        return _assign_outside(label, values, centre, index)
    from_centre = _gap(voxels, voxels, centre, index.zooms)
    zone = _vote(index.zone, values[in_zone], from_centre[in_zone])
    chosen = index.zone[values] == zone
    region = _vote(index.region, values[chosen], from_centre[chosen])
    chosen &= index.region[values] == region
    others = (code for code in range(1, len(index.zones) + 1) if code != zone)
    hit = index.nearest(centre, others)
    distance = None if hit is None else hit[0]
    return ZoneAssignment(
        label=label,
        zone=index.zones[zone - 1],
        region=index.regions[region - 1],
        hemisphere=_hemisphere(index.side[values[chosen]]),
        region_fraction=float(chosen.mean()),
        boundary_distance_mm=distance,
        boundary=distance is not None and distance < index.tolerance_mm,
        note="mostly outside the zones" if in_zone.mean() < 0.5 else "",
    )


def _assign_outside(
    label: int, values: NDArray[np.integer], centre: NDArray[np.floating], index: _AtlasIndex
) -> ZoneAssignment:
    """Place a lesion that lies in a ventricle or outside the brain."""
    hit = index.nearest(centre, range(1, len(index.zones) + 1))
    distance = None if hit is None else hit[0]
    region, fraction = None, None
    if values.any():
        fluid = (values > 0) & (index.zone[values] == 0)
        region, fraction = index.scheme.by_index[int(values[fluid].min())], float(fluid.mean())
        note = "in a ventricle, no zone"
    else:
        if hit is not None and hit[0] < index.tolerance_mm:
            region, fraction = index.scheme.by_index[hit[1]], 0.0
        where = "no zone near" if distance is None else f"nearest zone at {distance:.1f} mm"
        note = f"outside the brain, {where}"
    return ZoneAssignment(
        label=label,
        zone=None if region is None else region.zone,
        region=None if region is None else region.name,
        hemisphere=None if region is None else region.hemisphere,
        region_fraction=fraction,
        boundary_distance_mm=distance,
        boundary=True,
        note=note,
    )


def _vote(
    code: NDArray[np.int16], values: NDArray[np.integer], distance: NDArray[np.floating]
) -> int:
    """Choose a code by the number of voxels; see :func:`assign_zones` for equal numbers.

    ``distance`` (mm) is that of each voxel from the centre.
    """
    codes = code[values]
    count = np.bincount(codes)
    best = np.flatnonzero(count == count.max())
    if len(best) > 1:
        # The centre's own voxel is the one at distance 0.
        nearest = np.array([distance[codes == one].min() for one in best])
        best = best[nearest <= nearest.min() + _ROUNDING_MM]
    # The lowest index of the scheme need not be the lowest code.
    lowest = [values[codes == one].min() for one in best]
    return int(best[int(np.argmin(lowest))])


def _hemisphere(sides: NDArray[np.int16]) -> str:
    right = float((sides == 2).mean())
    if min(right, 1 - right) >= MIDLINE_FRACTION:
        return "midline"
    return "left" if right < 0.5 else "right"
