"""One call of antsRegistration, with images in memory and maps of points out.

The images are on their working grids; see :mod:`~.registration` for what is called when.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import ScanError

from .grids import Grid
from .itk import SEED, load_ants, to_ants
from .transforms import DisplacementMap, LinearMap, read_transform, write_transform

__all__ = ["Fit", "Maps", "Stage", "run_stage"]


@dataclass(frozen=True)
class Stage:
    """One stage of antsRegistration, coarse to fine."""

    transform: str
    iterations: tuple[int, ...]
    resolution: tuple[float, ...]
    """Voxel size of each level, mm; a grid that is coarser is used as it is."""
    sampled: float | None = None
    """Part of the voxels that the metric looks at, on a lattice; all of them if None."""

    def arguments(self, fixed: str, moving: str, spacing: float) -> list[str]:
        """Put it in antsRegistration's words, for images of that spacing in mm."""
        shrink = [max(1, round(wanted / spacing)) for wanted in self.resolution]
        sampling = "None" if self.sampled is None else f"Regular,{self.sampled:g}"
        return [
            *("--metric", f"Mattes[{fixed},{moving},1,32,{sampling}]"),
            *("--transform", self.transform),
            *("--convergence", f"[{_joined(self.iterations)},1e-6,10]"),
            *("--shrink-factors", _joined(shrink)),
            *("--smoothing-sigmas", _joined([factor / 2 for factor in shrink])),
        ]


def _joined(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)


@dataclass(frozen=True, eq=False)
class Fit:
    """Two images and what is to be fitted.

    Attributes
    ----------
    fixed, moving
        Values and grid of each image.
    region
        Where the metric looks, on the fixed image's grid.
    start
        Takes points of the fixed image to points of the moving one.
    stage
        What is fitted.
    """

    fixed: tuple[NDArray[np.float32], Grid]
    moving: tuple[NDArray[np.float32], Grid]
    region: NDArray[np.bool_]
    start: LinearMap
    stage: Stage


#: What a stage finds: the linear map, and the warp and its inverse where it deforms.
Maps = tuple[LinearMap, DisplacementMap | None, DisplacementMap | None]


def run_stage(fit: Fit) -> Maps:
    """Run antsRegistration.

    Returns
    -------
    linear : LinearMap
        Points of the fixed image to points of the moving one.
    warp, inverse : DisplacementMap or None
        A point of the fixed image goes through the warp and then through the linear map; a
        point of the moving image through the inverse linear map and then the inverse warp. None
        where the stage is linear.

    Raises
    ------
    ScanError
        If antsRegistration breaks off.
    """
    ants = load_ants()
    fixed, moving = to_ants(*fit.fixed), to_ants(*fit.moving)
    grid = fit.fixed[1]
    mask = to_ants(fit.region.astype(np.uint8), grid)
    pointer: Any = ants.internal.get_pointer_string
    names = pointer(fixed), pointer(moving)
    with tempfile.TemporaryDirectory(prefix="cmbprep-") as folder:
        initial = Path(folder) / "start.txt"
        write_transform(fit.start, initial)
        arguments = [
            *("--dimensionality", "3", "--float", "1", "--random-seed", str(SEED)),
            *("--winsorize-image-intensities", "[0.005,0.995]"),
            *("--initial-moving-transform", str(initial)),
            *fit.stage.arguments(*names, float(grid.spacing.max())),
            *("--masks", f"[{pointer(mask)},NA]", "-u", "0", "-z", "1"),
            *("--output", str(Path(folder) / "out")),
        ]
        try:
            ants.registration(fixed=arguments, moving=None)
        except RuntimeError as error:
            raise ScanError(
                f"the registration broke off ({error})",
                hint="look at the image: it may show too little of the head",
            ) from error
        linear = read_transform(Path(folder) / "out0GenericAffine.mat")
        assert isinstance(linear, LinearMap)
        if not (Path(folder) / "out1Warp.nii.gz").exists():
            return linear, None, None
        warp = read_transform(Path(folder) / "out1Warp.nii.gz")
        inverse = read_transform(Path(folder) / "out1InverseWarp.nii.gz")
        assert isinstance(warp, DisplacementMap) and isinstance(inverse, DisplacementMap)
        return linear, warp, inverse
