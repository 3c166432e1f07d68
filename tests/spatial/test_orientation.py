import itertools

import nibabel as nib
import numpy as np
import pytest

from cmbprep.spatial.orientation import slices_last


def oblique(spacing):
    angle = np.deg2rad(17)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = [-30.0, -41.0, 12.0]
    return affine


STORED = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)]
]


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 4.0), (1.0, 1.0, 1.0), (3.0, 0.9, 0.9)])
def test_every_storage_gives_the_same_image(spacing):
    data = np.random.default_rng(1).random((7, 8, 9)).astype(np.float32)
    image = nib.Nifti1Image(data, oblique(spacing))
    order = slices_last(image.affine)
    expected, where = order.apply(data), order.affine(image.affine, data.shape)
    for axes, flips in STORED:
        stored = image.as_reoriented(np.column_stack([axes, flips]))
        values = np.asarray(stored.dataobj)
        order = slices_last(stored.affine)
        assert np.array_equal(order.apply(values), expected)
        assert np.allclose(order.affine(stored.affine, values.shape), where)
        assert np.array_equal(order.undo(order.apply(values)), values)


def test_thick_slices_come_last():
    for axis in range(3):
        spacing = np.ones(3)
        spacing[axis] = 5.0
        order = slices_last(oblique(spacing))
        shape = (4, 5, 6)
        found = np.linalg.norm(order.affine(oblique(spacing), shape)[:3, :3], axis=0)
        assert np.allclose(found, [1, 1, 5])
