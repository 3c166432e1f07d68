"""All models that were asked for, with or without strata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cmbprep.group.models.detection import SEED, Redraw
from cmbprep.group.models.fitted import FittedModel, ModelOptions, fit_model
from cmbprep.group.models.formula import ModelRequest
from cmbprep.group.models.outcome import check_columns, code_outcome
from cmbprep.group.models.strata import check_strata
from cmbprep.group.models.stratified import StratifiedModel, fit_stratified

if TYPE_CHECKING:
    import pandas as pd

#: A model of the cohort, as tables and pages take it.
CohortModel = FittedModel | StratifiedModel


def check_requests(
    table: pd.DataFrame, requests: Sequence[ModelRequest], options: ModelOptions
) -> None:
    """Check that the table has what the models name, before anything is computed or written.

    Raises
    ------
    UsageError
        If a column is missing, an outcome does not suit the kind of its model, or the table cannot
        be split into the strata.
    """
    if options.strata is not None:
        check_strata(table, options.strata, requests)
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
) -> tuple[CohortModel, ...]:
    """Fit models to the table of participants.

    Parameters
    ----------
    table
        One row per participant, with the columns of ``group_participants.tsv``; see
        :func:`.participants_frame`.
    requests
        The models, as :func:`.parse_models` reads them.
    options
        Nuisance terms, clusters, strata and draws, the same for all models.
    redraw
        Returns the table with outcomes as if each automatic lesion were real with its
        probability; None where there are no such lesions.

    Returns
    -------
    tuple of FittedModel or StratifiedModel
        In the order of the requests. The same table gives the same results.

    Raises
    ------
    UsageError
        If a formula names columns that are not in the table, or cannot be computed from them.
    """
    options = options or ModelOptions()
    check_requests(table, requests, options)
    drawn = None if redraw is None else _numbered(redraw)
    fit = fit_model if options.strata is None else fit_stratified
    return tuple(fit(table, request, options, drawn) for request in requests)


def _numbered(redraw: Redraw) -> Callable[[int], pd.DataFrame]:
    """Return the table of each draw by its number, made once for all models."""
    return cache(lambda number: redraw(np.random.default_rng([SEED, number])))
