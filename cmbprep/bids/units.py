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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmbprep.bids.derivatives import DerivativeFolder, add_derivatives
from cmbprep.bids.index import Image, ImageIndex, anatomy_rank, session_distance
from cmbprep.bids.model import ENTITY_ORDER, SEQUENCES, Anatomy, Echo, Refusal, Scan, Unit
from cmbprep.bids.near_names import nearest_name, printable
from cmbprep.bids.screening import screen
from cmbprep.bids.selection import (
    check_dataset,
    check_filters,
    choose_participants,
    choose_sessions,
)
from cmbprep.bids.sidecars import Sidecar, SidecarReader
from cmbprep.bids.survey import Survey, is_utf8, survey_participant
from cmbprep.errors import UsageError
from cmbprep.templates import PACKAGED_ID

__all__ = ["NothingFoundError", "find_units"]

logger = logging.getLogger(__name__)

NOTHING = "there is no blood-sensitive scan"
FILTERED = "no scan passes the filter file"
NO_SESSION = "there is no such session"
_FIND_HINT = (
    "cmbprep looks in anat/ and swi/ for images that end in "
    f"{', '.join(f'_{suffix}' for suffix in sorted(SEQUENCES))}"
)


@dataclass(frozen=True)
class _Screened:
    """An image that can be part of a scan, with its sidecar."""

    image: Image
    sidecar: Sidecar
    role: str


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
        scans, refused = _scans(by_session[session], reader)
        refused += survey.refused.get(session, ())
        if not scans and not refused:
            continue
        ranked, note = _choose_anatomy(anatomies, session, sorted({*labels, session or ""}), reader)
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


# --- scans -----------------------------------------------------------------------------


def _scans(images: Iterable[Image], reader: SidecarReader) -> tuple[list[Scan], list[Refusal]]:
    """Group the images of one session into scans; reject files that are not scans."""
    refused: list[Refusal] = []
    groups: dict[tuple[Any, ...], list[_Screened]] = defaultdict(list)
    for image in images:
        if problem := _misplaced(image):
            refused.append(problem)
            continue
        sidecar = reader.read(image.path)
        verdict = screen(image.name, sidecar.metadata, datatype=image.datatype)
        if verdict is None:
            continue
        if verdict.role == "refused":
            refused.append(Refusal(path=image.path, reason=verdict.reason, hint=verdict.hint))
            continue
        if sidecar.unreadable:
            # What it says may be a reason to refuse the image.
            reason = "; ".join(sidecar.unreadable)
            refused.append(Refusal(path=image.path, reason=reason, hint=sidecar.remedy))
            continue
        key = (tuple(image.stem_entities.items()), image.name.suffix)
        groups[key].append(_Screened(image, sidecar, verdict.role))
    scans = []
    for _, members in sorted(groups.items()):
        scan, problems = _group(members)
        refused += problems
        if scan is not None:
            scans.append(scan)
    return scans, sorted(refused, key=lambda refusal: refusal.path)


def _misplaced(image: Image) -> Refusal | None:
    """Refuse an image whose name tells of another participant or session than its folder."""
    named = (image.name.entities.get("sub"), image.name.entities.get("ses"))
    if named == (image.subject, image.session):
        return None
    start = f"sub-{image.subject}_" + (f"ses-{image.session}_" if image.session else "")
    near = nearest_name(image.path.name, subject=image.subject, session=image.session)
    return Refusal(
        path=image.path,
        reason="its name tells of another participant or session than its folder",
        hint=f"the name should start with {start}"
        + (f", as {near.name}" if near is not None else "")
        + "; or move the file to the folder that its name tells of",
    )


def _group(members: Sequence[_Screened]) -> tuple[Scan | None, list[Refusal]]:
    """Make one scan of the files that share all entities but echo and part."""
    magnitudes, refused = _one_an_echo([item for item in members if item.role == "magnitude"])
    phases, more = _one_an_echo([item for item in members if item.role == "phase"])
    refused += more
    for number, phase in phases.items():
        if number not in magnitudes:
            refused.append(
                Refusal(
                    path=phase.image.path,
                    reason="it is a phase image without a magnitude image that can be used",
                    hint="give the magnitude image of the same name, with part-mag in the "
                    "place of part-phase; if it is there, see why it was refused",
                )
            )
    if not magnitudes:
        return None, refused
    warnings: list[str] = []
    echoes = [
        _echo(number, magnitude, phases.get(number), warnings)
        for number, magnitude in magnitudes.items()
    ]
    if all(echo.echo_time is not None for echo in echoes):
        echoes.sort(key=lambda echo: echo.echo_time or 0.0)
    first = next(item for item in magnitudes.values() if item.image.path == echoes[0].magnitude)
    warnings += _scan_warnings(first, magnitudes, echoes)
    metadata = dict(first.sidecar.metadata)
    if echoes[0].echo_time is not None:
        metadata["EchoTime"] = echoes[0].echo_time
    scan = Scan(
        entities=first.image.stem_entities,
        suffix=first.image.name.suffix,
        datatype=first.image.datatype,
        echoes=tuple(echoes),
        metadata=metadata,
        warnings=tuple(dict.fromkeys(warnings)),
    )
    return scan, refused


