"""All figures of a set of scans, with intervals, for the whole and for every split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.evaluate.collect import SCAN_SPLITS
from cmbprep.lab.evaluate.curves import FROC_LEVELS, sensitivity_at
from cmbprep.lab.evaluate.matching import Mark, Rule
from cmbprep.lab.evaluate.metrics import FIGURES, LESION_FIGURES, Figure, Sample, make_sample
from cmbprep.lab.evaluate.scoring import DUPLICATE, ELSEWHERE, ScanResult
from cmbprep.ratings.statistics import percentile_interval, subject_weights

#: Name of the split, and of its one group, that holds everything.
WHOLE = "all"
UNKNOWN = "n/a"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the figures depend on, besides the lesions.

    Parameters
    ----------
    rule
        When two lesions may be matched.
    n_draws, seed
        Bootstrap samples of subjects; 0 draws give no intervals.
    n_bins
        Bins of the reliability curve, of equal width over 0..1.
    size_edges_mm
        Where size classes begin, by diameter.
    """

    rule: Rule = field(default_factory=Rule)
    n_draws: int = 1000
    seed: int = 0
    n_bins: int = 10
    size_edges_mm: Sequence[float] = (2.0, 5.0, 10.0)

    def __post_init__(self) -> None:
        if self.n_draws < 0:
            raise ValueError(f"the number of bootstrap samples is {self.n_draws}, below 0")
        if self.n_bins < 1:
            raise ValueError(f"the number of bins is {self.n_bins}, below 1")
        if self.seed < 0:
            raise ValueError(f"the seed is {self.seed}, below 0")
        edges = self.size_edges_mm
        if any(b <= a for a, b in pairwise(edges)) or min(edges, default=1) <= 0:
            raise ValueError("the edges of the size classes must be above 0 and rise")


@dataclass(frozen=True)
class Row:
    """A figure of a group. None is undefined (value) or unavailable (interval)."""

    split: str
    group: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    scans: int
    lesions: int


@dataclass(frozen=True)
class Level:
    """The FROC curve at one rate of false positives."""

    fp_per_scan: float
    sensitivity: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class MimicRow:
    """One origin of false positives.

    ``mimics`` and ``mimics_marked`` are None for what is no mimic, and for structures that
    reach through the brain, whose number means nothing.
    """

    origin: str
    mimics: int | None
    mimics_marked: int | None
    false_positives: int
    share: float | None


@dataclass(frozen=True)
class Evaluation:
    """The results of scans and all that was computed from them."""

    options: Options
    results: tuple[ScanResult, ...]
    sample: Sample
    rows: tuple[Row, ...]
    levels: tuple[Level, ...]
    origins: tuple[MimicRow, ...]

    def row(self, figure: str, split: str = WHOLE, group: str = WHOLE) -> Row | None:
        """Find a figure; None if the group or figure does not exist."""
        wanted = (split, group, figure)
        return next((r for r in self.rows if (r.split, r.group, r.figure) == wanted), None)


def evaluate(results: Sequence[ScanResult], options: Options | None = None) -> Evaluation:
    """Compute all figures.

    Parameters
    ----------
    results
        One for each scan, in the order in which they are to be listed.

    Raises
    ------
    ValueError
        If there is no result.
    """
    options = options or Options()
    if not results:
        raise ValueError("there is no scan to evaluate")
    sample = make_sample(results, n_bins=options.n_bins)
    rows = _rows(sample, FIGURES, WHOLE, WHOLE, options)
    for split in SCAN_SPLITS:
        for group in _groups(results, split):
            part = [r for r in results if r.groups.get(split, UNKNOWN) == group]
            rows += _rows(make_sample(part, n_bins=options.n_bins), FIGURES, split, group, options)
    for split, name_of in _lesion_splits(options):
        for group in _lesion_groups(results, name_of):
            part_of = _keep(name_of, group)
            some = make_sample(results, keep_truth=part_of, keep_predicted=part_of)
            rows += _rows(some, LESION_FIGURES, split, group, options)
    return Evaluation(
        options, tuple(results), sample, tuple(rows), _levels(sample, options), _mimics(results)
    )


def size_class(diameter_mm: float | None, edges_mm: Sequence[float]) -> str:
    """Name the size class of a lesion; the lower edge belongs to a class."""
    if diameter_mm is None:
        return UNKNOWN
    if not edges_mm:
        return WHOLE
    # Sizes to 0.001 mm, so that rounding decides nothing.
    above = [edge for edge in edges_mm if round(diameter_mm, 3) >= edge]
    if not above:
        return f"<{edges_mm[0]:g} mm"
    if len(above) == len(edges_mm):
        return f">={edges_mm[-1]:g} mm"
    return f"{above[-1]:g}-{edges_mm[len(above)]:g} mm"


