"""Transforms of other programs, sampled as displacement fields."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from cmbprep.errors import CmbprepError

from .grids import Grid
from .itk import load_ants, to_ants
from .transforms import DisplacementMap, compose_on_grid, read_transform

__all__ = ["sample_transform"]


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
