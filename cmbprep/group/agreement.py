"""Agreement of the readers of an output dataset with each other and with the detector."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from cmbprep.errors import CmbprepError, UsageError
from cmbprep.group.protocols import protocol_of
from cmbprep.group.rows import make_rows
from cmbprep.group.tables import scan_table
from cmbprep.lesions import Lesion
from cmbprep.ratings.agreement import Comparison, PairedScan, Reading, Spot
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.consensus import RULES, Review, choose_reviews, find_reviews, reviewed_scan
from cmbprep.ratings.reviewed import reviewed_lesions, reviewed_rows
from cmbprep.reports.results import collect_results
from cmbprep.reports.reviewed import automatic_result
from cmbprep.zones.burden import BURDEN_SCALES, DEFAULT_RULE, Pattern
from cmbprep.zones.tally import SCALES, Tally

logger = logging.getLogger("cmbprep")

#: Name of the detector as a rater.
DETECTOR = "detector"
#: Which lesions count.
LESIONS = ("definite and possible", "definite")


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadScan:
    """A scan with a result, and what its readers made of it.

    Attributes
    ----------
    automatic
        The automatic result.
    protocol
        How it was acquired, in words.
    reviews
        All reviews, finished or not.
    detector
        Name and version of the detector.
    pattern_rule
        Rule of the pattern, one of :data:`.PATTERN_RULES`.
    """

    automatic: Automatic
    protocol: str
    reviews: tuple[Review, ...]
    detector: str
    pattern_rule: str = DEFAULT_RULE

    @property
    def name(self) -> str:
        """Of the scan."""
        return self.automatic.name

    @property
    def subject(self) -> str:
        """Label of the participant."""
        return self.automatic.detection.files.names.subject


@dataclass(frozen=True, eq=False, kw_only=True)
class Cohort:
    """The scans of an output dataset that have a result."""

    scans: tuple[ReadScan, ...]

    @property
    def readers(self) -> dict[str, str]:
        """Short name of each reader with a review that counts -> the name as it was written."""
        names: dict[str, str] = {}
        for review in self._counted():
            names.setdefault(review.reader.short, review.reader.name)
        return dict(sorted(names.items()))

    @property
    def versions(self) -> list[str]:
        """Versions of the program that the scans were read with."""
        return sorted({act.software for review in self._counted() for act in review.acts})

    @property
    def detectors(self) -> list[str]:
        """Names and versions of the detectors of the scans that were read."""
        return sorted({scan.detector for scan in self.read})

    @property
    def pattern_rules(self) -> list[str]:
        """Rules of the pattern; one, if all scans were read from a dataset together."""
        return sorted({scan.pattern_rule for scan in self.scans})

    @property
    def read(self) -> tuple[ReadScan, ...]:
        """The scans that somebody has read to the end, on the present result."""
        return tuple(scan for scan in self.scans if choose_reviews(scan.reviews))

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Why scans or reviews do not count -> which."""
        reasons = ("unread", "partly read", "of an older result", "damaged")
        found: dict[str, list[str]] = {reason: [] for reason in reasons}
        for scan in self.scans:
            if not scan.reviews:
                found["unread"].append(scan.name)
            for review in scan.reviews:
                if not review.counts:
                    reason = "of an older result" if review.stale else "partly read"
                    reason = "damaged" if review.damage else reason
                    who = f"{review.reader.name}, round {review.reader.round}"
                    found[reason].append(f"{scan.name} ({who})")
        return found

    def _counted(self) -> Iterator[Review]:
        return (review for scan in self.scans for review in scan.reviews if review.counts)


def read(root: Path, *, pattern_rule: str = DEFAULT_RULE) -> Cohort:
    """Read the reviews of an output dataset.

    Parameters
    ----------
    root
        The output dataset.
    pattern_rule
        What cerebellar microbleeds count as in the pattern, one of :data:`.PATTERN_RULES`.

    Raises
    ------
    UsageError
        If no scan has a result.
    """
    rows = make_rows(collect_results(root))
    table = scan_table(rows)
    scans = []
    for row, values in zip(rows, table.values, strict=True):
        automatic = None if row.scan is None else automatic_result(row.scan)
        if automatic is not None:
            detector = (values.get("detector"), values.get("detector_version"))
            scans.append(
                ReadScan(
                    automatic=automatic,
                    protocol=protocol_of(values).physics if row.tally else "unknown",
                    reviews=_reviews(automatic),
                    detector=" ".join(str(part) for part in detector if part),
                    pattern_rule=pattern_rule,
                )
            )
    if not scans:
        raise UsageError(
            "there is no scan with a complete result",
            path=root,
            hint="give the OUTPUT_DIR of a run of the participant level",
        )
    return Cohort(scans=tuple(scans))


def _reviews(automatic: Automatic) -> tuple[Review, ...]:
    """Find the reviews of a scan; none, with a warning, where a log cannot be read."""
    try:
        return tuple(find_reviews(automatic))
    except (CmbprepError, OSError) as error:
        logger.warning("%s: no review is used: %s", automatic.name, error)
        return ()


