"""NIfTI files with odd headers: corrected with a warning, or rejected, never read as they are."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from cmbprep.bids.images import check_header, open_image, read_geometry, read_scan_image
from cmbprep.errors import ScanError
from tests.bidsdata import head

Edit = tuple[Any, ...]

VALUES = np.rint(head()).astype(np.int16)
AFFINE = np.diag([2.5, 2.5, 2.5, 1.0])
NAN, INF = float("nan"), float("inf")

# Fields of a NIfTI-1 header: where they begin, and how they are stored.
OFFSET = (108, "<f")
SLOPE = (112, "<f")
INTER = (116, "<f")
UNITS = (123, "<B")
DIM = (40, "<5h")
DATATYPE = (70, "<h")
BITPIX = (72, "<h")
QFAC = (76, "<f")
PIXDIM = (80, "<f")
QFORM_CODE = (252, "<h")
QUATERNION = (256, "<3f")
SFORM_CODE = (254, "<h")
MAGIC = (344, "<4s")
QFORM_ONLY = (*SFORM_CODE, 0)


def content(*edits: Edit, image: type[nib.Nifti1Image] = nib.Nifti1Image) -> bytes:
    """Return the bytes of a sound image, with fields of its header overwritten."""
    made = image(VALUES, AFFINE)
    made.set_sform(AFFINE, 1)
    made.set_qform(AFFINE, 1)
    made.header.set_xyzt_units("mm", "sec")
    block = bytearray(made.to_bytes())
    for at, kind, *values in edits:
        struct.pack_into(kind, block, at, *values)
    return bytes(block)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def writer(stored: bytes, name: str = "sub-01_T2starw.nii") -> Path:
        path = tmp_path / name
        path.write_bytes(stored)
        return path

    return writer


def accepted(path: Path) -> tuple[str, ...]:
    """Read an image that must hold the right values; return its warnings."""
    image, warnings = read_scan_image(path, role="magnitude")
    np.testing.assert_array_equal(image.get_fdata(), VALUES)
    assert check_header(path, role="magnitude") == warnings
    return warnings


def rejected(path: Path, *, by_header: bool = True) -> ScanError:
    """Read an image that must not be read, and return its error."""
    with pytest.raises(ScanError) as caught:
        read_scan_image(path, role="magnitude")
    assert caught.value.path == str(path)
    assert caught.value.hint
    if by_header:
        with pytest.raises(ScanError) as planned:
            check_header(path, role="magnitude")
        assert str(planned.value) == str(caught.value)
    return caught.value


# --- headers that are corrected ----------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "warning"),
    [
        *[([(*OFFSET, at)], "read from byte 352") for at in (0, 100, 347, 348, 351, -5, NAN)],
        ([(0, "<i", 0)], "its own size as 0 bytes"),
        ([(0, "<i", 540)], "its own size as 540 bytes"),
        ([(*BITPIX, 32)], "32 bits per voxel, but 16"),
        ([(*BITPIX, 0)], "0 bits per voxel, but 16"),
        ([(*DIM, 4, 24, 28, 20, 0)], "impossible lengths (dim[4] = 0)"),
        ([(*DIM, 4, 24, 28, 20, -3)], "impossible lengths (dim[4] = -3)"),
        ([(*SLOPE, NAN)], "scaling of nan"),
        ([(*SLOPE, INF), (*INTER, 5)], "scaling of inf"),
        ([(*SLOPE, 1), (*INTER, NAN)], "intercept of nan"),
        ([(*SLOPE, 1), (*INTER, -INF)], "intercept of -inf"),
        ([(*SFORM_CODE, 17)], "sform_code 17, used"),
        ([(*SFORM_CODE, -1)], "sform_code -1, not used"),
        ([(*UNITS, 66)], "undefined code of units (66)"),
        ([(*PIXDIM, -2.5), QFORM_ONLY], "negative voxel sizes"),
        ([(*QFAC, 5), QFORM_ONLY], "pixdim[0] of its header is 5"),
        ([(*QFAC, NAN), QFORM_ONLY], "pixdim[0] of its header is nan"),
        ([(*UNITS, 1)], "2.5 × 2.5 × 2.5 metres as voxel size, which is taken to be in mm"),
        ([(*UNITS, 3)], "2.5 × 2.5 × 2.5 micrometres as voxel size, which is taken to be in mm"),
    ],
)
def test_a_corrected_field_gives_the_right_image_and_one_warning(
    write: Callable[..., Path], edits: list[Edit], warning: str
) -> None:
    path = write(content(*edits))
    (found,) = accepted(path)
    assert warning in found
    np.testing.assert_allclose(read_scan_image(path, role="T1w").image.affine, AFFINE)
    packed = write(gzip.compress(content(*edits)), "packed.nii.gz")
    assert accepted(packed) == (found,)


@pytest.mark.parametrize(
    "edits",
    [
        [(*OFFSET, 352.7)],
        [(*SLOPE, 0), (*INTER, 100)],
        [(*QFAC, 0), QFORM_ONLY],
        [(*SFORM_CODE, 5)],
        [(*PIXDIM, 0)],  # the sform gives the sizes
        [(*PIXDIM, NAN)],
        [(*PIXDIM, -2.5)],
    ],
)
def test_what_all_read_alike_needs_no_warning(
    write: Callable[..., Path], edits: list[Edit]
) -> None:
    path = write(content(*edits))
    assert accepted(path) == ()
    np.testing.assert_allclose(read_scan_image(path, role="T1w").image.affine, AFFINE)


def test_the_sign_of_qfac_counts_as_in_the_reference_library(write: Callable[..., Path]) -> None:
    """nibabel takes -2 for 1, which turns the slices around."""
    path = write(content((*QFAC, -2.0), QFORM_ONLY))
    (warning,) = accepted(path)
    assert "pixdim[0] of its header is -2, neither 1 nor -1; -1 is taken" in warning
    affine = read_scan_image(path, role="magnitude").image.affine
    np.testing.assert_allclose(affine, np.diag([2.5, 2.5, -2.5, 1]))


@pytest.mark.parametrize("code", [6, 17])
def test_a_qform_of_an_undefined_code_is_used(write: Callable[..., Path], code: int) -> None:
    """nibabel drops it, and flips the image by its default."""
    path = write(content(QFORM_ONLY, (*QFORM_CODE, code)))
    (warning,) = accepted(path)
    assert f"qform_code {code}, used" in warning
    np.testing.assert_allclose(read_scan_image(path, role="T1w").image.affine, AFFINE)


BROKEN = [(0.9, 0.9, 0.3), (3.0, 0.0, 0.0), (0.0, NAN, 0.0), (0.0, 0.0, -INF), (1e30, 1e30, 1e30)]


@pytest.mark.parametrize("image", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("values", BROKEN)
def test_a_quaternion_that_is_no_rotation_is_named(
    write: Callable[..., Path], values: tuple[float, ...], image: Any
) -> None:
    edits: list[Edit] = [(*QUATERNION, *values), QFORM_ONLY]
    if image is nib.Nifti2Image:
        edits = [(352, "<3d", *values), (348, "<i", 0)]
    path = write(content(*edits, image=image))
    broken, guess = accepted(path)
    assert broken.startswith(f"its quaternion ({values[0]:g}, ")
    assert "is no rotation" in broken
    assert "left and right are a guess; convert the DICOM files again" in guess
    opened, warnings = open_image(path)
    assert broken in warnings
    np.testing.assert_array_equal(opened.get_fdata(), VALUES)
    np.testing.assert_allclose(opened.header.get_best_affine(), opened.affine)
    assert read_geometry(path).shape == VALUES.shape


@pytest.mark.parametrize("values", BROKEN)
def test_a_broken_quaternion_beside_a_good_sform_needs_no_warning(
    write: Callable[..., Path], values: tuple[float, ...]
) -> None:
    path = write(content((*QUATERNION, *values)))
    assert accepted(path) == ()
    opened, _ = open_image(path)
    np.testing.assert_allclose(opened.affine, AFFINE)
    opened.get_qform()


@pytest.mark.parametrize(("excess", "told"), [(1e-7, False), (5e-7, False), (1e-4, True)])
def test_a_quaternion_that_rounding_made_too_long_is_scaled(
    write: Callable[..., Path], excess: float, told: bool
) -> None:
    """The reference library scales it as well; nibabel raises an error."""
    path = write(content((*QUATERNION, 0, 0, 1 + excess), QFORM_ONLY))
    warnings = accepted(path)
    assert [text for text in warnings if "slightly longer than 1" in text] == list(warnings)
    assert bool(warnings) == told
    affine = read_scan_image(path, role="magnitude").image.affine
    np.testing.assert_allclose(affine, np.diag([-2.5, -2.5, 2.5, 1]), atol=1e-5)


@pytest.mark.parametrize("code", range(256))
def test_every_code_of_units(write: Callable[..., Path], code: int) -> None:
    warnings = accepted(write(content((*UNITS, code))))
    defined = code & 7 <= 3 and code & 0x38 <= 48 and code < 64
    assert any("undefined code of units" in text for text in warnings) != defined
    assert any("no unit of length" in text for text in warnings) == (code & 7 in (0, 4, 5, 6, 7))


def scaled(factor: float, code: int) -> list[Edit]:
    size = 2.5 * factor
    rows = [
        (at, "<4f", *row)
        for at, row in zip((280, 296, 312), np.diag([size] * 3 + [1]), strict=False)
    ]
    return [*rows, (80, "<3f", size, size, size), (*UNITS, code)]


@pytest.mark.parametrize(("factor", "code", "name"), [(1e-3, 1, "metres"), (1e3, 3, "micrometres")])
def test_other_units_are_converted(
    write: Callable[..., Path], factor: float, code: int, name: str
) -> None:
    path = write(content(*scaled(factor, code)))
    assert accepted(path) == (f"its header is in {name}; it was converted to mm",)
    image = read_scan_image(path, role="magnitude").image
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms(), 2.5, rtol=1e-6)
    assert image.header.get_xyzt_units() == ("mm", "unknown")


@pytest.mark.parametrize(("factor", "code"), [(1e-3, 3), (1e3, 1), (1e-3, 2), (1e-3, 0), (1e3, 2)])
def test_sizes_that_no_reading_explains(
    write: Callable[..., Path], factor: float, code: int
) -> None:
    assert "make no sense" in rejected(write(content(*scaled(factor, code)))).message


def test_byte_order_and_version_do_not_matter(write: Callable[..., Path]) -> None:
    sound = nib.Nifti1Image.from_bytes(content())
    swapped = nib.Nifti1Image(VALUES, None, sound.header.as_byteswapped())
    path = write(swapped.to_bytes())
    assert path.read_bytes()[:4] == struct.pack(">i", 348)
    assert accepted(path) == ()
    assert accepted(write(content(image=nib.Nifti2Image))) == ()
    (warning,) = accepted(write(content((168, "<q", 0), image=nib.Nifti2Image)))
    assert "read from byte 544" in warning


# --- headers that are rejected -----------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([(*OFFSET, INF)], "at byte inf, which makes no sense"),
        ([(*OFFSET, 1e12)], "makes no sense"),
        ([(*OFFSET, 0), (348, "<B", 1)], "announces an extension"),
        ([(*OFFSET, 353)], "cut short"),
        *[([(*DATATYPE, code)], f"data type {code}") for code in (0, 1, 99, -4, 3000)],
        ([(*DATATYPE, 8)], "cut short"),
        ([(*DATATYPE, 2)], "at least twice the voxels"),
        *[([(40, "<h", count)], "number of dimensions") for count in (0, 8, -1)],
        ([(40, "<h", 3 << 8)], "makes no sense"),
        ([(*DIM, 3, 24, 28, 0, 1)], "makes no sense"),
        ([(*DIM, 3, 24, -28, 20, 1)], "makes no sense"),
        ([(*DIM, 3, 0, 28, 20, 1)], "makes no sense"),
        ([(*DIM, 3, -1, 28, 20, 1)], "makes no sense"),
        ([(*DIM, 3, 1290, 1290, 1290, 1)], "makes no sense"),
        ([(*DIM, 3, 24, 28, 10, 1)], "at least twice the voxels"),
        ([(*DIM, 4, 24, 28, 20, 2)], "2 volumes"),
        ([(*PIXDIM, 0), QFORM_ONLY], "neither an orientation nor voxel sizes"),
        ([(*PIXDIM, NAN), QFORM_ONLY], "neither an orientation nor voxel sizes"),
        ([(*MAGIC, b"\0\0\0\0")], "ANALYZE 7.5"),
        ([(*MAGIC, b"ni1\0")], "NIfTI pair"),
        ([(*MAGIC, b"n+3\0")], "not a NIfTI image"),
        ([(*MAGIC, b"n+1x")], "not a NIfTI image"),
    ],
)
def test_what_cannot_be_corrected_is_rejected_by_the_header_alone(
    write: Callable[..., Path], edits: list[Edit], message: str
) -> None:
    assert message in rejected(write(content(*edits))).message


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ((8, "<4s", b"\n\x1a\n\0"), "text file"),
        ((168, "<q", 2**62), "makes no sense"),
        ((16, "<4q", 3, 40000, 20, 20), "makes no sense"),  # NIfTI-1 cannot hold the result
        ((16, "<4q", 3, 2**62, 2**62, 2**62), "makes no sense"),
    ],
)
def test_damaged_headers_of_nifti_2(write: Callable[..., Path], edit: Edit, message: str) -> None:
    assert message in rejected(write(content(edit, image=nib.Nifti2Image))).message


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_bytes_of_a_header_are_read_or_rejected(
    tmp_path: Path, edits: list[tuple[int, int]]
) -> None:
    path = tmp_path / "sub-01_T2starw.nii"
    path.write_bytes(content(*[(at, "<B", value) for at, value in edits]))
    with suppress(ScanError):
        read_scan_image(path, role="magnitude")


# --- length ------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [348, 352, 600, -1])
def test_a_file_shorter_than_its_header_says(write: Callable[..., Path], length: int) -> None:
    stored = content()[:length]
    assert f"({len(stored)} bytes, but" in rejected(write(stored)).message
    packed = write(gzip.compress(stored), "packed.nii.gz")
    assert f"({len(stored)} bytes, but" in rejected(packed, by_header=False).message


@pytest.mark.parametrize("name", ["short.nii", "short.nii.gz"])
def test_a_short_file_costs_no_memory(write: Callable[..., Path], name: str) -> None:
    """400 bytes that claim 800 x 800 x 800 voxels: 1 GB, and 2 GB as float32."""
    stored = content((*DIM, 3, 800, 800, 800, 1))[:400]
    path = write(gzip.compress(stored) if name.endswith("gz") else stored, name)
    tracemalloc.start()
    try:
        assert "asks for 1024000352" in rejected(path).message
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((24, 28, 20), "at least twice the voxels"), ((512, 512, 256), "all its voxels are zero")],
)
def test_a_small_file_that_unpacks_to_much(
    tmp_path: Path, shape: tuple[int, int, int], message: str
) -> None:
    path = tmp_path / "bomb.nii.gz"
    pack = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        file.write(pack.compress(content((*DIM, 3, *shape, 1))[:352]))
        for _ in range(8):
            file.write(pack.compress(bytes(2**24)))
        file.write(pack.flush())
    tracemalloc.start()
    try:
        assert message in rejected(path, by_header=False).message
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()


def test_bytes_after_the_voxels(write: Callable[..., Path]) -> None:
    tail = b"x" * 1000
    expected = "1000 bytes more than its header describes, which are ignored"
    assert accepted(write(content() + tail)) == (f"it holds {expected}",)
    path = write(gzip.compress(content() + tail), "x.nii.gz")
    assert read_scan_image(path, role="magnitude").warnings == (f"it unpacks to {expected}",)
    assert "at least twice" in rejected(write(content() + b"x" * 10**6)).message
    path = write(gzip.compress(content() + b"x" * 10**6), "y.nii.gz")
    assert "at least twice" in rejected(path, by_header=False).message


def test_bytes_after_the_gzip(write: Callable[..., Path]) -> None:
    stored = content()
    members = gzip.compress(stored[:100]) + gzip.compress(stored[100:])
    assert accepted(write(members + bytes(70000), "x.nii.gz")) == ()
    path = write(members + b"garbage", "x.nii.gz")
    assert read_scan_image(path, role="magnitude").warnings == (
        "bytes after the end of its compressed content are ignored",
    )


def test_a_wrong_checksum(write: Callable[..., Path]) -> None:
    path = write(gzip.compress(content())[:-8] + b"abcdefgh", "x.nii.gz")
    assert "damaged" in rejected(path, by_header=False).message


def test_a_name_that_says_otherwise(write: Callable[..., Path]) -> None:
    assert accepted(write(content(), "x.nii.gz")) == (
        "it is not compressed although its name ends in .gz",
    )
    assert accepted(write(gzip.compress(content()), "x.nii")) == (
        "it is compressed although its name does not end in .gz",
    )


# --- files that are none -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--ab.nii.gz\n", "datalad get"),
        (b"../../.git/annex/objects/a/b/SHA256E-s1--ab.nii.gz/SHA256E-s1--ab.nii.gz", "annex get"),
    ],
)
def test_a_pointer_to_content_that_was_not_fetched(
    write: Callable[..., Path], pointer: bytes, remedy: str
) -> None:
    error = rejected(write(pointer, "x.nii.gz"))
    assert "its content is not here" in error.message
    assert remedy in str(error.hint)


@pytest.mark.parametrize("target", ["../.git/annex/objects/a/b/key/key", "/store/scan.nii.gz"])
def test_a_link_to_content_that_is_not_here(tmp_path: Path, target: str) -> None:
    path = tmp_path / "x.nii.gz"
    path.symlink_to(target)
    error = rejected(path)
    assert "its content is not here" in error.message
    assert "datalad get" in str(error.hint)
    assert ("/store" in target) == (target in str(error.hint))


def test_a_link_to_content_that_is_here(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(gzip.compress(content()))
    path = tmp_path / "x.nii.gz"
    path.symlink_to("key")
    assert accepted(path) == ()


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    path.mkdir()
    assert "folder" in rejected(path).message
    path.rmdir()
    os.mkfifo(path)  # to open it would wait without end
    assert "named pipe" in rejected(path).message
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "device" in rejected(path).message
    path.unlink()
    path.symlink_to(path)
    assert "leads back to itself" in rejected(path).message
    assert "no such file" in rejected(tmp_path / "none" / "x.nii").message


def test_a_name_that_is_not_utf_8_can_be_printed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/sub-\xe9_T2starw.nii"))
    path.write_bytes(b"nothing")
    with pytest.raises(ScanError) as caught:
        check_header(path, role="magnitude")
    assert r"sub-\udce9_T2starw.nii" in str(caught.value)
    assert str(caught.value).encode()
