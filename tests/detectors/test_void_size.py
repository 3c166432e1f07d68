"""Sizes of voids: limits, and thick slices against known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cmbprep.detectors.segmentation import ball_diameter, segment_lesions, void_volume


def test_a_void_many_slices_wide_keeps_its_volume() -> None:
    assert void_volume(1e6, 0.5) == pytest.approx(1e6, rel=1e-3)


def test_the_gain_grows_with_the_slices_and_never_turns_the_order_of_sizes() -> None:
    volumes = np.linspace(2, 500, 200)
    thin, thick = ([void_volume(v, mm) for v in volumes] for mm in (1.0, 6.0))
    assert all(a > b > 0 for a, b in zip(thin, thick, strict=True))
    assert np.all(np.diff(thin) > 0) and np.all(np.diff(thick) > 0)


def test_scale_of_the_scene_does_not_matter() -> None:
    assert void_volume(8 * 30.0, 2 * 3.0) == pytest.approx(8 * void_volume(30.0, 3.0))


def test_diameter_of_a_ball() -> None:
    assert ball_diameter(math.pi / 6 * 27) == pytest.approx(3.0)


@pytest.mark.parametrize(("region", "slice_mm"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0)])
def test_sizes_must_be_positive(region: float, slice_mm: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        void_volume(region, slice_mm)


@pytest.mark.parametrize("diameter", [3.0, 4.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_nearer_to_the_truth_where_slices_are_thicker_than_the_void(
    diameter: float, seed: int
) -> None:
    spacing = np.array([0.9, 0.9, 6.0])
    shape, finer = (36, 36, 9), np.array([4, 4, 24])
    shift = np.random.default_rng(seed).uniform(-0.3, 0.3, 3) * spacing
    axes = [
        (np.arange(n * f) + 0.5) / f * step
        for n, f, step in zip(shape, finer, spacing, strict=True)
    ]
    middle = np.array(shape) * spacing / 2 + shift
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    distance = np.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2 + (z - middle[2]) ** 2)
    void = (distance < diameter / 2).astype(np.float32)
    parts = void.reshape(shape[0], finer[0], shape[1], finer[1], shape[2], finer[2])
    image = (100 * (1 - parts.mean(axis=(1, 3, 5)))).astype(np.float32)
    (region,) = segment_lesions(
        image,
        np.ones(shape, bool),
        np.diag([*spacing, 1.0]),
        (middle / spacing - 0.5)[None],
        [diameter / 2],
    )
    truth = math.pi / 6 * diameter**3
    corrected = void_volume(region.volume_mm3, spacing[2])
    assert region.volume_mm3 > 1.1 * truth
    assert abs(corrected / truth - 1) < 0.7 * abs(region.volume_mm3 / truth - 1)
