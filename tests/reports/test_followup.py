"""Follow-up in a participant's report: counts, limits, and both visits side by side."""

import re

import pytest

from cmbprep.followup import step
from cmbprep.followup.pair import pair_visits
from cmbprep.followup.step import follow_pair
from cmbprep.reports.followup import followed_scans
from cmbprep.reports.individual import write_reports
from tests.followup.madeup import lesion
from tests.followup.twovisits import add_visit, at, register_by_truth, result
from tests.reports.outputtree import Tree

STAY, FAINT, NEW, GONE = (20, 0, 0), (0, -30, 10), (10, 25, -10), (-20, -5, -15)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "register_visits", register_by_truth)
    tree = Tree(tmp_path)
    for session, points, faint in (("a", (STAY, GONE), True), ("b", (STAY, FAINT, NEW), False)):
        lesions = [lesion(n, at(session, point)) for n, point in enumerate(points, start=1)]
        candidates = [(at(session, FAINT), 0.2)] if faint else ()
        changes = {"ManufacturersModelName": "Two"} if session == "b" else {}
        add_visit(tree, session, lesions, candidates=candidates, acquisition=changes)
    return tree.finish()


def follow(root, order=("a", "b")):
    for pair in pair_visits(root, followed_scans(result(root)), order):
        follow_pair(pair)


def section(page):
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<section id="followup">.*?</section>', text, re.DOTALL)
    return found and found[0]


def counts(text):
    rows = re.findall(r'<th scope="row">([^<]+)</th>((?:<td class="number">[^<]*</td>)+)', text)
    return {name: re.findall(r">([^<]*)<", cells) for name, cells in rows}


def test_counts_limits_and_figures_are_shown(root):
    follow(root)
    (page,) = write_reports(root, "1")
    text = section(page)
    assert {name: cells[-1] for name, cells in counts(text).items()} == {
        "persistent": "2",
        "new": "1",
        "gone": "1",
        "not assessable": "0",
    }
    assert "Scanner Maker One to Maker Two" in text
    assert "1 of the persistent ones is below the detector" in text
    assert text.count("<svg") == 2
    assert "new · definite" in text and "gone · definite" in text
    assert "no candidate and no dark spot there" in text
    assert "desc-followupsesa_dseg.tsv" in text


def test_a_dark_spot_of_the_other_image_is_counted_and_shown(root):
    lesions = [lesion(n, at("a", point)) for n, point in enumerate((STAY, GONE), start=1)]
    add_visit(Tree(root), "a", lesions, unlisted=[at("a", FAINT)])
    follow(root)
    text = section(write_reports(root, "1")[0])
    assert counts(text)["persistent"][-1] == "2"
    assert "1 of the persistent ones is below the detector" in text
    assert text.count("<svg") == 3
    assert "persistent · definite" in text and "dark spot below the threshold" in text


def test_there_is_no_section_without_a_follow_up(root):
    (page,) = write_reports(root, "1")
    assert section(page) is None


def test_without_an_order_nothing_is_called_new(root):
    follow(root, None)
    (page,) = write_reports(root, "1")
    text = section(page)
    assert "not known" in text
    assert set(counts(text)) == {"persistent", "one visit", "not assessable"}


def test_a_pair_is_on_the_page_of_its_later_visit(root):
    follow(root, ("b", "a"))
    pages = {page.stem: section(page) for page in write_reports(root, "1", per="session")}
    assert pages["sub-1_ses-b"] is None
    assert counts(pages["sub-1_ses-a"])["new"][-1] == "1"


def test_the_same_results_give_the_same_bytes(root):
    follow(root)
    (page,) = write_reports(root, "1")
    before = page.read_bytes()
    write_reports(root, "1")
    assert page.read_bytes() == before


def test_an_image_that_cannot_be_read_costs_its_figures_only(root):
    follow(root)
    # The head of a second visit is gone; its sidecar still vouches for the lesions.
    (root / "sub-1/ses-b/anat/sub-1_ses-b_desc-preproc_T2starw.nii.gz").write_bytes(b"cut")
    text = section(write_reports(root, "1")[0])
    assert text is None or "No figure" in text
