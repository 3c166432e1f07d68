"""From an output dataset to the files of the group level."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing
from cmbprep.group.agreement import read
from cmbprep.group.agreement_tables import AGREEMENT, Agreement
from cmbprep.group.cohort import Cohort
from cmbprep.group.comparable import changed_tables, mixed_settings, require_comparable
from cmbprep.group.covariates import Covariates, missing_participants, read_covariates
from cmbprep.group.deidentified import (
    IDENTIFIES,
    Disguise,
    deidentified_rows,
    deidentify,
    describe_privacy,
)
from cmbprep.group.followup_cohort import follow_cohort
from cmbprep.group.followup_page import followup_section
from cmbprep.group.followup_table import (
    ComparedVisits,
    changed_followups,
    followup_table,
    participant_columns,
)
from cmbprep.group.frequency import FrequencyMap, write_frequency_maps
from cmbprep.group.models import CohortModel, ModelOptions, ModelRequest
from cmbprep.group.models.tables import baseline_rows, checks_table, fit_cohort, models_table
from cmbprep.group.notes import Note
from cmbprep.group.people import participant_table
from cmbprep.group.prevalence import stands_for_person
from cmbprep.group.rows import Row, make_rows
from cmbprep.group.tables import Table, lesion_table, quality_table, scan_table
from cmbprep.group.timeline import missing_rows, session_of
from cmbprep.group.visits import Visits, find_visits, read_in_vain
from cmbprep.outputs.files import write_json, write_text
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.ratings.store import LOG_ENDING
from cmbprep.reports.results import ScanResult, SubjectResult
from cmbprep.reports.reviewed import collect_reviewed, require_reader
from cmbprep.zones.burden import DEFAULT_RULE

#: The table of participants again, at the place that BIDS has for measures of participants.
PHENOTYPE = "phenotype/cmb"
_MEASURED = "Cerebral microbleeds found by cmbprep, and reviewed where the column source says so."

#: What --deidentified has left out, and what remains.
PRIVACY = "group_deidentified.txt"
#: Tables of the models, where there are any.
MODEL_TABLES = ("group_models", "group_model_checks")


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What a group level has made.

    Parameters
    ----------
    tables
        Name of a table, such as ``group_cmb`` -> its file.
    page
        The page.
    maps
        Frequency maps, one a template; empty where none could be made.
    statuses
        Number of rows of the table of scans by status; 0 for one that no row has.
    n_reviewed
        Scans with the lesions of readers.
    notes
        What could not be done and why, in sentences.
    """

    tables: Mapping[str, Path]
    page: Path
    maps: tuple[Path, ...]
    statuses: Mapping[str, int]
    n_reviewed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def scans(self) -> Path:
        """The table of scans."""
        return self.tables["group_cmb"]

    @property
    def lesions(self) -> Path:
        """The table of lesions."""
        return self.tables["group_lesions"]


class _Joined(NamedTuple):
    """What the table of participants is joined of."""

    visits: Visits
    covariates: Covariates


