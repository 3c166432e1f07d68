"""Nodes that draw the figures of the reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from cmbprep.algorithms.grids import Grid, working_grid
from cmbprep.algorithms.itk import image_grid
from cmbprep.algorithms.transforms import PointMap, apply_transforms, read_transform
from cmbprep.lesions import read_lesions
from cmbprep.outputs import write_text
from cmbprep.reports.figures import bias_figure, mask_figure, registration_figure, zones_figure
from cmbprep.reports.lesion_figures import lesion_figure, overview_figure
from cmbprep.zones import get_scheme

from .files import load_image, voxels

__all__ = ["DrawImage", "DrawLesions", "DrawRegistration"]

#: Voxel size at which registrations are drawn, mm: finer cannot be seen in a mosaic.
DRAWN_SPACING = 2.0


class _FiguresOutput(TraitedSpec):
    figures = traits.List(traits.Str(), desc="SVG files")


class _DrawImageInput(BaseInterfaceInputSpec):
    before = traits.Str(mandatory=True, desc="image before bias correction")
    after = traits.Str(mandatory=True, desc="image after it")
    field = traits.Str(mandatory=True, desc="what the image was divided by")
    mask = traits.Str(mandatory=True, desc="brain mask")
    src = traits.Str(mandatory=True, desc="stem of the file names")
    suffix = traits.Str(mandatory=True)


class DrawImage(SimpleInterface):
    """Draw bias correction and brain mask of an image."""

    input_spec = _DrawImageInput
    output_spec = _FiguresOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        after = load_image(given.after)
        data, mask = np.asarray(after.dataobj, dtype=np.float32), voxels(given.mask, bool)
        name = f"{given.src}_desc-{{}}_{given.suffix}.svg"
        bias = bias_figure(
            voxels(given.before), data, after.affine, mask, field=voxels(given.field)
        )
        self._results["figures"] = [
            _write(runtime, name.format("bias"), bias),
            _write(runtime, name.format("mask"), mask_figure(data, after.affine, mask)),
        ]
        return runtime


class _DrawRegistrationInput(BaseInterfaceInputSpec):
    fixed = traits.Str(mandatory=True, desc="image that the other was registered to")
    fixed_mask = traits.Str(mandatory=True, desc="its brain mask")
    moving = traits.Str(mandatory=True)
    moving_mask = traits.Str(mandatory=True)
    fixed_to_moving = traits.List(traits.Str(), mandatory=True, desc="maps of points")
    fixed_name = traits.Str(mandatory=True)
    moving_name = traits.Str(mandatory=True)
    file_name = traits.Str(mandatory=True)


class DrawRegistration(SimpleInterface):
    """Draw two registered images, one above the other."""

    input_spec = _DrawRegistrationInput
    output_spec = _FiguresOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        fixed = load_image(given.fixed)
        grid = working_grid(image_grid(fixed).shape, fixed.affine, DRAWN_SPACING)
        chain = [read_transform(Path(path)) for path in given.fixed_to_moving]
        masks = {
            f"brain of {given.fixed_name}": _on(given.fixed_mask, grid, (), "nearest"),
            f"brain of {given.moving_name}": _on(given.moving_mask, grid, chain, "nearest"),
        }
        figure = registration_figure(
            _on(given.fixed, grid, ()),
            _on(given.moving, grid, chain),
            grid.affine,
            masks,
            fixed_name=given.fixed_name,
            moving_name=given.moving_name,
        )
        self._results["figures"] = [_write(runtime, given.file_name, figure)]
        return runtime


class _DrawLesionsInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="scan after bias correction")
    mask = traits.Str(mandatory=True, desc="brain mask")
    dseg = traits.Str(mandatory=True)
    table = traits.Str(mandatory=True)
    atlas = traits.Str(mandatory=True, desc="zone atlas on the scan's grid")
    scheme = traits.Str(mandatory=True)
    src = traits.Str(mandatory=True, desc="stem of the file names")
    suffix = traits.Str(mandatory=True)


class DrawLesions(SimpleInterface):
    """Draw the zones, all lesions at a glance, and each lesion in three planes."""

    input_spec = _DrawLesionsInput
    output_spec = _FiguresOutput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        scan = load_image(given.in_file)
        data, affine = np.asarray(scan.dataobj, dtype=np.float32), scan.affine
        mask, labels = voxels(given.mask, bool), voxels(given.dseg, np.int32)
        lesions = read_lesions(Path(given.table))
        regions = get_scheme(given.scheme).by_index
        figures = {
            "zones": zones_figure(
                data,
                affine,
                voxels(given.atlas, np.uint8),
                {index: region.colour for index, region in regions.items()},
                {index: region.name for index, region in regions.items()},
            ),
            "overview": overview_figure(data, affine, labels, lesions, mask=mask),
        }
        for lesion in lesions:
            others = [other for other in lesions if other is not lesion]
            figures[f"lesion{lesion.index:03d}"] = lesion_figure(
                data, affine, labels, lesion, others, mask=mask
            )
        self._results["figures"] = [
            _write(runtime, f"{given.src}_desc-{what}_{given.suffix}.svg", figure)
            for what, figure in figures.items()
        ]
        return runtime


def _on(path: str, grid: Grid, chain: Sequence[PointMap], how: str = "linear") -> Any:
    image = load_image(path)
    return np.asarray(apply_transforms(image, grid, chain, interpolation=how).dataobj)


def _write(runtime: Any, name: str, figure: str) -> str:
    return str(write_text(Path(runtime.cwd) / name, figure))
