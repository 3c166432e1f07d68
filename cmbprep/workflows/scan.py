"""The stages of a blood-sensitive scan: preprocessing, and lesions."""

from __future__ import annotations

from typing import Any

from cmbprep.bids.model import Scan
from cmbprep.interfaces.figures import DrawLesions
from cmbprep.interfaces.images import ReadMagnitude
from cmbprep.interfaces.lesions import DetectLesions, PlaceLesions
from cmbprep.interfaces.registration import RegisterToT1w
from cmbprep.outputs.sidecars import own_uri
from cmbprep.plan import Method, ScanPlan
from cmbprep.workflows.graph import Graph, Results, Step
from cmbprep.workflows.image import add_correction, add_figures, add_registration
from cmbprep.workflows.names import scan_name
from cmbprep.workflows.shared import Shared


def add_preproc_wf(subject: Graph, plan: ScanPlan, anatomy: Results, shared: Shared) -> Results:
    """Correct a scan's bias, find the brain, and register it.

    ::

                  anatomy
                     ▼
        read ──► register ──► correct ──► draw ──► ds_preproc
          └──────────────────────┘

    Parameters
    ----------
    subject
        The participant's graph, which the workflow is added to.
    plan
        The scan.
    anatomy
        Results of :func:`cmbprep.workflows.anatomy.add_anatomy_wf`, or those of an earlier run.
        If they are empty, the scan is registered to the reference template.
    shared
        Method and names.

    Returns
    -------
    dict
        ``preproc``, ``brain_mask``: on the scan's own grid. ``to_target``, ``from_target``:
        transforms to and from the T1w image or the reference. ``to_direct``, ``from_direct``: to
        and from the reference, where the T1w image could not be used. ``judgement``: figures of
        the registration, and its route.
    """
    scan = plan.scan
    graph = Graph(scan_name(scan, "preproc"), subject, image=scan.name)
    read = graph.add(
        "read",
        ReadMagnitude(),
        "reading",
        in_files=[str(echo.magnitude) for echo in scan.echoes],
        echo_times=[echo.echo_time for echo in scan.echoes],
    )
    if anatomy:
        target = "t1w"
        fixed = {"fixed": anatomy["preproc"], "fixed_mask": anatomy["brain_mask"]}
        register = _register_to_t1w(graph, read, anatomy, shared)
    else:
        target, fixed = "reference", shared.fixed
        register = add_registration(graph, read, shared)
    correct = add_correction(graph, read, register, scan.brain_mask)
    names = plan.preproc.files.names
    draw = add_figures(graph, read, correct, register[f"to_{target}"], fixed, names)
    files = {
        **correct.outputs("preproc", "brain_mask"),
        "to_target": register[f"to_{target}"],
        "from_target": register[f"from_{target}"],
    }
    if anatomy:
        # Where the way through the T1w image was not taken.
        files["to_direct"] = register["to_reference"]
        files["from_direct"] = register["from_reference"]
    given = scan.brain_mask
    graph.save(
        plan.preproc,
        sources=shared.uris(*scan.files, given),
        parameters={
            "reference": shared.method.reference.id,
            "anatomy": plan.anatomy.anatomy.name if plan.anatomy else None,
            **({"brain_mask": "given", "brain_mask_from": given.source} if given else {}),
        },
        quality=(correct, register),
        warnings=(read, register, correct),
        figures=draw,
        scan=scan,
        **files,
    )
    return {**files, "judgement": register["quality"]}


def _register_to_t1w(graph: Graph, read: Step, anatomy: Results, shared: Shared) -> Step:
    """Add the rigid registration of a scan to its T1w image; the template is the fallback."""
    return graph.add(
        "register",
        RegisterToT1w(),
        "registration to the T1w",
        memory=2.0,
        in_file=read["rough"],
        t1w=anatomy["preproc"],
        t1w_mask=anatomy["brain_mask"],
        t1w_judgement=anatomy["judgement"],
        reference=shared.method.reference.t1w,
        reference_mask=shared.method.reference.brain_mask,
    )


