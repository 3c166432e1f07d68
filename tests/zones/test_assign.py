"""Zone assignment on made-up atlases in which every answer is known by counting."""

from __future__ import annotations

import time
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmbprep.templates import load_template
from cmbprep.zones.assign import ZoneAssignment, assign_zones
from cmbprep.zones.schemes import MARS, RIGHT_OFFSET, VENTRICLE_INDEX

INDEX = {name: index for index, name in enumerate(MARS.region_names, start=1)}
FRONTAL, GANGLIA, THALAMUS = INDEX["frontal"], INDEX["basal ganglia"], INDEX["thalamus"]
CAPSULE, INSULA, CEREBELLUM = INDEX["internal capsule"], INDEX["insula"], INDEX["cerebellum"]
ISO = np.eye(4)


def halves(shape: tuple[int, int, int] = (40, 30, 20), lobar: int = FRONTAL) -> np.ndarray:
    """Lobar below y = 15, basal ganglia above; left below x = 20."""
    atlas = np.full(shape, lobar, np.uint8)
    atlas[:, shape[1] // 2 :] = GANGLIA
    atlas[shape[0] // 2 :] += RIGHT_OFFSET
    return atlas


def lesion(shape: tuple[int, ...], *boxes: tuple[slice, slice, slice]) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    for label, box in enumerate(boxes, start=1):
        labels[box] = label
    return labels


def only(
    labels: np.ndarray, affine: np.ndarray, atlas: np.ndarray, **more: float
) -> ZoneAssignment:
    (found,) = assign_zones(labels, affine, atlas, MARS, **more)
    return found


def test_lesion_within_one_region() -> None:
    atlas = halves()
    found = only(lesion(atlas.shape, np.s_[4:7, 4:7, 4:7]), ISO, atlas)
    assert (found.zone, found.region, found.hemisphere) == ("lobar", "frontal", "left")
    assert found.region_fraction == 1
    # Centre at y = 5; the first deep voxel is 15, its near face 14.5.
    assert found.boundary_distance_mm == pytest.approx(9.5)
    assert not found.boundary and found.note == ""


def test_majority_wins_and_the_fraction_counts_all_voxels() -> None:
    atlas = halves()
    found = only(lesion(atlas.shape, np.s_[4:6, 12:17, 4:6]), ISO, atlas)
    assert found.region == "frontal"
    assert found.region_fraction == pytest.approx(3 / 5)
    assert found.boundary_distance_mm == pytest.approx(0.5)
    assert found.boundary


def test_zone_is_chosen_before_region() -> None:
    """Four voxels frontal, three ganglia, three thalamus: the lesion is deep."""
    atlas = np.zeros((20, 3, 3), np.uint8)
    atlas[0:9], atlas[9:12], atlas[12:] = FRONTAL, GANGLIA, THALAMUS
    found = only(lesion(atlas.shape, np.s_[5:15, 1:2, 1:2]), ISO, atlas)
    assert (found.zone, found.region) == ("deep", "basal ganglia")
    assert found.region_fraction == pytest.approx(0.3)


def test_equal_numbers_go_to_what_holds_the_centre() -> None:
    atlas = np.full((9, 3, 3), FRONTAL, np.uint8)
    atlas[4] = GANGLIA
    labels = np.zeros(atlas.shape, int)
    labels[3:6, 1, 1] = 1
    atlas[3, 1, 1] = THALAMUS
    labels[4, 0:3, 1] = 1  # 3 ganglia, 1 frontal, 1 thalamus: make it equal below
    atlas[4, 0, 1] = atlas[4, 2, 1] = FRONTAL
    # Now: thalamus 1, frontal 3, ganglia 1 (the centre) -> lobar by number.
    assert only(labels, ISO, atlas).zone == "lobar"
    atlas[5, 1, 1] = CAPSULE
    atlas[4, 2, 1] = 0
    # frontal 1; deep 3 of three different regions -> the one of the centre.
    found = only(labels, ISO, atlas)
    assert (found.zone, found.region) == ("deep", "basal ganglia")


def test_equal_numbers_and_distances_go_to_the_lowest_index() -> None:
    for left, right in ((THALAMUS, FRONTAL), (FRONTAL, THALAMUS)):
        atlas = np.zeros((10, 3, 3), np.uint8)
        atlas[:5], atlas[5:] = left, right
        found = only(lesion(atlas.shape, np.s_[3:7, 1:2, 1:2]), ISO, atlas)
        assert found.region == "frontal"
        assert found.region_fraction == 0.5
        assert found.boundary_distance_mm == pytest.approx(0)
        assert found.boundary


def test_distance_is_to_the_face_of_a_thick_voxel() -> None:
    atlas = np.full((9, 9, 9), FRONTAL, np.uint8)
    atlas[:, :, 5:] = GANGLIA
    affine = np.diag([1.0, 1.0, 6.0, 1.0])
    found = only(lesion(atlas.shape, np.s_[4:5, 4:5, 3:4]), affine, atlas)
    assert found.boundary_distance_mm == pytest.approx(1.5 * 6)
    found = only(lesion(atlas.shape, np.s_[4:5, 4:5, 4:5]), affine, atlas)
    assert found.boundary_distance_mm == pytest.approx(0.5 * 6)


def test_distance_agrees_with_finely_sampled_truth() -> None:
    """On random atlases with anisotropic voxels, against brute force over the voxels' faces."""
    rng = np.random.default_rng(3)
    zooms = np.array([0.5, 0.7, 3.0])
    for _ in range(20):
        atlas = np.full((24, 22, 8), FRONTAL, np.uint8)
        others = rng.integers(0, atlas.shape, (3, 3))
        atlas[tuple(others.T)] = GANGLIA
        voxels = rng.integers(4, (20, 18, 6), (1, 3)) + rng.integers(0, 2, (5, 3))
        labels = np.zeros(atlas.shape, int)
        labels[tuple(voxels.T)] = 1
        found = only(labels, np.diag([*zooms, 1]), atlas)
        if found.zone != "lobar":
            continue
        centre = np.argwhere(labels == 1).mean(axis=0)
        faces = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 41)] * 3), -1).reshape(-1, 3)
        points = (np.argwhere(atlas == GANGLIA)[:, None] + faces - centre) * zooms
        truth = np.linalg.norm(points, axis=-1).min()
        assert found.boundary_distance_mm == pytest.approx(truth, abs=0.05)


