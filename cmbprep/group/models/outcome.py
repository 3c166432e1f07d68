"""What a model explains, as numbers: counts, yes or no, or the number of a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing, nearest
from cmbprep.group.models.formula import ModelRequest

if TYPE_CHECKING:
    import pandas as pd


def check_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Check that a table has columns.

    Raises
    ------
    UsageError
        If it has not; the message has the near names.
    """
    unknown = [name for name in dict.fromkeys(names) if name not in table.columns]
    if unknown:
        near = "".join(dict.fromkeys(nearest(name, table.columns) for name in unknown))
        raise UsageError(
            f"the table of participants has no column {listing(map(repr, unknown))}{near}",
            hint="name columns of group_participants.tsv; columns of participants.tsv are in it "
            "under their own names",
        )


def code_outcome(
    table: pd.DataFrame, request: ModelRequest
) -> tuple[str, pd.Series, tuple[str, ...]]:
    """Return the kind of a model, its outcome as numbers, and the classes of an ordinal one.

    Without a kind in the formula, counts (``n_…``) make a negative binomial model, burden classes
    an ordinal one, and a comparison or a column of true and false a logistic one.

    Raises
    ------
    UsageError
        If the outcome does not suit the kind.
    """
    import pandas as pd

    outcome, column = request.outcome, table[request.outcome.column]
    fault = f"the outcome {str(outcome)!r} of the model {request.text!r}"
    if outcome.operator is not None:
        if request.kind not in (None, "logit"):
            raise UsageError(
                f"{fault} is a comparison, and the kind {request.kind} is not for yes or no",
                hint="use the kind logit, or the column itself as the outcome",
            )
        return "logit", _compare(column, request), ()
    words = column.dropna().map(lambda value: str(value).lower())
    if words.isin(("true", "false")).all() and len(words) and request.kind in (None, "logit"):
        return (
            "logit",
            column.map(
                lambda value: np.nan if pd.isna(value) else float(str(value).lower() == "true")
            ).astype(float),
            (),
        )
    kind = request.kind or ("ordinal" if outcome.column.startswith("burden_") else None)
    if kind == "ordinal":
        return _ordered(column, fault)
    if kind is None and outcome.column.startswith(("n_", "Q(")):
        kind = "nb"
    numbers = pd.to_numeric(column, errors="coerce")
    if kind is None or (numbers.isna() & column.notna()).any():
        raise UsageError(
            f"{fault} is neither a count (n_…), a burden class, nor yes or no",
            hint='compare it with a value ("pattern_definite == strictly lobar"), or name the kind '
            'before it ("poisson: falls ~ age")',
        )
    known = numbers.dropna()
    allowed = known.isin((0, 1)) if kind == "logit" else (known >= 0) & (known == known.round())
    if not allowed.all():
        raise UsageError(
            f"{fault} has the value {known[~allowed].iloc[0]:g}, and a model of kind {kind} needs "
            f"{'0 and 1' if kind == 'logit' else 'whole numbers from 0'}",
            hint="choose another outcome or kind",
        )
    return kind, numbers, ()


def _compare(column: pd.Series, request: ModelRequest) -> pd.Series:
    import pandas as pd

    outcome = request.outcome
    numbers = pd.to_numeric(column, errors="coerce")
    if isinstance(outcome.value, float) and not (numbers.isna() & column.notna()).any():
        compare = {
            "==": numbers.eq,
            ">": numbers.gt,
            ">=": numbers.ge,
            "<": numbers.lt,
            "<=": numbers.le,
        }[outcome.operator or "=="]
        return compare(outcome.value).astype(float).where(numbers.notna())
    wanted = f"{outcome.value:g}" if isinstance(outcome.value, float) else str(outcome.value)
    words = column.map(lambda value: None if pd.isna(value) else str(value))
    levels = sorted(set(words.dropna()))
    if outcome.operator != "==" or wanted not in levels:
        raise UsageError(
            f"no participant has {outcome.column} {outcome.operator} {wanted}"
            f"{nearest(wanted, levels)}",
            hint=f"{outcome.column} has {listing(map(repr, levels))}",
        )
    # A pattern that could not be decided is neither the one that is asked for nor another one.
    known = words.notna() & (words != "undetermined")
    return words.eq(wanted).astype(float).where(known)


def _ordered(column: pd.Series, fault: str) -> tuple[str, pd.Series, tuple[str, ...]]:
    """Order classes by the number that their names begin with: 0, 1, 2to4, 5ormore."""
    import pandas as pd

    words = column.map(lambda value: None if pd.isna(value) else level_name(value))
    starts = {word: re.match(r"\D{0,2}(\d+)", word) for word in set(words.dropna())}
    if not starts or not all(starts.values()):
        raise UsageError(
            f"{fault} has no classes that begin with a number, so that their order is unknown",
            hint="use a column burden_…",
        )
    classes = tuple(sorted(starts, key=lambda word: int(starts[word][1])))  # type: ignore[index]
    if len(classes) < 2:
        raise UsageError(f"{fault} has one class only, {classes[0]!r}", hint="choose another scale")
    codes = {word: float(number) for number, word in enumerate(classes)}
    return "ordinal", words.map(codes).astype(float), classes


def level_name(value: Any) -> str:
    """Return a level as text; a whole number has no decimals."""
    return f"{value:g}" if isinstance(value, float) else str(value)
