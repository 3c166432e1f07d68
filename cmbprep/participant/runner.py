"""Processing of participants, a batch at a time: plan, compute, note what failed, report."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.bids.model import Scan, Unit
from cmbprep.bids.preflight import Preflight, next_anatomy, preflight
from cmbprep.config import Settings
from cmbprep.errors import CmbprepError
from cmbprep.outputs.records import Surroundings, clear_error, write_error, write_inputs
from cmbprep.outputs.stages import read_record, remove_leftovers
from cmbprep.plan import Method, ScanPlan, SubjectPlan, plan_subject
from cmbprep.running.faults import explain
from cmbprep.running.locks import Lock, try_lock, wait_for_lock
from cmbprep.running.plugin_file import Plugin, read_plugin

if TYPE_CHECKING:
    from cmbprep.engine import Crash

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


def _batches(items: Sequence[list[Unit]], size: int) -> Iterator[Sequence[list[Unit]]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@dataclass
class Run:
    """One run of the participant level.

    Parameters
    ----------
    told
        Warnings that the terminal has shown already.
    failed
        How many scans or reports have failed.
    """

    settings: Settings
    method: Method
    surroundings: Surroundings
    told: set[str] = field(default_factory=set)
    failed: int = 0

    def process_all(self, by_subject: Sequence[list[Unit]]) -> None:
        """Process all participants.

        A participant that another run works on is left until the others are done, and waited
        for then: its results may be there already.
        """
        busy: list[list[Unit]] = []
        for batch in _batches(by_subject, BATCH):
            self.process_locked(batch, self.lock, busy)
        for units in busy:
            self.process_locked([units], self.wait_for, [])

    def process_locked(
        self,
        batch: Sequence[list[Unit]],
        lock: Callable[[Sequence[Unit]], Lock | None],
        busy: list[list[Unit]],
    ) -> None:
        """Process those of a batch that can be locked; add those that cannot to ``busy``."""
        with ExitStack() as locks:
            free = []
            for units in batch:
                try:
                    held = lock(units)
                except OSError as error:
                    self.fail_subject(units, error)
                    continue
                if held is None:
                    busy.append(units)
                else:
                    locks.enter_context(held)
                    free.append(units)
            self.process(free)

    def lock(self, units: Sequence[Unit]) -> Lock | None:
        """Lock a participant's units; None if another run works on one of them."""
        return try_lock(lock_folder(self.settings), [unit.label for unit in units])

    def wait_for(self, units: Sequence[Unit]) -> Lock:
        """Wait until no other run works on a participant; see :func:`wait_for_lock`."""

        def report(who: str) -> None:
            logger.warning("sub-%s is being worked on by %s: waiting", units[0].subject, who)

        return wait_for_lock(lock_folder(self.settings), [unit.label for unit in units], report)

    def process(self, batch: Sequence[Sequence[Unit]]) -> None:
        """Process a batch of participants, whose units are locked."""
        pending = {units[0].subject: preflight(units) for units in batch}
        plans: dict[str, SubjectPlan] = {}
        crashes: dict[str, Crash] = {}
        while pending:
            made = {subject: self.plan(checked) for subject, checked in pending.items()}
            now = {subject: plan for subject, plan in made.items() if plan is not None}
            plans = {subject: plan for subject, plan in plans.items() if subject not in made} | now
            lost = self.compute(list(now.values()))
            for scan in (scan for plan in now.values() for scan in plan.scans):
                crashes.pop(scan.scan.name, None)
            crashes |= lost
            pending = {
                subject: replaced
                for subject, plan in now.items()
                if (replaced := _with_other_anatomy(plan, pending[subject], lost)) is not None
            }
        self.follow(plans)
        for units in batch:
            if units[0].subject in plans:
                self.finish(plans[units[0].subject], crashes)

    def follow(self, subjects: Iterable[str]) -> None:
        """Follow the lesions of participants over their visits, where there are several."""
        from cmbprep.group.followup import UNKNOWN, compute_followups
        from cmbprep.group.followup_cohort import dataset_orders
        from cmbprep.ratings.choice import ReaderChoice

        settings, labels = self.settings, list(subjects)
        orders = dataset_orders(settings.output_dir, settings.bids_dir, labels)
        lost = compute_followups(
            settings.output_dir,
            {label: orders.get(label, UNKNOWN) for label in labels},
            ReaderChoice.of(settings),
            nprocs=settings.nprocs,
            locks=lock_folder(settings),
            before_reports=True,
        )
        for subject, why in lost.items():
            self.failed += 1
            logger.error("sub-%s: the follow-up failed: %s", subject, shorten(why, settings))

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
                self.tell(*recorded.news)
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
            for scan in unit.scans if plan.todo else ():
                self.tell(*(f"{scan.name}: {text}" for text in input_warnings(scan, checked)))
            for refusal in unit.refused:
                name = name_in_dataset(refusal.path, self.settings)
                self.tell(f"{name} is not used: {refusal.reason}")
        return plan

    def fail_subject(self, units: Sequence[Unit], error: Exception) -> None:
        """Note that nothing can be done for a participant."""
        self.failed += 1
        message = shorten(explain_error(error, self.settings), self.settings)
        logger.error("sub-%s failed: %s", units[0].subject, message)
        logger.debug("", exc_info=error)
        root = self.settings.output_dir
        for scan in (scan for unit in units for scan in unit.scans):
            with suppress(OSError):
                write_error(root, scan, step="planning", message=message, traceback="")
        write_report(units[0].subject, self.settings)

    def compute(self, plans: Sequence[SubjectPlan]) -> dict[str, Crash]:
        """Build and run the workflows; return scan name -> its first crash."""
        todo = [plan for plan in plans if plan.todo]
        if not todo:
            return {}
        # The heavy libraries are loaded here, when there is something to compute.
        from cmbprep import engine
        from cmbprep.running.progress import Progress
        from cmbprep.workflows.base import init_cmbprep_wf
        from cmbprep.workflows.crashes import crashed_scans
        from cmbprep.workflows.names import work_scope

        settings, scope = self.settings, work_scope(self.settings)
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
            crashes = engine.run(
                workflow,
                choose_plugin(settings),
                crash_dir=crash_dir,
                on_step=Progress(workflow).step,
                folders=(settings.output_dir,),
            )
            lost = crashed_scans(built, crashes, scope=scope)
            for crash in crashes:
                # The failed step is on the terminal, and the first that cost a scan with it.
                level = logging.DEBUG if lost else logging.WARNING
                logger.log(level, "%s failed: %s", crash.node, shorten(crash.message, settings))
        for plan in todo:
            if plan.subject in failures:
                why = explain_error(failures[plan.subject], settings)
                crash = engine.Crash("workflow", why, why)
                lost |= {scan.scan.name: crash for scan in plan.scans}
        if not settings.keep_work:
            folder = Path(workflow.base_dir) / workflow.name
            _clear_work(built, lost, folder, crash_dir, scope=scope)
        return lost

    def finish(self, plan: SubjectPlan, crashes: Mapping[str, Crash]) -> None:
        """Note the failures of a participant and write the report."""
        lost = 0
        for scan in plan.scans:
            try:
                lost += self.note_failure(scan, crashes.get(scan.scan.name))
            except OSError as error:
                why = shorten(explain_error(error, self.settings), self.settings)
                logger.error("%s failed: %s", scan.scan.name, why)
                lost += 1
        self.tell_warnings(plan)
        self.failed += lost + (not write_report(plan.subject, self.settings))
        total = len(plan.scans)
        if total:
            again = "" if plan.todo else ", all there already" if not lost else ""
            logger.info(
                "sub-%s: %d of %d scans complete%s", plan.subject, total - lost, total, again
            )

    def note_failure(self, plan: ScanPlan, crash: Crash | None) -> bool:
        """Write the error record of a scan that lacks a stage, or clear it; return which."""
        root, settings = self.settings.output_dir, self.settings
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
        message = shorten(message, settings)
        logger.error("%s failed: %s", plan.scan.name, message)
        traceback = shorten(crash.traceback, settings) if crash else ""
        write_error(root, plan.scan, step=step, message=message, traceback=traceback)
        return True

    def tell_warnings(self, plan: SubjectPlan) -> None:
        """Show the warnings of the stages that this run has made."""
        made = (
            (scan.scan.name, stage)
            for scan in plan.scans
            for stage in (scan.stages if scan.todo else ())
            if stage.todo
        )
        for name, stage in made:
            with suppress(CmbprepError):
                record = read_record(stage.files.root, stage.files.sidecar)
                if record is None or record.block.get("Fingerprint") != stage.fingerprint:
                    continue
                self.tell(*(f"{name}: {text}" for text in record.block.get("Warnings", ())))
                for figure, why in record.block.get("MissingFigures", {}).items():
                    self.tell(f"{name}: the figure {figure} is missing: {why}")

    def tell(self, *texts: str) -> None:
        """Show warnings, each once."""
        for text in texts:
            if text not in self.told:
                self.told.add(text)
                logger.warning("%s", text)


