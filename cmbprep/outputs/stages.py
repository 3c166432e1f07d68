"""Stages of the work: their files, fingerprints and records, and finding what is there.

A stage's sidecar is written after its images and carries a
fingerprint of all that went into it: a stage counts as done when its sidecar says so,
and half-written results of a killed run are never taken for whole ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbprep import __version__
from cmbprep.errors import CmbprepError, about
from cmbprep.outputs.files import file_digest, read_json
from cmbprep.outputs.names import Names, output_table

if TYPE_CHECKING:
    from cmbprep.lesions import Lesion

logger = logging.getLogger("cmbprep")

#: Key of cmbprep's own block in a sidecar.
BLOCK = "Cmbprep"
#: Stage -> ending of the sidecars that close it.
STAGES: Mapping[str, str] = {
    "anatomy": "_desc-preproc_T1w.json",
    "preproc": "_desc-preproc_*.json",
    "lesions": "_seg-CMB_dseg.json",
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
        return tuple(key for key in self._table if key not in ("sidecar", *self.optional))

    @property
    def optional(self) -> tuple[str, ...]:
        """Keys of the files that the stage leaves for some inputs only."""
        return tuple(key for key, entry in self._table.items() if entry.get("optional"))

    @property
    def _table(self) -> dict[str, dict[str, Any]]:
        return output_table()[self.stage]

    def path(self, key: str) -> Path:
        """Return the path of a file by its key in the table."""
        return self.root / self.names.fill(self._table[key]["file"])

    @property
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
    """A finished stage as it is found in an output dataset."""

    files: StageFiles
    metadata: Mapping[str, Any]

    @property
    def block(self) -> Mapping[str, Any]:
        """The block added to a sidecar by cmbprep (Version, Parameters, Quality, ...)."""
        block: Mapping[str, Any] = self.metadata[BLOCK]
        return block

    @property
    def paths(self) -> dict[str, Path]:
        """Key -> path of the files that the sidecar vouches for, itself left out."""
        also = [key for key in self.files.optional if key in self.block.get("Optional", ())]
        return {key: self.files.path(key) for key in (*self.files.keys, *also)}

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
        sizes = self.block.get("Files", {})
        for key, path in self.paths.items():
            size = _size_of(path)
            if size is None:
                return f"{path.name} is missing"
            # A table may be corrected by hand: whether it is whole is told by reading it.
            if size == 0 or (key != "table" and sizes.get(key, size) != size):
                return f"{path.name} is not whole ({size} bytes)"
            sidecar, wanted = sidecar_path(path), sizes.get(f"{key}.json")
            if wanted is not None and _size_of(sidecar) != wanted:
                return f"{sidecar.name} is not whole"
        return None

    def lesions(self) -> list[Lesion]:
        """Read the lesion table of the stage ``lesions``.

        Raises
        ------
        CmbprepError
            If the table is damaged, or does not agree with its label image, its sidecar or
            the zone scheme.
        """
        from cmbprep.lesions import read_lesions
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
        from cmbprep.lesions import COLUMNS

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


def sidecar_path(image: Path) -> Path:
    """Return the path of an image's JSON file."""
    return image.with_name(image.name.partition(".")[0] + ".json")


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
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
    return StageRecord(files, metadata)


def find_records(
    root: Path, stage: str, *, subject: str | None = None, session: str | None = None
) -> list[StageRecord]:
    """Find the finished stages in an output dataset, sorted by file name.

    A damaged sidecar closes no stage and is passed over with a warning in the log.

    Parameters
    ----------
    root
        The output dataset.
    stage
        ``anatomy``, ``preproc`` or ``lesions``.
    subject, session
        Labels to restrict the search to; None for all.
    """
    folder, ending = f"sub-{subject or '*'}", STAGES[stage]
    records = []
    for pattern in (f"{folder}/anat/*{ending}", f"{folder}/ses-{session or '*'}/anat/*{ending}"):
        for path in root.glob(pattern):
            try:
                record = read_record(root, path)
            except CmbprepError as error:
                logger.warning("%s", error)
                continue
            if record is not None and record.files.stage == stage:
                records.append(record)
    if session is not None:
        records = [record for record in records if record.files.names.session == session]
    return sorted(records, key=lambda record: record.files.sidecar)


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
