"""Fit a model, check it, and put the results into words and rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing
from cmbprep.group.models import cautions
from cmbprep.group.models.checks import Check, count_zeros, left_out, measure_dispersion, measures
from cmbprep.group.models.coefficients import coefficient_rows
from cmbprep.group.models.design import NUISANCE, Design, make_design
from cmbprep.group.models.detection import (
    Outcomes,
    Sensitivity,
    refit_over_draws,
)
from cmbprep.group.models.doubt import is_drawn, is_of_detector
from cmbprep.group.models.fitting import Fit, fit_design
from cmbprep.group.models.followup import warn_of_followup
from cmbprep.group.models.forest import Line, draw_forest
from cmbprep.group.models.formula import COUNTS, ModelRequest
from cmbprep.group.models.outcome import code_outcome
from cmbprep.group.models.search import NotFittedError
from cmbprep.group.models.separation import without_separation
from cmbprep.group.models.sources import describe_sources

if TYPE_CHECKING:
    import pandas as pd


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
    strata
        Name of :data:`.NUISANCE`, or a column, in whose levels each model is fitted apart; None
        for one model of all participants.

    Raises
    ------
    UsageError
        If a nuisance term is not known, or the number of draws is 1 or negative.
    """

    nuisance: tuple[str, ...] = ()
    cluster: str | None = None
    n_draws: int = 0
    strata: str | None = None

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
    sources
        Sentences on who counted the microbleeds; empty where the model is not about them.
    fault
        Why there is no fit; empty where there is one.
    """

    request: ModelRequest
    options: ModelOptions
    design: Design
    fit: Fit | None
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    sensitivity: Sensitivity | None = None
    separated: tuple[str, ...] = ()
    sources: str = ""
    fault: str = ""

    @property
    def kind(self) -> str:
        """The kind in the end; see :attr:`.Fit.kind`."""
        return self.design.kind if self.fit is None else self.fit.kind

    @cached_property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """Values of the rows of ``group_models.tsv``, one per coefficient, by column."""
        return tuple(coefficient_rows(self))

    @property
    def told(self) -> tuple[tuple[str | None, str], ...]:
        """The warnings, each of no stratum."""
        return tuple((None, text) for text in self.warnings)

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


def fit_model(
    table: pd.DataFrame,
    request: ModelRequest,
    options: ModelOptions,
    drawn: Callable[[int], pd.DataFrame] | None = None,
) -> FittedModel:
    """Fit one model, without strata, and check it.

    Parameters
    ----------
    table, request, options
        As in :func:`.fit_models`.
    drawn
        Returns the table of each draw of the detector's lesions by its number; None without draws.

    Raises
    ------
    UsageError
        If the model cannot be made of this table.
    """
    design = make_design(table, request, nuisance=options.nuisance, cluster=options.cluster)
    varies = len(np.unique(design.y)) > 1  # else everything would be separated
    reduced, lost = without_separation(design) if varies else (design, ())
    fit, fault = _try(reduced)
    warnings = [
        *cautions.warn_of_protocol(table, design, request),
        *warn_of_followup(table, design, request),
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
        checks += measures(fit, dispersion, zeros)
        lines = [*left_out(fit, "participant"), *left_out(fit, "site")]
        checks += [check for check, _ in lines]
        warnings += [warning for _, warning in lines if warning]
        if options.n_draws and _is_automatic(table, design, request):
            if drawn is not None and is_drawn(request.outcome.column):
                sensitivity = refit_over_draws(fit, _outcomes(drawn, request, fit), options.n_draws)
            warnings += cautions.warn_of_detection(request, design, sensitivity)
    return FittedModel(
        request=request,
        options=options,
        design=design,
        fit=fit,
        checks=tuple(checks),
        warnings=cautions.join(warnings),
        sensitivity=sensitivity,
        separated=lost,
        sources=describe_sources(table, design, request),
        fault=fault,
    )


def _try(design: Design) -> tuple[Fit | None, str]:
    """Fit a design; return the reason where there are no estimates."""
    if len(np.unique(design.y)) < 2:
        return None, "the outcome is the same for all participants"
    if set(design.x.columns) <= design.separated:
        return None, "there is no term with a finite estimate"
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
    if is_of_detector(request.outcome.column):
        return True
    if "source" not in table.columns:
        return False
    used = table["participant_id"].isin(set(design.people))
    return bool((table.loc[used, "source"] == "automatic").any())


def _outcomes(drawn: Callable[[int], pd.DataFrame], request: ModelRequest, fit: Fit) -> Outcomes:
    """Return a function that draws the outcome of each row of a design."""

    def draw(number: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        table = drawn(number).set_index("participant_id").loc[list(fit.design.people)]
        try:
            # A draw may have classes that nobody was in, so it has its own.
            _, y, classes = code_outcome(table, request)
        except UsageError as error:  # nobody has the level that the model is about
            raise NotFittedError(error.message) from error
        return y.to_numpy(float), classes

    return draw
