"""The images of one session as scans, and the T1w image that goes with them.

Images that differ in ``echo`` and ``part`` alone are one scan. Of several files that claim the
same place one is used, and the others are refused with a reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmbprep.bids.index import Image, anatomy_rank, session_distance
from cmbprep.bids.model import ENTITY_ORDER, Anatomy, Echo, Refusal, Scan
from cmbprep.bids.near_names import nearest_name
from cmbprep.bids.screening import screen
from cmbprep.bids.sidecars import Sidecar, SidecarReader

_LONE_PHASE = "it is a phase image without a magnitude image that can be used"
_GIVE_MAGNITUDE = (
    "give the magnitude image of the same name, with part-mag in the place of part-phase; if it is "
    "there, see why it was refused"
)
_TELL_APART = (
    "give it an entity of its own (acq, rec or run), remove it, or choose with --bids-filter-file"
)


@dataclass(frozen=True)
class _Screened:
    """An image that can be part of a scan, with its sidecar."""

    image: Image
    sidecar: Sidecar
    role: str


def group_scans(images: Iterable[Image], reader: SidecarReader) -> tuple[list[Scan], list[Refusal]]:
    """Group the images of one session into scans; reject files that are not scans.

    Parameters
    ----------
    images
        Possible scans of one participant and session.
    reader
        Reads their sidecars.

    Returns
    -------
    scans
        Sorted by name.
    refused
        The files that look like scans and are not used, sorted by path.
    """
    refused: list[Refusal] = []
    groups: dict[tuple[Any, ...], list[_Screened]] = defaultdict(list)
    for image in images:
        found = _screened(image, reader)
        if isinstance(found, Refusal):
            refused.append(found)
        elif found is not None:
            key = (tuple(image.stem_entities.items()), image.name.suffix)
            groups[key].append(found)
    scans = []
    for _, members in sorted(groups.items()):
        scan, problems = _group(members)
        refused += problems
        if scan is not None:
            scans.append(scan)
    return scans, sorted(refused, key=lambda refusal: refusal.path)


def _screened(image: Image, reader: SidecarReader) -> _Screened | Refusal | None:
    """Read the sidecar of an image and decide what it is; None for images of other kinds."""
    if problem := _misplaced(image):
        return problem
    sidecar = reader.read(image.path)
    verdict = screen(image.name, sidecar.metadata, datatype=image.datatype)
    if verdict is None:
        return None
    if verdict.role == "refused":
        return Refusal(path=image.path, reason=verdict.reason, hint=verdict.hint)
    if sidecar.unreadable:
        # What it says may be a reason to refuse the image.
        reason = "; ".join(sidecar.unreadable)
        return Refusal(path=image.path, reason=reason, hint=sidecar.remedy)
    return _Screened(image, sidecar, verdict.role)


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
    refused += [
        Refusal(path=phase.image.path, reason=_LONE_PHASE, hint=_GIVE_MAGNITUDE)
        for number, phase in phases.items()
        if number not in magnitudes
    ]
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
    scan = Scan(
        entities=first.image.stem_entities,
        suffix=first.image.name.suffix,
        datatype=first.image.datatype,
        echoes=tuple(echoes),
        metadata=dict(first.sidecar.metadata),
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
            other = kept[number].image
            reason = f"it claims the same entities as {other.datatype}/{other.path.name}"
        else:
            kept[number] = item
            continue
        refused.append(Refusal(path=item.image.path, reason=reason, hint=_TELL_APART))
    return kept, refused


def _odd_parts(image: Image) -> list[str]:
    """List the parts of a name that BIDS does not know for scans."""
    known = {*ENTITY_ORDER, "echo", "part"}
    unknown = [f"{key}-{value}" for key, value in image.name.entities.items() if key not in known]
    return [*unknown, *image.name.oddities]


def _preference(item: _Screened) -> tuple[Any, ...]:
    image = item.image
    return (
        image.echo is None,
        image.echo or 0,
        "part" not in image.name.entities,
        image.datatype != "anat",
        len(_odd_parts(image)),
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
    if first.image.name.suffix == "MEGRE" and None in magnitudes:
        warnings.append("a MEGRE image should name its echo")
    numbers = sorted(number for number in magnitudes if number is not None)
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    if missing:
        warnings.append(f"echo {', '.join(map(str, missing))} is not there")
    by_time = [echo.magnitude for echo in echoes]
    by_number = [magnitudes[number].image.path for number in numbers]
    if numbers and not missing and by_time != by_number:
        warnings.append("the echo times do not rise with the echo numbers; the times are used")
    with_phase = sum(echo.phase is not None for echo in echoes)
    if 0 < with_phase < len(echoes):
        warnings.append(f"only {with_phase} of {len(echoes)} echoes have a phase image")
    times = [echo.echo_time for echo in echoes if echo.echo_time is not None]
    if len(set(times)) < len(times):
        warnings.append("several echoes have the same echo time")
    if odd := _odd_parts(first.image):
        warnings.append(f"parts of its name are left out of the outputs' names: {', '.join(odd)}")
    return warnings


# --- anatomy ---------------------------------------------------------------------------


def choose_anatomy(
    anatomies: Sequence[Image],
    session: str | None,
    order: Sequence[str],
    reader: SidecarReader,
) -> tuple[list[Anatomy], str | None]:
    """Rank the T1w images for a session, best first, and say so where there was a choice.

    Parameters
    ----------
    anatomies
        T1w images of all sessions of the participant.
    session
        The session that is processed.
    order
        Labels of all sessions, sorted; empty text for images outside of sessions.
    reader
        Reads their sidecars.

    Returns
    -------
    ranked
        Usable images.
    note
        What there was to choose; None if nothing.

    Notes
    -----
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
