"""Fits are those of statsmodels called directly, and say so where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.discrete.count_model import ZeroInflatedNegativeBinomialP, ZeroInflatedPoisson
from statsmodels.discrete.truncated_model import HurdleCountModel, TruncatedLFPoisson
from statsmodels.miscmodels.ordinal_model import OrderedModel

from cmbprep.group.models.design import make_design
from cmbprep.group.models.fitting import Fit, fit_design
from cmbprep.group.models.formula import parse_model
from cmbprep.group.models.search import NotFittedError
from cmbprep.group.models.separation import separated_columns, without_separation
from tests.group.models.cohort import EFFECTS, make_cohort

TERMS = "age + hypertension + C(site)"
COLUMNS = ["Intercept", "C(site)[T.B]", "C(site)[T.C]", "age", "hypertension"]


def fit(table: pd.DataFrame, formula: str, **options: Any) -> Fit:
    return fit_design(make_design(table, parse_model(formula), **options))


def numbers(found: Fit, part: str) -> tuple[np.ndarray, np.ndarray]:
    own = [item for item in found.estimates if item.part == part]
    return np.array([item.value for item in own]), np.array([item.error for item in own])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    made = make_cohort(150, seed=4, constant=0.9)
    # Zeros beyond those of the counts, so that kinds with a part for zeros have something to fit.
    made.loc[np.arange(150) % 5 == 0, "n_definite"] = 0.0
    made["years"] = np.linspace(1.0, 4.0, 150)
    made["group"] = np.resize(list("abcdefghijkl"), 150)
    return made


def polished(model: Any, **options: Any) -> Any:
    """Fit with statsmodels alone, to the last digits."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        first = model.fit(method="bfgs", maxiter=1000, disp=0)
        for _ in range(2):  # the errors are from the curvature before the last step
            first = model.fit(start_params=first.params, method="newton", disp=0, **options)
        return first


def ordered(table: pd.DataFrame) -> Any:
    classes = pd.Categorical(
        table["burden_count_definite"], ["0", "1", "2to4", "5ormore"], ordered=True
    )
    return OrderedModel.from_formula(
        "burden ~ age + hypertension + C(site)", table.assign(burden=classes), distr="logit"
    )


DIRECT: dict[str, Callable[[pd.DataFrame], Any]] = {
    "poisson: n_definite": lambda t: smf.poisson(f"n_definite ~ {TERMS}", t),
    "nb: n_definite": lambda t: smf.negativebinomial(f"n_definite ~ {TERMS}", t),
    "n_definite > 0": lambda t: smf.logit(
        f"present ~ {TERMS}", t.assign(present=(t["n_definite"] > 0).astype(float))
    ),
    "zip: n_definite": lambda t: ZeroInflatedPoisson.from_formula(f"n_definite ~ {TERMS}", t),
    "zinb: n_definite": lambda t: ZeroInflatedNegativeBinomialP.from_formula(
        f"n_definite ~ {TERMS}", t, p=2
    ),
}


@pytest.mark.parametrize("outcome", DIRECT)
@pytest.mark.parametrize("clustered", [False, True])
def test_a_fit_is_that_of_statsmodels(table: pd.DataFrame, outcome: str, clustered: bool) -> None:
    robust: dict[str, Any] = {}
    if clustered:
        robust = {"cov_type": "cluster", "cov_kwds": {"groups": table["group"].factorize()[0]}}
    direct = polished(DIRECT[outcome](table), **robust)
    found = fit(table, f"{outcome} ~ {TERMS}", cluster="group" if clustered else None)
    # statsmodels has the coefficients of the zeros first.
    values, errors = direct.params.to_numpy(), direct.bse.to_numpy()
    zeros = sum(name.startswith("inflate_") for name in direct.params.index)
    order = [*range(zeros, len(values)), *range(zeros)]
    assert [item.value for item in found.estimates] == pytest.approx(values[order], abs=1e-6)
    assert [item.error for item in found.estimates] == pytest.approx(errors[order], abs=1e-6)
    assert found.loglike == pytest.approx(direct.llf, abs=1e-6)
    assert found.df == (11 if clustered else 145)


