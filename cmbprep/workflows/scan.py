"""Workflows of a blood-sensitive scan: preprocessing, and lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nipype.pipeline import engine as pe

from cmbprep.interfaces.anatomy import RegisterToReference, RegisterToT1w
from cmbprep.interfaces.figures import DrawLesions, DrawRegistration
from cmbprep.interfaces.images import ReadMagnitude
from cmbprep.interfaces.lesions import DetectLesions, PlaceLesions
from cmbprep.workflows.anatomy import ANATOMY_FIELDS
from cmbprep.workflows.image import add_image_steps
from cmbprep.workflows.nodes import buffer, merge_lists, merge_values, save_stage, step

__all__ = ["PREPROC_FIELDS", "ZONE_FIELDS", "init_lesions_wf", "init_preproc_wf"]

#: What preprocessing gives to the search for lesions.
PREPROC_FIELDS = (
    "preproc",
    "brain_mask",
    "to_target",
    "from_target",
    "to_direct",
    "from_direct",
    "judgement",
)

#: What the node that draws a person's zones gives to the lesions.
ZONE_FIELDS = ("zones", "zones_quality", "zones_warnings")


def init_preproc_wf(
    *,
    magnitudes: Sequence[str],
    echo_times: Sequence[float | None],
    scan_name: str,
    src: str,
    suffix: str,
    with_t1w: bool,
    reference_t1w: str,
    reference_mask: str,
    threads: int,
    save: dict[str, Any],
    given_mask: str | None = None,
    name: str = "preproc_wf",
) -> pe.Workflow:
    """Correct a scan's bias, find the brain, and register it.

    Parameters
    ----------
    magnitudes, echo_times
        Raw magnitude images, one an echo, and their echo times in seconds.
    scan_name
        What messages call the scan.
    src, suffix
        Stem and suffix of the figures' names.
    with_t1w
        Register to the T1w image that comes through ``inputnode``; else to the reference
        template.
    reference_t1w, reference_mask
        Head and brain mask of the reference template.
    threads
        Processors that a registration to the template is given; its result does not depend on it.
    save
        Fixed inputs of the sink.
    given_mask
        A brain mask of another program, which is used instead of one made here.

    Inputs
    ------
    preproc, brain_mask, to_reference, from_reference, judgement
        Of the T1w image, if there is one.

    Outputs
    -------
    preproc, brain_mask
        On the scan's own grid.
    to_target, from_target
        Transforms to and from the T1w image or the reference template.
    to_direct, from_direct
        To and from the reference template, where the T1w image could not be used.
    judgement
        Figures of the registration, and the way that was taken.
    """
    workflow = pe.Workflow(name=name)
    inputnode = buffer("inputnode", ANATOMY_FIELDS)
    read = step(
        ReadMagnitude(in_files=[*magnitudes], echo_times=[*echo_times]),
        "read",
        f"{scan_name}: reading",
    )
    target = "T1w" if with_t1w else "template"
    register = step(
        RegisterToT1w(reference=reference_t1w, reference_mask=reference_mask)
        if with_t1w
        else RegisterToReference(reference=reference_t1w, reference_mask=reference_mask),
        "register",
        f"{scan_name}: registration to the {target}",
        memory=2.0,
        threads=1 if with_t1w else threads,
    )
    draw_registration = step(
        DrawRegistration(
            fixed_name=target, moving_name="scan", file_name=f"{src}_desc-registration_{suffix}.svg"
        ),
        "draw_registration",
        f"{scan_name}: figure of the registration",
    )
    if with_t1w:
        to_target, from_target = "to_t1w", "from_t1w"
        workflow.connect(
            [
                (inputnode, register, [("preproc", "t1w"), ("brain_mask", "t1w_mask")]),
                (inputnode, register, [("judgement", "t1w_judgement")]),
                (
                    inputnode,
                    draw_registration,
                    [("preproc", "fixed"), ("brain_mask", "fixed_mask")],
                ),
            ]
        )
    else:
        to_target, from_target = "to_reference", "from_reference"
        draw_registration.inputs.fixed = reference_t1w
        draw_registration.inputs.fixed_mask = reference_mask
    ds_preproc = save_stage("ds_preproc", stage="preproc", **save)
    outputnode = buffer("outputnode", PREPROC_FIELDS)
    correct, mask = add_image_steps(
        workflow,
        read=read,
        register=register,
        draw_registration=draw_registration,
        to_fixed=to_target,
        sink=ds_preproc,
        title=scan_name,
        src=src,
        suffix=suffix,
        given_mask=given_mask,
    )
    links = [
        (correct, "out_file", "preproc"),
        (mask, "brain_mask", "brain_mask"),
        (register, to_target, "to_target"),
        (register, from_target, "from_target"),
    ]
    if with_t1w:
        links += [
            (register, "to_reference", "to_direct"),
            (register, "from_reference", "from_direct"),
        ]
    for source, output, field in links:
        workflow.connect(source, output, ds_preproc, field)
        workflow.connect(source, output, outputnode, field)
    workflow.connect(register, "quality", outputnode, "judgement")
    return workflow


def init_lesions_wf(
    *,
    scan_name: str,
    src: str,
    suffix: str,
    sequence: str,
    field_strength: float | None,
    echo_times: Sequence[float | None],
    magnitudes: Sequence[str],
    phases: Sequence[str | None],
    phase_units: Sequence[str | None],
    with_t1w: bool,
    with_bridge: bool,
    atlas: str | None,
    template: str,
    scheme: str,
    detector: str,
    detector_version: str | None,
    threshold: float | None,
    save: dict[str, Any],
    with_person: bool = False,
    name: str = "lesions_wf",
) -> pe.Workflow:
    """Find the lesions of a scan, place them, and draw them.

    Parameters
    ----------
    scan_name
        What messages call the scan.
    src, suffix
        Stem and suffix of the figures' names.
    sequence, field_strength, echo_times
        Acquisition parameters for the detector (tesla, seconds).
    magnitudes, phases, phase_units
        Raw images, one an echo, and the units that the phases' sidecars name; empty where the
        preprocessed image is all there is.
    with_t1w
        Whether the scan was registered to a T1w image, so that the way to the reference
        template has two parts.
    with_bridge
        Whether the output template is another one than the reference.
    atlas
        Zone atlas in the reference space; None where it comes through ``inputnode``.
    template
        An image on the grid of the output template.
    scheme, detector, threshold
        As in :class:`cmbprep.plan.Method`.
    detector_version
        Version of the detector when the run was planned; another one later is an error.
    save
        Fixed inputs of the sink.
    with_person
        Whether the person's own zones, in the space of the T1w image, take the place of the atlas.

    Inputs
    ------
    preproc, brain_mask, to_target, from_target, to_direct, from_direct, judgement
        From :func:`init_preproc_wf`.
    to_reference, from_reference, t1w_judgement
        From :func:`cmbprep.workflows.anatomy.init_anatomy_wf`, if there is a T1w image.
    to_template, from_template
        Displacement fields between the reference and the output template, if they differ.
    atlas
        Zone atlas in the reference space, if it is not the packaged one.
    zones, zones_quality, zones_warnings
        Of the node that draws the person's zones, if there is one.
    """
    workflow = pe.Workflow(name=name)
    fields = ("to_reference", "from_reference", "t1w_judgement", "to_template", "from_template")
    inputnode = buffer("inputnode", (*PREPROC_FIELDS, *fields, "atlas", *ZONE_FIELDS))
    detect = step(
        DetectLesions(
            sequence=sequence,
            field_strength=field_strength,
            echo_times=[*echo_times],
            magnitudes=[*magnitudes],
            phases=[*phases],
            phase_units=[*phase_units],
            detector=detector,
            detector_version=detector_version,
            threshold=threshold,
        ),
        "detect",
        f"{scan_name}: detection",
        memory=4.0 if phases else 3.0,
    )
    place = step(
        PlaceLesions(template=template, scheme=scheme),
        "place",
        f"{scan_name}: zones",
        memory=1.5,
    )
    draw = step(
        DrawLesions(scheme=scheme, src=src, suffix=suffix), "draw", f"{scan_name}: lesion figures"
    )
    _connect_ways(workflow, inputnode, place, with_t1w=with_t1w, with_bridge=with_bridge)
    warnings = merge_lists("warnings", 3 if with_person else 2)
    quality = merge_values("quality", ("detect", "place", *(("zones",) if with_person else ())))
    if with_person:
        _connect_person(workflow, inputnode, place)
        workflow.connect(inputnode, "zones_warnings", warnings, "in3")
        workflow.connect(inputnode, "zones_quality", quality, "zones")
    elif atlas is not None:
        place.inputs.atlas = atlas
    else:
        workflow.connect(inputnode, "atlas", place, "atlas")
    ds_lesions = save_stage("ds_lesions", stage="lesions", **save)
    workflow.connect(
        [
            (inputnode, detect, [("preproc", "in_file"), ("brain_mask", "mask")]),
            (inputnode, place, [("brain_mask", "brain_mask")]),
            (inputnode, draw, [("preproc", "in_file"), ("brain_mask", "mask")]),
            (detect, place, [("dseg", "dseg"), ("lesions", "lesions")]),
            (detect, draw, [("dseg", "dseg")]),
            (place, draw, [("table", "table"), ("atlas", "atlas")]),
            (detect, warnings, [("warnings", "in1")]),
            (place, warnings, [("warnings", "in2")]),
            (detect, quality, [("quality", "detect")]),
            (place, quality, [("quality", "place")]),
            (warnings, ds_lesions, [("out", "warnings")]),
            (quality, ds_lesions, [("out", "quality")]),
            (draw, ds_lesions, [("figures", "figures")]),
            (draw, ds_lesions, [("missing_figures", "missing_figures")]),
            (detect, ds_lesions, [("probseg", "probseg"), ("mask", "mask"), ("dseg", "dseg")]),
            (place, ds_lesions, [("table", "table"), ("atlas", "atlas")]),
            (place, ds_lesions, [("template_mask", "template_mask")]),
            (detect, ds_lesions, [("swi", "swi"), ("details", "details")]),
            (detect, ds_lesions, [("candidates", "candidates")]),
        ]
    )
    return workflow


def _connect_ways(
    workflow: pe.Workflow,
    inputnode: pe.Node,
    place: pe.Node,
    *,
    with_t1w: bool,
    with_bridge: bool,
) -> None:
    """Connect the transforms between scan and template, and their verdicts, to ``place``.

    Points go against the direction that a file is named for: those of the scan reach the
    template through the files that bring the template onto the scan.
    """
    last = 1 + with_t1w + with_bridge
    scan_to_reference = merge_lists("scan_to_reference", 2 if with_t1w else 1)
    template_to_scan = merge_lists("template_to_scan", last)
    workflow.connect(
        [
            (inputnode, scan_to_reference, [("from_target", "in1")]),
            (inputnode, template_to_scan, [("to_target", f"in{last}")]),
            (scan_to_reference, place, [("out", "scan_to_reference")]),
            (template_to_scan, place, [("out", "template_to_scan")]),
            (inputnode, place, [("judgement", "judgement"), ("t1w_judgement", "t1w_judgement")]),
            (inputnode, place, [("from_direct", "direct_to_reference")]),
            (inputnode, place, [("to_direct", "reference_to_scan")]),
        ]
    )
    if with_t1w:
        workflow.connect(inputnode, "from_reference", scan_to_reference, "in2")
        workflow.connect(inputnode, "to_reference", template_to_scan, f"in{last - 1}")
    if with_bridge:
        workflow.connect(inputnode, "to_template", template_to_scan, "in1")
        workflow.connect(inputnode, "from_template", place, "reference_to_template")


def _connect_person(workflow: pe.Workflow, inputnode: pe.Node, place: pe.Node) -> None:
    """Connect the person's own zones, in the space of the T1w image, to ``place``."""
    scan_to_atlas = merge_lists("scan_to_atlas", 1)
    workflow.connect(
        [
            (inputnode, place, [("zones", "atlas")]),
            (inputnode, scan_to_atlas, [("from_target", "in1")]),
            (scan_to_atlas, place, [("out", "scan_to_atlas")]),
        ]
    )
