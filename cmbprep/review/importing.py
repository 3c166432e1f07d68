"""Take in what was read in a static page: its acts go into the reader's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.files.text import read_object
from cmbprep.ratings.acts import ENVELOPE, Act, BasedOn, parse_payload
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.completing import complete
from cmbprep.ratings.replay import check, number_new, replay
from cmbprep.ratings.reviewed import write_reviewed
from cmbprep.ratings.segmenting import Segmenter
from cmbprep.ratings.store import Reader, ReviewLog, log_path
from cmbprep.review.scans import ReviewScan

__all__ = ["FORMAT", "Imported", "import_file"]

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
    """

    scan: str
    reader: Reader
    new: int
    known: int
    finished: bool


def import_file(path: Path, root: Path, scans: Mapping[str, ReviewScan]) -> Imported:
    """Take in the file that a static page has exported.

    Lesions that the reader added, moved, merged or split are segmented now. Nothing is taken in
    unless every act fits; a file that was taken in before changes nothing.

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
        If the file is not such a file, is of another dataset or an older result, or does not
        continue what is there.
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
    if based_on.digest != automatic.based_on.digest:
        raise CmbprepError("this was read on an older result", path=path, hint=_REREAD)
    log = ReviewLog(log_path(automatic.folder, automatic.src, reader), root / "logs" / "review")
    try:
        known = _common(log.acts, entries, path)
        new = _completed(automatic, reader, based_on, log.acts, entries[known:], path)
        for act in new:
            log.append(act)
        if new:
            write_reviewed(automatic, reader, log.acts)
        state = replay(log.acts, automatic.by_key)
    finally:
        log.close()
    return Imported(scan=scan.id, reader=reader, new=len(new), known=known, finished=state.finished)


def _reader(content: Mapping[str, Any]) -> Reader:
    session = content["session"]
    name, number = session["reader"], session["round"]
    if not isinstance(name, str) or not isinstance(number, int):
        raise ValueError("the reader or the round is not named")
    return Reader(name=name, round=number)


def _entries(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = content["acts"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("the acts are not a list of objects")
    ids = [entry.get("id") for entry in entries]
    if not all(isinstance(one, str) for one in ids) or len(set(ids)) < len(ids):
        raise ValueError("an act has no id of its own")
    return entries


def _common(acts: Sequence[Act], entries: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Return how many acts the log and the file begin with in common.

    Raises
    ------
    CmbprepError
        If the log goes on otherwise: acts on one state must not be applied to another.
    """
    for number, (act, entry) in enumerate(zip(acts, entries, strict=False)):
        if act.id != entry["id"]:
            raise _elsewhere(path, number)
    if len(acts) > len(entries):
        raise _elsewhere(path, len(entries))
    return len(acts)


def _elsewhere(path: Path, number: int) -> CmbprepError:
    return CmbprepError(
        f"this reader's log of the scan holds other acts from number {number + 1} on",
        path=path,
        hint="the scan was also read elsewhere; import the file into another round",
    )


def _completed(
    automatic: Automatic,
    reader: Reader,
    based_on: BasedOn,
    acts: Sequence[Act],
    entries: Sequence[Mapping[str, Any]],
    path: Path,
) -> list[Act]:
    """Check acts one after the other, and segment what they make."""
    segmenter = Segmenter(automatic)
    found = list(acts)
    for number, entry in enumerate(entries, start=len(acts) + 1):
        state = replay(found, automatic.by_key)
        try:
            also = (*ENVELOPE, "based_on", "outlines")
            payload = number_new(found, parse_payload(entry, also=also))
            check(state, payload, automatic.scope)
            act = Act(
                payload=payload,
                outlines=complete(automatic, state, payload, lambda: segmenter),
                reader=reader.name,
                round=reader.round,
                scan=automatic.src,
                based_on=based_on,
                id=entry["id"],
                time=entry["time"],
                software=str(entry.get("software", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CmbprepError(f"act {number} cannot be taken in: {error}", path=path) from error
        found.append(act)
    return found[len(acts) :]
