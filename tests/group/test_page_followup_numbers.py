"""Every number of the follow-up on the group page, recomputed from the tables of the pairs.

Nothing of ``cmbprep.group`` is used below but the command that writes the page.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from contextlib import nullcontext
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, chi2

from cmbprep.followup import step
from cmbprep.group import run_group
from tests.followup.madeup import lesion
from tests.followup.twovisits import add_visit, at, register_by_truth
from tests.group.conftest import ThisProcess
from tests.group.datasets import write_dataset
from tests.group.pages import attributes, packed, rows_of
from tests.reports.outputtree import Tree

POINTS = [(x, y, z) for x in (-24, 0, 24) for y in (-20, 12) for z in (-16, 14)]
RATINGS = ("definite", "any")
NUMBER = 12
#: What is out of the ordinary of these participants.
FAILED, CHANGED, UNDATED, SLAB, THREE = 3, (4, 8), 5, 6, 7


def lesions(random: np.random.Generator, session: str, points: list[Any]) -> list[Any]:
    return [
        lesion(
            n,
            at(session, point),
            rating=str(random.choice(["definite", "possible"])),
            region="frontal",
            boundary_distance_mm=5.0,
        )
        for n, point in enumerate(points, 1)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a cohort with follow-up that was made up at random, and its page."""
    folder = tmp_path_factory.mktemp("followup")
    random = np.random.default_rng(7)
    tree, sessions = Tree(folder / "out"), {}
    for number in range(NUMBER):
        person = f"{number:02d}"
        visits = "abc" if number == THREE else "ab"
        for place, session in enumerate(visits):
            name = f"sub-{person}_ses-{session}_T2starw"
            if number == FAILED and place == 1:
                tree.fail(name, "it broke")
                continue
            own = [point for point in POINTS if random.random() < 0.35]
            more: dict[str, Any] = {}
            if number in CHANGED and place:
                more["acquisition"] = {"EchoTime": 0.03}
            if number == SLAB and place:
                more["coverage"] = {"lobar": 1.0, "deep": 1.0, "infratentorial": 0.1}
            add_visit(tree, session, lesions(random, session, own), name=name, **more)
        if number != UNDATED:
            days = [f"ses-{v}\t{2020 + n}-0{1 + number % 9}-01" for n, v in enumerate(visits)]
            sessions[person] = "session_id\tacq_time\n" + "\n".join(days) + "\n"
    people = "".join(f"sub-{n:02d}\t{'AB'[n % 2]}\n" for n in range(NUMBER))
    raw = write_dataset(
        folder / "raw", participants=f"participant_id\tsite\n{people}", sessions=sessions
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "register_visits", register_by_truth)
        patch.setattr(
            "cmbprep.running.processes.process_pool", lambda _: nullcontext(ThisProcess())
        )
        patch.setattr("cmbprep.group.page_maps.glass_brain", lambda *_: "")
        result = run_group(tree.finish(), participants_tsv=raw / "participants.tsv")
    return tree.root, result.page.read_text()


@pytest.fixture(scope="module")
def counted(made: tuple[Path, str]) -> dict[tuple[str, str, str], Counter[tuple[str, str]]]:
    """Count the lesions of each pair from its own table: status and rating -> number."""
    found = {}
    for path in made[0].rglob("*_desc-followupses*_dseg.tsv"):
        (names,) = re.findall(r"sub-(\d+)_ses-(\w)_.*followupses(\w)", path.name)
        person, second, first = names
        count: Counter[tuple[str, str]] = Counter()
        for row in csv.DictReader(path.read_text().splitlines(), delimiter="\t"):
            for rating in RATINGS if row["rating"] == "definite" else RATINGS[1:]:
                count[row["status"], rating] += 1
        found[person, first, second] = count
    assert len(found) == NUMBER - 1 + 2
    return found


