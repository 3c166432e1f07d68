"""The lesions of a scan as its readers have read them: of one reader, or by a rule of agreement.

:mod:`cmbprep.ratings.joining` says which lesions of several readers are the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import nibabel as nib

from cmbprep.errors import UsageError
from cmbprep.lesions import Lesion
from cmbprep.ratings.acts import Act
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.joining import Match, join, see
from cmbprep.ratings.replay import State, replay
from cmbprep.ratings.reviewed import ReviewedLesion, reviewed_lesions, reviewed_rows
from cmbprep.ratings.store import Reader, scan_logs

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
    lesions = tuple(row.lesion for row, _ in agreed_lesions(automatic, chosen, str(rule)))
    return ReviewedScan(lesions=lesions, readers=readers, rule=rule)


def match_lesions(reviews: Sequence[Review]) -> list[Match]:
    """Match the definite and possible lesions of several readers of a scan, see :func:`.join`."""
    return join(
        [
            see(
                reviewed_rows(review.automatic, review.state),
                review.acts,
                review.automatic.places,
            )
            for review in reviews
        ]
    )


def agreed_lesions(
    automatic: Automatic, reviews: Sequence[Review], rule: str
) -> list[tuple[ReviewedLesion, Match]]:
    """Return the lesions that a rule keeps, each with what the readers have made of it.

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
    list of (ReviewedLesion, Match)
        By index, with the voxels of the reader whose lesion stands for all. Automatic lesions have
        their own index and name, unless another one at its place has them.
    """
    following = max((lesion.index for lesion in automatic.lesions), default=0)
    found = []
    taken: set[int] = set()
    for match in match_lesions(reviews):
        lesion = _agreed(match, len(reviews), rule)
        if lesion is None:
            continue
        first = match.rows[match.first]
        own = None if first.automatic_index in taken else first.automatic_index
        if own is not None:
            taken.add(own)
        following += own is None
        index = own or following
        lesion = replace(lesion, index=index, name=f"CMB-{index:03d}")
        found.append((ReviewedLesion(lesion=lesion, item=first.item, automatic_index=own), match))
    return sorted(found, key=lambda pair: pair[0].lesion.index)


def _agreed(match: Match, readers: int, rule: str) -> Lesion | None:
    """Return the lesion that the readers agree on; None where they do not.

    Position and size are those of the reader whose lesion stands for all; the region is that of
    most of them. It is definite if the rule holds for the readers who call it so.
    """
    if not _holds(len(match.rows), readers, rule):
        return None
    rows = [match.rows[number] for number in sorted(match.rows)]
    counts = Counter(row.lesion.region for row in rows)
    placed = next(row for row in rows if counts[row.lesion.region] == max(counts.values()))
    definite = sum(row.item.verdict == "definite" for row in rows)
    chosen = match.rows[match.first].lesion
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
    return any(match.disputed or len(match.rows) < len(chosen) for match in match_lesions(chosen))
