"""Graphs that are written node by node, each with its inputs, from top to bottom.

A node's input is a value, or the output of a node before it::

    read = graph.add("read", ReadT1w(), "reading", in_file="sub-01_T1w.nii.gz")
    register = graph.add("register", Register(), "registration", in_file=read["image"])

What arises is a plain nipype workflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nipype.interfaces.base import SimpleInterface
from nipype.pipeline import engine as pe

from cmbprep.bids.model import Scan
from cmbprep.interfaces.outputs import SaveStage
from cmbprep.outputs.names import output_table
from cmbprep.plan import StagePlan


@dataclass(frozen=True, eq=False)
class Output:
    """An output that a node is going to have; the input of a later node."""

    step: Step
    name: str


#: What a stage gives to the next ones: outputs of nodes, or values that are there already.
Results = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Step:
    """A node of a graph; ``step["mask"]`` is its output ``mask``."""

    graph: Graph
    node: pe.Node

    def __getitem__(self, name: str) -> Output:
        return Output(self, name)

    def outputs(self, *names: str) -> dict[str, Any]:
        """Return outputs by their names."""
        return {name: self[name] for name in names}


class Graph:
    """A nipype workflow with its place among the workflows around it.

    Parameters
    ----------
    name
        Name of the workflow.
    parent
        The graph that it is a part of.
    image
        What the terminal calls the image that it works on.
    **options
        Of the nipype workflow.
    """

    def __init__(
        self, name: str, parent: Graph | None = None, *, image: str = "", **options: Any
    ) -> None:
        self.workflow = pe.Workflow(name=name, **options)
        self.image = image
        self.line: tuple[pe.Workflow, ...] = (self.workflow,)
        if parent is not None:
            self.line = (*parent.line, self.workflow)
            parent.workflow.add_nodes([self.workflow])

    def add(
        self,
        name: str,
        interface: SimpleInterface,
        title: str | None = None,
        *,
        memory: float = 1.0,
        threads: int = 1,
        **inputs: Any,
    ) -> Step:
        """Add a node, and connect or set its inputs.

        Parameters
        ----------
        name, interface
            Of the nipype node.
        title
            What the terminal calls the step when it ends; None to show it only if it fails.
        memory
            What it needs at most, GB.
        threads
            How many processors it keeps busy.
        **inputs
            Values, or outputs of nodes before it; an input that is None is not set.
        """
        node = pe.Node(interface, name, mem_gb=memory, n_procs=threads)
        if title is not None:
            node.title = f"{self.image}: {title}" if self.image else title
        self.workflow.add_nodes([node])
        for field, value in inputs.items():
            if isinstance(value, Output):
                self._connect(value, node, field)
            elif value is not None:
                setattr(node.inputs, field, str(value) if isinstance(value, Path) else value)
        return Step(self, node)

    def _connect(self, output: Output, node: pe.Node, field: str) -> None:
        """Connect two nodes in the innermost workflow that both are in."""
        source, target = (*output.step.graph.line, output.step.node), (*self.line, node)
        depth = 0
        while source[depth + 1] is target[depth + 1]:
            depth += 1
        within_source = ".".join([*(one.name for one in source[depth + 2 :]), output.name])
        within_target = ".".join([*(one.name for one in target[depth + 2 :]), field])
        outer = source[depth]
        outer.connect(source[depth + 1], within_source, target[depth + 1], within_target)

    def save(
        self,
        plan: StagePlan,
        *,
        sources: list[str],
        parameters: Mapping[str, Any],
        quality: tuple[Step, ...],
        warnings: tuple[Step, ...],
        figures: Step,
        scan: Scan | None = None,
        **files: Any,
    ) -> None:
        """Add the sink of a stage.

        Parameters
        ----------
        plan
            The stage.
        sources, parameters
            BIDS URIs of what it is made from, and how, for the sidecar.
        quality, warnings
            The nodes whose outputs of that name are joined in the sidecar.
        figures
            The node that draws.
        scan
            Its scan, where it is a stage of one.
        **files
            What each file of the table of outputs is copied from.
        """
        stage = plan.files.stage
        keys = tuple(key for key in output_table()[stage] if key != "sidecar")
        records: dict[str, Any] = {
            f"quality{n}": one["quality"] for n, one in enumerate(quality, 1)
        }
        records |= {f"warnings{n}": one["warnings"] for n, one in enumerate(warnings, 1)}
        self.add(
            f"ds_{stage}",
            SaveStage(keys, qualities=len(quality), warnings=len(warnings)),
            root=plan.files.root,
            stage=stage,
            names=asdict(plan.files.names),
            fingerprint=plan.fingerprint,
            sources=sources,
            parameters=dict(parameters),
            scan=scan,
            **records,
            **figures.outputs("figures", "missing_figures"),
            **files,
        )
