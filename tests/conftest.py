"""What all tests share: the real scans, seeds, and a process without network or surprises."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Read when nipype, matplotlib, templateflow and ITK are imported, so set before any test is.
os.environ["NIPYPE_NO_ET"] = "1"
os.environ["NO_ET"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["TEMPLATEFLOW_AUTOUPDATE"] = "off"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

# A job in the background of a script, or under nohup, ignores these, and so would every process
# that a test starts; tests send them to see how the program ends.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_DATA_VARIABLE = "CMBPREP_REAL_DATA"

# The same examples on every machine; time limits belong to benchmarks. A limit that ends the wait
# for a process or a page is generous, because a busy machine may let it wait for long.
hypothesis.settings.register_profile("cmbprep", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("cmbprep")


def _real_bids_folder() -> Path:
    given = os.environ.get(REAL_DATA_VARIABLE)
    return Path(given) if given else REPOSITORY.parent / "shared" / "data" / "bids-real"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for the real scans, so that `-m 'not real'` leaves them out.

    Files with slow tests come first. A worker that began with one of them at the end would leave
    the other workers idle. pytest-xdist keeps this order with ``--no-loadscope-reorder``.
    """
    for item in items:
        if "real_bids" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout that the tests run from."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_bids() -> Path:
    """BIDS dataset of real scans, read-only; a test that needs it is skipped where it is absent."""
    folder = _real_bids_folder()
    if not (folder / "dataset_description.json").is_file():
        pytest.skip(f"no real scans here: set {REAL_DATA_VARIABLE} to a BIDS folder of them")
    return folder


@pytest.fixture(scope="session")
def real_phase(real_bids: Path) -> Path:
    """Folder of real phase images beside the real scans; a test that needs it is skipped."""
    folder = real_bids.parent / "phase"
    if not (folder / "gre3_phase.nii.gz").is_file():
        pytest.skip(f"no real phase images here: {folder}")
    return folder


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of everything random in the tests."""
    return 20260501


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Random numbers that start anew in every test."""
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Reset the program's log for each test to its state before a run opens it."""
    yield
    logger = logging.getLogger("cmbprep")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Let no test reach another machine: everything cmbprep does by default works offline."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            host = address[0] if isinstance(address, tuple) else address
            if host not in {"127.0.0.1", "::1", "localhost"}:
                raise ConnectionRefusedError(f"a test tried to reach {address!r}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


# --- a headless browser, without which tests of pages are skipped -----------------------

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
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
