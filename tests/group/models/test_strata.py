"""Models in strata: each stratum apart, pooled by inverse variance, and told where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.discrete.discrete_model import NegativeBinomial, Poisson
from statsmodels.stats.meta_analysis import combine_effects

from cmbprep.errors import UsageError
from cmbprep.group.models import ModelOptions, StratifiedModel, fit_models, parse_models
from cmbprep.group.models.page import model_sections
from cmbprep.group.models.strata import combine, split
from cmbprep.group.models.tables import checks_table, models_table
from cmbprep.reports.figures.canvas import check_figure
from tests.group.models.cohort import EFFECTS, make_cohort
from tests.group.models.test_models import redrawn

FORMULA = "n_definite ~ age + hypertension"


def model(
    table: pd.DataFrame,
    formula: str = FORMULA,
    strata: str = "site",
    redraw: Any = None,
    **more: Any,
) -> StratifiedModel:
    options = ModelOptions(strata=strata, **more)
    (found,) = fit_models(table, parse_models((formula,)), options, redraw=redraw)
    assert isinstance(found, StratifiedModel)
    return found


def rows(found: StratifiedModel, stratum: str) -> dict[str, dict[str, Any]]:
    return {row["term"]: row for row in found.rows if row["stratum"] == stratum}


def warned(found: StratifiedModel, words: str) -> bool:
    return any(words in warning for warning in found.warnings)


def direct(table: pd.DataFrame, kind: str, terms: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Fit each site with statsmodels; return estimates, errors and degrees of freedom."""
    values, errors, df = [], [], []
    for _, own in table.groupby("site"):
        x = np.column_stack([np.ones(len(own)), *(own[term] for term in terms)])
        centred = x - np.r_[0.0, x[:, 1:].mean(axis=0)]
        likelihood = {"nb": NegativeBinomial, "poisson": Poisson}[kind]
        y = own["n_definite"].to_numpy()
        start = likelihood(y, centred).fit(method="bfgs", maxiter=1000, disp=0)
        at = start.params.copy()
        at[0] -= at[1 : x.shape[1]] @ x[:, 1:].mean(axis=0)
        fit = likelihood(y, x).fit(start_params=at, method="newton", disp=0)
        fit = likelihood(y, x).fit(start_params=fit.params, method="newton", disp=0)
        freedom = len(own) - x.shape[1]
        wider = np.sqrt(len(own) / freedom) if kind == "nb" else 1.0
        values.append(fit.params[1 : x.shape[1]])
        errors.append(fit.bse[1 : x.shape[1]] * wider)
        df.append(freedom)
    return np.array(values), np.array(errors), np.array(df)


@pytest.mark.parametrize(("kind", "alpha"), [("nb", 1.0), ("poisson", 0.0)])
def test_pooled_coefficients_are_those_of_statsmodels(kind: str, alpha: float) -> None:
    table = make_cohort(240, seed=3, alpha=alpha)
    found = model(table, f"{kind}: {FORMULA}")
    values, errors, df = direct(table, kind, ("age", "hypertension"))
    pooled = rows(found, "pooled")
    checks = {(check.check, check.column): check for check in found.checks if check.p is not None}
    for place, term in enumerate(("age", "hypertension")):
        expected = combine_effects(values[:, place], errors[:, place] ** 2)
        assert pooled[term]["estimate"] == pytest.approx(expected.mean_effect_fe, abs=1e-6)
        assert pooled[term]["se"] == pytest.approx(expected.sd_eff_w_fe, abs=1e-6)
        check = checks["heterogeneity", term]
        assert check.value == pytest.approx(expected.q, abs=1e-5)
        assert check.p == pytest.approx(expected.test_homogeneity().pvalue, abs=1e-6)
        (i2,) = [one for one in found.checks if (one.check, one.column) == ("I2", term)]
        assert i2.value == pytest.approx(max(0.0, expected.i2), abs=1e-6)
        weights = expected.weights_fe
        share = weights / weights.sum()
        freedom = 1 / (share**2 / df).sum()
        assert pooled[term]["df"] == pytest.approx(freedom, rel=1e-6)
        # Meier's correction for estimated weights.
        wide = expected.sd_eff_w_fe * np.sqrt(1 + 4 * (share * (1 - share) / df).sum())
        reach = stats.t.ppf(0.975, freedom) * wide
        for name, end in (("ratio_low", -reach), ("ratio_high", reach)):
            value = np.exp(expected.mean_effect_fe + end)
            assert pooled[term][name] == pytest.approx(value, abs=1e-5)
        p = 2 * stats.t.sf(abs(expected.mean_effect_fe) / wide, freedom)
        assert pooled[term]["p"] == pytest.approx(p, abs=1e-6)
    assert set(pooled) == {"age", "hypertension"}
    assert pooled["age"]["n"] == 240 and pooled["age"]["note"] == "pooled over 3 of 3 strata"
    for site, own in table.groupby("site"):
        (alone,) = fit_models(own, parse_models((f"{kind}: {FORMULA}",)))
        inside = rows(found, f"site={site}")
        for row in alone.rows:
            assert inside[row["term"]] == {"stratum": f"site={site}", **row}


