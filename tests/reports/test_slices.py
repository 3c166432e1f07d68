"""The scan of a report, slice by slice: what is packed, how it is reduced, and how it is shown."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from cmbprep.outputs.files import file_digest, write_image, write_json
from cmbprep.outputs.stages import StageFiles
from cmbprep.reports.individual import write_subject_report
from cmbprep.reports.results import ScanResult, collect_results
from cmbprep.reports.slices import LEAST_BYTES, MOST_BYTES, PAGE_BYTES, budget, scan_slices
from tests.reports.outputtree import Tree, make_lesion

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Stored to the left, to the front and up: the page turns the first axis.
AFFINE = np.array([[-1.0, 0, 0, 60], [0, 1, 0, -60], [0, 0, 4, -40], [0, 0, 0, 1]])
SHAPE = (64, 72, 20)
#: Voxels of the lesions in the stored order.
PLACES = {1: (20, 30, 8), 2: (40, 34, 14), 3: (30, 50, 17)}


def point(voxel: tuple[int, int, int]) -> dict[str, float]:
    return dict(zip("xyz", AFFINE[:3, :3] @ voxel + AFFINE[:3, 3], strict=True))


def add_scan(tree: Tree, name: str = "sub-1_T2starw") -> StageFiles:
    """Add a scan with a noisy brain of 100, and lesions of 20 at known voxels."""
    rows = [
        make_lesion(1, **point(PLACES[1])),
        make_lesion(2, **point(PLACES[2]), rating="possible"),
        make_lesion(3, **point(PLACES[3]), susceptibility="diamagnetic"),
    ]
    files = tree.add(name, rows)
    brain = np.zeros(SHAPE, np.uint8)
    brain[10:54, 12:60, 2:19] = 1
    image = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.int16)
    for index, (i, j, k) in PLACES.items():
        image[i, j, k], labels[i, j, k] = 20, index
    preproc = StageFiles(tree.root, "preproc", files.names)
    write_image(preproc.path("preproc"), nib.Nifti1Image(image, AFFINE))
    write_image(preproc.path("brain_mask"), nib.Nifti1Image(brain, AFFINE))
    write_image(files.path("dseg"), nib.Nifti1Image(labels, AFFINE))
    content = json.loads(files.sidecar.read_text())
    content["Cmbprep"]["LabelImage"] = file_digest(files.path("dseg"))
    write_json(files.sidecar, content)
    return files


@pytest.fixture
def result(tmp_path: Path) -> ScanResult:
    tree = Tree(tmp_path)
    add_scan(tree)
    return collect_results(tree.finish())[0].scans[0]


def unpack(text: str) -> tuple[dict[str, Any], np.ndarray]:
    content = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    voxels = np.frombuffer(content[4 + length :], header["dtype"])
    return header, voxels.reshape(header["shape"], order="F")


def test_lesions_lie_at_their_dark_voxels(result: ScanResult) -> None:
    found = scan_slices(result, "scan-1", MOST_BYTES)
    header, voxels = unpack(found.voxels)
    assert header["dtype"] == "uint8"
    # The brain with a rim of 5 mm: 5 voxels, and 2 slices that end with the image.
    assert header["shape"] == [54, 58, 20]
    lesions = json.loads(str(found.lesions))
    assert [lesion["number"] for lesion in lesions] == [1, 2, 3]
    for lesion in lesions:
        i, j, k = (round(n) for n in lesion["ijk"])
        assert voxels[i, j, k] < 100 < np.median(voxels)
        start, length = lesion["runs"][0]
        assert (start, length) == (i + 54 * (j + 58 * k), 1)
    assert [lesion["dashed"] for lesion in lesions] == [False, True, True]
    assert "at" not in found.missing and "own voxels" in found.note


def test_positions_are_those_of_the_table(result: ScanResult) -> None:
    header, _ = unpack(scan_slices(result, "scan-1", MOST_BYTES).voxels)
    for lesion, mark in zip(
        result.lesions,
        json.loads(str(scan_slices(result, "scan-1", MOST_BYTES).lesions)),
        strict=True,
    ):
        affine = np.array(header["affine"])
        assert affine[:3, :3] @ mark["ijk"] + affine[:3, 3] == pytest.approx(
            [lesion.x, lesion.y, lesion.z], abs=0.05
        )
    # To the right, to the front, up.
    assert (np.diag(np.array(header["affine"]))[:3] > 0).all()


def test_a_small_budget_averages_the_finest_axes_and_the_page_says_so(result: ScanResult) -> None:
    whole = scan_slices(result, "scan-1", MOST_BYTES)
    small = scan_slices(result, "scan-1", len(whole.voxels) // 2)
    header, voxels = unpack(small.voxels)
    assert len(small.voxels) <= len(whole.voxels) // 2
    assert header["spacing"] == [2, 2, 4]
    assert "mean of 2 × 2 × 1 of the scan's, 2 × 2 × 4 mm instead of 1 × 1 × 4 mm" in small.note
    for mark in json.loads(str(small.lesions)):
        i, j, k = (round(n) for n in mark["ijk"])
        # Four voxels of about 100, 100, 100 and 20.
        assert voxels[i, j, k] < np.median(voxels) - 50
        assert mark["runs"]


def test_the_same_scan_gives_the_same_text(result: ScanResult) -> None:
    assert scan_slices(result, "scan-1", MOST_BYTES) == scan_slices(result, "scan-1", MOST_BYTES)


@pytest.mark.parametrize(
    ("figures", "scans", "expected"),
    [
        (2_000_000, 1, MOST_BYTES),
        (2_000_000, 5, 2_500_000),
        (20_000_000, 2, LEAST_BYTES),
        (0, 0, MOST_BYTES),
    ],
)
def test_scans_share_what_the_figures_leave(figures: int, scans: int, expected: int) -> None:
    assert budget(figures, scans) == expected


def test_a_scan_that_cannot_be_read_costs_no_report(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    files = add_scan(tree)
    StageFiles(tree.root, "preproc", files.names).path("brain_mask").write_bytes(b"no image")
    text = write_subject_report(tree.finish(), "1").read_text()
    assert "The scan is not shown:" in text
    assert str(tmp_path) not in text
    assert 'class="scroller"' not in text


def test_a_page_of_fifty_lesions_stays_under_15_mb(tmp_path: Path) -> None:
    """Voxels that cannot be compressed are reduced until the page is small enough."""
    tree = Tree(tmp_path)
    shape = (256, 256, 48)
    rng = np.random.default_rng(1)
    for run in (1, 2):
        lesions = [make_lesion(index, x=float(index), x_mni=0.0) for index in range(1, 51)]
        files = tree.add(f"sub-1_run-{run}_T2starw", lesions)
        preproc = StageFiles(tree.root, "preproc", files.names)
        affine = np.diag([0.5, 0.5, 1.5, 1])
        noise = rng.integers(0, 2000, shape).astype(np.int16)
        write_image(preproc.path("preproc"), nib.Nifti1Image(noise, affine))
        ones = nib.Nifti1Image(np.ones(shape, np.uint8), affine)
        write_image(preproc.path("brain_mask"), ones)
        folder = tree.root / "sub-1" / "figures"
        folder.mkdir(exist_ok=True)
        for index in range(1, 51):
            svg = (
                '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><title>{}</title></svg>'
            )
            name = f"sub-1_run-{run}_desc-lesion{index:03d}_T2starw.svg"
            (folder / name).write_text(svg.format("x" * 45_000))
        labels = nib.Nifti1Image(np.zeros(shape, np.int16), affine)
        write_image(files.path("dseg"), labels)
        content = json.loads(files.sidecar.read_text())
        content["Cmbprep"]["LabelImage"] = file_digest(files.path("dseg"))
        write_json(files.sidecar, content)
    page = write_subject_report(tree.finish(), "1").read_text()
    assert page.count('class="scroller"') == 2
    assert page.count("Reduced to keep this page small") == 2
    assert len(page.encode()) < PAGE_BYTES


# --- In a browser ---------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path: Path) -> str:
    tree = Tree(tmp_path)
    add_scan(tree)
    return write_subject_report(tree.finish(), "1").as_uri()


def test_a_number_of_the_table_leads_to_its_slice(
    address: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(address)
    assert page.locator(".planes canvas").count() == 0, "nothing is unpacked before it is wanted"
    page.locator("table.sortable a[data-lesion='2']").click()
    page.locator(".planes canvas").first.wait_for()
    assert "Lesion 2" in page.locator(".status").inner_text()
    assert "slice 15 of 20" in (
        page.locator(".pane-axial canvas").get_attribute("aria-label") or ""
    )
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    page.locator(".status a").click()
    assert page.url.endswith("#scan-1-lesion-2")


def test_the_scan_is_read_by_keyboard_alone(address: str, new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.goto(address)
    page.locator(".scroller .open").focus()
    page.keyboard.press("Enter")
    axial = page.locator(".pane-axial canvas")
    axial.wait_for()
    page.wait_for_function("document.activeElement.tagName === 'CANVAS'")

    def label() -> str:
        page.wait_for_timeout(60)
        return axial.get_attribute("aria-label") or ""

    assert "slice 9 of 20" in label()
    page.keyboard.press("ArrowUp")
    assert "slice 10 of 20" in label()
    page.keyboard.press("n")
    assert "slice 15 of 20" in label()
    assert "Lesion 2" in page.locator(".status").inner_text()
    page.keyboard.press("p")
    assert "slice 9 of 20" in label()
    page.locator(".slice input").focus()
    page.keyboard.press("Home")
    assert "slice 1 of 20" in label()


def test_left_and_right_are_those_of_the_figures(
    address: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(address)
    page.locator(".scroller .open").click()
    axial = page.locator(".pane-axial canvas[aria-label]")
    axial.wait_for()
    assert "left edge L, right edge R" in (axial.get_attribute("aria-label") or "")
    page.get_by_label("Patient's right on the left").check()
    page.wait_for_timeout(60)
    assert "left edge R, right edge L" in (axial.get_attribute("aria-label") or "")


def test_without_scripts_and_in_print_the_figures_remain(
    address: str, new_page: Callable[..., Page]
) -> None:
    page = new_page(java_script_enabled=False)
    page.goto(address)
    assert page.get_by_text("This needs JavaScript.").is_visible()
    assert not page.locator(".scroller").is_visible()
    page.locator("table.sortable a[data-lesion='2']").click()
    assert page.url.endswith("#scan-1-lesion-2")
    printed = new_page()
    printed.goto(address)
    printed.emulate_media(media="print")
    assert not printed.locator(".scroller").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_was_found_trust_and_checks_are_on_the_first_screen(
    address: str, new_page: Callable[..., Page], scheme: str
) -> None:
    page = new_page(color_scheme=scheme)
    page.goto(address)
    for heading in ("What was found", "How far to trust it", "What to check"):
        place = page.locator(".verdict h4", has_text=heading).bounding_box()
        assert place is not None and place["y"] < 700, heading
    box = page.locator(".halves").bounding_box()
    assert box is not None and box["y"] + box["height"] < 800
    narrow = new_page(width=700)
    narrow.goto(address)
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 700


def test_nothing_is_loaded_from_elsewhere(address: str, new_page: Callable[..., Page]) -> None:
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator(".scroller .open").click()
    page.locator(".planes canvas").first.wait_for()
    assert [url for url in asked if not re.match(r"file:|data:|blob:", url)] == []
