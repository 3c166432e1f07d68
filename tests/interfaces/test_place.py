"""The node that places lesions: what reaches the template's space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cmbprep.algorithms.transforms import LinearMap, write_transform
from cmbprep.interfaces.lesions import PlaceLesions
from cmbprep.lesions import read_lesions


def _save(path: Path, data: Any) -> str:
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return str(path)


def test_a_mimic_is_in_the_table_and_not_in_the_template_mask(tmp_path: Path) -> None:
    labels = np.zeros((30, 30, 30), np.int16)
    labels[8:11, 8:11, 8:11], labels[20:23, 20:23, 20:23] = 1, 2
    write_transform(LinearMap(np.eye(4)), tmp_path / "same.txt")
    same = [str(tmp_path / "same.txt")]
    lesions = [
        {
            "index": index,
            "centre_ras": (at, at, at),
            "volume_mm3": 27.0,
            "diameter_mm": 3.7,
            "probability": 0.9,
            "rating": "definite",
            "contrast": 0.6,
            "susceptibility": called,
        }
        for index, at, called in ((1, 9.0, "paramagnetic"), (2, 21.0, "diamagnetic"))
    ]
    found = (
        PlaceLesions(
            dseg=_save(tmp_path / "dseg.nii.gz", labels),
            lesions=lesions,
            brain_mask=_save(tmp_path / "brain.nii.gz", np.ones(labels.shape, np.uint8)),
            atlas=_save(tmp_path / "atlas.nii.gz", np.ones(labels.shape, np.uint8)),
            template=_save(tmp_path / "template.nii.gz", np.ones(labels.shape, np.float32)),
            scheme="mars",
            scan_to_reference=same,
            template_to_scan=same,
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    carried = np.asarray(nib.load(found.template_mask).dataobj) > 0
    assert np.array_equal(carried, labels == 1)
    rows = read_lesions(Path(found.table))
    assert [row.susceptibility for row in rows] == ["paramagnetic", "diamagnetic"]
