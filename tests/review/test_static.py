"""Static pages hold all that the server sends, and what they export is taken in."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import CmbprepError
from cmbprep.lab.cli import main
from cmbprep.ratings.replay import replay
from cmbprep.ratings.store import Reader, log_path, read_log
from cmbprep.review import server
from cmbprep.review.importing import FORMAT, import_file
from cmbprep.review.scans import find_scans
from tests.ratings.madeup import MISSED, SPOTS, make_dataset, ras
from tests.review.serving import unpack

SCAN = "sub-01_T2starw"
INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<link rel="stylesheet" href="page/style.css?token=@TOKEN@">
</head>
<body>
<script type="application/json" id="review-data"></script>
<script src="page/main.js?token=@TOKEN@"></script>
</body>
</html>
"""


@pytest.fixture
def page(monkeypatch):
    """Files of a page, so that this test needs no other."""
    files = {"index.html": INDEX, "style.css": "a { b: c }\n", "main.js": "let a = '</script>';\n"}
    monkeypatch.setattr("cmbprep.review.static.page_files", lambda: dict(files))
    return files


def written(root: Path, *options: str) -> str:
    assert main(["review", str(root), "--reader", "Anna", "--static", *options]) == 0
    (path,) = (root / "review").glob("*.html")
    assert path.name == "sub-01_desc-reviewed1anna_review.html"
    return path.read_text("utf-8")


def test_a_static_page_holds_images_data_and_nothing_from_elsewhere(tmp_path, page, capsys):
    text = written(make_dataset(tmp_path / "out"))
    assert "@TOKEN@" not in text and "src=" not in text and "href=" not in text
    assert "default-src 'none'" in text and "<\\/script>" in text
    data = json.loads(re.search(r'id="review-data">(.*?)</script>', text)[1])
    assert data["scan"]["id"] == SCAN and data["session"]["reader"] == "Anna"
    digest = data["based_on"]["digest"]
    assert data["storage_key"] == f"Made up|sub-01|reviewed1anna|{digest}"
    assert data["export_name"] == "sub-01_desc-reviewed1anna_acts.json"
    for name in (f"image-{item['id']}" for item in data["scan"]["images"]):
        block = re.search(rf'id="{name}">([^<]*)</script>', text)[1]
        header, voxels = unpack(gzip.decompress(base64.b64decode(block)))
        assert list(voxels.shape) == header["shape"] == data["scan"]["shape"]
    listed = {item["key"] for item in data["scan"]["items"] if item["kind"] == "listed"}
    assert set(data["outlines"]) == listed and all(data["outlines"].values())


def test_the_same_scan_gives_the_same_bytes(tmp_path, page):
    root = make_dataset(tmp_path / "out")
    assert written(root) == written(root)


def test_no_text_of_a_dataset_ends_the_element_that_holds_it(tmp_path, page):
    root = make_dataset(tmp_path / "out")
    description = json.loads((root / "dataset_description.json").read_text())
    description["Name"] = "</script><script>alert(1)</script>"
    (root / "dataset_description.json").write_text(json.dumps(description))
    text = written(root)
    assert "<script>alert" not in text
    data = json.loads(re.search(r'id="review-data">(.*?)</script>', text)[1])
    assert data["session"]["dataset"] == description["Name"]


def exported(root: Path, *contents: dict, **changes) -> dict:
    base = find_scans(root)[SCAN].automatic.based_on
    acts = [
        {
            "id": f"id-{number}",
            "time": "2026-01-01T10:00:00.000Z",
            "reader": "Anna",
            "round": 1,
            "software": "0.1.0",
            "scan": SCAN,
            "based_on": {"fingerprint": base.fingerprint, "digest": base.digest},
            **content,
        }
        for number, content in enumerate(contents)
    ]
    return {
        "format": FORMAT,
        "version": 1,
        "session": {"reader": "Anna", "round": 1},
        "scan": SCAN,
        "based_on": {"fingerprint": base.fingerprint, "digest": base.digest},
        "acts": acts,
        **changes,
    }


