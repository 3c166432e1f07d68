"""What became of lesions: every rule, and that every lesion is in the result once."""

from dataclasses import replace

import numpy as np
import pytest

from cmbprep.followup.status import (
    AS_DARK_AROUND,
    BELOW,
    DARK,
    LEAST_PROBABILITY,
    MATCHED,
    Fate,
    follow_lesions,
    unassessed,
)
from cmbprep.spatial.transforms import LinearMap
from tests.followup.madeup import acquisition, candidate, lesion, visit
from tests.followup.painted import seen_visit
from tests.registration import headphantom

HERE = LinearMap(np.eye(4))


def only(first, second, to_second=HERE, **options):
    (fate,) = follow_lesions(first, second, to_second, 0.7, **options)
    return fate


def test_a_lesion_at_both_visits_is_persistent():
    fate = only(visit(lesion(1, (10, 0, 0))), visit(lesion(4, (11, 0, 0), rating="possible")))
    assert (fate.status, fate.reason, fate.rating) == ("persistent", MATCHED, "definite")
    assert (fate.first.index, fate.second.index) == (1, 4)
    assert fate.near.distance_mm == pytest.approx(1)


@pytest.mark.parametrize(("order", "status"), [(1, "new"), (-1, "gone")])
def test_a_lesion_at_one_visit_is_new_or_gone(order, status):
    pair = (visit(), visit(lesion(1, (10, 0, 0))))[::order]
    assert only(*pair).status == status
    assert only(*pair, ordered=False).status == "one visit"


@pytest.mark.parametrize(
    ("probability", "status"),
    [(LEAST_PROBABILITY, "persistent"), (LEAST_PROBABILITY / 2, "new"), (None, "new")],
)
def test_a_candidate_below_the_threshold_is_enough_if_it_was_weighed(probability, status):
    before = visit(candidates=(candidate((10.5, 0, 0), probability),))
    fate = only(before, visit(lesion(1, (10, 0, 0))))
    assert fate.status == status
    if status == "persistent":
        assert (fate.reason, fate.probability, fate.first) == (BELOW, probability, None)


def test_a_candidate_elsewhere_is_not_enough():
    before = visit(candidates=(candidate((20, 0, 0), 0.3),))
    assert only(before, visit(lesion(1, (10, 0, 0)))).status == "new"


def test_one_candidate_stands_for_one_lesion_only():
    before = visit(candidates=(candidate((10, 0, 0), 0.3),))
    fates = follow_lesions(before, visit(lesion(1, (9, 0, 0)), lesion(2, (11.5, 0, 0))), HERE, 0.7)
    assert sorted(fate.status for fate in fates) == ["new", "persistent"]


def test_a_row_that_does_not_count_leaves_the_lesion_not_assessable():
    before = visit(dismissed=(lesion(7, (10, 0, 0)),))
    fate = only(before, visit(lesion(1, (10, 0, 0))))
    assert (fate.status, fate.reason) == ("not assessable", "row 7 there does not count")


def test_two_lesions_where_there_was_one_are_not_called_new():
    before = visit(lesion(3, (10, 0, 0)))
    fates = follow_lesions(before, visit(lesion(1, (9, 0, 0)), lesion(2, (12, 0, 0))), HERE, 0.7)
    assert [fate.status for fate in fates] == ["persistent", "not assessable"]
    assert "too near to lesion 3" in fates[1].reason


def test_a_place_outside_of_the_other_scan_is_not_assessable():
    slab = visit(height=20)
    fate = only(slab, visit(lesion(1, (0, 0, 30))))
    assert (fate.status, fate.reason) == ("not assessable", "outside of the other scan")
    assert only(slab, visit(lesion(1, (0, 0, 10)))).status == "new"


def test_a_place_outside_of_the_other_brain_mask_is_not_assessable():
    small = visit(radius=40)
    fate = only(small, visit(lesion(1, (45, 0, 0))))
    assert fate.reason == "outside of the other scan's brain mask"
    # A lesion at the border of both masks was within reach at both visits.
    assert only(small, visit(lesion(1, (40, 0, 0)), radius=40)).status == "new"


def test_the_place_is_looked_up_through_the_registration():
    there = LinearMap(headphantom.rigid((0, 0, 90), (5, 0, 0)))
    centre = there(np.array([[30.0, 0, 0]]))[0]
    first, second = visit(lesion(1, (30, 0, 0))), visit(lesion(1, centre))
    assert only(first, second, there).status == "persistent"
    slab = visit(height=20)
    up = LinearMap(headphantom.rigid((0, 0, 0), (0, 0, 25)))
    assert only(visit(lesion(1, (0, 0, 0))), slab, up).reason == "outside of the other scan"


