"""How often each voxel of the template lies in a microbleed.

A participant's session has one vote, shared by its scans: the map is the mean over
participants' sessions of the mean over the session's scans. Scans without microbleeds vote
too, with zeros. Diamagnetic lesions are in no mask in template space.

A scan of which it is not known where its microbleeds lie in the template has no vote: it was not
registered, or its mask is missing, damaged, or on another grid than those of most scans. The
notes name these scans and say why.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.bids.nifti_header import BLOCK_SIZE, parse_header
from cmbprep.errors import CmbprepError
from cmbprep.files.tsv import listing
from cmbprep.outputs.files import write_image, write_json
from cmbprep.outputs.stages import BLOCK
from cmbprep.reports.results import ScanResult
from cmbprep.reports.tally import Tally
from cmbprep.spatial.grids import same_grid

if TYPE_CHECKING:
    import nibabel as nib

__all__ = ["FrequencyMap", "write_frequency_maps"]

#: Masks with more voxels have a damaged header: a template of 0.25 mm has 5e8.
MAX_VOXELS = 2**29
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


class _MaskError(Exception):
    """A mask in template space cannot be used."""


@dataclass(frozen=True)
class _LeftOut:
    """Scans of one template that have no vote: reason -> names."""

    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, scan: ScanResult, detail: str = "") -> None:
        name = f"{scan.name} ({detail})" if detail else scan.name
        self.reasons.setdefault(reason, []).append(name)

    def notes(self, template: str) -> list[str]:
        """Return a sentence per reason: how many scans are left out, and which."""
        return [
            f"{len(names)} {'scan is' if len(names) == 1 else 'scans are'} not in the frequency "
            f"map in {template} ({reason}): {listing(names)}"
            for reason, names in self.reasons.items()
        ]


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
    for scan in scans:
        if scan.status == "complete" and scan.detection is not None:
            by_template.setdefault(scan.detection.files.names.template, []).append(scan)
    maps: list[FrequencyMap] = []
    notes: list[str] = []
    for template, chosen in sorted(by_template.items()):
        left_out = _LeftOut()
        made = _write_map(root, template, chosen, left_out)
        notes += left_out.notes(template)
        if made is None:
            notes.append(f"there is no frequency map in {template}: no scan has a usable mask")
        else:
            maps.append(made)
    _remove_old_maps(root, keep=[made.path for made in maps])
    return maps, tuple(notes)


def _remove_old_maps(root: Path, keep: Sequence[Path]) -> None:
    """Remove maps of an earlier group level, which are of other results."""
    for path in root.glob(_map_name("*")):
        if path not in keep:
            path.unlink()
            path.with_name(path.name.replace(".nii.gz", ".json")).unlink(missing_ok=True)


def _map_name(template: str) -> str:
    return f"space-{template}_label-CMB_desc-frequency_probseg.nii.gz"


def _write_map(
    root: Path, template: str, candidates: Sequence[ScanResult], left_out: _LeftOut
) -> FrequencyMap | None:
    import nibabel as nib

    votes = _read_votes(_on_one_grid(_read_headers(candidates, left_out), left_out), left_out)
    if not votes:
        return None
    scans = [scan for scan, _ in votes]
    header = votes[0][1].header
    data, affine = _add_up(votes), np.asarray(header.get_best_affine(), dtype=float)
    path = root / _map_name(template)
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


@dataclass(frozen=True, eq=False)
class _Mask:
    """A mask in template space whose header was read.

    ``inside`` are the flat indices, first axis fastest, of the voxels in microbleeds; None until
    the voxels were read.
    """

    path: Path
    header: nib.Nifti1Header
    inside: NDArray[np.intp] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        shape = [int(n) for n in self.header.get_data_shape()]
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        return tuple(shape)


_Vote = tuple[ScanResult, _Mask]


def _read_headers(scans: Iterable[ScanResult], left_out: _LeftOut) -> list[_Vote]:
    """Read the headers of the masks; leave out scans without a place in the template."""
    found = []
    # The masks of a cohort have few different headers.
    parsed: dict[bytes, nib.Nifti1Header] = {}
    for scan in scans:
        assert scan.detection is not None
        path = scan.detection.files.path("template_mask")
        if not _is_registered(scan):
            left_out.add("not registered to the template", scan)
        elif not path.is_file():
            left_out.add("no mask in template space", scan)
        else:
            try:
                block = _unpack(path, BLOCK_SIZE)
                if block not in parsed:
                    parsed[block] = _parse(block, path)
            except _MaskError as error:
                left_out.add(_UNREADABLE, scan, str(error))
                continue
            found.append((scan, _Mask(path, parsed[block])))
    return found


_UNREADABLE = "the mask in template space cannot be read"


def _is_registered(scan: ScanResult) -> bool:
    """Return whether the places of all microbleeds in the template are known."""
    assert scan.detection is not None
    quality = scan.detection.block.get("Quality", {})
    if isinstance(quality, dict) and quality.get("zone_route") == "none":
        return False
    return all(lesion.x_mni is not None for lesion in Tally(scan.lesions).counted)


def _parse(block: bytes, path: Path) -> Any:
    try:
        header, _ = parse_header(block, path)
    except CmbprepError as error:
        raise _MaskError(error.message) from error
    mask = _Mask(path, header)
    dtype, (_, shift) = header.get_data_dtype(), header.get_slope_inter()
    if len(mask.shape) != 3 or not 0 < float(np.prod(mask.shape, dtype=float)) <= MAX_VOXELS:
        raise _MaskError(f"its shape is {mask.shape}")
    if dtype.kind not in "iuf" or dtype.itemsize > 8 or shift:
        raise _MaskError("its values are not those of a mask")
    return header


def _on_one_grid(masks: Sequence[_Vote], left_out: _LeftOut) -> list[_Vote]:
    """Choose the masks on the grid that most share; of two, the one of the first scan."""
    grids: list[tuple[_Mask, list[_Vote]]] = []
    known: dict[int, list[_Vote]] = {}
    for vote in masks:
        header = id(vote[1].header)
        if header not in known:
            same = next((members for first, members in grids if _same(first, vote[1])), None)
            if same is None:
                same = []
                grids.append((vote[1], same))
            known[header] = same
        known[header].append(vote)
    chosen = max((members for _, members in grids), key=len, default=[])
    reason = f"the mask lies on another grid than {len(chosen)} in the map"
    for _, members in grids:
        for scan, _ in members if members is not chosen else ():
            left_out.add(reason, scan)
    return chosen


def _same(one: _Mask, other: _Mask) -> bool:
    """Return whether two masks lie on the same grid."""
    return same_grid(
        one.shape, one.header.get_best_affine(), other.shape, other.header.get_best_affine()
    )


def _read_votes(masks: Sequence[_Vote], left_out: _LeftOut) -> list[_Vote]:
    """Read where each scan's microbleeds lie."""

    def inside(vote: _Vote) -> NDArray[np.intp] | _MaskError:
        scan, mask = vote
        # Most scans of a cohort have no lesion: their masks are not unpacked.
        if not Tally(scan.lesions).counted:
            return np.zeros(0, dtype=np.intp)
        try:
            return _read_inside(mask)
        except _MaskError as error:
            return error

    votes = []
    # Unpacking takes nearly all of the time and runs beside other threads.
    with ThreadPoolExecutor(THREADS) as pool:
        for (scan, mask), found in zip(masks, pool.map(inside, masks), strict=True):
            if isinstance(found, _MaskError):
                left_out.add(_UNREADABLE, scan, str(found))
            else:
                votes.append((scan, _Mask(mask.path, mask.header, found)))
    return votes


