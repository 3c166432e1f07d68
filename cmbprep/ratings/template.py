"""Lesions of a reader in the template's space, through the transforms that the run has stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep.ratings.automatic import Automatic
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.propagate import carry_lesions
from cmbprep.spatial.transforms import map_points, read_transform


def template_coordinates(
    automatic: Automatic, points: Sequence[Sequence[float]]
) -> list[tuple[float, float, float]] | None:
    """Take positions of a scan (mm, RAS+) to the reference template.

    Returns
    -------
    list or None
        One position a point; None where the scan could not be registered, or a transform is
        not there.
    """
    chains = template_chains(automatic)
    if chains is None:
        return None
    placed = map_points(
        np.reshape(np.asarray(points, float), (-1, 3)), [read_transform(p) for p in chains[0]]
    )
    return [(round(x, 2), round(y, 2), round(z, 2)) for x, y, z in placed.tolist()]


def template_mask(automatic: Automatic, labels: NDArray[np.integer]) -> nib.Nifti1Image | None:
    """Bring lesions into the template's space, as the run does with the automatic ones.

    Parameters
    ----------
    automatic
        The scan.
    labels
        Lesions on the scan's grid, (X, Y, Z).

    Returns
    -------
    nibabel image or None
        On the grid of the automatic mask; None where the scan could not be registered, or the
        output template is not the one that scans are registered to.
    """
    names = automatic.preproc.files.names
    chains = template_chains(automatic)
    if chains is None or names.template != names.reference:
        return None
    scan = nib.Nifti1Image.from_filename(automatic.preproc.files.path("preproc"))
    like = nib.Nifti1Image.from_filename(automatic.detection.files.path("template_mask"))
    forth, back = ([read_transform(path) for path in chain] for chain in chains)
    mask = carry_lesions(labels, _grid(scan), _grid(like), forth, back)
    return nib.Nifti1Image(mask, like.affine, like.header)


def _grid(image: nib.Nifti1Image) -> Grid:
    i, j, k = image.shape[:3]
    return Grid((i, j, k), image.affine)


def template_chains(automatic: Automatic) -> tuple[list[Path], list[Path]] | None:
    """Return the files of the maps of points from the scan to the reference, and back.

    None where the scan could not be registered, or a file is not there.
    """
    preproc, anatomy = automatic.preproc, automatic.anatomy
    through_t1w = preproc.files.names.target == "T1w"
    quality = preproc.block.get("Quality", {})
    route = quality.get("route", "t1w" if through_t1w else "template")
    forth, back = preproc.files.path("from_target"), preproc.files.path("to_target")
    if route == "none" or (route == "t1w" and anatomy is None):
        return None
    if route == "t1w" and anatomy is not None:
        chains = (
            [forth, anatomy.files.path("from_reference")],
            [anatomy.files.path("to_reference"), back],
        )
    elif through_t1w:
        chains = ([preproc.files.path("from_direct")], [preproc.files.path("to_direct")])
    else:
        chains = ([forth], [back])
    return chains if all(path.is_file() for chain in chains for path in chain) else None
