"""Workflow of a T1w image that another program has corrected: computes only what is lacking."""

from __future__ import annotations

from typing import Any

from nipype.pipeline import engine as pe

from cmbprep.interfaces.anatomy import RegisterToReference
from cmbprep.interfaces.figures import DrawRegistration
from cmbprep.interfaces.given import DrawMask, ReadGivenMask, ReadGivenT1w, ReadGivenTransforms
from cmbprep.interfaces.images import MeasureImage
from cmbprep.interfaces.zones import DrawPersonZones
from cmbprep.workflows.anatomy import ANATOMY_FIELDS
from cmbprep.workflows.image import add_mask_steps
from cmbprep.workflows.nodes import buffer, merge_lists, merge_values, save_stage, step

__all__ = ["init_given_anatomy_wf", "person_zones_node"]


def init_given_anatomy_wf(
    *,
    t1w: str,
    brain_mask: str | None,
    transforms: tuple[str, str] | None,
    src: str,
    reference_t1w: str,
    reference_mask: str,
    threads: int,
    save: dict[str, Any],
    name: str = "anatomy_wf",
) -> pe.Workflow:
    """Take over a T1w image after bias correction, and what belongs to it.

    Parameters
    ----------
    t1w
        The corrected image, NIfTI or MGH.
    brain_mask
        Its brain mask; None to make one.
    transforms
        The files that bring the image onto the reference template and back; None to
        register it.
    src
        Stem of its name, for figures and messages.
    reference_t1w, reference_mask
        Head and brain mask of the reference template.
    threads
        Processors that the registration is given; its result does not depend on it.
    save
        Fixed inputs of the sink.

    Outputs
    -------
    preproc, brain_mask, to_reference, from_reference
        As of :func:`cmbprep.workflows.anatomy.init_anatomy_wf`.
    """
    workflow, title = pe.Workflow(name=name), f"{src}_T1w"
    read = step(ReadGivenT1w(in_file=t1w), "read", f"{title}: reading")
    register = mask = None
    if brain_mask is None or transforms is None:
        register = step(
            RegisterToReference(reference=reference_t1w, reference_mask=reference_mask),
            "register",
            f"{title}: registration to the template",
            memory=2.0,
            threads=threads,
        )
        workflow.connect(read, "out_file", register, "in_file")
    if brain_mask is not None:
        mask = step(ReadGivenMask(in_file=brain_mask), "read_mask", f"{title}: brain mask given")
        workflow.connect(read, "out_file", mask, "like")
    else:
        mask = add_mask_steps(workflow, read=read, register=register, title=title)
    if transforms is None:
        steps = register
    else:
        steps = step(
            ReadGivenTransforms(
                to_reference=transforms[0],
                from_reference=transforms[1],
                reference_mask=reference_mask,
            ),
            "read_transforms",
            f"{title}: transforms given",
        )
        workflow.connect(mask, "brain_mask", steps, "brain_mask")
    ds_anatomy = save_stage("ds_anatomy", stage="anatomy", **save)
    outputnode = buffer("outputnode", ANATOMY_FIELDS)
    for source, output, field in (
        (read, "out_file", "preproc"),
        (mask, "brain_mask", "brain_mask"),
        (steps, "to_reference", "to_reference"),
        (steps, "from_reference", "from_reference"),
    ):
        workflow.connect(source, output, ds_anatomy, field)
        workflow.connect(source, output, outputnode, field)
    workflow.connect(steps, "quality", outputnode, "judgement")
    _add_figures(workflow, read, mask, steps, src, reference_t1w, reference_mask)
    return workflow


def _add_figures(
    workflow: pe.Workflow,
    read: pe.Node,
    mask: pe.Node,
    steps: pe.Node,
    src: str,
    reference_t1w: str,
    reference_mask: str,
) -> None:
    """Add measures and figures, and fill the sink with them."""
    title, sink = f"{src}_T1w", workflow.get_node("ds_anatomy")
    measure = step(MeasureImage(), "measure", f"{title}: measures")
    draw_mask = step(
        DrawMask(file_name=f"{src}_desc-mask_T1w.svg"), "draw_mask", f"{title}: figure of the mask"
    )
    draw_registration = step(
        DrawRegistration(
            fixed=reference_t1w,
            fixed_mask=reference_mask,
            fixed_name="template",
            moving_name="T1w",
            file_name=f"{src}_desc-template_T1w.svg",
        ),
        "draw_registration",
        f"{title}: figure of the registration",
    )
    fixed_to_moving = merge_lists("fixed_to_moving", 1)
    figures = merge_lists("figures", 2)
    missing = merge_values("missing_figures", ("mask", "registration"))
    warnings = merge_lists("warnings", 4)
    quality = merge_values("quality", ("image", "mask", "register"))
    workflow.connect(
        [
            (read, measure, [("out_file", "before"), ("out_file", "after")]),
            (mask, measure, [("brain_mask", "mask")]),
            (read, draw_mask, [("out_file", "in_file")]),
            (mask, draw_mask, [("brain_mask", "mask")]),
            (read, draw_registration, [("out_file", "moving")]),
            (mask, draw_registration, [("brain_mask", "moving_mask")]),
            (steps, fixed_to_moving, [("to_reference", "in1")]),
            (fixed_to_moving, draw_registration, [("out", "fixed_to_moving")]),
            (draw_mask, figures, [("figures", "in1")]),
            (draw_registration, figures, [("figures", "in2")]),
            (draw_mask, missing, [("missing_figures", "mask")]),
            (draw_registration, missing, [("missing_figures", "registration")]),
            (read, warnings, [("warnings", "in1")]),
            (steps, warnings, [("warnings", "in2")]),
            (measure, warnings, [("warnings", "in3")]),
            (measure, quality, [("quality", "image")]),
            (steps, quality, [("quality", "register")]),
            (figures, sink, [("out", "figures")]),
            (missing, sink, [("out", "missing_figures")]),
            (warnings, sink, [("out", "warnings")]),
            (quality, sink, [("out", "quality")]),
        ]
    )
    workflow.connect(mask, "warnings", warnings, "in4")
    if not isinstance(mask.interface, ReadGivenMask):
        workflow.connect(mask, "quality", quality, "mask")


def person_zones_node(
    name: str,
    *,
    title: str,
    segmentation: str,
    from_fsnative: str | None,
    parcellation: str,
    scheme: str,
    border_mm: float,
) -> pe.Node:
    """Make the node that draws a person's zones, in the space of the T1w image.

    Parameters
    ----------
    name, title
        Name of the node, and what the terminal calls it.
    segmentation
        Labels of FreeSurfer.
    from_fsnative
        Transform that brings the segmentation onto the T1w image, if it is in another space.
    parcellation
        What the template's atlases are drawn from.
    scheme, border_mm
        The zone scheme and its border.

    Returns
    -------
    Node
        Its inputs ``brain_mask`` and ``to_reference`` are those of the T1w image, and are to be
        connected.
    """
    draw = DrawPersonZones(
        segmentation=segmentation,
        parcellation=parcellation,
        scheme=scheme,
        border_mm=border_mm,
    )
    if from_fsnative is not None:
        # The file that brings an image onto another one takes points of that one.
        draw.inputs.to_segmentation = from_fsnative
    return step(draw, name, title, memory=2.0)
