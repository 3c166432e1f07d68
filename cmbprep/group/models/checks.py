"""Checks of a fitted model: over-dispersion, zeros, single persons, single sites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmbprep.group.models.design import INTERCEPT, Design
from cmbprep.group.models.fitting import Estimate, Fit, fit_design, ratios
from cmbprep.group.models.search import NotFittedError
from cmbprep.group.models.separation import without_separation

#: Persons whose leaving out is computed: those that change the estimates most.
N_INFLUENTIAL = 5
MAX_SITES = 100
#: Counts above this have no part in the information on a dispersion.
MAX_COUNT = 20_000


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of ``group_model_checks.tsv``.

    Attributes
    ----------
    check
        A level of the column ``check``.
    subject
        What was left out: a participant or a site; None for the others.
    part, column
        Coefficient that a line is about; None for one about the whole model.
    value, low, high, expected, p
        Numbers; None where there is none.
    text
        What it means.
    stratum
        Label of the stratum, or ``pooled``; None for a model without strata.
    """

    check: str
    text: str
    subject: str | None = None
    part: str | None = None
    column: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    expected: float | None = None
    p: float | None = None
    stratum: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """How much the counts vary beyond a Poisson model with the same terms.

    Attributes
    ----------
    pearson
        Sum of squared Pearson residuals of the Poisson model by its degrees of freedom; 1 for
        Poisson counts.
    statistic, p
        Likelihood ratio of the negative binomial against the Poisson model. The p-value is half of
        that of a chi-squared with one degree of freedom, because the dispersion cannot be negative.
    """

    pearson: float
    statistic: float
    p: float


def measure_dispersion(design: Design) -> Dispersion | None:
    """Measure over-dispersion; None where the models cannot be fitted."""
    from scipy import stats

    try:
        poisson = fit_design(design, kind="poisson")
        full = fit_design(design, kind="nb")
    except NotFittedError:
        return None
    (engine,) = poisson.engines
    mean = engine.model.predict(engine.params)
    freedom = len(design.y) - design.x.shape[1]
    if freedom < 1:
        return None
    pearson = float(((design.y - mean) ** 2 / mean).sum() / freedom)
    statistic = max(0.0, 2.0 * (full.loglike - poisson.loglike))
    p = 0.5 * float(stats.chi2.sf(statistic, 1)) if statistic > 0 else 1.0
    return Dispersion(pearson=pearson, statistic=statistic, p=p)


@dataclass(frozen=True, kw_only=True)
class Zeros:
    """Persons without a microbleed, and how many the model expects.

    Attributes
    ----------
    observed, expected
        Numbers of persons.
    p
        One-sided test for excess zeros; None for kinds that have their own part for zeros, and
        where the test could not be made.
    """

    observed: int
    expected: float
    p: float | None


def count_zeros(fit: Fit) -> Zeros | None:
    """Compare the zeros with those that a model of counts expects; None for other kinds.

    The test is the score test of van den Broek (Biometrics 1995;51:738-743) for Poisson models, and
    the same test with the dispersion as one more coefficient for negative binomial ones.
    """
    if fit.kind not in ("poisson", "nb", "zip", "zinb"):
        return None
    (engine,) = fit.engines
    zero = {"which": "prob", "y_values": np.array([0])}
    p0 = np.asarray(engine.model.predict(engine.params, **zero), dtype=float)[:, 0]
    observed, expected = int((fit.design.y == 0).sum()), float(p0.sum())
    p = _score_of_zeros(fit, p0) if fit.kind in ("poisson", "nb") else None
    return Zeros(observed=observed, expected=expected, p=p)


