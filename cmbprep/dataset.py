"""The output dataset as a whole: its description, what validators pass over, its licence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .derivatives import DerivativeFolder
from .outputs import BIDS_VERSION, read_json, write_json, write_text
from .scans import GivenFile
from .zones import Scheme, format_regions

__all__ = ["given_uri", "prepare_dataset", "raw_uri"]

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
    write_text(root / ".bidsignore", "\n".join(IGNORED) + "\n")
    write_json(root / "dataset_description.json", _description(root, raw, derivatives))
    write_text(root / f"atlas-{scheme.name}_dseg.tsv", format_regions(scheme))
    write_json(root / f"atlas-{scheme.name}_dseg.json", _atlas_dictionary(scheme))


def _description(root: Path, raw: Path, derivatives: Sequence[DerivativeFolder]) -> dict[str, Any]:
    source = raw / "dataset_description.json"
    of_raw = read_json(source) if source.exists() else {}
    description: dict[str, Any] = {
        "Name": f"Cerebral microbleeds of {of_raw.get('Name', raw.resolve().name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "cmbprep", "Version": __version__}],
        # Relative, so that the same data give the same bytes on every machine.
        "DatasetLinks": {
            name: os.path.relpath(path.resolve(), root.resolve())
            for name, path in (("raw", raw), *((item.name, item.path) for item in derivatives))
        },
    }
    if doi := of_raw.get("DatasetDOI"):
        description["SourceDatasets"] = [{"DOI": doi}]
    if licence := of_raw.get("License"):
        description["License"] = licence
    return description


def _atlas_dictionary(scheme: Scheme) -> dict[str, Any]:
    """Describe the columns of the atlas table that BIDS does not define."""
    return {
        "region": {"Description": f"Region as {scheme.name} names it, without the side."},
        "zone": {"Description": "Anatomical zone of the region; n/a for what is no tissue."},
        "hemisphere": {"Description": "Side of the brain; n/a for what is no tissue."},
    }


def given_uri(file: GivenFile, folders: Sequence[DerivativeFolder]) -> str:
    """Give the BIDS URI of a file of a derivative, by its name in ``DatasetLinks``."""
    (folder,) = (item.path for item in folders if item.name == file.source)
    return f"bids:{file.source}:{file.path.relative_to(folder).as_posix()}"


def raw_uri(path: Path, *, raw: Path) -> str:
    """Give the BIDS URI of a raw file (BIDS 1.10, "BIDS URI")."""
    return f"bids:raw:{path.resolve().relative_to(raw.resolve()).as_posix()}"