def test_the_effects_that_were_built_in_come_back() -> None:
    found = []
    for seed in range(12):
        pooled = rows(model(make_cohort(300, seed=100 + seed)), "pooled")
        found.append([pooled[term]["estimate"] for term in ("age", "hypertension")])
    values = np.array(found)
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    true = np.array([EFFECTS["age"], EFFECTS["hypertension"]])
    assert (np.abs(values.mean(axis=0) - true) < 3.5 * errors).all()


def test_strata_with_opposite_effects_are_told_with_q_and_i2() -> None:
    table = make_cohort(300, seed=7)
    turned = table["site"] == "B"
    table.loc[turned, "age"] = 144.0 - table.loc[turned, "age"]
    found = model(table)
    assert warned(found, "the strata differ in age (rate ratio site A: 1.0")
    (i2,) = [one for one in found.checks if (one.check, one.column) == ("I2", "age")]
    assert i2.value is not None and i2.value > 0.5
    assert warned(found, f"I2 = {100 * i2.value:.0f} %")
    assert not warned(model(make_cohort(300, seed=7)), "the strata differ in age")


def test_one_stratum_pools_nothing_and_says_so() -> None:
    table = make_cohort(90, site="A")
    found = model(table)
    (alone,) = fit_models(table, parse_models((FORMULA,)))
    assert warned(found, "all participants are in one stratum (site A)")
    one = {row["term"]: row for row in alone.rows}["age"]
    pooled = rows(found, "pooled")["age"]
    for name in ("estimate", "df", "ratio", "ratio_low", "ratio_high", "p"):
        assert pooled[name] == pytest.approx(one[name], rel=1e-12)
    assert not [check for check in found.checks if check.check in ("heterogeneity", "I2")]
    assert pooled["note"] == "pooled over 1 of 1 strata"


@pytest.mark.parametrize(
    ("n", "changes", "reason"),
    [
        (3, {}, "3 participants are too few for 2 coefficients"),
        (20, {"n_definite": 0.0}, "the outcome is the same for all participants"),
        (6, {"age": np.nan}, "has no participant with all its values"),
    ],
)
def test_a_stratum_without_estimates_is_named_and_not_in_the_pool(
    n: int, changes: dict[str, float], reason: str
) -> None:
    table = make_cohort(180, seed=2)
    whole = model(table[table["site"] != "C"])
    last = table.index[table["site"] == "C"]
    table = table.drop(index=last[n:])
    for name, value in changes.items():
        table.loc[last[:n], name] = value
    found = model(table)
    pooled = rows(found, "pooled")["age"]
    assert pooled["estimate"] == pytest.approx(rows(whole, "pooled")["age"]["estimate"], abs=1e-9)
    assert (pooled["note"], pooled["n"]) == ("pooled over 2 of 3 strata", 120)
    assert pooled["n_left_out"] == n
    assert warned(found, f"the stratum site C ({n} participants) has no estimates")
    assert warned(found, reason) and warned(found, "pooled results are of 2 of 3 strata")
    assert f"without estimates: site C ({n})" in found.methods_sentence
    check_figure(found.forest_svg())


