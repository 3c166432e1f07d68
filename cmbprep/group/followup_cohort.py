"""Follow-up of a cohort: orders of visits, and the pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cmbprep.files.tsv import listing
from cmbprep.group.covariates import read_covariates
from cmbprep.group.followup import VisitOrder, compute_followups, has_visits, order_of
from cmbprep.group.followup_table import ComparedVisits, compare_visits
from cmbprep.group.notes import Note
from cmbprep.group.rows import Row, make_rows
from cmbprep.group.timeline import session_of
from cmbprep.group.visits import Visits, find_visits
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.results import SubjectResult, collect_results


def visit_orders(rows: Sequence[Row], visits: Visits) -> dict[str, VisitOrder]:
    """Return the order of the visits of each participant with several."""
    pairs = zip(rows, visits.scans, strict=True)
    known = {row.subject for row, visit in pairs if visit.visit is not None}
    return {
        subject: order_of(person.sessions, person.baseline, known=subject in known)
        for subject, person in visits.persons.items()
        if len(person.sessions) > 1
    }


def dataset_orders(root: Path, raw: Path, subjects: Iterable[str]) -> dict[str, VisitOrder]:
    """Find the order of the visits of participants, as the group level does.

    Parameters
    ----------
    root, raw
        The output dataset, and the raw one with the tables of sessions and scans.
    subjects
        Labels of the participants; those with one session of results are left out.
    """
    several = [subject for subject in subjects if has_visits(root, subject)]
    rows = [row for subject in several for row in make_rows(collect_results(root, subject=subject))]
    if not rows:
        return {}
    units = [(row.subject, session_of(row)) for row in rows if row.counts_as_scan]
    # What is doubtful about the tables is said by the group level.
    covariates, _ = read_covariates(raw, units)
    visits, _ = find_visits(rows, covariates)
    return visit_orders(rows, visits)


def follow_cohort(
    root: Path,
    subjects: Sequence[SubjectResult],
    rows: Sequence[Row],
    visits: Visits,
    choice: ReaderChoice,
    *,
    nprocs: int = 1,
) -> tuple[list[ComparedVisits], tuple[str, ...]]:
    """Compute the follow-ups that are missing, and read all.

    Returns
    -------
    visits
        The pairs of visits.
    notes
        Which participants have none, and why, in sentences.
    """
    orders = visit_orders(rows, visits)
    if not orders:
        return [], ()
    lost = compute_followups(root, orders, choice, nprocs=nprocs)
    days: dict[str, float | None] = {
        row.name: visit.days_since_baseline for row, visit in zip(rows, visits.scans, strict=True)
    }
    followed = [subject for subject in subjects if subject.subject in orders]
    found = compare_visits(root, followed, orders, days, lost)
    named = [f"sub-{subject} ({why})" for subject, why in sorted(lost.items())]
    told = "the follow-up could not be computed"
    counted = f"{told} ({len(named)} participant{'' if len(named) == 1 else 's'})"
    notes = (Note(f"{told}: {listing(named)}", counted),) if named else ()
    return found, notes
