"""Which part of the template's brain a scan shows.

A scan whose zones were all seen shows the whole brain. For any other, the field of view is brought
into the template through the transforms that the run has stored: the centres of blocks of voxels
are taken to the scan and lie in its grid or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.outputs.stages import StageRecord
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.template import template_chains
from cmbprep.reports.results import ScanResult
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import map_points, read_transform

#: Voxels of the template on each side of a block.
BLOCK = 4
#: Part of a zone from which it counts as seen, and part of the brain where zones are not known.
WHOLE = 0.99


class CoverageError(Exception):
    """It is not known what a scan shows."""


def shows_all(scan: ScanResult) -> bool | None:
    """Return whether a scan shows the whole brain; None where the run has not recorded it.

    Newer runs record the part of each zone that was seen (``Coverage``), older ones the part of
    the brain that the scan covers.
    """
    parts = [part for part in scan.coverage.values() if part is not None]
    if parts:
        return min(parts) >= WHOLE
    recorded = {} if scan.preproc is None else scan.preproc.block.get("Quality", {})
    covered = _covered(recorded)
    return None if covered is None else covered >= WHOLE


def _covered(quality: Mapping[str, Any]) -> float | None:
    found = quality.get(f"{quality.get('route')}_registration")
    value = found.get("covered") if isinstance(found, Mapping) else None
    return value if isinstance(value, int | float) else None


def seen_blocks(
    scan: ScanResult, anatomy: StageRecord | None, grid: Grid
) -> NDArray[np.bool_] | None:
    """Return which blocks of the template's voxels a scan shows; None for the whole brain.

    Parameters
    ----------
    scan
        A scan with a result.
    anatomy
        The T1w image that it was registered to.
    grid
        The template's grid.

    Returns
    -------
    array of shape (i, j, k) or None
        For each block of :data:`BLOCK` voxels, whether its centre lies in the field of view.

    Raises
    ------
    CoverageError
        If it is a part of the brain, and the transforms cannot be read.
    """
    import nibabel as nib

    whole = shows_all(scan)
    assert scan.preproc is not None and scan.detection is not None
    if whole:
        return None
    names = scan.preproc.files.names
    automatic = Automatic(
        name=scan.name, preproc=scan.preproc, detection=scan.detection, anatomy=anatomy
    )
    chains = template_chains(automatic) if names.template == names.reference else None
    if chains is None:
        # Every registered scan has a record; without any, nothing speaks against a whole head.
        if whole is None:
            return None
        raise CoverageError("it shows a part of the brain, and a transform is missing")
    try:
        image = nib.Nifti1Image.from_filename(scan.preproc.files.path("preproc"))
        chain = [read_transform(path) for path in chains[1]]
    # Whatever a damaged file makes the readers raise.
    except Exception as error:
        name = type(error).__name__
        raise CoverageError(f"its image or a transform cannot be read, {name}") from error
    shape = tuple(-(-n // BLOCK) for n in grid.shape)
    centres = np.argwhere(np.ones(shape, dtype=bool)) * BLOCK + (BLOCK - 1) / 2
    points = centres @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    moved = map_points(points, chain)
    voxels = nib.affines.apply_affine(np.linalg.inv(image.affine), moved)
    # A voxel reaches half of its size beyond its centre.
    inside = (voxels >= -0.5) & (voxels <= np.array(image.shape[:3]) - 0.5)
    seen: NDArray[np.bool_] = inside.all(axis=1).reshape(shape)
    return seen


def fine(blocks: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Spread blocks over the voxels of the template."""
    full = blocks
    for axis in range(3):
        full = np.repeat(full, BLOCK, axis=axis)
    return full[: shape[0], : shape[1], : shape[2]]
