"""The work list: order, filters, progress, next unread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.review.browser.fake import Fake, FakeScan, serve
from tests.review.browser.reader import press, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]
SMALL = (12, 12, 6)


@pytest.fixture
def fake() -> Iterator[Fake]:
    scans = [
        FakeScan(
            id=f"id{n}",
            name=f"sub-{n:02d}_T2starw",
            shape=SMALL,
            centres=((4, 4, 3),) * (n % 3),
            candidates=(),
        )
        for n in range(1, 11)
    ]
    with serve(*scans) as running:
        yield running


def names(page: Page) -> list[str]:
    return page.locator(".worklist tbody th").all_inner_texts()


def open_list(page: Page, fake: Fake) -> None:
    page.goto(fake.url)
    page.wait_for_selector(".worklist tbody tr")


def test_sorting_and_search(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_list(page, fake)
    assert names(page)[0] == "sub-01_T2starw"
    page.click("th >> text=Definite")
    page.click("th >> text=Definite")
    assert names(page)[:3] == ["sub-02_T2starw", "sub-05_T2starw", "sub-08_T2starw"]
    assert page.get_attribute("th:has-text('Definite')", "aria-sort") == "descending"
    page.keyboard.press("/")
    page.keyboard.type("sub-1")
    assert names(page) == ["sub-10_T2starw"]
    assert "1 of 10 scans shown" in page.inner_text("#worklist")


def test_positive_scans_and_a_seeded_sample(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_list(page, fake)
    page.select_option("select >> nth=1", "positive")
    assert len(names(page)) == 7
    page.select_option("select >> nth=1", "")
    page.fill("input[type=number] >> nth=0", "4")
    drawn = names(page)
    assert len(drawn) == 4
    page.fill("input[type=number] >> nth=1", "2")
    assert len(names(page)) == 4 and names(page) != drawn
    page.fill("input[type=number] >> nth=1", "0")
    assert names(page) == drawn
    page.reload()
    page.wait_for_selector(".worklist tbody tr")
    assert names(page) == drawn
    page.click("text=Clear filters")
    assert len(names(page)) == 10


def test_a_list_from_a_file(new_page: NEW, fake: Fake, tmp_path: Path) -> None:
    page = new_page()
    listed = tmp_path / "list.txt"
    listed.write_text("sub-03 # first\n\nsub-07_T2starw\r\nid9\nsub-99\n", "utf-8")
    open_list(page, fake)
    page.set_input_files("input[type=file]", listed)
    until(page, "document.querySelectorAll('.worklist tbody tr').length === 3")
    assert names(page) == ["sub-03_T2starw", "sub-07_T2starw", "sub-09_T2starw"]


def test_next_unread_by_keyboard_alone(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_list(page, fake)
    press(page, "Shift+N")
    page.wait_for_selector("body[data-ready=id1]")
    press(page, "d", "Shift+F")
    press(page, "Shift+N")
    page.wait_for_selector("body[data-ready=id2]")
    press(page, "w")
    page.wait_for_selector("#worklist:not([hidden])")
    until(page, "document.querySelector('.progress').textContent.startsWith('1 of 10 scans done')")
    assert "● done" in page.inner_text(".worklist tbody tr >> nth=0")
    # Arrows and Enter open a scan.
    press(page, "ArrowDown", "ArrowDown", "Enter")
    page.wait_for_selector("body[data-ready=id2]")


def test_a_filter_holds_for_next_unread(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_list(page, fake)
    page.fill("input[type=search]", "sub-07")
    page.keyboard.press("Escape")
    press(page, "Shift+N")
    page.wait_for_selector("body[data-ready=id7]")


def test_an_unknown_scan_is_a_message(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_list(page, fake)
    page.route("**/api/scans/id3", lambda route: route.fulfill(status=500, body="{}"))
    page.goto(f"{fake.url}#scan=id3")
    page.wait_for_selector("#notice:not([hidden])")
    assert "500" in page.inner_text("#notice")
    page.unroute("**/api/scans/id3")
    page.reload()
    page.wait_for_selector("body[data-ready=id3]")
