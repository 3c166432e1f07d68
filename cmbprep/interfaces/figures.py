"""Nodes that draw the figures of the reports.

A figure is an extra: one that cannot be drawn is named by its node, which ends all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from cmbprep.interfaces.files import load_image, voxels
from cmbprep.lesions import Lesion, read_lesions
from cmbprep.outputs.files import write_text
from cmbprep.reports.figures.guarded import draw_all, once
from cmbprep.reports.figures.images import (
    bias_figure,
    mask_figure,
    registration_figure,
    zones_figure,
)
from cmbprep.reports.figures.lesions import lesion_figure, overview_figure
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.grids import Grid, working_grid
from cmbprep.spatial.transforms import PointMap, apply_transforms, read_transform
from cmbprep.zones.schemes import get_scheme

__all__ = ["DrawFigures", "DrawImage", "DrawLesions", "DrawRegistration"]

#: Voxel size at which registrations are drawn, mm: finer cannot be seen in a mosaic.
DRAWN_SPACING = 2.0


class _FiguresOutput(TraitedSpec):
    figures = traits.List(traits.Str(), desc="SVG files")
    missing_figures = traits.Dict(desc="figure's file name -> why it could not be drawn")


class DrawFigures(SimpleInterface):
    """Draw figures into the folder of a node; the parent of all nodes that draw.

    Its outputs are the ``figures`` that could be drawn and the ``missing_figures``.
    """

    output_spec = _FiguresOutput
    _given_up: str | None = None

    def give_up(self, reason: str) -> None:
        """Draw nothing, for this reason; the engine asks for it when drawing kills the process."""
        self._given_up = reason

    def draw(self, runtime: Any, figures: Mapping[str, Callable[[], str]]) -> Any:
        """Draw each figure under a guard.

        Parameters
        ----------
        runtime
            Of the node.
        figures
            File name -> function that reads what it needs and returns the SVG.
        """

        def keep(name: str, figure: str) -> str:
            return str(write_text(Path(runtime.cwd) / name, figure))

        if self._given_up is not None:
            figures, missing = {}, dict.fromkeys(figures, self._given_up)
        else:
            missing = {}
        drawn, failed = draw_all(figures, keep)
        self._results["figures"] = list(drawn.values())
        self._results["missing_figures"] = {**missing, **failed}
        return runtime


class _DrawImageInput(BaseInterfaceInputSpec):
    before = traits.Str(mandatory=True, desc="image before bias correction")
    after = traits.Str(mandatory=True, desc="image after it")
    field = traits.Str(mandatory=True, desc="what the image was divided by")
    mask = traits.Str(mandatory=True, desc="brain mask")
    src = traits.Str(mandatory=True, desc="stem of the file names")
    suffix = traits.Str(mandatory=True)


class DrawImage(DrawFigures):
    """Draw bias correction and brain mask of an image."""

    input_spec = _DrawImageInput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        name = f"{given.src}_desc-{{}}_{given.suffix}.svg"

        @once
        def read() -> tuple[Any, Any, Any]:
            after = load_image(given.after)
            data = np.asarray(after.dataobj, dtype=np.float32)
            return data, after.affine, voxels(given.mask, bool)

        def bias() -> str:
            data, affine, mask = read()
            return bias_figure(voxels(given.before), data, affine, mask, field=voxels(given.field))

        return self.draw(
            runtime,
            {
                name.format("bias"): bias,
                name.format("mask"): lambda: mask_figure(*read()),
            },
        )


class _DrawRegistrationInput(BaseInterfaceInputSpec):
    fixed = traits.Str(mandatory=True, desc="image that the other was registered to")
    fixed_mask = traits.Str(mandatory=True, desc="its brain mask")
    moving = traits.Str(mandatory=True)
    moving_mask = traits.Str(mandatory=True)
    fixed_to_moving = traits.List(traits.Str(), mandatory=True, desc="maps of points")
    fixed_name = traits.Str(mandatory=True)
    moving_name = traits.Str(mandatory=True)
    file_name = traits.Str(mandatory=True)


class DrawRegistration(DrawFigures):
    """Draw two registered images, one above the other."""

    input_spec = _DrawRegistrationInput

    def _run_interface(self, runtime: Any) -> Any:
        return self.draw(runtime, {self.inputs.file_name: self._figure})

    def _figure(self) -> str:
        given = self.inputs
        fixed = load_image(given.fixed)
        grid = working_grid(image_grid(fixed).shape, fixed.affine, DRAWN_SPACING)
        chain = [read_transform(Path(path)) for path in given.fixed_to_moving]
        masks = {
            f"brain of {given.fixed_name}": _on(given.fixed_mask, grid, (), "nearest"),
            f"brain of {given.moving_name}": _on(given.moving_mask, grid, chain, "nearest"),
        }
        return registration_figure(
            _on(given.fixed, grid, ()),
            _on(given.moving, grid, chain),
            grid.affine,
            masks,
            fixed_name=given.fixed_name,
            moving_name=given.moving_name,
        )


class _DrawLesionsInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="scan after bias correction")
    mask = traits.Str(mandatory=True, desc="brain mask")
    dseg = traits.Str(mandatory=True)
    table = traits.Str(mandatory=True)
    atlas = traits.Str(mandatory=True, desc="zone atlas on the scan's grid")
    scheme = traits.Str(mandatory=True)
    src = traits.Str(mandatory=True, desc="stem of the file names")
    suffix = traits.Str(mandatory=True)


class DrawLesions(DrawFigures):
    """Draw the zones, all lesions at a glance, and each lesion in three planes."""

    input_spec = _DrawLesionsInput

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        table = once(lambda: read_lesions(Path(given.table)))

        @once
        def scan() -> tuple[Any, Any]:
            image = load_image(given.in_file)
            return np.asarray(image.dataobj, dtype=np.float32), image.affine

        @once
        def parts() -> tuple[Any, Any]:
            return voxels(given.mask, bool), voxels(given.dseg, np.int32)

        def zones() -> str:
            regions = get_scheme(given.scheme).by_index
            return zones_figure(
                *scan(),
                voxels(given.atlas, np.uint8),
                {index: region.colour for index, region in regions.items()},
                {index: region.name for index, region in regions.items()},
            )

        def overview() -> str:
            mask, labels = parts()
            return overview_figure(*scan(), labels, table(), mask=mask)

        def close_up(lesion: Lesion) -> str:
            mask, labels = parts()
            others = [other for other in table() if other is not lesion]
            return lesion_figure(*scan(), labels, lesion, others, mask=mask)

        figures: dict[str, Callable[[], str]] = {"zones": zones, "overview": overview}
        # Without the table nobody knows which lesions there are; the overview says why.
        with suppress(Exception):
            for lesion in table():
                figures[f"lesion{lesion.index:03d}"] = partial(close_up, lesion)
        name = f"{given.src}_desc-{{}}_{given.suffix}.svg"
        return self.draw(runtime, {name.format(what): how for what, how in figures.items()})


def _on(path: str, grid: Grid, chain: Sequence[PointMap], how: str = "linear") -> Any:
    image = load_image(path)
    return np.asarray(apply_transforms(image, grid, chain, interpolation=how).dataobj)
