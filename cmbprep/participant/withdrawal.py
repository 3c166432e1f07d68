"""Results of participants and sessions that the dataset no longer has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from cmbprep.bids.model import Unit
from cmbprep.errors import CmbprepError
from cmbprep.outputs.records import recorded_units, write_inputs
from cmbprep.participant.runner import Run, write_report

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


def withdraw_missing(missing: Sequence[Unit], run: Run) -> None:
    """Mark the results of participants and sessions that the dataset no longer has.

    Those that cannot be marked, or were asked for and are gone, count as failed.

    Parameters
    ----------
    missing
        From :func:`missing_units`.
    run
        The run.
    """
    foreign = 0
    for unit in missing:
        try:
            lock = run.lock([unit])
            if lock is None:
                run.failed += 1
                run.tell(
                    f"{unit.label} is no longer in the dataset, and another run is working on it: "
                    "its earlier results are not marked as withdrawn; run again when the other has "
                    "ended"
                )
                continue
            with lock:
                recorded = write_inputs(run.settings.output_dir, unit, [], run.surroundings)
                run.tell(*recorded.news)
                run.failed += bool(recorded.news) and unit.subject in run.settings.participants
                foreign += bool(recorded.foreign)
                write_report(unit.subject, run.settings)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
            run.fail_subject([unit], error)
    if foreign:
        run.tell(
            f"the output folder has results of {foreign} participants or sessions that are not "
            "in this dataset; they are kept, as they were made from another one"
        )
