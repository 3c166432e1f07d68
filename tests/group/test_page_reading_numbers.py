"""Every number on readers and agreement of the group page, recomputed from the logs of reviews.

Nothing of ``cmbprep.group`` is used below but the command that writes the page.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmbprep.group import run_group
from cmbprep.ratings.choice import ReaderChoice
from tests.ratings.madeup import make_dataset
from tests.ratings.reviewing import read_scan

pytestmark = pytest.mark.usefixtures("quick")

SCANS = [f"sub-{number:02d}_T2starw" for number in range(14)]
LISTED = ("L1", "L2", "L3")
#: Of the made-up scans: the first two are definite, all are in one zone.
BY_DETECTOR = {"L1": "definite", "L2": "definite", "L3": "possible"}
BURDEN = (0, 1, 2, 5, 11)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a dataset that two people have read at random, and its page after one of them."""
    random = np.random.default_rng(9)
    root = make_dataset(tmp_path_factory.mktemp("reading") / "out", SCANS)
    for number, scan in enumerate(SCANS):
        kept = random.random() < 0.6
        for reader in ("Anna", "Bob"):
            if reader == "Bob" and number > 11:
                continue
            acts, verdicts = [], {}
            for key in LISTED:
                keep = random.random() < (0.85 if kept else 0.06)
                verdicts[key] = str(random.choice(["definite", "possible"])) if keep else "rejected"
                if not keep and random.random() < 0.7:
                    reason = str(random.choice(["vein", "artefact"]))
                    acts.append({"type": "verdict", "lesion": key, "verdict": "rejected"})
                    acts[-1]["reason"] = reason
            if random.random() < 0.3:
                verdicts["C4"] = "definite"
            read_scan(root, scan, reader, verdicts, acts=acts, finish=number != 13)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cmbprep.group.page_maps.glass_brain", lambda *_: "")
        result = run_group(root, participants_tsv=None, choice=ReaderChoice(reader="Anna"))
    return root, result.page.read_text()


