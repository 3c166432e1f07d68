"""Stages of the work: their files, fingerprints and records, and finding what is there.

A stage's sidecar is written after its images and carries a
fingerprint of all that went into it: a stage counts as done when its sidecar says so,
and half-written results of a killed run are never taken for whole ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from cmbprep import __version__
from cmbprep.bids.quantities import check_metadata
from cmbprep.errors import CmbprepError, about
from cmbprep.lesions import COLUMNS, Lesion, read_lesions
from cmbprep.outputs.files import file_digest, read_json
from cmbprep.outputs.names import Names, output_table

logger = logging.getLogger("cmbprep")

#: Key of cmbprep's own block in a sidecar.
BLOCK = "Cmbprep"
#: Stage -> pattern of the name of the sidecars that close it.
STAGES: Mapping[str, re.Pattern[str]] = {
    "anatomy": re.compile(r"sub-.*_desc-preproc_T1w\.json"),
    "preproc": re.compile(r"sub-.*_desc-preproc_(?!T1w\.json).*\.json"),
    "lesions": re.compile(r"sub-.*_seg-CMB_dseg\.json"),
}
_AGAIN = "run the participant level again for this scan"


@dataclass(frozen=True)
class StageFiles:
    """The files of one stage for one scan (or one T1w image)."""

    root: Path
    stage: str
    names: Names

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"{self.stage!r} is none of {tuple(STAGES)}")

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the files that the stage always leaves, the sidecar left out."""
        return _keys(self.stage, False)

    @property
    def optional(self) -> tuple[str, ...]:
        """Keys of the files that the stage leaves for some inputs only."""
        return _keys(self.stage, True)

    @cached_property
    def folder(self) -> Path:
        """Folder of all files of the stage."""
        return self.root / self.names.folder

    def name(self, key: str) -> str:
        """Return the name of a file by its key in the table."""
        return self.names.fill(output_table()[self.stage][key]["file"])

    def path(self, key: str) -> Path:
        """Return the path of a file by its key in the table."""
        return self.folder / self.name(key)

    @cached_property
    def sidecar(self) -> Path:
        """The sidecar that closes the stage."""
        return self.path("sidecar")

    def existing(self, wanted: str) -> tuple[dict[str, Path] | None, str]:
        """Find finished results of this stage.

        Parameters
        ----------
        wanted
            The fingerprint that the results must have.

        Returns
        -------
        files
            Key -> path, or None when the stage has to be computed.
        reason
            Why, in words for the log.
        """
        if not self.sidecar.exists():
            return None, "not there yet"
        try:
            record = read_record(self.root, self.sidecar)
        except CmbprepError as error:
            return None, str(error)
        if record is None or record.files.stage != self.stage:
            return None, f"{self.sidecar.name} belongs to other results"
        if record.block.get("Fingerprint") != wanted:
            return None, "made from other input, parameters or version"
        if damage := record.damage():
            return None, damage
        if any(path != self.path(key) for key, path in record.paths.items()):
            return None, "its files have other names"
        return record.paths, "input, parameters and version are the same"