def test_an_ordinal_fit_is_that_of_statsmodels(table: pd.DataFrame) -> None:
    direct = polished(ordered(table))
    found = fit(table, f"burden_count_definite ~ {TERMS}")
    assert [item.column for item in found.estimates[:4]] == COLUMNS[1:]
    values = np.array([item.value for item in found.estimates])
    errors = np.array([item.error for item in found.estimates])
    assert values[:4] == pytest.approx(direct.params.to_numpy()[:4], abs=1e-6)
    # statsmodels differentiates these two likelihoods numerically, which is good to five digits.
    assert errors[:4] == pytest.approx(direct.bse.to_numpy()[:4], rel=1e-5)
    limits = direct.model.transform_threshold_params(direct.params.to_numpy())[1:-1]
    assert values[4:] == pytest.approx(limits, abs=1e-6)


def test_errors_of_thresholds_are_those_of_other_parameters(table: pd.DataFrame) -> None:
    """With two classes, the one threshold is the constant of a logistic model, turned round."""
    two = table.assign(burden_x=np.where(table["n_definite"] > 0, "1ormore", "0"))
    ordinal = fit(two, f"burden_x ~ {TERMS}").estimates
    logit = fit(two, f"n_definite > 0 ~ {TERMS}").estimates
    assert -ordinal[-1].value == pytest.approx(logit[0].value, abs=1e-5)
    assert ordinal[-1].error == pytest.approx(logit[0].error, rel=1e-3)
    # With more classes, the upper threshold is the lower one of the reversed classes.
    classes = make_design(table, parse_model(f"burden_count_definite ~ {TERMS}"))
    names = dict(zip(classes.classes, ("3", "2", "1", "0"), strict=True))
    turned = table.assign(burden_x=table["burden_count_definite"].map(names))
    up = fit(table, f"burden_count_definite ~ {TERMS}").estimates
    down = fit(turned, f"burden_x ~ {TERMS}").estimates
    assert up[-1].value == pytest.approx(-down[4].value, abs=1e-5)
    assert up[-1].error == pytest.approx(down[4].error, rel=1e-3)


def test_a_hurdle_is_a_logistic_and_a_truncated_model(table: pd.DataFrame) -> None:
    found = fit(table, f"hurdle: n_definite ~ {TERMS}")
    logit = polished(DIRECT["n_definite > 0"](table))
    assert numbers(found, "presence")[0] == pytest.approx(logit.params.to_numpy(), abs=1e-6)
    assert numbers(found, "presence")[1] == pytest.approx(logit.bse.to_numpy(), abs=1e-6)
    design = make_design(table, parse_model(f"n_definite ~ {TERMS}"))
    whole = HurdleCountModel(design.y, design.x.to_numpy(), dist="negbin")
    direct = polished(whole.model2)
    assert numbers(found, "count")[0] == pytest.approx(direct.params, abs=1e-6)
    assert numbers(found, "count")[1] == pytest.approx(direct.bse, rel=1e-5)


def test_a_hurdle_without_over_dispersion_is_a_truncated_poisson_model() -> None:
    table = make_cohort(120, seed=3)
    table["n_definite"] = np.resize([0.0, 2.0, 3.0, 2.0, 4.0], 120)
    found = fit(table, "hurdle: n_definite ~ age")
    assert (found.kind, found.dispersion) == ("hurdle-poisson", None)
    design = make_design(table[table["n_definite"] > 0], parse_model("n_definite ~ age"))
    direct = polished(TruncatedLFPoisson(design.y, design.x.to_numpy()))
    assert numbers(found, "count")[0] == pytest.approx(direct.params, abs=1e-6)


