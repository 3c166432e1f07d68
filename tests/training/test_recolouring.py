"""T1-weighted heads as backgrounds: levels of tissue are drawn anew, anatomy stays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.training.recolouring import T1W_LEVELS, recoloured

SHAPE = (40, 44, 36)
SPACING = np.array([1.0, 1.2, 1.5])


@pytest.fixture(scope="module")
def head() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int8]]:
    """A T1-weighted head in levels of 500: white 3, grey 2, fluid 1 in the brain; bone 4, fat 5."""
    grid = np.indices(SHAPE).astype(float)
    offset = [(g - (n - 1) / 2) * s for g, n, s in zip(grid, SHAPE, SPACING, strict=True)]
    radius = np.sqrt(sum(o**2 for o in offset))
    tissue = np.select([radius < 12, radius < 15, radius < 17, radius < 22], [3, 2, 1, 4], 5)
    levels = np.array([0, 0.3, 0.7, 1.0, 0.1, 1.4], np.float32) * 500
    return levels[tissue], np.asarray(radius < 17), tissue.astype(np.int8)


def means(image: NDArray[np.float32], tissue: NDArray[np.int8]) -> NDArray[np.float64]:
    return np.array([image[tissue == n].mean() for n in range(1, 6)])


def test_fluid_is_drawn_dark_and_bright_and_white_matter_is_one(head) -> None:
    image, mask, tissue = head
    seen = np.array(
        [
            means(recoloured(image, mask, SPACING, np.random.default_rng(n)), tissue)
            for n in range(40)
        ]
    )
    fluid, grey, white, bone, fat = seen.T
    np.testing.assert_allclose(white, 1, atol=1e-5)
    assert fluid.min() < 0.6 and fluid.max() > 1.6
    assert 0.88 <= grey.min() < 0.95 and 1.12 < grey.max() <= 1.2
    # Bone is never as bright as fluid, nor fat brighter than it was against white matter.
    assert (bone < fluid).all() and (fat <= 1.4 * 0.8 + 1e-5).all()


def test_scale_of_the_image_does_not_matter_and_the_seed_does(head) -> None:
    image, mask, _ = head
    first, scaled, other = (
        recoloured(part, mask, SPACING, np.random.default_rng(seed))
        for part, seed in ((image, 1), (image * np.float32(7.5), 1), (image, 2))
    )
    np.testing.assert_allclose(first, scaled, atol=1e-5)
    assert not np.allclose(first, other)


def test_mirrored_head_gives_the_mirrored_image(head) -> None:
    image, mask, _ = head
    plain = recoloured(image, mask, SPACING, np.random.default_rng(4))
    mirrored = recoloured(image[::-1], mask[::-1], SPACING, np.random.default_rng(4))
    np.testing.assert_array_equal(mirrored, plain[::-1])


def test_arteries_turn_dark(head) -> None:
    image, mask, tissue = head
    middle = tuple(n // 2 for n in SHAPE)
    bright = image.copy()
    bright[middle] = 500 * T1W_LEVELS[-1]
    for seed in range(5):
        shown = recoloured(bright, mask, SPACING, np.random.default_rng(seed))
        assert shown[middle] <= 1.0
        assert shown[middle] == shown[tissue == 3].min()


def test_rim_of_the_brain_fades_within_millimetres(head) -> None:
    """Fluid just outside of the mask still looks like fluid; 5 mm further nothing does."""
    image, mask, _ = head
    padded = np.full(SHAPE, 500 * T1W_LEVELS[0], np.float32)
    padded[mask] = image[mask]
    distances = np.linalg.norm(
        [(g - (n - 1) / 2) * s for g, n, s in zip(np.indices(SHAPE), SHAPE, SPACING, strict=True)],
        axis=0,
    )
    for seed in range(6):
        shown = recoloured(padded, mask, SPACING, np.random.default_rng(seed))
        far = shown[distances > 23]
        near = shown[(distances > 17) & (distances < 17.9)]
        assert far.max() - far.min() < 1e-6
        assert far.max() <= 0.3 * 0.8 + 1e-6 < near.max()


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_a_dark_brain_or_none_is_refused(head, level: float) -> None:
    image, mask, _ = head
    with pytest.raises(ValueError, match="dark"):
        recoloured(np.full_like(image, level), mask, SPACING, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no brain"):
        recoloured(image, np.zeros_like(mask), SPACING, np.random.default_rng(0))
