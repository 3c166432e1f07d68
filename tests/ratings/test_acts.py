"""Acts check themselves, and their JSON brings them back."""

from __future__ import annotations

import json

import pytest

from cmbprep.ratings.acts import (
    Act,
    BasedOn,
    Comment,
    ScanNote,
    format_act,
    parse_act,
    parse_payload,
)
from cmbprep.ratings.outline import Outline

BASE = BasedOn(fingerprint="f", digest="d")
OUTLINE = Outline(
    centre_ras=(1.0, 2.0, 3.0),
    runs=(5, 2, 9, 1),
    volume_mm3=3.0,
    diameter_mm=1.8,
    contrast=0.4,
    segmented=True,
    zone="deep",
)

VALID = [
    {"type": "verdict", "lesion": "L1", "verdict": "rejected", "reason": "vein"},
    {"type": "verdict", "lesion": "C12", "verdict": "later"},
    {"type": "add", "centre_ras": [1, 2.5, -3], "verdict": "possible"},
    {"type": "add", "centre_ras": [1, 2, 3], "lesion": "N1"},
    {"type": "move", "lesion": "L1", "centre_ras": [1, 2, 3]},
    {"type": "merge", "lesions": ["L1", "L2"], "lesion": "N2"},
    {"type": "split", "lesion": "L1", "centres": [[1, 2, 3], [4, 5, 6]]},
    {"type": "zone", "lesion": "N1", "region": "thalamus"},
    {"type": "comment", "lesion": None, "text": '<script>"\t\n'},
    {"type": "comment", "lesion": "L2", "text": ""},
    {"type": "scan", "siderosis": True, "quality": "good", "findings": ["infarct"], "note": "n"},
    {"type": "finish"},
    {"type": "reopen"},
    {"type": "undo"},
    {"type": "redo"},
]

WRONG = [
    ({"type": "verdict", "lesion": "L1"}, "verdict"),
    ({"type": "verdict", "lesion": "L0", "verdict": "definite"}, "key"),
    ({"type": "verdict", "lesion": "../L1", "verdict": "definite"}, "key"),
    ({"type": "verdict", "lesion": 1, "verdict": "definite"}, "key"),
    ({"type": "verdict", "lesion": "L1", "verdict": "sure"}, "none of"),
    ({"type": "verdict", "lesion": "L1", "verdict": ["definite"]}, "none of"),
    ({"type": "verdict", "lesion": "L1", "verdict": "definite", "reason": "vein"}, "rejection"),
    ({"type": "verdict", "lesion": "L1", "verdict": "rejected", "reason": "x"}, "reason"),
    ({"type": "verdict", "lesion": "L1", "verdict": "definite", "path": "/"}, "no field"),
    ({"type": "add", "centre_ras": [1, 2]}, "position"),
    ({"type": "add", "centre_ras": [1, 2, float("nan")]}, "position"),
    ({"type": "add", "centre_ras": [1, 2, True]}, "position"),
    ({"type": "add", "centre_ras": [1, 2, 1e9]}, "position"),
    ({"type": "add", "centre_ras": [1, 2, 3], "lesion": "L4"}, "new"),
    ({"type": "merge", "lesions": ["L1"]}, "2 to"),
    ({"type": "merge", "lesions": ["L1", "L1"]}, "twice"),
    ({"type": "merge", "lesions": "L1L2"}, "2 to"),
    ({"type": "split", "lesion": "L1", "centres": [[1, 2, 3]]}, "positions"),
    ({"type": "split", "lesion": "L1", "centres": [[1, 2, 3]] * 2, "lesions": ["N1"]}, "2 to"),
    ({"type": "comment", "text": "x" * 5000}, "text"),
    ({"type": "scan", "siderosis": "yes"}, "siderosis"),
    ({"type": "scan", "findings": "infarct"}, "findings"),
    ({"type": "scan", "findings": ["x" * 101]}, "finding"),
    ({"type": "format"}, "type of act"),
    ({"type": None}, "type of act"),
    ({}, "type of act"),
]


@pytest.mark.parametrize("content", VALID, ids=lambda content: content["type"])
def test_an_act_comes_back_from_its_line(content):
    payload = parse_payload(content)
    outlines = {"N1": OUTLINE}
    act = Act(
        payload=payload, reader="Anna", round=1, scan="sub-1", based_on=BASE, outlines=outlines
    )
    line = format_act(act)
    assert "\n" not in line
    assert parse_act(line) == act
    assert json.loads(line)["type"] == content["type"]


@pytest.mark.parametrize(("content", "text"), WRONG)
def test_a_wrong_act_is_refused(content, text):
    with pytest.raises(ValueError, match=text):
        parse_payload(content)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        '{"type": "finish"}',
        "[" * 5000,
        (
            '{"type":"finish","id":"1","time":"now","reader":"a","round":1,"software":"1",'
            '"scan":"s","based_on":{"fingerprint":"","digest":""}}'
        ),
    ],
)
def test_a_line_that_is_no_act_is_refused(line):
    with pytest.raises((ValueError, RecursionError)):
        parse_act(line)


def test_half_characters_are_replaced_where_a_reader_writes_and_refused_elsewhere():
    assert parse_payload({"type": "comment", "text": "a\ud800b"}) == Comment(text="a\ufffdb")
    note = parse_payload({"type": "scan", "note": "\udfff", "findings": ["\ud800"]})
    assert note == ScanNote(note="\ufffd", findings=("\ufffd",))
    with pytest.raises(ValueError, match="no file can hold"):
        Act(payload=note, id="\ud800", reader="a", round=1, scan="s", based_on=BASE)
