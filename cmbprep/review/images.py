"""Voxels for the page: images on the scan's own grid, as 16 bit numbers.

The axes are stored in the order nearest to right, front, up (RAS+); they are swapped and flipped,
never interpolated. Images of other grids, such as the T1w image or an earlier visit, are resampled
onto the scan's grid through the transforms that the run has stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep.bids.images import read_phase, read_scan_image, require_phase_grid
from cmbprep.phase.swi import high_pass_phase, slice_axis
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.voxels import read_voxels
from cmbprep.reports.packing import Packed, PageGrid
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import LinearMap, PointMap, apply_transforms, read_transform

#: Part of the voxels of the brain that the first window leaves out at its dark and bright end.
WINDOW_QUANTILES = (0.005, 0.995)
#: Largest stored number.
TOP = 65535
#: Id of the image for detection.
PREPROC = "preproc"
#: Voxels of phase that are filtered at a time.
_CHUNK = 2_000_000


def pack(
    values: NDArray[Any], grid: PageGrid, brain: NDArray[np.bool_] | None, unit: str = ""
) -> Packed:
    """Store an image as 16 bit numbers.

    Parameters
    ----------
    values
        (X, Y, Z) in the scan's own order of axes.
    grid
        Of the scan.
    brain
        Voxels that the first window is made for; all if None or empty.
    unit
        Of the values.
    """
    low, high = _range(values)
    whole = np.issubdtype(values.dtype, np.integer) and high - low <= TOP
    scale = 1.0 if whole else (high - low) / TOP
    stored = np.empty(grid.shape, np.uint16, order="F")
    ordered = grid.order.apply(values)
    # Slice by slice: no copy of the whole image. Single precision holds more than 16 bits.
    for k in range(grid.shape[2]):
        part: NDArray[np.floating] = ordered[:, :, k].astype(np.float64 if whole else np.float32)
        part -= low
        part *= 1 / scale
        np.rint(part, out=part)
        np.nan_to_num(part, copy=False, nan=0, posinf=TOP, neginf=0)
        stored[:, :, k] = np.clip(part, 0, TOP, out=part)
    window = _window(values, brain, low, high)
    header = grid.header("uint16")
    header |= {
        "window": np.rint((window - low) / scale).clip(0, TOP).astype(int).tolist(),
        "scale": scale,
        "offset": low,
        "unit": unit,
    }
    return Packed(header, stored.tobytes(order="F"))


def _range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the lowest and the highest finite value, never the same."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def _window(
    values: NDArray[Any], brain: NDArray[np.bool_] | None, low: float, high: float
) -> NDArray[np.float64]:
    """Return the darkest and the brightest value that a first window shows."""
    # Every second voxel of a large image gives the same quantiles within what can be seen.
    step = 2 if values.size > _CHUNK else 1
    some = (slice(None, None, step),) * 3
    part = values[some]
    inside = part != 0 if brain is None or not brain.any() else brain[some]
    seen = part[inside & np.isfinite(part)]
    found = np.quantile(seen, WINDOW_QUANTILES) if seen.size else np.array([low, high])
    return found if found[0] < found[1] else np.array([low, high])


def label_runs(
    labels: NDArray[np.integer], grid: PageGrid, keys: Mapping[int, str]
) -> dict[str, list[list[int]]]:
    """Return the voxels of each lesion of a label image.

    Parameters
    ----------
    labels
        (X, Y, Z) in the scan's own order of axes.
    grid
        Of the scan.
    keys
        Label -> key of the lesion; other labels are left out.

    Returns
    -------
    dict
        Key -> runs (:meth:`~cmbprep.reports.packing.PageGrid.runs`).
    """
    flat = labels.ravel(order="F")
    filled = np.flatnonzero(flat)
    found = flat[filled]
    voxels = np.stack(np.unravel_index(filled, labels.shape, order="F"), axis=1)
    return {key: grid.runs(voxels[found == label]) for label, key in keys.items()}


# --- Which images there are ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PageImage:
    """An image that the page can show beside the scan.

    Attributes
    ----------
    id, title, kind
        As the page names it.
    read
        Reads its voxels on the scan's grid, in the scan's own order of axes.
    unit
        Of the values.
    scan
        Name of the scan, where it is one of another visit.
    """

    id: str
    title: str
    kind: str
    read: Callable[[], NDArray[Any]]
    unit: str = ""
    scan: str | None = None

    def describe(self) -> dict[str, str]:
        """Return what the page lists."""
        return {"id": self.id, "title": self.title, "kind": self.kind}


def list_images(
    automatic: Automatic,
    others: Sequence[Automatic] = (),
    raw: Path | None = None,
    ways: Mapping[str, LinearMap] | None = None,
) -> list[PageImage]:
    """List the images of a scan, the one for detection first.

    Parameters
    ----------
    automatic
        The scan.
    others
        Scans of other visits of the participant.
    raw
        The raw dataset, where it can be reached.
    ways
        Name of a scan of another visit -> map of points to it, where a follow-up has found one.
        Else the way leads through the T1w images or the template.
    """
    preproc = automatic.preproc.files.path("preproc")
    found = [PageImage(PREPROC, "Scan, bias corrected", "preproc", partial(read_voxels, preproc))]
    found += _raw_images(automatic, raw, preproc)
    if path := automatic.detection.paths.get("swi"):
        found.append(PageImage("swi", "SWI, computed", "swi", partial(read_voxels, path)))
    if automatic.anatomy is not None and automatic.preproc.files.names.target == "T1w":
        read = partial(
            resampled,
            automatic.anatomy.files.path("preproc"),
            preproc,
            [automatic.preproc.files.path("from_target")],
        )
        found.append(PageImage("t1w", "T1w", "t1w", read))
    for number, other in enumerate(others, start=1):
        chain: Sequence[Path | PointMap] | None
        direct = (ways or {}).get(other.name)
        chain = chain_between(automatic, other) if direct is None else [direct]
        if chain is not None:
            path = other.preproc.files.path("preproc")
            read = partial(resampled, path, preproc, chain)
            session = other.preproc.files.names.session or other.name
            name, title = f"earlier-{number}", f"Visit {session}"
            found.append(PageImage(name, title, "earlier", read, scan=other.name))
    return found


def _raw_images(automatic: Automatic, raw: Path | None, like: Path) -> list[PageImage]:
    """List the raw echoes and phases of a scan that are on its grid."""
    sources = dict.fromkeys(
        uri.removeprefix("bids:raw:")
        for record in (automatic.preproc, automatic.detection)
        for uri in record.metadata.get("Sources", ())
        if uri.startswith("bids:raw:")
    )
    paths = [raw / source for source in sources if ".." not in source] if raw else []
    paths = [path for path in paths if path.is_file()]
    phases = [path for path in paths if "phase" in path.name.lower()]
    echoes = [path for path in paths if path not in phases]
    kind = "echo" if len(echoes) > 1 else "magnitude"
    found = []
    for number, path in enumerate(echoes, start=1):
        title = f"Echo {number}" if kind == "echo" else "Scan as acquired"
        read = partial(_read_raw, path, like, "magnitude")
        found.append(PageImage(f"magnitude-{number}", title, kind, read))
    for number, path in enumerate(phases, start=1):
        title = f"Phase, echo {number}" if len(phases) > 1 else "Phase"
        read = partial(_read_raw, path, like, "phase")
        found.append(PageImage(f"phase-{number}", title, "phase", read, "rad"))
        read = partial(_high_pass, path, like)
        title = f"Filtered {title[0].lower()}{title[1:]}"
        found.append(PageImage(f"localfield-{number}", title, "localfield", read, "rad"))
    return found


def _read_raw(path: Path, like: Path, role: Literal["magnitude", "phase"]) -> NDArray[Any]:
    # A phase without Units is scaled by its own range.
    checked = read_phase(path) if role == "phase" else read_scan_image(path, role=role)
    require_phase_grid(checked.image, path, nib.Nifti1Image.from_filename(like))
    # Where the phase is unknown, zero is shown.
    return np.nan_to_num(np.asarray(checked.image.dataobj, dtype=np.float32), nan=0.0)


def _high_pass(path: Path, like: Path) -> NDArray[np.float32]:
    """Return the phase without its smooth part."""
    phase = _read_raw(path, like, "phase")
    across = slice_axis(np.linalg.norm(nib.Nifti1Image.from_filename(like).affine[:3, :3], axis=0))
    filtered = np.empty_like(phase)
    step = max(1, _CHUNK // (phase.size // phase.shape[across]))
    # Some slices at a time: the filter works in the plane, and complex images are large.
    for start in range(0, phase.shape[across], step):
        part = [slice(None)] * 3
        part[across] = slice(start, start + step)
        signal = np.exp(1j * phase[tuple(part)]).astype(np.complex64)
        filtered[tuple(part)] = high_pass_phase(signal, across=across)
    return filtered


def resampled(moving: Path, like: Path, chain: Sequence[Path | PointMap]) -> NDArray[np.float32]:
    """Resample an image onto a scan's grid.

    Parameters
    ----------
    moving, like
        The image, and one on the scan's grid.
    chain
        Maps of points from the scan to the image, or their files.
    """
    reference = nib.Nifti1Image.from_filename(like)
    i, j, k = reference.shape[:3]
    grid = Grid((i, j, k), reference.affine)
    maps = [read_transform(item) if isinstance(item, Path) else item for item in chain]
    image = apply_transforms(nib.Nifti1Image.from_filename(moving), grid, maps)
    return np.asarray(image.dataobj)


def chain_between(scan: Automatic, other: Automatic) -> list[Path] | None:
    """Return the maps of points from one visit's scan to another's; None if they are not there."""
    target = scan.preproc.files.names.target
    if target != other.preproc.files.names.target:
        return None
    chain = [scan.preproc.files.path("from_target"), other.preproc.files.path("to_target")]
    if target == "T1w":
        one, two = scan.anatomy, other.anatomy
        if one is None or two is None:
            return None
        if one.files.sidecar != two.files.sidecar:
            chain[1:1] = [one.files.path("from_reference"), two.files.path("to_reference")]
    return chain if all(path.is_file() for path in chain) else None


class ImageCache:
    """Packed images, as many as fit into the given number of bytes; thread-safe.

    Parameters
    ----------
    limit
        Bytes.
    """

    def __init__(self, limit: int = 192 * 2**20) -> None:
        self._limit = limit
        self._images: OrderedDict[tuple[str, str], Packed] = OrderedDict()
        # One image at a time: reading one takes several times its size.
        self._lock = Lock()

    def get(self, key: tuple[str, str], make: Callable[[], Packed]) -> Packed:
        """Return an image, made anew if it is not there."""
        with self._lock:
            if key not in self._images:
                self._make_room(self._limit // 2)
                self._images[key] = make()
                self._make_room(self._limit)
            self._images.move_to_end(key)
            return self._images[key]

    def _make_room(self, limit: int) -> None:
        while len(self._images) > 1 and sum(i.size for i in self._images.values()) > limit:
            self._images.popitem(last=False)
