"""The page with the real server: what is read in the browser is what the derivatives say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.review.browser.reader import current, press, state, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

madeup = pytest.importorskip("tests.ratings.madeup", reason="the server is not there")
from tests.review.serving import Running, serving  # noqa: E402

NEW = Callable[..., "Page"]
SCAN = "sub-01_T2starw"


def open_real(page: Page, server: Running) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}#scan={SCAN}")
    page.wait_for_selector(f"body[data-ready='{SCAN}']")


def go_to(page: Page, ras: tuple[float, float, float]) -> None:
    """Set the crosshair to a position in mm."""
    page.evaluate(
        """(ras) => {
            const { scan, display } = cmb.app.reading;
            display.view.goTo(cmb.toVoxel(scan.affine)(ras));
        }""",
        list(ras),
    )


def test_every_lesion_is_dark_where_the_page_marks_it(new_page: NEW, tmp_path: Path) -> None:
    """The made-up scan is stored flipped and with its axes in another order."""
    root = madeup.make_dataset(tmp_path / "out", (SCAN,))
    with serving(root) as server:
        page = new_page()
        open_real(page, server)
        press(page, "o", "h")
        for key, voxel in madeup.SPOTS.items():
            x, y, z = madeup.ras(voxel)
            go_to(page, (x, y, z))
            page.wait_for_timeout(120)
            png = page.locator(".pane-axial canvas").first.screenshot()
            image = np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)
            # From the grid of the made-up scan: 1 mm to the right, 2 mm to the front.
            shape, affine = page.evaluate(
                "[cmb.app.reading.scan.shape, cmb.app.reading.scan.affine]"
            )
            lengths = np.multiply(shape, np.abs(np.diag(np.array(affine)[:3, :3])))
            scale = min(image.shape[1] / lengths[0], image.shape[0] / lengths[1])
            middle = np.array(affine) @ [*np.subtract(shape, 1) / 2, 1]
            column = image.shape[1] / 2 - (x - middle[0]) * scale
            row = image.shape[0] / 2 - (y - middle[1]) * scale
            brain = np.median(image[image > 60])
            assert image[int(row), int(column)] < 0.6 * brain, key
            assert image[int(row), int(column + 4 * scale)] > 0.8 * brain, key


def test_a_tab_that_is_shown_again_follows_the_other_one(new_page: NEW, tmp_path: Path) -> None:
    """Two tabs of one reader: what is on the screen is what is stored."""
    root = madeup.make_dataset(tmp_path / "out", (SCAN,))
    with serving(root) as server:
        first, second = new_page(), new_page()
        for page in (first, second):
            open_real(page, server)
        press(first, "d", "1")
        assert state(second)["items"]["L2"]["verdict"] == "undecided"
        second.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        until(second, "cmb.app.reading.state.items.L2.verdict === 'rejected'")
        assert "another tab" in second.inner_text("#announcer")
        assert "2 of 3 decided" in second.inner_text(".summary")
        press(second, "p")
        assert state(second)["items"]["L1"]["verdict"] == "possible"
        # Nothing has changed: nothing is said.
        second.evaluate("cmb.announce('same')")
        second.evaluate("cmb.app.reading.catchUp()")
        assert second.inner_text("#announcer") == "same"


def test_the_derivatives_follow_the_reader(new_page: NEW, tmp_path: Path) -> None:
    root = madeup.make_dataset(tmp_path / "out", (SCAN,))
    with serving(root) as server:
        page = new_page()
        open_real(page, server)
        press(page, "d", "1", "p")
        go_to(page, madeup.ras(madeup.MISSED))
        press(page, "a")
        assert current(page) == "N1"
        assert state(page)["items"]["N1"]["segmented"]
        press(page, "z")
        page.wait_for_selector("#zones[open]")
        page.keyboard.type("thal")
        page.keyboard.press("Enter")
        until(page, "cmb.app.waiting === 0 && !document.querySelector('dialog[open]')")
        press(page, "r", "2", "Control+z", "Control+z")
        page.reload()
        page.wait_for_selector(f"body[data-ready='{SCAN}']")
        press(page, "Shift+F")
        assert state(page)["finished"], page.inner_text("#notice")
    [table] = root.glob("sub-01/anat/*_desc-reviewed1annab_dseg.tsv")
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    # By hand: two of three listed lesions, one vein, and the added one in the reader's region.
    assert [(row["source"], row["verdict"], row["reason"]) for row in rows] == [
        ("automatic", "definite", "n/a"),
        ("automatic", "rejected", "vein"),
        ("automatic", "possible", "n/a"),
        ("added", "definite", "n/a"),
    ]
    assert rows[3]["region"] == "thalamus"


def test_markup_of_a_reader_and_a_dataset_is_text(new_page: NEW, tmp_path: Path) -> None:
    markup = "<img src=x onerror=document.title='x'>"
    root = madeup.make_dataset(tmp_path / "out", (SCAN,))
    description = json.loads((root / "dataset_description.json").read_text("utf-8"))
    description["Name"] = markup
    (root / "dataset_description.json").write_text(json.dumps(description), "utf-8")
    with serving(root, reader=f"Anna {markup}") as server:
        server.act(SCAN, type="comment", lesion="L1", text=markup)
        server.act(SCAN, type="verdict", lesion="L1", verdict="later")
        page = new_page()
        open_real(page, server)
        assert f"Anna {markup}" in page.inner_text("#top .reader")
        assert page.input_value("#comment") == markup
        assert page.locator("img").count() == 0 and page.title() != "x"
