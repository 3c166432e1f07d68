"""The catalogue of figures: each a function of a sample and of the weights of its scans.

A row of weights says how often each scan counts; ones give the figure itself, rows of a
bootstrap its distribution. Undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import agreement, curves
from .sample import Sample

__all__ = ["FIGURES", "LESION_FIGURES", "Figure", "weighted_median"]

FloatArray = NDArray[np.float64]
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
    """Give the median of values that are repeated ``weights`` (n_draws, n_values) times.

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
        "False positives a scan",
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

#: Figures that can be had of a part of the lesions.
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
        "False positives a scan without lesions",
        "lower",
        "Unmatched predictions / scans, of the scans without a true lesion.",
        lambda s, w: _false_rate(s, w, s.truth == 0),
    ),
    Figure(
        "fp_per_scan_with_lesions",
        "False positives a scan with lesions",
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
        "Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives a scan.",
        _froc_mean,
    ),
    *(
        Figure(
            f"sensitivity_at_{level:g}fp",
            f"Sensitivity at {level:g} false positives a scan",
            "higher",
            f"Best sensitivity of any threshold with at most {level:g} false positives a scan.",
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
