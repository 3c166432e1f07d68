"""Results of participants and sessions that the dataset no longer has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from cmbprep.bids.model import Unit
from cmbprep.errors import CmbprepError
from cmbprep.outputs.logs import recorded_units, write_inputs
from cmbprep.participant.runner import Run

__all__ = ["affects_results", "missing_units", "withdraw_missing"]

logger = logging.getLogger("cmbprep")


def missing_units(units: Sequence[Unit], run: Run) -> list[Unit]:
    """List participants and sessions with results that were to be found and were not.

    To be called before the participants are processed: another run may add results of a
    participant that the dataset did not have when this run looked.
    """
    settings = run.settings
    unread = {unit.subject for unit in units if unit.unread}
    present = {(unit.subject, unit.session) for unit in units}
    return [
        Unit(subject=subject, session=session, scans=())
        for subject, session in recorded_units(settings.output_dir)
        if (subject, session) not in present
        and subject not in unread
        and (not settings.participants or subject in settings.participants)
        and (not settings.sessions or session in settings.sessions)
    ]


def affects_results(units: Sequence[Unit], run: Run) -> bool:
    """Return whether a run without any scan has results to withdraw."""
    empty = [unit for unit in units if not unit.scans]
    for unit in (*empty, *missing_units(units, run)):
        with suppress(CmbprepError):
            if write_inputs(run.settings.output_dir, unit, [], run.surroundings, dry_run=True).news:
                return True
    return False


def withdraw_missing(missing: Sequence[Unit], run: Run) -> int:
    """Mark the results of participants and sessions that the dataset no longer has.

    Parameters
    ----------
    missing
        From :func:`missing_units`.
    run
        The run.

    Returns
    -------
    int
        How many could not be marked, or were asked for and are gone.
    """
    settings, failed, foreign = run.settings, 0, 0
    for unit in missing:
        try:
            lock = run.lock([unit])
        except OSError as error:
            run.fail_subject([unit], error)
            failed += 1
            continue
        if lock is None:
            run.tell(
                f"{unit.label} is no longer in the dataset, and another run is working on it: its "
                "earlier results are not marked as withdrawn; run again when the other has ended"
            )
            failed += 1
            continue
        with lock:
            try:
                recorded = write_inputs(settings.output_dir, unit, [], run.surroundings)
            except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
                run.fail_subject([unit], error)
                failed += 1
                continue
            for news in recorded.news:
                run.tell(news)
            foreign += bool(recorded.foreign)
            failed += bool(recorded.news) and unit.subject in settings.participants
            run.write_report(unit.subject)
    if foreign:
        run.tell(
            f"the output folder has results of {foreign} participants or sessions that are not "
            "in this dataset; they are kept, as they were made from another one"
        )
    return failed
