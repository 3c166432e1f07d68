"""Reading of NIfTI headers, with the corrections of the reference library.

nibabel and the reference library of the format (``nifti1_io.c``, NIfTI-1 data format,
https://nifti.nimh.nih.gov/nifti-1) read some broken fields in different ways, and nibabel
takes a few of them as they are: with a data offset of 0 in a single file, for example, it
reads the header itself as voxels. Here each such field is corrected with a warning, or the
file is rejected; no field is used as it is if the two would read different images.

=====================  ==============================  =====================================
field                  reference library               here
=====================  ==============================  =====================================
``sizeof_hdr``         ignored (``dim[0]`` decides)    as the library, with a warning
``dim[0]``             1..7 in either byte order       the same
``dim[1]`` <= 0        rejected                        rejected
``dim[2,3]`` <= 0      taken as 1                      rejected: a scan has more slices
``dim[4..]`` <= 0      taken as 1                      as the library, with a warning
``datatype``           unknown or binary: rejected     rejected
``bitpix``             ignored                         as the library, with a warning
``pixdim`` 0 or NaN    taken as 1                      unknown: the qform is not used
``pixdim`` < 0         taken as 1 in the qform         absolute value (as nibabel), warning
``pixdim[0]``          its sign                        as the library, with a warning
form codes > 0         the form is used                as the library; undefined ones warn
``quatern_b,c,d``      scaled down to length 1         length up to 1.01: as the library, with a
                                                       warning; else the qform is not used
``xyzt_units``         bits 0-2 space, 3-5 time        the same; undefined ones warn
``scl_slope``          not finite: no scaling          as the library, with a warning
``scl_inter``          not finite: 0                   as the library, with a warning
``vox_offset`` < 352   348 (nifti1.h: 352)             352, with a warning
``magic``              none: ANALYZE 7.5               rejected: it has no orientation
=====================  ==============================  =====================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cmbprep.errors import ScanError

#: Bytes from the start of a file that hold any header (NIfTI-2: 540).
BLOCK_SIZE = 552
#: Bytes of extensions before the voxels; more is a damaged offset. Extensions hold DICOM
#: headers or a few pages of XML.
MAX_OFFSET = 2**26
#: xyzt_units: codes of the three bits for space, and of the three bits for time.
_SPACE_UNITS = (0, 1, 2, 3)
_TIME_UNITS = (0, 8, 16, 24, 32, 40, 48)
#: sform_code and qform_code: unknown, scanner, aligned, Talairach, MNI 152, other template.
_FORM_CODES = (0, 1, 2, 3, 4, 5)
_ALIGNED = 2
#: Length of (b, c, d) of a quaternion: 1 at most; rounding makes it slightly longer.
_QUATERNION_ROUNDING, _QUATERNION_LIMIT = 1e-6, 1.01

#: More voxels than this are a damaged header, not a head: 812 along each axis. The finest
#: images of a living head (0.25 mm) have about 5e8. As float32 this is 2 GiB.
MAX_VOXELS = 2**29
#: Longest axis that NIfTI-1, in which results are written, can hold.
MAX_LENGTH = 2**15 - 1

#: Remedy for files that are damaged.
COPY_AGAIN = "copy or convert it again from the source, and check the disk for errors"
_CONVERT = "convert the DICOM files again"

Corrector = Callable[[Any], str | None]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of a file into the errors that are raised about it."""
    try:
        yield
    except ScanError as error:
        raise ScanError(error.message, path=path, hint=error.hint) from error.__cause__


def check_shape(shape: Sequence[int]) -> None:
    """Reject a shape that no scan of a head has, before memory is taken for it.

    Raises
    ------
    ScanError
        If an axis is empty or longer than :data:`MAX_LENGTH`, or if there are more voxels
        than :data:`MAX_VOXELS`.
    """
    too_many = np.prod(shape, dtype=float) > MAX_VOXELS
    if min(shape, default=0) <= 0 or max(shape) > MAX_LENGTH or too_many:
        raise ScanError(f"its shape {tuple(shape)} makes no sense", hint=COPY_AGAIN)


