"""What became of each lesion between two visits: persistent, new, gone or not assessable.

A lesion that has no partner in the other visit is looked for there again, in this order:

1. A candidate of the detector at its place, not listed but weighed with a probability of at least
   :data:`LEAST_PROBABILITY`: the lesion was there, below the threshold.
2. A row of the table that does not count (rejected by a reader, or diamagnetic), or a lesion that
   has another partner and lies too near to be told apart: not assessable.
3. The other scan does not show the place, or its brain mask leaves it out: not assessable.
4. The image of the other scan is dark at the place (:func:`.signal_loss`), nearly as dark as the
   lesion where it is listed. If the places around are seldom as dark, the lesion was there, below
   the threshold; else it is not assessable. This step needs both images.
5. The other scan may not have shown it, because of its protocol or of where its slices came to
   lie (:func:`.hidden_by`): not assessable.

Only what is left is new or gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cmbprep.followup.matching import Nearness, Place, match_places, nearness
from cmbprep.followup.protocol import LEAST_CONTRAST, LEAST_VOXELS, Acquisition, hidden_by
from cmbprep.followup.spots import ENOUGH, BrainImage, losses_around, signal_loss
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
DARK = "dark spot below the threshold"
AS_DARK_AROUND = "dark there, and so are many places around"
#: Probability of a candidate that is enough to call a lesion persistent that is listed at the
#: other visit: the lowest that the detector writes down. Within the few mm of a gate, 1 in 100 is
#: already far more than elsewhere.
LEAST_PROBABILITY = 0.01
#: A place is seen if the other brain mask covers this part of what the lesion's own mask covers
#: of the ball around it; the ball is larger than the lesion by the margin, mm.
SEEN_PART = 0.8
MARGIN_MM = 1.0
#: An image is dark at the place of a lesion if the signal lost there is at least this part of what
#: the lesion has lost where it is listed. Set on simulated people: 5 % of the microbleeds that are
#: at both visits lie below, and all new ones.
DARK_PART = 0.65
#: A lesion that has lost less of the signal at its own visit cannot be compared by images.
LEAST_LOSS = 0.03
#: A dark place is a spot of its own if at most this part of the places around is as dark.
MOST_CHANCE = 0.1
#: The numbers above and those of the protocol, as the sidecar names them.
RULES = {
    "LeastProbability": LEAST_PROBABILITY,
    "SeenPart": SEEN_PART,
    "DarkPart": DARK_PART,
    "LeastLoss": LEAST_LOSS,
    "MostChance": MOST_CHANCE,
    "LeastContrast": LEAST_CONTRAST,
    "LeastVoxels": LEAST_VOXELS,
}


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
    image
        Corrected magnitude, (X, Y, Z); None where it is not looked at.
    """

    lesions: tuple[Lesion, ...]
    dismissed: tuple[Lesion, ...] = ()
    candidates: tuple[Candidate, ...] | None = None
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    acquisition: Acquisition
    image: NDArray[np.floating] | None = None

    @cached_property
    def seen(self) -> BrainImage | None:
        """The image with its brain; None without an image."""
        return None if self.image is None else BrainImage.of(self.image, self.brain, self.affine)

    def place(self, thing: Lesion | Candidate) -> Place:
        """Return the place of a lesion or candidate with its uncertainty."""
        centre = thing.centre if isinstance(thing, Lesion) else thing.centre_ras
        return Place.of(centre, thing.diameter_mm, self.affine)

    def covered(
        self,
        point: NDArray[np.float64],
        radius_mm: float,
        brain: NDArray[np.bool_] | None = None,
    ) -> float:
        """Return the part of a ball that the brain mask covers, 0 to 1.

        Parameters
        ----------
        point
            Centre, mm, RAS+.
        radius_mm
            Of the ball.
        brain
            Another mask on the same grid, (X, Y, Z); None for the brain mask.
        """
        mask = self.brain if brain is None else brain
        steps = np.linspace(-radius_mm, radius_mm, 9)
        offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        offsets = offsets[np.linalg.norm(offsets, axis=1) <= radius_mm]
        to_voxel = np.linalg.inv(self.affine)
        voxels = (point + offsets) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        index = np.round(voxels).astype(int)
        inside = np.all((index >= 0) & (index < mask.shape), axis=1)
        return float(np.count_nonzero(mask[tuple(index[inside].T)]) / len(offsets))


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
    loss_part
        Signal lost at the place in the image of the other visit, as a part of that of the lesion;
        None where it was not measured.
    """

    first: Lesion | None = None
    second: Lesion | None = None
    status: str
    reason: str
    near: Nearness | None = None
    probability: float | None = None
    loss_part: float | None = None

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
        """``definite`` if it is so at a visit; None where a visit without a rating may decide."""
        ratings = {lesion.rating for lesion in (self.first, self.second) if lesion is not None}
        return next((level for level in ("definite", None, "possible") if level in ratings), None)

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
    loss_part: float | None = None

    def fate(self, visit: int) -> Fate:
        """Return the fate of a lesion of the first visit (0) or the second (1)."""
        where = {"second" if visit else "first": self.lesion}
        return Fate(
            **where,
            status=self.status,
            reason=self.reason,
            near=self.near,
            probability=self.probability,
            loss_part=self.loss_part,
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
    # What stands for a lesion already: one dark spot stands for one lesion.
    taken = [other.place(candidate) for candidate, _ in weighed.values()]
    for i, (lesion, place) in enumerate(zip(alone, places, strict=True)):
        if i in weighed:
            candidate, near = weighed[i]
            chance = candidate.probability
            yield _Alone(
                lesion=lesion, status="persistent", reason=BELOW, near=near, probability=chance
            )
            continue
        moved = place.moved(to_other)
        reason = _claimed(moved, other, error_mm) or _unseen(lesion, own, moved.centre, other)
        if reason is not None:
            yield _Alone(lesion=lesion, status="not assessable", reason=reason)
            continue
        found = _in_image(lesion, own, moved, other, error_mm)
        if found.status == "persistent":
            if any(nearness(moved, one, error_mm).plausible for one in taken):
                reason = "too near to what stands for another lesion there to be told apart"
                found = replace(found, status="not assessable", reason=reason)
            taken.append(moved)
        if not found.status and (reason := _hidden(lesion, own, other)) is not None:
            found = replace(found, status="not assessable", reason=reason)
        yield found


def _in_image(
    lesion: Lesion, own: VisitLesions, moved: Place, other: VisitLesions, error_mm: float
) -> _Alone:
    """Look at the place of a lesion in the image of the other scan."""
    absent = _Alone(lesion=lesion, status="", reason=_absence(other))
    if own.seen is None or other.seen is None:
        return absent
    size = lesion.diameter_mm
    here = signal_loss(own.seen, np.asarray(lesion.centre), size, error_mm)
    if here is None or here < LEAST_LOSS:
        # Not dark even where it is listed: the images tell nothing.
        return absent
    there = signal_loss(other.seen, moved.centre, size, error_mm)
    if there is None:
        reason = "too little brain there to measure the other image"
        return replace(absent, status="not assessable", reason=reason)
    found = replace(absent, loss_part=there / here)
    if there < DARK_PART * here:
        return replace(found, reason=_absence(other, looked=True))
    known = [np.asarray(one.centre) for one in (*other.lesions, *other.dismissed)]
    around = losses_around(other.seen, moved.centre, size, error_mm, known)
    if len(around) < ENOUGH:
        reason = "dark there, with too little brain around to compare it with"
        return replace(found, status="not assessable", reason=reason)
    if np.mean(around >= there) > MOST_CHANCE:
        return replace(found, status="not assessable", reason=AS_DARK_AROUND)
    return replace(found, status="persistent", reason=DARK)


def _absence(other: VisitLesions, *, looked: bool = False) -> str:
    if other.candidates is None:
        known = "not listed; the detector does not tell its candidates"
        return f"{known}; no dark spot there" if looked else known
    return "no candidate and no dark spot there" if looked else "no candidate there"


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
    known = None if other.seen is None else other.seen.brain
    if other.covered(point, radius, known) < SEEN_PART * seen:
        return "the other image has no values there"
    return None


def _hidden(lesion: Lesion, own: VisitLesions, other: VisitLesions) -> str | None:
    why = hidden_by(lesion.diameter_mm, lesion.contrast, own.acquisition, other.acquisition)
    return None if why is None else f"the other scan may not show it ({why})"
