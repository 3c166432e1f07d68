"""Tiles cover the image, their weights add up to one, and seams leave no trace."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cmbprep.detectors.tiling import predict_tiled, seam_weights, tile_starts


@pytest.mark.parametrize("length", [16, 17, 31, 40, 99])
@pytest.mark.parametrize("overlap", [0, 1, 4, 8, 12])
def test_tiles_cover_an_axis_with_at_least_the_overlap(length: int, overlap: int) -> None:
    starts = tile_starts(length, 16, overlap)
    assert starts[0] == 0 and starts[-1] == length - 16
    steps = np.diff(starts)
    assert (steps > 0).all() and (16 - steps >= overlap).all()
    total = np.zeros(length)
    for start, weight in zip(starts, seam_weights(length, 16, starts, overlap), strict=True):
        assert (weight >= 0).all()
        total[start : start + 16] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(("length", "tile", "overlap"), [(10, 12, 2), (20, 8, 8), (20, 0, 0)])
def test_tiles_that_cannot_cover_are_refused(length: int, tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="cover"):
        tile_starts(length, tile, overlap)


def test_weights_fall_smoothly_and_leave_the_border_out() -> None:
    starts = tile_starts(100, 40, 16)
    first = seam_weights(100, 40, starts, 16)[0]
    assert (first[:20] == 1).all()
    assert (first[-4:] == 0).all()
    assert np.abs(np.diff(first)).max() < 0.3


def blur(channels: np.ndarray) -> np.ndarray:
    """A network with a receptive field of 2 voxels each way and zero padding."""
    return ndimage.uniform_filter(channels[0], 5, mode="constant").astype(np.float32)


@pytest.mark.parametrize("shape", [(50, 37, 29), (33, 70), (9, 40, 33)])
def test_a_network_that_sees_a_quarter_of_the_overlap_gives_the_untiled_result(
    shape: tuple[int, ...],
) -> None:
    image = np.random.default_rng(1).random((1, *shape), dtype=np.float32)
    where = np.ones(shape, bool)
    tile, overlap = [16] * len(shape), [8] * len(shape)
    tiled = predict_tiled(image, where, tile, overlap, blur)
    np.testing.assert_allclose(tiled, blur(image), atol=1e-6)


def test_a_network_that_sees_further_shows_at_seams_without_overlap_only() -> None:
    image = np.random.default_rng(1).random((1, 60, 60), dtype=np.float32)
    where = np.ones((60, 60), bool)
    rough = predict_tiled(image, where, [20, 20], [0, 0], blur)
    assert np.abs(rough - blur(image)).max() > 0.1


def test_tiles_without_what_is_wanted_are_not_predicted() -> None:
    where = np.zeros((64, 64), bool)
    where[5:9, 50:55] = True
    image = np.random.default_rng(1).random((1, 64, 64), dtype=np.float32)
    seen = []

    def count(channels: np.ndarray) -> np.ndarray:
        seen.append(channels.shape)
        return blur(channels)

    result = predict_tiled(image, where, [16, 16], [8, 8], count)
    assert 0 < len(seen) <= 6
    np.testing.assert_allclose(result[where], blur(image)[where], atol=1e-6)
