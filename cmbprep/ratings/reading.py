"""Which lesions of a scan count: the detector's, or those of the readers that were chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep.config import CONSENSUS
from cmbprep.errors import CmbprepError, UsageError
from cmbprep.lesions import Lesion
from cmbprep.ratings.acts import Add, Merge, Split
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.consensus import Review, agreed_lesions, choose_reviews, find_reviews
from cmbprep.ratings.replay import POSITIVE, standing_acts
from cmbprep.ratings.reviewed import (
    ReviewedFiles,
    ReviewedLesion,
    is_current,
    paint_labels,
    reviewed_rows,
)
from cmbprep.ratings.store import Reader
from cmbprep.ratings.template import template_mask
from cmbprep.ratings.voxels import read_voxels


@dataclass(frozen=True, kw_only=True)
class ReadLesion:
    """A lesion of a scan that was read.

    Attributes
    ----------
    row
        The lesion as the reader has left it. By a rule of consensus, position and voxels are
        those of the reader whose lesion stands for all.
    verdict
        ``definite``, ``possible`` or ``rejected``.
    reason
        Of a rejection; by a rule of consensus, the reasons of all readers who rejected it.
    change
        What the reader changed: ``added``, ``below the threshold``, ``merged``, ``split``,
        ``moved``, ``zone corrected``; empty if nothing.
    """

    row: ReviewedLesion
    verdict: str
    reason: str | None = None
    change: str = ""

    @property
    def lesion(self) -> Lesion:
        """The row of the lesion table."""
        return self.row.lesion

    @property
    def counted(self) -> bool:
        """Whether it is a microbleed of the reviewed result."""
        return self.verdict in POSITIVE

    @property
    def added(self) -> bool:
        """Whether the automatic table does not list it."""
        return self.row.automatic_index is None


@dataclass(frozen=True, eq=False, kw_only=True)
class ScanReading:
    """What readers have made of a scan.

    Attributes
    ----------
    automatic
        The automatic result.
    reviews
        All reviews of the readers in question, finished or not.
    used
        The reviews whose lesions count, the one finished first in front; empty where the
        automatic result counts.
    rule
        By which several readers were put together.
    rows
        Lesions that count, and those of the automatic table that were rejected, by index.
    warnings
        Why reviews that are there are not used.
    """

    automatic: Automatic
    reviews: tuple[Review, ...] = ()
    used: tuple[Review, ...] = ()
    rule: str | None = None
    rows: tuple[ReadLesion, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def reviewed(self) -> bool:
        """Whether a reader's lesions count."""
        return bool(self.used)

    @property
    def status(self) -> str:
        """``done``, ``damaged``, ``partly read``, ``of an older result`` or ``unread``."""
        if any(review.counts for review in self.reviews):
            return "done"
        if any(review.damage for review in self.reviews):
            return "damaged"
        if any(not review.stale for review in self.reviews):
            return "partly read"
        return "of an older result" if self.reviews else "unread"

    @property
    def readers(self) -> str:
        """Names of the readers whose reviews are used, separated by commas."""
        return ", ".join(review.reader.name for review in self.used)

    @cached_property
    def lesions(self) -> tuple[Lesion, ...]:
        """The lesions that count; the automatic ones where no review is used."""
        if not self.reviewed:
            return self.automatic.lesions
        return tuple(row.lesion for row in self.rows if row.counted)

    @property
    def rejected(self) -> tuple[ReadLesion, ...]:
        """Automatic lesions that were rejected."""
        return tuple(row for row in self.rows if not row.counted and not row.added)

    @property
    def added(self) -> tuple[ReadLesion, ...]:
        """Lesions that count and that the automatic table does not list."""
        return tuple(row for row in self.rows if row.counted and row.added)

    @property
    def labels(self) -> NDArray[np.int16]:
        """Labels of all rows by their index, on the scan's grid, (X, Y, Z)."""
        automatic = read_voxels(self.automatic.detection.files.path("dseg"))
        return paint_labels([row.row for row in self.rows], automatic.astype(np.int16))

    def template_mask(self) -> Path | nib.Nifti1Image | None:
        """Return the mask of the lesions that count, in the template's space.

        Returns
        -------
        Path, nibabel image or None
            The derivative of the reader, where it holds every act; else the mask computed from
            the acts. None where the scan is not registered to the output template.
        """
        if len(self.used) == 1:
            review = self.used[0]
            files = ReviewedFiles(self.automatic, review.reader)
            current = is_current(self.automatic, review.reader, review.acts)
            if current and files.template_mask.is_file():
                return files.template_mask
        kept = [lesion.index for lesion in self.lesions]
        return template_mask(self.automatic, np.where(np.isin(self.labels, kept), self.labels, 0))