def last_visits(counted: dict[tuple[str, str, str], Any]) -> dict[int, tuple[Any, float]]:
    """Return counts and years from the baseline to the last visit, where both are known."""
    found = {}
    for (person, first, second), count in counted.items():
        number = int(person)
        last = "c" if number == THREE else "b"
        if (first, second) != ("a", last) or number in (UNDATED, SLAB):
            continue
        # From the same day of 2020 to that of 2021 or 2022; 2020 has a 29th of February.
        leap = int(1 + number % 9 <= 2)
        days = 365 + leap + (365 if last == "c" else 0)
        found[number] = count, days / 365.25
    return found


def test_every_rate(made: tuple[Path, str], counted: dict[Any, Any]) -> None:
    known = last_visits(counted)
    assert sum(count["new", "any"] for count, _ in known.values()) > 5
    chosen = {
        "unchanged": [n for n in known if n not in CHANGED],
        "changed": list(CHANGED),
        "all": list(known),
    }
    rows = re.findall(r'<tr data-rate="(\w+)">(.*?)</tr>', made[1], re.DOTALL)
    assert [name for name, _ in rows] == list(chosen)
    for name, content in rows:
        people = chosen[name]
        years = sum(known[n][1] for n in people)
        rates = re.findall(r'<td ([^>]*data-number="rate"[^>]*)>([^<]*)<', content)
        shares = re.findall(r'data-number="with-new"[^>]*>([^<]*)<', content)
        assert [attributes(head)["data-rating"] for head, _ in rates] == list(RATINGS)
        for (head, text), share in zip(rates, shares, strict=True):
            cell = attributes(head)
            new = [known[n][0]["new", cell["data-rating"]] for n in people]
            total = sum(new)
            low = chi2.ppf(0.025, 2 * total) / 2 / years if total else 0.0
            high = chi2.ppf(0.975, 2 * total + 2) / 2 / years
            assert (int(cell["data-people"]), int(cell["data-new"])) == (len(people), total)
            assert float(cell["data-years"]) == pytest.approx(years, abs=1e-5)
            assert float(cell["data-low"]) == pytest.approx(low, abs=1e-5)
            assert float(cell["data-high"]) == pytest.approx(high, abs=1e-5)
            assert text == f"{total / years:.2f} ({low:.2f}–{high:.2f})"
            some, n = sum(count > 0 for count in new), len(new)
            ends = (
                beta.ppf(0.025, some, n - some + 1) if some else 0.0,
                beta.ppf(0.975, some + 1, n - some) if some < n else 1.0,
            )
            shown = [f"{100 * x:.1f}" for x in (some / n, *ends)]
            assert share == f"{some} of {n}, {shown[0]} % ({shown[1]}–{shown[2]})"
    whole = sum(count["new", "any"] for count, _ in known.values())
    years = sum(length for _, length in known.values())
    assert f"{whole} new microbleeds, definite or possible, in {years:.1f} person-years" in made[1]


def test_people_are_counted_once_and_those_left_out_are_named(
    made: tuple[Path, str], counted: dict[Any, Any]
) -> None:
    numbers = dict(re.findall(r'data-number="followup-(\w+)">(\d+)<', made[1]))
    known = last_visits(counted)
    # One visit without a result has a row too.
    expected = {"compared": len(known), "people": NUMBER, "pairs": len(counted) + 1}
    assert {name: int(value) for name, value in numbers.items()} == expected
    left = re.findall(
        r'<th scope="row">([^<]*)</th><td class="number" data-number="people-without">(\d+)</td>'
        r'<td class="names">([^<]*)',
        made[1],
    )
    assert {names: int(number) for _, number, names in left} == {
        f"sub-{n:02d}": 1 for n in (FAILED, UNDATED, SLAB)
    }
    reasons = {names: reason for reason, _, names in left}
    assert "it broke" in reasons[f"sub-{FAILED:02d}"]
    assert reasons[f"sub-{UNDATED:02d}"] == "the order of the visits is not known"
    assert reasons[f"sub-{SLAB:02d}"] == "the number of new microbleeds is not known"
    pairs = re.findall(r'data-number="pairs-without">(\d+)<', made[1])
    assert pairs == ["1"]


