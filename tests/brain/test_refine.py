"""Refinement of brain masks on heads whose brain is known."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmbprep.brain import refine as masking
from cmbprep.brain.refine import carry_brain_mask, refine_brain_mask
from cmbprep.errors import ScanError
from cmbprep.spatial.grids import Grid, resample_to_grid, working_grid
from cmbprep.spatial.transforms import LinearMap
from tests.registration import headphantom

SHAPE = (62, 72, 66)
AFFINE = headphantom.grid_affine(SHAPE, (3.0, 3.0, 3.0))
# What a template's mask is off by: a shift and a scale of some millimetres.
ERROR = np.diag([1.03, 0.97, 1.03, 1.0])
ERROR[:3, 3] = (2.0, -2.0, 1.5)


@pytest.mark.parametrize("contrast", ["T1w", "T2starw"])
def test_refining_brings_a_mask_that_is_off_closer_to_the_brain(contrast):
    image = headphantom.head(SHAPE, AFFINE, contrast=contrast)
    truth = headphantom.brain(SHAPE, AFFINE)
    prior = headphantom.brain(SHAPE, AFFINE, pose=ERROR)
    before = headphantom.dice(prior.dataobj, truth.dataobj)
    refined = refine_brain_mask(image, prior)
    after = headphantom.dice(refined.dataobj, truth.dataobj)
    assert before < 0.97
    assert 1 - after < 0.7 * (1 - before)


def test_the_mask_is_one_piece_without_holes_on_the_images_grid():
    affine = headphantom.grid_affine(
        (92, 108, 30), (2.0, 2.0, 6.0), codes="LPS", degrees=(10, 0, 0)
    )
    image = headphantom.head((92, 108, 30), affine, contrast="T2starw")
    refined = refine_brain_mask(image, headphantom.brain(SHAPE, AFFINE))
    mask = np.asarray(refined.dataobj)
    assert refined.get_data_dtype() == np.uint8
    assert np.array_equal(refined.affine, affine)
    assert ndimage.label(mask)[1] == 1
    assert np.array_equal(ndimage.binary_fill_holes(mask), mask > 0)
    assert headphantom.dice(mask, headphantom.brain(mask.shape, affine).dataobj) > 0.95


def test_without_edges_the_prior_stays():
    even = nib.Nifti1Image(np.full(SHAPE, 100, dtype=np.float32), AFFINE)
    prior = headphantom.brain(SHAPE, AFFINE)
    refined = refine_brain_mask(even, prior)
    assert headphantom.dice(refined.dataobj, prior.dataobj) > 0.97


def test_a_mask_is_carried_the_right_way():
    pose = headphantom.rigid((15, -10, 20), (12, -9, 7))
    scan = headphantom.head(SHAPE, AFFINE, contrast="T2starw", pose=pose)
    mask = headphantom.brain(SHAPE, AFFINE)
    carried = carry_brain_mask(scan, mask, LinearMap(pose).inverse())
    truth = headphantom.brain(SHAPE, AFFINE, pose=pose)
    assert headphantom.dice(carried.dataobj, truth.dataobj) > 0.97
    wrong = carry_brain_mask(scan, mask, LinearMap(pose))
    assert headphantom.dice(wrong.dataobj, truth.dataobj) < 0.85


def test_a_slab_gets_the_part_of_the_mask_that_it_shows():
    affine = headphantom.grid_affine((92, 108, 12), (2.0, 2.0, 4.0), centre=(0, 0, 20))
    slab = headphantom.head((92, 108, 12), affine, contrast="T2starw")
    refined = refine_brain_mask(slab, headphantom.brain(SHAPE, AFFINE))
    truth = headphantom.brain((92, 108, 12), affine)
    assert headphantom.dice(refined.dataobj, truth.dataobj) > 0.95


@pytest.mark.parametrize("codes", ["RAS", "PIL"])
def test_a_probability_is_cut_in_its_box_as_in_the_whole_image(codes):
    fine = Grid((50, 60, 44), headphantom.grid_affine((50, 60, 44), (2.1, 1.7, 2.6), codes=codes))
    coarse = working_grid(fine.shape, fine.affine, 4.0)
    rng = np.random.default_rng(0)
    rough = ndimage.gaussian_filter(rng.normal(size=coarse.shape), 2.0)
    for level in (0.0, 1.0, 2.0):  # Up to the border of the image, and only in the middle.
        probability = (0.5 + rough / rough.std() - level).astype(np.float32)
        whole = resample_to_grid(probability, coarse.affine, fine) >= 0.5
        found = masking._at_least_half(probability, coarse, fine)
        assert 0 < whole.mean() < 0.6
        np.testing.assert_array_equal(found, whole)


def test_a_prior_outside_the_image_is_refused():
    image = headphantom.head(SHAPE, AFFINE)
    elsewhere = np.array(AFFINE)
    elsewhere[:3, 3] += 500
    prior = nib.Nifti1Image(np.ones(SHAPE, dtype=np.uint8), Grid(SHAPE, elsewhere).affine)
    with pytest.raises(ScanError, match="outside"):
        refine_brain_mask(image, prior)
