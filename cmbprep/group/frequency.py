"""How often each voxel of the template lies in a microbleed.

A participant's session has one vote, shared by its scans: the map is the mean over
participants' sessions of the mean over the session's scans. Scans without microbleeds vote
too, with zeros. Diamagnetic lesions are in no mask in template space.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmbprep.outputs import BLOCK, write_image, write_json
from cmbprep.reports.results import ScanResult
from cmbprep.reports.tally import Tally

if TYPE_CHECKING:
    import nibabel as nib

__all__ = ["FrequencyMap", "frequency", "write_frequency_maps"]

#: Affines may differ by this much, mm, and still be the same grid.
AFFINE_TOLERANCE = 1e-3
#: Bytes of a NIfTI-1 header with the four that tell of extensions.
HEADER_SIZE = 352
#: Masks unpacked at the same time.
THREADS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class FrequencyMap:
    """A map that was written, and what went into it."""

    path: Path
    template: str
    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    n_scans: int
    n_sessions: int
    n_participants: int


class _GridsDifferError(Exception):
    """Masks in the same template lie on different grids."""


def write_frequency_maps(
    root: Path, scans: Sequence[ScanResult]
) -> tuple[list[FrequencyMap], tuple[str, ...]]:
    """Write a map for each template that scans were brought to.

    Returns
    -------
    maps
        The maps.
    notes
        Why a map was not made, or what is missing in it, in sentences.
    """
    by_template: dict[str, list[ScanResult]] = {}
    missing = 0
    for scan in scans:
        if scan.status != "complete" or scan.detection is None:
            continue
        if not scan.detection.files.path("template_mask").exists():
            missing += 1
            continue
        by_template.setdefault(scan.detection.files.names.template, []).append(scan)
    notes = [f"{missing} scans have no mask in template space and are not in the map"] * (
        missing > 0
    )
    maps = []
    for template, chosen in sorted(by_template.items()):
        try:
            maps.append(_write_map(root, template, chosen))
        except _GridsDifferError as error:
            notes.append(f"there is no frequency map in {template}: {error}")
        except (OSError, EOFError, zlib.error, ValueError) as error:
            notes.append(
                f"there is no frequency map in {template}: a mask cannot be read "
                f"({type(error).__name__})"
            )
    return maps, tuple(notes)


def _write_map(root: Path, template: str, scans: Sequence[ScanResult]) -> FrequencyMap:
    import nibabel as nib

    data, affine = frequency(scans)
    path = root / f"space-{template}_label-CMB_desc-frequency_probseg.nii.gz"
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    # Code 4: coordinates of a standard template.
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    result = FrequencyMap(
        path=write_image(path, image),
        template=template,
        data=data,
        affine=affine,
        n_scans=len(scans),
        n_sessions=len({scan.unit for scan in scans}),
        n_participants=len({scan.entities["sub"] for scan in scans}),
    )
    write_json(
        path.with_name(path.name.replace(".nii.gz", ".json")),
        {
            "Description": "Fraction of the participants' sessions with a microbleed, definite "
            "or possible, at each voxel. A session with several scans has one vote, shared by "
            "them. Diamagnetic spots are left out.",
            BLOCK: {
                "Template": template,
                "NumberOfScans": result.n_scans,
                "NumberOfSessions": result.n_sessions,
                "NumberOfParticipants": result.n_participants,
            },
        },
    )
    return result


def frequency(scans: Sequence[ScanResult]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Add up the masks of scans in one template.

    Returns
    -------
    data : array of shape (i, j, k)
        Fractions, 0 to 1.
    affine : array of shape (4, 4)
        Voxel -> RAS+ mm.
    """
    per_session = Counter(scan.unit for scan in scans)
    # The share of each scan in its session, and of each session in the whole.
    weights = [1.0 / per_session[scan.unit] / len(per_session) for scan in scans]
    first = _header(_read_mask(scans[0], whole=False))
    grid = _Grid(tuple(int(n) for n in first.get_data_shape()), first.get_best_affine())
    total = np.zeros(int(np.prod(grid.shape)))
    # Unpacking takes nearly all of the time and runs beside other threads; the sum is made
    # here, in the order of the scans, so the result does not depend on them.
    with ThreadPoolExecutor(THREADS) as pool:
        for inside, weight in zip(pool.map(grid.inside, scans), weights, strict=True):
            total[inside] += weight
    data = total.reshape(grid.shape, order="F").astype(np.float32)
    return data, np.asarray(grid.affine, dtype=float)


@dataclass(frozen=True, eq=False)
class _Grid:
    """The grid of the first mask, which all others must share."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def inside(self, scan: ScanResult) -> NDArray[np.intp]:
        """Flat indices, first axis fastest, of the voxels in a scan's microbleeds."""
        # Most scans of a cohort have no lesion: of their masks only the header is unpacked.
        any_bleed = bool(Tally(scan.lesions).counted)
        content = _read_mask(scan, whole=any_bleed)
        header = _header(content)
        self._check(scan, header)
        if not any_bleed:
            return np.zeros(0, dtype=np.intp)
        return _nonzero(header, content, int(np.prod(self.shape)))

    def _check(self, scan: ScanResult, header: nib.Nifti1Header) -> None:
        same = tuple(header.get_data_shape()) == self.shape and np.allclose(
            header.get_best_affine(), self.affine, atol=AFFINE_TOLERANCE
        )
        if not same:
            raise _GridsDifferError(
                f"the mask of {scan.name} has another grid than the first; process all scans "
                "with the same version of the template"
            )


def _header(content: bytes) -> nib.Nifti1Header:
    import nibabel as nib

    return nib.Nifti1Header.from_fileobj(io.BytesIO(content[:HEADER_SIZE]))


def _read_mask(scan: ScanResult, *, whole: bool) -> bytes:
    """Unpack a mask in template space, or its header alone."""
    assert scan.detection is not None
    path = scan.detection.files.path("template_mask")
    if whole:
        return gzip.decompress(path.read_bytes())
    with open(path, "rb") as stream:
        # 16 + zlib.MAX_WBITS: a gzip stream.
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(stream.read(4096), HEADER_SIZE)


def _nonzero(header: nib.Nifti1Header, content: bytes, size: int) -> NDArray[np.intp]:
    """Flat indices, first axis fastest, of the voxels that are not 0."""
    values = np.frombuffer(
        content, dtype=header.get_data_dtype(), count=size, offset=int(header["vox_offset"])
    )
    # Masks are nearly empty: look at eight bytes at a time first.
    per_block = 8 // values.itemsize
    whole = values.size // per_block * per_block
    blocks = np.flatnonzero(values[:whole].view(np.uint64))
    near = (blocks[:, None] * per_block + np.arange(per_block)).ravel()
    candidates = np.concatenate([near, np.arange(whole, values.size)])
    return candidates[values[candidates] != 0]
