"""The output dataset as a whole: its description, what validators pass over, its licence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import __version__
from .outputs import BIDS_VERSION, read_json, write_json, write_text
from .zones import Scheme, format_regions

__all__ = ["prepare_dataset", "raw_uri"]

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


def prepare_dataset(root: Path, *, raw: Path, scheme: Scheme) -> None:
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
    """
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / ".bidsignore", "\n".join(IGNORED) + "\n")
    write_json(root / "dataset_description.json", _description(root, raw))
    write_text(root / f"atlas-{scheme.name}_dseg.tsv", format_regions(scheme))
    write_json(root / f"atlas-{scheme.name}_dseg.json", _atlas_dictionary(scheme))


def _description(root: Path, raw: Path) -> dict[str, Any]:
    source = raw / "dataset_description.json"
    of_raw = read_json(source) if source.exists() else {}
    description: dict[str, Any] = {
        "Name": f"Cerebral microbleeds of {of_raw.get('Name', raw.resolve().name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "cmbprep", "Version": __version__}],
        # Relative, so that the same data give the same bytes on every machine.
        "DatasetLinks": {"raw": os.path.relpath(raw.resolve(), root.resolve())},
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


def raw_uri(path: Path, *, raw: Path) -> str:
    """Give the BIDS URI of a raw file (BIDS 1.10, "BIDS URI")."""
    return f"bids:raw:{path.resolve().relative_to(raw.resolve()).as_posix()}"
