"""One reader from the work list to the end of a scan, by keyboard alone; counted by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.review.browser.fake import FakeScan, serve
from tests.review.browser.reader import current, press, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]


def test_twenty_lesions_by_keyboard_alone(new_page: NEW) -> None:
    centres = tuple((12 + 8 * (n % 5), 20 + 10 * (n // 5), 6 + n // 2) for n in range(20))
    scan = FakeScan(centres=centres)
    with serve(scan) as fake:
        page = new_page()
        page.goto(fake.url)
        page.wait_for_selector(".worklist tbody tr")
        page.keyboard.press("Shift+N")
        page.wait_for_selector("body[data-ready=scan1]")
        # 8 definite, 4 possible, 6 rejected, 2 left for later.
        press(page, *"dddddddd", *"pppp", *"112345", *"ll")
        assert current(page) == "L20"
        # The two that are left: one is possible, the other one a vein.
        press(page, "e")
        assert current(page) == "L19"
        press(page, "p", "1")
        # One lesion was missed: five voxels to the patient's left of the last one, two slices up.
        press(page, *["Shift+ArrowRight"] * 5, *["ArrowUp"] * 2, "a")
        assert current(page) == "N1"
        press(page, "z")
        page.wait_for_selector("#zones[open]")
        page.keyboard.type("cere")
        page.keyboard.press("Enter")
        until(page, "cmb.app.waiting === 0 && !document.querySelector('dialog[open]')")
        press(page, "Shift+ArrowUp", "m")
        # Two acts too many, taken back.
        press(page, "r", "c")
        page.keyboard.type("not sure")
        page.keyboard.press("Enter")
        until(page, "cmb.app.waiting === 0")
        press(page, "Control+z", "Control+z")
        page.reload()
        page.wait_for_selector("body[data-ready=scan1]")
        press(page, "Shift+F")
        assert page.inner_text(".summary") == "21 of 21 decided: 9 definite, 5 possible, 7 rejected"
        state = scan.state()
    assert state["finished"]
    verdicts = Counter(item["verdict"] for item in state["items"].values())
    assert verdicts == {"definite": 9, "possible": 5, "rejected": 7}
    reasons = Counter(item["reason"] for item in state["items"].values())
    expected = {"vein": 3, "calcification": 1, "sulcus": 1, "artefact": 1, "other": 1, None: 14}
    assert reasons == expected
    added = state["items"]["N1"]
    assert (added["region"], added["zone"]) == ("cerebellum", "infratentorial")
    x, y, z = centres[19]
    # Crosshair to the right on a radiological display is towards the patient's left.
    assert added["centre_ijk"] == [x - 5, y + 1, z + 2]
