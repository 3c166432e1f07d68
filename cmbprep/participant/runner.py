"""Processing of participants, a batch at a time: plan, compute, note what failed, report."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.bids.model import Scan, Unit
from cmbprep.bids.preflight import Preflight, next_anatomy, preflight
from cmbprep.config import Settings
from cmbprep.errors import CmbprepError
from cmbprep.outputs.logs import Surroundings, clear_error, write_error, write_inputs
from cmbprep.outputs.stages import read_record, remove_leftovers
from cmbprep.plan import Method, ScanPlan, SubjectPlan, plan_subject
from cmbprep.running.faults import explain
from cmbprep.running.locks import Lock, try_lock, wait_for_lock

if TYPE_CHECKING:
    from cmbprep.engine import Crash

__all__ = ["Run", "explain_error", "input_warnings", "name_in_dataset", "shorten", "write_report"]

logger = logging.getLogger("cmbprep")

#: Participants whose workflows are built and run together. It bounds the size of the
#: graph, and with it nipype's time for each poll, on datasets of any size.
BATCH = 32


def name_in_dataset(path: Path, settings: Settings) -> str:
    """Return the path of a raw file from the top of the dataset on."""
    root = settings.bids_dir
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def input_warnings(scan: Scan, checked: Preflight) -> tuple[str, ...]:
    """Return all warnings on the names, sidecars and images of a scan, each once."""
    return tuple(dict.fromkeys((*scan.warnings, *checked.warnings.get(scan.name, ()))))


def explain_error(error: Exception, settings: Settings) -> str:
    """Return one line that says what went wrong and what to do."""
    return explain(error, (settings.output_dir, settings.work))


def _batches(items: Iterable[list[Unit]], size: int) -> Iterator[list[list[Unit]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclass
class Run:
    """One run of the participant level.

    Parameters
    ----------
    told
        Warnings that the terminal has shown already.
    """

    settings: Settings
    method: Method
    surroundings: Surroundings
    told: set[str] = field(default_factory=set)

    @property
    def lock_folder(self) -> Path:
        """Folder of the lock files."""
        return lock_folder(self.settings)

    def process_all(self, by_subject: Sequence[list[Unit]]) -> int:
        """Process all participants; return how many scans or reports failed.

        A participant that another run works on is left until the others are done, and waited
        for then: its results may be there already.
        """
        failed = 0
        busy: list[list[Unit]] = []
        for batch in _batches(by_subject, BATCH):
            failed += self.process_free(batch, busy)
        for units in busy:
            try:
                lock = self.wait_for(units)
            except OSError as error:
                self.fail_subject(units, error)
                failed += 1
                continue
            with lock:
                failed += self.process([units])
        return failed

    def process_free(self, batch: Sequence[list[Unit]], busy: list[list[Unit]]) -> int:
        """Process those of a batch that no other run works on; add the others to ``busy``."""
        failed = 0
        free = []
        with ExitStack() as locks:
            for units in batch:
                try:
                    lock = self.lock(units)
                except OSError as error:
                    self.fail_subject(units, error)
                    failed += 1
                    continue
                if lock is None:
                    busy.append(units)
                else:
                    locks.enter_context(lock)
                    free.append(units)
            return failed + self.process(free)

    def lock(self, units: Sequence[Unit]) -> Lock | None:
        """Lock a participant's units; None if another run works on one of them."""
        return try_lock(self.lock_folder, [unit.label for unit in units])

    def wait_for(self, units: Sequence[Unit]) -> Lock:
        """Wait until no other run works on a participant; see :func:`wait_for_lock`."""

        def report(who: str) -> None:
            logger.warning("sub-%s is being worked on by %s: waiting", units[0].subject, who)

        return wait_for_lock(self.lock_folder, [unit.label for unit in units], report)

    def process(self, batch: Sequence[Sequence[Unit]]) -> int:
        """Process a batch of participants; return how many scans or reports failed."""
        failed = 0
        pending: dict[str, Preflight] = {}
        for units in batch:
            pending[units[0].subject] = preflight(units)
        plans: dict[str, SubjectPlan] = {}
        crashes: dict[str, Crash] = {}
        while pending:
            now: dict[str, SubjectPlan] = {}
            for subject, checked in pending.items():
                plan = self.plan(checked)
                if plan is None:
                    plans.pop(subject, None)
                    failed += 1
                else:
                    now[subject] = plan
            plans |= now
            lost = self.compute(list(now.values()))
            for scan in (scan for plan in now.values() for scan in plan.scans):
                crashes.pop(scan.scan.name, None)
            crashes |= lost
            pending = {
                subject: replaced
                for subject, plan in now.items()
                if (replaced := _with_other_anatomy(plan, pending[subject], lost)) is not None
            }
        for plan in plans.values():
            failed += self.finish(plan, crashes)
        return failed

    def plan(self, checked: Preflight) -> SubjectPlan | None:
        """Plan the work for one participant and record it; None if that is not possible."""
        root, units = self.settings.output_dir, checked.units
        try:
            plan = plan_subject(units, root=root, method=self.method, problems=checked.problems)
            for unit in units:
                warnings = {scan.name: input_warnings(scan, checked) for scan in unit.scans}
                recorded = write_inputs(
                    root, unit, plan.scans_of(unit), self.surroundings, warnings=warnings
                )
                for news in recorded.news:
                    self.tell(news)
                remove_leftovers(root / f"sub-{unit.subject}", unit.label)
            for planned in plan.scans:
                if planned.todo:
                    # What an earlier run says of it must not outlive this one.
                    clear_error(root, planned.scan)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
            self.fail_subject(units, error)
            return None
        for line in plan.describe():
            logger.debug(line)
        for unit in units:
            if plan.todo:
                for scan in unit.scans:
                    for warning in input_warnings(scan, checked):
                        self.tell(f"{scan.name}: {warning}")
            for refusal in unit.refused:
                self.tell(
                    f"{name_in_dataset(refusal.path, self.settings)} is not used: {refusal.reason}"
                )
        return plan

    def fail_subject(self, units: Sequence[Unit], error: Exception) -> None:
        """Note that nothing can be done for a participant."""
        message = self.shorten(explain_error(error, self.settings))
        logger.error("sub-%s failed: %s", units[0].subject, message)
        logger.debug("", exc_info=error)
        for unit in units:
            for scan in unit.scans:
                with suppress(OSError):
                    write_error(
                        self.settings.output_dir,
                        scan,
                        step="planning",
                        message=message,
                        traceback="",
                    )
        self.write_report(units[0].subject)

    def compute(self, plans: Sequence[SubjectPlan]) -> dict[str, Crash]:
        """Build and run the workflows; return scan name -> its first crash."""
        todo = [plan for plan in plans if plan.todo]
        if not todo:
            return {}
        # The heavy libraries are loaded here, when there is something to compute.
        from cmbprep import engine
        from cmbprep.running.progress import Progress
        from cmbprep.workflows.base import crashed_scans, init_cmbprep_wf, work_scope

        settings = self.settings
        plugin = engine.read_plugin(
            settings.plugin_file, nprocs=settings.nprocs, mem_gb=settings.mem_gb
        )
        crash_dir = engine.configure(
            work=settings.work,
            log_dir=settings.output_dir / "logs",
            stop_on_first_crash=settings.stop_on_first_crash,
            verbosity=settings.verbosity,
        )
        failures: dict[str, Exception] = {}
        workflow = init_cmbprep_wf(todo, settings=settings, method=self.method, failures=failures)
        built = [plan for plan in todo if plan.subject not in failures]
        lost: dict[str, Crash] = {}
        if built:
            progress = Progress(workflow)
            crashes = engine.run(
                workflow,
                plugin,
                crash_dir=crash_dir,
                on_step=progress.step,
                folders=(settings.output_dir,),
            )
            lost = crashed_scans(built, crashes, scope=work_scope(settings))
            for crash in crashes:
                # The failed step is on the terminal, and the first that cost a scan with it.
                level = logging.DEBUG if lost else logging.WARNING
                logger.log(level, "%s failed: %s", crash.node, self.shorten(crash.message))
        for plan in todo:
            error = failures.get(plan.subject)
            if error is not None:
                crash = engine.Crash(
                    "workflow",
                    explain_error(error, self.settings),
                    explain_error(error, self.settings),
                )
                lost |= {scan.scan.name: crash for scan in plan.scans}
        if not settings.keep_work:
            folder = Path(workflow.base_dir) / workflow.name
            _clear_work(built, lost, folder, crash_dir, scope=work_scope(settings))
        return lost

    def finish(self, plan: SubjectPlan, crashes: Mapping[str, Crash]) -> int:
        """Note failures and write the report; return how many scans or reports failed."""
        lost = 0
        for scan in plan.scans:
            try:
                lost += self.note_failure(scan, crashes.get(scan.scan.name))
            except OSError as error:
                logger.error(
                    "%s failed: %s",
                    scan.scan.name,
                    self.shorten(explain_error(error, self.settings)),
                )
                lost += 1
        self.tell_warnings(plan)
        unwritten = not self.write_report(plan.subject)
        total = len(plan.scans)
        if total:
            again = "" if plan.todo else ", all there already" if not lost else ""
            logger.info(
                "sub-%s: %d of %d scans complete%s", plan.subject, total - lost, total, again
            )
        return lost + unwritten

    def note_failure(self, plan: ScanPlan, crash: Crash | None) -> bool:
        """Write the error record of a scan that lacks a stage, or clear it; tell which."""
        root = self.settings.output_dir
        reason = plan.problem or plan.incomplete()
        if reason is None:
            clear_error(root, plan.scan)
            return False
        if plan.problem is not None:
            step, message = "reading", plan.problem
        elif crash is not None:
            step, message = crash.node.rpartition(".")[2], crash.message
        else:
            step, message = "unknown", f"results are not complete: {reason}"
        message = self.shorten(message)
        logger.error("%s failed: %s", plan.scan.name, message)
        traceback = self.shorten(crash.traceback) if crash else ""
        write_error(root, plan.scan, step=step, message=message, traceback=traceback)
        return True

    def tell_warnings(self, plan: SubjectPlan) -> None:
        """Show the warnings of the stages that this run has made."""
        for scan in plan.scans:
            for stage in scan.stages if scan.todo else ():
                if not stage.todo:
                    continue
                with suppress(CmbprepError):
                    record = read_record(stage.files.root, stage.files.sidecar)
                    if record is None or record.block.get("Fingerprint") != stage.fingerprint:
                        continue
                    for text in record.block.get("Warnings", ()):
                        self.tell(f"{scan.scan.name}: {text}")
                    for name, why in record.block.get("MissingFigures", {}).items():
                        self.tell(f"{scan.scan.name}: the figure {name} is missing: {why}")

    def tell(self, text: str) -> None:
        """Show a warning once."""
        if text not in self.told:
            self.told.add(text)
            logger.warning("%s", text)

    def write_report(self, subject: str) -> bool:
        """Write the report of a participant; return whether that was possible."""
        return write_report(subject, self.settings)

    def shorten(self, text: str) -> str:
        """Name files in a text by their place in the dataset."""
        return shorten(text, self.settings)


