"""The whole workflow: from a plan to a graph. Settings come this far and no further."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.pipeline import engine as pe

from cmbprep.bids.derivatives import DerivativeFolder
from cmbprep.bids.model import GivenAnatomy, GivenFile, Scan
from cmbprep.config import Settings
from cmbprep.interfaces.zones import DrawAtlas
from cmbprep.outputs.dataset import given_uri, raw_uri
from cmbprep.outputs.files import read_json
from cmbprep.outputs.sidecars import own_uri
from cmbprep.outputs.stages import BLOCK
from cmbprep.plan import AnatomyPlan, Method, ScanPlan, StagePlan, SubjectPlan
from cmbprep.spatial.ants_process import THREADS
from cmbprep.workflows.anatomy import ANATOMY_FIELDS, init_anatomy_wf
from cmbprep.workflows.bridge import init_bridge_wf
from cmbprep.workflows.given import init_given_anatomy_wf, person_zones_node
from cmbprep.workflows.nodes import buffer, step
from cmbprep.workflows.scan import PREPROC_FIELDS, ZONE_FIELDS, init_lesions_wf, init_preproc_wf

if TYPE_CHECKING:
    from cmbprep.engine import Crash

__all__ = [
    "crashed_scans",
    "init_cmbprep_wf",
    "init_subject_wf",
    "shared_folders",
    "shared_name",
    "subject_wf_name",
    "work_scope",
]

BRIDGE_FIELDS = ("to_template", "from_template")
#: Name of the node that draws the template's atlas with another border, and of the workflow
#: between templates. Each run appends its own name (:func:`shared_name`).
ATLAS_NODE = "draw_atlas"
BRIDGE_WF = "bridge_wf"


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
    workflow = pe.Workflow(name="cmbprep_wf", base_dir=str(settings.work))
    atlas = None
    if method.moved_border and any(_needs_atlas(plan) for plan in plans):
        atlas = _atlas_node(method)
    bridge = _bridge(settings, method)
    for plan in plans:
        try:
            subject_wf = init_subject_wf(
                plan,
                scope=work_scope(settings),
                method=method,
                raw=settings.bids_dir,
                derivatives=settings.derivatives,
                threads=min(settings.omp_nthreads, THREADS),
            )
        except Exception as error:
            # Whatever is wrong with one participant, the others go on.
            if failures is None:
                raise
            failures[plan.subject] = error
            continue
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
        if atlas is not None and _needs_atlas(plan):
            workflow.connect(atlas, "atlas", subject_wf, "inputnode.atlas")
    return workflow


def _bridge(settings: Settings, method: Method) -> pe.Workflow | None:
    """Make the workflow between reference and output template; None if they are the same."""
    if method.template.id == method.reference.id:
        return None
    return init_bridge_wf(
        reference=method.reference,
        template=method.template,
        root=str(settings.output_dir),
        name=shared_name(BRIDGE_WF),
    )


def _needs_atlas(plan: SubjectPlan) -> bool:
    """Return whether some lesions are placed by the template's atlas."""
    return any(
        scan.todo and scan.lesions.todo and _segmentation(scan) is None for scan in plan.scans
    )


def _segmentation(plan: ScanPlan) -> GivenFile | None:
    """Return the person's own segmentation, which zones are then drawn from."""
    given = plan.anatomy.anatomy.given if plan.anatomy else None
    return given.segmentation if given else None


def _atlas_node(method: Method) -> pe.Node:
    reference, mars = method.reference, method.reference.atlas("mars")
    assert mars is not None
    draw = DrawAtlas(
        parcellation=str(reference.parcellation),
        brain_mask=str(reference.brain_mask),
        mars=str(mars),
        scheme=method.scheme,
        border_mm=method.zone_scheme.border_mm,
    )
    return step(draw, shared_name(ATLAS_NODE), "zone atlas with the border asked for", memory=1.5)


