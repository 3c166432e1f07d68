"""Content of the sidecars of derivatives (BIDS 1.10, "Common data types and metadata")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cmbprep import __version__
from cmbprep.bids.model import Scan
from cmbprep.lesions import COLUMNS
from cmbprep.outputs.stages import BLOCK, StageFiles

__all__ = ["ACQUISITION_KEYS", "closing_sidecar", "image_sidecar", "own_uri"]

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

#: (stage, key) -> what the image is, and the metadata that BIDS asks of its kind.
_IMAGES: dict[tuple[str, str], dict[str, Any]] = {
    ("anatomy", "brain_mask"): {"Description": "Brain mask", "Type": "Brain"},
    ("anatomy", "to_reference"): {
        "Description": "Displacement field that brings the T1w image onto the template (ITK, LPS)"
    },
    ("anatomy", "from_reference"): {
        "Description": "Displacement field that brings the template onto the T1w image (ITK, LPS)"
    },
    ("preproc", "brain_mask"): {"Description": "Brain mask", "Type": "Brain"},
    ("preproc", "to_target"): {
        "Description": "Transform that brings the scan onto the image named after to- (ITK, LPS)"
    },
    ("preproc", "from_target"): {
        "Description": "Transform that brings the image named after from- onto the scan (ITK, LPS)"
    },
    ("lesions", "probseg"): {
        "Description": "Probability that a voxel belongs to a cerebral microbleed"
    },
    ("lesions", "mask"): {
        "Description": "Cerebral microbleeds, definite and possible; diamagnetic lesions left out",
        "Type": "Lesion",
    },
    ("lesions", "candidates"): {
        "Description": "Dark spots that the detector has weighed and not ruled out at once"
    },
    ("lesions", "template_mask"): {
        "Description": "Cerebral microbleeds, definite and possible, in the template's space; "
        "diamagnetic lesions left out",
        "Type": "Lesion",
    },
    ("lesions", "swi"): {
        "Description": "Susceptibility-weighted image, computed from magnitude and phase (Haacke "
        "2004)"
    },
    ("lesions", "atlas"): {
        "Description": "Regions of the zone scheme; the labels are in the table of the same "
        "name at the top of this dataset"
    },
}

DESCRIPTIONS = {
    "anatomy": "T1w image after correction of the intensity bias",
    "preproc": "Scan after correction of the intensity bias, on its own grid; of several "
    "echoes, their mean",
    "lesions": "Cerebral microbleeds, and diamagnetic mimics marked as such: label image, and the "
    "table of the same name",
}


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
    known = _IMAGES.get((files.stage, key))
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
        (``Labels``) and its SHA-256 (``LabelImage``), place and volume of each lesion of the
        table (``Lesions``), figures that could not be drawn
        (``MissingFigures``). Empty values are left out, but for the labels.
    """
    sidecar: dict[str, Any] = {}
    if files.stage == "lesions":
        # The label image and the table share this sidecar, which is the data dictionary too.
        sidecar.update(COLUMNS)
    else:
        sidecar["SkullStripped"] = False
    if scan is not None:
        sidecar.update(
            {key: scan.metadata[key] for key in ACQUISITION_KEYS if key in scan.metadata}
        )
    sidecar["Description"] = DESCRIPTIONS[files.stage]
    sidecar["Sources"] = list(sources)
    sidecar[BLOCK] = {
        "Version": __version__,
        "Stage": files.stage,
        "Fingerprint": fingerprint,
        "Names": asdict(files.names),
        "Parameters": dict(parameters),
        "Quality": dict(quality),
        "Warnings": list(warnings),
    }
    sidecar[BLOCK].update(
        {key: value for key, value in (content or {}).items() if value or key == "Labels"}
    )
    if optional:
        sidecar[BLOCK]["Optional"] = list(optional)
    if scan is not None:
        sidecar[BLOCK]["Scan"] = scan.name
        sidecar[BLOCK]["Sequence"] = scan.sequence
        sidecar[BLOCK]["EchoTimes"] = [echo.echo_time for echo in scan.echoes]
    return sidecar
