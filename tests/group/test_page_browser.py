"""The group page in a browser: search, brush, table, plots and map show the same scans."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cmbprep.group.cohort import Cohort
from cmbprep.group.followup_page import followup_section
from cmbprep.group.page import render_group_page
from cmbprep.group.tables import Table
from tests.group.made_up import made_up_followup, made_up_map, made_up_tables

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCANS = 130
#: Person with two visits in the made-up cohort.
MARKED = "Array.from(cmb.strips.marked, (row) => cmb.scans.data.scan[row])"
#: What a plot highlights.
POINTS = """(name) => {
    const { data } = cmb.strips.roots.get(`strip-${name}`).renderers[1].data_source;
    const known = (value) => Number.isNaN(value) ? null : value;
    return [Array.from(data.x), Array.from(data[name], known)];
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Table]]:
    """Write the page of a made-up cohort."""
    folder = tmp_path_factory.mktemp("page")
    tables = made_up_tables(SCANS)
    tables["followup"] = made_up_followup(tables)
    first = tables["cmb"].values[0]["participant_id"]
    (folder / f"{first}.html").write_text("a report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cmbprep.group.page_maps.glass_brain", lambda *_: "")
        text = render_group_page(
            Cohort(
                root=folder,
                tables=tables,
                maps=[made_up_map(tables, 4.0)],
                followup=followup_section(tables["followup"], tables["participants"]),
            )
        )
    (folder / "group.html").write_text(text, encoding="utf-8")
    return folder, tables


@pytest.fixture
def page(made: tuple[Path, dict[str, Table]], new_page: Callable[..., Page]) -> Page:
    page = new_page()
    page.goto((made[0] / "group.html").as_uri())
    page.wait_for_selector("body[data-ready=plots]")
    return page


def twice(tables: dict[str, Table]) -> str:
    """Return a person with a result at two visits, and lesions at the first."""
    scans = tables["cmb"].values
    for scan in scans:
        both = [other for other in scans if other["participant_id"] == scan["participant_id"]]
        if len(both) == 2 and all(item.get("n_definite") for item in both):
            return str(scan["participant_id"])
    raise AssertionError("there is nobody with two visits")


def names(page: Page) -> list[str]:
    """Return the scans that the table shows."""
    return page.locator("#table-scans tbody th").all_inner_texts()


def test_one_person_is_marked_everywhere(page: Page, made: tuple[Path, dict[str, Table]]) -> None:
    person = twice(made[1])
    own = [s for s in made[1]["cmb"].values if s["participant_id"] == person]
    page.fill("#search", person)
    assert names(page) == [scan["scan"] for scan in own]
    assert page.evaluate(MARKED) == [scan["scan"] for scan in own]
    here = page.locator("tr.here[data-by=site]").evaluate_all(
        "rows => [...new Set(rows.map((row) => row.dataset.group))]"
    )
    assert here == [own[0]["site"]]
    assert f"{person}: 2 rows" in page.inner_text("#found")
    page.locator("[data-map]").scroll_into_view_if_needed()
    page.wait_for_selector("[data-map][data-ready]")
    marks = page.evaluate("Object.values(cmb.maps)[0].view.marks.length")
    baseline = next(scan for scan in own if scan["is_baseline"])
    assert marks == baseline["n_any"]
    page.click("#clear")
    assert page.evaluate(MARKED) == []
    assert page.locator("tr.here").count() == 0
    assert page.inner_text("#pager .pager-info") == f"Rows 1 to 50 of {SCANS}"


def test_a_plot_highlights_the_chosen_scans_when_it_comes_into_view(
    page: Page, made: tuple[Path, dict[str, Table]]
) -> None:
    plots = page.locator("[data-strip]")
    first, last = (plots.nth(n).get_attribute("data-strip") for n in (0, plots.count() - 1))
    plots.last.scroll_into_view_if_needed()
    page.wait_for_selector(f"[data-strip={last}][data-built]")
    page.fill("#search", twice(made[1]))
    rows = page.evaluate("Array.from(cmb.scans.rows)")
    page.wait_for_function("cmb.strips.marked.length === cmb.scans.rows.length")
    expected = page.evaluate(
        """([rows, names]) => names.map((name) => [cmb.strips.all.x, cmb.strips.all[name]].map(
            (values) => rows.map((row) => Number.isNaN(values[row]) ? null : values[row])))""",
        [rows, [first, last]],
    )
    assert len(rows) == 2 and page.evaluate(POINTS, last) == expected[1]
    assert page.evaluate(POINTS, first) == [[], []], "out of view"
    plots.first.scroll_into_view_if_needed()
    page.wait_for_function(f"!cmb.strips.outdated.has('{first}')")
    assert page.evaluate(POINTS, first) == expected[0]
    page.click("#clear")
    page.wait_for_function("cmb.strips.marked.length === 0")
    assert page.evaluate(POINTS, first) == [[], []]


