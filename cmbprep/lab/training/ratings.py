"""What raters said of the candidates of a cohort: reviews, and tables written by hand.

A scan that was reviewed to the end, on the result that is there, counts as its reader or its
readers left it (:func:`cmbprep.ratings.consensus.reviewed_scan`).

The table ``ratings.tsv`` beside results of cmbprep has one row for each lesion that somebody has
looked at, with the columns

``table``
    The scan: path of its lesion table (``…_seg-CMB_dseg.tsv``), relative to the results.
``verdict``
    ``accepted``, ``rejected``, ``added`` (a microbleed that was not listed) or ``none`` (the
    scan was looked at and there is nothing more to say).
``index``
    Of the lesion in that table; for ``added`` empty or ``n/a``.
``x``, ``y``, ``z``
    For ``added``: where, scanner coordinates, RAS+, mm. Not needed otherwise.

A scan that is named counts as looked at: every listed lesion needs a verdict. What the detector
weighed but did not list counts as nothing unless somebody accepted or added it, or it is another
candidate of the same spot.

A scan that is withdrawn, failed, incomplete or superseded is left out with a warning. A damaged
or inconsistent table is an error that names it: read as far as it goes, it would turn
microbleeds into examples of none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import UsageError
from cmbprep.files.tsv import Table, listing, parse_integer, parse_number, read_tsv
from cmbprep.lab.shared import usage_errors
from cmbprep.lesions import Lesion
from cmbprep.outputs.stages import StageRecord
from cmbprep.ratings.consensus import choose_reviews, find_reviews, reviewed_scan
from cmbprep.ratings.matching import assign, centre_distances
from cmbprep.ratings.store import find_logs
from cmbprep.reports.reviewed import automatic_result
from cmbprep.reports.usable import UsableResults, usable_results

logger = logging.getLogger("cmbprep")


RATINGS_FILE = "ratings.tsv"
_TABLE_ENDING = "_seg-CMB_dseg.tsv"
VERDICTS = ("accepted", "rejected", "added", "none")
#: A candidate this near to an added microbleed is that microbleed, mm.
NEAR_MM = 5.0


@dataclass(frozen=True, eq=False)
class RatedCandidates:
    """Candidates of looked-at scans.

    Attributes
    ----------
    columns
        Names of the columns of ``table``.
    table
        (n, len(columns)) as :data:`cmbprep.detectors.learned.CANDIDATES` says.
    target
        (n,) whether a rater calls it a microbleed.
    person
        (n,) number of the person.
    scans, people
        How many were looked at.
    beyond
        Added microbleeds at which the detector had no candidate: no last stage finds them.
    networks
        SHA-256 of the networks that the results come from.
    reviewed
        How many of the scans were rated in the review.
    """

    columns: tuple[str, ...]
    table: NDArray[np.float64]
    target: NDArray[np.bool_]
    person: NDArray[np.int_]
    scans: int
    people: int
    beyond: int
    networks: frozenset[str]
    reviewed: int = 0

    def column(self, name: str) -> NDArray[np.float64]:
        """One column of the table."""
        return self.table[:, self.columns.index(name)]


@dataclass(frozen=True)
class Candidates:
    """The table of candidates of a scan.

    Attributes
    ----------
    record
        The stage that it belongs to.
    columns
        Names of the columns of ``table``.
    table
        (n, len(columns)).
    """

    record: StageRecord
    columns: tuple[str, ...]
    table: NDArray[np.float64]

    @cached_property
    def lesion(self) -> NDArray[np.int_]:
        """Index of the listed lesion that each belongs to; 0 for none. Shape (n,)."""
        return self.table[:, self.columns.index("lesion")].astype(int)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Positions in mm, RAS+, (n, 3)."""
        return self.table[:, [self.columns.index(name) for name in "xyz"]]

    @cached_property
    def odds(self) -> NDArray[np.float64]:
        """Log-odds of the network, (n,)."""
        return self.table[:, self.columns.index("odds")]

    def best_of(self, index: int) -> int:
        """Return the row of the surest candidate of a listed lesion."""
        own = np.flatnonzero(self.lesion == index)
        return int(own[int(np.argmax(self.odds[own]))])


