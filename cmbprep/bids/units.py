"""From a BIDS dataset to units of work: scans, their echoes and phase, and their anatomy.

Images with valid names come from :mod:`cmbprep.bids.index`, what else looks like a scan from
:mod:`cmbprep.bids.survey`. One participant whose folder cannot be read stops no other.
Metadata comes from :mod:`cmbprep.bids.sidecars`, for the scans that are used and no others.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmbprep.bids.derivatives import DerivativeFolder, add_derivatives
from cmbprep.bids.index import Image, ImageIndex
from cmbprep.bids.model import SEQUENCES, Refusal, Scan, Unit
from cmbprep.bids.near_names import printable
from cmbprep.bids.scans import choose_anatomy, group_scans
from cmbprep.bids.selection import (
    check_dataset,
    check_filters,
    choose_participants,
    choose_sessions,
)
from cmbprep.bids.sidecars import SidecarReader
from cmbprep.bids.survey import Survey, is_utf8, survey_participant
from cmbprep.errors import UsageError
from cmbprep.templates import PACKAGED_ID

logger = logging.getLogger(__name__)

NOTHING = "there is no blood-sensitive scan"
FILTERED = "no scan passes the filter file"
NO_SESSION = "there is no such session"
_FIND_HINT = (
    "cmbprep looks in anat/ and swi/ for images that end in "
    f"{', '.join(f'_{suffix}' for suffix in sorted(SEQUENCES))}"
)


def find_units(
    bids_dir: Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    validate: bool = True,
    derivatives: Sequence[DerivativeFolder] = (),
    reference: str = PACKAGED_ID,
) -> list[Unit]:
    """Find what there is to process in a BIDS dataset.

    Parameters
    ----------
    bids_dir
        Folder of the dataset.
    participants, sessions
        Labels, with or without ``sub-`` and ``ses-``; None for all.
    filters
        Entities that images must have, by kind, as
        :func:`cmbprep.bids.selection.read_filter_file` gives them.
    validate
        Whether to check ``dataset_description.json``.
    derivatives
        Folders of other programs' results to use.
    reference
        Id of the template to which their transforms are of use.

    Returns
    -------
    list of Unit
        One for each session with a blood-sensitive scan or a refused file, sorted by
        participant and session. A participant without any gets a unit without scans that
        says so in :attr:`Unit.refused`.

    Raises
    ------
    UsageError
        If the folder is no BIDS dataset, if it lacks the participants or sessions asked
        for, or if all participants were asked for and there is no scan to process.
    """
    root = Path(bids_dir).absolute()
    check_dataset(root, validate=validate)
    filters = check_filters(filters or {})
    if not is_utf8(str(root)):
        raise UsageError(
            "the path of the dataset is not UTF-8",
            path=printable(root),
            hint="rename the folder, or give a link to it with a plain name as BIDS_DIR",
        )
    subjects, lost = choose_participants(root, participants)
    surveys, failures = _survey(root, subjects)
    index = ImageIndex(root, filters)
    index.add(list(surveys))
    failures |= index.failures
    there = {label for survey in surveys.values() for label in survey.sessions}
    chosen = choose_sessions(root, sessions, there)
    reader = SidecarReader(root)
    units = [_lost_unit(subject, refusal) for subject, refusal in lost.items()]
    for subject in subjects:
        if subject in failures:
            units.append(_failed_unit(root, subject, failures[subject]))
            continue
        survey, wanted = surveys[subject], chosen
        if chosen is not None and (own := [one for one in chosen if one in survey.sessions]):
            wanted = own
        elif chosen is not None and participants is None:
            logger.info("sub-%s has none of the sessions asked for", subject)
            continue
        images = [image for image in index.images[subject] if image.path not in survey.unusable]
        why_none = FILTERED if filters else NOTHING
        try:
            units += _units_of(root / f"sub-{subject}", images, survey, wanted, reader, why_none)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
            units.append(_failed_unit(root, subject, error))
    units.sort(key=lambda unit: (unit.subject, unit.session or ""))
    unmatched = _unmatched_filters(index, filters)
    if participants is None and not any(unit.scans for unit in units):
        nothing = _nothing_found(root, units, filtered=bool(filters), unmatched=unmatched)
        nothing.units = tuple(units)
        raise nothing
    if derivatives:
        units = add_derivatives(units, derivatives, reference=reference)
    return [_noted(unit) for unit in units]


def _survey(root: Path, subjects: Sequence[str]) -> tuple[dict[str, Survey], dict[str, Exception]]:
    """List the participants' folders; what fails for one participant stops no other."""
    surveys: dict[str, Survey] = {}
    failures: dict[str, Exception] = {}
    for subject in subjects:
        try:
            surveys[subject] = survey_participant(root / f"sub-{subject}")
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
            failures[subject] = error
    return surveys, failures


def _lost_unit(subject: str, refusal: Refusal) -> Unit:
    # A file in place of the folder has no scans; what a broken link leads to is not known.
    unread = not refusal.path.is_file()
    return Unit(subject=subject, session=None, scans=(), refused=(refusal,), unread=unread)


