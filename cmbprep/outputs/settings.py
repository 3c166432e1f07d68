"""What the result of a scan was made with, from the record of its detection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmbprep.outputs.stages import StageRecord


def detection_settings(record: StageRecord) -> dict[str, Any]:
    """Return the settings that counts depend on; None for one that is not recorded.

    Parameters
    ----------
    record
        The finished stage of the detection.

    Returns
    -------
    dict
        ``border_mm``, ``zone_source``, ``detector``, ``detector_version`` and ``threshold``, as the
        columns of the table of scans.
    """
    parameters = record.block.get("Parameters", {})
    ran = {key: value for key, value in flatten(parameters).items() if value is not None}
    own = ran.get("zones") == "segmentation"
    return {
        "border_mm": ran.get("border_mm"),
        "zone_source": None if not ran else "segmentation" if own else "atlas",
        "detector": ran.get("detector"),
        "detector_version": ran.get("detector_parameters_version"),
        "threshold": ran.get("threshold", ran.get("detector_parameters_threshold")),
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Bring nested mappings to one level, keys joined by an underscore."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}_"))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
