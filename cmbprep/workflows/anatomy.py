"""Workflow of the T1w image: bias, brain mask, and the way to the reference template."""

from __future__ import annotations

from typing import Any

from nipype.pipeline import engine as pe

from cmbprep.interfaces.anatomy import RegisterToReference
from cmbprep.interfaces.figures import DrawRegistration
from cmbprep.interfaces.images import ReadT1w
from cmbprep.workflows.image import add_image_steps
from cmbprep.workflows.nodes import buffer, save_stage, step

__all__ = ["ANATOMY_FIELDS", "init_anatomy_wf"]

#: What the anatomy gives to the scans.
ANATOMY_FIELDS = ("preproc", "brain_mask", "to_reference", "from_reference", "judgement")


def init_anatomy_wf(
    *,
    t1w: str,
    src: str,
    reference_t1w: str,
    reference_mask: str,
    threads: int,
    save: dict[str, Any],
    given_mask: str | None = None,
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
        Processors that the registration is given; its result does not depend on it.
    save
        Fixed inputs of the sink (see :func:`cmbprep.workflows.nodes.save_stage`).
    given_mask
        A brain mask of another program, which is used instead of one made here.

    Outputs
    -------
    preproc, brain_mask
        On the image's own grid.
    to_reference, from_reference
        Displacement fields that bring images over.
    judgement
        Figures of the registration.
    """
    workflow = pe.Workflow(name=name)
    read = step(ReadT1w(in_file=t1w), "read", f"{src}_T1w: reading")
    register = step(
        RegisterToReference(reference=reference_t1w, reference_mask=reference_mask),
        "register",
        f"{src}_T1w: registration to the template",
        memory=2.0,
        threads=threads,
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
    ds_anatomy = save_stage("ds_anatomy", stage="anatomy", **save)
    outputnode = buffer("outputnode", ANATOMY_FIELDS)
    correct, mask = add_image_steps(
        workflow,
        read=read,
        register=register,
        draw_registration=draw_registration,
        to_fixed="to_reference",
        sink=ds_anatomy,
        title=f"{src}_T1w",
        src=src,
        suffix="T1w",
        given_mask=given_mask,
    )
    for source, field in (
        (correct, "preproc"),
        (mask, "brain_mask"),
        (register, "to_reference"),
        (register, "from_reference"),
    ):
        output = "out_file" if source is correct else field
        workflow.connect(source, output, ds_anatomy, field)
        workflow.connect(source, output, outputnode, field)
    workflow.connect(register, "quality", outputnode, "judgement")
    return workflow
