"""Which part of the template's brain a scan shows.

A scan whose zones were all seen shows the whole brain. For any other, the participant level has
recorded the blocks of the template's voxels in the field of view. Older results have no such
record: their blocks are taken to the scan through the transforms that the run has stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmbprep.outputs.sparse import recorded_blocks
from cmbprep.outputs.stages import StageRecord
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.template import template_chains
from cmbprep.reports.results import ScanResult
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import read_transform
from cmbprep.spatial.view import WHOLE
from cmbprep.spatial.view import seen_blocks as blocks_in_view


class CoverageError(Exception):
    """It is not known what a scan shows."""


def shows_all(scan: ScanResult) -> bool | None:
    """Return whether a scan shows the whole brain; None where the run has not recorded it.

    Newer runs record the part of each zone that was seen (``Coverage``), older ones the part of
    the brain in the field of view.
    """
    parts = [part for part in scan.coverage.values() if part is not None]
    seen = min(parts) if parts else scan.brain_in_view
    return None if seen is None else seen >= WHOLE


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
        For each block of voxels (:mod:`cmbprep.spatial.view`), whether its centre lies in the
        field of view.

    Raises
    ------
    CoverageError
        If it is a part of the brain, and the transforms cannot be read.
    """
    import nibabel as nib

    assert scan.preproc is not None and scan.detection is not None
    recorded = recorded_blocks(scan.detection.block.get("SeenBlocks"), grid)
    if recorded is not None:
        return recorded
    whole = shows_all(scan)
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
    i, j, k = image.shape[:3]
    return blocks_in_view(grid, chain, Grid((i, j, k), image.affine))