def test_no_stratum_has_estimates() -> None:
    found = model(make_cohort(90, n_definite=0.0))
    assert rows(found, "pooled") == {} and found.coefficients == ()
    assert "there are no estimates" in found.methods_sentence
    check_figure(found.forest_svg())
    assert len(model_sections([found])[0].rows) == 9


def test_the_order_of_the_rows_does_not_matter() -> None:
    table = make_cohort(150, seed=4)
    mixed = table.sample(frac=1.0, random_state=1).reset_index(drop=True)
    one, other = model(table), model(mixed)
    assert len(one.rows) == len(other.rows)
    for row, same in zip(one.rows, other.rows, strict=True):
        assert (row["stratum"], row["term"]) == (same["stratum"], same["term"])
        assert row["estimate"] == pytest.approx(same["estimate"], abs=1e-6)
        assert row["se"] == pytest.approx(same["se"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "column", "levels", "labels"),
    [
        ("field", "MagneticFieldStrength", [3.0, 1.5], ["field=1.5", "field=3"]),
        ("te", "EchoTime", [0.02, 0.04], ["te=20", "te=40"]),
        ("sequence", "sequence", ["SWI", "GRE"], ["sequence=GRE", "sequence=SWI"]),
        ("ward", "ward", [10, 9], ["ward=9", "ward=10"]),
        ("changed", "changed", [True, False], ["changed=false", "changed=true"]),
    ],
)
def test_strata_have_names_in_the_order_of_their_levels(
    name: str, column: str, levels: list[Any], labels: list[str]
) -> None:
    values = pd.Series([levels[n % 2] for n in range(90)])
    table = make_cohort().assign(**{column: values})
    assert [one.label for one in split(table, name).each] == labels
    found = model(table, strata=name, nuisance=("field", "te"))
    assert [part.stratum.label for part in found.parts] == labels
    assert found.parts[0].n == 45


def test_participants_of_no_stratum_are_counted() -> None:
    table = make_cohort(120, seed=3)
    table.loc[0:4, "site"] = None
    found = model(table)
    assert warned(found, "5 participants without a known site are in no stratum")
    pooled = rows(found, "pooled")["age"]
    assert (pooled["n"], pooled["n_left_out"], pooled["missing"]) == (115, 5, "site 5")
    assert "(5 left out: site 5)" in found.methods_sentence


def test_other_reference_levels_are_not_pooled() -> None:
    table = make_cohort(360, seed=3)
    table["scanner"] = np.where(
        table["site"] == "A", np.resize(["X", "Y"], 360), np.resize(["Y", "Z", "Z"], 360)
    )
    table["two"] = np.where(table["site"] == "A", "A", "B")
    found = model(table, "n_definite ~ age + C(scanner)", strata="two")
    pooled = rows(found, "pooled")
    assert pooled["age"]["ratio"] is not None
    assert pooled["C(scanner)[T.Y]"]["note"] == "pooled over 1 of 2 strata"
    table["scanner"] = np.where(
        table["site"] == "A", np.resize(["X", "Z"], 360), np.resize(["Y", "Z"], 360)
    )
    for formula in ("n_definite ~ age + C(scanner)", "n_definite ~ age * C(scanner)"):
        found = model(table, formula, strata="two")
        lost = rows(found, "pooled")["C(scanner)[T.Z]"]
        assert lost["ratio"] is None and "other reference levels" in lost["note"]
        assert warned(found, "scanner: Z against X is not pooled")
        assert (rows(found, "pooled")["age"]["ratio"] is None) == ("*" in formula)


def test_a_coefficient_that_holds_another_effect_is_not_pooled() -> None:
    table = make_cohort(240, seed=3)
    first = table["site"] == "A"
    table["smoking"] = np.where(
        first, table["hypertension"], np.resize([0.0, 1.0, 1.0, 0.0, 1.0], 240)
    )
    found = model(table, "n_definite ~ age + hypertension + smoking")
    assert rows(found, "pooled")["hypertension"]["note"] == "pooled over 2 of 3 strata"
    assert warned(found, "hypertension has an estimate in 2 of 3 strata only")
    assert warned(found, "site A: inseparable: smoking follows from hypertension")


