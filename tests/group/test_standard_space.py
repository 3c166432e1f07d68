"""The pictures in standard space show a lesion where it lies, and at its side."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from cmbprep.group import run_group
from cmbprep.group.standard_space import coarser, glass_brain, template_background
from cmbprep.reports.colours import ZONE_COLOURS
from tests.reports.outputtree import TEMPLATE, Tree, make_lesion

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
            glass_brain([asdict(make_lesion(1, x_mni=x, y_mni=-20.0, z_mni=20.0, rating=rating))]),
            "lobar",
        )
        for x in (-45.0, 45.0)
    )
    half, behind_left, above_left = left
    behind_right, other_half, above_right = right
    assert half < behind_left < behind_right < other_half < above_left < above_right


def test_each_zone_has_its_colour_on_the_glass_brain() -> None:
    lesions = [
        asdict(make_lesion(n, x_mni=-30.0, y_mni=30.0 * n - 60, z_mni=12.0 * n, zone=zone))
        for n, zone in enumerate([*ZONE_COLOURS, None], start=1)
    ]
    text = glass_brain(lesions)
    assert [len(marks(text, zone)) for zone in ZONE_COLOURS] == [3, 3, 3]
    assert text == glass_brain(lesions), "the same bytes again"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("x", [-40, 31])
def test_a_coarser_voxel_lies_where_its_fine_ones_do(x: int, flip: bool) -> None:
    data, affine = np.zeros(SHAPE, np.float32), AFFINE.copy()
    data[x + 96, -20 + 132, 20 + 78] = 0.25
    if flip:
        data = data[::-1]
        affine[0] = -1, 0, 0, 96
    image, times = coarser(data, affine, np.max)
    assert times.tolist() == [2, 2, 2]
    coarse = np.asarray(image.dataobj)
    (voxel,) = np.argwhere(coarse)
    assert coarse.max() == np.float32(0.25)
    place = nib.affines.apply_affine(image.affine, voxel)
    assert np.abs(place - [x, -20, 20]).max() <= 0.51


def test_the_template_is_brought_onto_the_grid_of_a_map() -> None:
    same = template_background(TEMPLATE, SHAPE, AFFINE)
    assert same is not None and same.shape == SHAPE
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = AFFINE[:3, 3]
    coarse = template_background(TEMPLATE, (48, 57, 48), affine)
    assert coarse is not None
    blocks = same[:192:4, :228:4, :192:4]
    assert np.corrcoef(coarse.ravel(), blocks.ravel())[0, 1] > 0.98
    assert template_background("Unknown", SHAPE, AFFINE) is None


def test_the_page_holds_the_glass_brain(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    page = run_group(tree.finish(), participants_tsv=None).page
    assert 'alt="Microbleeds on the outline' in page.read_text()
    assert page.stat().st_size < 8e6


def test_no_glass_brain_of_another_space(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.reports.outputtree.TEMPLATE", "OASIS30ANTs")
    tree.add("sub-1_T2starw", [make_lesion(1)])
    text = run_group(tree.finish(), participants_tsv=None).page.read_text()
    assert 'data-map="OASIS30ANTs"' in text
    assert 'alt="Microbleeds on the outline' not in text


def test_heavy_libraries_are_loaded_when_they_draw() -> None:
    code = (
        "import sys, cmbprep.group.page, cmbprep.group.standard_space, cmbprep.participant.level\n"
        "heavy = ('bokeh', 'nilearn', 'pandas', 'matplotlib', 'sklearn')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
