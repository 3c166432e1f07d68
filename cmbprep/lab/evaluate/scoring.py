"""One scan: true positives, false negatives, and false positives with their cause.

Truth lesions that the rule does not count (:meth:`Rule.counts`: flagged as not visible, or too
small) are left out of account: they are no misses, and predictions that could be matched to one
of them (any number of them, after the others have been matched) are no false positives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.evaluate.matching import LesionSet, Mark, Rule, intersections
from cmbprep.ratings.matching import assign, centre_distances

#: Origins of false positives that are not kinds of mimic.
DUPLICATE = "second mark on a lesion"
ELSEWHERE = "no known mimic"

# Lesions whose centres are nearer than this on each axis (mm) count as at the same place when
# they are put in order.
_ORDER_DECIMALS = 3


@dataclass(frozen=True)
class Hit:
    """A matched pair. ``dice`` is None unless both sides have voxels."""

    truth: Mark
    predicted: Mark
    distance_mm: float
    dice: float | None

    @property
    def volume_difference(self) -> float | None:
        """Predicted less true volume, as a fraction of the true one."""
        if not self.truth.volume_mm3 or self.predicted.volume_mm3 is None:
            return None
        return (self.predicted.volume_mm3 - self.truth.volume_mm3) / self.truth.volume_mm3


@dataclass(frozen=True)
class FalsePositive:
    """A prediction on no lesion, and what lies there."""

    predicted: Mark
    origin: str
    mimic_index: int | None = None


@dataclass(frozen=True)
class Steps:
    """Hits and false positives as functions of the threshold on the probability.

    ``thresholds`` fall; ``hits[i]`` and ``false[i]`` count the predictions at or above
    ``thresholds[i]``, matched afresh among themselves.
    """

    thresholds: NDArray[np.float64]
    hits: NDArray[np.int64]
    false: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """All that the figures need to know about one scan."""

    scan: str
    subject: str
    groups: Mapping[str, str] = field(default_factory=dict)
    predicted_missing: bool = False
    hits: tuple[Hit, ...] = ()
    misses: tuple[Mark, ...] = ()
    false_positives: tuple[FalsePositive, ...] = ()
    ignored_truth: tuple[Mark, ...] = ()
    ignored_predicted: tuple[Mark, ...] = ()
    mimics: tuple[Mark, ...] = ()
    steps: Steps | None = None

    @property
    def truth_count(self) -> int:
        """Lesions that count, in the truth."""
        return len(self.hits) + len(self.misses)

    @property
    def predicted_count(self) -> int:
        """Lesions that count, in the prediction."""
        return len(self.hits) + len(self.false_positives)


def score_scan(
    truth: LesionSet,
    predicted: LesionSet | None,
    rule: Rule,
    *,
    scan: str,
    subject: str,
    groups: Mapping[str, str] | None = None,
    mimics: LesionSet | None = None,
    mimic_distance_mm: float = 2.0,
) -> ScanResult:
    """Match the lesions of one scan and sort them into hits, misses and false positives.

    Parameters
    ----------
    truth, predicted
        Lesions, in the same scanner space; no prediction at all (None) counts as no lesion
        found and is marked in the result.
    rule
        When two lesions may be matched.
    mimics
        Known structures that look like lesions, for the origin of the false positives.
    mimic_distance_mm
        A false positive lies on a mimic if they have voxels in common, or if its centre is at
        most this far from the mimic's nearest voxel (or, where the mimic has no voxels, from
        the sphere of its size about its centre). Of several mimics that have voxels in common
        with it, it lies on the one that has most; else on the nearest.

    Raises
    ------
    ValueError
        If the rule asks for overlap and one side has no voxels.
    """
    found = LesionSet(marks=()) if predicted is None else predicted
    true_marks = _in_order(truth.marks)
    marks = _in_order(found.marks)
    counted = [m for m in true_marks if rule.counts(m)]
    ignored = [m for m in true_marks if not rule.counts(m)]
    overlap = _overlap(truth, found)
    cost, allowed = _affinity(counted, marks, rule, overlap)
    _, near_ignored = _affinity(ignored, marks, rule, overlap)
    excused = np.asarray(near_ignored.any(axis=0))
    if rule.match == "overlap":
        excused |= _touched(_without_voxels(ignored, truth), marks)

    pairs = assign(cost, allowed, _probabilities(marks))
    taken = {column for _, column in pairs}
    matched = {row for row, _ in pairs}
    rest = [j for j in range(len(marks)) if j not in taken]
    result_false = [j for j in rest if not excused[j]]
    origins = _origins([marks[j] for j in result_false], found, mimics, mimic_distance_mm)
    return ScanResult(
        scan=scan,
        subject=subject,
        groups=dict(groups or {}),
        predicted_missing=predicted is None,
        hits=tuple(_hit(counted[i], marks[j], overlap) for i, j in pairs),
        misses=tuple(mark for i, mark in enumerate(counted) if i not in matched),
        false_positives=tuple(
            FalsePositive(marks[j], DUPLICATE)
            if kind == ELSEWHERE and allowed[:, j].any()
            else FalsePositive(marks[j], kind, index)
            for j, (kind, index) in zip(result_false, origins, strict=True)
        ),
        ignored_truth=tuple(ignored),
        ignored_predicted=tuple(marks[j] for j in rest if excused[j]),
        mimics=() if mimics is None else mimics.marks,
        steps=_steps(marks, cost, allowed, excused),
    )


def _in_order(marks: tuple[Mark, ...]) -> list[Mark]:
    """Put lesions in an order that does not depend on how their source listed them."""

    def key(mark: Mark) -> tuple[float, ...]:
        place = [round(value, _ORDER_DECIMALS) + 0.0 for value in mark.centre]
        return (*place, -(mark.probability or 0), -(mark.volume_mm3 or 0), mark.index)

    return sorted(marks, key=key)


def _probabilities(marks: list[Mark]) -> NDArray[np.float64]:
    return np.array([1.0 if m.probability is None else m.probability for m in marks])


@dataclass(frozen=True)
class _Overlap:
    """Volumes, mm^3, of the labels of truth and prediction, and of what they have in common.

    They are those of the images: a table may give a volume that was measured otherwise.
    """

    common: dict[tuple[int, int], float]
    truth: dict[int, float]
    predicted: dict[int, float]

    def iou(self, true: Mark, mark: Mark) -> float:
        """Intersection over union."""
        shared, sizes = self._pair(true, mark)
        return min(1.0, shared / (sizes - shared)) if sizes > shared else 0.0

    def dice(self, true: Mark, mark: Mark) -> float | None:
        """Dice coefficient; None where neither has a voxel."""
        shared, sizes = self._pair(true, mark)
        return min(1.0, 2 * shared / sizes) if sizes else None

    def _pair(self, true: Mark, mark: Mark) -> tuple[float, float]:
        sizes = self.truth.get(true.index, 0.0) + self.predicted.get(mark.index, 0.0)
        return self.common.get((true.index, mark.index), 0.0), sizes


def _overlap(truth: LesionSet, found: LesionSet) -> _Overlap | None:
    if truth.labels is None or found.labels is None:
        return None
    assert truth.affine is not None and found.affine is not None
    return _Overlap(
        intersections(truth.labels, truth.affine, found.labels, found.affine),
        _labelled_volumes(truth),
        _labelled_volumes(found),
    )


def _affinity(
    truth: list[Mark],
    marks: list[Mark],
    rule: Rule,
    overlap: _Overlap | None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return costs and permissions of all pairs, shape (n_truth, n_predicted) each."""
    shape = (len(truth), len(marks))
    if rule.match == "centroid":
        distances = centre_distances(_centres(truth), _centres(marks))
        # 1e-9 lets a distance that is the limit up to rounding count as the limit.
        return distances, distances <= rule.distance_mm + 1e-9
    iou = np.zeros(shape)
    if shape[0] and shape[1]:
        if overlap is None:
            raise ValueError("matching by overlap needs voxels on both sides, not a table alone")
        for i, true in enumerate(truth):
            for j, mark in enumerate(marks):
                iou[i, j] = overlap.iou(true, mark)
    return 1 - iou, (iou > 0) & (iou >= rule.min_overlap - 1e-9)


