"""What other programs have made of a participant: T1w image, brain mask, segmentation, transforms.

Folders given with ``--derivatives`` are of two kinds, told apart by what they hold for a
participant: BIDS derivatives of fMRIPrep and sMRIPrep (``sub-X[/ses-Y]/anat/``), and subjects
folders of FreeSurfer and FastSurfer (``sub-X[_ses-Y]/mri/``). Names are looked up, not
searched for: every name here is one of those programs' own. Nothing is opened but the headers
of masks, which tell whether a mask belongs to the image.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.bids.model import (
    ENTITY_ORDER,
    IMAGE_EXTENSIONS,
    Anatomy,
    GivenAnatomy,
    GivenFile,
    Scan,
    Unit,
    join_entities,
    parse_name,
)
from cmbprep.errors import ScanError, UsageError

if TYPE_CHECKING:
    from cmbprep.bids.images import ImageGrid

__all__ = ["DerivativeFolder", "add_derivatives", "parse_folders"]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
#: Names that links in the output dataset's description have already.
_TAKEN = ("raw", "")

#: Endings of the segmentations, the most telling first.
_SEGMENTATIONS = ("_desc-aparcaseg_dseg", "_desc-aseg_dseg")
#: Endings of transforms, in the order of preference.
_XFM_EXTENSIONS = (".h5", ".nii.gz", ".txt", ".mat", ".tfm")
#: FreeSurfer's and FastSurfer's volumes, the most telling first.
_MRI = {
    "t1w": ("T1.mgz", "nu.mgz", "orig_nu.mgz"),
    "brain_mask": ("mask.mgz", "brainmask.mgz"),
    "segmentation": (
        "aparc+aseg.mgz",
        "aparc.DKTatlas+aseg.mgz",
        "aparc.DKTatlas+aseg.mapped.mgz",
        "aparc.DKTatlas+aseg.deep.withCC.mgz",
        "aparc.DKTatlas+aseg.deep.mgz",
        "aseg.mgz",
    ),
}

_HINT = (
    "give the folder that holds sub-<label>/anat/ (fMRIPrep, sMRIPrep) or sub-<label>/mri/ "
    "(FreeSurfer, FastSurfer)"
)


@dataclass(frozen=True)
class DerivativeFolder:
    """A folder of results of another program.

    Parameters
    ----------
    name
        What results, sidecars and the report call it.
    path
        The folder.

    Raises
    ------
    UsageError
        If the name cannot be part of a BIDS URI, or there is no such folder.
    """

    name: str
    path: Path

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise UsageError(
                f"{self.name!r} cannot be the name of a derivative",
                path=self.path,
                hint="write --derivatives NAME=PATH with a name of letters and digits, not raw",
            )
        if not self.path.is_dir():
            raise UsageError(
                "there is no such folder", path=self.path, hint=f"for --derivatives {_HINT}"
            )


def parse_folders(given: Iterable[str]) -> tuple[DerivativeFolder, ...]:
    """Read the values of ``--derivatives``: ``NAME=PATH``, or a path alone.

    A path alone goes by the name of its folder, as in fMRIPrep.

    Raises
    ------
    UsageError
        If there is no such folder, or two have the same name.
    """
    folders: dict[str, DerivativeFolder] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            name, rest = "", text
        # normpath: the last part of "derivatives/.." is no name.
        path = Path(os.path.normpath(Path(rest).expanduser().absolute()))
        name = name or re.sub(r"[^A-Za-z0-9_.+-]", "", path.name)
        if name in folders:
            raise UsageError(
                f"two derivatives go by the name {name}",
                path=path,
                hint="tell them apart: --derivatives NAME=PATH NAME=PATH",
            )
        folders[name] = DerivativeFolder(name, path)
    return tuple(folders.values())


# --- units -----------------------------------------------------------------------------


def add_derivatives(
    units: Sequence[Unit], folders: Sequence[DerivativeFolder], *, reference: str
) -> list[Unit]:
    """Attach anatomy and brain masks of other programs to the units.

    The T1w image is the first that a folder of BIDS derivatives has corrected, else the first
    of FreeSurfer, else the raw one; of several sessions that of the same, else one made from
    all, else that of the session nearest in the order of labels, the earlier of two. Mask and
    segmentation come from the same folder, or from the first other one that has them.

    Parameters
    ----------
    units
        What was found in the raw dataset.
    folders
        Where to look, in the order of preference.
    reference
        Id of the template to which transforms are of use.

    Returns
    -------
    list of Unit
        The same units. A folder without anything for one is named in its scans' warnings.

    Raises
    ------
    UsageError
        If a folder holds no participant at all.
    """
    for folder in folders:
        if not any(_has_results(path) for path in folder.path.glob("sub-*")):
            raise UsageError(
                f"the derivative {folder.name} holds no participants",
                path=folder.path,
                hint=_HINT,
            )
    sessions = _sessions(units)
    return [_add(unit, folders, sessions[unit.subject], reference) for unit in units]


def _has_results(path: Path) -> bool:
    return (
        (path / "anat").is_dir()
        or (path / "swi").is_dir()
        or (path / "mri").is_dir()
        or any((place / "anat").is_dir() for place in path.glob("ses-*"))
    )


def _sessions(units: Iterable[Unit]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for unit in units:
        found.setdefault(unit.subject, set()).add(unit.session or "")
    return found


def _add(
    unit: Unit, folders: Sequence[DerivativeFolder], sessions: set[str], reference: str
) -> Unit:
    """Add what there is for one unit."""
    if not unit.scans:
        return unit
    search = _Search(unit, frozenset(sessions), reference)
    found = {folder.name: search.look(folder) for folder in folders}
    masks = {scan.name: _scan_mask(scan, folders) for scan in unit.scans}
    notes = [
        f"{folder.name} has nothing for {unit.label} that can be used"
        for folder in folders
        if found[folder.name].empty
        and not any(mask and mask.source == folder.name for mask in masks.values())
    ]
    anatomy = _merge(unit.anatomy, list(found.values()))
    notes += _doubts(unit, anatomy, found)
    scans = tuple(
        replace(scan, brain_mask=masks[scan.name], warnings=(*scan.warnings, *notes))
        for scan in unit.scans
    )
    return replace(unit, scans=scans, anatomy=anatomy)


def _doubts(unit: Unit, anatomy: Anatomy | None, found: Mapping[str, _Found]) -> list[str]:
    """Return what is wrong with the chosen anatomy."""
    if anatomy is None:
        names = [name for name, item in found.items() if not item.empty]
        return [f"{name} has no corrected T1w image, and there is no raw one" for name in names]
    given = anatomy.given is not None and anatomy.given.t1w is not None
    if given and anatomy.entities.get("ses") not in (None, unit.session):
        return [f"the anatomy given is of another session: {anatomy.path.name}"]
    return []


@dataclass(frozen=True)
class _Found:
    """What one folder has for a unit."""

    t1w: GivenFile | None = None
    entities: Mapping[str, str] | None = None
    freesurfer: bool = False
    brain_mask: GivenFile | None = None
    segmentation: GivenFile | None = None
    to_reference: GivenFile | None = None
    from_reference: GivenFile | None = None
    from_fsnative: GivenFile | None = None

    @property
    def empty(self) -> bool:
        parts = (self.t1w, self.brain_mask, self.segmentation)
        return all(part is None for part in parts)


def _merge(raw: Anatomy | None, found: Sequence[_Found]) -> Anatomy | None:
    """Join what the folders have into one anatomy; the raw one where they have nothing."""
    order = sorted(found, key=lambda item: item.freesurfer)
    base = next((item for item in order if item.t1w), None)
    if base is None and raw is None:
        return None
    # What belongs to the T1w image's own folder goes before that of others.
    order = sorted(order, key=lambda item: item is not base)

    def first(kind: str) -> tuple[GivenFile | None, bool]:
        for item in order:
            # Masks of another BIDS derivative are of another T1w image.
            if (item is base or item.freesurfer or base is None) and getattr(item, kind):
                return getattr(item, kind), item.freesurfer
        return None, False

    mask, _ = first("brain_mask")
    segmentation, is_native = first("segmentation")
    if base is None and mask is None and segmentation is None:
        return raw
    origin = base if base is not None else _Found()
    given = GivenAnatomy(
        t1w=origin.t1w,
        brain_mask=mask,
        segmentation=segmentation,
        from_fsnative=origin.from_fsnative if is_native and not origin.freesurfer else None,
        to_reference=origin.to_reference,
        from_reference=origin.from_reference,
    )
    if base is None or base.t1w is None:
        assert raw is not None
        return replace(raw, given=given)
    return Anatomy(path=base.t1w.path, entities=dict(base.entities or {}), given=given)


class _Search:
    """Looks for one unit in one folder after another."""

    def __init__(self, unit: Unit, sessions: frozenset[str], reference: str) -> None:
        self.unit, self.sessions, self.reference = unit, sessions, reference

    def look(self, folder: DerivativeFolder) -> _Found:
        """Find what a folder has, of one kind or the other."""
        found = self._bids(folder)
        return found if not found.empty else self._freesurfer(folder)

    def _rank(self, session: str | None) -> tuple[int, int, bool]:
        """Order sessions: the same, one made from all, the nearest, the earlier of two."""
        if session == self.unit.session:
            return 0, 0, False
        if session is None:
            return 1, 0, False
        order = sorted({*self.sessions, session, self.unit.session or ""})
        distance = order.index(session) - order.index(self.unit.session or "")
        return 2, abs(distance), distance > 0

    # BIDS derivatives.

    def _bids(self, folder: DerivativeFolder) -> _Found:
        top = folder.path / f"sub-{self.unit.subject}"
        images: list[Path] = []
        for place in (top / "anat", *sorted(top.glob("ses-*/anat"))):
            for extension in IMAGE_EXTENSIONS:
                images += place.glob(f"sub-*_desc-preproc_T1w{extension}")
        names = {path: parse_name(path) for path in images}
        usable = [path for path in images if "space" not in names[path].entities]

        def rank(path: Path) -> tuple[object, ...]:
            entities = names[path].entities
            run = entities.get("run", "0")
            return (
                *self._rank(entities.get("ses")),
                "ce" in entities,
                ("rec" in entities) + ("acq" in entities),
                int(run) if run.isdigit() else 0,
                path.name,
            )

        if usable:
            path = min(usable, key=rank)
            stem = path.name.rpartition("_desc-preproc_T1w")[0]
            known = names[path].entities
            entities = {key: known[key] for key in ENTITY_ORDER if key in known}
            return self._beside(folder, path.parent, stem, path, entities)
        if self.unit.anatomy is None:
            return _Found()
        raw = self.unit.anatomy
        session = raw.entities.get("ses")
        place = (top / f"ses-{session}" if session else top) / "anat"
        found = self._beside(folder, place, raw.stem, raw.path, None)
        return replace(found, t1w=None)

    def _beside(
        self,
        folder: DerivativeFolder,
        place: Path,
        stem: str,
        t1w: Path,
        entities: Mapping[str, str] | None,
    ) -> _Found:
        """Find what belongs to a T1w image by its name."""

        def given(*names: str) -> GivenFile | None:
            for name in names:
                if (place / name).is_file():
                    return GivenFile(folder.name, place / name)
            return None

        def image(ending: str) -> GivenFile | None:
            return given(*(f"{stem}{ending}{extension}" for extension in IMAGE_EXTENSIONS))

        def transform(source: str, target: str) -> GivenFile | None:
            name = f"{stem}_from-{source}_to-{target}_mode-image_xfm"
            return given(*(f"{name}{extension}" for extension in _XFM_EXTENSIONS))

        mask = image("_desc-brain_mask")
        if mask is not None and not _same_grid(mask.path, t1w):
            logger.debug("%s is not on the grid of %s", mask.path, t1w)
            mask = None
        segmentations = (image(ending) for ending in _SEGMENTATIONS)
        return _Found(
            t1w=GivenFile(folder.name, t1w),
            entities=entities,
            brain_mask=mask,
            segmentation=next((found for found in segmentations if found), None),
            to_reference=transform("T1w", self.reference),
            from_reference=transform(self.reference, "T1w"),
            from_fsnative=transform("fsnative", "T1w"),
        )

    # FreeSurfer and FastSurfer.

    def _freesurfer(self, folder: DerivativeFolder) -> _Found:
        name = f"sub-{self.unit.subject}"
        places: dict[Path, str | None] = {}
        for path in sorted(folder.path.glob(f"{name}*")):
            label = path.name.removeprefix(name)
            if label and not re.fullmatch(r"_ses-[A-Za-z0-9+]+", label):
                continue
            if (path / "mri").is_dir():
                places[path] = label.removeprefix("_ses-") or None
        for path in sorted(places, key=lambda path: (*self._rank(places[path]), path.name)):
            parts = {
                kind: GivenFile(folder.name, path / "mri" / chosen)
                for kind, names in _MRI.items()
                if (chosen := next((n for n in names if (path / "mri" / n).is_file()), None))
            }
            if parts:
                entities = {"sub": self.unit.subject}
                if session := places[path]:
                    entities["ses"] = session
                return _Found(**parts, entities=entities, freesurfer=True)
        return _Found(freesurfer=True)


# --- masks of scans ----------------------------------------------------------------------


def _scan_mask(scan: Scan, folders: Sequence[DerivativeFolder]) -> GivenFile | None:
    """Find a brain mask that was made for a scan: of its name, and on its grid.

    ``sub-1_desc-brain_mask`` may be the mask of ``sub-1_T1w`` as well as that of
    ``sub-1_T2starw``; the grid tells.
    """
    session = f"ses-{scan.session}" if scan.session else ""
    for folder in folders:
        for datatype in dict.fromkeys((scan.datatype, "anat", "swi")):
            place = folder.path / f"sub-{scan.subject}" / session / datatype
            for path in sorted(place.glob("sub-*_desc-brain_mask.nii*")):
                entities = parse_name(path).entities
                own = {key: entities[key] for key in ENTITY_ORDER if key in entities}
                if join_entities(own) == scan.stem and _same_grid(path, scan.source):
                    return GivenFile(folder.name, path)
    return None


def _same_grid(one: Path, other: Path) -> bool:
    """Return from their headers whether two images lie on the same grid."""
    from cmbprep.spatial.grids import GRID_TOLERANCE, grid_gap

    first, second = _geometry(one), _geometry(other)
    if first is None or second is None:
        return False
    gap = grid_gap(first.shape, first.affine, second.shape, second.affine)
    if GRID_TOLERANCE < gap.voxels < 1:
        # Made for this image, most likely, and then moved: worth a word.
        logger.warning("%s is not used: it is not quite on the grid of %s: %s", one, other, gap)
    return gap.voxels <= GRID_TOLERANCE


def _geometry(path: Path) -> ImageGrid | None:
    from cmbprep.bids.images import read_geometry

    try:
        return read_geometry(path)
    except ScanError as error:
        logger.warning("%s", error)
        return None
