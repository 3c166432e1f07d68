"""The pictures in standard space show a lesion where it lies, and at its side."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from cmbprep.group import run_group
from cmbprep.group.standard_space import frequency_viewer, glass_brain
from cmbprep.reports.colours import ZONE_COLOURS
from tests.reports.outputtree import Tree, make_lesion
from tests.reports.test_individual import Page

AFFINE = np.array([[1.0, 0, 0, -96], [0, 1, 0, -132], [0, 0, 1, -78], [0, 0, 0, 1]])
SHAPE = (193, 229, 193)


def pictures(text: str) -> Iterator[np.ndarray]:
    for code in re.findall(r"data:image/png;base64,([^\"]+)\"", text):
        yield np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGBA"))


def marks(text: str, zone: str) -> list[float]:
    """Return the columns of the marks of a zone in a glass brain, from left to right."""
    (pixels,) = pictures(text)
    values = pixels[..., :3].astype(int)
    # The outline is grey, and each zone's colour has another channel that is the strongest.
    strongest = {"deep": 0, "infratentorial": 1, "lobar": 2}[zone]
    coloured = (np.ptp(values, axis=-1) > 20) & (values.argmax(axis=-1) == strongest)
    columns = np.flatnonzero(coloured.any(axis=0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 8) + 1)
    return [float(group.mean()) for group in groups if group.size]


@pytest.mark.parametrize("rating", ["definite", "possible", None])
def test_a_lesion_stands_at_its_side_of_the_glass_brain(rating: str | None) -> None:
    """The panels are the left half, from behind, the right half, from above."""
    left, right = (
        marks(
            glass_brain([make_lesion(1, x_mni=x, y_mni=-20.0, z_mni=20.0, rating=rating)]), "lobar"
        )
        for x in (-45.0, 45.0)
    )
    half, behind_left, above_left = left
    behind_right, other_half, above_right = right
    assert half < behind_left < behind_right < other_half < above_left < above_right


def test_each_zone_has_its_colour_on_the_glass_brain() -> None:
    lesions = [
        make_lesion(n, x_mni=-30.0, y_mni=30.0 * n - 60, z_mni=12.0 * n, zone=zone)
        for n, zone in enumerate([*ZONE_COLOURS, None], start=1)
    ]
    text = glass_brain(lesions)
    assert [len(marks(text, zone)) for zone in ZONE_COLOURS] == [3, 3, 3]
    assert text == glass_brain(lesions), "the same bytes again"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("x", [-40, 31])
def test_a_voxel_is_at_its_place_in_the_viewer(x: int, flip: bool) -> None:
    data, affine = np.zeros(SHAPE, np.float32), AFFINE.copy()
    place = (x + 96, -20 + 132, 20 + 78)
    data[place] = 0.25
    ground = np.ones(SHAPE, np.float32)
    if flip:
        data = data[::-1]
        affine[0] = -1, 0, 0, 96
    text = frequency_viewer(data, affine, ground)
    parameters = json.loads(re.search(r"brainsprite\((\{.*?\})\);", text, re.DOTALL)[1])
    size = [parameters["nbSlice"][axis] for axis in "XYZ"]
    _, _, sprite = pictures(text)
    # The brightest colour is that of the highest value.
    rows, columns = np.nonzero(sprite[..., 0] == 255)
    across = sprite.shape[1] // size[1]
    shown = {int(n) for n in rows // size[2] * across + columns // size[1]}
    assert shown == {parameters["numSlice"]["X"]}, "the first view is through the highest value"
    (slice_,) = shown
    at = np.array(parameters["affine"]) @ [slice_ + 1, 0, 0, 1]
    assert at[0] == pytest.approx(x, abs=1.01)
    assert parameters["colorMap"]["max"] == pytest.approx(25), "per cent"


def test_the_viewer_loads_nothing_and_is_the_same_again() -> None:
    data = np.zeros((20, 20, 20), np.float32)
    data[3, 4, 5] = 1
    texts = {frequency_viewer(data, np.diag([3.0, 3, 3, 1]), ground) for ground in (None, None)}
    (text,) = texts
    assert [load for load in Page(text).loads if not load.startswith(("#", "data:"))] == []
    assert "<link" not in text


def test_the_page_holds_both(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    page = run_group(tree.finish(), participants_tsv=None).page
    text = page.read_text()
    (frame,) = re.findall(r"<iframe[^>]* srcdoc=\"([^\"]*)\"", text)
    assert "brainsprite(" in html.unescape(frame)
    assert "Of 1 scans" in Page(text).text
    assert 'alt="Microbleeds on the outline' in text
    assert page.stat().st_size < 8e6


def test_no_glass_brain_of_another_space(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.reports.outputtree.TEMPLATE", "OASIS30ANTs")
    tree.add("sub-1_T2starw", [make_lesion(1)])
    text = run_group(tree.finish(), participants_tsv=None).page.read_text()
    assert "<iframe" in text
    assert 'alt="Microbleeds on the outline' not in text


def test_heavy_libraries_are_loaded_when_they_draw() -> None:
    code = (
        "import sys, cmbprep.group.page, cmbprep.group.standard_space, cmbprep.participant.level\n"
        "print([n for n in ('nilearn', 'pandas', 'matplotlib', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
