"""What a node that draws could not draw reaches the sink of its stage."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest
from nipype.pipeline import engine as pe

from cmbprep.interfaces.figures import DrawFigures
from cmbprep.plan import Method
from tests.bids.test_derivatives import fmriprep
from tests.workflows.test_given_graphs import bids, build, method

__all__ = ["bids", "method"]


def reached(graph: nx.DiGraph, drawing: pe.Node, output: str) -> set[tuple[str, str]]:
    """Nodes and their inputs that an output reaches."""
    return {
        (node.name, target)
        for node in graph.successors(drawing)
        for source, target in graph.get_edge_data(drawing, node)["connect"]
        if source == output
    }


@pytest.mark.parametrize("given", [False, True])
def test_every_figure_reaches_the_sink_or_is_named_there(
    bids: Path,
    method: Method,
    tmp_path: Path,
    given: bool,
) -> None:
    if given:
        fmriprep(tmp_path / "fp")
    workflow = build(bids, method, *([tmp_path / "fp"] if given else []))
    graph = workflow._create_flat_graph()
    drawing = [node for node in graph.nodes() if isinstance(node.interface, DrawFigures)]
    stages = set()
    for node in drawing:
        ((sink, target),) = reached(graph, node, "figures")
        assert target == "figures"
        assert reached(graph, node, "missing_figures") == {(sink, "missing_figures")}
        stages.add(sink)
    assert stages == {"ds_anatomy", "ds_preproc", "ds_lesions"}
    assert len(drawing) == 3
