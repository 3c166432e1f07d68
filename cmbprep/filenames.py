"""Names of BIDS files, taken apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

__all__ = ["IMAGE_EXTENSIONS", "BidsName", "parse_name"]

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