def test_choices_and_words_narrow_together(page: Page, made: tuple[Path, dict[str, Table]]) -> None:
    page.select_option("select[data-limit=site]", "Boston")
    page.fill("#search", "premier")
    page.select_option("select[data-limit^=pattern]", "strictly lobar")
    expected = [
        scan["scan"]
        for scan in made[1]["cmb"].values
        if scan["site"] == "Boston"
        and scan["ManufacturersModelName"] == "Premier"
        and scan.get("pattern_definite") == "strictly lobar"
    ]
    assert expected and names(page) == expected
    page.fill("#search", "premier nonsense")
    assert names(page) == []
    assert page.inner_text("#found") == "No row has all of this"


def test_failures_are_found_by_their_status(
    page: Page, made: tuple[Path, dict[str, Table]]
) -> None:
    page.select_option("select[data-limit=status]", "failed")
    failed = [s["scan"] for s in made[1]["cmb"].values if s["status"] == "failed"]
    assert failed and names(page) == failed
    cells = page.locator("#table-scans tbody tr").first.locator("td").all_inner_texts()
    assert cells[0] == "failed" and "n/a" in cells


@pytest.mark.parametrize("up", [True, False])
def test_the_heads_sort_all_rows_and_missing_ones_are_last(
    page: Page, made: tuple[Path, dict[str, Table]], up: bool
) -> None:
    head = page.locator("#table-scans thead button", has_text="Volume")
    for _ in range(2 if up else 1):
        head.press("Enter")
    order = "ascending" if up else "descending"
    assert head.locator("xpath=..").get_attribute("aria-sort") == order
    known = [s.get("volume_definite_mm3") for s in made[1]["cmb"].values]
    best = (min if up else max)(value for value in known if value is not None)
    column = page.locator("#table-scans thead button").all_inner_texts().index("Volume (mm³)")
    first = page.locator("#table-scans tbody tr").first.locator("th, td").nth(column)
    assert float(first.inner_text()) == pytest.approx(best, rel=1e-4)
    page.click("#pager [data-turn=last]")
    last = page.locator("#table-scans tbody tr").last.locator("th, td").nth(column)
    assert last.inner_text() == "n/a"


def test_count_chooses_the_microbleeds_everywhere(
    page: Page, made: tuple[Path, dict[str, Table]]
) -> None:
    page.select_option("select[data-set=rating]", "any")
    scans = made[1]["cmb"].values
    column = page.locator("#table-scans thead button").all_inner_texts().index("All")
    shown = page.locator(f"#table-scans tbody tr > :nth-child({column + 1})").all_inner_texts()
    assert shown == [str(s["n_any"]) if s.get("n_any") is not None else "n/a" for s in scans[:50]]
    assert page.locator("table.distribution:visible caption").all_inner_texts() == [
        "People by number of definite or possible microbleeds"
    ]
    page.wait_for_function("cmb.strips.shown === 'site,any'")
    counts = page.evaluate("Array.from(cmb.strips.rows.data.shown_count)")
    assert counts == [s["n_any"] if s.get("n_any") is not None else "n/a" for s in scans]


def test_a_box_in_a_plot_marks_its_scans_in_all_plots_and_the_table(page: Page) -> None:
    plot = page.locator("[data-strip=preproc_snr]")
    plot.scroll_into_view_if_needed()
    page.wait_for_selector("[data-strip=preproc_snr][data-built]")
    page.wait_for_timeout(300)
    box: Any = plot.bounding_box()
    x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] * 0.4, y + box["height"] * 0.3, steps=5)
    page.mouse.up()
    page.wait_for_function("cmb.scans.brush !== null")
    page.wait_for_function(f"{MARKED}.length === cmb.scans.rows.length")
    chosen = page.evaluate("Array.from(cmb.scans.rows, (row) => cmb.scans.data.scan[row])")
    assert 0 < len(chosen) < SCANS
    assert names(page) == chosen[:50]
    assert page.evaluate(MARKED) == chosen
    page.click("#clear")
    assert page.evaluate("cmb.scans.rows.length") == SCANS


def test_a_click_opens_the_report(page: Page, made: tuple[Path, dict[str, Table]]) -> None:
    first = made[1]["cmb"].values[0]
    with page.context.expect_page() as opened:
        page.evaluate("cmb.openReport([0])")
    assert opened.value.url.endswith(f"/{first['participant_id']}.html")
    page.evaluate("cmb.openReport([5])")
    assert "There is no report of" in page.inner_text("#found")
    link = page.locator("#table-scans tbody a").first
    assert link.get_attribute("href") == f"{first['participant_id']}.html"