def parse_header(block: bytes, path: Path) -> tuple[Any, tuple[str, ...]]:
    """Parse and correct the header of a single NIfTI file.

    Parameters
    ----------
    block
        The first :data:`BLOCK_SIZE` bytes of the (uncompressed) file; fewer if it is shorter.
    path
        The file, for messages.

    Returns
    -------
    header
        nibabel's NIfTI-1 or NIfTI-2 header, in its own byte order, without extensions. Data
        type, offset, units, form codes and scaling can be used as they are; voxel sizes of 0
        or NaN are kept, so that an affine made of them is unusable.
    warnings
        One for each field that was corrected.

    Raises
    ------
    ScanError
        If it is no header, or one that cannot be corrected.
    """
    with naming(path):
        kind, order = _kind_and_order(block)
        size = kind.template_dtype.itemsize
        # Unchecked, as nibabel's own corrections give no notice of what they have changed.
        header = kind(block[:size], order, check=False)
        extended = block[size : size + 1] not in (b"", b"\0")
        if extended and not float(header["vox_offset"]) >= kind.single_vox_offset:
            raise ScanError(
                "where its voxels begin is unknown: its header announces an extension, but gives a "
                f"data offset of {float(header['vox_offset']):g} bytes",
                hint=_CONVERT,
            )
        found = [correct(header) for correct in _CORRECTORS]
    return header, tuple(text for text in found if text)


