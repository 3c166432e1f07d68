"""When lesions may be matched; volumes across grids."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.lab.evaluate.matching import (
    Rule,
    intersections,
    label_components,
)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity(connectivity, count):
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 0] = mask[2, 2, 1] = True  # an edge, then a corner, in common
    assert label_components(mask, connectivity).max() == count


def test_common_volume_on_one_grid_is_counted():
    a = np.zeros((6, 6, 6), dtype=np.int32)
    b = a.copy()
    a[1:3, 1:3, 1:3] = 1
    b[2:4, 1:3, 1:3] = 7
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    assert intersections(a, affine, b, affine) == {(1, 7): 4 * 12.0}


def test_common_volume_does_not_depend_on_orientation():
    a = np.zeros((6, 8, 10), dtype=np.int32)
    a[1:4, 2:5, 3:8] = 3
    affine = np.array([[1.0, 0, 0, -5], [0, 1.5, 0, 7], [0, 0, 2, 1], [0, 0, 0, 1]])
    # The same image stored with its axes permuted and two of them flipped.
    flipped = np.ascontiguousarray(a.transpose(2, 0, 1)[::-1, :, ::-1])
    to_first = np.array([[0, 1, 0, 0], [0, 0, -1, 7], [-1, 0, 0, 9], [0, 0, 0, 1.0]])
    volume = pytest.approx(3 * 3 * 5 * 3.0)
    assert intersections(a, affine, flipped, affine @ to_first) == {(3, 3): volume}
    assert intersections(flipped, affine @ to_first, a, affine) == {(3, 3): volume}


def test_common_volume_between_fine_and_coarse_grids():
    # A coarse voxel of 2 mm holds 8 fine ones of 1 mm; half of them are labelled.
    coarse = np.zeros((4, 4, 4), dtype=np.int32)
    coarse[1, 1, 1] = 5
    fine = np.zeros((8, 8, 8), dtype=np.int32)
    fine[2:4, 2:4, 2] = 9
    fine_affine = np.eye(4)
    coarse_affine = np.diag([2.0, 2, 2, 1])
    coarse_affine[:3, 3] = 0.5  # centre of the first coarse voxel, on the fine grid
    assert intersections(coarse, coarse_affine, fine, fine_affine) == {(5, 9): 4.0}
    assert intersections(fine, fine_affine, coarse, coarse_affine) == {(9, 5): 4.0}


def test_grids_apart_have_nothing_in_common():
    a = np.ones((3, 3, 3), dtype=np.int32)
    far = np.eye(4)
    far[:3, 3] = 100
    assert intersections(a, np.eye(4), a, far) == {}
    assert intersections(np.zeros_like(a), np.eye(4), a, np.eye(4)) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"match": "greedy"},
        {"distance_mm": 0},
        {"distance_mm": float("nan")},
        {"min_overlap": 1.5},
        {"connectivity": 8},
    ],
)
def test_rule_checks_itself(wrong):
    with pytest.raises(ValueError, match=r"not|must"):
        Rule(**wrong)


def test_rule_says_what_it_does():
    assert Rule(distance_mm=3, connectivity=26).short == "centroid<=3mm,26-connected"
    assert Rule(match="overlap").short == "overlap:IoU>0,6-connected"
    assert Rule(min_diameter_mm=2).short == "centroid<=5mm,6-connected,true>=2mm"
