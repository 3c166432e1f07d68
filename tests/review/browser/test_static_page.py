"""The page as one file, opened from disk: no server, acts kept by the browser, exported."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cmbprep.ratings.acts import parse_act
from cmbprep.ratings.replay import State, replay
from tests.review.browser.fake import FakeScan, static_page
from tests.review.browser.reader import current, press, state, until

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page

NEW = Callable[..., "Page"]


@pytest.fixture
def address(tmp_path: Path) -> str:
    path = tmp_path / "sub-01.html"
    scan = FakeScan(name="sub-01_</script><b>_T2starw")
    path.write_text(static_page(scan), "utf-8")
    return path.as_uri()


def open_file(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("body[data-ready=scan1]")


def test_acts_are_kept_and_exported(new_page: NEW, address: str) -> None:
    page = new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    open_file(page, address)
    press(page, "d", "1", *["Shift+ArrowUp"] * 6, "a", "Control+z", "Control+y")
    assert "5 changes not exported" in page.inner_text(".saving")
    page.reload()
    page.wait_for_selector("body[data-ready=scan1]")
    items = state(page)["items"]
    assert [items[key]["verdict"] for key in ("L1", "L2", "L3", "N1")] == [
        "definite",
        "rejected",
        "undecided",
        "definite",
    ]
    with page.expect_download() as waiting:
        page.click("#export")
    content = json.loads(Path(waiting.value.path()).read_text("utf-8"))
    assert waiting.value.suggested_filename.endswith("_desc-reviewed1annab_acts.json")
    types = [act["type"] for act in content["acts"]]
    assert types == ["verdict", "verdict", "add", "undo", "redo"]
    assert content["scan"] == "sub-01_</script><b>_T2starw"
    first = content["acts"][0]
    assert {"id", "time", "reader", "round", "software", "scan", "based_on"} <= set(first)
    assert content["acts"][2]["lesion"] == "N1"
    assert "✓ exported" in page.inner_text(".saving")
    # Nothing but the file itself was asked for.
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {address}


def test_finish_undo_and_outlines_without_a_server(new_page: NEW, address: str) -> None:
    page = new_page()
    open_file(page, address)
    press(page, "Shift+F")
    assert "L1, L2, L3" in page.inner_text("#notice")
    press(page, "d", "d", "d", "Shift+F")
    assert state(page)["finished"]
    press(page, "Control+z")
    assert not state(page)["finished"]
    marks = "cmb.app.reading.display.view.marks.filter((mark) => mark.region).length"
    assert page.evaluate(marks) == 3
    press(page, "a")
    assert "is at this place already" in page.inner_text("#notice")
    press(page, *["Shift+ArrowUp"] * 6, "a")
    assert current(page) == "N1"
    assert "follows on import" in page.inner_text(".facts")


def test_leaving_with_changes_asks_first(new_page: NEW, address: str) -> None:
    page = new_page()
    open_file(page, address)
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    press(page, "d")
    page.reload()
    page.wait_for_selector("body[data-ready=scan1]")
    assert asked == ["beforeunload"]
    with page.expect_download():
        page.click("#export")
    page.reload()
    page.wait_for_selector("body[data-ready=scan1]")
    assert asked == ["beforeunload"]


def test_a_browser_that_stores_nothing_is_no_loss(new_page: NEW, address: str) -> None:
    page = new_page()
    page.add_init_script("Storage.prototype.setItem = () => { throw new Error('full'); }")
    open_file(page, address)
    press(page, "d", "p")
    assert "stores nothing" in page.inner_text(".saving")
    with page.expect_download() as waiting:
        page.click("#export")
    content = json.loads(Path(waiting.value.path()).read_text("utf-8"))
    assert [act["verdict"] for act in content["acts"]] == ["definite", "possible"]


def test_two_files_do_not_share_acts(new_page: NEW, address: str, tmp_path: Path) -> None:
    page = new_page()
    open_file(page, address)
    press(page, "d")
    other = tmp_path / "sub-02.html"
    other.write_text(static_page(FakeScan(name="sub-02_T2starw")), "utf-8")
    open_file(page, other.as_uri())
    assert state(page)["items"]["L1"]["verdict"] == "undecided"


def test_the_end_says_what_to_do_with_the_file(new_page: NEW, address: str) -> None:
    page = new_page()
    open_file(page, address)
    press(page, "d", "d", "d", "Shift+F")
    assert "Export the review" in page.inner_text("#announcer")
    assert "Shift+N" not in page.inner_text("#announcer")


def test_an_act_on_a_lesion_that_was_replaced_is_refused(new_page: NEW, address: str) -> None:
    """The key comes before the page has gone on to the parts of a split."""
    page = new_page()
    open_file(page, address)
    press(page, "x", "x", "ArrowUp", "x", "Enter")
    page.evaluate("cmb.app.reading.act({ type: 'verdict', lesion: 'L1', verdict: 'definite' })")
    until(page, "cmb.app.waiting === 0")
    assert "L1 was replaced by N1" in page.inner_text("#notice")
    assert state(page)["items"]["L1"]["verdict"] == "undecided"
    assert [act["type"] for act in page.evaluate("cmb.app.backend.acts")] == ["split"]


def test_the_replay_of_the_page_is_that_of_the_package(new_page: NEW, address: str) -> None:
    """The same acts lead to the same state in JavaScript and in Python."""
    page = new_page()
    open_file(page, address)
    press(page, "d", "2", "l", "k", "n", "p")
    press(
        page,
        *["Shift+ArrowUp"] * 6,
        "a",
        "ArrowUp",
        "Shift+A",
        "m",
        "t",
        "b",
        "g",
        "Control+z",
        "Control+y",
    )
    press(page, "x", "x", "ArrowUp", "x", "Enter", "d")
    acts = page.evaluate("cmb.app.backend.acts")
    mine = state(page)
    theirs = replay([parse_act(json.dumps(act)) for act in acts], ["L1", "L2", "L3"])
    assert_same(theirs, mine)


def assert_same(theirs: State, mine: dict[str, Any]) -> None:
    for key, item in theirs.items.items():
        for name in ("verdict", "reason", "deleted_by", "comment"):
            assert getattr(item, name) == mine["items"][key][name], (key, name)
    assert set(theirs.items) == set(mine["items"])
    assert theirs.finished == mine["finished"]
    assert theirs.comment == mine["comment"]
    assert (theirs.undo_depth, theirs.redo_depth) == (mine["undo_depth"], mine["redo_depth"])


def random_acts(rng: random.Random, regions: list[str]) -> Iterator[dict[str, Any]]:
    """Acts in any order, also on lesions that were replaced, taken back or never made."""
    made = 0
    for _ in range(rng.randint(1, 25)):
        keys = ["L1", "L2", "L3", "C1", "C2", *(f"N{k + 1}" for k in range(made + 1))]
        kind = rng.choice(
            ["verdict"] * 4
            + ["comment", "merge", "split", "move", "zone", "add", "undo", "redo", "finish"]
        )
        act: dict[str, Any] = {"type": kind}
        if kind == "verdict":
            verdict = rng.choice(["definite", "possible", "rejected", "undecided", "later"])
            act |= {"lesion": rng.choice(keys), "verdict": verdict}
            if verdict == "rejected":
                act["reason"] = rng.choice(["vein", None])
        elif kind == "comment":
            act |= {"lesion": rng.choice([*keys, None]), "text": rng.choice(["a", "b", ""])}
        elif kind == "merge":
            made += 1
            act |= {"lesion": f"N{made}", "lesions": rng.sample(keys[: made + 4], 2)}
        elif kind == "split":
            made += 2
            lesions = [f"N{made - 1}", f"N{made}"]
            centres = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
            act |= {"lesion": rng.choice(keys), "lesions": lesions, "centres": centres}
        elif kind == "move":
            act |= {"lesion": rng.choice(keys), "centre_ras": [1.0, 2.0, 3.0]}
        elif kind == "zone":
            act |= {"lesion": rng.choice(keys), "region": rng.choice(regions)}
        elif kind == "add":
            made += 1
            act |= {"lesion": f"N{made}", "centre_ras": [1.0, 2.0, 3.0], "verdict": "possible"}
        yield act


def test_any_acts_lead_to_the_same_state_on_the_page_and_in_the_package(
    new_page: NEW, address: str
) -> None:
    page = new_page()
    open_file(page, address)
    press(page, "d")
    envelope = page.evaluate("cmb.app.backend.acts[0]")
    for name in ("type", "lesion", "verdict", "reason"):
        envelope.pop(name, None)
    regions = page.evaluate("cmb.app.backend.data.scan.scheme.regions.map((one) => one.name)")
    rng = random.Random(20261130)
    logs = [[{**envelope, **act} for act in random_acts(rng, regions)] for _ in range(300)]
    states = page.evaluate(
        """(logs) => {
          const { data, toVoxel } = cmb.app.backend;
          const { items, scheme } = data.scan;
          return logs.map((acts) => cmb.replay(acts, items, scheme, toVoxel));
        }""",
        logs,
    )
    for log, mine in zip(logs, states, strict=True):
        theirs = replay([parse_act(json.dumps(act)) for act in log], ["L1", "L2", "L3"])
        assert_same(theirs, mine)
