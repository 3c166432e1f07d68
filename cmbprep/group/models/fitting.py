"""Fit a design with statsmodels: the maximum of the likelihood, checked, and its covariance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.group.models.design import INTERCEPT, Design
from cmbprep.group.models.search import (
    MIN_DISPERSION,
    Engine,
    Name,
    NotFittedError,
    maximise,
)

#: Share of excess zeros below which a zero-inflated model is one without, and gain in
#: log-likelihood below which they explain nothing.
MIN_EXCESS, MIN_GAIN = 1e-4, 0.02
#: Estimates on the log scale, for one standard deviation of their column, that are no maximum.
MAX_SLOPE = 12.0
RATE, ODDS = "rate ratio", "odds ratio"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One coefficient.

    Attributes
    ----------
    part
        ``count``, ``presence``, ``class`` or ``zeros``.
    column
        Column of the design, as patsy names it.
    value, error
        On the log scale, and its standard error; not a number where it cannot be estimated.
    ratio
        What its exponential is: :data:`RATE` or :data:`ODDS`; empty for thresholds and dispersion.
    df
        Degrees of freedom: persons that the part was fitted to less terms, or clusters less one.
    widening
        Factor of the error for interval and p-value: the root of persons by degrees of freedom for
        counts with a dispersion, else 1. The largest likelihood makes the dispersion too small, as
        it makes the variance of a linear model too small, by the coefficients that it fits.
    """

    part: str
    column: str
    value: float
    error: float
    ratio: str
    df: float
    widening: float = 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval, by the t distribution."""
        return bounds(self.value, self.error * self.widening, self.df)

    @property
    def p(self) -> float:
        """Two-sided p-value of the coefficient being 0."""
        from scipy import stats

        return float(2.0 * stats.t.sf(abs(self.value) / (self.error * self.widening), self.df))


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted design.

    Attributes
    ----------
    design
        What was fitted.
    kind
        The kind in the end: a negative binomial model without over-dispersion is a Poisson model.
    engines
        One, or for a hurdle model two.
    n_clusters
        Number of clusters of a cluster-robust covariance; None without it.
    """

    design: Design
    kind: str
    engines: tuple[Engine, ...]
    n_clusters: int | None = None

    @property
    def refit_kind(self) -> str:
        """Kind for nearly the same data; looking for excess zeros that are not there takes long."""
        return self.kind if self.design.kind in ("zip", "zinb") else self.design.kind

    @property
    def df(self) -> int:
        """Degrees of freedom of the intervals: persons less terms, or clusters less one."""
        if self.n_clusters is not None:
            return self.n_clusters - 1
        return len(self.design.y) - self.design.x.shape[1] - (self.design.kind == "ordinal")

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """All coefficients, the count's before those of the zeros."""
        found = [estimate for engine in self.engines for estimate in _estimates(engine, self)]
        return tuple(sorted(found, key=lambda item: item.part == "zeros"))

    @property
    def loglike(self) -> float:
        """Logarithm of the likelihood."""
        return sum(engine.loglike for engine in self.engines)

    @property
    def dispersion(self) -> float | None:
        """Dispersion (alpha, of NB2) of a negative binomial model; None for others."""
        for engine in self.engines:
            for (_, column), value in zip(engine.names, engine.params, strict=True):
                if column == "alpha":
                    return float(value)
        return None


def fit_design(design: Design, *, kind: str | None = None, start: Fit | None = None) -> Fit:
    """Fit a design.

    Parameters
    ----------
    design
        Its kind says which likelihood; its clusters, whether the covariance is cluster-robust
        (with the correction for few clusters that statsmodels makes).
    kind
        Another kind than the design's.
    start
        A fit of nearly the same data, where the search starts.

    Raises
    ------
    NotFittedError
        If the search does not end at a maximum.
    """
    kind = kind or design.kind
    if len(np.unique(design.y)) < 2:
        raise NotFittedError("the outcome is the same for all participants")
    n_clusters = None if design.clusters is None else len(set(design.clusters))
    before = {} if start is None or start.kind != kind else _by_part(start)
    try:
        engines = maximise(design, kind, before)
    except NotFittedError as error:
        if kind not in ("zip", "zinb"):
            raise
        # Without excess zeros, their share shrinks without end, and there is no maximum.
        plain = fit_design(design, kind={"zip": "poisson", "zinb": "nb"}[kind])
        if not error.loglike - plain.loglike < MIN_GAIN:
            raise
        return plain
    fit = Fit(design=design, kind=kind, engines=engines, n_clusters=n_clusters)
    simpler = _simpler(fit)
    if simpler is not None:
        return fit_design(design, kind=simpler)
    _check_finite(fit)
    return fit


