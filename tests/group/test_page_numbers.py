"""Every number of the group page, recomputed from the lesion tables by code of its own.

Nothing of ``cmbprep.group`` is used below but the command that writes the page.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from cmbprep.group import run_group
from tests.group.pages import attributes, packed, rows_of
from tests.reports.outputtree import TEMPLATE, TEMPLATE_AFFINE, TEMPLATE_SHAPE, Tree, make_lesion

pytestmark = pytest.mark.usefixtures("quick")

SITES = {"Oslo": (3, 0.02), "Rome": (1.5, 0.04), "Turin": (3, 0.04)}
ZONES = {"lobar": "frontal", "deep": "thalamus", "infratentorial": "cerebellum"}
CLASSES = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, 19), (20, 10**9))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return an output dataset that was made up at random, and its page."""
    folder = tmp_path_factory.mktemp("numbers")
    random = np.random.default_rng(24)
    tree, raw = Tree(folder / "out"), folder / "raw"
    raw.mkdir()
    people = ["participant_id\tsite"]
    for number in range(40):
        person = f"sub-{number:02d}"
        site = str(random.choice(list(SITES)))
        people.append(f"{person}\t{site if number % 9 else 'n/a'}")
        field, echo = SITES[site]
        found = {"MagneticFieldStrength": field, "EchoTime": echo, "Manufacturer": site.upper()}
        quality = {"snr": round(float(random.normal(20, 4)), 3)}
        if number in (6, 13):
            quality["snr"] += (-1) ** number * 40.0
        # Figures of a step have the step's name before theirs; not every scan has every one.
        own = np.random.default_rng(number)
        quality["bias_ratio"] = round(float(own.uniform(1.0, 2.0)), 3)
        if number % 3:
            shift = round(float(own.uniform(0.1, 2.0)), 3)
            quality["t1w_registration"] = {"local_shift_mm": shift, "overlap": 0.99}
        if number == 3:
            tree.fail(f"{person}_ses-a_T2starw", "no head")
            continue
        tree.add(f"{person}_ses-a_T2starw", lesions(random), acquisition=found, quality=quality)
        if number % 4 == 0:
            # The second visit by its name is the first by its date.
            tree.add(f"{person}_ses-b_T2starw", lesions(random), acquisition=found)
            (raw / person).mkdir()
            days = "session_id\tacq_time\nses-a\t2020-05-05\nses-b\t2019-05-05\n"
            (raw / person / f"{person}_sessions.tsv").write_text(days)
    people += ["sub-98\tOslo", "sub-99\tRome"]
    tree.refuse("97", "sub-97_part-phase_T2starw.nii.gz", "a phase image")
    (raw / "participants.tsv").write_text("\n".join(people) + "\n")
    result = run_group(tree.finish(), participants_tsv=raw / "participants.tsv")
    return tree.root, result.page.read_text()


def lesions(random: np.random.Generator) -> list[Any]:
    number = int(random.choice([0, 0, 0, 1, 1, 2, 3, 4, 6, 12, 25]))
    zones = random.choice(list(ZONES), number, p=(0.6, 0.25, 0.15))
    return [
        make_lesion(
            index,
            zone=str(zone),
            region=ZONES[str(zone)],
            rating=str(random.choice(["definite", "definite", "possible"])),
            susceptibility=str(random.choice(["unknown", "paramagnetic", "diamagnetic"])),
            x_mni=float(4 * random.integers(-10, 11)),
            y_mni=-20.0,
            z_mni=30.0,
            volume_mm3=float(index),
        )
        for index, zone in enumerate(zones, 1)
    ]


@pytest.fixture(scope="module")
def scans(page: tuple[Path, str]) -> dict[str, dict[str, Any]]:
    """Read the scans with a result from their files: lesions, acquisition, site, baseline."""
    root = page[0]
    with open(root.parent / "raw" / "participants.tsv") as stream:
        sites = {
            row["participant_id"]: row["site"] for row in csv.DictReader(stream, delimiter="\t")
        }
    found = {}
    for table in sorted(root.rglob("*_seg-CMB_dseg.tsv")):
        with open(table) as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        sidecar = json.loads(table.with_suffix(".json").read_text())
        name = table.name.replace("_seg-CMB_dseg.tsv", "_T2starw")
        person = name.split("_")[0]
        two = (root / person / "ses-b").is_dir()
        found[name] = {
            "person": person,
            "baseline": f"_ses-{'b' if two else 'a'}_" in name,
            "lesions": [row for row in rows if row["susceptibility"] != "diamagnetic"],
            "mimics": sum(row["susceptibility"] == "diamagnetic" for row in rows),
            "site": sites[person] if sites[person] != "n/a" else "site not given",
            "field": f"{sidecar['MagneticFieldStrength']:g} T",
            "echo-time": f"{1000 * sidecar['EchoTime']:.0f} ms",
            "scanner": sidecar.get("Manufacturer", "scanner not given"),
        }
        found[name]["protocol"] = " · ".join(
            ("T2starw", found[name]["field"], f"TE {found[name]['echo-time']}", "slices 3.0 mm")
        )
    return found


