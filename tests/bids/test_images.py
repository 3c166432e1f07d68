"""Reading images: what is refused, what is warned of, and what is kept as it is."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.bids.images import (
    combine_echoes,
    read_scan_image,
    select_echoes,
)
from cmbprep.errors import ScanError
from tests.bidsdata import head, save, wrapped


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub-01_T2starw.nii.gz"


def refusal(path: Path, role: Any = "magnitude") -> str:
    """Return the message of the refusal, which always names the file and a remedy."""
    with pytest.raises(ScanError) as caught:
        read_scan_image(path, role=role)
    assert caught.value.path == str(path)
    assert caught.value.hint
    return caught.value.message


def rotation(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


# --- what is accepted ------------------------------------------------------------------


AFFINES = {
    "plain": np.diag([2.5, 2.5, 2.5, 1]),
    "left-handed": np.diag([-2.5, 2.5, 2.5, 1]),
    "anisotropic": np.diag([0.9, 0.9, 6.0, 1]) + np.outer([10, -20, 30, 0], [0, 0, 0, 1]),
    "oblique": rotation(25) @ np.diag([2.0, 2.0, 4.0, 1]),
    "permuted": np.array([[0, 0, 3.0, 5], [-2.0, 0, 0, 6], [0, 2.0, 0, 7], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("kind", AFFINES)
def test_grids_are_kept_as_they_are(path: Path, kind: str) -> None:
    data = head()
    save(path, data, AFFINES[kind])
    image, _ = read_scan_image(path, role="magnitude")
    np.testing.assert_allclose(image.affine, AFFINES[kind], atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), AFFINES[kind], atol=1e-4)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    np.testing.assert_array_equal(image.get_fdata(), data)
    assert image.get_data_dtype() == np.float32


def test_an_ordinary_image_gives_no_warnings(path: Path) -> None:
    save(path, head())
    assert read_scan_image(path, role="magnitude").warnings == ()


@pytest.mark.parametrize("role", ["magnitude", "T1w", "phase"])
def test_scaled_integers_become_their_values(path: Path, role: Any) -> None:
    image = nib.Nifti1Image(np.rint(head()).astype(np.int16), np.diag([2.5, 2.5, 2.5, 1]))
    image.header.set_slope_inter(0.5, 10)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(exist_ok=True)
    stored = np.rint(head()).astype(np.int16)
    nib.save(image, path)
    raw = nib.load(path)
    expected = raw.dataobj.get_unscaled() * raw.dataobj.slope + raw.dataobj.inter
    assert raw.dataobj.slope != 1 or np.array_equal(expected, stored)
    read, _ = read_scan_image(path, role=role)
    np.testing.assert_allclose(read.get_fdata(), expected, rtol=1e-6)
    again = path.with_name("again.nii.gz")
    nib.save(read, again)
    np.testing.assert_allclose(nib.load(again).get_fdata(), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(24, 28, 20, 1), (24, 28, 20, 1, 1)])
def test_axes_of_length_one_are_let_go(path: Path, shape: tuple[int, ...]) -> None:
    save(path, head().reshape(shape))
    assert read_scan_image(path, role="magnitude").image.shape == (24, 28, 20)


def test_a_few_values_that_are_not_finite_become_zero(path: Path) -> None:
    data = head()
    data[0, 0, :3] = [np.nan, np.inf, -np.inf]
    save(path, data)
    image, warnings = read_scan_image(path, role="magnitude")
    assert np.isfinite(image.get_fdata()).all()
    np.testing.assert_array_equal(image.get_fdata()[0, 0, :3], 0)
    assert warnings == ("3 voxels that are not a number (NaN or infinite) were set to 0",)


def test_extensions_of_the_header_are_dropped(path: Path) -> None:
    image = nib.Nifti1Image(head(), np.diag([2.5, 2.5, 2.5, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    nib.save(image, path)
    assert list(nib.load(path).header.extensions)
    assert not list(read_scan_image(path, role="magnitude").image.header.extensions)


def test_nifti_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_swi.nii.gz"
    image = nib.Nifti2Image(head(), np.diag([2.5, 2.5, 2.5, 1]))
    nib.save(image, path)
    assert type(read_scan_image(path, role="magnitude").image) is nib.Nifti1Image


# --- files that cannot be read ---------------------------------------------------------


def test_a_missing_file(path: Path) -> None:
    assert "no such file" in refusal(path)


def test_a_link_to_content_that_was_not_fetched(path: Path) -> None:
    path.symlink_to(path.with_name("annex"))
    assert "link to a file that is not here" in refusal(path)


def test_an_empty_file(path: Path) -> None:
    path.touch()
    assert "file is empty" in refusal(path)


def test_a_gzip_of_nothing(path: Path) -> None:
    path.write_bytes(gzip.compress(b""))
    assert "not a NIfTI image" in refusal(path)


@pytest.mark.parametrize("content", [b"not an image, but some text" * 40, b"\x1f\x8b garbage"])
def test_a_file_that_is_no_image(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "not a NIfTI image" in refusal(path)


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.1, 0.002])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_file_that_was_cut_short(tmp_path: Path, fraction: float, ending: str) -> None:
    path = save(tmp_path / f"sub-01_swi{ending}", head())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    message = refusal(path)
    assert "cut short" in message or "not a NIfTI image" in message


def test_damaged_content(path: Path) -> None:
    save(path, head())
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    "tail",
    [b"", b"\0" * 70000, gzip.compress(b"more", mtime=0)],
    ids=["nothing", "zeros", "another member"],
)
def test_what_follows_the_image_in_its_file_is_no_damage(path: Path, tail: bytes) -> None:
    save(path, head())
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]) + tail)
    np.testing.assert_array_equal(read_scan_image(path, role="magnitude").image.get_fdata(), head())


def test_another_format_under_the_name_of_nifti(tmp_path: Path) -> None:
    mgh = tmp_path / "image.mgz"
    nib.save(nib.MGHImage(head(), np.eye(4)), mgh)
    path = tmp_path / "sub-01_T2starw.nii.gz"
    mgh.rename(path)
    assert "NIfTI" in refusal(path)


# --- grids that make no sense ----------------------------------------------------------


@pytest.mark.parametrize("volumes", [2, 3, 120])
def test_more_volumes_than_one(path: Path, volumes: int) -> None:
    save(path, np.zeros((20, 20, 10, volumes), np.uint8))
    assert f"{volumes} volumes" in refusal(path)


def test_a_single_slice(path: Path) -> None:
    save(path, head()[:, :, 0])
    assert "no third dimension" in refusal(path)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_slices_on_any_axis(path: Path, axis: int) -> None:
    save(path, np.take(head(), [9, 10], axis=axis))
    assert "only 2 slices" in refusal(path)


def test_a_tiny_image(path: Path) -> None:
    save(path, head((10, 10, 10)))
    assert "too small" in refusal(path)


@pytest.mark.parametrize("size", [0.001, 12.0, 1000.0])
def test_absurd_voxel_sizes(path: Path, size: float) -> None:
    save(path, head(), np.diag([size, 2.5, 2.5, 1]))
    assert "make no sense" in refusal(path)


def test_a_header_without_units(path: Path) -> None:
    nib.save(nib.Nifti1Image(head(), np.diag([2.5, 2.5, 2.5, 1])), path)
    image, (warning,) = read_scan_image(path, role="magnitude")
    assert "no unit of length" in warning
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_slab(path: Path) -> None:
    save(path, head((24, 28, 7)), np.diag([0.9, 0.9, 5.0, 1]))
    warnings = read_scan_image(path, role="magnitude").warnings
    assert warnings == ("it covers a slab of 22 mm only; its registration is uncertain",)


def with_header(path: Path, **fields: Any) -> None:
    """Write an image and overwrite fields of its header."""
    image = nib.Nifti1Image(head(), np.diag([2.5, 2.5, 2.5, 1]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    header = image.header.copy()
    header["scl_slope"], header["scl_inter"] = 1, 0  # nibabel keeps NaN there in memory
    for field, value in fields.items():
        header[field] = value
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + b"\0" * 4 + image.get_fdata().astype("<f4").tobytes("F")
    path.write_bytes(gzip.compress(content))


def test_no_orientation_at_all(path: Path) -> None:
    with_header(path, sform_code=0, qform_code=0)
    image, warnings = read_scan_image(path, role="magnitude")
    assert any("no orientation" in warning for warning in warnings)
    np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), 2.5)


def test_a_singular_sform_beside_a_good_qform(path: Path) -> None:
    with_header(path, srow_x=[0, 0, 0, 0])
    image, (warning,) = read_scan_image(path, role="magnitude")
    assert "qform is used" in warning
    np.testing.assert_allclose(image.affine, np.diag([2.5, 2.5, 2.5, 1]))


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [0, 2.5, 0, 0], [np.nan, 0, 0, 0]])
def test_a_singular_affine(path: Path, row: list[float]) -> None:
    with_header(path, srow_x=row, qform_code=0)
    assert "singular" in refusal(path)


def test_sform_and_qform_that_disagree(path: Path) -> None:
    with_header(path, qoffset_x=30.0)
    image, (warning,) = read_scan_image(path, role="magnitude")
    assert warning == ("sform and qform of its header differ by up to 30.0 mm; the sform is used")
    np.testing.assert_allclose(image.affine, np.diag([2.5, 2.5, 2.5, 1]))
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-5)


def forms(path: Path, sform: np.ndarray, qform: np.ndarray) -> str:
    """Write an image with two affines, and return the one warning about them."""
    image = nib.Nifti1Image(head(), sform)
    image.header.set_xyzt_units("mm")
    image.set_qform(qform, 1)
    image.set_sform(sform, 1)
    nib.save(image, path)
    found = read_scan_image(path, role="magnitude").warnings
    (warning,) = (text for text in found if "sform" in text)
    return warning


PLAIN = np.diag([2.5, 2.5, 2.5, 1])


@pytest.mark.parametrize("axes", [(-1, 1, 1), (1, -1, 1), (-1, -1, 1), (-1, 1, -1), (-1, -1, -1)])
@pytest.mark.parametrize("kind", AFFINES)
def test_left_and_right_that_may_be_exchanged_are_said_first(
    path: Path, axes: tuple[int, int, int], kind: str
) -> None:
    other = np.diag([*axes, 1]) @ AFFINES[kind]
    warning = forms(path, AFFINES[kind], other)
    assert warning.startswith("left and right may be exchanged: sform and qform")
    assert "the sform is used; check the sides in the DICOM files" in warning
    assert "apart" not in warning


def test_forms_that_agree_on_left_and_right(path: Path) -> None:
    for other in (rotation(25) @ PLAIN, np.diag([1, -1, -1, 1]) @ PLAIN):
        assert forms(path, PLAIN, other).startswith("sform and qform of its header differ")


def test_forms_of_other_voxel_sizes(path: Path) -> None:
    warning = forms(path, np.diag([2.7, 2.7, 3.6, 1]), np.diag([3, 3, 3.6, 1]))
    assert warning.endswith(
        "the sform is used; voxels are 2.7 × 2.7 × 3.6 mm by the sform and 3 × 3 × 3.6 mm by the "
        "qform (up to 10% apart)"
    )


def test_a_broken_quaternion_beside_a_good_sform(path: Path) -> None:
    with_header(path, quatern_b=3.0)
    assert np.allclose(read_scan_image(path, role="magnitude").image.affine[:3, 3], 0)


def test_sheared_axes(path: Path) -> None:
    with_header(path, srow_x=[2.5, 0.3, 0, 0])
    assert "sheared by 6" in refusal(path)


def test_a_shape_that_cannot_be(path: Path) -> None:
    with_header(path, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    assert "makes no sense" in refusal(path)


# --- values that make no sense ---------------------------------------------------------


@pytest.mark.parametrize("value", [0, 7])
def test_an_image_of_one_value(path: Path, value: int) -> None:
    save(path, np.full((24, 28, 20), value, np.int16))
    assert "empty" in refusal(path)


@pytest.mark.parametrize("fraction", [1.0, 0.95])
def test_an_image_of_nan(path: Path, fraction: float, rng: np.random.Generator) -> None:
    data = head()
    data[rng.random(data.shape) <= fraction] = np.nan
    save(path, data)
    assert "not a number" in refusal(path)


def test_a_mask_offered_as_the_scan(path: Path) -> None:
    save(path, (head() > 500).astype(np.uint8))
    assert "only two values" in refusal(path)


def test_complex_numbers(path: Path) -> None:
    save(path, head().astype(np.complex64))
    assert "complex" in refusal(path)


def test_a_colour_image(path: Path) -> None:
    rgb = np.zeros((24, 28, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(path, rgb)
    assert "colour" in refusal(path)


@pytest.mark.parametrize("limits", [(0, 4095), (-4096, 4095), (-np.pi, np.pi), (0, 2 * np.pi)])
def test_phase_offered_as_magnitude(path: Path, limits: tuple[float, float]) -> None:
    save(path, wrapped(*limits, whole=False).astype(np.float32))
    assert "phase image" in refusal(path)
    read_scan_image(path, role="phase")


def test_phase_without_air_offered_as_magnitude(path: Path) -> None:
    data = np.where(head() > 300, wrapped(-4096, 4095, whole=True), 0)
    save(path, data.astype(np.int16))
    assert "looks like a phase image" in refusal(path)


def test_a_standardised_image_offered_as_magnitude(path: Path) -> None:
    data = head()
    save(path, (data - data.mean()) / data.std())
    assert "standardised" in refusal(path)


def test_interpolation_may_leave_a_few_negative_values(path: Path) -> None:
    data = head()
    data[::10] -= 300
    assert (data < 0).any()
    save(path, data)
    read_scan_image(path, role="magnitude")


@pytest.mark.parametrize("noise", [0.001, 0.02, 0.1, 0.3])
def test_magnitude_is_not_taken_for_phase(path: Path, noise: float) -> None:
    save(path, head(noise=noise))
    read_scan_image(path, role="magnitude")


def test_real_scans_are_accepted(real_bids: Path) -> None:
    for name in ("s1", "niivue", "forrest"):
        scan = real_bids / f"sub-{name}/anat/sub-{name}_T2starw.nii.gz"
        assert read_scan_image(scan, role="magnitude").warnings == ()


# --- echoes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ([0.02], (0,)),
        ([0.005, 0.010, 0.015, 0.020], (2, 3)),
        ([0.020, 0.005], (0,)),
        ([0.004, 0.012, 0.008], (1,)),
        ([0.005, None, 0.02], (0, 1, 2)),
        ([None], (0,)),
    ],
)
def test_which_echoes_are_averaged(times: list[float | None], chosen: tuple[int, ...]) -> None:
    assert select_echoes(times) == chosen
    images = [np.full((2, 3, 4), 10.0**n) for n in range(len(times))]
    expected = np.mean([images[n] for n in chosen], axis=0)
    combined = combine_echoes(images, times)
    np.testing.assert_allclose(combined, expected, rtol=1e-6)
    assert combined.dtype == np.float32


def test_integers_do_not_overflow_when_averaged() -> None:
    images = [np.full((2, 2, 2), 30000, np.int16)] * 3
    np.testing.assert_array_equal(combine_echoes(images, [0.02, 0.03, 0.04]), 30000)


def test_echoes_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        combine_echoes([np.zeros((2, 2, 2)), np.zeros((2, 2, 3))], [0.02, 0.03])
    with pytest.raises(ValueError, match="each echo needs"):
        combine_echoes([np.zeros((2, 2, 2))], [0.02, 0.03])
    with pytest.raises(ValueError, match="no echoes"):
        select_echoes([])
