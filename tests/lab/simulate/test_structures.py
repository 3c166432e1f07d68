"""Veins, flow voids, dropout: their voxels against the signal that they take away."""

import csv
import io

import numpy as np
import pytest

from cmbprep.lab.simulate.scanner import acquire
from cmbprep.lab.simulate.structures import dropout, find_structures
from cmbprep.lab.simulate.truth import tell_truth
from cmbprep.lab.simulate.vessels import Tube
from tests.lab.simulate.phantoms import centred, protocol, scan, sphere, uniform_head

LINE = np.linspace(-24, 24, 60)[:, None]


def tube(direction, radius: float, kind: str, middle=(0.0, 0.0, 0.0)) -> Tube:
    return Tube(LINE * np.array([direction]) + np.array(middle), np.full(60, radius), kind)


def mask(structures, kind: str, shape) -> np.ndarray:
    image = np.zeros(shape, bool)
    for one in structures:
        if one.kind == kind:
            image[tuple(one.voxels.T)] = True
    return image


@pytest.mark.parametrize("kind", ["cortical", "artery"])
@pytest.mark.parametrize("radius", [0.7, 1.2])
def test_voxels_of_a_vessel_are_those_that_it_darkens(kind, radius):
    """Against the image without the vessel: at least a fifth of the signal is lost."""
    preset = protocol(snr=1e6)
    vessel = tube((0.3, 0.95, 0.1), radius, kind)
    found = scan([], preset, [vessel])
    plain = scan([], preset)
    lost = 1 - np.abs(found.echoes[0]) / np.abs(plain.echoes[0]) >= 0.2
    kinds = {"cortical": "vein", "artery": "flow_void"}
    told = mask(found.structures, kinds[kind], lost.shape)
    # The ends of the field of view wrap around in k-space.
    inner = (slice(3, -3), slice(3, -3), slice(3, -3))
    both = (told & lost)[inner].sum()
    assert 2 * both / (told[inner].sum() + lost[inner].sum()) > 0.75
    assert both > 0.7 * lost[inner].sum()


def test_each_place_of_veins_has_a_row_and_an_artery_is_none():
    tubes = [
        tube((0, 1, 0), 1.5, "sinus", (-8, 0, 0)),
        tube((0, 1, 0), 1.0, "cortical", (0, 0, 0)),
        tube((0, 1, 0), 1.5, "artery", (8, 0, 0)),
    ]
    found = {(s.kind, s.place): s for s in scan([], protocol(), tubes).structures}
    assert set(found) == {("vein", "sinus"), ("vein", "cortical"), ("flow_void", "base")}
    assert found["vein", "sinus"].voxels[:, 0].max() < 10
    assert found["flow_void", "base"].voxels[:, 0].min() > 20
    every = np.concatenate([s.voxels for s in found.values()])
    assert len(np.unique(every, axis=0)) == len(every)