def _score_of_zeros(fit: Fit, p0: NDArray[np.float64]) -> float | None:
    """Test the slope of the log-likelihood where the share of excess zeros is 0.

    The slope is the sum of 1[y=0]/p0 - 1. The coefficients take up a part of its variance: their
    own slopes at a count of 0, weighed by the inverse of the expected information. Coefficients
    and dispersion do not share information.
    """
    from scipy import stats

    (engine,) = fit.engines
    x, alpha = engine.model.exog, fit.dispersion or 0.0
    mean = np.asarray(engine.model.predict(engine.params), dtype=float)
    weight = mean / (1.0 + alpha * mean)
    slope = float(((fit.design.y == 0) / p0 - 1.0).sum())
    taken = -x.T @ weight
    variance = float(((1.0 - p0) / p0).sum())
    variance -= taken @ np.linalg.solve(x.T @ (weight[:, None] * x), taken)
    if alpha:
        at_zero = np.log1p(alpha * mean) / alpha**2 - weight / alpha
        variance -= at_zero.sum() ** 2 / _information_on_dispersion(mean, alpha)
    return float(stats.norm.sf(slope / np.sqrt(variance))) if variance > 0 else None


def _information_on_dispersion(mean: NDArray[np.float64], alpha: float) -> float:
    """Return the expected information on the dispersion: the mean square of its slope."""
    share = alpha * mean / (1.0 + alpha * mean)
    chance = (1.0 + alpha * mean) ** (-1.0 / alpha)
    left, total, harmonic = np.ones_like(mean), 0.0, 0.0
    for count in range(MAX_COUNT):
        slope = (np.log1p(alpha * mean) - harmonic) / alpha**2
        slope += (count - mean) / (alpha * (1.0 + alpha * mean))
        total += float((chance * slope**2).sum())
        left -= chance
        if left.max() < 1e-9:
            break
        harmonic += 1.0 / (count + 1.0 / alpha)
        chance = chance * share * (count + 1.0 / alpha) / (count + 1.0)
    return total


def influence(fit: Fit) -> NDArray[np.float64]:
    """Approximate how far each person moves each coefficient (DFBETAS).

    Returns
    -------
    array of shape (n, p)
        For each row of the design and each column of its ``x``: the largest change over the parts
        of the model, in standard errors, to first order.
    """
    columns = list(fit.design.x.columns)
    moved = np.zeros((len(fit.design.y), len(columns)))
    for engine in fit.engines:
        steps = np.asarray(engine.model.score_obs(engine.params), dtype=float) @ engine.naive_cov
        steps = np.abs(steps) / np.sqrt(np.diag(engine.naive_cov))
        for number, (part, column) in enumerate(engine.names):
            if column in columns and part != "zeros":
                place = columns.index(column)
                moved[engine.rows, place] = np.maximum(moved[engine.rows, place], steps[:, number])
    return moved


def leave_out_people(fit: Fit) -> Iterator[tuple[str, Fit | None]]:
    """Refit without each of the most influential persons; None where that has no estimates."""
    shown = [
        number
        for number, name in enumerate(fit.design.x.columns)
        if name != INTERCEPT and name not in fit.design.nuisance
    ]
    if not shown:
        return
    largest = influence(fit)[:, shown].max(axis=1)
    # Ties are broken by the label, so that the order of the rows does not matter.
    order = sorted(range(len(largest)), key=lambda row: (-largest[row], fit.design.people[row]))
    for row in order[:N_INFLUENTIAL]:
        kept = np.arange(len(largest)) != row
        yield str(fit.design.people[row]), _refit(fit, kept)


def leave_out_sites(fit: Fit) -> Iterator[tuple[str, Fit | None]]:
    """Refit without each site; None where that has no estimates."""
    sites = fit.design.sites
    if sites is None:
        return
    names = sorted({str(site) for site in sites if not _is_missing(site)})
    if not 2 <= len(names) <= MAX_SITES:
        return
    words = np.array(["" if _is_missing(site) else str(site) for site in sites], dtype=object)
    for name in names:
        yield name, _refit(fit, words != name)


def _is_missing(value: object) -> bool:
    return value is None or value != value  # not a number


def _refit(fit: Fit, kept: NDArray[np.bool_]) -> Fit | None:
    design, _ = without_separation(fit.design.take(kept))
    if design.x.shape[1] == 0 or len(design.y) <= design.x.shape[1]:
        return None
    try:
        return fit_design(replace(design, inseparable={}), kind=fit.refit_kind, start=fit)
    except NotFittedError:
        return None


def find_estimate(fit: Fit | None, part: str, column: str) -> Estimate | None:
    """Return a coefficient of a fit; None where it has none or no finite one."""
    found = (
        []
        if fit is None
        else [
            item
            for item in fit.estimates
            if (item.part, item.column) == (part, column) and np.isfinite(item.error)
        ]
    )
    return found[0] if found else None


