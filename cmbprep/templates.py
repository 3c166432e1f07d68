"""Templates and zone atlases: the packaged space, and others through TemplateFlow.

The zones of cmbprep live in one space, ``MNI152NLin2009cAsym``, which is packaged and needs
no network. A person may ask for another template (``--template``); its ``space-`` outputs are
then made by a registration to that template, while the zones still come from the packaged
space, to which every scan is registered anyway. An atlas carried over from one template to
another would add the error of that registration to every scan; :attr:`Template.atlases` is
therefore empty for every template but the packaged one.

Other templates follow TemplateFlow's file names (https://www.templateflow.org). A file of
zero bytes is a placeholder of TemplateFlow's skeleton and counts as absent.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cmbprep.errors import ResourceError

#: The template that is part of the package, and the space of the zone atlases.
PACKAGED_ID = "MNI152NLin2009cAsym"

_DATA = Path(__file__).parent / "data"
_SCHEMES = ("mars", "bombs")
_ID = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template head with what belongs to it.

    Attributes
    ----------
    id
        TemplateFlow identifier; also the label of the ``space`` entity.
    t1w
        T1-weighted head, with the skull.
    brain_mask
        Brain mask on the same grid.
    atlases
        Zone scheme (``mars``, ``bombs``) and label image in this space; without an entry
        (:meth:`atlas` gives ``None``) where there is none.
    parcellation
        What the atlases are drawn from (:class:`cmbprep.zones.parcellation.Parcellation`,
        packed), on the grid of the T1w head; ``None`` where there are no atlases.

    Raises
    ------
    ResourceError
        If a file is missing or empty.
    """

    id: str
    t1w: Path
    brain_mask: Path
    atlases: tuple[tuple[str, Path], ...] = ()
    parcellation: Path | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"{self.id!r} is not a template identifier (letters and digits)")
        for path in (self.t1w, self.brain_mask, *dict(self.atlases).values(), self.parcellation):
            if path is not None and not _has_content(path):
                raise ResourceError(
                    f"a file of the template {self.id} is missing or empty",
                    path=path,
                    hint="install cmbprep again, or fetch the template again",
                )

    def atlas(self, scheme: str) -> Path | None:
        """Return the label image of a zone scheme in this space, or ``None``."""
        return dict(self.atlases).get(scheme.lower())


def load_template(template_id: str = PACKAGED_ID, offline: bool = False) -> Template:
    """Find a template, fetching it with TemplateFlow's client if need be and allowed.

    Parameters
    ----------
    template_id
        TemplateFlow identifier. The packaged one needs neither network nor client.
    offline
        Take only what is already in ``TEMPLATEFLOW_HOME``.

    Returns
    -------
    Template
        With zone atlases for the packaged template alone; see the module's description.

    Raises
    ------
    ResourceError
        If the identifier is not one, or the template is unavailable.
    """
    if not _ID.fullmatch(template_id):
        raise ResourceError(
            f"{template_id!r} is not a template identifier",
            hint="give letters and digits only, such as MNI152NLin6Asym",
        )
    if template_id == PACKAGED_ID:
        return _packaged()
    home = _templateflow_home()
    found = _local(template_id, home)
    if found is None:
        if offline:
            raise ResourceError(
                f"the template {template_id} is not in {home}, and --offline forbids fetching it",
                hint=f"fetch it once without --offline, set TEMPLATEFLOW_HOME to a folder that has "
                f"it, or use --template {PACKAGED_ID}, which is part of cmbprep",
            )
        _fetch(template_id, home)
        found = _local(template_id, home)
    if found is None:
        raise ResourceError(
            f"TemplateFlow has no T1w image with a brain mask for the template {template_id}",
            hint=f"check the identifier at https://www.templateflow.org, or use {PACKAGED_ID}",
        )
    return found


def _packaged() -> Template:
    folder, stem = _DATA / "templates", f"tpl-{PACKAGED_ID}_res-01"
    atlas = _DATA / "atlas"
    drawn = {name: atlas / f"{stem}_atlas-{name.upper()}_dseg.nii.gz" for name in _SCHEMES}
    return Template(
        id=PACKAGED_ID,
        t1w=folder / f"{stem}_T1w.nii.gz",
        brain_mask=folder / f"{stem}_desc-brain_mask.nii.gz",
        atlases=tuple((name, path) for name, path in drawn.items() if path.exists()),
        parcellation=atlas / f"{stem}_desc-parcellation_dseg.nii.gz",
    )


def _has_content(path: Path) -> bool:
    # is_file follows links: a DataLad clone's annexed file is a dangling link until fetched.
    return path.is_file() and path.stat().st_size > 0


def _templateflow_home() -> Path:
    """Return the folder that TemplateFlow's client would use, without importing it.

    The client reads the variable when imported and fills an absent folder with a skeleton;
    looking ourselves keeps ``--offline`` free of both.
    """
    chosen = os.environ.get("TEMPLATEFLOW_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_dir  # what the client uses, on every system

    return Path(user_cache_dir("templateflow"))


def _local(template_id: str, home: Path) -> Template | None:
    """Look for the finest T1w head with a brain mask of its own resolution."""
    folder = home / f"tpl-{template_id}"
    for t1w in sorted(folder.glob(f"tpl-{template_id}_res-*_T1w.nii.gz")):
        match = re.fullmatch(rf"(tpl-{template_id}_res-\d+)_T1w\.nii\.gz", t1w.name)
        mask = folder / f"{match[1] if match else ''}_desc-brain_mask.nii.gz"
        if match and _has_content(t1w) and _has_content(mask):
            return Template(id=template_id, t1w=t1w, brain_mask=mask)
    return None


def _fetch(template_id: str, home: Path) -> None:
    try:
        from templateflow.client import TemplateFlowClient

        client = TemplateFlowClient(root=home)
        client.get(template_id, resolution=1, suffix="T1w", desc=None, extension=".nii.gz")
        client.get(template_id, resolution=1, suffix="mask", desc="brain", extension=".nii.gz")
    # The client lets through whatever its network library raises.
    except Exception as error:
        raise ResourceError(
            f"the template {template_id} could not be fetched ({error})",
            hint="check the network connection, or set TEMPLATEFLOW_HOME to a folder that has "
            f"the template, or use --template {PACKAGED_ID}, which is part of cmbprep",
        ) from error
