"""Progress on the terminal: one line for each step that has ended."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nipype.pipeline import engine as pe

logger = logging.getLogger("cmbprep")


class Progress:
    """Count the steps of a workflow as they end, and say so.

    A node is a step when it has a ``title`` attribute, which the workflow factories set
    on the nodes that take time. The others are shown only if they fail.
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
        if status == "start":
            if title is not None:
                logger.debug("start: %s", title)
            return
        failed = status == "exception"
        if title is None:
            if failed:
                logger.warning("%s: failed after %.0f s", self._describe(node), seconds)
            return
        self._ended += 1
        count = f"[{self._ended}/{len(self._titles)}]"
        if failed:
            logger.warning("%s %s: failed after %.0f s", count, title, seconds)
        else:
            logger.info("%s %s: done in %.0f s", count, title, seconds)

    def _describe(self, node: str) -> str:
        """Name a node without a title after the image that its neighbours work on."""
        parent, _, name = node.rpartition(".")
        near = (
            title.partition(":")[0]
            for other, title in self._titles.items()
            if other.rpartition(".")[0] == parent and ":" in title
        )
        image = next(near, None) or _image_of(parent)
        return f"{image}: {name}" if image else name


def _image_of(workflow: str) -> str:
    """Read the name of an image from the names of the workflows around a node.

    >>> _image_of("cmbprep_wf.sub_01_0a1b2c3d_wf.sub_01_run_2_swi_lesions_wf")
    'sub-01_run-2_swi'
    """
    name = re.sub(r"(_preproc|_lesions)?_wf$", "", workflow.rpartition(".")[2])
    name = re.sub(r"^(sub_[^_]+)_[0-9a-f]{8}$", r"\1", name)
    if not name.startswith("sub_"):
        return ""
    return re.sub(r"(^|_)(sub|ses|acq|ce|rec|run|echo|part|dir|space|desc|chunk)_", r"\1\2-", name)
