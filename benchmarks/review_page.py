"""How fast the page of ``cmbprep-tools review`` is in a browser without GPU and WebGL.

A made-up scan of 512×512×96 voxels with 300 candidates is served on this machine, and a headless
Chromium opens it. Measured in the browser:

- from the start of navigation until the first slice is drawn and lesions can be judged,
- until all slices are there, and the outlines too,
- the time that the scripts of the page take for one slice, without waiting for a frame,
- from a key to the next slice on the canvases, for each plane, with all candidates shown; also
  with a minimum-intensity slab of 10 mm, and with a second image beside the first,
- from a verdict to the next lesion on the canvases.

The aims are under 2 s until usable and under 50 ms per slice. With ``--url``, the first scan of a
running ``cmbprep-tools review`` is measured instead.

Run: ``python benchmarks/review_page.py [--shape 512 512 96] [--candidates 300] [--url URL]``
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.review.browser.fake import FakeScan, serve

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-webgl", "--disable-webgl2"]

#: Press a key as a reader does, and wait until its frame is drawn. A pixel is read back, so that
#: drawing that the browser has put off is counted.
PRESS = """async ([key, times]) => {
    const milliseconds = [];
    const canvas = document.querySelector(".pane-axial canvas");
    for (let time = 0; time < times; time++) {
        const start = performance.now();
        document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        await new Promise((done) => requestAnimationFrame(() => {
            canvas.getContext("2d").getImageData(0, 0, 1, 1);
            done();
        }));
        milliseconds.push(performance.now() - start);
        await new Promise((done) => setTimeout(done, 30));
    }
    return milliseconds;
}"""

#: Milliseconds since the start of navigation at which the first image was drawn.
USABLE = """async () => {
    while (!(window.cmb?.app?.reading?.display.main.viewer.volume &&
             document.querySelector(".item"))) await new Promise((done) => setTimeout(done, 5));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now();
}"""
COMPLETE = """async () => {
    while (!window.cmb.app.reading.display.main.id) {
        await new Promise((done) => setTimeout(done, 5));
    }
    return performance.now();
}"""
OUTLINED = """async () => {
    while (!document.body.dataset.ready) await new Promise((done) => setTimeout(done, 5));
    return performance.now();
}"""


#: Milliseconds of the scripts for some slices of a plane: all that a key does, and the pixels.
SCRIPTS = """([axis, times]) => {
    const { view, main } = cmb.app.reading.display;
    const milliseconds = [];
    for (let time = 0; time < times; time++) {
        const start = performance.now();
        view.step(axis, 1);
        main.viewer.draw();
        for (const pane of main.viewer.panes) pane.canvas.getContext("2d").getImageData(0, 0, 1, 1);
        milliseconds.push(performance.now() - start);
    }
    return milliseconds;
}"""


def made_up_scan(shape: tuple[int, int, int], candidates: int) -> FakeScan:
    """Make a scan with lesions and candidates at random places, a tenth of them listed."""
    random = np.random.default_rng(1)
    low, high = np.multiply(shape, 0.25).astype(int), np.multiply(shape, 0.75).astype(int)
    places = [tuple(map(int, place)) for place in random.integers(low, high, (candidates, 3))]
    listed = candidates // 10
    return FakeScan(
        shape=shape,
        spacing=(0.45, 0.45, 1.5),
        centres=tuple(places[:listed]),
        candidates=tuple(places[listed:]),
    )


@contextmanager
def address(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the address to measure."""
    if arguments.url:
        yield arguments.url
        return
    scan = made_up_scan(tuple(arguments.shape), arguments.candidates)
    # Packed before the clock runs: the product's server is measured with --url.
    scan.image("mag"), scan.image("phase")
    with serve(scan) as fake:
        yield f"{fake.url}#scan={scan.id}"


def line(what: str, milliseconds: list[float]) -> None:
    """Print the median and the longest of some times."""
    print(f"{what:58} {statistics.median(milliseconds):8.1f} {max(milliseconds):8.1f}")


def measure(page: Page, url: str, repeats: int) -> None:
    """Print all figures of a page."""
    usable, complete, outlined = [], [], []
    for _ in range(3):
        page.goto("about:blank")
        page.goto(url, wait_until="commit")
        if "#scan=" not in url:
            page.wait_for_selector(".worklist tbody a")
            url = f"{url}#scan={page.get_attribute('.worklist tbody tr', 'data-id')}"
            page.goto("about:blank")
            page.goto(url, wait_until="commit")
        usable.append(page.evaluate(USABLE))
        complete.append(page.evaluate(COMPLETE))
        outlined.append(page.evaluate(OUTLINED))
    print(f"{'':58} {'median':>8} {'longest':>8}  (ms)")
    line("from navigation until a lesion can be judged", usable)
    line("until all slices are there", complete)
    line("until the outlines are there", outlined)

    def press(key: str, times: int = repeats) -> list[float]:
        times_ms: list[float] = page.evaluate(PRESS, [key, times])
        return times_ms

    press("k", 1)
    shown = [("one image", ""), ("two images", "v")]
    # A scan may have no other image.
    several = page.evaluate("cmb.app.reading.scan.images.length > 1")
    for images, before in shown if several else shown[:1]:
        if before:
            press(before, 1)
            page.evaluate(
                """async () => { while (!cmb.app.reading.display.other.id)
                await new Promise((done) => setTimeout(done, 20)); }"""
            )
        for slab in ("", ", minimum of 10 mm"):
            if slab:
                press("s", 1)
            for axis, plane in [(2, "axial"), (1, "coronal"), (0, "sagittal")]:
                if not before:
                    spent = page.evaluate(SCRIPTS, [axis, repeats])
                    line(f"scripts of a slice, {plane}, {images}{slab}", spent)
                    press("Enter", 1)
                line(f"next slice, {plane}, {images}{slab}", press("ArrowUp"))
                press("q", 1)
            if slab:
                press("s", 1)
    line(f"verdict and next lesion, {images}", press("d", 10))
    heap = page.evaluate("performance.memory.usedJSHeapSize / 1e6")
    print(f"memory of the page's scripts: {heap:.0f} MB")
    has_webgl = page.evaluate("Boolean(document.createElement('canvas').getContext('webgl'))")
    print(f"WebGL: {'on' if has_webgl else 'off'}; processors: {os.cpu_count()}; ", end="")
    print(f"load: {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 96])
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--url", help="address that cmbprep-tools review prints")
    arguments = parser.parse_args()
    with address(arguments) as url, sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        print(f"{browser.version}, {url.partition('?')[0]}")
        measure(page, url, arguments.repeats)
        browser.close()


if __name__ == "__main__":
    main()
