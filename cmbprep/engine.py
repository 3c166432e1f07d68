"""Run workflows: the only place that configures nipype.

nipype's own process pool waits for ever when a worker is killed (for instance by the
kernel, out of memory), asks a server for its newest version, polls every two seconds
and prints a line for each job. Here a lost job is tried once more and then reported as
failed, nothing is asked of a network, and progress is one line a step.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Before nipype is imported: its version ping is one of the things it does on import.
os.environ.setdefault("NIPYPE_NO_ET", "1")
os.environ.setdefault("NO_ET", "1")

import nipype
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer, run_node
from nipype.utils.filemanip import loadcrash

from .errors import UsageError

__all__ = ["Crash", "LostWorkerMultiProcPlugin", "Plugin", "configure", "read_plugin", "run"]

logger = logging.getLogger("cmbprep")

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Crash:
    """A node that failed."""

    node: str
    """Full name, the workflows before it separated by dots."""
    message: str
    """The last line of the traceback without the name of the exception."""
    traceback: str


@dataclass(frozen=True)
class Plugin:
    """Which nipype plugin runs the nodes, with its arguments."""

    name: str
    arguments: Mapping[str, Any]


class LostWorkerMultiProcPlugin(MultiProcPlugin):
    """nipype's process pool, made to survive the loss of a worker process.

    When a process of a :class:`~concurrent.futures.ProcessPoolExecutor` is killed, the
    pool breaks and every job in it is lost, the innocent with the guilty. Each lost job
    is tried once more in a process of its own, so that it can be lost through no fault
    but its own; then it is reported as failed with what the person can do, and the other
    jobs go on.
    """

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: Mapping[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self._jobs: dict[int, tuple[pe.Node, bool]] = {}
        self._retried: dict[int, ProcessPoolExecutor] = {}
        self._lost: set[int] = set()

    def _new_pool(self, processes: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=processes, initializer=process_initializer, initargs=(self._cwd,)
        )

    def _submit_job(self, node: pe.Node, updatehash: bool = False) -> int:
        self._taskid += 1
        self._jobs[self._taskid] = (node, updatehash)
        try:
            self._start(self.pool, self._taskid)
            return int(self._taskid)
        except BrokenProcessPool:
            self.pool.shutdown(wait=False)
        # Outside the handler: a forked worker would inherit the exception as the context
        # of its own.
        self.pool = self._new_pool(self.processors)
        self._start(self.pool, self._taskid)
        return int(self._taskid)

    def _start(self, pool: ProcessPoolExecutor, taskid: int) -> None:
        node, updatehash = self._jobs[taskid]
        future = pool.submit(run_node, node, updatehash, taskid)
        self._task_obj[taskid] = future
        future.add_done_callback(partial(self._collect, taskid))

    def _collect(self, taskid: int, future: Future[dict[str, Any]]) -> None:
        """Note the end of a job; runs in the pool's own thread."""
        try:
            self._taskresult[taskid] = future.result()
        except BrokenProcessPool:
            self._lost.add(taskid)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        if taskid in self._lost:
            self._lost.discard(taskid)
            if taskid in self._retried:
                return {"result": None, "traceback": [_LOST], "taskid": taskid}
            logger.warning("the process of %s was lost; trying again", self._jobs[taskid][0])
            self._retried[taskid] = self._new_pool(1)
            self._start(self._retried[taskid], taskid)
        result: dict[str, Any] | None = self._taskresult.get(taskid)
        return result

    def _clear_task(self, taskid: int) -> None:
        super()._clear_task(taskid)
        self._jobs.pop(taskid, None)
        self._taskresult.pop(taskid, None)
        if taskid in self._retried:
            self._retried.pop(taskid).shutdown(wait=False)


_LOST = (
    "cmbprep.errors.ScanError: the process that worked on this was killed twice, most likely "
    "because the memory ran out. What to do: run it again with a lower --nprocs, or give "
    "--mem the memory in GB that may be used.\n"
)


