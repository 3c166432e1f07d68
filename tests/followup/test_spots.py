"""How dark an image is at a place: known balls on grids of every kind."""

import math

import numpy as np
import pytest

from cmbprep.detectors.segmentation import segment_lesions
from cmbprep.followup.spots import BrainImage, losses_around, signal_loss, window
from tests.followup.painted import RADIUS, brain_image

PLACE = np.array([9.0, -6.0, 5.0])
BESIDE = np.array([9.0, -3.0, 5.0])
GRIDS = [
    {},
    {"spacing": (0.6, 0.6, 0.6)},
    {"spacing": (0.8, 0.8, 4.0)},
    {"codes": "LPS"},
    {"codes": "PSR", "spacing": (1.0, 1.0, 2.0)},
    {"degrees": (12, -20, 31)},
    {"codes": "ALI", "degrees": (-8, 14, 40), "spacing": (0.9, 0.9, 3.0)},
]


def ball_loss(diameter, window_sd):
    """Mean of a ball in the middle of a round Gaussian window."""
    ratio = diameter / 2 / window_sd
    return math.erf(ratio / math.sqrt(2)) - math.sqrt(2 / math.pi) * ratio * math.exp(
        -(ratio**2) / 2
    )


@pytest.mark.parametrize("diameter", [3.0, 5.0, 8.0])
@pytest.mark.parametrize("depth", [0.3, 0.9])
def test_the_loss_is_that_of_the_ball_in_the_window(diameter, depth):
    image = brain_image([(PLACE, diameter, depth)], spacing=(0.6, 0.6, 0.6))
    # The voxels blur the ball.
    spread = window(diameter, image.affine)[0, 0] + 0.6**2 / 12
    expected = depth * ball_loss(diameter, math.sqrt(spread))
    assert signal_loss(image, PLACE, diameter, 0.0) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("where", GRIDS)
def test_a_ball_is_dark_and_tissue_is_not_on_every_grid(where):
    there = signal_loss(brain_image([(PLACE, 5.0, 0.8)], **where), PLACE, 5.0, 0.7)
    nothing = signal_loss(brain_image(**where), PLACE, 5.0, 0.7)
    assert there > 0.3
    assert abs(nothing) < 0.02


@pytest.mark.parametrize("codes", ["LPS", "SAR", "ILA"])
def test_the_way_an_image_is_stored_does_not_matter(codes):
    values = [
        signal_loss(brain_image([(PLACE, 4.0, 0.8)], noise=0, codes=one), PLACE, 4.0, 0.7)
        for one in ("RAS", codes)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_intensities_may_have_any_scale():
    image = brain_image([(PLACE, 4.0, 0.8)])
    scaled = BrainImage.of(image.values * 3000, image.brain, image.affine)
    value = signal_loss(image, PLACE, 4.0, 0.7)
    assert signal_loss(scaled, PLACE, 4.0, 0.7) == pytest.approx(value, rel=1e-4)


def test_a_small_void_beside_the_place_is_not_the_lesion():
    # A vein in cross-section: as dark as the lesion, and narrow.
    fine = {"spacing": (0.6, 0.6, 1.0)}
    vein = brain_image([(PLACE + np.array([1.2, 0, 0]), 1.8, 0.9)], **fine)
    (region,) = segment_lesions(
        vein.values, vein.brain, vein.affine, vein.voxel(PLACE)[None], [3.0]
    )
    assert region.contrast > 0.7
    whole = signal_loss(brain_image([(PLACE, 6.0, 0.9)], **fine), PLACE, 6.0, 0.7)
    assert signal_loss(vein, PLACE, 6.0, 0.7) < 0.3 * whole


@pytest.mark.parametrize(("error", "found"), [(0.0, False), (1.5, True)])
def test_the_window_moves_within_the_error(error, found):
    image = brain_image([(BESIDE, 4.0, 0.9)], spacing=(0.8, 0.8, 0.8))
    whole = signal_loss(image, BESIDE, 4.0, 0.0)
    assert (signal_loss(image, PLACE, 4.0, error) > 0.8 * whole) == found


def test_at_the_edge_of_the_brain_what_lies_outside_does_not_count():
    edge = np.array([RADIUS - 2.0, 0, 0])
    assert abs(signal_loss(brain_image(), edge, 4.0, 0.7)) < 0.03
    assert signal_loss(brain_image([(edge, 4.0, 0.9)]), edge, 4.0, 0.7) > 0.3


@pytest.mark.parametrize("point", [(RADIUS + 8, 0, 0), (500, 0, 0)])
def test_outside_of_the_brain_nothing_is_known(point):
    assert signal_loss(brain_image(), np.array(point, float), 4.0, 0.7) is None


def test_voxels_without_a_value_are_no_brain():
    image = brain_image([(PLACE, 4.0, 0.8)])
    values = image.values.copy()
    x, y, z = np.round(image.voxel(PLACE)).astype(int)
    values[x + 5 : x + 8, y - 3 : y + 3, z - 1 : z + 1] = np.nan
    holed = BrainImage.of(values, image.brain, image.affine)
    value = signal_loss(holed, PLACE, 4.0, 0.7)
    assert value == pytest.approx(signal_loss(image, PLACE, 4.0, 0.7), abs=0.02)
    values[x - 9 : x + 10, y - 9 : y + 10, z - 9 : z + 10] = np.inf
    assert signal_loss(BrainImage.of(values, image.brain, image.affine), PLACE, 4.0, 0.7) is None


def test_an_image_that_does_not_fit_its_mask_is_refused():
    image = brain_image()
    with pytest.raises(ValueError, match="differ in shape"):
        BrainImage.of(image.values[1:], image.brain, image.affine)


def test_the_places_around_are_in_the_brain_and_far_from_known_lesions():
    # Shells of dark balls: some of the places lie in one.
    rng = np.random.default_rng(3)
    ways = rng.normal(size=(40, 3))
    balls = PLACE + 14 * ways / np.linalg.norm(ways, axis=1, keepdims=True)
    balls = balls[np.linalg.norm(balls, axis=1) < RADIUS - 4]
    image = brain_image([(centre, 6.0, 0.9) for centre in balls])
    every = losses_around(image, PLACE, 4.0, 0.7)
    assert 30 <= len(every) <= 48
    assert every.max() > 0.3
    known = losses_around(image, PLACE, 4.0, 0.7, list(balls))
    assert 0 < len(known) < len(every)
    assert known.max() < 0.1
    at_edge = losses_around(image, np.array([RADIUS, 0, 0]), 4.0, 0.7)
    assert 0 < len(at_edge) < len(every)
    assert len(losses_around(image, np.array([500.0, 0, 0]), 4.0, 0.7)) == 0