def test_the_detectors_doubt_is_pooled_too() -> None:
    table = make_cohort(180, seed=3)
    table.loc[table["site"] == "C", "source"] = "reviewed"
    found = model(table, redraw=redrawn(table, 0.6), n_draws=6)
    pooled = rows(found, "pooled")["age"]
    parts = [rows(found, f"site={site}")["age"] for site in "ABC"]
    assert "detection_estimate" not in parts[2]
    widened = parts[2]["se"] * np.sqrt(60 / 57)
    values = [parts[0]["detection_estimate"], parts[1]["detection_estimate"], parts[2]["estimate"]]
    errors = [parts[0]["detection_se"], parts[1]["detection_se"], widened]
    expected = combine_effects(np.array(values), np.array(errors) ** 2)
    assert pooled["detection_estimate"] == pytest.approx(expected.mean_effect_fe, abs=1e-9)
    assert 1.0 < pooled["detection_se"] / expected.sd_eff_w_fe < 1.1
    assert 0 < pooled["detection_share"] < max(part.get("detection_share", 0) for part in parts)
    assert pooled["detection_draws"] == 6 and "6 draws" in found.methods_sentence


@pytest.mark.parametrize(
    ("formula", "strata", "words"),
    [
        ("n_definite ~ age", "ward", "no column 'ward'"),
        ("n_definite ~ age", "age", "90 levels"),
        ("n_definite ~ age + C(site)", "site", "a term of the model"),
        ("n_definite ~ standardize(age)", "site", "something else in each stratum"),
        ("n_definite ~ center(age)", "site", "something else in each stratum"),
        ("n_definite ~ age", "empty", "not known of any participant"),
        ("n_definite ~ log(site)", "sequence", "cannot be computed"),
    ],
)
def test_strata_that_cannot_be_used_are_refused(formula: str, strata: str, words: str) -> None:
    table = make_cohort(empty=None)
    table["age"] = np.arange(90) / 2.0
    with pytest.raises(UsageError, match=words):
        model(table, formula, strata=strata)


@pytest.mark.parametrize(
    "formula",
    [FORMULA, "hurdle: n_definite ~ age", "burden_count_definite ~ age", "n_definite > 0 ~ age"],
)
def test_tables_page_and_plot_name_the_strata(formula: str) -> None:
    found = model(make_cohort(240, seed=3), formula)
    names = {"site=A", "site=B", "site=C", "pooled"}
    table, checks = models_table([found]), checks_table([found])
    assert {line["stratum"] for line in table.values} == names
    assert {line["stratum"] for line in checks.values if line["check"] != "methods"} <= names
    for made in (table, checks):
        assert {name for line in made.values for name in line} <= set(made.dictionary)
    assert {line["check"] for line in checks.values} <= set(checks.dictionary["check"]["Levels"])
    (section,) = model_sections([found])
    assert section.columns[0] == "stratum"
    assert {line["stratum"] for line in section.rows} == names
    svg = found.forest_svg()
    check_figure(svg)
    assert svg.count(">pooled (3 of 3 strata)<") == len(found.coefficients)
    assert svg.count(">site B<") == len(found.coefficients)
    assert "apart in 3 strata of site with 240 participants (site A: 80" in found.methods_sentence
    assert "DerSimonian" in found.methods_sentence
    (plain,) = fit_models(make_cohort(), parse_models((FORMULA,)))
    assert {line.get("stratum") for line in models_table([plain]).values} == {None}


def test_pooling_weighs_by_the_inverse_of_the_variance() -> None:
    found = combine([0.2, 0.8], [0.1, 0.2], [40, 40])
    assert found.weights.tolist() == pytest.approx([0.8, 0.2])
    assert found.value == pytest.approx(0.32)
    assert found.error == pytest.approx(np.sqrt(1 / 125))
    assert found.q == pytest.approx(100 * 0.12**2 + 25 * 0.48**2)
    assert found.i2 == pytest.approx(1 - 1 / 7.2)
    assert found.df == pytest.approx(40 / 0.68)
    assert found.widening == pytest.approx(np.sqrt(1 + 4 * (0.16 + 0.16) / 40))
    assert combine([0.2], [0.1], [40]).widening == 1.0
    alike = combine([0.3, 0.3], [0.1, 0.2], [40, 40])
    assert (alike.q, alike.p, alike.i2) == pytest.approx((0.0, 1.0, 0.0), abs=1e-12)
