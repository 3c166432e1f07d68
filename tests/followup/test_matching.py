"""Matching of lesions: one to one, plausible under the errors, and the same both ways."""

import numpy as np
import pytest
from scipy.stats import chi

from cmbprep.followup.matching import GATE, Place, match_places, nearness
from cmbprep.spatial.transforms import LinearMap
from tests.registration import headphantom

HERE = LinearMap(np.eye(4))
THIN, THICK = np.diag([1.0, 1, 1, 1]), np.diag([1.0, 1, 6, 1])


def places(*centres, affine=THIN, diameter=3.0):
    return [Place.of(centre, diameter, affine) for centre in centres]


def test_the_gate_is_the_quantile_that_is_named():
    assert pytest.approx(chi(3).ppf(0.999), abs=1e-3) == GATE


def test_the_nearest_pairs_are_taken_and_each_lesion_once():
    first = places((0, 0, 0), (3, 0, 0))
    found = match_places(first, places((3.4, 0, 0), (0.2, 0, 0), (0.9, 0, 0)), HERE, 0.7)
    assert [(i, j) for i, j, _ in found] == [(0, 1), (1, 0)]


def test_the_most_pairs_win_over_the_nearest_pair():
    first, second = places((0, 0, 0), (2, 0, 0)), places((2, 0, 0), (4.5, 0, 0))
    assert [(i, j) for i, j, _ in match_places(first, second, HERE, 0.7)] == [(0, 0), (1, 1)]


def test_thick_slices_leave_room_across_and_not_within():
    for shift, together in (((0, 0, 6), True), ((6, 0, 0), False)):
        first = places((0, 0, 0), affine=THICK)
        found = match_places(first, places(shift, affine=THICK), HERE, 0.7)
        assert bool(found) == together


@pytest.mark.parametrize("sizes", [(2.0, 12.0), (12.0, 2.0)])
def test_large_lesions_may_lie_further_apart(sizes):
    far = (4.9, 0, 0)
    assert not match_places(places((0, 0, 0), diameter=2), places(far, diameter=2), HERE, 0.7)
    first, second = (
        places(at, diameter=size) for at, size in zip(((0, 0, 0), far), sizes, strict=True)
    )
    assert match_places(first, second, HERE, 0.7)


def test_a_worse_registration_leaves_more_room():
    first, second = places((0, 0, 0)), places((6, 0, 0))
    assert not match_places(first, second, HERE, 0.7)
    assert match_places(first, second, HERE, 2.0)


def test_exchanged_visits_give_the_same_pairs():
    rng = np.random.default_rng(3)
    there = LinearMap(headphantom.rigid((10, 20, -5), (4, -9, 30)))
    points = rng.uniform(-40, 40, (40, 3))
    moved = there(points) + rng.normal(0, 2.5, points.shape)
    first, second = places(*points, affine=THICK), places(*moved[::-1], affine=THIN)
    found = match_places(first, second, there, 1.0)
    back = match_places(second, first, there.inverse(), 1.0)
    assert {(i, j) for i, j, _ in found} == {(j, i) for i, j, _ in back}
    assert 20 < len(found) <= 40
    ratios = {(i, j): near.ratio for i, j, near in found}
    assert ratios == pytest.approx({(j, i): near.ratio for i, j, near in back})


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(4)
    points = rng.uniform(-8, 8, (12, 3))
    first, second = places(*points), places(*points[::-1])
    order = rng.permutation(12)
    found = {(i, j) for i, j, _ in match_places(first, second, HERE, 2.0)}
    mixed = match_places([first[i] for i in order], second, HERE, 2.0)
    assert {(order[i], j) for i, j, _ in mixed} == found


def test_true_pairs_pass_the_gate_as_often_as_it_says():
    rng = np.random.default_rng(5)
    one = Place.of((0, 0, 0), 3.0, THICK)
    spread = 2 * one.spread + np.eye(3) * 0.7**2
    offsets = rng.multivariate_normal(np.zeros(3), spread, 20000)
    passed = [
        nearness(one, Place(centre=offset, spread=one.spread), 0.7).plausible for offset in offsets
    ]
    assert 0.9985 < np.mean(passed) < 0.9995


def test_no_lesions_no_pairs():
    assert match_places([], places((0, 0, 0)), HERE, 1.0) == []
    assert match_places(places((0, 0, 0)), [], HERE, 1.0) == []
