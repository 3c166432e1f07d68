"""A model that is fitted in each stratum apart, and pooled over the strata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbprep.errors import UsageError
from cmbprep.group.models.checks import Check
from cmbprep.group.models.coefficients import (
    NO_RATIO,
    common_values,
    detection_values,
    role_of,
)
from cmbprep.group.models.design import INTERCEPT, Design, make_design
from cmbprep.group.models.detection import Pooled
from cmbprep.group.models.fitted import FittedModel, ModelOptions, fit_model
from cmbprep.group.models.fitting import Estimate, bounds, ratios
from cmbprep.group.models.forest import PARTS, Line, draw_forest
from cmbprep.group.models.formula import ModelRequest
from cmbprep.group.models.search import Name
from cmbprep.group.models.sources import describe_sources
from cmbprep.group.models.strata import Combined, Strata, Stratum, column_of, combine, split

if TYPE_CHECKING:
    import pandas as pd

#: Label of the pooled lines, where those of a stratum have its own.
POOLED = "pooled"
#: p-value of Cochran's Q below which a warning says that strata differ: the test has little power.
HETEROGENEOUS = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class StratumModel:
    """The model of one stratum.

    Attributes
    ----------
    stratum
        The stratum.
    model
        Its model; None where its participants do not allow one.
    fault
        Why there are no estimates; empty where there are some.
    """

    stratum: Stratum
    model: FittedModel | None
    fault: str

    @property
    def n(self) -> int:
        """Participants with all values, or all participants where there is no model."""
        return len(self.stratum.table) if self.model is None else len(self.model.design.y)

    def estimate(self, key: Name) -> Estimate | None:
        """Return a coefficient that can be pooled; None where the stratum has no such one."""
        if self.model is None or self.model.fit is None or key[1] == INTERCEPT:
            return None
        held = {name for others in self.model.design.inseparable.values() for name in others}
        for item in self.model.fit.estimates:
            same = (item.part, item.column) == key and bool(item.ratio)
            if same and item.error > 0 and np.isfinite(item.error) and key[1] not in held:
                return item
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledCoefficient:
    """One coefficient over the strata.

    Attributes
    ----------
    key
        Part and column.
    strata
        Strata that have it.
    combined
        The pooled coefficient; None where it means something else in each stratum.
    detection
        The same with the detector's doubt; None without.
    """

    key: Name
    strata: tuple[StratumModel, ...]
    combined: Combined | None
    detection: Pooled | None = None

    @property
    def design(self) -> Design:
        """Design of the first stratum that has the coefficient."""
        assert self.strata[0].model is not None
        return self.strata[0].model.design

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """The coefficient in each stratum that has it."""
        return _estimates(self.strata, self.key)

    @property
    def label(self) -> str:
        """What the coefficient is called, with the part of the model where that is not plain."""
        part, column = self.key
        return self.design.label(column) + (f" ({part})" if part in ("presence", "zeros") else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class StratifiedModel:
    """One model in each stratum, with the coefficients pooled over the strata.

    Attributes
    ----------
    request, options
        What was asked for.
    strata
        The strata.
    parts
        The model of each stratum.
    design
        What all participants would be fitted to without strata.
    sources
        As in :class:`.FittedModel`.
    """

    request: ModelRequest
    options: ModelOptions
    strata: Strata
    parts: tuple[StratumModel, ...]
    design: Design
    sources: str

    @property
    def fitted(self) -> tuple[StratumModel, ...]:
        """The strata that have estimates."""
        return tuple(part for part in self.parts if not part.fault)

    @cached_property
    def coefficients(self) -> tuple[PooledCoefficient, ...]:
        """The pooled coefficients, in the order in which the strata have them."""
        keys = dict.fromkeys(
            (item.part, item.column)
            for part in self.fitted
            if part.model is not None and part.model.fit is not None
            for item in part.model.fit.estimates
        )
        return tuple(found for key in keys if (found := _pool(key, self.fitted)) is not None)

    @cached_property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """Values of the rows of ``group_models.tsv``: those of each stratum, then the pooled."""
        own = (
            {"stratum": part.stratum.label, **row}
            for part in self.parts
            if part.model is not None
            for row in part.model.rows
        )
        return (*own, *(self._row(item) for item in self.coefficients))

    def _row(self, item: PooledCoefficient) -> dict[str, Any]:
        part, column = item.key
        models = [one.model for one in item.strata if one.model is not None]
        common = [common_values(model) for model in models]
        n = sum(line["n"] for line in common)
        clusters = [line["n_clusters"] for line in common if line["n_clusters"] is not None]
        kinds = {model.kind for model in models}
        number = f"{len(item.strata)} of {len(self.parts)} strata"
        row = {
            **common[0],
            "stratum": POOLED,
            "kind": kinds.pop() if len(kinds) == 1 else self.design.kind,
            "n": n,
            "n_left_out": self.n_people - n,
            "missing": self.missing,
            "n_events": sum(line["n_events"] for line in common),
            "n_clusters": sum(clusters) if clusters else None,
            "part": part,
            "term": column,
            "label": item.design.label(column),
            "role": role_of(item.design, column, ratio=True),
            **NO_RATIO,
        }
        if item.combined is None:
            return row | {"note": f"not pooled: other reference levels in each of {number}"}
        return row | {
            **_numbers(item.combined, item.estimates[0].ratio),
            "note": f"pooled over {number}",
            **({} if item.detection is None else detection_values(item.detection, self._draws)),
        }

    @property
    def _draws(self) -> int:
        found = [part.model.sensitivity for part in self.fitted if part.model is not None]
        return min(one.n_draws - one.n_lost for one in found if one is not None)

    @property
    def n_people(self) -> int:
        """Rows of the table of participants."""
        return sum(len(part.stratum.table) for part in self.parts) + self.strata.n_without

    @property
    def missing(self) -> str | None:
        """Participants who lack each variable, and those who are in no stratum."""
        found = [f"{name} {text}" for name, text in self.design.missing.items()]
        if self.strata.n_without and self.strata.column not in self.design.missing:
            found.append(f"{self.strata.column} {self.strata.n_without}")
        return "; ".join(found) or None

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The checks of each stratum, and how far the strata differ."""
        own = (
            replace(check, stratum=part.stratum.label)
            for part in self.parts
            if part.model is not None
            for check in part.model.checks
        )
        return (*own, *(check for item in self.coefficients for check in _differences(item)))

    @cached_property
    def told(self) -> tuple[tuple[str | None, str], ...]:
        """Label of a stratum, or ``pooled``, and a warning on it."""
        own = (
            (part.stratum.label, text)
            for part in self.parts
            if part.model is not None
            for text in part.model.warnings
        )
        return (*((POOLED, text) for text in self._warnings()), *own)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, those of a stratum with its name."""
        titles = {part.stratum.label: part.stratum.title for part in self.parts}
        return tuple(
            f"{titles[label]}: {text}" if label in titles else text for label, text in self.told
        )

    def _warnings(self) -> Iterator[str]:
        """Yield what makes the pooled coefficients uncertain."""
        total, kept = len(self.parts), len(self.fitted)
        if self.strata.n_without:
            yield (
                f"{_people(self.strata.n_without)} without a known {self.strata.title} are in no "
                "stratum and left out"
            )
        if total == 1:
            yield (
                f"all participants are in one stratum ({self.parts[0].stratum.title}), so that "
                "nothing is pooled; the model without --strata is the same"
            )
        for part in self.parts:
            if part.fault:
                yield (
                    f"the stratum {part.stratum.title} ({_people(part.n)}) has no estimates: "
                    f"{part.fault}; pooled results are of {kept} of {total} strata"
                )
        for item in self.coefficients:
            if item.combined is None:
                yield (
                    f"{item.label} is not pooled, because it is compared with another reference "
                    "level in each stratum; name a reference that all strata have, as in "
                    'C(site, Treatment("A"))'
                )
            elif len(item.strata) < kept:
                yield f"{item.label} has an estimate in {len(item.strata)} of {total} strata only"
            if item.combined is None or item.combined.p is None:
                continue
            if item.combined.p < HETEROGENEOUS:
                each = ", ".join(
                    f"{part.stratum.title}: {np.exp(found.value):.3g}"
                    for part, found in zip(item.strata, item.estimates, strict=True)
                )
                yield (
                    f"the strata differ in {item.label} ({item.estimates[0].ratio} {each}; "
                    f"Cochran's Q {item.combined.q:.2f}, p = {item.combined.p:.2g}, I2 = "
                    f"{100 * (item.combined.i2 or 0.0):.0f} %); report them apart, since the "
                    "pooled ratio is an average of different effects"
                )

    @property
    def methods_sentence(self) -> str:
        """What was done, for the methods of a paper."""
        from cmbprep.group.models.wording import stratified_methods

        return stratified_methods(self)

    def forest_svg(self) -> str:
        """Draw each term in all strata and pooled, as SVG."""
        lines = [line for item in self.coefficients for line in self._lines(item)]
        kinds = sorted({row["ratio_type"] for row in self.rows if row["ratio_type"]})
        return draw_forest(self.request.text, lines, " and ".join(kinds) or "ratio", headings=True)

    def _count(self, item: PooledCoefficient) -> str:
        return f"pooled ({len(item.strata)} of {len(self.parts)} strata)"

    def _lines(self, item: PooledCoefficient) -> Iterator[Line]:
        rows = {(row["stratum"], row["part"], row["term"]): row for row in self.rows}
        several = len({key[0] for key in (other.key for other in self.coefficients)}) > 1
        group = item.design.label(item.key[1])
        if several:
            group = f"{group}, {PARTS[item.key[0]]}"
        titles = [(part.stratum.label, part.stratum.title) for part in self.parts]
        for label, title in (*titles, (POOLED, self._count(item))):
            row = rows.get((label, *item.key), NO_RATIO)
            yield Line(
                label=title,
                ratio=row["ratio"],
                low=row["ratio_low"],
                high=row["ratio_high"],
                group=group,
                quiet=row.get("role") == "nuisance",
                pooled=label == POOLED,
                wider=None
                if row.get("detection_ratio") is None
                else (row["detection_low"], row["detection_high"]),
            )


def fit_stratified(
    table: pd.DataFrame,
    request: ModelRequest,
    options: ModelOptions,
    drawn: Callable[[int], pd.DataFrame] | None = None,
) -> StratifiedModel:
    """Fit a model in each stratum apart.

    Parameters
    ----------
    table, request, drawn
        As in :func:`.fit_model`.
    options
        With the name of the strata.

    Raises
    ------
    UsageError
        If the model cannot be made of the whole table. A stratum that is too small for it is
        named in a warning.
    """
    assert options.strata is not None
    column = column_of(options.strata)
    own = replace(
        options,
        nuisance=tuple(name for name in options.nuisance if column_of(name) != column),
        strata=None,
    )
    whole = make_design(table, request, nuisance=own.nuisance, cluster=own.cluster)
    strata = split(table, options.strata)
    return StratifiedModel(
        request=request,
        options=own,
        strata=strata,
        parts=tuple(_fit_stratum(stratum, request, own, drawn) for stratum in strata.each),
        design=whole,
        sources=describe_sources(table, whole, request),
    )


def _fit_stratum(
    stratum: Stratum,
    request: ModelRequest,
    options: ModelOptions,
    drawn: Callable[[int], pd.DataFrame] | None,
) -> StratumModel:
    try:
        model = fit_model(stratum.table, request, options, drawn)
    except UsageError as error:  # the whole table allows the model
        return StratumModel(stratum=stratum, model=None, fault=error.message)
    return StratumModel(stratum=stratum, model=model, fault=model.fault)


def _pool(key: Name, parts: Sequence[StratumModel]) -> PooledCoefficient | None:
    """Pool a coefficient over the strata that have it; None where there is none."""
    strata = tuple(part for part in parts if part.estimate(key) is not None)
    if not strata:
        return None
    meanings = {_meaning(part.model.design, key[1]) for part in strata if part.model is not None}
    if len(meanings) > 1:
        return PooledCoefficient(key=key, strata=strata, combined=None)
    found = _estimates(strata, key)
    combined = combine(
        [item.value for item in found],
        [item.error * item.widening for item in found],
        [item.df for item in found],
    )
    return PooledCoefficient(
        key=key, strata=strata, combined=combined, detection=_pool_doubt(key, strata)
    )


def _estimates(strata: Sequence[StratumModel], key: Name) -> tuple[Estimate, ...]:
    found = (part.estimate(key) for part in strata)
    return tuple(item for item in found if item is not None)


def _meaning(design: Design, column: str) -> frozenset[tuple[str, str]]:
    """Return the factors that a coefficient depends on, each with its reference level.

    Those are its own factors, and those that it has an interaction with.
    """
    related = {column}.union(
        *(set(name.split(":")) for name in design.x.columns if column in name.split(":"))
    )
    parts = related.union(*(set(name.split(":")) for name in related))
    known = (design.categories.get(part) for part in parts)
    return frozenset((item[0], item[2]) for item in known if item is not None)


def _pool_doubt(key: Name, strata: Sequence[StratumModel]) -> Pooled | None:
    """Pool a coefficient with the detector's doubt.

    A stratum whose lesions are in no doubt has the coefficient as it is.
    """
    found: list[Pooled] = []
    drawn = 0
    for part in strata:
        assert part.model is not None
        sensitivity, item = part.model.sensitivity, part.estimate(key)
        if sensitivity is None and item is not None:
            error = item.error * item.widening
            found.append(Pooled(value=item.value, error=error, df=item.df, share=0.0))
        elif sensitivity is not None and key in sensitivity.pooled:
            found.append(sensitivity.pooled[key])
            drawn += 1
        else:
            return None
    if not drawn:
        return None
    over = combine(
        [item.value for item in found], [item.error for item in found], [item.df for item in found]
    )
    share = float(over.weights @ [item.share for item in found])
    return Pooled(value=over.value, error=over.error * over.widening, df=over.df, share=share)


def _numbers(combined: Combined, ratio_type: str) -> dict[str, Any]:
    """Return the columns of a pooled coefficient."""
    from scipy import stats

    wide = combined.error * combined.widening
    ends = bounds(combined.value, wide, combined.df)
    ratio, low, high = ratios(combined.value, *ends)
    return {
        "estimate": combined.value,
        "se": combined.error,
        "df": combined.df,
        "ratio_type": ratio_type,
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "p": float(2.0 * stats.t.sf(abs(combined.value) / wide, combined.df)),
    }


def _differences(item: PooledCoefficient) -> Iterator[Check]:
    """Yield how far a coefficient differs between the strata; nothing for one stratum."""
    combined = item.combined
    if combined is None or combined.q is None:
        return
    part, column = item.key
    same: dict[str, Any] = {"stratum": POOLED, "part": part, "column": column}
    yield Check(
        check="heterogeneity",
        value=combined.q,
        expected=float(combined.n - 1),
        p=combined.p,
        text=f"Cochran's Q of {item.label} over {combined.n} strata",
        **same,
    )
    yield Check(
        check="I2",
        value=combined.i2,
        expected=0.0,
        text=f"part of the variation of {item.label} between strata that is more than chance",
        **same,
    )


def _people(number: int) -> str:
    return "1 participant" if number == 1 else f"{number} participants"
