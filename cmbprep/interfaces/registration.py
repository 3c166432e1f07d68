"""Nodes that register."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from cmbprep.brain.refine import refine_brain_mask
from cmbprep.interfaces.base import FileInterface, Record
from cmbprep.interfaces.files import load_image
from cmbprep.outputs.files import write_atomically, write_image, write_json
from cmbprep.registration.fit import RegistrationQuality, register_to_template
from cmbprep.registration.scan import AnatomicalImage, doubts, register_head, register_scan
from cmbprep.spatial.transforms import PointMap, write_transform


class _ToReference(Record):
    brain_mask: str
    to_reference: str
    from_reference: str


class RegisterToReference(FileInterface):
    """Register an image to the template, and take its brain mask from there.

    Outputs are the brain mask on the image's own grid and two displacement fields: the one that
    brings the image onto the template, and the one that brings the template onto the image.
    """

    def compute(
        self,
        in_file: str,
        reference: str,
        reference_mask: str,
        same_contrast: bool = False,
        *,
        cwd: Path,
    ) -> _ToReference:
        """Register the image, whose bias is corrected in the head.

        ``same_contrast`` says that it is a T1w image like the reference.
        """
        image = load_image(in_file)
        found = register_head(
            image,
            load_image(reference),
            load_image(reference_mask),
            same_contrast=same_contrast,
        )
        mask = refine_brain_mask(image, found.brain_prior)
        failed = found.quality.verdict == "failed"
        return {
            "brain_mask": str(write_image(cwd / "brain_mask.nii.gz", mask, flush=False)),
            # A file is named for the image that it brings over; its map of points goes the
            # other way (see cmbprep.spatial.transforms).
            "to_reference": _save(found.to_image, cwd / "to_reference.nii.gz"),
            "from_reference": _save(found.to_template, cwd / "from_reference.nii.gz"),
            "quality": {
                "template_registration": _figures(found.quality),
                "route": "none" if failed else "template",
            },
            "warnings": doubts(found.quality, "template"),
        }


class _ToT1w(Record):
    brain_mask: str
    to_t1w: str
    from_t1w: str
    to_reference: NotRequired[str]
    from_reference: NotRequired[str]


class RegisterToT1w(FileInterface):
    """Register a scan to the T1w image, and carry the brain mask over.

    Outputs are the brain mask on the scan's own grid and two rigid transforms. Where the T1w
    image cannot be used, the scan is registered straight to the template, too; then there are
    the two fields of :class:`RegisterToReference`.
    """

    def compute(
        self,
        in_file: str,
        t1w: str,
        t1w_mask: str,
        reference: str,
        reference_mask: str,
        t1w_judgement: dict[str, Any] | None = None,
        *,
        cwd: Path,
    ) -> _ToT1w:
        """Register the scan; a T1w image without a judgement is trusted."""
        judged = (t1w_judgement or {}).get("template_registration", {})
        found = register_scan(
            load_image(in_file),
            AnatomicalImage(
                image=load_image(t1w),
                brain_mask=load_image(t1w_mask),
                verdict=judged.get("verdict", "ok"),
            ),
            load_image(reference),
            load_image(reference_mask),
        )
        assert found.rigid is not None
        quality: dict[str, Any] = {"t1w_registration": _figures(found.rigid.quality)}
        results: _ToT1w = {
            "brain_mask": str(
                write_image(cwd / "brain_mask.nii.gz", found.brain_mask, flush=False)
            ),
            "to_t1w": _save(found.rigid.to_reference.inverse(), cwd / "to_t1w.txt"),
            "from_t1w": _save(found.rigid.to_reference, cwd / "from_t1w.txt"),
            "quality": quality,
            "warnings": list(found.warnings),
        }
        if found.direct is not None:
            direct = found.direct
            quality["template_registration"] = _figures(direct.quality)
            results["to_reference"] = _save(direct.to_image, cwd / "to_reference.nii.gz")
            results["from_reference"] = _save(direct.to_template, cwd / "from_reference.nii.gz")
        quality["route"] = found.route
        return results


class _Bridge(TypedDict):
    to_template: str
    from_template: str


class RegisterTemplates(FileInterface):
    """Register the reference template to another one, and keep the fields in the output dataset.

    The sidecar that vouches for the two files is written last.
    """

    def compute(
        self,
        reference: str,
        template: str,
        template_mask: str,
        places: dict[str, str],
        sidecar: str,
        metadata: dict[str, Any],
        *,
        cwd: Path,
    ) -> _Bridge:
        """Register; ``places`` says where the file of each output goes."""
        found = register_to_template(
            load_image(reference),
            load_image(template),
            load_image(template_mask),
            same_contrast=True,
        )
        fields: _Bridge = {
            "to_template": _save(found.to_image, cwd / "to_template.nii.gz"),
            "from_template": _save(found.to_template, cwd / "from_template.nii.gz"),
        }
        Path(sidecar).unlink(missing_ok=True)
        for name, path in fields.items():
            with write_atomically(Path(places[name])) as temporary:
                shutil.copyfile(str(path), temporary)
        write_json(Path(sidecar), metadata)
        return fields


def _save(transform: PointMap, path: Path) -> str:
    write_transform(transform, path)
    return str(path)


def _figures(quality: RegistrationQuality) -> dict[str, Any]:
    """Round the figures of merit for a sidecar."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(quality).items()
        if name != "reasons" and value is not None
    }
