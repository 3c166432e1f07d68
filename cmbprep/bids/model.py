"""What a dataset holds for cmbprep: units of work, their scans and their anatomy.

These are value objects: they check themselves when they are made, and the code after
them need not. They say where files are; nothing here opens an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType

#: BIDS suffix -> what kind of image it is to the detector.
SEQUENCES: Mapping[str, str] = MappingProxyType(
    {"T2starw": "T2starw", "MEGRE": "MEGRE", "GRE": "T2starw", "swi": "swi", "SWI": "swi"}
)

#: Entities in the order in which BIDS writes them, ``echo`` and ``part`` left out:
#: those tell the files of one scan apart, and a scan is processed as a whole.
ENTITY_ORDER = ("sub", "ses", "sample", "task", "acq", "ce", "rec", "dir", "run", "mod", "chunk")


def join_entities(entities: Mapping[str, str]) -> str:
    """Write entities as BIDS orders them, ``sub-01_acq-x_run-1``."""
    return "_".join(f"{key}-{entities[key]}" for key in ENTITY_ORDER if key in entities)


@dataclass(frozen=True, kw_only=True)
class Echo:
    """One echo of a scan: its magnitude image and, where there is one, its phase image."""

    magnitude: Path
    phase: Path | None = None
    echo_time: float | None = None
    """Seconds."""
    phase_units: str | None = None
    """``Units`` of the phase sidecar as they stand there (``rad`` or ``arbitrary``), or None."""

    def __post_init__(self) -> None:
        if self.echo_time is not None and not 0 < self.echo_time < 1:
            raise ValueError(f"an echo time of {self.echo_time} is not one in seconds")


@dataclass(frozen=True)
class GivenFile:
    """A file that another program has made, and the name of the derivative that it is from."""

    source: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One blood-sensitive scan: one image, or the echoes of one acquisition.

    Parameters
    ----------
    entities
        BIDS entities by short name (``sub``, ``ses``, ``acq``, ``run``, ...), without
        ``echo`` and ``part``.
    suffix
        The BIDS suffix of the source, one of :data:`SEQUENCES`.
    datatype
        The folder that the source lies in, ``anat`` or ``swi``.
    echoes
        In the order of their echo times.
    metadata
        The sidecar of the first echo's magnitude after inheritance.
    warnings
        What is amiss with the input, in sentences for the report.
    brain_mask
        A brain mask on the scan's own grid that was given; None where it is to be made.
    """

    entities: Mapping[str, str]
    suffix: str
    datatype: str
    echoes: tuple[Echo, ...]
    metadata: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    brain_mask: GivenFile | None = None

    def __post_init__(self) -> None:
        if self.suffix not in SEQUENCES:
            raise ValueError(f"{self.suffix!r} is none of {sorted(SEQUENCES)}")
        if "sub" not in self.entities:
            raise ValueError("a scan needs the entity sub")
        if unknown := set(self.entities) - set(ENTITY_ORDER):
            raise ValueError(f"entities {sorted(unknown)} do not belong to a scan")
        if not self.echoes:
            raise ValueError("a scan needs at least one echo")

    @property
    def subject(self) -> str:
        """Label of the participant, without ``sub-``."""
        return self.entities["sub"]

    @property
    def session(self) -> str | None:
        """Label of the session, without ``ses-``; None in a dataset without sessions."""
        return self.entities.get("ses")

    @property
    def sequence(self) -> str:
        """What kind of image this is to the detector (a value of :data:`SEQUENCES`)."""
        return SEQUENCES[self.suffix]

    @property
    def stem(self) -> str:
        """Entities as BIDS writes them: the source name without echo, part and suffix."""
        return join_entities(self.entities)

    @property
    def name(self) -> str:
        """Stem and suffix; what messages and reports call the scan."""
        return f"{self.stem}_{self.suffix}"

    @property
    def source(self) -> Path:
        """The first magnitude image."""
        return self.echoes[0].magnitude

    @property
    def files(self) -> tuple[Path, ...]:
        """All images of the scan."""
        phases = tuple(echo.phase for echo in self.echoes if echo.phase is not None)
        return tuple(echo.magnitude for echo in self.echoes) + phases

    @property
    def has_phase(self) -> bool:
        """Whether an echo has a phase image."""
        return any(echo.phase is not None for echo in self.echoes)

    @property
    def read_again(self) -> tuple[Path, ...]:
        """The images that the detector reads besides the preprocessed one, the mean of echoes."""
        return self.files if self.has_phase or len(self.echoes) > 1 else ()


