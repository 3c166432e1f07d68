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

In an output dataset of cmbprep its records decide which scans have a result
(:mod:`cmbprep.reports.usable`): files of the others are not read.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.files.text import read_object
from cmbprep.outputs.stages import BLOCK

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
    the sidecars name: entities (without echo and part) and suffix of each. ``gap`` says why
    the scan has no result; None for one that has.
    """

    key: ScanKey
    name: str
    roles: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    sources: frozenset[tuple[ScanKey, str]] = frozenset()
    gap: str | None = None

    @property
    def entities(self) -> dict[str, str]:
        """The entities that name the scan."""
        return dict(self.key)


@dataclass(frozen=True)
class FoundScans:
    """What a folder says of scans, each in the order of their names.

    Parameters
    ----------
    scans
        Scans with a result.
    gaps
        Scans of a cmbprep output that have none.
    others
        Files of such an output that were refused, or belong to a superseded result. Their
        names may be those of scans with a result elsewhere, so they have no say in pairing.
    """

    scans: tuple[ScanFiles, ...]
    gaps: tuple[ScanFiles, ...] = ()
    others: tuple[ScanFiles, ...] = ()


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
) -> FoundScans:
    """Find the scans that a folder describes, and those that its records name without a result.

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
    outputs = _Outputs(folder, files)
    if pattern is not None:
        named = [(p, _any_role(p)) for p in files if fnmatch.fnmatch(p.name, pattern)]
    else:
        named = [(p, role) for p in files if (role := _bids_role(p, folder))]
        # Without any table, mask or map under a BIDS name, all that is there may be one.
        if not any(not role.startswith("mimic") for _, role in named):
            named += [
                (p, _any_role(p))
                for p in files
                if not _role(*parse_name(p)) and outputs.of(p) is None
            ]
    roles: dict[ScanKey, dict[str, Path]] = {}
    names: dict[ScanKey, str] = {}
    without: dict[ScanKey, ScanFiles] = {}
    for path, role in named:
        entities, _, _ = parse_name(path.relative_to(folder))
        if "sub" not in entities or (wanted is not None and entities["sub"] not in wanted):
            continue
        key, name = _scan_of(entities)
        if reason := outputs.gap(path, key):
            without.setdefault(key, ScanFiles(key, name, gap=reason))
            continue
        names.setdefault(key, name)
        _add(roles.setdefault(key, {}), role, path, folder)
    scans = [
        ScanFiles(key, names[key], roles[key], _sources(roles[key].values()))
        for key in sorted(roles, key=lambda key: names[key])
    ]
    found = [scan for scan in scans if any(not r.startswith("mimic") for r in scan.roles)]
    result = outputs.complete(found, list(without.values()), wanted)
    if not found:
        raise _nothing_found(folder, result.gaps)
    return result


def _scan_of(entities: Mapping[str, str]) -> tuple[ScanKey, str]:
    """Return the key and the name of the scan that a file belongs to."""
    source = {k: v for k, v in entities.items() if k not in DERIVATIVE_ENTITIES}
    return tuple(sorted(source.items())), "_".join(f"{k}-{v}" for k, v in source.items())


def _nothing_found(folder: Path, gaps: tuple[ScanFiles, ...]) -> UsageError:
    if gaps:
        named = "; ".join(f"{scan.name}: {scan.gap}" for scan in gaps[:3])
        more = f"; and {len(gaps) - 3} others" if len(gaps) > 3 else ""
        return UsageError(
            f"no scan of this output of cmbprep has a result ({named}{more})",
            path=folder,
            hint="run the participant level again",
        )
    return UsageError(
        "no lesion table, mask or probability map of any scan is in this folder",
        path=folder,
        hint="give files BIDS names with sub- (sub-01_label-CMB_mask.nii.gz), or say with "
        "--truth-pattern / --prediction-pattern which files to read",
    )


class _Outputs:
    """The output datasets of cmbprep that a folder is, holds or lies in, and their records."""

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        from cmbprep.reports.usable import find_output

        self._folder = folder.resolve()
        # Datasets are looked for at and above each folder that has files. Links within the
        # dataset are not followed: what they lead to may lie in a store outside.
        folders = {folder, *(path.parent for path in files)}
        self._tops = {
            item: find_output(self._folder / item.relative_to(folder)) for item in folders
        }
        self._records: dict[Path, _Recorded] = {}
        for top in sorted({top for top in self._tops.values() if top is not None}):
            self._records[top] = _Recorded(top)

    def of(self, path: Path) -> _Recorded | None:
        """Return the records that a file falls under; None for a file of another program."""
        top = self._tops[path.parent]
        return None if top is None else self._records[top]

    def gap(self, path: Path, key: ScanKey) -> str | None:
        """Return why a file does not count as a result; None if it does."""
        records = self.of(path)
        return None if records is None else records.gap(key)

    def complete(
        self,
        scans: list[ScanFiles],
        without: list[ScanFiles],
        wanted: set[str] | None,
    ) -> FoundScans:
        """Add the scans that are known by records alone."""
        seen = {scan.key for scan in scans}
        gaps: dict[ScanKey, ScanFiles] = {}
        others = {scan.key: scan for scan in without if scan.key not in seen}
        for top, records in self._records.items():
            for group, known in ((gaps, records.gaps), (others, records.refused)):
                for scan in known:
                    chosen = wanted is None or scan.entities["sub"] in wanted
                    if chosen and scan.key not in seen and self._covers(top, scan):
                        group.setdefault(scan.key, scan)
        others = {key: scan for key, scan in others.items() if key not in gaps}
        return FoundScans(tuple(scans), _by_name(gaps), _by_name(others))

    def _covers(self, top: Path, scan: ScanFiles) -> bool:
        """Whether the place of a scan's results lies in the folder that was asked for."""
        place = top / f"sub-{scan.entities['sub']}"
        if "ses" in scan.entities:
            place = place / f"ses-{scan.entities['ses']}"
        return place.is_relative_to(self._folder) or self._folder.is_relative_to(place)