def _add_up(votes: Sequence[_Vote]) -> NDArray[np.float32]:
    """Add up the masks: fractions, 0 to 1, of the shape of the masks."""
    per_session = Counter(scan.unit for scan, _ in votes)
    shape = votes[0][1].shape
    total = np.zeros(int(np.prod(shape)))
    # In the order of the scans, so that the result does not depend on the threads.
    for scan, mask in votes:
        # The share of each scan in its session, and of each session in the whole.
        total[mask.inside] += 1.0 / per_session[scan.unit] / len(per_session)
    return total.reshape(shape, order="F").astype(np.float32)


def _unpack(path: Path, length: int) -> bytes:
    """Unpack the first bytes of a compressed file; fewer if it is shorter."""
    try:
        with open(path, "rb") as stream:
            # 16 + zlib.MAX_WBITS: a gzip stream. 4096 bytes of it hold a header.
            content = stream.read(4096)
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, length)
    except (OSError, zlib.error) as error:
        raise _MaskError(_reason(error)) from error


def _unpack_all(path: Path, limit: int) -> bytes:
    """Unpack a compressed file of at most so many bytes, and check that it is whole."""
    parts, size = [], 0
    try:
        packed = path.read_bytes()
        while packed:
            stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
            # One byte more than allowed, so that a longer file is noticed and the end is reached.
            parts.append(stream.decompress(packed, limit - size + 1))
            size += len(parts[-1])
            if size > limit:
                raise _MaskError("it is longer than its header says")
            if not stream.eof:
                raise _MaskError("it is cut short")
            packed = stream.unused_data.lstrip(b"\0")
    except (OSError, zlib.error, MemoryError) as error:
        raise _MaskError(_reason(error)) from error
    return b"".join(parts)


def _reason(error: BaseException) -> str:
    if isinstance(error, zlib.error):
        return "its compressed content is damaged"
    return getattr(error, "strerror", None) or type(error).__name__


def _read_inside(mask: _Mask) -> NDArray[np.intp]:
    """Flat indices, first axis fastest, of the voxels in microbleeds."""
    dtype, offset = mask.header.get_data_dtype(), int(mask.header["vox_offset"])
    size = int(np.prod(mask.shape))
    content = _unpack_all(mask.path, offset + size * dtype.itemsize)
    if len(content) < offset + size * dtype.itemsize:
        raise _MaskError("it is shorter than its header says")
    found = _nonzero(np.frombuffer(content, dtype=dtype, count=size, offset=offset))
    if not found.size:
        raise _MaskError("it is empty, although the lesion table lists microbleeds")
    return found


def _nonzero(values: NDArray[Any]) -> NDArray[np.intp]:
    """Flat indices of the values that are not 0."""
    # Masks are nearly empty: look at eight bytes at a time first.
    per_block = 8 // values.itemsize
    whole = values.size // per_block * per_block
    blocks = np.flatnonzero(values[:whole].view(np.uint64))
    near = (blocks[:, None] * per_block + np.arange(per_block)).ravel()
    candidates = np.concatenate([near, np.arange(whole, values.size)])
    chosen = values[candidates]
    if not np.isfinite(chosen).all():
        raise _MaskError("it has values that are not finite")
    return candidates[chosen != 0]
