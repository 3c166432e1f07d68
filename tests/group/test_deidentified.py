"""Group outputs without what could identify a person, and a list of what was left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cmbprep.cli.main import main
from cmbprep.group import run_group
from cmbprep.group.deidentified import (
    IDENTIFIES,
    UNKNOWN,
    Disguise,
    deidentify,
    judge_column,
    looks_like_date,
)
from cmbprep.group.rows import make_rows
from cmbprep.group.strips import bokeh_script
from cmbprep.group.tables import Table, scan_table
from cmbprep.group.visits import ScanVisit
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.results import collect_results
from tests.group.cohort import read
from tests.group.pages import rows_of
from tests.ratings.madeup import automatic, make_dataset
from tests.ratings.test_reviewed import ANNA, END, store, verdict
from tests.reports.outputtree import Tree, make_lesion

pytestmark = pytest.mark.usefixtures("quick")

SECRETS = ("/data/Smith", "Smith_John", "Miller", "20210503")
LIST = "group_deidentified.txt"


def secret_cohort(tree: Tree) -> Path:
    tree.add("sub-1_ses-20210503_T2starw", [make_lesion(1)], warnings=["/data/Smith is odd"])
    tree.add("sub-1_ses-20230504_T2starw")
    tree.fail("sub-2_T2starw", "no /data/Smith/scan.nii")
    tree.refuse("3", "sub-3/anat/Smith_John_acq-Miller_mag.nii", "Miller's /data/Smith")
    return tree.finish()


def group_files(root: Path) -> dict[str, str]:
    """Return the text of the group outputs: of the page with its rows, without pictures."""
    files = {path.name: path.read_text() for path in root.glob("group*")}
    page = files["group.html"]
    # The script of a library has words of its own.
    own = re.sub(r"[A-Za-z0-9+/=]{200,}", "", page.replace(bokeh_script(), ""))
    return {**files, "group.html": own + json.dumps(rows_of(page))}


def test_nothing_identifying_is_in_the_group_outputs(tree: Tree) -> None:
    root = secret_cohort(tree)
    before = run_group(root, participants_tsv=None)
    text = "".join(group_files(root).values())
    assert [secret for secret in SECRETS if secret not in text] == [], "the cohort has them all"
    names = {table: list(read(path)[0]) for table, path in before.tables.items()}
    counts = [row["n_any"] for row in read(before.scans)]

    result = run_group(root, participants_tsv=None, deidentified=True)
    files = group_files(root)
    for name, content in files.items():
        found = [secret for secret in SECRETS if secret in content]
        assert found == [], name
    assert {table: list(read(path)[0]) for table, path in result.tables.items()} == names
    rows = read(result.scans)
    assert [row["n_any"] for row in rows] == counts
    assert [row["participant_id"] for row in rows] == ["sub-1", "sub-1", "sub-2", "sub-3"]
    assert [row["session_id"] for row in rows] == ["ses-date1", "ses-date2", "n/a", "n/a"]
    assert [row["scan"] for row in rows[:2]] == [
        "sub-1_ses-date1_T2starw",
        "sub-1_ses-date2_T2starw",
    ]
    assert (rows[3]["scan"], rows[3]["acq"], rows[3]["status"]) == ("n/a", "n/a", "refused")
    assert rows[0]["n_warnings"] == "1" and rows[0]["warnings"] == "n/a"
    assert read(result.lesions)[0]["scan"] == "sub-1_ses-date1_T2starw"


def test_what_was_left_out_and_what_remains_is_listed(tree: Tree) -> None:
    root = secret_cohort(tree)
    (root / "sub-1.html").write_text("a report")
    result = run_group(root, participants_tsv=None, deidentified=True)
    assert any(str(root / LIST) in note for note in result.notes)
    text = (root / LIST).read_text()
    for part in (
        "group_cmb, column reason: free text (2 values)",
        "group_cmb, column warnings: free text (1 values)",
        "group_cmb, column scan: names of refused files (1 values)",
        "2 labels that look like a date",
        "labels of participants, which must be pseudonyms",
        "sub-*.html (1 file): reports",
        "logs/* (",
        "sidecars",
        "corrected images",
    ):
        assert part in text
    dictionary = json.loads((root / "group_cmb.json").read_text())
    assert dictionary["reason"]["Description"].endswith("left out (--deidentified).")
    assert all(IDENTIFIES not in entry for entry in dictionary.values())
    run_group(root, participants_tsv=None)
    assert not (root / LIST).exists(), "these outputs are not de-identified"


def test_readers_are_numbers(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "out")
    store(root, automatic(root), ANNA, *(verdict(f"L{n}", "definite") for n in (1, 2, 3)), END)
    run_group(root, participants_tsv=None, choice=ReaderChoice(reader="Anna"))
    assert "Anna" in group_files(root)["group.html"]
    result = run_group(root, participants_tsv=None, deidentified=True)
    files = group_files(root)
    assert [name for name, text in files.items() if "Anna" in text] == []
    assert "reader 1" in files["group.html"]
    (row,) = read(result.scans)
    assert (row["source"], row["reader"], row["n_readers"]) == ("reviewed", "n/a", "1")
    assert "names of readers" in files[LIST]


def test_dates_of_visits_are_left_out_and_intervals_stay(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    rows = make_rows(collect_results(tree.finish()))
    visits = [ScanVisit(acq_time="2021-05-03T08:00:00", days_since_baseline=365)]
    table, left_out = deidentify("group_cmb", scan_table(rows, visits), Disguise(rows))
    assert [(item.column, item.kind, item.values) for item in left_out] == [
        ("acq_time", "dates", 1)
    ]
    (line,) = table.values
    assert "acq_time" not in line and line["days_since_baseline"] == 365


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("sex", ["F", "M"], None),
        ("education", ["12", "9.5"], None),
        ("diagnosis", ["mild cognitive impairment", "healthy"], None),
        ("scanned", ["2021-05-03", "2021-06-04"], "dates"),
        ("scanned", ["3.5.2021"], "dates"),
        ("scanned", ["3 May 2021"], "dates"),
        ("born", ["1950"], "named like personal data"),
        ("date_of_birth", ["x"], "named like personal data"),
        ("comments", ["none"], "named like personal data"),
        ("hospital", [f"person{n}" for n in range(21)], "free text"),
        ("history", ["fell from a ladder at the age of thirty"], "free text"),
        ("file", ["/data/anna/scan.nii"], "paths or addresses"),
        ("contact", ["a@b.org"], "paths or addresses"),
        ("hospital_id", ["12345678", "3"], "numbers of six digits or more"),
        ("volume", ["1.2345678", "0.1234567"], None),
    ],
)
def test_columns_of_the_dataset_are_judged(name: str, values: list[str], kind: str | None) -> None:
    assert judge_column(name, values) == kind
    dictionary: dict[str, dict[str, Any]] = {name: {"Description": "x", IDENTIFIES: UNKNOWN}}
    lines = tuple({name: value} for value in values)
    table, left_out = deidentify("t", Table(dictionary, lines), Disguise([]))
    assert (name in table.values[0]) == (kind is None)
    assert [item.kind for item in left_out] == ([] if kind is None else [kind])


def test_dates_are_told_from_numbers_and_labels() -> None:
    for text in ("20210503", "2021-05", "03/05/21", "May 3, 2021", "acq-20210503"):
        assert looks_like_date(text), text
    for text in ("20211350", "baseline2", "1.5", "12", "3T", "run-2", "0.90625", "v1.2"):
        assert not looks_like_date(text), text


def test_the_command_says_where_the_list_is(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tree.root / "bids"), str(secret_cohort(tree)), "group", "--deidentified"]
    assert main(words) == 0
    assert LIST in capsys.readouterr().err
