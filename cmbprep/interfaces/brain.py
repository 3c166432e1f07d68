"""Nodes that find the brain in an image, and choose its mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from cmbprep.brain.mask_selection import choose_brain_mask
from cmbprep.brain.network import BrainExtraction, extract_brain, load_brain_model
from cmbprep.errors import ScanError
from cmbprep.interfaces.files import load_image
from cmbprep.outputs.files import write_image

__all__ = ["ChooseMask", "FindBrain"]


class _FindBrainInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="checked image, as it was acquired")


class _FindBrainOutput(TraitedSpec):
    brain_mask = traits.Str(desc="on the image's own grid; undefined if no brain was found")
    figures = traits.Dict(desc="volume, edge confidence and cut surface of the mask")


class FindBrain(SimpleInterface):
    """Find the brain with the network, before anything else is known of the image."""

    input_spec = _FindBrainInput
    output_spec = _FindBrainOutput

    def _run_interface(self, runtime: Any) -> Any:
        self._results["figures"] = {}
        try:
            found = extract_brain(load_image(self.inputs.in_file), load_brain_model().predict)
        except ScanError:
            # Not the end: registration may find it yet, and the choice says so.
            return runtime
        path = write_image(Path(runtime.cwd) / "brain_mask.nii.gz", found.mask, flush=False)
        self._results["brain_mask"] = str(path)
        self._results["figures"] = {
            "volume_ml": found.volume_ml,
            "sureness": found.sureness,
            "cut_fraction": found.cut_fraction,
        }
        return runtime


class _ChooseMaskInput(BaseInterfaceInputSpec):
    found = traits.Str(desc="mask of the network")
    figures = traits.Dict(desc="its figures")
    carried = traits.Str(mandatory=True, desc="mask that registration carried, on the same grid")
    registration = traits.Dict(desc="quality of that registration")


class _ChooseMaskOutput(TraitedSpec):
    brain_mask = traits.Str()
    quality = traits.Dict()
    warnings = traits.List(traits.Str())


class ChooseMask(SimpleInterface):
    """Choose between the brain mask of the network and that of the registration."""

    input_spec = _ChooseMaskInput
    output_spec = _ChooseMaskOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        found = None
        if isdefined(given.found):
            found = BrainExtraction(load_image(given.found), **given.figures)
        # The carried mask is as good as the registration that has carried it.
        route = given.registration.get("route", "template")
        used = given.registration.get(f"{route}_registration", {})
        choice = choose_brain_mask(
            found,
            lambda: nib.Nifti1Image.from_image(load_image(given.carried)),
            registered=used.get("verdict") == "ok",
        )
        self._results["brain_mask"] = str(
            write_image(Path(runtime.cwd) / "brain_mask.nii.gz", choice.mask, flush=False)
        )
        quality: dict[str, Any] = {"brain_mask_source": choice.source}
        if found is not None:
            quality["brain_mask_sureness"] = round(found.sureness, 3)
        if choice.agreement is not None:
            quality["brain_mask_agreement"] = round(choice.agreement, 3)
        self._results["quality"] = quality
        self._results["warnings"] = list(choice.warnings)
        return runtime
