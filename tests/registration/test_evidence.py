"""What the parts of a brain say of a registration whose error is known."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cmbprep.registration.contrast import Drawing
from cmbprep.registration.evidence import (
    BrainParts,
    Evidence,
    find_shifts,
    follow_parts,
    follow_parts_rigidly,
    gather_evidence,
)
from cmbprep.registration.pose import HeadImage
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import LinearMap, map_points

SPACING = np.array([2.5, 2.5, 2.5])
SHAPE = (64, 72, 60)


def ball(shape=SHAPE, spacing=SPACING, radius=68.0):
    """A brain in the middle of the grid."""
    middle = (np.array(shape) - 1) / 2
    points = (np.indices(shape).reshape(3, -1).T - middle) * spacing
    return (np.linalg.norm(points, axis=1) < radius).reshape(shape)


def texture(shape=SHAPE, spacing=SPACING, seed=0, width=5.0):
    """Structure of some millimetres that repeats nowhere."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, width / np.asarray(spacing))
    return (100 + 20 * smooth / smooth.std()).astype(np.float32)


def drawing(drawn, shown, seen=None):
    seen = np.ones(drawn.shape, bool) if seen is None else seen
    nothing = np.zeros(drawn.shape, np.float32)
    return Drawing(drawn, np.where(seen, shown, np.float32(0)), nothing, seen, 0.0)


def noisy(values, sigma=15.0, seed=5):
    noise = np.random.default_rng(seed).normal(0, sigma, values.shape)
    return (values + noise).astype(np.float32)


def moved(values, degrees=(0, 0, 0), shift=(0, 0, 0), spacing=SPACING):
    """Turn about the middle, and shift; mm along the axes of the array."""
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix = np.diag(1 / spacing) @ turn @ np.diag(spacing)
    middle = (np.array(values.shape) - 1) / 2
    offset = middle + np.array(shift) / spacing - matrix @ middle
    return ndimage.affine_transform(values, matrix, offset, order=1, mode="nearest")


def test_parts_that_lie_where_they_fit_say_so_through_noise():
    found = gather_evidence(drawing(texture(), noisy(texture())), ball(), SPACING)
    assert found.agreeing > 0.9
    assert found.shift_mm == 0
    assert found.parts > 100


@pytest.mark.parametrize("shift", [(5, 0, 0), (0, -7.5, 0), (5, 5, -5)])
def test_parts_that_lie_elsewhere_say_where(shift):
    shown = noisy(moved(texture(), shift=shift))
    found = gather_evidence(drawing(texture(), shown), ball(), SPACING)
    assert found.agreeing < 0.1
    assert found.shift_mm == pytest.approx(np.linalg.norm(shift), abs=2.5)
    # The image at x shows what lies at x + shift, so that parts fit best at -shift.
    parts = find_shifts(drawing(texture(), shown), ball(), SPACING)
    assert np.median(parts.shifts * SPACING, axis=0) == pytest.approx(-np.array(shift), abs=1.3)


def test_a_turned_head_is_noticed():
    shown = noisy(moved(texture(), degrees=(0, 0, 12)))
    assert gather_evidence(drawing(texture(), shown), ball(), SPACING).agreeing < 0.4


def test_what_has_nothing_in_common_agrees_by_chance():
    found = gather_evidence(drawing(texture(), texture(seed=1)), ball(), SPACING)
    assert found.agreeing < 0.2


def test_an_even_phantom_is_no_evidence_though_its_outline_fits():
    brain = ball()
    shown = noisy(np.where(brain, 100, 5).astype(np.float32), 4)
    drawn = np.where(brain, 100, 5).astype(np.float32)
    assert gather_evidence(drawing(drawn, shown), brain, SPACING).agreeing < 0.3


