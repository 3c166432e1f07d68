"""Follow-up of a cohort: orders of visits, the pairs, and what the group page shows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.files.tsv import listing
from cmbprep.group.covariates import read_covariates
from cmbprep.group.followup import VisitOrder, compute_followups, has_visits, order_of
from cmbprep.group.followup_table import ComparedVisits, compare_visits, poisson_interval
from cmbprep.group.rows import Row, make_rows
from cmbprep.group.tables import Table
from cmbprep.group.timeline import session_of
from cmbprep.group.visits import Visits, find_visits
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.results import SubjectResult, collect_results

#: What the page shows of each pair.
SHOWN = (
    "participant_id",
    "comparison",
    "session_first",
    "session_second",
    "status",
    "years_between",
    "n_new_any",
    "n_persistent_any",
    "n_gone_any",
    "n_not_assessable_any",
    "aria_h_new_any",
    "protocol_changed",
    "limits",
)


@dataclass(frozen=True)
class FollowUpSection:
    """What the group page shows of follow-up: sentences, and columns and rows of a table."""

    summary: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]


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
    notes = (f"the follow-up could not be computed: {listing(named)}",) if named else ()
    return found, notes


def followup_section(
    pairs: Sequence[ComparedVisits], table: Table | None
) -> FollowUpSection | None:
    """Return what the group page shows; None without pairs of visits."""
    if not pairs or table is None:
        return None
    rows = [{name: line.get(name) for name in SHOWN} for line in table.values]
    summary = [_rate(pairs, changed=changed) for changed in (False, True)]
    open_ones = sum(not _counts(one) for one in pairs if one.comparison != "next")
    if open_ones:
        summary.append(
            f"{open_ones} of the comparisons of a baseline with a last visit are in no rate: no "
            "follow-up, a failed registration, or no dates or order of the visits."
        )
    return FollowUpSection(
        summary=tuple(text for text in summary if text), columns=SHOWN, rows=tuple(rows)
    )


def _counts(one: ComparedVisits) -> bool:
    """Return whether a pair counts in the rates: baseline and last visit, all of it known."""
    return (
        one.comparison in ("both", "baseline_to_last")
        and one.found is not None
        and one.found.count("new", definite=False) is not None
        and one.years is not None
        and one.years > 0
    )


def _rate(pairs: Sequence[ComparedVisits], *, changed: bool) -> str:
    """Return a sentence on new microbleeds per person-year, at equal or changed protocol."""
    used = [
        one
        for one in pairs
        if _counts(one) and one.found is not None and one.found.protocol_changed is changed
    ]
    if not used:
        return ""
    new = [one.found.count("new", definite=False) or 0 for one in used if one.found is not None]
    years = sum(one.years or 0.0 for one in used)
    low, high = poisson_interval(sum(new), years)
    people = f"{len(used)} participant{'' if len(used) == 1 else 's'}"
    what = "another protocol at the last visit" if changed else "the same protocol at both visits"
    caution = (
        " A new microbleed may be one that the earlier protocol did not show." if changed else ""
    )
    return (
        f"{people} with {what}: {sum(new)} new microbleeds, definite or possible, in {years:.1f} "
        f"person-years, {sum(new) / years:.2f} per person-year (exact 95 % interval of a Poisson "
        f"rate {low:.2f} to {high:.2f}; too narrow where few people have most of them). "
        f"{sum(number > 0 for number in new)} of {people} had a new one.{caution}"
    )
