"""One scan: hits, misses and false positives, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cmbprep.lab.evaluate.matching import LesionSet, Mark, Rule
from cmbprep.lab.evaluate.reading import marks_of_labels
from cmbprep.lab.evaluate.scoring import DUPLICATE, ELSEWHERE, score_scan


def lesions(*marks: Mark) -> LesionSet:
    return LesionSet(marks=marks)


def mark(index: int, x: float, **values) -> Mark:
    return Mark(index=index, centre=(x, 0.0, 0.0), **values)


def score(truth, predicted, rule=None, **values):
    return score_scan(truth, predicted, rule or Rule(), scan="sub-1", subject="1", **values)


def counts(result):
    return len(result.hits), len(result.misses), len(result.false_positives)


def block(*boxes, spacing=1.0, first=0.0, shape=(40, 12, 12)) -> LesionSet:
    """Lesions from boxes (start, stop) along the first axis, 4 x 4 voxels across."""
    labels = np.zeros(shape, dtype=np.int32)
    for number, (start, stop) in enumerate(boxes, start=1):
        labels[start:stop, 4:8, 4:8] = number
    affine = np.diag([spacing, 1.0, 1.0, 1.0])
    affine[0, 3] = first
    return LesionSet(marks=marks_of_labels(labels, affine), labels=labels, affine=affine)


def test_counts():
    truth = lesions(mark(1, 0), mark(2, 20), mark(3, 40))
    found = lesions(mark(1, 1), mark(2, 24), mark(3, 60), mark(4, 80))
    result = score(truth, found)
    assert counts(result) == (2, 1, 2)
    assert [hit.distance_mm for hit in result.hits] == pytest.approx([1, 4])
    assert result.misses[0].index == 3
    assert result.truth_count == 3
    assert result.predicted_count == 4


def test_empty_truth_and_empty_prediction():
    some = lesions(mark(1, 0))
    assert counts(score(lesions(), some)) == (0, 0, 1)
    assert counts(score(some, lesions())) == (0, 1, 0)
    assert counts(score(lesions(), lesions())) == (0, 0, 0)


def test_no_prediction_at_all_is_told_from_an_empty_one():
    result = score(lesions(mark(1, 0)), None)
    assert counts(result) == (0, 1, 0)
    assert result.predicted_missing
    assert not score(lesions(mark(1, 0)), lesions()).predicted_missing


def test_two_predictions_on_one_lesion():
    result = score(lesions(mark(1, 0)), lesions(mark(1, 2), mark(2, -1)))
    assert counts(result) == (1, 0, 1)
    assert result.hits[0].predicted.index == 2
    assert result.false_positives[0].origin == DUPLICATE


@pytest.mark.parametrize("match", ["centroid", "overlap"])
def test_one_prediction_spanning_two_lesions(match):
    truth, found = block((10, 12), (14, 16)), block((9, 17))
    assert counts(score(truth, found, Rule(match=match))) == (1, 1, 0)


def test_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(1)
    true = [Mark(index=i, centre=tuple(rng.integers(0, 12, 3))) for i in range(1, 13)]
    found = [
        Mark(index=i, centre=tuple(rng.integers(0, 12, 3)), probability=0.5) for i in range(1, 16)
    ]

    def pairs(a, b):
        return {
            (hit.truth.index, hit.predicted.index) for hit in score(lesions(*a), lesions(*b)).hits
        }

    first = pairs(true, found)
    for _ in range(5):
        shuffled = [true[i] for i in rng.permutation(len(true))]
        others = [found[i] for i in rng.permutation(len(found))]
        assert pairs(shuffled, others) == first


def test_lesions_that_cannot_be_seen_are_left_out_of_account():
    truth = lesions(mark(1, 0), mark(2, 20, visible=False), mark(3, 40, visible=False))
    found = lesions(mark(1, 21), mark(2, 19), mark(3, 60))
    result = score(truth, found)
    assert counts(result) == (0, 1, 1)  # both predictions on lesion 2 are excused
    assert {m.index for m in result.ignored_predicted} == {1, 2}
    assert {m.index for m in result.ignored_truth} == {2, 3}
    assert counts(score(truth, found, Rule(count_invisible=True))) == (1, 2, 2)


def test_a_visible_lesion_comes_before_an_invisible_one():
    truth = lesions(mark(1, 0, visible=False), mark(2, 4))
    result = score(truth, lesions(mark(1, 1)))
    assert counts(result) == (1, 0, 0)
    assert result.ignored_predicted == ()


def test_overlap_by_intersection_over_union():
    # 4 of 6 slices in common: IoU 4 / 8.
    truth, found = block((10, 16)), block((12, 18))
    assert counts(score(truth, found, Rule(match="overlap", min_overlap=0.5))) == (1, 0, 0)
    assert counts(score(truth, found, Rule(match="overlap", min_overlap=0.51))) == (0, 1, 1)
    assert score(truth, found).hits[0].dice == pytest.approx(2 * 4 / 12)


def test_hidden_lesions_without_voxels_excuse_what_touches_them():
    truth, found = block((10, 14)), block((10, 14), (30, 34))
    hidden = Mark(index=9, centre=(34.0, 5.5, 5.5), diameter_mm=2.0, visible=False)
    truth = LesionSet(marks=(*truth.marks, hidden), labels=truth.labels, affine=truth.affine)
    assert counts(score(truth, found, Rule(match="overlap"))) == (1, 0, 0)
    assert counts(score(block((10, 14)), found, Rule(match="overlap"))) == (1, 0, 1)


def test_overlap_is_of_the_images_whatever_the_tables_say():
    truth, found = block((10, 16)), block((12, 18))
    marks = tuple(replace(mark, volume_mm3=1.0, diameter_mm=1.0) for mark in found.marks)
    found = replace(found, marks=marks)
    rule = Rule(match="overlap", min_overlap=0.5)
    assert counts(score(truth, found, rule)) == (1, 0, 0)
    assert score(truth, found).hits[0].dice == pytest.approx(2 * 4 / 12)


def test_overlap_needs_voxels():
    with pytest.raises(ValueError, match="voxels"):
        score(lesions(mark(1, 0)), lesions(mark(1, 0)), Rule(match="overlap"))


def test_volume_difference_and_dice():
    result = score(block((10, 14)), block((10, 15)))
    (hit,) = result.hits
    assert hit.volume_difference == pytest.approx(0.25)
    assert hit.dice == pytest.approx(2 * 4 / 9)
    bare = score(lesions(mark(1, 0, volume_mm3=8)), lesions(mark(1, 0, volume_mm3=6)))
    assert bare.hits[0].dice is None
    assert bare.hits[0].volume_difference == pytest.approx(-0.25)


def test_finer_grid_of_the_prediction_changes_nothing():
    truth = block((10, 14))
    # The first of the half voxels begins at the edge of the first whole one.
    fine = block((20, 28), spacing=0.5, first=-0.25, shape=(80, 12, 12))
    (hit,) = score(truth, fine).hits
    assert hit.distance_mm == pytest.approx(0)
    assert hit.dice == pytest.approx(1)
    assert hit.volume_difference == pytest.approx(0)


def test_steps_are_matched_again_at_every_threshold():
    # At 0.9 only the far one is listed and is the hit; from 0.5 on the near one is.
    truth = lesions(mark(1, 0))
    found = lesions(
        mark(1, 4, probability=0.9), mark(2, 1, probability=0.5), mark(3, 50, probability=0.7)
    )
    steps = score(truth, found).steps
    assert steps is not None
    np.testing.assert_allclose(steps.thresholds, [0.9, 0.7, 0.5])
    np.testing.assert_array_equal(steps.hits, [1, 1, 1])
    np.testing.assert_array_equal(steps.false, [0, 1, 2])


def test_last_step_is_the_operating_point():
    rng = np.random.default_rng(7)
    truth = lesions(
        *(
            Mark(index=i, centre=tuple(rng.uniform(0, 25, 3)), visible=bool(rng.random() > 0.3))
            for i in range(1, 20)
        )
    )
    found = lesions(
        *(
            Mark(index=i, centre=tuple(rng.uniform(0, 25, 3)), probability=round(rng.random(), 2))
            for i in range(1, 60)
        )
    )
    result = score(truth, found)
    assert result.steps.hits[-1] == len(result.hits)
    assert result.steps.false[-1] == len(result.false_positives)
    assert np.all(np.diff(result.steps.hits) >= 0)


def test_without_probabilities_there_are_no_steps():
    assert score(lesions(mark(1, 0)), lesions(mark(1, 0))).steps is None
    assert score(lesions(mark(1, 0)), lesions()).steps is not None


def test_false_positives_on_mimics():
    mimics = lesions(
        mark(1, 0, kind="vein", diameter_mm=4.0),
        mark(2, 10, kind="calcification", diameter_mm=2.0),
    )
    # 3.9 mm from the vein's centre is 1.9 mm from its sphere; 14 is 3 mm from the other's.
    found = lesions(mark(1, -3.9), mark(2, 10.5), mark(3, 14), mark(4, 70))
    result = score(lesions(), found, mimics=mimics, mimic_distance_mm=2.0)
    assert [(fp.predicted.index, fp.origin, fp.mimic_index) for fp in result.false_positives] == [
        (1, "vein", 1),
        (2, "calcification", 2),
        (3, ELSEWHERE, None),
        (4, ELSEWHERE, None),
    ]


def test_a_long_mimic_is_met_by_its_voxels_not_its_centre():
    vein = block((2, 38))
    vein = LesionSet(
        marks=(Mark(index=1, centre=vein.marks[0].centre, kind="vein"),),
        labels=vein.labels,
        affine=vein.affine,
    )
    at_its_end = Mark(index=1, centre=(36.0, 5.0, 9.0))  # 2 mm above its last voxels
    result = score(lesions(), lesions(at_its_end), mimics=vein, mimic_distance_mm=2.0)
    assert result.false_positives[0].origin == "vein"
    result = score(lesions(), lesions(at_its_end), mimics=vein, mimic_distance_mm=1.9)
    assert result.false_positives[0].origin == ELSEWHERE


def test_of_two_mimics_under_a_mark_the_one_with_most_voxels_in_common_is_its_origin():
    labels = block((0, 12), (12, 20)).labels
    mimics = LesionSet(
        marks=(
            Mark(index=1, centre=(6.0, 5.5, 5.5), kind="vein", extended=True),
            Mark(index=2, centre=(16.0, 5.5, 5.5), kind="calcification"),
        ),
        labels=labels,
        affine=np.eye(4),
    )
    for box, origin in (((10, 16), "calcification"), ((8, 14), "vein")):
        result = score(lesions(), block(box), mimics=mimics)
        assert [fp.origin for fp in result.false_positives] == [origin]


def test_an_extended_mimic_without_voxels_is_nowhere():
    veins = Mark(index=1, centre=(0.0, 0.0, 0.0), kind="vein", volume_mm3=9000.0, extended=True)
    result = score(lesions(), lesions(mark(1, 1)), mimics=lesions(veins))
    assert result.false_positives[0].origin == ELSEWHERE


def test_small_lesions_can_be_left_out_of_account():
    truth = lesions(
        mark(1, 0, diameter_mm=1.9994),
        mark(2, 20, diameter_mm=1.9996),  # 2.000 as the tables have it
        mark(3, 40, diameter_mm=4.0, visible=False),
        mark(4, 60),  # of unknown size
        mark(5, 80, diameter_mm=1.0),
    )
    found = lesions(mark(1, 0), mark(2, 40))
    assert counts(score(truth, found)) == (1, 3, 0)
    result = score(truth, found, Rule(min_diameter_mm=2.0))
    assert counts(result) == (0, 2, 0)
    assert {m.index for m in result.misses} == {2, 4}
    assert {m.index for m in result.ignored_predicted} == {1, 2}
    rule = Rule(min_diameter_mm=2.0, count_invisible=True)
    assert counts(score(truth, found, rule)) == (1, 2, 0)
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="smallest diameter"):
            Rule(min_diameter_mm=wrong)


def test_marks_check_themselves():
    for wrong in (
        {"index": 0},
        {"centre": (0, 0, float("nan"))},
        {"probability": 1.2},
        {"volume_mm3": -1},
    ):
        with pytest.raises(ValueError, match=r"lesion|index"):
            Mark(**({"index": 1, "centre": (0, 0, 0)} | wrong))
    with pytest.raises(ValueError, match="same index"):
        lesions(mark(1, 0), mark(1, 5))


def test_size_of_a_sphere():
    assert mark(1, 0, diameter_mm=2.0).volume_mm3 == pytest.approx(np.pi * 4 / 3)
    assert mark(1, 0, volume_mm3=np.pi / 6 * 27).diameter_mm == pytest.approx(3)
