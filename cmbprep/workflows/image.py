"""What every image goes through around its registration, T1w image and scan alike."""

from __future__ import annotations

from nipype.pipeline import engine as pe

from cmbprep.interfaces.anatomy import CorrectBias, CorrectRoughly
from cmbprep.interfaces.brain import ChooseMask, FindBrain
from cmbprep.interfaces.figures import DrawImage
from cmbprep.interfaces.given import ReadGivenMask
from cmbprep.interfaces.images import MeasureImage
from cmbprep.workflows.nodes import merge_lists, merge_values, step

__all__ = ["add_image_steps", "add_mask_steps"]


def add_image_steps(
    workflow: pe.Workflow,
    *,
    read: pe.Node,
    register: pe.Node,
    draw_registration: pe.Node,
    to_fixed: str,
    sink: pe.Node,
    title: str,
    src: str,
    suffix: str,
    given_mask: str | None = None,
) -> tuple[pe.Node, pe.Node]:
    """Add brain mask, bias correction, measures and figures, and fill the sink with them.

    The bias is corrected twice: in the head, for the registration, and then in the brain, for
    the result. The brain is found twice, too: in the image as it is, and by registration.

    Parameters
    ----------
    workflow
        Where the nodes go.
    read
        Gives the raw image (``out_file``, ``warnings``).
    register
        Takes the roughly corrected image; gives ``brain_mask`` as it was carried over,
        transforms, ``quality`` and ``warnings``.
    draw_registration
        Takes the corrected image, its mask and the way from the fixed image to it.
    to_fixed
        Output of ``register`` with the transform that brings the image onto the fixed one.
    sink
        The sink of the stage.
    title
        What messages call the image.
    src, suffix
        Stem and suffix of the figures' names.
    given_mask
        A brain mask in the image's space that takes the place of the one of ``register``.

    Returns
    -------
    correct, mask : Node
        With the corrected image as ``out_file``, and with the ``brain_mask``.
    """
    if given_mask is not None:
        mask = step(ReadGivenMask(in_file=given_mask), "read_mask", f"{title}: brain mask given")
        workflow.connect(read, "out_file", mask, "like")
    else:
        mask = add_mask_steps(workflow, read=read, register=register, title=title)
    correct = _add_correction(workflow, read=read, register=register, mask=mask, title=title)
    draw_image = step(
        DrawImage(src=src, suffix=suffix), "draw_image", f"{title}: figures of the image"
    )
    fixed_to_moving = merge_lists("fixed_to_moving", 1)
    figures = merge_lists("figures", 2)
    missing = merge_values("missing_figures", ("image", "registration"))
    workflow.connect(
        [
            (read, draw_image, [("out_file", "before")]),
            (correct, draw_image, [("out_file", "after"), ("field", "field")]),
            (mask, draw_image, [("brain_mask", "mask")]),
            (correct, draw_registration, [("out_file", "moving")]),
            (mask, draw_registration, [("brain_mask", "moving_mask")]),
            (register, fixed_to_moving, [(to_fixed, "in1")]),
            (fixed_to_moving, draw_registration, [("out", "fixed_to_moving")]),
            (draw_image, figures, [("figures", "in1")]),
            (draw_registration, figures, [("figures", "in2")]),
            (figures, sink, [("out", "figures")]),
            (draw_image, missing, [("missing_figures", "image")]),
            (draw_registration, missing, [("missing_figures", "registration")]),
            (missing, sink, [("out", "missing_figures")]),
        ]
    )
    warnings, quality = _add_records(
        workflow, read=read, register=register, mask=mask, correct=correct, title=title
    )
    workflow.connect(mask, "warnings", warnings, "in3")
    if given_mask is None:
        workflow.connect(mask, "quality", quality, "mask")
    workflow.connect(warnings, "out", sink, "warnings")
    workflow.connect(quality, "out", sink, "quality")
    return correct, mask


def _add_correction(
    workflow: pe.Workflow,
    *,
    read: pe.Node,
    register: pe.Node,
    mask: pe.Node,
    title: str,
) -> pe.Node:
    """Correct the bias in the head, for the registration, and in the brain; give the latter."""
    rough = step(CorrectRoughly(), "rough", f"{title}: bias correction")
    correct = step(CorrectBias(), "correct", f"{title}: bias correction in the brain")
    workflow.connect(
        [
            (read, rough, [("out_file", "in_file")]),
            (rough, register, [("out_file", "in_file")]),
            (read, correct, [("out_file", "in_file")]),
            (mask, correct, [("brain_mask", "mask")]),
        ]
    )
    return correct


def _add_records(
    workflow: pe.Workflow,
    *,
    read: pe.Node,
    register: pe.Node,
    mask: pe.Node,
    correct: pe.Node,
    title: str,
) -> tuple[pe.Node, pe.Node]:
    """Measure the image; give the nodes that gather warnings and figures of merit."""
    measure = step(MeasureImage(), "measure", f"{title}: measures")
    warnings = merge_lists("warnings", 4)
    quality = merge_values("quality", ("image", "mask", "register"))
    workflow.connect(
        [
            (read, measure, [("out_file", "before")]),
            (correct, measure, [("out_file", "after")]),
            (mask, measure, [("brain_mask", "mask")]),
            (read, warnings, [("warnings", "in1")]),
            (register, warnings, [("warnings", "in2")]),
            (measure, warnings, [("warnings", "in4")]),
            (measure, quality, [("quality", "image")]),
            (register, quality, [("quality", "register")]),
        ]
    )
    return warnings, quality


def add_mask_steps(
    workflow: pe.Workflow, *, read: pe.Node, register: pe.Node, title: str
) -> pe.Node:
    """Find the brain in the image and by registration; give the node that chooses."""
    find_brain = step(FindBrain(), "find_brain", f"{title}: brain", memory=1.5)
    choose_mask = step(ChooseMask(), "choose_mask", f"{title}: brain mask")
    workflow.connect(
        [
            (read, find_brain, [("out_file", "in_file")]),
            (find_brain, choose_mask, [("brain_mask", "found"), ("figures", "figures")]),
            (register, choose_mask, [("brain_mask", "carried"), ("quality", "registration")]),
        ]
    )
    return choose_mask
