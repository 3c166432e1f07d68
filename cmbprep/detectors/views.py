"""What the learned detector looks at: candidates of a scan, measured and cut out.

The same code prepares scans for training and for use, so that a network never meets a scan
that was treated otherwise than those it has learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors import features
from cmbprep.detectors.base import DetectorInput
from cmbprep.detectors.candidates import Candidates, relative_intensity
from cmbprep.detectors.classical import measure_candidates
from cmbprep.detectors.patches import Patches, PatchMaps, cut_patches
from cmbprep.detectors.susceptibility import phase_maps
from cmbprep.spatial.grids import Grid, boxed_grid
from cmbprep.spatial.orientation import AxisOrder, slices_last

#: What describes a candidate beside its views: its features, then its scan and its place.
MEANINGS: Mapping[str, str] = {
    **features.MEANINGS,
    "in_plane_mm": "log of the finest voxel side",
    "slice_mm": "log of the distance of slices",
    "bloom": "log of TE x B0 over that of 20 ms at 3 T; 0 where unknown",
    "bloom_known": "1 where echo time and field strength are known",
    "processed": "1 for processed SWI",
    "phase_known": "1 where phase was used",
    "echoes_known": "1 where an early echo was used",
    "across": "mm from the middle plane of the brain, left or right, over 70",
    "ahead": "mm before the centre of the brain, over 70",
    "above": "mm above it, over 70",
}
COLUMNS = tuple(MEANINGS)
# An echo this much earlier than the last shows how much a dark spot grows.
_EARLY = 0.7

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ScanViews:
    """A scan with ordered axes, and its candidates.

    Attributes
    ----------
    order
        From the stored axes to the ordered ones.
    scan
        The scan, its axes ordered.
    box
        Part of the ordered scan that was looked at.
    candidates
        Positions in voxels of the box.
    table
        (n, len(COLUMNS)) description of each.
    maps
        Images of the box that views are cut from.
    noise
        Standard deviation of the noise, relative to the median of the brain.
    """

    order: AxisOrder
    scan: DetectorInput
    box: tuple[slice, slice, slice]
    candidates: Candidates
    table: NDArray[np.float64]
    maps: PatchMaps
    noise: float = 0.0

    @property
    def corner(self) -> NDArray[np.int_]:
        """First voxel of the box in the ordered scan."""
        return np.array([part.start for part in self.box])

    @property
    def box_affine(self) -> NDArray[np.float64]:
        """4x4, voxel of the box to RAS+ mm."""
        return boxed_grid(Grid(self.scan.magnitude.shape, self.scan.affine), self.box).affine

    def patches(self) -> Patches:
        """Views of all candidates."""
        return cut_patches(self.maps, self.candidates.voxels)


def view_scan(scan: DetectorInput) -> ScanViews:
    """Order the axes of a scan, find its candidates and describe them."""
    order = slices_last(scan.affine)
    ordered = _ordered(scan, order)
    measured = measure_candidates(ordered.magnitude, ordered.brain_mask, ordered.spacing)
    candidates, box, ratio = measured.candidates, measured.box, measured.ratio
    brain = ordered.brain_mask[box]
    growth = _growth(ordered, box, ratio)
    susceptibility = _susceptibility(scan, order, box)
    maps = PatchMaps(
        ratio=ratio,
        mask=brain,
        susceptibility=susceptibility,
        growth=growth,
        spacing=ordered.spacing,
    )
    table = np.column_stack(
        [
            measured.table,
            _scan_columns(ordered, len(candidates), susceptibility is not None, growth is not None),
            _place_columns(ordered, candidates, np.array([part.start for part in box])),
        ]
    )
    return ScanViews(order, ordered, box, candidates, table, maps, measured.noise)


def with_rows(views: ScanViews, rows: NDArray[np.integer] | Sequence[int]) -> ScanViews:
    """Return the views with some of the candidates only."""
    index = np.asarray(rows, int)
    return replace(views, candidates=views.candidates.take(index), table=views.table[index])


def _ordered(scan: DetectorInput, order: AxisOrder) -> DetectorInput:
    return replace(
        scan,
        magnitude=order.apply(scan.magnitude),
        affine=order.affine(scan.affine, scan.magnitude.shape),
        brain_mask=order.apply(scan.brain_mask),
        echoes=tuple(map(order.apply, scan.echoes)),
        phases=tuple(map(order.apply, scan.phases)),
    )


def _growth(
    scan: DetectorInput, box: tuple[slice, slice, slice], late: FloatArray
) -> FloatArray | None:
    """How much less dark an early echo is, against each one's own background."""
    if len(scan.echoes) < 2:
        return None
    first = int(np.argmin(scan.echo_times))
    if scan.echo_times[first] > _EARLY * max(scan.echo_times):
        return None
    early, _ = relative_intensity(scan.echoes[first][box], scan.brain_mask[box], scan.spacing)
    return np.asarray(np.minimum(early, 2) - np.minimum(late, 2), np.float32)


def _susceptibility(
    scan: DetectorInput, order: AxisOrder, box: tuple[slice, slice, slice]
) -> FloatArray | None:
    """Right-handed susceptibility map of the box; None without phase or with a doubtful sign.

    It comes from the stored scan, for which it is computed once, whoever asks.
    """
    maps = phase_maps(scan)
    if maps is None or maps.sign.sign is None:
        return None
    return np.ascontiguousarray(order.apply(maps.chi)[box]) * np.float32(maps.sign.sign)


def _scan_columns(
    scan: DetectorInput, number: int, phase: bool, echoes: bool
) -> NDArray[np.float64]:
    bloom, known = 0.0, False
    if scan.field_strength is not None and scan.echo_times:
        bloom = math.log(max(scan.echo_times) * scan.field_strength / 0.06)
        known = True
    row = [
        math.log(float(scan.spacing[:2].min())),
        math.log(float(scan.spacing[2])),
        bloom,
        float(known),
        float(scan.sequence == "swi"),
        float(phase),
        float(echoes),
    ]
    return np.tile(row, (number, 1))


def _place_columns(
    scan: DetectorInput, candidates: Candidates, corner: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Where in the head a candidate is, measured from the middle of the brain mask."""
    matrix = np.asarray(scan.affine, float)[:3, :3]
    middle = np.array([index.mean() for index in np.nonzero(scan.brain_mask)])
    offset = (candidates.voxels + corner - middle) @ matrix.T / 70.0
    offset[:, 0] = np.abs(offset[:, 0])
    return np.asarray(offset)
