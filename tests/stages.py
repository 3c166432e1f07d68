"""Finished stages of an output dataset, made without any computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import nibabel as nib
import numpy as np

from cmbprep.lesions import Lesion, format_lesions
from cmbprep.outputs.files import file_digest, write_image, write_json, write_text
from cmbprep.outputs.names import Names
from cmbprep.outputs.stages import BLOCK, StageFiles, place_and_size

__all__ = ["NAMES", "finish", "lesion_rows"]

NAMES = Names(
    subject="01",
    session="a",
    src="sub-01_ses-a_run-2",
    suffix="T2starw",
    template="MNI152NLin6Asym",
    reference="MNI152NLin2009cAsym",
    target="T1w",
    scheme="MARS",
)


def lesion_rows(count: int) -> list[Lesion]:
    """Make lesions 1, 2, ... in the left frontal lobe."""
    return [
        Lesion(
            index=index,
            name=f"CMB-{index:03d}",
            x=float(index),
            y=0.0,
            z=0.0,
            x_mni=float(index),
            y_mni=0.0,
            z_mni=0.0,
            volume_mm3=10.0,
            diameter_mm=2.7,
            probability=0.95,
            rating="definite",
            zone="lobar",
            region="frontal",
            hemisphere="left",
        )
        for index in range(1, count + 1)
    ]


def finish(
    files: StageFiles,
    fingerprint: str,
    *,
    lesions: int = 0,
    scan: str | None = None,
    sources: Sequence[str] = (),
    optional: Sequence[str] = (),
    **block: Any,
) -> None:
    """Write what a finished stage leaves behind, with as many lesions as asked for."""
    written = {key: files.path(key) for key in (*files.keys, *optional)}
    for path in written.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"more than ten bytes")
    content: dict[str, Any] = {
        "Version": "1.2.3",
        "Stage": files.stage,
        "Fingerprint": fingerprint,
        "Names": asdict(files.names),
    }
    if files.stage == "lesions":
        labels = np.zeros((8, 8, 8), np.int16)
        labels.ravel()[: 2 * lesions : 2] = np.arange(1, lesions + 1)
        write_image(written["dseg"], nib.Nifti1Image(labels, np.eye(4)))
        write_text(written["table"], format_lesions(lesion_rows(lesions)))
        content["Labels"] = list(range(1, lesions + 1))
        content["LabelImage"] = file_digest(written["dseg"])
        content["Lesions"] = {
            str(lesion.index): place_and_size(lesion) for lesion in lesion_rows(lesions)
        }
    content["Files"] = {key: path.stat().st_size for key, path in written.items()}
    if optional:
        content["Optional"] = list(optional)
    content["Scan"] = scan or f"{files.names.src}_{files.names.suffix}"
    write_json(files.sidecar, {"Sources": list(sources), BLOCK: {**content, **block}})
