"""The group tables: fixed columns, every count recounted, and what is not known."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmbprep.group import run_group
from cmbprep.lesions import HEMISPHERES, ZONES, Lesion
from cmbprep.zones.schemes import SCHEMES
from tests.group.cohort import UNPLACED, cohort, read
from tests.reports.outputtree import Tree, make_lesion
from tests.reports.test_individual import Page

pytestmark = pytest.mark.usefixtures("quick")

DEEP: dict[str, Any] = {"zone": "deep", "region": "thalamus"}
STEM: dict[str, Any] = {"zone": "infratentorial", "region": "brainstem"}
CEREBELLAR: dict[str, Any] = {"zone": "infratentorial", "region": "cerebellum"}
#: What a slab through the upper half of the brain shows.
SLAB = {"lobar": 0.55, "deep": 0.9, "infratentorial": 0.0}


def row_of(
    tree: Tree, lesions: list[Lesion], *, rule: str = "boston", **scan: Any
) -> dict[str, str]:
    tree.add("sub-1_T2starw", lesions, **scan)
    result = run_group(tree.finish(), participants_tsv=None, pattern_rule=rule)
    (row,) = read(result.scans)
    return row


def values(row: dict[str, str], names: str) -> list[str]:
    return [row[name] for name in names.split()]


def test_columns_do_not_depend_on_the_dataset(tree: Tree, tmp_path: Path) -> None:
    """Tables of two sites have the same columns and dictionaries, so that they can be bound."""
    other = Tree(tmp_path / "other")
    lesion = make_lesion(1, region="subcortical white matter")
    other.add("sub-9_ce-gd_run-1_swi", [lesion], scheme="BOMBS", quality={"coverage_mm": 120.0})
    participants = tmp_path / "participants.tsv"
    participants.write_text("participant_id\tsite\tsmoker\nsub-9\tB\tyes\n")
    one = run_group(cohort(tree), participants_tsv=None)
    two = run_group(other.finish(), participants_tsv=participants)
    for name in ("group_cmb", "group_lesions"):
        first, second = (result.tables[name] for result in (one, two))
        assert list(read(first)[0]) == list(read(second)[0])
        dictionaries = [path.with_suffix(".json").read_bytes() for path in (first, second)]
        assert dictionaries[0] == dictionaries[1]
    (row,) = read(two.scans)
    assert values(row, "ce run site scheme") == ["gd", "1", "B", "BOMBS"]
    assert values(row, "n_any_subcortical_white_matter_left n_any_frontal_left") == ["1", "n/a"]
    assert values(row, "n_any_thalamus_left n_any_cerebellum") == ["0", "0"], "in both schemes"


def drawn_lesions(draw: random.Random, scheme: str) -> Iterator[Lesion]:
    known = SCHEMES[scheme.lower()]
    for index in range(1, draw.randrange(12)):
        region = draw.choice(known.region_names)
        yield make_lesion(
            index,
            zone=known.zone_of(region),
            region=region,
            hemisphere=draw.choice(HEMISPHERES),
            rating=draw.choice(("definite", "possible")),
            susceptibility=draw.choice(("unknown", "paramagnetic", "diamagnetic")),
            boundary=draw.random() < 0.3,
        )


#: How the tables name a count: rating, and then a zone, a region, a region and a side, or nothing.
_COUNT = re.compile(r"n_(definite|any)(?:_(.+?))?(?:_(left|right|midline))?")
_LIMITS = {
    "count": (1, 2, 5),
    "prevention": (1, 5, 10, 20),
    "thrombolysis": (1, 11),
    "caa": (2, 5),
    "rdes289": (1, 5),
}


def recount(name: str, rows: list[dict[str, str]]) -> int | None:
    """Count lesions for a column from its name alone; None for a column of another kind."""
    match = _COUNT.fullmatch(name)
    if match is None:
        return None
    rating, place, side = match.groups()
    kept = [row for row in rows if rating == "any" or row["rating"] == "definite"]
    if side is not None:
        kept = [row for row in kept if row["hemisphere"] == side]
    if place == "boundary":
        return sum(row["boundary"] == "true" for row in kept)
    if place == "zone_unknown":
        return sum(row["zone"] == "n/a" for row in kept)
    if place in ZONES:
        return sum(row["zone"] == place for row in kept)
    if place is not None:
        regions = [row["region"].replace(" ", "_").replace("-", "_") for row in kept]
        return regions.count(place)
    return len(kept)


def test_every_count_is_that_of_the_lesions_listed(tree: Tree) -> None:
    draw = random.Random(7)
    schemes = {f"sub-{n}_T2starw": draw.choice(("MARS", "BOMBS")) for n in range(24)}
    for name, scheme in schemes.items():
        tree.add(name, list(drawn_lesions(draw, scheme)), scheme=scheme)
    result = run_group(tree.finish(), participants_tsv=None)
    listed = [row for row in read(result.lesions) if row["susceptibility"] != "diamagnetic"]
    assert listed and [row["counted"] for row in listed] == ["true"] * len(listed)
    checked = set()
    for row in read(result.scans):
        own = [lesion for lesion in listed if lesion["scan"] == row["scan"]]
        for name, value in row.items():
            wanted = recount(name, own)
            if wanted is None or value == "n/a":
                continue
            checked.add(name)
            assert int(value) == wanted, (row["scan"], name)
        for rating in ("definite", "any"):
            kept = [x for x in own if rating == "any" or x["rating"] == "definite"]
            volume = sum(float(lesion["volume_mm3"]) for lesion in kept)
            assert float(row[f"volume_{rating}_mm3"]) == pytest.approx(volume)
            assert row[f"n_automatic_{rating}"] == row[f"n_{rating}"] == str(len(kept))
            for scale, limits in _LIMITS.items():
                number = sum(x["zone"] == "lobar" for x in kept) if scale == "caa" else len(kept)
                levels = list(dictionary(result.scans)[f"burden_{scale}_{rating}"]["Levels"])
                assert row[f"burden_{scale}_{rating}"] == levels[sum(number >= x for x in limits)]
    regions = {name for scheme in SCHEMES.values() for name in scheme.region_names}
    assert len(checked) == 2 * (1 + 3 + 2 + 2 + 3 * len(regions)), "no count was left out"


def test_counts_pooled_by_site_are_those_of_the_lesion_tables(tree: Tree, tmp_path: Path) -> None:
    """Two sites in one dataset; a third has a scan that failed, and one person has no site."""
    draw = random.Random(3)
    sites = {str(n): draw.choice("AB") for n in range(1, 13)} | {"13": "C", "14": None}
    for subject in sites:
        if subject == "13":
            tree.fail("sub-13_T2starw", "it broke")
        else:
            tree.add(f"sub-{subject}_T2starw", list(drawn_lesions(draw, "MARS")))
    table = tmp_path / "participants.tsv"
    table.write_text(
        "participant_id\tsite\n"
        + "".join(f"sub-{subject}\t{site}\n" for subject, site in sites.items() if site)
    )
    result = run_group(tree.finish(), participants_tsv=table)
    rows, persons = read(result.scans), read(result.tables["group_participants"])
    assert {row["site"] for row in rows} == {"A", "B", "C", "n/a"}
    places = ["", *(f"_{zone}" for zone in ZONES), "_frontal_left", "_thalamus_right"]
    names = [f"n_{rating}{place}" for rating in ("definite", "any") for place in places]
    for site in ("A", "B", "n/a"):
        own = [subject for subject in sites if (sites[subject] or "n/a") == site]
        # From the tables of the participant level alone.
        files = [path for s in own for path in tree.root.glob(f"sub-{s}/anat/*_dseg.tsv")]
        lesions = [lesion for path in files for lesion in read(path)]
        lesions = [x for x in lesions if x["susceptibility"] != "diamagnetic"]
        assert len(files) == len(own) and lesions
        for name in names:
            for table_rows in (rows, persons):
                pooled = sum(int(row[name]) for row in table_rows if row["site"] == site)
                assert pooled == recount(name, lesions), (site, name)
        scans = {f"sub-{subject}_T2starw" for subject in own}
        listed = [lesion for lesion in read(result.lesions) if lesion["scan"] in scans]
        assert sum(lesion["counted"] == "true" for lesion in listed) == len(lesions)
    (failed,) = (row for row in rows if row["site"] == "C")
    assert [failed[name] for name in names] == ["n/a"] * len(names)


def dictionary(table: Path) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(table.with_suffix(".json").read_text())
    return content


def test_levels_look_like_no_date_and_no_formula(tree: Tree) -> None:
    result = run_group(cohort(tree), participants_tsv=None)
    levels = {
        level
        for table in result.tables.values()
        for entry in dictionary(table).values()
        for level in entry.get("Levels", ())
    }
    assert {"2to4", "5ormore", "strictly lobar", "true"} <= levels
    wrong = [x for x in levels if re.match(r"[=+@<>-]|\d+[-/.]\d+", x) or x != x.strip()]
    assert wrong == []


def test_values_with_levels_are_levels(tree: Tree) -> None:
    result = run_group(cohort(tree), participants_tsv=None)
    for table in result.tables.values():
        for name, entry in dictionary(table).items():
            if "Levels" in entry:
                found = {row[name] for row in read(table)}
                assert found <= {*entry["Levels"], "n/a"}, name


@pytest.mark.parametrize(
    ("rule", "lesions", "pattern"),
    [
        ("boston", [CEREBELLAR], "cerebellar only"),
        ("deep", [CEREBELLAR], "strictly deep"),
        ("boston", [{}, CEREBELLAR], "strictly lobar"),
        ("deep", [{}, CEREBELLAR], "mixed"),
        ("boston", [DEEP, CEREBELLAR], "strictly deep"),
        ("deep", [DEEP, CEREBELLAR], "strictly deep"),
        ("boston", [{}, STEM], "mixed"),
        ("deep", [{}, STEM], "mixed"),
        ("deep", [], "none"),
        ("deep", [{}, UNPLACED], "undetermined"),
        ("deep", [{}, CEREBELLAR, UNPLACED], "mixed"),
    ],
)
def test_the_rule_of_the_pattern_is_named_everywhere(
    tree: Tree, rule: str, lesions: list[dict[str, Any]], pattern: str
) -> None:
    made = [make_lesion(number, **place) for number, place in enumerate(lesions, 1)]
    row = row_of(tree, made, rule=rule)
    assert values(row, "pattern_definite pattern_automatic_definite") == [pattern, pattern]
    assert row["pattern_rule"] == rule
    described = dictionary(tree.root / "group_cmb.tsv")["pattern_definite"]["Description"]
    page = Page((tree.root / "group.html").read_text()).text
    assert f"by the rule {rule}." in described and f"by the rule {rule}." in page
    if len(lesions) and UNPLACED not in lesions:
        cerebellar = "true" if CEREBELLAR in lesions else "false"
        assert row["cerebellar_definite"] == cerebellar, "the rule is of the pattern alone"


def test_a_slab_has_counts_of_what_it_shows(tree: Tree) -> None:
    row = row_of(tree, [make_lesion(1), make_lesion(2, **DEEP)], coverage=SLAB)
    known = "coverage_lobar n_definite_deep n_any_deep n_any_thalamus_left n_listed_any"
    assert values(row, known) == ["0.55", "1", "1", "1", "2"]
    assert values(row, "n_definite_basal_ganglia_right n_listed_definite") == ["0", "2"]
    unknown = (
        "n_definite n_any n_possible n_any_lobar n_any_infratentorial n_any_frontal_left "
        "n_any_cerebellum n_definite_brainstem n_any_zone_unknown n_any_boundary volume_any_mm3 "
        "volume_definite_mm3 cerebellar_any burden_count_any burden_caa_any n_automatic_any "
        "n_automatic_definite_lobar volume_automatic_any_mm3"
    )
    assert {name for name in unknown.split() if row[name] != "n/a"} == set()
    assert row["pattern_definite"] == "mixed", "more microbleeds could not change it"


@pytest.mark.parametrize(
    ("unseen", "lesions", "pattern", "count"),
    [
        (("infratentorial",), [DEEP], "strictly deep", None),
        (("infratentorial",), [{}], "undetermined", None),
        (("infratentorial",), [], "undetermined", None),
        (("lobar",), [DEEP], "undetermined", None),
        (("deep",), [{}] * 5, "undetermined", "5ormore"),
        ((), [], "none", "0"),
    ],
)
def test_a_zone_that_is_not_seen_leaves_what_it_could_not_change(
    tree: Tree,
    unseen: tuple[str, ...],
    lesions: list[dict[str, Any]],
    pattern: str,
    count: str | None,
) -> None:
    coverage = {zone: 0.79 if zone in unseen else 0.8 for zone in ZONES}
    made = [make_lesion(number, **place) for number, place in enumerate(lesions, 1)]
    row = row_of(tree, made, coverage=coverage)
    assert values(row, "pattern_definite burden_count_definite") == [pattern, count or "n/a"]


@pytest.mark.parametrize(
    ("quality", "known"),
    [
        ({"t1w_registration": {"overlap": 0.98, "verdict": "ok"}}, True),
        ({"t1w_registration": {"overlap": 0.7, "verdict": "doubtful"}}, False),
        ({"template_registration": {"overlap": 1.0, "verdict": "failed"}}, False),
        (
            {
                "t1w_registration": {"overlap": 0.0, "verdict": "failed"},
                "template_registration": {"overlap": 0.9, "verdict": "ok"},
            },
            True,
        ),
        ({"snr": 20.0}, False),
    ],
)
def test_without_coverage_the_registration_says_whether_all_was_seen(
    tree: Tree, quality: dict[str, Any], known: bool
) -> None:
    row = row_of(tree, [make_lesion(1)], coverage={}, quality=quality)
    assert row["coverage_lobar"] == "n/a"
    assert values(row, "n_any n_any_lobar n_listed_any") == (
        ["1"] * 3 if known else ["n/a", "n/a", "1"]
    )


def test_a_side_that_is_not_known_leaves_the_region(tree: Tree) -> None:
    row = row_of(tree, [make_lesion(1, hemisphere=None, **STEM), make_lesion(2)])
    assert values(row, "n_any_brainstem n_any_infratentorial") == ["1", "1"]
    assert values(row, "n_any_brainstem_left n_any_frontal_left n_any_frontal_right") == [
        "n/a",
        "1",
        "0",
    ]


def test_every_lesion_has_the_settings_that_made_it(tree: Tree) -> None:
    made = {
        "detector": "learned",
        "detector_parameters": {"version": "5", "threshold": 0.6},
        "threshold": None,
        "border_mm": 8.0,
        "zones": "segmentation",
    }
    tree.add("sub-1_T2starw", [make_lesion(1)], parameters=made)
    tree.add("sub-2_T2starw", [make_lesion(1)])
    result = run_group(tree.finish(), participants_tsv=None)
    names = "scheme border_mm zone_source detector detector_version threshold cmbprep_version"
    first, second = (values(row, names) for row in read(result.lesions))
    assert first == ["MARS", "8", "segmentation", "learned", "5", "0.6", "1.2.3"]
    assert second == ["MARS", "n/a", "atlas", "classical", "n/a", "0.35", "1.2.3"]
    assert [values(row, names) for row in read(result.scans)] == [first, second]