def chosen(scan: dict[str, Any], rating: str) -> list[dict[str, str]]:
    return [row for row in scan["lesions"] if rating == "any" or row["rating"] == "definite"]


def has(scan: dict[str, Any], rating: str, outcome: str) -> bool:
    """Return whether a person has something; cerebellar ones are in no pattern (Boston)."""
    rows = chosen(scan, rating)
    lobar = any(row["zone"] == "lobar" for row in rows)
    deep = any(row["zone"] == "deep" or row["region"] == "brainstem" for row in rows)
    answers = {
        "all": bool(rows),
        "strictly-lobar": lobar and not deep,
        "strictly-deep": deep and not lobar,
        "mixed": lobar and deep,
    }
    return answers[outcome] if outcome in answers else any(row["zone"] == outcome for row in rows)


def groups_of(scans: dict[str, dict[str, Any]], by: str) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for scan in scans.values():
        if scan["baseline"]:
            found[scan[by]].append(scan)
    return found


def rows_with(text: str, mark: str) -> list[tuple[dict[str, str], str]]:
    """Return the rows of the page's tables with a mark: attributes, and content."""
    rows = re.findall(r"<tr (data-by=[^>]*)>(.*?)</tr>", text, re.DOTALL)
    return [(attributes(head), content) for head, content in rows if mark in content]


def cells(content: str, name: str) -> list[tuple[dict[str, str], str]]:
    found = re.findall(rf'<td ([^>]*data-number="{name}"[^>]*)>([^<]*)</td>', content)
    return [(attributes(head), value) for head, value in found]


def test_every_proportion_and_its_interval(
    page: tuple[Path, str], scans: dict[str, dict[str, Any]]
) -> None:
    seen = Counter()
    for row, content in rows_with(page[1], 'data-number="prevalence"'):
        members = groups_of(scans, row["data-by"])[row["data-group"]]
        ((_, people),) = cells(content, "group-people")
        assert int(people) == len(members)
        shares = cells(content, "prevalence")
        assert [head["data-rating"] for head, _ in shares] == ["definite", "any"]
        for head, text in shares:
            positive = sum(has(s, head["data-rating"], head["data-outcome"]) for s in members)
            total = len(members)
            low = beta.ppf(0.025, positive, total - positive + 1) if positive else 0
            high = beta.ppf(0.975, positive + 1, total - positive) if positive < total else 1
            assert (int(head["data-positive"]), int(head["data-total"])) == (positive, total)
            assert float(head["data-low"]) == pytest.approx(low, abs=1e-6)
            assert float(head["data-high"]) == pytest.approx(high, abs=1e-6)
            ends = low, high
            share, low, high = (f"{100 * number:.1f}" for number in (positive / total, low, high))
            assert text == f"{positive} of {total}, {share} % ({low}–{high})"
            # The same numbers are drawn, two units per per cent.
            for x in ends:
                assert f"{200 * x:.2f}" in content
            assert f'cx="{200 * positive / total:.2f}"' in content
            seen[row["data-by"], head["data-outcome"]] += 1
    for by in ("protocol", "site", "scanner", "field", "echo-time"):
        for outcome in ("all", *ZONES, "strictly-lobar", "strictly-deep", "mixed"):
            assert seen[by, outcome] == 2 * len(groups_of(scans, by)), (by, outcome)


