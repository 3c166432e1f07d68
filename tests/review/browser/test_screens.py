"""Every screen at two widths, dark and light: nothing is cut off.

With ``CMBPREP_SCREENSHOTS=DIR`` the pictures are kept there. With ``CMBPREP_SCREENSHOTS_OF=DEMO``,
the folder that ``make demo`` fills, those of the documentation show its first scan.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.ratings.madeup import make_dataset
from tests.review.browser.fake import FakeScan, serve
from tests.review.browser.reader import (
    assert_nothing_is_cut_off,
    current,
    open_scan,
    press,
    until,
)
from tests.review.serving import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]
SCAN = "sub-01_T2starw"


def in_each_look(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test at two widths, dark and light."""
    test = pytest.mark.parametrize("width", [1280, 700])(test)
    return pytest.mark.parametrize("theme", ["dark", "light"])(test)


def pictures(tmp_path: Path) -> Path:
    """Folder of the pictures."""
    folder = Path(os.environ.get("CMBPREP_SCREENSHOTS", tmp_path / "pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


#: Controls whose text, or what stands in it before something is written, cannot be read well.
LOW_CONTRAST = """() => {
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const part = (v) => (v <= 10.3 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const ground = (one) => {
        const colour = rgb(getComputedStyle(one).backgroundColor);
        return colour[3] === 0 && one.parentElement ? ground(one.parentElement) : colour;
    };
    const found = [];
    const controls = "select, option, optgroup, input, textarea, button";
    for (const one of document.querySelectorAll(controls)) {
        const disabled = one.disabled || one.closest("[disabled]");
        if (disabled || !one.closest("select, button, label, dialog")?.checkVisibility()) continue;
        for (const part of [null, "::placeholder"]) {
            if (part && !one.placeholder) continue;
            const pair = [light(rgb(getComputedStyle(one, part).color)), light(ground(one))];
            const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
            if (ratio < 4.5) found.push(`${one.tagName} ${one.textContent} ${part} ${ratio}`);
        }
    }
    return found;
}"""


def contrast_of_chosen(page: Page) -> float:
    """Contrast (WCAG 2) of the chosen region as it is painted: its ground and its text."""
    box = page.evaluate(
        """() => {
            const box = document.querySelector("#zones option:checked").getBoundingClientRect();
            return { x: box.x, y: box.y, width: box.width, height: box.height };
        }"""
    )
    image = Image.open(BytesIO(page.screenshot(clip=box))).convert("RGB")
    values = np.asarray(image).reshape(-1, 3) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = linear @ [0.2126, 0.7152, 0.0722]
    ground = float(np.median(light))
    # The middle of a stroke is where the text is furthest from its ground.
    text = float(light[np.argmax(np.abs(light - ground))])
    return (max(ground, text) + 0.05) / (min(ground, text) + 0.05)


@in_each_look
def test_no_screen_is_cut_off(new_page: NEW, tmp_path: Path, width: int, theme: str) -> None:
    folder = pictures(tmp_path)

    def look(name: str) -> None:
        page.wait_for_timeout(150)
        page.screenshot(path=folder / f"review_{name}_{width}_{theme}.png")
        assert_nothing_is_cut_off(page)
        assert page.evaluate(LOW_CONTRAST) == []

    other = FakeScan(id="scan2", name="sub-02_ses-baseline_acq-highres_run-01_echo-1_T2starw")
    with serve(FakeScan(), other) as fake:
        page = new_page(width)
        page.add_init_script(f"localStorage.setItem('cmbprep-review-theme', '{theme}')")
        page.goto(fake.url)
        page.wait_for_selector(".worklist tbody tr")
        look("list")
        # What is to be checked is seen without scrolling, beside a long name too.
        flags = "[...document.querySelectorAll('td.column-flags')]"
        right = page.evaluate(f"{flags}.map((one) => one.getBoundingClientRect().right)")
        assert len(right) == 2 and max(right) <= width
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
        assert contrast_of_chosen(page) > 4.5
        press(page, "Escape", "?")
        look("keys")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results to show, of the demo where it is named, else made up; the reader writes there."""
    folder = tmp_path_factory.mktemp("shown")
    demo = os.environ.get("CMBPREP_SCREENSHOTS_OF")
    if demo is None:
        return make_dataset(folder / "out", (SCAN, "sub-02_T2starw"))
    shutil.copytree(demo, folder / "demo")
    return folder / "demo" / "derivatives"


@in_each_look
def test_pictures_of_the_documentation(
    new_page: NEW, shown: Path, tmp_path: Path, width: int, theme: str
) -> None:
    """The way of a reader through a scan, in each look."""

    def look(name: str, height: int = 800) -> None:
        page.wait_for_timeout(300)
        path = pictures(tmp_path) / f"review-{name}-{width}-{theme}.png"
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": width, "height": height})
        # A small palette halves the file and cannot be seen.
        Image.open(path).convert("RGB").quantize(255).save(path, optimize=True)
        assert_nothing_is_cut_off(page)
        assert path.stat().st_size < 200_000

    with serving(shown, reader="Anna") as server:
        page = new_page(width)
        page.add_init_script(f"localStorage.setItem('cmbprep-review-theme', '{theme}')")
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}")
        page.wait_for_selector(".worklist tbody tr")
        press(page, "Shift+N")
        page.wait_for_selector(f"body[data-ready='{SCAN}']")
        press(page, "d", "1")
        page.keyboard.press("w")
        page.wait_for_selector(".worklist tbody tr")
        look("list", height=430)
        press(page, "Shift+N")
        page.wait_for_selector(f"body[data-ready='{SCAN}']")
        assert current(page) == "L3"
        look("reading")
        press(page, "z")
        page.wait_for_selector("#zones[open]")
        look("region")
        press(page, "Escape")
        # The last of its images, such as the T1w image, beside the scan.
        others = page.evaluate("cmb.app.reading.scan.images.slice(1).map((image) => image.id)")
        press(page, "s", *["v" for _ in others])
        if others:
            until(page, f"cmb.app.reading.display.other.id === '{others[-1]}'", 30)
        look("beside")
    # The next look begins with an unread scan.
    for path in shown.rglob("*_desc-reviewed1anna_*"):
        path.unlink()
