"""The likelihoods of statsmodels, and the search for their maximum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.group.models.design import INTERCEPT, Design

if TYPE_CHECKING:
    import pandas as pd

#: Dispersion of a negative binomial model below which it is a Poisson model.
MIN_DISPERSION = 1e-4
_FAILURES = (
    np.linalg.LinAlgError,
    ValueError,
    FloatingPointError,
    ZeroDivisionError,
    AttributeError,
)
Name = tuple[str, str]


class NotFittedError(Exception):
    """A model has no estimates; the text says why.

    ``loglike`` is the largest likelihood that the search came to.
    """

    def __init__(self, reason: str, loglike: float = float("nan")) -> None:
        super().__init__(reason)
        self.loglike = loglike


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """One likelihood of statsmodels at its maximum.

    Attributes
    ----------
    model
        The model of statsmodels.
    params : array of shape (p,)
        Its parameters, in statsmodels' order.
    cov, naive_cov : array of shape (p, p)
        Their covariance: as asked for, and from the curvature of the likelihood alone.
    names
        Part and column of each parameter; the column of a dispersion is ``alpha``.
    rows : array of shape (n,), bool
        Which rows of the design it was fitted to.
    """

    model: Any
    params: NDArray[np.float64]
    cov: NDArray[np.float64]
    naive_cov: NDArray[np.float64]
    names: tuple[tuple[str, str], ...]
    rows: NDArray[np.bool_]

    @property
    def loglike(self) -> float:
        """Logarithm of the likelihood at the maximum."""
        return float(self.model.loglike(self.params))


@dataclass(frozen=True, kw_only=True, eq=False)
class Likelihood:
    """A model of statsmodels, with the names of its parameters and the rows that it is about."""

    model: Any
    names: tuple[Name, ...]
    rows: NDArray[np.bool_]


def likelihoods(design: Design, kind: str) -> Iterator[Likelihood]:
    """Yield the models of statsmodels that a kind consists of: one, or for a hurdle two."""
    from statsmodels.discrete import count_model, discrete_model, truncated_model

    y, x = design.y, design.x.to_numpy(float)
    everyone = np.ones(len(y), dtype=bool)
    more: dict[str, Any] = {"offset": design.offset}
    count = tuple(("count", name) for name in design.x.columns)
    presence = tuple(("presence", name) for name in design.x.columns)
    alpha = (("count", "alpha"),)
    match kind:
        case "poisson":
            model = discrete_model.Poisson(y, x, **more)
            yield Likelihood(model=model, names=count, rows=everyone)
        case "nb":
            model = discrete_model.NegativeBinomial(y, x, **more)
            yield Likelihood(model=model, names=count + alpha, rows=everyone)
        case "zip" | "zinb":
            assert design.zero_x is not None
            more["exog_infl"] = design.zero_x.to_numpy(float)
            zeros = tuple(("zeros", name) for name in design.zero_x.columns)
            if kind == "zip":
                model = count_model.ZeroInflatedPoisson(y, x, **more)
            else:
                model = count_model.ZeroInflatedNegativeBinomialP(y, x, p=2, **more)
                count += alpha
            yield Likelihood(model=model, names=zeros + count, rows=everyone)
        case "logit":
            model = discrete_model.Logit(y, x, **more)
            yield Likelihood(model=model, names=presence, rows=everyone)
        case "hurdle" | "hurdle-poisson":
            # An offset is the logarithm of how long or how much was seen; the odds of presence do
            # not grow in proportion to it, so it is the count's alone.
            model = discrete_model.Logit((y > 0).astype(float), x)
            yield Likelihood(model=model, names=presence, rows=everyone)
            some = y > 0
            more = {"offset": design.offset[some]}
            if kind == "hurdle":
                model = truncated_model.TruncatedLFNegativeBinomialP(y[some], x[some], p=2, **more)
                count += alpha
            else:
                model = truncated_model.TruncatedLFPoisson(y[some], x[some], **more)
            yield Likelihood(model=model, names=count, rows=some)
        case "ordinal":
            yield _ordinal(design, x, everyone)


def _ordinal(design: Design, x: NDArray[np.float64], rows: NDArray[np.bool_]) -> Likelihood:
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    # A class that nobody is in has no thresholds of its own.
    codes, y = np.unique(design.y, return_inverse=True)
    present = [design.classes[int(code)] for code in codes]
    limits = tuple(("class", f"{low}|{high}") for low, high in pairwise(present))
    names = tuple(("class", name) for name in design.x.columns) + limits
    model = OrderedModel(y, x, offset=design.offset, distr="logit")
    return Likelihood(model=model, names=names, rows=rows)


# --- the search ----------------------------------------------------------------------------------


def maximise(design: Design, kind: str, before: Mapping[Name, float]) -> tuple[Engine, ...]:
    """Find the maximum of each likelihood of a kind.

    Parameters
    ----------
    design
        What is fitted.
    kind
        The kind.
    before
        Parameters near the maximum, where they are known.

    Raises
    ------
    NotFittedError
        If the search does not end at a maximum.
    """
    import statsmodels.api  # noqa: F401  # its import sets filters of warnings, so before quiet()

    scaled, scale = _standardise(design)
    pairs = zip(likelihoods(design, kind), likelihoods(scaled, kind), strict=True)
    with quiet():
        return tuple(_maximise(one, other, scale, design, before) for one, other in pairs)


def _maximise(
    likelihood: Likelihood,
    scaled: Likelihood,
    scale: Mapping[str, tuple[float, float]],
    design: Design,
    before: Mapping[Name, float],
) -> Engine:
    if before and all(name in before for name in likelihood.names):
        try:
            near = np.array([before[name] for name in likelihood.names])
            return _polish(likelihood, design, near)
        except NotFittedError:
            pass  # it was not near: search
    params = _unscale(scaled.names, _search(scaled), scale)
    model = likelihood.model
    best = float(model.loglike(_as_searched(model, params)))
    if _at_the_edge(likelihood.names, params):
        empty = np.full((len(params), len(params)), np.nan)
        return Engine(**vars(likelihood), params=params, cov=empty, naive_cov=empty)
    try:
        return _polish(likelihood, design, params)
    except NotFittedError as error:
        raise NotFittedError(str(error), best) from error


def _as_searched(model: Any, params: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set a model of statsmodels to take its dispersion as it is, not as a logarithm."""
    if hasattr(model, "_transparams"):
        model._transparams = False  # noqa: SLF001
    return params