def test_every_class(made: tuple[Path, str], counted: dict[Any, Any]) -> None:
    limits = {
        "ARIA-H, new microhaemorrhages": (0, 1, 5, 10),
        "RDES291, new microbleeds": (0, 1, 5, 10),
    }
    expected = Counter()
    for number, (count, _) in last_visits(counted).items():
        for scale, lower in limits.items():
            for rating in RATINGS:
                level = sum(count["new", rating] >= limit for limit in lower) - 1
                expected[scale, level, rating] += 1
                assert number != SLAB
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th><td>([^<]*)</td>(.*?)</tr>', made[1])
    found = Counter()
    for scale, title, content in rows:
        if scale not in limits:
            continue
        level = sum(int(re.findall(r"\d+", title)[0]) >= limit for limit in limits[scale]) - 1
        cells = re.findall(r'data-number="new-class" data-rating="(\w+)">(\d+)<', content)
        for rating, number in cells:
            found[scale, level, rating] += int(number)
    assert +found == expected


def test_every_pair_and_point(made: tuple[Path, str], counted: dict[Any, Any]) -> None:
    content = json.loads(packed(made[1], "pairs"))
    data, scans = content["data"], rows_of(made[1])["data"]
    fates = {"new": "n_new", "gone": "n_gone", "persistent": "n_persistent"}
    seen = Counter()
    for at_row, person in enumerate(data["participant_id"]):
        names = [data[f"session_{which}"][at_row] for which in ("first", "second")]
        key = (person.removeprefix("sub-"), *(name.removeprefix("ses-") for name in names))
        if int(key[0]) == FAILED:
            assert data["status"][at_row] == "visit without a result"
            assert "it broke" in data["reason"][at_row]
            continue
        count = counted[key]
        for status, column in fates.items():
            for rating in RATINGS:
                value = data[f"{column}_{rating}"][at_row]
                directed = status != "persistent"
                if int(key[0]) == SLAB or (int(key[0]) == UNDATED and directed):
                    assert value is None
                else:
                    assert value == count[status, rating]
        if int(key[0]) == SLAB:
            listed = [data[f"n_listed_new_{rating}"][at_row] for rating in RATINGS]
            assert listed == [count["new", rating] for rating in RATINGS]
        for which, index in (("first", key[1]), ("second", key[2])):
            assert scans["scan"][content[which][at_row]] == f"{person}_ses-{index}_T2starw"
        expected = "yes" if int(key[0]) in CHANGED else "no"
        assert data["protocol_changed"][at_row] == expected
        seen[key] += 1
    assert set(seen) == {key for key in counted if int(key[0]) != FAILED} and set(
        seen.values()
    ) == {1}
    known = last_visits(counted)
    for at_row, name in enumerate(scans["scan"]):
        number = int(name.split("_")[0].removeprefix("sub-"))
        last = name.split("_")[1] == ("ses-c" if number == THREE else "ses-b")
        for rating in RATINGS:
            new, rate = (scans[f"followup_{what}_{rating}"][at_row] for what in ("new", "rate"))
            if number in known and last:
                count, years = known[number]
                assert new == count["new", rating]
                assert rate == pytest.approx(count["new", rating] / years, abs=1e-4)
            else:
                assert (new, rate) == (None, None)


def test_the_page_holds_the_pairs_once_and_heads_are_plain(made: tuple[Path, str]) -> None:
    text = unescape(made[1])
    section = text[text.index('<section id="followup">') : text.index('<section id="scans">')]
    assert '<tbody></tbody></table></div>\n<p id="pager-pairs"' in section
    titles = {item["title"] for item in json.loads(packed(made[1], "pairs"))["columns"]}
    overs = {item["over"] for item in json.loads(packed(made[1], "pairs"))["columns"]}
    assert {"Definite", "Definite or possible"} <= titles
    assert {"New", "Persistent", "Gone", "ARIA-H class of the new ones"} <= overs
    for raw in ("n new any", "aria h new any", "n_new_any"):
        assert raw not in section and raw not in titles | overs