def shorten(text: str, settings: Settings) -> str:
    """Name files within the datasets, wherever those are mounted."""
    prefixes = {f"{settings.bids_dir}/": ""}
    prefixes |= {f"{item.path}/": f"{item.name}:" for item in settings.derivatives}
    for prefix, short in prefixes.items():
        text = text.replace(prefix, short)
    return text


def _with_other_anatomy(
    plan: SubjectPlan, checked: Preflight, crashes: Mapping[str, Crash]
) -> Preflight | None:
    """Replace the T1w images that scans were lost by; None if no scan was lost so."""
    from cmbprep.workflows.base import lost_by_anatomy

    failed: dict[Path, str] = {}
    for scan in plan.scans:
        crash = crashes.get(scan.scan.name)
        if crash is not None and scan.anatomy is not None and lost_by_anatomy(scan, crash):
            failed[scan.anatomy.anatomy.path] = crash.message
    if not failed:
        return None
    units = tuple(
        next_anatomy(unit, failed[unit.anatomy.path])
        if unit.anatomy is not None and unit.anatomy.path in failed
        else unit
        for unit in checked.units
    )
    again = preflight(units)
    return Preflight(again.units, checked.problems, checked.warnings)


def _clear_work(
    plans: Sequence[SubjectPlan],
    lost: dict[str, Crash],
    folder: Path,
    crash_dir: Path,
    *,
    scope: str,
) -> None:
    """Remove the intermediate files of participants that are complete.

    Those of the others stay, so that a run after a repair starts where this one failed.
    """
    from cmbprep.workflows.base import shared_folders, subject_wf_name

    for plan in plans:
        if not any(scan.scan.name in lost for scan in plan.scans):
            shutil.rmtree(folder / subject_wf_name(plan, scope=scope), ignore_errors=True)
    for shared in shared_folders(folder):
        shutil.rmtree(shared, ignore_errors=True)
    # The records of the crashes are in logs/ by now.
    shutil.rmtree(crash_dir, ignore_errors=True)
    # Killed runs leave empty folders for crashes behind.
    for empty in (*folder.parent.glob("crashes-*"), folder, folder.parent):
        with suppress(OSError):  # another job is at work in it, or something was lost
            empty.rmdir()


def lock_folder(settings: Settings) -> Path:
    """Return the folder of the lock files."""
    # Of the output dataset, not of the work folder, which is often one of the machine's own.
    return settings.output_dir / ".work" / "locks"


def remove_lock_folder(settings: Settings) -> None:
    """Remove the folder of locks if no other run has locks there."""
    folder = lock_folder(settings)
    for place in (folder, folder.parent):
        with suppress(OSError):
            place.rmdir()


def write_report(subject: str, settings: Settings) -> bool:
    """Write the report of a participant; return whether that was possible.

    Runs on several sessions of a participant write the same report: a lock keeps one that has
    read older results from writing last.
    """
    from cmbprep.reports.individual import write_subject_report

    def report(who: str) -> None:
        logger.debug("sub-%s: the report is being written by %s: waiting", subject, who)

    try:
        with wait_for_lock(lock_folder(settings), [f"report-sub-{subject}"], report):
            path = write_subject_report(settings.output_dir, subject)
    except Exception as error:
        why = explain_error(error, settings)
        logger.error("sub-%s: the report could not be written: %s", subject, why)
        logger.debug("", exc_info=error)
        return False
    logger.info("sub-%s: the report is %s", subject, path)
    return True
