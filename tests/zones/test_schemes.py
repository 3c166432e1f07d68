"""Zone schemes, patterns and burden classes, and the packaged atlases as anatomy."""

from __future__ import annotations

import csv
import dataclasses
import io
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmbprep.errors import UsageError
from cmbprep.lesions import Lesion
from cmbprep.templates import load_template
from cmbprep.zones.burden import BURDEN_SCALES, BurdenScale, Pattern, has_cerebellar, pattern
from cmbprep.zones.parcellation import TISSUES, Parcellation
from cmbprep.zones.schemes import (
    BOMBS,
    CEREBELLUM,
    MARS,
    RIGHT_OFFSET,
    SCHEMES,
    VENTRICLE_INDEX,
    Region,
    Scheme,
    format_regions,
    get_scheme,
)

INDEX = {name: index for index, name in enumerate(MARS.region_names, start=1)}


# --- schemes -----------------------------------------------------------------------------


def test_mars_has_the_thirteen_regions_of_the_scale() -> None:
    by_zone = {
        zone: [name for name in MARS.region_names if MARS.zone_of(name) == zone]
        for zone in ("lobar", "deep", "infratentorial")
    }
    assert [len(names) for names in by_zone.values()] == [5, 6, 2]
    assert by_zone["infratentorial"] == ["brainstem", "cerebellum"]
    assert "corpus callosum" in by_zone["deep"]


def test_bombs_counts_all_white_matter_outside_the_capsules_as_lobar() -> None:
    assert len(BOMBS.region_names) == 7
    assert BOMBS.zone_of("subcortical white matter") == "lobar"
    with pytest.raises(KeyError):
        BOMBS.zone_of("corpus callosum")


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_left_and_right_indices_are_a_fixed_step_apart(scheme: Scheme) -> None:
    for region in scheme.regions:
        if region.hemisphere == "left":
            other = scheme.by_index[region.index + RIGHT_OFFSET]
            assert (other.name, other.hemisphere) == (region.name, "right")
    assert scheme.by_index[VENTRICLE_INDEX].zone is None


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_table_is_a_bids_label_table(scheme: Scheme) -> None:
    rows = list(csv.DictReader(io.StringIO(format_regions(scheme)), delimiter="\t"))
    assert [int(row["index"]) for row in rows] == [r.index for r in scheme.regions]
    assert len({row["name"] for row in rows}) == len(rows)
    assert rows[-1]["zone"] == "n/a"


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_colours_of_a_zone_differ_in_lightness(scheme: Scheme) -> None:
    """Regions of one family of hues are told apart without seeing hue."""
    for zone in ("lobar", "deep", "infratentorial"):
        values = sorted(
            luminance(r.colour) for r in scheme.regions if r.zone == zone and r.hemisphere == "left"
        )
        assert min(np.diff(values)) > 0.03, zone


def test_scheme_checks_itself() -> None:
    with pytest.raises(ValueError, match="left and right"):
        dataclasses.replace(MARS, regions=MARS.regions[1:])
    with pytest.raises(ValueError, match="same index"):
        dataclasses.replace(MARS, regions=(MARS.regions[0], *MARS.regions))
    with pytest.raises(ValueError, match="order"):
        dataclasses.replace(MARS, regions=MARS.regions[::-1])
    with pytest.raises(ValueError, match="zone"):
        dataclasses.replace(MARS, regions=MARS.regions[:-1])
    with pytest.raises(ValueError, match="positive"):
        dataclasses.replace(MARS, border_mm=0)
    with pytest.raises(ValueError, match="entity"):
        dataclasses.replace(MARS, name="MARS-2")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 0),
        ("index", 256),
        ("name", ""),
        ("zone", "cortical"),
        ("hemisphere", "midline"),
        ("hemisphere", None),
        ("colour", "red"),
    ],
)
def test_region_checks_itself(field: str, value: object) -> None:
    good = MARS.regions[0]
    assert isinstance(good, Region)
    with pytest.raises(ValueError, match="region"):
        dataclasses.replace(good, **{field: value})  # type: ignore[arg-type]


def test_get_scheme() -> None:
    assert get_scheme("MARS") is MARS and get_scheme("bombs") is BOMBS
    with pytest.raises(UsageError, match="mars, bombs"):
        get_scheme("lobes")


# --- patterns and burden -----------------------------------------------------------------


def at(zone: str | None, region: str | None = None, susceptibility: str = "unknown") -> Lesion:
    return Lesion(
        index=1,
        name="CMB1",
        x=0.0,
        y=0.0,
        z=0.0,
        volume_mm3=10.0,
        diameter_mm=2.7,
        zone=zone,
        region=region,
        susceptibility=susceptibility,
    )