def bounds(value: float, error: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of an estimate on the log scale, by the t distribution."""
    from scipy import stats

    reach = float(stats.t.ppf(0.5 + level / 2.0, df)) * error if df > 0 else float("nan")
    return value - reach, value + reach


def ratios(*values: float) -> tuple[float, ...]:
    """Return the exponentials of numbers; infinity where one is too large."""
    with np.errstate(over="ignore"):
        return tuple(float(value) for value in np.exp(values))


def _check_finite(fit: Fit) -> None:
    """Refuse estimates that would grow without end if the search went on."""
    spread = fit.design.x.std(ddof=0).to_dict()
    for item in fit.estimates:
        if item.df < 1:
            raise NotFittedError(f"too few participants for the coefficients of the {item.part}")
        if item.part != "zeros" and abs(item.value) * spread.get(item.column, 0.0) > MAX_SLOPE:
            raise NotFittedError(
                f"the estimate of {fit.design.label(item.column)} has no end (separation)"
            )


def _by_part(fit: Fit) -> dict[Name, float]:
    return {
        name: float(value)
        for engine in fit.engines
        for name, value in zip(engine.names, engine.params, strict=True)
    }


def _simpler(fit: Fit) -> str | None:
    """Return the simpler kind that a fit has turned into; None where it has not."""
    dispersion = fit.dispersion
    if dispersion is not None and dispersion < MIN_DISPERSION:
        return {"nb": "poisson", "zinb": "zip", "hurdle": "hurdle-poisson"}[fit.kind]
    if fit.kind in ("zip", "zinb"):
        (engine,) = fit.engines
        share = 1.0 - engine.model.predict(engine.params, which="prob-main")
        if float(np.max(share)) < MIN_EXCESS:
            return {"zip": "poisson", "zinb": "nb"}[fit.kind]
    return None


def _estimates(engine: Engine, fit: Fit) -> Iterator[Estimate]:
    params, cov = engine.params, engine.cov
    if fit.kind == "ordinal":
        limits = sum(column not in fit.design.x.columns for _, column in engine.names)
        params, cov = _thresholds(params, cov, limits)
    errors = np.sqrt(np.maximum(np.diag(cov), 0.0))
    # Of the two parts of a model with excess zeros, the separation is that of the counts.
    saturated = saturated_columns(fit.design)
    no_error = (saturated | fit.design.separated, saturated)
    persons, df = _informing(engine, fit), float(fit.df)
    if fit.n_clusters is None:
        df -= len(engine.rows) - persons
    loose = any(column == "alpha" for _, column in engine.names) and fit.n_clusters is None
    kinds = {"count": RATE, "presence": ODDS, "class": ODDS, "zeros": ODDS}
    known = set(fit.design.x.columns) | {INTERCEPT}
    if fit.design.zero_x is not None:
        known |= set(fit.design.zero_x.columns)
    for (part, column), value, error in zip(engine.names, params, errors, strict=True):
        yield Estimate(
            part=part,
            column=column,
            value=float(value),
            error=float("nan") if column in no_error[part == "zeros"] else float(error),
            ratio=kinds[part] if column in known else "",
            df=float(fit.df) if part == "zeros" else df,
            widening=float(np.sqrt(persons / df)) if loose and part == "count" and df > 0 else 1.0,
        )


def _informing(engine: Engine, fit: Fit) -> float:
    """Return how many participants tell of the coefficients of an engine.

    Of a hurdle's numbers, those above the hurdle. A participant with no microbleed who belongs to
    the excess zeros tells nothing of the counts, and is counted by the probability that it does
    not.
    """
    if fit.kind == "zinb":
        counted = engine.model.predict(engine.params, which="prob-main")
        return float(np.sum(counted))
    return float(engine.rows.sum())


def saturated_columns(design: Design) -> frozenset[str]:
    """Return the terms between clusters, where there are as many of them as clusters.

    They fit the clusters exactly, so that nothing is left to estimate their error from: a robust
    covariance is then near 0, which is wrong.
    """
    if design.clusters is None:
        return frozenset()
    by_cluster = design.x.groupby(design.clusters)
    constant = {name for name in design.x.columns if (by_cluster[name].nunique() <= 1).all()}
    constant.add(INTERCEPT)
    return frozenset(constant) if len(constant) >= len(set(design.clusters)) else frozenset()


def _thresholds(
    params: NDArray[np.float64], cov: NDArray[np.float64], number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn the logarithms of increments, which statsmodels estimates, into thresholds."""
    first = len(params) - number
    steps = np.append(params[first : first + 1], np.exp(params[first + 1 :]))
    slope = np.eye(len(params))
    for row in range(number):
        slope[first + row, first] = 1.0
        slope[first + row, first + 1 : first + row + 1] = steps[1 : row + 1]
        slope[first + row, first + row + 1 :] = 0.0
    return np.append(params[:first], np.cumsum(steps)), slope @ cov @ slope.T
