"""``cmbprep``: from arguments to an exit status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.cli.guard import private_caches, run_guarded
from cmbprep.cli.parser import options_without_effect, parse_settings
from cmbprep.config import Settings
from cmbprep.errors import UsageError

if TYPE_CHECKING:
    from cmbprep.group import GroupResult
    from cmbprep.group.models import ModelOptions, ModelRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    Returns
    -------
    int
        0: all done; 1: some scans failed, the others are complete; 2: the arguments or
        the dataset are wrong, nothing was written. After a signal 128 and its number (130
        for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP); 141 if nobody reads the output.
    """
    folders: list[Path] = []

    def run() -> int:
        settings = parse_settings(argv)
        folders.extend((settings.output_dir, settings.work))
        with private_caches():
            if settings.level == "group":
                return _run_group_level(settings)
            from cmbprep.participant.level import run_participant_level

            for option in options_without_effect(settings):
                sys.stderr.write(f"cmbprep: {option} has no effect at the participant level\n")
            return run_participant_level(settings)

    return run_guarded("cmbprep", run, folders=lambda: folders)


def _run_group_level(settings: Settings) -> int:
    from cmbprep.bids.near_names import printable
    from cmbprep.group import run_group
    from cmbprep.outputs.logs import open_terminal
    from cmbprep.ratings.choice import ReaderChoice

    open_terminal(verbosity=settings.verbosity)
    models, options = _read_models(settings)
    for option in options_without_effect(settings):
        logging.getLogger("cmbprep").warning(
            "%s has no effect at the group level, which joins all results of OUTPUT_DIR", option
        )
    choice = ReaderChoice.of(settings)
    if settings.dry_run:
        from cmbprep.group.rows import make_rows
        from cmbprep.group.visits import require_session
        from cmbprep.reports.reviewed import collect_reviewed, require_reader

        subjects = collect_reviewed(settings.output_dir, choice)
        require_reader(settings.output_dir, subjects, choice)
        require_session(make_rows(subjects), settings.baseline_session)
        scans = sum(len(subject.scans) for subject in subjects)
        sys.stdout.write(f"write the tables and the page of the group: {scans} scans\n")
        return 0
    table = settings.bids_dir / "participants.tsv"
    result = run_group(
        settings.output_dir,
        participants_tsv=table,
        choice=choice,
        pattern_rule=settings.pattern_rule,
        strict=settings.strict,
        deidentified=settings.deidentified,
        baseline_session=settings.baseline_session,
        models=models,
        model_options=options,
        nprocs=settings.nprocs,
    )
    for note in result.notes:
        # A cell of a table may hold what ends a line, or what a terminal obeys.
        sys.stderr.write(f"cmbprep: {printable(note)}\n")
    lost = result.statuses["failed"] + result.statuses["incomplete"]
    if lost:
        logging.getLogger("cmbprep").warning(
            "warning: %s no result, so that their counts are n/a in the tables; the reasons are "
            "in the group report and in the column reason of %s",
            "1 scan has" if lost == 1 else f"{lost} scans have",
            result.scans.name,
        )
    sys.stderr.write(f"cmbprep: {_summary(result)}; the group report is {result.page}\n")
    return 0


def _read_models(settings: Settings) -> tuple[tuple[ModelRequest, ...], ModelOptions]:
    """Read the models that were asked for, before anything else is done."""
    from cmbprep.group.models import ModelOptions, parse_models

    if not settings.models and (settings.nuisance or settings.cluster or settings.strata):
        raise UsageError(
            "--nuisance, --cluster and --strata are about models, and there is none",
            hint="give a model with --model",
        )
    options = ModelOptions(
        nuisance=settings.nuisance,
        cluster=settings.cluster,
        n_draws=settings.draws,
        strata=settings.strata,
    )
    return parse_models(settings.models), options


def _summary(result: GroupResult) -> str:
    """Return the numbers of scans by status and of refused files, without those that are zero."""
    parts: list[str] = []
    for status in ("complete", "failed", "incomplete", "withdrawn"):
        if number := result.statuses[status]:
            # "2 scans complete, 1 failed": the word is written once.
            parts.append(f"{number if parts else _number(number, 'scan')} {status}")
    if refused := result.statuses["refused"]:
        parts.append(f"{_number(refused, 'file')} refused")
    if result.n_reviewed:
        parts.append(f"{_number(result.n_reviewed, 'scan')} with the lesions of readers")
    return ", ".join(parts)


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


if __name__ == "__main__":
    sys.exit(main())
