"""Whether an image itself shows that a template lies rightly on it, whatever its contrast.

Where the template has been redrawn in the contrast of the image, every part of the brain can be
asked by itself: among shifts of some millimetres, is the one that fits best near none? Where the
registration is right, most parts say so. Where it is off by more than a few millimetres, or turned,
they say where they belong. Where there is no brain (a phantom, noise), their answers are random. No
level of similarity is asked for, as that depends on the contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cmbprep.registration.contrast import (
    LOCAL_MM,
    Drawing,
    draw_as,
    normalise_locally,
    tissue_parts,
)
from cmbprep.registration.pose import HeadImage
from cmbprep.spatial.grids import Grid, bounding_box, boxed_grid, signed_distance
from cmbprep.spatial.transforms import LinearMap, PointMap, apply_transforms, map_points

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Width of a part of the brain, and distance between the middles of neighbours, mm.
PART_MM, STEP_MM = 30.0, 15.0
#: Shifts are sought this far, and count as none to here, mm; on a coarse grid, to the neighbours.
REACH_MM, NEAR_MM = 10.0, 3.6
#: Distance to neighbours that share an edge, in voxels.
NEIGHBOUR = 1.45
#: What surrounds the brain is drawn this far, mm.
AROUND_MM = 8.0
#: Depth in the brain from which only its inside counts, mm. The outline agrees in phantoms, too.
INSIDE_MM = 8.0
#: Correlation at which a part says as much as it leaves open.
FAINT_CORRELATION = 0.1
#: Distance from the common map at which a part counts half, mm.
_ASTRAY_MM = 4.0
_ROUNDS = 5
#: Moves of a rigid map at most, and the move from which one more is made, mm.
_MOVES, _SETTLED_MM = 8, 0.5
#: Correlation that a move must add. Right poses of three flat contrasts moved by up to 0.5 mm and
#: added 0.004 at most; a real scan whose pose was 3 mm off gained 0.08 (tuning people 9600, 9601).
_CLEARLY_MORE = 0.02
#: Coordinates are of about 1 in this unit, mm.
_UNIT_MM = 50.0
#: Weight of the map there was, against that of all parts: it decides only what the parts leave
#: open, such as the direction across a slab whose parts lie in one plane.
_PRIOR = 1e-4
#: Part of a part that must be seen, and be inside.
SHOWN = 0.5
#: Parts of the brain that a figure must rest on.
FEWEST = 12


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the parts of a brain say of a registration.

    Attributes
    ----------
    agreeing
        Weight of the parts that fit best within 3.6 mm of where they lie, 0 to 1; by chance, about
        0.05. A part's weight is the square of its best correlation, so that parts without
        structure count little. Where none has any, little agrees.
    shift_mm
        Weighted median of the shifts by which parts fit best.
    parts
        How many parts were asked.
    """

    agreeing: float
    shift_mm: float
    parts: int

    def __post_init__(self) -> None:
        if not 0 <= self.agreeing <= 1:
            raise ValueError("a part of the weight lies between 0 and 1")


@dataclass(frozen=True, eq=False, kw_only=True)
class PartShifts:
    """By which shift each part of the inside of a brain fits best.

    Attributes
    ----------
    centres
        Of the parts, voxels of the reference, shape (n, 3).
    shifts
        From where the part lies to where it fits best, voxels, shape (n, 3).
    lengths
        Of the shifts, mm, shape (n,).
    weights
        Square of the best correlation, shape (n,).
    """

    centres: NDArray[np.float64]
    shifts: NDArray[np.float64]
    lengths: NDArray[np.float64]
    weights: NDArray[np.float64]


class BrainParts:
    """A reference head that images laid onto it are checked against, part by part."""

    def __init__(self, reference: HeadImage) -> None:
        distance = signed_distance(reference.mask, reference.grid.spacing, AROUND_MM)
        box = bounding_box(distance <= AROUND_MM)
        self.grid = boxed_grid(reference.grid, box)
        self.brain = reference.mask[box]
        self.near = distance[box] <= AROUND_MM
        self.parts = tissue_parts(reference.values[box], distance[box])

    def draw(self, image: HeadImage, to_image: PointMap) -> Drawing:
        """Redraw the reference as an image that a map of its points lays onto it."""
        moving = nib.Nifti1Image(image.values, image.grid.affine)
        carried = apply_transforms(moving, self.grid, (to_image,), fill=float("nan"))
        values = np.asarray(carried.dataobj, dtype=np.float32)
        return draw_as(self.parts, values, self.near, self.brain, self.grid.spacing)

    def shifts(self, drawing: Drawing) -> PartShifts | None:
        """Ask the parts where they fit best (:func:`find_shifts`)."""
        return find_shifts(drawing, self.brain, self.grid.spacing)

    def evidence(self, image: HeadImage, to_image: PointMap) -> Evidence | None:
        """Ask the parts whether they fit best where a map of the reference's points lays them."""
        found = self.shifts(self.draw(image, to_image))
        return None if found is None else weigh(found, self.grid.spacing)

    def follow_rigidly(self, image: HeadImage, to_image: LinearMap) -> LinearMap:
        """Move an image rigidly until its parts fit best where they lie.

        The pose there was is kept unless the new one explains clearly more of the image. Where a
        pose is right, it moves by some tenths of a millimetre, and explains no more.

        Parameters
        ----------
        image
            Of the same head.
        to_image
            Takes points of the reference to points of the image.
        """
        start = self.draw(image, to_image)
        pose, drawing = to_image, start
        for _ in range(_MOVES):
            found = self.shifts(drawing)
            if found is None:
                break
            further = follow_parts_rigidly(found, self.grid, pose)
            places = map_points(found.centres, (LinearMap(self.grid.affine),))
            moves = np.linalg.norm(further(places) - pose(places), axis=1)
            if float(np.median(moves)) < _SETTLED_MM:
                break
            pose, drawing = further, self.draw(image, further)
        return pose if drawing.explained > start.explained + _CLEARLY_MORE else to_image


