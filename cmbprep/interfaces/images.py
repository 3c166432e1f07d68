"""Nodes that read raw images and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from cmbprep.bids.images import combine_echoes, read_scan_image, require_echo_grid
from cmbprep.brain.quality import image_quality
from cmbprep.interfaces.files import hand_on, image_like, load_image, voxels

__all__ = ["MeasureImage", "ReadMagnitude", "ReadT1w"]

#: Part of the brain mask in the outermost slices from which a scan counts as cut.
CUT_LIMIT = 0.02
_CUT_WARNING = (
    "the field of view cuts the brain ({:.1%} of the brain mask lies in the outermost slices): "
    "lesions outside it are not counted"
)


class _ReadMagnitudeInput(BaseInterfaceInputSpec):
    in_files = traits.List(traits.Str(), mandatory=True, desc="magnitude images, one an echo")
    echo_times = traits.List(traits.Any(), mandatory=True, desc="seconds, or None where unknown")


class _ReadOutput(TraitedSpec):
    out_file = traits.Str(desc="checked image, float32, on its own grid")
    warnings = traits.List(traits.Str())


class ReadMagnitude(SimpleInterface):
    """Read the echoes of a scan, check each, and combine them into one image."""

    input_spec = _ReadMagnitudeInput
    output_spec = _ReadOutput

    def _run_interface(self, runtime: Any) -> Any:
        paths = [Path(path) for path in self.inputs.in_files]
        checked = [read_scan_image(path, role="magnitude") for path in paths]
        first = checked[0].image
        for path, (image, _) in zip(paths, checked, strict=True):
            require_echo_grid(image, path, first, paths[0])
        data = combine_echoes(
            [np.asarray(image.dataobj) for image, _ in checked], self.inputs.echo_times
        )
        combined = image_like(data.astype(np.float32), first)
        self._results["out_file"] = hand_on(Path(runtime.cwd) / "magnitude.nii", combined)
        self._results["warnings"] = _distinct(
            warning for _, warnings in checked for warning in warnings
        )
        return runtime


class _ReadT1wInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True)


class ReadT1w(SimpleInterface):
    """Read a T1w image and check it."""

    input_spec = _ReadT1wInput
    output_spec = _ReadOutput

    def _run_interface(self, runtime: Any) -> Any:
        image, warnings = read_scan_image(Path(self.inputs.in_file), role="T1w")
        self._results["out_file"] = hand_on(Path(runtime.cwd) / "t1w.nii", image)
        self._results["warnings"] = list(warnings)
        return runtime


def _distinct(items: Any) -> list[str]:
    return list(dict.fromkeys(items))


class _MeasureImageInput(BaseInterfaceInputSpec):
    before = traits.Str(mandatory=True, desc="image before bias correction")
    after = traits.Str(mandatory=True, desc="image after it")
    mask = traits.Str(mandatory=True, desc="brain mask")


class _MeasureImageOutput(TraitedSpec):
    quality = traits.Dict(desc="see cmbprep.brain.quality.image_quality")
    warnings = traits.List(traits.Str(), usedefault=True)


class MeasureImage(SimpleInterface):
    """Measure voxel size, coverage, signal and bias of an image."""

    input_spec = _MeasureImageInput
    output_spec = _MeasureImageOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        image = load_image(given.before)
        quality = image_quality(
            np.asarray(image.dataobj, dtype=np.float32),
            voxels(given.after),
            voxels(given.mask, bool),
            image.affine,
        )
        self._results["quality"] = quality
        cut = quality.get("brain_cut_fraction")
        if isinstance(cut, float) and cut > CUT_LIMIT:
            self._results["warnings"] = [_CUT_WARNING.format(cut)]
        return runtime
