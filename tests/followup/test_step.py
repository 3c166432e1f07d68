"""The follow-up of a pair in an output dataset: written, reused, renewed, read."""

import json

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import ScanError
from cmbprep.followup import step
from cmbprep.followup.pair import BLOCK, find_pairs, pair_visits, read_pair
from cmbprep.followup.status import RULES
from cmbprep.followup.step import follow_pair
from cmbprep.followup.table import COLUMNS
from cmbprep.outputs.files import read_json, write_json
from cmbprep.reports.followup import followed_scans
from tests.followup.madeup import lesion
from tests.followup.twovisits import add_visit, at, register_by_truth, result
from tests.reports.outputtree import Tree

#: In the head, mm: two that stay, one below the threshold before, one new, one that goes.
STAY, FAINT, NEW, GONE = ((20, 0, 0), (-15, 20, 10)), (0, -30, 10), (10, 25, -10), (-20, -5, -15)


def lesions(session, *points, **changes):
    return [
        lesion(n, at(session, point), region="frontal", **changes)
        for n, point in enumerate(points, start=1)
    ]


@pytest.fixture
def root(tmp_path):
    tree = Tree(tmp_path)
    add_visit(tree, "a", lesions("a", *STAY, GONE), candidates=[(at("a", FAINT), 0.2)])
    add_visit(tree, "b", lesions("b", NEW, *STAY[::-1], FAINT))
    return tree.finish()


@pytest.fixture
def registered(monkeypatch):
    """Register by the truth, and count how often that was asked for."""
    calls = []

    def register(first, second):
        calls.append((first, second))
        return register_by_truth(first, second)

    monkeypatch.setattr(step, "register_visits", register)
    return calls


def pair_of(root, order=("a", "b")):
    (pair,) = pair_visits(root, followed_scans(result(root)), order)
    return pair


def test_every_lesion_has_its_status(root, registered):
    found = follow_pair(pair_of(root))
    told = {(one.status, one.reason, one.indices) for one in found.lesions}
    assert told == {
        ("persistent", "matched", (1, 3)),
        ("persistent", "matched", (2, 2)),
        ("gone", "no candidate and no dark spot there", (3, None)),
        ("new", "no candidate and no dark spot there", (None, 1)),
        ("persistent", "below the threshold", (None, 4)),
    }
    assert found.count("new") == found.count("gone", definite=True) == 1
    assert found.count("persistent", zone="lobar") == 3
    assert found.limits == ()


def test_the_other_order_of_visits_exchanges_new_and_gone(root, registered):
    forward = follow_pair(pair_of(root))
    back = follow_pair(pair_of(root, ("b", "a")))
    assert (back.count("new"), back.count("gone")) == (1, 1)
    (new,) = [one for one in back.lesions if one.status == "new"]
    (gone,) = [one for one in forward.lesions if one.status == "gone"]
    assert new.indices == gone.indices[::-1]
    assert len(registered) == 1, "the registration does not depend on the order"
    assert back.pair.table == forward.pair.table


def test_without_an_order_nothing_is_called_new(root, registered):
    found = follow_pair(pair_of(root, None))
    assert {one.status for one in found.lesions} == {"persistent", "one visit"}
    assert found.count("new") is found.count("gone") is None
    assert found.count("one visit") == 2


def test_the_images_number_the_lesions_together(root, registered):
    found = follow_pair(pair_of(root))
    seen = []
    for scan, side in ((found.pair.first, 0), (found.pair.second, 1)):
        image = nib.load(found.pair.image(scan))
        for one in found.lesions:
            voxels = np.argwhere(np.asarray(image.dataobj) == one.index)
            assert len(voxels) == (one.indices[side] is not None)
            if len(voxels):
                point = (image.affine @ (*voxels[0], 1))[:3]
                assert np.linalg.norm(point - one.centres[side]) < 4
                seen.append(one.index)
    assert sorted(seen) == [1, 1, 2, 2, 3, 4, 5]