#: What decides which candidates are microbleeds, shape (n,), and counts those without a candidate.
Judge = Callable[[Candidates], tuple[NDArray[np.bool_], int]]


def read_ratings(
    folders: list[Path], *, reader: str | None = None, rule: str | None = None
) -> RatedCandidates:
    """Read the ratings and candidates of one or more results of cmbprep.

    Parameters
    ----------
    folders
        The results, with reviews, a table of ratings or both. A scan that is in both counts as
        it was reviewed.
    reader, rule
        Whose reviews count where there are several readers, see
        :func:`cmbprep.ratings.consensus.reviewed_scan`.

    Raises
    ------
    UsageError
        If a table is missing or says something that cannot be.
    """
    tables, targets, people, networks = [], [], [], set()
    columns: tuple[str, ...] = ()
    beyond = reviewed = 0
    names: dict[tuple[int, str], int] = {}
    for number, folder in enumerate(folders):
        known = usable_results(folder)
        reviews = dict(_reviewed_scans(folder, known, reader, rule))
        reviewed += len(reviews)
        if not reviews and not (folder / RATINGS_FILE).exists():
            who = "anybody" if reader is None else repr(reader)
            raise UsageError(
                f"there is no table {RATINGS_FILE}, and no scan was read to the end by {who}",
                path=folder,
                hint="read scans to the end with cmbprep-tools review, or write the table",
            )
        judges = {**dict(_rated_scans(folder, known, reviews)), **reviews}
        records = _records(folder, known)
        for name, judge in judges.items():
            record = records[name]
            found = _candidates(record)
            if columns and found.columns != columns:
                raise UsageError(
                    "this table of candidates has other columns than those of the other scans",
                    path=record.files.path("candidates"),
                    hint="process all scans with the same version of the program",
                )
            columns = found.columns
            target, missed = judge(found)
            own = _things(found, target)
            person = names.setdefault((number, record.files.names.subject), len(names))
            tables.append(found.table[own])
            targets.append(target[own])
            people.append(np.full(np.count_nonzero(own), person))
            beyond += missed
            networks.add(_network(record.block.get("Parameters", {})))
    if not tables:
        raise UsageError(
            "none of the scans that were rated has a result to train on",
            path=folders[0] / RATINGS_FILE if folders else None,
            hint="run the participant level again, or rate other scans",
        )
    return RatedCandidates(
        columns=columns,
        table=np.concatenate(tables),
        target=np.concatenate(targets),
        person=np.concatenate(people),
        scans=len(tables),
        people=len(names),
        beyond=beyond,
        networks=frozenset(networks),
        reviewed=reviewed,
    )


