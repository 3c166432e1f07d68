"""Workflow of the T1w image: bias, brain mask, and the way to the reference template."""

from __future__ import annotations

from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from cmbprep.interfaces.anatomy import CorrectBias, RegisterToReference
from cmbprep.interfaces.figures import DrawImage, DrawRegistration
from cmbprep.interfaces.images import MeasureImage, ReadT1w

from .nodes import merge_lists, merge_values, save_stage, step

__all__ = ["ANATOMY_FIELDS", "init_anatomy_wf"]

#: What the anatomy gives to the scans.
ANATOMY_FIELDS = ("preproc", "brain_mask", "to_reference", "from_reference")


def init_anatomy_wf(
    *,
    t1w: str,
    src: str,
    reference_t1w: str,
    reference_mask: str,
    threads: int,
    save: dict[str, Any],
    name: str = "anatomy_wf",
) -> pe.Workflow:
    """Process a T1w image.

    Parameters
    ----------
    t1w
        The raw image.
    src
        Stem of its name, for figures and messages.
    reference_t1w, reference_mask
        Head and brain mask of the reference template.
    threads
        Threads that a node may use where the result does not depend on it.
    save
        Fixed inputs of the sink (see :func:`cmbprep.workflows.nodes.save_stage`).

    Outputs
    -------
    preproc, brain_mask
        On the image's own grid.
    to_reference, from_reference
        Displacement fields that bring images over.
    """
    workflow = pe.Workflow(name=name)
    read = step(ReadT1w(in_file=t1w), "read", f"{src}_T1w: reading")
    rough = step(
        CorrectBias(threads=threads), "rough", f"{src}_T1w: bias correction", threads=threads
    )
    register = step(
        RegisterToReference(reference=reference_t1w, reference_mask=reference_mask),
        "register",
        f"{src}_T1w: brain mask and registration to the template",
        memory=2.0,
    )
    correct = step(
        CorrectBias(threads=threads),
        "correct",
        f"{src}_T1w: bias correction in the brain",
        threads=threads,
    )
    draw_image = step(
        DrawImage(src=src, suffix="T1w"), "draw_image", f"{src}_T1w: figures of the image"
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
        f"{src}_T1w: figure of the registration",
    )
    fixed_to_moving = merge_lists("fixed_to_moving", 1)
    measure = step(MeasureImage(), "measure", f"{src}_T1w: measures")
    figures = merge_lists("figures", 2)
    warnings = merge_lists("warnings", 3)
    quality = merge_values("quality", ("image", "register"))
    ds_anatomy = save_stage("ds_anatomy", stage="anatomy", **save)
    outputnode = pe.Node(niu.IdentityInterface(fields=[*ANATOMY_FIELDS]), "outputnode")
    workflow.connect(
        [
            (read, rough, [("out_file", "in_file")]),
            (rough, register, [("out_file", "in_file")]),
            (read, correct, [("out_file", "in_file")]),
            (register, correct, [("brain_mask", "mask")]),
            (read, draw_image, [("out_file", "before")]),
            (correct, draw_image, [("out_file", "after"), ("field", "field")]),
            (register, draw_image, [("brain_mask", "mask")]),
            (correct, draw_registration, [("out_file", "moving")]),
            (register, draw_registration, [("brain_mask", "moving_mask")]),
            (register, fixed_to_moving, [("to_reference", "in1")]),
            (fixed_to_moving, draw_registration, [("out", "fixed_to_moving")]),
            (draw_image, figures, [("figures", "in1")]),
            (draw_registration, figures, [("figures", "in2")]),
            (read, warnings, [("warnings", "in1")]),
            (register, warnings, [("warnings", "in2")]),
            (read, measure, [("out_file", "before")]),
            (correct, measure, [("out_file", "after")]),
            (register, measure, [("brain_mask", "mask")]),
            (measure, warnings, [("warnings", "in3")]),
            (measure, quality, [("quality", "image")]),
            (register, quality, [("quality", "register")]),
            (figures, ds_anatomy, [("out", "figures")]),
            (warnings, ds_anatomy, [("out", "warnings")]),
            (quality, ds_anatomy, [("out", "quality")]),
        ]
    )
    for source, field in (
        (correct, "preproc"),
        (register, "brain_mask"),
        (register, "to_reference"),
        (register, "from_reference"),
    ):
        output = "out_file" if source is correct else field
        workflow.connect(source, output, ds_anatomy, field)
        workflow.connect(source, output, outputnode, field)
    return workflow
