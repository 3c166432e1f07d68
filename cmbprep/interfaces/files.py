"""Images between nodes: how the interfaces read and write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep.outputs.files import write_atomically, write_image


def load_image(path: str) -> nib.Nifti1Image:
    """Open an image that a node before has written."""
    return nib.Nifti1Image.from_filename(path)


def hand_on(path: Path, image: nib.Nifti1Image) -> str:
    """Write an image that no one but the next nodes reads, as ``.nii``.

    Compressing a 1 mm image takes more than a second, and each reading of it nearly half of one.
    """
    with write_atomically(path, flush=False) as temporary:
        image.to_filename(temporary)
    return str(path)


def voxels(path: str, dtype: Any = np.float32) -> NDArray[Any]:
    """Read the voxels of an image."""
    return np.asarray(load_image(path).dataobj, dtype=dtype)


def save_like(path: Path, data: NDArray[Any], like: nib.Nifti1Image) -> str:
    """Write voxels on the grid of another image, in their own data type."""
    return str(write_image(path, image_like(data, like), flush=False))


def image_like(data: NDArray[Any], like: nib.Nifti1Image) -> nib.Nifti1Image:
    """Put voxels, in their own data type, on the grid of another image."""
    header = like.header.copy()
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    return nib.Nifti1Image(data, like.affine, header)