def add_lesions_wf(
    subject: Graph,
    plan: ScanPlan,
    anatomy: Results,
    preproc: Results,
    shared: Shared,
) -> None:
    """Find the lesions of a scan, place them, and draw them.

    ::

        preproc ──► detect ──► place ──► draw ──► ds_lesions
                                 ▲
           anatomy, zones of the person or atlas, way between templates

    Parameters
    ----------
    subject
        The participant's graph, which the workflow is added to.
    plan
        The scan.
    anatomy, preproc
        Results of :func:`cmbprep.workflows.anatomy.add_anatomy_wf`, empty without a T1w image,
        and of :func:`add_preproc_wf`, or those of an earlier run. ``anatomy["zones"]`` is the
        node that draws the person's own zones, if there is one.
    shared
        Method, names, atlas, and the way between the templates.
    """
    scan, names, method = plan.scan, plan.lesions.files.names, shared.method
    graph = Graph(scan_name(scan, "lesions"), subject, image=scan.name)
    detect = graph.add(
        "detect",
        DetectLesions(),
        "detection",
        memory=4.0 if scan.has_phase else 3.0,
        in_file=preproc["preproc"],
        mask=preproc["brain_mask"],
        **_detection(scan, method),
    )
    place = _add_place(graph, detect, anatomy, preproc, shared)
    draw = graph.add(
        "draw",
        DrawLesions(),
        "lesion figures",
        in_file=preproc["preproc"],
        mask=preproc["brain_mask"],
        dseg=detect["dseg"],
        **place.outputs("table", "atlas"),
        scheme=method.scheme,
        src=names.src,
        suffix=names.suffix,
    )
    records = (detect, place, *([anatomy["zones"]] if "zones" in anatomy else []))
    given = plan.segmentation
    own = {"zones": "segmentation", "zones_from": given.source} if given else {}
    graph.save(
        plan.lesions,
        sources=[
            own_uri(plan.preproc.files, "preproc"),
            *shared.uris(*scan.read_again, given),
        ],
        parameters={**method.lesion_parameters, **method.scheme_parameters, **own},
        quality=records,
        warnings=records,
        figures=draw,
        scan=scan,
        **detect.outputs("probseg", "mask", "dseg", "swi", "candidates", "details"),
        **place.outputs("table", "atlas", "template_mask", "view"),
    )


def _add_place(
    graph: Graph,
    detect: Step,
    anatomy: Results,
    preproc: Results,
    shared: Shared,
) -> Step:
    """Add the node that places lesions in zones and in the template."""
    # All that bring images over, from the scan's to those between the templates.
    known = {**anatomy, **preproc, **shared.bridge}
    transforms = {key: known[key] for key in known if key.startswith(("to_", "from_"))}
    return graph.add(
        "place",
        PlaceLesions(),
        "zones",
        memory=1.5,
        in_file=preproc["preproc"],
        **detect.outputs("dseg", "lesions"),
        brain_mask=preproc["brain_mask"],
        atlas=anatomy["zones"]["atlas"] if "zones" in anatomy else shared.atlas,
        person_atlas="zones" in anatomy,
        template=shared.method.template.t1w,
        scheme=shared.method.scheme,
        judgement=preproc["judgement"],
        t1w_judgement=anatomy.get("judgement"),
        **transforms,
    )


def _detection(scan: Scan, method: Method) -> dict[str, Any]:
    """Return how a scan was acquired (tesla, seconds), its raw images, and the detector."""
    strength = scan.metadata.get("MagneticFieldStrength")
    echoes = scan.echoes if scan.has_phase else ()
    return {
        "sequence": scan.sequence,
        "field_strength": float(strength) if isinstance(strength, int | float) else None,
        "echo_times": [echo.echo_time for echo in scan.echoes],
        "magnitudes": [str(echo.magnitude) for echo in scan.echoes if scan.read_again],
        "phases": [echo.phase and str(echo.phase) for echo in echoes],
        "phase_units": [echo.phase_units for echo in echoes],
        "detector": method.detector,
        "detector_version": method.detector_parameters.get("version"),
        "threshold": method.threshold,
    }