@dataclass(frozen=True)
class StageRecord:
    """A finished stage as it is found in an output dataset.

    Parameters
    ----------
    files
        The files.
    metadata
        Content of the sidecar; the data dictionary of the lesion table, which is the same in all,
        is left out.
    """

    files: StageFiles
    metadata: Mapping[str, Any]

    @property
    def block(self) -> Mapping[str, Any]:
        """The block added to a sidecar by cmbprep (Version, Parameters, Quality, ...)."""
        block: Mapping[str, Any] = self.metadata[BLOCK]
        return block

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the files that the sidecar vouches for, itself left out."""
        also = [key for key in self.files.optional if key in self.block.get("Optional", ())]
        return (*self.files.keys, *also)

    @property
    def paths(self) -> dict[str, Path]:
        """Key -> path of the files that the sidecar vouches for, itself left out."""
        return {key: self.files.path(key) for key in self.keys}

    def damage(self) -> str | None:
        """Check that the files are whole, and the lesion table consistent.

        Returns
        -------
        str or None
            What is damaged first; None if nothing is.
        """
        found = self.broken_file()
        if found is None and self.files.stage == "lesions":
            try:
                self.lesions()
            except CmbprepError as error:
                return str(error)
        return found

    def broken_file(self) -> str | None:
        """Find a file that is not there or not of the size written; None if all are whole."""
        sizes, folder = self.block.get("Files", {}), os.fspath(self.files.folder)
        for key in self.keys:
            name = self.files.name(key)
            size = _size_of(f"{folder}/{name}")
            if size is None:
                return f"{name} is missing"
            # A table may be corrected by hand: whether it is whole is told by reading it.
            if size == 0 or (key != "table" and sizes.get(key, size) != size):
                return f"{name} is not whole ({size} bytes)"
            sidecar, wanted = _sidecar_name(name), sizes.get(f"{key}.json")
            if wanted is not None and _size_of(f"{folder}/{sidecar}") != wanted:
                return f"{sidecar} is not whole"
        return None

    def lesions(self) -> list[Lesion]:
        """Read the lesion table of the stage ``lesions``.

        Raises
        ------
        CmbprepError
            If the table is damaged, or does not agree with its label image, its sidecar or
            the zone scheme.
        """
        from cmbprep.zones.schemes import get_scheme

        path = self.files.path("table")
        scheme = get_scheme(self.files.names.scheme)
        found = read_lesions(path, scheme=scheme, labels=self._labels())
        written = self.block.get("Lesions", {})
        for lesion in found:
            place = place_and_size(lesion)
            if written.get(str(lesion.index), place) != place:
                raise CmbprepError(
                    f"lesion {lesion.index} has another place or volume than the one in the "
                    "label image: the table is of another scan, or was changed",
                    path=path.name,
                    hint=_AGAIN,
                )
        return found

    def edits(self) -> tuple[str, ...]:
        """Return how the lesion table differs from what was written, in sentences.

        Older results record the size of the table alone.

        Raises
        ------
        CmbprepError
            If the table cannot be read.
        """
        from cmbprep.files.tsv import listing, read_tsv

        path, digest = self.files.path("table"), self.block.get("Table")
        size = self.block.get("Files", {}).get("table")
        same = file_digest(path) == digest if digest else size in (None, _size_of(path))
        if same:
            return ()
        unknown = [name for name in read_tsv(path).header if name not in COLUMNS]
        also = f"; columns that are not used: {listing(unknown)}" if unknown else ""
        return (f"the lesion table {path.name} was changed after it was written{also}",)

    def _labels(self) -> list[int]:
        """Labels of the lesions in the label image, checked against the sidecar."""
        image = self.files.path("dseg")
        written = self.block.get("Labels")
        with about(image.name, hint=_AGAIN):
            try:
                # Most images are as they were written: their labels need no reading of voxels.
                if written is not None and file_digest(image) == self.block.get("LabelImage"):
                    return [int(label) for label in written]
                labels = label_values(image)
            except (OSError, EOFError, ValueError, TypeError) as error:
                raise CmbprepError(f"the label image cannot be read ({error})") from error
            if written is not None and labels != sorted(written):
                raise CmbprepError(
                    f"the label image has {len(labels)} lesions and its sidecar {len(written)}"
                )
        return labels


@cache
def _keys(stage: str, optional: bool) -> tuple[str, ...]:
    return tuple(
        key
        for key, entry in output_table()[stage].items()
        if key != "sidecar" and bool(entry.get("optional")) == optional
    )


def sidecar_path(image: Path) -> Path:
    """Return the path of an image's JSON file."""
    return image.with_name(_sidecar_name(image.name))


def _sidecar_name(image: str) -> str:
    return image.partition(".")[0] + ".json"


def _size_of(path: Path | str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - paths take most of the time
    except OSError:
        return None


def place_and_size(lesion: Lesion) -> list[float]:
    """Return what ties a row of the table to its label: x, y, z (mm, RAS+) and volume (mm³)."""
    return [round(value, 2) for value in (*lesion.centre, lesion.volume_mm3)]


def label_values(path: Path) -> list[int]:
    """Read the labels of a label image, background left out, in rising order.

    Raises
    ------
    OSError, EOFError, ValueError
        If the image cannot be read.
    """
    import zlib

    import nibabel as nib
    import numpy as np

    try:
        image: Any = nib.load(path)
        values = np.unique(np.asarray(image.dataobj))
    except (nib.filebasedimages.ImageFileError, zlib.error) as error:
        raise ValueError(str(error)) from error
    return [int(value) for value in values if value > 0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_dict(value: Any, item: Callable[[Any], bool] = lambda _: True) -> bool:
    return isinstance(value, dict) and all(map(item, value.values()))


def _is_list(value: Any, item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(item, value))


#: Keys of the block in a closing sidecar -> whether a value is of their kind. What a record
#: says is used in many places, none of which has to look again.
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("Parameters", "Quality", "MissingFigures"), _is_dict),
    **dict.fromkeys(
        ("Version", "Fingerprint", "Scan", "Sequence", "LabelImage", "Table"), _is_text
    ),
    **dict.fromkeys(("Warnings", "Optional"), partial(_is_list, item=_is_text)),
    "Files": partial(_is_dict, item=_is_number),
    "Labels": partial(_is_list, item=_is_number),
    "Lesions": partial(_is_dict, item=partial(_is_list, item=_is_number)),
    "EchoTimes": partial(_is_list, item=lambda value: value is None or _is_number(value)),
}


