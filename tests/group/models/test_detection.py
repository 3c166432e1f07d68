"""The detector's doubt widens intervals, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmbprep.group.models.design import make_design
from cmbprep.group.models.detection import pool, refit_over_draws
from cmbprep.group.models.fitting import Fit, fit_design
from cmbprep.group.models.formula import parse_model
from cmbprep.group.models.search import NotFittedError
from tests.group.models.cohort import make_cohort

AGE = ("count", "age")


def fit() -> Fit:
    return fit_design(make_design(make_cohort(90, seed=2), parse_model("n_definite ~ age")))


def thinned(found: Fit, share: float, seed: int = 0) -> Any:
    return lambda number: (
        np.random.default_rng([seed, number]).binomial(found.design.y.astype(int), share) * 1.0,
        (),
    )


def test_pooling_follows_rubins_rules() -> None:
    # Three estimates: within 0.04, between 0.01; total 0.04 + 4/3 * 0.01.
    found = pool([0.4, 0.5, 0.6], [0.2, 0.2, 0.2], df=50)
    total = 0.04 + 4 / 3 * 0.01
    assert found.value == pytest.approx(0.5)
    assert found.error == pytest.approx(np.sqrt(total))
    assert found.share == pytest.approx(4 / 3 * 0.01 / total)
    old = 2 / found.share**2
    observed = 51 / 53 * 50 * (1 - found.share)
    assert found.df == pytest.approx(1 / (1 / old + 1 / observed))


def test_draws_that_agree_change_nothing() -> None:
    whole = fit()
    found = refit_over_draws(whole, thinned(whole, 1.0), 3)
    (slope,) = [item for item in whole.estimates if item.column == "age"]
    pooled = found.pooled[AGE]
    assert pooled.value == pytest.approx(slope.value, abs=1e-7)
    assert pooled.error == pytest.approx(slope.error * slope.widening, abs=1e-7)
    assert (found.n_short, found.most_unknown) == (0, 0)
    assert (pooled.share, found.n_lost) == (pytest.approx(0.0, abs=1e-10), 0)
    assert set(found.pooled) == {("count", "Intercept"), AGE}


def test_more_doubt_makes_wider_intervals() -> None:
    whole = fit()
    errors = [
        refit_over_draws(whole, thinned(whole, share), 20).pooled[AGE].error
        for share in (1.0, 0.8, 0.4)
    ]
    assert errors == sorted(errors) and errors[2] > 1.2 * errors[0]


def test_the_draws_decide() -> None:
    whole = fit()
    first, again, other = (
        refit_over_draws(whole, thinned(whole, 0.7, seed), 4).pooled[AGE] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_lost_draws_are_counted_and_too_many_give_nothing() -> None:
    whole = fit()

    def draw(number: int) -> tuple[np.ndarray, tuple[str, ...]]:
        if number % 2:
            raise NotFittedError("no level")
        return whole.design.y, ()

    found = refit_over_draws(whole, draw, 10)
    assert (found.n_draws, found.n_lost, found.pooled) == (10, 5, {})


def test_outcomes_that_are_not_known_are_left_out_and_counted() -> None:
    whole = fit()
    unknown = np.where(np.arange(90) < 5, np.nan, whole.design.y)
    found = refit_over_draws(whole, lambda _: (unknown, ()), 2)
    assert (found.n_short, found.most_unknown) == (2, 5)
    rest = fit_design(whole.design.take(np.arange(90) >= 5))
    assert found.pooled[AGE].value == pytest.approx(rest.estimates[1].value, abs=1e-7)
