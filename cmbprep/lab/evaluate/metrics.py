"""The catalogue of figures: each a function of a sample and of the weights of its scans.

A row of weights says how often each scan counts; ones give the figure itself, rows of a
bootstrap its distribution. Undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.evaluate.curves import (
    FROC_LEVELS,
    Pooled,
    average_precision,
    pool_steps,
    sensitivity_at,
)
from cmbprep.lab.evaluate.matching import Mark
from cmbprep.lab.evaluate.scoring import ScanResult, Steps
from cmbprep.lab.shared import read_data
from cmbprep.ratings.statistics import (
    bland_altman,
    calibration_error,
    cohen_kappa,
    icc_a1,
    kappa_of_tables,
    ratio,
    reliability_bins,
)

# --- From the results of many scans to arrays over scans, which the figures are computed from ----


FloatArray = NDArray[np.float64]
Keep = Callable[[Mark], bool]


@dataclass(frozen=True)
class Confusion:
    """Names given to matched lesions: truth in rows, prediction in columns.

    ``tables`` has shape (n_scans, n_names, n_names). Only pairs named on both sides count.
    """

    names: tuple[str, ...]
    tables: FloatArray


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Arrays over scans (``hits``, ``misses``, ``false``, shape (n_scans,)) and matched lesions.

    ``hit_scan`` says for each matched lesion in which scan it is; ``dice``,
    ``volume_difference`` and ``distance_mm`` go with it, NaN where unknown. ``pooled`` is None
    where a prediction has no probability; then ``bins`` (count, sum of probabilities, number
    correct; shape (n_scans, n_bins) each) is None too.
    """

    subjects: tuple[str, ...]
    hits: FloatArray
    misses: FloatArray
    false: FloatArray
    hit_scan: NDArray[np.int64]
    dice: FloatArray
    volume_difference: FloatArray
    distance_mm: FloatArray
    zones: Confusion
    regions: Confusion
    pooled: Pooled | None
    bins: tuple[FloatArray, FloatArray, FloatArray] | None

    @property
    def truth(self) -> FloatArray:
        """True lesions of each scan."""
        return self.hits + self.misses

    @property
    def predicted(self) -> FloatArray:
        """Predicted lesions of each scan."""
        return self.hits + self.false


def make_sample(
    results: Sequence[ScanResult],
    *,
    n_bins: int = 10,
    keep_truth: Keep | None = None,
    keep_predicted: Keep | None = None,
) -> Sample:
    """Collect results; with ``keep_*``, only of some lesions.

    Hits and misses are kept by what the true lesion is, false positives by what the predicted
    one is. The curves need all lesions and are left out of a sample of some.
    """
    kept = [
        [hit for hit in result.hits if keep_truth is None or keep_truth(hit.truth)]
        for result in results
    ]
    every = [(number, hit) for number, hits in enumerate(kept) for hit in hits]
    partial = keep_truth is not None or keep_predicted is not None
    steps = [result.steps for result in results]
    whole: list[Steps] = [step for step in steps if step is not None]
    has_curves = not partial and len(whole) == len(steps)
    return Sample(
        subjects=tuple(result.subject for result in results),
        hits=np.array([len(hits) for hits in kept], dtype=float),
        misses=np.array([_count(result.misses, keep_truth) for result in results], dtype=float),
        false=np.array(
            [_count((f.predicted for f in r.false_positives), keep_predicted) for r in results],
            dtype=float,
        ),
        hit_scan=np.array([number for number, _ in every], dtype=np.int64),
        dice=_numbers(hit.dice for _, hit in every),
        volume_difference=_numbers(hit.volume_difference for _, hit in every),
        distance_mm=_numbers(hit.distance_mm for _, hit in every),
        zones=_confusion(results, "zone"),
        regions=_confusion(results, "region"),
        pooled=pool_steps(whole) if has_curves else None,
        bins=_bins(results, n_bins) if has_curves else None,
    )


def _count(marks: Iterable[Mark], keep: Keep | None) -> int:
    return sum(1 for mark in marks if keep is None or keep(mark))


