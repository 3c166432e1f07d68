"""How often each voxel of the template lies in a microbleed, a reader's where a scan was read.

Each person has one vote, that of the primary scan of the baseline visit; scans without
microbleeds vote with zeros. The frequency of a voxel is the number of people with a microbleed
there over the number of people of whom it was seen (:mod:`.coverage`). Diamagnetic lesions are in
no mask in template space. A voxel of the mask belongs to the lesion whose surface is nearest, by
its centre and diameter in the lesion table; so there is a map of the definite ones too.

A scan of which it is not known where its microbleeds lie in the template has no vote: it was not
registered, or its mask is missing, damaged, or on another grid than those of most scans. The
notes name these scans and say why.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cmbprep.bids.nifti_header import BLOCK_SIZE, parse_header
from cmbprep.errors import CmbprepError
from cmbprep.files.tsv import listing
from cmbprep.group.coverage import CoverageError, seen_blocks
from cmbprep.group.rows import Row
from cmbprep.outputs.files import write_image, write_json
from cmbprep.outputs.sparse import recorded_mask
from cmbprep.outputs.stages import BLOCK, StageRecord
from cmbprep.reports.results import ScanResult
from cmbprep.spatial.grids import Grid, same_grid
from cmbprep.spatial.view import BLOCK as BLOCK_VOXELS
from cmbprep.spatial.view import fine
from cmbprep.zones.tally import Tally

if TYPE_CHECKING:
    import nibabel as nib

logger = logging.getLogger("cmbprep")

#: Masks with more voxels have a damaged header: a template of 0.25 mm has 5e8.
MAX_VOXELS = 2**29
#: Masks unpacked at the same time.
THREADS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Vote:
    """Where the microbleeds of one person lie in the template.

    Attributes
    ----------
    scan
        Name of the scan.
    participant
        Label of the person.
    inside : array of shape (n,)
        Flat indices, first axis fastest, of the voxels in microbleeds.
    definite : array of shape (n,)
        Whether each belongs to a definite microbleed.
    seen : array of shape (i, j, k) or None
        Which blocks of voxels (:mod:`cmbprep.spatial.view`) the scan shows; None for the whole
        brain.
    """

    scan: str
    participant: str
    inside: NDArray[np.intp]
    definite: NDArray[np.bool_]
    seen: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FrequencyMap:
    """The votes of a cohort in one template, and the files that were written."""

    template: str
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    votes: tuple[Vote, ...]
    files: tuple[Path, ...] = ()

    def people(self, votes: Sequence[Vote] | None = None, *, definite: bool) -> NDArray[np.int32]:
        """Count the people with a microbleed at each voxel, of all votes or of some."""
        total = np.zeros(int(np.prod(self.shape)), dtype=np.int32)
        for vote in self.votes if votes is None else votes:
            total[vote.inside[vote.definite] if definite else vote.inside] += 1
        return total.reshape(self.shape, order="F")

    def seen(self, votes: Sequence[Vote] | None = None) -> NDArray[np.int32]:
        """Count the people of whom each voxel was seen, of all votes or of some."""
        chosen = self.votes if votes is None else votes
        total = np.full(int(np.prod(self.shape)), sum(v.seen is None for v in chosen), np.int32)
        parts = [(vote, vote.seen) for vote in chosen if vote.seen is not None]
        if parts:
            blocks = np.stack([seen for _, seen in parts]).sum(axis=0, dtype=np.int32)
            total += fine(np.asarray(blocks), self.shape).ravel(order="F")
        for vote, seen in parts:
            # A lesion was seen wherever the edge of the field of view lies.
            at = np.unravel_index(vote.inside, self.shape, order="F")
            beyond = ~seen[tuple(index // BLOCK_VOXELS for index in at)]
            total[vote.inside[beyond]] += 1
        return total.reshape(self.shape, order="F")

    def share(self, *, definite: bool) -> NDArray[np.float32]:
        """Return people with a microbleed over people seen; 0 where nobody was seen."""
        people, seen = self.people(definite=definite), self.seen()
        return np.divide(people, np.maximum(seen, 1), dtype=np.float32, casting="unsafe")

    def renamed(self, rename: Callable[[str], str]) -> FrequencyMap:
        """Return the same map with other names of scans."""
        votes = tuple(replace(vote, scan=rename(vote.scan)) for vote in self.votes)
        return replace(self, votes=votes)


class _MaskError(Exception):
    """A mask in template space cannot be used."""


class _LeftOut(dict[str, list[str]]):
    """Scans of one template that have no vote: reason -> names."""

    def add(self, reason: str, scan: ScanResult, detail: str = "") -> None:
        name = f"{scan.name} ({detail})" if detail else scan.name
        self.setdefault(reason, []).append(name)

    def notes(self, template: str) -> list[str]:
        """Return a sentence per reason: how many scans are left out, and which."""
        return [
            f"{len(names)} {'scan is' if len(names) == 1 else 'scans are'} not in the frequency "
            f"map in {template} ({reason}): {listing(names)}"
            for reason, names in self.items()
        ]


def write_frequency_maps(
    root: Path, rows: Sequence[Row]
) -> tuple[list[FrequencyMap], tuple[str, ...]]:
    """Write a map for each template that scans were brought to.

    Parameters
    ----------
    root
        The output dataset.
    rows
        One scan per person; those without a result are left out.

    Returns
    -------
    maps
        The maps.
    notes
        Why a map was not made, or what is missing in it, in sentences.
    """
    by_template: dict[str, list[ScanResult]] = {}
    for scan in (row.scan for row in rows):
        if scan is not None and scan.status == "complete" and scan.detection is not None:
            by_template.setdefault(scan.detection.files.names.template, []).append(scan)
    anatomies = {row.name: row.anatomy for row in rows}
    maps: list[FrequencyMap] = []
    notes: list[str] = []
    for template, chosen in sorted(by_template.items()):
        left_out = _LeftOut()
        votes = _read_votes(_on_one_grid(_read_headers(chosen, left_out), left_out), left_out)
        votes = _with_coverage(votes, anatomies, left_out)
        notes += left_out.notes(template)
        if votes:
            maps.append(_write_map(root, template, votes))
        else:
            notes.append(f"there is no frequency map in {template}: no scan has a usable mask")
    _remove_old_maps(root, keep=[path for made in maps for path in made.files])
    return maps, tuple(notes)


def _remove_old_maps(root: Path, keep: Sequence[Path]) -> None:
    """Remove maps of an earlier group level, which are of other results."""
    for entity in _FILES:
        for path in root.glob(_map_name("*", entity)):
            if path not in keep:
                path.unlink()
                path.with_name(path.name.replace(".nii.gz", ".json")).unlink(missing_ok=True)


#: Ending of a map's name -> what its voxels hold.
_FILES = {
    "label-CMB_desc-frequency_probseg": "Share of people with a definite or possible microbleed "
    "at each voxel, of those of whom it was seen.",
    "label-CMB_desc-frequencyDefinite_probseg": "Share of people with a definite microbleed at "
    "each voxel, of those of whom it was seen.",
    "label-CMB_desc-people_count": "Number of people with a definite or possible microbleed at "
    "each voxel.",
    "label-CMB_desc-peopleDefinite_count": "Number of people with a definite microbleed at each "
    "voxel.",
    "desc-coverage_count": "Number of people of whom each voxel was seen. A scan of the whole "
    "brain counts everywhere, also outside the brain.",
}


def _map_name(template: str, ending: str) -> str:
    return f"space-{template}_{ending}.nii.gz"


def _write_map(root: Path, template: str, votes: Sequence[tuple[_Mask, Vote]]) -> FrequencyMap:
    import nibabel as nib

    first = votes[0][0]
    i, j, k = first.shape
    made = FrequencyMap(
        template=template,
        shape=(i, j, k),
        affine=first.affine,
        votes=tuple(vote for _, vote in votes),
    )
    people = [made.people(definite=definite) for definite in (False, True)]
    shares = [made.share(definite=definite) for definite in (False, True)]
    paths = []
    for (ending, text), data in zip(_FILES.items(), (*shares, *people, made.seen()), strict=True):
        image = nib.Nifti1Image(data, made.affine)
        image.header.set_xyzt_units("mm")
        # Code 4: coordinates of a standard template.
        image.set_sform(made.affine, code=4)
        image.set_qform(made.affine, code=4)
        path = write_image(root / _map_name(template, ending), image)
        paths.append(path)
        block = {"Template": template, "NumberOfParticipants": len(votes)}
        common = (
            " One scan per person, the primary scan of the baseline visit. Protocols are pooled. "
            "Diamagnetic spots are left out."
        )
        write_json(
            path.with_name(path.name.replace(".nii.gz", ".json")),
            {"Description": text + common, BLOCK: block},
        )
    return replace(made, files=tuple(paths))


@dataclass(frozen=True, eq=False)
class _Mask:
    """A scan's mask in template space.

    ``inside`` has the flat indices of the voxels in microbleeds, first axis fastest; None where
    they have to be read from the file, which has values of ``dtype`` from ``offset`` on.
    """

    scan: ScanResult
    path: Path
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    inside: NDArray[np.intp] | None = None
    dtype: np.dtype[Any] | None = None
    offset: int = 0

    @classmethod
    def of_header(cls, scan: ScanResult, path: Path, header: nib.Nifti1Header, **more: Any) -> Self:
        shape = [int(n) for n in header.get_data_shape()]
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        affine = np.asarray(header.get_best_affine(), dtype=float)
        return cls(scan, path, tuple(shape), affine, **more)


#: A mask, and what was read from it.
_Vote = tuple[_Mask, Vote]


def _read_headers(scans: Iterable[ScanResult], left_out: _LeftOut) -> list[_Mask]:
    """Read the headers of the masks; leave out scans without a place in the template."""
    found = []
    for scan in scans:
        if not _is_registered(scan):
            left_out.add("not registered to the template", scan)
            continue
        try:
            mask = _find_mask(scan)
        except _MaskError as error:
            left_out.add(_UNREADABLE, scan, str(error))
            continue
        if mask is None:
            left_out.add("no mask in template space", scan)
        else:
            found.append(mask)
    return found


def _find_mask(scan: ScanResult) -> _Mask | None:
    """Find the mask of the microbleeds that count; None where there is none."""
    assert scan.detection is not None
    path = scan.detection.files.path("template_mask")
    if scan.reading is not None and scan.reviewed and Tally(scan.lesions).counted:
        try:
            found = scan.reading.template_mask()
        # Whatever a damaged image or log makes the readers raise.
        except Exception as error:
            logger.debug("no mask of %s", scan.name, exc_info=True)
            name = type(error).__name__
            raise _MaskError(f"that of the review cannot be made, {name}") from error
        if found is None:
            return None
        if not isinstance(found, Path):
            inside = np.flatnonzero(np.asarray(found.dataobj).ravel(order="F"))
            return _Mask.of_header(scan, path, found.header, inside=inside)
        path = found
    elif known := recorded_mask(scan.detection.block.get("TemplateMask"), path):
        return _Mask(scan, path, known.shape, known.affine, known.inside)
    return _read_header(scan, path) if path.is_file() else None


_UNREADABLE = "the mask in template space cannot be read"


def _is_registered(scan: ScanResult) -> bool:
    """Return whether the places of all microbleeds in the template are known."""
    assert scan.detection is not None
    quality = scan.detection.block.get("Quality", {})
    if isinstance(quality, dict) and quality.get("zone_route") == "none":
        return False
    return all(lesion.x_mni is not None for lesion in Tally(scan.lesions).counted)


def _read_header(scan: ScanResult, path: Path) -> _Mask:
    try:
        header, _ = parse_header(_unpack(path, BLOCK_SIZE), path)
    except CmbprepError as error:
        raise _MaskError(error.message) from error
    dtype, (_, shift) = header.get_data_dtype(), header.get_slope_inter()
    mask = _Mask.of_header(scan, path, header, dtype=dtype, offset=int(header["vox_offset"]))
    if len(mask.shape) != 3 or not 0 < float(np.prod(mask.shape, dtype=float)) <= MAX_VOXELS:
        raise _MaskError(f"its shape is {mask.shape}")
    if dtype.kind not in "iuf" or dtype.itemsize > 8 or shift:
        raise _MaskError("its values are not those of a mask")
    return mask


def _on_one_grid(masks: Iterable[_Mask], left_out: _LeftOut) -> list[_Mask]:
    """Choose the masks on the grid that most share; of two, the one of the first scan."""
    equal: dict[tuple[tuple[int, ...], bytes], list[_Mask]] = {}
    for mask in masks:
        equal.setdefault((mask.shape, mask.affine.tobytes()), []).append(mask)
    grids: list[list[_Mask]] = []
    for members in equal.values():
        one = members[0]
        for others in grids:
            first = others[0]
            if same_grid(first.shape, first.affine, one.shape, one.affine):
                others += members
                break
        else:
            grids.append(members)
    chosen = max(grids, key=len, default=[])
    reason = f"the mask lies on another grid than {len(chosen)} in the map"
    for mask in (mask for members in grids if members is not chosen for mask in members):
        left_out.add(reason, mask.scan)
    return chosen


def _read_votes(masks: Sequence[_Mask], left_out: _LeftOut) -> list[_Vote]:
    """Read where each scan's microbleeds lie."""

    def inside(mask: _Mask) -> NDArray[np.intp] | _MaskError:
        # Most scans of a cohort have no lesion: their masks are not unpacked.
        if not Tally(mask.scan.lesions).counted:
            return np.zeros(0, dtype=np.intp)
        if mask.inside is not None:
            return mask.inside
        try:
            return _read_inside(mask)
        except _MaskError as error:
            return error

    votes = []
    # Unpacking takes nearly all of the time and runs beside other threads.
    with ThreadPoolExecutor(THREADS) as pool:
        for mask, found in zip(masks, pool.map(inside, masks), strict=True):
            if isinstance(found, _MaskError):
                left_out.add(_UNREADABLE, mask.scan, str(found))
            else:
                votes.append((mask, make_vote(mask.scan, found, mask.shape, mask.affine)))
    return votes


