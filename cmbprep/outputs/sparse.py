"""Masks with few voxels, recorded in a sidecar so that a cohort's masks need no unpacking.

Unpacking the mask of a scan in template space takes 50 ms of a processor, nearly all of it for
background. The group level reads the voxels from the sidecar while the file is the one recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.outputs.files import file_digest


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
    starts = np.flatnonzero(np.diff(inside, prepend=-2) != 1)
    lengths = np.diff(np.append(starts, inside.size))
    return {
        "Digest": file_digest(path),
        "Shape": list(image.shape),
        "Affine": image.affine.tolist(),
        "Runs": " ".join(f"{first}+{n}" for first, n in zip(inside[starts], lengths, strict=True)),
    }


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
        runs = [(int(first), int(n)) for first, n in (r.split("+") for r in record["Runs"].split())]
        firsts, lengths = np.array(runs, dtype=np.intp).reshape(-1, 2).T
        if lengths.sum() > np.prod(shape):
            return None
        # Counts on in each run, from its first voxel.
        starts = np.cumsum(lengths) - lengths
        found = np.arange(lengths.sum()) + np.repeat(firsts - starts, lengths)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    sound = len(shape) == 3 and affine.shape == (4, 4) and np.isfinite(affine).all()
    if not sound or (found.size and not 0 <= found.min() <= found.max() < np.prod(shape)):
        return None
    return SparseMask(shape, affine, found)
