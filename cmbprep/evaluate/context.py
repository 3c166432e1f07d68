"""Where and how each scan was made: site, protocol, sequence and field strength.

The site is a column of ``participants.tsv``. The others come from the raw scan's name and
sidecar, or, where the raw dataset is not at hand, from the sidecar of the prediction's
preprocessed image.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import CmbprepError
from ..textfiles import read_object, read_table
from .files import DERIVATIVE_ENTITIES, ScanFiles, parse_name

__all__ = ["SCAN_SPLITS", "find_dataset", "read_sites", "scan_groups"]

logger = logging.getLogger(__name__)

#: Splits whose groups are whole scans.
SCAN_SPLITS = ("protocol", "sequence", "field", "site")
UNKNOWN = "n/a"

_SEQUENCES = ("T2starw", "MEGRE", "swi", "SWI", "GRE")
_SITE_COLUMNS = ("site", "site_id", "center", "centre", "institution")


def find_dataset(truth: Path) -> Path | None:
    """Find the dataset that a truth folder belongs to: the nearest one with participants.tsv.

    The folder itself, or one of the two above it (``<dataset>/derivatives/truth``).
    """
    here = truth.resolve()
    for folder in (here, *list(here.parents)[:2]):
        if (folder / "participants.tsv").is_file():
            return folder
    return None


def read_sites(dataset: Path | None) -> dict[str, str]:
    """Give the site of each subject (label without ``sub-``) as participants.tsv tells it."""
    if dataset is None or not (dataset / "participants.tsv").is_file():
        return {}
    try:
        table = read_table(dataset / "participants.tsv")
    except CmbprepError as error:
        # A split is lost, not the evaluation.
        logger.warning("sites are unknown: %s", error)
        return {}
    for warning in table.warnings:
        logger.warning("%s", warning)
    sites = {}
    for row in table.rows:
        site = next((row[name] for name in _SITE_COLUMNS if row.get(name)), None)
        if site and site != UNKNOWN and row.get("participant_id"):
            sites[row["participant_id"].removeprefix("sub-")] = site
    return sites


def scan_groups(
    truth: ScanFiles,
    predicted: ScanFiles | None,
    *,
    dataset: Path | None,
    output: Path | None,
    sites: dict[str, str],
) -> dict[str, str]:
    """Give the group of a scan in each of :data:`SCAN_SPLITS`; ``n/a`` where unknown."""
    entities = truth.entities | ({} if predicted is None else predicted.entities)
    modality = entities.pop("mod", None)
    made = None
    if output is not None and predicted is not None:
        made = _image(output, entities, modality, preprocessed=True)
    if modality is None and made is not None:
        modality = parse_name(made)[1]
    raw = None if dataset is None else _image(dataset, entities, modality)
    image = raw or made
    sidecar = {} if image is None else _sidecar(image, dataset)
    sequence = UNKNOWN if image is None else parse_name(image)[1]
    strength = sidecar.get("MagneticFieldStrength")
    return {
        "protocol": str(sidecar.get("ProtocolName") or entities.get("acq") or UNKNOWN),
        "sequence": sequence,
        "field": f"{strength:g} T" if isinstance(strength, int | float) else UNKNOWN,
        "site": sites.get(entities["sub"], UNKNOWN),
    }


def _image(
    folder: Path, entities: dict[str, str], modality: str | None, *, preprocessed: bool = False
) -> Path | None:
    """Find the blood-sensitive image that agrees with the entities best."""
    top = folder / f"sub-{entities['sub']}"
    if "ses" in entities:
        top = top / f"ses-{entities['ses']}"
    found = []
    for where in (top / "anat", top / "swi"):
        for path in sorted(where.glob("*.nii*")) if where.is_dir() else ():
            own, suffix, _ = parse_name(path)
            if suffix not in _SEQUENCES or own.get("part") == "phase":
                continue
            if modality is not None and modality not in (suffix, own.get("mod")):
                continue
            if (own.get("desc") == "preproc") is not preprocessed or "space" in own:
                continue
            own = {k: v for k, v in own.items() if k not in DERIVATIVE_ENTITIES}
            if all(own.get(k, v) == v for k, v in entities.items()):
                found.append((-len(own.keys() & entities.keys()), len(own), path.name, path))
    return min(found)[3] if found else None


def _sidecar(image: Path, dataset: Path | None) -> dict[str, object]:
    """Read the sidecar of an image over the one that its dataset gives for its suffix."""
    stem = image.name[: -len(parse_name(image)[2])]
    sources = [] if dataset is None else [dataset / f"{parse_name(image)[1]}.json"]
    merged: dict[str, object] = {}
    for path in (*sources, image.parent / f"{stem}.json"):
        try:
            merged |= read_object(path).content
        except CmbprepError:
            continue  # a split is lost, not the evaluation
    return merged
