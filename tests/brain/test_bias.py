"""Bias correction on heads whose bias is known."""

import nibabel as nib
import numpy as np
import pytest

from cmbprep.brain.bias import clean_intensities, correct_bias, head_mask, otsu_threshold
from cmbprep.errors import ScanError
from cmbprep.spatial.grids import Grid
from tests.registration import headphantom


def biased(shape, affine, strength=0.6):
    """T2*-like head under a coil that sees the front right best, its brain, and its bias."""
    image = headphantom.head(shape, affine, contrast="T2starw")
    points = Grid(shape, affine).points()
    nearness = np.exp(-(np.linalg.norm(points - [40, 80, 20], axis=1) ** 2) / (2 * 90.0**2))
    bias = np.exp(strength * 2 * (nearness - 0.5)).reshape(shape)
    brain = np.asarray(headphantom.brain(shape, affine).dataobj) > 0
    return nib.Nifti1Image(image.get_fdata() * bias, affine), image, brain, bias


GEOMETRIES = {
    "isotropic": ((48, 56, 50), (4.0, 4.0, 4.0), "RAS", (0, 0, 0)),
    "thick slices": ((96, 112, 28), (2.0, 2.0, 6.0), "LAS", (8, 0, 0)),
    "slab": ((64, 72, 10), (3.0, 3.0, 5.0), "RPS", (0, 0, 0)),
}


@pytest.fixture(scope="module", params=sorted(GEOMETRIES))
def case(request):
    shape, spacing, codes, degrees = GEOMETRIES[request.param]
    affine = headphantom.grid_affine(shape, spacing, codes=codes, degrees=degrees)
    return biased(shape, affine)


def test_a_known_bias_is_mostly_removed_and_nothing_else_changed(case):
    scan, _, brain, bias = case
    mask = nib.Nifti1Image(brain.astype(np.uint8), scan.affine)
    result = correct_bias(scan, mask, iterations=20)
    field = np.asarray(result.field.dataobj)
    before, after = np.std(np.log(bias[brain])), np.std(np.log(bias[brain] / field[brain]))
    assert before > 0.1
    assert after < 0.6 * before
    # Scan = image x field, on the scan's own grid, at the scan's own level.
    assert np.array_equal(result.image.affine, scan.affine)
    product = np.asarray(result.image.dataobj) * field
    assert np.allclose(product, scan.get_fdata(), rtol=1e-4, atol=1e-3)
    assert np.median(field[brain]) == pytest.approx(1, abs=0.1)


def test_voxels_that_are_not_numbers_do_no_harm():
    affine = headphantom.grid_affine((48, 56, 50), (4.0, 4.0, 4.0))
    scan, _, _brain, _ = biased((48, 56, 50), affine)
    data = np.array(scan.get_fdata(), dtype=np.float32)
    data[20:23, 20:23, 20] = np.nan
    data[30, 30, 30] = np.inf
    data[2, 2, 2] = -50
    result = correct_bias(nib.Nifti1Image(data, affine), iterations=3)
    corrected = np.asarray(result.image.dataobj)
    assert np.isfinite(corrected).all()
    assert (corrected[20:23, 20:23, 20] == 0).all()
    assert corrected[2, 2, 2] < 0


def test_a_flipped_scan_gives_the_flipped_field():
    affine = headphantom.grid_affine((48, 56, 50), (4.0, 4.0, 4.0))
    scan, _, brain, _ = biased((48, 56, 50), affine)
    mask = nib.Nifti1Image(brain.astype(np.uint8), affine)
    straight = np.asarray(correct_bias(scan, mask, iterations=5).field.dataobj)
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = 47
    turned = correct_bias(
        nib.Nifti1Image(scan.get_fdata()[::-1], affine @ flip),
        nib.Nifti1Image(brain[::-1].astype(np.uint8), affine @ flip),
        iterations=5,
    )
    back = np.asarray(turned.field.dataobj)[::-1]
    assert np.abs(np.log(back / straight))[brain].max() < 0.1


def test_what_lies_outside_the_mask_has_no_say():
    shape = (40, 42, 38)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    i, j, k = np.indices(shape)
    inside = np.zeros(shape, dtype=bool)
    inside[8:30, 8:30, 12:30] = True
    texture = np.where(np.sin(i) * np.sin(0.9 * j) * np.sin(0.8 * k) > 0, 100.0, 60.0)
    bias = np.exp(0.02 * (i - 20))
    noise = 50 * np.exp(2 * np.random.default_rng(0).normal(size=shape))
    mask = nib.Nifti1Image(inside.astype(np.uint8), affine)
    fields = []
    for outside in (texture * bias, noise):
        data = np.where(inside, texture * bias, outside).astype(np.float32)
        result = correct_bias(nib.Nifti1Image(data, affine), mask, iterations=10)
        fields.append(np.log(np.asarray(result.field.dataobj))[5:-5, 5:-5, 5:-5])
    core = inside[5:-5, 5:-5, 5:-5]
    assert np.std(np.log(bias)[5:-5, 5:-5, 5:-5][core] - fields[0][core]) < 0.02
    assert np.abs(fields[0] - fields[1])[core].mean() < 0.05


def test_otsu_lies_between_two_classes():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 5000), rng.normal(60, 5, 3000)])
    assert 15 < otsu_threshold(values) < 50


def test_values_that_differ_by_less_than_their_precision_are_one_class():
    for value in (77.0, 1e4, 1e19):
        values = np.full(100, value, np.float32)
        values[::3] = np.nextafter(values[0], np.float32(0), dtype=np.float32)
        values[::7] = np.nextafter(values[1], np.float32(np.inf), dtype=np.float32)
        assert 0 < 0.8 * otsu_threshold(values) < values.min(), "all of it is head"
        assert head_mask(values.reshape(10, 10, 1) ** 2, np.ones(3)).all()


def test_head_mask_holds_the_brain_and_no_air():
    shape = (48, 56, 50)
    affine = headphantom.grid_affine(shape, (4.0, 4.0, 4.0))
    mask = head_mask(headphantom.head(shape, affine).get_fdata(), np.full(3, 4.0))
    brain = np.asarray(headphantom.brain(shape, affine).dataobj) > 0
    index = Grid(shape, affine).points().reshape(*shape, 3)
    air = np.sum((index / (np.array(headphantom.PARTS[0][1]) + 12)) ** 2, axis=-1) > 1
    assert np.mean(mask[brain]) > 0.98
    assert np.mean(mask[air]) < 0.02


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((10, 10, 10)), "no positive voxel"),
        (np.full((10, 10, 10), np.nan), "no positive voxel"),
        (np.ones((10, 10, 10, 2)), "4 dimensions"),
        (np.pad(np.ones((1, 1, 1)), 5), "too little"),
    ],
)
def test_useless_images_are_refused_with_a_reason(data, message):
    with pytest.raises(ScanError, match=message):
        correct_bias(nib.Nifti1Image(data.astype(np.float32), np.eye(4)))


def test_clean_intensities_keeps_what_is_finite():
    data = np.array([[[1.0, np.nan, -2.0]]], dtype=np.float32)
    cleaned = clean_intensities(nib.Nifti1Image(data, np.eye(4)))
    assert cleaned.tolist() == [[[1.0, 0.0, -2.0]]]
