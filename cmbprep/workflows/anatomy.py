"""The stage of a T1w image, raw or as another program has left it, and a person's own zones."""

from __future__ import annotations

from cmbprep.bids.model import GivenAnatomy
from cmbprep.interfaces.given import ReadGivenT1w, ReadGivenTransforms
from cmbprep.interfaces.images import ReadT1w
from cmbprep.interfaces.zones import DrawPersonZones
from cmbprep.plan import AnatomyPlan
from cmbprep.workflows.graph import Graph, Results, Step
from cmbprep.workflows.image import add_correction, add_figures, add_registration
from cmbprep.workflows.names import anatomy_name, zones_name
from cmbprep.workflows.shared import Shared


def add_anatomy_wf(subject: Graph, plan: AnatomyPlan, shared: Shared) -> Results:
    """Correct a T1w image's bias, find the brain, and register it to the reference template.

    What another program has made (``--derivatives``) is not computed again: a given mask takes
    the place of the one made in ``correct``, and with a corrected image, ``read_transforms`` the
    place of ``register``.

    ::

        read ──► register ──► correct ──► draw ──► ds_anatomy
          └──────────────────────┘

    Parameters
    ----------
    subject
        The participant's graph, which the workflow is added to.
    plan
        The image.
    shared
        Method and names.

    Returns
    -------
    dict
        ``preproc``, ``brain_mask``: on the image's own grid. ``to_reference``,
        ``from_reference``: fields that bring the image onto the template and back.
        ``judgement``: figures of the registration.
    """
    anatomy, given = plan.anatomy, plan.anatomy.given or GivenAnatomy()
    graph = Graph(anatomy_name(anatomy), subject, image=anatomy.name)
    corrected = given.t1w is not None
    reader = ReadGivenT1w() if corrected else ReadT1w()
    read = graph.add("read", reader, "reading", in_file=anatomy.path)
    register: Step | None = None
    if given.brain_mask is None or given.transforms is None:
        register = add_registration(graph, read, shared, same_contrast=True)
    correct = add_correction(graph, read, register, given.brain_mask, corrected=corrected)
    way = register
    if given.transforms is not None:
        way = graph.add(
            "read_transforms",
            ReadGivenTransforms(),
            "transforms given",
            to_reference=given.transforms[0].path,
            from_reference=given.transforms[1].path,
            brain_mask=correct["brain_mask"],
            reference_mask=shared.method.reference.brain_mask,
        )
    assert way is not None
    names = plan.stage.files.names
    draw = add_figures(graph, read, correct, way["to_reference"], shared.fixed, names)
    files = {
        **correct.outputs("preproc", "brain_mask"),
        **way.outputs("to_reference", "from_reference"),
    }
    graph.save(
        plan.stage,
        sources=shared.uris(None if corrected else anatomy.path, *given.used.values()),
        parameters={"reference": shared.method.reference.id, **_provenance(given)},
        quality=(correct, way),
        warnings=(read, way, correct),
        figures=draw,
        **files,
    )
    return {**files, "judgement": way["quality"]}


def _provenance(given: GivenAnatomy) -> dict[str, str]:
    """Return which results of a T1w image were given, by whom, and which were computed."""
    parts = (
        ("bias_correction", "the bias-corrected T1w image", given.t1w),
        ("brain_mask", "its brain mask", given.brain_mask),
        ("registration", "its transforms to the template", (given.transforms or (None,))[0]),
    )
    named = [f"{what} ({file.source})" for _, what, file in parts if file is not None]
    if not named:
        return {}
    how = {key: "computed" if file is None else "given" for key, _, file in parts}
    return {"anatomy": "given", "given": ", ".join(named), **how}


def add_person_zones(subject: Graph, plan: AnatomyPlan, anatomy: Results, shared: Shared) -> Step:
    """Add the node that draws a person's zones from their segmentation, in the T1w image's space.

    Parameters
    ----------
    subject
        The participant's graph.
    plan
        The T1w image, with its segmentation.
    anatomy
        Results of :func:`add_anatomy_wf`, or those of an earlier run.
    shared
        Method.
    """
    given, method = plan.anatomy.given, shared.method
    assert given is not None and given.segmentation is not None
    return subject.add(
        zones_name(plan.anatomy),
        DrawPersonZones(),
        f"{plan.anatomy.name}: zones of the person",
        memory=2.0,
        segmentation=given.segmentation.path,
        # The file that brings an image onto another one takes points of that one.
        to_segmentation=given.from_fsnative and given.from_fsnative.path,
        brain_mask=anatomy["brain_mask"],
        to_reference=anatomy["from_reference"],
        parcellation=method.reference.parcellation,
        scheme=method.scheme,
        border_mm=method.zone_scheme.border_mm,
    )
