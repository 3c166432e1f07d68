"""Browsers that are killed (SIGKILL) at random moments while a script reads.

Twice each; the environment variable CMBPREP_KILLS sets another number.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cmbprep.ratings.replay import replay
from cmbprep.ratings.reviewed import is_current
from cmbprep.ratings.store import Reader, log_path, read_log
from tests.conftest import ARGUMENTS
from tests.ratings.madeup import automatic, make_dataset
from tests.review.browser.fake import FakeScan, static_page
from tests.review.browser.reader import press, state, until
from tests.review.serving import serving
from tests.review.test_killed import check_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KILLS = int(os.environ.get("CMBPREP_KILLS", "2"))
SCAN = "sub-01_T2starw"
ANNA = Reader(name="Anna B.")
#: What the script presses: verdicts, a lesion that is added and moved, undo and redo.
KEYS = ["d", "p", "1", "Shift+ArrowUp", "a", "d", "m", "Control+z", "n", "2", "Control+y", "l"]
#: Notes every act that the page begins, and those that were answered as stored or refused.
WATCH = """() => {
    window.begun = [];
    window.answered = [];
    window.refused = [];
    const push = cmb.ActQueue.prototype.push;
    cmb.ActQueue.prototype.push = function (act) {
        push.call(this, act);
        window.begun.push(this.waiting.at(-1).id);
    };
    const act = cmb.app.backend.act.bind(cmb.app.backend);
    cmb.app.backend.act = async (scan, one) => {
        try {
            const answer = await act(scan, one);
            window.answered.push(answer.act.id);
            return answer;
        } catch (error) {
            if (error.status >= 400) window.refused.push(one.id);
            throw error;
        }
    };
}"""


@contextmanager
def chromium(browser: Browser, profile: Path) -> Iterator[tuple[subprocess.Popen, Page]]:
    """Run a Chromium of its own, all of whose processes can be killed, and open a page in it."""
    port = profile / "DevToolsActivePort"
    port.unlink(missing_ok=True)
    options = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["chromium", *options, "--no-first-run", *ARGUMENTS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not (port.is_file() and "\n" in port.read_text()):
        assert time.monotonic() < end and process.poll() is None, "Chromium did not start"
        time.sleep(0.02)
    try:
        address = f"http://127.0.0.1:{port.read_text().split()[0]}"
        connected = browser.browser_type.connect_over_cdp(address)
        yield process, connected.contexts[0].new_page()
    finally:
        kill(process)
        process.wait()
        with suppress(Exception):
            connected.close()


def kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def open_page(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.wait_for_selector(f"body[data-ready='{name}']")


def read_until_killed(
    process: subprocess.Popen,
    page: Page,
    address: str,
    name: str,
    seconds: float,
    *,
    loading: bool,
) -> dict[str, list[str]]:
    """Read at the pace of a quick person until the browser is killed.

    Parameters
    ----------
    seconds, loading
        After which it is killed, from the beginning of loading or of reading on.

    Returns
    -------
    dict
        ``begun``, ``answered`` and ``refused``: ids of acts, as the page last said.
    """
    from playwright.sync_api import Error

    seen: dict[str, list[str]] = {"begun": [], "answered": [], "refused": []}
    timer = threading.Timer(seconds, kill, [process])
    try:
        if loading:
            timer.start()
        open_page(page, address, name)
        if not loading:
            timer.start()
        page.evaluate(WATCH)
        number = 0
        while True:
            page.keyboard.press(KEYS[number % len(KEYS)])
            seen = page.evaluate("({ begun, answered, refused })")
            number += 1
            page.wait_for_timeout(30)
    except Error:
        assert process.wait(timeout=60) == -signal.SIGKILL, "the browser ended by itself"
    finally:
        timer.cancel()
    return seen


def check_kept(kept: list[str], seen: dict[str, list[str]]) -> int:
    """Check the acts of one life of a browser; return how many of the begun ones are lost."""
    # What was answered is there, in the order in which it was done.
    assert kept[: len(seen["answered"])] == seen["answered"]
    # What is there beyond it was begun after it, in this order; the last may not have been seen.
    begun, known = seen["begun"], set(kept)
    places = [begun.index(one) for one in kept if one in begun]
    assert places == sorted(places) and kept[: len(places)] == [begun[at] for at in places]
    last = max(places, default=-1)
    open_acts = set(begun) - set(seen["answered"])
    # An act that was passed over was refused, perhaps after the page was asked last.
    assert set(begun[:last]) - known <= open_acts
    assert set(begun[: max(0, last - 2)]) - known <= set(seen["refused"])
    return len([one for one in begun[last + 1 :] if one not in seen["refused"]])


def test_a_killed_browser_loses_at_most_the_last_act(browser: Browser, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "out")
    scan = automatic(root)
    path = log_path(scan.folder, scan.src, ANNA)
    rng = random.Random(11)
    stored: list[str] = []
    lost: list[int] = []
    with serving(root) as server:
        address = f"http://127.0.0.1:{server.port}/?token={server.token}#scan={SCAN}"
        for number in range(KILLS):
            with chromium(browser, tmp_path / f"profile{number}") as (process, page):
                seen = read_until_killed(
                    process, page, address, SCAN, rng.uniform(0.1, 3), loading=number % 4 == 3
                )
            with chromium(browser, tmp_path / f"profile{number}") as (_, page):
                open_page(page, address, SCAN)
                until(page, "cmb.app.waiting === 0", 30)
            ids = [act.id for act in read_log(path)]
            assert ids[: len(stored)] == stored
            lost.append(check_kept(ids[len(stored) :], seen))
            stored = ids
            check_files(root)
        assert len(stored) >= KILLS
        check_shown(browser, tmp_path, address, SCAN, replay(read_log(path), scan.by_key))
    print(f"acts kept: {len(stored)}; begun and lost, by kill: {lost}")
    # What a slow server has not answered yet, the next page sends.
    assert max(lost) <= 1
    assert is_current(scan, ANNA, read_log(path))
    check_files(root)


def check_shown(browser: Browser, tmp_path: Path, address: str, name: str, expected: Any) -> None:
    """Check that the next browser shows what is stored, and that reading goes on."""
    with chromium(browser, tmp_path / "last") as (_, page):
        open_page(page, address, name)
        shown = state(page)["items"]
        assert {key: item["verdict"] for key, item in shown.items()} == {
            key: item.verdict for key, item in expected.items.items()
        }
        depth = state(page)["undo_depth"]
        press(page, "d")
        assert state(page)["undo_depth"] == depth + 1


def test_a_static_page_keeps_its_acts_when_the_browser_is_killed(
    browser: Browser, tmp_path: Path
) -> None:
    """localStorage alone loses the acts of the last five seconds: Chromium writes it late."""
    path = tmp_path / "sub-01.html"
    path.write_text(static_page(FakeScan()), "utf-8")
    rng = random.Random(12)
    profile = tmp_path / "profile"
    stored: list[str] = []
    lost: list[int] = []
    for number in range(KILLS):
        with chromium(browser, profile) as (process, page):
            seen = read_until_killed(
                process, page, path.as_uri(), "scan1", rng.uniform(0.1, 3), loading=number % 4 == 3
            )
        with chromium(browser, profile) as (_, page):
            open_page(page, path.as_uri(), "scan1")
            ids = page.evaluate("cmb.app.backend.acts.map((act) => act.id)")
        assert ids[: len(stored)] == stored
        lost.append(check_kept(ids[len(stored) :], seen))
        stored = ids
    print(f"acts kept: {len(stored)}; begun and lost, by kill: {lost}")
    assert len(stored) >= KILLS and max(lost) <= 1


@pytest.mark.parametrize("broken", ["undefined", "{ open() { return {}; } }"])
def test_a_browser_without_a_database_still_reads(
    new_page: Any, tmp_path: Path, broken: str
) -> None:
    """None, and one that never answers."""
    path = tmp_path / "sub-01.html"
    path.write_text(static_page(FakeScan()).replace("PATIENCE_MS = 5000", "PATIENCE_MS = 50"))
    page = new_page()
    page.add_init_script(f"Object.defineProperty(window, 'indexedDB', {{ value: {broken} }})")
    open_page(page, path.as_uri(), "scan1")
    press(page, "d", "p")
    assert state(page)["undo_depth"] == 2
