"""Both parts of docs/paper.md run, and their numbers are those of the made-up cohort."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cmbprep.group.models import fit_models, parse_models
from tests.group.models.cohort import make_cohort

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "paper.py"


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    """Return a cohort in which two scans failed and one pattern is not known."""
    table = make_cohort(60, seed=12, alpha=1.0)
    count = table["n_definite"].to_numpy()
    table["n_definite_lobar"] = np.ceil(count / 2)
    table["n_definite_deep"] = count - np.ceil(count / 2)
    table["n_definite_infratentorial"] = 0.0
    table["pattern_definite"] = np.select(
        [count == 0, count == 1], ["none", "strictly lobar"], "mixed"
    )
    table.loc[5, "pattern_definite"] = "undetermined"
    table.loc[6, "n_definite_lobar"] = np.nan
    # Read carelessly, these sites are a truth value, a number and a quotation that does not end.
    table["site"] = table["site"].map({"A": "01", "B": "T", "C": "5'"})
    failed = [0, 1]
    table.loc[failed, "status"] = "failed"
    table.loc[failed, [name for name in table.columns if name.startswith("n_")]] = np.nan
    return table


@pytest.fixture(scope="module")
def written(people: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    people.to_csv(folder / "group_participants.tsv", sep="\t", index=False, na_rep="n/a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), str(folder), str(folder / "paper")])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return folder / "paper"


def read(path: Path) -> pd.DataFrame:
    """Read a table as text: column by column, rows by their first cell."""
    return pd.read_csv(path, sep="\t", index_col=0, dtype=str)


def test_participants_without_a_result_are_counted(written: Path) -> None:
    found = pd.read_csv(written / "status.tsv", sep="\t", index_col=0)["count"]
    assert found.to_dict() == {"complete": 58, "failed": 2}


def test_table_one_counts_the_participants_with_a_result(
    people: pd.DataFrame, written: Path
) -> None:
    found = read(written / "table1.tsv")
    assert list(found.columns) == ["01", "5'", "T", "all"]
    assert found.loc["participants", "all"] == "58"
    number = int((people["n_definite"] > 0).sum())
    assert found.loc["definite microbleeds", "all"] == f"{number} ({100 * number / 58:.0f} %)"


def test_prevalences_have_their_own_denominators(people: pd.DataFrame, written: Path) -> None:
    found = pd.read_csv(written / "prevalence.tsv", sep="\t", index_col=0)
    assert found["of"].to_dict() == {
        **dict.fromkeys(["any zone", "deep", "infratentorial"], 58),
        **dict.fromkeys(["strictly lobar", "strictly deep", "mixed", "cerebellar only"], 57),
        "lobar": 57,
    }
    none = found.loc["infratentorial"]
    # Of none in n, the exact interval ends at 1 - 0.025^(1/n).
    assert (none["low"], none["high"]) == (0.0, pytest.approx(1 - 0.025 ** (1 / 58)))
    mixed = found.loc["mixed"]
    assert mixed["low"] == pytest.approx(
        stats.beta.ppf(0.025, mixed["participants with"], 58 - mixed["participants with"])
    )


def test_the_model_is_that_of_the_group_level(people: pd.DataFrame, written: Path) -> None:
    found = read(written / "rate_ratios.tsv").astype(float)
    (model,) = fit_models(people, parse_models(("n_definite ~ age + hypertension + C(site)",)))
    rows = {row["term"]: row for row in model.rows if row["role"] == "term"}
    assert set(rows) == set(found.index)
    for term, row in rows.items():
        expected = [row["ratio"], row["ratio_low"], row["ratio_high"]]
        assert found.loc[term].to_list() == pytest.approx(expected, rel=1e-4)


def test_the_figure_is_drawn(written: Path) -> None:
    assert (written / "prevalence.svg").read_text().count("<path") > 8


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_r_gives_the_same_figures(written: Path) -> None:
    folder = written.parent / "r"
    script = SCRIPT.with_suffix(".R")
    subprocess.run(["Rscript", script, written.parent, folder], check=True)
    for name in ("status", "table1"):
        pd.testing.assert_frame_equal(
            read(folder / f"{name}.tsv"), read(written / f"{name}.tsv"), check_like=True
        )
    for name, precision in (("prevalence", 1e-9), ("rate_ratios", 1e-3)):
        ours, theirs = (read(at / f"{name}.tsv").astype(float) for at in (written, folder))
        theirs.index = theirs.index.str.replace(r"factor\(site\)(.*)", r"C(site)[T.\1]", regex=True)
        pd.testing.assert_frame_equal(
            theirs, ours, check_like=True, check_names=False, rtol=precision
        )
    assert (folder / "prevalence.pdf").read_bytes().startswith(b"%PDF")
