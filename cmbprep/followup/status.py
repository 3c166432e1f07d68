"""What became of each lesion between two visits: persistent, new, gone or not assessable.

A lesion that has no partner in the other visit is looked for there again, in this order:

1. A candidate of the detector at its place, not listed but weighed with a probability of at least
   :data:`LEAST_PROBABILITY`: the lesion was there, below the threshold.
2. A row of the table that does not count (rejected by a reader, or diamagnetic), or a lesion that
   has another partner and lies too near to be told apart: not assessable.
3. The other scan does not show the place, or its brain mask leaves it out: not assessable.
4. The other scan may not have shown it, because of its protocol or of where its slices came to
   lie (:func:`.hidden_by`): not assessable.

Only what is left is new or gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmbprep.followup.matching import Nearness, Place, match_places, nearness
from cmbprep.followup.protocol import Acquisition, hidden_by
from cmbprep.lesions import Lesion
from cmbprep.ratings.automatic import Candidate
from cmbprep.spatial.transforms import LinearMap

#: Status -> meaning.
STATUSES = {
    "persistent": "At both visits; in one of them perhaps below the detector's threshold.",
    "new": "At the later visit only, where the earlier one would have shown it.",
    "gone": "At the earlier visit only, where the later one would have shown it.",
    "one visit": "At one visit only; it is not known which visit is the earlier one.",
    "not assessable": "At one visit only, and the other one does not tell.",
}
MATCHED = "matched"
BELOW = "below the threshold"
#: Probability of a candidate that is enough to call a lesion persistent that is listed at the
#: other visit: the lowest that the detector writes down. Within the few mm of a gate, 1 in 100 is
#: already far more than elsewhere.
LEAST_PROBABILITY = 0.01
#: A place is seen if the other brain mask covers this part of what the lesion's own mask covers
#: of the ball around it; the ball is larger than the lesion by the margin, mm.
SEEN_PART = 0.8
MARGIN_MM = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class VisitLesions:
    """The lesions of one scan, and what else a follow-up needs to know of it.

    Attributes
    ----------
    lesions
        Those that count.
    dismissed
        Rows of the table that do not count: rejected by a reader, or diamagnetic.
    candidates
        What the detector has weighed and not listed; None if it does not tell.
    brain
        Brain mask, (X, Y, Z).
    affine
        4 x 4, voxel to RAS+ mm.
    acquisition
        How the scan was acquired.
    """

    lesions: tuple[Lesion, ...]
    dismissed: tuple[Lesion, ...] = ()
    candidates: tuple[Candidate, ...] | None = None
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    acquisition: Acquisition

    def place(self, thing: Lesion | Candidate) -> Place:
        """Return the place of a lesion or candidate with its uncertainty."""
        centre = thing.centre if isinstance(thing, Lesion) else thing.centre_ras
        return Place.of(centre, thing.diameter_mm, self.affine)

    def covered(self, point: NDArray[np.float64], radius_mm: float) -> float:
        """Return the part of a ball that the brain mask covers, 0 to 1.

        Parameters
        ----------
        point
            Centre, mm, RAS+.
        radius_mm
            Of the ball.
        """
        steps = np.linspace(-radius_mm, radius_mm, 9)
        offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        offsets = offsets[np.linalg.norm(offsets, axis=1) <= radius_mm]
        to_voxel = np.linalg.inv(self.affine)
        voxels = (point + offsets) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        index = np.round(voxels).astype(int)
        inside = np.all((index >= 0) & (index < self.brain.shape), axis=1)
        return float(np.count_nonzero(self.brain[tuple(index[inside].T)]) / len(offsets))


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of one lesion.

    Attributes
    ----------
    first, second
        The lesion at each visit; None where it is not listed.
    status
        Key of :data:`STATUSES`.
    reason
        How that is known, or why it is not.
    near
        How far the two are apart; of a lesion and a candidate below the threshold, too.
    probability
        Of the candidate below the threshold; None without one.
    """

    first: Lesion | None = None
    second: Lesion | None = None
    status: str
    reason: str
    near: Nearness | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"the status {self.status!r} is none of {', '.join(STATUSES)}")
        if self.first is None and self.second is None:
            raise ValueError("a lesion is listed at one of the visits at least")
        both = self.first is not None and self.second is not None
        if both != (self.reason == MATCHED):
            raise ValueError("lesions that are listed at both visits are matched, and only these")

    @property
    def lesion(self) -> Lesion:
        """The lesion at the later visit, else at the earlier one."""
        found = self.second or self.first
        assert found is not None
        return found

    @property
    def rating(self) -> str | None:
        """``definite`` if it is so at a visit; None where no visit has a rating."""
        ratings = {lesion.rating for lesion in (self.first, self.second) if lesion is not None}
        return next((level for level in ("definite", "possible") if level in ratings), None)

    @property
    def exchanged(self) -> Fate:
        """The same lesion when the visits are exchanged."""
        status = {"new": "gone", "gone": "new"}.get(self.status, self.status)
        return replace(self, first=self.second, second=self.first, status=status)


