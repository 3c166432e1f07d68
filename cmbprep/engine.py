"""Run workflows: the only place that configures nipype.

nipype's own process pool waits for ever when a worker is killed (for instance by the
kernel, out of memory) or cannot store its result, asks a server for its newest version,
polls every two seconds and prints a line for each job. Here a lost job is tried once more
and then reported as failed, nothing is asked of a network, and progress is one line a step.
"""

from __future__ import annotations

import gc
import getpass
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import Any

# Before nipype is imported: its version ping is one of the things it does on import.
os.environ.setdefault("NIPYPE_NO_ET", "1")
os.environ.setdefault("NO_ET", "1")

import nipype
from nipype.pipeline import engine as pe
from nipype.pipeline import plugins
from nipype.pipeline.plugins.base import DistributedPluginBase
from nipype.pipeline.plugins.multiproc import MultiProcPlugin
from nipype.utils.filemanip import loadcrash

from cmbprep.running.faults import MEMORY_HINT, explain, is_machine_fault
from cmbprep.running.plugin_file import Plugin, read_plugin
from cmbprep.running.processes import kill_children, raise_if_stopped, signals_blocked, start_worker

__all__ = ["Crash", "LostWorkerMultiProcPlugin", "Plugin", "configure", "read_plugin", "run"]

logger = logging.getLogger("cmbprep")

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Crash:
    """A node that failed."""

    node: str
    """Full name, the workflows before it separated by dots."""
    message: str
    """What is wrong and what to do, in one line (:func:`cmbprep.running.faults.explain`)."""
    traceback: str

    transient: bool = False
    """Whether the machine has failed (memory, disk), so that the input may be sound."""

    @classmethod
    def of(cls, node: str, traceback: str, folders: Sequence[Path]) -> Crash:
        """Make a crash from the text of a traceback."""
        fault = is_machine_fault(traceback, folders)
        return cls(node, explain(traceback, folders), traceback, fault)


def _run_node(node: pe.Node, updatehash: bool, taskid: int) -> dict[str, Any]:
    """Run a node in a worker, and return its traceback if it fails.

    nipype's own function reads the node's result from its folder after a failure, which
    raises again where the folder is full or gone. Results are read from files: none is sent.
    """
    try:
        node.run(updatehash=updatehash)
    except BaseException:  # noqa: BLE001 - whatever it is, the job has to end
        return {"result": None, "traceback": format_exception(*sys.exc_info()), "taskid": taskid}
    return {"result": None, "traceback": None, "taskid": taskid}


class _CrashKeeper:
    """Part of a plugin that keeps crashes in memory.

    nipype pickles the node into a file, which fails on a full disk or with an input that cannot
    be pickled, and ends the run.
    """

    crashes: list[Crash]
    folders: Sequence[Path]
    ended: bool

    def keep_crashes(self, folders: Sequence[Path]) -> None:
        """Start without crashes; the folders are those that may be on a full disk."""
        self.crashes, self.folders, self.ended = [], tuple(folders), False

    def _report_crash(self, node: pe.Node, result: Mapping[str, Any] | None = None) -> str:
        lines = (result or {}).get("traceback") or format_exception(*sys.exc_info())
        text = lines if isinstance(lines, str) else "".join(lines)
        self.crashes.append(Crash.of(node.fullname, text, self.folders))
        return ""

    def _postrun_check(self) -> None:
        self.ended = True
        super()._postrun_check()  # type: ignore[misc]


