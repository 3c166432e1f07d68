"""From a BIDS dataset to units of work: scans, their echoes and phase, and their anatomy.

The only user of pybids. Files are found by entities, with a configuration of our own
(``data/bids_layout.json``): it knows the folder ``swi/``, which is in no BIDS schema, and
looks at names from the participant's folder on, so that the path to the dataset may hold
anything. Only the folders ``anat/`` and ``swi/`` of the participants asked for are indexed.
Metadata comes from :mod:`cmbprep.sidecars`, for the scans that are used and no others.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .derivatives import DerivativeFolder, add_derivatives
from .errors import UsageError
from .filenames import IMAGE_EXTENSIONS, BidsName, parse_name
from .scans import ENTITY_ORDER, SEQUENCES, Anatomy, Echo, Refusal, Scan, Unit
from .screening import screen
from .selection import (
    check_dataset,
    check_filters,
    choose_participants,
    choose_sessions,
    layout_config,
    sessions_of,
)
from .sidecars import Sidecar, SidecarReader, echo_time
from .templates import PACKAGED_ID

__all__ = ["find_units"]

logger = logging.getLogger(__name__)

#: What is looked for when no filter says otherwise: kind of image -> pybids query.
QUERIES: Mapping[str, Mapping[str, Any]] = {
    "t2starw": {"suffix": ["T2starw", "GRE"], "datatype": ["anat", "swi"]},
    "megre": {"suffix": "MEGRE", "datatype": ["anat", "swi"]},
    "swi": {"suffix": ["swi", "SWI"], "datatype": ["anat", "swi"]},
    "t1w": {"suffix": "T1w", "datatype": "anat"},
}

DATATYPES = frozenset({"anat", "swi"})

#: Up to so many participants are indexed one by one.
FEW_PARTICIPANTS = 10

NOTHING = "there is no blood-sensitive scan"
_FIND_HINT = (
    "cmbprep looks in anat/ and swi/ for images that end in "
    f"{', '.join(f'_{suffix}' for suffix in sorted(SEQUENCES))}"
)


@dataclass(frozen=True)
class _Image:
    """An image file of the dataset, by its name and place alone."""

    path: Path
    name: BidsName
    subject: str
    session: str | None
    datatype: str

    @property
    def stem_entities(self) -> dict[str, str]:
        """Entities that tell scans apart."""
        known = self.name.entities
        return {key: known[key] for key in ENTITY_ORDER if key in known}

    @property
    def echo(self) -> int | None:
        value = self.name.entities.get("echo", "")
        return int(value) if value.isdigit() else None


@dataclass(frozen=True)
class _Screened:
    """An image that can be part of a scan, with its sidecar."""

    image: _Image
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
        :func:`cmbprep.selection.read_filter_file` gives them.
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
    check_filters(filters or {})
    subjects = choose_participants(root, participants)
    have = {subject: sessions_of(root, subject) for subject in subjects}
    chosen = choose_sessions(root, sessions, (label for all_ in have.values() for label in all_))
    images = _index(root, subjects, filters or {})
    reader = SidecarReader(root)
    units = []
    for subject in subjects:
        wanted = None if chosen is None else [label for label in chosen if label in have[subject]]
        if wanted == [] and participants is None:
            logger.info("sub-%s has none of the sessions asked for", subject)
            continue
        units += _units_of(
            root / f"sub-{subject}",
            images.get(subject, _Images()),
            chosen if wanted == [] else wanted,
            reader,
            nothing="no scan passes the filter file" if filters else NOTHING,
        )
    if participants is None and not any(unit.scans for unit in units):
        raise _nothing_found(root, units, filtered=bool(filters))
    if derivatives:
        units = add_derivatives(units, derivatives, reference=reference)
    return [_noted(unit) for unit in units]


def _noted(unit: Unit) -> Unit:
    """Tell the scans' reports what was chosen among the raw T1w images, if one of them is used."""
    given = unit.anatomy.given if unit.anatomy else None
    if unit.anatomy_note is None or (given is not None and given.t1w is not None):
        return unit
    scans = tuple(_with_warning(scan, unit.anatomy_note) for scan in unit.scans)
    return replace(unit, scans=scans)


def _nothing_found(root: Path, units: Iterable[Unit], *, filtered: bool) -> UsageError:
    refused = [refusal for unit in units for refusal in unit.refused if refusal.path.is_file()]
    if refused:
        first = refused[0]
        return UsageError(
            f"no scan can be processed; {len(refused)} were refused, the first because "
            f"{first.reason}",
            path=first.path,
            hint=first.hint,
        )
    if filtered:
        return UsageError(
            "no scan in the dataset passes the filter file",
            path=root,
            hint=f"compare its entities with the names of the scans; {_FIND_HINT}",
        )
    return UsageError("the dataset has no blood-sensitive scan", path=root, hint=_FIND_HINT)