def configure(*, work: Path, log_dir: Path, stop_on_first_crash: bool, verbosity: int) -> Path:
    """Set nipype up for this process; give the folder that its crash files go to.

    Workflows take the configuration over when they are made, so call this before.
    """
    work.mkdir(parents=True, exist_ok=True)
    # A folder of its own: other runs may use the same work folder at the same time.
    crashes = Path(tempfile.mkdtemp(prefix="crashes-", dir=work))
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


def read_plugin(path: Path | None, *, nprocs: int, mem_gb: float | None) -> Plugin:
    """Choose the plugin: the one that a file names, else processes on this machine.

    The file is JSON or YAML as fMRIPrep takes it: ``plugin`` and ``plugin_args``.
    """
    if path is None:
        arguments: dict[str, Any] = {"n_procs": nprocs, "raise_insufficient": False}
        if mem_gb is not None:
            arguments["memory_gb"] = mem_gb
        return Plugin("MultiProc", arguments)
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        name, arguments = content["plugin"], dict(content.get("plugin_args") or {})
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UsageError(
            "is not a plugin file",
            path=path,
            hint='give JSON or YAML with "plugin" and, if needed, "plugin_args"',
        ) from error
    return Plugin(str(name), arguments)


def run(
    workflow: pe.Workflow,
    plugin: Plugin,
    *,
    crash_dir: Path,
    on_step: Callable[[str, str, float], None] | None = None,
) -> list[Crash]:
    """Run a workflow to its end, whatever fails in it.

    Parameters
    ----------
    workflow
        With ``base_dir`` set.
    plugin
        From :func:`read_plugin`.
    crash_dir
        From :func:`configure`.
    on_step
        Called with a node's full name, ``start``, ``end`` or ``exception``, and the
        seconds since its start.

    Returns
    -------
    list of Crash
        The nodes that failed; nodes that depend on them were not run.
    """
    started: dict[str, float] = {}

    def callback(node: pe.Node, status: str) -> None:
        now = time.monotonic()
        began = started.setdefault(node.fullname, now)
        if on_step is not None:
            on_step(node.fullname, status, now - began)

    arguments = {**plugin.arguments, "status_callback": callback}
    failure: Exception | None = None
    # nipype collects garbage at every poll. What is there already, the libraries and the graph,
    # is left out of that: looking through it all kept a whole processor busy.
    gc.collect()
    gc.freeze()
    try:
        if plugin.name == "MultiProc":
            workflow.run(plugin=LostWorkerMultiProcPlugin(plugin_args=arguments))
        else:
            workflow.run(plugin=plugin.name, plugin_args=arguments)
    except Exception as error:  # noqa: BLE001 - nipype re-raises whatever a node raised
        failure = error
    finally:
        gc.unfreeze()
    crashes = [_read_crash(path) for path in sorted(crash_dir.glob("crash-*"))]
    if failure is not None and not crashes:
        # Not a node but the running itself failed: a wrong plugin, a full disk.
        raise failure
    return crashes


def _read_crash(path: Path) -> Crash:
    content = loadcrash(str(path))
    lines = content["traceback"]
    text = lines if isinstance(lines, str) else "".join(lines)
    return Crash(content["node"].fullname, _last_message(text), text)


# An exception's line in a traceback: its dotted name, a colon, the message. nipype wraps
# a node's traceback into one of its own, indented.
_EXCEPTION = re.compile(
    r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Failure))(?:: (.*))?$"
)


def _last_message(traceback: str) -> str:
    """Give the message of the last exception in a traceback."""
    found = [match for line in traceback.splitlines() if (match := _EXCEPTION.match(line))]
    if not found:
        return traceback.strip().rpartition("\n")[2] or "failed without a message"
    kind, message = found[-1].groups()
    if kind.startswith("cmbprep.errors."):
        return str(message)
    return f"{kind}: {message}" if message else str(kind)
