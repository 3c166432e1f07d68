"""Nodes that correct bias, find the brain, and register."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from cmbprep.brain.bias import correct_bias
from cmbprep.brain.refine import refine_brain_mask
from cmbprep.interfaces.files import hand_on, load_image
from cmbprep.outputs.files import write_image
from cmbprep.registration.fit import RegistrationQuality, register_to_template
from cmbprep.registration.scan import AnatomicalImage, doubts, register_scan
from cmbprep.spatial.transforms import PointMap, write_transform

__all__ = [
    "CorrectBias",
    "CorrectRoughly",
    "RegisterTemplates",
    "RegisterToReference",
    "RegisterToT1w",
]


class _CorrectBiasInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True)
    mask = traits.Str(mandatory=True, desc="brain, where the field is fitted")


class _CorrectBiasOutput(TraitedSpec):
    out_file = traits.Str(desc="corrected image")
    field = traits.Str(desc="what the image was divided by")


class CorrectBias(SimpleInterface):
    """Divide an image by its smooth intensity bias in the brain (N4)."""

    input_spec = _CorrectBiasInput
    output_spec = _CorrectBiasOutput

    def _run_interface(self, runtime: Any) -> Any:
        given, cwd = self.inputs, Path(runtime.cwd)
        corrected = correct_bias(load_image(given.in_file), load_image(given.mask))
        self._results["out_file"] = str(
            write_image(cwd / "corrected.nii.gz", corrected.image, flush=False)
        )
        self._results["field"] = hand_on(cwd / "field.nii", corrected.field)
        return runtime


class _CorrectRoughlyInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True)


class _CorrectRoughlyOutput(TraitedSpec):
    out_file = traits.Str(desc="corrected image")


class CorrectRoughly(SimpleInterface):
    """Divide an image by its bias in the whole head, for the registration."""

    input_spec = _CorrectRoughlyInput
    output_spec = _CorrectRoughlyOutput

    def _run_interface(self, runtime: Any) -> Any:
        corrected = correct_bias(load_image(self.inputs.in_file))
        out = hand_on(Path(runtime.cwd) / "corrected.nii", corrected.image)
        self._results["out_file"] = out
        return runtime


class _RegisterToReferenceInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="bias-corrected image of a head")
    reference = traits.Str(mandatory=True, desc="head of the template")
    reference_mask = traits.Str(mandatory=True, desc="its brain mask")


class _RegisterToReferenceOutput(TraitedSpec):
    brain_mask = traits.Str(desc="on the image's own grid")
    to_reference = traits.Str(desc="field that brings the image onto the template")
    from_reference = traits.Str(desc="field that brings the template onto the image")
    quality = traits.Dict()
    warnings = traits.List(traits.Str())


class RegisterToReference(SimpleInterface):
    """Register an image to the template, and take its brain mask from there."""

    input_spec = _RegisterToReferenceInput
    output_spec = _RegisterToReferenceOutput

    def _run_interface(self, runtime: Any) -> Any:
        given, cwd = self.inputs, Path(runtime.cwd)
        image = load_image(given.in_file)
        found = register_to_template(
            image, load_image(given.reference), load_image(given.reference_mask)
        )
        mask = refine_brain_mask(image, found.brain_prior)
        mask_path = write_image(cwd / "brain_mask.nii.gz", mask, flush=False)
        self._results["brain_mask"] = str(mask_path)
        # A file is named for the image that it brings over; its map of points goes the
        # other way (see cmbprep.spatial.transforms).
        self._results["to_reference"] = _save(found.to_image, cwd / "to_reference.nii.gz")
        self._results["from_reference"] = _save(found.to_template, cwd / "from_reference.nii.gz")
        failed = found.quality.verdict == "failed"
        self._results["quality"] = {
            "template_registration": _figures(found.quality),
            "route": "none" if failed else "template",
        }
        self._results["warnings"] = doubts(found.quality, "template")
        return runtime


class _RegisterToT1wInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="bias-corrected scan")
    t1w = traits.Str(mandatory=True, desc="bias-corrected T1w image of the same person")
    t1w_mask = traits.Str(mandatory=True, desc="its brain mask")
    t1w_judgement = traits.Dict(desc="figures of its registration; trusted if not given")
    reference = traits.Str(mandatory=True, desc="head of the template, to fall back on")
    reference_mask = traits.Str(mandatory=True, desc="its brain mask")


class _RegisterToT1wOutput(TraitedSpec):
    brain_mask = traits.Str(desc="on the scan's own grid")
    to_t1w = traits.Str(desc="rigid transform that brings the scan onto the T1w image")
    from_t1w = traits.Str(desc="rigid transform that brings the T1w image onto the scan")
    to_reference = traits.Str(desc="field, where the scan went straight to the template")
    from_reference = traits.Str(desc="the same, the other way")
    quality = traits.Dict()
    warnings = traits.List(traits.Str())


class RegisterToT1w(SimpleInterface):
    """Register a scan to the T1w image, and carry the brain mask over.

    Where that fails, the scan is registered straight to the template, too.
    """

    input_spec = _RegisterToT1wInput
    output_spec = _RegisterToT1wOutput

    def _run_interface(self, runtime: Any) -> Any:
        given, cwd = self.inputs, Path(runtime.cwd)
        judgement = given.t1w_judgement if isdefined(given.t1w_judgement) else {}
        anatomy = AnatomicalImage(
            image=load_image(given.t1w),
            brain_mask=load_image(given.t1w_mask),
            verdict=judgement.get("template_registration", {}).get("verdict", "ok"),
        )
        found = register_scan(
            load_image(given.in_file),
            anatomy,
            load_image(given.reference),
            load_image(given.reference_mask),
        )
        mask_path = write_image(cwd / "brain_mask.nii.gz", found.brain_mask, flush=False)
        self._results["brain_mask"] = str(mask_path)
        assert found.rigid is not None
        quality: dict[str, Any] = {"t1w_registration": _figures(found.rigid.quality)}
        self._results["to_t1w"] = _save(found.rigid.to_reference.inverse(), cwd / "to_t1w.txt")
        self._results["from_t1w"] = _save(found.rigid.to_reference, cwd / "from_t1w.txt")
        if found.direct is not None:
            direct = found.direct
            quality["template_registration"] = _figures(direct.quality)
            self._results["to_reference"] = _save(direct.to_image, cwd / "to_reference.nii.gz")
            self._results["from_reference"] = _save(
                direct.to_template, cwd / "from_reference.nii.gz"
            )
        self._results["quality"] = {**quality, "route": found.route}
        self._results["warnings"] = list(found.warnings)
        return runtime


class _RegisterTemplatesInput(BaseInterfaceInputSpec):
    fixed = traits.Str(mandatory=True)
    fixed_mask = traits.Str(mandatory=True)
    moving = traits.Str(mandatory=True)


class _RegisterTemplatesOutput(TraitedSpec):
    to_fixed = traits.Str(desc="field that brings the moving template onto the fixed one")
    from_fixed = traits.Str(desc="field that brings the fixed template onto the moving one")


class RegisterTemplates(SimpleInterface):
    """Register one template to another."""

    input_spec = _RegisterTemplatesInput
    output_spec = _RegisterTemplatesOutput

    def _run_interface(self, runtime: Any) -> Any:
        given, cwd = self.inputs, Path(runtime.cwd)
        found = register_to_template(
            load_image(given.moving), load_image(given.fixed), load_image(given.fixed_mask)
        )
        self._results["to_fixed"] = _save(found.to_image, cwd / "to_fixed.nii.gz")
        self._results["from_fixed"] = _save(found.to_template, cwd / "from_fixed.nii.gz")
        return runtime


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
