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
from cmbprep.group.models import ModelOptions
from cmbprep.group.models.formula import parse_model
from cmbprep.group.rows import make_rows
from cmbprep.group.strips import bokeh_script
from cmbprep.group.tables import Table, scan_table
from cmbprep.group.visits import ScanVisit
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.results import collect_results
from tests.group.cohort import read
from tests.group.datasets import write_dataset
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


def test_notes_stay_with_counts_instead_of_names(tree: Tree) -> None:
    files = tree.add("sub-1_ses-20210503_T2starw", [make_lesion(1)], warnings=["/data/Smith"])
    tree.add("sub-2_acq-odd_T2starw", version="2.0.0")
    damaged = tree.add("sub-3_acq-odd_T2starw")
    tree.add("sub-5_ses-1_T2starw")
    tree.add("sub-5_ses-20210503_T2starw")
    root = tree.finish()
    table = files.path("table")
    table.write_text(table.read_text().replace("definite", "possible"))
    damaged.path("table").write_text("Miller")
    raw = write_dataset(
        root.parent / "raw",
        participants="participant_id\tgroup\nsub-1\tA\nsub-1\tB\nsub-2\tA\nsub-3\tA\n"
        "sub-4\tA\nsub-5\tA\n",
        sessions={"1": "Smith_John\tborn\n20210503\tx\n"},
    )
    participants = raw / "participants.tsv"
    known = run_group(root, participants_tsv=participants).notes
    for name in ("20210503", "Smith_John", "sub-2_acq-odd"):
        assert name in "".join(known)

    run_group(root, participants_tsv=participants, deidentified=True)
    page = group_files(root)["group.html"]
    assert [secret for secret in SECRETS if secret in page] == []
    for told in (
        "1.2.3 (3 scans); 2.0.0 (1 scan)",
        "1 lesion table was changed after the program wrote it<",
        "1 lesion table is damaged, so that the scan has no counts; what to do",
        "participants.tsv has several rows of 1 participant, which disagree; n/a there: group",
        "1 participant has a row in participants.tsv and no scan in these results;",
        "the order of the sessions is not known (1 participant)",
        "1 file has no column session_id and is left out",
    ):
        assert told in page, told
    # A note on each that the whole page has.
    run_group(root, participants_tsv=participants)
    whole = group_files(root)["group.html"]
    flags = [text.split("To check")[1].split("</ul>")[0] for text in (page, whole)]
    assert flags[0].count("<li>") == flags[1].count("<li>") >= len(known)
    assert "acq-odd" in flags[1] and "acq-odd" not in flags[0]


def test_paths_are_left_out_of_texts_and_labels_of_names_are_listed(tree: Tree) -> None:
    tree.add(
        "sub-1_acq-odd_T2starw",
        [make_lesion(1)],
        parameters={"detector": "/data/miller/net.onnx", "threshold": 0.5},
    )
    root = tree.finish()
    (row,) = read(run_group(root, participants_tsv=None).scans)
    assert row["detector"] == "/data/miller/net.onnx"
    (row,) = read(run_group(root, participants_tsv=None, deidentified=True).scans)
    assert row["detector"] == "(path)"
    assert "miller" not in "".join(group_files(root).values())
    assert "1 label in names of scans: acq-odd; what to do" in (root / LIST).read_text()


