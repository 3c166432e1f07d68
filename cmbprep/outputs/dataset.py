"""The output dataset as a whole: its description, what validators pass over, its licence."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmbprep import __version__
from cmbprep.bids.derivatives import DerivativeFolder
from cmbprep.bids.model import GivenFile
from cmbprep.errors import CmbprepError
from cmbprep.files.text import read_object
from cmbprep.outputs.files import BIDS_VERSION, read_json, write_json, write_text
from cmbprep.zones.schemes import Scheme, format_regions

#: Files that BIDS has no place for yet.
IGNORED = (
    "*.html",
    "**/figures",
    "logs/",
    "*_xfm.*",
    "*_desc-computed_swi.*",
    # The echoes' average: the standard wants `echo` for this suffix, which would be untrue.
    "*_desc-preproc_MEGRE.*",
    "group_*",
    "space-*",
    "tpl-*",
    "*_acts.jsonl",
    ".work/",
)


def prepare_dataset(
    root: Path, *, raw: Path, scheme: Scheme, derivatives: Sequence[DerivativeFolder] = ()
) -> None:
    """Write what an output dataset needs before any result is in it.

    Every job that works on the same dataset writes the same bytes.

    Parameters
    ----------
    root
        The output dataset.
    raw
        The raw dataset.
    scheme
        The zone scheme, whose table of labels stands at the top.
    derivatives
        Folders of other programs' results that are used.
    """
    root.mkdir(parents=True, exist_ok=True)
    write_ignored(root)
    write_json(root / "dataset_description.json", _description(root, raw, derivatives))
    write_text(root / f"atlas-{scheme.name}_dseg.tsv", format_regions(scheme))
    write_json(root / f"atlas-{scheme.name}_dseg.json", _atlas_dictionary(scheme))


def write_ignored(root: Path) -> None:
    """Write the list of files that validators pass over."""
    write_text(root / ".bidsignore", "\n".join(IGNORED) + "\n")


def same_raw_dataset(root: Path, raw: Path) -> bool:
    """Return whether an output dataset was made from this raw dataset; true for a new one.

    Parameters
    ----------
    root
        The output dataset, before :func:`prepare_dataset` renews its description.
    raw
        The raw dataset.
    """
    path = root / "dataset_description.json"
    if not path.exists():
        return True
    try:
        links = read_json(path).get("DatasetLinks")
    except CmbprepError:
        return False
    return isinstance(links, dict) and links.get("raw") == _relative(raw, root)


def dataset_origin(root: Path, raw: Path) -> str:
    """Return what a raw dataset is known by in the records of an output dataset.

    It is made of the dataset's description and its place as seen from the output: results of
    several datasets may lie in one output folder, and each dataset speaks for its own only.

    Parameters
    ----------
    root
        The output dataset.
    raw
        The raw dataset.
    """
    try:
        description = (raw / "dataset_description.json").read_bytes()
    except OSError:
        description = b""
    place = os.fsencode(_relative(raw, root))
    return hashlib.sha256(description + b"\0" + place).hexdigest()[:16]


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path.resolve(), root.resolve())


def _description(root: Path, raw: Path, derivatives: Sequence[DerivativeFolder]) -> dict[str, Any]:
    of_raw = _description_of_raw(raw)
    description: dict[str, Any] = {
        "Name": f"Cerebral microbleeds of {of_raw.get('Name', raw.resolve().name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "cmbprep", "Version": __version__}],
        # Relative, so that the same data give the same bytes on every machine.
        "DatasetLinks": {
            name: _relative(path, root)
            for name, path in (("raw", raw), *((item.name, item.path) for item in derivatives))
        },
    }
    if doi := of_raw.get("DatasetDOI"):
        description["SourceDatasets"] = [{"DOI": doi}]
    if licence := of_raw.get("License"):
        description["License"] = licence
    return description


def _description_of_raw(raw: Path) -> dict[str, Any]:
    """Read the texts of the raw dataset's description; empty where it cannot be read."""
    try:
        content = read_object(raw / "dataset_description.json").content
    except CmbprepError:
        # The check of the dataset has refused it, or was told to go on without it.
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str) and value}


def _atlas_dictionary(scheme: Scheme) -> dict[str, Any]:
    """Describe the columns of the atlas table that BIDS does not define."""
    return {
        "region": {"Description": f"Region as {scheme.name} names it, without the side."},
        "zone": {"Description": "Anatomical zone of the region; n/a for what is no tissue."},
        "hemisphere": {"Description": "Side of the brain; n/a for what is no tissue."},
    }


def given_uri(file: GivenFile, folders: Sequence[DerivativeFolder]) -> str:
    """Return the BIDS URI of a file of a derivative, by its name in ``DatasetLinks``."""
    folder = next((item.path for item in folders if item.name == file.source), None)
    return f"bids:{file.source}:{_name_within(file.path, folder)}"


def raw_uri(path: Path, *, raw: Path) -> str:
    """Return the BIDS URI of a raw file (BIDS 1.10, "BIDS URI").

    It names the path in the dataset as it was found. Links are not followed: what they lead to
    is a store with names of its own, in or outside the dataset.
    """
    return f"bids:raw:{_name_within(path, raw)}"


def _name_within(path: Path, folder: Path | None) -> str:
    """Return a file's path in a dataset, however the two paths are written."""
    # normpath: both are compared as they are written, without a look at links.
    written = Path(os.path.normpath(path.absolute()))
    if folder is not None:
        for top in (Path(os.path.normpath(folder.absolute())), Path(os.path.realpath(folder))):
            if written.is_relative_to(top):
                return written.relative_to(top).as_posix()
    # The dataset is known by another path: from the participant's folder on, both are the same.
    parts = written.parts
    tops = [n for n, part in enumerate(parts[:-1]) if part.startswith("sub-")]
    return "/".join(parts[tops[-1] :] if tops else parts[-1:])
