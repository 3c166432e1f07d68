"""Heads, deformations, vessels, places and people: shapes and statistics."""

import numpy as np
import pytest

from cmbprep.lab.simulate import anatomy
from cmbprep.lab.simulate.anatomy import smooth_noise, upsample
from cmbprep.lab.simulate.deformation import TemplateHead
from cmbprep.lab.simulate.head import Head, build_head, random_deformation
from cmbprep.lab.simulate.heads import load_template_head
from cmbprep.lab.simulate.protocols import (
    LARGEST_COUNT,
    PROTOCOLS,
    Protocol,
    draw_people,
    get_protocol,
)
from cmbprep.lab.simulate.sources import (
    PLACES,
    Blob,
    draw_microbleed,
    draw_microbleeds,
    draw_mimics,
    place_masks,
)
from cmbprep.lab.simulate.tissue import TISSUES, iron_content, static_dephasing_rate
from cmbprep.lab.simulate.vessels import Tube, draw_arteries, draw_veins, occupancy


@pytest.fixture(scope="module")
def template() -> TemplateHead:
    return load_template_head()


@pytest.fixture(scope="module")
def head(template) -> Head:
    return build_head(template, np.random.default_rng(4), age=75, atrophy=0.3)


@pytest.fixture(scope="module")
def places(head):
    return place_masks(head)


def test_upsample_interpolates_linearly():
    x, y = np.meshgrid(np.arange(5.0), np.arange(4.0), indexing="ij")
    plane = (2 * x - 3 * y + x * y).astype(np.float32)
    finer = upsample(plane, (3, 2))
    assert finer.shape == (13, 7)
    fx, fy = np.meshgrid(np.arange(13) / 3, np.arange(7) / 2, indexing="ij")
    np.testing.assert_allclose(finer, 2 * fx - 3 * fy + fx * fy, atol=1e-5)


def test_smooth_noise_has_unit_variance_and_the_width_asked_for():
    field = smooth_noise((60, 60, 60), 12.0, np.random.default_rng(0))
    assert field.std() == pytest.approx(1, abs=0.25)
    near = np.corrcoef(field[:-2].ravel(), field[2:].ravel())[0, 1]
    far = np.corrcoef(field[:-24].ravel(), field[24:].ravel())[0, 1]
    assert near > 0.9
    assert abs(far) < 0.3


def test_a_deformation_is_undone_by_its_inverse(template):
    deformation = random_deformation(template, np.random.default_rng(1), 0.8)
    points = np.random.default_rng(2).uniform((-60, -90, -40), (60, 60, 70), (200, 3))
    back = deformation(deformation.inverse(points))
    assert np.abs(back - points).max() < 0.05
    moved = np.linalg.norm(deformation(points) - points, axis=1)
    assert 1.0 < moved.mean() < 12.0


def test_two_people_differ_and_a_seed_is_a_person(template):
    first, again, other = (
        random_deformation(template, np.random.default_rng(seed), 0.3) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.displacement, again.displacement)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert np.abs(first.displacement - other.displacement).mean() > 1


def test_a_head_has_the_volumes_of_a_head(head):
    litres = {name: float(head.fraction(name).sum()) / 1e6 for name in TISSUES}
    assert 0.45 < litres["gm"] < 1.0
    assert 0.35 < litres["wm"] + litres["wmh"] < 0.8
    assert 0.15 < litres["csf"] < 0.75
    assert 0.2 < litres["bone"] < 1.2
    total = head.fractions.sum(axis=0, dtype=np.uint16)
    assert total.max() <= 258  # rounding


def test_air_cavities_are_paramagnetic_holes_below_the_brain(head):
    chi = head.chi()
    lines = head.points
    sphenoid = (np.abs(lines[0]) < 12) & (np.abs(lines[1] - 20) < 8) & (np.abs(lines[2] + 40) < 5)
    assert chi[sphenoid].max() > 8
    brain = head.brain_mask()
    assert np.abs(chi[brain & (head.fraction("bone") == 0)]).mean() < 0.3