def _one_an_echo(
    items: Sequence[_Screened],
) -> tuple[dict[int | None, _Screened], list[Refusal]]:
    """Keep one file an echo; of several that claim the same entities all but one are refused.

    An image that says part-mag goes before one that does not, ``anat/`` before ``swi/``,
    ``.nii.gz`` before ``.nii``, a clean name before one with parts that BIDS does not know.
    """
    kept: dict[int | None, _Screened] = {}
    refused = []
    for item in sorted(items, key=_preference):
        number = item.image.echo
        if number is None and kept and None not in kept:
            reason = "single echoes of the same scan are there, and are processed"
        elif number in kept:
            reason = f"it claims the same entities as {_place(kept[number].image)}"
        else:
            kept[number] = item
            continue
        refused.append(
            Refusal(
                path=item.image.path,
                reason=reason,
                hint="give it an entity of its own (acq, rec or run), remove it, or choose "
                "with --bids-filter-file",
            )
        )
    return kept, refused


def _place(image: Image) -> str:
    return f"{image.datatype}/{image.path.name}"


def _preference(item: _Screened) -> tuple[Any, ...]:
    image = item.image
    unknown = set(image.name.entities) - {*ENTITY_ORDER, "echo", "part"}
    return (
        image.echo is None,
        image.echo or 0,
        "part" not in image.name.entities,
        image.datatype != "anat",
        len(image.name.oddities) + len(unknown),
        not image.path.name.endswith(".nii.gz"),
        str(image.path),
    )


def _echo(
    number: int | None, magnitude: _Screened, phase: _Screened | None, warnings: list[str]
) -> Echo:
    prefix = "" if number is None else f"echo {number}: "
    seconds = magnitude.sidecar.metadata.get("EchoTime")
    if seconds is None and "EchoTime" not in magnitude.sidecar.left_out:
        warnings.append(f"{prefix}EchoTime is unknown")
    warnings += magnitude.sidecar.warnings
    units = None
    if phase is not None:
        warnings += phase.sidecar.warnings
        units = phase.sidecar.metadata.get("Units")
        if not isinstance(units, str) or units not in {"rad", "arbitrary"}:
            warnings.append(
                f"{prefix}Units of the phase image are neither rad nor arbitrary; its scale is "
                "estimated from its values"
            )
            # Another unit, as Hz, is kept: it tells that this is no phase at all.
            units = units if isinstance(units, str) and units else None
    return Echo(
        magnitude=magnitude.image.path,
        phase=None if phase is None else phase.image.path,
        echo_time=seconds,
        phase_units=units,
    )


def _scan_warnings(
    first: _Screened, magnitudes: Mapping[int | None, _Screened], echoes: Sequence[Echo]
) -> list[str]:
    warnings = []
    if "MagneticFieldStrength" not in {*first.sidecar.metadata, *first.sidecar.left_out}:
        warnings.append("MagneticFieldStrength is unknown")
    name = first.image.name
    if name.suffix == "MEGRE" and None in magnitudes:
        warnings.append("a MEGRE image should name its echo")
    numbers = sorted(number for number in magnitudes if number is not None)
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    if missing:
        warnings.append(f"echo {', '.join(map(str, missing))} is not there")
    if (
        numbers
        and not missing
        and [echo.magnitude for echo in echoes]
        != [magnitudes[number].image.path for number in numbers]
    ):
        warnings.append("the echo times do not rise with the echo numbers; the times are used")
    with_phase = sum(echo.phase is not None for echo in echoes)
    if 0 < with_phase < len(echoes):
        warnings.append(f"only {with_phase} of {len(echoes)} echoes have a phase image")
    times = [echo.echo_time for echo in echoes if echo.echo_time is not None]
    if len(set(times)) < len(times):
        warnings.append("several echoes have the same echo time")
    unknown = [
        f"{key}-{value}"
        for key, value in name.entities.items()
        if key not in {*ENTITY_ORDER, "echo", "part"}
    ]
    if odd := [*unknown, *name.oddities]:
        warnings.append(f"parts of its name are left out of the outputs' names: {', '.join(odd)}")
    return warnings


# --- anatomy ---------------------------------------------------------------------------


def _choose_anatomy(
    anatomies: Sequence[Image],
    session: str | None,
    order: Sequence[str],
    reader: SidecarReader,
) -> tuple[list[Anatomy], str | None]:
    """Rank the T1w images for a session, best first, and say so where there was a choice.

    The first by these rules, in turn: of the same session; else of the session nearest in
    the order of labels, the earlier of two; without contrast agent (``ce``); without
    ``rec`` and ``acq``; lowest run; lowest echo; ``.nii.gz``; first by name. Phase, real and
    imaginary parts are never chosen.
    """
    usable = [
        image
        for image in anatomies
        if image.name.entities.get("part", "mag") == "mag" and _misplaced(image) is None
    ]
    if not usable:
        return [], None

    def rank(image: Image) -> tuple[Any, ...]:
        return (
            *session_distance(order, image.session, session),
            *anatomy_rank(image),
            image.echo or 0,
            not image.path.name.endswith(".nii.gz"),
            image.path.name,
        )

    best, *others = sorted(usable, key=rank)
    ranked = [
        Anatomy(
            path=image.path,
            entities=image.stem_entities,
            metadata=reader.read(image.path).metadata,
        )
        for image in (best, *others)
    ]
    notes = []
    rivals = [image.path.name for image in others if image.session == session]
    if best.session != session:
        notes.append(f"the T1w image is of another session: {best.path.name}")
    elif rivals:
        notes.append(f"of several T1w images {best.path.name} is used, not {', '.join(rivals)}")
    # The T1w image serves as anatomy whatever its sidecar says.
    notes += reader.read(best.path).unreadable
    return ranked, "; ".join(notes) or None
