"""Workflow between the reference template and another output template.

Zones always come from the reference. For results in another space the two templates are
registered to each other, once a dataset; the fields stay at the top of the output dataset
and are used by every scan.
"""

from __future__ import annotations

from pathlib import Path

from nipype.pipeline import engine as pe

from cmbprep import __version__
from cmbprep.interfaces.anatomy import RegisterTemplates
from cmbprep.interfaces.outputs import SaveFiles
from cmbprep.outputs.files import file_digest, read_json
from cmbprep.outputs.stages import BLOCK, fingerprint, sidecar_path
from cmbprep.templates import Template
from cmbprep.workflows.nodes import buffer, step

__all__ = ["bridge_files", "init_bridge_wf"]


def bridge_files(root: Path, *, reference: str, template: str) -> dict[str, Path]:
    """Return the places of the two fields, after TemplateFlow's names for such files."""
    return {
        "to_template": root / f"tpl-{template}_from-{reference}_mode-image_xfm.nii.gz",
        "from_template": root / f"tpl-{reference}_from-{template}_mode-image_xfm.nii.gz",
    }


def init_bridge_wf(
    *, reference: Template, template: Template, root: str, name: str = "bridge_wf"
) -> pe.Workflow:
    """Register the reference template to the output template.

    Parameters
    ----------
    reference, template
        The two templates.
    root
        The output dataset.

    Outputs
    -------
    to_template, from_template
        Displacement fields that bring images of the reference to the template and back.
    """
    workflow = pe.Workflow(name=name)
    files = bridge_files(Path(root), reference=reference.id, template=template.id)
    outputnode = buffer("outputnode", ("to_template", "from_template"))
    wanted = fingerprint(
        "bridge",
        inputs={"reference": file_digest(reference.t1w), "template": file_digest(template.t1w)},
        parameters={},
    )
    if _is_there(files, wanted):
        outputnode.inputs.trait_set(**{key: str(path) for key, path in files.items()})
        workflow.add_nodes([outputnode])
        return workflow
    register = step(
        RegisterTemplates(
            fixed=str(template.t1w),
            fixed_mask=str(template.brain_mask),
            moving=str(reference.t1w),
        ),
        "register",
        f"registration of {reference.id} to {template.id}",
        memory=2.0,
    )
    save = pe.Node(
        SaveFiles(
            places={key: str(path) for key, path in files.items()},
            sidecar=str(sidecar_path(files["to_template"])),
            metadata={BLOCK: {"Version": __version__, "Fingerprint": wanted}},
        ),
        "save",
    )
    workflow.connect(
        [
            (register, save, [("to_fixed", "to_template"), ("from_fixed", "from_template")]),
            (register, outputnode, [("to_fixed", "to_template"), ("from_fixed", "from_template")]),
        ]
    )
    return workflow


def _is_there(files: dict[str, Path], wanted: str) -> bool:
    sidecar = sidecar_path(files["to_template"])
    if not sidecar.exists() or not all(path.exists() for path in files.values()):
        return False
    return bool(read_json(sidecar).get(BLOCK, {}).get("Fingerprint") == wanted)
