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

from cmbprep.lab.evaluate import statistics as agreement
from cmbprep.lab.evaluate import statistics as curves
from cmbprep.lab.evaluate.matching import Mark
from cmbprep.lab.evaluate.scoring import ScanResult, Steps
from cmbprep.lab.evaluate.statistics import Pooled, pool_steps, reliability_bins

__all__ = [
    "FIGURES",
    "LESION_FIGURES",
    "Confusion",
    "Figure",
    "Sample",
    "make_sample",
    "weighted_median",
]


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
        judged = [(hit.predicted, 1.0) for hit in result.hits]
        judged += [(false.predicted, 0.0) for false in result.false_positives]
        probability = np.array([mark.probability or 0.0 for mark, _ in judged])
        rows.append(reliability_bins(probability, np.array([c for _, c in judged]), n_bins))
    shape = (len(results), n_bins)
    count, chance, correct = (
        np.array([row[i] for row in rows], dtype=float).reshape(shape) for i in range(3)
    )
    return count, chance, correct


Function = Callable[[Sample, FloatArray], FloatArray]


@dataclass(frozen=True)
class Figure:
    """One figure: its name in files, its name for people, what is better, its definition."""

    name: str
    label: str
    better: Literal["higher", "lower", "neither"]
    definition: str
    of: Function


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


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
    return _ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def _sensitivity(s: Sample, w: FloatArray) -> FloatArray:
    return _ratio(w @ s.hits, w @ s.truth)


def _precision(s: Sample, w: FloatArray) -> FloatArray:
    return _ratio(w @ s.hits, w @ s.predicted)


def _f1(s: Sample, w: FloatArray) -> FloatArray:
    return _ratio(2 * (w @ s.hits), w @ (s.truth + s.predicted))


def _f1_scan(s: Sample) -> FloatArray:
    return _ratio(2 * s.hits, s.truth + s.predicted)


def _false_rate(s: Sample, w: FloatArray, which: NDArray[np.bool_] | None = None) -> FloatArray:
    part = np.ones(len(s.hits), dtype=bool) if which is None else which
    return _ratio(w[:, part] @ s.false[part], w[:, part].sum(axis=1))


def _average_precision(s: Sample, w: FloatArray) -> FloatArray:
    if s.pooled is None:
        return np.full(len(w), np.nan)
    return curves.average_precision(s.pooled, s.truth, w)


def _sensitivity_at(level: float) -> Function:
    def function(s: Sample, w: FloatArray) -> FloatArray:
        if s.pooled is None:
            return np.full(len(w), np.nan)
        return curves.sensitivity_at(s.pooled, s.truth, w, np.array([level]))[:, 0]

    return function


def _froc_mean(s: Sample, w: FloatArray) -> FloatArray:
    if s.pooled is None:
        return np.full(len(w), np.nan)
    levels = np.array(curves.FROC_LEVELS)
    return curves.sensitivity_at(s.pooled, s.truth, w, levels).mean(axis=1)


def _icc(s: Sample, w: FloatArray) -> FloatArray:
    return agreement.icc_a1(np.stack([s.truth, s.predicted], axis=1), w)


def _count_limits(part: int) -> Function:
    return lambda s, w: agreement.bland_altman(s.truth, s.predicted, w)[part]


def _presence_kappa(s: Sample, w: FloatArray) -> FloatArray:
    return agreement.cohen_kappa(s.truth > 0, s.predicted > 0, w)  # type: ignore[arg-type]


def _presence(s: Sample, w: FloatArray, present: bool) -> FloatArray:
    part = (s.truth > 0) == present
    right = (s.predicted > 0) == present
    return _ratio(w @ (part & right), w @ part)


def _named_alike(tables: FloatArray, w: FloatArray) -> FloatArray:
    summed = np.tensordot(w, tables, axes=(1, 0))
    return _ratio(np.trace(summed, axis1=1, axis2=2), summed.sum(axis=(1, 2)))


def _calibration_error(s: Sample, w: FloatArray) -> FloatArray:
    if s.bins is None:
        return np.full(len(w), np.nan)
    return curves.calibration_error(*s.bins, w)


_DETECTION = (
    Figure(
        "sensitivity",
        "Sensitivity",
        "higher",
        "Matched true lesions / all true lesions, pooled over scans.",
        _sensitivity,
    ),
    Figure(
        "precision",
        "Precision",
        "higher",
        "Matched predictions / all predictions, pooled over scans.",
        _precision,
    ),
    Figure(
        "f1",
        "F1",
        "higher",
        "2 x matched / (true + predicted lesions), pooled over scans.",
        _f1,
    ),
    Figure(
        "fp_per_scan",
        "False positives per scan",
        "lower",
        "Unmatched predictions / scans.",
        _false_rate,
    ),
)

