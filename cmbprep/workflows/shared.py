"""What the workflows of all participants of a run share.

Zones always come from the reference template. For results in another space the two templates
are registered to each other, once a dataset; the fields stay at the top of the output dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep import __version__
from cmbprep.bids.derivatives import DerivativeFolder
from cmbprep.bids.model import GivenFile
from cmbprep.interfaces.registration import RegisterTemplates
from cmbprep.interfaces.zones import DrawAtlas
from cmbprep.outputs.dataset import given_uri, raw_uri
from cmbprep.outputs.files import file_digest, read_json
from cmbprep.outputs.stages import BLOCK, fingerprint, sidecar_path
from cmbprep.plan import Method
from cmbprep.workflows.graph import Graph, Output, Results
from cmbprep.workflows.names import ATLAS, BRIDGE, shared_name


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the workflows of all participants share.

    Parameters
    ----------
    method
        How scans are processed.
    raw, derivatives
        The raw dataset and other programs' results, to name sources by.
    threads
        Processors that a registration to the template is given; its result does not depend on it.
    atlas
        Zone atlas in the reference space; None where no scan needs it.
    bridge
        ``to_template`` and ``from_template``, the fields that bring images of the reference to
        the output template and back; empty if these are the same.
    """

    method: Method
    raw: Path
    derivatives: tuple[DerivativeFolder, ...]
    threads: int
    atlas: Output | str | None
    bridge: Results

    @property
    def fixed(self) -> dict[str, Any]:
        """The reference template, as figures of what is registered to it take it."""
        reference = self.method.reference
        return {"fixed": reference.t1w, "fixed_mask": reference.brain_mask}

    def uris(self, *files: Path | GivenFile | None) -> list[str]:
        """Return the BIDS URIs of input files, raw or made by other programs."""
        return [
            raw_uri(file, raw=self.raw)
            if isinstance(file, Path)
            else given_uri(file, self.derivatives)
            for file in files
            if file is not None
        ]


def add_atlas(graph: Graph, method: Method) -> Output | str:
    """Add the node that draws the template's atlas, if another border than the scheme's is wanted.

    Returns
    -------
    Output or str
        Zone atlas in the reference space: of that node, or the packaged one.
    """
    reference = method.reference
    if not method.moved_border:
        return str(reference.atlas(method.scheme))
    draw = graph.add(
        shared_name(ATLAS),
        DrawAtlas(),
        "zone atlas with the border asked for",
        memory=1.5,
        parcellation=reference.parcellation,
        brain_mask=reference.brain_mask,
        mars=reference.atlas("mars"),
        scheme=method.scheme,
        border_mm=method.zone_scheme.border_mm,
    )
    return draw["atlas"]


def bridge_files(root: Path, *, reference: str, template: str) -> dict[str, Path]:
    """Return the places of the two fields, after TemplateFlow's names for such files."""
    return {
        "to_template": root / f"tpl-{template}_from-{reference}_mode-image_xfm.nii.gz",
        "from_template": root / f"tpl-{reference}_from-{template}_mode-image_xfm.nii.gz",
    }


def add_bridge(graph: Graph, root: Path, method: Method) -> Results:
    """Add the registration of the reference to the output template, unless it is there already.

    Parameters
    ----------
    root
        The output dataset.

    Returns
    -------
    dict
        ``to_template`` and ``from_template``, fields that bring images of the reference to the
        template and back; empty if these are the same.
    """
    reference, template = method.reference, method.template
    if template.id == reference.id:
        return {}
    files = bridge_files(root, reference=reference.id, template=template.id)
    sidecar = sidecar_path(files["to_template"])
    places = {name: str(path) for name, path in files.items()}
    wanted = fingerprint(
        "bridge",
        inputs={"reference": file_digest(reference.t1w), "template": file_digest(template.t1w)},
        parameters={},
    )
    there = sidecar.exists() and all(path.exists() for path in files.values())
    if there and read_json(sidecar).get(BLOCK, {}).get("Fingerprint") == wanted:
        return places
    bridge = graph.add(
        shared_name(BRIDGE),
        RegisterTemplates(),
        f"registration of {reference.id} to {template.id}",
        memory=2.0,
        reference=reference.t1w,
        template=template.t1w,
        template_mask=template.brain_mask,
        places=places,
        sidecar=sidecar,
        metadata={BLOCK: {"Version": __version__, "Fingerprint": wanted}},
    )
    return bridge.outputs(*places)
