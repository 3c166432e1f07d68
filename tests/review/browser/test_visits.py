"""Two visits on the page: status of lesions, lesions of the other visit, both beside each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.review.browser.reader import assert_nothing_is_cut_off, cursor, until
from tests.review.serving import Running, serving
from tests.review.test_visits import SECOND, follow, make_visits

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]


def open_second(page: Page, server: Running) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}#scan={SECOND}")
    page.wait_for_selector(f"body[data-ready='{SECOND}']")


def facts(page: Page) -> str:
    return page.inner_text(".facts")


def test_the_follow_up_is_on_the_page(
    new_page: NEW, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_visits(tmp_path)
    follow(root, monkeypatch)
    with serving(root) as server:
        page = new_page()
        open_second(page, server)
        rows = page.locator(".items .item").all_inner_texts()
        assert [row.split(", ")[-1].strip() for row in rows] == ["new", *["persistent"] * 3]
        page.locator(".items .item").nth(1).click()
        assert "Follow-up, earlier visit a" in facts(page)
        assert "persistent, L2 there" in facts(page)
        before = cursor(page)
        page.get_by_role("button", name="gone (no candidate and no dark spot there)").click()
        assert cursor(page) != before, "the crosshair goes to the place of the lesion"
        until(page, "cmb.app.reading.display.other.id === 'earlier-1'")
        assert page.locator(".image-row").nth(1).is_visible()
        for width in (1280, 700):
            page.set_viewport_size({"width": width, "height": 900})
            assert_nothing_is_cut_off(page)
            page.screenshot(path=str(tmp_path / f"visits-{width}.png"))
    with serving(root, "--blinded") as server:
        page = new_page()
        open_second(page, server)
        assert "Follow-up" not in page.inner_text("body")
        assert page.locator(".visits").count() == 0