_MATCHED = (
    Figure(
        "dice_mean",
        "Dice of matched lesions, mean",
        "higher",
        "Mean over matched lesions of 2 x common volume / sum of volumes; needs voxels on "
        "both sides.",
        lambda s, w: _weighted_mean(s.dice, w[:, s.hit_scan]),
    ),
    Figure(
        "volume_error_median",
        "Volume error of matched lesions, median",
        "lower",
        "Median over matched lesions of |predicted - true volume| / true volume.",
        lambda s, w: weighted_median(np.abs(s.volume_difference), w[:, s.hit_scan]),
    ),
    Figure(
        "volume_bias_median",
        "Volume difference of matched lesions, median",
        "neither",
        "Median over matched lesions of (predicted - true volume) / true volume.",
        lambda s, w: weighted_median(s.volume_difference, w[:, s.hit_scan]),
    ),
    Figure(
        "distance_mean_mm",
        "Distance of matched centres, mean (mm)",
        "lower",
        "Mean over matched lesions of the distance of the centres of mass.",
        lambda s, w: _weighted_mean(s.distance_mm, w[:, s.hit_scan]),
    ),
)

#: Metrics that can be computed for a subset of the lesions.
LESION_FIGURES = _DETECTION + _MATCHED

#: All figures, in the order in which they are shown.
FIGURES = (
    *_DETECTION,
    Figure(
        "f1_scan_mean",
        "F1 of a scan, mean",
        "higher",
        "Mean over scans of each scan's own F1; scans with neither true nor predicted lesions "
        "have none and are left out, scans with only one of them have 0.",
        lambda s, w: _weighted_mean(_f1_scan(s), w),
    ),
    Figure(
        "f1_scan_median",
        "F1 of a scan, median",
        "higher",
        "Median over the same scans.",
        lambda s, w: weighted_median(_f1_scan(s), w),
    ),
    Figure(
        "fp_per_scan_without_lesions",
        "False positives per scan without lesions",
        "lower",
        "Unmatched predictions / scans, of the scans without a true lesion.",
        lambda s, w: _false_rate(s, w, s.truth == 0),
    ),
    Figure(
        "fp_per_scan_with_lesions",
        "False positives per scan with lesions",
        "lower",
        "Unmatched predictions / scans, of the scans with a true lesion.",
        lambda s, w: _false_rate(s, w, s.truth > 0),
    ),
    Figure(
        "average_precision",
        "Average precision",
        "higher",
        "Area under the precision-recall curve as a sum of steps, without interpolation.",
        _average_precision,
    ),
    Figure(
        "froc_mean",
        "FROC, mean sensitivity",
        "higher",
        "Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per scan.",
        _froc_mean,
    ),
    *(
        Figure(
            f"sensitivity_at_{level:g}fp",
            f"Sensitivity at {level:g} false positives per scan",
            "higher",
            f"Best sensitivity of any threshold with at most {level:g} false positives per scan.",
            _sensitivity_at(level),
        )
        for level in (0.5, 1.0, 2.0)
    ),
    *_MATCHED,
    Figure(
        "count_icc",
        "Count, ICC(A,1)",
        "higher",
        "Intraclass correlation of the lesion counts of scans: two-way model, absolute "
        "agreement, single rating; ICC(2,1) of Shrout and Fleiss, ICC(A,1) of McGraw and Wong.",
        _icc,
    ),
    Figure(
        "count_bias",
        "Count, mean difference",
        "neither",
        "Mean over scans of predicted - true count.",
        _count_limits(0),
    ),
    Figure(
        "count_limit_low",
        "Count, lower limit of agreement",
        "neither",
        "Bland and Altman: mean difference - 1.96 standard deviations.",
        _count_limits(1),
    ),
    Figure(
        "count_limit_high",
        "Count, upper limit of agreement",
        "neither",
        "Bland and Altman: mean difference + 1.96 standard deviations.",
        _count_limits(2),
    ),
    Figure(
        "presence_kappa",
        "Presence, Cohen's kappa",
        "higher",
        "Kappa of whether a scan has any lesion.",
        _presence_kappa,
    ),
    Figure(
        "presence_sensitivity",
        "Presence, sensitivity",
        "higher",
        "Scans with true lesions that have any prediction / scans with true lesions.",
        lambda s, w: _presence(s, w, True),
    ),
    Figure(
        "presence_specificity",
        "Presence, specificity",
        "higher",
        "Scans without true lesions that have no prediction / scans without true lesions.",
        lambda s, w: _presence(s, w, False),
    ),
    Figure(
        "zone_agreement",
        "Zone, share named alike",
        "higher",
        "Matched lesions given the same zone / matched lesions with a zone on both sides.",
        lambda s, w: _named_alike(s.zones.tables, w),
    ),
    Figure(
        "zone_kappa",
        "Zone, Cohen's kappa",
        "higher",
        "Unweighted kappa of the zones of matched lesions.",
        lambda s, w: agreement.kappa_of_tables(s.zones.tables, w),
    ),
    Figure(
        "region_agreement",
        "Region, share named alike",
        "higher",
        "Matched lesions given the same region / matched lesions with a region on both sides.",
        lambda s, w: _named_alike(s.regions.tables, w),
    ),
    Figure(
        "ece",
        "Expected calibration error",
        "lower",
        "Sum over probability bins of equal width of (share of predictions) x |share matched - "
        "mean probability|.",
        _calibration_error,
    ),
)
