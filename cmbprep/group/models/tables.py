"""The tables of models, and the table of participants as pandas has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cmbprep.files.tsv import MISSING
from cmbprep.group.dictionary import describe
from cmbprep.group.models.doubt import make_redraw
from cmbprep.group.models.fitted import ModelOptions
from cmbprep.group.models.formula import ModelRequest
from cmbprep.group.models.requested import CohortModel, fit_models
from cmbprep.group.protocols import nominal_field
from cmbprep.group.rows import Row
from cmbprep.group.tables import Table

if TYPE_CHECKING:
    import pandas as pd


def models_table(models: Sequence[CohortModel]) -> Table:
    """Make the table of models: one row per coefficient."""
    values = tuple(
        {"model": number, **row} for number, model in enumerate(models, 1) for row in model.rows
    )
    return Table(describe("models"), values)


def checks_table(models: Sequence[CohortModel]) -> Table:
    """Make the table of checks: one row per check, warning and Methods sentence of a model."""
    values = [
        {"model": number, "formula": model.request.text, **line}
        for number, model in enumerate(models, 1)
        for line in _lines(model)
    ]
    return Table(describe("model_checks"), tuple(values))


def _lines(model: CohortModel) -> Iterator[dict[str, Any]]:
    yield {"check": "methods", "text": model.methods_sentence}
    for stratum, warning in model.told:
        yield {"check": "warning", "stratum": stratum, "text": warning}
    for check in model.checks:
        yield {
            **{name: getattr(check, name) for name in ("check", "stratum", "subject", "part")},
            **{name: getattr(check, name) for name in ("value", "low", "high", "expected", "p")},
            "term": check.column,
            "text": check.text,
        }


def baseline_rows(people: Table, rows: Sequence[Row]) -> list[Row | None]:
    """Return the scan that each row of the table of participants stands for; None without one.

    Parameters
    ----------
    people
        The table of participants, with the names that the scans have.
    rows
        All scans.
    """
    scans = {(f"sub-{row.subject}", row.name): row for row in rows}
    return [
        scans.get((line["participant_id"], str(line.get("baseline_scan"))))
        for line in people.values
    ]


def fit_cohort(
    people: Table,
    baseline: Sequence[Row | None],
    requests: Sequence[ModelRequest],
    options: ModelOptions,
) -> tuple[CohortModel, ...]:
    """Fit models to the participants of a cohort.

    Parameters
    ----------
    people
        The table of participants.
    baseline
        Scan of each row of the table, as :func:`baseline_rows` finds it.
    requests, options
        The models.

    Raises
    ------
    UsageError
        If a model cannot be fitted to this table.
    """
    frame = participants_frame([*people.dictionary], people.values)
    labels = [str(line["participant_id"]) for line in people.values]
    scans = {person: row for person, row in zip(labels, baseline, strict=True) if row is not None}
    outcomes = [*dict.fromkeys(request.outcome.column for request in requests)]
    redraw = make_redraw(frame, scans, outcomes) if options.n_draws else None
    return fit_models(frame, requests, options, redraw=redraw)


def participants_frame(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table as pandas has it: numbers where all values of a column are numbers.

    Field strengths are nominal ones (:func:`.nominal_field`), so that 2.89 and 3 T are one level.

    Parameters
    ----------
    columns
        Names of the columns.
    rows
        Values by column; None and ``n/a`` are missing, and so is a column that a row lacks.
    """
    import pandas as pd

    found: dict[str, Any] = {}
    for name in columns:
        values = pd.Series([_value(row.get(name)) for row in rows], dtype=object)
        known = values.dropna()
        numbers = pd.to_numeric(known, errors="coerce")
        is_text = name == "participant_id" or any(isinstance(item, bool) for item in known)
        if not is_text and len(known) and not numbers.isna().any():
            values = pd.to_numeric(values)
            if name == "MagneticFieldStrength":
                values = values.map(nominal_field, na_action="ignore")
        found[name] = values.to_numpy()
    return pd.DataFrame(found)


def _value(value: Any) -> Any:
    if value is None or value in ("", MISSING):
        return None
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return value
