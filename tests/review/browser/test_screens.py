"""Every screen at two widths, dark and light: nothing is cut off.

With ``CMBPREP_SCREENSHOTS=DIR`` the pictures are kept there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.review.browser.fake import FakeScan, serve
from tests.review.browser.reader import open_scan, press, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]

#: Buttons and boxes that reach beyond the window or beyond their own frame.
CUT_OFF = """() => [...document.querySelectorAll("button, select, .field, h1, h2, .facts")]
    .filter((one) => one.checkVisibility() && !one.closest(".scroll, .item-box"))
    .filter((one) => {
        const box = one.getBoundingClientRect();
        return box.left < -1 || box.right > innerWidth + 1;
    }).map((one) => one.textContent)"""


@pytest.mark.parametrize("width", [1280, 700])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_screen_is_cut_off(new_page: NEW, tmp_path: Path, width: int, theme: str) -> None:
    folder = Path(os.environ.get("CMBPREP_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def look(name: str) -> None:
        page.wait_for_timeout(150)
        page.screenshot(path=folder / f"review_{name}_{width}_{theme}.png")
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    other = FakeScan(id="scan2", name="sub-02_ses-baseline_acq-highres_run-01_echo-1_T2starw")
    with serve(FakeScan(), other) as fake:
        page = new_page(width)
        page.add_init_script(f"localStorage.setItem('cmbprep-review-theme', '{theme}')")
        page.goto(fake.url)
        page.wait_for_selector(".worklist tbody tr")
        look("list")
        open_scan(page, fake)
        press(page, "d")
        look("reading")
        press(page, "v", "s", "k", "x")
        until(page, "cmb.app.reading.display.other.id === 'phase'")
        page.click(".whole summary")
        look("beside")
        press(page, "Escape", "f")
        look("enlarged")
        press(page, "z")
        look("region")
        press(page, "Escape", "?")
        look("keys")
