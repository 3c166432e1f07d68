"""The participant's report says whose numbers it shows, and what a reader changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cmbprep.cli.main import main
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.store import Reader
from cmbprep.reports.individual import write_subject_report
from tests.ratings.madeup import MISSED, automatic, make_dataset, ras
from tests.ratings.test_reviewed import ANNA, END, READERS, store, verdict

READ = [
    verdict("L1", "definite"),
    verdict("L2", "rejected", "sulcus"),
    verdict("L3", "definite"),
    {"type": "zone", "lesion": "L3", "region": "occipital"},
    {"type": "add", "centre_ras": list(ras(MISSED)), "verdict": "possible"},
    {"type": "comment", "lesion": "N1", "text": "seen on <i>both</i> echoes"},
    {"type": "scan", "siderosis": True, "quality": "usable", "findings": [], "note": "moved"},
    END,
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "out")


def report(root: Path, **choice: str | bool) -> str:
    return write_subject_report(root, "01", ReaderChoice(**choice)).read_text()  # type: ignore[arg-type]


def first_screen(page: str) -> str:
    return page.partition('<section id="summary">')[2].partition("</section>")[0]


def tiles(page: str) -> dict[str, str]:
    found = re.findall(r'<p class="tile[^>]*><b>(.*?)</b><span>(.*?)</span>', first_screen(page))
    return {name: re.sub(r"<.*?>", "", number) for number, name in found}


def rows(page: str) -> list[list[str]]:
    """Return number, class and the cells of each row of the lesion table."""
    body = page.partition('-lesions">Lesions')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        [kind, *(re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line))]
        for kind, line in re.findall(r'<tr class="(.*?)">(.*?)</tr>', body)
    ]


def test_the_first_screen_says_who_has_read_and_when(dataset: Path) -> None:
    acts = store(dataset, automatic(dataset), ANNA, *READ)
    page = report(dataset)
    screen = first_screen(page)
    assert "Numbers of a reader." in screen
    assert f"Read by Anna (round 1, {acts[-1].time[:10]})" in screen
    assert "The detector had 2 definite and 1 possible ones: 1 rejected, 1 added." in screen
    assert "Anna: superficial siderosis: yes; image quality: usable; moved" in screen
    found = tiles(page)
    assert (found["definite microbleeds"], found["possible"]) == ("2", "1")
    assert (found["deep"], found["lobar"]) == ("1 + 0", "1 + 1")
    assert "read by a person; the counts are those of the reading" in page
    assert "have not been read by a person" not in page
    assert "were read by a reader, who looked through the whole scan" in page


def test_rejected_and_added_lesions_are_listed_with_figures(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    page = report(dataset)
    assert [row[:5] for row in rows(page)] == [
        ["", "1", "definite", "definite", ""],
        ["rejected", "2", "rejected: sulcus or flow void", "definite", ""],
        ["", "3", "definite", "possible", "zone corrected"],
        ["", "4", "possible", "not listed", "added"],
    ]
    for number in (1, 2, 3, 4):
        figure = page.partition(f'id="scan-1-lesion-{number}"')[2].partition("</figure>")[0]
        assert "<svg" in figure and f"Lesion {number} · " in figure
    assert "Lesion 2 · rejected (sulcus or flow void)" in page
    assert "Lesion 4 · possible · added" in page
    assert "comment: seen on &lt;i&gt;both&lt;/i&gt; echoes" in page
    assert "sub-01_desc-reviewed1anna_acts.jsonl" in page


def test_the_slices_show_the_lesions_of_the_reader(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    page = report(dataset)
    data = page.partition('id="scan-1-marks">')[2].partition("</script>")[0]
    marks = [(mark["number"], mark["title"].split(" · ")[1]) for mark in json.loads(data)]
    assert marks == [
        (1, "definite"),
        (2, "rejected (sulcus or flow void)"),
        (3, "definite"),
        (4, "possible"),
    ]
    assert all(mark["runs"] for mark in json.loads(data))
    assert 'id="scan-1-voxels">' in page


def test_an_unread_scan_says_so_and_how_to_read_it(dataset: Path) -> None:
    page = report(dataset)
    screen = first_screen(page)
    assert "Numbers of the detector." in screen and "No person has read this scan." in screen
    assert "cmbprep-tools review OUTPUT_DIR --scan sub-01_T2starw" in screen
    assert "have not been read by a person" in page
    assert "rejected" not in page.partition("</style>")[2]


def test_an_unfinished_review_changes_no_number(dataset: Path) -> None:
    before = tiles(report(dataset))
    store(dataset, automatic(dataset), ANNA, *READ[:-1])
    page = report(dataset)
    assert tiles(page) == before
    assert "Anna began to read this scan and has not ended the reading." in first_screen(page)


def test_a_review_of_an_older_result_is_named(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    make_dataset(dataset, fingerprint="f2", listed=2)
    assert main([str(dataset.parent / "raw"), str(dataset), "participant", "--reports-only"]) == 0
    told = "review by Anna (round 1) was made for an older result and is not used"
    assert told in capsys.readouterr().err
    screen = first_screen((dataset / "sub-01.html").read_text())
    assert told in screen and "Numbers of the detector." in screen
    assert "Anna read an older result of this scan." in screen


def test_reviews_that_are_ignored_are_named(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    page = report(dataset, automatic=True)
    assert "This scan was read by Anna; that reading is not used here." in first_screen(page)
    assert tiles(page)["definite microbleeds"] == "2"
    assert tiles(page)["deep"] == "2 + 1"


def test_a_consensus_names_readers_and_rule(dataset: Path) -> None:
    scan = automatic(dataset)
    for name, contents in READERS.items():
        store(dataset, scan, Reader(name=name), *contents, END)
    page = report(dataset, rule="majority")
    screen = first_screen(page)
    assert "Numbers of readers." in screen
    assert re.search(r"Read by Anna \(.*\), Ben \(.*\), Cleo \(", screen)
    assert "lesions count that most of them call microbleeds" in screen
    assert [row[1:3] for row in rows(page)] == [
        ["1", "definite"],
        ["2", "definite"],
        ["3", "rejected"],
        ["4", "definite"],
    ]
    assert "were read by 3 readers" in page


def test_a_run_that_computes_is_not_stopped_by_several_readers(dataset: Path) -> None:
    """Its reports then have the numbers of the detector and say why."""
    scan = automatic(dataset)
    for name in ("Anna", "Ben"):
        store(dataset, scan, Reader(name=name), *READERS[name], END)
    screen = first_screen(report(dataset))
    assert "This scan was read by Anna and Ben, and it was not chosen whose lesions count" in screen
    assert "Numbers of the detector." in screen


def test_a_report_of_a_scan_whose_lesions_are_all_rejected(dataset: Path) -> None:
    contents = [verdict(f"L{number}", "rejected") for number in (1, 2, 3)]
    store(dataset, automatic(dataset), ANNA, *contents, END)
    page = report(dataset)
    assert tiles(page)["definite microbleeds"] == "0"
    assert [row[0] for row in rows(page)] == ["rejected"] * 3


def test_a_figure_that_cannot_be_drawn_costs_itself_alone(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise ValueError("broken")

    scan: Automatic = automatic(dataset)
    store(dataset, scan, ANNA, *READ)
    monkeypatch.setattr("cmbprep.reports.figures.lesions.lesion_figure", fail)
    page = report(dataset)
    assert tiles(page)["definite microbleeds"] == "2"
    assert "drawing it failed (ValueError: broken)" in page


def test_the_same_reviews_give_the_same_bytes(dataset: Path) -> None:
    store(dataset, automatic(dataset), ANNA, *READ)
    assert report(dataset) == report(dataset)