def _search(scaled: Likelihood) -> NDArray[np.float64]:
    """Search from one or several starts; return the parameters with the largest likelihood."""
    model, names = scaled.model, scaled.names
    search: dict[str, Any] = {"method": "bfgs"}
    if names[-1][1] == "alpha" and not hasattr(model, "_transparams"):
        # These models take the dispersion as it is, and must not step below 0.
        free = [(None, None)] * (len(names) - 1)
        search = {"method": "lbfgs", "bounds": [*free, (MIN_DISPERSION / 2, None)], "factr": 10.0}
    found: list[NDArray[np.float64]] = []
    for start in _starts(scaled):
        try:
            result = model.fit(
                start_params=start, maxiter=1000, disp=0, warn_convergence=False, **search
            )
        except _FAILURES:
            continue
        params = np.asarray(result.params, dtype=float)
        if np.isfinite(params).all() and np.isfinite(model.loglike(params)):
            found.append(params)
    if not found:
        raise NotFittedError("the search for the maximum of the likelihood failed")
    return max(found, key=model.loglike)


def _starts(scaled: Likelihood) -> Iterator[NDArray[np.float64] | None]:
    """Yield where to start; None is statsmodels' own choice."""
    yield None
    if any(part == "zeros" for part, _ in scaled.names):
        # The likelihood can have several maxima: few and many excess zeros.
        mean = float(np.log(max(scaled.model.endog.mean(), 0.1)))
        for share in (-2.0, 0.0):
            values = []
            for part, column in scaled.names:
                constant = share if part == "zeros" else mean
                values.append(1.0 if column == "alpha" else constant * (column == INTERCEPT))
            yield np.array(values)