def test_far_zone_is_found_beyond_the_first_search_radius() -> None:
    atlas = np.full((120, 5, 5), FRONTAL, np.uint8)
    atlas[110:] = GANGLIA
    found = only(lesion(atlas.shape, np.s_[5:6, 2:3, 2:3]), ISO, atlas)
    assert found.boundary_distance_mm == pytest.approx(104.5)
    assert found.zone == "lobar" and not found.boundary


def test_no_other_zone_in_the_image() -> None:
    atlas = np.full((10, 10, 10), FRONTAL, np.uint8)
    found = only(lesion(atlas.shape, np.s_[4:6, 4:6, 4:6]), ISO, atlas)
    assert found.boundary_distance_mm is None and not found.boundary


def test_ventricle_and_background_are_no_other_zone() -> None:
    atlas = np.full((30, 5, 5), FRONTAL, np.uint8)
    atlas[8:10], atlas[10:12], atlas[20:] = VENTRICLE_INDEX, 0, GANGLIA
    found = only(lesion(atlas.shape, np.s_[5:6, 2:3, 2:3]), ISO, atlas)
    assert found.boundary_distance_mm == pytest.approx(14.5)


def test_lesion_outside_the_brain_is_not_forced_into_a_zone() -> None:
    atlas = np.zeros((40, 5, 5), np.uint8)
    atlas[20:] = THALAMUS + RIGHT_OFFSET
    labels = lesion(atlas.shape, np.s_[17:18, 2:3, 2:3])
    far = only(labels, ISO, atlas)
    assert (far.zone, far.region, far.hemisphere, far.region_fraction) == (None,) * 4
    assert far.boundary and far.boundary_distance_mm == pytest.approx(2.5)
    assert far.note == "outside the brain, nearest zone at 2.5 mm"
    near = only(labels, ISO, atlas, tolerance_mm=3.0)
    assert (near.zone, near.region, near.hemisphere) == ("deep", "thalamus", "right")
    assert near.boundary and near.region_fraction == 0


def test_lesion_in_a_ventricle_is_named_for_it_however_near_tissue_is() -> None:
    atlas = np.full((40, 5, 5), VENTRICLE_INDEX, np.uint8)
    atlas[20:] = THALAMUS + RIGHT_OFFSET
    found = only(lesion(atlas.shape, np.s_[19:20, 2:3, 2:3]), ISO, atlas, tolerance_mm=9.0)
    assert (found.zone, found.region, found.hemisphere) == (None, "ventricle", None)
    assert found.boundary and found.region_fraction == 1
    assert found.boundary_distance_mm == pytest.approx(0.5)
    assert found.note == "in a ventricle, no zone"


