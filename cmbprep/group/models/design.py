"""From the table of participants and a formula to the numbers that a model is fitted to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing
from cmbprep.group.models.formula import NUMERIC, ModelRequest
from cmbprep.group.models.outcome import check_columns, code_outcome, level_name

if TYPE_CHECKING:
    import pandas as pd

INTERCEPT = "Intercept"
#: Name of a nuisance term -> column, how it stands in a formula, and what it is called.
NUISANCE = {
    "field": ("MagneticFieldStrength", "C(MagneticFieldStrength)", "field strength"),
    "te": ("echo_time_10ms", "echo_time_10ms", "echo time"),
    "sequence": ("sequence", "C(sequence)", "sequence"),
    "slice": ("SliceThickness", "SliceThickness", "slice thickness"),
    "manufacturer": ("Manufacturer", "C(Manufacturer)", "manufacturer"),
}
_TITLES = {
    INTERCEPT: "constant",
    **{name: title for column, term, title in NUISANCE.values() for name in (column, term)},
    "echo_time_10ms": "echo time, 10 ms more",
    "SliceThickness": "slice thickness, 1 mm more",
}
#: What counts depend on; a warning names those that vary and are not in the model.
PROTOCOL = ("field", "te", "sequence", "slice")


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """The numbers of one model: one row per person.

    Attributes
    ----------
    kind
        One of :data:`.KINDS`.
    y : array of shape (n,)
        Counts; 1 and 0 for a logistic model; numbers of the classes for an ordinal one.
    x : DataFrame of n rows
        Columns of the terms; the constant is ``Intercept``, which an ordinal model lacks.
    zero_x : DataFrame of n rows or None
        Columns of the zeros' terms, for zero-inflated kinds.
    offset : array of shape (n,)
        What is added to the linear predictor.
    people, sites, clusters
        Label of the participant, the site and the cluster of each row; the last two are None
        where there are none.
    classes
        Names of the classes of an ordinal model, in their order.
    nuisance, categories
        Columns of ``x`` that are nuisance terms; column -> its level and the reference level.
    inseparable
        Column that was left out, because others determine it -> those others.
    missing
        Variable -> rows that lack it. A row that lacks several is counted with each.
    n_left_out
        Rows that are left out.
    separated
        Columns that hold the space of the model and have no estimate of their own
        (:func:`.without_separation`).
    """

    kind: str
    y: NDArray[np.float64]
    x: pd.DataFrame
    zero_x: pd.DataFrame | None = None
    offset: NDArray[np.float64]
    people: NDArray[Any]
    sites: NDArray[Any] | None = None
    clusters: NDArray[Any] | None = None
    classes: tuple[str, ...] = ()
    nuisance: frozenset[str] = frozenset()
    categories: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    inseparable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    n_left_out: int = 0
    separated: frozenset[str] = frozenset()

    def take(self, rows: NDArray[np.bool_]) -> Design:
        """Return the design of some of its rows, without columns that these do not determine."""
        x = self.x[rows]
        zero_x = None if self.zero_x is None else self.zero_x[rows]
        return replace(
            self,
            y=self.y[rows],
            x=x[independent_columns(x, constant=self.kind == "ordinal")],
            zero_x=None if zero_x is None else zero_x[independent_columns(zero_x)],
            offset=self.offset[rows],
            people=self.people[rows],
            sites=None if self.sites is None else self.sites[rows],
            clusters=None if self.clusters is None else self.clusters[rows],
        )

    def label(self, column: str) -> str:
        """Return what a column is called in a text: ``site: B against A``."""
        known = self.categories.get(column)
        if known is None:
            return _TITLES.get(column, column)
        name, level, reference = known
        return f"{_TITLES.get(name, name)}: {level} against {reference}"


def make_design(
    table: pd.DataFrame,
    request: ModelRequest,
    *,
    nuisance: Sequence[str] = (),
    cluster: str | None = None,
) -> Design:
    """Make the design of a model.

    Parameters
    ----------
    table
        One row per participant, as ``group_participants.tsv``; numbers as numbers, the rest as
        text, and missing values as pandas has them.
    request
        The model.
    nuisance
        Names of :data:`NUISANCE` whose terms are added.
    cluster
        Column whose values are the clusters.

    Raises
    ------
    UsageError
        If a column is not in the table, holds what the formula has no use for, or no rows are left.
    """
    table = with_echo_time(table)
    extra = [NUISANCE[name] for name in nuisance if NUISANCE[name][0] not in request.columns]
    used = list(dict.fromkeys((*request.columns, *(column for column, _, _ in extra))))
    rows, coded, missing = _known_rows(table, request, used, cluster)
    terms = _terms(rows, request, [term for _, term, _ in extra], used, coded.kind)
    if not terms.finite.all():
        missing["a term that is not finite, such as log(0)"] = str(int((~terms.finite).sum()))
    rows, y, terms = rows[terms.finite], coded.y[terms.finite], terms.take_finite()
    kept, inseparable = _separate(terms.x, constant=coded.kind == "ordinal")
    for column, term, _ in extra:
        if not any(column in name for name in terms.x.columns):  # a category with one level
            inseparable[term] = ()
    inseparable |= dict.fromkeys(_vanished(request, rows, terms), ())
    zero_x = terms.zero_x
    if zero_x is not None:
        zero_columns, lost_zeros = _separate(zero_x)
        zero_x, inseparable = zero_x[zero_columns], {**lost_zeros, **inseparable}
    return Design(
        kind=coded.kind,
        y=y.to_numpy(float),
        x=terms.x[kept],
        zero_x=zero_x,
        offset=terms.offset,
        people=rows["participant_id"].to_numpy(object),
        sites=rows["site"].astype(object).to_numpy() if rows.get("site") is not None else None,
        clusters=None if cluster is None else rows[cluster].astype(str).to_numpy(object),
        classes=coded.classes,
        nuisance=frozenset({*terms.x.columns} - terms.own)
        | {term for _, term, _ in extra if term in inseparable},
        categories=terms.categories,
        inseparable=inseparable,
        missing=missing,
        n_left_out=len(table) - len(rows),
    )


class _Coded(NamedTuple):
    """An outcome as numbers: kind of the model, value of each row, classes of an ordinal one."""

    kind: str
    y: pd.Series
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Terms:
    """The columns of a model for some rows, before what cannot be estimated is left out.

    Attributes
    ----------
    x, zero_x, offset
        As in :class:`Design`.
    own
        Columns of the formula, without the nuisance terms.
    categories
        As in :class:`Design`.
    finite : array of shape (n,), bool
        Rows whose terms all are finite numbers.
    """

    x: pd.DataFrame
    zero_x: pd.DataFrame | None
    offset: NDArray[np.float64]
    own: frozenset[str]
    categories: Mapping[str, tuple[str, str, str]]
    finite: NDArray[np.bool_]

    def take_finite(self) -> _Terms:
        """Return the same for the rows whose terms are finite."""
        return replace(
            self,
            x=self.x[self.finite],
            zero_x=None if self.zero_x is None else self.zero_x[self.finite],
            offset=self.offset[self.finite],
        )


def _known_rows(
    table: pd.DataFrame, request: ModelRequest, used: Sequence[str], cluster: str | None
) -> tuple[pd.DataFrame, _Coded, dict[str, str]]:
    """Return the rows that have all values, their outcome, and how many lack each variable."""
    needed = (*used, *([cluster] if cluster else []))
    check_columns(table, (request.outcome.column, *needed))
    kind, y, classes = code_outcome(table, request)
    lost = {request.outcome.column: y.isna()}
    for column in needed:
        lost.setdefault(column, table[column].isna())
    kept = ~np.logical_or.reduce([np.asarray(rows) for rows in lost.values()])
    missing = _missing(table, lost, request.outcome.column)
    if not kept.any():
        raise UsageError(
            f"the model {request.text!r} has no participant with all its values",
            hint=f"missing: {listing(f'{name} {text}' for name, text in missing.items())}",
        )
    return table[kept], _Coded(kind, y[kept], classes), missing


def _terms(
    rows: pd.DataFrame, request: ModelRequest, extra: Sequence[str], used: Sequence[str], kind: str
) -> _Terms:
    """Compute the columns of a model; ``extra`` are its nuisance terms."""
    x, categories = _matrix(rows, request, request.terms, used)
    own = frozenset(x.columns)
    if extra:
        x, categories = _matrix(rows, request, " + ".join((request.terms, *extra)), used)
    zero_x = None
    if kind in ("zip", "zinb"):
        zero_x, _ = _matrix(rows, request, request.zero_terms or "1", used)
    if kind in ("ordinal", "hurdle", "logit") and INTERCEPT not in x:
        raise UsageError(
            f"the model {request.text!r} has no constant, which a model of kind {kind} needs",
            hint="leave - 1 out",
        )
    offset = _offset(rows, request, used)
    finite = np.isfinite(x.to_numpy()).all(axis=1) & np.isfinite(offset)
    if zero_x is not None:
        finite &= np.isfinite(zero_x.to_numpy()).all(axis=1)
    if kind == "ordinal":
        x = x.drop(columns=INTERCEPT)
    return _Terms(x=x, zero_x=zero_x, offset=offset, own=own, categories=categories, finite=finite)


def _vanished(request: ModelRequest, rows: pd.DataFrame, terms: _Terms) -> list[str]:
    """Return the columns of the formula with one category, of which patsy makes no term."""
    sides = f"{request.terms} {request.zero_terms or ''}"
    names = (*terms.x.columns, *(() if terms.zero_x is None else terms.zero_x.columns))
    return [
        column
        for column in request.columns
        if rows[column].nunique() < 2
        and re.search(rf"(?<!\w){re.escape(column)}(?!\w)", sides)
        and not any(column in name for name in names)
    ]


def with_echo_time(table: pd.DataFrame) -> pd.DataFrame:
    """Add the longest echo time in units of 10 ms, which a nuisance term uses."""
    import pandas as pd

    def longest(text: Any) -> float:
        parts = [] if pd.isna(text) else str(text).split(",")
        return max(
            (float(part) for part in parts if re.fullmatch(r"[\d.eE-]+", part)), default=np.nan
        )

    if "EchoTime" not in table.columns:
        return table
    first = pd.to_numeric(table["EchoTime"], errors="coerce")
    if "echo_times" in table.columns:
        first = table["echo_times"].map(longest).fillna(first)
    return table.assign(echo_time_10ms=(first * 100.0).round(6))


def _missing(table: pd.DataFrame, lost: Mapping[str, pd.Series], outcome: str) -> dict[str, str]:
    """Return how many rows lack each variable; for the outcome, by the status of the person."""
    found = {}
    for name, rows in lost.items():
        if not rows.any():
            continue
        found[name] = str(int(rows.sum()))
        if name == outcome and "status" in table.columns:
            by = Counter(table.loc[rows, "status"].fillna("n/a").astype(str))
            found[name] += f" ({', '.join(f'{n} {status}' for status, n in sorted(by.items()))})"
    return found


# --- the terms -----------------------------------------------------------------------------------


def _matrix(
    rows: pd.DataFrame, request: ModelRequest, right: str, used: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, tuple[str, str, str]]]:
    """Return the columns of a right side, and column -> name, level and reference of a category."""
    import pandas as pd
    import patsy

    for column in used:
        _check_words(rows, column, request)
    names = {name: getattr(np, name) for name in NUMERIC}
    # The formula has been read by parse_model: it calls nothing but these and patsy's own.
    scope = patsy.EvalEnvironment([{**names, "np": _Numeric(names)}])
    data = pd.DataFrame({column: _plain(rows[column]) for column in used}, index=rows.index)
    try:
        with np.errstate(all="ignore"):
            matrix = patsy.dmatrix(
                right,
                data,
                eval_env=scope,
                NA_action=patsy.NAAction(NA_types=[]),
                return_type="matrix",
            )
    except (patsy.PatsyError, TypeError, ValueError, NameError, AttributeError) as error:
        text = str(error).partition("\n")[0]
        raise UsageError(
            f"the terms of the model {request.text!r} cannot be computed: {text}",
            hint="check the kind of each column: C(name) makes categories of it",
        ) from error
    info = matrix.design_info
    values = np.asarray(matrix, dtype=float)
    categories = {}
    for factor, described in info.factor_infos.items():
        if described.type != "categorical":
            continue
        levels = [level_name(level) for level in described.categories]
        short = re.sub(r"^C\(\s*(?:Q\(['\"](.+)['\"]\)|([^,)]+)).*\)$", r"\1\2", factor.name())
        for column in info.column_names:
            match = re.fullmatch(re.escape(factor.name()) + r"\[T\.(.*)\]", column)
            if match:
                level = re.sub(r"\.0$", "", match[1])
                categories[column] = (
                    short,
                    level,
                    _reference(levels, info.column_names, factor.name()),
                )
    return pd.DataFrame(values, columns=list(info.column_names), index=rows.index), categories


def _reference(levels: Sequence[str], columns: Sequence[str], factor: str) -> str:
    """Return the level that has no column of its own."""
    own = {
        re.sub(r"\.0$", "", match[1])
        for name in columns
        if (match := re.fullmatch(re.escape(factor) + r"\[T\.(.*)\]", name))
    }
    return next((level for level in levels if level not in own), "the others")


class _Numeric:
    """What ``np`` is in a formula: the allowed functions, nothing else."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self.__dict__.update(functions)


