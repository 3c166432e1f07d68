"""A reader from the page to the group tables: a real server, by keyboard alone, counted by hand.

The detector lists twenty lesions: ten in the frontal lobe (L1 to L8, L17, L18) and ten in the
thalamus (L9 to L16, L19, L20); the first two are definite. It has missed two dark spots.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from cmbprep.cli.main import main
from cmbprep.lab.cli import main as tools
from tests.group.cohort import read
from tests.ratings.madeup import add_scan, make_dataset, ras
from tests.ratings.reviewing import read_scan
from tests.review.browser.reader import current, press, state, until
from tests.review.serving import Running, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]
#: Both lists of voxels run through the first axis first.
LOW = [(i, j, 9) for j in (13, 20, 27, 34) for i in (9, 16, 23, 30)]
HIGH = [(i, j, 14) for j in (20, 27) for i in (16, 23)]
SPOTS = {f"L{number}": voxel for number, voxel in enumerate([*LOW, *HIGH], start=1)}
#: Where the reader moves L20, and where a lesion is added: both in the frontal lobe.
MOVED, ADDED = (30, 20, 14), (9, 20, 14)
READ, UNREAD = "sub-01_T2starw", "sub-02_T2starw"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(
        tmp_path / "out", (READ, UNREAD), listed=20, spots=SPOTS, missed=(MOVED, ADDED)
    )


def run(root: Path, *words: str) -> int:
    """Run the program on the outputs; the raw dataset is not needed and is not there."""
    return main([str(root.parent / "raw"), str(root), *words])


def open_unread(page: Page, server: Running) -> None:
    """Open the work list and, by keyboard, the first unread scan."""
    page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}")
    page.wait_for_selector(".worklist tbody tr")
    page.keyboard.press("Shift+N")
    page.wait_for_selector(f"body[data-ready='{READ}']")


def read_twenty(page: Page) -> None:
    """L1 to L9, L17, L18 definite; L10 to L13 possible; L14 to L16, L19 rejected; L20 later."""
    press(page, *"ddddddddd", *"pppp", *"123", *"dd", "4", "l")
    assert current(page) == "L20"


def choose_region(page: Page, text: str) -> None:
    press(page, "z")
    page.wait_for_selector("#zones[open]")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    until(page, "cmb.app.waiting === 0 && !document.querySelector('dialog[open]')")


def read_by_keyboard(page: Page) -> None:
    """Read twenty lesions, correct a zone, move one, add one, undo twice, reload, finish."""
    assert current(page) == "L1"
    choose_region(page, "cerebellum")
    read_twenty(page)
    # Seven voxels towards the patient's left (right on the screen), seven slices down.
    press(page, *["Shift+ArrowRight"] * 7, *["ArrowDown"] * 7, "m", "p")
    assert current(page) == "L20"
    # Twenty-one voxels towards the patient's right.
    press(page, *["Shift+ArrowLeft"] * 21, "a")
    assert current(page) == "N1"
    # Two acts too many, taken back.
    press(page, "4")
    press(page, "b", "c")
    page.keyboard.type("not sure")
    page.keyboard.press("Enter")
    until(page, "cmb.app.waiting === 0 && cmb.app.reading.state.undo_depth === 26")
    press(page, "Control+z", "Control+z")
    page.reload()
    page.wait_for_selector(f"body[data-ready='{READ}']")
    press(page, "Shift+F")
    assert state(page)["finished"], page.inner_text("#notice")
    until(
        page,
        "document.querySelector('.summary').textContent"
        " === '21 of 21 decided: 12 definite, 5 possible, 4 rejected'",
    )


def test_from_the_keyboard_to_the_group_tables(new_page: NEW, dataset: Path) -> None:
    before = {path: path.read_bytes() for path in dataset.rglob("sub-*/anat/*")}
    with serving(dataset, reader="Anna") as server:
        page = new_page()
        open_unread(page, server)
        read_by_keyboard(page)
        rows = {row["id"]: row for row in server.get("/api/scans")}
        assert [rows[name]["status"] for name in (READ, UNREAD)] == ["done", "unread"]
    # The automatic result has not changed.
    assert {path: path.read_bytes() for path in before} == before
    check_derivative(dataset)
    assert run(dataset, "participant", "--reports-only") == 0
    check_report(dataset)
    assert run(dataset, "group") == 0
    check_group(dataset)
    read_more(dataset)
    assert tools(["agreement", str(dataset)]) == 0
    check_agreement(dataset)


#: Further participants: number of lesions that the detector lists, and what two readers do.
MORE = {
    "sub-03_T2starw": 20,
    "sub-04_T2starw": 20,
    "sub-05_T2starw": 20,
    "sub-06_T2starw": 20,
    "sub-07_T2starw": 0,
}


def judged(count: int, accepted: int, verdict: str = "definite") -> dict[str, str]:
    """Verdicts that accept the first lesions and reject the others."""
    return {
        f"L{number}": verdict if number <= accepted else "rejected"
        for number in range(1, count + 1)
    }


def read_more(root: Path) -> None:
    """Five more participants are read by Anna, and all six by Ben, without a page."""
    for name, listed in MORE.items():
        add_scan(root, name, listed=listed, spots=SPOTS, missed=(MOVED, ADDED))
    counts = {name: len(SPOTS) for name in (READ, *MORE)} | {"sub-07_T2starw": 0}
    anna = dict(zip(MORE, (20, 0, 10, 2, 0), strict=True))
    ben = dict(zip(counts, (10, 20, 0, 10, 1, 0), strict=True))
    for name, accepted in anna.items():
        added = [ras(ADDED)] if name == "sub-05_T2starw" else []
        verdict = "possible" if name == "sub-05_T2starw" else "definite"
        read_scan(root, name, "Anna", judged(counts[name], accepted, verdict), added=added)
    for name, accepted in ben.items():
        read_scan(root, name, "Ben", judged(counts[name], accepted))


def check_agreement(root: Path) -> None:
    """Six participants; the lesions of each, definite and possible, counted by hand:

    ========  ========  ====  ===  ==============  =============
    sub-      detector  Anna  Ben  detector, Anna  Anna and Ben
    ========  ========  ====  ===  ==============  =============
    01        20        17    10   15              10
    03        20        20    20   20              20
    04        20        0     0    0               0
    05        20        11    10   10              10
    06        20        2     1    2               1
    07        0         0     0    0               0
    together  100       50    41   47              41
    ========  ========  ====  ===  ==============  =============

    In sub-01, L20 was moved by more than 5 mm: it is no lesion of the detector any more.
    """
    found = {
        (row["first"], row["second"], row["figure"]): row
        for row in read(root / "group_agreement.tsv")
        if (row["lesions"], row["protocol"]) == ("definite and possible", "all")
    }
    differences = np.array([3, 0, 20, 9, 18, 0])
    reach = 1.96 * differences.std(ddof=1)
    # Presence: both in four, neither in one, the detector alone in one.
    kappa = (5 / 6 - 22 / 36) / (1 - 22 / 36)
    expected = {
        ("Anna", "detector"): {
            "lesion_sensitivity": 47 / 50,
            "lesion_precision": 47 / 100,
            "lesion_f1": 94 / 150,
            "false_positives_per_scan": 53 / 6,
            "presence_kappa": kappa,
            "presence_sensitivity": 4 / 4,
            "presence_specificity": 1 / 2,
            "count_difference": 50 / 6,
            "count_limit_low": 50 / 6 - reach,
            "count_limit_high": 50 / 6 + reach,
            # All have a probability of 0.9.
            "calibration_error": 0.9 - 47 / 100,
        },
        ("Anna", "Ben"): {
            "lesion_f1": 82 / 91,
            "presence_kappa": 1.0,
            "count_difference": -9 / 6,
        },
        ("Ben", "detector"): {
            "lesion_sensitivity": 41 / 41,
            "false_positives_per_scan": 59 / 6,
        },
        # Anna's nine more in sub-01, and two elsewhere, are no majority of two.
        ("consensus (majority)", "detector"): {"lesion_f1": 2 * 41 / 141},
    }
    for pair, figures in expected.items():
        for name, value in figures.items():
            row = found[(*pair, name)]
            assert float(row["value"]) == pytest.approx(value, abs=1e-4), (pair, name)
            assert (row["n_scans"], row["n_participants"]) == ("6", "6")
    low, high = (float(found["Anna", "detector", "lesion_f1"][name]) for name in ("low", "high"))
    assert low < 94 / 150 < high


def check_derivative(root: Path) -> None:
    folder = root / "sub-01" / "anat"
    rows = read(folder / "sub-01_seg-CMB_desc-reviewed1anna_dseg.tsv")
    verdicts = ["definite"] * 9 + ["possible"] * 4 + ["rejected"] * 3
    verdicts += ["definite"] * 2 + ["rejected", "possible", "definite"]
    assert [row["verdict"] for row in rows] == verdicts
    reasons = {14: "vein", 15: "calcification", 16: "sulcus", 19: "artefact"}
    assert [row["reason"] for row in rows] == [reasons.get(n, "n/a") for n in range(1, 22)]
    assert [row["source"] for row in rows] == ["automatic"] * 20 + ["added"]
    regions = ["cerebellum"] + ["frontal"] * 7 + ["thalamus"] * 8
    regions += ["frontal"] * 2 + ["thalamus", "frontal", "frontal"]
    assert [row["region"] for row in rows] == regions
    assert {row["reader"] for row in rows} == {"Anna"} and {row["comment"] for row in rows} == {
        "n/a"
    }
    assert rows[20]["hemisphere"] == "right" and rows[19]["hemisphere"] == "left"
    mask = np.asarray(nib.load(folder / "sub-01_label-CMB_desc-reviewed1anna_mask.nii.gz").dataobj)
    rejected = [SPOTS[f"L{number}"] for number in reasons]
    kept = [SPOTS[f"L{n}"] for n in range(1, 20) if n not in reasons]
    assert [mask[voxel] for voxel in (*kept, MOVED, ADDED)] == [1] * 17
    assert [mask[voxel] for voxel in (*rejected, SPOTS["L20"])] == [0] * 5
    log = (folder / "sub-01_desc-reviewed1anna_acts.jsonl").read_text().splitlines()
    kinds = Counter(json.loads(line)["type"] for line in log)
    # Twenty verdicts, one on the moved lesion, one that was taken back.
    assert kinds == {
        "verdict": 22,
        "zone": 1,
        "move": 1,
        "add": 1,
        "comment": 1,
        "undo": 2,
        "finish": 1,
    }


def check_report(root: Path) -> None:
    page = (root / "sub-01.html").read_text("utf-8")
    screen = page.partition('<section id="summary">')[2].partition("</section>")[0]
    assert "Numbers of a reader." in screen and "Read by Anna (round 1, " in screen
    assert "The detector had 2 definite and 18 possible ones: 4 rejected, 1 added." in screen
    found = re.findall(r'<p class="tile[^>]*><b>(.*?)</b><span>(.*?)</span>', screen)
    tiles = {name: re.sub(r"<.*?>", "", number) for number, name in found}
    assert (tiles["definite microbleeds"], tiles["possible"]) == ("12", "5")
    # Definite and possible: L2 to L8, L17, L18 and N1 + L20; L9 + L10 to L13; L1.
    zones = [tiles[name] for name in ("lobar", "deep", "infratentorial")]
    assert zones == ["10 + 1", "1 + 4", "1 + 0"]
    assert "Numbers of the detector." in (root / "sub-02.html").read_text("utf-8")


def check_group(root: Path) -> None:
    first, second = read(root / "group_cmb.tsv")
    expected = {
        "source": "reviewed",
        "reader": "Anna",
        "review_status": "done",
        "n_any": "17",
        "n_definite": "12",
        "n_possible": "5",
        "n_any_lobar": "11",
        "n_any_deep": "5",
        "n_any_infratentorial": "1",
        "n_any_cerebellum": "1",
        "pattern_definite": "mixed",
        "n_rejected": "4",
        "n_added": "1",
        "n_automatic_any": "20",
        "n_automatic_any_lobar": "10",
        "n_automatic_any_deep": "10",
    }
    assert {name: first[name] for name in expected} == expected
    for region, number in (("frontal", 11), ("thalamus", 5)):
        sides = [first[name] for name in first if name.startswith(f"n_any_{region}_")]
        assert sides and sum(map(int, sides)) == number, region
    unread = ("source", "n_any", "n_definite", "n_any_lobar", "n_any_deep")
    assert [second[name] for name in unread] == ["automatic", "20", "2", "10", "10"]
    rows = read(root / "group_lesions.tsv")
    mine = [row for row in rows if row["participant_id"] == "sub-01"]
    assert Counter(row["counted"] for row in mine) == {"true": 17, "false": 4}
    changes = {row["index"]: row["change"] for row in mine if row["change"] != "n/a"}
    assert changes == {"1": "zone corrected", "20": "moved", "21": "added"}
    volume = sum(float(row["volume_mm3"]) for row in mine if row["counted"] == "true")
    assert float(first["volume_any_mm3"]) == pytest.approx(volume, abs=0.02)
    assert len(rows) == 21 + 20


def test_two_readers_at_once(
    new_page: NEW, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both have the same scan open; their keys come in turns."""
    with serving(dataset, reader="Anna") as one, serving(dataset, reader="Ben") as two:
        anna, ben = new_page(), new_page()
        open_unread(anna, one)
        open_unread(ben, two)
        # Anna keeps all twenty; Ben rejects the first four, is unsure of the others and adds one.
        for first, second in zip("d" * 20, "1111" + "p" * 16, strict=True):
            anna.keyboard.press(first)
            ben.keyboard.press(second)
        press(anna)
        press(ben, *["Shift+ArrowRight"] * 7, *["ArrowDown"] * 7, "a")
        for page in (anna, ben):
            page.reload()
            page.wait_for_selector(f"body[data-ready='{READ}']")
            press(page, "Shift+F")
            assert state(page)["finished"], page.inner_text("#notice")
        assert len(state(anna)["items"]) == 20 and len(state(ben)["items"]) == 21
    folder = dataset / "sub-01" / "anat"
    for reader, verdicts in {
        "anna": {"definite": 20},
        "ben": {"rejected": 4, "possible": 16, "definite": 1},
    }.items():
        rows = read(folder / f"sub-01_seg-CMB_desc-reviewed1{reader}_dseg.tsv")
        assert Counter(row["verdict"] for row in rows) == verdicts
    assert run(dataset, "group") == 2
    assert "Anna" in capsys.readouterr().err
    for choice, total in {
        ("--reader", "Anna"): "20",
        ("--reader", "Ben"): "17",
        ("--consensus", "any"): "21",
        ("--consensus", "all"): "16",
        ("--automatic",): "20",
    }.items():
        assert run(dataset, "group", *choice) == 0
        assert read(dataset / "group_cmb.tsv")[0]["n_any"] == total, choice
