"""Nodes that draw end well whatever happens to a figure, and name those that are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import Undefined

from cmbprep.interfaces import figures
from cmbprep.interfaces.figures import DrawLesions, DrawPreproc
from cmbprep.lesions import format_lesions
from cmbprep.spatial.transforms import LinearMap, write_transform
from tests.reports.outputtree import make_lesion

SHAPE, AFFINE = (21, 25, 13), np.diag([9.0, 9.0, 9.0, 1.0])
BIAS, MASK, REGISTRATION = (
    f"sub-1_desc-{what}_T2starw.svg" for what in ("bias", "mask", "registration")
)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, str]:
    inner = tuple(slice(size // 4, -(size // 4)) for size in SHAPE)
    block = np.zeros(SHAPE, np.float32)
    block[inner] = 1
    labels = np.zeros(SHAPE, np.int16)
    labels[8, 8, 5], labels[12, 12, 6] = 1, 2
    arrays = {
        "before": 90 * block,
        "after": 100 * block,
        "field": block + 1,
        "mask": block.astype(np.uint8),
        "dseg": labels,
        "atlas": (block * 2).astype(np.uint8),
    }
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in arrays}
    for name, data in arrays.items():
        nib.Nifti1Image(data, AFFINE).to_filename(paths[name])
    lesions = [
        make_lesion(n, x=9.0 * i, y=9.0 * j, z=9.0 * k)
        for n, i, j, k in ((1, 8, 8, 5), (2, 12, 12, 6))
    ]
    paths["way"] = str(tmp_path / "same.txt")
    write_transform(LinearMap(np.eye(4)), Path(paths["way"]))
    paths["table"] = str(tmp_path / "dseg.tsv")
    Path(paths["table"]).write_text(format_lesions(lesions))
    return paths


def image_node(images: dict[str, str], **more: str) -> DrawPreproc:
    return DrawPreproc(
        **{name: images[name] for name in ("before", "after", "field", "mask")},
        fixed=images["before"],
        fixed_mask=images["mask"],
        fixed_to_moving=images["way"],
        fixed_name="template",
        src="sub-1",
        **{"suffix": "T2starw", **more},
    )


def draw_image(images: dict[str, str], folder: Path) -> Any:
    return run(image_node(images), folder)


def draw_lesions(images: dict[str, str], folder: Path) -> Any:
    node = DrawLesions(in_file=images["after"], scheme="mars", src="sub-1", suffix="T2starw")
    for name in ("mask", "dseg", "table", "atlas"):
        setattr(node.inputs, name, images[name])
    return run(node, folder)


def run(node: Any, folder: Path) -> Any:
    folder.mkdir()
    return node.run(cwd=str(folder)).outputs


def names(outputs: Any) -> set[str]:
    assert all(Path(path).stat().st_size for path in outputs.figures)
    return {Path(path).name for path in outputs.figures}


def out_of_memory(*_: Any, **__: Any) -> str:
    raise MemoryError


def test_all_is_drawn_of_sound_images(images: dict[str, str], tmp_path: Path) -> None:
    outputs = draw_image(images, tmp_path / "image")
    assert names(outputs) == {BIAS, MASK, REGISTRATION}
    assert outputs.missing_figures == {}
    outputs = draw_lesions(images, tmp_path / "lesions")
    kinds = ("zones", "overview", "lesion001", "lesion002")
    assert names(outputs) == {f"sub-1_desc-{kind}_T2starw.svg" for kind in kinds}
    assert outputs.missing_figures == {}


def test_one_figure_that_fails_leaves_the_other(
    images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "bias_figure", out_of_memory)
    outputs = draw_image(images, tmp_path / "image")
    assert names(outputs) == {MASK, REGISTRATION}
    assert outputs.missing_figures == {BIAS: "there was not enough memory to draw it"}


def test_an_image_that_one_figure_needs_is_damaged(images: dict[str, str], tmp_path: Path) -> None:
    path = Path(images["field"])
    path.write_bytes(path.read_bytes()[:60])
    outputs = draw_image(images, tmp_path / "image")
    assert names(outputs) == {MASK, REGISTRATION}
    assert set(outputs.missing_figures) == {BIAS}
    assert str(tmp_path) not in outputs.missing_figures[BIAS]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_an_image_that_all_figures_need_is_not_there(
    images: dict[str, str], tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    damage(Path(images["after"]))
    outputs = draw_image(images, tmp_path / "image")
    assert outputs.figures == []
    assert set(outputs.missing_figures) == {BIAS, MASK, REGISTRATION}
    outputs = draw_lesions(images, tmp_path / "lesions")
    assert outputs.figures == []
    assert len(outputs.missing_figures) == 4
    assert str(tmp_path) not in str(outputs.missing_figures)


def test_a_lesion_whose_figure_fails_costs_no_other(
    images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = figures.lesion_figure

    def second_fails(*parts: Any, **more: Any) -> str:
        if parts[3].index == 2:
            raise ValueError("no such section")
        return draw(*parts, **more)

    monkeypatch.setattr(figures, "lesion_figure", second_fails)
    outputs = draw_lesions(images, tmp_path / "lesions")
    kinds = ("zones", "overview", "lesion001")
    assert names(outputs) == {f"sub-1_desc-{kind}_T2starw.svg" for kind in kinds}
    reason = "drawing it failed (ValueError: no such section)"
    assert outputs.missing_figures == {"sub-1_desc-lesion002_T2starw.svg": reason}


def test_without_the_table_the_zones_are_drawn(images: dict[str, str], tmp_path: Path) -> None:
    Path(images["table"]).write_text("nonsense")
    outputs = draw_lesions(images, tmp_path / "lesions")
    assert names(outputs) == {"sub-1_desc-zones_T2starw.svg"}
    assert set(outputs.missing_figures) == {"sub-1_desc-overview_T2starw.svg"}


def test_a_transform_that_is_not_there_costs_its_figure_alone(
    images: dict[str, str], tmp_path: Path
) -> None:
    Path(images["way"]).unlink()
    outputs = draw_image(images, tmp_path / "none")
    assert names(outputs) == {BIAS, MASK}
    assert set(outputs.missing_figures) == {REGISTRATION}


def test_of_an_image_that_was_given_corrected_the_correction_is_not_drawn(
    images: dict[str, str], tmp_path: Path
) -> None:
    node = image_node(images, suffix="T1w")
    node.inputs.field = Undefined
    kinds = ("mask", "template")
    assert names(run(node, tmp_path / "given")) == {f"sub-1_desc-{kind}_T1w.svg" for kind in kinds}


def test_an_interruption_is_not_swallowed(
    images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "bias_figure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_image(images, tmp_path / "image")


def test_a_node_that_was_given_up_draws_nothing_and_names_all(
    images: dict[str, str], tmp_path: Path
) -> None:
    node = image_node(images)
    node.give_up("its process was killed")
    outputs = run(node, tmp_path / "given_up")
    assert outputs.figures == []
    assert outputs.missing_figures == dict.fromkeys(
        (BIAS, MASK, REGISTRATION), "its process was killed"
    )
