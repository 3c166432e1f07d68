"""Keys: shown on the page, changed by the reader, kept by the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.review.browser.fake import Fake, FakeScan, serve
from tests.review.browser.reader import open_scan, press, state, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serve(FakeScan()) as running:
        yield running


def rebind(page: Page, action: str, key: str) -> str:
    press(page, "?")
    page.click(f"[data-rebind={action}]")
    page.keyboard.press(key)
    message = page.inner_text("#help .message")
    page.keyboard.press("Escape")
    return message


def test_no_two_actions_share_a_key(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    keys = page.evaluate("Object.values(cmb.ACTIONS).map(([, , key]) => key)")
    assert len(keys) == len(set(keys))
    # Each action does something.
    actions = page.evaluate("Object.keys(cmb.ACTIONS)")
    known = page.evaluate("Object.keys(cmb.app.reading.actions)")
    assert set(actions) - set(known) == {"help", "theme", "worklist", "nextUnread"}


def test_a_key_is_changed_kept_and_reset(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    assert "Definite" in rebind(page, "definite", "j")
    assert page.inner_text("button[data-action=definite] kbd") == "J"
    page.reload()
    page.wait_for_selector("body[data-ready=scan1]")
    press(page, "d")
    assert state(page)["items"]["L1"]["verdict"] == "undecided"
    press(page, "j")
    assert state(page)["items"]["L1"]["verdict"] == "definite"
    press(page, "?")
    page.click("text=Original keys")
    page.keyboard.press("Escape")
    assert page.inner_text("button[data-action=definite] kbd") == "D"


def test_a_key_in_use_is_refused(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    assert "Possible microbleed" in rebind(page, "definite", "p")
    assert page.inner_text("button[data-action=definite] kbd") == "D"


def test_names_of_keys(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    names = page.evaluate(
        """() => [
            {key: "D", shiftKey: true}, {key: "d"}, {key: "?", shiftKey: true}, {key: " "},
            {key: "z", metaKey: true}, {key: "Shift", shiftKey: true},
            {key: "ArrowUp", ctrlKey: true, shiftKey: true},
            {key: "в", code: "KeyD"}, {key: "z", code: "KeyY"},
        ].map((one) => cmb.keyOf(new KeyboardEvent("keydown", one)))"""
    )
    expected = ["Shift+d", "d", "?", "Space", "Ctrl+z", None, "Ctrl+Shift+ArrowUp"]
    # A Russian keyboard has в at the place of d; a German one has z where the English has y.
    assert names == [*expected, "d", "z"]
    # AltGr makes a sign and sends Ctrl and Alt along.
    sign = {"key": "@", "ctrlKey": True, "altKey": True, "modifierAltGraph": True}
    assert page.evaluate("(one) => cmb.keyOf(new KeyboardEvent('keydown', one))", sign) == "@"


def test_keys_typed_into_a_text_are_text(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "c")
    page.keyboard.type("dp12")
    page.keyboard.press("Escape")
    until(page, "cmb.app.waiting === 0")
    assert state(page)["items"]["L1"]["verdict"] == "undecided"
    assert state(page)["items"]["L1"]["comment"] == "dp12"


def test_the_server_may_give_other_keys(new_page: NEW) -> None:
    with serve(FakeScan(), keys={"definite": "j"}) as fake:
        page = new_page()
        open_scan(page, fake)
        press(page, "j")
        assert state(page)["items"]["L1"]["verdict"] == "definite"