def test_neither_unit_nor_offset_of_intensities_matters():
    one = gather_evidence(drawing(texture(), noisy(texture())), ball(), SPACING)
    other = gather_evidence(drawing(1000 * texture(), 1000 * noisy(texture())), ball(), SPACING)
    assert other.agreeing == pytest.approx(one.agreeing, abs=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_grid_gives_the_same(axis):
    shown = noisy(moved(texture(), degrees=(6, 0, 0)))
    one = gather_evidence(drawing(texture(), shown), ball(), SPACING)
    flipped = drawing(np.flip(texture(), axis), np.flip(shown, axis))
    other = gather_evidence(flipped, np.flip(ball(), axis), SPACING)
    assert other.agreeing == pytest.approx(one.agreeing, abs=0.1)


def test_voxels_need_not_be_cubes():
    shape, spacing = (64, 72, 30), np.array([2.5, 2.5, 5.0])
    values = texture(shape, spacing)
    brain = ball(shape, spacing)
    right = gather_evidence(drawing(values, noisy(values)), brain, spacing)
    aside = moved(values, shift=(0, 0, 10), spacing=spacing)
    wrong = gather_evidence(drawing(values, noisy(aside)), brain, spacing)
    assert right.agreeing > 0.9 > 0.1 > wrong.agreeing


def test_parts_that_are_not_seen_are_not_asked():
    seen = np.zeros(SHAPE, bool)
    seen[:, :, 24:40] = True
    shown = np.where(seen, noisy(texture()), np.float32(0))
    found = gather_evidence(drawing(texture(), shown, seen), ball(), SPACING)
    whole = gather_evidence(drawing(texture(), noisy(texture())), ball(), SPACING)
    assert found.agreeing > 0.9
    assert found.parts < whole.parts
    seen[:, :, 28:] = False
    assert gather_evidence(drawing(texture(), shown, seen), ball(), SPACING) is None


@pytest.mark.parametrize("affine", [np.diag([2.5, 2.5, 2.5, 1]), np.diag([-2.5, 2.5, -2.5, 1])])
def test_the_map_that_the_parts_ask_for_brings_them_there(affine):
    """The image is the reference, turned and shifted: what is laid by the identity is off."""
    truth = np.eye(4)
    truth[:3, :3] = 1.03 * Rotation.from_euler("xyz", (2, -3, 2), degrees=True).as_matrix()
    grid = Grid(SHAPE, affine)
    middle = map_points((np.array([SHAPE]) - 1) / 2, (LinearMap(affine),))[0]
    truth[:3, 3] = middle - truth[:3, :3] @ middle + (3, -2, 4)
    # The image at truth(x) shows what the reference has at x.
    back = np.linalg.inv(affine) @ np.linalg.inv(truth) @ affine
    shown = ndimage.affine_transform(texture(), back[:3, :3], back[:3, 3], order=1, mode="nearest")
    parts = find_shifts(drawing(texture(), noisy(shown)), ball(), SPACING)
    found = follow_parts(parts, grid, LinearMap(np.eye(4)), LinearMap(np.eye(4)))
    points = grid.points()[ball().ravel()][::97]
    wanted = map_points(points, (LinearMap(truth),))
    before = np.linalg.norm(points - wanted, axis=1)
    after = np.linalg.norm(map_points(points, (found,)) - wanted, axis=1)
    # Shifts are of whole voxels: half of one is left.
    assert np.median(after) < 1.25 < 4 < np.median(before)


def test_a_slab_with_one_layer_of_parts_keeps_the_direction_across_it():
    shift = np.array([5.0, -2.5, 2.5])
    seen = np.zeros(SHAPE, bool)
    seen[:, :, 24:36] = True
    shown = np.where(seen, noisy(np.roll(texture(), (2, -1, 1), axis=(0, 1, 2))), np.float32(0))
    parts = find_shifts(drawing(texture(), shown, seen), ball(), SPACING)
    assert len(np.unique(parts.centres[:, 2])) == 1
    # The origin is such that rounding leaves no exact zero across the layer.
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-95.9, -132.0, -77.97)
    before = np.diag([1.1, 0.9, 1.2, 1.0])
    chain = LinearMap(before)
    found = follow_parts(parts, Grid(SHAPE, affine), chain, chain)
    np.testing.assert_allclose(found.matrix[:3, 2], before[:3, 2], atol=1e-3)
    lying = parts.centres @ affine[:3, :3] + affine[:3, 3]
    wanted = map_points(lying + shift, (chain,))
    off = np.linalg.norm(map_points(lying, (found,)) - wanted, axis=1)
    # Shifts are of whole voxels: half of one is left.
    assert np.median(off) < 1.25 < 5 < np.linalg.norm(before[:3, :3] @ shift)


