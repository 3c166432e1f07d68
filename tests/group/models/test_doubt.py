"""Draws keep each lesion of the detector with its probability, and leave readers' results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmbprep.group.models.doubt import is_drawn, make_redraw
from cmbprep.group.models.tables import participants_frame
from cmbprep.group.rows import Row, make_rows
from cmbprep.group.tables import scan_table
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.reviewed import collect_reviewed
from tests.ratings.madeup import automatic, make_dataset
from tests.ratings.test_reviewed import ANNA, END, store, verdict
from tests.reports.outputtree import Tree, make_lesion

COLUMNS = ("n_definite", "n_any_deep", "pattern_any", "burden_count_definite")


def lesions(*probabilities: float | None, **changes: object) -> list:
    return [
        make_lesion(number, probability=probability, **changes)
        for number, probability in enumerate(probabilities, 1)
    ]


def read(tree: Tree) -> tuple[pd.DataFrame, dict[str, Row]]:
    rows = make_rows(collect_reviewed(tree.finish(), ReaderChoice()))
    table = scan_table(rows)
    return participants_frame(list(table.dictionary), table.values), {
        f"sub-{row.subject}": row for row in rows
    }


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path / "out")
    made.add("sub-1_T2starw", lesions(0.5, 0.5, 0.5, 0.5))
    deep = make_lesion(2, probability=0.5, zone="deep", region="thalamus")
    made.add("sub-2_T2starw", [make_lesion(1, probability=1.0), deep])
    made.add("sub-3_T2starw", [])
    made.fail("sub-4_T2starw", "it failed")
    return made


def test_lesions_are_kept_with_their_probability(tree: Tree) -> None:
    table, rows = read(tree)
    redraw = make_redraw(table, rows, COLUMNS)
    assert redraw is not None
    random = np.random.default_rng(1)
    draws = [redraw(random).set_index("participant_id") for _ in range(100)]
    counts = np.array([draw["n_definite"].to_numpy(float) for draw in draws])
    assert counts[:, 0].mean() == pytest.approx(2.0, abs=0.35)
    assert counts[:, 0].var() == pytest.approx(1.0, abs=0.45)
    assert set(counts[:, 1]) == {1.0, 2.0}
    assert set(counts[:, 2]) == {0.0}
    assert np.isnan(counts[:, 3]).all()


def test_patterns_and_classes_are_made_of_what_is_left(tree: Tree) -> None:
    table, rows = read(tree)
    redraw = make_redraw(table, rows, COLUMNS)
    assert redraw is not None
    random = np.random.default_rng(2)
    seen = set()
    for _ in range(40):
        drawn = redraw(random).set_index("participant_id").loc["sub-2"]
        assert drawn["pattern_any"] == ("mixed" if drawn["n_any_deep"] else "strictly lobar")
        assert str(drawn["burden_count_definite"]) == ("2to4" if drawn["n_any_deep"] else "1")
        seen.add(drawn["pattern_any"])
    assert seen == {"mixed", "strictly lobar"}


def test_unknown_counts_stay_unknown(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "out")
    coverage = {"lobar": 1.0, "deep": 0.3, "infratentorial": 1.0}
    tree.add("sub-1_T2starw", lesions(0.5, 0.5), coverage=coverage)
    table, rows = read(tree)
    assert table["n_any_deep"].isna().all()
    redraw = make_redraw(table, rows, ("n_any_deep", "n_any_lobar"))
    assert redraw is not None
    drawn = redraw(np.random.default_rng(1))
    assert drawn["n_any_deep"].isna().all() and drawn["n_any_lobar"].notna().all()


def test_only_the_detectors_own_numbers_of_a_scan_that_was_read_are_drawn(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "out")
    store(
        root,
        automatic(root),
        ANNA,
        *(verdict(f"L{number}", "definite") for number in (1, 2, 3)),
        END,
    )
    rows = make_rows(collect_reviewed(root, ReaderChoice()))
    made = scan_table(rows)
    table = participants_frame(list(made.dictionary), made.values)
    by_person = {f"sub-{row.subject}": row for row in rows}
    assert table["source"].tolist() == ["reviewed"]
    assert make_redraw(table, by_person, ("n_definite",)) is None
    redraw = make_redraw(table, by_person, ("n_definite", "n_automatic_any"))
    assert redraw is not None
    random = np.random.default_rng(1)
    draws = [redraw(random) for _ in range(30)]
    assert {draw["n_definite"].iloc[0] for draw in draws} == {table["n_definite"].iloc[0]}
    assert len({draw["n_automatic_any"].iloc[0] for draw in draws}) > 1


def test_certain_lesions_need_no_draws(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "out")
    tree.add("sub-1_T2starw", lesions(1.0, None))
    table, rows = read(tree)
    assert make_redraw(table, rows, COLUMNS) is None


def test_other_columns_are_not_drawn(tree: Tree) -> None:
    table, rows = read(tree)
    redraw = make_redraw(table, rows, ("n_definite",))
    assert redraw is not None
    drawn = redraw(np.random.default_rng(3))
    pd.testing.assert_frame_equal(
        drawn.drop(columns="n_definite"), table.drop(columns="n_definite")
    )
    assert make_redraw(table, rows, ("age_at_death",)) is None


@pytest.mark.parametrize(
    "column",
    [
        *("n_new_any", "n_gone_any", "n_persistent_any", "hypertension", "age", "site"),
        *("n_rejected", "n_warnings", "coverage_deep", "source", "n_visits"),
    ],
)
def test_what_is_not_made_of_the_lesions_of_one_scan_stays_as_it_is(
    tree: Tree, column: str
) -> None:
    table, rows = read(tree)
    table[column] = [3.0, 1.0, 0.0, np.nan]
    assert not is_drawn(column) and make_redraw(table, rows, (column,)) is None
    redraw = make_redraw(table, rows, ("n_definite", column))
    assert redraw is not None
    drawn = redraw(np.random.default_rng(3))
    pd.testing.assert_series_equal(drawn[column], table[column])


def test_every_outcome_that_is_drawn_has_a_value_where_it_had_one(tree: Tree) -> None:
    table, rows = read(tree)
    own = [name for name in table.columns if is_drawn(name)]
    assert {"n_any_deep", "n_listed_any", "cerebellar_any", "pattern_automatic_any"} <= set(own)
    redraw = make_redraw(table, rows, own)
    assert redraw is not None
    drawn = redraw(np.random.default_rng(4))
    pd.testing.assert_frame_equal(drawn[own].isna(), table[own].isna())
