"""The participant level: from settings to results, a batch of participants at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from itertools import groupby

from cmbprep.bids.model import Unit
from cmbprep.bids.units import NothingFoundError
from cmbprep.config import Settings
from cmbprep.errors import ResourceError, UsageError
from cmbprep.outputs.dataset import dataset_origin, prepare_dataset, same_raw_dataset
from cmbprep.outputs.logs import open_log, open_terminal
from cmbprep.outputs.records import Surroundings, recorded_units
from cmbprep.outputs.stages import find_records
from cmbprep.participant.dry_run import show_lines, show_plan
from cmbprep.participant.runner import Run, choose_plugin, remove_lock_folder, write_report
from cmbprep.participant.withdrawal import affects_results, missing_units, withdraw_missing
from cmbprep.plan import Method
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.results import collect_results
from cmbprep.reports.reviewed import collect_reviewed, find_readers, require_reader
from cmbprep.reports.sessions import report_units
from cmbprep.templates import PACKAGED_ID, load_template
from cmbprep.zones.schemes import get_scheme

logger = logging.getLogger("cmbprep")


def run_participant_level(settings: Settings) -> int:
    """Process the scans that were asked for; return the exit status.

    Raises
    ------
    UsageError
        When the dataset or an argument is wrong; nothing has been written then.
    """
    if settings.reports_only:
        return _rewrite_reports(settings)
    open_terminal(verbosity=settings.verbosity)
    # A reader who is not there is refused before anything is written.
    require_reader(settings.output_dir, (), ReaderChoice.of(settings))
    method = _choose_method(settings)
    units, nothing = _find_units(settings)
    run = Run(settings, method, _surroundings(settings))
    by_subject = [list(group) for _, group in groupby(units, key=lambda unit: unit.subject)]
    choose_plugin(settings)  # a wrong file is refused before anything is written
    sound = show_plan(by_subject, run) if settings.dry_run else True
    # Results of scans that the dataset no longer has must be marked: that is something to do.
    if nothing is not None and not affects_results(units, run):
        raise nothing
    if settings.dry_run:
        return 0 if sound else 1
    prepare_dataset(
        settings.output_dir,
        raw=settings.bids_dir,
        scheme=get_scheme(settings.scheme),
        derivatives=settings.derivatives,
    )
    log = open_log(settings.output_dir / "logs", verbosity=settings.verbosity)
    logger.debug("settings:\n%s", settings.describe())
    gone = missing_units(units, run)
    run.process_all(by_subject)
    withdraw_missing(gone, run)
    remove_lock_folder(settings)
    missing = _report_missing(units, settings)
    if log is not None:
        logger.info("the log is %s", log)
    return 1 if run.failed or missing else 0


_WHAT_IS_LOOKED_FOR = (
    "scans are looked for in anat/ and swi/, with the suffixes T2starw, MEGRE, GRE, swi and SWI"
)


def _find_units(settings: Settings) -> tuple[list[Unit], UsageError | None]:
    """Find the units that were asked for, and what to say if none has a scan."""
    from cmbprep.bids.selection import read_filter_file
    from cmbprep.bids.units import find_units

    asked = _asked(settings)
    nothing: UsageError | None = None
    units: list[Unit] = []
    try:
        if asked is None or asked:
            units = find_units(
                settings.bids_dir,
                participants=asked,
                sessions=settings.sessions or None,
                filters=read_filter_file(settings.filter_file) if settings.filter_file else None,
                validate=settings.validate,
                derivatives=settings.derivatives,
            )
    except NothingFoundError as error:
        units, nothing = list(error.units), error
    if nothing is None and not any(unit.scans for unit in units):
        refused = [refusal for unit in units for refusal in unit.refused]
        hint = refused[0].hint if refused else _WHAT_IS_LOOKED_FOR
        nothing = UsageError(_nothing_found(units), path=settings.bids_dir, hint=hint)
    return units, nothing


def _asked(settings: Settings) -> list[str] | None:
    """Participants to look for: those asked for, without those that only have results left."""
    if not settings.participants:
        return None
    known = {subject for subject, _ in recorded_units(settings.output_dir)}
    return [
        label
        for label in settings.participants
        if label not in known or os.path.lexists(settings.bids_dir / f"sub-{label}")
    ]


def _surroundings(settings: Settings) -> Surroundings:
    return Surroundings(
        settings.bids_dir,
        filtered=settings.filter_file is not None,
        origin=dataset_origin(settings.output_dir, settings.bids_dir),
        same_before=same_raw_dataset(settings.output_dir, settings.bids_dir),
    )


def _choose_method(settings: Settings) -> Method:
    from cmbprep.detectors import get_detector

    detector = get_detector(settings.detector, threshold=settings.threshold)
    reference = load_template(PACKAGED_ID)
    template = (
        reference
        if settings.template == PACKAGED_ID
        else load_template(settings.template, offline=settings.offline)
    )
    if reference.atlas(settings.scheme) is None:
        raise ResourceError(
            f"the atlas of the scheme {settings.scheme} is missing", hint="install cmbprep again"
        )
    return Method(
        reference=reference,
        template=template,
        scheme=settings.scheme,
        detector=settings.detector,
        detector_parameters={
            "name": detector.name,
            "version": detector.version,
            **detector.parameters,
        },
        threshold=settings.threshold,
        border_mm=settings.white_matter_border,
    )


def _nothing_found(units: Sequence[Unit]) -> str:
    refused = [refusal for unit in units for refusal in unit.refused]
    if not refused:
        return "there is no blood-sensitive scan in this dataset"
    reasons = "; ".join(f"{refusal.path.name}: {refusal.reason}" for refusal in refused[:5])
    return f"there is no blood-sensitive scan that can be used ({reasons})"


def _report_missing(units: Sequence[Unit], settings: Settings) -> int:
    """Report participants without a usable scan; return how many were asked for or unread."""
    with_scan = {unit.subject for unit in units if unit.scans}
    without = sorted({unit.subject for unit in units} - with_scan)
    for subject in without:
        reasons = "; ".join(
            f"{refusal.reason}: {refusal.hint}"
            for unit in units
            if unit.subject == subject
            for refusal in unit.refused
        )
        logger.warning(
            "sub-%s has no blood-sensitive scan that can be used%s",
            subject,
            f" ({reasons})" if reasons else "",
        )
    unread = {unit.subject for unit in units if unit.unread}
    return len(set(without) & (set(settings.participants) | unread))


def _rewrite_reports(settings: Settings) -> int:
    """Write the reports of what is in the output dataset."""
    root = settings.output_dir
    subjects = sorted(
        {record.files.names.subject for record in find_records(root, "lesions")}
        | {subject for subject, _ in recorded_units(root)}
    )
    unknown = sorted(set(settings.participants) - set(subjects))
    if unknown or not subjects:
        raise UsageError(
            f"there are no results of sub-{unknown[0]}"
            if unknown
            else "there are no results to report on",
            path=root,
            hint="run the participant level first, without --reports-only",
        )
    chosen = [s for s in subjects if not settings.participants or s in settings.participants]
    _require_reader(chosen, settings)
    if settings.dry_run:
        units = [unit for subject in chosen for unit in _report_units(subject, settings)]
        show_lines([f"write {unit}.html" for unit in units], settings)
        return 0
    open_log(root / "logs", verbosity=settings.verbosity)
    written = [write_report(subject, settings) for subject in chosen]
    remove_lock_folder(settings)
    return 0 if all(written) else 1


def _report_units(subject: str, settings: Settings) -> list[str]:
    """Return what each page of a participant is for: ``sub-X`` or ``sub-X_ses-Y``."""
    found = collect_results(settings.output_dir, subject=subject)
    return list(report_units(found[0], settings.report_per)) if found else [f"sub-{subject}"]


def _require_reader(subjects: Sequence[str], settings: Settings) -> None:
    """Require that it is chosen whose reviews count in the reports, before one is written."""
    root, choice = settings.output_dir, ReaderChoice.of(settings)
    read = [subject for subject in subjects if find_readers(root, subject=subject)]
    found = [
        person for subject in read for person in collect_reviewed(root, choice, subject=subject)
    ]
    require_reader(root, found, choice)
