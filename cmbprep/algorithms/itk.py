"""The door to ANTs: images across it, and calls that give the same bytes every time.

``ants`` is imported inside the functions, because its import takes seconds.
"""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from .grids import Grid
from .transforms import LPS

__all__ = ["SEED", "load_ants", "to_ants"]

#: Seed of ANTs' random numbers (jitter of the points at which a metric is sampled).
SEED = 20210


def load_ants(threads: int = 1) -> Any:
    """Import ``ants`` with a fixed number of threads.

    ITK reads the number once a process, when it first works, so the first caller
    decides. Parallel sums of floats depend on how the work was cut: one thread is what
    makes two runs agree to the last bit, and registration must not be given more.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
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
