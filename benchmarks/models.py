"""Whether the intervals of the models hold what was built into a cohort.

    python benchmarks/models.py [--cohorts 500] [--seed 30000] [--only NAME] [--json FILE]

Cohorts of 3 sites with 20 people each are drawn at the level of the table: age, hypertension and
site have effects on the counts, which are over-dispersed, and the models of ``cmbprep group
--model`` are fitted to each. For each kind of model, the command prints in how many cohorts the
95 % interval of each coefficient holds the effect, and the same for other intervals that could
have been chosen. ``detection`` draws what a detector with known probabilities lists instead of the
microbleeds, and compares intervals with and without its doubt. ``strata`` fits each site apart and
pools, with 20 people per site and with 60. No image is involved.

The way of computing intervals was chosen on cohorts of the seed 1; the default seed draws others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from cmbprep.group.models.design import Design, make_design
from cmbprep.group.models.detection import refit_over_draws
from cmbprep.group.models.fitting import Fit, bounds, fit_design
from cmbprep.group.models.formula import parse_model
from cmbprep.group.models.search import NotFittedError, likelihoods, quiet
from cmbprep.group.models.separation import without_separation
from cmbprep.group.models.strata import combine

SITES, PER_SITE = ("A", "B", "C"), 20
TERMS = "age + hypertension + C(site)"
#: Effects on the logarithm of the expected count, or of the odds.
EFFECTS = {"age": 0.035, "hypertension": 0.5, "C(site)[T.B]": 0.4, "C(site)[T.C]": -0.4}
DRAWS = 20
#: Study of strata -> people per site.
STRATA = {"strata, 20 per site": 20, "strata, 60 per site": 60}


@dataclass(frozen=True)
class Study:
    """A kind of cohort, and the model that is fitted to it.

    Attributes
    ----------
    formula
        The model.
    outcome
        Returns the counts, from the linear predictor without its constant and random numbers.
    part
        Part of the model that has the effects.
    """

    formula: str
    outcome: Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]
    part: str = "count"


def negative_binomial(
    linear: NDArray[np.float64],
    random: np.random.Generator,
    *,
    constant: float = 0.5,
    alpha: float = 1.5,
) -> NDArray[np.float64]:
    """Draw counts; an ``alpha`` of 0 draws Poisson counts."""
    mean = np.exp(constant + linear)
    doubt = random.gamma(1.0 / alpha, alpha, len(linear)) if alpha else 1.0
    return random.poisson(mean * doubt).astype(float)


def with_excess(
    linear: NDArray[np.float64], random: np.random.Generator, *, alpha: float
) -> NDArray[np.float64]:
    """Draw counts of which 30 % are 0 whatever the terms say."""
    counts = negative_binomial(linear, random, constant=1.5, alpha=alpha)
    return np.where(random.random(len(linear)) < 0.3, 0.0, counts)


def presence(
    linear: NDArray[np.float64], random: np.random.Generator, *, count: bool = False
) -> NDArray[np.float64]:
    """Draw a presence with odds of the effects; with ``count``, also a number where it is there."""
    there = random.random(len(linear)) < 1.0 / (1.0 + np.exp(-linear))
    return np.where(there, above_zero(0.0 * linear, random) if count else 1.0, 0.0)


def above_zero(linear: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Draw zero-truncated negative binomial counts."""
    counts = np.zeros(len(linear))
    while (counts == 0).any():
        again = negative_binomial(linear, random, constant=1.2, alpha=0.8)
        counts = np.where(counts == 0, again, counts)
    return counts