def _plain(column: pd.Series) -> NDArray[Any]:
    """Return numbers as floats, and anything else as text."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return column.map({True: "true", False: "false"}).to_numpy(object)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(float)
    return column.astype(str).to_numpy(object)


def _check_words(rows: pd.DataFrame, column: str, request: ModelRequest) -> None:
    """Refuse a column that is meant as numbers and holds some text, as ``72y`` for an age."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(rows[column]):
        return
    numbers = pd.to_numeric(rows[column], errors="coerce")
    wrong = rows[numbers.isna()]
    if len(rows) and 0 < len(wrong) < len(rows) / 2:
        examples = (
            f"{value!r} ({person})"
            for value, person in zip(wrong[column], wrong["participant_id"], strict=True)
        )
        raise UsageError(
            f"the column {column} of the model {request.text!r} holds text among its numbers: "
            f"{listing(examples, 3)}",
            hint="correct the table, or write n/a where the value is unknown",
        )
    levels = rows[column].astype(str).nunique()
    if levels > max(20, len(rows) / 2):
        raise UsageError(
            f"the column {column} of the model {request.text!r} is text with {levels} different "
            "values, one category each",
            hint="use a column of numbers, or one with few categories",
        )


def _offset(rows: pd.DataFrame, request: ModelRequest, used: Sequence[str]) -> NDArray[np.float64]:
    total = np.zeros(len(rows))
    for expression in request.offsets:
        columns, _ = _matrix(rows, request, f"0 + I({expression})", used)
        if columns.shape[1] != 1:
            raise UsageError(
                f"the offset of the model {request.text!r} is not a number per person",
                hint="an offset is a column of numbers or its logarithm",
            )
        total += columns.to_numpy()[:, 0]
    return total