def gather_evidence(
    drawing: Drawing, brain: Mask, spacing: NDArray[np.floating]
) -> Evidence | None:
    """Ask every part of the inside of a brain whether it fits best where it lies.

    Parameters
    ----------
    drawing, brain, spacing
        As in :func:`find_shifts`.

    Returns
    -------
    Evidence or None
        None where too little of the inside of the brain is seen.
    """
    found = find_shifts(drawing, brain, spacing)
    return None if found is None else weigh(found, spacing)


def weigh(found: PartShifts, spacing: NDArray[np.floating]) -> Evidence:
    """Sum up what the parts of a brain say; ``spacing`` is the reference's, mm."""
    weights, lengths = found.weights, found.lengths
    near = max(NEAR_MM, NEIGHBOUR * float(np.max(spacing)))
    order = np.argsort(lengths, kind="stable")
    reached = np.cumsum(weights[order])
    middle = int(np.searchsorted(reached, reached[-1] / 2))
    agreeing = weights[lengths <= near].sum() / (weights + FAINT_CORRELATION**2).sum()
    return Evidence(
        agreeing=float(agreeing),
        shift_mm=float(lengths[order][min(middle, lengths.size - 1)]),
        parts=int(lengths.size),
    )


def find_shifts(drawing: Drawing, brain: Mask, spacing: NDArray[np.floating]) -> PartShifts | None:
    """Ask every part of the inside of a brain by which shift it fits best.

    Parameters
    ----------
    drawing
        The reference, redrawn as the image shows it, and the image.
    brain
        Of the reference, shape (X, Y, Z).
    spacing
        Voxel size, mm.

    Returns
    -------
    PartShifts or None
        None where too little of the inside of the brain is seen.
    """
    depth = ndimage.distance_transform_edt(brain, sampling=spacing)
    inside = (depth > INSIDE_MM) & drawing.seen
    if not inside.any():
        return None
    # What lies outside is not looked at, not even as the surroundings of the outermost voxels.
    drawn, shown = (
        normalise_locally(part, spacing, LOCAL_MM, inside)
        for part in (drawing.drawn, drawing.shown)
    )
    box = bounding_box(inside)
    cell = np.maximum(np.round(STEP_MM / np.asarray(spacing)).astype(int), 1)
    per = round(PART_MM / STEP_MM)
    reach = np.round(REACH_MM / np.asarray(spacing)).astype(int)
    within = inside[box].astype(np.float32)
    one = drawn[box]
    padded = np.pad(shown, [(r, r) for r in reach])
    share = _parts(within, cell, per) / float(np.prod(cell * per))
    asked = share > SHOWN
    if np.count_nonzero(asked) < FEWEST:
        return None
    power = _parts(one * one, cell, per)[asked]
    best = np.full(power.shape, -np.inf)
    shifts = np.zeros((power.size, 3))
    for steps in product(*(range(-r, r + 1) for r in reach)):
        if float(np.linalg.norm(np.array(steps) * spacing)) > REACH_MM:
            continue
        moved = tuple(
            slice(r + s + part.start, r + s + part.stop)
            for r, s, part in zip(reach, steps, box, strict=True)
        )
        other = padded[moved] * within
        both = _parts(one * other, cell, per)[asked]
        size = np.sqrt(power * _parts(other * other, cell, per)[asked])
        found = both / np.maximum(size, 1e-6)
        better = found > best
        best[better] = found[better]
        shifts[better] = steps
    first = np.array([part.start for part in box])
    return PartShifts(
        centres=first + np.argwhere(asked) * cell + (cell * per - 1) / 2,
        shifts=shifts,
        lengths=np.linalg.norm(shifts * spacing, axis=1),
        weights=np.maximum(best, 0.0) ** 2,
    )