def truncated(linear: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Draw a presence without effects, and counts above 0 with them."""
    return np.where(random.random(len(linear)) < 0.7, above_zero(linear, random), 0.0)


def latent(linear: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Draw the class of a proportional odds model, as a count at the lower limit of the class."""
    place = linear + random.logistic(size=len(linear))
    return np.array([0.0, 1.0, 2.0, 5.0])[np.searchsorted([-0.3, 0.6, 1.6], place)]


STUDIES = {
    "nb": Study(f"n_definite ~ {TERMS}", negative_binomial),
    "nb, strong over-dispersion": Study(
        f"n_definite ~ {TERMS}", partial(negative_binomial, alpha=3.0)
    ),
    "nb, few microbleeds": Study(
        f"n_definite ~ {TERMS}", partial(negative_binomial, constant=-0.5)
    ),
    "nb, Poisson counts": Study(f"n_definite ~ {TERMS}", partial(negative_binomial, alpha=0.0)),
    "poisson, Poisson counts": Study(
        f"poisson: n_definite ~ {TERMS}", partial(negative_binomial, alpha=0.0)
    ),
    "zip": Study(f"zip: n_definite ~ {TERMS}", partial(with_excess, alpha=0.0)),
    "zinb": Study(f"zinb: n_definite ~ {TERMS}", partial(with_excess, alpha=0.5)),
    "hurdle, presence": Study(
        f"hurdle: n_definite ~ {TERMS}", partial(presence, count=True), "presence"
    ),
    "hurdle, numbers": Study(f"hurdle: n_definite ~ {TERMS}", truncated),
    "logit": Study(f"n_definite > 0 ~ {TERMS}", presence, "presence"),
    "ordinal": Study(f"burden_count_definite ~ {TERMS}", latent, "class"),
}


def draw_cohort(
    study: Study, random: np.random.Generator, per_site: int = PER_SITE
) -> pd.DataFrame:
    """Draw a table of participants."""
    n = len(SITES) * per_site
    site = np.repeat(SITES, per_site)
    age = random.normal(72.0, 8.0, n)
    hypertension = (random.random(n) < 0.5).astype(float)
    linear = EFFECTS["age"] * (age - 72.0) + EFFECTS["hypertension"] * hypertension
    for name in SITES[1:]:
        linear += EFFECTS[f"C(site)[T.{name}]"] * (site == name)
    counts = study.outcome(linear, random)
    names = np.array(["0", "1", "2to4", "5ormore"])
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{number:02d}" for number in range(1, n + 1)],
            "site": site,
            "age": age,
            "hypertension": hypertension,
            "n_definite": counts,
            "burden_count_definite": names[np.searchsorted([1.0, 2.0, 5.0], counts, side="right")],
        }
    )


