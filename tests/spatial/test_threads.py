"""Pieces of work side by side: same results, same order, whatever the number of threads."""

import threading
import time

import numpy as np
import pytest

from cmbprep.brain.bias import head_mask
from cmbprep.registration.pose import HeadImage, search_pose
from cmbprep.registration.quality import local_shifts
from cmbprep.spatial import grids as threads
from cmbprep.spatial.grids import Grid, map_in_threads
from cmbprep.spatial.transforms import LinearMap
from tests.registration import headphantom


def test_results_are_in_the_order_of_the_items_and_not_of_their_ends():
    def slow_first(item):
        time.sleep(0.05 if item == 0 else 0)
        return item * item

    assert map_in_threads(slow_first, range(5)) == [0, 1, 4, 9, 16]


def test_two_work_at_the_same_time():
    meeting = threading.Barrier(2, timeout=60)
    assert len(map_in_threads(lambda _: meeting.wait(), range(2))) == 2


def test_what_one_raises_is_raised():
    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        map_in_threads(fail, range(3))


def test_a_pose_and_local_shifts_are_the_same_on_one_thread(monkeypatch):
    shape = (30, 34, 32)
    affine = headphantom.grid_affine(shape, (6.0, 6.0, 6.0))
    reference = np.asarray(headphantom.head(shape, affine).dataobj)
    pose = headphantom.rigid((20, -5, 10), (10, -20, 8))
    scan = np.asarray(headphantom.head(shape, affine, contrast="T2starw", pose=pose).dataobj)
    brain = np.asarray(headphantom.brain(shape, affine).dataobj) > 0
    region = np.asarray(headphantom.brain(shape, affine, pose=pose).dataobj) > 0
    grid = Grid(shape, affine)
    heads = (
        HeadImage(scan, head_mask(scan, np.full(3, 6.0)), grid),
        HeadImage(reference, brain, grid),
    )
    found = []
    for count in (1, 2):
        monkeypatch.setattr(threads, "THREADS", count)
        coarse = search_pose(*heads, scaling=True)
        shifts = local_shifts((scan, grid), region, (reference, grid), LinearMap(pose).inverse())
        found.append((coarse.similarity, coarse.transform.matrix, shifts))
    assert len(found[0][2]) > 4
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