@dataclass(frozen=True, kw_only=True)
class GivenAnatomy:
    """What another program has made of a participant's anatomy.

    Parameters
    ----------
    t1w
        T1w image after bias correction; None where the raw image is used.
    brain_mask, segmentation
        In the space of the T1w image, on any grid. Labels are FreeSurfer's.
    from_fsnative
        Transform that brings the segmentation onto the T1w image; None where they are in the
        same space.
    to_reference, from_reference
        Transforms that bring the T1w image onto the reference template and back.
    """

    t1w: GivenFile | None = None
    brain_mask: GivenFile | None = None
    segmentation: GivenFile | None = None
    from_fsnative: GivenFile | None = None
    to_reference: GivenFile | None = None
    from_reference: GivenFile | None = None

    @property
    def transforms(self) -> tuple[GivenFile, GivenFile] | None:
        """Both transforms, of which one alone is of no use; None where they are to be made."""
        # They were made for the image that was corrected with them.
        if self.t1w is None or self.to_reference is None or self.from_reference is None:
            return None
        return self.to_reference, self.from_reference

    @property
    def used(self) -> dict[str, GivenFile]:
        """The files that the T1w image's own results are made from, by what they are."""
        to_reference, from_reference = self.transforms or (None, None)
        parts = {
            "t1w": self.t1w,
            "brain_mask": self.brain_mask,
            "to_reference": to_reference,
            "from_reference": from_reference,
        }
        return {kind: part for kind, part in parts.items() if part is not None}


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A T1-weighted image of the participant, raw or as another program has left it."""

    path: Path
    entities: Mapping[str, str]
    metadata: Mapping[str, object] = field(default_factory=dict)
    given: GivenAnatomy | None = None

    @property
    def stem(self) -> str:
        """Entities as BIDS writes them, without the suffix."""
        return join_entities(self.entities)

    @property
    def name(self) -> str:
        """Stem and suffix."""
        return f"{self.stem}_T1w"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A file that looked like a scan and is not processed; the report says why."""

    path: Path
    reason: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One participant in one session: what one workflow works on."""

    subject: str
    session: str | None
    scans: tuple[Scan, ...]
    anatomy: Anatomy | None = None
    refused: tuple[Refusal, ...] = ()
    anatomy_note: str | None = None
    """What was to choose among the raw T1w images, for the report; None if nothing."""
    unread: bool = False
    """Whether the participant's folder could not be read, so that nothing is known of its scans."""
    spare_anatomies: tuple[Anatomy, ...] = ()
    """The other usable T1w images, best first, for when ``anatomy`` cannot be processed."""

    def __post_init__(self) -> None:
        for scan in self.scans:
            if (scan.subject, scan.session) != (self.subject, self.session):
                raise ValueError(f"{scan.name} does not belong to {self.label}")

    @property
    def label(self) -> str:
        """``sub-X`` or ``sub-X_ses-Y``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")


# --- Names of BIDS files, taken apart ------------------------------------------------------------


IMAGE_EXTENSIONS = (".nii.gz", ".nii")
_EXTENSION = re.compile(r"(\.nii\.gz|\.nii|\.json)$")
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")


@dataclass(frozen=True)
class BidsName:
    """The parts of a file name.

    Parameters
    ----------
    entities
        Values by short name (``sub``, ``acq``, ``part``, ...), in the order of the name.
    suffix
        The last part, ``T2starw`` for instance; empty in a name that ends with an entity.
    extension
        ``.nii.gz``, ``.nii``, ``.json``, or empty for any other.
    oddities
        Parts that are neither entity nor suffix, as BIDS does not allow them.
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str
    oddities: tuple[str, ...] = ()


def parse_name(path: str | PurePath) -> BidsName:
    """Take the name of a BIDS file apart.

    Examples
    --------
    >>> name = parse_name("sub-01_acq-fine_echo-2_MEGRE.nii.gz")
    >>> dict(name.entities)
    {'sub': '01', 'acq': 'fine', 'echo': '2'}
    >>> name.suffix, name.extension
    ('MEGRE', '.nii.gz')
    >>> parse_name("sub-01_acq-0.8mm_mag_swi.nii").oddities
    ('acq-0.8mm', 'mag')
    """
    filename = PurePath(path).name
    match = _EXTENSION.search(filename)
    extension = match.group(1) if match else ""
    *parts, last = filename.removesuffix(extension).split("_")
    suffix = last
    if "-" in last:
        parts, suffix = [*parts, last], ""
    entities: dict[str, str] = {}
    oddities = []
    for part in parts:
        entity = _ENTITY.fullmatch(part)
        if entity is None or entity.group(1) in entities:
            oddities.append(part)
        else:
            entities[entity.group(1)] = entity.group(2)
    return BidsName(entities, suffix, extension, tuple(oddities))
