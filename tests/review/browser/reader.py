"""What a scripted reader does on the page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.review.browser.fake import Fake

#: Buttons and boxes that reach beyond the window or beyond their own frame.
CUT_OFF = """() => [...document.querySelectorAll("button, select, .field, h1, h2, .facts")]
    .filter((one) => one.checkVisibility() && !one.closest(".scroll, .item-box"))
    .filter((one) => {
        const box = one.getBoundingClientRect();
        return box.left < -1 || box.right > innerWidth + 1;
    }).map((one) => one.textContent)"""


def assert_nothing_is_cut_off(page: Page) -> None:
    """Check that every control is within the window and the page does not scroll sideways."""
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def until(page: Page, expression: str, seconds: float = 60) -> None:
    """Wait until an expression is true; Playwright's own waiting needs what the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


def open_scan(page: Page, fake: Fake, scan: str = "scan1") -> None:
    """Open a scan and wait until its image and outlines are there."""
    page.goto(f"{fake.url}#scan={scan}")
    page.wait_for_selector(f"body[data-ready='{scan}']")


def press(page: Page, *keys: str) -> None:
    """Press keys one after the other and wait until everything is saved."""
    for key in keys:
        page.keyboard.press(key)
    until(page, "cmb.app.waiting === 0")


def current(page: Page) -> str:
    """Key of the lesion that is judged."""
    return page.evaluate("cmb.app.reading.currentKey")


def state(page: Page) -> dict[str, Any]:
    """State that the page shows."""
    return page.evaluate("cmb.app.reading.state")


def cursor(page: Page) -> list[int]:
    """Voxel under the crosshair."""
    return page.evaluate("cmb.app.reading.display.view.cursor")


def screen_place(page: Page, plane: str, ijk: list[int]) -> tuple[float, float]:
    """Where a voxel lies on the screen, in pixels of the window."""
    x, y = page.evaluate(
        """([plane, ijk]) => {
            const pane = cmb.app.reading.display.main.viewer.panes.find((p) => p.plane === plane);
            const box = pane.canvas.getBoundingClientRect();
            const [x, y] = pane.frame().toScreen(ijk[pane.across], ijk[pane.up]);
            const ratio = pane.canvas.width / box.width;
            return [box.left + x / ratio, box.top + y / ratio];
        }""",
        [plane, ijk],
    )
    return x, y