def gradient_field(head, slope: float, axis: int) -> np.ndarray:
    """Field in ppm that rises by `slope` ppm/mm along an axis of the head."""
    line = np.arange(head.shape[axis], dtype=np.float32) * np.float32(slope)
    return np.broadcast_to(line.reshape([-1 if k == axis else 1 for k in range(3)]), head.shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("directions", [np.eye(3), np.eye(3)[:, [2, 0, 1]]])
def test_dropout_begins_where_the_sinc_of_the_turns_in_a_voxel_is_a_half(axis, directions):
    """sinc(0.603) = 0.5; turns = slope x size of the voxel along it x 127.7 Hz/ppm x TE."""
    preset = protocol(voxel=(1.0, 1.5, 3.0), echo_times=(0.010, 0.020))
    geometry = centred(preset, directions)
    head = uniform_head()
    size = preset.voxel[int(np.argmax(np.abs(directions[axis])))]
    limit = 0.6034 / (size * 127.73 * 0.020)
    below, above = (
        dropout(head, gradient_field(head, limit * f, axis).copy(), preset, geometry)
        for f in (0.97, 1.03)
    )
    assert not below.any()
    assert above[2:-2, 2:-2, 2:-2].all()


def test_a_longer_echo_and_a_stronger_field_drop_out_more():
    head = uniform_head()
    offset = np.indices(head.shape, dtype=np.float32) - 31.5
    bump = 10 * np.exp(-(offset**2).sum(axis=0) / (2 * 6.0**2))
    counts = [
        dropout(head, bump, preset, centred(preset)).sum()
        for preset in (
            protocol(field_strength=1.5, echo_times=(0.010,)),
            protocol(field_strength=3.0, echo_times=(0.010,)),
            protocol(field_strength=3.0, echo_times=(0.030,)),
        )
    ]
    assert 0 < counts[0] < counts[1] < counts[2]


def test_iron_is_told_and_what_is_listed_first_keeps_its_voxels():
    head = uniform_head()
    head.iron[26:38, 20:44, 26:38] = 12.0
    preset = protocol()
    vein = tube((0, 1, 0), 1.5, "deep")
    found = find_structures(head, [vein], np.zeros(head.shape, np.float32), preset, centred(preset))
    assert [s.kind for s in found] == ["vein", "iron_rich_nucleus"]
    vein_voxels, iron_voxels = ({tuple(v) for v in s.voxels.tolist()} for s in found)
    assert not vein_voxels & iron_voxels
    iron_mm3 = len(iron_voxels | vein_voxels) * np.prod(preset.spacing)
    assert iron_mm3 > 0.8 * 12 * 24 * 12


def test_extended_rows_come_after_the_compact_ones_and_leave_them_their_voxels():
    preset = protocol(snr=200.0)
    calcium = sphere(3.0, -1.2, (0.0, 0.0, 0.0))
    calcium = type(calcium)(kind="calcification", place="pineal", blobs=calcium.blobs)
    head = uniform_head()
    vein = tube((0, 1, 0), 1.2, "deep")
    acquired = acquire(
        head,
        [vein],
        [calcium],
        preset,
        centred(preset),
        np.random.default_rng(0),
        background=np.zeros(head.shape, np.float32),
    )
    truth = tell_truth(head, [calcium], acquired)
    rows = list(csv.DictReader(io.StringIO(truth.other_table), delimiter="\t"))
    assert [(r["kind"], r["extent"]) for r in rows] == [
        ("calcification", "compact"),
        ("vein", "extended"),
    ]
    labels = truth.others
    assert set(np.unique(labels)) == {0, 1, 2}
    free = {tuple(v) for v in acquired.structures[0].voxels.tolist()}
    taken = {tuple(v) for v in np.argwhere(labels == 1).tolist()}
    assert free & taken
    assert {tuple(v) for v in np.argwhere(labels == 2).tolist()} == free - taken
    # The point of the row is a voxel of the structure.
    affine = acquired.geometry.affine
    point = np.array([float(rows[1][axis]) for axis in "xyz"])
    voxel = np.linalg.solve(affine[:3, :3], point - affine[:3, 3])
    np.testing.assert_allclose(voxel, np.round(voxel), atol=0.01)
    assert labels[tuple(np.round(voxel).astype(int))] == 2
    assert float(rows[1]["volume_mm3"]) == pytest.approx(
        (labels == 2).sum() * np.prod(preset.spacing), rel=1e-3
    )


def test_images_are_the_same_whether_structures_are_told_or_not():
    preset = protocol(echo_times=(0.010, 0.020))
    tubes = [tube((0, 1, 0), 1.0, "cortical")]
    told, untold = (
        acquire(
            uniform_head(),
            tubes,
            [sphere(2.0, 1.5, (6, 0, 0))],
            preset,
            centred(preset),
            np.random.default_rng(5),
            with_structures=wanted,
        )
        for wanted in (True, False)
    )
    assert told.structures and not untold.structures
    for one, other in zip(told.echoes, untold.echoes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_zones_the_truth_is_the_same_otherwise():
    head, preset = uniform_head(), protocol(snr=200.0)
    bleed = sphere(3.0, 1.5)
    acquired = scan([bleed], preset)
    full, bare = (
        tell_truth(head, [bleed], acquired, with_zones=wanted) for wanted in (True, False)
    )
    assert full.zones is not None
    assert bare.zones is None
    np.testing.assert_array_equal(full.microbleeds, bare.microbleeds)
    assert bare.microbleeds.any()
    named, unnamed = (
        next(csv.DictReader(io.StringIO(truth.microbleed_table), delimiter="\t"))
        for truth in (full, bare)
    )
    assert unnamed["zone"] == "n/a"
    apart = {"zone", "region", "hemisphere", "region_fraction", "boundary", "boundary_distance_mm"}
    assert {k: v for k, v in named.items() if k not in apart} == {
        k: v for k, v in unnamed.items() if k not in apart
    }
