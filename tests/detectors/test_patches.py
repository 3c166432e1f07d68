import numpy as np
import pytest

from cmbprep.detectors.patches import ACROSS_SHAPE, NEAR_SHAPE, WIDE_SHAPE, PatchMaps, cut_patches

DEPTHS = NEAR_SHAPE[0] - 7


def maps_of(function, spacing, shape, centre):
    """Maps whose ratio is a function of the offset from a centre in mm."""
    grids = np.meshgrid(
        *((np.arange(n) - c) * s for n, c, s in zip(shape, centre, spacing, strict=True)),
        indexing="ij",
    )
    ratio = function(*grids).astype(np.float32)
    return PatchMaps(
        ratio=ratio,
        mask=np.ones(shape, bool),
        susceptibility=None,
        growth=None,
        spacing=np.asarray(spacing, float),
    )


def ball(x, y, z):
    return 1 - 0.6 * np.exp(-(x**2 + y**2 + z**2) / (2 * 3.0**2))


def test_shapes_of_the_views():
    maps = maps_of(ball, (1.0, 1.0, 1.0), (60, 60, 60), (30, 30, 30))
    views = cut_patches(maps, np.array([[30, 30, 30], [3, 3, 3], [29.4, 31.2, 30.7]]))
    assert views.near.shape == (3, *NEAR_SHAPE)
    assert views.across.shape == (3, *ACROSS_SHAPE)
    assert views.wide.shape == (3, *WIDE_SHAPE)
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in vars(views).values())


def test_no_candidates():
    maps = maps_of(ball, (1.0, 1.0, 1.0), (20, 20, 20), (10, 10, 10))
    assert cut_patches(maps, np.zeros((0, 3))).near.shape == (0, *NEAR_SHAPE)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 1.5), (0.9, 0.9, 2.0), (1.0, 1.0, 1.0)])
def test_the_voxel_size_does_not_change_what_a_view_shows(spacing):
    shape = tuple(round(60 / s) for s in spacing)
    centre = [n / 2 for n in shape]
    views = cut_patches(maps_of(ball, spacing, shape, centre), np.array([centre]))
    reference = cut_patches(
        maps_of(ball, (0.75, 0.75, 0.75), (80, 80, 80), (40, 40, 40)), np.array([[40, 40, 40]])
    )
    assert np.abs(views.near - reference.near).max() < 0.04
    assert np.abs(views.across - reference.across).max() < 0.04
    assert np.abs(views.wide - reference.wide).max() < 0.06


def test_views_lie_where_they_say():
    """A slope along each axis must appear along the right axis of each view, in mm."""
    spacing, shape, centre = (0.8, 1.1, 2.0), (70, 50, 40), (35, 25, 20)
    for axis in range(3):
        maps = maps_of(lambda *p, a=axis: 1 + 0.01 * p[a], spacing, shape, centre)
        views = cut_patches(maps, np.array([centre], float))
        plane = views.near[0, DEPTHS // 2]
        along = [plane[-1, 0] - plane[0, 0], plane[0, -1] - plane[0, 0]]
        through = views.near[0, DEPTHS - 1, 14, 14] - views.near[0, 0, 14, 14]
        expected = [0.0, 0.0, 0.0]
        expected[axis] = 0.01 * (12.0 if axis == 2 else 27 * 0.75)
        assert np.allclose([*along, through], expected, atol=1e-4)
        side = views.across[0, :, 1]
        assert np.isclose(side[0, -1, 0] - side[0, 0, 0], 0.2025 if axis == 0 else 0, atol=1e-4)
        assert np.isclose(side[1, -1, 0] - side[1, 0, 0], 0.2025 if axis == 1 else 0, atol=1e-4)
        assert np.isclose(side[0, 0, -1] - side[0, 0, 0], 0.225 if axis == 2 else 0, atol=1e-4)


def test_flipping_an_image_flips_its_views():
    rng = np.random.default_rng(3)
    shape = (50, 52, 30)
    ratio = rng.uniform(0.4, 1.2, shape).astype(np.float32)
    mask = np.ones(shape, bool)
    spacing = np.array([0.9, 0.9, 2.0])
    at = np.array([[24.3, 25.8, 14.1]])
    one = cut_patches(
        PatchMaps(ratio=ratio, mask=mask, susceptibility=ratio, growth=ratio, spacing=spacing), at
    )
    flipped = np.ascontiguousarray(ratio[::-1])
    other = cut_patches(
        PatchMaps(
            ratio=flipped, mask=mask, susceptibility=flipped, growth=flipped, spacing=spacing
        ),
        np.array([[49 - 24.3, 25.8, 14.1]]),
    )
    assert np.allclose(one.near[:, :, ::-1], other.near, atol=1e-4)
    assert np.allclose(one.wide[:, :, ::-1], other.wide, atol=1e-3)
    assert np.allclose(one.across[:, 0, :, ::-1], other.across[:, 0], atol=1e-4)


def test_maps_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        PatchMaps(
            ratio=np.ones((4, 4, 4), np.float32),
            mask=np.ones((4, 4, 5), bool),
            susceptibility=None,
            growth=None,
            spacing=np.ones(3),
        )


@pytest.mark.parametrize("last", [False, True])
def test_a_ball_cut_through_its_middle_by_the_end_of_the_image_looks_whole(last):
    """The last slice goes through the ball's middle; a vessel would go on beyond it."""
    spacing, shape = (1.0, 1.0, 1.5), (50, 50, 20)
    edge = shape[2] - 1 if last else 0
    cut = cut_patches(maps_of(ball, spacing, shape, (25, 25, edge)), np.array([[25, 25, edge]]))
    middle = (25, 25, 20)
    whole = cut_patches(maps_of(ball, spacing, (50, 50, 40), middle), np.array([middle]))
    assert np.abs(cut.across - whole.across).max() < 0.12
    assert np.abs(cut.near - whole.near).max() < 0.12
    # Far beyond the end there is tissue, not more of the ball.
    tube = cut.across[0, 0, 1]
    assert tube[14, 0] > -0.05 and tube[14, -1] > -0.05 and tube[14, 8] < -0.5
