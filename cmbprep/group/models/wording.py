"""What was done, in one sentence for the methods of a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmbprep.files.tsv import listing
from cmbprep.group.models.cautions import title as kind_title
from cmbprep.group.models.design import NUISANCE

#: How intervals of counts with a dispersion are made.
WIDER = (
    ", and for the counts the standard error times the root of participants by degrees of freedom, "
    "because the dispersion is estimated too"
)

if TYPE_CHECKING:
    from cmbprep.group.models.fitted import FittedModel
    from cmbprep.group.models.fitting import Fit


def methods_sentence(model: FittedModel) -> str:
    """Return the methods of a model, with its numbers of participants."""
    import statsmodels

    request, design = model.request, model.design
    terms = [name for name in request.columns if not _only_offset(name, request.terms)]
    nuisance = [NUISANCE[name] for name in model.options.nuisance]
    named = [title for column, _, title in nuisance if column not in request.columns]
    explained = f"on {_and(terms)}" if terms else "with a constant only"
    parts = [f"{request.outcome} was modelled by {kind_title(model.kind)} {explained}"]
    parts.append(f"in {len(design.y)} participants")
    if design.n_left_out:
        reasons = listing((f"{name} {text}" for name, text in design.missing.items()), 20)
        parts.append(f"({design.n_left_out} left out for missing values: {reasons})")
    if named:
        terms_word = "a nuisance term" if len(named) == 1 else "nuisance terms"
        parts.append(f"with {_and(named)} as {terms_word}")
    if request.offsets:
        parts.append(f"with the offset {_and([' '.join(o.split()) for o in request.offsets])}")
    sentence = " ".join(parts) + "; "
    if model.fit is None:
        return sentence + "there are no estimates."
    if model.fit.n_clusters is None:
        sentence += "standard errors are from the curvature of the likelihood, "
    else:
        sentence += (
            f"standard errors are robust to clusters by {model.options.cluster} "
            f"({model.fit.n_clusters} clusters), "
        )
    wider = WIDER if any(item.widening > 1 for item in model.fit.estimates) else ""
    sentence += (
        f"95 % intervals use the t distribution with {_degrees(model.fit)} degrees of freedom"
        f"{wider} (statsmodels {statsmodels.__version__})."
    )
    if model.fit.kind != design.kind:
        sentence += f" The kind {design.kind} was asked for; the data did not need it."
    if model.sensitivity is not None and model.sensitivity.pooled:
        sentence += (
            " As a sensitivity analysis, the model was refitted over "
            f"{model.sensitivity.n_draws - model.sensitivity.n_lost} draws in which each lesion "
            "that the detector lists was kept with its probability, and the results were pooled by "
            "Rubin's rules."
        )
    return sentence


def _only_offset(name: str, terms: str) -> bool:
    return name not in terms


def _degrees(fit: Fit) -> str:
    found = dict.fromkeys(f"{item.df:.0f}" for item in fit.estimates)
    return " and ".join(found)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
