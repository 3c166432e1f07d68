"""No two lesions that count are the same one, by whichever act."""

from __future__ import annotations

import itertools
import random
from contextlib import suppress

import pytest

from cmbprep.ratings.acts import Act, parse_payload
from cmbprep.ratings.completing import complete
from cmbprep.ratings.replay import POSITIVE, RefusedActError, check, number_new, replay
from cmbprep.ratings.segmenting import Segmenter
from tests.ratings.madeup import MISSED, SPOTS, automatic, make_dataset, ras
from tests.ratings.test_reviewed import acts_of, verdict

#: Two candidates are in the listed lesion L1, and two on the spot that the detector missed.
DOUBLES = {
    **SPOTS,
    "C6": (12, 25, 12),
    "C7": (13, 24, 12),
    "C8": MISSED,
    "C9": (MISSED[0] + 1, *MISSED[1:]),
}
ADD = {"type": "add", "centre_ras": list(ras(MISSED))}
REJECTED = verdict("L1", "rejected")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    root = make_dataset(tmp_path_factory.mktemp("doubles") / "out", spots=DOUBLES)
    return automatic(root)


def move(lesion: str, place: str) -> dict:
    return {"type": "move", "lesion": lesion, "centre_ras": list(ras(DOUBLES[place]))}


def split(lesion: str, *voxels: tuple[float, float, float]) -> dict:
    return {"type": "split", "lesion": lesion, "centres": [list(ras(one)) for one in voxels]}


@pytest.mark.parametrize(
    ("acts", "last", "there"),
    [
        ([REJECTED, verdict("C6", "definite")], verdict("C7", "possible"), "C6"),
        ([REJECTED, verdict("C6", "definite")], verdict("L1", "definite"), "C6"),
        ([verdict("L1", "definite")], verdict("C6", "definite"), "L1"),
        ([verdict("C6", "later"), verdict("L1", "possible")], verdict("C6", "definite"), "L1"),
        ([ADD], verdict("C8", "definite"), "N1"),
        ([verdict("C8", "possible")], ADD, "C8"),
        ([verdict("C8", "rejected"), verdict("C9", "possible")], verdict("C8", "possible"), "C9"),
        ([], move("L2", "L3"), "L3"),
        ([verdict("L3", "definite")], move("C4", "L3"), "L3"),
        ([verdict("C8", "definite")], move("L2", "C9"), "C8"),
        (
            [REJECTED, verdict("C6", "definite")],
            {"type": "merge", "lesions": ["L1", "C4"]},
            None,
        ),
        (
            [REJECTED, verdict("C6", "definite"), verdict("C4", "definite")],
            {"type": "merge", "lesions": ["L1", "C4"]},
            "C6",
        ),
        ([REJECTED, {"type": "undo"}, {"type": "redo"}], verdict("C6", "definite"), None),
    ],
)
def test_a_lesion_does_not_count_twice(scan, acts, last, there):
    if there is None:
        acts_of(scan, *acts, last)
        return
    acts_of(scan, *acts)
    with pytest.raises(RefusedActError, match=f"the lesion {there} is at this place already"):
        acts_of(scan, *acts, last)


@pytest.mark.parametrize("value", ["rejected", "undecided", "later"])
def test_a_double_that_does_not_count_may_be_judged(scan, value):
    acts = acts_of(scan, verdict("L1", "definite"), verdict("C6", value), move("L1", "L1"))
    assert [item.key for item in replay(acts, scan.by_key).positive] == ["L1"]


def test_a_part_of_a_split_lesion_is_not_another_lesion(scan):
    i, j, k = SPOTS["L1"]
    parts = split("L1", (i - 1, j, k), (i + 1, j, k))
    acts = acts_of(scan, REJECTED, verdict("C6", "definite"), parts)
    assert [item.key for item in replay(acts, scan.by_key).positive] == ["C6"]
    with pytest.raises(RefusedActError, match="C6 is at this place"):
        acts_of(scan, REJECTED, verdict("C6", "definite"), parts, verdict("N1", "definite"))


def test_a_lesion_is_split_at_positions_on_it(scan):
    i, j, k = SPOTS["L1"]
    acts = acts_of(scan, verdict("L1", "definite"), split("L1", (i - 1, j, k), (i + 1, j, k)))
    assert [item.key for item in replay(acts, scan.by_key).positive] == ["N1", "N2"]
    with pytest.raises(RefusedActError, match="positions on it"):
        acts_of(scan, split("L1", (i, j, k), SPOTS["L2"]))
    with pytest.raises(RefusedActError, match="positions on it"):
        acts_of(scan, split("L1", SPOTS["L2"], SPOTS["L3"]))
    with pytest.raises(RefusedActError, match="too close"):
        acts_of(scan, split("L1", (i, j, k), (i, j, k)))


def any_act(chance: random.Random, keys: list[str]) -> dict:
    """Return an act as of a reader who does not look."""
    key, place = chance.choice(keys), chance.choice(list(DOUBLES))
    i, j, k = DOUBLES[place]
    values = (*POSITIVE, *POSITIVE, "rejected", "later")
    return chance.choice(
        [
            verdict(key, chance.choice(values)),
            verdict(key, chance.choice(values)),
            {"type": "add", "centre_ras": list(ras(DOUBLES[place]))},
            move(key, place),
            split(key, (i - 1, j, k), (i + 1, j, k)),
            {"type": "merge", "lesions": [key, place]},
            {"type": "undo"},
            {"type": "undo"},
            {"type": "redo"},
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_order_of_acts_makes_doubles(scan, seed):
    chance, segmenter, acts = random.Random(seed), Segmenter(scan), []
    most = 0
    for _ in range(150):
        state = replay(acts, scan.by_key)
        with suppress(RefusedActError, ValueError):
            payload = parse_payload(any_act(chance, sorted({*state.items, *DOUBLES})))
            payload = number_new(acts, payload)
            check(state, payload, scan.scope)
            outlines = complete(scan, state, payload, lambda: segmenter)
            about = {"reader": "a", "round": 1, "scan": scan.src, "based_on": scan.based_on}
            acts.append(Act(payload=payload, outlines=outlines, **about))
        found = replay(acts, scan.by_key).positive
        voxels = [set(map(tuple, segmenter.voxels_of(item).tolist())) for item in found]
        for one, other in itertools.combinations(voxels, 2):
            assert len(one & other) <= min(len(one), len(other)) / 2
        most = max(most, len(found))
    assert most >= 3 and len(acts) > 50