def test_a_lesion_at_one_visit_has_its_place_at_the_other(root, registered):
    found = follow_pair(pair_of(root))
    (new,) = [one for one in found.lesions if one.status == "new"]
    assert np.allclose(new.centres[0], at("a", NEW), atol=0.02)
    (faint,) = [one for one in found.lesions if one.below_threshold]
    assert faint.probabilities == (0.2, 0.9)


def test_the_images_of_the_visits_are_looked_at(root, registered):
    add_visit(Tree(root), "a", lesions("a", *STAY, GONE), unlisted=[at("a", FAINT)])
    found = follow_pair(pair_of(root))
    (faint,) = [one for one in found.lesions if one.indices == (None, 4)]
    assert (faint.status, faint.reason) == ("persistent", "dark spot below the threshold")
    assert faint.below_threshold
    assert faint.probabilities == (None, 0.9)
    header, *rows = (line.split("\t") for line in found.pair.table.read_text().splitlines())
    part = {row[0]: row[header.index("loss_part")] for row in rows}
    assert 0.8 < float(part.pop(str(faint.index))) < 1.2
    kept = {str(one.index) for one in found.lesions if one.reason == "matched"}
    assert {part.pop(index) for index in kept} == {"n/a"}
    assert all(float(value) < 0.3 for value in part.values())
    assert read_json(found.pair.sidecar)[BLOCK]["Rules"]["DarkPart"] == 0.65


def test_a_follow_up_by_other_rules_is_made_again(root, registered, monkeypatch):
    follow_pair(pair_of(root))
    monkeypatch.setitem(RULES, "DarkPart", 0.9)
    assert read_pair(pair_of(root)) is None
    assert follow_pair(pair_of(root)).count("new") == 1
    assert len(registered) == 1


def test_what_is_there_is_reused_and_a_changed_visit_is_not(root, registered):
    pair = pair_of(root)
    follow_pair(pair)
    before = pair.table.stat().st_mtime_ns
    follow_pair(pair_of(root))
    assert pair.table.stat().st_mtime_ns == before
    text = pair.table.read_bytes(), pair.sidecar.read_bytes()
    pair.sidecar.unlink()
    follow_pair(pair_of(root))
    assert (pair.table.read_bytes(), pair.sidecar.read_bytes()) == text
    table = pair.first.detection.files.path("candidates")
    table.write_text("index\tx\ty\tz\tlesion\tprobability\n")
    assert read_pair(pair_of(root)) is None
    assert follow_pair(pair_of(root)).count("new") == 2
    assert len(registered) == 1


def test_a_damaged_file_is_made_again(root, registered):
    pair = pair_of(root)
    follow_pair(pair)
    pair.image(pair.first).write_bytes(b"cut")
    assert read_pair(pair_of(root)) is None
    assert follow_pair(pair_of(root)).count("new") == 1
    pair.transform.write_text("nothing")
    follow_pair(pair_of(root, ("b", "a")))
    assert len(registered) == 2


def test_the_table_has_its_dictionary(root, registered):
    pair = follow_pair(pair_of(root)).pair
    header, *rows = (line.split("\t") for line in pair.table.read_text().splitlines())
    assert tuple(header) == tuple(COLUMNS)
    about = read_json(pair.sidecar)
    assert set(header) <= set(about)
    for row in rows:
        for name, cell in zip(header, row, strict=True):
            levels = about[name].get("Levels")
            assert not levels or cell in levels or cell == "n/a", (name, cell)
    block = about[BLOCK]
    assert block["First"]["Source"] == "automatic"
    assert block["Registration"]["Verdict"] == "ok"


def test_a_change_of_protocol_is_on_every_line(root, registered):
    tree = Tree(root)
    add_visit(tree, "b", lesions("b", NEW), acquisition={"EchoTime": 0.03})
    found = follow_pair(pair_of(root))
    assert found.limits == ("echo time 20 to 30 ms",)
    header, *rows = (line.split("\t") for line in found.pair.table.read_text().splitlines())
    assert {row[header.index("limits")] for row in rows} == {"echo time 20 to 30 ms"}