class LostWorkerMultiProcPlugin(_CrashKeeper, MultiProcPlugin):
    """nipype's process pool, in which every job ends, whatever becomes of its process.

    When a process of a :class:`~concurrent.futures.ProcessPoolExecutor` is killed, the
    pool breaks and all pending jobs are lost. Each lost job is tried once more in a process
    of its own, so that it can be lost through no fault but its own; then it is reported as
    failed with what the person can do, and the other jobs go on.

    Parameters
    ----------
    plugin_args
        As for nipype's ``MultiProc``.
    folders
        Folders that the nodes write to; messages on full disks name them.
    """

    pool: ProcessPoolExecutor

    def __init__(
        self, plugin_args: Mapping[str, Any] | None = None, folders: Sequence[Path] = ()
    ) -> None:
        super().__init__(plugin_args=plugin_args)
        self.keep_crashes(folders)
        self._jobs: dict[int, tuple[pe.Node, bool]] = {}
        self._retried: dict[int, ProcessPoolExecutor] = {}
        self._lost: dict[int, BrokenProcessPool] = {}
        self._given_up: set[int] = set()
        self._foreign = set(multiprocessing.active_children())
        self._workers = int(self.processors)

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run a graph to its end; kill the workers if it cannot be."""
        submitted = sum(not node.run_without_submitting for node in graph.nodes())
        self._workers = max(1, min(int(self.processors), submitted))
        # nipype's pool has started no process yet.
        self.pool.shutdown(wait=False)
        self.pool = self._new_pool(self._workers)
        try:
            super().run(graph, config, updatehash)
        finally:
            # Whatever has stopped it (Ctrl-C, the first crash), nobody waits for results now.
            kill_children(since=self._foreign)
            for pool in (self.pool, *self._retried.values()):
                pool.shutdown(wait=False, cancel_futures=True)

    def _new_pool(self, processes: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context(self.plugin_args.get("mp_context"))
        by_server = context.get_start_method() == "forkserver"
        return ProcessPoolExecutor(
            max_workers=processes,
            mp_context=context,
            initializer=start_worker,
            initargs=(None if by_server else os.getpid(),),
        )

    def _submit_job(self, node: pe.Node, updatehash: bool = False) -> int:
        self._taskid += 1
        taskid = int(self._taskid)
        self._jobs[taskid] = (node, updatehash)
        if not self._start(self.pool, taskid):
            # Outside a handler: a forked worker would inherit the exception as the context
            # of its own.
            self.pool = self._new_pool(self._workers)
            self._start(self.pool, taskid)
        return taskid

    def _start(self, pool: ProcessPoolExecutor, taskid: int) -> bool:
        """Send a job to a pool; return False if the pool is broken."""
        node, updatehash = self._jobs[taskid]
        try:
            with signals_blocked():
                future = pool.submit(_run_node, node, updatehash, taskid)
        except BrokenProcessPool:
            pool.shutdown(wait=False)
            return False
        except OSError as error:  # no process can be started
            pool.shutdown(wait=False, cancel_futures=True)
            self._taskresult[taskid] = _failed(error, taskid)
            if pool is self.pool:
                self.pool = self._new_pool(self._workers)
            return True
        self._task_obj[taskid] = future
        future.add_done_callback(partial(self._collect, taskid))
        return True

    def _collect(self, taskid: int, future: Future[dict[str, Any]]) -> None:
        """Note the end of a job; runs in the pool's own thread."""
        try:
            self._taskresult[taskid] = future.result()
        except BrokenProcessPool as error:
            self._lost[taskid] = error
        except BaseException as error:  # noqa: BLE001 - without a result it is waited for without end
            self._taskresult[taskid] = _failed(error, taskid)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        raise_if_stopped()
        if taskid in self._lost:
            error = self._lost.pop(taskid)
            node = self._jobs[taskid][0]
            if taskid in self._retried and not self._give_up(taskid, node):
                # With a cause it was not killed: its result could not be read, for instance.
                why = format_exception(error) if error.__cause__ else [_LOST]
                return {"result": None, "traceback": why, "taskid": taskid}
            name = getattr(node, "title", node.fullname)
            logger.warning("%s: the process was killed; trying again", name)
            if taskid in self._retried:
                self._retried[taskid].shutdown(wait=False)
            self._retried[taskid] = self._new_pool(1)
            self._start(self._retried[taskid], taskid)
        result: dict[str, Any] | None = self._taskresult.get(taskid)
        return result

    def _give_up(self, taskid: int, node: pe.Node) -> bool:
        """Have a node that makes extras (figures) go without them; False if it cannot."""
        give_up = getattr(node.interface, "give_up", None)
        if give_up is None or taskid in self._given_up:
            return False
        self._given_up.add(taskid)
        give_up("the process that drew it was killed twice, most likely for want of memory")
        return True

    def _clear_task(self, taskid: int) -> None:
        self._task_obj.pop(taskid, None)
        self._jobs.pop(taskid, None)
        self._taskresult.pop(taskid, None)
        if taskid in self._retried:
            self._retried.pop(taskid).shutdown(wait=False)

    def _local_hash_check(self, jobid: int, graph: Any) -> bool:
        """Return whether a node need not be submitted, also because its inputs cannot be read."""
        try:
            cached, _ = self.procs[jobid].is_cached()
        except Exception:  # noqa: BLE001 - nipype would end the run
            lines = format_exception(*sys.exc_info())
            self._clean_queue(jobid, graph, result={"result": None, "traceback": lines})
            self.proc_pending[jobid] = False
            self._run_errors.append("".join(lines))
            return True
        return bool(cached and super()._local_hash_check(jobid, graph))


def _failed(error: BaseException, taskid: int) -> dict[str, Any]:
    return {"result": None, "traceback": format_exception(error), "taskid": taskid}


_LOST = (
    "cmbprep.errors.ScanError: the process that worked on this was killed twice, most likely "
    f"because the memory ran out. What to do: {MEMORY_HINT}.\n"
)


def configure(*, work: Path, log_dir: Path, stop_on_first_crash: bool, verbosity: int) -> Path:
    """Set nipype up for this process; give the folder that its crash files go to.

    Workflows take the configuration over when they are made, so call this before.
    """
    crashes = _crash_folder(work)
    nipype.config.update_config(
        {
            "logging": {
                "workflow_level": "ERROR" if verbosity < 2 else "DEBUG",
                "interface_level": "ERROR" if verbosity < 2 else "DEBUG",
                "utils_level": "ERROR",
                "log_directory": str(log_dir),
                "log_to_file": "false",
            },
            "execution": {
                "crashdump_dir": str(crashes),
                "crashfile_format": "pklz",
                "stop_on_first_crash": str(stop_on_first_crash).lower(),
                "poll_sleep_duration": str(POLL_SECONDS),
                # Times of files differ between machines and after a copy; contents do not.
                "hash_method": "content",
                "check_version": "false",
                "create_report": "false",
                "remove_unnecessary_outputs": "false",
            },
        }
    )
    nipype.logging.update_logging(nipype.config)
    if verbosity < 2:
        # A crash is told in our own words, with its traceback in the report and the log.
        logging.getLogger("nipype.workflow").setLevel(logging.CRITICAL)
    return crashes


