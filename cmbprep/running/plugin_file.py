"""Which nipype plugin runs the nodes: read from a file and checked before anything is written."""

from __future__ import annotations

import difflib
import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.errors import UsageError, about

#: More processes than this are a slip of the finger.
MAX_PROCESSES = 1024
#: With less memory no node would ever be started.
MIN_MEMORY_GB = 1.0

#: Plugin -> the command that it calls, or None.
PLUGINS: Mapping[str, str | None] = {
    "MultiProc": None,
    "LegacyMultiProc": None,
    "Linear": None,
    "SLURM": "sbatch",
    "SGE": "qsub",
    "PBS": "qsub",
    "LSF": "bsub",
    "OAR": "oarsub",
    "Condor": "condor_submit",
    "IPython": None,
}
#: Plugins of nipype that cannot run cmbprep, with the one to use instead.
_UNFIT = {
    "SLURMGraph": "SLURM",
    "SGEGraph": "SGE",
    "PBSGraph": "PBS",
    "CondorDAGMan": "Condor",
    "Debug": "Linear",
    "SomaFlow": "MultiProc",
}
_EXAMPLE = 'give JSON or YAML such as {"plugin": "MultiProc", "plugin_args": {"n_procs": 8}}'


@dataclass(frozen=True)
class Plugin:
    """Which nipype plugin runs the nodes, with its arguments."""

    name: str
    arguments: Mapping[str, Any]


def read_plugin(path: Path | None, *, nprocs: int, mem_gb: float | None) -> Plugin:
    """Choose the plugin: the one that a file names, else processes on this machine.

    The file is JSON or YAML as fMRIPrep takes it: ``plugin`` and ``plugin_args``.

    Parameters
    ----------
    path
        The file, or None.
    nprocs, mem_gb
        Processes and memory of this machine, where the file does not say otherwise.

    Raises
    ------
    UsageError
        When the file cannot be read, or names a plugin or a value that cannot work.
    """
    own: dict[str, Any] = {"n_procs": nprocs, "raise_insufficient": False}
    if mem_gb is not None:
        own["memory_gb"] = mem_gb
    if path is None:
        return Plugin("MultiProc", own)
    with about(path, hint=_EXAMPLE):
        name, arguments = _read(path)
        _check_name(name)
        _check_numbers(arguments)
    if name in ("MultiProc", "LegacyMultiProc"):
        arguments = {**own, **arguments}
    return Plugin(name, arguments)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"this plugin file cannot be read ({_first_line(error)})") from error
    if not isinstance(content, dict) or not isinstance(content.get("plugin"), str):
        raise UsageError('this file has no "plugin" with a name')
    arguments = {} if content.get("plugin_args") is None else content["plugin_args"]
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise UsageError('"plugin_args" must be an object with names and values')
    return content["plugin"], dict(arguments)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _check_name(name: str) -> None:
    if name in _UNFIT:
        raise UsageError(
            f'cmbprep cannot run with the plugin "{name}", which does not wait for results',
            hint=f"use {_UNFIT[name]}",
        )
    if name not in PLUGINS:
        lower = {known.lower(): known for known in PLUGINS}
        near = difflib.get_close_matches(name.lower().removesuffix("plugin"), lower, n=1)
        hint = f"did you mean {lower[near[0]]}? " if near else ""
        raise UsageError(
            f'there is no plugin "{name}"', hint=f"{hint}Known plugins are {', '.join(PLUGINS)}"
        )
    command = PLUGINS[name]
    if command is not None and shutil.which(command) is None:
        raise UsageError(
            f'the plugin {name} needs the command "{command}", which is not installed here',
            hint="run it where jobs can be submitted, or use MultiProc",
        )
    if name == "IPython" and importlib.util.find_spec("ipyparallel") is None:
        raise UsageError("the plugin IPython needs the package ipyparallel", hint="use MultiProc")


def _check_numbers(arguments: Mapping[str, Any]) -> None:
    for key, kind, least, most, hint in (
        ("n_procs", int, 1, MAX_PROCESSES, f"give a whole number from 1 to {MAX_PROCESSES}"),
        ("max_jobs", int, 1, MAX_PROCESSES, f"give a whole number from 1 to {MAX_PROCESSES}"),
        (
            "memory_gb",
            int | float,
            MIN_MEMORY_GB,
            sys.float_info.max,
            f"give the memory in GB, at least {MIN_MEMORY_GB:g}",
        ),
    ):
        value = arguments.get(key, least)
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            raise UsageError(f'"{key}" is {value!r}', hint=hint)
