"""Size and speed of the group page for cohorts of several sizes, in a browser without a GPU.

The cohorts are made up at the level of the tables, with 24 quality figures per scan, a frequency
map, and the follow-up of the people with two visits (a quarter of them, or the share that
``--second`` gives); nothing in them was measured. Printed
for each: the size of the page; the seconds that writing it takes; from the start of navigation
until the table can be searched, and until the first plots can be drawn; and milliseconds from a key
in the search box, or a choice, until the rows are on the screen, and until all plots in view are
painted too.

The aims are under 8 MB, usable in under 3 s, and a filter in under 200 ms.

Run: ``python benchmarks/group_page.py [--scans 10 300 10000] [--second 1] [--keep FOLDER]``
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cmbprep.group.cohort import Cohort
from cmbprep.group.followup_page import followup_section
from cmbprep.group.page import render_group_page
from tests.group.made_up import made_up_followup, made_up_map, made_up_tables

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-webgl", "--disable-webgl2"]
SEARCHES = {
    "one person": "sub-00007",
    "a scanner": "prisma",
    "two words": "boston strictly",
    "no match": "zzz",
}
REPEATS = 5

READY = """async (state) => {
    const order = ["table", "plots"];
    while (order.indexOf(document.body?.dataset.ready) < order.indexOf(state))
        await new Promise((done) => setTimeout(done, 5));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now();
}"""
#: Type into the search box; milliseconds until the rows are painted, and until the plots are too.
SEARCH = """async (text) => {
    const box = document.getElementById("search");
    const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    const start = performance.now();
    box.value = text;
    box.dispatchEvent(new Event("input"));
    await frame();
    const rows = performance.now() - start;
    const wanted = cmb.scans.filtered ? cmb.scans.rows.length : 0;
    while (cmb.strips.marked.length !== wanted) await frame();
    await frame();
    const plots = performance.now() - start;
    box.value = "";
    box.dispatchEvent(new Event("input"));
    while (cmb.strips.marked.length) await frame();
    await frame();
    return [rows, plots, wanted];
}"""


def write_page(scans: int, folder: Path, second: float) -> tuple[Path, float]:
    """Write the page of a made-up cohort; return the file, and the seconds of writing it."""
    tables = made_up_tables(scans, second=second)
    tables["followup"] = made_up_followup(tables)
    maps = [made_up_map(tables)]
    start = time.perf_counter()
    section = followup_section(tables["followup"], tables["participants"])
    cohort = Cohort(root=folder, tables=tables, maps=maps, followup=section)
    text = render_group_page(cohort)
    seconds = time.perf_counter() - start
    path = folder / f"group-{scans}.html"
    path.write_text(text, encoding="utf-8")
    return path, seconds


def measure(page: Page, path: Path) -> None:
    """Open a page and print what is measured in it."""
    page.goto("about:blank")
    page.goto(path.as_uri(), wait_until="commit")
    table, plots = (page.evaluate(READY, state) for state in ("table", "plots"))
    print(f"  usable after {table / 1000:.2f} s, plots after {plots / 1000:.2f} s")
    height = page.evaluate("document.documentElement.scrollHeight")
    for top in range(0, height, 700):
        page.evaluate("(top) => window.scrollTo(0, top)", top)
        page.wait_for_timeout(100)
    for place in ("people", "quality", "scans"):
        page.evaluate("(id) => document.getElementById(id).scrollIntoView()", place)
        page.wait_for_timeout(1000)
        for what, words in SEARCHES.items():
            found = [page.evaluate(SEARCH, words) for _ in range(REPEATS)]
            rows, plots = (sorted(item[n] for item in found) for n in (0, 1))
            print(
                f"  {what} at #{place}: {found[0][2]} rows; table {rows[REPEATS // 2]:.0f} ms "
                f"(longest {rows[-1]:.0f}), plots {plots[REPEATS // 2]:.0f} ms "
                f"(longest {plots[-1]:.0f})"
            )
    print(
        f"  memory of the scripts {page.evaluate('performance.memory.usedJSHeapSize / 1e6'):.0f} MB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[10, 300, 10000])
    parser.add_argument("--second", type=float, default=0.25, help="share with a second visit")
    parser.add_argument("--keep", type=Path, help="folder in which the pages are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as own, sync_playwright() as playwright:
        folder = arguments.keep or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for scans in arguments.scans:
            path, seconds = write_page(scans, folder, arguments.second)
            print(f"{scans} scans: {path.stat().st_size / 1e6:.2f} MB, written in {seconds:.1f} s")
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=ARGUMENTS
            )
            measure(browser.new_page(viewport={"width": 1280, "height": 800}), path)
            browser.close()


if __name__ == "__main__":
    main()
