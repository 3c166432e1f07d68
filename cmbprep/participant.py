"""The participant level: from settings to results, a batch of participants at a time."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from .dataset import prepare_dataset
from .errors import ResourceError, UsageError
from .journal import clear_error, open_log, write_error, write_inputs
from .outputs import find_records, read_json, remove_leftovers
from .plan import Method, ScanPlan, SubjectPlan, plan_subject
from .scans import Unit
from .settings import Settings
from .templates import PACKAGED_ID, load_template
from .zones import get_scheme

if TYPE_CHECKING:
    from .engine import Crash

__all__ = ["run_participant_level"]

logger = logging.getLogger("cmbprep")

#: Participants whose workflows are built and run together. It bounds the size of the
#: graph, and with it nipype's time for each poll, on datasets of any size.
BATCH = 32


def run_participant_level(settings: Settings) -> int:
    """Process the scans that were asked for; give the exit status.

    Raises
    ------
    UsageError
        When the dataset or an argument is wrong; nothing has been written then.
    """
    if settings.reports_only:
        return _rewrite_reports(settings)
    method = _choose_method(settings)
    units = _find_units(settings)
    by_subject = [list(group) for _, group in groupby(units, key=lambda unit: unit.subject)]
    if settings.dry_run:
        return _show_plan(by_subject, settings, method)
    if not any(unit.scans for unit in units):
        raise UsageError(_nothing_found(units), path=settings.bids_dir, hint=_WHAT_IS_LOOKED_FOR)
    prepare_dataset(
        settings.output_dir,
        raw=settings.bids_dir,
        scheme=get_scheme(settings.scheme),
        derivatives=settings.derivatives,
    )
    log = open_log(settings.output_dir / "logs", verbosity=settings.verbosity)
    logger.debug("settings:\n%s", settings.describe())
    failed = 0
    for batch in _batches(by_subject, BATCH):
        plans = [plan_subject(units, root=settings.output_dir, method=method) for units in batch]
        failed += _run_batch(plans, settings, method)
    missing = _report_missing(units, settings)
    logger.info("the log is %s", log)
    return 1 if failed or missing else 0


_WHAT_IS_LOOKED_FOR = (
    "scans are looked for in anat/ (T2starw, MEGRE, swi) and swi/; give a --bids-filter-file "
    "if yours have other entities, and see the page on input in the documentation"
)


def _find_units(settings: Settings) -> list[Unit]:
    from .inputs import find_units
    from .selection import read_filter_file

    return find_units(
        settings.bids_dir,
        participants=settings.participants or None,
        sessions=settings.sessions or None,
        filters=read_filter_file(settings.filter_file) if settings.filter_file else None,
        validate=settings.validate,
        derivatives=settings.derivatives,
    )


def _choose_method(settings: Settings) -> Method:
    from .detectors import get_detector

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


def _show_plan(by_subject: Iterable[Sequence[Unit]], settings: Settings, method: Method) -> int:
    for units in by_subject:
        for line in plan_subject(units, root=settings.output_dir, method=method).describe():
            sys.stdout.write(line + "\n")
        for unit in units:
            for refusal in unit.refused:
                sys.stdout.write(f"skip {refusal.path.name} ({refusal.reason})\n")
            if not unit.scans:
                sys.stdout.write(f"skip {unit.label} (no blood-sensitive scan)\n")
    return 0


def _batches(items: Iterable[list[Unit]], size: int) -> Iterator[list[list[Unit]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _run_batch(plans: Sequence[SubjectPlan], settings: Settings, method: Method) -> int:
    """Process a batch of participants; give the number of scans that failed."""
    for plan in plans:
        for line in plan.describe():
            logger.debug(line)
        for unit in plan.units:
            write_inputs(settings.output_dir, unit)
            remove_leftovers(settings.output_dir / f"sub-{unit.subject}", unit.label)
    todo = [plan for plan in plans if plan.todo]
    crashes = _compute(todo, settings, method) if todo else {}
    failed = 0
    for plan in plans:
        lost = _note_failures(plan, crashes, settings)
        failed += len(lost)
        _write_report(plan.subject, settings.output_dir)
        done, total = len(plan.scans) - len(lost), len(plan.scans)
        if total:
            again = "" if plan.todo else ", all there already"
            logger.info("sub-%s: %d of %d scans complete%s", plan.subject, done, total, again)
    return failed


def _compute(plans: Sequence[SubjectPlan], settings: Settings, method: Method) -> dict[str, Crash]:
    """Build and run the workflows; give scan name -> its first crash."""
    # The heavy libraries are loaded here, when there is something to compute.
    from . import engine
    from .progress import Progress
    from .workflows.base import crashed_scans, init_cmbprep_wf

    plugin = engine.read_plugin(
        settings.plugin_file, nprocs=settings.nprocs, mem_gb=settings.mem_gb
    )
    crash_dir = engine.configure(
        work=settings.work,
        log_dir=settings.output_dir / "logs",
        stop_on_first_crash=settings.stop_on_first_crash,
        verbosity=settings.verbosity,
    )
    workflow = init_cmbprep_wf(plans, settings=settings, method=method)
    progress = Progress(workflow)
    crashes = engine.run(workflow, plugin, crash_dir=crash_dir, on_step=progress.step)
    lost = crashed_scans(plans, crashes)
    if not settings.keep_work:
        _clear_work(plans, lost, Path(workflow.base_dir) / workflow.name, crash_dir)
    return lost


def _clear_work(
    plans: Sequence[SubjectPlan], lost: dict[str, Crash], folder: Path, crash_dir: Path
) -> None:
    """Remove the intermediate files of participants that are complete.

    Those of the others stay, so that a run after a repair starts where this one failed.
    """
    from .workflows.base import subject_wf_name

    for plan in plans:
        if not any(scan.scan.name in lost for scan in plan.scans):
            shutil.rmtree(folder / subject_wf_name(plan), ignore_errors=True)
    if not lost:
        shutil.rmtree(folder / "bridge_wf", ignore_errors=True)
    # The records of the crashes are in logs/ by now.
    shutil.rmtree(crash_dir, ignore_errors=True)
    # Killed runs leave empty folders for crashes behind.
    for empty in (*folder.parent.glob("crashes-*"), folder, folder.parent):
        with suppress(OSError):  # another job is at work in it, or something was lost
            empty.rmdir()


def _note_failures(
    plan: SubjectPlan, crashes: dict[str, Crash], settings: Settings
) -> list[ScanPlan]:
    """Write an error record for each scan without complete results; clear the others'."""
    root = settings.output_dir
    # Records and reports name files within the datasets, wherever those are mounted.
    prefixes = {f"{settings.bids_dir}/": ""}
    prefixes |= {f"{folder.path}/": f"{folder.name}:" for folder in settings.derivatives}
    lost = []
    for scan in plan.scans:
        files, reason = scan.lesions.files.existing(scan.lesions.fingerprint)
        if files is not None:
            clear_error(root, scan.scan)
            continue
        lost.append(scan)
        crash = crashes.get(scan.scan.name)
        message = crash.message if crash else f"results are not complete: {reason}"
        logger.error("%s failed: %s", scan.scan.name, message)
        write_error(
            root,
            scan.scan,
            step=crash.node.rpartition(".")[2] if crash else "unknown",
            message=_shorten(message, prefixes),
            traceback=_shorten(crash.traceback, prefixes) if crash else "",
        )
    return lost


