"""Strata of a cohort, and coefficients that are pooled over them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cmbprep.errors import UsageError
from cmbprep.group.models.design import NUISANCE, with_echo_time
from cmbprep.group.models.formula import ModelRequest
from cmbprep.group.models.outcome import check_columns, level_name

if TYPE_CHECKING:
    import pandas as pd

#: Strata above which a column is no stratification but a measurement.
MAX_STRATA = 50
#: Name of a nuisance term -> unit of its levels, and what they are multiplied by.
_UNITS = {"field": ("T", 1.0), "te": ("ms", 10.0), "slice": ("mm", 1.0)}
#: Terms whose unit or zero is that of the participants they are computed for.
_OF_THE_STRATUM = re.compile(r"\b(?P<call>center|standardize)\s*\(")


@dataclass(frozen=True, kw_only=True, eq=False)
class Stratum:
    """Participants who have one level of a column.

    Attributes
    ----------
    label
        Name of the strata and level, ``field=3``.
    title
        The same in words, ``field strength 3 T``.
    table
        Their rows of the table of participants.
    """

    label: str
    title: str
    table: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Strata:
    """A table of participants, split by a column.

    Attributes
    ----------
    column, title
        The column, and what it is called in a text.
    each
        The strata, in the order of their levels.
    n_without
        Participants whose level is not known, who are in no stratum.
    """

    column: str
    title: str
    each: tuple[Stratum, ...]
    n_without: int


def column_of(name: str) -> str:
    """Return the column that a name of strata stands for."""
    return NUISANCE[name][0] if name in NUISANCE else name


def check_strata(table: pd.DataFrame, name: str, requests: Sequence[ModelRequest]) -> None:
    """Check that a table can be split by a column, and that models can be fitted to its parts.

    Raises
    ------
    UsageError
        If the column is missing or has too many levels, or a model has a term that would mean
        something else in each stratum.
    """
    column = column_of(name)
    table = with_echo_time(table)
    check_columns(table, (column,))
    levels = table[column].dropna().nunique()
    if levels > MAX_STRATA:
        raise UsageError(
            f"--strata {name}: {column} has {levels} levels, and a model is fitted for each",
            hint=f"choose a column with at most {MAX_STRATA} levels",
        )
    if not levels:
        raise UsageError(
            f"--strata {name}: {column} is not known of any participant",
            hint="choose a column that has values",
        )
    for request in requests:
        if column in request.columns:
            raise UsageError(
                f"{column} is a term of the model {request.text!r} and its strata",
                hint="leave the term out, or fit the model without --strata",
            )
        if own := _OF_THE_STRATUM.search(f"{request.terms} {request.zero_terms or ''}"):
            raise UsageError(
                f"{own['call']}() in the model {request.text!r} means something else in each "
                "stratum",
                hint="write the same numbers for all strata, for instance I((age - 70) / 10)",
            )


def split(table: pd.DataFrame, name: str) -> Strata:
    """Split a table of participants.

    Parameters
    ----------
    table
        One row per participant, as :func:`.make_design` takes it.
    name
        A name of :data:`.NUISANCE`, or a column.
    """
    column = column_of(name)
    title = NUISANCE[name][2] if name in NUISANCE else name
    unit, factor = _UNITS.get(name, ("", 1.0))
    levels = with_echo_time(table)[column]
    each = []
    for level in sorted(levels.dropna().unique(), key=_order):
        word = _word(level, factor)
        words = f"{title} {word} {unit}".strip()
        each.append(Stratum(label=f"{name}={word}", title=words, table=table[levels == level]))
    return Strata(column=column, title=title, each=tuple(each), n_without=int(levels.isna().sum()))


def _order(level: Any) -> tuple[bool, float, str]:
    """Order numbers by size, before words by the alphabet."""
    return not _is_number(level), float(level) if _is_number(level) else 0.0, str(level)


def _word(level: Any, factor: float) -> str:
    if isinstance(level, bool | np.bool_):
        return str(bool(level)).lower()
    return level_name(float(level) * factor if _is_number(level) else level)


def _is_number(level: Any) -> bool:
    return isinstance(level, int | float | np.number) and not isinstance(level, bool)


@dataclass(frozen=True, kw_only=True)
class Combined:
    """A coefficient over all strata.

    Attributes
    ----------
    value, error, df
        Mean, standard error and degrees of freedom.
    widening
        Factor of the error for interval and p-value: the weights are estimated too, and a stratum
        whose error is too small by chance has too large a weight.
    n
        Number of strata.
    q, p
        Cochran's Q and its p-value, for the strata having the same coefficient; None for one
        stratum.
    i2
        Part of the variation between the strata that is more than chance, 0 to 1; None for one.
    weights : array of shape (n,)
        Weight of each stratum; their sum is 1.
    """

    value: float
    error: float
    df: float
    widening: float
    n: int
    q: float | None
    p: float | None
    i2: float | None
    weights: npt.NDArray[np.float64]


def combine(values: npt.ArrayLike, errors: npt.ArrayLike, df: npt.ArrayLike) -> Combined:
    """Pool a coefficient over strata by the inverse of its variance (fixed effect).

    Parameters
    ----------
    values, errors, df : array of shape (n,)
        Estimate, standard error and degrees of freedom in each stratum; at least one.

    Notes
    -----
    Whitehead A, Whitehead J, Stat Med 1991;10:1665-1677. The degrees of freedom of the pooled error
    are those of Satterthwaite (Biometrics 1946;2:110-114). The widening is that of Meier P,
    Biometrics 1953;9:59-73. Cochran's Q: DerSimonian R, Laird N,
    Control Clin Trials 1986;7:177-188. I2: Higgins JPT, Thompson SG, Stat Med 2002;21:1539-1558.
    """
    from scipy import stats

    estimates, spread, freedom = (np.asarray(item, dtype=float) for item in (values, errors, df))
    precision = spread**-2.0
    weights = precision / precision.sum()
    mean, number = float(weights @ estimates), len(estimates)
    q = float(precision @ (estimates - mean) ** 2)
    several = number > 1
    return Combined(
        value=mean,
        error=float(precision.sum() ** -0.5),
        df=float(1.0 / (weights**2 / freedom).sum()),
        widening=float(np.sqrt(1.0 + 4.0 * (weights * (1.0 - weights) / freedom).sum())),
        n=number,
        q=q if several else None,
        p=float(stats.chi2.sf(q, number - 1)) if several else None,
        i2=(max(0.0, 1.0 - (number - 1) / q) if q > 0 else 0.0) if several else None,
        weights=weights,
    )
