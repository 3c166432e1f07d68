"""Follow-up of participants with several visits: computed where missing, and read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cmbprep.files.tsv import listing
from cmbprep.followup.pair import ScanPair, pair_visits, read_pair
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.followup import followed_scans
from cmbprep.reports.results import SubjectResult
from cmbprep.reports.reviewed import collect_reviewed
from cmbprep.running.faults import explain
from cmbprep.running.locks import wait_for_lock

logger = logging.getLogger("cmbprep")


@dataclass(frozen=True, kw_only=True)
class VisitOrder:
    """The order of a participant's visits.

    Attributes
    ----------
    sessions
        Labels of the sessions from the earliest on; None where that is not known.
    baseline
        Label of the baseline session; the earliest one if None.
    """

    sessions: tuple[str, ...] | None = None
    baseline: str | None = None

    def comparisons(self, pairs: Sequence[ScanPair]) -> list[str]:
        """Return which visits each pair compares, a level of the column ``comparison``.

        Sessions without a result are passed over: the last visit is the last one that has one.
        """
        if self.sessions is None:
            return ["order_unknown"] * len(pairs)
        compared = {scan.session for pair in pairs for scan in (pair.first, pair.second)}
        order = [session for session in self.sessions if session in compared]
        levels = []
        for pair in pairs:
            start, end = (order.index(scan.session) for scan in (pair.first, pair.second))
            ends = pair.first.session == (self.baseline or order[0]) and end == len(order) - 1
            neighbours = "both" if end - start == 1 else "baseline_to_last"
            levels.append(neighbours if ends else "next")
        return levels


UNKNOWN = VisitOrder()


def order_of(sessions: Sequence[str], baseline: str | None, *, known: bool) -> VisitOrder:
    """Return the order of a participant's visits.

    Parameters
    ----------
    sessions
        Labels of the sessions, in their order where that is known.
    baseline
        Label of the baseline session; None where there is none.
    known
        Whether the order is known. Of two visits it is if one is the baseline.
    """
    if known:
        return VisitOrder(sessions=tuple(sessions), baseline=baseline)
    if baseline in sessions and len(sessions) == 2:
        later = next(one for one in sessions if one != baseline)
        return VisitOrder(sessions=(str(baseline), later), baseline=baseline)
    return UNKNOWN


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A participant to follow, in a process of its own."""

    root: Path
    subject: str
    order: VisitOrder
    choice: ReaderChoice
    locks: Path | None


def has_visits(root: Path, subject: str) -> bool:
    """Return whether the output dataset has results of several sessions of a participant."""
    return len(list((root / f"sub-{subject}").glob("ses-*/anat"))) > 1


def plan_pairs(root: Path, subject: SubjectResult, order: VisitOrder) -> list[ScanPair]:
    """Choose the pairs of visits of a participant that are compared (:func:`.pair_visits`)."""
    return pair_visits(root, followed_scans(subject), order.sessions, order.baseline)


def compute_followups(
    root: Path,
    orders: Mapping[str, VisitOrder],
    choice: ReaderChoice,
    *,
    nprocs: int = 1,
    locks: Path | None = None,
    before_reports: bool = False,
) -> dict[str, str]:
    """Compute the follow-ups of participants that are missing or out of date.

    Parameters
    ----------
    root
        The output dataset.
    orders
        Participants, and the order of the sessions of each.
    choice
        Whose reviews count.
    nprocs
        Participants at a time.
    locks
        Folder of locks, where other runs may work on the same participants.
    before_reports
        Whether the reports of the participants are written next; else those that are there are
        named, because they show an older follow-up.

    Returns
    -------
    dict
        Participant -> why the follow-up could not be computed. One participant stops no other.
    """
    jobs = [
        _Job(root=root, subject=subject, order=order, choice=choice, locks=locks)
        for subject, order in sorted(orders.items())
        if has_visits(root, subject)
    ]
    todo = [job for job in jobs if any(read_pair(pair) is None for pair in _pairs(job))]
    lost = {job.subject: why for job, why in _in_turn(todo, nprocs) if why is not None}
    if not before_reports:
        _name_old_reports(root, [job.subject for job in todo if job.subject not in lost])
    return lost


def _name_old_reports(root: Path, subjects: Sequence[str]) -> None:
    """Warn of reports that show an older follow-up than the tables."""
    old = [f"sub-{one}" for one in subjects if any(_reports(root, one))]
    if old:
        logger.warning(
            "the follow-up of %s was computed again, and %s older: %s; what to do: run the "
            "participant level with --reports-only",
            _number(len(old), "participant"),
            "the report is" if len(old) == 1 else "the reports are",
            listing(old),
        )


def _reports(root: Path, subject: str) -> Iterator[Path]:
    """Yield the reports of a participant: one page, or one a session."""
    yield from root.glob(f"sub-{subject}.html")
    yield from root.glob(f"sub-{subject}_*.html")


def _in_turn(jobs: Sequence[_Job], nprocs: int) -> Iterator[tuple[_Job, str | None]]:
    """Compute in processes of their own: ANTs is loaded there, and what it breaks is theirs."""
    if not jobs:
        return
    from concurrent.futures.process import BrokenProcessPool

    from cmbprep.running.processes import process_pool

    logger.info("following %s over their visits", _number(len(jobs), "participant"))
    with process_pool(min(nprocs, len(jobs))) as pool:
        answers = [pool.submit(_follow, job) for job in jobs]
        for job, answer in zip(jobs, answers, strict=True):
            try:
                yield job, answer.result()
            except BrokenProcessPool:
                yield job, "a process was killed, most likely because the memory ran out"


def _follow(job: _Job) -> str | None:
    """Follow a participant; return why that is not possible."""
    from cmbprep.followup.step import follow_pair

    wait = partial(logger.warning, "sub-%s is being followed by %s: waiting", job.subject)
    label = f"followup-sub-{job.subject}"
    try:
        with nullcontext() if job.locks is None else wait_for_lock(job.locks, [label], wait):
            for pair in _pairs(job):
                follow_pair(pair)
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
        # Tables and pages are the same wherever the output folder lies.
        return explain(error, (job.root,)).replace(f"{job.root}/", "")
    return None


def _pairs(job: _Job) -> list[ScanPair]:
    found = collect_reviewed(job.root, job.choice, subject=job.subject)
    return plan_pairs(job.root, found[0], job.order) if found else []


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
