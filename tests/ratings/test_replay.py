"""What holds after acts: verdicts, undo and redo, the end of a reading."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import pytest

from cmbprep.ratings.acts import Act, BasedOn, Payload, parse_payload
from cmbprep.ratings.outline import Outline
from cmbprep.ratings.replay import (
    OpenLesionsError,
    RefusedActError,
    Scope,
    check,
    number_new,
    replay,
)

LISTED = ("L1", "L2")
SCOPE = Scope(listed=LISTED, candidates=("C7",), regions=("thalamus",))
BASE = BasedOn(fingerprint="f", digest="d")
OUTLINE = Outline(
    centre_ras=(0.0, 0.0, 0.0),
    runs=(0, 1),
    volume_mm3=1.0,
    diameter_mm=1.0,
    contrast=0.5,
    segmented=True,
)


def verdict(lesion: str, value: str, **more):
    return {"type": "verdict", "lesion": lesion, "verdict": value, **more}


def do(acts: list[Act], content: dict) -> None:
    """Act as the server does."""
    payload = number_new(acts, parse_payload(content))
    check(replay(acts, LISTED), payload, SCOPE)
    acts.append(make(payload))


def make(payload: Payload) -> Act:
    keys = [getattr(payload, "lesion", None), *(getattr(payload, "lesions", None) or ())]
    outlines = {key: OUTLINE for key in keys if isinstance(key, str)}
    if payload.type in ("zone", "comment", "verdict"):
        outlines = {}
    return Act(payload=payload, reader="a", round=1, scan="s", based_on=BASE, outlines=outlines)


def run(*contents: dict):
    acts: list[Act] = []
    for content in contents:
        do(acts, content)
    return replay(acts, LISTED)


def test_listed_lesions_are_undecided_at_first():
    state = replay([], LISTED)
    assert [item.verdict for item in state.items.values()] == ["undecided", "undecided"]
    assert state.open_items == ["L1", "L2"]
    assert state.positive == []


def test_a_scan_is_read_only_when_all_is_decided():
    acts: list[Act] = []
    do(acts, verdict("L1", "definite"))
    do(acts, verdict("L2", "later"))
    with pytest.raises(OpenLesionsError) as refused:
        do(acts, {"type": "finish"})
    assert refused.value.keys == ["L2"]
    do(acts, verdict("L2", "rejected", reason="vein"))
    do(acts, {"type": "finish"})
    state = replay(acts, LISTED)
    assert state.finished and state.finished_at == acts[-1].time
    assert [item.key for item in state.positive] == ["L1"]
    do(acts, {"type": "comment", "lesion": "L1", "text": "clear"})
    assert not replay(acts, LISTED).finished


def test_a_candidate_counts_once_it_is_judged():
    assert "C7" not in run(verdict("L1", "definite")).items
    state = run(verdict("C7", "possible"))
    assert state.items["C7"].positive
    assert run(verdict("C7", "later")).open_items == ["L1", "L2", "C7"]


def test_merged_and_split_lesions_replace_what_they_were_made_of():
    state = run(
        verdict("L1", "possible"),
        verdict("L2", "definite"),
        {"type": "merge", "lesions": ["L1", "L2"]},
    )
    assert state.items["L1"].deleted_by == state.items["L2"].deleted_by == "N1"
    assert [(item.key, item.verdict) for item in state.positive] == [("N1", "definite")]
    state = run(
        verdict("L1", "possible"),
        {"type": "zone", "lesion": "L1", "region": "thalamus"},
        {"type": "split", "lesion": "L1", "centres": [[0, 0, 0], [1, 1, 1]]},
    )
    assert [(i.key, i.verdict, i.region) for i in state.positive] == [
        ("N1", "possible", "thalamus"),
        ("N2", "possible", "thalamus"),
    ]


def test_undo_and_redo_go_back_and_forth():
    first = [verdict("L1", "definite"), verdict("L1", "rejected", reason="vein")]
    add = {"type": "add", "centre_ras": [0, 0, 0]}
    state = run(*first, add, {"type": "undo"}, {"type": "undo"})
    assert state.items["L1"].verdict == "definite" and "N1" not in state.items
    assert (state.undo_depth, state.redo_depth) == (1, 2)
    state = run(*first, add, {"type": "undo"}, {"type": "undo"}, {"type": "redo"})
    assert state.items["L1"].reason == "vein"
    # A new act ends what could be done again, and a number is used once.
    state = run(*first, add, {"type": "undo"}, add)
    assert state.redo_depth == 0 and "N2" in state.items and "N1" not in state.items


def test_a_move_keeps_the_key_and_forgets_the_corrected_region():
    state = run(
        {"type": "zone", "lesion": "L1", "region": "thalamus"},
        {"type": "move", "lesion": "L1", "centre_ras": [0, 0, 0]},
    )
    assert state.items["L1"].region is None and state.items["L1"].outline == OUTLINE


@pytest.mark.parametrize(
    "content",
    [
        verdict("L3", "definite"),
        verdict("N1", "definite"),
        verdict("C8", "definite"),
        {"type": "undo"},
        {"type": "redo"},
        {"type": "reopen"},
        {"type": "zone", "lesion": "L1", "region": "moon"},
        {"type": "comment", "lesion": "L9", "text": ""},
        {"type": "merge", "lesions": ["L1", "N9"]},
    ],
)
def test_an_act_that_does_not_fit_is_refused(content):
    with pytest.raises(RefusedActError):
        run(content)


def test_a_lesion_that_was_replaced_takes_no_more_acts():
    with pytest.raises(RefusedActError, match="replaced by N1"):
        run({"type": "merge", "lesions": ["L1", "L2"]}, verdict("L1", "definite"))
    with pytest.raises(RefusedActError, match="used before"):
        run(
            {"type": "add", "centre_ras": [0, 0, 0], "lesion": "N5"},
            {"type": "add", "centre_ras": [0, 0, 0], "lesion": "N5"},
        )


ANY_ACT = st.one_of(
    st.builds(
        verdict,
        st.sampled_from(["L1", "L2", "C7", "N1", "N2"]),
        st.sampled_from(["definite", "possible", "rejected", "undecided", "later"]),
    ),
    st.sampled_from(
        [
            {"type": "undo"},
            {"type": "redo"},
            {"type": "finish"},
            {"type": "reopen"},
            {"type": "add", "centre_ras": [0, 0, 0]},
            {"type": "merge", "lesions": ["L1", "N1"]},
            {"type": "split", "lesion": "L2", "centres": [[0, 0, 0], [1, 1, 1]]},
            {"type": "move", "lesion": "N1", "centre_ras": [1, 1, 1]},
        ]
    ),
)


@hypothesis.given(st.lists(ANY_ACT, max_size=25))
def test_any_sequence_leaves_a_state_that_undo_takes_apart(contents):
    acts: list[Act] = []
    for content in contents:
        try:
            do(acts, content)
        except RefusedActError:
            continue
    state = replay(acts, LISTED)
    for item in state.items.values():
        assert item.deleted_by is None or item.deleted_by in state.items
        assert item.kind != "added" or item.outline is not None
    if state.finished:
        assert state.open_items == []
    for _ in range(state.undo_depth):
        do(acts, {"type": "undo"})
    empty = replay(acts, LISTED)
    assert empty.items == replay([], LISTED).items and not empty.finished
    for _ in range(state.undo_depth):
        do(acts, {"type": "redo"})
    assert replay(acts, LISTED).items == state.items


def test_a_log_changed_by_hand_stops_no_reading():
    """Acts that do not fit are passed over on replay."""
    acts = [make(parse_payload(verdict("L1", "definite")))]
    gone = parse_payload({"type": "move", "lesion": "N9", "centre_ras": [0, 0, 0]})
    acts.append(replace(make(gone), outlines={}))
    assert replay(acts, LISTED).items["L1"].verdict == "definite"


def test_lesions_are_numbered_after_the_largest_number_too():
    acts: list[Act] = []
    add = {"type": "add", "centre_ras": [0, 0, 0]}
    do(acts, {**add, "lesion": "N999999"})
    do(acts, add)
    do(acts, {"type": "split", "lesion": "N1", "centres": [[0, 0, 0], [1, 1, 1]]})
    assert list(replay(acts, ()).items) == ["N999999", "N1", "N2", "N3"]
