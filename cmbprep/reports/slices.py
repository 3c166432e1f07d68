"""The scan of a report, slice by slice: voxels small enough for a page, and its lesions by number.

The viewer is the one of the review (``reports/viewer``). The brain's box is cut out and stored with
8 bits; where that takes more room than a page has, neighbouring voxels are averaged, the finest
axes first, and the page says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmbprep.lesions import Lesion
from cmbprep.reports.colours import LESION_OUTLINE, OTHER_LESION_OUTLINE
from cmbprep.reports.figures.guarded import draw_all
from cmbprep.reports.figures.lesions import describe_lesion
from cmbprep.reports.reading_view import heading
from cmbprep.reports.results import ScanResult
from cmbprep.zones.tally import is_mimic

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup
    from numpy.typing import NDArray

    from cmbprep.reports.packing import PageGrid

#: Bytes that a page should not exceed.
PAGE_BYTES = 15_000_000
#: Bytes set aside for texts, tables and scripts of a page, beside its figures and voxels.
TEXT_BYTES = 500_000
#: Bytes of the voxels of a scan: at most, and at least where figures have used up the page.
MOST_BYTES, LEAST_BYTES = 4_000_000, 250_000
#: Rim that is kept around the brain, mm.
MARGIN_MM = 5.0
#: Part of the brain's voxels that are darker and brighter than the grey levels reach.
RANGE_QUANTILES = (0.0001, 0.999)
#: Part of the brain's voxels that the first window leaves out, as in the review.
WINDOW_QUANTILES = (0.005, 0.995)
#: Axes whose voxels are longer than the shortest by no more than this factor are reduced together.
_ALIKE = 1.2
_GREY = "#c9d1d9"


@dataclass(frozen=True)
class Slices:
    """What a page shows of a scan slice by slice, or why it cannot.

    Attributes
    ----------
    voxels
        The image as text (gzip in base64).
    lesions
        Lesions as JSON.
    note
        How the image differs from the scan, in words.
    missing
        Why there is no image; empty where there is one.
    """

    voxels: str = ""
    lesions: Markup | str = ""
    note: str = ""
    missing: str = ""


def budget(figures: int, scans: int) -> int:
    """Return the bytes that the voxels of each scan may take in a page.

    Parameters
    ----------
    figures
        Bytes of the figures of the page.
    scans
        Scans that it shows.
    """
    room = (PAGE_BYTES - TEXT_BYTES - figures) // max(1, scans)
    return min(MOST_BYTES, max(LEAST_BYTES, room))


def scan_slices(result: ScanResult, anchor: str, limit: int) -> Slices:
    """Pack a scan with a result for its page.

    Parameters
    ----------
    result
        The scan.
    anchor
        Of the scan in the page; the figures of lesions have it in their own.
    limit
        Bytes of the packed voxels, see :func:`budget`.
    """
    found: list[Slices] = []

    def draw() -> str:
        found.append(_pack(result, anchor, limit))
        return ""

    _, missing = draw_all({"slices": draw}, lambda _, text: text)
    return found[0] if found else Slices(missing=missing["slices"])


def _pack(result: ScanResult, anchor: str, limit: int) -> Slices:
    import nibabel as nib
    import numpy as np
    from markupsafe import Markup

    from cmbprep.ratings.voxels import read_voxels
    from cmbprep.reports.packing import PageGrid

    assert result.preproc is not None and result.detection is not None
    files = result.preproc.files
    path = files.path("preproc")
    image = read_voxels(path)
    brain = read_voxels(files.path("brain_mask")) > 0
    labels = _labels(result)
    box = _box(brain | (labels > 0), nib.Nifti1Image.from_filename(path).affine)
    image, brain, labels = image[box], brain[box], labels[box]
    source = nib.Nifti1Image.from_filename(path)
    affine = source.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    grid = PageGrid.of(nib.Nifti1Image(np.broadcast_to(np.uint8(0), image.shape), affine))
    values = np.asarray(grid.order.apply(image), dtype=np.float32)
    inside = grid.order.apply(brain) & np.isfinite(values)
    labels = grid.order.apply(labels)
    low, high = _range(values, inside, RANGE_QUANTILES)
    window = _range(values, inside, WINDOW_QUANTILES)
    scale = (high - low) / 255
    factors = (1, 1, 1)
    while True:
        small = _reduce(values, factors)
        stored = np.nan_to_num((small - low) / scale, nan=0, posinf=255, neginf=0)
        reduced = _reduced_grid(grid, factors, small.shape)
        levels = [round(min(255, max(0, (end - low) / scale))) for end in window]
        more = {"window": levels, "scale": scale, "offset": low, "unit": ""}
        text = _packed(np.rint(stored.clip(0, 255)).astype(np.uint8), reduced, more)
        if len(text) <= limit or min(small.shape) < 16:
            break
        factors = _coarser(factors, grid.spacing)
    lesions = _lesions(result, anchor, reduced, _reduce_labels(labels, factors))
    data = json.dumps(lesions, ensure_ascii=False).replace("<", "\\u003c")
    # No text of the data can end the element that holds it.
    return Slices(text, Markup(data), _note(grid, reduced, factors, limit))  # noqa: S704


def _labels(result: ScanResult) -> NDArray[np.integer]:
    from cmbprep.ratings.voxels import read_voxels

    if result.reading is not None and result.reviewed:
        return result.reading.labels
    assert result.detection is not None
    return read_voxels(result.detection.files.path("dseg"))


def _box(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[slice, slice, slice]:
    """Return the box of a mask with a rim; the whole image for an empty mask."""
    import numpy as np

    if not mask.any():
        i, j, k = mask.shape
        return slice(0, i), slice(0, j), slice(0, k)
    parts = []
    for axis, step in enumerate(np.linalg.norm(affine[:3, :3], axis=0)):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        rim = int(np.ceil(MARGIN_MM / step))
        parts.append(slice(max(0, found[0] - rim), min(mask.shape[axis], found[-1] + 1 + rim)))
    return parts[0], parts[1], parts[2]


def _range(
    values: NDArray[np.float32], inside: NDArray[np.bool_], quantiles: tuple[float, float]
) -> tuple[float, float]:
    import numpy as np

    seen = values[inside] if inside.any() else values[np.isfinite(values)]
    low, high = (float(end) for end in np.quantile(seen, quantiles)) if seen.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def _coarser(factors: tuple[int, ...], spacing: Sequence[float]) -> tuple[int, int, int]:
    """Take one voxel more along the axes that are finest now."""
    now = [factor * step for factor, step in zip(factors, spacing, strict=True)]
    finest = [step <= _ALIKE * min(now) for step in now]
    i, j, k = (factor + more for factor, more in zip(factors, finest, strict=True))
    return i, j, k


def _blocks(values: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    """Return blocks of voxels as (I, a, J, b, K, c); a rest at the upper ends is left out."""
    shape = [n // factor for n, factor in zip(values.shape, factors, strict=True)]
    cut = values[tuple(slice(0, n * f) for n, f in zip(shape, factors, strict=True))]
    sides = [side for pair in zip(shape, factors, strict=True) for side in pair]
    return cut.reshape(sides)


def _reduce(values: NDArray[np.float32], factors: tuple[int, ...]) -> NDArray[np.float32]:
    if factors == (1, 1, 1):
        return values
    mean: NDArray[np.float32] = _blocks(values, factors).mean(axis=(1, 3, 5))
    return mean


def _reduce_labels(labels: NDArray[np.integer], factors: tuple[int, ...]) -> NDArray[np.integer]:
    if factors == (1, 1, 1):
        return labels
    highest: NDArray[np.integer] = _blocks(labels, factors).max(axis=(1, 3, 5))
    return highest


def _reduced_grid(grid: PageGrid, factors: tuple[int, ...], shape: tuple[int, ...]) -> PageGrid:
    """Return the grid of averaged voxels, already in the order of the page."""
    import nibabel as nib
    import numpy as np

    from cmbprep.reports.packing import PageGrid

    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [(factor - 1) / 2 for factor in factors]
    affine[:3, :3] = affine[:3, :3] * factors
    return PageGrid.of(nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine))


def _packed(stored: NDArray[np.uint8], grid: PageGrid, more: dict[str, Any]) -> str:
    from cmbprep.reports.packing import Packed

    return Packed(grid.header("uint8") | more, stored.tobytes(order="F")).embedded()


def _lesions(
    result: ScanResult, anchor: str, grid: PageGrid, labels: NDArray[np.integer]
) -> list[dict[str, Any]]:
    """Return what the viewer shows of each lesion."""
    import numpy as np

    return [
        {
            "number": lesion.index,
            "title": title,
            "ijk": grid.voxel((lesion.x, lesion.y, lesion.z)),
            "radiusMm": round(max(1.0, lesion.diameter_mm / 2), 2),
            "runs": grid.runs(np.argwhere(labels == lesion.index)),
            "colour": _GREY if off else OTHER_LESION_OUTLINE if possible else LESION_OUTLINE,
            "dashed": off or possible,
            "figure": f"{anchor}-lesion-{lesion.index}",
        }
        for lesion, title, possible, off in _listed(result)
    ]


def _listed(result: ScanResult) -> Iterable[tuple[Lesion, str, bool, bool]]:
    """Return each row with its title, whether it is only possible, and whether it counts not."""
    if result.reading is not None and result.reviewed:
        for row in result.reading.rows:
            yield row.lesion, heading(row, row.lesion), row.verdict == "possible", not row.counted
        return
    for lesion in result.lesions:
        yield lesion, describe_lesion(lesion), lesion.rating == "possible", is_mimic(lesion)


def _note(grid: PageGrid, reduced: PageGrid, factors: tuple[int, ...], limit: int) -> str:
    """Describe how the image differs from the scan."""
    cut = (
        f"Slices of the box around the brain with a rim of {MARGIN_MM:g} mm, counted in that box, "
        "after bias correction, in 256 grey levels"
    )
    if factors == (1, 1, 1):
        return f"{cut}, at the scan's own voxels."
    own, now = (" × ".join(f"{step:.3g}" for step in one.spacing) for one in (grid, reduced))
    block = " × ".join(map(str, factors))
    return (
        f"Reduced to keep this page small ({limit / 1e6:.1f} MB for each scan). {cut}; each voxel "
        f"is the mean of {block} of the scan's, {now} mm instead of {own} mm. Small lesions look "
        "fainter than they are; their figures below have the scan's own voxels."
    )
