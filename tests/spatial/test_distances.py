"""Distances from a mask, against those that can be counted."""

import numpy as np
import pytest
from scipy import ndimage

from cmbprep.spatial.grids import bounding_box, signed_distance

SPACING = np.array([1.0, 2.0, 3.0])


def block():
    mask = np.zeros((30, 24, 20), dtype=bool)
    mask[10:20, 8:16, 6:14] = True
    return mask


def test_counted_along_each_axis_in_mm():
    distance = signed_distance(block(), SPACING, 9.0)
    np.testing.assert_allclose(distance[7:12, 12, 10], [3, 2, 1, -1, -2])
    np.testing.assert_allclose(distance[15, 5:10, 10], [6, 4, 2, -2, -4])
    np.testing.assert_allclose(distance[15, 12, 3:8], [9, 6, 3, -3, -5])


@pytest.mark.parametrize("reach", [0.0, 2.5, 9.0])
def test_within_reach_it_is_that_of_the_whole_image(reach):
    mask = block()
    mask[12:14, 10:12, 8] = False  # a hole
    whole = ndimage.distance_transform_edt(~mask, sampling=SPACING)
    whole -= ndimage.distance_transform_edt(mask, sampling=SPACING)
    distance = signed_distance(mask, SPACING, reach)
    near = whole <= reach
    np.testing.assert_allclose(distance[near], whole[near])
    assert (distance[~near] > reach).all()


def test_at_the_border_of_the_image_the_mask_goes_on():
    mask = np.zeros((6, 5, 4), dtype=bool)
    mask[:3] = True
    distance = signed_distance(mask, np.ones(3), 1.0)
    np.testing.assert_allclose(distance[:, 2, 2], [-3, -2, -1, 1, 2, np.inf])


def test_a_box_ends_where_the_image_does():
    assert bounding_box(block(), np.array([2, 0, 9])) == (
        slice(8, 22), slice(8, 16), slice(0, 20)
    )  # fmt: skip


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        signed_distance(np.zeros((3, 3, 3), dtype=bool), np.ones(3), 1.0)
