"""Models of a follow-up: rates per year, and warnings on what changed between the visits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.discrete.discrete_model import NegativeBinomial, Poisson

from cmbprep.group.models import FittedModel, ModelOptions, fit_models, parse_models
from cmbprep.group.models.followup import is_followup
from tests.group.models.cohort import make_cohort

RATE = {"Intercept": np.log(0.8), "age": 0.04}


def make_followed(n: int = 300, *, seed: int = 1, alpha: float = 1.0, **columns: Any) -> Any:
    """Make a cohort with counts of new microbleeds in proportion to the time, which grows with age.

    Without the time in the model, the effect of age is therefore larger than the one built in.
    """
    table, random = make_cohort(n, seed=seed), np.random.default_rng([seed, 1])
    years = np.exp(0.05 * (table["age"] - 72.0) + random.normal(0.5, 0.3, n))
    mean = years * np.exp(RATE["Intercept"] + RATE["age"] * (table["age"] - 72.0))
    spread = random.gamma(1 / alpha, alpha, n) if alpha else 1.0
    return table.assign(
        older=table["age"] - 72.0,
        follow_up_years=years,
        n_new_any=random.poisson(mean * spread).astype(float),
        **columns,
    )


def model(table: pd.DataFrame, formula: str, **options: Any) -> FittedModel:
    (found,) = fit_models(table, parse_models((formula,)), ModelOptions(**options))
    return found


def warned(found: FittedModel, words: str) -> bool:
    return any(words in warning for warning in found.warnings)


def values(found: FittedModel) -> dict[str, float]:
    return {item["term"]: item["estimate"] for item in found.rows}


@pytest.mark.parametrize(("kind", "alpha"), [("nb", 1.0), ("poisson", 0.0)])
def test_an_offset_of_the_time_gives_the_rate_per_year(kind: str, alpha: float) -> None:
    table = make_followed(alpha=alpha)
    found = model(table, f"{kind}: n_new_any ~ older + offset(log(follow_up_years))")
    x = np.column_stack([np.ones(len(table)), table["older"]])
    direct = {"nb": NegativeBinomial, "poisson": Poisson}[kind](
        table["n_new_any"].to_numpy(), x, exposure=table["follow_up_years"].to_numpy()
    ).fit(disp=0, method="bfgs", maxiter=500, gtol=1e-9)
    rows = {item["term"]: item for item in found.rows}
    for number, term in enumerate(("Intercept", "older")):
        assert rows[term]["estimate"] == pytest.approx(direct.params[number], abs=1e-6)
        assert rows[term]["se"] == pytest.approx(direct.bse[number], abs=1e-6)
    assert rows["Intercept"]["ratio_low"] < 0.8 < rows["Intercept"]["ratio_high"]
    assert rows["older"]["ratio_low"] < np.exp(RATE["age"]) < rows["older"]["ratio_high"]
    assert not warned(found, "offset")
    assert "with the offset log(follow_up_years)" in found.methods_sentence


def test_known_rates_come_back_over_many_cohorts_and_not_without_the_time() -> None:
    with_time, without = [], []
    for seed in range(12):
        table = make_followed(300, seed=seed)
        with_time.append(values(model(table, "n_new_any ~ older + offset(log(follow_up_years))")))
        without.append(values(model(table, "n_new_any ~ older")))
    for term, true in (("Intercept", RATE["Intercept"]), ("older", RATE["age"])):
        found = np.array([item[term] for item in with_time])
        assert abs(found.mean() - true) < 3.5 * found.std(ddof=1) / np.sqrt(len(found))
    biased = np.array([item["older"] for item in without])
    assert biased.mean() - RATE["age"] == pytest.approx(0.05, abs=0.015)


def test_counts_without_the_time_are_told_how_to_add_it() -> None:
    table = make_followed(90)
    low, high = table["follow_up_years"].min(), table["follow_up_years"].max()
    found = model(table, "n_new_any ~ age")
    assert warned(found, f"the follow-up took {low:.3g} to {high:.3g} years")
    assert warned(found, "+ offset(log(follow_up_years))")
    assert warned(model(table, "n_new_any ~ age + offset(follow_up_years)"), "not a logarithm")
    present = model(table, "n_new_any > 0 ~ age")
    assert warned(present, "add the term log(follow_up_years)")
    assert not warned(model(table, "n_new_any > 0 ~ age + log(follow_up_years)"), "follow-up")
    table["follow_up_years"] = np.nan
    assert warned(model(table, "n_new_any ~ age"), "time between the visits is not known")
    table = make_followed(90, n_persistent_any=2.0)
    for other in ("n_persistent_any", "n_definite"):
        assert not warned(model(table, f"{other} ~ age"), "follow-up took")


def test_a_follow_up_of_no_time_leaves_the_participant_out() -> None:
    table = make_followed(90)
    table.loc[3, "follow_up_years"] = 0.0
    found = model(table, "n_new_any ~ age + offset(log(follow_up_years))")
    assert found.design.n_left_out == 1
    assert found.design.missing == {"a term that is not finite, such as log(0)": "1"}


def test_changes_between_the_visits_are_counted() -> None:
    changed = np.arange(90) % 5 == 0
    table = make_followed(
        90,
        follow_up_protocol_changed=pd.Series(changed).astype(object),
        follow_up_settings_changed=pd.Series(np.arange(90) == 7).astype(object),
        follow_up_limits=np.where(
            changed,
            "echo time 20 to 40 ms; scanner A to B",
            np.where(np.arange(90) == 8, "x", None),
        ),
    )
    table.loc[0, "n_new_any"] = np.nan
    formula = "n_new_any ~ age + offset(log(follow_up_years))"
    found = model(table, formula)
    assert warned(
        found,
        "in 17 of 89 participants the protocol changed between the visits (echo time 20 to 40 ms: "
        "17, scanner A to B: 17)",
    )
    assert warned(found, "--strata follow_up_protocol_changed")
    assert warned(found, "in 1 of 89 participants reader, detector, threshold or version changed")
    assert warned(found, "the follow-up of 1 of 89 participants has limits (x: 1)")
    inside = model(table, f"{formula} + follow_up_protocol_changed")
    assert not warned(inside, "the protocol changed between")
    assert any("follow_up_protocol_changed: True" in item["label"] for item in inside.rows)
    table["follow_up_protocol_changed"] = True
    assert warned(model(table, formula), "in 89 of 89 participants the protocol changed")
    assert warned(model(table, formula), "no model can tell")
    assert not warned(model(table, "n_definite ~ age"), "visits")


def test_without_the_columns_nothing_is_said_of_changes() -> None:
    found = model(make_followed(90), "n_new_any ~ age + offset(log(follow_up_years))")
    assert not warned(found, "visits") and not warned(found, "limits")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("n_new_definite_lobar", True),
        ("n_gone_any", True),
        ("n_not_assessable_any", True),
        ("new_any_per_year", True),
        ("aria_h_new_any", True),
        ("n_any", False),
        ("n_new_drugs", False),
    ],
)
def test_columns_of_a_follow_up_are_known(column: str, expected: bool) -> None:
    assert is_followup(column) == expected