def _without_voxels(marks: list[Mark], lesions: LesionSet) -> list[Mark]:
    labels = set() if lesions.labels is None else set(np.unique(lesions.labels).tolist())
    return [mark for mark in marks if mark.index not in labels]


def _touched(others: list[Mark], marks: list[Mark]) -> NDArray[np.bool_]:
    """Return which marks touch one of others that have no voxels, both taken as spheres."""
    reach = np.add.outer(_radii(others), _radii(marks))
    near = centre_distances(_centres(others), _centres(marks)) <= reach + 1e-9
    return np.asarray(near.any(axis=0))


def _radii(marks: list[Mark]) -> NDArray[np.float64]:
    return np.array([(mark.diameter_mm or 0.0) / 2 for mark in marks], dtype=float)


def _centres(marks: list[Mark]) -> NDArray[np.float64]:
    return np.array([mark.centre for mark in marks], dtype=float).reshape(-1, 3)


def _hit(true: Mark, mark: Mark, overlap: _Overlap | None) -> Hit:
    distance = float(np.linalg.norm(np.subtract(true.centre, mark.centre)))
    return Hit(true, mark, distance, None if overlap is None else overlap.dice(true, mark))


def _labelled_volumes(lesions: LesionSet) -> dict[int, float]:
    """Return the volume of each label, mm^3: what overlaps are shares of."""
    if lesions.labels is None or lesions.affine is None:
        return {}
    voxel = abs(float(np.linalg.det(lesions.affine[:3, :3])))
    names, counts = np.unique(lesions.labels[lesions.labels != 0], return_counts=True)
    return {int(name): float(n * voxel) for name, n in zip(names, counts, strict=True)}