def test_every_distribution(page: tuple[Path, str], scans: dict[str, dict[str, Any]]) -> None:
    found = rows_with(page[1], 'data-number="class"')
    for row, content in found:
        members = groups_of(scans, row["data-by"])[row["data-group"]]
        counts = sorted(len(chosen(scan, row["data-rating"])) for scan in members)
        people = [sum(low <= n <= high for n in counts) for low, high in CLASSES]
        classes = cells(content, "class")
        assert [int(value or 0) for _, value in classes] == people
        widths = [float(head["style"].removeprefix("--share: ")[:-1]) for head, _ in classes]
        assert widths == pytest.approx([100 * n / len(counts) for n in people], abs=0.01)
        values = {name: cells(content, name)[0][1] for name in ("most", "total", "unknown")}
        assert values == {"most": str(counts[-1]), "total": str(sum(counts)), "unknown": "0"}
        ((_, text),) = cells(content, "quartiles")
        several = counts if len(counts) > 1 else counts * 2
        low, _, high = quantiles(several, n=4, method="inclusive")
        assert text == f"{median(counts):g} ({low:g}–{high:g})"
    names = {(row["data-by"], row["data-group"], row["data-rating"]) for row, _ in found}
    assert len(names) == len(found)
    assert {by for by, _, _ in names} == {"protocol", "site", "scanner", "field", "echo-time"}


def test_protocols_and_people_by_site(
    page: tuple[Path, str], scans: dict[str, dict[str, Any]]
) -> None:
    numbers = defaultdict(list)
    for row, content in rows_with(page[1], 'data-number="protocol-people"'):
        numbers[row["data-group"]].append(int(cells(content, "protocol-people")[0][1]))
    expected = {}
    for site, members in groups_of(scans, "site").items():
        counted = Counter(scan["protocol"] for scan in members)
        expected[site] = sorted(counted.values(), reverse=True)
    assert numbers == expected
    for row, content in rows_with(page[1], 'data-number="group-protocols"'):
        members = groups_of(scans, row["data-by"])[row["data-group"]]
        ((_, text),) = cells(content, "group-protocols")
        assert int(text.split()[0]) == len({scan["protocol"] for scan in members})


def test_the_summary(page: tuple[Path, str], scans: dict[str, dict[str, Any]]) -> None:
    tiles = dict(re.findall(r'<b data-number="(\w+)">(\d+)</b>', page[1]))
    listed = {
        rating: sum(len(chosen(scan, rating)) for scan in scans.values())
        for rating in ("definite", "any")
    }
    assert {name: int(value) for name, value in tiles.items()} == {
        "participants": 40,
        "complete": len(scans),
        "failed": 1,
        "refused": 1,
        # sub-98 and sub-99 have no file, that of sub-97 is a phase image.
        "absent": 3,
        "people": sum(scan["baseline"] for scan in scans.values()),
        **listed,
        "diamagnetic": sum(scan["mimics"] for scan in scans.values()),
    }


def test_every_row_of_the_table_and_point_of_the_plots(
    page: tuple[Path, str], scans: dict[str, dict[str, Any]]
) -> None:
    data = rows_of(page[1])
    names = data["data"]["scan"]
    known = [name for name in names if name in scans]
    assert sorted(known) == sorted(scans)
    for at, name in enumerate(names):
        if name not in scans:
            assert {data["data"][f"n_{rating}"][at] for rating in ("definite", "any")} == {None}
            continue
        scan = scans[name]
        for rating in ("definite", "any"):
            rows = chosen(scan, rating)
            assert data["data"][f"n_{rating}"][at] == len(rows)
            for zone in ZONES:
                count = sum(row["zone"] == zone for row in rows)
                assert data["data"][f"n_{rating}_{zone}"][at] == count
            volume = sum(float(row["volume_mm3"]) for row in rows)
            assert data["data"][f"volume_{rating}_mm3"][at] == pytest.approx(volume)
        assert data["data"]["stands"][at] == ("yes" if scan["baseline"] else None)
        for by in ("protocol", "site", "scanner", "field", "echo-time"):
            assert data["groups"][by][at] == scan[by]
        figures = quality_of(page[0], name)
        shown = {key for key in data["data"] if key.startswith("preproc_")}
        assert figures.keys() <= shown
        for key in shown:
            assert data["data"][key][at] == pytest.approx(figures.get(key)), (name, key)


def quality_of(root: Path, name: str) -> dict[str, float]:
    """Read the figures of the preparation of a scan, by the names that the page has for them."""
    (path,) = root.rglob(f"{name.removesuffix('_T2starw')}_desc-preproc_T2starw.json")
    found = {}
    for key, value in json.loads(path.read_text())["Cmbprep"]["Quality"].items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        found |= {"_".join(filter(None, ("preproc", key, last))): one for last, one in inner}
    return {key: one for key, one in found.items() if isinstance(one, int | float)}