@pytest.mark.parametrize(("first", "zone"), [(7, "deep"), (8, "deep"), (6, None)])
def test_lesion_at_a_ventricle_goes_where_more_of_it_lies(first: int, zone: str | None) -> None:
    """Of equal parts the tissue's counts."""
    atlas = np.full((20, 5, 5), VENTRICLE_INDEX, np.uint8)
    atlas[10:] = THALAMUS
    found = only(lesion(atlas.shape, np.s_[first : first + 6, 2:3, 2:3]), ISO, atlas)
    assert found.zone == zone
    mirrored = only(
        lesion(atlas.shape, np.s_[14 - first : 20 - first, 2:3, 2:3]), ISO, atlas[::-1].copy()
    )
    assert (mirrored.zone, mirrored.region) == (found.zone, found.region)


def test_tolerance_decides_the_flag_alone() -> None:
    atlas = halves()
    labels = lesion(atlas.shape, np.s_[4:7, 10:13, 4:7])  # 3.5 mm from the deep zone
    narrow, wide = (only(labels, ISO, atlas, tolerance_mm=mm) for mm in (3.4, 3.6))
    assert (narrow.boundary, wide.boundary) == (False, True)
    assert (narrow.zone, narrow.boundary_distance_mm) == (wide.zone, wide.boundary_distance_mm)


def test_midline_and_sides() -> None:
    atlas = np.full((40, 5, 5), INDEX["corpus callosum"], np.uint8)
    atlas[20:] += RIGHT_OFFSET

    def side(start: int, stop: int) -> str | None:
        return only(lesion(atlas.shape, np.s_[start:stop, 2:3, 2:3]), ISO, atlas).hemisphere

    assert side(18, 22) == "midline"
    assert side(15, 20) == "left"
    assert side(16, 21) == "left"  # a fifth on the other side
    assert side(17, 21) == "midline"  # a quarter
    assert side(20, 25) == "right"


