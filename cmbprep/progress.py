"""Progress on the terminal: one line for each step that has ended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nipype.pipeline import engine as pe

__all__ = ["Progress"]

logger = logging.getLogger("cmbprep")


class Progress:
    """Count the steps of a workflow as they end, and say so.

    A node is a step when it has a ``title`` attribute, which the workflow factories set
    on the nodes that take time; nodes without one are plumbing.
    """

    def __init__(self, workflow: pe.Workflow) -> None:
        # Names as a running graph has them: with the outermost workflow's in front.
        nodes = {
            f"{workflow.name}.{name}": workflow.get_node(name)
            for name in workflow.list_node_names()
        }
        self._titles = {name: node.title for name, node in nodes.items() if hasattr(node, "title")}
        self._ended = 0

    def step(self, node: str, status: str, seconds: float) -> None:
        """Note a node's change of state (called by :func:`cmbprep.engine.run`)."""
        title = self._titles.get(node)
        if title is None:
            return
        if status == "start":
            logger.debug("start: %s", title)
            return
        self._ended += 1
        how = "failed" if status == "exception" else "done"
        logger.info("[%d/%d] %s: %s in %.0f s", self._ended, len(self._titles), title, how, seconds)