@contextmanager
def _without_collector() -> Iterator[None]:
    """Collect no garbage: tables have no cycles, and looking for some takes a tenth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@_without_collector()
def run_group(
    root: Path,
    *,
    participants_tsv: Path | None,
    choice: ReaderChoice | None = None,
    pattern_rule: str = DEFAULT_RULE,
    strict: bool = False,
    deidentified: bool = False,
    baseline_session: str | None = None,
    models: Sequence[ModelRequest] = (),
    model_options: ModelOptions | None = None,
    nprocs: int = 1,
) -> GroupResult:
    """Join the results of all participants, with the lesions of readers where scans were read.

    Parameters
    ----------
    root
        The output dataset; nothing else is read, but for
    participants_tsv
        the table of participants of the raw dataset, and the tables of sessions and scans in the
        folders beside it; None if there are none.
    choice
        Whose reviews count; by default those of the only reader.
    pattern_rule
        What cerebellar microbleeds count as in the pattern, one of :data:`.PATTERN_RULES`.
    strict
        Whether to refuse results that were made with different settings, tables that are damaged
        or were changed, and doubts about the table of participants.
    deidentified
        Whether to leave dates, free text and names of readers out of the group outputs, and to
        list what was left out and what remains in ``group_deidentified.txt``.
    baseline_session
        Label of the session that is everybody's baseline; None for the earliest one.
    models, model_options
        Models to fit to the participants, and how.
    nprocs
        Participants at a time whose follow-up is computed, where it is missing.

    Returns
    -------
    GroupResult
        Paths, numbers, and what could not be done. The same results give the same bytes.

    Raises
    ------
    UsageError
        If the output dataset holds no results, it must be chosen whose reviews count, no scan is
        of the baseline session, a model cannot be fitted to these participants, or there is
        something that ``strict`` refuses. Nothing was written then, but for follow-ups that were
        missing where a model cannot be fitted.
    """
    root = Path(root)
    choice = choice or ReaderChoice()
    subjects, rows = _collect_rows(root, choice, pattern_rule)
    tables, joined, doubts, notes = _make_tables(rows, participants_tsv, baseline_session)
    if strict:
        require_comparable(doubts)
    pairs, lost = follow_cohort(root, subjects, rows, joined.visits, choice, nprocs=nprocs)
    edits = changed_followups(pairs)
    if strict:
        require_comparable(edits)
    tables |= _followup_tables(rows, tables["group_cmb"], joined, pairs)
    fitted = _fit(rows, tables["group_participants"], models, model_options, deidentified)
    maps, map_notes = _frequency_maps(root, rows, tables["group_cmb"])
    notes = (*doubts, *edits, *_review_notes(rows), *notes, *lost, *map_notes)
    found = _Results(rows=rows, tables=tables, maps=maps, notes=notes, shown=notes)
    disguise = Disguise(rows) if deidentified else None
    (root / PRIVACY).unlink(missing_ok=True)
    if disguise is not None:
        found = _deidentify(root, found, disguise)
    return _write(root, found, fitted, choice, disguise)


@dataclass(frozen=True, kw_only=True)
class _Results:
    """What the group level writes.

    Parameters
    ----------
    rows
        The scans.
    tables
        Name -> table.
    maps
        Frequency maps.
    notes, shown
        What could not be done and why, as the terminal and as the page tell it.
    """

    rows: Sequence[Row]
    tables: Mapping[str, Table]
    maps: Sequence[FrequencyMap]
    notes: tuple[str, ...]
    shown: tuple[str, ...]


def _write(
    root: Path,
    found: _Results,
    fitted: Sequence[CohortModel],
    choice: ReaderChoice,
    disguise: Disguise | None,
) -> GroupResult:
    """Write tables and page; the tables first: nothing that happens to the page may cost them."""
    tables = {**found.tables, **_model_tables(fitted)}
    named = {**tables, PHENOTYPE: tables["group_participants"]}
    written = {name: _write_table(root, name, table) for name, table in named.items()}
    agreement = _agreement(root, found.rows, choice, disguise)
    if agreement is not None:
        written[AGREEMENT] = agreement.write(root)
    dropped = _drop_old(root, written)
    cohort = Cohort(
        root=root,
        rows=found.rows,
        tables={name.removeprefix("group_"): table for name, table in tables.items()},
        maps=found.maps,
        notes=found.shown,
        models=_model_sections(fitted),
        followup=followup_section(tables.get("group_followup"), tables["group_participants"]),
        agreement=agreement,
        private=disguise is not None,
    )
    return GroupResult(
        tables=written,
        page=write_text(root / "group.html", _render_page(cohort)),
        maps=tuple(path for item in found.maps for path in item.files),
        statuses=Counter(row.status for row in found.rows),
        n_reviewed=sum(row.scan.reviewed for row in found.rows if row.scan is not None),
        notes=(*found.notes, *dropped, *_model_notes(fitted)),
    )


def _collect_rows(
    root: Path, choice: ReaderChoice, pattern_rule: str
) -> tuple[Sequence[SubjectResult], list[Row]]:
    """Read the results, with the lesions of the readers who were chosen."""
    subjects = collect_reviewed(root, choice)
    rows = make_rows(subjects, pattern_rule=pattern_rule)
    if not rows:
        raise UsageError(
            "there are no results to join",
            path=root,
            hint="run the participant level first, with the same output folder",
        )
    require_reader(root, subjects, choice)
    return subjects, rows


def _make_tables(
    rows: Sequence[Row], participants_tsv: Path | None, baseline_session: str | None
) -> tuple[dict[str, Table], _Joined, tuple[str, ...], tuple[str, ...]]:
    """Make the tables, without follow-up.

    Also return what they are joined of, doubts that ``strict`` refuses, and other notes.
    """
    raw = None if participants_tsv is None else participants_tsv.parent
    units = [(row.subject, session_of(row)) for row in rows if row.counts_as_scan]
    covariates, doubts = read_covariates(raw, units)
    visits, visit_notes = find_visits(rows, covariates, baseline_session)
    scans = scan_table(rows, visits.scans)
    people, notes = participant_table(rows, scans, visits, covariates)
    tables = {
        "group_cmb": scans,
        "group_quality": quality_table(rows),
        "group_lesions": lesion_table(rows, scans),
        "group_participants": people,
    }
    # Participants withdrawn from the dataset need no row in its table of participants.
    labels = {row.subject for row in rows if row.status != "withdrawn"}
    missing = (
        *missing_participants(covariates.participants, labels),
        *missing_rows(rows, covariates),
    )
    doubts += (*mixed_settings(rows, scans), *changed_tables(rows))
    unread = read_in_vain(rows, visits.scans)
    return tables, _Joined(visits, covariates), doubts, (*missing, *visit_notes, *unread, *notes)


def _followup_tables(
    rows: Sequence[Row], scans: Table, joined: _Joined, pairs: Sequence[ComparedVisits]
) -> dict[str, Table]:
    """Return the table of follow-ups, and that of participants with it; empty without pairs."""
    if not pairs:
        return {}
    people, _ = participant_table(rows, scans, *joined, participant_columns(pairs))
    return {"group_participants": people, "group_followup": followup_table(pairs)}


def _frequency_maps(
    root: Path, rows: Sequence[Row], scans: Table
) -> tuple[list[FrequencyMap], Sequence[str]]:
    """Write the frequency maps of the scans that stand for a participant."""
    pairs = zip(rows, scans.values, strict=True)
    return write_frequency_maps(root, [row for row, own in pairs if stands_for_person(own)])


def _render_page(cohort: Cohort) -> str:
    # The page brings libraries of plots, which take a second.
    from cmbprep.group.page import render_group_page

    return render_group_page(cohort)


def _model_sections(fitted: Sequence[CohortModel]) -> Sequence[Any]:
    from cmbprep.group.models.page import model_sections

    return model_sections(fitted)


def _agreement(
    root: Path, rows: Sequence[Row], choice: ReaderChoice, disguise: Disguise | None
) -> Agreement | None:
    """Compute the agreement of the readers, as ``cmbprep-tools agreement`` does by default.

    All reviews count, whosever lesions the tables have. None where no scan was read to the end.
    With a disguise, readers are numbers.
    """
    # All results are read again: only where somebody has begun to read.
    if not _has_reviews([row.scan for row in rows if row.scan is not None], choice):
        return None
    found = read(root, pattern_rule=rows[0].pattern_rule)
    if disguise is not None:
        disguise.add_readers(review.reader.short for scan in found.scans for review in scan.reviews)
        found = found.renamed(disguise.readers)
    return Agreement.compute(found) if found.read else None


def _has_reviews(scans: Iterable[ScanResult], choice: ReaderChoice) -> bool:
    """Return whether a scan has a review of anybody."""
    if not choice.automatic and choice.reader is None:
        return any(scan.reading is not None for scan in scans)
    # Reviews of others were not looked for.
    done = [scan.detection for scan in scans if scan.detection is not None]
    folders = {record.files.sidecar.parent for record in done}
    return any(next(folder.glob(f"*{LOG_ENDING}"), None) for folder in folders)


def _fit(
    rows: Sequence[Row],
    people: Table,
    requests: Sequence[ModelRequest],
    options: ModelOptions | None,
    deidentified: bool,
) -> tuple[CohortModel, ...]:
    """Fit the models; those of a deidentified cohort see only the columns that are kept."""
    if not requests:
        return ()
    baseline = baseline_rows(people, rows)  # by the names that the scans have
    if deidentified:
        people, _ = deidentify("group_participants", people, Disguise(rows), keep_ages=True)
    return fit_cohort(people, baseline, requests, options or ModelOptions())


def _model_tables(fitted: Sequence[CohortModel]) -> dict[str, Table]:
    if not fitted:
        return {}
    return dict(zip(MODEL_TABLES, (models_table(fitted), checks_table(fitted)), strict=True))


def _drop_old(root: Path, written: Container[str]) -> tuple[str, ...]:
    """Remove optional tables of an earlier run, which are not of these results; say so."""
    gone = [name for name in (*MODEL_TABLES, "group_followup", AGREEMENT) if name not in written]
    old = [root / f"{name}{ending}" for name in gone for ending in (".tsv", ".json")]
    found = [path for path in old if path.exists()]
    for path in found:
        path.unlink()
    if not found:
        return ()
    names = listing(path.name for path in found)
    return (f"{names} of an earlier run are removed: this run makes none",)


def _model_notes(fitted: Sequence[CohortModel]) -> tuple[str, ...]:
    return tuple(f"model {x.request.text}: {warning}" for x in fitted for warning in x.warnings)


def _deidentify(root: Path, found: _Results, disguise: Disguise) -> _Results:
    """Leave what could identify a person out of what is written; write what that was."""
    judged = {name: deidentify(name, table, disguise) for name, table in found.tables.items()}
    kept = {name: table for name, (table, _) in judged.items()}
    left_out = [item for _, own in judged.values() for item in own]
    listed = write_text(root / PRIVACY, describe_privacy(root, kept, left_out, disguise))
    what = "what was left out, and what in other files can still identify a person"
    return _Results(
        rows=deidentified_rows(found.rows, disguise),
        tables=kept,
        maps=[item.renamed(disguise.of) for item in found.maps],
        notes=(*found.notes, f"--deidentified: {what}, is listed in {listed}"),
        shown=tuple(map(disguise.public, found.notes)),
    )


def _write_table(root: Path, name: str, table: Table) -> Path:
    """Write a table and its data dictionary."""
    written: dict[str, Mapping[str, Any]] = {
        column: {key: value for key, value in entry.items() if key != IDENTIFIES}
        for column, entry in table.dictionary.items()
    }
    if name == PHENOTYPE:
        written = {"MeasurementToolMetadata": {"Description": _MEASURED}, **written}
    write_json(root / f"{name}.json", written)
    return write_text(root / f"{name}.tsv", table.to_tsv())


def _review_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a sentence on the reviews that are not used; none without such reviews."""
    found = [
        f"{scan.name} ({'; '.join(scan.reading.warnings)})"
        for scan in (row.scan for row in rows if row.scan is not None)
        if scan.reading is not None and scan.reading.warnings
    ]
    if not found:
        return ()
    what = "1 scan has a review" if len(found) == 1 else f"{len(found)} scans have reviews"
    told = f"{what} that could not be used"
    return (Note(f"{told}: {listing(found)}", told),)