def choose_plugin(settings: Settings) -> Plugin:
    """Return the plugin that runs the nodes (:func:`read_plugin`)."""
    return read_plugin(settings.plugin_file, nprocs=settings.nprocs, mem_gb=settings.mem_gb)


def shorten(text: str, settings: Settings) -> str:
    """Name files within the datasets, wherever those are mounted."""
    prefixes = {f"{settings.bids_dir}/": ""}
    prefixes |= {f"{item.path}/": f"{item.name}:" for item in settings.derivatives}
    for prefix, short in prefixes.items():
        # Where a path begins: /data/ is not the dataset in /mnt/data/.
        text = short.join(re.split(rf"(?<![\w.+-]){re.escape(prefix)}", text))
    return text


def _with_other_anatomy(
    plan: SubjectPlan, checked: Preflight, crashes: Mapping[str, Crash]
) -> Preflight | None:
    """Replace the T1w images that scans were lost by; None if no scan was lost so."""
    from cmbprep.workflows.crashes import lost_by_anatomy

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
    from cmbprep.workflows.names import shared_folders, subject_wf_name

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
    from cmbprep.ratings.choice import ReaderChoice
    from cmbprep.reports.individual import write_reports

    def report(who: str) -> None:
        logger.debug("sub-%s: the report is being written by %s: waiting", subject, who)

    try:
        with wait_for_lock(lock_folder(settings), [f"report-sub-{subject}"], report):
            choice = ReaderChoice.of(settings)
            paths = write_reports(
                settings.output_dir,
                subject,
                choice,
                per=settings.report_per,
                pattern_rule=settings.pattern_rule,
            )
    except Exception as error:
        why = explain_error(error, settings)
        logger.error("sub-%s: the report could not be written: %s", subject, why)
        logger.debug("", exc_info=error)
        return False
    for path in paths:
        logger.info("sub-%s: the report is %s", subject, path)
    return True