def _steps(
    marks: list[Mark],
    cost: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    excused: NDArray[np.bool_],
) -> Steps | None:
    """Match again at every threshold; None if a prediction has no probability."""
    if any(mark.probability is None for mark in marks):
        return None
    # Three decimals, as in the lesion tables, bound the number of thresholds.
    probability = np.round(_probabilities(marks), 3)
    thresholds = np.unique(probability)[::-1]
    # A prediction that can be matched to nothing cannot change the matching of the others.
    concerned = np.flatnonzero(allowed.any(axis=0))
    hits, false = [], []
    pairs: list[tuple[int, int]] = []
    for threshold in thresholds:
        listed = concerned[probability[concerned] >= threshold]
        if (probability[listed] == threshold).any():
            part = assign(cost[:, listed], allowed[:, listed], probability[listed])
            pairs = [(i, int(listed[j])) for i, j in part]
        above = probability >= threshold
        unmatched = above.copy()
        unmatched[[j for _, j in pairs]] = False
        hits.append(len(pairs))
        false.append(int((unmatched & ~excused).sum()))
    return Steps(thresholds, np.array(hits, dtype=np.int64), np.array(false, dtype=np.int64))


def _origins(
    marks: list[Mark],
    found: LesionSet,
    mimics: LesionSet | None,
    reach_mm: float,
) -> list[tuple[str, int | None]]:
    """Name what lies under each false positive: the kind and index of the nearest mimic."""
    if mimics is None or not mimics.marks or not marks:
        return [(ELSEWHERE, None)] * len(marks)
    distance = _mimic_distances(marks, mimics)
    shared = np.zeros(distance.shape)
    if mimics.labels is not None and found.labels is not None:
        assert mimics.affine is not None and found.affine is not None
        common = intersections(mimics.labels, mimics.affine, found.labels, found.affine)
        for i, mimic in enumerate(mimics.marks):
            for j, mark in enumerate(marks):
                shared[i, j] = common.get((mimic.index, mark.index), 0.0)
    distance[shared > 0] = 0.0
    origins: list[tuple[str, int | None]] = []
    for j in range(len(marks)):
        nearest = int(np.lexsort((distance[:, j], -shared[:, j]))[0])
        if distance[nearest, j] <= reach_mm + 1e-9:
            mimic = mimics.marks[nearest]
            origins.append((mimic.kind or "mimic", mimic.index))
        else:
            origins.append((ELSEWHERE, None))
    return origins


def _mimic_distances(marks: list[Mark], mimics: LesionSet) -> NDArray[np.float64]:
    """Return the distance of every centre to every mimic's surface, (n_mimics, n_marks), mm."""
    centres = _centres(marks)
    distance = np.empty((len(mimics.marks), len(marks)))
    voxels, owner = _labelled_points(mimics)
    for i, mimic in enumerate(mimics.marks):
        own = voxels[owner == mimic.index]
        if len(own):
            from scipy.spatial import cKDTree

            distance[i] = cKDTree(own).query(centres)[0]
        elif mimic.extended:
            distance[i] = np.inf  # without voxels nobody knows where it is
        else:
            to_centre = np.linalg.norm(centres - np.array(mimic.centre), axis=1)
            distance[i] = np.maximum(to_centre - (mimic.diameter_mm or 0) / 2, 0)
    return distance


def _labelled_points(lesions: LesionSet) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return all labelled voxel centres, mm RAS+, shape (n, 3), and their labels, shape (n,)."""
    if lesions.labels is None or lesions.affine is None:
        return np.empty((0, 3)), np.empty(0, dtype=np.int64)
    index = np.argwhere(lesions.labels != 0)
    points = index @ lesions.affine[:3, :3].T + lesions.affine[:3, 3]
    return points, lesions.labels[tuple(index.T)].astype(np.int64)