def _crash_folder(work: Path, tries: int = 20) -> Path:
    """Make a folder of its own: other runs may use the same work folder at the same time."""
    for left in reversed(range(tries)):
        work.mkdir(parents=True, exist_ok=True)
        try:
            return Path(tempfile.mkdtemp(prefix="crashes-", dir=work))
        except FileNotFoundError:  # a run that has ended removed the empty work folder
            if not left:
                raise
    raise AssertionError("unreachable")


def run(
    workflow: pe.Workflow,
    plugin: Plugin,
    *,
    crash_dir: Path,
    on_step: Callable[[str, str, float], None] | None = None,
    folders: Sequence[Path] = (),
) -> list[Crash]:
    """Run a workflow to its end, whatever fails in it.

    Parameters
    ----------
    workflow
        With ``base_dir`` set.
    plugin
        From :func:`read_plugin`.
    crash_dir
        From :func:`configure`; the plugin ``Linear`` leaves its crash files there.
    on_step
        Called with a node's full name, ``start``, ``end`` or ``exception``, and the
        seconds since its start.
    folders
        Folders that are written to besides the workflow's own, to name the disk that is full.

    Returns
    -------
    list of Crash
        The nodes that failed; nodes that depend on them were not run. If the run itself
        broke off, for instance because a disk is full, the last one has the name of the workflow.
    """
    arguments = {**plugin.arguments, "status_callback": _timer(on_step)}
    folders = (*folders, Path(workflow.base_dir))
    _settle()
    runner: Any = None
    failure: Exception | None = None
    # nipype collects garbage at every poll. What is there already, the libraries and the graph,
    # is left out of that: looking through it all kept a whole processor busy.
    gc.collect()
    gc.freeze()
    try:
        runner = _make_runner(plugin.name, arguments, folders)
        if runner is None:
            workflow.run(plugin=plugin.name, plugin_args=arguments)
        else:
            workflow.run(plugin=runner)
    except Exception as error:  # noqa: BLE001 - nipype re-raises whatever a node raised
        failure = error
    finally:
        gc.unfreeze()
    if runner is not None:
        crashes = list(runner.crashes)
    else:
        crashes = [_read_crash(path, folders) for path in sorted(crash_dir.glob("crash-*"))]
    if isinstance(failure, OSError | MemoryError) and not (runner and runner.ended):
        # Not a node but the running itself failed. Scans that are complete stay so.
        text = "".join(format_exception(failure))
        crashes.append(Crash(workflow.name, explain(failure, folders), text))
    elif failure is not None and not crashes:
        raise failure
    return crashes


def _make_runner(name: str, arguments: dict[str, Any], folders: Sequence[Path]) -> Any:
    """Make a plugin that keeps its crashes; None where nipype's own writes them to files."""
    if name == "MultiProc":
        return LostWorkerMultiProcPlugin(plugin_args=arguments, folders=folders)
    base = getattr(plugins, f"{name}Plugin", None)
    if base is None or not issubclass(base, DistributedPluginBase):
        return None
    runner: Any = type(base.__name__, (_CrashKeeper, base), {})(plugin_args=arguments)
    runner.keep_crashes(folders)
    return runner


def _settle() -> None:
    """Set what nipype needs: a current folder and a user's name."""
    try:
        Path.cwd()
    except OSError:
        os.chdir(tempfile.gettempdir())
    with suppress(KeyError, OSError):  # a user id without a name
        # nipype's SLURM plugin asks for no other variable.
        os.environ.setdefault("LOGNAME", getpass.getuser())


def _timer(
    on_step: Callable[[str, str, float], None] | None,
) -> Callable[[pe.Node, str], None]:
    """Make nipype's callback: seconds since a node's start, and one end of each node."""
    started: dict[str, float] = {}
    failed: set[str] = set()

    def callback(node: pe.Node, status: str) -> None:
        name = node.fullname
        now = time.monotonic()
        began = started.setdefault(name, now)
        # nipype reports a node that fails in its own process as ended, too.
        if on_step is not None and name not in failed:
            on_step(name, status, now - began)
        if status == "exception":
            failed.add(name)

    return callback


def _read_crash(path: Path, folders: Sequence[Path]) -> Crash:
    """Read a crash file of nipype; one that is damaged still counts as a crash."""
    try:
        content = loadcrash(str(path))
        lines, node = content["traceback"], content["node"].fullname
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything
        # crash-TIME-USER-NODE-UUID
        name = "-".join(path.name.split("-")[4:-5]) or path.name
        text = f"{path.name} cannot be read: {explain(error, folders)}"
        return Crash(name, text, text)
    text = lines if isinstance(lines, str) else "".join(lines)
    return Crash.of(node, text, folders)
