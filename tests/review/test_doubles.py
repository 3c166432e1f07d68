"""What a static page cannot know: which of its lesions are the same one."""

from __future__ import annotations

import json

from cmbprep.ratings.replay import replay
from cmbprep.ratings.store import log_path, read_log
from cmbprep.review.importing import import_file
from cmbprep.review.scans import find_scans
from tests.ratings.madeup import MISSED, SPOTS, make_dataset, ras
from tests.review.test_static import SCAN, exported


def test_doubles_of_a_static_page_are_left_out(tmp_path):
    root = make_dataset(tmp_path / "out", spots={**SPOTS, "C6": MISSED})
    place = list(ras(MISSED))
    acts = [
        {"type": "verdict", "lesion": "L3", "verdict": "definite"},
        {"type": "add", "centre_ras": place, "lesion": "N1"},
        {"type": "verdict", "lesion": "C6", "verdict": "definite"},
        {"type": "undo"},
        {"type": "redo"},
        {"type": "move", "lesion": "L2", "centre_ras": list(ras(SPOTS["L3"]))},
        {"type": "split", "lesion": "L1", "centres": [[0, 0, 0], place], "lesions": ["N2", "N3"]},
    ]
    path = tmp_path / "file.json"
    path.write_text(json.dumps(exported(root, *acts)))
    scans = find_scans(root)
    found = import_file(path, root, scans)
    assert found.skipped == (
        "act 3, verdict: the lesion N1 is at this place already",
        "act 6, move: the lesion L3 is at this place already",
        "act 7, split: a lesion can be split only at positions on it",
    )
    automatic = scans[SCAN].automatic
    state = replay(read_log(log_path(automatic.folder, automatic.src, found.reader)), ["L3"])
    assert [item.key for item in state.positive] == ["L3", "N1"]
