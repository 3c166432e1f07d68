"""Nodes that draw zone atlases: of the template with another border, and of a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from numpy.typing import NDArray

from cmbprep.errors import ScanError
from cmbprep.interfaces.files import load_image, save_like, voxels
from cmbprep.interfaces.given import load_given
from cmbprep.outputs.files import write_image
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.grids import Grid, bounding_box, boxed_grid, respaced_grid
from cmbprep.spatial.transforms import PointMap, apply_transforms, read_transform
from cmbprep.zones.parcellation import Parcellation, draw_atlas
from cmbprep.zones.person import person_zones
from cmbprep.zones.schemes import get_scheme

__all__ = ["DrawAtlas", "DrawPersonZones"]

#: Part of a segmentation that must lie in the brain mask; else it is of another image.
INSIDE_LIMIT = 0.85
#: Width around the brain that is looked at, mm.
MARGIN_MM = 8.0


class _DrawAtlasInput(BaseInterfaceInputSpec):
    parcellation = traits.Str(mandatory=True, desc="what the template's atlases are drawn from")
    brain_mask = traits.Str(mandatory=True, desc="of the template")
    mars = traits.Str(mandatory=True, desc="the packaged MARS atlas")
    scheme = traits.Str(mandatory=True)
    border_mm = traits.Float(mandatory=True)


class _AtlasOutput(TraitedSpec):
    atlas = traits.Str(desc="indices of the scheme's regions")


class DrawAtlas(SimpleInterface):
    """Draw the template's atlas with a border of the person's choice."""

    input_spec = _DrawAtlasInput
    output_spec = _AtlasOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        image = load_image(given.parcellation)
        labels = draw_atlas(
            Parcellation.unpack(np.asarray(image.dataobj)),
            voxels(given.brain_mask, bool),
            get_scheme(given.scheme, given.border_mm),
            voxels(given.mars, np.uint8),
        )
        self._results["atlas"] = save_like(Path(runtime.cwd) / "atlas.nii.gz", labels, image)
        return runtime


class _DrawPersonZonesInput(BaseInterfaceInputSpec):
    segmentation = traits.Str(mandatory=True, desc="labels of FreeSurfer, NIfTI or MGH")
    to_segmentation = traits.Str(desc="map of points from the T1w image; the same space without")
    brain_mask = traits.Str(mandatory=True, desc="of the T1w image")
    to_reference = traits.Str(mandatory=True, desc="map of points from the T1w image")
    parcellation = traits.Str(mandatory=True, desc="what the template's atlases are drawn from")
    scheme = traits.Str(mandatory=True)
    border_mm = traits.Float(mandatory=True)


class _DrawPersonZonesOutput(_AtlasOutput):
    quality = traits.Dict()
    warnings = traits.List(traits.Str())


class DrawPersonZones(SimpleInterface):
    """Draw a person's zones from their own segmentation, at 1 mm in the T1w image's space."""

    input_spec = _DrawPersonZonesInput
    output_spec = _DrawPersonZonesOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        mask = load_image(given.brain_mask)
        grid = _brain_grid(mask)
        chain = []
        if isdefined(given.to_segmentation):
            chain.append(read_transform(Path(given.to_segmentation)))
        labels = _labels(given.segmentation, grid, chain)
        brain = _sample(mask, grid) > 0
        inside = float((brain & (labels > 0)).sum() / max(int((labels > 0).sum()), 1))
        if inside < INSIDE_LIMIT:
            raise ScanError(
                f"only {inside:.0%} of the segmentation lies in the T1w image's brain",
                path=given.segmentation,
                hint="check that both are of the same image, or leave the segmentation's folder "
                "out of --derivatives",
            )
        packed = load_image(given.parcellation)
        to_reference = read_transform(Path(given.to_reference))
        template = Parcellation.unpack(_sample(packed, grid, (to_reference,))).classes
        try:
            drawn = person_zones(labels, template, brain, get_scheme(given.scheme, given.border_mm))
        except ValueError as error:
            raise ScanError(
                str(error),
                path=given.segmentation,
                hint="give FreeSurfer's or FastSurfer's aparc+aseg, or fMRIPrep's aparcaseg",
            ) from error
        image = nib.Nifti1Image(drawn.labels, grid.affine)
        self._results["atlas"] = str(
            write_image(Path(runtime.cwd) / "zones.nii.gz", image, flush=False)
        )
        self._results["quality"] = {"segmentation_in_brain_fraction": round(inside, 4)}
        named = ", ".join(map(str, drawn.unknown))
        self._results["warnings"] = (
            [f"the segmentation has labels that FreeSurfer's table lacks ({named})"]
            if named
            else []
        )
        return runtime


def _brain_grid(mask: nib.Nifti1Image) -> Grid:
    """Lay a grid of 1 mm around a brain, along the axes of its image."""
    own = image_grid(mask)
    pad = np.ceil(MARGIN_MM / own.spacing).astype(int)
    part = boxed_grid(own, bounding_box(np.asarray(mask.dataobj) > 0, pad))
    if np.allclose(own.spacing, 1.0, atol=0.01):
        return part
    return respaced_grid(part.shape, part.affine, (1.0, 1.0, 1.0))


def _labels(path: str, grid: Grid, chain: list[PointMap]) -> NDArray[np.int32]:
    """Read a segmentation's labels at the voxels of a grid."""
    image = load_given(path)
    data = np.asarray(image.dataobj)
    numbers = np.rint(data).astype(np.int32)
    if data.ndim != 3 or not np.allclose(data, numbers, atol=1e-3):
        raise ScanError(
            "it is no image of labels",
            path=path,
            hint="give FreeSurfer's or FastSurfer's aparc+aseg, or fMRIPrep's aparcaseg",
        )
    found: NDArray[np.int32] = _sample(nib.Nifti1Image(numbers, image.affine), grid, chain)
    return found


def _sample(image: nib.Nifti1Image, grid: Grid, chain: Any = ()) -> NDArray[Any]:
    return np.asarray(apply_transforms(image, grid, chain, interpolation="nearest").dataobj)
