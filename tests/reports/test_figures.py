"""The figures show what is there, where it is, whichever way the scan is stored."""

from __future__ import annotations

import base64
import io
import itertools
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cmbprep.group.figures import frequency_figure
from cmbprep.reports.figures import (
    bias_figure,
    lesion_figure,
    mask_figure,
    overview_figure,
    registration_figure,
    zones_figure,
)
from cmbprep.reports.figures.canvas import Canvas
from cmbprep.reports.figures.sections import PLANES, Volume, contour_path, outline_path, spread
from tests.reports.outputtree import make_lesion

SHAPE, SPACING = (48, 56, 20), np.array([4.0, 4.0, 8.0])
AFFINE = np.diag([*SPACING, 1.0])
AFFINE[:3, 3] = -SPACING * (np.array(SHAPE) - 1) / 2
SVG = "{http://www.w3.org/2000/svg}"


def ball(radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    points = grid * SPACING + AFFINE[:3, 3]
    return np.linalg.norm(points - np.array(centre), axis=-1) <= radius


@pytest.fixture
def head(rng: np.random.Generator) -> np.ndarray:
    return (100.0 * ball(75) + 400.0 * ball(60) + rng.normal(0, 5, SHAPE)).astype(np.float32)


def store(data: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> tuple:
    """Store the same image with permuted and flipped axes."""
    orientation = np.array([(a, -1 if f else 1) for a, f in zip(axes, flips, strict=True)])
    stored = nib.apply_orientation(data, orientation)
    return stored, AFFINE @ nib.orientations.inv_ornt_aff(orientation, data.shape)


def first_of(data: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    return store(data, axes, flips)[0]


def pictures(svg: str) -> list[np.ndarray]:
    codes = re.findall(r"data:image/\w+;base64,([^\"]+)", svg)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in codes]


def texts(svg: str) -> list[str]:
    return [item.text or "" for item in ET.fromstring(svg).iter(f"{SVG}text")]


def all_figures(head: np.ndarray, affine: np.ndarray, turn: Callable) -> dict[str, str]:
    mask, labels = turn(ball(60)), turn(ball(6, (30, 20, 10)).astype(np.int16))
    image = turn(head)
    lesion = make_lesion(1, x=30.0, y=20.0, z=10.0)
    half = turn(np.where(ball(60), 1 + 100 * (np.arange(48) > 23)[:, None, None], 0))
    return {
        "bias": bias_figure(image * 1.5, image, affine, mask),
        "mask": mask_figure(image, affine, mask),
        "registration": registration_figure(image, image * 2, affine, {"brain": mask}),
        "zones": zones_figure(
            image, affine, half, {1: "#112233", 101: "#112233"}, {1: "frontal", 101: "frontal"}
        ),
        "lesion": lesion_figure(image, affine, labels, lesion, mask=mask),
        "overview": overview_figure(image, affine, labels, [lesion], mask=mask),
    }


def test_figures_are_valid_small_and_the_same_again(head: np.ndarray) -> None:
    first = all_figures(head, AFFINE, lambda data: data)
    assert first == all_figures(head, AFFINE, lambda data: data)
    for name, svg in first.items():
        ET.fromstring(svg)
        assert len(svg) < 400_000, name
        assert "http" not in svg.replace("http://www.w3.org/2000/svg", ""), name
        assert "<script" not in svg


def test_storage_order_does_not_change_a_figure(head: np.ndarray) -> None:
    expected = all_figures(head, AFFINE, lambda data: data)
    for axes, flips in (((0, 1, 2), (True, True, False)), ((2, 0, 1), (True, False, True))):
        affine = store(head, axes, flips)[1]
        turn = partial(first_of, axes=axes, flips=flips)
        assert all_figures(head, affine, turn) == expected


def test_storage_order_does_not_change_a_section() -> None:
    data = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((True, False), repeat=3):
            volume = Volume.of(*store(data, axes, flips))
            np.testing.assert_array_equal(volume.data, data)
            np.testing.assert_allclose(volume.frame.affine, AFFINE)


def test_left_is_left_and_front_is_up(head: np.ndarray) -> None:
    volume = Volume.of(ball(20, (-50, 40, 30)), AFFINE)
    section = volume.section(PLANES["axial"], 13, volume.whole)
    rows, columns = np.nonzero(section)
    assert columns.mean() < SHAPE[0] / 2, "the person's left is at the left"
    assert rows.mean() < SHAPE[1] / 2, "the front is at the top"
    section = volume.section(PLANES["sagittal"], 11, volume.whole)
    rows, columns = np.nonzero(section)
    assert columns.mean() > SHAPE[1] / 2, "in a sagittal section the front is at the right"
    assert rows.mean() < SHAPE[2] / 2, "up is at the top"


def test_voxels_keep_their_proportions(head: np.ndarray) -> None:
    lesion = make_lesion(1, x=0.0, y=0.0, z=0.0)
    labels = ball(9).astype(np.int16)
    svg = lesion_figure(head, AFFINE, labels, lesion, field_of_view=80)
    scales = re.findall(r"scale\(([\d.]+) ([\d.]+)\)", svg)
    coronal = scales[3]
    assert float(coronal[1]) / float(coronal[0]) == pytest.approx(2.0, rel=0.01)


def test_the_close_up_shows_the_lesion_in_its_middle_unsmoothed(head: np.ndarray) -> None:
    labels = ball(6, (10, 6, 12)).astype(np.int16)
    head = np.where(labels == 1, 5.0, head)
    lesion = make_lesion(1, x=10.0, y=6.0, z=12.0)
    axial = pictures(lesion_figure(head, AFFINE, labels, lesion, mask=ball(60)))[1]
    assert axial.shape[0] == pytest.approx(40 / 4, abs=1), "pixels are voxels"
    dark = np.argwhere(axial < 60)
    assert len(dark) > 0
    np.testing.assert_allclose(dark.mean(axis=0), (np.array(axial.shape) - 1) / 2, atol=1)


def test_text_says_number_probability_size_and_region(head: np.ndarray) -> None:
    lesion = make_lesion(3, x=0.0, y=0.0, z=0.0, probability=0.87, region="basal_ganglia")
    svg = lesion_figure(head, AFFINE, np.zeros(SHAPE, np.int16), lesion)
    heading = texts(svg)[0]
    for part in ("Lesion 3", "0.87", "3.0 mm", "30 mm³", "left basal ganglia"):
        assert part in heading


@pytest.mark.parametrize(
    ("probability", "text"), [(0.995, "0.99"), *((p, ">0.99") for p in (0.996, 0.99999, 1.0))]
)
def test_no_probability_is_rounded_to_certainty(
    head: np.ndarray, probability: float, text: str
) -> None:
    lesion = make_lesion(3, x=0.0, y=0.0, z=0.0, probability=probability)
    svg = lesion_figure(head, AFFINE, np.zeros(SHAPE, np.int16), lesion)
    assert f"probability {text} ·" in texts(svg)[0]


def test_a_lesion_at_the_rim_of_the_scan_is_drawn(head: np.ndarray) -> None:
    corner = AFFINE[:3, 3]
    lesion = make_lesion(1, x=float(corner[0]), y=float(corner[1]), z=float(corner[2]))
    labels = np.zeros(SHAPE, np.int16)
    labels[0, 0, 0] = 1
    ET.fromstring(lesion_figure(head, AFFINE, labels, lesion))
    ET.fromstring(overview_figure(head, AFFINE, labels, [lesion], mask=ball(60)))


def test_text_is_escaped(head: np.ndarray) -> None:
    lesion = make_lesion(1, x=0.0, y=0.0, z=0.0)
    svg = lesion_figure(head, AFFINE, np.zeros(SHAPE, np.int16), lesion, text='a < b & "c"')
    assert 'Lesion a < b & "c"' in texts(svg)[0] or 'a < b & "c"' in texts(svg)[0]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_empty_images_and_masks_make_a_figure(value: float) -> None:
    image, mask = np.full(SHAPE, value, np.float32), np.zeros(SHAPE, bool)
    for svg in (
        bias_figure(image, image, AFFINE, mask),
        mask_figure(image, AFFINE, mask),
        registration_figure(image, image, AFFINE, {"brain": mask}),
        overview_figure(image, AFFINE, np.zeros(SHAPE, int), [], mask=mask),
        zones_figure(image, AFFINE, np.zeros(SHAPE, int), {}, {}),
    ):
        ET.fromstring(svg)


def test_arrays_of_another_grid_are_refused(head: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shape"):
        mask_figure(head, AFFINE, np.ones((3, 3, 3)))


def test_the_shown_part_holds_the_brain_and_no_more_than_the_margin() -> None:
    head = 100.0 * ball(200)
    brain = ball(40)
    volume = Volume.of(head, AFFINE)
    shown, core = spread(volume, volume.on_same_grid(brain), margin=16.0)
    where = np.argwhere(brain)
    assert core.low == tuple(where.min(axis=0))
    assert core.high == tuple(where.max(axis=0) + 1)
    assert core.low[0] - shown.low[0] == 4
    assert shown.high[2] - core.high[2] == 2


def test_outline_follows_the_edges_of_voxels() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1, 1:3] = True
    path = outline_path(mask, (0.0, 0.0, 40.0, 30.0))
    edges = re.findall(r"M([\d.]+) ([\d.]+)([hv])([\d.]+)", path)
    assert len(edges) == 6, "two voxels side by side have six edges"
    assert {(float(x), float(y)) for x, y, way, _ in edges if way == "v"} == {(10, 10), (30, 10)}


def test_contour_encloses_the_mask() -> None:
    mask = np.zeros((50, 50), bool)
    mask[10:40, 20:30] = True
    path = contour_path(mask, (100.0, 0.0, 50.0, 50.0))
    x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)", path).groups())
    points = [(x, y)]
    for dx, dy in re.findall(r"l(-?[\d.]+) (-?[\d.]+)", path):
        points.append((points[-1][0] + float(dx), points[-1][1] + float(dy)))
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    np.testing.assert_allclose(low, [120, 10], atol=1)
    np.testing.assert_allclose(high, [130, 40], atol=1)


def test_a_picture_used_twice_is_stored_once() -> None:
    canvas = Canvas(10, 10, "x")
    for left in (0.0, 5.0):
        canvas.picture(("data:image/png;base64,AAAA", (1, 1)), (left, 0, 5, 5))
    svg = canvas.render()
    assert svg.count("<image") == 1
    assert svg.count("<use") == 2


def test_bias_field_is_shown_as_the_ratio(head: np.ndarray) -> None:
    mask = ball(60)
    ramp = np.exp(np.linspace(-0.5, 0.5, SHAPE[0]))[:, None, None]
    svg = bias_figure(head * ramp, head, AFFINE, mask, field=np.broadcast_to(ramp, SHAPE))
    field = pictures(svg)[17].astype(int)
    left, right = (field[field.shape[0] // 2, field.shape[1] * n // 4] for n in (1, 3))
    assert left[2] > left[0], "divided by less than 1 at the left: blue"
    assert right[0] > right[2], "divided by more than 1 at the right: red"


def test_bias_field_is_shown_in_the_head_alone(rng: np.random.Generator) -> None:
    image = (400.0 * ball(70) + 5 * np.abs(rng.normal(0, 1, SHAPE))).astype(np.float32)
    outer = np.where(ball(70), 1.0, 2.0)
    svg = bias_figure(image * outer, image, AFFINE, ball(60), field=outer)
    fields = [picture.astype(int) for picture in pictures(svg) if picture.ndim == 3][:-1]
    assert len(fields) > 3
    for field in fields:
        assert np.mean(field[..., 0] > field[..., 2] + 60) < 0.02, "red is the air alone"
    middle = fields[len(fields) // 2]
    assert middle[:8, :8].max() < 60, "a corner: air"
    assert middle[middle.shape[0] // 2, middle.shape[1] // 2].min() > 200, "unchanged"


def test_black_has_an_outline_in_the_legend() -> None:
    canvas = Canvas(200, 20, "title")
    canvas.legend((4, 14), [("#000000", "ventricle"), ("#2fd6c8", "brain")])
    boxes = list(ET.fromstring(canvas.render()).iter(f"{SVG}rect"))[1:]
    assert [box.get("stroke") == "none" for box in boxes] == [False, True]


def test_frequency_shows_lesions_between_sections() -> None:
    values = np.zeros(SHAPE, np.float32)
    values[24, 28, :] = 0.0
    for k in range(SHAPE[2]):
        values[:] = 0
        values[24, 28, k] = 0.5
        svg = frequency_figure(values, AFFINE)
        assert any(
            picture.ndim == 3 and picture.shape[2] == 4 and (picture[..., 3] > 0).any()
            for picture in pictures(svg)
        )


def test_large_scans_are_quick() -> None:
    shape = (384, 384, 64)
    affine = np.diag([0.6, 0.6, 2.0, 1.0])
    image = np.ones(shape, np.float32)
    image[80:300, 80:300, 8:56] = 5
    mask = image > 2
    seconds = []
    for work in (
        partial(ndimage.gaussian_filter, image, 2),
        partial(mask_figure, image, affine, mask),
    ):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    assert seconds[1] < 10 * seconds[0], "smoothing the scan is a measure of the machine"


def test_sections_of_an_oblique_scan_are_marked_where_the_lesion_is(head: np.ndarray) -> None:
    turn = np.radians(20)
    oblique = np.eye(4)
    oblique[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine = oblique @ AFFINE
    voxel = np.array([30, 40, 12])
    x, y, z = affine[:3, :3] @ voxel + affine[:3, 3]
    labels = np.zeros(SHAPE, np.int16)
    labels[tuple(voxel)] = 1
    svg = lesion_figure(head, affine, labels, make_lesion(1, x=x, y=y, z=z))
    assert f"z {z:+.0f}".replace("-", "−") in texts(svg)[6]
    assert any("oblique by 20°" in text for text in texts(mask_figure(head, affine, ball(60))))