def test_the_map_says_how_many_people_a_voxel_has(page: Page) -> None:
    page.locator("[data-map]").scroll_into_view_if_needed()
    page.wait_for_selector("[data-map][data-ready]")
    status = page.locator("[data-map] .status")
    peak = page.inner_text("[data-number=map-hottest-definite]")
    assert "people with a definite microbleed" in status.inner_text()
    assert int(status.inner_text().split(": ")[1].split(" of ")[0]) >= int(peak)
    page.locator(".map-people").select_option(label="Boston (" + _people(page, "Boston") + ")")
    page.wait_for_function("Object.values(cmb.maps)[0].choice.label === 'Boston'")
    page.locator(".map-what").select_option("seen")
    page.wait_for_function("Object.values(cmb.maps)[0].top > 0")
    assert page.evaluate("Object.values(cmb.maps)[0].top") == int(_people(page, "Boston"))


def _people(page: Page, label: str) -> str:
    options = page.locator(".map-people option").all_inner_texts()
    return next(text for text in options if text.startswith(label)).split("(")[1].rstrip(")")


@pytest.mark.parametrize("width", [700, 1280])
def test_nothing_is_wider_than_the_window(
    made: tuple[Path, dict[str, Table]], new_page: Callable[..., Page], width: int
) -> None:
    page = new_page(width=width)
    page.goto((made[0] / "group.html").as_uri())
    page.wait_for_selector("body[data-ready=plots]")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_controls_have_names_and_headings_are_in_order(page: Page) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, canvas, svg, [role=img]")]
        .filter((node) => !node.closest("[aria-hidden=true], .bk-Figure, figure.wide"))
        .filter((node) => !(node.labels?.length || node.getAttribute("aria-label") ||
            node.textContent.trim() || node.querySelector("title")))
        .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((node) => Number(node.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert [pair for pair in pairwise(levels) if pair[1] > pair[0] + 1] == []
    heads = page.evaluate(
        "[...document.querySelectorAll('th')].filter((node) => !node.hasAttribute('scope')).length"
    )
    assert heads == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def test_pairs_of_visits_follow_the_search(page: Page, made: tuple[Path, dict[str, Table]]) -> None:
    followed = made[1]["followup"].values
    table = page.locator("#table-pairs")
    table.scroll_into_view_if_needed()
    page.wait_for_selector("#table-pairs[data-ready]")
    assert table.locator("tbody tr").count() == min(50, len(followed))
    line = next(item for item in followed if item["n_new_any"] and item["years_between"])
    person = line["participant_id"]
    page.fill("#search", person)
    page.select_option("select[data-set=rating]", "any")
    page.locator("[data-strip=followup_rate]").scroll_into_view_if_needed()
    page.wait_for_function("() => cmb.strips.inView.has('followup_new')")
    page.wait_for_timeout(300)
    assert table.locator("tbody th").all_inner_texts() == [person]
    cells = table.locator("tbody td").all_inner_texts()
    assert str(line["n_new_any"]) in cells and "baseline to last visit" in cells
    names = page.evaluate(MARKED)
    at = names.index(line["scan_second"])
    _, new = page.evaluate(POINTS, "followup_new")
    _, rate = page.evaluate(POINTS, "followup_rate")
    assert new[at] == pytest.approx(math.log2(1 + line["n_new_any"]))
    assert rate[at] == pytest.approx(line["n_new_any"] / line["years_between"], rel=1e-4)
    assert new[1 - at] is None, "the first visit is no point of follow-up"


def test_the_pairs_are_sorted_by_a_heading(page: Page, made: tuple[Path, dict[str, Table]]) -> None:
    page.wait_for_selector("#table-pairs[data-ready]")
    heads = page.locator("#table-pairs thead tr").nth(1).locator("button")
    titles = heads.all_inner_texts()
    heads.nth(titles.index("Years")).click()
    column = f"#table-pairs tbody td:nth-child({titles.index('Years') + 1})"
    years = [float(text) for text in page.locator(column).all_inner_texts() if text != "n/a"]
    assert years == sorted(years, reverse=True) and len(years) > 5


def test_the_patterns_of_the_map_are_those_of_the_microbleeds_shown(page: Page) -> None:
    box = page.locator("[data-map]")
    box.scroll_into_view_if_needed()
    page.wait_for_selector("[data-map][data-ready]")
    offered = """() => [...document.querySelectorAll('.map-people optgroup')]
        .filter((g) => !g.hidden).map((g) => [g.label, g.dataset.only, g.children.length])"""
    kinds = page.evaluate(offered)
    assert [kind for kind, *_ in kinds] == ["by site", "by pattern"]
    assert kinds[1][1] == "definite"
    chosen = page.locator(".map-people optgroup[data-only=definite] option").first
    label = chosen.inner_text().split(" (")[0]
    page.select_option(".map-people", value=str(chosen.get_attribute("value")))
    page.select_option("select[data-set=rating]", "any")
    page.wait_for_function("() => Object.values(cmb.maps)[0].choice.rating === 'any'")
    assert page.evaluate("Object.values(cmb.maps)[0].choice.label") == label
    assert page.evaluate(offered)[1][1] == "any"
