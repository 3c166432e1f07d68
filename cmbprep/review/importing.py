"""Take in what was read in a static page: its acts go into the reader's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.files.text import read_object
from cmbprep.ratings.acts import ENVELOPE, Act, BasedOn, Payload, Redo, Undo, parse_payload
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.completing import complete
from cmbprep.ratings.replay import RefusedActError, check, number_new, replay
from cmbprep.ratings.reviewed import write_reviewed
from cmbprep.ratings.segmenting import Segmenter
from cmbprep.ratings.store import Reader, ReviewLog, log_path, require_own_names
from cmbprep.review.scans import ReviewScan

FORMAT = "cmbprep-review-acts"
_REREAD = "write the static pages again with --static, and read the scan there"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of a file.

    Attributes
    ----------
    scan, reader
        Name of the scan; reader and round.
    new, known
        Number of acts that were taken in, and that were there already.
    finished
        Whether the whole scan was read.
    skipped
        Acts that are damaged or do not fit, and why.
    """

    scan: str
    reader: Reader
    new: int
    known: int
    finished: bool
    skipped: tuple[str, ...] = ()


def import_file(path: Path, root: Path, scans: Mapping[str, ReviewScan]) -> Imported:
    """Take in the file that a static page has exported.

    Lesions that the reader added, moved, merged or split are segmented now. Acts that are damaged
    or do not fit are left out; a file that was taken in before changes nothing.

    Parameters
    ----------
    path
        The exported file.
    root
        The output dataset.
    scans
        Its scans, by name.

    Raises
    ------
    CmbprepError
        If the file is not such a file, is of another dataset or an older result, does not
        continue what is there, or a step back or forward in it is damaged.
    """
    content = read_object(path, repair=False).content
    if content.get("format") != FORMAT or content.get("version") != 1:
        raise UsageError(
            "this file was not exported by a static page of the review",
            path=path,
            hint="choose the files …_acts.json that the pages have saved",
        )
    scan = scans.get(str(content.get("scan")))
    if scan is None:
        raise UsageError("the scan of this file is not in the output folder", path=path)
    automatic = scan.automatic
    try:
        reader = _reader(content)
        based_on = BasedOn(**content["based_on"])
        entries = _entries(content)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the file is damaged ({error})", path=path) from error
    automatic.require_unchanged()
    if based_on.digest != automatic.based_on.digest:
        raise CmbprepError("this was read on an older result", path=path, hint=_REREAD)
    _require_same_result(entries, automatic, path)
    require_own_names([(automatic.folder, automatic.src)], reader)
    log = ReviewLog(log_path(automatic.folder, automatic.src, reader), root / "logs" / "review")
    try:
        known = len(log.acts)
        following = _continued(log.acts, entries, path)
        intake = _Intake(automatic, reader, log.acts)
        for number, entry in enumerate(entries, start=1):
            if entry.get("type") not in (Undo.type, Redo.type):
                intake.take(entry, number, new=number > following)
                continue
            try:
                intake.step(entry, new=number > following)
            except (KeyError, TypeError, ValueError) as error:
                raise CmbprepError(
                    f"act {number} is damaged, and it is an undo or redo, so that it cannot be "
                    f"told what holds after it: {error}",
                    path=path,
                    hint="save the file again from the page, or read the scan again",
                ) from error
        for act in intake.acts[known:]:
            log.append(act)
        if len(log.acts) > known:
            write_reviewed(automatic, reader, log.acts)
        state = replay(log.acts, automatic.by_key)
    finally:
        log.close()
    return Imported(
        scan=scan.id,
        reader=reader,
        new=len(log.acts) - known,
        known=known,
        finished=state.finished,
        skipped=tuple(intake.skipped),
    )


def _reader(content: Mapping[str, Any]) -> Reader:
    session = content["session"]
    name, number = session["reader"], session["round"]
    if not isinstance(name, str) or not isinstance(number, int):
        raise ValueError("the reader or the round is not named")
    return Reader(name=name, round=number)


