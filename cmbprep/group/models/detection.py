"""What the detector's doubt does to a model: refits over draws of the lesions that are real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cmbprep.group.models.fitting import Fit, fit_design
from cmbprep.group.models.search import Name, NotFittedError

if TYPE_CHECKING:
    import pandas as pd

#: A table of participants with other outcomes: as if each lesion were real with its probability.
Redraw = Callable[[np.random.Generator], "pd.DataFrame"]
#: Of the random numbers of the draws: the same results give the same draws.
SEED = 20240501
#: Share of draws without estimates above which there is no pooled result.
MAX_LOST = 0.05


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A coefficient over all draws.

    Attributes
    ----------
    value, error, df
        Mean, total standard error and degrees of freedom.
    share
        Part of the variance that is due to the draws, 0 to 1.
    """

    value: float
    error: float
    df: float
    share: float


def pool(values: npt.ArrayLike, errors: npt.ArrayLike, df: float) -> Pooled:
    """Pool estimates over draws: Rubin's rules, degrees of freedom of Barnard and Rubin.

    Parameters
    ----------
    values, errors : array of shape (m,)
        Estimate and standard error in each draw; at least 2.
    df
        Degrees of freedom of each estimate.

    Notes
    -----
    Rubin DB, Multiple imputation for nonresponse in surveys, Wiley 1987; Barnard J, Rubin DB,
    Biometrika 1999;86:948-955.
    """
    estimates, spread = np.asarray(values, dtype=float), np.asarray(errors, dtype=float)
    number = len(estimates)
    within, between = float((spread**2).mean()), float(estimates.var(ddof=1))
    added = (1.0 + 1.0 / number) * between
    total = within + added
    share = added / total if total > 0 else 0.0
    observed = (df + 1.0) / (df + 3.0) * df * (1.0 - share)
    pooled_df = observed if share == 0 else 1.0 / (share**2 / (number - 1.0) + 1.0 / observed)
    return Pooled(
        value=float(estimates.mean()), error=float(np.sqrt(total)), df=pooled_df, share=share
    )


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """A model over draws of the detector's lesions.

    Attributes
    ----------
    n_draws, n_lost
        Draws, and those without estimates.
    n_short, most_unknown
        Draws in which the outcome of some participants is not known, who are left out of the draw,
        and the largest number of them.
    pooled
        Part and column -> the coefficient; empty where too many draws are lost.
    """

    n_draws: int
    n_lost: int
    pooled: dict[Name, Pooled]
    n_short: int = 0
    most_unknown: int = 0


#: Returns, for the number of a draw, an outcome for each row of a design, not a number where it is
#: not known, and the classes of an ordinal outcome in their order.
Outcomes = Callable[[int], tuple[npt.NDArray[np.float64], tuple[str, ...]]]


def refit_over_draws(fit: Fit, outcomes: Outcomes, n_draws: int) -> Sensitivity:
    """Refit a model to drawn outcomes.

    Parameters
    ----------
    fit
        The fit to the outcomes as they are.
    outcomes
        Draws the outcome of each row of the design.
    n_draws
        Number of draws, at least 2.
    """
    found: dict[Name, list[tuple[float, float, float]]] = {}
    lost = short = most = 0
    for number in range(n_draws):
        try:
            y, classes = outcomes(number)
            known = np.isfinite(y)
            design = replace(fit.design, y=y, classes=classes)
            drawn = fit_design(
                design if known.all() else design.take(known), kind=fit.refit_kind, start=fit
            )
        except NotFittedError:
            lost += 1
            continue
        short, most = short + (not known.all()), max(most, int((~known).sum()))
        for item in drawn.estimates:
            if item.ratio and np.isfinite(item.error):
                found.setdefault((item.part, item.column), []).append(
                    (item.value, item.error * item.widening, item.df)
                )
    whole = {key: pairs for key, pairs in found.items() if len(pairs) == n_draws - lost}
    pooled: dict[Name, Pooled] = {}
    if lost <= MAX_LOST * n_draws and n_draws - lost >= 2:
        for key, pairs in whole.items():
            values, errors, df = np.array(pairs).T
            pooled[key] = pool(values, errors, float(df.mean()))
    return Sensitivity(
        n_draws=n_draws, n_lost=lost, pooled=pooled, n_short=short, most_unknown=most
    )
