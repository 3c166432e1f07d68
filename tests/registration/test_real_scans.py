"""Real scans and T1w images: the pose does not follow the header, and strangers do not fit."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.brain.bias import correct_bias
from cmbprep.brain.network import find_brain
from cmbprep.registration.fit import register_rigid
from cmbprep.registration.scan import MIRRORED, AnatomicalImage, _rigid
from tests.registration import headphantom


def image(folder: Path, name: str, suffix: str) -> nib.Nifti1Image:
    return correct_bias(nib.load(folder / f"sub-{name}/anat/sub-{name}_{suffix}.nii.gz")).image


@pytest.fixture(scope="module")
def head(real_bids: Path) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """T1w image of s1, and its brain mask."""
    found = image(real_bids, "s1", "T1w")
    brain = find_brain(found)
    assert brain is not None
    return found, brain.mask


@pytest.mark.slow
def test_a_header_that_is_off_does_not_change_where_a_distorted_scan_is_laid(
    real_bids: Path, head: tuple[nib.Nifti1Image, nib.Nifti1Image]
) -> None:
    scan = image(real_bids, "s1", "T2starw")
    inside = np.argwhere(np.asarray(head[1].dataobj) > 0)[::997]
    points = nib.affines.apply_affine(head[1].affine, inside)
    laid = []
    for motion in (np.eye(4), headphantom.rigid((10, 0, 0), (20, 0, 0))):
        moved = nib.Nifti1Image(np.asarray(scan.dataobj), motion @ scan.affine)
        found = register_rigid(moved, *head)
        assert found.quality.verdict == "ok", found.quality.reasons
        back = np.linalg.inv(found.to_reference.matrix @ motion)
        laid.append(nib.affines.apply_affine(back, points))
    # By mutual information alone, 5.5 mm.
    assert np.median(np.linalg.norm(laid[0] - laid[1], axis=1)) < 1.5


@pytest.mark.slow
def test_the_mirror_image_of_a_scan_is_told_from_that_of_another_person(
    real_bids: Path, head: tuple[nib.Nifti1Image, nib.Nifti1Image]
) -> None:
    """Stored the other way round, as after a conversion that has lost the orientation."""
    scan = image(real_bids, "s1", "T2starw")
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored = nib.Nifti1Image(np.asarray(scan.dataobj), mirror @ scan.affine)
    anatomy = AnatomicalImage(image=head[0], brain_mask=head[1])
    found = _rigid(mirrored, anatomy)
    assert found.quality.verdict == "failed"
    assert found.quality.reasons[0] == MIRRORED


@pytest.mark.slow
def test_the_t1w_image_of_another_person_is_refused(
    real_bids: Path, head: tuple[nib.Nifti1Image, nib.Nifti1Image]
) -> None:
    anatomy = AnatomicalImage(image=head[0], brain_mask=head[1])
    found = _rigid(image(real_bids, "grefield1", "T2starw"), anatomy)
    assert found.quality.verdict == "failed"
    assert MIRRORED not in found.quality.reasons
    assert found.quality.agreeing is not None
    assert found.quality.agreeing < 0.6