def _things(candidates: Candidates, target: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which candidates stand for something of their own, (n,).

    A large or oblong spot has several candidates. The detector lists it once, so the surest one
    of a listed lesion stands for it; others, and unlisted ones within :data:`NEAR_MM` of a
    microbleed, are the same thing again: neither microbleeds that were missed nor examples of
    something else.
    """
    listed = candidates.lesion > 0
    surest = [candidates.best_of(index) for index in np.unique(candidates.lesion[listed])]
    own = ~listed
    own[surest] = True
    near = centre_distances(candidates.points, candidates.points[target]) <= NEAR_MM
    own[near.any(axis=1) & ~listed] = False
    return own | target


def _records(folder: Path, known: UsableResults) -> dict[str, StageRecord]:
    """Return the records with a lesion table, by the path of the table below the results.

    A lesion table that cannot be read is no reason to go on without its scan.
    """
    found = [scan.detection for scan in known.complete.values()]
    return {str(_table(record, folder)): record for record in (*found, *known.unreadable)}


def _reviewed_scans(
    folder: Path, known: UsableResults, reader: str | None, rule: str | None
) -> Iterator[tuple[str, Judge]]:
    """Yield the lesion table of each scan that was read to the end, and what the readers say."""
    for record in known.unreadable:
        if find_logs(record.files.sidecar.parent, record.files.names.src):
            _listed(record, set())
    for scan in known.complete.values():
        automatic = automatic_result(scan.scan)
        reviews = [] if automatic is None else find_reviews(automatic)
        if automatic is None or not reviews:
            continue
        for review in reviews:
            if not review.counts:
                logger.warning(
                    "%s: the review of %s, round %d, is not used: %s",
                    automatic.name,
                    review.reader.name,
                    review.reader.round,
                    review.damage
                    or ("it is of an older result" if review.stale else "it was not finished"),
                )
        found = reviewed_scan(automatic, reader=reader, rule=rule)
        if found is not None:
            chosen = choose_reviews(reviews, reader=reader)
            replaced = {
                int(key[1:])
                for review in chosen
                for key, item in review.state.items.items()
                if item.kind == "listed" and item.deleted_by is not None
            }
            judge = partial(_judge_review, lesions=found.lesions, replaced=replaced)
            yield str(_table(scan.detection, folder)), judge


def _judge_review(
    candidates: Candidates, *, lesions: Sequence[Lesion], replaced: Collection[int]
) -> tuple[NDArray[np.bool_], int]:
    """Judge candidates by the lesions that readers have left.

    A lesion that the detector had not listed, or that was moved, merged or split, is that
    candidate within :data:`NEAR_MM` that an optimal matching of all of them gives it. What the
    readers have rejected is none of them.
    """
    before = {lesion.index: lesion.centre for lesion in candidates.record.lesions()}
    listed = _listed(candidates.record, set(candidates.lesion[candidates.lesion > 0].tolist()))
    target = np.zeros(len(candidates.table), bool)
    free, moved = [], set(replaced)
    for lesion in lesions:
        if lesion.index in listed and math.dist(lesion.centre, before[lesion.index]) <= NEAR_MM:
            target[candidates.best_of(lesion.index)] = True
        else:
            free.append(lesion.centre)
            moved.add(lesion.index)
    unlisted = np.flatnonzero(candidates.lesion == 0).tolist()
    rows = unlisted + [candidates.best_of(index) for index in sorted(moved & listed)]
    rows = [row for row in rows if not target[row]]
    distance = centre_distances(
        np.array(free, float).reshape(-1, 3), candidates.points[rows].reshape(-1, 3)
    )
    pairs = assign(distance, distance <= NEAR_MM)
    target[[rows[column] for _, column in pairs]] = True
    return target, len(free) - len(pairs)


def _rated_scans(
    folder: Path, known: UsableResults, reviewed: Collection[str]
) -> Iterator[tuple[str, Judge]]:
    """Yield the lesion table of each scan that the table of ratings names, and what it says."""
    if not (folder / RATINGS_FILE).exists():
        return
    records = _records(folder, known)
    without = {**known.refused, **known.superseded, **known.unusable}
    for name, rows in _by_scan(folder).items():
        if name in reviewed:
            logger.warning("the ratings of %s are not used: the scan was reviewed", name)
        elif name in records:
            yield name, partial(_judge, rows=rows)
        else:
            stem = Path(name).name.removesuffix(_TABLE_ENDING)
            if stem not in without or not name.endswith(_TABLE_ENDING):
                raise UsageError(
                    f"{RATINGS_FILE} names {name}, which is no lesion table of these results",
                    path=folder / RATINGS_FILE,
                    hint="write the path of the table as it lies below the results",
                )
            logger.warning("the ratings of %s are not used: %s", name, without[stem])


def _network(parameters: object) -> str:
    """SHA-256 of the network in the parameters of a stage, wherever it stands in them."""
    if isinstance(parameters, dict):
        if isinstance(parameters.get("sha256"), str):
            return str(parameters["sha256"])
        for value in parameters.values():
            if found := _network(value):
                return found
    return ""


def _table(record: StageRecord, folder: Path) -> Path:
    return record.files.path("table").relative_to(folder)


def _by_scan(folder: Path) -> dict[str, list[dict[str, str]]]:
    path = folder / RATINGS_FILE
    ratings = _read(
        path, ("table", "verdict"), f"put the table {RATINGS_FILE} into the folder of the results"
    )
    found: dict[str, list[dict[str, str]]] = {}
    for line, row in ratings.dicts():
        if row.get("verdict") not in VERDICTS or not row.get("table"):
            raise UsageError(
                f"line {line}: a row needs a table, and a verdict that is one of "
                f"{', '.join(VERDICTS)}",
                path=path,
                hint="mend the line and run again",
            )
        found.setdefault(row["table"], []).append(row)
    if not found:
        raise UsageError("the table of ratings is empty", path=path, hint="rate some scans first")
    return found


def _candidates(record: StageRecord) -> Candidates:
    path = record.files.path("candidates")
    hint = "run cmbprep with --detector learned: only this detector writes them"
    # The last column is a number, so only the line break shows that it is whole.
    table = _read(path, ("index", "x", "y", "z", "lesion", "odds"), hint, closed=True)
    columns = tuple(name for name in table.header if name not in ("index", "name"))
    picked = list(table.positions(columns).values())
    numbers = np.zeros((len(table.rows), len(columns)))
    for at, (line, cells) in enumerate(table.rows):
        try:
            if parse_integer(cells[table.header.index("index")]) != at + 1:
                raise ValueError("the indices do not count from 1")
            numbers[at] = [parse_number(cells[i]) for i in picked]
        except ValueError as error:
            raise UsageError(
                f"line {line} is not a row of a table of candidates ({error})",
                path=path,
                hint="run the participant level again for this scan",
            ) from error
    return Candidates(record, columns, numbers)


def _read(path: Path, required: tuple[str, ...], hint: str, *, closed: bool = False) -> Table:
    with usage_errors():
        return read_tsv(path, required, hint=hint, closed=closed)


def _listed(record: StageRecord, candidates: set[int]) -> set[int]:
    """Return the indices in the lesion table, compared with those of the candidates."""
    with usage_errors():
        listed = {lesion.index for lesion in record.lesions()}
    if listed != candidates:
        raise UsageError(
            f"lesion {listing(map(str, sorted(listed ^ candidates)))} is in only one of the "
            "lesion table and the table of candidates",
            path=record.files.path("candidates"),
            hint="run the participant level again for this scan",
        )
    return listed


def _judge(candidates: Candidates, *, rows: list[dict[str, str]]) -> tuple[NDArray[np.bool_], int]:
    """Judge candidates by the rows of the table of ratings."""
    path = candidates.record.files.path("table")
    lesion = candidates.lesion
    target = np.zeros(len(lesion), bool)
    verdicts: dict[int, str] = {}
    missed = 0
    for row in rows:
        if row["verdict"] == "none":
            continue
        if row["verdict"] == "added":
            near = np.linalg.norm(candidates.points - _numbers(row, path), axis=1) <= NEAR_MM
            near &= lesion == 0
            if near.any():
                target[np.flatnonzero(near)[int(np.argmax(candidates.odds[near]))]] = True
            else:
                missed += 1
            continue
        index = _index(row, path)
        if verdicts.setdefault(index, row["verdict"]) != row["verdict"]:
            raise UsageError(
                f"lesion {index} is accepted and rejected",
                path=path,
                hint=f"keep one of the two rows of {RATINGS_FILE}",
            )
    listed = _listed(candidates.record, set(lesion[lesion > 0].tolist()))
    for index in sorted(listed | set(verdicts)):
        if index not in verdicts or index not in listed:
            word = "has no verdict" if index in listed else "is no listed lesion with a candidate"
            raise UsageError(
                f"lesion {index} {word}",
                path=path,
                hint="every listed lesion of a scan that was looked at needs a verdict",
            )
        if verdicts[index] == "accepted":
            target[candidates.best_of(index)] = True
    return target, missed


def _numbers(row: dict[str, str], path: Path) -> NDArray[np.float64]:
    try:
        return np.array([parse_number(row[name]) for name in "xyz"])
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(
            "an added microbleed has no position",
            path=path,
            hint="give x, y and z in scanner coordinates, mm",
        ) from error


def _index(row: dict[str, str], path: Path) -> int:
    try:
        return int(row["index"])
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(
            f"{row['verdict']} needs the index of a lesion",
            path=path,
            hint="write the number of the lesion in its table",
        ) from error
