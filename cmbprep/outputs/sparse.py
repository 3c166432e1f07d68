"""Masks recorded in a sidecar, so that a cohort's images and transforms need no unpacking.

Unpacking the mask of a scan in template space takes 50 ms of a processor, nearly all of it for
background. The group level reads the voxels from the sidecar while the file is the one recorded.
In the same way the sidecar says which blocks of the template's voxels a scan shows: computing that
again takes 90 ms, for reading the transforms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.outputs.files import file_digest
from cmbprep.spatial.grids import Grid, same_grid
from cmbprep.spatial.view import BLOCK, block_shape

#: More indices than any image or template has voxels.
MAX_INDICES = 2**29


@dataclass(frozen=True, eq=False)
class SparseMask:
    """The voxels inside of a mask.

    Attributes
    ----------
    shape
        Of the image, three numbers.
    affine
        Voxel indices to mm, (4, 4).
    inside
        Flat indices of the voxels inside, first axis fastest, in rising order.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    inside: NDArray[np.intp]


def describe_mask(path: Path) -> dict[str, Any]:
    """Return the record of a mask: digest of its file, grid, and runs of voxels inside.

    An image that cannot be read has an empty record; the group level names it.
    """
    import nibabel as nib

    try:
        image: Any = nib.load(path)
        inside = np.flatnonzero(np.asarray(image.dataobj).ravel(order="F"))
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError):
        return {}
    return {
        "Digest": file_digest(path),
        "Shape": list(image.shape),
        "Affine": image.affine.tolist(),
        "Runs": format_runs(inside),
    }


def format_runs(inside: NDArray[np.intp]) -> str:
    """Write rising indices as runs, ``first+number``.

    >>> format_runs(np.array([2, 3, 4, 9]))
    '2+3 9+1'
    """
    starts = np.flatnonzero(np.diff(inside, prepend=-2) != 1)
    lengths = np.diff(np.append(starts, inside.size))
    return " ".join(f"{first}+{n}" for first, n in zip(inside[starts], lengths, strict=True))


def parse_runs(text: str) -> NDArray[np.intp]:
    """Read indices from runs.

    Raises
    ------
    ValueError, OverflowError, MemoryError
        If they are damaged.
    """
    runs = [(int(first), int(n)) for first, n in (r.split("+") for r in text.split())]
    firsts, lengths = np.array(runs, dtype=np.intp).reshape(-1, 2).T
    if lengths.sum() > MAX_INDICES:
        raise ValueError("the runs hold more indices than an image has")
    # Counts on in each run, from its first index.
    starts = np.cumsum(lengths) - lengths
    found: NDArray[np.intp] = np.arange(lengths.sum()) + np.repeat(firsts - starts, lengths)
    return found


def describe_blocks(seen: NDArray[np.bool_], template: Grid) -> dict[str, Any]:
    """Return the record of what a scan shows of the template.

    Parameters
    ----------
    seen
        For each block of :data:`cmbprep.spatial.view.BLOCK` voxels, whether it is shown.
    template
        Grid of the template.
    """
    return {
        "Block": BLOCK,
        "Shape": list(template.shape),
        "Affine": template.affine.tolist(),
        "Runs": format_runs(np.flatnonzero(seen.ravel(order="F"))),
    }


def recorded_blocks(record: Any, template: Grid) -> NDArray[np.bool_] | None:
    """Return what a scan shows of the template from its record.

    Parameters
    ----------
    record
        From :func:`describe_blocks`; anything else is no record.
    template
        Grid of the template.

    Returns
    -------
    array of shape (i, j, k) or None
        For each block, whether it is shown; None without a sound record for this grid.
    """
    if not isinstance(record, Mapping):
        return None
    try:
        shape = [int(n) for n in record["Shape"]]
        affine = np.array(record["Affine"], dtype=float)
        if record["Block"] != BLOCK or not same_grid(
            shape, affine, template.shape, template.affine
        ):
            return None
        found = parse_runs(record["Runs"])
        blocks = block_shape(template.shape)
        seen = np.zeros(int(np.prod(blocks)), dtype=bool)
        if found.size and not 0 <= found.min() <= found.max() < seen.size:
            return None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError):
        return None
    seen[found] = True
    return seen.reshape(blocks, order="F")


def recorded_mask(record: Any, path: Path) -> SparseMask | None:
    """Return a mask from its record.

    Parameters
    ----------
    record
        From :func:`describe_mask`; anything else is no record.
    path
        The image.

    Returns
    -------
    SparseMask or None
        None without a sound record, and where the file is another one than that recorded.
    """
    if not isinstance(record, Mapping):
        return None
    try:
        if file_digest(path) != record["Digest"]:
            return None
        shape = tuple(int(n) for n in record["Shape"])
        affine = np.array(record["Affine"], dtype=float)
        found = parse_runs(record["Runs"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    sound = len(shape) == 3 and affine.shape == (4, 4) and np.isfinite(affine).all()
    if not sound or (found.size and not 0 <= found.min() <= found.max() < np.prod(shape)):
        return None
    return SparseMask(shape, affine, found)
