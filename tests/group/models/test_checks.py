"""Checks: over-dispersion, zeros, influential persons, single sites."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from cmbprep.group.models.checks import (
    N_INFLUENTIAL,
    _information_on_dispersion,
    count_zeros,
    find_estimate,
    influence,
    leave_out_people,
    leave_out_sites,
    measure_dispersion,
)
from cmbprep.group.models.design import make_design
from cmbprep.group.models.fitting import Fit, fit_design
from cmbprep.group.models.formula import parse_model
from tests.group.models.cohort import make_cohort


def fit(table: pd.DataFrame, formula: str) -> Fit:
    return fit_design(make_design(table, parse_model(formula)))


def test_dispersion_is_that_of_statsmodels() -> None:
    table = make_cohort(90, seed=3)
    poisson = smf.poisson("n_definite ~ age", table).fit(method="newton", disp=0)
    full = smf.negativebinomial("n_definite ~ age", table).fit(disp=0, maxiter=500)
    found = measure_dispersion(make_design(table, parse_model("n_definite ~ age")))
    assert found is not None
    mean = poisson.predict()
    pearson = (((table["n_definite"] - mean) ** 2 / mean).sum()) / poisson.df_resid
    assert found.pearson == pytest.approx(pearson, abs=1e-6)
    assert found.statistic == pytest.approx(2 * (full.llf - poisson.llf), abs=1e-5)
    assert found.p == pytest.approx(0.5 * stats.chi2.sf(found.statistic, 1))
    assert found.p < 1e-6


def test_poisson_counts_are_not_over_dispersed() -> None:
    table = make_cohort(900, seed=4, alpha=0.0)
    formula = "n_definite ~ age + hypertension + C(site)"
    found = measure_dispersion(make_design(table, parse_model(formula)))
    assert found is not None
    assert found.pearson == pytest.approx(1.0, abs=0.1) and found.p > 0.05


def test_the_test_of_zeros_is_that_of_van_den_broek() -> None:
    """With a constant alone, the statistic has a closed form."""
    table = make_cohort(80, seed=6)
    found = count_zeros(fit(table, "poisson: n_definite ~ 1"))
    y = table["n_definite"].to_numpy()
    n, mean, none = len(y), y.mean(), (y == 0).sum()
    p0 = np.exp(-mean)
    statistic = (none / p0 - n) ** 2 / (n * (1 - p0) / p0 - n * mean)
    assert found is not None and found.p is not None
    assert found.observed == none
    assert found.expected == pytest.approx(n * p0)
    assert found.p == pytest.approx(stats.norm.sf(np.sqrt(statistic)), rel=1e-6)


def test_zeros_of_a_negative_binomial_model_are_not_excess_zeros() -> None:
    table = make_cohort(300, seed=6, alpha=1.5)
    formula = "age + hypertension + C(site)"
    plain = count_zeros(fit(table, f"nb: n_definite ~ {formula}"))
    as_poisson = count_zeros(fit(table, f"poisson: n_definite ~ {formula}"))
    assert plain is not None and as_poisson is not None
    assert plain.p is not None and plain.p > 0.05
    assert as_poisson.p is not None and as_poisson.p < 1e-6
    table.loc[np.arange(300) % 5 == 0, "n_definite"] = 0.0
    table["n_definite"] *= 3.0
    excess = count_zeros(fit(table, f"nb: n_definite ~ {formula}"))
    assert excess is not None and excess.p is not None and excess.p < 1e-4
    assert excess.observed > excess.expected


@pytest.mark.parametrize(("kind", "alpha"), [("poisson", 0.0), ("nb", 1.5)])
def test_the_test_of_zeros_keeps_its_level(kind: str, alpha: float) -> None:
    """Of cohorts without excess zeros, about one in twenty has a p-value below 0.05."""
    below = 0
    for seed in range(30):
        table = make_cohort(90, seed=1000 + seed, alpha=alpha)
        found = count_zeros(fit(table, f"{kind}: n_definite ~ age + hypertension + C(site)"))
        below += found is not None and found.p is not None and found.p < 0.05
    assert below <= 5  # binomial(30, 0.05) is above once in 300


def test_the_information_on_a_dispersion_is_the_curvature_expected() -> None:
    """Over many persons, the observed curvature comes near to its expectation."""
    whole = fit(make_cohort(6000, seed=4, alpha=1.2), "n_definite ~ age + hypertension + C(site)")
    (engine,) = whole.engines
    mean = np.asarray(engine.model.predict(engine.params))
    expected = _information_on_dispersion(mean, engine.params[-1])
    assert -engine.model.hessian(engine.params)[-1, -1] == pytest.approx(expected, rel=0.05)


def test_kinds_with_their_own_zeros_are_not_tested() -> None:
    assert count_zeros(fit(make_cohort(), "n_definite > 0 ~ age")) is None
    assert count_zeros(fit(make_cohort(), "hurdle: n_definite ~ age")) is None


def test_an_odd_person_is_found_and_left_out() -> None:
    table = make_cohort(90, seed=7)
    table.loc[40, ["age", "n_definite"]] = 105.0, 60.0
    whole = fit(table, "n_definite ~ age")
    people = list(leave_out_people(whole))
    assert len(people) == N_INFLUENTIAL
    label, without = people[0]
    assert label == "sub-041"
    by_hand = fit(table.drop(index=40).reset_index(drop=True), "n_definite ~ age")
    found, expected = (find_estimate(item, "count", "age") for item in (without, by_hand))
    assert found is not None and expected is not None
    assert found.value == pytest.approx(expected.value, abs=1e-7)
    assert found.error == pytest.approx(expected.error, abs=1e-7)


def test_influence_is_the_change_without_a_person() -> None:
    """To first order, so for a large cohort nearly exactly."""
    table = make_cohort(600, seed=8)
    whole = fit(table, "poisson: n_definite ~ age")
    moved = influence(whole)[:, 1]
    slope = find_estimate(whole, "count", "age")
    assert slope is not None
    for row in np.argsort(moved)[-5:]:
        other = find_estimate(
            fit(table.drop(index=row), "poisson: n_definite ~ age"), "count", "age"
        )
        assert other is not None
        assert moved[row] == pytest.approx(abs(other.value - slope.value) / slope.error, rel=0.15)


def test_without_a_site_is_the_fit_of_the_others() -> None:
    table = make_cohort(90, seed=7)
    whole = fit(table, "n_definite ~ age + C(site)")
    found = dict(leave_out_sites(whole))
    assert list(found) == ["A", "B", "C"]
    for site, other in found.items():
        by_hand = fit(
            table[table["site"] != site].reset_index(drop=True), "n_definite ~ age + C(site)"
        )
        one, two = (find_estimate(item, "count", "age") for item in (other, by_hand))
        assert one is not None and two is not None
        assert one.value == pytest.approx(two.value, abs=1e-7)


def test_one_site_is_not_left_out() -> None:
    assert list(leave_out_sites(fit(make_cohort(site="A"), "n_definite ~ age"))) == []
    table = make_cohort().drop(columns="site")
    assert list(leave_out_sites(fit(table, "n_definite ~ age"))) == []
