"""The participant level on one page: from plans to the graph of a run.

A stage that is finished already is no part of the graph; its files are the inputs of the others.
Settings come this far and no further: below, nodes take plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype.pipeline import engine as pe

from cmbprep.config import Settings
from cmbprep.outputs.files import read_json
from cmbprep.outputs.stages import BLOCK
from cmbprep.plan import Method, StagePlan, SubjectPlan
from cmbprep.spatial.ants_process import THREADS
from cmbprep.workflows.anatomy import add_anatomy_wf, add_person_zones
from cmbprep.workflows.graph import Graph, Results
from cmbprep.workflows.names import subject_wf_name, work_scope
from cmbprep.workflows.scan import add_lesions_wf, add_preproc_wf
from cmbprep.workflows.shared import Shared, add_atlas, add_bridge


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
    shared = Shared(
        method=method,
        raw=settings.bids_dir,
        derivatives=settings.derivatives,
        threads=min(settings.omp_nthreads, THREADS),
        atlas=add_atlas(graph, method) if any(plan.needs_atlas for plan in plans) else None,
        bridge=add_bridge(graph, settings.output_dir, method),
    )
    for plan in plans:
        subject = Graph(subject_wf_name(plan, scope=work_scope(settings)), graph)
        try:
            add_subject_wf(subject, plan, shared)
        except Exception as error:
            # Whatever is wrong with one participant, the others go on.
            if failures is None:
                raise
            failures[plan.subject] = error
            graph.workflow.remove_nodes([subject.workflow])
    return graph.workflow


def add_subject_wf(subject: Graph, plan: SubjectPlan, shared: Shared) -> None:
    """Make the workflow of a participant: each T1w image once, then the scans.

    ::

        T1w image ──► anatomy ──┬──────────────┬──► zones of the person, or the atlas
                                ▼              ▼                  │
             scan ──────────► preproc ─────► lesions ◄────────────┘

    Parameters
    ----------
    subject
        The empty graph of the participant.
    plan
        What there is to compute.
    shared
        Method, names, and the nodes that all participants share.
    """
    anatomies: dict[Path, dict[str, Any]] = {}
    for image in plan.anatomies:
        results = finished(image.stage) or add_anatomy_wf(subject, image, shared)
        anatomies[image.anatomy.path] = dict(results)
        if plan.needs_zones(image):
            zones = add_person_zones(subject, image, results, shared)
            anatomies[image.anatomy.path]["zones"] = zones
    for scan in (scan for scan in plan.scans if scan.todo):
        anatomy = anatomies[scan.anatomy.anatomy.path] if scan.anatomy else {}
        preproc = finished(scan.preproc) or add_preproc_wf(subject, scan, anatomy, shared)
        if scan.lesions.todo:
            add_lesions_wf(subject, scan, anatomy, preproc, shared)


def finished(stage: StagePlan) -> Results:
    """Return what an earlier run has left of a stage; empty if it is to be computed."""
    if stage.reused is None:
        return {}
    quality = read_json(stage.files.sidecar)[BLOCK].get("Quality", {})
    return {**{key: str(path) for key, path in stage.reused.items()}, "judgement": quality}