@pytest.fixture(scope="module")
def logs(made: tuple[Path, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Read the logs: reader -> scan -> verdicts, reasons, and whether it was finished."""
    found: dict[str, dict[str, dict[str, Any]]] = {"Anna": {}, "Bob": {}}
    for path in sorted(made[0].rglob("*_acts.jsonl")):
        verdicts: dict[str, str] = {}
        reasons: dict[str, str] = {}
        done, reader = False, ""
        for line in path.read_text().splitlines():
            act = json.loads(line)
            reader = act["reader"]
            if act["type"] == "verdict":
                verdicts[act["lesion"]] = act["verdict"]
                reasons[act["lesion"]] = act.get("reason") or ""
            done = act["type"] == "finish" or (done and act["type"] != "verdict")
        scan = f"{path.name.split('_')[0]}_T2starw"
        found[reader][scan] = {"verdicts": verdicts, "reasons": reasons, "done": done}
    assert {reader: len(own) for reader, own in found.items()} == {"Anna": 14, "Bob": 12}
    return found


def table(text: str, caption: str) -> dict[str, list[str]]:
    """Return the rows of a table of the page: head of the row -> cells."""
    (content,) = re.findall(rf"<caption>{re.escape(caption)}</caption>(.*?)</table>", text, re.S)
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', content, re.S)
    return {unescape(head): re.findall(r"<td[^>]*>(.*?)</td>", cells) for head, cells in rows}


def test_the_readers(made: tuple[Path, str], logs: dict[str, Any]) -> None:
    finished = sum(item["done"] for item in logs["Anna"].values())
    assert table(made[1], "Scans by reader") == {
        "Anna": [str(finished), str(finished), str(len(SCANS) - finished), "0"]
    }
    done = {scan: item for scan, item in logs["Anna"].items() if item["done"]}
    title = f"Lesions of the {len(done)} scans with the lesions of readers"
    found = {name: int(cells[0]) for name, cells in table(made[1], title).items()}
    expected: Counter[str] = Counter()
    for item in done.values():
        expected["listed by the detector"] += len(LISTED)
        for key in LISTED:
            if item["verdicts"][key] == "rejected":
                expected[f"rejected: {item['reasons'][key] or 'no reason given'}"] += 1
        expected["added"] += item["verdicts"].get("C4") == "definite"
        expected["microbleeds as read"] += sum(v != "rejected" for v in item["verdicts"].values())
    assert found == expected
    assert expected["added"] and expected["rejected: vein"]
    (statuses,) = re.findall(r"<caption>Scans by status</caption>(.*?)</table>", made[1], re.S)
    assert sum(map(int, re.findall(r'<td class="number">(\d+)</td>', statuses))) == len(SCANS)


def kept(item: dict[str, Any]) -> set[str]:
    return {key for key, verdict in item["verdicts"].items() if verdict != "rejected"}


def kappa(first: list[int], second: list[int], number: int, *, linear: bool) -> float:
    """Return Cohen's kappa from the table of both, by its definition."""
    joint = np.zeros((number, number))
    for a, b in zip(first, second, strict=True):
        joint[a, b] += 1 / len(first)
    apart = np.abs(np.subtract.outer(np.arange(number), np.arange(number)))
    cost = apart / (number - 1) if linear else (apart > 0).astype(float)
    chance = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    return float(1 - (cost * joint).sum() / (cost * chance).sum())


def icc(first: list[int], second: list[int]) -> float:
    """Return ICC(2,1), absolute agreement, from the mean squares of a two-way layout."""
    x = np.array([first, second], float).T
    n, k = x.shape
    rows, columns, mean = x.mean(axis=1), x.mean(axis=0), x.mean()
    msr = k * ((rows - mean) ** 2).sum() / (n - 1)
    msc = n * ((columns - mean) ** 2).sum() / (k - 1)
    rest = x - rows[:, None] - columns[None] + mean
    mse = (rest**2).sum() / ((n - 1) * (k - 1))
    return float((msr - mse) / (msr + (k - 1) * mse + k * (msc - mse) / n))


@pytest.mark.parametrize(
    ("first", "second"), [("Anna", "Bob"), ("Anna", "detector"), ("Bob", "detector")]
)
def test_every_figure_of_agreement(
    made: tuple[Path, str], logs: dict[str, Any], first: str, second: str
) -> None:
    done = {
        reader: {scan: kept(item) for scan, item in own.items() if item["done"]}
        for reader, own in logs.items()
    }
    read = set().union(*done.values())
    done["detector"] = {scan: set(LISTED) for scan in read}
    scans = sorted(done[first].keys() & done[second].keys())
    sides = [[done[who][scan] for scan in scans] for who in (first, second)]
    counts = [[len(keys) for keys in side] for side in sides]
    presence = [[int(number > 0) for number in side] for side in counts]
    classes = [[sum(n >= limit for limit in BURDEN) - 1 for n in side] for side in counts]
    both = sum(len(one & other) for one, other in zip(*sides, strict=True))
    expected = {
        "Lesions, F1": 2 * both / (sum(counts[0]) + sum(counts[1])),
        "Presence, kappa": kappa(*presence, 2, linear=False),
        "Burden class (count), weighted kappa": kappa(*classes, 5, linear=True),
        "Count, ICC(2,1)": icc(*counts),
    }
    if second == "detector":
        expected["Lesions, sensitivity"] = both / sum(counts[0])
        expected["False positives per scan"] = (sum(counts[1]) - both) / len(scans)
    shown = table(made[1], f"{first} and {second}: {len(scans)} scans")
    for label, value in expected.items():
        text = shown[label][0]
        # A rater who says the same of every scan, such as this detector, has no kappa and no ICC.
        if second == "detector" and ("kappa" in label or "ICC" in label):
            assert text.startswith("n/a"), label
            continue
        numbers = re.findall(r"-?\d+\.\d+", text)
        assert len(numbers) == 3, (label, text)
        number, low, high = map(float, numbers)
        assert number == pytest.approx(value, abs=0.0051), label
        assert low <= number <= high