def _lesion_splits(options: Options) -> list[tuple[str, Callable[[Mark], str]]]:
    return [
        ("size", lambda mark: size_class(mark.diameter_mm, options.size_edges_mm)),
        ("zone", lambda mark: mark.zone or UNKNOWN),
    ]


def _keep(name_of: Callable[[Mark], str], group: str) -> Callable[[Mark], bool]:
    return lambda mark: name_of(mark) == group


def _groups(results: Sequence[ScanResult], split: str) -> list[str]:
    names = {result.groups.get(split, UNKNOWN) for result in results}
    return [] if names == {UNKNOWN} else sorted(names)


def _lesion_groups(results: Sequence[ScanResult], name_of: Callable[[Mark], str]) -> list[str]:
    marks = [hit.truth for r in results for hit in r.hits]
    marks += [mark for r in results for mark in r.misses]
    marks += [false.predicted for r in results for false in r.false_positives]
    names = {name_of(mark) for mark in marks}
    if names <= {UNKNOWN}:
        return []
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[float, str]:
    """Order "<2 mm", "2-5 mm", ">=10 mm" as sizes, other names by the alphabet."""
    if name.startswith("<"):
        return (-1.0, name)
    digits = name.lstrip(">=").split("-")[0].split(" ")[0]
    try:
        return (float(digits), name)
    except ValueError:
        return (math.inf, name)


def _rows(
    sample: Sample, figures: Sequence[Figure], split: str, group: str, options: Options
) -> list[Row]:
    ones = np.ones((1, len(sample.subjects)))
    weights = _draws(sample, options)
    rows = []
    for figure in figures:
        value = float(figure.of(sample, ones)[0])
        interval = percentile_interval(figure.of(sample, weights)) if len(weights) else None
        known = math.isfinite(value)
        rows.append(
            Row(
                split,
                group,
                figure.name,
                value if known else None,
                interval[0] if interval and known else None,
                interval[1] if interval and known else None,
                len(sample.subjects),
                int(sample.truth.sum()),
            )
        )
    return rows


def _draws(sample: Sample, options: Options) -> NDArray[np.float64]:
    """Weights of the bootstrap: none for one subject, whose interval would have no width."""
    draws = options.n_draws if len(set(sample.subjects)) > 1 else 0
    return subject_weights(sample.subjects, draws, options.seed)


def _levels(sample: Sample, options: Options) -> tuple[Level, ...]:
    if sample.pooled is None or not sample.truth.sum():
        return ()
    levels = np.array(FROC_LEVELS)
    ones = np.ones((1, len(sample.subjects)))
    values = sensitivity_at(sample.pooled, sample.truth, ones, levels)[0]
    drawn = sensitivity_at(sample.pooled, sample.truth, _draws(sample, options), levels)
    rows = []
    for number, level in enumerate(FROC_LEVELS):
        low, high = percentile_interval(drawn[:, number]) or (None, None)
        rows.append(Level(level, float(values[number]), low, high))
    return tuple(rows)


def _mimics(results: Sequence[ScanResult]) -> tuple[MimicRow, ...]:
    """Count false positives by what they lie on: mimics first, the rest last."""
    false = [(result.scan, fp) for result in results for fp in result.false_positives]
    every = [(r.scan, mark) for r in results for mark in r.mimics]
    mimics = [(scan, mark.kind or "mimic", mark.index) for scan, mark in every]
    extended = {mark.kind or "mimic" for _, mark in every if mark.extended}
    marked = {(scan, fp.origin, fp.mimic_index) for scan, fp in false if fp.mimic_index is not None}
    rows = []
    for origin in [*sorted({kind for _, kind, _ in mimics}), DUPLICATE, ELSEWHERE]:
        count = sum(1 for _, fp in false if fp.origin == origin)
        own = [mimic for mimic in mimics if mimic[1] == origin]
        countable = origin not in (DUPLICATE, ELSEWHERE) and origin not in extended
        rows.append(
            MimicRow(
                origin,
                len(own) if countable else None,
                sum(1 for mimic in own if mimic in marked) if countable else None,
                count,
                count / len(false) if false else None,
            )
        )
    return tuple(rows)
