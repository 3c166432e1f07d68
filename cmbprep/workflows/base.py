"""The whole workflow: from a plan to a graph. Settings come this far and no further."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.pipeline import engine as pe

from cmbprep.dataset import raw_uri
from cmbprep.metadata import own_uri
from cmbprep.outputs import BLOCK, read_json
from cmbprep.plan import AnatomyPlan, Method, ScanPlan, StagePlan, SubjectPlan
from cmbprep.settings import Settings

from .anatomy import ANATOMY_FIELDS, init_anatomy_wf
from .bridge import init_bridge_wf
from .nodes import buffer
from .scan import PREPROC_FIELDS, init_lesions_wf, init_preproc_wf

if TYPE_CHECKING:
    from cmbprep.engine import Crash

__all__ = ["crashed_scans", "init_cmbprep_wf", "init_subject_wf", "subject_wf_name"]

BRIDGE_FIELDS = ("to_template", "from_template")


def init_cmbprep_wf(
    plans: Sequence[SubjectPlan], *, settings: Settings, method: Method
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
    """
    workflow = pe.Workflow(name="cmbprep_wf", base_dir=str(settings.work))
    bridge = None
    if method.template.id != method.reference.id:
        bridge = init_bridge_wf(
            reference=method.reference, template=method.template, root=str(settings.output_dir)
        )
    for plan in plans:
        subject_wf = init_subject_wf(
            plan, method=method, raw=settings.bids_dir, threads=settings.omp_nthreads
        )
        if bridge is None:
            workflow.add_nodes([subject_wf])
        else:
            workflow.connect(
                [
                    (
                        bridge,
                        subject_wf,
                        [(f"outputnode.{f}", f"inputnode.{f}") for f in BRIDGE_FIELDS],
                    )
                ]
            )
    return workflow


def init_subject_wf(plan: SubjectPlan, *, method: Method, raw: Path, threads: int) -> pe.Workflow:
    """Make the workflow of a participant: each T1w image once, then the scans.

    Parameters
    ----------
    plan
        What there is to compute.
    method
        How scans are processed.
    raw
        The raw dataset, to name sources by.
    threads
        Threads that a node may use where the result does not depend on it.
    """
    workflow = pe.Workflow(name=subject_wf_name(plan))
    inputnode = buffer("inputnode", BRIDGE_FIELDS)
    workflow.add_nodes([inputnode])
    anatomies = {
        anatomy.anatomy.path: _anatomy(anatomy, method=method, raw=raw, threads=threads)
        for anatomy in plan.anatomies
    }
    for scan in plan.scans:
        if scan.todo:
            _add_scan(workflow, scan, anatomies, method=method, raw=raw, threads=threads)
    return workflow


def subject_wf_name(plan: SubjectPlan) -> str:
    """Give the name of a participant's workflow, and of its folder in the work folder.

    Jobs that work on different sessions of a participant at the same time get different
    folders, and a job that is started again finds its own.
    """
    labels = ",".join(unit.label for unit in plan.units)
    return f"{_word(f'sub_{plan.subject}')}_{hashlib.sha256(labels.encode()).hexdigest()[:8]}_wf"


def _word(text: str) -> str:
    """Turn a name into one that nipype takes."""
    return re.sub(r"\W|-", "_", text)


def _anatomy(plan: AnatomyPlan, *, method: Method, raw: Path, threads: int) -> pe.Workflow:
    return init_anatomy_wf(
        t1w=str(plan.anatomy.path),
        src=plan.anatomy.stem,
        reference_t1w=str(method.reference.t1w),
        reference_mask=str(method.reference.brain_mask),
        threads=threads,
        save=_save(
            plan.stage,
            sources=[raw_uri(plan.anatomy.path, raw=raw)],
            parameters={"reference": method.reference.id},
        ),
        name=f"{_word(plan.anatomy.name)}_wf",
    )