def follow_lesions(
    first: VisitLesions,
    second: VisitLesions,
    to_second: LinearMap,
    error_mm: float,
    *,
    ordered: bool = True,
) -> tuple[Fate, ...]:
    """Find out what became of every lesion of two registered visits.

    Parameters
    ----------
    first, second
        The earlier and the later visit.
    to_second
        Rigid map of points of the first scan to points of the second.
    error_mm
        Error of the registration, mm: one standard deviation along each axis.
    ordered
        Whether it is known that the first visit is the earlier one.

    Returns
    -------
    tuple of Fate
        Every lesion of both visits once: matched ones first, then those of the first visit, then
        those of the second, each in the order of the tables.
    """
    pairs = match_places(
        [first.place(lesion) for lesion in first.lesions],
        [second.place(lesion) for lesion in second.lesions],
        to_second,
        error_mm,
    )
    fates = [
        Fate(
            first=first.lesions[i],
            second=second.lesions[j],
            status="persistent",
            reason=MATCHED,
            near=near,
        )
        for i, j, near in pairs
    ]
    alone_first = _look_again(first, second, to_second, error_mm, {i for i, _, _ in pairs})
    back = to_second.inverse()
    alone_second = _look_again(second, first, back, error_mm, {j for _, j, _ in pairs})
    only = ("gone", "new") if ordered else ("one visit", "one visit")
    fates += [replace(found, status=found.status or only[0]).fate(0) for found in alone_first]
    fates += [replace(found, status=found.status or only[1]).fate(1) for found in alone_second]
    return tuple(fates)


def unassessed(first: VisitLesions, second: VisitLesions, reason: str) -> tuple[Fate, ...]:
    """Return every lesion as not assessable, as after a failed registration."""
    status = "not assessable"
    fates = [Fate(first=lesion, status=status, reason=reason) for lesion in first.lesions]
    fates += [Fate(second=lesion, status=status, reason=reason) for lesion in second.lesions]
    return tuple(fates)


@dataclass(frozen=True, kw_only=True)
class _Alone:
    """A lesion without a partner; an empty status is that of a lesion at one visit only."""

    lesion: Lesion
    status: str
    reason: str
    near: Nearness | None = None
    probability: float | None = None

    def fate(self, visit: int) -> Fate:
        """Return the fate of a lesion of the first visit (0) or the second (1)."""
        where = {"second" if visit else "first": self.lesion}
        return Fate(
            **where,
            status=self.status,
            reason=self.reason,
            near=self.near,
            probability=self.probability,
        )


def _look_again(
    own: VisitLesions,
    other: VisitLesions,
    to_other: LinearMap,
    error_mm: float,
    matched: set[int],
) -> Iterator[_Alone]:
    """Look at the places of the lesions without a partner in the other scan."""
    alone = [lesion for i, lesion in enumerate(own.lesions) if i not in matched]
    places = [own.place(lesion) for lesion in alone]
    likely = [
        candidate
        for candidate in other.candidates or ()
        if candidate.probability is not None and candidate.probability >= LEAST_PROBABILITY
    ]
    weighed = {
        i: (likely[j], near)
        for i, j, near in match_places(
            places, [other.place(candidate) for candidate in likely], to_other, error_mm
        )
    }
    for i, (lesion, place) in enumerate(zip(alone, places, strict=True)):
        if i in weighed:
            candidate, near = weighed[i]
            chance = candidate.probability
            yield _Alone(
                lesion=lesion, status="persistent", reason=BELOW, near=near, probability=chance
            )
            continue
        moved = place.moved(to_other)
        reason = (
            _claimed(moved, other, error_mm)
            or _unseen(lesion, own, moved.centre, other)
            or _hidden(lesion, own, other)
        )
        if reason is not None:
            yield _Alone(lesion=lesion, status="not assessable", reason=reason)
        else:
            yield _Alone(lesion=lesion, status="", reason=_absence(other))


def _absence(other: VisitLesions) -> str:
    if other.candidates is None:
        return "not listed; the detector does not tell its candidates"
    return "no candidate there"


def _claimed(moved: Place, other: VisitLesions, error_mm: float) -> str | None:
    """Return whether something else is listed at the place."""

    def near(lesions: Sequence[Lesion]) -> list[int]:
        return [
            lesion.index
            for lesion in lesions
            if nearness(moved, other.place(lesion), error_mm).plausible
        ]

    if found := near(other.dismissed):
        return f"row {found[0]} there does not count"
    if found := near(other.lesions):
        return f"too near to lesion {found[0]} there to be told apart"
    return None


def _unseen(
    lesion: Lesion, own: VisitLesions, point: NDArray[np.float64], other: VisitLesions
) -> str | None:
    """Return whether the place lies outside of what the other scan shows."""
    voxel = np.linalg.inv(other.affine) @ np.append(point, 1.0)
    if np.any(voxel[:3] < -0.5) or np.any(voxel[:3] > np.array(other.brain.shape) - 0.5):
        return "outside of the other scan"
    radius = lesion.diameter_mm / 2 + MARGIN_MM
    seen = own.covered(np.asarray(lesion.centre), radius)
    if other.covered(point, radius) < SEEN_PART * seen or seen == 0:
        return "outside of the other scan's brain mask"
    return None


def _hidden(lesion: Lesion, own: VisitLesions, other: VisitLesions) -> str | None:
    why = hidden_by(lesion.diameter_mm, lesion.contrast, own.acquisition, other.acquisition)
    return None if why is None else f"the other scan may not show it ({why})"