def test_a_failed_registration_leaves_nothing_assessable(root, monkeypatch):
    def register(*_):
        raise ScanError("the scans do not overlap")

    monkeypatch.setattr(step, "register_visits", register)
    found = follow_pair(pair_of(root))
    assert found.failed
    assert {one.status for one in found.lesions} == {"not assessable"}
    assert found.count("new") is found.count("persistent") is None
    assert found.count("not assessable") == 7
    assert "the scans do not overlap" in found.lesions[0].reason


def test_pairs_are_neighbours_and_the_ends(root):
    scans = followed_scans(result(root))
    a, b = scans
    three = [a, b, *(vars_of(b, session) for session in ("c", "d"))]

    def sessions(order):
        pairs = pair_visits(root, three, order)
        return [(pair.first.session, pair.second.session) for pair in pairs]

    assert sessions(("d", "b", "a", "c")) == [("d", "b"), ("d", "c"), ("b", "a"), ("a", "c")]
    assert sessions(("a", "b")) == [("a", "b")]
    assert len(sessions(None)) == 6
    assert pair_visits(root, [], None) == pair_visits(root, [a], ("a",)) == []


def vars_of(scan, session):
    from dataclasses import replace

    return replace(scan, session=session, name=scan.name.replace("ses-b", f"ses-{session}"))


def test_scans_that_were_acquired_alike_are_compared(root):
    tree = Tree(root)
    add_visit(tree, "a", [], name="sub-1_ses-a_acq-thin_T2starw")
    (pair,) = pair_visits(root, followed_scans(result(root)), ("a", "b"))
    assert (pair.first.name, pair.second.name) == ("sub-1_ses-a_T2starw", "sub-1_ses-b_T2starw")


def test_finished_pairs_are_found_whatever_their_order(root, registered):
    for order in (("a", "b"), ("b", "a"), None):
        made = follow_pair(pair_of(root, order))
        (found,) = find_pairs(root, followed_scans(result(root)))
        assert found.lesions == made.lesions
        assert found.pair.ordered == (order is not None)
        assert found.pair.first.name == made.pair.first.name


def test_a_damaged_table_is_no_follow_up(root, registered, caplog):
    pair = follow_pair(pair_of(root)).pair
    text = pair.table.read_text().replace("new", "old", 1)
    pair.table.write_text(text)
    about = json.loads(pair.sidecar.read_text())
    write_json(pair.sidecar, about)
    assert read_pair(pair_of(root)) is None
    assert "line" in caplog.text


def test_a_table_that_lacks_a_lesion_is_no_follow_up(root, registered, caplog):
    pair = follow_pair(pair_of(root)).pair
    lines = pair.table.read_text().splitlines(keepends=True)
    change_sidecar(pair, Files={})
    pair.table.write_text("".join(lines[:-1]))
    assert read_pair(pair_of(root)) is None
    assert "its lesions are not those of the two visits" in caplog.text
    assert len(follow_pair(pair_of(root)).lesions) == len(lines) - 1


@pytest.mark.parametrize(
    "changes",
    [
        {"Registration": None},
        {"Registration": ["ok"]},
        {"Registration": {"Verdict": ["ok"]}},
        {"Registration": {"Verdict": "failed", "Reasons": 3}},
        {"Limits": 3},
    ],
)
def test_a_damaged_sidecar_is_no_follow_up(root, registered, changes):
    pair = follow_pair(pair_of(root)).pair
    change_sidecar(pair, **changes)
    assert read_pair(pair_of(root)) is None
    assert follow_pair(pair_of(root)).registration["Verdict"] == "ok"


def change_sidecar(pair, **changes):
    content = read_json(pair.sidecar)
    content[BLOCK].update(changes)
    write_json(pair.sidecar, content)
