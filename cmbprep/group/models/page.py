"""Fitted models as the group page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmbprep.group.models.forest import PARTS
from cmbprep.group.models.requested import CohortModel

if TYPE_CHECKING:
    from markupsafe import Markup

STRATUM, TERM, PART, RATIO, DOUBT, P, NOTE = (
    "stratum",
    "term",
    "part",
    "ratio (95 % interval)",
    "with the detector's doubt",
    "p",
    "note",
)


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """What the page shows of one model.

    Attributes
    ----------
    title
        The formula.
    columns, rows
        A table of the coefficients that have a ratio, or a reason why not; all cells are text.
    warnings
        Sentences.
    methods
        Sentence for the methods of a paper.
    figure
        Forest plot, SVG.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    methods: str
    figure: Markup


def model_sections(models: Sequence[CohortModel]) -> tuple[ModelSection, ...]:
    """Return what the page shows of each model."""
    return tuple(map(_section, models))


def _section(model: CohortModel) -> ModelSection:
    from markupsafe import Markup

    shown = [row for row in model.rows if row["role"] in ("term", "nuisance", "constant")]
    rows = [_cells(row) for row in shown]
    optional = (STRATUM, PART, DOUBT, NOTE)
    several = len({row[PART] for row in rows}) > 1
    columns = tuple(
        name
        for name in (STRATUM, TERM, PART, RATIO, P, DOUBT, NOTE)
        if name not in optional or (several if name == PART else any(row[name] for row in rows))
    )
    return ModelSection(
        title=model.request.text,
        columns=columns,
        rows=tuple(rows),
        warnings=model.warnings,
        methods=model.methods_sentence,
        figure=Markup(model.forest_svg()),  # noqa: S704  # Canvas escapes all text
    )


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    p = row.get("p")
    return {
        STRATUM: row.get("stratum") or "",
        TERM: row["label"],
        PART: PARTS[row["part"]],
        RATIO: _interval(row["ratio"], row["ratio_low"], row["ratio_high"]),
        P: "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
        DOUBT: ""
        if row.get("detection_ratio") is None
        else _interval(row["detection_ratio"], row["detection_low"], row["detection_high"]),
        NOTE: row.get("note") or "",
    }


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "n/a"
    return f"{value:.3g} ({low:.3g} to {high:.3g})"