def random_case(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random atlas of all regions, and lesions of odd shapes."""
    rng = np.random.default_rng(seed)
    values = np.array([0, *MARS.by_index])
    coarse = values[rng.integers(0, len(values), (9, 8, 7))].astype(np.uint8)
    atlas = coarse.repeat(5, 0).repeat(4, 1).repeat(3, 2)
    labels = np.zeros(atlas.shape, np.int16)
    for label in range(1, 26):
        corner = rng.integers(0, np.array(atlas.shape) - 6)
        block = rng.random((6, 5, 4)) < 0.6
        part = tuple(slice(c, c + n) for c, n in zip(corner, block.shape, strict=True))
        labels[part][block & (labels[part] == 0)] = label
    return labels, atlas


def test_flips_permutations_and_rotations_change_nothing() -> None:
    """Sides come from labels and distances from the affine, not from the order of voxels."""
    labels, atlas = random_case()
    affine = np.diag([0.5, 0.9, 4.0, 1.0])
    expected = assign_zones(labels, affine, atlas, MARS)
    assert {found.hemisphere for found in expected} >= {"left", "right"}
    angle = 0.4
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for order in permutations(range(3)):
        for flips in product((1, -1), repeat=3):
            step = np.s_[:: flips[0], :: flips[1], :: flips[2]]
            turned = np.eye(4)
            turned[:3, :3] = (affine[:3, :3] * flips)[:, order]
            moved = assign_zones(
                labels[step].transpose(order),
                rotation @ turned,
                atlas[step].transpose(order),
                MARS,
            )
            for one, two in zip(expected, moved, strict=True):
                assert (one.label, one.zone, one.region, one.hemisphere, one.note) == (
                    two.label,
                    two.zone,
                    two.region,
                    two.hemisphere,
                    two.note,
                )
                assert one.region_fraction == two.region_fraction
                assert one.boundary == two.boundary
                assert one.boundary_distance_mm == pytest.approx(two.boundary_distance_mm)


def test_mirrored_atlas_mirrors_the_sides_alone() -> None:
    labels, atlas = random_case(2)
    swap = np.arange(256, dtype=np.uint8)
    for region in MARS.regions:
        if region.hemisphere == "left":
            swap[[region.index, region.index + RIGHT_OFFSET]] = swap[
                [region.index + RIGHT_OFFSET, region.index]
            ]
    other = {"left": "right", "right": "left", "midline": "midline", None: None}
    one = assign_zones(labels, ISO, atlas, MARS)
    two = assign_zones(labels, ISO, swap[atlas], MARS)
    for a, b in zip(one, two, strict=True):
        assert (a.zone, a.region, a.region_fraction) == (b.zone, b.region, b.region_fraction)
        assert other[a.hemisphere] == b.hemisphere


def test_labels_need_not_be_consecutive_and_types_do_not_matter() -> None:
    atlas = halves()
    labels = lesion(atlas.shape, np.s_[4:7, 4:7, 4:7], np.s_[30:33, 20:23, 4:7])
    labels[labels == 2] = 7
    expected = assign_zones(labels, ISO, atlas, MARS)
    assert [found.label for found in expected] == [1, 7]
    assert (expected[1].zone, expected[1].hemisphere) == ("deep", "right")
    for kind in (np.uint8, np.int16, np.uint32, np.int64, np.uint64):
        assert assign_zones(labels.astype(kind), ISO, atlas.astype(kind), MARS) == expected
    assert assign_zones(np.zeros(atlas.shape, int), ISO, atlas, MARS) == []


def test_wrong_input_is_refused() -> None:
    atlas = halves()
    labels = lesion(atlas.shape, np.s_[4:7, 4:7, 4:7])
    with pytest.raises(ValueError, match="one 3D grid"):
        assign_zones(labels[1:], ISO, atlas, MARS)
    with pytest.raises(ValueError, match="integers"):
        assign_zones(labels, ISO, atlas.astype(float), MARS)
    with pytest.raises(ValueError, match="singular"):
        assign_zones(labels, np.diag([1, 0, 1, 1]), atlas, MARS)
    atlas[5, 5, 5] = 77
    with pytest.raises(ValueError, match="77"):
        assign_zones(labels, ISO, atlas, MARS)


def test_hundred_lesions_on_a_large_scan_take_little_longer_than_one() -> None:
    shape = (512, 512, 96)
    atlas = np.full(shape, FRONTAL, np.uint8)
    atlas[150:350, 150:350] = GANGLIA
    labels = np.zeros(shape, np.int32)
    rng = np.random.default_rng(0)
    for label in range(1, 101):
        x, y, z = rng.integers(10, (500, 500, 90))
        labels[x : x + 6, y : y + 6, z : z + 2] = label
    seconds, numbers = [], []
    for some in (np.where(labels == 50, labels, 0), labels):
        start = time.process_time()
        found = assign_zones(some, np.diag([0.5, 0.5, 1.5, 1]), atlas, MARS)
        seconds.append(time.process_time() - start)
        numbers.append(len(found))
    assert numbers[0] == 1
    assert numbers[1] > 90
    # Looking through the whole scan for each lesion takes far longer.
    assert seconds[1] < 5 * seconds[0]


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_packaged_atlas_on_a_thick_oblique_scan(flip: int, degrees: float) -> None:
    """Lesions put at known places of the template keep region and side on another grid."""
    path = load_template().atlas("mars")
    assert path is not None
    image = nib.Nifti1Image.from_filename(path)
    places = {
        (36.0, 40.0, 20.0): "frontal",
        (50.0, -35.0, 40.0): "parietal",
        (58.0, -20.0, -15.0): "temporal",
        (10.0, -88.0, 4.0): "occipital",
        (26.0, 4.0, 0.0): "basal ganglia",
        (12.0, -18.0, 8.0): "thalamus",
        (25.0, -65.0, -38.0): "cerebellum",
        (6.0, -24.0, -30.0): "brainstem",
    }
    zooms, shape = np.array([1.0, 1.0, 4.0]), (190, 230, 52)
    affine = rotated(degrees) @ np.diag([*zooms, 1.0])
    affine[:3, 0] *= flip
    middle = affine[:3, :3] @ (np.array(shape) / 2)
    affine[:3, 3] = np.array([0, -20, 5]) - middle
    step = np.linalg.inv(image.affine) @ affine
    template = np.asarray(image.dataobj)
    atlas = ndimage.affine_transform(template, step[:3, :3], step[:3, 3], shape, order=0)
    labels = np.zeros(shape, np.uint8)
    expected = []
    for point, region in places.items():
        for side in (1, -1):
            centre = np.array(point) * (side, 1, 1)
            expected.append((region, "right" if side == 1 else "left"))
            voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), centre)).astype(int)
            around = voxel + np.argwhere(np.ones((9, 9, 5))) - (4, 4, 2)
            gap = nib.affines.apply_affine(affine, around) - centre
            ball = around[np.linalg.norm(gap, axis=1) < 2.5]
            labels[tuple(ball.T)] = len(expected)
    found = assign_zones(labels, affine, atlas, MARS)
    assert [(one.region, one.hemisphere) for one in found] == expected


def rotated(degrees: float) -> np.ndarray:
    """Rotation about the x axis, then about the z axis, shape (4, 4)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tilt, turn = np.eye(4), np.eye(4)
    tilt[1:3, 1:3] = turn[:2, :2] = [[c, -s], [s, c]]
    return turn @ tilt