def test_a_protocol_that_may_not_have_shown_it_makes_it_not_assessable():
    thick = acquisition(spacing_mm=(1.0, 1.0, 6.0), field_strength=1.5)
    small = lesion(1, (10, 0, 0), diameter_mm=2.5, contrast=0.5)
    fate = only(visit(acquired=thick), visit(small))
    assert fate.status == "not assessable"
    assert fate.reason.startswith("the other scan may not show it")
    large = lesion(1, (10, 0, 0), diameter_mm=7.0, contrast=0.9)
    assert only(visit(acquired=thick), visit(large)).status == "new"
    assert only(visit(), visit(small)).status == "new"


def test_a_detector_without_candidates_says_so():
    fate = only(visit(candidates=None), visit(lesion(1, (10, 0, 0))))
    assert "does not tell its candidates" in fate.reason


def test_every_lesion_is_there_once_and_exchanged_visits_tell_the_same():
    rng = np.random.default_rng(8)
    there = LinearMap(headphantom.rigid((3, -6, 12), (4, 2, -7)))
    points = rng.uniform(-35, 35, (14, 3))
    first = visit(
        *(lesion(n, point) for n, point in enumerate(points[:10], 1)),
        candidates=(candidate(points[11], 0.2),),
    )
    moved = there(points) + rng.normal(0, 0.5, points.shape)
    second = visit(
        *(lesion(n, point) for n, point in enumerate(moved[4:], 1)),
        candidates=(candidate(moved[0], 0.05),),
    )
    fates = follow_lesions(first, second, there, 0.7)
    listed = sorted(fate.first.index for fate in fates if fate.first)
    assert listed == list(range(1, 11))
    assert sorted(fate.second.index for fate in fates if fate.second) == list(range(1, 11))
    back = follow_lesions(second, first, there.inverse(), 0.7)

    def key(fate):
        return (
            fate.first and fate.first.index,
            fate.second and fate.second.index,
            fate.status,
            fate.reason,
        )

    assert set(map(key, fates)) == {key(fate.exchanged) for fate in back}
    assert {fate.status for fate in fates} == {"persistent", "new", "gone"}


def test_a_failed_registration_leaves_every_lesion_not_assessable():
    first, second = visit(lesion(1, (0, 0, 0))), visit(lesion(1, (0, 0, 0)), lesion(2, (9, 9, 9)))
    fates = unassessed(first, second, "it has failed")
    assert [(fate.status, fate.reason) for fate in fates] == [
        ("not assessable", "it has failed")
    ] * 3


def test_a_fate_checks_itself():
    with pytest.raises(ValueError, match="status"):
        Fate(first=lesion(1, (0, 0, 0)), status="healed", reason="x")
    with pytest.raises(ValueError, match="at least"):
        Fate(status="new", reason="x")
    with pytest.raises(ValueError, match="matched"):
        Fate(first=lesion(1, (0, 0, 0)), status="persistent", reason=MATCHED)


# --- With images ---------------------------------------------------------------------------------

SPOT = (9.0, -6.0, 5.0)


def seen(centre=SPOT, **changes):
    return lesion(1, centre, diameter_mm=4.0, contrast=0.8, **changes)


def later(**options):
    return seen_visit(seen(), balls=[(SPOT, 4.0, 0.8)], seed=1, **options)


@pytest.mark.parametrize(
    ("depth", "status", "reason"),
    [
        (0.8, "persistent", DARK),
        (0.65, "persistent", DARK),
        (0.35, "new", "no candidate and no dark spot there"),
        (0.0, "new", "no candidate and no dark spot there"),
    ],
)
def test_a_dark_spot_in_the_other_image_is_enough(depth, status, reason):
    before = seen_visit(balls=[(SPOT, 4.0, depth)])
    fate = only(before, later())
    assert (fate.status, fate.reason) == (status, reason)
    assert fate.loss_part == pytest.approx(depth / 0.8, abs=0.08)
    # Without an image, nobody looks.
    for pair in ((without_image(before), later()), (before, without_image(later()))):
        fate = only(*pair)
        assert (fate.status, fate.reason, fate.loss_part) == ("new", "no candidate there", None)


def without_image(one):
    return replace(one, image=None)


@pytest.mark.parametrize("off", [(1.0, 0, 0), (0, -1.0, 1.0)])
def test_a_spot_within_the_error_of_the_registration_is_found(off):
    before = seen_visit(balls=[(np.add(SPOT, off), 4.0, 0.8)])
    assert only(before, later()).reason == DARK


def test_a_spot_elsewhere_is_not_enough():
    before = seen_visit(balls=[(np.add(SPOT, (7, 0, 0)), 4.0, 0.8)])
    assert only(before, later()).status == "new"


