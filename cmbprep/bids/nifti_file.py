"""Opening of NIfTI files: kind of file, header, and length compared with the header.

Nothing here takes memory for the voxels. A file is first identified (missing, not fetched by
git-annex or Git LFS, no regular file), then its header is parsed, and its length is compared
with the length that the header asks for. A compressed file is unpacked once without keeping
the content: this finds damage, which nibabel does not look for beyond the last voxel, and
stops as soon as there is far more content than the header describes.
"""

from __future__ import annotations

import errno
import gzip
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmbprep.bids.nifti_header import BLOCK_SIZE, COPY_AGAIN, check_shape, parse_header
from cmbprep.errors import ScanError

#: Bytes of content per byte of gzip, at most (deflate: 258 bytes in 2 bits).
_MAX_PACKING = 1032
#: Bytes read, and unpacked, at a time.
_READ, _UNPACK = 1 << 17, 1 << 20
#: Pointer files of git-annex and Git LFS are shorter than this.
_MAX_POINTER = 1 << 15

_FETCH_ANNEX = "fetch its content first (datalad get, git annex get)"
_FETCH_LFS = "fetch its content first (git lfs pull)"
_NOT_HERE = "its content is not here"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A NIfTI file whose header has been read.

    Attributes
    ----------
    path
        The file.
    header
        Corrected nibabel header (see :func:`cmbprep.bids.nifti_header.parse_header`).
    shape
        As the header gives it, all axes.
    packed
        Whether the content is gzip, whatever the name says.
    length
        Bytes of the file on disk.
    warnings
        What was corrected in the header.
    """

    path: Path
    header: Any
    shape: tuple[int, ...]
    packed: bool
    length: int
    warnings: tuple[str, ...]

    @property
    def dataobj(self) -> Any:
        """Voxels, scaled, read when they are converted to an array."""
        from nibabel.arrayproxy import ArrayProxy

        slope, inter = self.header.get_slope_inter()
        spec = (
            self.shape,
            self.header.get_data_dtype(),
            self._offset,
            1.0 if slope is None else slope,
            0.0 if inter is None else inter,
        )
        if self.packed == _named_packed(self.path):
            return ArrayProxy(str(self.path), spec)
        return _Misnamed(self.path, self.packed, spec)

    def check_length(self) -> tuple[str, ...]:
        """Compare the length of the file with its header, without unpacking it.

        Raises
        ------
        ScanError
            If the file is shorter than its header asks for, or much longer.
        """
        if not self.packed:
            return self._compare(self.length, "holds")
        if self.length * _MAX_PACKING < self._wanted:
            raise self._too_short(f"{self.length} bytes of gzip")
        return ()

    def check_content(self, *, blank: bool = False) -> tuple[str, ...]:
        """Unpack a compressed file to check it, in constant memory.

        Parameters
        ----------
        blank
            Whether the image may be empty, as a mask may.

        Raises
        ------
        ScanError
            As `check_length`, by the length of the content, and if all its bytes are 0.
        EOFError, OSError, zlib.error
            If the file is cut short or its content disagrees with its checksums.
        """
        if not self.packed:
            return ()
        # From twice the voxels on, the header describes the smaller part of the content.
        limit = self._wanted + self._voxel_bytes
        found = _unpack(self.path, start=self._offset, limit=limit)
        warnings = self._compare(found.size, "unpacks to")
        if found.blank and not blank:
            _, inter = self.header.get_slope_inter()
            raise empty_image(inter or 0.0)
        if found.leftover:
            warnings += ("bytes after the end of its compressed content are ignored",)
        return warnings

    @property
    def _offset(self) -> int:
        return int(self.header["vox_offset"])

    @property
    def _voxel_bytes(self) -> int:
        itemsize = int(self.header.get_data_dtype().itemsize)
        return int(np.prod(self.shape, dtype=object)) * itemsize

    @property
    def _wanted(self) -> int:
        return self._offset + self._voxel_bytes

    def _compare(self, size: int, verb: str) -> tuple[str, ...]:
        extra = size - self._wanted
        if extra < 0:
            raise self._too_short(f"{size} bytes")
        if extra >= self._voxel_bytes:
            raise ScanError(
                f"its header describes {self._wanted} bytes (shape {self.shape}), but it {verb} "
                "at least twice the voxels: shape or data type are wrong",
                hint=COPY_AGAIN,
            )
        if extra:
            return (f"it {verb} {extra} bytes more than its header describes, which are ignored",)
        return ()

    def _too_short(self, found: str) -> ScanError:
        return ScanError(
            f"the file is damaged or cut short ({found}, but its header asks for {self._wanted})",
            hint=COPY_AGAIN,
        )


class _Misnamed:
    """Voxels of a file that is gzip, or is not, against its name; nibabel trusts the name."""

    def __init__(self, path: Path, packed: bool, spec: tuple[Any, ...]) -> None:
        self._path, self._packed, self._spec = path, packed, spec

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        from nibabel.arrayproxy import ArrayProxy

        with gzip.open(self._path) if self._packed else self._path.open("rb") as file:
            return np.asarray(ArrayProxy(file, self._spec, mmap=False), dtype=dtype)


def _named_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def empty_image(value: float) -> ScanError:
    """Return the error of an image whose voxels all have one value."""
    return ScanError(
        "the image is empty: all its voxels are " + ("zero" if value == 0 else f"{value:g}"),
        hint="convert the DICOM files again, or leave the scan out",
    )


def open_nifti(path: Path) -> NiftiFile:
    """Identify a NIfTI file and read its header.

    Parameters
    ----------
    path
        A single NIfTI-1 or NIfTI-2 file, compressed by gzip or not.

    Raises
    ------
    ScanError
        If the file is missing, was not fetched, is no regular file, may not be read, or has
        a header that cannot be used.
    """
    length = _regular_size(path)
    try:
        block, packed = _first_block(path)
    except PermissionError as error:
        raise _unreachable(path, error) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ScanError(f"it is not a NIfTI image ({error})", hint=COPY_AGAIN) from error
    if not packed and length <= _MAX_POINTER:
        _reject_pointers(block)
    header, warnings = parse_header(block, path)
    shape = tuple(int(n) for n in header.get_data_shape())
    check_shape(shape)
    if packed and not _named_packed(path):
        warnings += ("it is compressed although its name does not end in .gz",)
    elif not packed and _named_packed(path):
        warnings += ("it is not compressed although its name ends in .gz",)
    return NiftiFile(path, header, shape, packed, length, warnings)


def _regular_size(path: Path) -> int:
    """Return the size of a regular file; reject whatever must not be opened."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreachable(path, error) from error
    for test, kind in _KINDS:
        if test(status.st_mode):
            raise ScanError(
                f"it is {kind}, not a file",
                hint="put the image itself in its place, or leave it out with a filter file",
            )
    if status.st_size == 0:
        raise ScanError("the file is empty", hint=COPY_AGAIN)
    return status.st_size