def comparisons(cohort: Cohort, *, rule: str = "majority") -> list[Comparison]:
    """Return who can be compared with whom: readers, rounds of a reader, and the detector.

    Parameters
    ----------
    cohort
        Scans and reviews.
    rule
        How the consensus of several readers is made, one of
        :data:`cmbprep.ratings.consensus.RULES`.

    Returns
    -------
    list of Comparison
        Two for each pair of raters: with and without the possible microbleeds. Raters without
        a scan that both have read are left out.
    """
    if rule not in RULES:
        raise UsageError(f"there is no rule {rule!r}", hint=f"choose one of {', '.join(RULES)}")
    found: list[Comparison] = []
    names = cohort.readers
    by_reader = {short: _by_reader(cohort, short) for short in names}
    for first, second in combinations(names, 2):
        found += _compare(
            "readers", (names[first], names[second]), by_reader[first], by_reader[second]
        )
    for short, name in names.items():
        rounds = _by_round(cohort, short)
        for first_round, second_round in combinations(sorted(rounds), 2):
            titles = (f"{name}, round {first_round}", f"{name}, round {second_round}")
            found += _compare("rounds", titles, rounds[first_round], rounds[second_round])
    machine = {
        scan: _readings(
            scan, scan.automatic.lesions, [f"L{x.index}" for x in scan.automatic.lesions]
        )
        for scan in cohort.read
    }
    for short, name in names.items():
        found += _compare("machine", (name, DETECTOR), by_reader[short], machine)
    if len(names) > 1:
        agreed = _consensus(cohort, rule)
        found += _compare("machine", (f"consensus ({rule})", DETECTOR), agreed, machine)
    return found


#: Readings of one rater, by scan, one for each of :data:`LESIONS`.
Readings = Mapping[ReadScan, Sequence[Reading | None]]


def _compare(
    kind: str, titles: tuple[str, str], first: Readings, second: Readings
) -> Iterator[Comparison]:
    for number, lesions in enumerate(LESIONS):
        scans = []
        for scan in first:
            sides = (first[scan][number], second[scan][number] if scan in second else None)
            if sides[0] is not None and sides[1] is not None:
                scans.append(
                    PairedScan(
                        subject=scan.subject,
                        protocol=scan.protocol,
                        first=sides[0],
                        second=sides[1],
                    )
                )
        if scans:
            yield Comparison(
                kind=kind,
                first=titles[0],
                second=titles[1],
                lesions=lesions,
                scans=tuple(scans),
                classes={scale: len(BURDEN_SCALES[scale].classes) for scale in SCALES},
            )


def _by_reader(cohort: Cohort, short: str) -> Readings:
    """Return what a reader found in the last finished round of each scan."""
    return {
        scan: _of_review(scan, review)
        for scan in cohort.read
        for review in choose_reviews(scan.reviews)
        if review.reader.short == short
    }


def _by_round(cohort: Cohort, short: str) -> dict[int, Readings]:
    rounds: dict[int, dict[ReadScan, Sequence[Reading | None]]] = {}
    for scan in cohort.read:
        for review in scan.reviews:
            if review.counts and review.reader.short == short:
                rounds.setdefault(review.reader.round, {})[scan] = _of_review(scan, review)
    return dict(rounds)


def _consensus(cohort: Cohort, rule: str) -> Readings:
    """Return the lesions that readers agree on, of the scans with at least two readers."""
    found = {}
    for scan in cohort.read:
        if len(choose_reviews(scan.reviews)) > 1:
            agreed = reviewed_scan(scan.automatic, rule=rule)
            if agreed is not None:
                keys = [f"L{lesion.index}" for lesion in agreed.lesions]
                own = scan.automatic.by_key
                known = [key if key in own else None for key in keys]
                found[scan] = _readings(scan, agreed.lesions, known)
    return found


def _of_review(scan: ReadScan, review: Review) -> Sequence[Reading | None]:
    automatic, state = review.automatic, review.state
    rows = [row for row in reviewed_rows(automatic, state) if row.item.positive]
    keys = [None if row.item.kind == "added" else row.item.key for row in rows]
    return _readings(scan, reviewed_lesions(automatic, state), keys)


def _readings(
    scan: ReadScan, lesions: Iterable[Lesion], keys: Iterable[str | None]
) -> Sequence[Reading | None]:
    """Return what counts for each of :data:`LESIONS`; None where it is not known."""
    key_of = dict(zip(lesions, keys, strict=True))
    tally = Tally(tuple(key_of), scan.pattern_rule)
    possible = _reading(tally.counted, key_of, tally.pattern_of_all, tally, definite=False)
    if tally.unrated:
        return possible, None
    return possible, _reading(tally.definite, key_of, tally.pattern, tally, definite=True)


def _reading(
    lesions: Iterable[Lesion],
    keys: Mapping[Lesion, str | None],
    pattern: Pattern,
    tally: Tally,
    *,
    definite: bool,
) -> Reading:
    burden: dict[str, int | None] = {}
    for scale in SCALES:
        text = tally.burden(scale, definite=definite)
        burden[scale] = None if text is None else BURDEN_SCALES[scale].classes.index(text)
    return Reading(
        spots=tuple(
            Spot(centre=lesion.centre, key=keys[lesion], probability=lesion.probability)
            for lesion in lesions
        ),
        pattern=None if pattern is Pattern.UNDETERMINED else pattern.value,
        burden=burden,
    )
