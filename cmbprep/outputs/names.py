"""File names of the output dataset.

``data/outputs.json`` lists the files of each stage: the pattern of the name (``file``), what the
sidecar says of an image besides its sources (``metadata``; that of the key ``sidecar`` describes
the stage), and whether only some inputs give the file (``optional``). The same table serves the
writer (which name to write) and the finder (which name to look for), so the two cannot differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbprep.bids.model import join_entities

if TYPE_CHECKING:
    from cmbprep.bids.model import Anatomy, Scan

#: Suffix of a source -> its mark in the entity ``acq`` of the names of its outputs. No mark
#: is the end of another one, so that a name tells which source it belongs to.
MARKS: Mapping[str, str] = {
    "T2starw": "T2starw",
    "MEGRE": "MEGRE",
    "GRE": "singleGRE",
    "swi": "swi",
    "SWI": "SWI",
}

_LABEL = re.compile(r"[A-Za-z0-9+]+")
_STEM = re.compile(r"[A-Za-z0-9+]+-[A-Za-z0-9+]+(?:_[A-Za-z0-9+]+-[A-Za-z0-9+]+)*")


@cache
def output_table() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the table of outputs: stage -> key -> entry of the file."""
    text = resources.files("cmbprep.data").joinpath("outputs.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, Any]]] = json.loads(text)
    return table


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the patterns of the table are filled with.

    Parameters
    ----------
    subject, session
        Labels without ``sub-`` and ``ses-``.
    src
        Entities of the source, without its suffix.
    suffix
        Suffix of the source.
    template
        Id of the output template.
    reference
        Id of the packaged template, the space of the zone atlas; every scan is
        registered to it, whatever the output template.
    target
        What the scan was registered to: ``T1w`` or the reference.
    scheme
        Name of the zone scheme.

    Raises
    ------
    ValueError
        If a value could lead out of the participant's folder: each must be a BIDS label,
        and ``src`` must start with the participant and the session.
    """

    subject: str
    session: str | None
    src: str
    suffix: str
    template: str
    reference: str
    target: str
    scheme: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "session" and value is None:
                continue
            pattern = _STEM if name == "src" else _LABEL
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise ValueError(f"{name} {value!r} cannot be part of a file name")
        unit = f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")
        if self.src != unit and not self.src.startswith(f"{unit}_"):
            raise ValueError(f"{self.src!r} does not belong to {unit}")

    @cached_property
    def folder(self) -> Path:
        """Folder of the files, relative to the output dataset."""
        session = (f"ses-{self.session}",) if self.session else ()
        return Path(f"sub-{self.subject}", *session, "anat")

    def fill(self, pattern: str) -> str:
        """Return the name of a file in the folder."""
        # A rigid transform is an ITK text file, a deformation a field of displacements.
        extension = ".txt" if self.target == "T1w" else ".nii.gz"
        return pattern.format(**vars(self), xfm_extension=extension)


def output_stem(entities: Mapping[str, str], suffix: str) -> str:
    """Write the entities that the names of a scan's outputs start with.

    Derivative names carry no source suffix, so ``sub-1_T2starw`` and ``sub-1_swi`` would
    both give ``sub-1_label-CMB_mask``. Every suffix but ``T2starw`` is therefore put at the
    end of the entity ``acq``, which BIDS allows on every kind of file here. The name depends
    on its own source alone, and two sources never share one: a ``T2starw`` whose ``acq``
    ends like such a mark gets a mark too.

    Examples
    --------
    >>> output_stem({"sub": "1", "acq": "fast"}, "T2starw")
    'sub-1_acq-fast'
    >>> output_stem({"sub": "1"}, "swi"), output_stem({"sub": "1", "acq": "fast"}, "MEGRE")
    ('sub-1_acq-swi', 'sub-1_acq-fastMEGRE')
    >>> output_stem({"sub": "1", "acq": "swi"}, "T2starw")
    'sub-1_acq-swiT2starw'
    """
    acquisition = entities.get("acq", "")
    if suffix == "T2starw" and not acquisition.endswith(tuple(MARKS.values())):
        return join_entities(entities)
    return join_entities({**entities, "acq": acquisition + MARKS[suffix]})


def plan_names(
    scan: Scan, *, template: str, reference: str, scheme: str, anatomy: Anatomy | None
) -> Names:
    """Choose the names of a scan's outputs (see :func:`output_stem`)."""
    return Names(
        subject=scan.subject,
        session=scan.session,
        src=output_stem(scan.entities, scan.suffix),
        suffix=scan.suffix,
        template=template,
        reference=reference,
        target="T1w" if anatomy else reference,
        scheme=scheme.upper(),
    )
