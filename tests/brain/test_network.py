"""What surrounds the network: its grid, its input, and the way back; on a ball of known size."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cmbprep.brain.network import (
    BOX,
    MULTIPLE,
    SPACING,
    extract_brain,
    head_box,
    network_grid,
    network_input,
    scale_intensities,
)
from cmbprep.errors import ScanError
from cmbprep.spatial.grids import Grid
from tests.registration.headphantom import dice, grid_affine

RADIUS, CENTRE = 45.0, np.array([3.0, -5.0, 8.0])


def ball(shape, affine, radius=RADIUS):
    """Distance in mm to the border of the ball, positive inside, and its image."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    away = radius - np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - CENTRE, axis=-1)
    return away, nib.Nifti1Image((100 / (1 + np.exp(-away))).astype(np.float32), affine)


def bright(channels):
    """A network that calls bright voxels brain, with log-odds like a distance."""
    share = np.clip((channels[0] / max(channels[0].max(), 1e-6)) ** 2, 1e-4, 1 - 1e-4)
    return np.log(share / (1 - share)).astype(np.float32)


def bright_beyond(channels):
    """The same, which goes on beyond the field of view as it is at its border."""
    nearest = ndimage.distance_transform_edt(
        channels[1] == 0, return_distances=False, return_indices=True
    )
    return bright(channels[:, *nearest])


@pytest.mark.parametrize(
    ("shape", "spacing", "codes", "degrees"),
    [
        ((120, 120, 120), (1.0, 1.0, 1.0), "RAS", (0, 0, 0)),
        ((80, 80, 30), (1.5, 1.5, 4.0), "LPI", (0, 0, 0)),
        ((30, 80, 80), (4.0, 1.5, 1.5), "SPL", (20, -15, 10)),
        ((60, 60, 60), (2.2, 2.0, 1.9), "PIR", (-35, 0, 0)),
    ],
)
def test_a_ball_is_found_on_any_grid(shape, spacing, codes, degrees):
    affine = grid_affine(shape, spacing, codes=codes, degrees=degrees)
    away, image = ball(shape, affine)
    found = extract_brain(image, bright)
    assert found.mask.shape == shape
    assert np.array_equal(found.mask.affine, affine)
    assert dice(found.mask.dataobj, away > 0) > 0.985
    assert found.cut_fraction == 0


