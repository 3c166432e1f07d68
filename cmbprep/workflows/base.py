"""The participant level on one page: from plans to the graph of a run.

A stage that is finished already is no part of the graph; its files are the inputs of the others.
Settings come this far and no further: below, nodes take plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nipype.pipeline import engine as pe

from cmbprep.config import Settings
from cmbprep.outputs.files import read_json
from cmbprep.outputs.stages import BLOCK
from cmbprep.plan import Method, StagePlan, SubjectPlan
from cmbprep.workflows.anatomy import add_person_zones, init_anatomy_wf
from cmbprep.workflows.graph import Graph, Results, Step
from cmbprep.workflows.names import subject_wf_name, work_scope
from cmbprep.workflows.scan import init_lesions_wf, init_preproc_wf
from cmbprep.workflows.shared import Shared, add_shared

__all__ = ["init_cmbprep_wf", "init_subject_wf"]


def init_cmbprep_wf(
    plans: Sequence[SubjectPlan],
    *,
    settings: Settings,
    method: Method,
    failures: dict[str, Exception] | None = None,
) -> pe.Workflow:
    """Make the workflow of a batch of participants.

    Parameters
    ----------
    plans
        Participants with something to compute.
    settings
        Where to work and with how many threads.
    method
        How scans are processed.
    failures
        Filled with participant -> error where a participant's workflow cannot be built; the
        others are built all the same. Without it, the error is raised.
    """
    graph = Graph("cmbprep_wf", base_dir=str(settings.work))
    shared = add_shared(graph, plans, settings, method)
    for plan in plans:
        subject = Graph(subject_wf_name(plan, scope=work_scope(settings)), graph)
        try:
            init_subject_wf(subject, plan, shared)
        except Exception as error:
            # Whatever is wrong with one participant, the others go on.
            if failures is None:
                raise
            failures[plan.subject] = error
            graph.workflow.remove_nodes([subject.workflow])
    return graph.workflow


def init_subject_wf(subject: Graph, plan: SubjectPlan, shared: Shared) -> None:
    """Make the workflow of a participant: each T1w image once, then the scans.

    ::

        T1w image ──► anatomy ──┬───────────────┬──► zones of the person, or the atlas
                                ▼               ▼      ▼
             scan ──────────► preproc ──────► lesions ◄┘
                                │               │
                    output dataset, reports, group tables

    Parameters
    ----------
    subject
        The empty graph of the participant.
    plan
        What there is to compute.
    shared
        Method, names, and the nodes that all participants share.
    """
    anatomies: dict[Path, Results] = {}
    zones: dict[Path, Step] = {}
    for scan in (scan for scan in plan.scans if scan.todo):
        anatomy: Results = {}
        if scan.anatomy is not None:
            path = scan.anatomy.anatomy.path
            if path not in anatomies:
                anatomies[path] = finished(scan.anatomy.stage) or init_anatomy_wf(
                    subject, scan.anatomy, shared
                )
            anatomy = anatomies[path]
        preproc = finished(scan.preproc) or init_preproc_wf(subject, scan, anatomy, shared)
        if scan.lesions.todo:
            own = None
            if scan.anatomy is not None and scan.segmentation is not None:
                if path not in zones:
                    zones[path] = add_person_zones(subject, scan.anatomy, anatomy, shared)
                own = zones[path]
            init_lesions_wf(subject, scan, anatomy, preproc, own, shared)


def finished(stage: StagePlan) -> Results:
    """Return what an earlier run has left of a stage; empty if it is to be computed."""
    if stage.reused is None:
        return {}
    quality = read_json(stage.files.sidecar)[BLOCK].get("Quality", {})
    return {**{key: str(path) for key, path in stage.reused.items()}, "judgement": quality}
