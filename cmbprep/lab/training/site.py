"""Refit of the detector's last stage to a site's own ratings.

A logistic regression on the network's log-odds and on what is measured of each candidate,
pulled towards the packaged stage by a penalty, so that a few ratings change little and
hundreds can teach what this site's false positives look like. What it gains is measured on
people left out of the fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from cmbprep.detectors.calibration import LastStage
from cmbprep.detectors.learned import CANDIDATES
from cmbprep.detectors.views import COLUMNS
from cmbprep.errors import UsageError
from cmbprep.files.tsv import Table, listing, parse_integer, parse_number, read_tsv
from cmbprep.lab.shared import usage_errors
from cmbprep.outputs.stages import StageRecord
from cmbprep.reports.usable import usable_results

logger = logging.getLogger("cmbprep")


# --- What raters said of the candidates of a cohort: ``ratings.tsv`` beside results of cmbprep ---
#
# The table has one row for each lesion that somebody has looked at, with the columns
#
# ``table``
#     The scan: path of its lesion table (``…_seg-CMB_dseg.tsv``), relative to the results.
# ``verdict``
#     ``accepted``, ``rejected``, ``added`` (a microbleed that was not listed) or ``none`` (the
#     scan was looked at and there is nothing more to say).
# ``index``
#     Of the lesion in that table; for ``added`` empty or ``n/a``.
# ``x``, ``y``, ``z``
#     For ``added``: where, scanner coordinates, RAS+, mm. Not needed otherwise.
#
# A scan that is named counts as looked at: every listed lesion needs a verdict, and what the
# detector weighed but did not list counts as nothing unless somebody added it.
#
# A scan that is withdrawn, failed, incomplete or superseded is left out with a warning. A damaged
# or inconsistent table is an error that names it: read as far as it goes, it would turn
# microbleeds into examples of none.


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
    """

    columns: tuple[str, ...]
    table: NDArray[np.float64]
    target: NDArray[np.bool_]
    person: NDArray[np.int_]
    scans: int
    people: int
    beyond: int
    networks: frozenset[str]

    def column(self, name: str) -> NDArray[np.float64]:
        """One column of the table."""
        return self.table[:, self.columns.index(name)]


def read_ratings(folders: list[Path]) -> RatedCandidates:
    """Read the ratings and candidates of one or more results of cmbprep.

    Raises
    ------
    UsageError
        If a table is missing or says something that cannot be.
    """
    tables, targets, people, networks = [], [], [], set()
    columns: tuple[str, ...] = ()
    scans = beyond = 0
    names: dict[tuple[int, str], int] = {}
    for number, folder in enumerate(folders):
        for record, rows in _rated_scans(folder):
            own, table = _candidates(record)
            if columns and own != columns:
                raise UsageError(
                    "this table of candidates has other columns than those of the other scans",
                    path=record.files.path("candidates"),
                    hint="process all scans with the same version of the program",
                )
            columns = own
            target, missed = _judge(columns, table, rows, record)
            person = names.setdefault((number, record.files.names.subject), len(names))
            tables.append(table)
            targets.append(target)
            people.append(np.full(len(table), person))
            scans += 1
            beyond += missed
            parameters = record.block.get("Parameters", {})
            networks.add(_network(parameters))
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
        scans=scans,
        people=len(names),
        beyond=beyond,
        networks=frozenset(networks),
    )


def _rated_scans(folder: Path) -> Iterator[tuple[StageRecord, list[dict[str, str]]]]:
    """Yield the record and the ratings of each rated scan that has a result."""
    rated = _by_scan(folder)
    known = usable_results(folder)
    found = [scan.detection for scan in known.complete.values()]
    # A lesion table that cannot be read is no reason to go on without its scan.
    records = {str(_table(record, folder)): record for record in (*found, *known.unreadable)}
    without = {**known.refused, **known.superseded, **known.unusable}
    for name, rows in rated.items():
        if name in records:
            yield records[name], rows
            continue
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


def _candidates(record: StageRecord) -> tuple[tuple[str, ...], NDArray[np.float64]]:
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
    return columns, numbers


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


def _judge(
    columns: tuple[str, ...],
    table: NDArray[np.float64],
    rows: list[dict[str, str]],
    record: StageRecord,
) -> tuple[NDArray[np.bool_], int]:
    """Whether each candidate is a microbleed, and how many microbleeds have no candidate."""
    path = record.files.path("table")
    lesion = table[:, columns.index("lesion")].astype(int)
    points = table[:, [columns.index(name) for name in "xyz"]]
    odds = table[:, columns.index("odds")]
    target = np.zeros(len(table), bool)
    verdicts: dict[int, str] = {}
    missed = 0
    for row in rows:
        if row["verdict"] == "none":
            continue
        if row["verdict"] == "added":
            place = _numbers(row, path)
            near = np.linalg.norm(points - place, axis=1) <= NEAR_MM
            near &= lesion == 0
            if near.any():
                target[np.flatnonzero(near)[int(np.argmax(odds[near]))]] = True
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
    listed = _listed(record, set(lesion[lesion > 0].tolist()))
    for index in sorted(listed | set(verdicts)):
        if index not in verdicts or index not in listed:
            word = "has no verdict" if index in listed else "is no listed lesion with a candidate"
            raise UsageError(
                f"lesion {index} {word}",
                path=path,
                hint="every listed lesion of a scan that was looked at needs a verdict",
            )
        if verdicts[index] == "accepted":
            own = np.flatnonzero(lesion == index)
            target[own[int(np.argmax(odds[own]))]] = True
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