def init_subject_wf(
    plan: SubjectPlan,
    *,
    method: Method,
    raw: Path,
    threads: int,
    scope: str,
    derivatives: Sequence[DerivativeFolder] = (),
) -> pe.Workflow:
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
        Processors that a registration is given; its result does not depend on it.
    scope
        From :func:`work_scope`.
    derivatives
        Folders of other programs' results, to name sources by.
    """
    naming = _Naming(raw, tuple(derivatives))
    workflow = pe.Workflow(name=subject_wf_name(plan, scope=scope))
    inputnode = buffer("inputnode", (*BRIDGE_FIELDS, "atlas"))
    workflow.add_nodes([inputnode])
    anatomies = {
        anatomy.anatomy.path: _anatomy(anatomy, method=method, naming=naming, threads=threads)
        for anatomy in plan.anatomies
    }
    workflow.add_nodes(list(anatomies.values()))
    zones: dict[Path, pe.Node] = {}
    for scan in plan.scans:
        if scan.todo and (scan.preproc.todo or scan.lesions.todo):
            _add_scan(
                workflow, scan, anatomies, zones, method=method, naming=naming, threads=threads
            )
    return workflow


def subject_wf_name(plan: SubjectPlan, *, scope: str) -> str:
    """Return the name of a participant's workflow, and of its folder in the work folder.

    Jobs that work on different sessions of a participant at the same time get different
    folders, as do studies that share a work folder. A job that is started again finds its own.

    Parameters
    ----------
    plan
        The participant.
    scope
        From :func:`work_scope`.
    """
    key = "\0".join((scope, *(unit.label for unit in plan.units)))
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{_word(f'sub_{plan.subject}')}_{digest}_wf"


def work_scope(settings: Settings) -> str:
    """Return what tells a study from others that use the same work folder.

    Paths are not enough: in containers every study is mounted at the same ones.
    """
    parts = []
    for folder in (settings.bids_dir, settings.output_dir):
        real = folder.resolve()
        parts += [str(real), str(real.stat().st_ino) if real.exists() else ""]
    return "\0".join(parts)


def shared_name(name: str) -> str:
    """Return the name, in this run, of a node that all its participants share.

    Runs at the same time must not share its folder, which lies beside the participants' ones.
    """
    return f"{name}_{_word(socket.gethostname())}_{os.getpid()}"


def shared_folders(folder: Path) -> list[Path]:
    """List the folders of shared nodes of this run, and of runs on this machine that were killed.

    Parameters
    ----------
    folder
        The folder of the whole workflow.
    """
    found = []
    for kind in (ATLAS_NODE, BRIDGE_WF):
        prefix = f"{kind}_{_word(socket.gethostname())}_"
        for path in folder.glob(f"{prefix}*"):
            pid = path.name.removeprefix(prefix)
            if pid.isdecimal() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
                found.append(path)
    return sorted(found)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _word(text: str) -> str:
    """Turn a name into one that nipype takes."""
    return re.sub(r"\W|-", "_", text)


@dataclass(frozen=True)
class _Naming:
    """Names input files by BIDS URIs."""

    raw: Path
    folders: tuple[DerivativeFolder, ...]

    def raw_files(self, paths: Iterable[Path]) -> list[str]:
        return [raw_uri(path, raw=self.raw) for path in paths]

    def given(self, files: Iterable[GivenFile | None]) -> list[str]:
        return [given_uri(file, self.folders) for file in files if file is not None]


def _anatomy(plan: AnatomyPlan, *, method: Method, naming: _Naming, threads: int) -> pe.Workflow:
    anatomy, given = plan.anatomy, plan.anatomy.given
    parameters: dict[str, Any] = {"reference": method.reference.id}
    is_raw = given is None or given.t1w is None
    sources = naming.raw_files([anatomy.path] if is_raw else [])
    if given is not None and given.used:
        sources += naming.given(given.used.values())
        parameters |= _provenance(given)
    fixed: dict[str, Any] = {
        "t1w": str(anatomy.path),
        "src": anatomy.stem,
        "reference_t1w": str(method.reference.t1w),
        "reference_mask": str(method.reference.brain_mask),
        "save": _save(plan.stage, sources=sources, parameters=parameters),
        "name": f"{_word(anatomy.name)}_wf",
        "threads": threads,
    }
    mask = None if given is None or given.brain_mask is None else str(given.brain_mask.path)
    if given is None or given.t1w is None:
        return init_anatomy_wf(**fixed, given_mask=mask)
    steps = given.transforms
    return init_given_anatomy_wf(
        **fixed,
        brain_mask=mask,
        transforms=None if steps is None else (str(steps[0].path), str(steps[1].path)),
    )


def _provenance(given: GivenAnatomy) -> dict[str, Any]:
    """Return which results of a T1w image were given, by whom, and which were computed."""
    parts = (
        ("bias_correction", "the bias-corrected T1w image", given.t1w),
        ("brain_mask", "its brain mask", given.brain_mask),
        ("registration", "its transforms to the template", (given.transforms or (None,))[0]),
    )
    named = [f"{what} ({file.source})" for _, what, file in parts if file is not None]
    how = {key: "computed" if file is None else "given" for key, _, file in parts}
    return {"anatomy": "given", "given": ", ".join(named), **how}


def _save(
    stage: StagePlan, *, sources: list[str], parameters: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Return the fixed inputs of a stage's sink."""
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
    zones: dict[Path, pe.Node],
    *,
    method: Method,
    naming: _Naming,
    threads: int,
) -> None:
    """Add the stages of a scan, each fed by what is computed or by what is there."""
    name = _word(plan.scan.name)
    anatomy = _anatomy_source(plan, anatomies, name)
    sources = naming.raw_files(plan.scan.files) + naming.given([plan.scan.brain_mask])
    if plan.preproc.reused is None:
        preproc: pe.Workflow | pe.Node = _preproc(plan, method, sources, threads)
        if anatomy is not None:
            _connect(workflow, anatomy, preproc, ANATOMY_FIELDS)
    else:
        preproc = _there(f"{name}_preproc", PREPROC_FIELDS, plan.preproc)
    if not plan.lesions.todo:
        workflow.add_nodes([preproc])
        return
    lesions = _lesions(plan, method, naming)
    _connect(workflow, preproc, lesions, PREPROC_FIELDS)
    if anatomy is not None:
        _connect(workflow, anatomy, lesions, ("to_reference", "from_reference"))
        prefix = "outputnode." if isinstance(anatomy, pe.Workflow) else ""
        workflow.connect(anatomy, f"{prefix}judgement", lesions, "inputnode.t1w_judgement")
    if anatomy is not None and _segmentation(plan) is not None:
        assert plan.anatomy is not None
        path = plan.anatomy.anatomy.path
        if path not in zones:
            zones[path] = _zones(plan.anatomy, anatomy, workflow, method)
        fields = zip(("atlas", "quality", "warnings"), ZONE_FIELDS, strict=True)
        workflow.connect([(zones[path], lesions, [(a, f"inputnode.{b}") for a, b in fields])])
    elif method.moved_border:
        _connect(workflow, workflow.get_node("inputnode"), lesions, ("atlas",))
    if method.template.id != method.reference.id:
        _connect(workflow, workflow.get_node("inputnode"), lesions, BRIDGE_FIELDS)