def test_atrophy_widens_the_fluid(template):
    fluid = []
    for atrophy in (0.0, 1.0):
        rng = np.random.default_rng(6)
        deformation = random_deformation(template, rng, atrophy)
        points, _, _ = anatomy.head_grid(template, deformation)
        points = np.ascontiguousarray(points[:, ::2, ::2, ::2])
        distance = anatomy.sample_template(template.brain_distance, template.affine, points)
        parts = anatomy.brain_fractions(template, points, distance, rng, atrophy)
        ventricles = (np.abs(points[0]) < 30) & (np.abs(points[1]) < 30) & (points[2] > 5)
        ventricles &= (points[2] < 25) & (distance < -20)
        fluid.append((parts[0].sum(), parts[0][ventricles].sum()))
    assert fluid[1][0] > 1.15 * fluid[0][0]
    assert fluid[1][1] > 1.15 * fluid[0][1]


def test_iron_grows_with_age_and_most_in_the_pallidum(head):
    for nucleus in ("putamen", "caudate", "pallidum"):
        assert iron_content(nucleus, 80) > iron_content(nucleus, 40)
    assert iron_content("pallidum", 60) > iron_content("putamen", 60) > iron_content("thalamus", 60)
    assert head.r2star(3.0)[head.iron > 17].mean() == pytest.approx(34, abs=6)


def test_static_dephasing_rate_is_the_textbook_one():
    assert static_dephasing_rate(-1.0, 3.0) == pytest.approx(323.5, rel=0.01)


@pytest.mark.parametrize("radius", [0.3, 2.0])
def test_a_tube_keeps_its_volume_on_any_grid(radius):
    points = np.column_stack([np.linspace(-9, 9, 30), np.linspace(-4, 6, 30), np.full(30, 0.3)])
    length = np.linalg.norm(points[-1] - points[0])
    tube = Tube(points, np.full(30, radius), "deep")
    for spacing in ((0.5, 0.5, 0.5), (0.5, 0.5, 1.5)):
        grid = np.diag([*(1 / np.array(spacing)), 1.0])
        shape = tuple(int(30 / s) for s in spacing)
        grid[:3, 3] = np.array(shape) / 2
        part = occupancy([tube], grid, shape, np.random.default_rng(0)) / 255
        volume = part.sum() * np.prod(spacing)
        assert volume == pytest.approx(np.pi * radius**2 * length, rel=0.08)


def test_veins_and_arteries_lie_in_the_head(head):
    rng = np.random.default_rng(8)
    veins = draw_veins(head, head.to_template.inverse, rng)
    tubes = veins + draw_arteries(head.to_template.inverse, rng)
    assert {tube.kind for tube in tubes} == {"sinus", "deep", "medullary", "cortical", "artery"}
    points = np.concatenate([tube.points for tube in tubes])
    index = np.round((points - head.affine[:3, 3]) / head.spacing).astype(int)
    inside = np.all((index >= 0) & (index < head.shape), axis=1)
    assert inside.mean() > 0.99
    cortical = np.concatenate([t.points for t in veins if t.kind == "cortical"])
    index = np.round((cortical - head.affine[:3, 3]) / head.spacing).astype(int)
    index = np.clip(index, 0, np.array(head.shape) - 1)
    assert head.fraction("csf")[tuple(index.T)].mean() > 0.5


def test_blob_volume_and_rotation():
    rng = np.random.default_rng(9)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    blob = Blob(centre=(1.0, -2.0, 0.5), axes=(3.0, 2.0, 1.2), rotation=turn, chi=1.0)
    axis = np.arange(-6, 6, 0.2)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    part = blob.occupancy(points, 0.2)
    assert part.sum() * 0.2**3 == pytest.approx(4 / 3 * np.pi * 3 * 2 * 1.2, rel=0.03)
    mean = (points * part).sum((1, 2, 3)) / part.sum()
    np.testing.assert_allclose(mean, blob.centre, atol=0.03)
    tip = np.array(blob.centre) + turn[:, 0] * 2.7
    assert blob.occupancy(tip.reshape(3, 1, 1, 1), 0.2).item() == 1.0
    beyond = np.array(blob.centre) + turn[:, 2] * 1.5
    assert blob.occupancy(beyond.reshape(3, 1, 1, 1), 0.2).item() == 0.0


