"""Follow-up in the review: status of each lesion, lesions of the other visit, linked images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.followup import step
from cmbprep.followup.pair import pair_visits
from cmbprep.followup.step import follow_pair
from cmbprep.outputs.files import write_image
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.store import Reader
from cmbprep.reports.followup import followed_scans
from cmbprep.reports.reviewed import collect_reviewed
from cmbprep.review.scans import find_scans
from cmbprep.review.session import ReviewSession
from tests.followup.madeup import lesion
from tests.followup.twovisits import add_visit, at, register_by_truth
from tests.reports.outputtree import Tree

#: In the head, mm: two that stay, one below the threshold before, one new, one that goes.
STAY, FAINT, NEW, GONE = ((20, 0, 0), (-15, 20, 10)), (0, -30, 10), (10, 25, -10), (-20, -5, -15)
FIRST, SECOND = "sub-1_ses-a_T2starw", "sub-1_ses-b_T2starw"
ANNA = Reader(name="Anna", round=1)


def lesions(session: str, *points: Any) -> list[Any]:
    return [
        lesion(n, at(session, point), region="frontal") for n, point in enumerate(points, start=1)
    ]


def make_visits(folder: Path) -> Path:
    tree = Tree(folder)
    add_visit(tree, "a", lesions("a", *STAY, GONE), candidates=[(at("a", FAINT), 0.2)])
    add_visit(tree, "b", lesions("b", NEW, *STAY[::-1], FAINT))
    return tree.finish()


def follow(root: Path, monkeypatch: pytest.MonkeyPatch, order: Any = ("a", "b")) -> None:
    monkeypatch.setattr(step, "register_visits", register_by_truth)
    (person,) = collect_reviewed(root, ReaderChoice(), subject="1")
    (pair,) = pair_visits(root, followed_scans(person), order)
    follow_pair(pair)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_visits(tmp_path)
    follow(made, monkeypatch)
    return made


def session(root: Path, reader: Reader = ANNA, **options: Any) -> ReviewSession:
    return ReviewSession(root, reader, find_scans(root), **options)


def statuses(view: dict[str, Any]) -> dict[str, tuple[str, int | None]]:
    return {key: (found["status"], found["there"]) for key, found in view["lesions"].items()}


def test_each_lesion_has_its_status_and_its_partner(root: Path) -> None:
    scans = session(root)
    (view,) = scans.scan(FIRST)["followup"]
    assert (view["title"], view["when"], view["image"]) == ("visit b", "later", "earlier-1")
    assert statuses(view) == {
        "L1": ("persistent", 3),
        "L2": ("persistent", 2),
        "L3": ("gone", None),
    }
    (view,) = scans.scan(SECOND)["followup"]
    assert (view["title"], view["when"]) == ("visit a", "earlier")
    assert statuses(view) == {
        "L1": ("new", None),
        "L2": ("persistent", 2),
        "L3": ("persistent", 1),
        "L4": ("persistent", None),
    }
    assert view["lesions"]["L4"]["reason"] == "below the threshold"
    scans.close()


def test_lesions_of_the_other_visit_stand_at_their_place_in_this_scan(root: Path) -> None:
    scans = session(root)
    view = scans.scan(SECOND)
    (gone,) = view["followup"][0]["elsewhere"]
    assert (gone["status"], gone["there"]) == ("gone", 3)
    place = np.array(view["affine"]) @ [*gone["centre_ijk"], 1]
    assert np.linalg.norm(place[:3] - at("b", GONE)) < 4, "within a voxel"
    scans.close()


def test_the_image_of_the_other_visit_is_laid_over_by_the_follow_up(root: Path) -> None:
    """The head of the first visit, brought to the second one, is the head of the second one."""
    scans = session(root)
    own, other = (
        np.frombuffer(scans.image(SECOND, name).voxels, np.uint16).astype(float)
        for name in ("preproc", "earlier-1")
    )
    assert np.corrcoef(own, other)[0, 1] > 0.95
    scans.close()


def test_without_an_order_of_visits_none_is_called_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_visits(tmp_path)
    follow(root, monkeypatch, order=None)
    scans = session(root)
    (view,) = scans.scan(FIRST)["followup"]
    assert view["when"] == "other"
    assert view["lesions"]["L3"]["status"] == "one visit"
    scans.close()


def test_a_blinded_reader_is_not_told_what_the_detector_found_at_the_other_visit(
    root: Path,
) -> None:
    scans = session(root, blinded=True)
    view = scans.scan(SECOND)
    assert view["followup"] is None
    assert "earlier-1" in {image["id"] for image in view["images"]}, "the image may be seen"
    scans.close()


def test_without_a_finished_follow_up_there_is_none(tmp_path: Path, root: Path) -> None:
    scans = session(make_visits(tmp_path / "other"))
    assert scans.scan(FIRST)["followup"] == []
    scans.close()
    for path in root.rglob("*desc-followup*_dseg.tsv"):
        path.write_text("damaged")
    scans = session(root)
    assert scans.scan(FIRST)["followup"] == []
    scans.close()


def test_lesions_that_a_reader_has_added_have_a_status_for_that_reader_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Segmenting a new lesion needs the atlas.
    for path in root.rglob("*_seg-CMB_dseg.nii.gz"):
        labels = nib.load(path)
        atlas = nib.Nifti1Image(np.ones(labels.shape, np.uint8), labels.affine)
        write_image(path.with_name(path.name.replace("_seg-CMB_", "_atlas-MARS_")), atlas)
    scans = session(root)
    added = {"type": "add", "centre_ras": [float(v) for v in at("a", NEW)], "verdict": "definite"}
    reject = {"type": "verdict", "lesion": "L3", "verdict": "rejected", "reason": "vein"}
    agreed = [{"type": "verdict", "lesion": key, "verdict": "definite"} for key in ("L1", "L2")]
    for act in (*agreed, reject, added, {"type": "finish"}):
        scans.act(FIRST, act)
    scans.close()
    follow(root, monkeypatch)
    for reader, keys in ((ANNA, {"L1", "L2", "N1"}), (Reader(name="Bert"), {"L1", "L2"})):
        scans = session(root, reader)
        (view,) = scans.scan(FIRST)["followup"]
        assert view["source"] == ["reviewed", "automatic"]
        assert set(view["lesions"]) == keys
        scans.close()
