"""What was done, in sentences for the methods of a paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cmbprep.files.tsv import listing
from cmbprep.group.models.cautions import title as kind_title
from cmbprep.group.models.design import NUISANCE
from cmbprep.group.models.formula import shown_expression

#: How intervals of counts with a dispersion are made.
WIDER = (
    ", and for the counts the standard error times the root of participants by degrees of freedom, "
    "because the dispersion is estimated too"
)

#: How coefficients are pooled over strata.
POOLING = (
    "The coefficients were pooled over the strata by inverse variance (fixed effect; Whitehead A, "
    "Whitehead J, Stat Med 1991;10:1665-1677), with the degrees of freedom of Satterthwaite and "
    "the correction of Meier for estimated weights (Biometrics 1953;9:59-73); differences between "
    "strata were tested by Cochran's Q (DerSimonian R, Laird N, Control Clin Trials "
    "1986;7:177-188) and measured by I2 (Higgins JPT, Thompson SG, Stat Med 2002;21:1539-1558)."
)

if TYPE_CHECKING:
    from cmbprep.group.models.fitted import FittedModel, ModelOptions
    from cmbprep.group.models.fitting import Fit
    from cmbprep.group.models.formula import ModelRequest
    from cmbprep.group.models.stratified import StratifiedModel


def methods_sentence(model: FittedModel) -> str:
    """Return the methods of a model, with its numbers of participants."""
    design, fit = model.design, model.fit
    parts = [_modelled(model.request, model.kind), f"in {len(design.y)} participants"]
    if design.n_left_out:
        reasons = listing((f"{name} {text}" for name, text in design.missing.items()), 20)
        parts.append(f"({design.n_left_out} left out for missing values: {reasons})")
    sentence = " ".join([*parts, *_additions(model.request, model.options)]) + "; "
    counted = f" {model.sources}" if model.sources else ""
    if fit is None:
        return sentence + "there are no estimates." + counted
    sentence += _errors([model])
    sentence += f"95 % intervals use the t distribution with {_degrees(fit)} degrees of freedom"
    sentence += f"{_widened([model])} ({_version()}).{counted}"
    if fit.kind != design.kind:
        sentence += f" The kind {design.kind} was asked for; the data did not need it."
    if model.sensitivity is not None and model.sensitivity.pooled:
        sentence += _of_draws(model.sensitivity.n_draws - model.sensitivity.n_lost)
    return sentence


def stratified_methods(model: StratifiedModel) -> str:
    """Return the methods of a model that is fitted in each stratum apart."""
    fitted = [part.model for part in model.fitted if part.model is not None]
    n = sum(len(one.design.y) for one in fitted)
    names = [f"{part.stratum.title}: {part.n}" for part in model.fitted]
    number = "1 stratum" if len(names) == 1 else f"{len(names)} strata"
    parts = [
        _modelled(model.request, model.design.kind),
        *_additions(model.request, model.options),
        f"apart in {number} of {model.strata.title} with {n} participants",
    ]
    parts += [f"({listing(names, len(names))})"] if names else []
    if left := model.n_people - n:
        parts.append(f"({left} left out{f': {model.missing}' if model.missing else ''})")
    sentence = " ".join(parts) + "; "
    if missing := [f"{part.stratum.title} ({part.n})" for part in model.parts if part.fault]:
        sentence += f"without estimates: {_and(missing)}; "
    counted = f" {model.sources}" if model.sources else ""
    if not fitted:
        return sentence + "there are no estimates." + counted
    sentence += _errors(fitted) + f"95 % intervals use the t distribution{_widened(fitted)}"
    sentence += f" ({_version()}). {POOLING}{counted}"
    draws = [one.sensitivity for one in fitted if one.sensitivity and one.sensitivity.pooled]
    if draws:
        sentence += _of_draws(min(one.n_draws - one.n_lost for one in draws))
    return sentence


def _modelled(request: ModelRequest, kind: str) -> str:
    terms = [name for name in request.columns if not _only_offset(name, request.terms)]
    explained = f"on {_and(terms)}" if terms else "with a constant only"
    return f"{request.outcome} was modelled by {kind_title(kind)} {explained}"


def _additions(request: ModelRequest, options: ModelOptions) -> Iterator[str]:
    """Yield what is in a model besides its terms."""
    nuisance = [NUISANCE[name] for name in options.nuisance]
    named = [title for column, _, title in nuisance if column not in request.columns]
    if named:
        terms_word = "a nuisance term" if len(named) == 1 else "nuisance terms"
        yield f"with {_and(named)} as {terms_word}"
    if request.offsets:
        yield f"with the offset {_and(list(map(shown_expression, request.offsets)))}"


def _errors(models: Sequence[FittedModel]) -> str:
    """Return where the standard errors of models with the same options come from."""
    clusters = [model.fit.n_clusters for model in models if model.fit is not None]
    known = [number for number in clusters if number is not None]
    if not known:
        return "standard errors are from the curvature of the likelihood, "
    return (
        f"standard errors are robust to clusters by {models[0].options.cluster} "
        f"({sum(known)} clusters), "
    )


def _widened(models: Sequence[FittedModel]) -> str:
    wide = (
        item.widening > 1
        for model in models
        if model.fit is not None
        for item in model.fit.estimates
    )
    return WIDER if any(wide) else ""


def _of_draws(number: int) -> str:
    return (
        " As a sensitivity analysis, the model was refitted over "
        f"{number} draws in which each lesion that the detector lists was kept with its "
        "probability, and the results were pooled by Rubin's rules."
    )


def _version() -> str:
    import statsmodels

    return f"statsmodels {statsmodels.__version__}"


def _only_offset(name: str, terms: str) -> bool:
    return name not in terms


def _degrees(fit: Fit) -> str:
    found = dict.fromkeys(f"{item.df:.0f}" for item in fit.estimates)
    return " and ".join(found)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
