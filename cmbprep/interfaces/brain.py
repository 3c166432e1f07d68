"""The node that finds the brain in an image, corrects the bias there, and measures the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

import nibabel as nib

from cmbprep.brain.bias import correct_bias
from cmbprep.brain.mask_selection import MaskChoice, choose_brain_mask
from cmbprep.brain.metrics import image_quality
from cmbprep.brain.network import find_brain
from cmbprep.interfaces.base import FileInterface, Record
from cmbprep.interfaces.files import hand_on, load_image, voxels
from cmbprep.interfaces.given import read_given_mask
from cmbprep.outputs.files import write_image

#: Part of the brain mask in the outermost slices from which a scan counts as cut.
CUT_LIMIT = 0.02
_CUT_WARNING = (
    "the field of view cuts the brain ({:.1%} of the brain mask lies in the outermost slices): "
    "lesions outside it are not counted"
)


class _Corrected(Record):
    preproc: str
    brain_mask: str
    field: NotRequired[str]


class CorrectInBrain(FileInterface):
    """Find the brain, divide the image by its bias there (N4), and measure the image.

    Parameters
    ----------
    image
        Checked image, as it was acquired or as another program has corrected it.
    corrected
        Whether another program has corrected its bias. It is not corrected again then, and there
        is no output ``field`` (what the image was divided by).
    given_mask
        Brain mask of another program, in the image's space; no other one is made then.
    carried, registration
        Mask that registration carried, on the image's grid, and quality of that registration.
    """

    def compute(
        self,
        image: str,
        corrected: bool = False,
        given_mask: str | None = None,
        carried: str | None = None,
        registration: dict[str, Any] | None = None,
        *,
        cwd: Path,
    ) -> _Corrected:
        """Choose or read the mask, correct, and measure."""
        source = load_image(image)
        about_mask: dict[str, Any] = {}
        if given_mask is not None:
            mask, warnings = read_given_mask(given_mask, source)
        else:
            assert carried is not None
            choice, about_mask = _choose_mask(source, carried, registration or {})
            mask, warnings = choice.mask, list(choice.warnings)
        mask_path = str(write_image(cwd / "brain_mask.nii.gz", mask, flush=False))
        results: _Corrected = {
            "preproc": image,
            "brain_mask": mask_path,
            "quality": {},
            "warnings": warnings,
        }
        if not corrected:
            found = correct_bias(source, load_image(mask_path))
            path = write_image(cwd / "corrected.nii.gz", found.image, flush=False)
            results["preproc"] = str(path)
            results["field"] = hand_on(cwd / "field.nii", found.field)
        quality = image_quality(
            voxels(image), voxels(results["preproc"]), voxels(mask_path, bool), source.affine
        )
        cut = quality.get("brain_cut_fraction")
        if isinstance(cut, float) and cut > CUT_LIMIT:
            results["warnings"].append(_CUT_WARNING.format(cut))
        results["quality"] = {**quality, **about_mask}
        return results


def _choose_mask(
    image: nib.Nifti1Image, carried: str, registration: dict[str, Any]
) -> tuple[MaskChoice, dict[str, Any]]:
    """Choose between the brain mask of the network and that of the registration."""
    # Without a brain it is not the end: registration may have found it, and the choice says so.
    found = find_brain(image)
    # The carried mask is as good as the registration that has carried it.
    route = registration.get("route", "template")
    used = registration.get(f"{route}_registration", {})
    choice = choose_brain_mask(
        found,
        lambda: nib.Nifti1Image.from_image(load_image(carried)),
        verdict=str(used.get("verdict", "failed")),
    )
    quality: dict[str, Any] = {"brain_mask_source": choice.source}
    if found is not None:
        quality["brain_mask_sureness"] = round(found.sureness, 3)
    if choice.agreement is not None:
        quality["brain_mask_agreement"] = round(choice.agreement, 3)
    return choice, quality
