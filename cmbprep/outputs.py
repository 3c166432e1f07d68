"""The output dataset: file names, sidecars, atomic writes, and finding what is there.

``data/outputs.json`` says which files each stage of the work leaves behind. The same
table serves the writer (what name to give) and the finder (what to look for), so the
two cannot drift apart. A stage's sidecar is written after its images and carries a
fingerprint of all that went into it: a stage counts as done when its sidecar says so,
and half-written results of a killed run are never taken for whole ones.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import CmbprepError
from .scans import join_entities

if TYPE_CHECKING:
    import nibabel as nib

    from .scans import Anatomy, Scan

__all__ = [
    "Names",
    "StageFiles",
    "StageRecord",
    "file_digest",
    "find_records",
    "fingerprint",
    "plan_names",
    "read_json",
    "remove_leftovers",
    "write_atomically",
    "write_image",
    "write_json",
    "write_text",
]

BIDS_VERSION = "1.10.0"
#: Key of cmbprep's own block in a sidecar.
BLOCK = "Cmbprep"
STAGES = ("anatomy", "preproc", "lesions")
#: Stage -> keys of the files that only some inputs give; the sidecar says whether they did.
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    # Where the way through the T1w image was not taken.
    "preproc": ("to_direct", "from_direct"),
    "lesions": ("swi", "candidates"),
}


@cache
def output_table() -> dict[str, dict[str, str]]:
    """Give the table of outputs: stage -> key -> file name pattern."""
    text = resources.files("cmbprep.data").joinpath("outputs.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, str]] = json.loads(text)
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
    """

    subject: str
    session: str | None
    src: str
    suffix: str
    template: str
    reference: str
    target: str
    scheme: str

    @property
    def folder(self) -> Path:
        """Folder of the files, relative to the output dataset."""
        session = (f"ses-{self.session}",) if self.session else ()
        return Path(f"sub-{self.subject}", *session, "anat")

    def fill(self, pattern: str) -> Path:
        """Give the path of a file, relative to the output dataset."""
        values = asdict(self)
        # A rigid transform is an ITK text file, a deformation a field of displacements.
        values["xfm_extension"] = ".txt" if self.target == "T1w" else ".nii.gz"
        return self.folder / pattern.format(**values)


@dataclass(frozen=True)
class StageFiles:
    """The files of one stage for one scan (or one T1w image)."""

    root: Path
    stage: str
    names: Names

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"{self.stage!r} is none of {STAGES}")

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the files that the stage always leaves, the sidecar left out."""
        without = {"sidecar", *self.optional}
        return tuple(key for key in output_table()[self.stage] if key not in without)

    @property
    def optional(self) -> tuple[str, ...]:
        """Keys of the files that the stage leaves for some inputs only."""
        return OPTIONAL.get(self.stage, ())

    def path(self, key: str) -> Path:
        """Give the path of a file by its key in the table."""
        return self.root / self.names.fill(output_table()[self.stage][key])

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
            block = read_json(self.sidecar).get(BLOCK, {})
        except CmbprepError as error:
            return None, str(error)
        if block.get("Fingerprint") != wanted:
            return None, "made from other input, parameters or version"
        also = [key for key in self.optional if key in block.get("Optional", ())]
        files = {key: self.path(key) for key in (*self.keys, *also)}
        missing = [path.name for path in files.values() if not path.exists()]
        if missing:
            return None, f"{', '.join(missing)} missing"
        return files, "input, parameters and version are the same"


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


def find_records(
    root: Path, stage: str, *, subject: str | None = None, session: str | None = None
) -> list[StageRecord]:
    """Find the finished stages in an output dataset, sorted by file name.

    Parameters
    ----------
    root
        The output dataset.
    stage
        ``anatomy``, ``preproc`` or ``lesions``.
    subject, session
        Labels to restrict the search to; None for all.
    """
    ending = {
        "anatomy": "_desc-preproc_T1w.json",
        "preproc": "_desc-preproc_*.json",
        "lesions": "_seg-CMB_dseg.json",
    }[stage]
    folder = f"sub-{subject or '*'}"
    records = []
    for pattern in (f"{folder}/anat/*{ending}", f"{folder}/ses-{session or '*'}/anat/*{ending}"):
        for path in root.glob(pattern):
            metadata = read_json(path)
            block = metadata.get(BLOCK)
            if not isinstance(block, dict) or block.get("Stage") != stage:
                continue
            files = StageFiles(root, stage, Names(**block["Names"]))
            if session is None or files.names.session == session:
                records.append(StageRecord(files, metadata))
    return sorted(records, key=lambda record: record.files.sidecar)


def plan_names(
    scans: tuple[Scan, ...],
    *,
    root: Path,
    template: str,
    reference: str,
    scheme: str,
    anatomy: Anatomy | None,
) -> dict[str, Names]:
    """Choose output names for the scans of a unit so that none overwrites another.

    Derivative names carry no source suffix, so ``sub-1_T2starw`` and ``sub-1_swi`` would
    both give ``sub-1_label-CMB_mask``. Such scans get their suffix into the entity ``acq``
    (``sub-1_acq-swi_label-CMB_mask``), which BIDS allows on every kind of file here. The
    same holds against what an earlier run with other filters has left in the output
    dataset.

    Returns
    -------
    dict
        Name of the scan -> names of its outputs.
    """
    names: dict[str, Names] = {}
    taken = {scan.stem for scan in scans}
    for scan in scans:
        base = Names(
            subject=scan.subject,
            session=scan.session,
            src=scan.stem,
            suffix=scan.suffix,
            template=template,
            reference=reference,
            target="T1w" if anatomy else reference,
            scheme=scheme.upper(),
        )
        shared = sum(other.stem == scan.stem for other in scans) > 1
        if shared or _owner(root, base) not in (None, scan.suffix):
            base = _told_apart(base, scan, taken, root)
        taken.add(base.src)
        names[scan.name] = base
    return names


def _told_apart(names: Names, scan: Scan, taken: set[str], root: Path) -> Names:
    """Put the suffix into ``acq``, with a number behind it if even that is taken."""
    acquisition = scan.entities.get("acq", "")
    for number in count(1):
        label = f"{acquisition}{scan.suffix}{number if number > 1 else ''}"
        stem = join_entities({**scan.entities, "acq": label})
        chosen = replace(names, src=stem)
        if stem not in taken and _owner(root, chosen) in (None, scan.suffix):
            return chosen
    raise AssertionError("numbers do not end")


def _owner(root: Path, names: Names) -> str | None:
    """Suffix of the source that already has outputs under this name, if any."""
    for record in find_records(root, "preproc", subject=names.subject, session=names.session):
        if record.files.names.src == names.src:
            return record.files.names.suffix
    return None


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


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that holds none raises an error that names it."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CmbprepError(f"cannot be read as JSON ({error})", path=path) from error
    if not isinstance(content, dict):
        raise CmbprepError("holds no JSON object", path=path)
    return content


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block ends well.

    A reader, or a run that was killed, thus finds the old file or the new one, never a
    part of one; two jobs that write the same file do not mix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending is kept: image libraries choose the format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=f"-{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give what the person's umask asks for.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file atomically, in the order given."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_image(path: Path, image: nib.Nifti1Image) -> Path:
    """Write a ``.nii.gz`` atomically; the same image gives the same bytes.

    The gzip header's time and file name are left empty, unlike nibabel's own writer. The
    units of the header are set: everything here is in millimetres and seconds.
    """
    image.header.set_xyzt_units("mm", "sec")
    with (
        write_atomically(path) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as stream,
    ):
        stream.write(image.to_bytes())
    return Path(path)