def read_scan(automatic: Automatic, choice: ReaderChoice) -> ScanReading:
    """Read what the chosen readers have made of a scan; a damaged review is not used.

    Where there are several readers and it is not chosen whose reviews count, none is used, and a
    warning says so.
    """
    try:
        return _read_scan(automatic, choice)
    except (CmbprepError, OSError) as error:
        # Pages and tables hold no folder's name.
        path = error.path if isinstance(error, CmbprepError) else error.filename
        reason = error.message if isinstance(error, CmbprepError) else error.strerror
        file = f"{Path(path).name}: " if path else ""
        text = f"no review is used: {file}{reason}"
        return ScanReading(automatic=automatic, warnings=(text,))


def _read_scan(automatic: Automatic, choice: ReaderChoice) -> ScanReading:
    reviews = find_reviews(automatic)
    if choice.reader is not None:
        wanted = Reader(name=choice.reader).short
        reviews = [review for review in reviews if review.reader.short == wanted]
    found = ScanReading(automatic=automatic, reviews=tuple(reviews), rule=choice.rule)
    if choice.automatic:
        return found
    chosen = choose_reviews(reviews)
    warnings = (*_without_log(automatic), *_damaged(reviews), *_stale(reviews, chosen))
    found = replace(found, warnings=warnings)
    if len(chosen) > 1 and not choice.decided:
        names = " and ".join(review.reader.name for review in chosen)
        text = f"this scan was read by {names}, and it was not chosen whose lesions count"
        return replace(found, warnings=(*found.warnings, f"{text}: no review is used"))
    if choice.rule == "first":
        chosen = chosen[:1]
    try:
        rows = _rows(automatic, chosen, choice.rule)
    except (ValueError, KeyError) as error:
        text = f"a review is damaged and not used ({error})"
        return replace(found, warnings=(*found.warnings, text))
    return replace(found, used=tuple(chosen), rows=rows)


def require_choice(readings: Iterable[ScanReading], choice: ReaderChoice) -> None:
    """Require that it is chosen whose lesions count, if there are several readers.

    Raises
    ------
    UsageError
        If several readers have read scans to the end, and nothing is chosen.
    """
    if choice.decided:
        return
    names: dict[str, str] = {}
    scans: Counter[str] = Counter()
    for reading in readings:
        for review in choose_reviews(reading.reviews):
            names.setdefault(review.reader.short, review.reader.name)
            scans[review.reader.short] += 1
    if len(names) < 2:
        return
    listed = ", ".join(
        f"{names[short]} ({scans[short]} scan{'' if scans[short] == 1 else 's'})"
        for short in sorted(names)
    )
    rules = ",".join(CONSENSUS)
    raise UsageError(
        f"several readers have read these scans: {listed}",
        hint=f"choose one with --reader NAME, a rule with --consensus {{{rules}}}, or the lesions "
        "of the detector with --automatic",
    )


def _without_log(automatic: Automatic) -> Iterable[str]:
    """Return which reviewed tables have lost the log that they were made from."""
    stem = f"{automatic.src}_seg-CMB_desc-"
    for path in sorted(automatic.folder.glob(f"{stem}reviewed*_dseg.tsv")):
        label = path.name.removeprefix(stem).removesuffix("_dseg.tsv")
        log = f"{automatic.src}_desc-{label}_acts.jsonl"
        if not (automatic.folder / log).is_file():
            yield f"the reviewed table {path.name} is not used: its log {log} is missing"


def _damaged(reviews: Sequence[Review]) -> Iterable[str]:
    """Return which reviews cannot be used, and why."""
    for review in reviews:
        if review.damage is not None:
            who = f"the review by {review.reader.name} (round {review.reader.round})"
            yield f"{who} is damaged and not used ({review.damage}); read the scan again"