def test_permuting_and_flipping_the_axes_changes_nothing():
    shape = (70, 64, 40)
    affine = grid_affine(shape, (1.7, 1.9, 3.1), degrees=(5, 8, -4))
    _, image = ball(shape, affine)
    mask = np.asarray(extract_brain(image, bright).mask.dataobj)
    # Voxel (i, j, k) of the copy is voxel (63 - j, ...) of the image: (k, i, 63 - j) -> (i, j, k).
    to_image = np.array([[0, 1, 0, 0], [0, 0, -1, 63], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    copy = nib.Nifti1Image(
        np.asarray(image.dataobj).transpose(2, 0, 1)[:, :, ::-1].copy(), affine @ to_image
    )
    again = np.asarray(extract_brain(copy, bright).mask.dataobj)
    differing = np.count_nonzero(again != mask.transpose(2, 0, 1)[:, :, ::-1])
    assert differing <= 1e-4 * mask.sum()


def test_scaled_intensities_change_nothing():
    shape = (60, 60, 60)
    affine = grid_affine(shape, (2.0, 2.0, 2.0))
    _, image = ball(shape, affine)
    scaled = nib.Nifti1Image(np.asarray(image.dataobj) * np.float32(4096), affine)
    one, other = (extract_brain(each, bright).mask for each in (image, scaled))
    assert np.array_equal(one.dataobj, other.dataobj)


def test_the_border_lies_between_the_networks_voxels():
    """A radius that grows by a quarter of the network's voxel grows in the mask."""
    shape = (110, 110, 110)
    affine = grid_affine(shape, (1.0, 1.0, 1.0))
    volumes = []
    for radius in (45.0, 45.5, 46.0):
        away, image = ball(shape, affine, radius)
        found = extract_brain(image, bright)
        assert dice(found.mask.dataobj, away > 0) > 0.99
        volumes.append(found.volume_ml)
    growth = np.diff(volumes)
    expected = 4 * np.pi * 45.5**2 * 0.5 / 1000
    assert growth == pytest.approx([expected, expected], rel=0.15)


def test_a_cut_ball_says_how_much_of_its_surface_is_cut():
    shape = (60, 60, 20)
    affine = grid_affine(shape, (2.0, 2.0, 2.0), centre=CENTRE)
    away, image = ball(shape, affine)
    found = extract_brain(image, bright_beyond)
    assert dice(found.mask.dataobj, away > 0) > 0.98
    # Two discs, against these, the rim in voxel faces (8 r for each mm) and its steps.
    discs = 2 * np.pi * (RADIUS**2 - 20**2)
    rim = 8 * 43.4 * 40 + 2 * np.pi * 20**2
    assert found.cut_fraction == pytest.approx(discs / (discs + rim), abs=0.03)


def test_pieces_and_holes_are_dealt_with():
    shape = (60, 60, 60)
    affine = grid_affine(shape, (2.0, 2.0, 2.0))
    away, image = ball(shape, affine)
    data = np.array(image.dataobj)
    data[28:33, 28:33, 28:33] = 0
    data[2:6, 2:6, 2:6] = 100
    mask = np.asarray(extract_brain(nib.Nifti1Image(data, affine), bright).mask.dataobj)
    assert ndimage.label(mask)[1] == 1
    assert mask[30, 30, 30] == 1
    assert mask[3, 3, 3] == 0
    assert dice(mask, away > 0) > 0.98


def test_an_image_without_a_brain_is_refused():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    dark = nib.Nifti1Image(np.full((40, 40, 40), 5, np.float32), affine)
    with pytest.raises(ScanError, match="no brain"):
        extract_brain(dark, lambda channels: np.full(channels.shape[1:], -5, np.float32))
    empty = nib.Nifti1Image(np.zeros((40, 40, 40), np.float32), affine)
    with pytest.raises(ScanError, match="no positive voxel"):
        extract_brain(empty, bright)


def test_sureness_falls_with_the_steepness_of_the_log_odds():
    shape = (60, 60, 60)
    affine = grid_affine(shape, (2.0, 2.0, 2.0))
    _, image = ball(shape, affine)
    steep, flat = (
        extract_brain(image, lambda channels, k=k: k * bright(channels)).sureness for k in (2, 0.1)
    )
    assert 0 <= flat < 0.5 < steep <= 1


@pytest.mark.parametrize("degrees", [(0, 0, 0), (30, 20, -10)])
def test_the_networks_grid_holds_the_field_of_view(degrees):
    shape = (64, 50, 9)
    affine = grid_affine(shape, (3.1, 4.0, 7.0), codes="LSA", degrees=degrees, centre=(9, 0, -4))
    grid = network_grid(shape, affine)
    assert np.array_equal(grid.affine[:3, :3], SPACING * np.eye(3))
    assert all(n % MULTIPLE == 0 for n in grid.shape)
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape])).reshape(3, -1)
    places = np.linalg.inv(grid.affine) @ affine @ np.vstack([corners, np.ones(8)])
    assert places[:3].min() >= -0.5 - 1e-6
    assert (places[:3].max(axis=1) <= np.array(grid.shape) - 0.5 + 1e-6).all()


def test_a_huge_field_of_view_is_cut_to_what_holds_a_head():
    grid = network_grid((600, 600, 600), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert grid.shape == (80, 80, 80)


def test_the_box_hangs_from_the_top_of_the_head():
    given = np.zeros((2, 80, 80, 96), np.float32)
    given[1] = 1
    given[0, 20:60, 12:64, 0:45] = 1  # neck and head, then a tall space above
    box = head_box(given)
    assert [part.stop - part.start for part in box] == list(BOX)
    assert box[2].start == 0
    given[0, 20:60, 12:64, 45:80] = 1
    box = head_box(given)
    assert 80 < box[2].stop <= 84
    assert abs((box[0].start + box[0].stop) / 2 - 40) <= 1
    assert abs((box[1].start + box[1].stop) / 2 - 38) <= 1


def test_a_field_of_view_that_is_small_enough_is_looked_at_whole():
    box = head_box(np.ones((2, 48, 64, 32), np.float32))
    assert box == (slice(0, 48), slice(0, 64), slice(0, 32))


def test_the_second_channel_says_where_the_image_is():
    shape = (30, 30, 10)
    affine = grid_affine(shape, (4.0, 4.0, 4.0), degrees=tuple(Rotation.identity().as_rotvec()))
    grid, network = Grid(shape, affine), network_grid(shape, affine)
    channels = network_input(np.ones(shape, np.float32), grid, network)
    assert channels.shape == (2, *network.shape)
    assert channels[1].sum() * SPACING**3 == pytest.approx(np.prod(shape) * 64, rel=0.06)
    assert (channels[0][channels[1] == 0] == 0).all()


def test_scaled_intensities_stay_in_range_and_are_finite():
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 50, (20, 20, 20)).astype(np.float32)
    values[0, 0, 0] = 1e9
    scaled = scale_intensities(values, np.ones(values.shape, bool))
    assert np.isfinite(scaled).all()
    assert scaled.max() <= np.sqrt(3) + 1e-6
    assert np.median(scaled) > 0.3
    assert (scale_intensities(values * 0, np.ones(values.shape, bool)) == 0).all()
    assert (scale_intensities(values, np.zeros(values.shape, bool)) == 0).all()