def _unreachable(path: Path, error: OSError) -> ScanError:
    if isinstance(error, PermissionError):
        return ScanError("the file may not be read", hint="ask its owner for read permission")
    if error.errno == errno.ELOOP:
        return ScanError("it is a link that leads back to itself", hint=COPY_AGAIN)
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return ScanError(f"the file cannot be read ({error.strerror})", hint=COPY_AGAIN)
    if path.is_symlink():
        target = str(path.readlink())
        if ".git/annex/" in target:
            hint = _FETCH_ANNEX
        else:
            hint = f"fetch its content first (datalad get, git annex get), or restore {target}"
        return ScanError(f"{_NOT_HERE}: it is a link to a file that is not here", hint=hint)
    return ScanError("there is no such file", hint="check that it was not moved")


def _first_block(path: Path) -> tuple[bytes, bool]:
    """Read the start of a file's content, and whether it is gzip."""
    with path.open("rb") as file:
        block = file.read(BLOCK_SIZE)
    if not block.startswith(b"\x1f\x8b"):
        return block, False
    with gzip.open(path) as unpacked:
        return unpacked.read(BLOCK_SIZE), True


def _reject_pointers(block: bytes) -> None:
    """Reject the text files that stand for content which was not fetched."""
    if block.startswith(b"version https://git-lfs"):
        raise ScanError(f"{_NOT_HERE}: it is a pointer of Git LFS", hint=_FETCH_LFS)
    first = block.split(b"\n", 1)[0]
    # Unlocked files begin with the first; links on file systems without links are the second.
    if first.startswith(b"/annex/objects/") or b".git/annex/objects/" in first:
        raise ScanError(f"{_NOT_HERE}: it is a pointer of git-annex", hint=_FETCH_ANNEX)


class _Unpacked(NamedTuple):
    """Content of a gzip file.

    Parameters
    ----------
    size
        Bytes; from the limit on the rest was not looked at.
    leftover
        Whether something other than gzip or zeros follows the last member.
    blank
        Whether all bytes from the start of the voxels on are 0.
    """

    size: int
    leftover: bool
    blank: bool


def _unpack(path: Path, *, start: int, limit: int) -> _Unpacked:
    """Unpack a gzip file without keeping its content, and check it.

    Parameters
    ----------
    path
        A file made of one gzip member or of several.
    start
        Bytes of content before the voxels.
    limit
        Bytes of content after which to stop.

    Raises
    ------
    EOFError, OSError, zlib.error
        If the file is cut short or its content disagrees with its checksums.
    """
    member, size, finished, blank = None, 0, 0, True
    with path.open("rb") as file:
        while chunk := file.read(_READ):
            while chunk:
                if member is None:
                    if finished and not chunk.startswith(b"\x1f"):
                        # Padding after the last member.
                        return _Unpacked(size, bool(chunk.strip(b"\0")), blank)
                    member = zlib.decompressobj(wbits=31)
                content = member.decompress(chunk, _UNPACK)
                blank = blank and not content[max(start - size, 0) :].strip(b"\0")
                size += len(content)
                if size >= limit:
                    return _Unpacked(size, False, blank)
                chunk = member.unconsumed_tail
                if member.eof:
                    chunk, member, finished = member.unused_data, None, finished + 1
    if member is not None:
        raise EOFError("it ends before its last byte")
    return _Unpacked(size, False, blank)
