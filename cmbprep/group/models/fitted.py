"""Fit the models that were asked for, check them, and put the results into words and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing
from cmbprep.group.models import cautions
from cmbprep.group.models.checks import (
    Check,
    Dispersion,
    Zeros,
    count_zeros,
    find_estimate,
    leave_out_people,
    leave_out_sites,
    measure_dispersion,
)
from cmbprep.group.models.design import (
    INTERCEPT,
    NUISANCE,
    Design,
    check_columns,
    code_outcome,
    make_design,
)
from cmbprep.group.models.detection import Redraw, Sensitivity, refit_over_draws
from cmbprep.group.models.fitting import Estimate, Fit, fit_design
from cmbprep.group.models.forest import Line, draw_forest
from cmbprep.group.models.formula import ModelRequest
from cmbprep.group.models.search import NotFittedError
from cmbprep.group.models.separation import without_separation

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("poisson", "nb", "zip", "zinb", "hurdle")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How models are fitted, besides their formulas.

    Attributes
    ----------
    nuisance
        Names of :data:`.NUISANCE` whose terms are added to each model.
    cluster
        Column whose values are the clusters of a cluster-robust covariance; None without.
    n_draws
        Draws of the detector's lesions for the sensitivity analysis; 0 without it.

    Raises
    ------
    UsageError
        If a nuisance term is not known, or the number of draws is 1 or negative.
    """

    nuisance: tuple[str, ...] = ()
    cluster: str | None = None
    n_draws: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.nuisance if name not in NUISANCE]
        if unknown:
            raise UsageError(
                f"there is no nuisance term {listing(map(repr, unknown))}",
                hint=f"choose from {', '.join(NUISANCE)}",
            )
        if self.n_draws < 0 or self.n_draws == 1:
            raise UsageError(
                f"the number of draws is {self.n_draws}", hint="give 0 for none, or at least 2"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedModel:
    """One model with its results.

    Attributes
    ----------
    request, options
        What was asked for.
    design
        What it was fitted to, before columns without a finite estimate were left out.
    fit
        The fit; None where there is none, and the warnings say why.
    checks
        Lines of ``group_model_checks.tsv``.
    warnings
        Sentences without a capital and a full stop.
    sensitivity
        The model over draws of the detector's lesions; None where it was not made.
    separated
        Columns without a finite estimate.
    """

    request: ModelRequest
    options: ModelOptions
    design: Design
    fit: Fit | None
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    sensitivity: Sensitivity | None = None
    separated: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind in the end; see :attr:`.Fit.kind`."""
        return self.design.kind if self.fit is None else self.fit.kind

    @cached_property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """Values of the rows of ``group_models.tsv``, one per coefficient, by column."""
        return tuple(_rows(self))

    @property
    def methods_sentence(self) -> str:
        """What was done, for the methods of a paper."""
        from cmbprep.group.models.wording import methods_sentence

        return methods_sentence(self)

    def forest_svg(self) -> str:
        """Draw the ratios of the terms with their intervals, as SVG."""
        lines = [
            Line(
                label=row["label"],
                ratio=row["ratio"],
                low=row["ratio_low"],
                high=row["ratio_high"],
                group=row["part"],
                quiet=row["role"] == "nuisance",
                wider=None
                if row.get("detection_ratio") is None
                else (row["detection_low"], row["detection_high"]),
            )
            for row in self.rows
            if row["role"] in ("term", "nuisance")
        ]
        ratios = sorted({row["ratio_type"] for row in self.rows if row["ratio_type"]})
        return draw_forest(self.request.text, lines, " and ".join(ratios) or "ratio")


def check_requests(
    table: pd.DataFrame, requests: Sequence[ModelRequest], options: ModelOptions
) -> None:
    """Check that the table has what the models name, before anything is computed or written.

    Raises
    ------
    UsageError
        If a column is missing, or an outcome does not suit the kind of its model.
    """
    for request in requests:
        cluster = [options.cluster] if options.cluster else []
        check_columns(table, (request.outcome.column, *request.columns, *cluster))
        code_outcome(table, request)


def fit_models(
    table: pd.DataFrame,
    requests: Sequence[ModelRequest],
    options: ModelOptions | None = None,
    *,
    redraw: Redraw | None = None,
) -> tuple[FittedModel, ...]:
    """Fit models to the table of participants.

    Parameters
    ----------
    table
        One row per participant, with the columns of ``group_participants.tsv``; see
        :func:`.participants_frame`.
    requests
        The models, as :func:`.parse_models` reads them.
    options
        Nuisance terms, clusters and draws, the same for all models.
    redraw
        Returns the table with outcomes as if each automatic lesion were real with its
        probability; None where there are no such lesions.

    Returns
    -------
    tuple of FittedModel
        In the order of the requests. The same table gives the same results.

    Raises
    ------
    UsageError
        If a formula names columns that are not in the table, or cannot be computed from them.
    """
    options = options or ModelOptions()
    check_requests(table, requests, options)
    return tuple(_fit_model(table, request, options, redraw) for request in requests)


def _fit_model(
    table: pd.DataFrame, request: ModelRequest, options: ModelOptions, redraw: Redraw | None
) -> FittedModel:
    design = make_design(table, request, nuisance=options.nuisance, cluster=options.cluster)
    reduced, lost = without_separation(design)
    fit, fault = _try(reduced)
    warnings = [
        *cautions.warn_of_protocol(table, design, request),
        *cautions.warn_of_design(design, lost, design.kind),
    ]
    checks: list[Check] = []
    sensitivity = None
    if fit is None:
        warnings.append(f"no estimates: {fault}")
    else:
        dispersion = measure_dispersion(reduced) if design.kind in COUNTS else None
        zeros = count_zeros(fit)
        warnings += cautions.warn_of_fit(fit, design.kind, dispersion, zeros)
        checks += _measures(fit, dispersion, zeros)
        left_out = [*_left_out(fit, "participant"), *_left_out(fit, "site")]
        checks += [check for check, _ in left_out]
        warnings += [warning for _, warning in left_out if warning]
        if options.n_draws and redraw is not None and _is_automatic(table, design, request):
            sensitivity = refit_over_draws(fit, _outcomes(redraw, request, fit), options.n_draws)
            if not sensitivity.pooled:
                warnings.append(
                    f"{sensitivity.n_lost} of {sensitivity.n_draws} draws of the detector's "
                    "lesions gave no estimates, so that there are no pooled ones"
                )
    return FittedModel(
        request=request,
        options=options,
        design=design,
        fit=fit,
        checks=tuple(checks),
        warnings=cautions.join(warnings),
        sensitivity=sensitivity,
        separated=lost,
    )


def _try(design: Design) -> tuple[Fit | None, str]:
    """Fit a design; return the reason where there are no estimates."""
    if design.x.shape[1] == 0 and design.kind != "ordinal":
        return None, "no coefficient has a finite estimate"
    if len(design.y) <= design.x.shape[1] + 1:
        return (
            None,
            f"{len(design.y)} participants are too few for {design.x.shape[1]} coefficients",
        )
    if design.clusters is not None and len(set(design.clusters)) < 2:
        return None, "all participants are in one cluster"
    try:
        return fit_design(design), ""
    except NotFittedError as error:
        return None, f"{error}; use fewer terms or a simpler kind"


def _is_automatic(table: pd.DataFrame, design: Design, request: ModelRequest) -> bool:
    """Return whether some outcomes of a model are counts of the detector."""
    if request.outcome.column.startswith("n_automatic"):
        return True
    if "source" not in table.columns:
        return False
    used = table["participant_id"].isin(set(design.people))
    return bool((table.loc[used, "source"] == "automatic").any())


def _outcomes(redraw: Redraw, request: ModelRequest, fit: Fit) -> Any:
    """Return a function that draws the outcome of each row of a design."""
    classes = fit.design.classes

    def draw(random: np.random.Generator) -> NDArray[np.float64]:
        table = redraw(random).set_index("participant_id").loc[list(fit.design.people)]
        column = table[request.outcome.column]
        if fit.design.kind == "ordinal":
            codes = {name: float(number) for number, name in enumerate(classes)}
            return np.array([codes.get(str(value), np.nan) for value in column], dtype=float)
        try:
            return code_outcome(table, request)[1].to_numpy(float)
        except UsageError as error:  # nobody has the level that the model is about
            raise NotFittedError(error.message) from error

    return draw


# --- checks in words -----------------------------------------------------------------------------


def _measures(fit: Fit, dispersion: Dispersion | None, zeros: Zeros | None) -> Iterator[Check]:
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


def _left_out(fit: Fit, what: str) -> Iterator[tuple[Check, str | None]]:
    """Yield lines without single participants or sites, with a warning where much changes."""
    refits = leave_out_people(fit) if what == "participant" else leave_out_sites(fit)
    shown = [item for item in fit.estimates if _is_shown(fit, item, what)]
    for subject, other in refits:
        for item in shown:
            found = find_estimate(other, item.part, item.column)
            low, high = bounds(item.value, item.error, fit.df)
            label = fit.design.label(item.column)
            if found is None or other is None:
                text = f"{label}: no estimate without {what} {subject}"
                yield _line(what, subject, item, None, text), None
                continue
            text = f"{item.ratio} of {label} without {what} {subject}"
            inner = bounds(found.value, found.error, other.df)
            verdict = (low > 0 or high < 0) != (inner[0] > 0 or inner[1] < 0)
            words = f"95 % interval {np.exp(inner[0]):.3g} to {np.exp(inner[1]):.3g}"
            yield (
                _line(what, subject, item, (found.value, *inner), text),
                _change(label, what, subject, item, found, verdict, words),
            )


def _is_shown(fit: Fit, item: Estimate, what: str) -> bool:
    plain = item.ratio and item.column != INTERCEPT and item.column not in fit.design.nuisance
    # Without a site, the terms of the site itself mean something else.
    own = fit.design.categories.get(item.column, ("",))[0] == "site" or "site" in item.column
    return bool(plain) and not (what == "site" and own)


def _line(
    what: str, subject: str, item: Estimate, numbers: tuple[float, float, float] | None, text: str
) -> Check:
    value, low, high = (None, None, None) if numbers is None else np.exp(numbers)
    return Check(
        check=f"without {what}",
        subject=subject,
        part=item.part,
        column=item.column,
        value=None if value is None else float(value),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
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
        far = turned or moved > 2.5 * max(chance, 0.1 * item.error)
    else:
        far = moved > item.error or (verdict and moved > 0.5 * item.error)
    if not far:
        return None
    change = f"{np.exp(item.value):.3g} becomes {np.exp(found.value):.3g}"
    where = f" ({item.part})" if item.part in ("presence", "zeros") else ""
    return (
        f"{label}{where} rests on {what} {subject}: without it, the {item.ratio} {change} ({inner})"
    )


# --- rows ----------------------------------------------------------------------------------------


def bounds(value: float, error: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of an estimate on the log scale, by the t distribution."""
    from scipy import stats

    reach = float(stats.t.ppf(0.5 + level / 2.0, df)) * error if df > 0 else float("nan")
    return value - reach, value + reach


def _rows(model: FittedModel) -> Iterator[dict[str, Any]]:
    design, fit = model.design, model.fit
    events, _ = cautions.count_events(design)
    common = {
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
    known = set()
    for item in () if fit is None else fit.estimates:
        known.add(item.column)
        yield {**common, **_numbers(model, fit, item)}  # type: ignore[arg-type]
    notes = dict.fromkeys(design.inseparable, "follows from other terms")
    notes |= dict.fromkeys(model.separated, "no finite estimate (separation)")
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
                "role": _role(design, column, ratio=True),
                "ratio_type": None,
                "ratio": None,
                "ratio_low": None,
                "ratio_high": None,
                "note": note,
            }


def _role(design: Design, column: str, *, ratio: bool) -> str:
    if column == "alpha":
        return "dispersion"
    if column == INTERCEPT:
        return "constant"
    if not ratio:
        return "threshold"
    return "nuisance" if column in design.nuisance else "term"


def _numbers(model: FittedModel, fit: Fit, item: Estimate) -> dict[str, Any]:
    from scipy import stats

    low, high = bounds(item.value, item.error, fit.df)
    values: dict[str, Any] = {
        "part": item.part,
        "term": item.column,
        "label": model.design.label(item.column),
        "role": _role(model.design, item.column, ratio=bool(item.ratio)),
        "estimate": item.value,
        "se": item.error,
        "df": fit.df,
        "ratio_type": item.ratio or None,
        "ratio": None,
        "ratio_low": None,
        "ratio_high": None,
    }
    if not item.ratio:
        return values
    values |= dict(
        zip(("ratio", "ratio_low", "ratio_high"), _exp(item.value, low, high), strict=True)
    )
    if item.error > 0:
        values["p"] = float(2.0 * stats.t.sf(abs(item.value) / item.error, fit.df))
    pooled = (
        None
        if model.sensitivity is None
        else model.sensitivity.pooled.get((item.part, item.column))
    )
    if pooled is not None and model.sensitivity is not None:
        ends = bounds(pooled.value, pooled.error, pooled.df)
        ratio, lower, upper = _exp(pooled.value, *ends)
        values |= {
            "detection_draws": model.sensitivity.n_draws - model.sensitivity.n_lost,
            "detection_estimate": pooled.value,
            "detection_se": pooled.error,
            "detection_ratio": ratio,
            "detection_low": lower,
            "detection_high": upper,
            "detection_p": float(2.0 * stats.t.sf(abs(pooled.value) / pooled.error, pooled.df)),
            "detection_share": pooled.share,
        }
    return values


def _exp(*values: float) -> tuple[float, ...]:
    with np.errstate(over="ignore"):
        return tuple(float(value) for value in np.exp(values))
