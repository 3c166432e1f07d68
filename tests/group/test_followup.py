"""The follow-ups of participants: computed where missing, one participant stops no other."""

from cmbprep.group import followup
from cmbprep.group.followup import compute_followups, has_visits, read_followups
from cmbprep.outputs.files import write_text
from cmbprep.ratings.choice import ReaderChoice
from tests.followup.madeup import lesion
from tests.followup.twovisits import add_visit, result
from tests.reports.outputtree import Tree


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
    assert compute_followups(root, {"1": ("a", "b"), "2": None}, ReaderChoice()) == {}
    assert asked == ["1"]


def test_a_follow_up_is_computed_in_a_process_of_its_own_and_then_reused(tmp_path):
    root, orders = dataset(tmp_path), {"1": ("a", "b")}
    assert read_followups(root, [result(root)], orders) == {"1": []}
    assert compute_followups(root, orders, ReaderChoice(), locks=root / ".work") == {}
    ((found,),) = read_followups(root, [result(root)], orders).values()
    assert found.registration["Verdict"] in ("ok", "doubtful")
    before = found.pair.sidecar.stat().st_mtime_ns
    assert compute_followups(root, orders, ReaderChoice()) == {}
    assert found.pair.sidecar.stat().st_mtime_ns == before


def test_a_scan_that_cannot_be_read_is_named(tmp_path):
    root = dataset(tmp_path)
    write_text(root / "sub-1/ses-a/anat/sub-1_ses-a_desc-preproc_T2starw.nii.gz", "no image")
    orders = {"1": ("a", "b")}
    # Its voxel size is not known: there is nothing to follow.
    assert compute_followups(root, orders, ReaderChoice()) == {}
    assert read_followups(root, [result(root)], orders) == {"1": []}
