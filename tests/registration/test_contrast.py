"""Redrawing of a reference in another contrast, and contrast against what is around."""

import numpy as np
import pytest
from scipy import ndimage

from cmbprep.registration.contrast import normalise_locally, redraw, tissue_parts

SHAPE = (40, 44, 38)


@pytest.fixture(scope="module")
def head():
    """Reference with three tissues, 2 mm, and the signed distance from its brain's surface."""
    middle = np.array(SHAPE) // 2
    radius = np.linalg.norm(np.stack(np.indices(SHAPE), -1) - middle, axis=-1)
    distance = 2 * (radius - 15.0)
    rng = np.random.default_rng(1)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5)
    texture /= texture.std()
    tissue = np.select([texture < -0.7, texture < 0.5], [20.0, 70.0], 100.0)
    reference = np.where(distance <= 0, tissue, np.where(distance < 8, 5.0, 40.0))
    return ndimage.gaussian_filter(reference, 0.7).astype(np.float32), distance


def recoloured(values):
    """Fluid brightest, grey matter above white: no order of the reference's is kept."""
    return np.interp(values, [0, 20, 70, 100], [10, 120, 90, 60])


def inside(distance):
    return distance < -2


def test_any_function_of_the_reference_is_found(head):
    reference, distance = head
    image = recoloured(reference)
    noise = np.random.default_rng(2).normal(0, 8, SHAPE)
    drawn = redraw(
        tissue_parts(reference, distance), (image + noise).astype(np.float32), distance < 8
    )
    part = inside(distance)
    assert np.corrcoef(drawn[part], reference[part])[0, 1] < -0.5
    assert np.abs(drawn - image)[part].mean() < 4


def test_what_lies_elsewhere_in_the_image_is_drawn_where_the_reference_has_it(head):
    reference, distance = head
    image = recoloured(reference)
    elsewhere = recoloured(np.roll(reference, 3, axis=1))
    moved = np.indices(SHAPE)[0] < 16  # two fifths of the brain
    seen = np.where(moved, elsewhere, image).astype(np.float32)
    drawn = redraw(tissue_parts(reference, distance), seen, distance < 8)
    part = inside(distance) & moved
    assert np.abs(drawn - image)[part].mean() < 0.3 * np.abs(elsewhere - image)[part].mean()


def test_fluid_may_be_dark_at_the_surface_and_bright_within(head):
    reference, distance = head
    image = recoloured(reference)
    image = np.where((distance > -7) & (reference < 40), 15, image)
    image += np.random.default_rng(5).normal(0, 5, SHAPE)
    drawn = redraw(tissue_parts(reference, distance), image.astype(np.float32), distance < 8)
    fluid = reference < 30
    assert drawn[fluid & (distance > -4) & inside(distance)].mean() < 60
    assert drawn[fluid & (distance < -13)].mean() > 100


def test_units_do_not_matter(head):
    reference, distance = head
    image = recoloured(reference).astype(np.float32)
    once = redraw(tissue_parts(reference, distance), image, distance < 8)
    again = redraw(tissue_parts(3 * reference + 7, distance), 50 * image, distance < 8)
    np.testing.assert_allclose(again, 50 * once, rtol=2e-3, atol=5)


def test_only_the_region_is_looked_at(head):
    reference, distance = head
    image = recoloured(reference).astype(np.float32)
    region = (distance < 8) & (np.indices(SHAPE)[2] < 20)
    spoilt = np.where(region, image, np.nan).astype(np.float32)
    drawn = redraw(tissue_parts(reference, distance), spoilt, region)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn - image)[inside(distance) & ~region].mean() < 5
    with pytest.raises(ValueError, match="shows nothing"):
        redraw(tissue_parts(reference, distance), image, np.zeros(SHAPE, bool))


def test_local_contrast_knows_no_gain_and_hardly_any_bias():
    rng = np.random.default_rng(3)
    image = (100 + 15 * ndimage.gaussian_filter(rng.normal(size=SHAPE), 1) / 0.1).astype(np.float32)
    image = np.clip(image, 20, None)
    spacing = np.array([2.0, 2.0, 4.0])
    plain = normalise_locally(image, spacing, 4.0)
    np.testing.assert_allclose(normalise_locally(9 * image, spacing, 4.0), plain, atol=1e-3)
    bias = np.linspace(0.6, 1.6, SHAPE[0])[:, None, None].astype(np.float32)
    assert (
        np.corrcoef(normalise_locally(bias * image, spacing, 4.0).ravel(), plain.ravel())[0, 1]
        > 0.99
    )


def test_weak_and_strong_contrast_become_alike_and_nothing_stays_nothing():
    steps = np.full(SHAPE, 100.0, np.float32)
    steps[:20, ::4] += 40
    steps[20:, ::4] += 8
    found = normalise_locally(steps, np.full(3, 2.0), 6.0)
    strong, weak = found[2:16].std(), found[24:38].std()
    assert 1.0 < strong / weak < 2.2 < 40 / 8
    assert np.abs(found).max() <= 3
    assert not normalise_locally(np.full(SHAPE, 5, np.float32), np.ones(3), 3.0).any()


def test_the_surroundings_are_in_millimetres():
    rng = np.random.default_rng(4)
    coarse = ndimage.gaussian_filter(rng.normal(100, 30, (20, 20, 20)), 1.5)
    fine = coarse.repeat(2, axis=2).astype(np.float32)
    one = normalise_locally(coarse.astype(np.float32), np.array([2.0, 2.0, 4.0]), 4.0)
    other = normalise_locally(fine, np.array([2.0, 2.0, 2.0]), 4.0)[:, :, ::2]
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97
