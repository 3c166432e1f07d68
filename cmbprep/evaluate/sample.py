"""From the results of many scans to arrays over scans, which the figures are computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curves import Pooled, pool_steps, reliability_bins
from .lesionset import Mark
from .scoring import ScanResult, Steps

__all__ = ["Confusion", "Sample", "make_sample"]

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
