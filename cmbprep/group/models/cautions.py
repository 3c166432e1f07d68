"""Plain warnings on a model: what makes its numbers uncertain, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cmbprep.files.tsv import listing
from cmbprep.group.models.checks import Dispersion, Zeros
from cmbprep.group.models.design import INTERCEPT, NUISANCE, PROTOCOL, Design
from cmbprep.group.models.detection import Sensitivity
from cmbprep.group.models.doubt import is_drawn, is_of_detector
from cmbprep.group.models.fitting import Fit, saturated_columns
from cmbprep.group.models.formula import KINDS, ModelRequest

if TYPE_CHECKING:
    import pandas as pd

#: Events for each coefficient below which estimates are unsure.
MIN_EVENTS = 10
#: Clusters below which a cluster-robust error is unsure.
MIN_CLUSTERS = 10
#: Pearson's ratio above which a Poisson model's intervals are called too narrow.
MAX_PEARSON = 1.5
LEVEL = 0.05


def count_events(design: Design) -> tuple[int, str]:
    """Return the number of events that limits what a model can estimate, and what they are."""
    y = design.y
    if design.kind == "logit":
        return int(min((y == 1).sum(), (y == 0).sum())), "participants in the rarer outcome"
    if design.kind == "ordinal":
        largest = max((y == code).sum() for code in set(y)) if len(y) else 0
        return int(len(y) - largest), "participants outside the largest class"
    # Microbleeds cluster in few people, so people are the events, not microbleeds.
    return int((y > 0).sum()), "participants with a count above 0"


def warn_of_design(design: Design, lost: Sequence[str], kind: str) -> Iterator[str]:
    """Yield what is wrong with the data for this model."""
    events, name = count_events(design)
    terms = [column for column in design.x.columns if column != INTERCEPT]
    if terms and events < MIN_EVENTS * len(terms):
        yield (
            f"few events: {events} {name} for {_number(len(terms), 'coefficient')}, and at least "
            f"{MIN_EVENTS} for each are advised; estimates may be far off, so use fewer terms"
        )
    for column in lost:
        if column == INTERCEPT:
            continue
        yield (
            f"separation: {design.label(column)} has no finite estimate, because it tells without "
            "exception who has the outcome, or who has not, in a part of the participants; it is "
            "n/a, and the other coefficients hold"
        )
    for column, others in design.inseparable.items():
        if others:
            named = listing(map(design.label, others))
            yield (
                f"inseparable: {design.label(column)} follows from {named} in these participants, "
                "so that their effects cannot be told apart; it is left out, and the others hold "
                "its effect too"
            )
        else:
            yield f"{design.label(column)} is the same for all participants and is left out"
    if kind == "hurdle" and not terms:
        yield "a hurdle model without terms has one mean only: its dispersion is badly determined"
    sizes = [] if design.clusters is None else list(set(design.clusters))
    if sizes and len(sizes) < MIN_CLUSTERS:
        yield (
            f"cluster-robust errors with {len(sizes)} clusters are unsure: fewer than "
            f"{MIN_CLUSTERS} make intervals too narrow; a term for each cluster, such as C(site), "
            "is the safer choice"
        )
    if saturated := saturated_columns(design) - {INTERCEPT}:
        named = listing(map(design.label, sorted(saturated)))
        yield (
            f"{named} {'fits' if len(saturated) == 1 else 'fit'} the clusters exactly, so that "
            "there is no valid error; use --cluster or terms of the clusters, not both"
        )
    if sizes and len(sizes) <= len(design.x.columns):
        yield (f"{len(sizes)} clusters are too few for {len(design.x.columns)} coefficients")


def warn_of_protocol(table: pd.DataFrame, design: Design, request: ModelRequest) -> Iterator[str]:
    """Yield how the acquisition varies over the participants of a model, and is not in it."""
    rows = table[table["participant_id"].isin(set(design.people))]
    groups = [column for column in ("site",) if column in request.columns and column in rows]
    for name in PROTOCOL:
        column, _, title = NUISANCE[name]
        if column not in rows:
            continue
        levels = _levels(rows[column])
        if len(levels) < 2:
            continue
        within = groups and bool((rows.groupby(groups)[column].nunique() <= 1).all())
        if within and any(column in name for name in design.inseparable):
            continue  # warn_of_design names it
        if within:
            yield (
                f"protocol and site inseparable: {title} is the same within each site "
                f"({', '.join(levels)} over all), so that differences between sites may be "
                "differences of the scanner"
            )
        elif column not in request.columns and not _has(design, column):
            yield (
                f"{title} varies ({listing(levels)}) and is not in the model; counts depend on it, "
                f"so add --nuisance {name} or a term of its own"
            )
    if "source" in rows and not is_of_detector(request.outcome.column):
        sources = _levels(rows["source"])
        if len(sources) > 1:
            yield (
                f"the counts are a mixture of sources ({', '.join(sources)}): a reader and the "
                "detector do not count alike; use --automatic, or read the remaining scans"
            )


def _has(design: Design, column: str) -> bool:
    return any(column in name for name in design.x.columns)


def _levels(column: pd.Series) -> list[str]:
    counts = column.dropna().map(_word).value_counts()
    return [f"{level}: {counts[level]}" for level in sorted(counts.index)]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def warn_of_fit(
    fit: Fit, asked: str, dispersion: Dispersion | None, zeros: Zeros | None
) -> Iterator[str]:
    """Yield what the counts say against the model."""
    if fit.kind != asked:
        yield (
            f"the counts show no sign of what sets {KINDS[asked]} apart, so that a simpler model "
            f"was fitted: {title(fit.kind)}"
        )
    asked_poisson = fit.kind == asked and asked in ("poisson", "zip") and fit.n_clusters is None
    large = dispersion is not None and (dispersion.pearson > MAX_PEARSON or dispersion.p < LEVEL)
    if dispersion is not None and asked_poisson and large:
        yield (
            f"over-dispersion: the counts vary {dispersion.pearson:.3g} times as much as "
            "Poisson counts, so that the intervals are too narrow; use the kind nb"
        )
    if zeros is not None and zeros.p is not None and zeros.p < LEVEL:
        yield (
            f"excess zeros: {zeros.observed} participants have none and the model expects "
            f"{zeros.expected:.1f} (p = {zeros.p:.2g}); compare with the kinds zinb and hurdle"
        )
    if fit.df < MIN_EVENTS and fit.n_clusters is None:
        yield f"few participants: {fit.df} degrees of freedom are left"


def warn_of_detection(
    request: ModelRequest, design: Design, sensitivity: Sensitivity | None
) -> Iterator[str]:
    """Yield where the intervals with the detector's doubt are missing, or lack some of the doubt.

    Parameters
    ----------
    request, design
        The model, of outcomes that are the detector's for some participants.
    sensitivity
        The model over draws; None where no lesion is in doubt, or the outcome is not drawn.
    """
    outcome = request.outcome.column
    if not is_drawn(outcome):
        yield (
            f"no sensitivity analysis for the detector's doubt: {outcome} is not computed from the "
            "lesions of the baseline scan, so the columns detection_… are n/a"
        )
        return
    if counted := [name for name in request.columns if is_drawn(name)]:
        yield (
            f"{listing(counted)} among the terms {'is' if len(counted) == 1 else 'are'} computed "
            "from lesions too, and the detector's doubt about a term is in no interval"
        )
    if sensitivity is None:
        return
    if sensitivity.n_short:
        yield (
            f"in {sensitivity.n_short} of {sensitivity.n_draws} draws of the detector's lesions, "
            f"{outcome} is not known for up to {sensitivity.most_unknown} of "
            f"{_number(len(design.y), 'participant')}, who are left out of these draws; the "
            "columns detection_… are about fewer participants than the model"
        )
    if not sensitivity.pooled:
        yield (
            f"{sensitivity.n_lost} of {sensitivity.n_draws} draws of the detector's lesions gave "
            "no estimates, so that there are no pooled ones"
        )


def title(kind: str) -> str:
    """Return what a kind is called, those that a fit turned into included."""
    return {"hurdle-poisson": "hurdle regression with a Poisson model of the numbers"}.get(
        kind, KINDS.get(kind, kind)
    )


def join(warnings: Iterable[str]) -> tuple[str, ...]:
    """Return warnings, each once, in their order."""
    return tuple(dict.fromkeys(warnings))


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