# --- index -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Images:
    """The images of one participant that were found."""

    candidates: tuple[_Image, ...] = ()
    """Possible scans, and files that a person might take for one."""
    anatomies: tuple[_Image, ...] = ()


class _OutOfSight:
    """What pybids must not look at, in the guise of the regular expression that it takes.

    A real one would need an alternative for each participant, and be slow for thousands.

    Parameters
    ----------
    subjects
        Participants to look at.
    above
        Name of the participant's folder where that is the top of the index, with a
        leading /; empty where the dataset's folder is.
    """

    def __init__(self, subjects: Collection[str], above: str = "") -> None:
        self._folders = {f"sub-{subject}" for subject in subjects}
        self._above = above

    def search(self, path: str) -> bool:
        """Tell whether a path (from the top of the index, with a leading /) is ignored."""
        folder, *below = f"{self._above}{path}".strip("/").split("/")
        if folder not in self._folders:
            return True
        if below and below[0].startswith("ses-"):
            below = below[1:]
        if not below:
            return False
        datatype, *rest = below
        if datatype not in DATATYPES:
            return True
        return bool(rest) and not (len(rest) == 1 and rest[0].endswith(IMAGE_EXTENSIONS))


def _index(
    root: Path, subjects: Collection[str], filters: Mapping[str, Mapping[str, Any]]
) -> dict[str, _Images]:
    """Index the participants' images and sort them by participant."""
    candidates: dict[str, list[_Image]] = defaultdict(list)
    anatomies: dict[str, list[_Image]] = defaultdict(list)
    for layout in _layouts(root, subjects):
        found = {
            kind: set(layout.get(return_type="filename", **_query(kind, filters.get(kind, {}))))
            for kind in QUERIES
        }
        scans = found["t2starw"] | found["megre"] | found["swi"]
        for filename in sorted(layout.get(return_type="filename")):
            image = _image(Path(filename))
            if filename in scans:
                candidates[image.subject].append(image)
            elif filename in found["t1w"]:
                anatomies[image.subject].append(image)
            elif image.name.suffix not in {*SEQUENCES, "T1w"}:
                candidates[image.subject].append(image)
    return {
        subject: _Images(tuple(candidates[subject]), tuple(anatomies[subject]))
        for subject in {*candidates, *anatomies}
    }


def _layouts(root: Path, subjects: Collection[str]) -> Iterator[Any]:
    """Index the images of participants with pybids.

    pybids looks at every entry of its top folder, which takes long where there are tens of
    thousands, on network disks above all. For few participants their own folders are the
    top, and it takes the same time in any dataset.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    few = len(subjects) <= FEW_PARTICIPANTS
    tops = [f"/sub-{subject}" for subject in subjects] if few else [""]
    for above in tops:
        yield BIDSLayout(
            f"{root}{above}",
            validate=False,
            config=dict(layout_config()),
            indexer=BIDSLayoutIndexer(
                validate=False, index_metadata=False, ignore=[_OutOfSight(subjects, above)]
            ),
        )


def _query(kind: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Give the pybids query for a kind of image under a filter.

    As in fMRIPrep's filter files, null means that the entity must be absent and ``*`` that
    it must be present.
    """
    from bids.layout import Query

    def term(value: Any) -> Any:
        return {None: Query.NONE, "*": Query.ANY}.get(value, value)

    query = dict(QUERIES[kind])
    for entity, value in wanted.items():
        query[entity] = [term(item) for item in value] if isinstance(value, list) else term(value)
    if "extension" in query:
        given = query["extension"] if isinstance(query["extension"], list) else [query["extension"]]
        query["extension"] = [
            f".{item.lstrip('.')}" if isinstance(item, str) else item for item in given
        ]
    return query


def _image(path: Path) -> _Image:
    folder = path.parent.parent
    session = folder.name.removeprefix("ses-") if folder.name.startswith("ses-") else None
    subject_folder = folder.parent if session is not None else folder
    return _Image(
        path=path,
        name=parse_name(path),
        subject=subject_folder.name.removeprefix("sub-"),
        session=session,
        datatype=path.parent.name,
    )


# --- units -----------------------------------------------------------------------------