def _standardise(design: Design) -> tuple[Design, dict[str, tuple[float, float]]]:
    """Centre and scale the columns, so that the search takes even steps.

    Returns
    -------
    design
        With columns of mean 0 and standard deviation 1, where a constant can take up the mean.
    scale
        Column -> its mean and standard deviation.
    """
    scale: dict[str, tuple[float, float]] = {}

    def even(x: pd.DataFrame | None, constant: bool) -> pd.DataFrame | None:
        if x is None:
            return None
        other = x.copy()
        for name in x.columns:
            spread = float(x[name].std(ddof=0))
            if name == INTERCEPT or not spread > 0:
                continue
            centre = float(x[name].mean()) if constant else 0.0
            # A column of both parts is scaled alike in both.
            centre, spread = scale.setdefault(name, (centre, spread))
            other[name] = (x[name] - centre) / spread
        return other

    both = [x for x in (design.x, design.zero_x) if x is not None]
    constant = design.kind == "ordinal" or all(INTERCEPT in x for x in both)
    x, zero_x = even(design.x, constant), even(design.zero_x, constant)
    return replace(design, x=x, zero_x=zero_x), scale


def _unscale(
    names: Sequence[Name], params: NDArray[np.float64], scale: Mapping[str, tuple[float, float]]
) -> NDArray[np.float64]:
    """Return the parameters for the columns as they are."""
    values = params.copy()
    for part in {part for part, _ in names}:
        moved = 0.0
        for number, (own, column) in enumerate(names):
            if own == part and column in scale:
                centre, spread = scale[column]
                values[number] /= spread
                moved += centre * values[number]
        limits = [n for n, (own, column) in enumerate(names) if own == part and column not in scale]
        for number in limits:
            column = names[number][1]
            if column == INTERCEPT:
                values[number] -= moved
            elif part == "class" and "|" in column:
                values[number] += moved
                break  # the other thresholds are increments
    return values


def _at_the_edge(names: Sequence[Name], params: NDArray[np.float64]) -> bool:
    return any(
        column == "alpha" and value < MIN_DISPERSION
        for (_, column), value in zip(names, params, strict=True)
    )


def _polish(likelihood: Likelihood, design: Design, params: NDArray[np.float64]) -> Engine:
    """Take the last steps with Newton's method, and check that this is a maximum."""
    model = likelihood.model
    robust: dict[str, Any] = {}
    if design.clusters is not None:
        clusters = design.clusters[likelihood.rows].astype(str)
        _, groups = np.unique(clusters, return_inverse=True)
        robust = {"cov_type": "cluster", "cov_kwds": {"groups": groups}}
    try:
        given = {"method": "newton", "maxiter": 50, "disp": 0, "warn_convergence": False}
        params = np.asarray(model.fit(start_params=params, **given).params, dtype=float)
        # The covariance is from the curvature before the last step, so another step is taken.
        result = model.fit(start_params=params, **given)
        cov = naive = np.asarray(result.cov_params(), dtype=float)
        if robust:
            result = model.fit(start_params=params, **given, **robust)
            cov = np.asarray(result.cov_params(), dtype=float)
    except _FAILURES as error:
        raise NotFittedError("the likelihood has no clear maximum") from error
    params = np.asarray(result.params, dtype=float)
    slope = np.abs(np.asarray(model.score(params), dtype=float)).max()
    sound = np.isfinite(params).all() and np.isfinite(naive).all() and (np.diag(naive) > 0).all()
    if not sound or not np.isfinite(slope) or slope > 1e-5 * max(1.0, len(model.endog)):
        raise NotFittedError("the search for the maximum of the likelihood did not converge")
    return Engine(**vars(likelihood), params=params, cov=cov, naive_cov=naive)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of statsmodels off the terminal: what they say is checked afterwards."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