def test_high_ages_are_left_out_of_the_outputs_and_models_use_them(tree: Tree) -> None:
    number = 24
    lines = ["participant_id\tage\tage_at_test\tage_months\tpage"]
    for person in range(number):
        own = [make_lesion(n) for n in range(1, 1 + person % 4)]
        tree.add(f"sub-{person:02d}_T2starw", own)
        age = 95 if person < 2 else 60 + person
        lines.append(f"sub-{person:02d}\t{age}\t{'90+' if person < 2 else age}\t{12 * age}\t95")
    raw = write_dataset(
        tree.root.parent / "raw",
        participants="\n".join(lines) + "\n",
        dictionaries={"participants.json": {"age_months": {"Units": "months"}}},
    )
    root, table = tree.finish(), raw / "participants.tsv"
    models = [parse_model("poisson: n_any ~ age")]
    options = ModelOptions(n_draws=0)
    run_group(root, participants_tsv=table, models=models, model_options=options)
    kept = read(root / "group_models.tsv")
    result = run_group(
        root, participants_tsv=table, models=models, model_options=options, deidentified=True
    )
    assert read(root / "group_models.tsv") == kept, "the models used all ages"
    people = read(result.tables["group_participants"])
    names = ("age", "participants_age", "age_at_test", "age_months")
    assert [people[0][name] for name in (*names, "page")] == ["n/a"] * 4 + ["95"]
    assert [people[2][name] for name in (*names, "page")] == ["62", "62", "62", "744", "95"]
    assert [row["age"] for row in read(result.scans)][:3] == ["n/a", "n/a", "62"]
    text = (root / LIST).read_text()
    for name in names:
        assert f"group_participants, column {name}: ages above 89 (2 values)" in text
    assert "Models, where there are any, were fitted with these ages" in text
    entry = json.loads((root / "group_participants.json").read_text())["age"]
    assert entry["Description"].endswith("Ages above 89 years are n/a (--deidentified).")


def test_sites_labels_and_words_of_the_dataset_are_listed_with_what_to_do(tree: Tree) -> None:
    tree.add("sub-20210503_T2starw")
    tree.add("sub-2_T2starw")
    raw = write_dataset(
        tree.root.parent / "raw",
        participants="participant_id\tsite\tdiagnosis\tward\n"
        "sub-20210503\tOslo\tA\t2021-05-03\nsub-2\tRome\tB\tSmith_John\n",
        dictionaries={
            "participants.json": {
                "diagnosis": {
                    "Description": "By Dr Miller, miller@oslo.org.",
                    "Levels": {"A": "see /data/Smith", "B": "healthy"},
                },
                "ward": {"Description": "Ward", "Levels": {"Smith_John": "his own"}},
            }
        },
    )
    root = tree.finish()
    run_group(root, participants_tsv=raw / "participants.tsv", deidentified=True)
    text = (root / LIST).read_text()
    for part in (
        "1 label of participants that look like a date: sub-20210503; what to do: give these",
        "the column site has 2 labels of sites: Oslo, Rome; what to do",
        "3 columns of the raw dataset",
        "diagnosis",
    ):
        assert part in text
    dictionaries = (root / "group_participants.json").read_text()
    dictionaries += (root / "phenotype/cmb.json").read_text()
    for secret in ("Miller", "miller", "/data", "Smith", "his own"):
        assert secret not in dictionaries


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
    assert {row["first"] for row in read(root / "group_agreement.tsv")} == {"reader 1"}
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
        ("lastname", ["Smith0", "Smith1"], "named like personal data"),
        ("PatientName", ["x"], "named like personal data"),
        ("visitdate", ["x"], "named like personal data"),
        ("operator", ["A. Miller"], "named like personal data"),
        ("first_scan", ["1931", "2021"], "years"),
        ("visit", ["March 2021"], "dates"),
        ("score", ["1931", "12"], None),
        ("part", ["0.210312", "0.110312"], None),
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
    for text in ("210312", "202103", "12032021", "Mar2021"):
        assert looks_like_date(text), text
    for text in (
        "20211350",
        "baseline2",
        "1.5",
        "12",
        "3T",
        "run-2",
        "0.90625",
        "v1.2",
        "1.210312",
    ):
        assert not looks_like_date(text), text


def test_the_command_says_where_the_list_is(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tree.root / "bids"), str(secret_cohort(tree)), "group", "--deidentified"]
    assert main(words) == 0
    assert LIST in capsys.readouterr().err