def _units_of(
    folder: Path,
    images: _Images,
    sessions: Sequence[str] | None,
    reader: SidecarReader,
    *,
    nothing: str,
) -> list[Unit]:
    """Make the units of one participant; ``nothing`` says why one is empty."""
    subject = folder.name.removeprefix("sub-")
    by_session: dict[str | None, list[_Image]] = defaultdict(list)
    for image in images.candidates:
        by_session[image.session].append(image)
    order = sorted({image.session or "" for image in (*images.candidates, *images.anatomies)})
    units = []
    for session in sorted(by_session, key=lambda label: label or ""):
        if sessions is not None and session not in sessions:
            continue
        scans, refused = _scans(by_session[session], reader)
        if not scans and not refused:
            continue
        anatomy, note = _choose_anatomy(images.anatomies, session, order, reader)
        units.append(
            Unit(
                subject=subject,
                session=session,
                scans=tuple(scans),
                anatomy=anatomy,
                refused=tuple(refused),
                anatomy_note=note,
            )
        )
    if sessions is None:
        return units or [_empty_unit(folder, subject, None, nothing)]
    done = {unit.session for unit in units}
    units += [
        _empty_unit(folder, subject, label, nothing) for label in sessions if label not in done
    ]
    return sorted(units, key=lambda unit: unit.session or "")


def _empty_unit(folder: Path, subject: str, session: str | None, nothing: str) -> Unit:
    where = folder / f"ses-{session}" if session else folder
    reason = nothing if where.is_dir() else "there is no such session"
    return Unit(
        subject=subject,
        session=session,
        scans=(),
        refused=(Refusal(path=where, reason=reason, hint=_FIND_HINT),),
    )


def _with_warning(scan: Scan, *sentences: str) -> Scan:
    return replace(scan, warnings=(*scan.warnings, *sentences))


# --- scans -----------------------------------------------------------------------------


def _scans(images: Iterable[_Image], reader: SidecarReader) -> tuple[list[Scan], list[Refusal]]:
    """Group the images of one session into scans, and turn away what is none."""
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
        key = (tuple(image.stem_entities.items()), image.name.suffix)
        groups[key].append(_Screened(image, sidecar, verdict.role))
    scans = []
    for _, members in sorted(groups.items()):
        scan, problems = _group(members)
        refused += problems
        if scan is not None:
            scans.append(scan)
    return scans, sorted(refused, key=lambda refusal: refusal.path)


def _misplaced(image: _Image) -> Refusal | None:
    """Refuse an image whose name tells of another participant or session than its folder."""
    named = (image.name.entities.get("sub"), image.name.entities.get("ses"))
    if named == (image.subject, image.session):
        return None
    start = f"sub-{image.subject}_" + (f"ses-{image.session}_" if image.session else "")
    return Refusal(
        path=image.path,
        reason="its name tells of another participant or session than its folder",
        hint=f"the name should start with {start}, or the file lie elsewhere",
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
                    reason="it is a phase image without its magnitude image",
                    hint="give the magnitude image of the same name, with part-mag in the "
                    "place of part-phase",
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


def _place(image: _Image) -> str:
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
    seconds, problem = echo_time(magnitude.sidecar.metadata)
    if problem:
        warnings.append(prefix + problem)
    warnings += magnitude.sidecar.warnings
    units = None
    if phase is not None:
        units = phase.sidecar.metadata.get("Units")
        if not isinstance(units, str) or units not in {"rad", "arbitrary"}:
            warnings.append(
                f"{prefix}Units of the phase image are neither rad nor arbitrary; its scale is "
                "told from its values"
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
    if "MagneticFieldStrength" not in first.sidecar.metadata:
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
    anatomies: Sequence[_Image],
    session: str | None,
    order: Sequence[str],
    reader: SidecarReader,
) -> tuple[Anatomy | None, str | None]:
    """Choose the T1w image for a session, and say so where there was a choice.

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
        return None, None

    def rank(image: _Image) -> tuple[Any, ...]:
        entities = image.name.entities
        distance = order.index(image.session or "") - order.index(session or "")
        run = entities.get("run", "0")
        return (
            abs(distance),
            distance > 0,
            "ce" in entities,
            ("rec" in entities) + ("acq" in entities) + len(image.name.oddities),
            int(run) if run.isdigit() else 0,
            image.echo or 0,
            not image.path.name.endswith(".nii.gz"),
            image.path.name,
        )

    best, *others = sorted(usable, key=rank)
    anatomy = Anatomy(
        path=best.path,
        entities=best.stem_entities,
        metadata=reader.read(best.path).metadata,
    )
    if best.session != session:
        return anatomy, f"the T1w image is of another session: {best.path.name}"
    rivals = [image.path.name for image in others if image.session == session]
    if rivals:
        return anatomy, f"of several T1w images {best.path.name} is used, not {', '.join(rivals)}"
    return anatomy, None
