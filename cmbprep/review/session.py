"""One reader's session: what the page asks for and does, without the web."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

import nibabel as nib

from cmbprep import __version__
from cmbprep.errors import CmbprepError, UsageError
from cmbprep.followup.pair import FollowUp
from cmbprep.ratings.acts import Act, Add, Finish, Move, parse_payload
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.completing import complete
from cmbprep.ratings.consensus import choose_reviews, disagree, find_reviews
from cmbprep.ratings.replay import RefusedActError, check, number_new, replay, without_numbers
from cmbprep.ratings.reviewed import is_current, write_reviewed
from cmbprep.ratings.segmenting import Segmenter
from cmbprep.ratings.store import (
    ForeignActsError,
    OpenElsewhereError,
    Reader,
    ReviewLog,
    log_path,
    read_log,
    require_spelling,
)
from cmbprep.ratings.voxels import read_voxels
from cmbprep.reports.packing import Packed, PageGrid
from cmbprep.review.images import PREPROC, ImageCache, PageImage, label_runs, list_images, pack
from cmbprep.review.scans import ReviewScan
from cmbprep.review.views import act_view, others_view, scan_view, state_view
from cmbprep.review.visits import find_followups, followup_view, to_other_visit
from cmbprep.review.worklist import row
from cmbprep.spatial.transforms import LinearMap

logger = logging.getLogger("cmbprep")

#: Scans whose logs are kept open at a time: as many as a reader has in tabs beside each other.
OPEN_SCANS = 4


class OlderResultError(RefusedActError):
    """The review was made on lesions that are no longer there."""


class ReviewSession:
    """What one reader does in one round; safe for requests on several threads.

    Parameters
    ----------
    root
        The output dataset.
    reader
        Who reads.
    scans
        What is to be read, by name.
    all_scans
        Every scan of the dataset: other visits are shown beside a scan.
    blinded
        Hide what the detector has rated.
    settling
        Show what the other readers decided.
    raw
        The raw dataset; None where it is not there.
    dataset
        Name of the dataset.
    """

    def __init__(
        self,
        root: Path,
        reader: Reader,
        scans: Mapping[str, ReviewScan],
        *,
        all_scans: Mapping[str, ReviewScan] | None = None,
        blinded: bool = False,
        settling: bool = False,
        raw: Path | None = None,
        dataset: str = "",
    ) -> None:
        self.root, self.reader, self.scans = root, reader, scans
        self.settling = settling
        self.all_scans = scans if all_scans is None else all_scans
        self.blinded, self.raw, self.dataset = blinded, raw, dataset
        self._lock = RLock()
        self._logs: OrderedDict[str, ReviewLog] = OrderedDict()
        self._reading: str | None = None
        self._segmenting = RLock()
        self._segmenter: tuple[str, Segmenter] | None = None
        self._images = ImageCache()
        self._grids: dict[str, PageGrid] = {}
        self._followups: dict[str, list[FollowUp]] = {}
        self._closing: dict[str, Future[None]] = {}
        self._worker = ThreadPoolExecutor(1, "reviewed")

    def catch_up(self) -> None:
        """Get ready: write the files that a killed server has left behind its logs.

        The first image that will be asked for is read meanwhile.
        """
        for scan in self.scans.values():
            acts = self._sound_acts(scan)
            if not acts or scan.automatic.has_other_lesions(acts):
                continue
            if not is_current(scan.automatic, self.reader, acts):
                with self._lock, suppress(OpenElsewhereError, UsageError):
                    self._write(scan, self._log(scan).acts)
        self._worker.submit(self._prefetch, self.next_unread(None))

    def describe(self) -> dict[str, Any]:
        """Return what the page shows of the session."""
        return {
            "reader": self.reader.name,
            "round": self.reader.round,
            "blinded": self.blinded,
            "dataset": self.dataset,
            "version": __version__,
            "keys": None,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the work list."""
        return [self._row(scan) for scan in self.scans.values()]

    def _row(self, scan: ReviewScan) -> dict[str, Any]:
        other = None if self.blinded else disagree(find_reviews(scan.automatic))
        acts = self._sound_acts(scan)
        return row(
            scan,
            acts or (),
            blinded=self.blinded,
            disagreement=other,
            damaged=acts is None,
        )

    def next_unread(self, after: str | None) -> str | None:
        """Return the next scan that is not read to the end, in the order of the list.

        A scan whose review is of an older result is one of them.
        """
        names = list(self.scans)
        start = names.index(after) + 1 if after is not None and after in self.scans else 0
        for name in (*names[start:], *names[:start]):
            if name == after:
                continue
            scan = self.scans[name]
            acts = self._sound_acts(scan)
            if acts is None or scan.automatic.is_stale(acts):
                return name
            if not replay(acts, scan.automatic.by_key).finished:
                return name
        return None

    def scan(self, name: str) -> dict[str, Any]:
        """Return all that the page needs to read a scan, its voxels left out.

        Raises
        ------
        OlderResultError
            If the reader's acts are on lesions that are no longer there.
        """
        scan = self.scans[name]
        scan.automatic.require_unchanged()
        with self._lock:
            locked = left = None
            try:
                log = self._log(scan)
                acts, left = log.acts, log.left_open
            except OpenElsewhereError as error:
                acts, locked = self._acts(scan), error.message
            _require_same_lesions(scan, acts)
            stale = scan.automatic.is_stale(acts)
            view = {**self._view(scan, acts), "locked": locked, "stale": stale}
            view["left_open"] = left
        others = None
        if self.settling:
            reviews = choose_reviews(find_reviews(scan.automatic))
            reviews = [item for item in reviews if item.reader != self.reader]
            others = others_view(reviews, self._grid(scan))
        return {**view, "others": others}

    def scan_without_acts(self, name: str) -> dict[str, Any]:
        """Return the same of a scan that nobody has read yet."""
        view = self._view(self.scans[name], ())
        return {**view, "locked": None, "stale": False, "others": None, "left_open": None}

    def row_without_acts(self, name: str) -> dict[str, Any]:
        """Return the row of a scan that nobody has read yet."""
        return row(self.scans[name], (), blinded=self.blinded)

    def _view(self, scan: ReviewScan, acts: Sequence[Act]) -> dict[str, Any]:
        images = self._list_images(scan)
        view = scan_view(
            scan.automatic,
            replay(acts, scan.automatic.by_key),
            self._grid(scan),
            images=[image.describe() for image in images],
            blinded=self.blinded,
        )
        # What became of a lesion says what the detector has made of it at another visit.
        view["followup"] = None if self.blinded else self._followup_view(scan, images)
        return {**view, "id": scan.id, "last_act": acts[-1].id if acts else None}

    def image(self, name: str, image: str) -> Packed:
        """Return an image of a scan.

        Raises
        ------
        KeyError
            If the scan has no such image.
        """
        if image == PREPROC:
            self._segment(self.scans[name])
        found = self._packed(name, image)
        if image == PREPROC:
            # A lesion may be added next: what its segmentation needs is read meanwhile.
            self._worker.submit(self._warm_up, self.scans[name])
        return found

    def _packed(self, name: str, image: str) -> Packed:
        scan = self.scans[name]
        wanted = {item.id: item for item in self._list_images(scan)}[image]

        def make() -> Packed:
            # Images that are kept for segmentation are read and decompressed once.
            ready = self._segmenter
            if ready is not None and ready[0] == scan.id:
                values = ready[1].image if image == PREPROC else wanted.read()
                return pack(values, self._grid(scan), ready[1].brain, wanted.unit)
            mask = scan.automatic.preproc.files.path("brain_mask")
            return pack(wanted.read(), self._grid(scan), read_voxels(mask) > 0, wanted.unit)

        return self._images.get((name, image), make)

    def outlines(self, name: str) -> dict[str, list[list[int]]]:
        """Return the voxels of the automatic lesions of a scan: key -> runs on the page's grid."""
        scan = self.scans[name]
        ready = self._segmenter
        if ready is not None and ready[0] == scan.id:
            labels = ready[1].labels
        else:
            labels = read_voxels(scan.automatic.detection.files.path("dseg"))
        keys = {lesion.index: key for key, lesion in scan.automatic.by_key.items()}
        return label_runs(labels, self._grid(scan), keys)

    def act(self, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the reader asks for, and store it.

        Parameters
        ----------
        name
            Of the scan.
        content
            The JSON of the act; with an ``id``, a repeated request acts once.

        Returns
        -------
        dict
            ``state`` and ``act``; of a lesion that was added or moved also ``outside_brain``,
            whether its position lies outside the brain mask.

        Raises
        ------
        ValueError
            If the act is not well formed, or does not fit (:class:`RefusedActError`).
        OpenElsewhereError, ChangedElsewhereError
            If the same reader reads the scan elsewhere.
        ReplacedResultError
            If the automatic result was replaced since the session began.
        """
        scan = self.scans[name]
        payload = parse_payload(content, also=("id",))
        with self._lock:
            log = self._log(scan)
            known = {act.id: act for act in log.acts}
            chosen = content.get("id")
            act = known.get(chosen) if isinstance(chosen, str) else None
            if act is None:
                scan.automatic.require_unchanged()
                _require_same_lesions(scan, log.acts)
                state = replay(log.acts, scan.automatic.by_key)
                payload = number_new(log.acts, without_numbers(payload))
                check(state, payload, scan.automatic.scope)
                outlines = complete(scan.automatic, state, payload, lambda: self._segment(scan))
                extra = {"id": chosen} if isinstance(chosen, str) else {}
                act = Act(
                    payload=payload,
                    outlines=outlines,
                    reader=self.reader.name,
                    round=self.reader.round,
                    scan=scan.automatic.src,
                    based_on=scan.automatic.based_on,
                    **extra,
                )
                log.append(act)
                if name != self._reading:
                    self._reading = name
                    self._worker.submit(self._prefetch, self.next_unread(name))
                if state.finished or isinstance(payload, Finish):
                    self._write(scan, log.acts)
            state = replay(log.acts, scan.automatic.by_key)
            grid = self._grid(scan)
            view = state_view(scan.automatic, state, grid, blinded=self.blinded)
            answer: dict[str, Any] = {"state": view, "act": act_view(act)}
            if isinstance(act.payload, Add | Move):
                inside = self._segment(scan).in_brain(act.payload.centre_ras)
                answer["outside_brain"] = not inside
            return answer

    def close(self) -> None:
        """Write what is still to be written, and free the logs for other processes."""
        with self._lock:
            while self._logs:
                self._let_go(*self._logs.popitem())
        self._worker.shutdown()

    # -- files of a scan --------------------------------------------------------------------

    def _path(self, scan: ReviewScan) -> Path:
        return log_path(scan.automatic.folder, scan.automatic.src, self.reader)

    def _acts(self, scan: ReviewScan) -> list[Act]:
        with self._lock:
            log = self._logs.get(scan.id)
            return log.acts if log is not None else read_log(self._path(scan))

    def _sound_acts(self, scan: ReviewScan) -> list[Act] | None:
        """Return the acts; None where the log is damaged, which opening the scan explains."""
        try:
            return self._acts(scan)
        except ForeignActsError as error:
            logger.warning("%s", error)
            return None

    def _log(self, scan: ReviewScan) -> ReviewLog:
        """Return the log of a scan, open for writing."""
        log = self._logs.get(scan.id)
        if log is None:
            if (closing := self._closing.pop(scan.id, None)) is not None:
                closing.result()
            log = ReviewLog(self._path(scan), self.root / "logs" / "review")
            try:
                require_spelling(log.acts, self.reader)
            except UsageError:
                log.close()
                raise
            self._logs[scan.id] = log
            while len(self._logs) > OPEN_SCANS:
                self._let_go(*self._logs.popitem(last=False))
        self._logs.move_to_end(scan.id)
        return log

    def _let_go(self, name: str, log: ReviewLog) -> None:
        """Close a log once the files of the review hold all of it."""
        scan = self.scans[name]
        older = scan.automatic.has_other_lesions(log.acts)
        if log.acts and not older and not is_current(scan.automatic, self.reader, log.acts):
            self._write(scan, log.acts)
        self._closing[name] = self._worker.submit(log.close)

    def _write(self, scan: ReviewScan, acts: Sequence[Act]) -> None:
        """Write the files of a review, after those that wait; the log keeps what fails here."""
        self._worker.submit(_write_files, scan, self.reader, tuple(acts))

    def _segment(self, scan: ReviewScan) -> Segmenter:
        """Return the images for segmentation; those of one scan are kept."""
        with self._segmenting:
            if self._segmenter is None or self._segmenter[0] != scan.id:
                self._segmenter = (scan.id, Segmenter(scan.automatic))
            return self._segmenter[1]

    # What the worker does must not wait for the session's lock, which may wait for the worker.

    def _prefetch(self, following: str | None) -> None:
        """Read the image of the scan that is likely to be read next."""
        if following is not None:
            if self._segmenter is None:
                self._segment(self.scans[following])
            with suppress(OSError, EOFError, ValueError, CmbprepError):
                self._packed(following, PREPROC)

    def _warm_up(self, scan: ReviewScan) -> None:
        with self._segmenting, suppress(OSError, EOFError, ValueError):
            self._segment(scan).load()

    def _grid(self, scan: ReviewScan) -> PageGrid:
        if scan.id not in self._grids:
            path = scan.automatic.preproc.files.path("preproc")
            self._grids[scan.id] = PageGrid.of(nib.Nifti1Image.from_filename(path))
        return self._grids[scan.id]

    def _other_visits(self, scan: ReviewScan) -> list[Automatic]:
        """Return the scans of other visits of the participant."""
        names = scan.automatic.preproc.files.names
        return [
            other.automatic
            for other in self.all_scans.values()
            if other.automatic.preproc.files.names.subject == names.subject
            and other.automatic.preproc.files.names.session != names.session
        ]

    def _list_images(self, scan: ReviewScan) -> list[PageImage]:
        others = self._other_visits(scan)
        return list_images(scan.automatic, others, self.raw, self._ways(scan))

    def _find_followups(self, scan: ReviewScan) -> list[FollowUp]:
        """Return the finished follow-ups of the participant; those of a session are kept."""
        subject = scan.automatic.preproc.files.names.subject
        if subject not in self._followups:
            found: list[FollowUp] = []
            # A review needs no follow-up: a damaged file costs no more than that.
            try:
                found = find_followups(self.root, subject) if self._other_visits(scan) else []
            except (OSError, EOFError, ValueError, CmbprepError) as error:
                logger.warning("sub-%s: no follow-up is shown: %s", subject, error)
            self._followups[subject] = found
        return self._followups[subject]

    def _ways(self, scan: ReviewScan) -> dict[str, LinearMap]:
        """Return the maps of points to scans of other visits that follow-ups have found."""
        ways = {}
        for item in self._find_followups(scan):
            names = [one.name for one in item.pair.by_name]
            if scan.id in names:
                names.remove(scan.id)
                with suppress(OSError, CmbprepError):
                    if (way := to_other_visit(item, scan.id)) is not None:
                        ways[names[0]] = way
        return ways

    def _followup_view(self, scan: ReviewScan, images: Sequence[PageImage]) -> list[dict[str, Any]]:
        return followup_view(
            self._find_followups(scan),
            scan.id,
            self._grid(scan),
            reader=self.reader,
            images={image.scan: image.id for image in images if image.scan is not None},
        )


def _require_same_lesions(scan: ReviewScan, acts: Sequence[Act]) -> None:
    if scan.automatic.has_other_lesions(acts):
        raise OlderResultError(
            "this review is of an older result, whose lesions are no longer there; "
            "start another round with --round"
        )


def _write_files(scan: ReviewScan, reader: Reader, acts: Sequence[Act]) -> None:
    try:
        scan.automatic.require_unchanged()
        write_reviewed(scan.automatic, reader, acts)
    except (OSError, ValueError, CmbprepError) as error:
        logger.warning(
            "%s: the files of the review could not be written (%s); its log holds every act",
            scan.id,
            error,
        )
