"""From the command line to the tables of models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmbprep.cli.main import main
from tests.group.cohort import read
from tests.reports.outputtree import Tree, make_lesion

FORMULA = "n_definite ~ age + hypertension"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a raw dataset with covariates and the results on 24 people; one scan failed."""
    folder = tmp_path_factory.mktemp("cohort")
    random, tree = np.random.default_rng(3), Tree(folder / "out")
    lines = ["participant_id\tage\thypertension\tsite"]
    for number in range(1, 25):
        label = f"{number:02d}"
        count = int(random.poisson(3 * random.gamma(1.0)))
        if number == 24:
            tree.fail(f"sub-{label}_T2starw", "it failed")
        else:
            tree.add(
                f"sub-{label}_T2starw",
                [make_lesion(index, probability=0.7) for index in range(1, count + 1)],
            )
        lines.append(f"sub-{label}\t{random.normal(72, 8):.1f}\t{number % 2}\t{'ABC'[number % 3]}")
    bids = folder / "bids"
    bids.mkdir()
    (bids / "participants.tsv").write_text("\n".join(lines) + "\n")
    return bids, tree.finish()


def group(made: tuple[Path, Path], *options: str) -> int:
    return main([str(made[0]), str(made[1]), "group", *options])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out maps and page, which the models do not depend on."""
    monkeypatch.setattr("cmbprep.group.run.write_frequency_maps", lambda *_: ((), ()))
    monkeypatch.setattr("cmbprep.group.page.render_group_page", lambda *_, **__: "")


def test_models_are_written_and_removed_by_the_next_run_without(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert group(made, "--model", FORMULA, "n_definite > 0 ~ age", "--draws", "4") == 0
    assert f"model {FORMULA}: few events" in capsys.readouterr().err
    rows = read(made[1] / "group_models.tsv")
    age = next(row for row in rows if row["term"] == "age")
    assert (age["formula"], age["n"], age["n_left_out"]) == (FORMULA, "23", "1")
    assert age["missing"] == "n_definite 1 (1 failed)"
    assert age["detection_draws"] == "4" and float(age["detection_share"]) > 0
    assert {row["model"] for row in rows} == {"1", "2"}
    checks = read(made[1] / "group_model_checks.tsv")
    assert {"methods", "warning", "without participant"} <= {row["check"] for row in checks}
    dictionary = json.loads((made[1] / "group_models.json").read_text())
    assert list(dictionary) == list(rows[0])
    assert group(made) == 0
    assert "group_models.tsv" in capsys.readouterr().err
    assert list(made[1].glob("group_model*")) == []


def test_strata_are_in_both_tables_and_on_the_terminal(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", "poisson: n_definite ~ age", "--strata", "site", "--draws", "0")
    assert group(made, *options) == 0
    names = {"site=A", "site=B", "site=C", "pooled"}
    rows = read(made[1] / "group_models.tsv")
    assert {row["stratum"] for row in rows} == names
    pooled = next(row for row in rows if row["stratum"] == "pooled")
    assert (pooled["term"], pooled["n"]) == ("age", "23")
    assert pooled["note"] == "pooled over 3 of 3 strata"
    checks = read(made[1] / "group_model_checks.tsv")
    assert {row["stratum"] for row in checks if row["check"] != "methods"} == names
    assert {"heterogeneity", "I2"} <= {row["check"] for row in checks}
    assert "site A: few participants" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "n_definite ~ agee"], "did you mean 'age'"),
        (["--model", "n_definite ~ open(age)"], "cannot be used"),
        (["--model", FORMULA, FORMULA], "twice"),
        (["--model", FORMULA, "--nuisance", "coil"], "no nuisance term 'coil'"),
        (["--model", FORMULA, "--cluster", "ward"], "no column 'ward'"),
        (["--model", FORMULA, "--draws", "1"], "draws"),
        (["--nuisance", "field,te"], "there is none"),
        (["--strata", "site"], "there is none"),
        (["--model", FORMULA, "--strata", "ward"], "no column 'ward'"),
        (["--model", "n_definite ~ C(site)", "--strata", "site"], "a term of the model"),
    ],
)
def test_a_wrong_request_writes_nothing(
    made: tuple[Path, Path],
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made[1].glob("*")}
    assert group(made, *options) == 2
    assert words in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in made[1].glob("*")} == before


def test_a_column_that_is_left_out_cannot_be_in_a_model(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    table = made[0] / "participants.tsv"
    whole = table.read_text()
    head, *lines = whole.splitlines()
    dated = [f"{line}\t2021-05-{10 + number % 3}" for number, line in enumerate(lines)]
    table.write_text("\n".join([f"{head}\tfirst_visit", *dated]) + "\n")
    try:
        assert group(made, "--model", "n_definite ~ C(first_visit)", "--deidentified") == 2
    finally:
        table.write_text(whole)
    assert "no participant with all its values" in capsys.readouterr().err


def test_the_same_results_give_the_same_bytes(made: tuple[Path, Path]) -> None:
    texts = set()
    for _ in range(2):
        assert group(made, "--model", FORMULA, "--draws", "2") == 0
        texts.add((made[1] / "group_models.tsv").read_bytes())
    assert len(texts) == 1


def test_labels_that_look_like_dates_do_not_end_the_draws(tmp_path: Path) -> None:
    """The scans of a deidentified cohort are found by the names that they have."""
    random, tree = np.random.default_rng(3), Tree(tmp_path / "out")
    lines = ["participant_id\tage"]
    for number in range(1, 25):
        count = int(random.poisson(3 * random.gamma(1.0)))
        found = [make_lesion(index, probability=0.5) for index in range(1, count + 1)]
        tree.add(f"sub-{number:02d}_ses-20210510_T2starw", found)
        lines.append(f"sub-{number:02d}\t{random.normal(72, 8):.1f}")
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids" / "participants.tsv").write_text("\n".join(lines) + "\n")
    made = tmp_path / "bids", tree.finish()
    drawn = {}
    for options in ((), ("--deidentified",)):
        assert group(made, "--model", "n_definite ~ age", "--draws", "4", *options) == 0
        rows = read(made[1] / "group_models.tsv")
        drawn[options] = [row["detection_se"] for row in rows if row["term"] == "age"]
    assert drawn[()] == drawn["--deidentified",] != ["n/a"]
