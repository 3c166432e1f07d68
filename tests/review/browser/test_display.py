"""What the canvases show: orientation, proportions, overlays, slabs, zoom; checked on pixels."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.review.browser.fake import Fake, FakeScan, serve
from tests.review.browser.reader import cursor, open_scan, press, screen_place, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW = Callable[..., "Page"]
LESION = (40, 34, 14)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serve(FakeScan()) as running:
        yield running


def pixels(page: Page, plane: str) -> np.ndarray:
    """Grey values of a plane as the browser has drawn it."""
    page.wait_for_timeout(120)
    png = page.locator(f".pane-{plane} canvas").first.screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)


def plain(page: Page, fake: Fake, *keys: str) -> None:
    """Show the second lesion without crosshair and outlines."""
    open_scan(page, fake)
    press(page, "n", "o", "h", *keys)
    assert cursor(page) == list(LESION)


def blob(image: np.ndarray, low: float, high: float) -> tuple[float, float, int, int]:
    """Middle (x, y) and size (width, height) of the largest part between two grey values."""
    parts, count = ndimage.label((image >= low) & (image <= high))
    sizes = ndimage.sum_labels(parts > 0, parts, range(1, count + 1))
    rows, columns = np.nonzero(parts == 1 + int(np.argmax(sizes)))
    extent = int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
    return (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2, *extent


def expected(image: np.ndarray, across: int, up: int, mirrored: bool) -> tuple[float, float, float]:
    """Where the lesion must lie, and pixels per mm, from the definition of the display."""
    scan = FakeScan()
    height, width = image.shape
    lengths = np.multiply(scan.shape, scan.spacing)
    scale = min(width / lengths[across], height / lengths[up])
    away = [(LESION[a] - (scan.shape[a] - 1) / 2) * scan.spacing[a] * scale for a in (across, up)]
    return width / 2 + away[0] * (-1 if mirrored else 1), height / 2 - away[1], scale


@pytest.mark.parametrize(
    ("plane", "across", "up"), [("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)]
)
@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_a_lesion_is_drawn_at_its_place_in_true_proportions(
    new_page: NEW, fake: Fake, plane: str, across: int, up: int, convention: str
) -> None:
    page = new_page()
    plain(page, fake, *(["Shift+R"] if convention == "neurological" else []))
    image = pixels(page, plane)
    # The lesion (200 of 1900) is dark grey between the head and the black around it.
    x, y, width, height = blob(image, 20, 40)
    mirrored = plane == "sagittal" or convention == "radiological"
    right_x, right_y, scale = expected(image, across, up, mirrored)
    assert x == pytest.approx(right_x, abs=2)
    assert y == pytest.approx(right_y, abs=2)
    voxels = {0: 5, 1: 5, 2: 1}
    spacing = FakeScan().spacing
    assert width == pytest.approx(voxels[across] * spacing[across] * scale, abs=3)
    assert height == pytest.approx(voxels[up] * spacing[up] * scale, abs=3)


def test_the_block_at_the_right_front_top_is_there(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    plain(page, fake)
    axial = pixels(page, "axial")
    x, y, _, _ = blob(axial, 235, 245)
    # Right is on the left of the screen, the front is at the top.
    assert x < axial.shape[1] / 2 and y < axial.shape[0] / 2
    page.evaluate("cmb.app.reading.display.view.goTo([41, 53, 15])")
    sagittal = pixels(page, "sagittal")
    x, y, _, _ = blob(sagittal, 235, 245)
    assert x < sagittal.shape[1] / 2 and y < sagittal.shape[0] / 2


def test_the_letters_follow_the_convention(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    letters = "['axial', 'coronal', 'sagittal'].map((p) => Object.values(cmb.edgeLetters(p, '%s')))"
    assert ["".join(edge) for edge in page.evaluate(letters % "radiological")] == [
        "RLAP",
        "RLSI",
        "APSI",
    ]
    assert ["".join(edge) for edge in page.evaluate(letters % "neurological")] == [
        "LRAP",
        "LRSI",
        "APSI",
    ]
    assert "right is on the left of the screen" in page.inner_text(".side")
    label = page.get_attribute(".pane-axial canvas", "aria-label")
    assert label == "Axial plane, slice 9 of 24; left edge R, right edge L"


def test_oblique_slices_are_announced(new_page: NEW) -> None:
    scan = FakeScan()
    angle = np.radians(20)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    scan.affine[:3, :3] = turn @ scan.affine[:3, :3]
    with serve(scan) as fake:
        page = new_page()
        open_scan(page, fake)
        assert "oblique by 20°" in page.inner_text(".side")


def test_the_outline_encloses_the_lesion(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    plain(page, fake, "o")
    image = page.locator(".pane-axial canvas").first.screenshot()
    colours = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), dtype=int)
    # Undecided lesions are outlined in blue: #56c8ff.
    rows, columns = np.nonzero(np.abs(colours - (0x56, 0xC8, 0xFF)).sum(axis=2) < 30)
    near = (columns > 30) & (rows > 30)
    x, y, scale = expected(colours[..., 0], 0, 1, mirrored=True)
    width = 5 * 0.8 * scale
    left_of_label = near & (columns < x + width)
    assert columns[left_of_label].min() == pytest.approx(x - width / 2, abs=4)
    assert rows[near].max() == pytest.approx(y + width / 2, abs=4)


def test_click_moves_all_planes(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    page.mouse.click(*screen_place(page, "coronal", [20, 0, 17]))
    assert cursor(page) == [20, 30, 17]
    page.mouse.click(*screen_place(page, "sagittal", [0, 60, 16]))
    assert cursor(page) == [20, 60, 16]


def test_wheel_and_keys_scroll(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    page.mouse.move(*screen_place(page, "axial", [20, 30, 8]))
    page.mouse.wheel(0, -120)
    page.mouse.wheel(0, -120)
    until(page, "cmb.app.reading.display.view.cursor[2] === 10")
    press(page, "ArrowDown", "PageUp")
    assert cursor(page) == [20, 30, 14]
    press(page, "q", "ArrowUp")
    assert cursor(page) == [20, 31, 14]
    # The crosshair goes where it is seen to go: to the patient's right on a radiological display.
    press(page, "Shift+ArrowLeft", "Shift+ArrowUp")
    assert cursor(page) == [21, 31, 15]


def test_slices_are_shown_in_the_order_in_which_they_arrive(new_page: NEW, fake: Fake) -> None:
    """Chunks of any length, also within the header; an answer that ends early is no image."""
    page = new_page()
    open_scan(page, fake)
    seen, whole, errors = page.evaluate(
        """async () => {
            const encode = (text) => new TextEncoder().encode(text);
            const head = encode(JSON.stringify({
                shape: [2, 1, 3], spacing: [1, 1, 1], dtype: "uint16", slices: [1, 0, 2] }));
            const bytes = new Uint8Array(4 + head.length + 12);
            new DataView(bytes.buffer).setUint32(0, head.length, true);
            bytes.set(head, 4);
            [3, 4, 1, 2, 5, 6].forEach((value, at) => (bytes[4 + head.length + 2 * at] = value));
            const stream = (length, end = bytes.length) => new ReadableStream({
                start(control) {
                    for (let at = 0; at < end; at += length)
                        control.enqueue(bytes.slice(at, Math.min(end, at + length)));
                    control.close();
                } });
            const seen = [];
            const whole = [];
            for (const length of [1, 3, 7, 1000]) {
                const volume = await cmb.readVolume(stream(length), (part) => {
                    if (length === 1) seen.push([...part.data]);
                });
                whole.push([...volume.data]);
            }
            const errors = [];
            for (const end of [3, 20, bytes.length - 1])
                await cmb.readVolume(stream(5, end)).catch((e) => errors.push(e.message));
            return [seen, whole, errors];
        }"""
    )
    assert seen[0] == [0, 0, 3, 4, 0, 0]
    assert whole == [[1, 2, 3, 4, 5, 6]] * 4
    assert errors == ["The image is incomplete"] * 3


def test_slab_shows_the_lowest_value_of_its_thickness(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    scan = FakeScan()
    for axis, mm, index in [(2, 10, 12), (0, 4, 30), (1, 30, 2)]:
        first, count = page.evaluate(
            "([a, i, mm]) => cmb.app.reading.display.main.viewer.volume.slab(a, i, mm)",
            [axis, index, mm],
        )
        assert first <= index < first + count
        full = round(mm / scan.spacing[axis])
        assert count == full or first == 0
        values = page.evaluate(
            """([axis, first, count]) => Array.from(
                cmb.app.reading.display.main.viewer.volume.plane(axis, first, count).values)""",
            [axis, first, count],
        )
        slices = np.take(scan.voxels, range(first, first + count), axis=axis)
        np.testing.assert_array_equal(values, slices.min(axis=axis).ravel(order="F"))
    press(page, "s", ".", ".")
    assert page.evaluate("cmb.app.reading.display.view.slabMm") == 20
    lowest = "document.querySelector('.pane-axial canvas').ariaLabel.includes('lowest of 7 slices')"
    until(page, lowest)


def test_zoom_keeps_the_place_and_pan_moves_it(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    plain(page, fake)
    before = screen_place(page, "axial", list(LESION))
    press(page, "+", "+", "+")
    assert screen_place(page, "axial", list(LESION)) == pytest.approx(before, abs=1)
    press(page, "Control+ArrowRight")
    moved = screen_place(page, "axial", list(LESION))
    assert moved[0] == pytest.approx(before[0] + 40, abs=1)
    press(page, "Home")
    assert screen_place(page, "axial", list(LESION)) == pytest.approx(before, abs=1)


def test_window_by_drag_and_keys(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    plain(page, fake)
    grey = pixels(page, "axial")
    press(page, "7", "7")
    brighter = pixels(page, "axial")
    assert np.median(brighter) >= np.median(grey) and brighter.mean() > grey.mean()
    press(page, "0")
    np.testing.assert_array_equal(pixels(page, "axial"), grey)
    x, y = screen_place(page, "axial", list(LESION))
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x, y + 60)
    page.mouse.up(button="right")
    assert pixels(page, "axial").mean() < grey.mean()


def test_interpolation_is_off_until_asked_for(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    plain(page, fake)
    sharp = len(np.unique(pixels(page, "axial")[60:-60, 60:-60]))
    press(page, "Shift+S")
    assert len(np.unique(pixels(page, "axial")[60:-60, 60:-60])) > sharp


def test_a_second_image_is_linked(new_page: NEW, fake: Fake) -> None:
    page = new_page()
    open_scan(page, fake)
    press(page, "v")
    page.wait_for_selector(".stage.two")
    until(page, "cmb.app.reading.display.other.id === 'phase'")
    press(page, "n")
    assert page.locator(".pane-axial canvas").count() == 2
    labels = page.eval_on_selector_all(
        ".pane-axial canvas", "all => all.map((one) => one.getAttribute('aria-label'))"
    )
    page.wait_for_timeout(100)
    assert labels[0] == labels[1]
    # Its title holds markup, which is text.
    assert page.inner_text(".image-row >> nth=1 >> .image-title") == "Local field <b>"
    assert "200 | 1800" in page.inner_text(".where")


def test_the_viewer_works_alone(new_page: NEW) -> None:
    """A report embeds four files and needs no server."""
    page = new_page()
    page.set_content("<div class='planes' id='here' style='width:300px;height:300px'></div>")
    page.add_style_tag(content=".pane { position: relative; width: 300px; height: 300px }")
    from tests.review.browser.fake import FILES

    for name in ("volume", "geometry", "contours", "view", "viewer"):
        page.add_script_tag(content=FILES[f"{name}.js"].read_text("utf-8"))
    shape = [8, 8, 4]
    page.evaluate(
        """(shape) => {
            const header = {shape, affine: [[1,0,0,0],[0,1,0,0],[0,0,1,0]], window: [0, 255]};
            const view = new cmb.View();
            view.setGrid(shape, [1, 1, 1]);
            const viewer = new cmb.Viewer(document.getElementById("here"), view, ["axial"]);
            viewer.setVolume(new cmb.Volume(header, new Uint8Array(256).fill(128)));
        }""",
        json.loads(json.dumps(shape)),
    )
    image = pixels(page, "axial")
    assert image[150, 100] == 128