def _entries(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = content["acts"]
    if not isinstance(entries, list):
        raise ValueError("the acts are not a list")
    # What is no object has none of the fields of an act, and is left out for that.
    found = [entry if isinstance(entry, dict) else {} for entry in entries]
    ids = [one for entry in found if isinstance(one := entry.get("id"), str)]
    if len(set(ids)) < len(ids):
        raise ValueError("two acts have the same id")
    return found


def _require_same_result(
    entries: Sequence[Mapping[str, Any]], automatic: Automatic, path: Path
) -> None:
    """Refuse acts on other lesions than those that are there."""
    for number, entry in enumerate(entries, start=1):
        base = entry.get("based_on")
        digest = base.get("digest") if isinstance(base, dict) else None
        if isinstance(digest, str) and digest != automatic.based_on.digest:
            raise CmbprepError(f"act {number} was made on an older result", path=path, hint=_REREAD)


def _continued(acts: Sequence[Act], entries: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Return the position in the file from which on its acts are new.

    Raises
    ------
    CmbprepError
        If the log holds other acts: acts on one state must not be applied to another.
    """
    places = {
        one: place for place, entry in enumerate(entries) if isinstance(one := entry.get("id"), str)
    }
    following = 0
    for number, act in enumerate(acts, start=1):
        place = places.get(act.id, -1)
        if place < following:
            raise CmbprepError(
                f"this reader's log of the scan holds other acts from number {number} on",
                path=path,
                hint="the scan was also read elsewhere; import the file into another round",
            )
        following = place + 1
    return following


class _Intake:
    """Takes the acts of a file in, one after the other.

    A static page cannot segment, so an act may turn out not to fit. It is left out, and so are
    the acts that need it and an undo that took it back.

    Parameters
    ----------
    automatic, reader
        The scan, and who read it.
    acts
        What the log holds.
    """

    def __init__(self, automatic: Automatic, reader: Reader, acts: Sequence[Act]) -> None:
        self._automatic, self._reader = automatic, reader
        self._segmenter = Segmenter(automatic)
        self._known = {act.id for act in acts}
        self.acts = list(acts)
        self.skipped: list[str] = []
        # Of the file's acts that hold, and of those taken back: whether they are in the log.
        self._done: list[bool] = []
        self._undone: list[bool] = []

    def take(self, entry: Mapping[str, Any], number: int, *, new: bool) -> None:
        """Take an act in, unless it is known, was left out before, is damaged or does not fit."""
        taken = isinstance(entry.get("id"), str) and entry["id"] in self._known
        if new:
            try:
                self._add(*_parse(entry), entry)
                taken = True
            except RefusedActError as error:
                self.skipped.append(f"act {number}, {entry['type']}: {error}")
            except (KeyError, TypeError, ValueError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else error
                self.skipped.append(f"act {number} is damaged: {reason}")
        self._done.append(taken)
        self._undone.clear()

    def step(self, entry: Mapping[str, Any], *, new: bool) -> None:
        """Take an undo or redo in, unless it is known or is of an act that was left out.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is damaged.
        """
        payload, based_on = _parse(entry)
        here, there = self._done, self._undone
        if isinstance(payload, Redo):
            here, there = there, here
        held = bool(here) and here.pop()
        there.append(held)
        if held and new:
            self._add(payload, based_on, entry)

    def _add(self, payload: Payload, based_on: BasedOn, entry: Mapping[str, Any]) -> None:
        automatic = self._automatic
        state = replay(self.acts, automatic.by_key)
        payload = number_new(self.acts, payload)
        check(state, payload, automatic.scope)
        self.acts.append(
            Act(
                payload=payload,
                outlines=complete(automatic, state, payload, lambda: self._segmenter),
                reader=self._reader.name,
                round=self._reader.round,
                scan=automatic.src,
                based_on=based_on,
                id=entry["id"],
                time=entry["time"],
                software=str(entry.get("software", "")),
            )
        )


def _parse(entry: Mapping[str, Any]) -> tuple[Payload, BasedOn]:
    """Return what was done, and on which result."""
    payload = parse_payload(entry, also=(*ENVELOPE, "based_on", "outlines"))
    base = entry.get("based_on")
    if not isinstance(base, dict) or set(base) != {"fingerprint", "digest"}:
        raise ValueError("it does not name the result that it is based on")
    return payload, BasedOn(**base)