def _anatomy_source(
    plan: ScanPlan, anatomies: dict[Path, pe.Workflow], name: str
) -> pe.Workflow | pe.Node | None:
    """Return the source of a scan's anatomy: a workflow, finished files, or None."""
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
                **_given_mask(scan),
            },
            scan=scan,
        ),
        given_mask=None if scan.brain_mask is None else str(scan.brain_mask.path),
        name=f"{_word(scan.name)}_preproc_wf",
    )


def _given_mask(scan: Scan) -> dict[str, str]:
    if scan.brain_mask is None:
        return {}
    return {"brain_mask": "given", "brain_mask_from": scan.brain_mask.source}


def _zones(
    plan: AnatomyPlan, source: pe.Workflow | pe.Node, workflow: pe.Workflow, method: Method
) -> pe.Node:
    """Add the node that draws a person's zones from their segmentation."""
    given = plan.anatomy.given
    assert given is not None and given.segmentation is not None
    zones = person_zones_node(
        _zones_name(plan),
        title=f"{plan.anatomy.name}: zones of the person",
        segmentation=str(given.segmentation.path),
        from_fsnative=None if given.from_fsnative is None else str(given.from_fsnative.path),
        parcellation=str(method.reference.parcellation),
        scheme=method.scheme,
        border_mm=method.zone_scheme.border_mm,
    )
    prefix = "outputnode." if isinstance(source, pe.Workflow) else ""
    # Points go against the direction that a file is named for.
    fields = (("brain_mask", "brain_mask"), ("from_reference", "to_reference"))
    workflow.connect([(source, zones, [(f"{prefix}{a}", b) for a, b in fields])])
    return zones


