"""``--dry-run``: what a run would do, with the same verdicts, and nothing written."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from cmbprep.bids.model import Unit
from cmbprep.bids.preflight import preflight
from cmbprep.config import Settings
from cmbprep.errors import CmbprepError
from cmbprep.outputs.records import write_inputs
from cmbprep.participant.runner import Run, explain_error, input_warnings, name_in_dataset, shorten
from cmbprep.participant.withdrawal import missing_units
from cmbprep.plan import ScanPlan, plan_subject

logger = logging.getLogger("cmbprep")


def show_plan(by_subject: Iterable[Sequence[Unit]], run: Run) -> bool:
    """Print what would be computed, reused, refused and withdrawn, participant by participant.

    Returns
    -------
    bool
        Whether every scan can be processed.
    """
    sound = True
    settings = run.settings
    shown: list[Unit] = []
    for units in by_subject:
        shown += units
        try:
            lines = list(_plan_lines(units, run))
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the others are shown
            lines = [f"fail sub-{units[0].subject} ({explain_error(error, settings)})"]
        sound = sound and not any(line.startswith("fail ") for line in lines)
        show_lines(lines, settings)
    for unit in missing_units(shown, run):
        with suppress(CmbprepError):
            show_lines(_withdrawn_lines(unit, [], run), settings)
    return sound


def show_lines(lines: Iterable[str], settings: Settings) -> None:
    """Print lines, with files named by their place in the dataset."""
    for line in lines:
        # Names in other encodings are shown escaped.
        text = shorten(line, settings).encode("utf-8", "backslashreplace").decode()
        sys.stdout.write(f"{text}\n")


def _withdrawn_lines(unit: Unit, scans: Sequence[ScanPlan], run: Run) -> Iterator[str]:
    recorded = write_inputs(run.settings.output_dir, unit, scans, run.surroundings, dry_run=True)
    for news in recorded.news:
        yield f"withdraw {news}"


def _plan_lines(units: Sequence[Unit], run: Run) -> Iterator[str]:
    settings = run.settings
    checked = preflight(units, thorough=True)
    plan = plan_subject(
        checked.units, root=settings.output_dir, method=run.method, problems=checked.problems
    )
    for unit in checked.units:
        for scan in unit.scans:
            files = ", ".join(name_in_dataset(path, settings) for path in scan.files)
            yield f"scan {scan.name}: {files}"
            for warning in input_warnings(scan, checked):
                yield f"  warning: {warning}"
    yield from plan.describe()
    for unit in checked.units:
        for refusal in unit.refused:
            name = name_in_dataset(refusal.path, settings)
            yield f"skip {name} ({refusal.reason}; {refusal.hint})"
        if not unit.scans and not unit.refused:
            yield f"skip {unit.label} (no blood-sensitive scan)"
        yield from _withdrawn_lines(unit, plan.scans_of(unit), run)
