"""Counts are numbers only where they are known; all values here are counted by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cmbprep.group.rows import make_rows
from cmbprep.group.tables import scan_table
from cmbprep.lesions import RATINGS, ZONES, Lesion
from cmbprep.reports.individual import count_rows, write_subject_report
from cmbprep.reports.results import collect_results
from cmbprep.zones.burden import Pattern
from cmbprep.zones.schemes import MARS
from cmbprep.zones.tally import SCALES, UNKNOWN_ZONE, Count, Tally
from tests.reports.outputtree import Tree, make_lesion
from tests.reports.test_individual import Page

NOWHERE: dict[str, Any] = {
    "x_mni": None,
    "y_mni": None,
    "z_mni": None,
    "zone": None,
    "region": None,
    "hemisphere": None,
    "region_fraction": None,
    "boundary_distance_mm": None,
}
OUTSIDE: dict[str, Any] = {"zone": None, "region": None}
VENTRICLE: dict[str, Any] = {"zone": None, "region": "ventricle"}


def tally(*lesions: dict[str, Any]) -> Tally:
    return Tally(tuple(make_lesion(n, **values) for n, values in enumerate(lesions, start=1)))


def test_tally_by_hand() -> None:
    found = tally(
        {"volume_mm3": 10.0},
        {"volume_mm3": 20.0, "rating": "possible", "zone": "deep", "region": "thalamus"},
        {"volume_mm3": 40.0, "susceptibility": "diamagnetic", "zone": "deep"},
        {"volume_mm3": 80.0, **OUTSIDE},
        {"volume_mm3": 5.0, "zone": "infratentorial", "region": "cerebellum"},
    )
    assert (len(found.counted), len(found.definite), len(found.mimics)) == (4, 3, 1)
    assert found.volume_mm3(definite=False) == pytest.approx(115)
    assert found.volume_mm3(definite=True) == pytest.approx(95)
    assert [found.count(zone=zone) for zone in found.zones] == [1, 1, 1, 1]
    assert [found.count(rating=rating) for rating in RATINGS] == [3, 1]
    assert found.pattern is Pattern.UNDETERMINED
    assert found.pattern_of_all is Pattern.MIXED
    assert found.cerebellar is True
    assert found.burden("count") == "2to4"
    assert found.burden("caa") is None
    assert found.burden_bounds("caa") == (1, 2)
    assert found.regions == (
        ("lobar", "frontal", 1, 1),
        ("deep", "thalamus", 0, 1),
        ("infratentorial", "cerebellum", 1, 1),
        ("zone unknown", "region unknown", 1, 1),
    )


def test_no_lesion_is_zero_of_everything() -> None:
    found = tally()
    assert [found.count(zone=zone, rating=r) for zone, r in product(ZONES, RATINGS)] == [0] * 6
    assert found.zones == ZONES
    assert (found.pattern, found.cerebellar, found.near_boundary()) == (Pattern.NONE, False, 0)
    assert [found.burden(scale) for scale in SCALES] == ["0", "0", "0", "0to1", "0"]
    assert found.regions == ()


@pytest.mark.parametrize(
    ("place", "lobar", "frontal", "caa"),
    [
        ({}, 2, 2, "2to4"),
        (VENTRICLE, 1, 1, None),
        (OUTSIDE, 1, 1, None),
        (NOWHERE, None, None, None),
        ({"zone": "lobar", "region": None}, 2, None, "2to4"),
        ({"zone": "deep", "region": None}, 1, None, "0to1"),
    ],
)
def test_a_second_lesion_by_what_is_known_of_its_place(
    place: dict[str, Any], lobar: int | None, frontal: int | None, caa: str | None
) -> None:
    found = tally({}, place)
    assert (len(found.counted), found.count(rating="definite")) == (2, 2)
    assert found.count(zone="lobar") == lobar
    assert found.count(region="frontal") == frontal
    assert found.burden("caa") == caa
    assert found.burden("count") == "2to4"


def test_a_lesion_without_a_zone_is_counted_as_such() -> None:
    found = tally({}, VENTRICLE, OUTSIDE, NOWHERE)
    assert found.count(zone=UNKNOWN_ZONE) == 3
    assert found.zones == (*ZONES, UNKNOWN_ZONE)
    assert len(found.unplaced) == 1


def test_counts_of_a_rating_ask_only_lesions_of_that_rating() -> None:
    found = tally({}, {"rating": "possible", **NOWHERE})
    assert found.count(zone="lobar", rating="definite") == 1
    assert found.count(zone="lobar", rating="possible") is None
    assert found.count(zone="lobar") is None
    assert found.bounds(zone="lobar") == (1, 2)
    assert (found.pattern, found.pattern_of_all) == (Pattern.LOBAR, Pattern.UNDETERMINED)
    assert (found.burden("caa"), found.burden("caa", definite=False)) == ("0to1", None)


def test_without_a_rating() -> None:
    found = tally({}, {"rating": None, "zone": "deep", "region": "thalamus"})
    assert [found.count(rating=rating) for rating in (None, *RATINGS)] == [2, None, None]
    assert found.count(zone="lobar", rating="definite") == 1
    assert found.count(zone="deep", rating="definite") is None
    assert found.volume_mm3(definite=True) is None
    assert (found.pattern, found.pattern_of_all) == (Pattern.UNDETERMINED, Pattern.MIXED)
    assert (found.burden("count"), found.burden("thrombolysis")) == (None, "1to10")


@pytest.mark.parametrize("lesion", [NOWHERE, {"rating": None}, OUTSIDE])
def test_a_mimic_makes_nothing_unknown(lesion: dict[str, Any]) -> None:
    found = tally({}, {**lesion, "susceptibility": "diamagnetic"})
    assert [found.count(zone=zone) for zone in ZONES] == [1, 0, 0]
    assert [found.count(rating=rating) for rating in RATINGS] == [1, 0]
    assert found.pattern is Pattern.LOBAR
    assert found.burden("caa") == "0to1"


def possible_tallies(lesions: tuple[Lesion, ...]) -> list[Tally]:
    """Return the lesions with every combination of values for unknown ratings and zones."""
    choices = []
    for item in lesions:
        ratings = RATINGS if item.rating is None else (item.rating,)
        places = [(item.zone, item.region)]
        if item.zone is None:
            places = [
                ("lobar", "frontal"),
                ("deep", "thalamus"),
                ("infratentorial", "brainstem"),
                ("infratentorial", "cerebellum"),
            ]
        choices.append(
            [
                make_lesion(item.index, rating=rating, zone=zone, region=region)
                for rating, (zone, region) in product(ratings, places)
            ]
        )
    return [Tally(chosen) for chosen in product(*choices)]


PLACES = [(str(MARS.zone_of(name)), name) for name in ("frontal", "thalamus", "cerebellum")]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_told_holds_whatever_the_unknown_values_are(seed: int) -> None:
    import random

    draw = random.Random(seed)
    lesions = []
    for index in range(1, 5):
        zone, region = draw.choice(PLACES)
        values: dict[str, Any] = {"zone": zone, "region": region}
        if draw.random() < 0.4:
            values = dict(NOWHERE)
        rating = draw.choice([*RATINGS, "definite", None])
        lesions.append(make_lesion(index, rating=rating, **values))
    told, cases = Tally(tuple(lesions)), possible_tallies(tuple(lesions))
    wanted = tuple(
        Count(rating, zone, region, side)
        for rating in (None, *RATINGS)
        for zone, region in (*((z, None) for z in (None, UNKNOWN_ZONE, *ZONES)), *PLACES)
        for side in (None, "left")
    )
    for tally in (told, replace(told, unseen=frozenset({"deep"}))):
        assert tally.count_all(wanted) == [tally.count(**what._asdict()) for what in wanted]
    for zone, rating in product((None, *ZONES), (None, *RATINGS)):
        values = {case.count(zone=zone, rating=rating) for case in cases}
        expected = values.pop() if len(values) == 1 else None
        assert told.count(zone=zone, rating=rating) == expected
    for name in ("pattern", "pattern_of_all"):
        patterns = {getattr(case, name) for case in cases}
        expected = patterns.pop() if len(patterns) == 1 else Pattern.UNDETERMINED
        assert getattr(told, name) is expected
    cerebellar = {case.cerebellar for case in cases}
    assert told.cerebellar == (cerebellar.pop() if len(cerebellar) == 1 else None)
    for scale, definite in product(SCALES, (True, False)):
        classes = {case.burden(scale, definite=definite) for case in cases}
        expected = classes.pop() if len(classes) == 1 else None
        assert told.burden(scale, definite=definite) == expected


def test_the_report_says_what_is_not_known(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("sub-1_T2starw", [make_lesion(1), make_lesion(2, **NOWHERE)])
    text = write_subject_report(tree.finish(), "1").read_text()
    page = Page(text)
    tiles = text[text.index('class="tiles"') : text.index("</article>")]
    assert "<b>2</b><span>definite microbleeds</span>" in tiles
    for zone in ZONES:
        assert f"<b>n/a<small> + 0</small></b><span>{zone}</span>" in tiles
    assert "<b>1<small> + 0</small></b><span>zone unknown</span>" in tiles
    assert "undetermined" in tiles
    assert "cerebellum unknown" in tiles
    assert "1 lesion was not compared with the zone atlas" in page.text
    assert "as far as it is known" in page.text
    burden = text[text.index("Burden classes") :]
    lobar = burden[burden.index("lobar microbleeds") :]
    assert lobar.split("<td>")[1].startswith("n/a")


def test_the_report_says_that_ratings_are_missing(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("sub-1_T2starw", [make_lesion(1, rating=None)])
    text = write_subject_report(tree.finish(), "1").read_text()
    assert "<b>n/a</b><span>definite microbleeds</span>" in text
    assert "<b>n/a</b><span>possible</span>" in text
    assert "1 lesion has no rating" in Page(text).text


def test_a_damaged_table_is_no_count_in_the_report(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    table = tree.add("sub-1_T2starw", [make_lesion(1)]).path("table")
    table.write_text(table.read_text().splitlines()[0] + "\n")
    text = write_subject_report(tree.finish(), "1").read_text()
    page = Page(text)
    assert "No result" in page.text
    assert "0 rows and its label image has 1 label" in page.text
    assert 'class="tiles"' not in text


def test_the_report_has_no_count_where_a_zone_is_partly_seen() -> None:
    lobar = make_lesion(1, zone="lobar", region="frontal", rating="definite")
    deep = make_lesion(2, zone="deep", region="thalamus", rating="possible")
    slab = frozenset({"infratentorial", "deep"})
    for lesions in ((lobar,), (lobar, deep)):
        rows = {row[0]: row[1:] for row in count_rows(Tally(lesions, unseen=slab))}
        assert rows["lobar"] == (1, 0, 1, lobar.volume_mm3)
        for zone in ("deep", "infratentorial", "all"):
            assert rows[zone] == (None,) * 4


@pytest.mark.parametrize("partly", [(), ("infratentorial",), ("lobar", "deep"), ZONES])
def test_report_and_group_table_have_the_same_numbers(
    tmp_path: Path, partly: tuple[str, ...]
) -> None:
    tree = Tree(tmp_path)
    places = [
        ("lobar", "frontal"),
        ("infratentorial", "cerebellum"),
        ("infratentorial", "brainstem"),
    ]
    lesions = [
        make_lesion(number, zone=zone, region=region, rating=rating)
        for number, ((zone, region), rating) in enumerate(product(places, RATINGS), 1)
    ]
    coverage: dict[str, float | None] = {zone: 0.55 if zone in partly else 1.0 for zone in ZONES}
    tree.add("sub-1_T2starw", lesions, coverage=coverage)
    subjects = collect_results(tree.finish())
    (known,) = scan_table(make_rows(subjects)).values
    tally = Tally(lesions=tuple(lesions), unseen=subjects[0].scans[0].unseen)
    for name, definite, possible, all_of_it, volume in count_rows(tally):
        end = "" if name == "all" else f"_{name}"
        assert (definite, all_of_it) == (known[f"n_definite{end}"], known[f"n_any{end}"])
        assert (possible is None) == (all_of_it is None) == (volume is None)
        if name == "all":
            assert (possible, volume) == (known["n_possible"], known["volume_any_mm3"])
            assert (volume is None) == bool(partly)


def test_the_page_says_what_is_listed_where_a_zone_is_partly_seen(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    lesions = [
        make_lesion(n, zone="infratentorial", region="cerebellum", rating=rating)
        for n, rating in enumerate(("definite", "definite", "possible"), 1)
    ]
    seen: dict[str, float | None] = {"lobar": 1.0, "deep": 1.0, "infratentorial": 0.21}
    tree.add("sub-1_T2starw", lesions, coverage=seen)
    text = write_subject_report(tree.finish(), "1").read_text()
    tiles = text[text.index('class="tiles"') : text.index("</article>")]
    assert "<b>n/a</b><span>definite microbleeds</span>" in tiles
    assert "<b>0<small> + 0</small></b><span>lobar</span>" in tiles
    assert "<b>n/a<small> + n/a</small></b><span>infratentorial</span>" in tiles
    assert "2 definite and 1 possible microbleeds are listed on this scan" in Page(text).text