def read_record(root: Path, sidecar: Path) -> StageRecord | None:
    """Read the sidecar that closes a stage; None for a sidecar of another kind.

    Raises
    ------
    CmbprepError
        If the sidecar is damaged, or is not at the place that its own names give.
    """
    metadata = read_json(sidecar)
    block = metadata.get(BLOCK)
    if not isinstance(block, dict) or "Stage" not in block:
        return None
    with about(sidecar.name, hint=_AGAIN):
        try:
            files = StageFiles(root, block["Stage"], Names(**block["Names"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CmbprepError(f"the record of the stage is damaged ({error})") from error
        if files.sidecar != sidecar:
            raise CmbprepError(
                f"this is the sidecar of another file, {files.sidecar.name}",
                hint="do not rename or copy derivatives; run the participant level again",
            )
        wrong = [key for key, holds in _KINDS.items() if key in block and not holds(block[key])]
        if not _is_list(metadata.get("Sources", []), _is_text):
            wrong.append("Sources")
        if wrong:
            raise CmbprepError(f"the record of the stage is damaged ({', '.join(wrong)})")
    # The dictionary would take most of the memory that a large cohort needs.
    kept = {key: value for key, value in metadata.items() if key not in COLUMNS}
    # The acquisition was checked before it was written: only a damaged sidecar has warnings.
    checked = check_metadata(kept)
    for warning in checked.warnings:
        logger.warning("%s: %s. What to do: %s", sidecar.name, warning, _AGAIN)
    return StageRecord(files, checked.metadata)


def find_records(
    root: Path,
    *stages: str,
    subject: str | None = None,
    session: str | None = None,
    known: Collection[Path] = (),
) -> list[StageRecord]:
    """Find finished stages in an output dataset, sorted by stage and file name.

    A damaged sidecar closes no stage and is passed over with a warning in the log.

    Parameters
    ----------
    root
        The output dataset.
    stages
        Any of ``anatomy``, ``preproc`` and ``lesions``.
    subject, session
        Labels to restrict the search to; None for all.
    known
        Sidecars that are passed over, because they were read before.
    """
    found = []
    for folder, names in result_folders(root, subject=subject, session=session):
        for name in names:
            stage = next((stage for stage in stages if STAGES[stage].fullmatch(name)), None)
            if stage is not None and (path := folder / name) not in known:
                found.append((stages.index(stage), path, stage))
    records = []
    for _, path, stage in sorted(found):
        try:
            record = read_record(root, path)
        except CmbprepError as error:
            logger.warning("%s", error)
            continue
        if record is not None and record.files.stage == stage:
            records.append(record)
    if session is not None:
        records = [record for record in records if record.files.names.session == session]
    return records


def result_folders(
    root: Path, *, subject: str | None = None, session: str | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder ``anat`` of an output dataset, with the names in it; in no order.

    Parameters
    ----------
    root
        The output dataset.
    subject, session
        Labels to restrict the search to; None for all. Folders of participants without
        sessions are always found.
    """
    people = [f"sub-{subject}"] if subject is not None else _names_in(root, "sub-")
    for person in people:
        own = f"{root}/{person}"
        visits = _names_in(own, "ses-") if session is None else [f"ses-{session}"]
        for folder in (f"{own}/anat", *(f"{own}/{visit}/anat" for visit in visits)):
            if names := _names_in(folder):
                yield Path(folder), names


def _names_in(folder: Path | str, start: str = "") -> list[str]:
    """Return the names in a folder that start so; none where it is no folder that can be read."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a dataset has a hundred thousand files
    except OSError:
        return []
    return [name for name in names if name.startswith(start)]


def fingerprint(stage: str, *, inputs: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """Hash all that a stage's result depends on.

    Parameters
    ----------
    inputs
        Name of the input -> digest of its content (:func:`file_digest`) or fingerprint.
    parameters
        Everything else that changes the result; JSON-serialisable.
    """
    content = {
        "version": __version__,
        "stage": stage,
        "inputs": dict(sorted(inputs.items())),
        "parameters": parameters,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def remove_leftovers(folder: Path, label: str) -> None:
    """Remove what a killed run has left half-written of a unit.

    Parameters
    ----------
    folder
        The participant's folder in the output dataset.
    label
        ``sub-X`` or ``sub-X_ses-Y``; other units of the participant may be at work.
    """
    for path in folder.rglob(f".part-*-{label}_*"):
        # The name of a unit without session also begins the names of the sessions' files.
        if "_ses-" in label or f"-{label}_ses-" not in path.name:
            path.unlink(missing_ok=True)