def follow_parts(found: PartShifts, grid: Grid, to_image: PointMap, linear: LinearMap) -> LinearMap:
    """Find the affine map that takes every part to where it fits best, as well as one can.

    Least squares with Cauchy's weights: parts that were led astray count little. What the parts
    leave open stays as it was.

    Parameters
    ----------
    found
        Shifts of the parts.
    grid
        Of the reference.
    to_image
        Takes points of the reference to points of the image; the shifts are against it.
    linear
        The affine map of points of the reference to points of the image that is set anew.

    Returns
    -------
    LinearMap
        Points of the reference to points of the image.
    """
    lying, wanted = _places(found, grid, to_image)
    centre = lying.mean(axis=0)
    given = np.column_stack([(lying - centre) / _UNIT_MM, np.ones(len(lying))])
    weights = found.weights + FAINT_CORRELATION**2
    fitted, held = np.zeros((4, 3)), np.diag([1.0, 1.0, 1.0, 0.0])
    before = np.vstack([linear.matrix[:3, :3].T * _UNIT_MM, np.zeros(3)])
    for _ in range(_ROUNDS):
        # Not by BLAS, whose sums depend on the number of threads.
        normal = np.einsum("n,ni,nj->ij", weights, given, given, optimize=False)
        sums = np.einsum("n,ni,nk->ik", weights, given, wanted, optimize=False)
        prior = _PRIOR * float(weights.sum())
        fitted = np.linalg.solve(normal + prior * held, sums + prior * before)
        off = np.linalg.norm(np.einsum("ni,ik->nk", given, fitted, optimize=False) - wanted, axis=1)
        weights = (found.weights + FAINT_CORRELATION**2) / (1 + (off / _ASTRAY_MM) ** 2)
    matrix = np.eye(4)
    matrix[:3, :3] = fitted[:3].T / _UNIT_MM
    matrix[:3, 3] = fitted[3] - matrix[:3, :3] @ centre
    return LinearMap(matrix)


def follow_parts_rigidly(found: PartShifts, grid: Grid, to_image: LinearMap) -> LinearMap:
    """Find the rigid map that takes every part to where it fits best, as well as one can.

    Weighted as in :func:`follow_parts`.

    Parameters
    ----------
    found
        Shifts of the parts.
    grid
        Of the reference.
    to_image
        Takes points of the reference to points of the image; the shifts are against it.

    Returns
    -------
    LinearMap
        Points of the reference to points of the image.

    References
    ----------
    Kabsch W. A solution for the best rotation to relate two sets of vectors. Acta Cryst 1976;
    A32:922-923.
    """
    lying, wanted = _places(found, grid, to_image)
    base = found.weights + FAINT_CORRELATION**2
    weights, matrix = base, np.eye(4)
    for _ in range(_ROUNDS):
        here, there = (
            np.einsum("n,ni->i", weights, points, optimize=False) / weights.sum()
            for points in (lying, wanted)
        )
        turn, _ = Rotation.align_vectors(wanted - there, lying - here, weights)
        # The last bits of sums depend on the processor.
        turn = Rotation.from_rotvec(np.round(turn.as_rotvec(), 6))
        matrix[:3, :3] = turn.as_matrix()
        matrix[:3, 3] = np.round(there - turn.apply(here), 3)
        off = np.linalg.norm(turn.apply(lying) + matrix[:3, 3] - wanted, axis=1)
        weights = base / (1 + (off / _ASTRAY_MM) ** 2)
    return LinearMap(matrix)


def _places(
    found: PartShifts, grid: Grid, to_image: PointMap
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where parts lie in the reference, and where in the image they fit best, mm."""
    axes = grid.affine[:3, :3]
    lying = found.centres @ axes.T + grid.affine[:3, 3]
    return lying, map_points(lying + found.shifts @ axes.T, (to_image,))


def _parts(values: FloatArray, cell: NDArray[np.int_], per: int) -> NDArray[np.float64]:
    """Sum values over parts that overlap: ``per`` cells wide along each axis, one cell apart."""
    room = [(0, int(-n % c)) for n, c in zip(values.shape, cell, strict=True)]
    filled = np.pad(values, room)
    shape = [k for n, c in zip(filled.shape, cell, strict=True) for k in (n // c, c)]
    sums = filled.reshape(shape).sum(axis=(1, 3, 5), dtype=np.float64)
    for axis in range(3):
        count = sums.shape[axis] - per + 1
        if count < 1:
            sums = sums.sum(axis=axis, keepdims=True)
            continue
        starts = (np.take(sums, range(k, k + count), axis=axis) for k in range(per))
        sums = np.sum(list(starts), axis=0)
    return np.asarray(sums, dtype=np.float64)