def _save(
    stage: StagePlan, *, sources: list[str], parameters: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Give the fixed inputs of a stage's sink."""
    return {
        "root": str(stage.files.root),
        "names": asdict(stage.files.names),
        "fingerprint": stage.fingerprint,
        "sources": sources,
        "parameters": parameters,
        **more,
    }


def _add_scan(
    workflow: pe.Workflow,
    plan: ScanPlan,
    anatomies: dict[Path, pe.Workflow],
    *,
    method: Method,
    raw: Path,
    threads: int,
) -> None:
    """Add the stages of a scan, each fed by what is computed or by what is there."""
    name = _word(plan.scan.name)
    anatomy = _anatomy_source(plan, anatomies, name)
    sources = [raw_uri(path, raw=raw) for path in plan.scan.files]
    if plan.preproc.reused is None:
        preproc: pe.Workflow | pe.Node = _preproc(plan, method, sources, threads)
        if anatomy is not None:
            _connect(workflow, anatomy, preproc, ANATOMY_FIELDS)
    else:
        preproc = _there(f"{name}_preproc", PREPROC_FIELDS, plan.preproc)
    if not plan.lesions.todo:
        workflow.add_nodes([preproc])
        return
    lesions = _lesions(plan, method, raw)
    _connect(workflow, preproc, lesions, PREPROC_FIELDS)
    if anatomy is not None:
        _connect(workflow, anatomy, lesions, ("to_reference", "from_reference"))
        prefix = "outputnode." if isinstance(anatomy, pe.Workflow) else ""
        workflow.connect(anatomy, f"{prefix}judgement", lesions, "inputnode.t1w_judgement")
    if method.template.id != method.reference.id:
        _connect(workflow, workflow.get_node("inputnode"), lesions, BRIDGE_FIELDS)


def _anatomy_source(
    plan: ScanPlan, anatomies: dict[Path, pe.Workflow], name: str
) -> pe.Workflow | pe.Node | None:
    """Give what feeds a scan with anatomy: a workflow, finished files, or nothing."""
    if plan.anatomy is None:
        return None
    if plan.anatomy.stage.reused is None:
        return anatomies[plan.anatomy.anatomy.path]
    return _there(f"{name}_anatomy", ANATOMY_FIELDS, plan.anatomy.stage)


def _there(name: str, fields: tuple[str, ...], stage: StagePlan) -> pe.Node:
    """Make a buffer of files that an earlier run has left."""
    assert stage.reused is not None
    there: dict[str, Any] = {
        field: str(stage.reused[field]) for field in fields if field in stage.reused
    }
    judgement = read_json(stage.files.sidecar)[BLOCK].get("Quality", {})
    return buffer(name, fields, **there, judgement=judgement)


def _connect(
    workflow: pe.Workflow,
    source: pe.Workflow | pe.Node,
    target: pe.Workflow,
    fields: Iterable[str],
) -> None:
    prefix = "outputnode." if isinstance(source, pe.Workflow) else ""
    workflow.connect(
        [(source, target, [(f"{prefix}{field}", f"inputnode.{field}") for field in fields])]
    )


def _preproc(plan: ScanPlan, method: Method, sources: list[str], threads: int) -> pe.Workflow:
    scan, names = plan.scan, plan.preproc.files.names
    return init_preproc_wf(
        magnitudes=[str(echo.magnitude) for echo in scan.echoes],
        echo_times=[echo.echo_time for echo in scan.echoes],
        scan_name=scan.name,
        src=names.src,
        suffix=names.suffix,
        with_t1w=plan.anatomy is not None,
        reference_t1w=str(method.reference.t1w),
        reference_mask=str(method.reference.brain_mask),
        threads=threads,
        save=_save(
            plan.preproc,
            sources=sources,
            parameters={
                "reference": method.reference.id,
                "anatomy": plan.anatomy.anatomy.name if plan.anatomy else None,
            },
            scan=scan,
        ),
        name=f"{_word(scan.name)}_preproc_wf",
    )


def _lesions(plan: ScanPlan, method: Method, raw: Path) -> pe.Workflow:
    from cmbprep.zones import get_scheme

    scan, names = plan.scan, plan.lesions.files.names
    scheme = get_scheme(method.scheme)
    atlas = method.reference.atlas(method.scheme)
    strength = scan.metadata.get("MagneticFieldStrength")
    with_phase = any(echo.phase is not None for echo in scan.echoes)
    read_again = scan.files if with_phase or len(scan.echoes) > 1 else ()
    return init_lesions_wf(
        scan_name=scan.name,
        src=names.src,
        suffix=names.suffix,
        sequence=scan.sequence,
        field_strength=float(strength) if isinstance(strength, int | float) else None,
        magnitudes=[str(echo.magnitude) for echo in scan.echoes] if read_again else [],
        phases=[None if e.phase is None else str(e.phase) for e in scan.echoes]
        if with_phase
        else [],
        phase_units=[echo.phase_units for echo in scan.echoes] if with_phase else [],
        echo_times=[echo.echo_time for echo in scan.echoes],
        with_t1w=plan.anatomy is not None,
        with_bridge=method.template.id != method.reference.id,
        atlas=str(atlas),
        template=str(method.template.t1w),
        scheme=method.scheme,
        detector=method.detector,
        detector_version=method.detector_parameters.get("version"),
        threshold=method.threshold,
        save=_save(
            plan.lesions,
            sources=[
                own_uri(plan.preproc.files, "preproc"),
                *(raw_uri(path, raw=raw) for path in read_again),
            ],
            parameters={
                **method.lesion_parameters,
                "scheme_version": scheme.version,
                "border": scheme.border,
                "border_mm": scheme.border_mm,
                "tolerance_mm": scheme.tolerance_mm,
            },
            scan=scan,
        ),
        name=f"{_word(scan.name)}_lesions_wf",
    )


def crashed_scans(plans: Sequence[SubjectPlan], crashes: Sequence[Crash]) -> dict[str, Crash]:
    """Tell which scans a run has lost: scan name -> the first crash that it depends on.

    A crash in a T1w image's workflow loses every scan that needed it; one in the bridge
    between templates loses all.
    """
    lost: dict[str, Crash] = {}
    for plan in plans:
        for scan in plan.scans:
            stages = [f"{_word(scan.scan.name)}_preproc_wf", f"{_word(scan.scan.name)}_lesions_wf"]
            if scan.anatomy is not None:
                stages.insert(0, f"{_word(scan.anatomy.anatomy.name)}_wf")
            owner = subject_wf_name(plan)
            for crash in crashes:
                parts = crash.node.split(".")
                if "bridge_wf" in parts or (owner in parts and set(stages) & set(parts)):
                    lost.setdefault(scan.scan.name, crash)
    return lost