def test_intervals_allow_for_the_dispersion_that_is_estimated(table: pd.DataFrame) -> None:
    reach = stats.t.ppf(0.975, 145)
    for formula, wider in (("n_definite", np.sqrt(150 / 145)), ("poisson: n_definite", 1.0)):
        item = fit(table, f"{formula} ~ {TERMS}").estimates[1]
        low, high = item.interval
        assert item.df == 145
        assert high - low == pytest.approx(2 * reach * wider * item.error)
        # The p-value is 0.05 where the interval ends at 0.
        level = 2 * stats.t.sf(abs(item.value) / (item.error * wider), 145)
        assert item.p == pytest.approx(level) and (item.p < 0.05) == (low > 0 or high < 0)
    robust = fit(table, f"n_definite ~ {TERMS}", cluster="group").estimates[1]
    assert (robust.df, robust.widening) == (11, 1.0)


def test_numbers_of_a_hurdle_have_the_freedom_of_those_who_have_any(table: pd.DataFrame) -> None:
    some = int((table["n_definite"] > 0).sum())
    for item in fit(table, f"hurdle: n_definite ~ {TERMS}").estimates:
        assert item.df == (145 if item.part == "presence" else some - 5)
        assert item.widening == (1.0 if item.part == "presence" else np.sqrt(some / (some - 5)))


def test_excess_zeros_tell_nothing_of_the_counts(table: pd.DataFrame) -> None:
    found = fit(table, f"zinb: n_definite ~ {TERMS}")
    assert found.kind == "zinb"
    # The share of excess zeros is one number here: its log odds are the last coefficient.
    counted = 150 / (1 + np.exp(found.estimates[-1].value))
    for item in found.estimates:
        assert item.df == pytest.approx(145 if item.part == "zeros" else counted - 5)
        wide = np.sqrt(counted / (counted - 5)) if item.part == "count" else 1.0
        assert item.widening == pytest.approx(wide)
    assert 30 < counted < 150


def test_an_offset_has_a_coefficient_of_one(table: pd.DataFrame) -> None:
    direct = polished(
        smf.negativebinomial("n_definite ~ age", table, offset=np.log(table["years"]))
    )
    found = fit(table, "n_definite ~ age + offset(np.log(years))")
    assert [item.value for item in found.estimates] == pytest.approx(direct.params, abs=1e-6)
    # An offset that is the same for all goes into the constant.
    even = fit(table.assign(years=2.0), "n_definite ~ age + offset(log(years))").estimates
    plain = fit(table, "n_definite ~ age").estimates
    assert even[0].value == pytest.approx(plain[0].value - np.log(2.0), abs=1e-6)


def test_built_in_effects_come_back() -> None:
    found = fit(make_cohort(6000, seed=9, alpha=1.5), f"n_definite ~ {TERMS}")
    assert found.dispersion == pytest.approx(1.5, abs=0.2)
    for item in found.estimates:
        if item.column in EFFECTS:
            assert abs(item.value - EFFECTS[item.column]) < 4 * item.error


def test_the_order_of_the_rows_and_the_unit_do_not_matter(table: pd.DataFrame) -> None:
    plain = fit(table, "n_definite ~ age").estimates
    turned = fit(table[::-1].reset_index(drop=True), "n_definite ~ I(age / 10)").estimates
    assert turned[1].value == pytest.approx(10 * plain[1].value, abs=1e-7)
    assert turned[1].error == pytest.approx(10 * plain[1].error, abs=1e-7)


def test_counts_without_over_dispersion_are_fitted_by_poisson() -> None:
    table = make_cohort(100, seed=2)
    table["n_definite"] = np.resize([1.0, 2.0, 3.0, 2.0], 100)  # less spread than Poisson counts
    found = fit(table, "n_definite ~ age")
    assert (found.kind, found.dispersion) == ("poisson", None)


@pytest.mark.parametrize(("kind", "plain"), [("zip", "poisson"), ("zinb", "poisson")])
def test_a_model_of_excess_zeros_without_any_is_simpler(kind: str, plain: str) -> None:
    table = make_cohort(100, seed=2)
    table["n_definite"] = np.resize([1.0, 2.0, 3.0, 2.0], 100)
    assert fit(table, f"{kind}: n_definite ~ age").kind == plain


def test_a_class_without_anybody_has_no_threshold() -> None:
    table = make_cohort(90, seed=2)
    whole = make_design(table, parse_model("burden_count_definite ~ age"))
    some = whole.take(whole.y != 1.0)
    assert [item.column for item in fit_design(some).estimates] == ["age", "0|2to4", "2to4|5ormore"]


