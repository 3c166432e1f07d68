"""Reading what other programs have made of a participant's anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.bids.images import check_image, open_image, read_scan_image, t1w_warnings
from cmbprep.errors import ScanError
from cmbprep.interfaces.base import FileInterface, Record
from cmbprep.interfaces.files import image_like, load_image
from cmbprep.interfaces.images import ReadOutput
from cmbprep.outputs.files import write_image
from cmbprep.spatial.ants import image_grid, sample_transform
from cmbprep.spatial.grids import Grid, same_grid, working_grid
from cmbprep.spatial.transforms import DisplacementMap, apply_transforms, write_transform

#: Voxel size at which transforms are sampled, mm: that of the program's own.
SPACING = 2.0
#: With less than this part in common, two brain masks are not of the same brain (Dice).
OVERLAP_LIMIT = 0.85


def load_given(path: str) -> nib.Nifti1Image:
    """Open an image of another program, NIfTI or FreeSurfer's MGH, as NIfTI.

    Raises
    ------
    ScanError
        If it cannot be read.
    """
    return _open_given(path)[0]


def _open_given(path: str) -> tuple[nib.Nifti1Image, tuple[str, ...]]:
    """Open an image of another program, and return what was corrected in its header."""
    if _is_nifti(path):
        try:
            return open_image(Path(path))
        except ScanError as error:
            raise _not_used(error) from error
    try:
        image: Any = nib.load(path)
        data, affine = np.asanyarray(image.dataobj), image.affine
    # Whatever a damaged file makes the readers raise.
    except Exception as error:
        raise ScanError(
            f"it cannot be read as an image ({error})",
            path=path,
            hint="make it again, or leave its folder out of --derivatives",
        ) from error
    converted = nib.Nifti1Image(data, affine)
    converted.header.set_xyzt_units("mm")
    return converted, ()


def _is_nifti(path: str) -> bool:
    return path.endswith((".nii", ".nii.gz"))


def _not_used(error: ScanError) -> ScanError:
    """Add to an error what can be done about a file of another program."""
    hint = f"{error.hint}, or leave its folder out of --derivatives"
    return ScanError(error.message, path=error.path, hint=hint)


class ReadGivenT1w(FileInterface):
    """Read a corrected T1w image of another program, NIfTI or MGH, and check it."""

    def compute(self, in_file: str, *, cwd: Path) -> ReadOutput:
        """Read the image; it is not corrected again for the registration."""
        path = Path(in_file)
        if _is_nifti(in_file):
            try:
                image, warnings = read_scan_image(path, role="T1w")
            except ScanError as error:
                raise _not_used(error) from error
        else:
            image, warnings = check_image(load_given(in_file), path, role="T1w")
        out = str(write_image(cwd / "t1w.nii.gz", image))
        return {"image": out, "rough": out, "warnings": t1w_warnings(path, warnings)}


def read_given_mask(path: str, like: nib.Nifti1Image) -> tuple[nib.Nifti1Image, list[str]]:
    """Read a brain mask of another program, onto the grid of an image in the same space.

    Returns
    -------
    mask
        uint8, 0 and 1, its holes filled.
    warnings
        What was corrected in its header.

    Raises
    ------
    ScanError
        If it cannot be read, or holds no voxel of the image.
    """
    image, warnings = _open_given(path)
    mask = _on_grid(image, image_grid(like)) > 0.5
    if not mask.any():
        raise ScanError(
            "the brain mask is empty, or lies beside the image",
            path=path,
            hint="check that it was made for this image, or leave it out of --derivatives",
        )
    filled = ndimage.binary_fill_holes(mask).astype(np.uint8)
    return image_like(filled, like), [f"brain mask given: {text}" for text in warnings]


def _on_grid(image: nib.Nifti1Image, grid: Grid) -> NDArray[Any]:
    """Return an image's values at the voxels of a grid in the same space."""
    if same_grid(image.shape, image.affine, grid.shape, grid.affine):
        return np.asarray(image.dataobj).reshape(grid.shape)
    return np.asarray(apply_transforms(image, grid, (), interpolation="nearest").dataobj)


class _GivenTransforms(Record):
    to_reference: str
    from_reference: str


class ReadGivenTransforms(FileInterface):
    """Read the transforms between T1w image and template, and see whether the brains meet.

    Outputs are the displacement field that brings the T1w image onto the template, and the one
    that brings the template onto the T1w image.
    """

    def compute(
        self,
        to_reference: str,
        from_reference: str,
        brain_mask: str,
        reference_mask: str,
        *,
        cwd: Path,
    ) -> _GivenTransforms:
        """Sample the transforms at the working resolution, and compare the brain masks."""
        brain, reference = load_image(brain_mask), load_image(reference_mask)
        # A transform that brings an image onto another one takes points of that one.
        there, to_path = _sampled(to_reference, reference, cwd / "to_reference.nii.gz")
        back, from_path = _sampled(from_reference, brain, cwd / "from_reference.nii.gz")
        overlaps = {
            "reference_overlap": _dice(reference, brain, there),
            "t1w_overlap": _dice(brain, reference, back),
        }
        least = min(overlaps.values())
        verdict = "doubtful" if least < OVERLAP_LIMIT else "ok"
        doubt = (
            "the registration to the template is doubtful: with the transforms that were given, "
            f"brain and template have {least:.0%} in common (Dice)"
        )
        return {
            "to_reference": to_path,
            "from_reference": from_path,
            "quality": {"template_registration": {**overlaps, "verdict": verdict}},
            "warnings": [doubt] if verdict == "doubtful" else [],
        }


def _sampled(path: str, image: nib.Nifti1Image, out: Path) -> tuple[DisplacementMap, str]:
    """Sample a transform on the grid of an image, at the working resolution."""
    grid = working_grid(image_grid(image).shape, image.affine, SPACING)
    field = sample_transform(Path(path), grid)
    write_transform(field, out)
    return field, str(out)


def _dice(fixed: nib.Nifti1Image, moving: nib.Nifti1Image, transform: Any) -> float:
    """Overlap of two masks of which one is brought onto the other, at the working resolution."""
    grid = transform.grid
    one = np.asarray(apply_transforms(fixed, grid, (), interpolation="nearest").dataobj) > 0
    chain = (transform,)
    two = np.asarray(apply_transforms(moving, grid, chain, interpolation="nearest").dataobj) > 0
    return round(float(2 * (one & two).sum() / max(int(one.sum() + two.sum()), 1)), 4)