def _shorten(text: str, prefixes: Mapping[str, str]) -> str:
    for prefix, short in prefixes.items():
        text = text.replace(prefix, short)
    return text


def _write_report(subject: str, root: Path) -> None:
    from .reports.individual import write_subject_report

    path = write_subject_report(root, subject)
    logger.info("sub-%s: the report is %s", subject, path)


def _report_missing(units: Sequence[Unit], settings: Settings) -> int:
    """Say which participants have no usable scan; give how many of them were asked for."""
    with_scan = {unit.subject for unit in units if unit.scans}
    without = sorted({unit.subject for unit in units} - with_scan)
    for subject in without:
        reasons = "; ".join(
            refusal.reason for unit in units if unit.subject == subject for refusal in unit.refused
        )
        logger.warning(
            "sub-%s has no blood-sensitive scan that can be used%s",
            subject,
            f" ({reasons})" if reasons else "",
        )
    return len(set(without) & set(settings.participants))


def _rewrite_reports(settings: Settings) -> int:
    """Write the reports of what is in the output dataset."""
    root = settings.output_dir
    subjects = sorted(
        {record.files.names.subject for record in find_records(root, "lesions")}
        | {
            str(read_json(path)["unit"]).removeprefix("sub-").partition("_")[0]
            for path in (root / "logs").glob("sub-*_inputs.json")
        }
    )
    chosen = [s for s in subjects if not settings.participants or s in settings.participants]
    if not chosen:
        raise UsageError(
            "there are no results to report on",
            path=root,
            hint="run the participant level first, without --reports-only",
        )
    open_log(root / "logs", verbosity=settings.verbosity)
    for subject in chosen:
        _write_report(subject, root)
    return 0
