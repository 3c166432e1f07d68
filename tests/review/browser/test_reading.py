"""A reader works through a scan by keyboard; the acts that arrive are checked one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.review.browser.fake import Fake, FakeScan, serve
from tests.review.browser.reader import (
    current,
    cursor,
    open_scan,
    press,
    screen_place,
    state,
    until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]


@pytest.fixture
def scan() -> FakeScan:
    return FakeScan()


@pytest.fixture
def fake(scan: FakeScan) -> Iterator[Fake]:
    with serve(scan) as running:
        yield running


def acts(scan: FakeScan, *names: str) -> list[tuple[Any, ...]]:
    """Acts so far: the type, and some fields."""
    return [(act["type"], *(act.get(name) for name in names)) for act in scan.acts]


def test_verdicts_go_from_lesion_to_lesion(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    assert current(page) == "L1"
    assert cursor(page) == [20, 30, 8]
    press(page, "d", "p", "1")
    assert acts(scan, "lesion", "verdict", "reason") == [
        ("verdict", "L1", "definite", None),
        ("verdict", "L2", "possible", None),
        ("verdict", "L3", "rejected", "vein"),
    ]
    assert page.inner_text(".summary") == "3 of 3 decided: 1 definite, 1 possible, 1 rejected"
    assert "All are decided" in page.inner_text("#announcer")
    assert "✓ saved" in page.inner_text(".saving")
    pressed = page.locator(".reasons [aria-pressed=true]").all_inner_texts()
    assert pressed == ["Vein 1"]


@pytest.mark.parametrize(
    ("key", "verdict", "reason"),
    [
        ("r", "rejected", None),
        ("2", "rejected", "calcification"),
        ("3", "rejected", "sulcus"),
        ("4", "rejected", "artefact"),
        ("5", "rejected", "other"),
        ("u", "undecided", None),
        ("l", "later", None),
    ],
)
def test_each_verdict_has_a_key(
    new_page: NEW, fake: Fake, scan: FakeScan, key: str, verdict: str, reason: str | None
) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, key)
    assert acts(scan, "verdict", "reason") == [("verdict", verdict, reason)]


def test_the_same_by_buttons(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    page.click("button[data-action=calcification]")
    page.click("button[data-action=previous]")
    assert current(page) == "L1"
    page.click(".item >> text=L3")
    page.click("button[data-action=definite]")
    until(page, "cmb.app.waiting === 0")
    assert acts(scan, "lesion", "reason") == [
        ("verdict", "L1", "calcification"),
        ("verdict", "L3", None),
    ]


def test_candidates_below_the_threshold_on_demand(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    assert page.locator(".item").count() == 3
    press(page, "k")
    assert page.locator(".item b").all_inner_texts() == ["L1", "L2", "L3", "C1", "C2"]
    page.click(".item >> text=C1")
    press(page, "d", "k")
    # A candidate with a verdict stays in the list.
    assert page.locator(".item b").all_inner_texts() == ["L1", "L2", "L3", "C1"]


def test_add_at_the_crosshair_and_by_click(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "Shift+ArrowLeft", "a")
    assert scan.acts[0]["centre_ras"] == pytest.approx(scan.to_world((21, 30, 8)))
    assert "lesion" in scan.acts[0] and current(page) == "N1"
    press(page, "y")
    page.mouse.click(*screen_place(page, "axial", [44, 60, 8]))
    until(page, "cmb.app.reading.currentKey === 'N2'")
    assert scan.acts[1]["centre_ras"] == pytest.approx(scan.to_world((44, 60, 8)))
    press(page, "Escape", "Shift+A")
    assert acts(scan, "verdict")[-1] == ("add", "possible")
    assert page.locator(".item").count() == 6
    # A click outside the tool only moves the crosshair.
    page.mouse.click(*screen_place(page, "axial", [30, 30, 8]))
    assert len(scan.acts) == 3


def test_a_lesion_outside_the_brain_mask_is_named(
    new_page: NEW, fake: Fake, scan: FakeScan
) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, *["Shift+ArrowUp"] * 6, "a")
    assert not page.is_visible("#notice"), "inside the mask, nothing is said"
    scan.outside_brain = True
    press(page, *["Shift+ArrowUp"] * 6, "a")
    assert "N2 lies outside the brain mask" in page.inner_text("#notice")
    press(page, "ArrowUp", "m")
    assert "N2 lies outside the brain mask" in page.inner_text("#notice")
    press(page, "d")
    assert not page.is_visible("#notice")


def test_a_lesion_that_comes_late_takes_no_verdict(
    new_page: NEW, fake: Fake, scan: FakeScan
) -> None:
    fake.delay_s = 0.5
    page = new_page()
    open_scan(page, fake)
    press(page, "a")
    assert current(page) == "N1"
    page.click(".item >> text=L1")
    page.keyboard.press("a")
    press(page, "n")
    # The reader has gone on to the next lesion while the new one was segmented.
    assert current(page) == "L2"
    press(page, "d")
    assert acts(scan, "lesion")[-1] == ("verdict", "L2")


def test_an_added_lesion_is_outlined_from_its_runs(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "a")
    edges = page.evaluate(
        "cmb.app.reading.display.view.marks.find((m) => m.key === 'N1').region.edges(2, 8).length"
    )
    # A disc of 21 voxels within 2 mm, each 0.8 mm wide, has 20 outer edges.
    assert edges == 20


def test_move_merge_split_zone_comment(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "Shift+ArrowUp", "m")
    assert scan.acts[-1]["type"] == "move" and scan.acts[-1]["lesion"] == "L1"
    assert scan.acts[-1]["centre_ras"] == pytest.approx(scan.to_world((20, 31, 8)))
    press(page, "t", "n", "g")
    assert scan.acts[-1]["lesions"] == ["L1", "L2"] and current(page) == "N1"
    assert page.locator(".item b").all_inner_texts() == ["L3", "N1"]
    press(page, "x", "x", "ArrowUp", "x", "Enter")
    assert scan.acts[-1]["type"] == "split" and scan.acts[-1]["lesion"] == "N1"
    assert len(scan.acts[-1]["centres"]) == 2
    assert current(page) == "N2"
    press(page, "z")
    page.wait_for_selector("#zones[open]")
    page.keyboard.type("thal")
    press(page, "Enter")
    until(page, "cmb.app.waiting === 0 && !document.querySelector('dialog[open]')")
    assert acts(scan, "lesion", "region")[-1] == ("zone", "N2", "thalamus")
    assert "thalamus" in page.inner_text(".current h2")
    press(page, "c")
    page.keyboard.type("<b>next to a vein</b>")
    press(page, "Enter")
    until(page, "cmb.app.reading.state.items.N2.comment !== ''")
    assert scan.acts[-1]["text"] == "<b>next to a vein</b>"
    # Keys work again after the text.
    press(page, "d")
    assert scan.acts[-1]["type"] == "verdict"


def test_split_needs_two_parts_and_can_be_left(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "x", "x", "Enter")
    assert "two parts" in page.inner_text("#notice")
    press(page, "Escape")
    assert scan.acts == [] and page.is_hidden("#notice") and page.is_hidden(".mode")


def test_undo_and_redo_show_what_they_change(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    assert page.is_disabled("button[data-action=undo]")
    press(page, "d", "d", "d", "Control+z", "Control+z")
    assert current(page) == "L2"
    assert state(page)["items"]["L2"]["verdict"] == "undecided"
    assert "Undone: L2" in page.inner_text("#announcer")
    press(page, "Control+y")
    assert state(page)["items"]["L2"]["verdict"] == "definite"
    press(page, "a", "Control+z")
    assert current(page) in ("L1", "L2", "L3")
    assert [act["type"] for act in scan.acts][-2:] == ["add", "undo"]


def test_a_key_held_down_judges_one_lesion(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    for _ in range(3):
        page.keyboard.down("d")
    page.keyboard.up("d")
    press(page, "n")
    assert acts(scan, "lesion") == [("verdict", "L1")]
    for _ in range(3):
        page.keyboard.down("ArrowUp")
    assert cursor(page)[2] == scan.centres[2][2] + 3


def test_axial_slices_seen_are_counted(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "ArrowUp", "ArrowUp", "ArrowDown")
    assert page.inner_text(".seen") == "3 of 24 axial slices seen"


def test_finish_is_refused_while_lesions_are_open(
    new_page: NEW, fake: Fake, scan: FakeScan
) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "d", "l", "d", "Shift+F")
    assert page.inner_text("#notice").endswith("Not every listed lesion is decided: L2")
    assert current(page) == "L2"
    press(page, "d", "Shift+F")
    assert state(page)["finished"] and page.is_hidden("#notice")
    assert "Whole scan read" in page.inner_text(".scan-state")
    press(page, "Shift+O")
    assert not state(page)["finished"] and scan.acts[-1]["type"] == "reopen"


def test_notes_on_the_scan(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    page.click(".whole summary")
    page.select_option(".whole select >> nth=0", "yes")
    page.select_option(".whole select >> nth=1", "usable")
    page.check("text=Infarct")
    press(page, "Shift+C")
    page.keyboard.type("motion")
    page.keyboard.press("Escape")
    until(page, "cmb.app.waiting === 0")
    last = {name: scan.acts[-1][name] for name in ("siderosis", "quality", "findings", "note")}
    assert last == {
        "siderosis": True,
        "quality": "usable",
        "findings": ["infarct"],
        "note": "motion",
    }


def test_an_opened_scan_says_what_is_to_be_done(new_page: NEW, scan: FakeScan) -> None:
    """And nothing of the scan before it."""
    empty = FakeScan(id="scan2", name="sub-02_T2starw", centres=(), candidates=())
    with serve(scan, empty) as fake:
        page = new_page()
        open_scan(page, fake)
        assert page.inner_text("#announcer") == "3 of 3 lesions are undecided."
        press(page, "d", "d", "d", "Shift+F")
        assert "The whole scan is read" in page.inner_text("#announcer")
        page.keyboard.press("Shift+N")
        page.wait_for_selector("body[data-ready=scan2]")
        assert "No lesion is listed: look through" in page.inner_text("#announcer")


def test_reload_shows_the_same_state(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "d", "2")
    page.reload()
    page.wait_for_selector("body[data-ready=scan1]")
    assert current(page) == "L3"
    assert page.inner_text(".summary") == "2 of 3 decided: 1 definite, 0 possible, 1 rejected"


def test_acts_wait_while_no_server_answers(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    fake.failing = True
    page.keyboard.press("d")
    page.keyboard.press("p")
    page.wait_for_selector(".saving.failed")
    until(page, "document.querySelector('.saving').textContent.includes('not saved (2)')")
    fake.failing = False
    until(page, "cmb.app.waiting === 0")
    assert acts(scan, "lesion", "verdict") == [
        ("verdict", "L1", "definite"),
        ("verdict", "L2", "possible"),
    ]


def close_unsent(page: Page, fake: Fake, *keys: str) -> Page:
    """Press keys while no server answers, close the page, and open the scan in another one."""
    fake.failing = True
    for key in keys:
        page.keyboard.press(key)
    until(page, f"cmb.app.waiting === {len(keys)}")
    page.wait_for_timeout(300)
    page.close(run_before_unload=False)
    fake.failing = False
    return page.context.new_page()


def test_acts_that_were_not_sent_are_sent_by_the_next_page(
    new_page: NEW, fake: Fake, scan: FakeScan
) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "d")
    page = close_unsent(page, fake, "p", "1")
    open_scan(page, fake)
    until(page, "cmb.app.waiting === 0")
    assert acts(scan, "verdict") == [
        ("verdict", "definite"),
        ("verdict", "possible"),
        ("verdict", "rejected"),
    ]
    assert "2 acts that were not stored before are sent now" in page.inner_text("#announcer")
    # They are sent once.
    page.reload()
    page.wait_for_selector("body[data-ready=scan1]")
    assert len(scan.acts) == 3 and "sent now" not in page.inner_text("#announcer")


def test_acts_that_were_not_sent_are_given_up_where_reading_went_on(
    new_page: NEW, fake: Fake, scan: FakeScan
) -> None:
    page = new_page()
    open_scan(page, fake)
    page = close_unsent(page, fake, "d", "p")
    scan.act({"type": "verdict", "lesion": "L1", "verdict": "rejected"})
    open_scan(page, fake)
    assert "2 acts were not stored" in page.inner_text("#notice")
    assert acts(scan, "verdict") == [("verdict", "rejected")]


def test_a_new_start_of_the_server_is_named(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    page = new_page()
    open_scan(page, fake)
    token, fake.token = fake.token, "another"
    page.keyboard.press("d")
    page.wait_for_selector(".saving.failed")
    assert "started anew" in page.inner_text(".saving")
    # The act is not lost.
    fake.token = token
    until(page, "cmb.app.waiting === 0")
    assert acts(scan, "verdict") == [("verdict", "definite")]


def test_an_image_on_another_grid_is_refused(new_page: NEW, fake: Fake, scan: FakeScan) -> None:
    scan.packed["phase"] = FakeScan(shape=(8, 8, 8), centres=(), candidates=()).image("mag")
    page = new_page()
    open_scan(page, fake)
    press(page, "v")
    title = page.locator(".image-title >> nth=1")
    until(page, "document.querySelectorAll('.image-title')[1].textContent.includes('grid')")
    assert "another grid" in title.inner_text()


def test_open_elsewhere_is_read_only(new_page: NEW, scan: FakeScan) -> None:
    scan.locked = "This scan is open elsewhere (host a, since 10:00)"
    with serve(scan) as fake:
        page = new_page()
        open_scan(page, fake)
        assert page.inner_text("#notice") == scan.locked
        press(page, "d")
        assert scan.acts == [] and page.inner_text("#notice") == scan.locked


def test_a_scan_that_another_machine_has_not_closed_is_named(new_page: NEW, scan: FakeScan) -> None:
    scan.left_open = "process 7 on node2 since 10:00"
    with serve(scan) as fake:
        page = new_page()
        open_scan(page, fake)
        assert "process 7 on node2 since 10:00, and not closed" in page.inner_text("#notice")
        press(page, "d")
        assert len(scan.acts) == 1 and not page.is_visible("#notice")


def test_blinded_hides_what_the_machine_thinks(new_page: NEW, scan: FakeScan) -> None:
    with serve(scan, blinded=True) as fake:
        page = new_page()
        page.goto(fake.url)
        page.wait_for_selector(".worklist tbody tr")
        heads = page.locator(".worklist thead th").all_inner_texts()
        assert not {"Definite", "Possible", "Candidates"} & {head.strip() for head in heads}
        assert "positive scans" not in page.inner_text(".filters")
        open_scan(page, fake)
        page.reload()
        page.wait_for_selector("body[data-ready=scan1]")
        assert "Probability" not in page.inner_text(".facts")
        assert "Rating" not in page.inner_text(".facts")
        assert "blinded" in page.inner_text(".reader")


def test_no_probability_is_rounded_to_certainty(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    facts = page.inner_text(".facts").split("\n")
    assert facts[facts.index("Probability") + 1] == "0.900"
    shown = page.evaluate("[0.9994, 0.9997, 1, 0.0001, 0, null].map(cmb.probabilityText)")
    assert shown == ["0.999", ">0.999", ">0.999", "<0.001", "<0.001", None]


def test_verdicts_of_other_readers_where_readers_disagree(new_page: NEW, scan: FakeScan) -> None:
    added = {"key": "N1", "verdict": "possible", "centre_ijk": [30, 40, 12]}
    scan.others = [
        {"reader": "Bob", "round": 1, "verdicts": {"L1": "rejected"}, "added": [added]},
        {"reader": "Bob", "round": 2, "verdicts": {"L1": "definite"}, "added": []},
    ]
    with serve(scan) as fake:
        page = new_page()
        open_scan(page, fake)
        facts = page.inner_text(".facts").split("\n")
        assert facts[facts.index("Bob") + 1] == "rejected"
        assert facts[facts.index("Bob, round 2") + 1] == "definite"
        page.click("text=Bob: N1 ?")
        assert cursor(page) == [30, 40, 12]
        press(page, "n")
        assert "Bob" not in page.inner_text(".facts")


def test_labels_with_markup_are_text(new_page: NEW, scan: FakeScan) -> None:
    scan.name = "sub-01<img src=x onerror=document.title='x'>_T2starw"
    with serve(scan, reader="<script>1</script>") as fake:
        page = new_page()
        page.goto(fake.url)
        page.wait_for_selector(".worklist tbody tr")
        assert page.inner_text(".worklist tbody th") == scan.name
        open_scan(page, fake)
        assert page.inner_text("#top .place") == scan.name
        assert "<script>1</script>" in page.inner_text("#top .reader")
        assert page.locator("img").count() == 0
