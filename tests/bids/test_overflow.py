"""Integer overflow of magnitude images is found; other negative values are not taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmbprep.bids.images import read_scan_image
from cmbprep.bids.overflow import count_overflowed
from cmbprep.errors import ScanError
from tests.bidsdata import head, save, wrapped


def bright_spot(peak: float) -> np.ndarray:
    """Return a head of about 20000 with a smooth bright part in it."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (24, 28, 20)], indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid - np.array([14, 12, 10]), axis=-1)
    return head().astype(float) * 20 + (peak - 20000) * np.exp(-((distance / 3) ** 2))


def overflowed(values: np.ndarray) -> np.ndarray:
    """Store values in 16 bits without a look at their limits."""
    return np.rint(values).astype(np.int64).astype(np.uint16).view(np.int16)


@pytest.mark.parametrize("peak", [34000, 45000, 65000])
def test_values_above_the_limit_of_int16_are_found(peak: float) -> None:
    true = bright_spot(peak)
    found = count_overflowed(overflowed(true).astype(np.float32))
    # Values close to 65536 become slightly negative only.
    expected = np.count_nonzero((true > 32767.5) & (true < 49000))
    assert expected > 0 and found == pytest.approx(expected, abs=5)
    assert count_overflowed(np.rint(true).astype(np.float32)) == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slope", [1e-4, 0.25, 300.0])
def test_scale_and_direction_of_the_axes_do_not_matter(axis: int, slope: float) -> None:
    stored = overflowed(bright_spot(45000)).astype(np.float32)
    assert count_overflowed(np.flip(slope * stored, axis)) == count_overflowed(stored) > 0


def test_an_overflow_at_the_border_of_the_image_is_found() -> None:
    true = np.full((8, 8, 8), 30000.0)
    true[0, 0, 0] = 33000
    assert count_overflowed(overflowed(true).astype(np.float32)) == 1


def test_ringing_is_no_overflow() -> None:
    """Zero filling in k-space undershoots next to the brightest voxels."""
    true = bright_spot(90000)
    spectrum = np.fft.fftshift(np.fft.fftn(true))
    padded = np.pad(spectrum, [(n // 2, n // 2) for n in true.shape])
    zero_filled = np.fft.ifftn(np.fft.ifftshift(padded)).real
    spline = ndimage.zoom(true, 1.7, order=5)
    for values in (zero_filled, spline):
        assert (values < -0.01 * values.max()).any()
        assert count_overflowed(values) == 0


def test_a_negative_value_for_background_is_no_overflow() -> None:
    values = head()
    values[:3] = -1000
    assert count_overflowed(values) == 0
    assert count_overflowed(np.zeros((5, 5, 5))) == count_overflowed(np.full((5, 5, 5), -3.0)) == 0


@pytest.mark.parametrize("slope", [None, 0.01])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_an_overflowed_scan_is_refused(tmp_path: Path, dtype: Any, slope: float | None) -> None:
    """For uint16 the data type in the header is wrong, not the stored values."""
    stored = overflowed(bright_spot(45000))
    image = nib.Nifti1Image(stored, np.diag([2.5, 2.5, 2.5, 1]))
    image.header.set_xyzt_units("mm")
    if dtype is np.uint16:
        image = nib.Nifti1Image(stored.view(np.uint16), image.affine, image.header)
        image.header.set_data_dtype(np.uint16)
    block = bytearray(image.to_bytes())
    block[70:72] = (4).to_bytes(2, "little")
    if slope is not None:
        block[112:120] = np.array([slope, 0], "<f4").tobytes()
    path = tmp_path / "sub-01_T2starw.nii"
    path.write_bytes(block)
    with pytest.raises(ScanError) as caught:
        read_scan_image(path, role="magnitude")
    assert caught.value.message.startswith("integer overflow: ")
    assert "large negative values" in caught.value.message
    assert "larger data type" in str(caught.value.hint)
    if dtype is np.uint16:
        block[70:72] = (512).to_bytes(2, "little")
        path.write_bytes(block)
        read_scan_image(path, role="magnitude")


def test_signed_phase_and_t1w_images_are_not_looked_at(tmp_path: Path) -> None:
    phase = save(tmp_path / "sub-01_part-phase_T2starw.nii", wrapped(-4096, 4095, whole=True))
    read_scan_image(phase, role="phase")
    other = save(tmp_path / "sub-01_T1w.nii", overflowed(bright_spot(45000)))
    read_scan_image(other, role="T1w")


def test_an_overflow_of_most_of_the_head_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "sub-01_T2starw.nii", overflowed(head() * 40))
    with pytest.raises(ScanError, match="integer overflow"):
        read_scan_image(path, role="magnitude")


def test_real_scans_have_no_overflow_until_they_are_scaled(real_bids: Path) -> None:
    scans = sorted(real_bids.glob("sub-*/anat/*_T2*w.nii.gz"))
    assert scans
    for path in scans:
        values = np.squeeze(np.asarray(nib.load(path).dataobj, dtype=float))
        assert count_overflowed(values) == 0, path.name
        scaled = overflowed(values / values.max() * 45000).astype(float)
        assert count_overflowed(scaled) > 0, path.name