def _failed_unit(root: Path, subject: str, error: Exception) -> Unit:
    """Make a unit that says why a participant cannot be looked at."""
    logger.debug("sub-%s cannot be looked at", subject, exc_info=error)
    folder = root / f"sub-{subject}"
    if isinstance(error, OSError):
        where = Path(os.fsdecode(error.filename or folder))
        name = where.relative_to(root) if where.is_relative_to(root) else where
        reason = f"{printable(name)} cannot be read ({error.strerror or error})"
        hint = "check the permissions, the links and the disk"
    else:
        text = str(error).encode(errors="backslashreplace").decode().partition("\n")[0]
        reason = f"its files cannot be looked at ({type(error).__name__}: {printable(text)})"
        hint = "run with -vv, and report the error in the log with the names of the files"
    return _lost_unit(subject, Refusal(path=folder, reason=reason, hint=hint))


def _unmatched_filters(index: ImageIndex, kinds: Iterable[str]) -> list[str]:
    """Name the filters that match no image, and warn of those that leave images out."""
    sentences = []
    for kind in kinds:
        if index.passed[kind]:
            continue
        if total := index.total[kind]:
            what = "the only image" if total == 1 else f"none of the {total} images"
            verb = "does not match" if total == 1 else "matches"
            sentences.append(f"the filter for {kind!r} {verb} {what} of that kind")
            logger.warning("%s", sentences[-1])
        else:
            sentences.append(f"there is no image of the kind {kind!r} for its filter to match")
            logger.info("%s", sentences[-1])
    return sentences


def _noted(unit: Unit) -> Unit:
    """Add the choice among the raw T1w images to the scans' reports, if one of them is used."""
    given = unit.anatomy.given if unit.anatomy else None
    if unit.anatomy_note is None or (given is not None and given.t1w is not None):
        return unit
    scans = tuple(_with_warning(scan, unit.anatomy_note) for scan in unit.scans)
    return replace(unit, scans=scans)


class NothingFoundError(UsageError):
    """The dataset has no scan that can be processed.

    Attributes
    ----------
    units
        What was found instead: the files that were refused, with the reasons.
    """

    units: tuple[Unit, ...] = ()


def _nothing_found(
    root: Path, units: Iterable[Unit], *, filtered: bool, unmatched: Sequence[str]
) -> NothingFoundError:
    refused = [
        refusal
        for unit in units
        for refusal in unit.refused
        if refusal.reason not in {NOTHING, FILTERED, NO_SESSION}
    ]
    count = f"{len(refused)} {'file was' if len(refused) == 1 else 'files were'} refused"
    if filtered and (unmatched or not refused):
        return NothingFoundError(
            "no scan in the dataset passes the filter file"
            + (f": {'; '.join(unmatched)}" if unmatched else "")
            + (f"; {count}, the first because {refused[0].reason}" if refused else ""),
            path=root,
            hint=f"compare its entities with the names of the scans; {_FIND_HINT}",
        )
    if refused:
        return NothingFoundError(
            f"no scan can be processed; {count}, the first because {refused[0].reason}",
            path=refused[0].path,
            hint=refused[0].hint,
        )
    return NothingFoundError("the dataset has no blood-sensitive scan", path=root, hint=_FIND_HINT)


# --- units -----------------------------------------------------------------------------


def _units_of(
    folder: Path,
    images: Sequence[Image],
    survey: Survey,
    sessions: Sequence[str] | None,
    reader: SidecarReader,
    nothing: str,
) -> list[Unit]:
    """Make the units of one participant; ``nothing`` says why one is empty."""
    subject = folder.name.removeprefix("sub-")
    anatomies = [image for image in images if image.is_anatomy]
    by_session: dict[str | None, list[Image]] = defaultdict(list)
    for image in images:
        if not image.is_anatomy:
            by_session[image.session].append(image)
    labels = {image.session or "" for image in images}
    units: dict[str | None, Unit] = {}
    for session in sorted({*by_session, *survey.refused}, key=lambda label: label or ""):
        if sessions is not None and session not in sessions:
            continue
        scans, refused = group_scans(by_session[session], reader)
        refused += survey.refused.get(session, ())
        if not scans and not refused:
            continue
        ranked, note = choose_anatomy(anatomies, session, sorted({*labels, session or ""}), reader)
        notes = _anatomy_notes(survey, session, none_left=not ranked)
        units[session] = Unit(
            subject=subject,
            session=session,
            scans=tuple(_with_warning(scan, *notes) for scan in scans),
            anatomy=ranked[0] if ranked else None,
            refused=tuple(sorted(refused, key=lambda refusal: refusal.path)),
            anatomy_note=note,
            spare_anatomies=tuple(ranked[1:]),
        )
    wanted = sessions if sessions is not None else [] if units else [None]
    for label in wanted:
        if label not in units:
            units[label] = _empty_unit(folder, subject, label, nothing)
    return sorted(units.values(), key=lambda unit: unit.session or "")


def _empty_unit(folder: Path, subject: str, session: str | None, nothing: str) -> Unit:
    where = folder / f"ses-{session}" if session else folder
    reason = nothing if where.is_dir() else NO_SESSION
    return Unit(
        subject=subject,
        session=session,
        scans=(),
        refused=(Refusal(path=where, reason=reason, hint=_FIND_HINT),),
    )


def _anatomy_notes(survey: Survey, session: str | None, *, none_left: bool) -> list[str]:
    """Return what to say about T1w images that cannot be used, of all sessions if none can."""
    sessions = list(survey.notes) if none_left else [session]
    return [note for label in sessions for note in survey.notes.get(label, ())]


def _with_warning(scan: Scan, *sentences: str) -> Scan:
    return replace(scan, warnings=(*scan.warnings, *sentences))
