"""Agreement of two raters on the scans that both have read.

Raters are readers, rounds of one reader, a consensus, and the detector. Lesions of two raters on
one scan are the same lesion if they are the same automatic lesion or candidate, which neither has
moved to another place; the others are matched one to one, as well as can be, where their centres
lie within a distance (:mod:`cmbprep.ratings.matching`). Intervals come from a bootstrap over
participants.

A figure has no number where it would mean nothing: with fewer than :data:`MIN_PARTICIPANTS`
participants, or where it is not defined. The finding then says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.ratings.matching import assign, centre_distances
from cmbprep.ratings.statistics import (
    bland_altman,
    calibration_error,
    cohen_kappa,
    icc_a1,
    kappa_of_tables,
    linear_weights,
    percentile_interval,
    ratio,
    reliability_bins,
    subject_weights,
    tabulate,
)

FloatArray = NDArray[np.float64]

#: Who is compared.
KINDS = ("readers", "rounds", "machine")
#: Fewest participants of which agreement is told.
MIN_PARTICIPANTS = 5
#: Fewest listed lesions of which a calibration error is told: chance makes that of few large.
MIN_LISTED = 20
#: Bins of the calibration error, of equal width over 0..1.
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A lesion as one rater has it.

    Attributes
    ----------
    centre
        mm, RAS+ scanner coordinates.
    key
        Of the automatic lesion or candidate (``L3``, ``C12``); None for one without.
    probability
        The detector's, 0 to 1; None for a reader.
    """

    centre: tuple[float, float, float]
    key: str | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.centre)):
            raise ValueError("the centre of a lesion must be finite")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"a probability lies in 0..1, not {self.probability}")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The microbleeds of a scan according to one rater.

    Attributes
    ----------
    spots
        All of them.
    pattern
        Distribution over the zones; None where it is not determined.
    burden
        Name of a burden scale -> number of the class, from 0; None where it is not known.
    """

    spots: tuple[Spot, ...]
    pattern: str | None = None
    burden: Mapping[str, int | None]

    def __post_init__(self) -> None:
        keys = [spot.key for spot in self.spots if spot.key is not None]
        if len(set(keys)) < len(keys):
            raise ValueError("two lesions of a rater have the same key")


@dataclass(frozen=True, kw_only=True)
class PairedScan:
    """A scan that both raters have read.

    Attributes
    ----------
    subject
        Label of the participant.
    protocol
        How the scan was acquired, in words.
    first, second
        What the raters found.
    """

    subject: str
    protocol: str
    first: Reading
    second: Reading


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two raters, and the scans that both have read.

    Attributes
    ----------
    kind
        One of :data:`KINDS`. The detector is the second rater.
    first, second
        Names of the raters.
    lesions
        Which lesions count, in words.
    scans
        The scans.
    classes
        Name of a burden scale -> number of its classes.
    """

    kind: str
    first: str
    second: str
    lesions: str
    scans: tuple[PairedScan, ...]
    classes: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is none of {', '.join(KINDS)}")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A figure of two raters.

    Attributes
    ----------
    figure
        Which one.
    protocol
        The protocol that it is restricted to; None for all scans.
    n_scans, n_participants
        What it is computed from.
    value
        None where there is no number; ``note`` then says why.
    low, high
        95 % interval; None where there is none.
    note
        Why something is missing; empty if nothing is.
    """

    figure: Figure
    protocol: str | None
    n_scans: int
    n_participants: int
    value: float | None
    low: float | None
    high: float | None
    note: str = ""


def match_spots(
    first: Sequence[Spot], second: Sequence[Spot], distance_mm: float
) -> list[tuple[int, int]]:
    """Match the lesions of two raters of a scan, one to one.

    Parameters
    ----------
    first, second
        Lesions of the raters.
    distance_mm
        Largest distance of two centres; the limit itself counts as matched.

    Returns
    -------
    list of (position in ``first``, position in ``second``)
        Lesions of the same key first; the number of pairs does not depend on who is first.
    """
    known = {spot.key: number for number, spot in enumerate(second) if spot.key is not None}
    pairs = [
        (number, known[spot.key])
        for number, spot in enumerate(first)
        if spot.key in known
        # What a reader has moved to another place is another lesion.
        and math.dist(spot.centre, second[known[spot.key]].centre) <= distance_mm
    ]
    # In the order of their coordinates, so that the order of the rows plays no part.
    rows = _left(first, {row for row, _ in pairs})
    columns = _left(second, {column for _, column in pairs})
    distance = centre_distances(_centres(first, rows), _centres(second, columns))
    found = assign(distance, distance <= distance_mm)
    return pairs + [(rows[row], columns[column]) for row, column in found]


def _left(spots: Sequence[Spot], taken: set[int]) -> list[int]:
    return sorted(set(range(len(spots))) - taken, key=lambda number: spots[number].centre)


def _centres(spots: Sequence[Spot], chosen: Sequence[int]) -> FloatArray:
    return np.array([spots[number].centre for number in chosen], dtype=float).reshape(-1, 3)


class _Sample:
    """Arrays over the scans of a comparison, which the figures are computed from."""

    def __init__(self, comparison: Comparison, distance_mm: float) -> None:
        self.comparison = comparison
        scans = comparison.scans
        self.subjects = [scan.subject for scan in scans]
        self.pairs = [match_spots(s.first.spots, s.second.spots, distance_mm) for s in scans]
        self.matched = np.array([len(pairs) for pairs in self.pairs], dtype=float)
        self.first = np.array([len(scan.first.spots) for scan in scans], dtype=float)
        self.second = np.array([len(scan.second.spots) for scan in scans], dtype=float)

    @cached_property
    def patterns(self) -> FloatArray:
        """Contingency table of each scan."""
        first = [scan.first.pattern for scan in self.comparison.scans]
        second = [scan.second.pattern for scan in self.comparison.scans]
        names = sorted({name for name in (*first, *second) if name is not None})

        def numbers(side: Sequence[str | None]) -> list[int | None]:
            return [None if name is None else names.index(name) for name in side]

        return tabulate(numbers(first), numbers(second), len(names))

    def burden(self, scale: str) -> FloatArray:
        """Contingency table of each scan."""
        scans = self.comparison.scans
        return tabulate(
            [scan.first.burden.get(scale) for scan in scans],
            [scan.second.burden.get(scale) for scan in scans],
            self.comparison.classes[scale],
        )

    @cached_property
    def bins(self) -> tuple[FloatArray, FloatArray, FloatArray] | None:
        """Reliability bins of each scan's listed lesions; None if one has no probability."""
        rows = []
        for scan, pairs in zip(self.comparison.scans, self.pairs, strict=True):
            chances = [spot.probability for spot in scan.second.spots]
            if None in chances:
                return None
            right = {column for _, column in pairs}
            correct = np.array([number in right for number in range(len(chances))], dtype=float)
            rows.append(reliability_bins(np.array(chances, dtype=float), correct, BINS))
        count, chance, right_sum = np.array(rows).reshape(-1, 3, BINS).swapaxes(0, 1)
        return count, chance, right_sum