class Coverage:
    """Counts how often an interval holds the truth, by way of computing it and coefficient."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, list[bool]]] = {}
        self.bias: dict[str, list[float]] = {}
        self.failed = 0

    def add(self, way: str, column: str, low: float, high: float) -> None:
        """Note whether one interval holds the effect."""
        found = self.held.setdefault(way, {}).setdefault(column, [])
        found.append(bool(low <= EFFECTS[column] <= high))

    def shares(self) -> Iterator[tuple[str, dict[str, float], float]]:
        """Yield way, share by coefficient, and their mean."""
        for way, columns in self.held.items():
            shares = {name: float(np.mean(held)) for name, held in columns.items()}
            yield way, shares, float(np.mean(list(shares.values())))


def own_intervals(fit: Fit, part: str) -> Iterator[tuple[str, float, float, float]]:
    """Yield coefficient, estimate, standard error and degrees of freedom of the effects.

    The error is that of the program's intervals.
    """
    for item in fit.estimates:
        if item.part == part and item.column in EFFECTS and np.isfinite(item.error):
            yield item.column, item.value, item.error * item.widening, item.df


def sandwich(fit: Fit, part: str) -> Iterator[tuple[str, float, float]]:
    """Yield the effects with errors robust to any variance (HC1), as statsmodels computes them."""
    for likelihood, engine in zip(likelihoods(fit.design, fit.kind), fit.engines, strict=True):
        with quiet():
            result = likelihood.model.fit(
                start_params=engine.params, method="newton", disp=0, cov_type="HC1"
            )
        errors = np.sqrt(np.diag(np.asarray(result.cov_params())))
        for (own, column), value, error in zip(engine.names, engine.params, errors, strict=True):
            if own == part and column in EFFECTS:
                yield column, float(value), float(error)


def measure(study: Study, random: np.random.Generator, coverage: Coverage) -> None:
    """Fit one cohort, and count which intervals hold the effects."""
    request = parse_model(study.formula)
    design, lost = without_separation(make_design(draw_cohort(study, random), request))
    if lost:
        coverage.failed += 1
        return
    try:
        fit = fit_design(design)
    except NotFittedError:
        coverage.failed += 1
        return
    normal = float(stats.norm.ppf(0.975))
    for item in fit.estimates:
        if item.part != study.part or item.column not in EFFECTS or not np.isfinite(item.error):
            continue
        column, value, error = item.column, item.value, item.error
        coverage.add("the program's", column, *item.interval)
        if item.widening > 1.0:
            coverage.add("t, error as it is", column, *bounds(value, error, item.df))
        coverage.add("normal", column, value - normal * error, value + normal * error)
        coverage.bias.setdefault(column, []).append(value - EFFECTS[column])
    if design.kind in ("nb", "poisson", "logit"):
        for column, value, error in sandwich(fit, study.part):
            coverage.add("robust (HC1), t", column, *bounds(value, error, fit.df))
        for column, value, error, df in own_intervals(_clustered(design), study.part):
            if not column.startswith("C(site)"):
                coverage.add("cluster-robust by site, t", column, *bounds(value, error, df))
    if design.kind == "nb":
        for column, value, error, df in own_intervals(fit_design(design, kind="poisson"), "count"):
            coverage.add("Poisson model, t", column, *bounds(value, error, df))


def _clustered(design: Design) -> Fit:
    return fit_design(replace(design, clusters=design.sites))


# --- the detector's doubt ------------------------------------------------------------------------


def measure_detection(random: np.random.Generator, coverage: Coverage) -> None:
    """Fit counts of a detector, with and without its doubt; the effects are on true counts.

    Each person has candidates in proportion to the expected count. A candidate has a probability
    from a beta distribution of mean 2/3, and is a microbleed with this probability; the detector
    lists all of them.
    """
    study = Study(f"n_definite ~ {TERMS}", partial(negative_binomial, constant=0.9))
    table = draw_cohort(study, random)
    each = [random.beta(2.0, 1.0, int(number)) for number in table["n_definite"]]
    truth = [float((random.random(len(p)) < p).sum()) for p in each]
    request = parse_model(study.formula)

    seed = int(random.integers(2**31))

    def outcomes(number: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        draws = np.random.default_rng([seed, number])
        return np.array([float((draws.random(len(p)) < p).sum()) for p in each]), ()

    try:
        listed = fit_design(make_design(table, request))
        real = fit_design(make_design(table.assign(n_definite=truth), request))
        pooled = refit_over_draws(listed, outcomes, DRAWS).pooled
    except NotFittedError:
        coverage.failed += 1
        return
    for way, fit in (("true counts", real), ("counts as listed", listed)):
        for column, value, error, df in own_intervals(fit, "count"):
            coverage.add(way, column, *bounds(value, error, df))
    for (_, column), item in pooled.items():
        if column in EFFECTS:
            ends = bounds(item.value, item.error, item.df)
            coverage.add("with the detector's doubt", column, *ends)


def measure_strata(random: np.random.Generator, coverage: Coverage, per_site: int) -> None:
    """Fit each site apart, and count which pooled intervals hold the effects.

    A pooled coefficient needs the estimates of at least one site, as in the program.
    """
    study = Study("n_definite ~ age + hypertension", negative_binomial)
    table, request = draw_cohort(study, random, per_site), parse_model(study.formula)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _, own in table.groupby("site"):
        try:
            fit = fit_design(without_separation(make_design(own, request))[0])
        except NotFittedError:
            coverage.failed += 1
            continue
        for column, *numbers in own_intervals(fit, "count"):
            found.setdefault(column, []).append((numbers[0], numbers[1], numbers[2]))
    normal = float(stats.norm.ppf(0.975))
    for column, numbers in found.items():
        one = combine(*zip(*numbers, strict=True))
        wide = one.error * one.widening
        coverage.add("pooled over sites", column, *bounds(one.value, wide, one.df))
        coverage.add("without the widening", column, *bounds(one.value, one.error, one.df))
        ends = one.value - normal * one.error, one.value + normal * one.error
        coverage.add("pooled, normal", column, *ends)
        coverage.bias.setdefault(column, []).append(one.value - EFFECTS[column])


def run(name: str, cohorts: int, seed: int) -> dict[str, Any]:
    """Measure one study and print it."""
    random, coverage, start = np.random.default_rng([seed, *name.encode()]), Coverage(), time.time()
    for _ in range(cohorts):
        if name == "detection":
            measure_detection(random, coverage)
        elif name in STRATA:
            measure_strata(random, coverage, STRATA[name])
        else:
            measure(STUDIES[name], random, coverage)
    print(f"\n{name}: {cohorts} cohorts, {coverage.failed} without estimates, ", end="")
    print(f"{time.time() - start:.0f} s")
    found: dict[str, Any] = {"cohorts": cohorts, "failed": coverage.failed, "coverage": {}}
    for way, shares, mean in coverage.shares():
        columns = "  ".join(f"{column} {100 * share:.1f}" for column, share in shares.items())
        print(f"  {way:28s} mean {100 * mean:.1f} %   {columns}")
        found["coverage"][way] = {**shares, "mean": mean}
    if coverage.bias:
        found["bias"] = {column: float(np.mean(values)) for column, values in coverage.bias.items()}
        errors = "  ".join(f"{column} {value:+.3f}" for column, value in found["bias"].items())
        print(f"  mean error of the estimates: {errors}")
    return found


def main() -> None:
    """Measure all studies, or one."""
    names = [*STUDIES, "detection", *STRATA]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=500, help="cohorts of each study")
    parser.add_argument("--seed", type=int, default=30000, help="of the random numbers")
    parser.add_argument("--only", choices=names, help="one study")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    found = {
        name: run(name, arguments.cohorts, arguments.seed)
        for name in ([arguments.only] if arguments.only else names)
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
