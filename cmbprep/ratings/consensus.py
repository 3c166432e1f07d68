"""The lesions of a scan as its readers have read them: of one reader, or by a rule of agreement.

Lesions of several readers are the same lesion if they are the same automatic lesion or candidate.
What a reader has added, merged or split is matched to the nearest lesion of the others within
:data:`MATCH_MM` of its centre, the nearest pairs first, one lesion of each reader at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import nibabel as nib
import numpy as np

from cmbprep.errors import UsageError
from cmbprep.lesions import Lesion
from cmbprep.ratings.acts import Act
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.replay import State, replay
from cmbprep.ratings.reviewed import ReviewedLesion, reviewed_lesions, reviewed_rows
from cmbprep.ratings.store import Reader, scan_logs

#: Centres of one lesion, as two readers have marked it, lie within this distance, mm.
MATCH_MM = 5.0
#: Which lesions count where there are several readers.
RULES = ("any", "all", "majority", "first")


@dataclass(frozen=True, eq=False, kw_only=True)
class Review:
    """What one reader did on one scan in one round.

    Attributes
    ----------
    automatic
        The scan.
    reader
        Reader and round.
    acts
        The log.
    state
        What holds.
    log_damage
        Why the log is not used; it then has no acts. None where it is whole.
    """

    automatic: Automatic
    reader: Reader
    acts: Sequence[Act]
    state: State
    log_damage: str | None = None

    @property
    def stale(self) -> bool:
        """Whether the automatic result has changed since."""
        return self.automatic.is_stale(self.acts)

    @cached_property
    def damage(self) -> str | None:
        """Why the log cannot be what a reader has left; None if nothing speaks against it.

        A scan cannot be finished while a lesion is open, so that a finished one with an open
        lesion has lost a line.
        """
        if self.stale or self.log_damage is not None:
            return self.log_damage
        if self.state.finished and self.state.open_items:
            return f"the scan was finished, but there is no verdict on {self.state.open_items[0]}"
        try:
            reviewed_rows(self.automatic, self.state)
            path = self.automatic.detection.files.path("dseg")
            shape = nib.Nifti1Image.from_filename(path).shape
            for item in self.state.positive:
                if item.outline is not None:
                    item.outline.voxels(shape)
        except (ValueError, KeyError) as error:
            return str(error)
        return None

    @property
    def counts(self) -> bool:
        """Whether the whole scan was read, on the automatic result that is there."""
        return self.state.finished and not self.stale and self.damage is None

    @property
    def order(self) -> tuple[str, str]:
        """What reviews are ordered by: when they were finished."""
        return self.state.finished_at or "", self.reader.short


@dataclass(frozen=True, kw_only=True)
class ReviewedScan:
    """The lesions of a scan as they were read.

    Attributes
    ----------
    lesions
        Definite and possible ones. Automatic lesions have the index that they had.
    readers
        Whose reviews were used.
    rule
        One of :data:`RULES`; None for the result of one reader.
    """

    lesions: tuple[Lesion, ...]
    readers: tuple[Reader, ...]
    rule: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Match:
    """One lesion as several readers have seen it.

    Attributes
    ----------
    rows
        Position of the reader -> row of the reader's table, for readers to whom it is a lesion.
    """

    rows: dict[int, ReviewedLesion]

    @property
    def centre(self) -> np.ndarray:
        """Mean of the readers' centres, mm, RAS+."""
        return np.mean([row.lesion.centre for row in self.rows.values()], axis=0)


def find_reviews(automatic: Automatic) -> list[Review]:
    """Find all reviews of a scan, finished or not; damaged ones say so and do not count."""
    return [
        Review(
            automatic=automatic,
            reader=reader,
            acts=acts,
            state=replay(acts, automatic.by_key),
            # The reason alone: whose review it is stands before it.
            log_damage=None if damage is None else damage.message.partition(": ")[2],
        )
        for reader, acts, damage in scan_logs(automatic.folder, automatic.src)
        if acts or damage is not None
    ]


def choose_reviews(
    reviews: Sequence[Review], *, reader: str | None = None, number: int | None = None
) -> list[Review]:
    """Choose the reviews that count, one of each reader, the one finished first in front.

    Parameters
    ----------
    reviews
        Of one scan.
    reader
        Name of the only reader wanted; None for all.
    number
        Of the round; None for the last finished one of each reader.
    """
    latest: dict[str, Review] = {}
    for review in sorted(reviews, key=lambda item: item.reader.round):
        own = review.reader
        if not review.counts or (number is not None and own.round != number):
            continue
        if reader is None or own.short == Reader(name=reader).short:
            latest[own.short] = review
    return sorted(latest.values(), key=lambda item: item.order)