def _kind_and_order(block: bytes) -> tuple[Any, str]:
    """Find out the version of the format and the byte order."""
    import nibabel as nib

    kind: Any
    if block[4:8] in (b"n+2\0", b"ni2\0"):
        kind, at, width, magic = nib.Nifti2Header, 16, 8, block[4:8]
        if block[8:12] != b"\r\n\x1a\n":
            raise ScanError(
                "its bytes were changed as if it were a text file (line ends in its header)",
                hint="copy it again, in binary mode",
            )
    else:
        kind, at, width, magic = nib.Nifti1Header, 40, 2, block[344:348]
    size = kind.template_dtype.itemsize
    if len(block) < size:
        raise ScanError(
            f"it is not a NIfTI image (it ends after {len(block)} bytes, within the header)",
            hint=COPY_AGAIN,
        )
    if magic not in (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0"):
        raise ScanError(
            f"it is not a NIfTI image{_what_instead(block)}", hint="convert it to NIfTI"
        )
    if magic[1:2] == b"i":
        raise ScanError(
            "it is only the header of a NIfTI pair (.hdr and .img)",
            hint="convert the pair into a single .nii.gz file",
        )
    for order in ("<", ">"):
        if 1 <= int(np.frombuffer(block, f"{order}i{width}", count=1, offset=at)[0]) <= 7:
            return kind, order
    raise ScanError(
        "its header gives no number of dimensions from 1 to 7 (dim[0])", hint=COPY_AGAIN
    )


def _what_instead(block: bytes) -> str:
    sizes = (int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big"))
    if 348 in sizes and not any(block[344:348]):
        return " but ANALYZE 7.5, which knows no left and right"
    return " (its header lacks the mark n+1)"


# --- correctors: each looks at one field -------------------------------------------------


def _size(header: Any) -> str | None:
    size, wanted = int(header["sizeof_hdr"]), header.template_dtype.itemsize
    if size == wanted:
        return None
    header["sizeof_hdr"] = wanted
    return f"its header gives its own size as {size} bytes; {wanted} is taken"


def _dimensions(header: Any) -> str | None:
    dim = header["dim"]
    count = int(dim[0])
    if min(dim[1 : 1 + min(count, 3)]) <= 0:
        shape = tuple(int(n) for n in dim[1 : 1 + count])
        raise ScanError(f"its shape {shape} makes no sense", hint=COPY_AGAIN)
    wrong = [axis for axis in range(4, count + 1) if dim[axis] <= 0]
    if not wrong:
        return None
    named = ", ".join(f"dim[{axis}] = {int(dim[axis])}" for axis in wrong)
    for axis in wrong:
        dim[axis] = 1
    return f"its header has impossible lengths ({named}); they are taken as 1"


def _data_type(header: Any) -> str | None:
    from nibabel.spatialimages import HeaderDataError

    code, bits = int(header["datatype"]), int(header["bitpix"])
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):  # a code that nibabel does not know: KeyError
        dtype = None
    if dtype is None or dtype.itemsize == 0:
        raise ScanError(f"its header has the data type {code}, which cannot be read", hint=_CONVERT)
    wanted = 8 * dtype.itemsize
    if bits == wanted:
        return None
    header["bitpix"] = wanted
    return f"its header claims {bits} bits per voxel, but {wanted} by its data type, which is used"


def _voxel_sizes(header: Any) -> str | None:
    sizes = header["pixdim"][1:4]
    if not (sizes < 0).any():
        return None
    sizes[:] = np.abs(sizes)
    if header["sform_code"] > 0:
        return None  # the sform gives the sizes
    return "its header has negative voxel sizes; the sign is ignored"


def _handedness(header: Any) -> str | None:
    qfac = float(header["pixdim"][0])
    taken = -1.0 if qfac < 0 else 1.0
    if qfac == taken:
        return None
    header["pixdim"][0] = taken
    if qfac == 0 or header["qform_code"] <= 0 or header["sform_code"] > 0:
        return None  # 0 is written by many and means 1
    return f"pixdim[0] of its header is {qfac:g}, neither 1 nor -1; {taken:g} is taken"


def _form_codes(header: Any) -> str | None:
    wrong = []
    for name in ("sform_code", "qform_code"):
        code = int(header[name])
        if code not in _FORM_CODES:
            header[name] = _ALIGNED if code > 0 else 0
            wrong.append(f"{name} {code}, {'used' if code > 0 else 'not used'}")
    return f"its header has undefined codes of orientation ({'; '.join(wrong)})" if wrong else None


def _quaternion(header: Any) -> str | None:
    """Correct a quaternion that is no rotation; nibabel raises an error wherever it meets one."""
    fields = ("quatern_b", "quatern_c", "quatern_d")
    values = np.array([header[name] for name in fields], dtype=float)
    with np.errstate(over="ignore"):
        length = float(np.linalg.norm(values))
    if length <= 1:
        return None
    what = "its quaternion (" + ", ".join(f"{value:.5g}" for value in values) + ")"
    silent = header["qform_code"] <= 0 or header["sform_code"] > 0
    if length <= _QUATERNION_LIMIT:
        values /= length
        silent |= length <= 1 + _QUATERNION_ROUNDING
        text = f"{what} is slightly longer than 1; it is scaled to length 1"
    else:
        values[:] = 0
        header["qform_code"] = 0
        text = f"{what} is no rotation, because its length is not 0 to 1; its qform is not used"
    for name, value in zip(fields, values, strict=True):
        header[name] = value
    return None if silent else text


def _units(header: Any) -> str | None:
    code = int(header["xyzt_units"])
    space, time = code & 0x07, code & 0x38
    known = (space if space in _SPACE_UNITS else 0) + (time if time in _TIME_UNITS else 0)
    if code == known:
        return None
    header["xyzt_units"] = known
    return f"its header has an undefined code of units ({code})"


def _scaling(header: Any) -> str | None:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope):
        header["scl_slope"], header["scl_inter"] = 1.0, 0.0
        return f"its header has a scaling of {slope:g}; the stored values are used without it"
    if slope != 0 and not np.isfinite(inter):
        header["scl_inter"] = 0.0
        return f"its header has an intercept of {inter:g}; it is taken as 0"
    return None


def _offset(header: Any) -> str | None:
    offset, least = float(header["vox_offset"]), header.single_vox_offset
    if offset > MAX_OFFSET:
        raise ScanError(
            f"its header puts the voxels at byte {offset:.6g}, which makes no sense",
            hint=COPY_AGAIN,
        )
    if offset >= least:
        return None
    header["vox_offset"] = least
    return (
        f"its header puts the voxels at byte {offset:g}, within the header; "
        f"they are read from byte {least}"
    )


_CORRECTORS: tuple[Corrector, ...] = (
    _size,
    _dimensions,
    _data_type,
    _voxel_sizes,
    _handedness,
    _form_codes,
    _quaternion,
    _units,
    _scaling,
    _offset,
)