def _stale(reviews: Sequence[Review], chosen: Sequence[Review]) -> Iterable[str]:
    """Return which readers have only reviews of an older result."""
    counted = {review.reader.short for review in chosen}
    # The last round of each reader.
    latest = {
        review.reader.short: review
        for review in sorted(reviews, key=lambda item: item.reader.round)
        if review.stale and review.reader.short not in counted
    }
    for review in latest.values():
        who = f"the review by {review.reader.name} (round {review.reader.round})"
        if review.acts[-1].based_on.digest == review.automatic.based_on.digest:
            remedy = "the lesions are the same: open the scan in review and finish it again"
        else:
            remedy = "read the scan again in another round"
        yield f"{who} was made for an older result and is not used; {remedy}"


def _rows(
    automatic: Automatic, chosen: Sequence[Review], rule: str | None
) -> tuple[ReadLesion, ...]:
    if not chosen:
        return ()
    if len(chosen) == 1:
        rows = _rows_of_one(automatic, chosen[0])
    else:
        rows = _rows_of_several(automatic, chosen, str(rule))
    return tuple(sorted(rows, key=lambda row: row.lesion.index))


def _rows_of_one(automatic: Automatic, review: Review) -> Iterable[ReadLesion]:
    made = _made(review)
    for row in reviewed_rows(automatic, review.state):
        item = row.item
        if item.positive:
            verdict, change = str(item.verdict), _change(automatic, row, made)
            yield ReadLesion(row=_countable(row), verdict=verdict, change=change)
        elif item.kind != "candidate":
            yield ReadLesion(row=row, verdict="rejected", reason=item.reason)


def _rows_of_several(
    automatic: Automatic, reviews: Sequence[Review], rule: str
) -> Iterable[ReadLesion]:
    made = [_made(review) for review in reviews]
    kept: set[str] = set()
    for row, match in agreed_lesions(automatic, reviews, rule):
        kept |= {*match.parts, row.item.key}
        change = _change(automatic, row, made[match.first])
        yield ReadLesion(row=_countable(row), verdict=str(row.lesion.rating), change=change)
    by_index: dict[int, list[ReviewedLesion]] = {}
    for review in reviews:
        for row in reviewed_rows(automatic, review.state):
            if row.item.kind == "listed" and row.item.key not in kept:
                by_index.setdefault(row.lesion.index, []).append(row)
    for rows in by_index.values():
        # Where the detector has it, not where one of the readers has moved it.
        rows.sort(key=lambda row: row.item.outline is not None)
        reasons = dict.fromkeys(row.item.reason for row in rows if row.item.reason)
        # Readers who do not agree leave no rating.
        row = replace(rows[0], lesion=replace(rows[0].lesion, rating=None))
        yield ReadLesion(row=row, verdict="rejected", reason=", ".join(reasons) or None)


def _countable(row: ReviewedLesion) -> ReviewedLesion:
    """Return a lesion that counts, also where the phase calls it diamagnetic."""
    if row.lesion.susceptibility != "diamagnetic":
        return row
    return replace(row, lesion=replace(row.lesion, susceptibility="unknown"))


def _made(review: Review) -> dict[str, str]:
    """Return how the reader made each lesion of his own, by its key."""
    found = {}
    for act in standing_acts(review.acts)[0]:
        match act.payload:
            case Add(lesion=str(key)):
                found[key] = "added"
            case Merge(lesion=str(key)):
                found[key] = "merged"
            case Split(lesions=tuple(keys)):
                found.update(dict.fromkeys(keys, "split"))
    return found


def _change(automatic: Automatic, row: ReviewedLesion, made: Mapping[str, str]) -> str:
    item = row.item
    own = automatic.by_key.get(item.key)
    if item.kind == "added":
        changes = [made.get(item.key, "added")]
    elif item.kind == "candidate":
        changes = ["below the threshold"]
    else:
        changes = ["moved"] if item.outline is not None else []
    unmoved = own if item.outline is None else None
    corrected = item.region if unmoved is None else unmoved.region != row.lesion.region
    if corrected:
        changes.append("zone corrected")
    return ", ".join(changes)
