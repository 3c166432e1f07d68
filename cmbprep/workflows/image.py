"""Steps that every image goes through, T1w image and scan alike."""

from __future__ import annotations

from typing import Any

from cmbprep.bids.model import GivenFile
from cmbprep.interfaces.brain import CorrectInBrain
from cmbprep.interfaces.figures import DrawPreproc
from cmbprep.interfaces.registration import RegisterToReference
from cmbprep.outputs.names import Names
from cmbprep.workflows.graph import Graph, Output, Step
from cmbprep.workflows.shared import Shared


def add_registration(
    graph: Graph, read: Step, shared: Shared, *, same_contrast: bool = False
) -> Step:
    """Add the registration of an image to the reference template.

    ``same_contrast`` says that it is a T1w image like the reference.
    """
    return graph.add(
        "register",
        RegisterToReference(),
        "registration to the template",
        memory=2.0,
        threads=shared.threads,
        in_file=read["rough"],
        reference=shared.method.reference.t1w,
        reference_mask=shared.method.reference.brain_mask,
        same_contrast=same_contrast,
    )


def add_correction(
    graph: Graph,
    read: Step,
    register: Step | None,
    given_mask: GivenFile | None,
    *,
    corrected: bool = False,
) -> Step:
    """Add brain mask, bias correction in the brain and measures of an image.

    Parameters
    ----------
    read, register
        The nodes that read and register the image; the mask is carried over by the latter.
    given_mask
        A brain mask of another program, which takes the place of the one made here.
    corrected
        Whether another program has corrected the image already.
    """
    mask: dict[str, Any] = {"given_mask": given_mask and given_mask.path}
    if given_mask is None:
        assert register is not None
        mask = {"carried": register["brain_mask"], "registration": register["quality"]}
    title = "brain mask" if corrected else "brain mask and bias correction"
    return graph.add(
        "correct",
        CorrectInBrain(),
        title,
        memory=1.5,
        image=read["image"],
        corrected=corrected,
        **mask,
    )


def add_figures(
    graph: Graph, read: Step, correct: Step, to_fixed: Output, fixed: dict[str, Any], names: Names
) -> Step:
    """Add the figures of an image: bias correction, brain mask and registration.

    Parameters
    ----------
    read, correct
        The nodes that read and correct the image.
    to_fixed
        The transform that brings it onto the fixed image.
    fixed
        ``fixed`` and ``fixed_mask``: head and brain mask of that image.
    names
        Of the image's stage, for the names of the files.
    """
    return graph.add(
        "draw",
        DrawPreproc(),
        "figures",
        before=read["image"],
        after=correct["preproc"],
        field=correct["field"],
        mask=correct["brain_mask"],
        fixed_to_moving=to_fixed,
        fixed_name="T1w" if names.target == "T1w" != names.suffix else "template",
        src=names.src,
        suffix=names.suffix,
        **fixed,
    )