def test_places_share_the_bleeds_as_cohorts_do(head, places):
    """Over many people; one person's shares vary."""
    counts = dict.fromkeys(PLACES, 0)
    for seed in range(40):
        for bleed in draw_microbleeds(head, places, 12, np.random.default_rng(seed)):
            counts[bleed.place] += 1
    total = sum(counts.values())
    for place, share in PLACES.items():
        assert counts[place] / total == pytest.approx(share, abs=0.08)


def test_bleeds_keep_apart_and_some_cluster(head, places):
    bleeds = draw_microbleeds(head, places, 50, np.random.default_rng(12))
    assert len(bleeds) == 50
    centres = np.array([b.centre for b in bleeds])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    reach = np.array([b.reach for b in bleeds])
    assert np.all(gaps - reach[:, None] - reach[None] > 1.9)
    assert (gaps.min(axis=1) < 15).sum() >= 5


def test_sizes_are_those_of_deposits_not_of_voids():
    rng = np.random.default_rng(13)
    bleeds = [draw_microbleed("cortex", (0, 0, 0), rng) for _ in range(400)]
    diameter = np.cbrt(6 * np.array([b.volume for b in bleeds]) / np.pi)
    assert np.median(diameter) == pytest.approx(1.9, abs=0.15)
    assert 0.7 < diameter.min() < diameter.max() < 7
    assert min(b.chi for b in bleeds) > 0


def test_mimics_have_the_sign_of_what_they_are(head, places):
    kinds = {}
    for seed in range(40):
        for mimic in draw_mimics(head, places, 75, np.random.default_rng(seed)):
            kinds.setdefault(mimic.kind, []).append(mimic.chi)
    assert set(kinds) == {"calcification", "cavernoma", "haemorrhagic_infarct"}
    assert max(kinds["calcification"]) < 0
    assert min(kinds["cavernoma"] + kinds["haemorrhagic_infarct"]) > 0


def test_people_have_heavy_tailed_counts_and_a_list_can_grow():
    people = draw_people(400, 3, ("demo", "ukb-swi"), 2)
    counts = np.array([p.microbleeds for p in people])
    carriers = counts[counts > 0]
    assert 0.45 < len(carriers) / 400 < 0.85
    assert 1 <= np.median(carriers) <= 4
    assert counts.std() > 1.2 * counts.mean()
    assert counts.max() <= LARGEST_COUNT
    shorter = draw_people(150, 3, ("demo", "ukb-swi"), 2)
    assert shorter == people[:150]
    assert {(p.site, p.protocol) for p in people} == {("site1", "demo"), ("site2", "ukb-swi")}


def test_presets_say_where_they_come_from():
    for name, preset in PROTOCOLS.items():
        assert preset.name == name
        assert len(preset.source) > 30
    assert {p.field_strength for p in PROTOCOLS.values()} == {1.5, 3.0, 7.0}
    assert {p.phase_sign for p in PROTOCOLS.values()} == {-1, 1}
    with pytest.raises(Exception, match="no protocol 'x'"):
        get_protocol("x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"field_strength": 0.0},
        {"echo_times": (0.02, 0.01)},
        {"echo_times": (20.0,)},
        {"voxel": (0.0, 1.0, 1.0)},
        {"three_d": True, "gap": 1.0},
        {"orientation": "askew"},
        {"suffix": "bold"},
        {"phase_sign": 0},
        {"fold": 1000},
    ],
)
def test_wrong_protocols_are_refused(wrong):
    values = {**get_protocol("demo").__dict__, **wrong}
    with pytest.raises(ValueError, match=r"."):
        Protocol(**values)