LOBAR, DEEP = at("lobar", "frontal"), at("deep", "thalamus")
STEM, CEREBELLAR = at("infratentorial", "brainstem"), at("infratentorial", "cerebellum")


@pytest.mark.parametrize(
    ("lesions", "expected"),
    [
        ([], Pattern.NONE),
        ([LOBAR], Pattern.LOBAR),
        ([DEEP], Pattern.DEEP),
        ([STEM], Pattern.DEEP),
        ([DEEP, STEM], Pattern.DEEP),
        ([LOBAR, DEEP], Pattern.MIXED),
        ([LOBAR, STEM], Pattern.MIXED),
        ([CEREBELLAR], Pattern.CEREBELLAR),
        ([LOBAR, CEREBELLAR], Pattern.LOBAR),
        ([STEM, CEREBELLAR], Pattern.DEEP),
        ([at(None)], Pattern.UNDETERMINED),
        # A lesion without a zone, for whatever reason, could be anywhere.
        ([at(None), LOBAR], Pattern.UNDETERMINED),
        ([at(None), DEEP], Pattern.UNDETERMINED),
        ([at(None), CEREBELLAR], Pattern.UNDETERMINED),
        ([at(None, "ventricle"), LOBAR], Pattern.UNDETERMINED),
        ([at(None, "ventricle")], Pattern.UNDETERMINED),
        ([at(None), LOBAR, STEM], Pattern.MIXED),
        ([at(None, susceptibility="diamagnetic"), LOBAR], Pattern.LOBAR),
        # Brainstem or cerebellum.
        ([at("infratentorial")], Pattern.UNDETERMINED),
        ([at("infratentorial"), LOBAR], Pattern.UNDETERMINED),
        ([at("infratentorial"), LOBAR, DEEP], Pattern.MIXED),
        ([at("deep", "basal ganglia", "diamagnetic")], Pattern.NONE),
        ([LOBAR, at("deep", "basal ganglia", "diamagnetic")], Pattern.LOBAR),
    ],
)
def test_pattern(lesions: list[Lesion], expected: Pattern) -> None:
    assert pattern(lesions) is expected
    assert pattern(iter(lesions[::-1])) is expected


@pytest.mark.parametrize(
    ("lesions", "uncertain", "expected"),
    [
        ([LOBAR], [LOBAR, CEREBELLAR], Pattern.LOBAR),
        ([LOBAR], [DEEP], Pattern.UNDETERMINED),
        ([CEREBELLAR], [CEREBELLAR], Pattern.CEREBELLAR),
        ([CEREBELLAR], [LOBAR], Pattern.UNDETERMINED),
        ([], [LOBAR], Pattern.UNDETERMINED),
        ([LOBAR], [at(None)], Pattern.UNDETERMINED),
        ([LOBAR, DEEP], [at(None), STEM], Pattern.MIXED),
        ([], [at("deep", "thalamus", "diamagnetic")], Pattern.NONE),
    ],
)
def test_pattern_with_lesions_that_may_not_count(
    lesions: list[Lesion], uncertain: list[Lesion], expected: Pattern
) -> None:
    assert pattern(lesions, uncertain) is expected


@pytest.mark.parametrize(
    ("lesions", "uncertain", "expected"),
    [
        ([LOBAR, CEREBELLAR], [], True),
        ([at(None), CEREBELLAR], [], True),
        ([LOBAR, STEM], [], False),
        ([at("infratentorial", "cerebellum", "diamagnetic")], [], False),
        ([], [], False),
        ([LOBAR, at(None)], [], None),
        ([LOBAR, at("infratentorial")], [], None),
        ([LOBAR, at(None, "ventricle")], [], False),
        ([LOBAR], [CEREBELLAR], None),
        ([LOBAR], [at(None)], None),
        ([LOBAR], [STEM], False),
        ([CEREBELLAR], [at(None)], True),
    ],
)
def test_cerebellar_is_noted_apart(
    lesions: list[Lesion], uncertain: list[Lesion], expected: bool | None
) -> None:
    assert has_cerebellar(lesions, uncertain) is expected


def test_cerebellum_is_a_region_of_every_scheme() -> None:
    assert all(CEREBELLUM in scheme.region_names for scheme in SCHEMES.values())


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("count", {0: "0", 1: "1", 2: "2to4", 4: "2to4", 5: "5ormore", 83: "5ormore"}),
        (
            "prevention",
            {4: "1to4", 5: "5to9", 9: "5to9", 10: "10to19", 19: "10to19", 20: "20ormore"},
        ),
        ("thrombolysis", {0: "0", 1: "1to10", 10: "1to10", 11: "11ormore"}),
        ("caa", {0: "0to1", 1: "0to1", 2: "2to4", 4: "2to4", 5: "5ormore"}),
        ("rdes289", {0: "0", 1: "1to4", 4: "1to4", 5: "5ormore"}),
        ("rdes291", {0: "0", 4: "1to4", 9: "5to9", 10: "10", 11: "11ormore"}),
        ("aria", {0: "0", 1: "1to4", 4: "1to4", 5: "5to9", 9: "5to9", 10: "10ormore"}),
    ],
)
def test_burden_classes(scale: str, expected: dict[int, str]) -> None:
    assert {count: BURDEN_SCALES[scale].classify(count) for count in expected} == expected
    with pytest.raises(ValueError, match="cannot be -1"):
        BURDEN_SCALES[scale].classify(-1)