def reviewed_scan(
    automatic: Automatic,
    *,
    reader: str | None = None,
    rule: str | None = None,
    number: int | None = None,
) -> ReviewedScan | None:
    """Return the lesions of a scan as they were read.

    Parameters
    ----------
    automatic
        The scan.
    reader
        Name of the reader.
    rule
        How several readers are put together, one of :data:`RULES`.
    number
        Of the round; None for the last finished one of each reader.

    Returns
    -------
    ReviewedScan or None
        None where the scan was not read to the end: the automatic result holds.

    Raises
    ------
    UsageError
        If there are several readers, and neither a reader nor a rule is given.
    """
    if rule is not None and rule not in RULES:
        raise UsageError(f"there is no rule {rule!r}", hint=f"choose one of {', '.join(RULES)}")
    chosen = choose_reviews(find_reviews(automatic), reader=reader, number=number)
    if not chosen:
        return None
    readers = tuple(review.reader for review in chosen)
    if rule is None and len(chosen) > 1:
        raise UsageError(
            f"{automatic.name} was read by {', '.join(item.name for item in readers)}",
            hint="choose one with --reader NAME, or a rule with --consensus",
        )
    if rule in (None, "first") or len(chosen) == 1:
        first = chosen[0]
        lesions = reviewed_lesions(automatic, first.state)
        return ReviewedScan(lesions=lesions, readers=readers[:1], rule=rule)
    agreed = agreed_rows(automatic, chosen, str(rule))
    lesions = tuple(row.lesion for row in agreed)
    return ReviewedScan(lesions=lesions, readers=readers, rule=rule)


def match_lesions(reviews: Sequence[Review]) -> list[Match]:
    """Match the definite and possible lesions of several readers of a scan.

    Parameters
    ----------
    reviews
        One of each reader.

    Returns
    -------
    list of Match
        Automatic lesions by their index, candidates by their row, then what readers have added.
    """
    by_key: dict[str, Match] = {}
    free: list[tuple[int, ReviewedLesion]] = []
    for number, review in enumerate(reviews):
        for row in reviewed_rows(review.automatic, review.state):
            if not row.item.positive:
                continue
            if row.item.kind == "added":
                free.append((number, row))
            else:
                by_key.setdefault(row.item.key, Match(rows={})).rows[number] = row
    keys = sorted(by_key, key=lambda key: ("LC".index(key[0]), int(key[1:])))
    matches = [by_key[key] for key in keys]
    _match_free(matches, free)
    return matches


def _match_free(matches: list[Match], free: Sequence[tuple[int, ReviewedLesion]]) -> None:
    """Add lesions without a common key to the nearest match, or make one of them."""
    for number in sorted({number for number, _ in free}):
        rows = [row for own, row in free if own == number]
        pairs = [
            (float(np.linalg.norm(match.centre - row.lesion.centre)), place, which)
            for place, match in enumerate(matches)
            for which, row in enumerate(rows)
            if number not in match.rows
        ]
        placed: set[int] = set()
        taken: set[int] = set()
        for distance, place, which in sorted(pairs):
            if distance <= MATCH_MM and place not in taken and which not in placed:
                matches[place].rows[number] = rows[which]
                taken.add(place)
                placed.add(which)
        matches += [
            Match(rows={number: row}) for which, row in enumerate(rows) if which not in placed
        ]


def agreed_rows(automatic: Automatic, reviews: Sequence[Review], rule: str) -> list[ReviewedLesion]:
    """Return the lesions that a rule keeps, with the voxels of the first reader who has each.

    Parameters
    ----------
    automatic
        The scan.
    reviews
        One of each reader.
    rule
        ``any``, ``all`` or ``majority``.

    Returns
    -------
    list of ReviewedLesion
        Automatic lesions have their own index and name.
    """
    following = max((lesion.index for lesion in automatic.lesions), default=0)
    found = []
    for match in match_lesions(reviews):
        lesion = _agreed(match, len(reviews), rule)
        if lesion is None:
            continue
        own = next(
            (row.automatic_index for row in match.rows.values() if row.automatic_index), None
        )
        if own is None:
            following += 1
        index = own or following
        lesion = replace(lesion, index=index, name=f"CMB-{index:03d}")
        first = match.rows[min(match.rows)]
        found.append(ReviewedLesion(lesion=lesion, item=first.item, automatic_index=own))
    return found


def _agreed(match: Match, readers: int, rule: str) -> Lesion | None:
    """Return the lesion that the readers agree on; None where they do not.

    Position and size are those of the first reader who has it; the region is that of most of
    them. It is definite if the rule holds for the readers who call it so.
    """
    if not _holds(len(match.rows), readers, rule):
        return None
    rows = [match.rows[number] for number in sorted(match.rows)]
    counts = Counter(row.lesion.region for row in rows)
    placed = next(row for row in rows if counts[row.lesion.region] == max(counts.values()))
    definite = sum(row.item.verdict == "definite" for row in rows)
    chosen = rows[0].lesion
    place = ("zone", "region", "hemisphere", "region_fraction", "boundary_distance_mm", "boundary")
    return replace(
        chosen,
        rating="definite" if _holds(definite, readers, rule) else "possible",
        susceptibility="unknown"
        if chosen.susceptibility == "diamagnetic"
        else chosen.susceptibility,
        **{name: getattr(placed.lesion, name) for name in place},
    )


def _holds(count: int, readers: int, rule: str) -> bool:
    return {"any": count > 0, "all": count == readers, "majority": 2 * count > readers}[rule]


def disagree(reviews: Sequence[Review]) -> bool | None:
    """Return whether readers disagree on the lesions of a scan; None with fewer than two."""
    chosen = choose_reviews(reviews)
    if len(chosen) < 2:
        return None
    return any(len(match.rows) < len(chosen) for match in match_lesions(chosen))