def _separate(
    x: pd.DataFrame, *, constant: bool = False
) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Return the columns to keep, and each other one with the columns that determine it."""
    kept = independent_columns(x, constant=constant)
    lost = [name for name in x.columns if name not in kept]
    return kept, {name: determining(x[kept], x[name]) for name in lost}


def independent_columns(x: pd.DataFrame, *, constant: bool = False) -> list[str]:
    """Return the columns that are not determined by those before them.

    Parameters
    ----------
    x
        The columns.
    constant
        Whether a constant stands before them, as the thresholds of an ordinal model do.
    """
    basis = np.ones((len(x), 1)) / np.sqrt(max(len(x), 1)) if constant else np.empty((len(x), 0))
    kept = []
    for name in x.columns:
        column = x[name].to_numpy(float)
        length = np.linalg.norm(column)
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)  # twice is enough
        if length > 0 and np.linalg.norm(rest) > 1e-9 * length:
            kept.append(name)
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    return kept


def determining(x: pd.DataFrame, column: pd.Series) -> tuple[str, ...]:
    """Return the columns whose sum, with factors, is a column; the constant is not named."""
    matrix = np.column_stack([np.ones(len(x)), x.to_numpy(float)])
    solution = np.linalg.lstsq(matrix, column.to_numpy(float), rcond=None)[0]
    large = np.abs(solution[1:]) > 1e-6 * max(1.0, np.abs(solution).max())
    return tuple(
        name for name, used in zip(x.columns, large, strict=True) if used and name != INTERCEPT
    )