class _Recorded:
    """What the records of an output dataset say of scans."""

    def __init__(self, top: Path) -> None:
        from cmbprep.reports.usable import usable_results

        self._known = known = usable_results(top)
        stems = [*known.superseded, *known.unusable, *known.complete]
        self._stems = {_scan_of(parse_name(Path(stem))[0])[0]: stem for stem in stems}
        self.gaps = self._scans(known.unusable)
        self.refused = self._scans(known.refused)

    @staticmethod
    def _scans(reasons: Mapping[str, str]) -> list[ScanFiles]:
        found = []
        for stem, reason in reasons.items():
            entities, _, _ = parse_name(Path(stem))
            if "sub" in entities:
                found.append(ScanFiles(*_scan_of(entities), gap=reason))
        return found

    def gap(self, key: ScanKey) -> str | None:
        """Return why the scan of a key has no result; None if it has one."""
        stem = self._stems.get(key, "")
        return None if stem in self._known.complete else self._known.reason(stem)


def _by_name(scans: Mapping[ScanKey, ScanFiles]) -> tuple[ScanFiles, ...]:
    return tuple(sorted(scans.values(), key=lambda scan: scan.name))


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
    # A copy in another space has other coordinates than the scan; a reader's result is not the
    # detector's, and a follow-up numbers the lesions of two scans.
    other = entities.get("desc", "").startswith(("reviewed", "followup")) or "space" in entities
    return None if other else _role(entities, suffix, extension)


def _any_role(path: Path) -> str:
    return "table" if path.name.endswith(".tsv") else "any"


def without_parts(entities: Mapping[str, str]) -> ScanKey:
    """Return the entities that echoes, magnitude and phase of one acquisition share."""
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


# --- Which scan of the truth is which scan of the prediction -------------------------------------


@dataclass(frozen=True)
class Pairing:
    """Pairs, and scans of either side without a partner; each in the order of their names.

    ``pairs`` holds (truth, prediction, how): ``how`` is "same entities", "named source" or
    "shared entities". A truth may stand for several predictions, not the other way round.
    """

    pairs: tuple[tuple[ScanFiles, ScanFiles, str], ...]
    truth_only: tuple[ScanFiles, ...]
    predicted_only: tuple[ScanFiles, ...]


def pair_scans(truth: list[ScanFiles], predicted: list[ScanFiles]) -> Pairing:
    """Pair scans by their entities.

    First scans with the same entities. Then every prediction made from a scan that a truth's
    sidecar names under ``Sources``: one truth may stand for several images of one acquisition
    (``sub-01_acq-T2starw`` and ``sub-01_acq-swi``). Of the rest, two are a pair if they have
    the same subject, no entity that both have differs, and neither fits any other of the rest:
    so a truth named ``sub-01`` finds ``sub-01_acq-swi`` where there is one only.
    """
    by_key = {scan.key: scan for scan in predicted}
    pairs = [(scan, by_key[scan.key], "same entities") for scan in truth if scan.key in by_key]
    done = {scan.key for scan, _, _ in pairs}
    left_predicted = [scan for scan in predicted if scan.key not in done]
    for scan in truth:
        named = [other for other in left_predicted if _made_from(other, scan)]
        pairs += [(scan, other, "named source") for other in named]
        left_predicted = [other for other in left_predicted if other not in named]
    done |= {scan.key for scan, _, _ in pairs}
    left_truth = [scan for scan in truth if scan.key not in done]
    fits = {
        scan.key: [other for other in left_predicted if _agree(scan, other)] for scan in left_truth
    }
    for scan in left_truth:
        candidates = fits[scan.key]
        if len(candidates) == 1:
            rivals = [other for other in left_truth if candidates[0] in fits[other.key]]
            if len(rivals) == 1:
                pairs.append((scan, candidates[0], "shared entities"))
    used_truth = {id(scan) for scan, _, _ in pairs}
    used_predicted = {id(scan) for _, scan, _ in pairs}
    return Pairing(
        tuple(sorted(pairs, key=lambda pair: (pair[0].name, pair[1].name))),
        tuple(scan for scan in truth if id(scan) not in used_truth),
        tuple(scan for scan in predicted if id(scan) not in used_predicted),
    )


def _made_from(predicted: ScanFiles, truth: ScanFiles) -> bool:
    """Whether the truth names the scan of a prediction.

    Images that differ in their suffix alone are told apart by the suffix: cmbprep puts it
    into the entity ``acq``, other programs into ``mod``.
    """
    modality = predicted.entities.get("mod")
    key = without_parts(predicted.entities)
    for source, suffix in truth.sources:
        entities = dict(source)
        entities["acq"] = entities.get("acq", "") + suffix
        if key == without_parts(entities) or (key == source and modality in (None, suffix)):
            return True
    return False


def _agree(one: ScanFiles, other: ScanFiles) -> bool:
    a, b = one.entities, other.entities
    return a["sub"] == b["sub"] and all(a[name] == b[name] for name in a.keys() & b.keys())