def test_a_constant_outcome_has_no_fit() -> None:
    with pytest.raises(NotFittedError, match="the same"):
        fit(make_cohort(n_definite=0.0), "n_definite ~ age")


# --- separation ----------------------------------------------------------------------------------


def test_a_group_without_events_is_separated() -> None:
    table = make_cohort(90, seed=5)
    table.loc[table["site"] == "C", "n_definite"] = 0.0
    whole = make_design(table, parse_model("n_definite ~ age + C(site)"))
    rest, lost = without_separation(whole)
    assert lost == ("C(site)[T.C]",)
    others = table[table["site"] != "C"].reset_index(drop=True)
    without = fit(others, "n_definite ~ age + C(site)")
    assert [item.value for item in fit_design(rest).estimates] == pytest.approx(
        [item.value for item in without.estimates], abs=1e-6
    )


@pytest.mark.parametrize(
    "formula",
    [
        "n_definite ~ age + C(site)",
        "poisson: n_definite ~ age + C(site)",
        "hurdle: n_definite ~ age + C(site)",
        "n_definite > 0 ~ age + C(site)",
    ],
)
def test_which_level_is_the_reference_does_not_matter_where_one_has_no_events(formula) -> None:
    table = make_cohort(160, seed=5)
    table.loc[table["site"] == "A", "n_definite"] = 0.0
    # The sites that are left differ in age and in counts, so that site matters for age.
    table.loc[table["site"] == "C", "age"] += 6.0
    others = table[table["site"] != "A"].reset_index(drop=True)
    expected = {
        (item.part, item.column): (item.value, item.error)
        for item in fit(others, formula).estimates
    }
    for name in ("A", "Z"):  # the first one is the reference, the last one is not
        named = table.assign(site=table["site"].replace("A", name))
        rest, lost = without_separation(make_design(named, parse_model(formula)))
        found = {(item.part, item.column): item for item in fit_design(rest).estimates}
        if name == "A":
            assert set(lost) == {"Intercept", "C(site)[T.B]", "C(site)[T.C]"}
        else:
            assert lost == ("C(site)[T.Z]",)
        for key, item in found.items():
            if item.column in lost:
                assert np.isnan(item.error)
            elif key[1] != "alpha":
                assert (item.value, item.error) == pytest.approx(expected[key], abs=1e-5), key
        assert any(
            column == "age" and np.isfinite(found[part, column].error) for part, column in found
        )


def test_a_group_with_only_events_is_separated_for_presence_alone() -> None:
    table = make_cohort(90, seed=5)
    table.loc[table["site"] == "C", "n_definite"] = 3.0
    presence = make_design(table, parse_model("n_definite > 0 ~ C(site)"))
    assert without_separation(presence)[1] == ("C(site)[T.C]",)
    count = make_design(table, parse_model("n_definite ~ C(site)"))
    assert without_separation(count)[1] == ()


def test_a_number_can_separate() -> None:
    table = make_cohort(60, seed=5)
    table["age"] = 60.0 + np.arange(60) / 2
    table["n_definite"] = (table["age"] > 75).astype(float)
    found = make_design(table, parse_model("n_definite > 0 ~ age"))
    assert "age" in without_separation(found)[1]


def test_overlapping_groups_are_not_separated() -> None:
    x = np.column_stack([np.ones(8), [0, 0, 0, 0, 1, 1, 1, 1]]).astype(float)
    y = np.array([0, 1, 0, 0, 1, 1, 0, 1], dtype=float)
    for binary in (True, False):
        columns, rows = separated_columns(y, x, binary=binary)
        assert not columns.any() and not rows.any()


def test_ordinal_separation_has_no_fit() -> None:
    table = make_cohort(90, seed=5)
    table["burden_x"] = np.where(table["site"] == "C", "2to4", np.resize(["0", "1"], 90))
    with pytest.raises(NotFittedError):
        fit(table, "burden_x ~ C(site)")