def _zones_name(plan: AnatomyPlan) -> str:
    return f"{_word(plan.anatomy.name)}_zones"


def _lesions(plan: ScanPlan, method: Method, naming: _Naming) -> pe.Workflow:
    scan, names = plan.scan, plan.lesions.files.names
    scheme, segmentation = method.zone_scheme, _segmentation(plan)
    own = {"zones": "segmentation", "zones_from": segmentation.source} if segmentation else {}
    atlas = None if method.moved_border else str(method.reference.atlas(method.scheme))
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
        atlas=atlas,
        template=str(method.template.t1w),
        scheme=method.scheme,
        detector=method.detector,
        detector_version=method.detector_parameters.get("version"),
        threshold=method.threshold,
        save=_save(
            plan.lesions,
            sources=[
                own_uri(plan.preproc.files, "preproc"),
                *naming.raw_files(read_again),
                *naming.given([segmentation]),
            ],
            parameters={
                **method.lesion_parameters,
                "scheme_version": scheme.version,
                "border": scheme.border,
                "border_mm": scheme.border_mm,
                "tolerance_mm": scheme.tolerance_mm,
                **own,
            },
            scan=scan,
        ),
        with_person=segmentation is not None,
        name=f"{_word(scan.name)}_lesions_wf",
    )


def lost_by_anatomy(plan: ScanPlan, crash: Crash) -> bool:
    """Return whether a scan was lost by its T1w image, or by what other programs made of it.

    A process that was killed, or a full disk, is no fault of the image.
    """
    if plan.anatomy is None or crash.transient:
        return False
    parts = set(crash.node.split("."))
    return bool({f"{_word(plan.anatomy.anatomy.name)}_wf", _zones_name(plan.anatomy)} & parts)


def crashed_scans(
    plans: Sequence[SubjectPlan], crashes: Sequence[Crash], *, scope: str
) -> dict[str, Crash]:
    """Return the scans that a run has lost: scan name -> the first crash that it depends on.

    A crash in a T1w image's workflow loses every scan that needed it; one in the bridge
    between templates, in the atlas that all share, or of the run itself, loses all.
    """
    lost: dict[str, Crash] = {}
    for plan in plans:
        for scan in plan.scans:
            stages = [f"{_word(scan.scan.name)}_preproc_wf", f"{_word(scan.scan.name)}_lesions_wf"]
            if scan.anatomy is not None:
                stages.insert(0, f"{_word(scan.anatomy.anatomy.name)}_wf")
                stages.append(_zones_name(scan.anatomy))
            owner = subject_wf_name(plan, scope=scope)
            for crash in crashes:
                parts = crash.node.split(".")
                shared = any(part.startswith((BRIDGE_WF, ATLAS_NODE)) for part in parts)
                if shared or len(parts) == 1 or (owner in parts and set(stages) & set(parts)):
                    lost.setdefault(scan.scan.name, crash)
    return lost
