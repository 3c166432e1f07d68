"""The tables of models, and the table of participants as pandas has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cmbprep.files.tsv import MISSING
from cmbprep.group.dictionary import describe
from cmbprep.group.models.fitted import FittedModel
from cmbprep.group.tables import Table

if TYPE_CHECKING:
    import pandas as pd


def models_table(models: Sequence[FittedModel]) -> Table:
    """Make the table of models: one row per coefficient."""
    values = tuple(
        {"model": number, **row} for number, model in enumerate(models, 1) for row in model.rows
    )
    return Table(describe("models"), values)


def checks_table(models: Sequence[FittedModel]) -> Table:
    """Make the table of checks: one row per check, warning and Methods sentence of a model."""
    values = [
        {"model": number, "formula": model.request.text, **line}
        for number, model in enumerate(models, 1)
        for line in _lines(model)
    ]
    return Table(describe("model_checks"), tuple(values))


def _lines(model: FittedModel) -> Iterator[dict[str, Any]]:
    yield {"check": "methods", "text": model.methods_sentence}
    for warning in model.warnings:
        yield {"check": "warning", "text": warning}
    for check in model.checks:
        yield {
            **{name: getattr(check, name) for name in ("check", "subject", "part", "text")},
            **{name: getattr(check, name) for name in ("value", "low", "high", "expected", "p")},
            "term": check.column,
        }


def participants_frame(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table as pandas has it: numbers where all values of a column are numbers.

    Parameters
    ----------
    columns
        Names of the columns.
    rows
        Values by column; None and ``n/a`` are missing, and so is a column that a row lacks.
    """
    import pandas as pd

    frame = pd.DataFrame(
        {name: pd.Series([_value(row.get(name)) for row in rows], dtype=object) for name in columns}
    )
    for name in frame.columns:
        known = frame[name].dropna()
        if name == "participant_id" or known.map(lambda value: isinstance(value, bool)).any():
            continue
        numbers = pd.to_numeric(known, errors="coerce")
        if len(known) and not numbers.isna().any():
            frame[name] = pd.to_numeric(frame[name])
    return frame


def _value(value: Any) -> Any:
    if value is None or value in ("", MISSING):
        return None
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return value