def make_vote(
    scan: ScanResult,
    inside: NDArray[np.intp],
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
) -> Vote:
    """Sort the voxels of a mask by the rating of their lesions.

    Parameters
    ----------
    scan
        With the lesions.
    inside
        Flat indices of the mask's voxels, first axis fastest.
    shape, affine
        Of the mask.
    """
    counted = Tally(scan.lesions).counted
    rated = np.array([lesion.rating == "definite" for lesion in counted], dtype=bool)
    definite = np.full(inside.size, bool(rated.all()))
    if inside.size and rated.any() and not rated.all():
        centres = np.array([(item.x_mni, item.y_mni, item.z_mni) for item in counted], float)
        radii = np.array([item.diameter_mm / 2 for item in counted])
        voxels = np.stack(np.unravel_index(inside, shape, order="F"), axis=1)
        points = voxels @ affine[:3, :3].T + affine[:3, 3]
        away = np.linalg.norm(points[:, None] - centres[None], axis=2) - radii
        definite = rated[away.argmin(axis=1)]
    return Vote(scan=scan.name, participant=scan.entities["sub"], inside=inside, definite=definite)


def _with_coverage(
    votes: Sequence[_Vote], anatomies: Mapping[str, StageRecord | None], left_out: _LeftOut
) -> list[_Vote]:
    """Add what each scan shows of the brain; leave out scans of which it is not known."""

    def shown(item: _Vote) -> NDArray[np.bool_] | CoverageError | None:
        mask, _ = item
        i, j, k = mask.shape
        grid = Grid((i, j, k), mask.affine)
        try:
            return seen_blocks(mask.scan, anatomies.get(mask.scan.name), grid)
        except CoverageError as error:
            return error

    found = []
    # Older results have no record: their transforms are unpacked, which runs beside other threads.
    with ThreadPoolExecutor(THREADS) as pool:
        for (mask, vote), seen in zip(votes, pool.map(shown, votes), strict=True):
            if isinstance(seen, CoverageError):
                reason = "what it shows of the brain is not known"
                left_out.add(reason, mask.scan, str(seen))
            else:
                found.append((mask, vote if seen is None else replace(vote, seen=seen)))
    return found


