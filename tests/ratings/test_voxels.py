"""Voxels are read as nibabel reads them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from cmbprep.ratings.voxels import read_voxels


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("slope", [1, 0.5])
def test_voxels_are_those_of_nibabel(tmp_path, rng, kind, ending, slope):
    image = nib.Nifti1Image(rng.integers(0, 100, (5, 6, 7)).astype(kind), np.diag([1, 2, 3, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"moves the voxels"))
    image.header.set_slope_inter(slope, 0)
    path = tmp_path / f"image{ending}"
    image.to_filename(path)
    found = read_voxels(path)
    np.testing.assert_array_equal(found, np.asanyarray(nib.load(path).dataobj))
    assert found.dtype == (kind if slope == 1 else np.float64)
