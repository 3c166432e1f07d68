"""From acts to lesions, labels, tables and masks, counted by hand on a made-up scan."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.evaluate.files import find_scans as evaluated_scans
from cmbprep.lesions import read_lesions
from cmbprep.outputs.stages import find_records
from cmbprep.ratings.acts import Act, parse_payload
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.completing import complete
from cmbprep.ratings.consensus import disagree, find_reviews, reviewed_scan
from cmbprep.ratings.replay import RefusedActError, check, number_new, replay
from cmbprep.ratings.reviewed import (
    BLOCK,
    ReviewedFiles,
    is_current,
    reviewed_lesions,
    write_reviewed,
)
from cmbprep.ratings.segmenting import Segmenter
from cmbprep.ratings.store import Reader, ReviewLog, log_path
from cmbprep.reports.usable import usable_results
from tests.ratings.madeup import MISSED, SHIFT, SPOTS, automatic, make_dataset, ras, spot

ANNA = Reader(name="Anna")


def verdict(lesion: str, value: str, reason: str | None = None) -> dict:
    return {"type": "verdict", "lesion": lesion, "verdict": value, "reason": reason}


def acts_of(scan: Automatic, *contents: dict, reader: Reader = ANNA) -> list[Act]:
    """Act as the server does."""
    segmenter, acts = Segmenter(scan), []
    for content in contents:
        state = replay(acts, scan.by_key)
        payload = number_new(acts, parse_payload(content))
        check(state, payload, scan.scope)
        outlines = complete(scan, state, payload, lambda: segmenter)
        acts.append(
            Act(
                payload=payload,
                outlines=outlines,
                reader=reader.name,
                round=reader.round,
                scan=scan.src,
                based_on=scan.based_on,
            )
        )
    return acts


def store(root: Path, scan: Automatic, reader: Reader, *contents: dict) -> list[Act]:
    log = ReviewLog(log_path(scan.folder, scan.src, reader), root / "logs" / "review")
    for act in acts_of(scan, *contents, reader=reader):
        log.append(act)
    log.close()
    return log.acts


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "out")


READ = [
    verdict("L1", "definite"),
    verdict("L2", "rejected", "vein"),
    verdict("L3", "possible"),
    verdict("C4", "definite"),
    verdict("C5", "rejected", "artefact"),
    {"type": "add", "centre_ras": list(ras(MISSED)), "verdict": "possible"},
    {"type": "zone", "lesion": "L1", "region": "frontal"},
    {"type": "comment", "lesion": "L3", "text": 'a "tab"\there\nand <b>'},
    {"type": "scan", "siderosis": True, "quality": "usable", "findings": ["infarct"], "note": "n"},
    {"type": "finish"},
]


def test_the_product_segments_and_places_what_a_reader_points_at(dataset):
    scan = automatic(dataset)
    outline = Segmenter(scan).at_point(ras((MISSED[0] + 1, *MISSED[1:])))
    painted = np.zeros(spot(MISSED).shape, bool)
    painted[tuple(outline.voxels(painted.shape).T)] = True
    assert (painted & spot(MISSED)).sum() / (painted | spot(MISSED)).sum() > 0.7
    assert np.allclose(outline.centre_ras, ras(MISSED), atol=0.5)
    assert (outline.zone, outline.region, outline.hemisphere) == ("lobar", "frontal", "left")
    at = (outline.x_mni, outline.y_mni, outline.z_mni)
    assert np.allclose(np.subtract(at, outline.centre_ras), SHIFT, atol=0.02)
    assert outline.segmented and outline.volume_mm3 == pytest.approx(33.5, rel=0.5)


def test_where_nothing_is_dark_a_ball_stands_for_the_lesion(dataset):
    outside = Segmenter(automatic(dataset)).at_point(ras((1, 1, 1)))
    assert not outside.segmented and outside.zone is None
    assert len(outside.voxels((40, 48, 24))) == 5
    assert outside.centre_ras == ras((1, 1, 1))


def test_the_reviewed_files_hold_what_the_reader_decided(dataset):
    scan = automatic(dataset)
    acts = acts_of(scan, *READ)
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    write_reviewed(scan, ANNA, acts)
    assert is_current(scan, ANNA, acts) and not is_current(scan, ANNA, acts[:-1])
    assert all(path.read_bytes() == content for path, content in before.items())
    files = ReviewedFiles(scan, ANNA)
    assert files.dseg.name == "sub-01_seg-CMB_desc-reviewed1anna_dseg.nii.gz"
    labels = np.asarray(nib.load(files.dseg).dataobj)
    mask = np.asarray(nib.load(files.mask).dataobj)
    with files.table.open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["index"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["verdict"] for row in rows] == [
        "definite",
        "rejected",
        "possible",
        "definite",
        "rejected",
        "possible",
    ]
    assert [row["automatic_index"] for row in rows] == ["1", "2", "3", "n/a", "n/a", "n/a"]
    assert [row["source"] for row in rows] == ["automatic"] * 5 + ["added"]
    assert [row["reason"] for row in rows] == ["n/a", "vein", "n/a", "n/a", "artefact", "n/a"]
    assert rows[2]["comment"] == "a 'tab' here and <b>"
    assert (rows[0]["region"], rows[0]["zone"], rows[0]["boundary"]) == (
        "frontal",
        "lobar",
        "false",
    )
    assert {row["reader"] for row in rows} == {"Anna"}
    for index, voxel in enumerate((*SPOTS.values(), MISSED), start=1):
        assert labels[voxel] == index
        assert mask[voxel] == (index in (1, 3, 4, 6))
    # Strict reading by the product's own reader: rows and labels agree.
    found = read_lesions(files.table, scheme=scan.scheme, labels=[1, 2, 3, 4, 5, 6])
    assert [lesion.rating for lesion in found] == [
        "definite",
        None,
        "possible",
        "definite",
        None,
        "possible",
    ]
    block = json.loads(files.sidecar.read_text())[BLOCK]
    assert block["Finished"] is True and block["Siderosis"] is True
    assert block["Acts"] == len(READ) and block["BasedOn"]["fingerprint"] == "f1"


def test_the_mask_in_the_template_holds_what_the_reader_decided(dataset):
    """The made-up scan is moved by a few millimetres; the template's grid is its own."""
    scan = automatic(dataset)
    write_reviewed(scan, ANNA, acts_of(scan, *READ))
    image = nib.load(ReviewedFiles(scan, ANNA).template_mask)
    mask = np.asarray(image.dataobj)
    for index, voxel in enumerate((*SPOTS.values(), MISSED), start=1):
        there = np.linalg.inv(image.affine) @ [*np.add(ras(voxel), SHIFT), 1]
        assert mask[tuple(np.rint(there[:3]).astype(int))] == (index in (1, 3, 4, 6)), index


