"""The door to ANTs: images across it, and calls that give the same bytes every time.

``ants`` is imported inside the functions, because its import takes seconds.

ITK reads its number of threads once a process, when it first works. Here it is always one, but for
the process that deforms (:mod:`~.ants_process`): with more, N4 is no faster, and a linear
registration sums floats in the order in which threads happen to finish.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from cmbprep.errors import CmbprepError, ScanError
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import (
    LPS,
    DisplacementMap,
    LinearMap,
    compose_on_grid,
    read_transform,
    write_transform,
)

#: Seed of ANTs' random numbers (jitter of the points at which a metric is sampled).
SEED = 20210


class _Itk:
    """What this process gives to ITK."""

    threads = 1


def work_on(threads: int) -> None:
    """Let ITK work on so many threads in this process; call it before anything else.

    The threads are ITK's "platform" ones, which cut the work into as many parts as there are
    threads: whatever two of them add up is the same in either order.
    """
    _Itk.threads = threads
    os.environ["ITK_GLOBAL_DEFAULT_THREADER"] = "Platform"


def load_ants() -> Any:
    """Import ``ants`` with the number of threads of this process, whatever the shell says."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(_Itk.threads)
    import ants

    return ants


def to_ants(data: NDArray[np.generic], grid: Grid) -> Any:
    """Return an ANTs image (LPS) of an array on a grid without shear.

    Arrays of ``uint8`` become ``unsigned char``, all others ``float``. The type of a mask
    matters: ANTs takes the pointer on trust, and antsRegistration reads masks as
    ``unsigned char``, N4BiasFieldCorrection as ``float``; with the other type they work
    on a scrambled region without a word.
    """
    ants = load_ants()
    kind = np.uint8 if data.dtype == np.uint8 else np.float32
    affine = LPS @ grid.affine
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=kind),
        origin=tuple(affine[:3, 3].tolist()),
        spacing=tuple(grid.spacing.tolist()),
        direction=affine[:3, :3] / grid.spacing,
    )


def image_grid(image: SpatialImage) -> Grid:
    """Return the grid of a three-dimensional image."""
    return Grid(image.shape, image.affine)


# --- Transforms of other programs, sampled as displacement fields --------------------------------


def sample_transform(path: Path, grid: Grid) -> DisplacementMap:
    """Read any transform that ITK writes, and sample it on a grid.

    Parameters
    ----------
    path
        An ITK composite (``.h5``, as fMRIPrep writes them), ITK text, ANTs ``.mat`` or a
        displacement field.
    grid
        Where to sample: points of the space that the transform takes points *from*, which is
        that of the image after ``to-`` in its BIDS name.

    Raises
    ------
    CmbprepError
        If the file is none of these, or is damaged.
    """
    if path.suffix != ".h5":
        return compose_on_grid((read_transform(path),), grid)
    ants = load_ants()
    image = to_ants(np.zeros(grid.shape, np.float32), grid)
    with tempfile.TemporaryDirectory(prefix="cmbprep-") as folder:
        try:
            field = ants.apply_transforms(image, image, [str(path)], compose=f"{folder}/")
            found = read_transform(Path(field))
        except Exception as error:  # ITK raises what it likes
            raise CmbprepError(
                f"this is not a transform that can be read ({error})",
                path=path,
                hint="an ITK composite transform is understood, as fMRIPrep writes it",
            ) from error
    assert isinstance(found, DisplacementMap)
    return found


# --- One call of antsRegistration, with images in memory and maps of points out ------------------
#
# The images are on their working grids; :mod:`cmbprep.registration.fit` says what is called when.


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
