"""Nodes that read what other programs have made of a participant's anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.bids.images import check_image, open_image, read_scan_image
from cmbprep.errors import ScanError
from cmbprep.interfaces.figures import DrawFigures
from cmbprep.interfaces.files import load_image, save_like, voxels
from cmbprep.outputs.files import write_image
from cmbprep.reports.figures.images import mask_figure
from cmbprep.spatial.ants import image_grid, sample_transform
from cmbprep.spatial.grids import Grid, same_grid, working_grid
from cmbprep.spatial.transforms import apply_transforms, write_transform

__all__ = ["DrawMask", "ReadGivenMask", "ReadGivenT1w", "ReadGivenTransforms", "load_given"]

#: Voxel size at which transforms are sampled, mm: that of the program's own.
SPACING = 2.0
#: With less than this part in common, two brain masks are not of the same brain (Dice).
OVERLAP_LIMIT = 0.85


def load_given(path: str) -> nib.Nifti1Image:
    """Open an image of another program, NIfTI or FreeSurfer's MGH, as NIfTI.

    Raises
    ------
    ScanError
        If it cannot be read.
    """
    return _open_given(path)[0]


def _open_given(path: str) -> tuple[nib.Nifti1Image, tuple[str, ...]]:
    """Open an image of another program, and return what was corrected in its header."""
    if _is_nifti(path):
        try:
            return open_image(Path(path))
        except ScanError as error:
            raise _not_used(error) from error
    try:
        image: Any = nib.load(path)
        data, affine = np.asanyarray(image.dataobj), image.affine
    # Whatever a damaged file makes the readers raise.
    except Exception as error:
        raise ScanError(
            f"it cannot be read as an image ({error})",
            path=path,
            hint="make it again, or leave its folder out of --derivatives",
        ) from error
    converted = nib.Nifti1Image(data, affine)
    converted.header.set_xyzt_units("mm")
    return converted, ()


def _is_nifti(path: str) -> bool:
    return path.endswith((".nii", ".nii.gz"))


def _not_used(error: ScanError) -> ScanError:
    """Add to an error what can be done about a file of another program."""
    hint = f"{error.hint}, or leave its folder out of --derivatives"
    return ScanError(error.message, path=error.path, hint=hint)


class _ReadGivenT1wInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="T1w image after bias correction, NIfTI or MGH")


class _ReadGivenT1wOutput(TraitedSpec):
    out_file = traits.Str(desc="checked image, float32, on its own grid")
    warnings = traits.List(traits.Str())


class ReadGivenT1w(SimpleInterface):
    """Read a corrected T1w image of another program and check it."""

    input_spec = _ReadGivenT1wInput
    output_spec = _ReadGivenT1wOutput

    def _run_interface(self, runtime: Any) -> Any:
        path = self.inputs.in_file
        if _is_nifti(path):
            try:
                image, warnings = read_scan_image(Path(path), role="T1w")
            except ScanError as error:
                raise _not_used(error) from error
        else:
            image, warnings = check_image(load_given(path), Path(path), role="T1w")
        self._results["out_file"] = str(write_image(Path(runtime.cwd) / "t1w.nii.gz", image))
        self._results["warnings"] = list(warnings)
        return runtime


class _ReadGivenMaskInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="brain mask, NIfTI or MGH")
    like = traits.Str(mandatory=True, desc="image in the same space that it is wanted for")


class _ReadGivenMaskOutput(TraitedSpec):
    brain_mask = traits.Str(desc="on the grid of the image")
    warnings = traits.List(traits.Str(), desc="what was corrected in the header of the mask")


class ReadGivenMask(SimpleInterface):
    """Read a brain mask of another program, onto the grid of an image in the same space."""

    input_spec = _ReadGivenMaskInput
    output_spec = _ReadGivenMaskOutput

    def _run_interface(self, runtime: Any) -> Any:
        like = load_image(self.inputs.like)
        image, warnings = _open_given(self.inputs.in_file)
        mask = _on_grid(image, image_grid(like)) > 0.5
        if not mask.any():
            raise ScanError(
                "the brain mask is empty, or lies beside the image",
                path=self.inputs.in_file,
                hint="check that it was made for this image, or leave it out of --derivatives",
            )
        filled = ndimage.binary_fill_holes(mask).astype(np.uint8)
        out = Path(runtime.cwd) / "brain_mask.nii.gz"
        self._results["brain_mask"] = save_like(out, filled, like)
        self._results["warnings"] = [f"brain mask given: {text}" for text in warnings]
        return runtime


def _on_grid(image: nib.Nifti1Image, grid: Grid) -> NDArray[Any]:
    """Return an image's values at the voxels of a grid in the same space."""
    if same_grid(image.shape, image.affine, grid.shape, grid.affine):
        return np.asarray(image.dataobj).reshape(grid.shape)
    return np.asarray(apply_transforms(image, grid, (), interpolation="nearest").dataobj)


