"""The pose of a brain from its outline alone."""

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from cmbprep.registration.outline import align_outlines
from cmbprep.registration.pose import HeadImage
from cmbprep.spatial.grids import Grid, crop_grid, resample_to_grid, working_grid
from cmbprep.spatial.transforms import map_points
from cmbprep.templates import load_template
from tests.registration import headphantom

SHAPE = (48, 56, 52)
AFFINE = headphantom.grid_affine(SHAPE, (4.0, 4.0, 4.0))


def outline(shape=SHAPE, affine=AFFINE, pose=None):
    brain = np.asarray(headphantom.brain(shape, affine, pose=pose).dataobj) > 0
    return HeadImage(np.zeros(shape, np.float32), brain, Grid(shape, affine))


def errors(image, pose):
    found = align_outlines(image, outline())
    truth = headphantom.brain_points()
    person = truth @ pose[:3, :3].T + pose[:3, 3]
    return np.linalg.norm(map_points(person, (found,)) - truth, axis=1)


@pytest.mark.parametrize(
    ("degrees", "shift", "size"),
    [
        ((18, -8, 10), (20, -30, 15), 1.0),
        ((-12, 10, -15), (-10, 25, -40), 1.12),
        ((0, 0, 0), (0, 0, 0), 0.9),
    ],
)
def test_pose_and_size_are_found(degrees, shift, size):
    pose = headphantom.rigid(degrees, shift) @ np.diag([size, size, size, 1.0])
    affine = headphantom.grid_affine(SHAPE, (4.4, 4.0, 4.4), codes="LPS", centre=shift)
    assert np.median(errors(outline(SHAPE, affine, pose), pose)) < 3


def test_hairs_do_not_decide_the_pose():
    """A brain fits nearly as well turned by a half: no start may be led there by rounding."""
    rng = np.random.default_rng(5)
    for _ in range(6):
        degrees = np.array((-12.0, 10.0, -15.0)) + rng.normal(scale=0.02, size=3)
        shift = np.array((-10.0, 25.0, -40.0)) + rng.normal(scale=0.02, size=3)
        pose = headphantom.rigid(degrees, shift) @ np.diag([1.12, 1.12, 1.12, 1.0])
        affine = headphantom.grid_affine(SHAPE, (4.4, 4.0, 4.4), codes="LPS", centre=shift)
        assert np.median(errors(outline(SHAPE, affine, pose), pose)) < 1.5


SAME_BYTES = """
from tests.registration.test_outline import AFFINE, SHAPE, align_outlines, headphantom, outline
pose = headphantom.rigid((12, -8, 10), (20, -30, 15))
print(align_outlines(outline(SHAPE, AFFINE, pose), outline()).matrix.tolist())
"""


def test_neither_threads_nor_the_kind_of_processor_change_the_pose():
    found = set()
    for kind in ({"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_CORETYPE": "Haswell"}):
        command = [sys.executable, "-c", SAME_BYTES]
        done = subprocess.run(
            command, env=os.environ | kind, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_a_brain_that_the_field_of_view_cuts_goes_on():
    """The template's brain, turned, of which 90 mm are seen."""
    packaged = nib.load(load_template().brain_mask)
    grid = working_grid(packaged.shape, packaged.affine, 4.0)
    whole = resample_to_grid(np.asarray(packaged.dataobj) > 0, packaged.affine, grid) >= 0.5
    reference = HeadImage(np.zeros(grid.shape, np.float32), whole, grid)
    pose = headphantom.rigid((8, -5, 6), (5, -10, 10))
    affine = pose @ grid.affine
    low = np.argwhere(whole)[:, 2].min() + 8
    part = crop_grid(Grid(grid.shape, affine), (0, 0, low), (*grid.shape[:2], 23))
    brain = whole[:, :, low : low + 23]
    found = align_outlines(HeadImage(np.zeros(brain.shape, np.float32), brain, part), reference)
    points = part.points()[brain.ravel()]
    truth = (points - pose[:3, 3]) @ np.linalg.inv(pose[:3, :3]).T
    assert np.median(np.linalg.norm(map_points(points, (found,)) - truth, axis=1)) < 3
    assert np.cbrt(np.linalg.det(found.matrix[:3, :3])) == pytest.approx(1.0, abs=0.05)


def test_what_has_no_outline_is_an_error():
    empty = HeadImage(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool), Grid(SHAPE, AFFINE))
    with pytest.raises(ValueError, match="without a voxel"):
        align_outlines(empty, outline())
    with pytest.raises(ValueError, match="fills"):
        align_outlines(empty._replace(mask=np.ones(SHAPE, bool)), outline())
