"""Largest piece of a mask, and its holes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.spatial.grids import one_piece


def plainly(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same by its definition, over the whole image."""
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return ndimage.binary_fill_holes(mask)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.62, 0.9])
def test_random_masks_are_as_by_the_definition(level: float) -> None:
    rng = np.random.default_rng(round(100 * level))
    for shape in ((9, 11, 7), (5, 5, 5), (1, 6, 8)):
        noise = ndimage.gaussian_filter(rng.random(shape), 0.7)
        mask = np.pad(noise < np.quantile(noise, level), (0, 2))
        np.testing.assert_array_equal(one_piece(mask), plainly(mask))


def test_hole_is_filled_and_what_opens_to_the_end_of_the_image_is_none() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[0:6, 2:7, 2:7] = True
    mask[2:4, 4, 4] = False  # closed in
    mask[0:2, 6, 6] = False  # a notch
    mask[0, 3, 3] = False  # opens to the end of the image
    mask[8, 8, 8] = True  # another piece
    kept = one_piece(mask)
    assert kept[2:4, 4, 4].all()
    assert not kept[0:2, 6, 6].any() and not kept[0, 3, 3] and not kept[8, 8, 8]


def test_diagonal_neighbours_are_two_pieces() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0:2] = True
    mask[1, 1, 1:4] = True
    assert np.argwhere(one_piece(mask)).tolist() == [[1, 1, 1], [1, 1, 2], [1, 1, 3]]


def test_nothing_stays_nothing_and_the_input_is_left() -> None:
    empty = np.zeros((3, 4, 5), bool)
    assert not one_piece(empty).any()
    mask = np.ones((3, 4, 5), bool)
    mask[1, 1, 1] = False
    before = mask.copy()
    assert one_piece(mask).all()
    np.testing.assert_array_equal(mask, before)


def test_axes_may_be_turned_and_mirrored() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random((10, 8, 12)), 0.8)
    mask = noise > np.median(noise)
    turned = np.moveaxis(mask, 0, 2)[:, ::-1]
    np.testing.assert_array_equal(one_piece(turned), np.moveaxis(one_piece(mask), 0, 2)[:, ::-1])
