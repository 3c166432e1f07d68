"""Headers of images in an output dataset, read without their voxels."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

__all__ = ["read_voxel_size"]

#: Length of a NIfTI-1 header, bytes, and what a header of a single file ends with.
HEADER_SIZE = 348
MAGIC = b"n+1\0"


def read_voxel_size(path: Path) -> tuple[float, float, float] | None:
    """Read the voxel size of a ``.nii.gz``, mm; None where it cannot be read.

    Only the beginning of the file is unpacked, so that a group level over thousands of
    scans takes seconds.
    """
    import nibabel as nib

    try:
        # Opening a pipe would wait for a writer that never comes.
        if not path.is_file():
            return None
        with gzip.open(path, "rb") as stream:
            block = stream.read(HEADER_SIZE)
        if len(block) < HEADER_SIZE or not block.endswith(MAGIC):
            return None
        header = nib.Nifti1Header(block, check=False)
        sizes = [float(size) for size in header["pixdim"][1:4]]
    except (OSError, EOFError, zlib.error, ValueError, nib.wrapstruct.WrapStructError):
        return None
    if not all(0 < size < 1000 for size in sizes):
        return None
    return sizes[0], sizes[1], sizes[2]
