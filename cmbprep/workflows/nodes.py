"""Kinds of nodes that the workflows are made of."""

from __future__ import annotations

from typing import Any

from nipype.interfaces import utility as niu
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    DynamicTraitedSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits
from nipype.pipeline import engine as pe

from cmbprep.interfaces.outputs import SaveStage
from cmbprep.outputs.names import output_table

__all__ = ["MergeDicts", "buffer", "merge_lists", "merge_values", "save_stage", "step"]


def step(
    interface: SimpleInterface, name: str, title: str, *, memory: float = 1.0, threads: int = 1
) -> pe.Node:
    """Make a node that the terminal shows when it ends.

    Parameters
    ----------
    title
        What the terminal calls it.
    memory
        What it needs at most, GB.
    threads
        How many processors it keeps busy.
    """
    node = pe.Node(interface, name, mem_gb=memory, n_procs=threads)
    node.title = title
    return node


def buffer(name: str, fields: tuple[str, ...], **values: Any) -> pe.Node:
    """Make a node that holds values: set here when they are there already, else connected."""
    return pe.Node(niu.IdentityInterface(fields=[*fields], **values), name)


def merge_lists(name: str, count: int) -> pe.Node:
    """Make a node that joins its inputs ``in1``, ``in2``, ... into one list, ``out``."""
    return pe.Node(niu.Merge(count), name, run_without_submitting=True)


class _MergeDictsInput(DynamicTraitedSpec, BaseInterfaceInputSpec):
    pass


class _MergeDictsOutput(TraitedSpec):
    out = traits.Dict()


class MergeDicts(SimpleInterface):
    """Join dictionaries in the order of the inputs' names given."""

    input_spec = _MergeDictsInput
    output_spec = _MergeDictsOutput

    def __init__(self, names: tuple[str, ...] = (), **inputs: Any) -> None:
        super().__init__(**inputs)
        self._names = names
        add_traits(self.inputs, names)

    def _run_interface(self, runtime: Any) -> Any:
        joined: dict[str, Any] = {}
        for name in self._names:
            value = getattr(self.inputs, name)
            if isdefined(value):
                joined.update(value)
        self._results["out"] = joined
        return runtime


def merge_values(name: str, names: tuple[str, ...]) -> pe.Node:
    """Make a node that joins the dictionaries given as the named inputs, as ``out``."""
    return pe.Node(MergeDicts(names=names), name, run_without_submitting=True)


def save_stage(name: str, *, stage: str, **inputs: Any) -> pe.Node:
    """Make the sink of a stage; its keys in the table of outputs are its inputs."""
    keys = tuple(key for key in output_table()[stage] if key != "sidecar")
    return pe.Node(SaveStage(keys=keys, stage=stage, **inputs), name)
