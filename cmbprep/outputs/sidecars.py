"""Content of the sidecars of derivatives (BIDS 1.10, "Common data types and metadata")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cmbprep import __version__
from cmbprep.bids.model import Scan
from cmbprep.lesions import COLUMNS
from cmbprep.outputs.names import output_table
from cmbprep.outputs.stages import BLOCK, StageFiles

#: What of the source's sidecar is repeated in the derivative's: sizes and counts of
#: microbleeds mean nothing without it.
ACQUISITION_KEYS = (
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "PulseSequenceType",
    "EchoTime",
    "RepetitionTime",
    "FlipAngle",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagingFrequency",
)


def own_uri(files: StageFiles, key: str) -> str:
    """Return the BIDS URI of a file of the output dataset."""
    return f"bids::{files.path(key).relative_to(files.root).as_posix()}"


def image_sidecar(files: StageFiles, key: str, sources: Sequence[str]) -> dict[str, Any] | None:
    """Return the sidecar of an image; None for a file that has none of its own.

    Parameters
    ----------
    files
        The stage that the image belongs to.
    key
        Its key in the table of outputs.
    sources
        BIDS URIs of what it was made from.
    """
    known = output_table()[files.stage][key].get("metadata")
    return None if known is None else {**known, "Sources": list(sources)}


def closing_sidecar(
    files: StageFiles,
    *,
    fingerprint: str,
    sources: Sequence[str],
    parameters: Mapping[str, Any],
    quality: Mapping[str, Any],
    warnings: Sequence[str],
    scan: Scan | None = None,
    optional: Sequence[str] = (),
    content: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the sidecar that closes a stage: metadata of BIDS, and cmbprep's own block.

    The block says which version, input and parameters made the stage (by which a later
    run knows whether to reuse it), how well it went, and what is doubtful about it.

    Parameters
    ----------
    content
        What was written: sizes of the files in bytes (``Files``), labels of the label image
        (``Labels``), the SHA-256 of it (``LabelImage``) and of the lesion table (``Table``), the
        voxels of the mask in template space (``TemplateMask``), place and volume of each lesion
        of the table (``Lesions``), the part of each zone that is seen (``Coverage``),
        the blocks of the template seen (``SeenBlocks``), figures that could not be drawn
        (``MissingFigures``). Empty values are left out, but for the labels.
    """
    # The label image and the table share this sidecar, which is the data dictionary too.
    first = COLUMNS if files.stage == "lesions" else {"SkullStripped": False}
    block = {
        "Version": __version__,
        "Stage": files.stage,
        "Fingerprint": fingerprint,
        "Names": asdict(files.names),
        "Parameters": dict(parameters),
        "Quality": dict(quality),
        "Warnings": list(warnings),
        **{key: value for key, value in (content or {}).items() if value or key == "Labels"},
    }
    if optional:
        block["Optional"] = list(optional)
    if scan is not None:
        block["Scan"] = scan.name
        block["Sequence"] = scan.sequence
        block["EchoTimes"] = [echo.echo_time for echo in scan.echoes]
    acquired = {} if scan is None else scan.metadata
    return {
        **first,
        **{key: acquired[key] for key in ACQUISITION_KEYS if key in acquired},
        **output_table()[files.stage]["sidecar"]["metadata"],
        "Sources": list(sources),
        BLOCK: block,
    }