READ = [
    {"type": "verdict", "lesion": "L1", "verdict": "definite", "reason": None},
    {"type": "verdict", "lesion": "L2", "verdict": "rejected", "reason": "vein"},
    {"type": "verdict", "lesion": "L3", "verdict": "possible", "reason": None},
    {"type": "add", "centre_ras": list(ras(MISSED)), "verdict": "definite", "lesion": "N1"},
    {"type": "finish"},
]


def save(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_an_exported_file_is_taken_in_once(tmp_path, capsys):
    root = make_dataset(tmp_path / "out")
    part = save(tmp_path / "part.json", exported(root, *READ[:2]))
    whole = save(tmp_path / "whole.json", exported(root, *READ))
    assert main(["review", str(root), "--import", str(part), str(whole), str(whole)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "2 acts of Anna, round 1, taken in, 0 known; not read to the end" in out[0]
    assert "3 acts" in out[1] and "read to the end" in out[1]
    assert "0 acts of Anna, round 1, taken in, 5 known" in out[2]
    automatic = find_scans(root)[SCAN].automatic
    acts = read_log(log_path(automatic.folder, automatic.src, Reader(name="Anna")))
    assert [act.id for act in acts] == [f"id-{number}" for number in range(5)]
    assert acts[3].outlines["N1"].segmented and acts[0].time.startswith("2026-01-01")
    name = "sub-01_label-CMB_desc-reviewed1anna_mask.nii.gz"
    mask = np.asarray(nib.load(automatic.folder / name).dataobj)
    assert mask[MISSED] == mask[SPOTS["L1"]] == 1 and mask[SPOTS["L2"]] == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": "other"}, "not exported"),
        ({"version": 2}, "not exported"),
        ({"scan": "sub-99_T2starw"}, "not in the output folder"),
        ({"scan": "../../etc/passwd"}, "not in the output folder"),
        ({"based_on": {"fingerprint": "f", "digest": "d"}}, "older result"),
        ({"based_on": None}, "damaged"),
        ({"session": {"reader": "Anna", "round": "one"}}, "damaged"),
        ({"acts": [{"id": "a"}, {"id": "a"}]}, "damaged"),
        ({"acts": "none"}, "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, changes, text):
    root = make_dataset(tmp_path / "out")
    path = save(tmp_path / "file.json", exported(root, *READ, **changes))
    with pytest.raises(CmbprepError, match=text):
        import_file(path, root, find_scans(root))
    assert list(root.rglob("*_acts.jsonl")) == []


def test_an_act_on_an_older_result_is_refused(tmp_path):
    root = make_dataset(tmp_path / "out")
    old = {"based_on": {"fingerprint": "f", "digest": "d"}}
    path = save(tmp_path / "file.json", exported(root, READ[0], {**READ[1], **old}, READ[2]))
    with pytest.raises(CmbprepError, match="act 2 was made on an older result"):
        import_file(path, root, find_scans(root))
    assert list(root.rglob("*_acts.jsonl")) == []


DAMAGED = {
    "verdict": {"type": "verdict", "lesion": "L1", "verdict": "sure"},
    "type": {"type": "guess"},
    "time": {**READ[0], "time": "yesterday"},
    "no base": {**READ[0], "based_on": None},
    "no id": {**READ[0], "id": None},
    "no object": None,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_act_is_left_out_and_named(tmp_path, damage, capsys):
    root = make_dataset(tmp_path / "out")
    content = exported(root, READ[0], DAMAGED[damage] or {}, *READ[1:])
    if DAMAGED[damage] is None:
        content["acts"][1] = "nothing"
    path = save(tmp_path / "file.json", content)
    assert main(["review", str(root), "--import", str(path), str(path)]) == 0
    printed = capsys.readouterr()
    assert "file.json: left out: act 2 is damaged: " in printed.err
    assert "5 acts of Anna" in printed.out and "0 acts of Anna" in printed.out
    automatic = find_scans(root)[SCAN].automatic
    acts = read_log(log_path(automatic.folder, automatic.src, Reader(name="Anna")))
    assert [act.payload.type for act in acts] == [act["type"] for act in READ]


def test_an_undo_of_a_damaged_act_takes_nothing_else_back(tmp_path):
    root = make_dataset(tmp_path / "out")
    parts = [READ[0], DAMAGED["verdict"], {"type": "undo"}]
    path = save(tmp_path / "file.json", exported(root, *parts))
    found = import_file(path, root, find_scans(root))
    assert found.new == 1 and len(found.skipped) == 1


def test_nothing_is_taken_in_of_a_file_with_a_damaged_undo(tmp_path, capsys):
    root = make_dataset(tmp_path / "out")
    wrong = {"type": "undo", "lesion": "L1"}
    path = save(tmp_path / "file.json", exported(root, *READ[:2], wrong))
    assert main(["review", str(root), "--import", str(path)]) == 1
    assert "act 3 is damaged" in capsys.readouterr().err
    assert list(root.rglob("*_acts.jsonl")) == []


def test_acts_that_do_not_fit_are_left_out_with_what_needs_them(tmp_path, capsys):
    """A page without a server cannot know that a lesion lies where a reader has clicked."""
    root = make_dataset(tmp_path / "out")
    i, j, k = SPOTS["L1"]
    again = {"type": "add", "centre_ras": list(ras((i + 2, j, k))), "lesion": "N1"}
    needs = {"type": "verdict", "lesion": "N1", "verdict": "possible"}
    undo, redo = {"type": "undo"}, {"type": "redo"}
    parts = [READ[0], again, needs, undo, undo, undo, redo, redo, READ[1], READ[2], READ[4]]
    path = save(tmp_path / "file.json", exported(root, *parts))
    assert main(["review", str(root), "--import", str(path), str(path)]) == 0
    printed = capsys.readouterr()
    assert "act 2, add: the lesion L1 is at this place already" in printed.err
    assert "act 3, verdict: there is no lesion N1" in printed.err
    assert "read to the end" in printed.out and "0 acts of Anna" in printed.out
    automatic = find_scans(root)[SCAN].automatic
    acts = read_log(log_path(automatic.folder, automatic.src, Reader(name="Anna")))
    kinds = [act.payload.type for act in acts]
    assert kinds == ["verdict", "undo", "redo", "verdict", "verdict", "finish"]
    assert replay(acts, automatic.by_key).items["L1"].verdict == "definite"


def test_a_file_that_continues_something_else_is_refused(tmp_path):
    root = make_dataset(tmp_path / "out")
    import_file(save(tmp_path / "a.json", exported(root, READ[0])), root, find_scans(root))
    other = exported(root, READ[1], READ[2])
    other["acts"][0]["id"] = "another"
    with pytest.raises(CmbprepError, match="other acts from number 1 on"):
        import_file(save(tmp_path / "b.json", other), root, find_scans(root))


def test_a_file_of_a_reader_with_the_same_file_names_is_refused(tmp_path):
    root = make_dataset(tmp_path / "out")
    one = {"session": {"reader": "Stat", "round": 1}}
    two = {"session": {"reader": "Stät", "round": 1}}
    import_file(save(tmp_path / "a.json", exported(root, READ[0], **one)), root, find_scans(root))
    (log,) = root.rglob("*_acts.jsonl")
    before = log.read_bytes()
    path = save(tmp_path / "b.json", exported(root, *READ[:3], **two))
    with pytest.raises(CmbprepError, match="'Stat' has the same file names as 'Stät'"):
        import_file(path, root, find_scans(root))
    assert log.read_bytes() == before


def test_the_files_of_the_page_fit_the_static_file():
    files = server.page_files()
    if "index.html" not in files:
        pytest.skip("the page is not there yet")
    text = files["index.html"]
    named = re.findall(r'(?:src|href)="page/([\w.-]+)\?token=@TOKEN@"', text)
    assert sorted(named) == sorted(set(files) - {"index.html"})
