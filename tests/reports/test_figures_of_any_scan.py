"""Every figure is drawn for every scan: any shape, voxel size, orientation, data type and content.

Warnings are errors in these tests, so an overflow or a division by zero fails them.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmbprep.group.figures import frequency_figure
from cmbprep.lesions import Lesion
from cmbprep.reports.figures import (
    bias_figure,
    lesion_figure,
    mask_figure,
    overview_figure,
    registration_figure,
    zones_figure,
)
from cmbprep.reports.figures import images as figures
from cmbprep.reports.figures.canvas import Canvas, check_figure
from cmbprep.reports.figures.sections import (
    MAX_EDGES,
    Volume,
    foreground_window,
    grey_levels,
    outline_path,
    thin,
)
from tests.reports.outputtree import make_lesion

VOXELS = 12_000
CONTENTS = ("head", "zero", "even", "nan", "inf", "negative", "huge", "tiny", "noise", "mixed")
MASKS = ("ball", "empty", "corner", "end", "full", "noise", "plane")
TYPES = ("f4", "f8", ">f4", "i2", ">i2", "u1", "i4")


@dataclass(frozen=True)
class Example:
    """What a scan is made from."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    axes: tuple[int, ...] = (0, 1, 2)
    flips: tuple[int, ...] = (1, 1, 1)
    tilt: float = 0.0
    content: str = "head"
    mask: str = "ball"
    dtype: str = "f4"
    lesions: int = 3
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Made:
    """A scan with all that the figures take."""

    image: np.ndarray
    affine: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    lesions: list[Lesion]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Sizes of 1 to 600 voxels, few enough voxels in all to be quick."""
    sizes, room = [], VOXELS
    for _ in range(3):
        sizes.append(draw(st.integers(1, min(600, room))))
        room //= sizes[-1]
    return tuple(draw(st.permutations(sizes)))


examples = st.builds(
    Example,
    shape=shapes(),
    spacing=st.tuples(*[st.floats(-1, 1).map(lambda power: 10**power)] * 3),
    axes=st.permutations(range(3)).map(tuple),
    flips=st.tuples(*[st.sampled_from((1, -1))] * 3),
    tilt=st.sampled_from((0.0, 0.3, 0.8)),
    content=st.sampled_from(CONTENTS),
    mask=st.sampled_from(MASKS),
    dtype=st.sampled_from(TYPES),
    lesions=st.sampled_from((0, 1, 2, 5, 40)),
    seed=st.integers(0, 9),
)
some = settings(max_examples=20)


def make(case: Example) -> Made:
    rng = np.random.default_rng(case.seed)
    lines = [np.linspace(-1, 1, size) if size > 1 else np.zeros(1) for size in case.shape]
    radius = np.linalg.norm(np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1), axis=-1)
    affine = np.eye(4)
    turn = np.array([[1, 0, 0], [0, np.cos(case.tilt), -np.sin(case.tilt)], [0, 0, 0]])
    turn[2, 1:] = np.sin(case.tilt), np.cos(case.tilt)
    affine[:3, :3] = turn @ (np.eye(3)[list(case.axes)] * case.flips) * case.spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(case.shape) - 1) / 2 + rng.normal(0, 30, 3)
    image = content(case.content, radius, rng)
    with np.errstate(all="ignore"):
        image = image.astype(case.dtype)
    labels = np.zeros(case.shape, np.int32)
    lesions = []
    for index in range(1, case.lesions + 1):
        voxel = np.array([rng.choice([0, size - 1, size // 2]) for size in case.shape])
        labels[tuple(slice(max(0, at - 2), at + 2) for at in voxel)] = index
        place = affine[:3, :3] @ voxel + affine[:3, 3]
        # Some lie beside the scan, near it and very far.
        place = place + rng.choice([0, 0, 0, 50, 1e6, 1e300])
        lesions.append(make_lesion(index, x=place[0], y=place[1], z=place[2]))
    return Made(image, affine, brain(case.mask, radius, rng), labels, lesions)


def content(kind: str, radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = radius.shape
    makers = {
        "head": lambda: 400.0 * (radius < 0.8) + rng.normal(0, 5, shape),
        "zero": lambda: np.zeros(shape),
        "even": lambda: 1e6 + rng.normal(0, 0.05, shape),
        "nan": lambda: np.full(shape, np.nan),
        "inf": lambda: np.full(shape, np.inf),
        "negative": lambda: -400.0 * (radius < 0.8) - 3,
        "huge": lambda: 3e38 * (radius < 0.8),
        "tiny": lambda: 1e-40 * rng.random(shape),
        "noise": lambda: 1000 * rng.random(shape),
        "mixed": lambda: rng.choice([np.nan, np.inf, -np.inf, -3e38, 3e38, 1, 0], shape),
    }
    return makers[kind]()


def brain(kind: str, radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(radius.shape, bool)
    if kind == "corner":
        mask[0, 0, 0] = True
    elif kind == "end":
        mask[-1, -1, -1] = True
    elif kind == "plane":
        mask[mask.shape[0] // 2] = True
    elif kind == "ball":
        mask = radius < 0.6
    elif kind == "noise":
        mask = rng.random(radius.shape) < 0.5
    return mask | (kind == "full")


def check(svg: str, largest: int = 1_500_000) -> None:
    """A drawing is well-formed, is one that a page takes, and has a size fit for a page."""
    check_figure(svg)
    root = ET.fromstring(svg)
    assert len(svg) < largest
    assert root.get("width") == "1200"
    assert 0 < float(root.get("height") or 0) < 4000
    for width, height in re.findall(r'<image [^>]*width="(\d+)" height="(\d+)"', svg):
        assert 0 < int(width) <= 1800
        assert 0 < int(height) <= 1800


awkward = [
    Example((1, 1, 600), (10.0, 10.0, 10.0)),
    Example((600, 1, 1), (0.1, 10.0, 0.1), content="noise", mask="end", lesions=40),
    Example((1, 1, 1), (0.1, 0.1, 0.1), content="huge", mask="full", lesions=1),
    Example((2, 600, 9), content="even", dtype="f4", mask="noise"),
]


def with_awkward(test):
    for case in awkward:
        test = example(case)(test)
    return test


@with_awkward
@some
@given(examples)
def test_bias(case: Example) -> None:
    made = make(case)
    mirrored = np.flip(made.image, axis=2)
    check(bias_figure(mirrored, made.image, made.affine, made.mask))
    check(bias_figure(mirrored, made.image, made.affine, None, field=mirrored))


@with_awkward
@some
@given(examples)
def test_mask(case: Example) -> None:
    made = make(case)
    check(mask_figure(made.image, made.affine, made.mask))


@with_awkward
@some
@given(examples)
def test_registration(case: Example) -> None:
    made = make(case)
    masks = {"brain of the scan": made.mask, "a long name " * 20: made.mask[::-1]}
    mirrored = np.flip(made.image, axis=0)
    check(registration_figure(made.image, mirrored, made.affine, masks), 3_000_000)
    check(registration_figure(made.image, mirrored, made.affine), 3_000_000)


@with_awkward
@some
@given(examples)
def test_zones(case: Example) -> None:
    made = make(case)
    names = {label: "region " * (1 + label % 30) for label in range(1, case.lesions + 1)}
    colours = dict.fromkeys(names, "#112233")
    check(zones_figure(made.image, made.affine, made.labels, colours, names))


@with_awkward
@some
@given(examples)
def test_overview_and_lesions(case: Example) -> None:
    made = make(case)
    scan = made.image, made.affine, made.labels
    check(overview_figure(*scan, made.lesions, mask=made.mask))
    check(overview_figure(*scan, made.lesions))
    for lesion in made.lesions[:2]:
        check(lesion_figure(*scan, lesion, made.lesions[:5], mask=made.mask))


@with_awkward
@some
@given(examples)
def test_frequency(case: Example) -> None:
    made = make(case)
    check(frequency_figure(0.3 * made.mask, made.affine, made.image))
    check(frequency_figure(made.image, made.affine))


def test_three_hundred_lesions_are_all_numbered() -> None:
    made = make(Example((40, 50, 20), (4.0, 4.0, 6.0), lesions=300))
    svg = overview_figure(made.image, made.affine, made.labels, made.lesions, mask=made.mask)
    check(svg, 3_000_000)
    numbers = {item.text for item in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {str(lesion.index) for lesion in made.lesions} <= numbers


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        # The last block of coarse voxels is incomplete along one axis or more.
        ((64, 64, 25), (3.0, 3.0, 2.0)),
        ((97, 115, 97), (2.0, 2.0, 2.0)),
        ((49, 55, 45), (1.0, 1.0, 1.0)),
        ((61, 70, 9), (0.5, 0.5, 5.0)),
        # It is complete, or more than half of it is there.
        ((64, 64, 24), (3.0, 3.0, 2.0)),
        ((48, 56, 47), (1.0, 1.0, 1.0)),
        # An axis has less than one block.
        ((60, 60, 1), (1.0, 1.0, 1.0)),
        ((7, 60, 3), (0.2, 1.0, 1.0)),
    ],
)
def test_the_head_reaches_the_last_voxel_of_every_shape(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    inner = tuple(slice(size // 3, None) for size in shape)
    image = np.zeros(shape, np.float32)
    image[inner] = 100
    head = figures._head(Volume.of(image, np.diag([*spacing, 1.0])), None).data
    assert head.shape == shape
    assert head[-1, -1, -1], "the image is bright up to there"
    thinnest = min(size * width for size, width in zip(shape, spacing, strict=True))
    # A block that is not divided has the brightness of its mean.
    assert np.mean(head == (image > 0)) > (0.75 if thinnest > 4 else 0.6)
    if thinnest > 40:
        assert not head[0, 0, 0], "there is air"
    made = bias_figure(image, image, np.diag([*spacing, 1.0]), image > 0, field=image + 1)
    check(made)


@pytest.mark.parametrize(
    ("window", "levels"),
    [
        ((0.0, 10.0), [0, 0, 128, 255, 255, 0]),
        # An image without positive values: the window is empty, and nothing is divided by 0.
        ((0.0, 0.0), [0, 0, 255, 255, 255, 0]),
        ((0.0, -5.0), [0, 0, 255, 255, 255, 0]),
        ((-3e38, 3e38), [0, 128, 128, 128, 255, 128]),
    ],
)
def test_grey_levels(window: tuple[float, float], levels: list[int]) -> None:
    values = np.array([[-np.inf, -1.0, 5.0, 20.0, np.inf, np.nan]], np.float32)
    assert grey_levels(values, window)[0].tolist() == levels


def test_the_window_of_values_that_differ_by_more_than_their_type_can_hold() -> None:
    data = np.where(np.arange(125).reshape(5, 5, 5) % 2, 3e38, -3e38).astype(np.float32)
    low, high = foreground_window(Volume.of(data, np.eye(4)))
    assert low == pytest.approx(-3e38, rel=1e-3)
    assert high == pytest.approx(3e38, rel=1e-3)


def test_a_mask_with_very_many_edges_is_outlined_smoothly() -> None:
    box = (0.0, 0.0, 100.0, 100.0)
    chess = np.indices((200, 200)).sum(axis=0) % 2
    assert chess.size * 2 > MAX_EDGES
    assert len(outline_path(chess, box)) < 200_000
    block = np.zeros((200, 200))
    block[50:150, 50:150] = 1
    assert outline_path(block, box).count("M") == 400, "each edge of a lesion is drawn"


def test_thinning_loses_no_voxel_and_leaves_small_sections() -> None:
    section = np.zeros((100, 900))
    section[37, 601] = 0.5
    small = thin(section, (0.0, 0.0, 50.0, 50.0))
    assert small.shape == (100, 180)
    assert small.max() == 0.5
    assert thin(section, (0.0, 0.0, 300.0, 30.0)) is section


def test_text_that_xml_cannot_hold_is_replaced() -> None:
    canvas = Canvas(10, 10, "a\x00b", "c\x0bd")
    canvas.text((0, 5), "e\x1bf \ud800 é \U0001f9e0")
    canvas.circle((1, 1), 1, hint="g\uffffh")
    found = list(ET.fromstring(canvas.render()).itertext())
    assert {"a\ufffdb", "c\ufffdd", "e\ufffdf \ufffd é \U0001f9e0", "g\ufffdh"} <= set(found)
    canvas.render().encode("utf-8")