# --- lines ---------------------------------------------------------------------------------------


def measures(fit: Fit, dispersion: Dispersion | None, zeros: Zeros | None) -> Iterator[Check]:
    """Yield the lines about the whole model."""
    if dispersion is not None:
        yield Check(
            check="over-dispersion",
            value=dispersion.pearson,
            expected=1.0,
            p=dispersion.p,
            text="Pearson's chi-squared of the Poisson model by its degrees of freedom; likelihood "
            f"ratio of the negative binomial against it: {dispersion.statistic:.2f}",
        )
    if fit.dispersion is not None:
        yield Check(check="alpha", value=fit.dispersion, text="dispersion of the counts (NB2)")
    if zeros is not None:
        yield Check(
            check="zeros",
            value=float(zeros.observed),
            expected=zeros.expected,
            p=zeros.p,
            text="participants with a count of 0, and how many the model expects; one-sided score "
            "test for excess zeros",
        )
    n = sum(len(engine.params) for engine in fit.engines)
    yield Check(check="log-likelihood", value=fit.loglike, text=f"with {n} parameters")
    yield Check(check="AIC", value=2.0 * n - 2.0 * fit.loglike, text="Akaike's criterion")


def left_out(fit: Fit, what: str) -> Iterator[tuple[Check, str | None]]:
    """Yield lines without single participants or sites, with a warning where much changes."""
    refits = leave_out_people(fit) if what == "participant" else leave_out_sites(fit)
    shown = [item for item in fit.estimates if _is_shown(fit, item, what)]
    for subject, other in refits:
        for item in shown:
            found = find_estimate(other, item.part, item.column)
            low, high = item.interval
            label = fit.design.label(item.column)
            if found is None or other is None:
                text = f"{label}: no estimate without {what} {subject}"
                yield _line(what, subject, item, None, text), None
                continue
            text = f"{item.ratio} of {label} without {what} {subject}"
            inner = found.interval
            verdict = (low > 0 or high < 0) != (inner[0] > 0 or inner[1] < 0)
            words = "95 % interval {:.3g} to {:.3g}".format(*ratios(*inner))
            yield (
                _line(what, subject, item, (found.value, *inner), text),
                _change(label, what, subject, item, found, verdict, words),
            )


def _is_shown(fit: Fit, item: Estimate, what: str) -> bool:
    plain = (
        item.ratio
        and np.isfinite(item.error)
        and item.column != INTERCEPT
        and item.column not in fit.design.nuisance
    )
    # Without a site, the terms of the site itself mean something else.
    own = fit.design.categories.get(item.column, ("",))[0] == "site" or "site" in item.column
    return bool(plain) and not (what == "site" and own)


def _line(
    what: str, subject: str, item: Estimate, numbers: tuple[float, float, float] | None, text: str
) -> Check:
    value, low, high = (None, None, None) if numbers is None else ratios(*numbers)
    return Check(
        check=f"without {what}",
        subject=subject,
        part=item.part,
        column=item.column,
        value=value,
        low=low,
        high=high,
        expected=float(np.exp(item.value)),
        text=text,
    )


def _change(
    label: str, what: str, subject: str, item: Estimate, found: Estimate, verdict: bool, inner: str
) -> str | None:
    """Return a warning where an estimate moves more than chance explains."""
    moved = abs(found.value - item.value)
    if what == "site":
        # Variance of the difference between an estimate and that from a part of its data.
        chance = np.sqrt(max(found.error**2 - item.error**2, 0.0))
        turned = found.value * item.value < 0 and moved > item.error
        far = turned or moved > max(2.5 * chance, 0.5 * item.error)
    else:
        far = moved > item.error or (verdict and moved > 0.5 * item.error)
    if not far:
        return None
    change = f"{np.exp(item.value):.3g} becomes {np.exp(found.value):.3g}"
    where = f" ({item.part})" if item.part in ("presence", "zeros") else ""
    return (
        f"{label}{where} rests on {what} {subject}: without it, the {item.ratio} {change} ({inner})"
    )
