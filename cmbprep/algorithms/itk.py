"""The door to ANTs: images across it, and calls that give the same bytes every time.

``ants`` is imported inside the functions, because its import takes seconds.

ITK reads its number of threads once a process, when it first works. Here it is always one, but for
the process that deforms (:mod:`~.ants_process`): with more, N4 is no faster, and a linear
registration sums floats in the order in which threads happen to finish.
"""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from .grids import Grid
from .transforms import LPS

__all__ = ["SEED", "image_grid", "load_ants", "to_ants", "work_on"]

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
    """Give an ANTs image (LPS) of an array on a grid without shear.

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
        origin=tuple(float(v) for v in affine[:3, 3]),
        spacing=tuple(float(v) for v in grid.spacing),
        direction=affine[:3, :3] / grid.spacing,
    )


def image_grid(image: nib.spatialimages.SpatialImage) -> Grid:
    """Give the grid of a three-dimensional image."""
    i, j, k = image.shape
    return Grid((i, j, k), np.asarray(image.affine))