def test_merged_split_and_moved_lesions_in_the_labels(dataset):
    scan = automatic(dataset)
    one, two = SPOTS["L1"], SPOTS["L3"]
    acts = acts_of(
        scan,
        {"type": "merge", "lesions": ["L1", "L3"]},
        {"type": "move", "lesion": "L2", "centre_ras": list(ras(MISSED))},
        {"type": "split", "lesion": "N1", "centres": [list(ras(one)), list(ras(two))]},
        verdict("L2", "definite"),
        verdict("N2", "definite"),
        verdict("N3", "possible"),
    )
    state = replay(acts, scan.by_key)
    assert [lesion.index for lesion in reviewed_lesions(scan, state)] == [2, 4, 5]
    merged = replay(acts[:1], scan.by_key).items["N1"].outline
    assert merged.volume_mm3 > 33.5 * 1.5
    write_reviewed(scan, ANNA, acts)
    labels = np.asarray(nib.load(ReviewedFiles(scan, ANNA).dseg).dataobj)
    assert labels[MISSED] == 2 and labels[SPOTS["L2"]] == 0
    assert labels[one] == 4 and labels[two] == 5
    assert set(np.unique(labels)) == {0, 2, 4, 5}


def test_a_lesion_is_not_added_twice_nor_off_the_scan(dataset):
    scan = automatic(dataset)
    with pytest.raises(RefusedActError, match="L1 is at this place"):
        acts_of(scan, {"type": "add", "centre_ras": list(ras(SPOTS["L1"]))})
    with pytest.raises(RefusedActError, match="not on the scan"):
        acts_of(scan, {"type": "add", "centre_ras": [500, 0, 0]})


def test_a_calcification_that_the_reader_calls_a_bleed_is_counted(dataset):
    scan = automatic(dataset)
    lesions = tuple(replace(item, susceptibility="diamagnetic") for item in scan.lesions)
    scan = Automatic(
        name=scan.name, preproc=scan.preproc, detection=scan.detection, lesions=lesions
    )
    state = replay(acts_of(scan, verdict("L1", "definite")), scan.by_key)
    (lesion,) = reviewed_lesions(scan, state)
    assert lesion.susceptibility == "unknown" and lesion.rating == "definite"


def test_a_scan_that_was_not_read_to_the_end_keeps_its_automatic_result(dataset):
    scan = automatic(dataset)
    assert reviewed_scan(scan) is None
    store(dataset, scan, ANNA, *READ[:-1])
    assert reviewed_scan(scan) is None


