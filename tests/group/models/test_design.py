"""Designs: what is counted as missing, which kind an outcome has, what cannot be told apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmbprep.errors import UsageError
from cmbprep.group.models.design import Design, independent_columns, make_design
from cmbprep.group.models.formula import parse_model
from tests.group.models.cohort import make_cohort


def design(table: pd.DataFrame, formula: str, **options: object) -> Design:
    return make_design(table, parse_model(formula), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ("n_definite", "nb"),
        ("poisson: n_definite", "poisson"),
        ("n_definite > 0", "logit"),
        ("pattern_definite == strictly lobar", "logit"),
        ("cerebellar_definite", "logit"),
        ("burden_count_definite", "ordinal"),
    ],
)
def test_the_outcome_decides_the_kind(outcome: str, kind: str) -> None:
    assert design(make_cohort(), f"{outcome} ~ age").kind == kind


def test_classes_are_in_the_order_of_their_numbers() -> None:
    table = make_cohort()
    table["burden_x_any"] = np.resize(["11ormore", "0", "1to10"], len(table))
    found = design(table, "burden_x_any ~ age")
    assert found.classes == ("0", "1to10", "11ormore")
    assert found.y[:3].tolist() == [2.0, 0.0, 1.0]
    assert "Intercept" not in found.x


def test_missing_values_are_counted_by_variable() -> None:
    table = make_cohort()
    table.loc[0:2, "age"] = np.nan
    table.loc[2:5, "n_definite"] = np.nan
    table.loc[2, "status"] = "failed"
    found = design(table, "n_definite ~ age + C(site)")
    assert found.missing == {"n_definite": "4 (3 complete, 1 failed)", "age": "3"}
    assert (found.n_left_out, len(found.y)) == (6, 84)
    assert found.people[0] == "sub-007"


def test_an_undetermined_pattern_is_missing() -> None:
    table = make_cohort()
    found = design(table, "pattern_definite == strictly lobar ~ age")
    undetermined = int((table["pattern_definite"] == "undetermined").sum())
    assert undetermined > 0 and found.n_left_out == undetermined
    assert found.y.sum() == (table["pattern_definite"] == "strictly lobar").sum()


def test_terms_that_are_not_finite_leave_rows_out() -> None:
    table = make_cohort(mmse=np.r_[0.0, np.full(89, 28.0) + np.arange(89) / 100])
    found = design(table, "n_definite ~ np.log(mmse)")
    assert found.missing == {"a term that is not finite, such as log(0)": "1"}
    assert found.n_left_out == 1


def test_an_unknown_column_is_named_with_a_near_one() -> None:
    with pytest.raises(UsageError, match=r"'hypertention'.*did you mean 'hypertension'"):
        design(make_cohort(), "n_definite ~ hypertention")


def test_an_unknown_level_is_named_with_those_there() -> None:
    with pytest.raises(UsageError, match="strictly lobar") as caught:
        design(make_cohort(), "pattern_definite == strictly lober ~ age")
    assert "mixed" in str(caught.value)


def test_text_among_numbers_is_refused() -> None:
    table = make_cohort()
    table["age"] = table["age"].round(0).astype(object)
    table.loc[3, "age"] = "72y"
    with pytest.raises(UsageError, match=r"'72y' \(sub-004\)"):
        design(table, "n_definite ~ age")


@pytest.mark.parametrize(
    ("formula", "fault"),
    [
        ("volume_definite_mm3 ~ age", "neither a count"),
        ("poisson: age ~ site", "whole numbers"),
        ("logit: n_definite ~ age", "0 and 1"),
        ("nb: n_definite > 0 ~ age", "comparison"),
        ("nb: site ~ age", "neither a count"),
        ("ordinal: site ~ age", "order"),
        ("burden_count_definite ~ age - 1", "no constant"),
        ("n_definite ~ participant_id", "90 different values"),
        ("n_definite ~ log(site)", "cannot be computed"),
    ],
)
def test_what_does_not_suit_is_refused(formula: str, fault: str) -> None:
    table = make_cohort(volume_definite_mm3=12.5)
    with pytest.raises(UsageError, match=fault):
        design(table, formula)


def test_a_formula_sees_no_python_names() -> None:
    table = make_cohort(np=1.0)
    with pytest.raises(UsageError, match="cannot be computed"):
        design(table, "n_definite ~ np.log(np)")


def test_nuisance_terms_are_marked_and_inseparable_ones_named() -> None:
    table = make_cohort()
    table["MagneticFieldStrength"] = np.where(table["site"] == "A", 1.5, 3.0)
    table["EchoTime"] = np.resize([0.02, 0.03, 0.025, 0.02], len(table))
    found = design(table, "n_definite ~ C(site)", nuisance=("field", "te"))
    assert found.nuisance == {"C(MagneticFieldStrength)[T.3.0]", "echo_time_10ms"}
    assert found.inseparable == {
        "C(MagneticFieldStrength)[T.3.0]": ("C(site)[T.B]", "C(site)[T.C]")
    }
    assert sorted(set(found.x["echo_time_10ms"])) == [2.0, 2.5, 3.0]
    assert found.label("C(MagneticFieldStrength)[T.3.0]") == "field strength: 3 against 1.5"
    assert found.label("C(site)[T.B]") == "site: B against A"


def test_the_echo_time_of_a_multi_echo_scan_is_its_longest() -> None:
    table = make_cohort(echo_times=None)
    table.loc[0, "echo_times"] = "0.005,0.01,0.04"
    found = design(table, "n_definite ~ age", nuisance=("te",))
    assert found.x["echo_time_10ms"].iloc[0] == 4.0
    assert found.x["echo_time_10ms"].iloc[1] == 2.0


def test_a_term_that_is_there_is_not_added_again() -> None:
    table = make_cohort(MagneticFieldStrength=np.resize([1.5, 3.0], 90))
    found = design(table, "n_definite ~ C(MagneticFieldStrength)", nuisance=("field",))
    assert list(found.x.columns) == ["Intercept", "C(MagneticFieldStrength)[T.3.0]"]
    assert found.nuisance == frozenset()


def test_independent_columns_keep_the_first_of_equals() -> None:
    random = np.random.default_rng(0)
    x = pd.DataFrame({"a": random.normal(size=20), "b": random.normal(size=20)})
    x["c"], x["d"], x["one"] = 2 * x["a"] - x["b"], 0.0, 1.0
    assert independent_columns(x) == ["a", "b", "one"]
    assert independent_columns(x, constant=True) == ["a", "b"]


def test_a_part_of_a_design_drops_what_it_does_not_determine() -> None:
    found = design(make_cohort(), "n_definite ~ age + C(site)")
    part = found.take(found.sites != "B")
    assert list(part.x.columns) == ["Intercept", "C(site)[T.C]", "age"]
    assert len(part.y) == len(part.people) == 60