def _unpack(path: Path, length: int) -> bytes:
    """Unpack the first bytes of a compressed file; fewer if it is shorter.

    A file that ends before that many bytes is checked to be whole.
    """
    try:
        packed = path.read_bytes()
        if packed[:2] != _GZIP:
            raise _MaskError("its compressed content is damaged")
        stream = zlib.decompressobj(wbits=31)
        content = stream.decompress(packed, length)
        if len(content) < length and not stream.eof:
            raise _MaskError("its compressed content is damaged")
        return content
    except (OSError, zlib.error, MemoryError) as error:
        damaged = isinstance(error, zlib.error)
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise _MaskError("its compressed content is damaged" if damaged else reason) from error


#: First bytes of a file that gzip has packed.
_GZIP = b"\x1f\x8b"


def _read_inside(mask: _Mask) -> NDArray[np.intp]:
    """Flat indices, first axis fastest, of the voxels in microbleeds."""
    assert mask.dtype is not None
    size = int(np.prod(mask.shape))
    length = mask.offset + size * mask.dtype.itemsize
    # One byte more, so that a longer file is noticed and the end is reached and checked.
    content = _unpack(mask.path, length + 1)
    if len(content) != length:
        raise _MaskError(
            f"it is {'longer' if len(content) > length else 'shorter'} than its header says"
        )
    values = np.frombuffer(content, dtype=mask.dtype, count=size, offset=mask.offset)
    found = _nonzero(values)
    if not np.isfinite(values[found]).all():
        raise _MaskError("it has values that are not finite")
    if not found.size:
        raise _MaskError("it is empty, although the lesion table lists microbleeds")
    return found


def _nonzero(values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the indices of values that are not 0, fast where nearly all are."""
    step = 8 // values.itemsize
    whole = values.size // step * step
    # Eight bytes at a time; a negative zero of a float is sorted out below.
    blocks = np.flatnonzero(values[:whole].view(np.uint64)) * step
    places = (blocks[:, None] + np.arange(step)).ravel()
    places = np.append(places, np.arange(whole, values.size))
    return places[values[places] != 0]
