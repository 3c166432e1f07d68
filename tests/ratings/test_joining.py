"""Lesions of several readers that are the same one, on a made-up scan whose readers differ.

The made-up lesions lie 16 mm and more apart, so that no distance makes two of them one.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.consensus import disagree, find_reviews, match_lesions, reviewed_scan
from cmbprep.ratings.joining import Seen, join
from cmbprep.ratings.reading import read_scan
from cmbprep.ratings.replay import Item
from cmbprep.ratings.reviewed import ReviewedLesion
from cmbprep.ratings.store import Reader
from tests.ratings.madeup import MISSED, SPOTS, automatic, make_dataset, ras, rows_of
from tests.ratings.test_reviewed import END, store, verdict

MERGE = {"type": "merge", "lesions": ["L1", "L3"]}
SPLIT = {"type": "split", "lesion": "N1", "centres": [list(ras(SPOTS[k])) for k in ("L1", "L3")]}
BOTH = [verdict("L1", "definite"), verdict("L3", "possible")]
MERGES = [*BOTH, verdict("L2", "rejected", "vein"), MERGE, END]
KEEPS = [*BOTH, verdict("L2", "rejected", "artefact"), END]
HALF = [verdict("L1", "definite"), verdict("L3", "rejected"), verdict("L2", "rejected"), END]
NONE = [verdict(key, "rejected", "vein") for key in ("L1", "L2", "L3")] + [END]
AGAIN = [*MERGES[:-1], SPLIT, END]


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "out")


def read_by(dataset, *logs):
    scan = automatic(dataset)
    for number, contents in enumerate(logs):
        store(dataset, scan, Reader(name=["Anna", "Ben", "Cleo"][number]), *contents)
    return scan


def readings(scan, rule):
    """Return index -> rating of what counts, and the indices of what is called rejected."""
    found = read_scan(scan, ReaderChoice(rule=rule))
    assert found.lesions == reviewed_scan(scan, rule=rule).lesions
    counted = {lesion.index: lesion.rating for lesion in found.lesions}
    return counted, [row.lesion.index for row in found.rejected]


@pytest.mark.parametrize("rule", ["any", "all", "majority"])
@pytest.mark.parametrize(
    ("logs", "counted"),
    [
        # Who finished first decides on the number of lesions at a place that is disputed.
        ((MERGES, KEEPS), {4: "definite"}),
        ((KEEPS, MERGES), {1: "definite", 3: "possible/definite"}),
        # Most readers have two lesions there, whoever is first.
        ((MERGES, KEEPS, KEEPS), {1: "definite", 3: "possible"}),
        ((KEEPS, MERGES, MERGES), {4: "definite"}),
    ],
)
def test_what_one_reader_merges_is_no_disagreement_on_microbleeds(dataset, rule, logs, counted):
    scan = read_by(dataset, *logs)
    found, rejected = readings(scan, rule)
    # By "any", a merged lesion that is definite makes both of its parts so.
    expected = {k: v.split("/")[rule == "any"] if "/" in v else v for k, v in counted.items()}
    if logs == (MERGES, KEEPS, KEEPS) and rule == "any":
        expected[3] = "definite"
    assert found == expected
    assert rejected == [2], "what counts as a part of a lesion is not rejected as well"
    assert disagree(find_reviews(scan)) is True, "how many there are is to be settled"


def test_the_change_of_a_merged_lesion_is_named(dataset):
    scan = read_by(dataset, MERGES, KEEPS)
    found = read_scan(scan, ReaderChoice(rule="all"))
    assert [row.change for row in found.rows if row.counted] == ["merged"]
    labels = found.labels
    assert labels[SPOTS["L1"]] == labels[SPOTS["L3"]] == 4


@pytest.mark.parametrize("logs", [(MERGES, HALF), (HALF, MERGES)])
def test_a_reader_who_has_a_part_has_the_lesion(dataset, logs):
    scan = read_by(dataset, *logs)
    found, rejected = readings(scan, "all")
    assert list(found.values()) == ["definite"] and len(found) == 1
    assert rejected == ([2] if 4 in found else [2, 3])


def test_a_merged_lesion_that_the_other_rejects_counts_by_any_alone(dataset):
    scan = read_by(dataset, MERGES, NONE)
    assert readings(scan, "all") == ({}, [1, 2, 3])
    assert readings(scan, "majority") == ({}, [1, 2, 3])
    assert readings(scan, "any") == ({4: "definite"}, [2])


def test_parts_of_two_readers_are_not_lost_by_any(dataset):
    """Anna has the one part, Cleo the other, and Ben both as one lesion."""
    other = [verdict("L3", "definite"), verdict("L1", "rejected"), verdict("L2", "rejected"), END]
    scan = read_by(dataset, HALF, MERGES, other)
    assert sorted(readings(scan, "any")[0]) == [1, 3]
    assert sorted(readings(scan, "majority")[0]) == [1, 3]
    assert readings(scan, "all")[0] == {}


def test_split_lesions_are_those_of_the_reader_who_kept_them(dataset):
    """A split of what was merged gives the same two lesions back."""
    scan = read_by(dataset, AGAIN, KEEPS)
    found = match_lesions(find_reviews(scan))
    assert [sorted(match.rows) for match in found] == [[0, 1], [0, 1]]
    # Each is matched to the nearer part.
    for match in found:
        one, other = (np.array(row.lesion.centre) for row in match.rows.values())
        assert np.linalg.norm(one - other) < 2
    assert sorted(readings(scan, "all")[0]) == [4, 5], "of the first reader"


MOVE = {"type": "move", "lesion": "L1", "centre_ras": list(ras(MISSED))}


def test_a_lesion_moved_to_another_place_is_another_lesion(dataset):
    """Anna moves L1 by 20 mm; Ben keeps it where the detector has it."""
    scan = read_by(dataset, [*KEEPS[:-1], MOVE, END], KEEPS)
    assert readings(scan, "all") == ({3: "possible"}, [1, 2])
    assert readings(scan, "any")[0] == {1: "definite", 3: "possible", 4: "definite"}
    found = {row.lesion.index: row for row in read_scan(scan, ReaderChoice(rule="any")).rows}
    assert np.allclose(found[1].lesion.centre, ras(SPOTS["L1"]), atol=0.5)
    assert np.allclose(found[4].lesion.centre, ras(MISSED), atol=0.5)
    (rejected,) = [
        row for row in read_scan(scan, ReaderChoice(rule="all")).rejected if row.lesion.index == 1
    ]
    assert np.allclose(rejected.lesion.centre, ras(SPOTS["L1"]), atol=0.5)
    assert disagree(find_reviews(scan)) is True


def test_two_readers_who_move_a_lesion_to_the_same_place_agree(dataset):
    near = {**MOVE, "centre_ras": list(ras((MISSED[0] + 1, *MISSED[1:])))}
    scan = read_by(dataset, [*KEEPS[:-1], MOVE, END], [*KEEPS[:-1], near, END])
    assert readings(scan, "all") == ({1: "definite", 3: "possible"}, [2])
    assert disagree(find_reviews(scan)) is False


def made(key: str, x: float, verdict_: str = "definite") -> ReviewedLesion:
    lesion = next(iter(rows_of(1)))
    lesion = type(lesion)(**{**vars(lesion), "x": x, "y": 0.0, "z": 0.0, "rating": verdict_})
    return ReviewedLesion(lesion=lesion, item=Item(key=key, verdict=verdict_), automatic_index=None)


def added(*places: float) -> list[Seen]:
    return [Seen(made(f"N{i}", x), frozenset()) for i, x in enumerate(places, start=1)]


def test_as_many_added_lesions_as_possible_are_matched():
    """Nearest first would join 4 and 5 mm and leave 0 and 9 mm alone, each within 5 mm of one."""
    found = join([added(0.0, 5.0), added(4.0, 9.0)])
    assert sorted(sorted(row.lesion.x for row in match.rows.values()) for match in found) == [
        [0.0, 4.0],
        [5.0, 9.0],
    ]


def test_the_order_of_acts_and_readers_changes_no_match():
    seen = None
    for order in permutations([added(0.0, 5.0, 30.0), added(9.0, 4.0), added(30.5)]):
        for lesions in (order, [list(reversed(own)) for own in order]):
            found = {
                tuple(sorted(row.lesion.x for row in match.rows.values()))
                for match in join(lesions)
            }
            seen = found if seen is None else seen
            assert found == seen
    assert seen == {(0.0, 4.0), (5.0, 9.0), (30.0, 30.5)}


def test_lesions_further_apart_than_the_limit_are_two():
    assert [len(match.rows) for match in join([added(0.0), added(5.0)])] == [2]
    assert [len(match.rows) for match in join([added(0.0), added(5.01)])] == [1, 1]


def test_a_lesion_that_is_added_where_another_accepts_a_candidate_is_the_same(dataset):
    missed = {"type": "add", "centre_ras": list(ras(SPOTS["C4"])), "verdict": "definite"}
    rejected = NONE[:-1]
    scan = read_by(dataset, [*rejected, missed, END], [*rejected, verdict("C4", "definite"), END])
    assert len(readings(scan, "all")[0]) == 1
    assert disagree(find_reviews(scan)) is False
