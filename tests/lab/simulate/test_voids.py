"""The outline of a void: known shapes, faint ones, neighbours, other voxels."""

import numpy as np
import pytest

from cmbprep.lab.simulate.voids import MASK_LOSS, VISIBLE_CNR, is_visible, outline_void

SHAPE = (31, 31, 31)
CENTRE = (15.0, 15.0, 15.0)


def ball(radius: float, depth: float, spacing=(1.0, 1.0, 1.0), centre=CENTRE) -> np.ndarray:
    """Loss of a ball of uniform depth, by the part of each voxel that it fills."""
    fine = [
        ((np.arange(n * 4) + 0.5) / 4 - 0.5 - c) * s
        for n, c, s in zip(SHAPE, centre, spacing, strict=True)
    ]
    x, y, z = np.meshgrid(*fine, indexing="ij", sparse=True)
    inside = (x**2 + y**2 + z**2 <= radius**2).astype(np.float32)
    return depth * inside.reshape(31, 4, 31, 4, 31, 4).mean((1, 3, 5))


@pytest.mark.parametrize("depth", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.8, 2.0)])
def test_volume_is_that_of_the_ball_whatever_the_depth_and_the_voxel(depth, spacing):
    centre = (15.3, 14.8, 15.2)
    void = outline_void(ball(4.0, depth, spacing, centre), centre, 4.0, spacing)
    assert void.depth == pytest.approx(depth)
    assert void.volume_mm3 == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.04)
    assert void.diameter_mm == pytest.approx(8.0, rel=0.015)
    np.testing.assert_allclose(void.centre, centre, atol=0.1)


def test_the_mask_ends_at_half_of_the_depth_but_not_below_the_least_loss():
    smooth = np.exp(-sum((i - 15.0) ** 2 for i in np.indices(SHAPE)) / (2 * 3.0**2))
    for depth in (1.0, 0.5, 0.3):
        void = outline_void(depth * smooth, CENTRE, 2.0, (1, 1, 1))
        loss = (depth * smooth)[tuple(void.voxels.T)]
        least = max(MASK_LOSS, depth / 2)
        assert loss.min() >= least
        assert len(void.voxels) == (depth * smooth >= least).sum()
    # The void itself, and so its volume, does not depend on the depth.
    volumes = [outline_void(d * smooth, CENTRE, 2.0, (1, 1, 1)).volume_mm3 for d in (0.3, 1.0)]
    assert volumes[0] == pytest.approx(volumes[1], rel=1e-6)


def test_a_neighbour_is_no_part_of_it():
    loss = ball(3.0, 0.4) + ball(3.0, 1.0, centre=(15.0, 15.0, 25.0))
    void = outline_void(loss, CENTRE, 2.0, (1, 1, 1))
    assert void.depth == pytest.approx(0.4)
    assert void.voxels[:, 2].max() < 20
    np.testing.assert_allclose(void.centre, CENTRE, atol=0.05)


def test_several_parts_of_one_source_belong_together():
    loss = ball(2.0, 0.8, centre=(11.0, 15.0, 15.0)) + ball(2.0, 0.6, centre=(19.0, 15.0, 15.0))
    void = outline_void(loss, CENTRE, 6.0, (1, 1, 1))
    assert {int(v) for v in np.sign(void.voxels[:, 0] - 15)} == {-1, 1}


def test_a_brighter_rim_and_overshoot_are_clipped():
    loss = ball(3.0, 1.3) - 0.4 * (ball(6.0, 1.0) - ball(4.0, 1.0))
    void = outline_void(loss, CENTRE, 3.0, (1, 1, 1))
    assert void.depth == 1.0
    assert len(void.voxels) < 200


def test_where_nothing_is_lost_there_is_no_void_and_a_faint_one_has_no_mask():
    assert outline_void(np.zeros(SHAPE), CENTRE, 2.0, (1, 1, 1)) is None
    assert outline_void(np.full(SHAPE, -0.1), CENTRE, 2.0, (1, 1, 1)) is None
    assert outline_void(ball(3.0, 0.9), (2.0, 2.0, 2.0), 2.0, (1, 1, 1)) is None
    faint = outline_void(ball(3.0, 0.19), CENTRE, 2.0, (1, 1, 1))
    assert faint.voxels.shape == (0, 3)
    assert faint.volume_mm3 > 0


def test_visible_is_deep_and_above_the_noise():
    assert is_visible(MASK_LOSS, VISIBLE_CNR)
    assert not is_visible(MASK_LOSS - 0.01, 100.0)
    assert not is_visible(1.0, VISIBLE_CNR - 0.1)