def _numbers(values: Iterable[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _confusion(results: Sequence[ScanResult], attribute: str) -> Confusion:
    named = [
        (number, getattr(hit.truth, attribute), getattr(hit.predicted, attribute))
        for number, result in enumerate(results)
        for hit in result.hits
    ]
    named = [(number, a, b) for number, a, b in named if a is not None and b is not None]
    names = tuple(sorted({name for _, a, b in named for name in (a, b)}))
    tables = np.zeros((len(results), len(names), len(names)))
    for number, a, b in named:
        tables[number, names.index(a), names.index(b)] += 1
    return Confusion(names, tables)


def _bins(results: Sequence[ScanResult], n_bins: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    rows = []
    for result in results:
        marks = [hit.predicted for hit in result.hits]
        marks += [false.predicted for false in result.false_positives]
        probability = np.array([mark.probability or 0.0 for mark in marks])
        correct = np.arange(len(marks)) < len(result.hits)
        rows.append(reliability_bins(probability, correct.astype(float), n_bins))
    count, chance, right = np.array(rows, dtype=float).reshape(-1, 3, n_bins).swapaxes(0, 1)
    return count, chance, right


Function = Callable[[Sample, FloatArray], FloatArray]


@dataclass(frozen=True)
class Figure:
    """One figure: its name in files, its name for people, what is better, its definition."""

    name: str
    label: str
    better: Literal["higher", "lower", "neither"]
    definition: str
    of: Function


def weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the median of values that are repeated ``weights`` (n_draws, n_values) times.

    As ever, the mean of the two middle ones where their number is even. NaN values are left out.
    """
    known = np.isfinite(values)
    values, weights = values[known], weights[:, known]
    if not len(values):
        return np.full(len(weights), np.nan)
    order = np.argsort(values, kind="stable")
    running = np.cumsum(weights[:, order], axis=1)
    half = running[:, -1:] / 2
    low = values[order][np.argmax(running >= half, axis=1)]
    high = values[order][np.argmax(running > half, axis=1)]
    return np.where(half[:, 0] > 0, (low + high) / 2, np.nan)


def _weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    known = np.isfinite(values)
    return ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def _f1_scan(s: Sample) -> FloatArray:
    return ratio(2 * s.hits, s.truth + s.predicted)


def _false_rate(which: Callable[[Sample], NDArray[np.bool_]]) -> Function:
    def function(s: Sample, w: FloatArray) -> FloatArray:
        part = which(s)
        return ratio(w[:, part] @ s.false[part], w[:, part].sum(axis=1))

    return function


def _curve(of: Callable[[Pooled, FloatArray, FloatArray], FloatArray]) -> Function:
    """A figure of the curves; undefined where a prediction has no probability."""
    return lambda s, w: np.full(len(w), np.nan) if s.pooled is None else of(s.pooled, s.truth, w)


def _sensitivity_at(*levels: float) -> Function:
    at = np.array(levels)
    return _curve(lambda pooled, truth, w: sensitivity_at(pooled, truth, w, at).mean(axis=1))


def _presence(s: Sample, w: FloatArray, present: bool) -> FloatArray:
    part = (s.truth > 0) == present
    right = (s.predicted > 0) == present
    return ratio(w @ (part & right), w @ part)


def _named_alike(confusion: Confusion, w: FloatArray) -> FloatArray:
    summed = np.tensordot(w, confusion.tables, axes=(1, 0))
    return ratio(np.trace(summed, axis1=1, axis2=2), summed.sum(axis=(1, 2)))


def _calibration_error(s: Sample, w: FloatArray) -> FloatArray:
    return np.full(len(w), np.nan) if s.bins is None else calibration_error(*s.bins, w)


_FUNCTIONS: dict[str, Function] = {
    "sensitivity": lambda s, w: ratio(w @ s.hits, w @ s.truth),
    "precision": lambda s, w: ratio(w @ s.hits, w @ s.predicted),
    "f1": lambda s, w: ratio(2 * (w @ s.hits), w @ (s.truth + s.predicted)),
    "fp_per_scan": _false_rate(lambda s: s.truth >= 0),
    "f1_scan_mean": lambda s, w: _weighted_mean(_f1_scan(s), w),
    "f1_scan_median": lambda s, w: weighted_median(_f1_scan(s), w),
    "fp_per_scan_without_lesions": _false_rate(lambda s: s.truth == 0),
    "fp_per_scan_with_lesions": _false_rate(lambda s: s.truth > 0),
    "average_precision": _curve(average_precision),
    "froc_mean": _sensitivity_at(*FROC_LEVELS),
    "sensitivity_at_0.5fp": _sensitivity_at(0.5),
    "sensitivity_at_1fp": _sensitivity_at(1.0),
    "sensitivity_at_2fp": _sensitivity_at(2.0),
    "dice_mean": lambda s, w: _weighted_mean(s.dice, w[:, s.hit_scan]),
    "volume_error_median": lambda s, w: weighted_median(
        np.abs(s.volume_difference), w[:, s.hit_scan]
    ),
    "volume_bias_median": lambda s, w: weighted_median(s.volume_difference, w[:, s.hit_scan]),
    "distance_mean_mm": lambda s, w: _weighted_mean(s.distance_mm, w[:, s.hit_scan]),
    "count_icc": lambda s, w: icc_a1(np.stack([s.truth, s.predicted], axis=1), w),
    "count_bias": lambda s, w: bland_altman(s.truth, s.predicted, w)[0],
    "count_limit_low": lambda s, w: bland_altman(s.truth, s.predicted, w)[1],
    "count_limit_high": lambda s, w: bland_altman(s.truth, s.predicted, w)[2],
    "presence_kappa": lambda s, w: cohen_kappa(s.truth > 0, s.predicted > 0, w),
    "presence_sensitivity": lambda s, w: _presence(s, w, True),
    "presence_specificity": lambda s, w: _presence(s, w, False),
    "zone_agreement": lambda s, w: _named_alike(s.zones, w),
    "zone_kappa": lambda s, w: kappa_of_tables(s.zones.tables, w),
    "region_agreement": lambda s, w: _named_alike(s.regions, w),
    "ece": _calibration_error,
}

#: All figures, in the order in which they are shown; what they are called is in ``figures.json``.
FIGURES = tuple(
    Figure(name, **about, of=_FUNCTIONS[name])
    for name, about in read_data("cmbprep.lab.evaluate", "figures.json").items()
)

#: Metrics that can be computed for a subset of the lesions.
LESION_FIGURES = tuple(
    figure
    for figure in FIGURES
    if figure.name in ("sensitivity", "precision", "f1", "fp_per_scan")
    or figure.name in ("dice_mean", "volume_error_median", "volume_bias_median", "distance_mean_mm")
)