#: What the fit is pulled back with: (slope, offset, each weight of a scaled column).
PENALTY = (20.0, 0.5, 10.0)
#: Fewest microbleeds, other candidates and people that a fit makes sense with.
LEAST = (10, 10, 5)
#: Parts that people are shared out to; each is left out once.
FOLDS = 5


def fit_last_stage(rated: RatedCandidates, packaged: LastStage) -> LastStage:
    """Fit to all rated candidates.

    Parameters
    ----------
    rated
        Candidates and verdicts.
    packaged
        Where the fit starts, and what it is pulled towards.

    Raises
    ------
    UsageError
        If there are too few.
    """
    counts = (int(rated.target.sum()), int((~rated.target).sum()), rated.people)
    if any(count < least for count, least in zip(counts, LEAST, strict=True)):
        raise UsageError(
            f"there are {counts[0]} rated microbleeds and {counts[1]} other candidates in "
            f"{counts[2]} people; at least {LEAST[0]}, {LEAST[1]} and {LEAST[2]} are needed",
            hint="rate more scans, also ones without microbleeds",
        )
    return _fit(rated, np.ones(len(rated.target), bool), packaged)


def _fit(rated: RatedCandidates, used: NDArray[np.bool_], packaged: LastStage) -> LastStage:
    names = tuple(CANDIDATES)
    columns = np.array([rated.columns.index(name) for name in COLUMNS])
    values = rated.table[used][:, columns]
    spread = values.std(axis=0)
    # A column that is the same everywhere tells nothing here and would tell nonsense elsewhere.
    varied = np.flatnonzero(spread > 1e-3)
    shape = LastStage(
        packaged.slope,
        packaged.offset,
        tuple(COLUMNS[i] for i in varied),
        tuple(np.round(values.mean(axis=0)[varied], 5).tolist()),
        tuple(np.round(spread[varied], 5).tolist()),
        (0.0,) * len(varied),
    )
    odds, shift = rated.column("odds")[used], rated.column("shift")[used]
    design = np.column_stack([odds, np.ones(len(odds)), shape.scaled(rated.table[used], names)])
    start = np.array([packaged.slope, packaged.offset, *shape.weights])
    pull = np.concatenate([PENALTY[:2], np.full(len(varied), PENALTY[2])])
    target = rated.target[used].astype(float)

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value = design @ line + shift
        error = special.expit(value) - target
        gap = line - start
        total = (np.logaddexp(0, value) - target * value).sum() + 0.5 * (pull * gap**2).sum()
        return float(total), design.T @ error + pull * gap

    line = np.round(optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x, 6)
    return LastStage(
        float(line[0]),
        float(line[1]),
        shape.columns,
        shape.centre,
        shape.scale,
        tuple(line[2:].tolist()),
    )


def assess(
    rated: RatedCandidates, packaged: LastStage, threshold: float
) -> dict[str, dict[str, float]]:
    """Figures before and after, each person judged by a stage that was fitted without them.

    Returns
    -------
    dict
        ``before`` and ``after``, see :func:`figures`.
    """
    names = tuple(CANDIDATES)
    odds, shift = rated.column("odds"), rated.column("shift")
    before = packaged.log_odds(odds, rated.table, names) + shift
    after = before.copy()
    # Shared out by number, which ratings do not depend on.
    fold = rated.person % FOLDS
    for part in np.unique(fold):
        left_out = fold == part
        if rated.target[~left_out].any() and not rated.target[~left_out].all():
            stage = _fit(rated, ~left_out, packaged)
            own = stage.log_odds(odds[left_out], rated.table[left_out], names)
            after[left_out] = own + shift[left_out]
    return {
        "before": figures(before, rated, threshold),
        "after": figures(after, rated, threshold),
    }


def figures(
    log_odds: NDArray[np.float64], rated: RatedCandidates, threshold: float
) -> dict[str, float]:
    """What a stage does on rated candidates.

    Returns
    -------
    dict
        ``log_loss`` and ``calibration_error`` (expected, ten classes of probability) of the
        candidates; ``sensitivity`` (of microbleeds of the raters, those without a candidate
        included) and ``false_positives_a_scan`` at the threshold.
    """
    probability = special.expit(log_odds)
    target = rated.target
    listed = probability >= threshold
    losses = np.logaddexp(0, log_odds) - target * log_odds
    classes = np.minimum((probability * 10).astype(int), 9)
    error = sum(
        abs(probability[classes == k].sum() - target[classes == k].sum()) for k in range(10)
    )
    bleeds = int(target.sum()) + rated.beyond
    return {
        "log_loss": round(float(losses.mean()), 4),
        "calibration_error": round(float(error) / len(target), 4),
        "sensitivity": round(float((listed & target).sum()) / max(bleeds, 1), 4),
        "false_positives_a_scan": round(float((listed & ~target).sum()) / rated.scans, 4),
    }