def test_a_dark_place_among_many_is_not_assessable():
    rng = np.random.default_rng(2)
    crowd = [(point, 5.0, 0.9) for point in rng.uniform(-28, 28, (450, 3))]
    before = seen_visit(balls=[*crowd, (SPOT, 4.0, 0.8)])
    fate = only(before, later())
    assert (fate.status, fate.reason) == ("not assessable", AS_DARK_AROUND)
    assert fate.loss_part > 0.65


@pytest.mark.parametrize(
    "where",
    [
        {"spacing": (0.9, 0.9, 4.0)},
        {"codes": "PSR"},
        {"degrees": (15, -10, 25), "codes": "LPS"},
        {"scale": 250.0},
    ],
)
def test_the_images_may_be_stored_in_any_way(where):
    pose = headphantom.rigid((4, -7, 12), (3, -5, 4))
    back = LinearMap(np.linalg.inv(pose))
    there = LinearMap(pose)(np.array([SPOT]))[0]
    options = {"pose": pose, "acquired": acquisition(), **where}
    after = seen_visit(seen(there), balls=[(SPOT, 4.0, 0.8)], **options)
    same = {"acquired": acquisition()}
    assert only(seen_visit(balls=[(SPOT, 4.0, 0.8)], **same), after, back.inverse()).reason == DARK
    assert only(seen_visit(**same), after, back.inverse()).status == "new"
    gone = only(
        seen_visit(seen(), balls=[(SPOT, 4.0, 0.8)], **same), seen_visit(**options), back.inverse()
    )
    assert gone.status == "gone"


def test_a_spot_at_the_edge_of_the_brain_is_found():
    edge = (29.0, 0.0, 0.0)
    after = seen_visit(seen(edge), balls=[(edge, 4.0, 0.8)], seed=1)
    assert only(seen_visit(balls=[(edge, 4.0, 0.8)]), after).reason == DARK
    assert only(seen_visit(), after).status == "new"


def test_a_place_without_values_in_the_other_image_is_not_assessable():
    before = seen_visit()
    image = before.image.copy()
    image[tuple(slice(v - 6, v + 7) for v in voxel_of(before, SPOT))] = np.nan
    fate = only(replace(before, image=image), later())
    assert (fate.status, fate.reason) == ("not assessable", "the other image has no values there")
    # Values that are missing elsewhere do not matter.
    image = before.image.copy()
    image[:20] = np.nan
    assert only(replace(before, image=image), later()).status == "new"


def voxel_of(one, point):
    return np.round((np.linalg.inv(one.affine) @ (*point, 1.0))[:3]).astype(int)


def test_a_lesion_that_is_not_dark_where_it_is_listed_leaves_the_images_out():
    fate = only(seen_visit(), replace(later(), image=np.full_like(later().image, 100)))
    assert (fate.status, fate.reason, fate.loss_part) == ("new", "no candidate there", None)


def test_a_spot_comes_before_what_the_protocol_may_hide():
    small = lesion(1, SPOT, diameter_mm=2.5, contrast=0.3)
    hidden = {"acquired": acquisition(spacing_mm=(1.0, 1.0, 6.0), field_strength=1.5)}
    after = seen_visit(small, balls=[(SPOT, 2.5, 0.3)], seed=1)
    assert only(seen_visit(**hidden), after).reason.startswith("the other scan may not show it")
    assert only(seen_visit(balls=[(SPOT, 2.5, 0.3)], **hidden), after).reason == DARK


def test_one_dark_spot_stands_for_one_lesion_only():
    two = [lesion(n, np.add(SPOT, (x, 0, 0)), diameter_mm=3.0) for n, x in ((1, -1.6), (2, 1.6))]
    balls = [(item.centre, 3.0, 0.8) for item in two]
    after = seen_visit(*two, balls=balls, seed=1)
    for before in (
        seen_visit(balls=[(SPOT, 5.0, 0.8)]),
        seen_visit(balls=[(SPOT, 5.0, 0.8)], candidates=(candidate(SPOT, 0.2),)),
    ):
        fates = follow_lesions(before, after, HERE, 0.7)
        assert sorted(fate.status for fate in fates) == ["not assessable", "persistent"]
        assert any("too near to what stands for another" in fate.reason for fate in fates)


def test_with_images_exchanged_visits_tell_the_same():
    first = seen_visit(
        seen(), lesion(2, (-12, 8, 0)), balls=[(SPOT, 4.0, 0.8), ((-12, 8, 0), 4.0, 0.6)]
    )
    second = seen_visit(
        lesion(1, (0, 15, 6)), balls=[((0, 15, 6), 4.0, 0.6), ((-12, 8, 0), 4.0, 0.6)], seed=1
    )
    fates = follow_lesions(first, second, HERE, 0.7)
    assert [fate.status for fate in fates] == ["gone", "persistent", "new"]
    back = follow_lesions(second, first, HERE, 0.7)
    assert {fate.exchanged for fate in back} == set(fates)
