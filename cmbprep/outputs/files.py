"""Reading and writing of single files: strict JSON, images, and writes that are whole or not."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbprep.files.json_text import json_safe
from cmbprep.files.text import read_object

if TYPE_CHECKING:
    import nibabel as nib


logger = logging.getLogger("cmbprep")

BIDS_VERSION = "1.10.0"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that this program has written.

    Its syntax must be right: an output that needs a repair is damaged. A value that is not a
    finite number in double precision is None.

    Raises
    ------
    CmbprepError
        Whatever is wrong with the file.
    """
    return read_object(path, repair=False).content


@contextmanager
def write_atomically(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well.

    A reader, or a run that was killed, thus finds the old file or the new one, never a
    part of one; two jobs that write the same file do not mix.

    Parameters
    ----------
    path
        The file to write.
    flush
        Whether the content is on the disk before the file gets its name, so that a power
        cut leaves no file of zeros. Intermediate files can do without.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending is kept: image libraries choose the format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=f"-{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give what the person's umask asks for.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if flush:
            _flush(temporary)
        temporary.replace(path)
    finally:
        # What went wrong is told by the exception on its way, not by one from here.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file's content is on the disk; a full disk is noticed here at the latest."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, *, flush: bool = True) -> Path:
    """Write a UTF-8 text file atomically."""
    with write_atomically(path, flush=flush) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write strict JSON in UTF-8 atomically, in the order given.

    Values that it cannot hold are written as null, with a warning that names them.
    """
    clean, dropped = json_safe(content)
    if dropped:
        logger.warning("%s: unknown, as JSON cannot hold it: %.500s", path, ", ".join(dropped))
    return write_text(path, json.dumps(clean, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_image(
    path: Path,
    image: nib.Nifti1Image,
    *,
    flush: bool = True,
    units: tuple[str, str] = ("mm", "sec"),
) -> Path:
    """Write a ``.nii.gz`` atomically; the same image gives the same bytes.

    The gzip header's time and file name are left empty, unlike nibabel's own writer. The
    units of the header are set: everything here is in millimetres and seconds, but for
    simulated files that lack them.
    """
    image.header.set_xyzt_units(*units)
    with (
        write_atomically(path, flush=flush) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as stream,
    ):
        stream.write(image.to_bytes())
    return Path(path)
