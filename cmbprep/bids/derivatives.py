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
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.bids.index import Image, anatomy_rank, session_distance
from cmbprep.bids.model import (
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
    sessions: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        sessions[unit.subject].add(unit.session or "")
    return [_add(unit, folders, sessions[unit.subject], reference) for unit in units]


def _has_results(path: Path) -> bool:
    return any((path / name).is_dir() for name in ("anat", "swi", "mri")) or any(
        place.is_dir() for place in path.glob("ses-*/anat")
    )


def _add(
    unit: Unit, folders: Sequence[DerivativeFolder], sessions: set[str], reference: str
) -> Unit:
    """Add what there is for one unit."""
    if not unit.scans:
        return unit
    found = {folder.name: _look(unit, folder, sessions, reference) for folder in folders}
    masks = {scan.name: _scan_mask(scan, folders) for scan in unit.scans}
    used = {mask.source for mask in masks.values() if mask}
    notes = [
        f"{name} has nothing for {unit.label} that can be used"
        for name, item in found.items()
        if item.empty and name not in used
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

    given: GivenAnatomy = field(default_factory=GivenAnatomy)
    entities: Mapping[str, str] = field(default_factory=dict)
    """Of the T1w image."""
    freesurfer: bool = False

    @property
    def empty(self) -> bool:
        return not (self.given.t1w or self.given.brain_mask or self.given.segmentation)


def _merge(raw: Anatomy | None, found: Sequence[_Found]) -> Anatomy | None:
    """Join what the folders have into one anatomy; the raw one where they have nothing."""
    order = sorted(found, key=lambda item: item.freesurfer)
    base = next((item for item in order if item.given.t1w), None)
    # What belongs to the T1w image's own folder goes before that of others. Masks of another
    # BIDS derivative are of another T1w image.
    order = sorted(order, key=lambda item: item is not base)
    order = [item for item in order if item is base or item.freesurfer or base is None]
    mask = next((item.given.brain_mask for item in order if item.given.brain_mask), None)
    segmented = next((item for item in order if item.given.segmentation), _Found())
    own = base.given if base is not None else GivenAnatomy()
    is_native = segmented.freesurfer and base is not None and not base.freesurfer
    given = replace(
        own,
        brain_mask=mask,
        segmentation=segmented.given.segmentation,
        from_fsnative=own.from_fsnative if is_native else None,
    )
    if base is not None and own.t1w is not None:
        return Anatomy(path=own.t1w.path, entities=dict(base.entities), given=given)
    if raw is None or given == GivenAnatomy():
        return raw
    return replace(raw, given=given)


def _look(unit: Unit, folder: DerivativeFolder, sessions: set[str], reference: str) -> _Found:
    """Find what a folder has for a unit, of one kind or the other."""

    def rank(session: str | None) -> tuple[int, ...]:
        """Order sessions: the same, one made from all, the nearest, the earlier of two."""
        if session in (unit.session, None):
            return int(session != unit.session), 0, 0
        order = sorted({*sessions, session or "", unit.session or ""})
        return 2, *session_distance(order, session, unit.session)

    found = _look_for_bids(unit, folder, rank, reference)
    return _look_for_freesurfer(unit, folder, rank) if found.empty else found


Rank = Callable[[str | None], tuple[int, ...]]


def _look_for_bids(unit: Unit, folder: DerivativeFolder, rank: Rank, reference: str) -> _Found:
    """Find what BIDS derivatives have for a unit."""
    top = folder.path / f"sub-{unit.subject}"
    images = [
        Image.at(path)
        for place in (top / "anat", *sorted(top.glob("ses-*/anat")))
        for extension in IMAGE_EXTENSIONS
        for path in place.glob(f"sub-*_desc-preproc_T1w{extension}")
    ]
    usable = [image for image in images if "space" not in image.name.entities]
    if usable:
        best = min(
            usable,
            key=lambda image: (
                *rank(image.name.entities.get("ses")),
                *anatomy_rank(image),
                image.path.name,
            ),
        )
        stem = best.path.name.rpartition("_desc-preproc_T1w")[0]
        given = _beside(folder.name, best.path.parent / stem, best.path, reference)
        return _Found(replace(given, t1w=GivenFile(folder.name, best.path)), best.stem_entities)
    raw = unit.anatomy
    if raw is None:
        return _Found()
    session = raw.entities.get("ses")
    place = (top / f"ses-{session}" if session else top) / "anat"
    return _Found(_beside(folder.name, place / raw.stem, raw.path, reference))


def _beside(source: str, stem: Path, t1w: Path, reference: str) -> GivenAnatomy:
    """Find what belongs to a T1w image by its name."""

    def first(endings: Iterable[str], extensions: Iterable[str]) -> GivenFile | None:
        names = [f"{stem.name}{ending}{end}" for ending in endings for end in extensions]
        return _first_file(source, stem.parent, names)

    def transform(start: str, end: str) -> GivenFile | None:
        return first([f"_from-{start}_to-{end}_mode-image_xfm"], _XFM_EXTENSIONS)

    mask = first(["_desc-brain_mask"], IMAGE_EXTENSIONS)
    if mask is not None and not _same_grid(mask.path, t1w):
        logger.debug("%s is not on the grid of %s", mask.path, t1w)
        mask = None
    return GivenAnatomy(
        brain_mask=mask,
        segmentation=first(_SEGMENTATIONS, IMAGE_EXTENSIONS),
        to_reference=transform("T1w", reference),
        from_reference=transform(reference, "T1w"),
        from_fsnative=transform("fsnative", "T1w"),
    )


def _first_file(source: str, folder: Path, names: Iterable[str]) -> GivenFile | None:
    paths = (folder / name for name in names)
    return next((GivenFile(source, path) for path in paths if path.is_file()), None)


def _look_for_freesurfer(unit: Unit, folder: DerivativeFolder, rank: Rank) -> _Found:
    """Find what FreeSurfer and FastSurfer have for a unit."""
    name = re.compile(rf"sub-{re.escape(unit.subject)}(?:_ses-([A-Za-z0-9+]+))?")
    places: list[tuple[tuple[int, ...], str, str | None]] = []
    for path in folder.path.glob(f"sub-{unit.subject}*"):
        match = name.fullmatch(path.name)
        if match is not None and (path / "mri").is_dir():
            places.append((rank(match.group(1)), path.name, match.group(1)))
    for _, place, session in sorted(places, key=lambda item: item[:2]):
        parts = {
            kind: _first_file(folder.name, folder.path / place / "mri", names)
            for kind, names in _MRI.items()
        }
        if any(parts.values()):
            entities = {"sub": unit.subject, **({"ses": session} if session else {})}
            return _Found(GivenAnatomy(**parts), entities, freesurfer=True)
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
                own = join_entities(parse_name(path).entities)
                if own == scan.stem and _same_grid(path, scan.source):
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