def test_burden_class_of_a_range() -> None:
    caa = BURDEN_SCALES["caa"]
    assert [caa.classify_range(*numbers) for numbers in ((0, 1), (2, 4), (1, 2), (5, 90))] == [
        "0to1",
        "2to4",
        None,
        "5ormore",
    ]
    with pytest.raises(ValueError, match="from 3 to 2"):
        caa.classify_range(3, 2)


def test_burden_scale_checks_itself() -> None:
    for lower, classes in (((1,), ("1",)), ((0, 5, 5), ("a", "b", "c")), ((0, 1), ("a",))):
        with pytest.raises(ValueError, match="burden scale"):
            BurdenScale(name="x", counts="x", lower=lower, classes=classes, source="x")


# --- the packaged atlases ----------------------------------------------------------------


@cache
def atlas(scheme: str) -> tuple[np.ndarray, np.ndarray]:
    path = load_template().atlas(scheme)
    assert path is not None
    image = nib.Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj), image.affine


@cache
def brain() -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(load_template().brain_mask).dataobj) > 0


def region_at(scheme: str, x: float, y: float, z: float) -> str:
    labels, affine = atlas(scheme)
    voxel = tuple(np.round(np.linalg.inv(affine) @ (x, y, z, 1))[:3].astype(int))
    return SCHEMES[scheme].by_index[int(labels[voxel])].title


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_brain_voxel_has_a_label_and_no_other_voxel_has(scheme: str) -> None:
    labels, _ = atlas(scheme)
    np.testing.assert_array_equal(labels > 0, brain())
    assert set(np.unique(labels)) == {0, *SCHEMES[scheme].by_index}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packaged_table_is_the_scheme(scheme: str) -> None:
    path = load_template().atlas(scheme)
    assert path is not None
    table = path.parent / f"atlas-{SCHEMES[scheme].name}_dseg.tsv"
    assert table.read_text(encoding="utf-8") == format_regions(SCHEMES[scheme])


# Millilitres of tissue, both sides together: wide limits around what is reported for adults
# (lobes with their white matter; the template's brain is a fifth larger than the average one).
VOLUMES = {
    "frontal": (350, 650),
    "parietal": (180, 380),
    "temporal": (180, 360),
    "occipital": (110, 260),
    "insula": (12, 40),
    "basal ganglia": (20, 40),
    "thalamus": (12, 26),
    "internal capsule": (10, 30),
    "external capsule": (4, 16),
    "corpus callosum": (10, 45),
    "deep and periventricular white matter": (25, 110),
    "brainstem": (22, 50),
    "cerebellum": (110, 220),
}


@pytest.mark.parametrize("name", MARS.region_names)
def test_volumes_are_plausible_and_alike_left_and_right(name: str) -> None:
    labels, _ = atlas("mars")
    packed = np.asarray(nib.Nifti1Image.from_filename(load_template().parcellation).dataobj)
    fluid = Parcellation.unpack(packed).tissue == TISSUES.index("fluid")
    tissue = np.where(fluid, 0, labels)
    left, right = ((tissue == INDEX[name] + side).sum() * 1e-3 for side in (0, RIGHT_OFFSET))
    low, high = VOLUMES[name]
    assert low < left + right < high
    # The template is asymmetric; its petalia are within a fifth.
    assert 0.8 < left / right < 1.25


@pytest.mark.parametrize("scheme", SCHEMES)
def test_left_is_left(scheme: str) -> None:
    labels, affine = atlas(scheme)
    x = affine[0, 0] * np.arange(labels.shape[0])[:, None, None] + affine[0, 3]
    sides = {region.index: region.hemisphere for region in SCHEMES[scheme].regions}
    for value, side in sides.items():
        if side is None:
            continue
        across = x[:, 0, 0] * (1 if side == "left" else -1)
        count = (labels == value).sum(axis=(1, 2))
        # The fissure of an asymmetric brain strays from the plane, but not by much.
        assert count[across > 6].sum() == 0, (value, side)
        assert count[across > 2].sum() <= 0.02 * count.sum(), (value, side)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_islands(scheme: str) -> None:
    labels, _ = atlas(scheme)
    boxes = ndimage.find_objects(labels)
    for region in SCHEMES[scheme].regions:
        if region.zone is None:
            continue
        parts, _ = ndimage.label(labels[boxes[region.index - 1]] == region.index)
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.min() >= 100, (region.title, sorted(sizes)[:5])


