"""Nodes that draw zone atlases: of the template with another border, and of a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import ScanError
from cmbprep.interfaces.base import FileInterface, Record
from cmbprep.interfaces.files import load_image, save_like, voxels
from cmbprep.interfaces.given import load_given
from cmbprep.outputs.files import write_image
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.grids import Grid, bounding_box, boxed_grid, respaced_grid
from cmbprep.spatial.transforms import PointMap, apply_transforms, read_transform
from cmbprep.zones.parcellation import Parcellation, draw_atlas
from cmbprep.zones.person import person_zones
from cmbprep.zones.schemes import get_scheme

#: Part of a segmentation that must lie in the brain mask; else it is of another image.
INSIDE_LIMIT = 0.85
#: Width around the brain that is looked at, mm.
MARGIN_MM = 8.0
_GOOD_SEGMENTATIONS = "give FreeSurfer's or FastSurfer's aparc+aseg, or fMRIPrep's aparcaseg"


class _Atlas(TypedDict):
    atlas: str


class DrawAtlas(FileInterface):
    """Draw the template's atlas with a border of the person's choice.

    Parameters
    ----------
    parcellation, brain_mask, mars
        Of the template: what its atlases are drawn from, its brain mask, its packaged MARS atlas.
    scheme, border_mm
        The zone scheme and its border.
    """

    def compute(
        self,
        parcellation: str,
        brain_mask: str,
        mars: str,
        scheme: str,
        border_mm: float,
        *,
        cwd: Path,
    ) -> _Atlas:
        """Draw the indices of the scheme's regions."""
        image = load_image(parcellation)
        labels = draw_atlas(
            Parcellation.unpack(np.asarray(image.dataobj)),
            voxels(brain_mask, bool),
            get_scheme(scheme, border_mm),
            voxels(mars, np.uint8),
        )
        return {"atlas": save_like(cwd / "atlas.nii.gz", labels, image)}


class _PersonZones(_Atlas, Record):
    pass


class DrawPersonZones(FileInterface):
    """Draw a person's zones from their own segmentation, at 1 mm in the T1w image's space.

    Parameters
    ----------
    segmentation
        Labels of FreeSurfer, NIfTI or MGH.
    brain_mask, to_reference
        Of the T1w image: its brain mask, and the map of its points to the template.
    parcellation
        What the template's atlases are drawn from.
    scheme, border_mm
        The zone scheme and its border.
    to_segmentation
        Map of points from the T1w image to the segmentation; none if they are in the same space.
    """

    def compute(
        self,
        segmentation: str,
        brain_mask: str,
        to_reference: str,
        parcellation: str,
        scheme: str,
        border_mm: float,
        to_segmentation: str | None = None,
        *,
        cwd: Path,
    ) -> _PersonZones:
        """Draw the indices of the scheme's regions."""
        mask = load_image(brain_mask)
        grid = _brain_grid(mask)
        chain = [] if to_segmentation is None else [read_transform(Path(to_segmentation))]
        labels = _labels(segmentation, grid, chain)
        brain = _sample(mask, grid) > 0
        inside = float((brain & (labels > 0)).sum() / max(int((labels > 0).sum()), 1))
        if inside < INSIDE_LIMIT:
            raise ScanError(
                f"only {inside:.0%} of the segmentation lies in the T1w image's brain",
                path=segmentation,
                hint="check that both are of the same image, or leave the segmentation's folder "
                "out of --derivatives",
            )
        packed = load_image(parcellation)
        template = _sample(packed, grid, (read_transform(Path(to_reference)),))
        classes = Parcellation.unpack(template).classes
        try:
            drawn = person_zones(labels, classes, brain, get_scheme(scheme, border_mm))
        except ValueError as error:
            raise ScanError(str(error), path=segmentation, hint=_GOOD_SEGMENTATIONS) from error
        image = nib.Nifti1Image(drawn.labels, grid.affine)
        named = ", ".join(map(str, drawn.unknown))
        unknown = f"the segmentation has labels that FreeSurfer's table lacks ({named})"
        return {
            "atlas": str(write_image(cwd / "zones.nii.gz", image, flush=False)),
            "quality": {"segmentation_in_brain_fraction": round(inside, 4)},
            "warnings": [unknown] if named else [],
        }


def _brain_grid(mask: nib.Nifti1Image) -> Grid:
    """Lay a grid of 1 mm around a brain, along the axes of its image."""
    own = image_grid(mask)
    pad = np.ceil(MARGIN_MM / own.spacing).astype(int)
    part = boxed_grid(own, bounding_box(np.asarray(mask.dataobj) > 0, pad))
    if np.allclose(own.spacing, 1.0, atol=0.01):
        return part
    return respaced_grid(part.shape, part.affine, (1.0, 1.0, 1.0))


def _labels(path: str, grid: Grid, chain: list[PointMap]) -> NDArray[np.int32]:
    """Read a segmentation's labels at the voxels of a grid."""
    image = load_given(path)
    data = np.asarray(image.dataobj)
    numbers = np.rint(data).astype(np.int32)
    if data.ndim != 3 or not np.allclose(data, numbers, atol=1e-3):
        raise ScanError(
            "it is no image of labels",
            path=path,
            hint=_GOOD_SEGMENTATIONS,
        )
    found: NDArray[np.int32] = _sample(nib.Nifti1Image(numbers, image.affine), grid, chain)
    return found


def _sample(image: nib.Nifti1Image, grid: Grid, chain: Any = ()) -> NDArray[Any]:
    return np.asarray(apply_transforms(image, grid, chain, interpolation="nearest").dataobj)