class _ReadGivenTransformsInput(BaseInterfaceInputSpec):
    to_reference = traits.Str(mandatory=True, desc="brings the T1w image onto the template")
    from_reference = traits.Str(mandatory=True, desc="brings the template onto the T1w image")
    brain_mask = traits.Str(mandatory=True, desc="of the T1w image")
    reference_mask = traits.Str(mandatory=True, desc="of the template")


class _ReadGivenTransformsOutput(TraitedSpec):
    to_reference = traits.Str(desc="field that brings the T1w image onto the template")
    from_reference = traits.Str(desc="field that brings the template onto the T1w image")
    quality = traits.Dict()
    warnings = traits.List(traits.Str())


class ReadGivenTransforms(SimpleInterface):
    """Read the transforms between T1w image and template, and see whether the brains meet."""

    input_spec = _ReadGivenTransformsInput
    output_spec = _ReadGivenTransformsOutput

    def _run_interface(self, runtime: Any) -> Any:
        given, cwd = self.inputs, Path(runtime.cwd)
        brain, reference = load_image(given.brain_mask), load_image(given.reference_mask)
        fields = {}
        # A transform that brings an image onto another one takes points of that one.
        for name, image in (("to_reference", reference), ("from_reference", brain)):
            grid = working_grid(image_grid(image).shape, image.affine, SPACING)
            fields[name] = sample_transform(Path(getattr(given, name)), grid)
            write_transform(fields[name], cwd / f"{name}.nii.gz")
            self._results[name] = str(cwd / f"{name}.nii.gz")
        overlaps = {
            "reference_overlap": _dice(reference, brain, fields["to_reference"]),
            "t1w_overlap": _dice(brain, reference, fields["from_reference"]),
        }
        least = min(overlaps.values())
        verdict = "doubtful" if least < OVERLAP_LIMIT else "ok"
        self._results["quality"] = {"template_registration": {**overlaps, "verdict": verdict}}
        doubt = (
            "the registration to the template is doubtful: with the transforms that were given, "
            f"brain and template have {least:.0%} in common (Dice)"
        )
        self._results["warnings"] = [doubt] if verdict == "doubtful" else []
        return runtime


def _dice(fixed: nib.Nifti1Image, moving: nib.Nifti1Image, transform: Any) -> float:
    """Overlap of two masks of which one is brought onto the other, at the working resolution."""
    grid = transform.grid
    one = np.asarray(apply_transforms(fixed, grid, (), interpolation="nearest").dataobj) > 0
    chain = (transform,)
    two = np.asarray(apply_transforms(moving, grid, chain, interpolation="nearest").dataobj) > 0
    return round(float(2 * (one & two).sum() / max(int(one.sum() + two.sum()), 1)), 4)


class _DrawMaskInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True)
    mask = traits.Str(mandatory=True)
    file_name = traits.Str(mandatory=True)


class DrawMask(DrawFigures):
    """Draw a brain mask on its image."""

    input_spec = _DrawMaskInput

    def _run_interface(self, runtime: Any) -> Any:
        return self.draw(runtime, {self.inputs.file_name: self._figure})

    def _figure(self) -> str:
        image = load_image(self.inputs.in_file)
        data = np.asarray(image.dataobj, dtype=np.float32)
        return mask_figure(data, image.affine, voxels(self.inputs.mask, bool))
