"""A headless browser for the page; without one, these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: No GPU and no WebGL, as on a remote desktop.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-webgl", "--disable-webgl2"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run Debian's Chromium through Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("the program chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages in a browser without memory; errors in their scripts fail the test."""
    problems: list[str] = []
    contexts: list[Any] = []

    def open_page(width: int = 1280, height: int = 800, **options: Any) -> Page:
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
