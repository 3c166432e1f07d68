"""Which files of a folder describe the lesions of which scan.

Files are recognised by their BIDS entities and suffix, wherever in the folder they lie:

=========================  ==================================================================
``seg-CMB_dseg.tsv``       lesion table (with ``seg-CMB_dseg.nii.gz`` as its voxels, if there)
``seg-CMB_dseg.nii.gz``    labelled image
``label-CMB_mask``         binary mask
``label-CMB_probseg``      probability map
``seg-mimic_dseg``         table and labelled image of known mimics (or ``seg-mimics``)
=========================  ==================================================================

A folder without any such name may hold other tools' files: then every image or table whose
name or folder says ``sub-`` is taken (or those that a pattern picks), one a scan.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import CmbprepError, UsageError
from ..outputs import BLOCK
from ..textfiles import read_object

__all__ = [
    "ScanFiles",
    "ScanKey",
    "find_scans",
    "is_own_result",
    "parse_name",
    "without_parts",
]

#: Entities that tell derivatives of one scan apart, and so do not name the scan.
DERIVATIVE_ENTITIES = frozenset(
    ("space", "atlas", "seg", "scale", "res", "den", "label", "desc", "from", "to", "mode")
)
_EXTENSIONS = (".nii.gz", ".nii", ".tsv")
_SKIPPED_FOLDERS = frozenset(("figures", "logs", "sourcedata", "work", "code"))

ScanKey = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ScanFiles:
    """The files of one scan on one side (truth or prediction), by their role.

    ``roles`` maps ``table``, ``dseg``, ``mask``, ``probseg``, ``mimic_table``, ``mimic_dseg``
    or ``any`` (an image whose values tell what it is) to a path. ``name`` is the source's
    name without its suffix, ``sub-01_acq-fast`` for instance. ``sources`` are the scans that
    the sidecars name: entities (without echo and part) and suffix of each.
    """

    key: ScanKey
    name: str
    roles: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    sources: frozenset[tuple[ScanKey, str]] = frozenset()

    @property
    def entities(self) -> dict[str, str]:
        """The entities that name the scan."""
        return dict(self.key)


def parse_name(path: Path) -> tuple[dict[str, str], str, str]:
    """Split a file name into entities, suffix and extension.

    Parts that are neither stay out. A name without ``sub`` takes it, and ``ses``, from the
    folders above it.

    Examples
    --------
    >>> parse_name(Path("sub-1_run-2_seg-CMB_dseg.nii.gz"))
    ({'sub': '1', 'run': '2', 'seg': 'CMB'}, 'dseg', '.nii.gz')
    """
    extension = next((ext for ext in _EXTENSIONS if path.name.endswith(ext)), path.suffix)
    parts = path.name[: len(path.name) - len(extension)].split("_")
    entities: dict[str, str] = {}
    for part in parts:
        entity, dash, value = part.partition("-")
        if dash and entity.isalpha() and value:
            entities[entity] = value
    for folder in reversed(path.parts[:-1]):
        entity, dash, value = folder.partition("-")
        if dash and value and entity in ("sub", "ses") and entity not in entities:
            entities = {entity: value, **entities}
    return entities, parts[-1] if "-" not in parts[-1] else "", extension


def _role(entities: Mapping[str, str], suffix: str, extension: str) -> str | None:
    seg, label = entities.get("seg", "").lower(), entities.get("label", "").lower()
    is_table = extension == ".tsv"
    if suffix == "dseg" and seg in ("cmb", "mimic", "mimics"):
        return ("" if seg == "cmb" else "mimic_") + ("table" if is_table else "dseg")
    if label == "cmb" and suffix in ("mask", "probseg") and not is_table:
        return suffix
    return None


def find_scans(
    folder: Path, pattern: str | None = None, subjects: Iterable[str] | None = None
) -> list[ScanFiles]:
    """Find the scans that a folder describes, in the order of their names.

    Parameters
    ----------
    folder
        BIDS derivatives or a plain folder; searched with all folders in it.
    pattern
        Shell pattern for file names (``*_CMB.nii.gz``): only these are read, whatever their
        entities say, and images are taken for what their values say they are.
    subjects
        Labels without ``sub-``; None for all.

    Raises
    ------
    UsageError
        If the folder does not exist, no file fits, or two files fit the same place.
    """
    if not folder.is_dir():
        raise UsageError("there is no such folder", path=folder)
    wanted = None if subjects is None else {label.removeprefix("sub-") for label in subjects}
    files = [path for path in _walk(folder) if path.name.endswith(_EXTENSIONS)]
    if pattern is not None:
        named = [(p, _any_role(p)) for p in files if fnmatch.fnmatch(p.name, pattern)]
    else:
        named = [(p, role) for p in files if (role := _bids_role(p, folder))]
        # Without any table, mask or map under a BIDS name, all that is there may be one.
        if not any(not role.startswith("mimic") for _, role in named):
            named += [(p, _any_role(p)) for p in files if not _role(*parse_name(p))]
    roles: dict[ScanKey, dict[str, Path]] = {}
    names: dict[ScanKey, str] = {}
    for path, role in named:
        entities, _, _ = parse_name(path.relative_to(folder))
        if "sub" not in entities or (wanted is not None and entities["sub"] not in wanted):
            continue
        source = {k: v for k, v in entities.items() if k not in DERIVATIVE_ENTITIES}
        key = tuple(sorted(source.items()))
        names.setdefault(key, "_".join(f"{k}-{v}" for k, v in source.items()))
        _add(roles.setdefault(key, {}), role, path, folder)
    scans = [
        ScanFiles(key, names[key], roles[key], _sources(roles[key].values()))
        for key in sorted(roles, key=lambda key: names[key])
    ]
    found = [scan for scan in scans if any(not r.startswith("mimic") for r in scan.roles)]
    if not found:
        raise UsageError(
            "no lesion table, mask or probability map of any scan is in this folder",
            path=folder,
            hint="give files BIDS names with sub- (sub-01_label-CMB_mask.nii.gz), or say with "
            "--truth-pattern / --prediction-pattern which files to read",
        )
    return found


def _walk(folder: Path) -> list[Path]:
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith(".")
        )
        found += [Path(where) / name for name in sorted(names) if not name.startswith(".")]
    return found


def _bids_role(path: Path, folder: Path) -> str | None:
    entities, suffix, extension = parse_name(path.relative_to(folder))
    # A copy in another space has other coordinates than the scan.
    return None if "space" in entities else _role(entities, suffix, extension)


def _any_role(path: Path) -> str:
    return "table" if path.name.endswith(".tsv") else "any"


def without_parts(entities: Mapping[str, str]) -> ScanKey:
    """Give the entities that echoes, magnitude and phase of one acquisition share."""
    return tuple(sorted((k, v) for k, v in entities.items() if k not in ("echo", "part", "mod")))


def _sources(paths: Iterable[Path]) -> frozenset[tuple[ScanKey, str]]:
    """Read the scans that sidecars name under ``Sources`` (paths or BIDS URIs)."""
    found = set()
    for path in paths:
        content = _read_sidecar(path)
        # Without a sidecar, entities alone pair the scans.
        named = content.get("Sources")
        for source in named if isinstance(named, list) else ():
            entities, suffix, _ = parse_name(Path(str(source).rpartition(":")[2]))
            found.add((without_parts(entities), suffix))
    return frozenset(found)


def is_own_result(path: Path) -> bool:
    """Return whether a lesion table or labelled image was written by the participant level."""
    block = _read_sidecar(path).get(BLOCK)
    return isinstance(block, dict) and block.get("Stage") == "lesions"


def _read_sidecar(path: Path) -> Mapping[str, Any]:
    """Read the sidecar of a table or image; empty where there is none that can be read."""
    extension = next(ext for ext in _EXTENSIONS if path.name.endswith(ext))
    sidecar = path.with_name(path.name.removesuffix(extension) + ".json")
    try:
        return read_object(sidecar).content
    except CmbprepError:
        return {}


def _add(roles: dict[str, Path], role: str, path: Path, folder: Path) -> None:
    if role in roles:
        both = sorted(str(p.relative_to(folder)) for p in (roles[role], path))
        raise UsageError(
            f"two files describe the same scan in the same way: {both[0]} and {both[1]}",
            path=folder,
            hint="keep one, or pick with --truth-pattern / --prediction-pattern",
        )
    roles[role] = path
