"""The follow-ups of participants: computed where missing, one participant stops no other."""

from cmbprep.followup.pair import read_pair
from cmbprep.group import followup
from cmbprep.group.followup import (
    UNKNOWN,
    VisitOrder,
    compute_followups,
    has_visits,
    order_of,
    plan_pairs,
)
from cmbprep.outputs.files import write_text
from cmbprep.ratings.choice import ReaderChoice
from tests.followup.madeup import lesion
from tests.followup.twovisits import add_visit, result
from tests.reports.outputtree import Tree

ORDER = VisitOrder(sessions=("a", "b"), baseline="a")


def follow_ups(root):
    return [read_pair(pair) for pair in plan_pairs(root, result(root), ORDER)]


def dataset(root):
    tree = Tree(root)
    for session in "ab":
        add_visit(tree, session, [lesion(1, (0, 0, 0))])
    tree.add("sub-2_T2starw")
    return tree.finish()


def test_only_participants_with_several_visits_are_followed(tmp_path, monkeypatch):
    root = dataset(tmp_path)
    assert has_visits(root, "1")
    assert not has_visits(root, "2")
    asked = []

    def in_turn(jobs, nprocs):
        asked.extend(job.subject for job in jobs)
        return iter(())

    monkeypatch.setattr(followup, "_in_turn", in_turn)
    assert compute_followups(root, {"1": ORDER, "2": UNKNOWN}, ReaderChoice()) == {}
    assert asked == ["1"]


def test_a_follow_up_is_computed_in_a_process_of_its_own_and_then_reused(tmp_path):
    root, orders = dataset(tmp_path), {"1": ORDER}
    assert follow_ups(root) == [None]
    assert compute_followups(root, orders, ReaderChoice(), locks=root / ".work") == {}
    (found,) = follow_ups(root)
    assert found.registration["Verdict"] in ("ok", "doubtful")
    before = found.pair.sidecar.stat().st_mtime_ns
    assert compute_followups(root, orders, ReaderChoice()) == {}
    assert found.pair.sidecar.stat().st_mtime_ns == before


def test_a_report_that_is_older_than_the_follow_up_is_named(tmp_path, caplog):
    root = dataset(tmp_path)
    write_text(root / "sub-12.html", "another participant")
    assert compute_followups(root, {"1": ORDER}, ReaderChoice()) == {}
    assert "--reports-only" not in caplog.text
    write_text(root / "sub-1_ses-b.html", "a report")
    turned = VisitOrder(sessions=("b", "a"), baseline="b")
    assert compute_followups(root, {"1": turned}, ReaderChoice()) == {}
    assert "the report is older: sub-1; what to do" in caplog.text
    caplog.clear()
    # The participant level writes the reports itself, afterwards.
    assert compute_followups(root, {"1": ORDER}, ReaderChoice(), before_reports=True) == {}
    assert caplog.text.count("--reports-only") == 0


def test_a_scan_that_cannot_be_read_is_named(tmp_path):
    root = dataset(tmp_path)
    write_text(root / "sub-1/ses-a/anat/sub-1_ses-a_desc-preproc_T2starw.nii.gz", "no image")
    orders = {"1": ORDER}
    # Its voxel size is not known: there is nothing to follow.
    assert compute_followups(root, orders, ReaderChoice()) == {}
    assert follow_ups(root) == []


def test_the_order_of_two_visits_is_known_by_their_baseline():
    assert order_of(("a", "b"), "b", known=False).sessions == ("b", "a")
    assert order_of(("a", "b", "c"), "b", known=False) == UNKNOWN
    assert order_of(("a", "b"), None, known=False) == UNKNOWN
    assert order_of(("c", "a"), "c", known=True).sessions == ("c", "a")


def test_a_pair_says_which_visits_it_compares(tmp_path):
    tree = Tree(tmp_path)
    for session in "abc":
        add_visit(tree, session, [])
    root = tree.finish()

    def told(order):
        pairs = plan_pairs(root, result(root), order)
        sessions = [(pair.first.session, pair.second.session) for pair in pairs]
        return dict(zip(sessions, order.comparisons(pairs), strict=True))

    assert told(VisitOrder(sessions=("c", "a", "b"), baseline="c")) == {
        ("c", "a"): "next",
        ("a", "b"): "next",
        ("c", "b"): "baseline_to_last",
    }
    assert told(VisitOrder(sessions=("c", "a", "b"), baseline="a")) == {
        ("c", "a"): "next",
        ("a", "b"): "both",
    }
    # A last visit without a result is passed over.
    assert told(VisitOrder(sessions=("a", "b", "c", "d")))[("a", "c")] == "baseline_to_last"
    assert set(told(UNKNOWN).values()) == {"order_unknown"}
