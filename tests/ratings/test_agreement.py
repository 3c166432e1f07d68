"""Agreement of two raters, against figures counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbprep.ratings.agreement import (
    MIN_PARTICIPANTS,
    Comparison,
    PairedScan,
    Reading,
    Spot,
    compare,
    match_spots,
)

CLASSES = {"count": 4}


def burden(number: int) -> int:
    """Class of a number on the scale 0, 1, 2-4, 5 or more."""
    return sum(number >= limit for limit in (1, 2, 5))


def reading(keys="", *, extra=(), pattern="strictly lobar", chance=None):
    """Return lesions 1, 2, ... of a digit each, and others at some mm along an axis."""
    spots = [
        Spot(centre=(100.0 * int(key), 0, 0), key=f"L{key}", probability=chance) for key in keys
    ]
    spots += [Spot(centre=(0, float(x), 0), probability=chance) for x in extra]
    return Reading(
        spots=tuple(spots),
        pattern=pattern if spots else "none",
        burden={"count": burden(len(spots))},
    )


def comparison(pairs, kind="readers", protocols=None, subjects=None):
    return Comparison(
        kind=kind,
        first="Anna",
        second="Bob",
        lesions="definite",
        classes=CLASSES,
        scans=tuple(
            PairedScan(
                subject=subjects[number] if subjects else f"{number:02d}",
                protocol=protocols[number] if protocols else "P",
                first=first,
                second=second,
            )
            for number, (first, second) in enumerate(pairs)
        ),
    )


def figures_of(pairs, **options):
    draws = options.pop("n_draws", 200)
    found = compare(comparison(pairs, **options), n_draws=draws)
    return {item.figure.name: item for item in found if item.protocol is None}


#: Numbers of lesions: Anna 2 2 1 0 0, Bob 2 1 2 0 1; matched 2 1 1 0 0.
PAIRS = [
    (reading("12"), reading("12")),
    (reading("12"), reading("2")),
    (reading("1"), reading("12")),
    (reading(), reading()),
    (reading(), reading("3", pattern="mixed")),
]


def test_figures_counted_by_hand():
    found = figures_of(PAIRS)
    value = {name: item.value for name, item in found.items()}
    # Both 3, neither 1, only Bob 1: observed 4/5, by chance (3 x 4 + 2 x 1) / 25.
    assert value["presence_kappa"] == pytest.approx((0.8 - 0.56) / (1 - 0.56))
    # Anna: 3 lobar, 2 none. Bob: 3 lobar, 1 none, 1 mixed. By chance (9 + 2) / 25.
    assert value["pattern_kappa"] == pytest.approx((0.8 - 0.44) / (1 - 0.44))
    assert value["lesion_f1"] == pytest.approx(2 * 4 / (5 + 6))
    assert value["lesion_sensitivity"] == pytest.approx(4 / 5)
    assert value["lesion_precision"] == pytest.approx(4 / 6)
    # Differences 0 -1 1 0 1: mean 0.2, variance 2.8 / 4.
    assert value["count_difference"] == pytest.approx(0.2)
    assert value["count_limit_high"] == pytest.approx(0.2 + 1.96 * np.sqrt(0.7))
    assert value["count_limit_low"] == pytest.approx(0.2 - 1.96 * np.sqrt(0.7))
    # Scan means 2 1.5 1.5 0 0.5, grand mean 1.1: mean squares 5.4/4 (scans), 0.1 (raters), and
    # 1.4/4 (error), since the sum of squares is 6.9.
    assert value["count_icc"] == pytest.approx((1.35 - 0.35) / (1.35 + 0.35 + 2 * (0.1 - 0.35) / 5))
    # Classes: Anna 2 2 1 0 0, Bob 2 1 2 0 1, of 0 to 3: three neighbours of five differ by 1/3.
    chance = sum(abs(a - b) / 3 for a in (2, 2, 1, 0, 0) for b in (2, 1, 2, 0, 1)) / 25
    assert value["burden_count_kappa"] == pytest.approx(1 - (3 / 3 / 5) / chance)
    assert all(item.n_scans == item.n_participants == 5 for item in found.values())
    assert "calibration_error" not in found, "readers have no probabilities"


def test_each_interval_holds_its_figure():
    for item in figures_of(PAIRS * 4, subjects=[f"{n}" for n in range(20)]).values():
        assert item.low < item.value < item.high, item.figure.name


@given(
    st.lists(
        st.tuples(st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6))), min_size=5, max_size=8
    )
)
def test_readers_can_be_swapped(sets):
    pairs = [tuple(reading("".join(map(str, sorted(s)))) for s in two) for two in sets]
    one = {k: v.value for k, v in figures_of(pairs, n_draws=0).items()}
    two = {k: v.value for k, v in figures_of([p[::-1] for p in pairs], n_draws=0).items()}
    for name in ("presence_kappa", "pattern_kappa", "burden_count_kappa", "count_icc", "lesion_f1"):
        assert one[name] == pytest.approx(two[name]), name
    assert one["lesion_sensitivity"] == pytest.approx(two["lesion_precision"])
    assert one["count_difference"] == pytest.approx(-two["count_difference"])
    assert one["count_limit_low"] == pytest.approx(-two["count_limit_high"])


def test_readers_who_agree_on_everything():
    pairs = [(reading(keys), reading(keys)) for keys in ("", "1", "12", "12345", "", "13")]
    found = figures_of(pairs)
    for name in ("presence_kappa", "pattern_kappa", "burden_count_kappa", "count_icc", "lesion_f1"):
        assert found[name].value == pytest.approx(1), name
        assert found[name].low is None
        assert "same in every bootstrap sample" in found[name].note
    assert found["count_difference"].value == 0


def test_readers_who_share_no_lesion():
    found = figures_of([(reading("1"), reading("2")) for _ in range(6)])
    assert found["lesion_f1"].value == 0
    assert found["presence_kappa"].value is None
    assert found["presence_kappa"].note.endswith("put every scan into one class")


def test_a_cohort_without_any_lesion_has_no_figures_but_the_difference():
    found = figures_of([(reading(), reading()) for _ in range(6)])
    assert found["count_difference"].value == 0
    assert found["lesion_f1"].note == "neither rater has a lesion"
    assert found["count_icc"].note.endswith("do not vary")
    assert found["pattern_kappa"].value is None


def test_a_rater_who_says_the_same_of_every_scan_has_no_kappa():
    # Chance explains all agreement with such a rater: kappa would be 0, however often they agree.
    found = figures_of([(reading("1"), reading("1"))] * 9 + [(reading(), reading("1"))])
    for name in ("presence_kappa", "pattern_kappa", "burden_count_kappa", "count_icc"):
        assert found[name].value is None, name
        assert found[name].note.startswith(("one of the raters", "the numbers")), name
    assert found["lesion_f1"].value == pytest.approx(18 / 19)


def test_few_participants_have_no_figures():
    subjects = ["a", "a", "b", "b", "c"]
    for item in figures_of(PAIRS, subjects=subjects).values():
        assert item.value is None
        assert item.note == f"fewer than {MIN_PARTICIPANTS} participants"
        assert (item.n_scans, item.n_participants) == (5, 3)


def test_scans_without_a_pattern_are_left_out_of_its_figure():
    pairs = [*PAIRS, (reading("1", pattern=None), reading("1"))]
    found = figures_of(pairs)
    assert found["pattern_kappa"].n_scans == 5
    assert found["presence_kappa"].n_scans == 6


def test_protocols_are_told_apart_where_there_are_several():
    protocols = ["P"] * 5 + ["Q"] * 5
    pairs = [*PAIRS, *[(reading("1"), reading("1"))] * 4, (reading(), reading())]
    found = compare(comparison(pairs, protocols=protocols), n_draws=0)
    f1 = {item.protocol: item for item in found if item.figure.name == "lesion_f1"}
    assert f1[None].value == pytest.approx(2 * 8 / (9 + 10))
    assert f1["P"].value == pytest.approx(8 / 11)
    assert f1["Q"].value == 1
    assert {item.protocol for item in compare(comparison(PAIRS), n_draws=0)} == {None}


def test_the_detector_on_the_cohort_of_a_reader():
    # 20 lesions listed at 0.9, of which the reader confirms 15 and adds one more to each scan.
    pairs = [(reading("123", extra=(50,)), reading("1234", chance=0.9)) for _ in range(5)]
    found = figures_of(pairs, kind="machine")
    assert found["lesion_sensitivity"].value == pytest.approx(3 / 4)
    assert found["false_positives_per_scan"].value == pytest.approx(1)
    assert found["calibration_error"].value == pytest.approx(0.9 - 0.75)
    assert found["presence_sensitivity"].value == 1
    assert found["presence_specificity"].note == "the reader has no scan without a microbleed"
    few = figures_of([(reading("1"), reading("1", chance=0.9))] * 6, kind="machine")
    assert few["calibration_error"].value is None
    assert "fewer than 20" in few["calibration_error"].note


def test_the_same_seed_gives_the_same_interval():
    pair = comparison(PAIRS)
    assert compare(pair, seed=3, n_draws=50) == compare(pair, seed=3, n_draws=50)


def test_lesions_of_one_key_are_the_same_unless_they_were_moved_away():
    first = [Spot(centre=(0, 0, 0), key="L1"), Spot(centre=(1, 0, 0))]
    second = [Spot(centre=(1, 0, 0)), Spot(centre=(4, 0, 0), key="L1")]
    assert match_spots(first, second, 5.0) == [(0, 1), (1, 0)]
    # Further away, the key says nothing, and what lies near is matched.
    assert match_spots(first, second, 2.9) == [(1, 0)]
    moved = [Spot(centre=(30, 0, 0), key="L1")]
    assert match_spots(first[:1], moved, 5.0) == []


def test_other_lesions_are_matched_one_to_one_within_the_distance():
    first = [Spot(centre=(x, 0, 0)) for x in (0, 4, 50)]
    second = [Spot(centre=(x, 0, 0)) for x in (3, 8.5, 55)]
    # The nearest first would take 4 and 3, and lose 0.
    assert sorted(match_spots(first, second, 5.0)) == [(0, 0), (1, 1), (2, 2)]
    assert sorted(match_spots(first, second, 4.9)) == [(0, 0), (1, 1)]
    assert sorted(match_spots(second, first, 4.9)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Spot(centre=(0, 0, np.inf)),
        lambda: Spot(centre=(0, 0, 0), probability=1.5),
        lambda: Reading(spots=(Spot(centre=(0, 0, 0), key="L1"),) * 2, burden={}),
        lambda: comparison(PAIRS, kind="friends"),
    ],
)
def test_values_check_themselves(wrong):
    with pytest.raises(ValueError, match=r"."):
        wrong()