# Points in the middle of structures, MNI mm, from the plain anatomy of the template.
LANDMARKS = [
    ((36, 40, 20), "frontal"),
    ((40, -10, 50), "frontal"),
    ((30, -55, 55), "parietal"),
    ((50, -35, 40), "parietal"),
    ((6, -60, 45), "parietal"),
    ((58, -20, -15), "temporal"),
    ((40, 5, -35), "temporal"),
    ((28, -20, -14), "temporal"),
    ((10, -92, 0), "occipital"),
    ((35, -85, 5), "occipital"),
    ((8, -80, 22), "occipital"),
    ((38, 4, 0), "insula"),
    ((13, 12, 10), "basal ganglia"),
    ((26, 4, 0), "basal ganglia"),
    ((19, -4, -1), "basal ganglia"),
    ((12, -18, 8), "thalamus"),
    ((22, -12, 10), "internal capsule"),
    ((17, 10, 6), "internal capsule"),
    ((3, 26, 8), "corpus callosum"),
    ((4, -38, 14), "corpus callosum"),
    ((24, -20, 28), "deep and periventricular white matter"),
    ((20, 34, 4), "deep and periventricular white matter"),
    ((28, -40, 46), "parietal"),
    ((4, -26, -32), "brainstem"),
    ((6, -20, -12), "brainstem"),
    ((3, -42, -52), "brainstem"),
    ((25, -65, -40), "cerebellum"),
    ((4, -65, -20), "cerebellum"),
]


@pytest.mark.parametrize(("point", "name"), LANDMARKS)
def test_landmarks(point: tuple[float, float, float], name: str) -> None:
    x, y, z = point
    assert region_at("mars", x, y, z) == f"right {name}"
    assert region_at("mars", -x, y, z) == f"left {name}"


def test_ventricles_are_labelled_apart() -> None:
    for scheme in SCHEMES:
        for point in ((10, 0, 20), (-10, 0, 20), (28, -46, 8), (-28, -46, 8)):
            assert region_at(scheme, *point) == "ventricle"
    labels, _ = atlas("mars")
    assert 15 < (labels == VENTRICLE_INDEX).sum() / 1e3 < 45


@pytest.mark.parametrize("side", [1, -1])
def test_capsules_lie_between_the_nuclei(side: int) -> None:
    """On a line outwards at the level of the thalamus, structures come in their order."""
    row = [region_at("mars", side * x, -12, 6).split(" ", 1)[1] for x in range(6, 46)]
    order = [name for i, name in enumerate(row) if i == 0 or name != row[i - 1]]
    expected = ["thalamus", "internal capsule", "basal ganglia", "external capsule", "insula"]
    at = [order.index(name) for name in expected]
    assert at == sorted(at), order
    assert at[1] == at[0] + 1, order


def test_zones_of_the_schemes_differ_in_deep_white_matter_alone() -> None:
    mars, _ = atlas("mars")
    bombs, _ = atlas("bombs")

    def zone(scheme: Scheme, labels: np.ndarray) -> np.ndarray:
        names = np.array([""] * 256, dtype=object)
        for region in scheme.regions:
            names[region.index] = region.zone or "none"
        return names[labels]

    changed = zone(MARS, mars) != zone(BOMBS, bombs)
    allowed = {"corpus callosum", "deep and periventricular white matter"}
    names = {MARS.by_index[int(value)].name for value in np.unique(mars[changed])}
    assert names == allowed
    white = BOMBS.region_names.index("subcortical white matter") + 1
    # The rest is where the border to the grey-white junction was smoothed.
    assert np.mean(bombs[changed] % RIGHT_OFFSET == white) > 0.98
    left = (mars > 0) & (mars < RIGHT_OFFSET)
    np.testing.assert_array_equal(left, (bombs > 0) & (bombs < RIGHT_OFFSET))


def test_deep_white_matter_keeps_to_its_border() -> None:
    """Beside the bodies and frontal horns, which the template shows, it is near a ventricle."""
    labels, affine = atlas("mars")
    distance = ndimage.distance_transform_edt(labels != VENTRICLE_INDEX)
    y, z = (round(limit - affine[axis, 3]) for axis, limit in ((1, -35), (2, 12)))
    deep = (labels % RIGHT_OFFSET)[:, y:, z:] == INDEX["deep and periventricular white matter"]
    away = distance[:, y:, z:][deep]
    assert away.size > 10_000
    # Smoothing moves the border by a voxel.
    assert np.mean(away > MARS.border_mm + 1.5) < 0.02
    assert np.percentile(away, 95) > MARS.border_mm - 1