def rigid(degrees, shift, middle):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + shift
    return matrix


def off_by(found, truth, grid, step=97):
    """Median distance between where two maps take the brain, mm."""
    points = grid.points()[ball(grid.shape, grid.spacing).ravel()][::step]
    off = map_points(points, (found,)) - map_points(points, (LinearMap(truth),))
    return float(np.median(np.linalg.norm(off, axis=1)))


@pytest.mark.parametrize("codes", ["as it is", "mirrored", "oblique"])
def test_parts_that_were_led_astray_do_not_turn_a_rigid_map(codes):
    turn = np.eye(3) if codes != "oblique" else Rotation.from_rotvec([0.2, 0.3, -0.1]).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.5 if codes == "mirrored" else 2.5, 2.5, 2.5])
    grid = Grid(SHAPE, affine)
    middle = map_points((np.array([SHAPE]) - 1) / 2, (LinearMap(affine),))[0]
    truth = rigid((2, -3, 2), (3, -2, 4), middle)
    back = np.linalg.inv(affine) @ np.linalg.inv(truth) @ affine
    shown = ndimage.affine_transform(texture(), back[:3, :3], back[:3, 3], order=1, mode="nearest")
    # A fifth of the image shows something else.
    shown[:, :14] = texture(seed=9)[:, :14]
    shown[:, -8:] = texture(seed=9)[:, -8:]
    parts = find_shifts(drawing(texture(), noisy(shown)), ball(), SPACING)
    found = follow_parts_rigidly(parts, grid, LinearMap(np.eye(4)))
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(found.matrix[:3, :3]) > 0
    assert off_by(found, truth, grid) < 1.0 < 4 < off_by(LinearMap(np.eye(4)), truth, grid)


@pytest.mark.parametrize("gain", [1.0, 300.0])
def test_an_image_is_moved_to_where_its_parts_fit_and_not_from_there(gain):
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    grid = Grid(SHAPE, affine)
    middle = (np.array(SHAPE) - 1) / 2 * 2.5
    reference = HeadImage(texture(), ball(), grid)
    shown = HeadImage(gain * noisy(200 - texture()), ball(), grid)
    parts = BrainParts(reference)
    right, wrong = np.eye(4), rigid((3, 2, -4), (4, -4, 3), middle)
    still = parts.follow_rigidly(shown, LinearMap(right))
    np.testing.assert_array_equal(still.matrix, right)
    found = parts.follow_rigidly(shown, LinearMap(wrong))
    assert off_by(found, right, grid) < 0.7 < 5 < off_by(LinearMap(wrong), right, grid)


def test_an_image_of_something_else_fits_nowhere():
    grid = Grid(SHAPE, np.diag([2.5, 2.5, 2.5, 1.0]))
    parts = BrainParts(HeadImage(texture(), ball(), grid))
    other = HeadImage(noisy(texture(seed=3)), ball(), grid)
    even = HeadImage(np.full(SHAPE, 50.0, np.float32), ball(), grid)
    for image in (other, even):
        start = LinearMap(rigid((1, 0, 0), (2, 0, 0), np.zeros(3)))
        assert gather_evidence(parts.draw(image, start), parts.brain, SPACING).agreeing < 0.3
        left = parts.evidence(image, parts.follow_rigidly(image, start))
        assert left.agreeing < 0.5


def test_evidence_checks_itself():
    with pytest.raises(ValueError, match="between 0 and 1"):
        Evidence(agreeing=1.2, shift_mm=0.0, parts=20)