def test_a_review_of_an_older_result_is_not_applied(tmp_path):
    root = make_dataset(tmp_path / "out")
    store(root, automatic(root), ANNA, *READ)
    found = reviewed_scan(automatic(root))
    assert found is not None and len(found.lesions) == 4
    make_dataset(root, fingerprint="f2")
    (review,) = find_reviews(automatic(root))
    assert review.stale and reviewed_scan(automatic(root)) is None


def test_a_review_with_an_act_of_another_scan_is_named_and_not_counted(dataset):
    scan = automatic(dataset)
    store(dataset, scan, ANNA, *READ)
    path = log_path(scan.folder, scan.src, ANNA)
    path.write_text(path.read_text().replace(f'"scan":"{scan.src}"', '"scan":"sub-9"', 1))
    (review,) = find_reviews(scan)
    assert not review.counts and not review.acts and "sub-9" in review.damage
    assert reviewed_scan(scan) is None


MORE = {"type": "add", "centre_ras": list(ras(MISSED)), "verdict": "definite"}
NEAR = {"type": "add", "centre_ras": list(ras((MISSED[0] + 1, *MISSED[1:])))}
END = {"type": "finish"}
READERS = {
    "Anna": [verdict("L1", "definite"), verdict("L2", "definite"), verdict("L3", "rejected"), MORE],
    "Ben": [verdict("L1", "possible"), verdict("L2", "rejected"), verdict("L3", "rejected"), NEAR],
    "Cleo": [verdict("L1", "definite"), verdict("L2", "definite"), verdict("L3", "possible")],
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("any", {1: "definite", 2: "definite", 3: "possible", 4: "definite"}),
        ("all", {1: "possible"}),
        ("majority", {1: "definite", 2: "definite", 4: "definite"}),
        ("first", {1: "definite", 2: "definite", 4: "definite"}),
    ],
)
def test_rules_of_consensus(dataset, rule, expected):
    """Lesion 1: three readers; 2: two; 3: one; the added one: two, whose marks are 1 mm apart."""
    scan = automatic(dataset)
    for name, contents in READERS.items():
        store(dataset, scan, Reader(name=name), *contents, END)
    found = reviewed_scan(scan, rule=rule)
    assert {lesion.index: lesion.rating for lesion in found.lesions} == expected
    assert len(found.readers) == (1 if rule == "first" else 3)
    assert disagree(find_reviews(scan)) is True


def test_one_of_several_readers_and_the_last_round_are_chosen(dataset):
    scan = automatic(dataset)
    for name, contents in READERS.items():
        store(dataset, scan, Reader(name=name), *contents, END)
    with pytest.raises(UsageError, match="Anna, Ben, Cleo"):
        reviewed_scan(scan)
    assert [item.index for item in reviewed_scan(scan, reader="cleo").lesions] == [1, 2, 3]
    again = [verdict("L1", "definite"), verdict("L2", "rejected"), verdict("L3", "rejected"), END]
    store(dataset, scan, Reader(name="Cleo", round=2), *again)
    assert [item.index for item in reviewed_scan(scan, reader="Cleo").lesions] == [1]
    assert len(reviewed_scan(scan, reader="Cleo", number=1).lesions) == 3
    assert reviewed_scan(scan, reader="Dora") is None


def test_readers_who_decide_the_same_agree(dataset):
    scan = automatic(dataset)
    for name in ("Anna", "Ben"):
        store(dataset, scan, Reader(name=name), *READERS["Anna"], END)
    assert disagree(find_reviews(scan)) is False


def test_nothing_that_reads_automatic_results_takes_reviews_for_them(dataset):
    scan = automatic(dataset)
    before = usable_results(dataset)
    records = [record.files.sidecar for record in find_records(dataset, "lesions")]
    write_reviewed(scan, ANNA, store(dataset, scan, ANNA, *READ))
    after = usable_results(dataset)
    assert [r.files.sidecar for r in find_records(dataset, "lesions")] == records
    assert [r.files.sidecar for r in find_records(dataset, "preproc")] == [
        r.files.sidecar for r in (before.complete["sub-01"].preproc,)
    ]
    assert after.complete["sub-01"].scan.lesions == before.complete["sub-01"].scan.lesions
    assert scan.detection.damage() is None
    (evaluated,) = evaluated_scans(dataset).scans
    assert evaluated.roles["dseg"] == scan.detection.files.path("dseg")
    assert evaluated.roles["mask"] == scan.detection.files.path("mask")


def test_the_reviewed_files_are_valid_bids(dataset):
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    scan = automatic(dataset)
    write_reviewed(scan, ANNA, store(dataset, scan, ANNA, *READ))
    run = subprocess.run(
        [validator, "--format", "json", str(dataset)], capture_output=True, text=True, check=False
    )
    issues = json.loads(run.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