def test_every_outlier(page: tuple[Path, str], scans: dict[str, dict[str, Any]]) -> None:
    groups = defaultdict(dict)
    for name, scan in scans.items():
        (path,) = page[0].rglob(f"{name.removesuffix('_T2starw')}_desc-preproc_T2starw.json")
        snr = json.loads(path.read_text())["Cmbprep"]["Quality"]["snr"]
        groups[scan["protocol"], scan["scanner"], scan["site"]][name] = snr
    expected = {}
    for (_, scanner, _), own in groups.items():
        middle = median(own.values())
        spread = 1.4826 * median(abs(value - middle) for value in own.values())
        if len(own) < 8 or spread == 0:
            continue
        for name, value in own.items():
            z = (value - middle) / spread
            if abs(z) > 3.5:
                expected[name] = (value, middle, f"{z:+.1f}", scanner)
    section = page[1].split("<h3>Scans that stand apart</h3>")[1].split("</table>")[0]
    rows = re.findall(
        r'<th scope="row" class="text">(?:<a[^>]*>)?([^<]+)(?:</a>)?</th>'
        r'<td class="text">([^<]*)</td>'
        r'<td class="number" data-key="([^"]*)">[^<]*</td><td class="number" data-key="([^"]*)">'
        r'[^<]*</td><td class="number" data-key="[^"]*">([^<]*)</td><td class="text">([^<]*)</td>',
        section,
    )
    assert {"sub-06_ses-a_T2starw", "sub-13_ses-a_T2starw"} <= {name for name, *_ in rows}
    assert len(rows) == len(expected)
    for name, figure, value, middle, z, protocol in rows:
        assert [float(value), float(middle)] == pytest.approx(expected[name][:2])
        assert z == expected[name][2]
        assert expected[name][3] in protocol and "scan" in figure
    sizes = [abs(float(z)) for *_, z, _ in rows]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("rating", ["definite", "any"])
def test_every_voxel_of_the_maps(
    page: tuple[Path, str], scans: dict[str, dict[str, Any]], rating: str
) -> None:
    (choices,) = re.findall(rf'id="map-{TEMPLATE}-choices">(.*?)</script>', page[1])
    kinds = {
        "": lambda _: "all people",
        "site": lambda scan: scan["site"],
        "pattern": lambda scan: pattern_of(scan, rating),
    }
    people = [scan for scan in scans.values() if scan["baseline"]]
    # Patterns are those of the microbleeds that are shown.
    entries = [entry for entry in json.loads(choices) if entry["rating"] in ("", rating)]
    assert {entry["kind"] for entry in entries} == set(kinds)
    patterns = {pattern_of(scan, rating) for scan in people} - {"none"}
    assert {entry["label"] for entry in entries if entry["kind"] == "pattern"} == patterns
    hottest = {}
    for entry in entries:
        members = [s for s in people if kinds[entry["kind"]](s) == entry["label"]]
        assert (entry["people"], entry["whole"]) == (len(members), len(members))
        expected = np.zeros(TEMPLATE_SHAPE, int)
        for scan in members:
            own = {voxel_of(row) for row in chosen(scan, rating)}
            possible = {voxel_of(row) for row in scan["lesions"] if row["rating"] != "definite"}
            for voxel in own:
                # A voxel may hold two lesions; which of them is nearer decides on its rating.
                expected[voxel] += 1
            if rating == "definite":
                scan["shared"] = own & possible
        stored = np.frombuffer(packed(page[1], f"{entry['key']}-{rating}"), "<u2")
        stored = stored.reshape(TEMPLATE_SHAPE, order="F")
        doubtful = set().union(*(scan.get("shared", set()) for scan in members))
        same = np.ones(TEMPLATE_SHAPE, bool)
        for voxel in doubtful if rating == "definite" else ():
            same[voxel] = False
        np.testing.assert_array_equal(stored[same], expected[same])
        hottest[entry["label"]] = int(stored.max())
    shown = re.findall(rf'data-number="map-hottest-{rating}">(\d+)<', page[1])
    assert shown == [str(hottest["all people"])]
    assert re.findall(r'data-number="map-people">(\d+)<', page[1]) == [str(len(people))]


def voxel_of(row: dict[str, str]) -> tuple[int, int, int]:
    point = [float(row["x_mni"]), float(row["y_mni"]), float(row["z_mni"]), 1.0]
    i, j, k = np.round(np.linalg.solve(TEMPLATE_AFFINE, point)[:3]).astype(int)
    return int(i), int(j), int(k)


def pattern_of(scan: dict[str, Any], rating: str) -> str:
    names = {"strictly-lobar": "strictly lobar", "strictly-deep": "strictly deep", "mixed": "mixed"}
    found = [title for name, title in names.items() if has(scan, rating, name)]
    if found:
        return found[0]
    return "cerebellar only" if chosen(scan, rating) else "none"
