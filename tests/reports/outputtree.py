"""Output datasets made by hand, whose every number is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cmbprep.lesions import COLUMNS, Lesion, format_lesions
from cmbprep.outputs.files import file_digest, write_image, write_json, write_text
from cmbprep.outputs.names import Names
from cmbprep.outputs.stages import StageFiles

TEMPLATE = "MNI152NLin2009cAsym"
TEMPLATE_AFFINE = np.array([[4.0, 0, 0, -96], [0, 4, 0, -132], [0, 0, 4, -78], [0, 0, 0, 1]])
TEMPLATE_SHAPE = (49, 58, 49)
#: Coverage of a scan that shows the whole brain.
WHOLE = {"lobar": 1.0, "deep": 1.0, "infratentorial": 1.0}


def make_lesion(index: int, **changes: Any) -> Lesion:
    values: dict[str, Any] = {
        "index": index,
        "name": f"CMB-{index:03d}",
        "x": 10.0,
        "y": -20.0,
        "z": 30.0,
        "x_mni": 10.0 * index - 40,
        "y_mni": -20.0,
        "z_mni": 30.0,
        "volume_mm3": 10.0 * index,
        "diameter_mm": 3.0,
        "probability": 0.9,
        "rating": "definite",
        "zone": "lobar",
        "region": "frontal",
        "hemisphere": "left",
        "region_fraction": 0.8,
        "boundary_distance_mm": 5.0,
        "boundary": False,
        "contrast": 0.5,
        "susceptibility": "unknown",
    }
    return Lesion(**{**values, **changes})


class Tree:
    """An output dataset that is filled scan by scan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inputs: dict[str, dict[str, Any]] = {}

    def unit(self, subject: str, session: str | None = None) -> dict[str, Any]:
        label = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        return self._inputs.setdefault(
            label, {"unit": label, "scans": [], "refused": [], "anatomy": None}
        )

    def expect(self, name: str, *, warnings: Sequence[str] = ()) -> None:
        entities = dict(part.split("-") for part in name.split("_")[:-1])
        unit = self.unit(entities["sub"], entities.get("ses"))
        unit["scans"].append({"name": name, "files": [f"{name}.nii.gz"], "warnings": warnings})

    def refuse(self, subject: str, path: str, reason: str) -> None:
        self.unit(subject)["refused"].append({"path": path, "reason": reason, "hint": "look at it"})

    def fail(self, name: str, message: str, traceback: str = "") -> None:
        self.expect(name)
        write_json(
            self.root / "logs" / f"{name}_error.json",
            {"scan": name, "step": "register", "message": message, "traceback": traceback},
        )

    def add(
        self,
        name: str,
        lesions: Sequence[Lesion] = (),
        *,
        acquisition: dict[str, Any] | None = None,
        quality: dict[str, Any] | None = None,
        warnings: Sequence[str] = (),
        voxel: tuple[float, float, float] = (0.9, 0.9, 3.0),
        mask: np.ndarray | None = None,
        mask_affine: np.ndarray = TEMPLATE_AFFINE,
        src: str | None = None,
        parameters: dict[str, Any] | None = None,
        coverage: dict[str, float | None] | None = None,
        scheme: str = "MARS",
        version: str = "1.2.3",
    ) -> StageFiles:
        """Add a complete scan; give its stage ``lesions``."""
        self.expect(name)
        stem, _, suffix = name.rpartition("_")
        names = make_names(src or stem, suffix, scheme)
        acquisition = {
            "MagneticFieldStrength": 3,
            "EchoTime": 0.02,
            "SliceThickness": 3.0,
            **(acquisition or {}),
        }
        echo = acquisition["EchoTime"]
        preproc = StageFiles(self.root, "preproc", names)
        detection = StageFiles(self.root, "lesions", names)
        image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.diag([*voxel, 1.0]))
        write_image(preproc.path("preproc"), image)
        write_json(
            preproc.sidecar,
            {**acquisition, **block(preproc, name, quality or {"snr": 20.0}, warnings, None, echo)},
        )
        write_image(detection.path("dseg"), label_image(lesions, voxel))
        write_text(detection.path("table"), format_lesions(lesions))
        if mask is None:
            mask = paint(lesions)
        write_image(detection.path("template_mask"), nib.Nifti1Image(mask, mask_affine))
        parameters = parameters or {
            "detector": "classical",
            "detector_parameters": {"threshold": 0.35},
        }
        closing = block(detection, name, {}, (), parameters, echo)
        closing["Cmbprep"]["Version"] = version
        closing["Cmbprep"]["Coverage"] = WHOLE if coverage is None else coverage
        closing["Cmbprep"]["Labels"] = [lesion.index for lesion in lesions]
        closing["Cmbprep"]["Table"] = file_digest(detection.path("table"))
        closing["Cmbprep"]["LabelImage"] = file_digest(detection.path("dseg"))
        write_json(detection.sidecar, {**COLUMNS, **acquisition, **closing})
        return detection

    def finish(self) -> Path:
        for label, content in self._inputs.items():
            write_json(self.root / "logs" / f"{label}_inputs.json", content)
        return self.root


def make_names(src: str, suffix: str, scheme: str = "MARS") -> Names:
    entities = dict(part.split("-") for part in src.split("_"))
    values = {
        "subject": entities["sub"],
        "session": entities.get("ses"),
        "src": src,
        "suffix": suffix,
        "template": TEMPLATE,
        "reference": TEMPLATE,
        "target": TEMPLATE,
        "scheme": scheme,
    }
    return Names(**{field.name: values[field.name] for field in dataclasses.fields(Names)})


def block(
    files: StageFiles,
    scan: str,
    quality: dict[str, Any],
    warnings: Sequence[str],
    parameters: dict[str, Any] | None = None,
    echo_time: float = 0.02,
) -> dict[str, Any]:
    return {
        "Cmbprep": {
            "Version": "1.2.3",
            "Stage": files.stage,
            "Scan": scan,
            "Fingerprint": "0" * 64,
            "Names": dataclasses.asdict(files.names),
            "Parameters": parameters or {},
            "Quality": quality,
            "Warnings": list(warnings),
            "Sequence": files.names.suffix,
            "EchoTimes": [echo_time],
        }
    }


def label_image(
    lesions: Sequence[Lesion], voxel: tuple[float, float, float] = (0.9, 0.9, 3.0)
) -> nib.Nifti1Image:
    """One voxel for each row of the lesion table, diamagnetic ones too."""
    labels = np.zeros((4, 4, 4), np.int16)
    labels.flat[: len(lesions)] = [lesion.index for lesion in lesions]
    return nib.Nifti1Image(labels, np.diag([*voxel, 1.0]))


def paint(lesions: Sequence[Lesion]) -> np.ndarray:
    """One voxel a microbleed, in the template; diamagnetic lesions are left out."""
    mask = np.zeros(TEMPLATE_SHAPE, np.uint8)
    for lesion in lesions:
        if lesion.susceptibility != "diamagnetic" and lesion.x_mni is not None:
            mask[voxel_of(lesion)] = 1
    return mask


def voxel_of(lesion: Lesion) -> tuple[int, int, int]:
    point = [lesion.x_mni, lesion.y_mni, lesion.z_mni, 1.0]
    i, j, k = np.round(np.linalg.solve(TEMPLATE_AFFINE, point)[:3]).astype(int)
    return int(i), int(j), int(k)
