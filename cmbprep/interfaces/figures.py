"""Nodes that draw the figures of the reports.

A figure is an extra: one that cannot be drawn is named by its node, which ends all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import TraitedSpec, traits

from cmbprep.interfaces.base import FileInterface
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

#: Voxel size at which registrations are drawn, mm: finer cannot be seen in a mosaic.
DRAWN_SPACING = 2.0


#: File name -> function that reads what it needs and returns the SVG.
Figures = dict[str, Callable[[], str]]


class _FiguresOutput(TraitedSpec):
    figures = traits.List(traits.Str(), desc="SVG files")
    missing_figures = traits.Dict(desc="figure's file name -> why it could not be drawn")


class DrawFigures(FileInterface):
    """Draw figures into the folder of a node; the parent of all nodes that draw.

    ``compute`` returns :data:`Figures`. Each is drawn under a guard; the outputs are the
    ``figures`` that could be drawn and the ``missing_figures``.
    """

    output_spec = _FiguresOutput
    _given_up: str | None = None

    def give_up(self, reason: str) -> None:
        """Draw nothing, for this reason; the engine asks for it when drawing kills the process."""
        self._given_up = reason

    def _compute(self, cwd: Path) -> dict[str, Any]:
        figures = super()._compute(cwd)
        if self._given_up is not None:
            return {"figures": [], "missing_figures": dict.fromkeys(figures, self._given_up)}
        drawn, missing = draw_all(figures, lambda name, svg: str(write_text(cwd / name, svg)))
        return {"figures": list(drawn.values()), "missing_figures": missing}


class DrawPreproc(DrawFigures):
    """Draw bias correction, brain mask and registration of an image.

    Parameters
    ----------
    before, after, field
        Image before and after bias correction, and what it was divided by; without ``field``,
        the correction is not drawn.
    mask
        Its brain mask.
    fixed, fixed_mask, fixed_to_moving
        Image that it was registered to, its brain mask, and the map of its points.
    fixed_name
        ``template`` or ``T1w``.
    src, suffix
        Stem and suffix of the file names; the suffix is ``T1w`` for a T1w image.
    """

    def compute(
        self,
        before: str,
        after: str,
        mask: str,
        fixed: str,
        fixed_mask: str,
        fixed_to_moving: str,
        fixed_name: str,
        src: str,
        suffix: str,
        field: str | None = None,
    ) -> Figures:
        """Return the figures of the image."""

        @once
        def read() -> tuple[Any, Any, Any]:
            image = load_image(after)
            data = np.asarray(image.dataobj, dtype=np.float32)
            return data, image.affine, voxels(mask, bool)

        def bias() -> str:
            data, affine, brain = read()
            assert field is not None
            return bias_figure(voxels(before), data, affine, brain, field=voxels(field))

        def registration() -> str:
            own = load_image(fixed)
            grid = working_grid(image_grid(own).shape, own.affine, DRAWN_SPACING)
            chain = [read_transform(Path(fixed_to_moving))]
            moving_name = "T1w" if suffix == "T1w" else "scan"
            masks = {
                f"brain of {fixed_name}": _on(fixed_mask, grid, (), "nearest"),
                f"brain of {moving_name}": _on(mask, grid, chain, "nearest"),
            }
            return registration_figure(
                _on(fixed, grid, ()),
                _on(after, grid, chain),
                grid.affine,
                masks,
                fixed_name=fixed_name,
                moving_name=moving_name,
            )

        figures: Figures = {} if field is None else {"bias": bias}
        figures["mask"] = lambda: mask_figure(*read())
        figures["template" if suffix == "T1w" else "registration"] = registration
        return _named(figures, src, suffix)


class DrawLesions(DrawFigures):
    """Draw the zones, all lesions at a glance, and each lesion in three planes.

    Parameters
    ----------
    in_file, mask
        Scan after bias correction, and its brain mask.
    dseg, table
        Lesions by label, and the lesion table.
    atlas, scheme
        Zone atlas on the scan's grid, and the name of its scheme.
    src, suffix
        Stem and suffix of the file names.
    """

    def compute(
        self,
        in_file: str,
        mask: str,
        dseg: str,
        table: str,
        atlas: str,
        scheme: str,
        src: str,
        suffix: str,
    ) -> Figures:
        """Return the figures of the scan's lesions."""
        rows = once(lambda: read_lesions(Path(table)))

        @once
        def scan() -> tuple[Any, Any]:
            image = load_image(in_file)
            return np.asarray(image.dataobj, dtype=np.float32), image.affine

        @once
        def parts() -> tuple[Any, Any]:
            return voxels(mask, bool), voxels(dseg, np.int32)

        def zones() -> str:
            regions = get_scheme(scheme).by_index
            return zones_figure(
                *scan(),
                voxels(atlas, np.uint8),
                {index: region.colour for index, region in regions.items()},
                {index: region.name for index, region in regions.items()},
            )

        def overview() -> str:
            brain, labels = parts()
            return overview_figure(*scan(), labels, rows(), mask=brain)

        def close_up(lesion: Lesion) -> str:
            brain, labels = parts()
            others = [other for other in rows() if other is not lesion]
            return lesion_figure(*scan(), labels, lesion, others, mask=brain)

        figures: Figures = {"zones": zones, "overview": overview}
        # Without the table nobody knows which lesions there are; the overview says why.
        with suppress(Exception):
            for lesion in rows():
                figures[f"lesion{lesion.index:03d}"] = partial(close_up, lesion)
        return _named(figures, src, suffix)


def _named(figures: Figures, src: str, suffix: str) -> Figures:
    """Name the files of figures by what they show."""
    return {f"{src}_desc-{what}_{suffix}.svg": how for what, how in figures.items()}


def _on(path: str, grid: Grid, chain: Sequence[PointMap], how: str = "linear") -> Any:
    image = load_image(path)
    return np.asarray(apply_transforms(image, grid, chain, interpolation=how).dataobj)
