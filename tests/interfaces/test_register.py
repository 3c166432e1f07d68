"""The nodes that register: which files they leave for which way to the template."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined

from cmbprep.interfaces import registration
from cmbprep.registration.fit import RegistrationQuality, RigidRegistration, TemplateRegistration
from cmbprep.registration.scan import AnatomicalImage, ScanRegistration
from cmbprep.spatial.transforms import DisplacementMap, LinearMap, read_transform

IMAGE = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))


def quality(verdict: str) -> RegistrationQuality:
    return RegistrationQuality(
        similarity=1.1, overlap=1.0, brain_volume_ml=1400.0, rotation_deg=0.0, shift_mm=0.0,
        verdict=verdict, reasons=() if verdict == "ok" else ("it is off",),
    )  # fmt: skip


@pytest.mark.parametrize("route", ["t1w", "template", "none"])
def test_the_direct_way_is_left_where_the_t1w_image_was_not_used(
    route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = DisplacementMap(np.full((2, 2, 2, 3), 3.0, np.float32), np.eye(4))
    back = DisplacementMap(np.full((2, 2, 2, 3), -3.0, np.float32), np.eye(4))
    turned = np.eye(4)
    turned[:3, 3] = (1, 2, 3)
    seen = []

    def register(scan: Any, given: AnatomicalImage, *_: Any) -> ScanRegistration:
        seen.append(given.verdict)
        tried = TemplateRegistration(
            there, back, LinearMap(np.eye(4)), IMAGE, quality("failed" if route == "none" else "ok")
        )
        return ScanRegistration(
            route=route,
            rigid=RigidRegistration(
                LinearMap(turned), quality("ok" if route == "t1w" else "failed")
            ),
            direct=None if route == "t1w" else tried,
            brain_mask=IMAGE,
            quality=quality("ok"),
            warnings=("the T1w image was not used",),
            spacing_mm=1.0,
        )

    monkeypatch.setattr(registration, "register_scan", register)
    nib.save(IMAGE, tmp_path / "image.nii.gz")
    path = str(tmp_path / "image.nii.gz")
    found = (
        registration.RegisterToT1w(
            in_file=path,
            t1w=path,
            t1w_mask=path,
            reference=path,
            reference_mask=path,
            t1w_judgement={"template_registration": {"verdict": "doubtful"}},
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    assert seen == ["doubtful"]
    point = np.zeros((1, 3))
    # A file is named for the image that it brings over; its points go the other way.
    assert np.allclose(read_transform(Path(found.from_t1w))(point), [[1, 2, 3]])
    assert np.allclose(read_transform(Path(found.to_t1w))(point), [[-1, -2, -3]])
    assert found.quality["route"] == route
    assert "reasons" not in found.quality["t1w_registration"]
    assert isdefined(found.from_reference) == (route != "t1w")
    if route != "t1w":
        assert np.allclose(read_transform(Path(found.from_reference))(point), 3.0)
        assert np.allclose(read_transform(Path(found.to_reference))(point), -3.0)
        assert found.quality["template_registration"]["verdict"] == (
            "failed" if route == "none" else "ok"
        )