def _everything(sample: _Sample) -> NDArray[np.bool_]:
    return np.ones(len(sample.subjects), dtype=bool)


def _vary(*sides: NDArray[Any]) -> bool:
    return all(len(np.unique(side)) > 1 for side in sides)


def _differ(tables: FloatArray) -> bool:
    """Return whether each rater has used two classes or more."""
    return all((tables.sum(axis=(0, axis)) > 0).sum() > 1 for axis in (1, 2))


def _known(tables: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(tables.sum(axis=(1, 2)) > 0)


@dataclass(frozen=True)
class Figure:
    """A figure of agreement.

    Attributes
    ----------
    name
        In tables.
    label
        For people.
    definition
        In a sentence.
    undefined
        Why it may have no value.
    of
        (sample, weights of shape (n_draws, n_scans)) -> shape (n_draws,).
    counts
        Which scans it is computed from, shape (n_scans,).
    meaningful
        Whether the scans can tell anything of it: a kappa or correlation with a rater who says
        the same of every scan is 0 or not defined, however well the raters agree.
    kinds
        Kinds of comparison that it belongs to.
    """

    name: str
    label: str
    definition: str
    undefined: str
    of: Callable[[_Sample, FloatArray], FloatArray]
    counts: Callable[[_Sample], NDArray[np.bool_]] = _everything
    meaningful: Callable[[_Sample], bool] = lambda _: True
    kinds: tuple[str, ...] = KINDS


#: Why a kappa has no value.
_ONE_CLASS = "one of the raters, or both, put every scan into one class"


@cache
def _burden_figure(scale: str) -> Figure:
    return Figure(
        f"burden_{scale}_kappa",
        f"Burden class ({scale}), weighted kappa",
        f"Cohen's kappa of the burden class on the scale {scale}, with linear weights.",
        _ONE_CLASS,
        lambda s, w: kappa_of_tables(
            s.burden(scale), w, linear_weights(s.comparison.classes[scale])
        ),
        lambda s: _known(s.burden(scale)),
        lambda s: _differ(s.burden(scale)),
    )


def _presence(present: bool) -> Callable[[_Sample, FloatArray], FloatArray]:
    def share(s: _Sample, w: FloatArray) -> FloatArray:
        part = (s.first > 0) == present
        return ratio(w @ (part & ((s.second > 0) == present)), w @ part)

    return share


def _calibration(s: _Sample, w: FloatArray) -> FloatArray:
    if s.bins is None or s.second.sum() < MIN_LISTED:
        return np.full(len(w), np.nan)
    return calibration_error(*s.bins, w)


_MACHINE = ("machine",)

# The burden scales come between these two, see :func:`figures`.
_BEFORE_BURDEN = (
    Figure(
        "presence_kappa",
        "Presence, kappa",
        "Cohen's kappa of whether a scan has any microbleed.",
        _ONE_CLASS,
        lambda s, w: cohen_kappa(s.first > 0, s.second > 0, w),
        meaningful=lambda s: _vary(s.first > 0, s.second > 0),
    ),
    Figure(
        "pattern_kappa",
        "Pattern, kappa",
        "Cohen's kappa of the pattern (none, strictly lobar, strictly deep, mixed, cerebellar "
        "only), over the scans in which both have determined it.",
        _ONE_CLASS,
        lambda s, w: kappa_of_tables(s.patterns, w),
        lambda s: _known(s.patterns),
        lambda s: _differ(s.patterns),
    ),
)
_AFTER_BURDEN = (
    Figure(
        "count_icc",
        "Count, ICC(2,1)",
        "Intraclass correlation of the numbers of microbleeds: two-way random effects, absolute "
        "agreement, single rater (Shrout and Fleiss 1979).",
        "the numbers of microbleeds of one of the raters, or both, do not vary",
        lambda s, w: icc_a1(np.stack([s.first, s.second], axis=1), w),
        meaningful=lambda s: _vary(s.first, s.second),
    ),
    Figure(
        "count_difference",
        "Count, mean difference",
        "Mean of the second rater's less the first rater's number of microbleeds.",
        "there is no scan",
        lambda s, w: bland_altman(s.first, s.second, w)[0],
    ),
    Figure(
        "count_limit_low",
        "Count, lower limit of agreement",
        "Bland and Altman 1986: mean difference - 1.96 standard deviations.",
        "there are fewer than two scans",
        lambda s, w: bland_altman(s.first, s.second, w)[1],
    ),
    Figure(
        "count_limit_high",
        "Count, upper limit of agreement",
        "Bland and Altman 1986: mean difference + 1.96 standard deviations.",
        "there are fewer than two scans",
        lambda s, w: bland_altman(s.first, s.second, w)[2],
    ),
    Figure(
        "lesion_f1",
        "Lesions, F1",
        "2 x matched lesions / sum of both raters' lesions, pooled over scans.",
        "neither rater has a lesion",
        lambda s, w: ratio(2 * (w @ s.matched), w @ (s.first + s.second)),
    ),
    Figure(
        "lesion_sensitivity",
        "Lesions, sensitivity",
        "Matched lesions / lesions of the first rater, pooled over scans.",
        "the first rater has no lesion",
        lambda s, w: ratio(w @ s.matched, w @ s.first),
    ),
    Figure(
        "lesion_precision",
        "Lesions, precision",
        "Matched lesions / lesions of the second rater, pooled over scans.",
        "the second rater has no lesion",
        lambda s, w: ratio(w @ s.matched, w @ s.second),
    ),
    Figure(
        "false_positives_per_scan",
        "False positives per scan",
        "Lesions of the detector that the reader has not / scans.",
        "there is no scan",
        lambda s, w: ratio(w @ (s.second - s.matched), w.sum(axis=1)),
        kinds=_MACHINE,
    ),
    Figure(
        "presence_sensitivity",
        "Presence, sensitivity",
        "Scans with a microbleed of the reader in which the detector lists any / scans with a "
        "microbleed of the reader.",
        "the reader has no scan with a microbleed",
        _presence(True),
        kinds=_MACHINE,
    ),
    Figure(
        "presence_specificity",
        "Presence, specificity",
        "Scans without a microbleed of the reader in which the detector lists none / scans "
        "without a microbleed of the reader.",
        "the reader has no scan without a microbleed",
        _presence(False),
        kinds=_MACHINE,
    ),
    Figure(
        "calibration_error",
        "Expected calibration error",
        f"Of the lesions that the detector lists, in {BINS} bins of equal width of its "
        "probability: sum of (share of lesions) x |share that the reader confirms - mean "
        "probability|.",
        f"fewer than {MIN_LISTED} lesions are listed, or one has no probability",
        _calibration,
        kinds=_MACHINE,
    ),
)


def figures(classes: Mapping[str, int]) -> tuple[Figure, ...]:
    """Return all figures, in the order in which they are shown.

    Parameters
    ----------
    classes
        The burden scales, as in :class:`Comparison`.
    """
    return (*_BEFORE_BURDEN, *map(_burden_figure, classes), *_AFTER_BURDEN)


def compare(
    comparison: Comparison, *, distance_mm: float = 5.0, n_draws: int = 2000, seed: int = 0
) -> list[Finding]:
    """Compute the figures of two raters, of all scans and by protocol.

    Parameters
    ----------
    comparison
        The raters and their scans.
    distance_mm
        Largest distance of the centres of a lesion that has no common key.
    n_draws, seed
        Bootstrap samples of participants; 0 draws give no intervals.

    Returns
    -------
    list of Finding
        Protocols follow where there are at least two, in alphabetical order.
    """
    protocols = sorted({scan.protocol for scan in comparison.scans})
    found = []
    for protocol in (None, *(protocols if len(protocols) > 1 else ())):
        scans = tuple(
            scan for scan in comparison.scans if protocol is None or scan.protocol == protocol
        )
        sample = _Sample(replace(comparison, scans=scans), distance_mm)
        weights = subject_weights(sample.subjects, n_draws, seed)
        found += [
            _find(figure, sample, weights, protocol)
            for figure in figures(comparison.classes)
            if comparison.kind in figure.kinds
        ]
    return found


def _find(figure: Figure, sample: _Sample, weights: FloatArray, protocol: str | None) -> Finding:
    counted = figure.counts(sample)
    people = {name for name, here in zip(sample.subjects, counted, strict=True) if here}
    value = low = high = None
    note = ""
    if len(people) < MIN_PARTICIPANTS:
        note = f"fewer than {MIN_PARTICIPANTS} participants"
    else:
        (number,) = figure.of(sample, np.ones((1, len(counted))))
        if not math.isfinite(number) or not figure.meaningful(sample):
            note = figure.undefined
        else:
            value = float(number)
            low, high, note = _interval(figure.of(sample, weights))
    return Finding(
        figure=figure,
        protocol=protocol,
        n_scans=int(counted.sum()),
        n_participants=len(people),
        value=value,
        low=low,
        high=high,
        note=note,
    )


def _interval(drawn: FloatArray) -> tuple[float | None, float | None, str]:
    """Return the interval, and why there is none."""
    if not len(drawn):
        return None, None, "no interval was asked for"
    interval = percentile_interval(drawn)
    if interval is None:
        return None, None, "no interval: not defined in half of the bootstrap samples or more"
    if math.isclose(*interval, abs_tol=1e-12):
        return None, None, "no interval: the same in every bootstrap sample"
    return (*interval, "")
