"""Coefficients of a fitted model as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbprep.group.models.cautions import count_events
from cmbprep.group.models.design import INTERCEPT, Design
from cmbprep.group.models.detection import Pooled
from cmbprep.group.models.fitting import Estimate, bounds, ratios

#: Width of an interval on the log scale above which the ratio says nothing.
MAX_WIDTH = 20.0 * float(np.log(10.0))
#: What a row has that has no ratio.
NO_RATIO = dict.fromkeys(("ratio_type", "ratio", "ratio_low", "ratio_high"))

SEPARATED = "no finite estimate (separation)"

if TYPE_CHECKING:
    from cmbprep.group.models.fitted import FittedModel


def common_values(model: FittedModel) -> dict[str, Any]:
    """Return the values that all rows of a model have."""
    design = model.design
    events, _ = count_events(design)
    return {
        "formula": model.request.text,
        "kind": model.kind,
        "outcome": str(model.request.outcome),
        "n": len(design.y),
        "n_left_out": design.n_left_out,
        "missing": "; ".join(f"{name} {text}" for name, text in design.missing.items()) or None,
        "n_events": events,
        "covariance": "model" if design.clusters is None else f"cluster {model.options.cluster}",
        "n_clusters": None if design.clusters is None else len(set(design.clusters)),
    }


def coefficient_rows(model: FittedModel) -> Iterator[dict[str, Any]]:
    """Yield the values of the rows of ``group_models.tsv``, one per coefficient, by column."""
    design, fit, common = model.design, model.fit, common_values(model)
    known = set()
    for item in () if fit is None else fit.estimates:
        known.add(item.column)
        yield {**common, **_numbers(model, item)}
    notes = {
        column: "follows from other terms" if others else "the same for all participants"
        for column, others in design.inseparable.items()
    }
    notes |= dict.fromkeys(model.separated, SEPARATED)
    if fit is None:
        notes = {**dict.fromkeys(design.x.columns, "no estimates"), **notes}
    part = {"logit": "presence", "ordinal": "class"}.get(design.kind, "count")
    for column, note in notes.items():
        if column not in known:
            yield {
                **common,
                "part": part,
                "term": column,
                "label": design.label(column),
                "role": role_of(design, column, ratio=True),
                **NO_RATIO,
                "note": note,
            }


def role_of(design: Design, column: str, *, ratio: bool) -> str:
    """Return what a coefficient is for: a level of the column ``role``."""
    if column == "alpha":
        return "dispersion"
    if column == INTERCEPT:
        return "constant"
    if not ratio:
        return "threshold"
    return "nuisance" if column in design.nuisance else "term"


def _numbers(model: FittedModel, item: Estimate) -> dict[str, Any]:
    low, high = item.interval
    values: dict[str, Any] = {
        "part": item.part,
        "term": item.column,
        "label": model.design.label(item.column),
        "role": role_of(model.design, item.column, ratio=bool(item.ratio)),
        "estimate": item.value,
        "se": item.error,
        "df": item.df,
        **NO_RATIO,
        "ratio_type": item.ratio or None,
    }
    if not np.isfinite(item.error):
        return values | {
            "estimate": None,
            "se": None,
            "ratio_type": None,
            "note": SEPARATED
            if item.column in model.separated
            else "no valid error: fits the clusters exactly",
        }
    if item.ratio and high - low > MAX_WIDTH:
        return values | {"note": "the interval of the ratio spans more than twenty powers of ten"}
    if not item.ratio:
        return values
    values |= dict(
        zip(("ratio", "ratio_low", "ratio_high"), ratios(item.value, low, high), strict=True)
    )
    if item.error > 0:
        values["p"] = item.p
    pooled = (
        None
        if model.sensitivity is None
        else model.sensitivity.pooled.get((item.part, item.column))
    )
    if pooled is not None and model.sensitivity is not None:
        values |= detection_values(pooled, model.sensitivity.n_draws - model.sensitivity.n_lost)
    return values


def detection_values(pooled: Pooled, draws: int) -> dict[str, Any]:
    """Return the columns of a coefficient with the detector's doubt."""
    from scipy import stats

    ends = bounds(pooled.value, pooled.error, pooled.df)
    ratio, lower, upper = ratios(pooled.value, *ends)
    return {
        "detection_draws": draws,
        "detection_estimate": pooled.value,
        "detection_se": pooled.error,
        "detection_ratio": ratio,
        "detection_low": lower,
        "detection_high": upper,
        "detection_p": float(2.0 * stats.t.sf(abs(pooled.value) / pooled.error, pooled.df)),
        "detection_share": pooled.share,
    }
