"""Zones from a person's own segmentation, on a head whose anatomy is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from cmbprep.zones.parcellation import CLASSES
from cmbprep.zones.person import PersonZones, person_zones
from cmbprep.zones.schemes import BOMBS, MARS, RIGHT_OFFSET, VENTRICLE_INDEX, Scheme
from tests.zones.segmentphantom import SegmentedHead, segmented_head

INDEX = {name: index for index, name in enumerate(MARS.region_names, start=1)}
DEEP = INDEX["deep and periventricular white matter"]


@cache
def head() -> SegmentedHead:
    return segmented_head()


def zones(scheme: Scheme = MARS) -> PersonZones:
    return person_zones(head().labels, head().template, head().brain, scheme)


@cache
def mars() -> np.ndarray:
    return zones().labels


def code(name: str) -> int:
    return 1 + CLASSES.index(name)


def test_every_voxel_of_the_brain_has_a_zone_and_no_other() -> None:
    for scheme in (MARS, BOMBS):
        labels = zones(scheme).labels
        assert np.array_equal(labels > 0, head().brain)
        assert set(np.unique(labels)) - {0} <= set(scheme.by_index)


def test_all_regions_of_the_scales_are_there() -> None:
    assert set(np.unique(mars())) == {0, *MARS.by_index}
    assert set(np.unique(zones(BOMBS).labels)) == {0, *BOMBS.by_index}


@pytest.mark.parametrize(
    ("place", "region"),
    [
        ((20, 26, 3), "frontal"),  # cortex
        ((10, 24, 3), "frontal"),  # white matter under it
        ((8, 0, 25), "parietal"),
        ((8, 0, 20), "parietal"),
        ((27, 2, -10), "temporal"),
        ((5, -34, 3), "occipital"),
        ((24, 0, 0), "insula"),
        ((5, -4, 0), "thalamus"),
        ((8, 5, 3), "basal ganglia"),
        ((16, 0, 0), "basal ganglia"),
        ((11, -3, 0), "internal capsule"),
        ((20.5, 0, 0), "external capsule"),
        ((0.5, 0, 11), "corpus callosum"),
        ((8, -6, 7), "deep and periventricular white matter"),
        ((3, 0, -15), "brainstem"),
        ((10, -20, -16), "cerebellum"),
    ],
)
def test_places_get_the_region_that_holds_them(place: tuple[float, ...], region: str) -> None:
    x, y, z = place
    assert mars()[head().at(x, y, z)] == INDEX[region] + RIGHT_OFFSET
    assert mars()[head().at(-x, y, z)] == INDEX[region]


def test_ventricles_are_of_no_zone() -> None:
    inside = np.isin(head().labels, (4, 43))
    assert np.array_equal(mars() == VENTRICLE_INDEX, inside)


def test_the_mirror_image_gives_the_mirror_image() -> None:
    swapped = head().labels.copy()
    pairs = [(2, 41), (4, 43), (8, 47), (10, 49), (11, 50), (12, 51), (28, 60)]
    pairs += [(1000 + n, 2000 + n) for n in (11, 15, 28, 29, 35)]
    for left, right in pairs:
        swapped[head().labels == left], swapped[head().labels == right] = right, left
    mirrored = person_zones(swapped[::-1], head().template[::-1], head().brain[::-1], MARS).labels
    back = mirrored[::-1].astype(int)
    tissue = (back > 0) & (back != VENTRICLE_INDEX)
    crossed = np.where(back > RIGHT_OFFSET, back - RIGHT_OFFSET, back + RIGHT_OFFSET)
    assert np.mean(np.where(tissue, crossed, back) != mars()) < 1e-3  # equal distances


def test_axes_in_another_order_give_the_same_zones() -> None:
    turned = person_zones(
        head().labels.transpose(2, 0, 1)[::-1],
        head().template.transpose(2, 0, 1)[::-1],
        head().brain.transpose(2, 0, 1)[::-1],
        MARS,
    ).labels
    assert np.mean(turned[::-1].transpose(1, 2, 0) != mars()) < 1e-3


def test_the_border_is_the_distance_from_the_persons_own_ventricles() -> None:
    distance = ndimage.distance_transform_edt(~np.isin(head().labels, (4, 43)))
    sizes = []
    for border in (2.0, 5.0, 10.0):
        labels = zones(replace(MARS, border_mm=border)).labels
        deep = np.isin(labels, (DEEP, DEEP + RIGHT_OFFSET))
        assert distance[deep].max() <= border
        sizes.append(int(deep.sum()))
        core = np.isin(head().labels, (2, 41)) & (head().template == code("core white matter"))
        beyond = core & (distance > border)
        assert not deep[beyond].any()
    assert sizes[0] < sizes[1] < sizes[2]


def test_the_border_of_bombs_is_the_distance_from_cortex() -> None:
    cortex = np.isin(zones(BOMBS).labels % RIGHT_OFFSET, (1,))
    wide = zones(replace(BOMBS, border_mm=4.0)).labels % RIGHT_OFFSET == 1
    assert cortex.sum() < wide.sum() and wide[cortex & head().brain].all()
    grey = (head().labels > 1000) | (head().labels == 0)
    assert ndimage.distance_transform_edt(~grey)[wide].max() <= 4.0


def test_without_the_template_nuclei_still_have_their_capsules() -> None:
    bare = np.zeros_like(head().template)
    labels = person_zones(head().labels, bare, head().brain, MARS).labels
    assert labels[head().at(11, -3, 0)] == INDEX["internal capsule"] + RIGHT_OFFSET
    assert labels[head().at(-20.5, 0, 0)] == INDEX["external capsule"]


def test_a_capsule_of_the_template_counts_near_nuclei_alone() -> None:
    shifted = head().template.copy()
    everywhere = np.isin(head().labels, (2, 41))
    shifted[everywhere] = code("internal capsule")
    labels = person_zones(head().labels, shifted, head().brain, MARS).labels
    capsule = labels % RIGHT_OFFSET == INDEX["internal capsule"]
    nuclei = np.isin(head().labels, (10, 49, 11, 50, 12, 51))
    assert capsule.any()
    assert ndimage.distance_transform_edt(~nuclei)[capsule].max() <= 8.0


def test_the_ventral_diencephalon_follows_the_template() -> None:
    inside = np.isin(head().labels, (28, 60))
    assert set(mars()[inside] % RIGHT_OFFSET) == {INDEX["basal ganglia"]}
    template = np.where(inside, code("peduncle"), head().template).astype(np.uint8)
    labels = person_zones(head().labels, template, head().brain, MARS).labels
    assert set(labels[inside] % RIGHT_OFFSET) == {INDEX["brainstem"]}


def test_cortex_without_gyri_takes_the_lobes_of_the_template() -> None:
    aseg, template = head().labels.copy(), head().template.copy()
    for first, plain in ((1000, 3), (2000, 42)):
        aseg[(aseg >= first) & (aseg < first + 36)] = plain
    template[head().y < -20] = code("occipital")
    labels = person_zones(aseg, template, head().brain, MARS).labels
    assert labels[head().at(20, 26, 3)] == INDEX["frontal"] + RIGHT_OFFSET
    assert labels[head().at(-5, -34, 3)] == INDEX["occipital"]


def test_a_label_that_nobody_knows_is_named_and_filled() -> None:
    odd = head().labels.copy()
    where = np.zeros(odd.shape, bool)
    where[head().at(10, 24, 3)] = True
    odd[where] = 7777
    found = person_zones(odd, head().template, head().brain, MARS)
    assert found.unknown == (7777,)
    assert np.array_equal(found.labels, mars())


def test_labels_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="not those of FreeSurfer, such as 500"):
        person_zones(np.where(head().labels > 0, 500, 0), head().template, head().brain, MARS)
    with pytest.raises(ValueError, match="FreeSurfer"):
        person_zones(np.zeros_like(head().labels), head().template, head().brain, MARS)
    with pytest.raises(ValueError, match="grid"):
        person_zones(head().labels[1:], head().template, head().brain, MARS)
