"""Which images can be used for detection, decided by their names and sidecars.

A microbleed is rated on single slices of a magnitude image (or of SWI made from it).
Projections smear it over several slices, phase images show it as a dipole, and maps of
R2* or susceptibility show it with another contrast: each is turned away with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cmbprep.bids.model import SEQUENCES, BidsName
from cmbprep.bids.sidecars import image_type

MAPS = frozenset({"Chimap", "R2starmap", "T2starmap"})

#: Values of Image Type that projections over several slices carry: Siemens' minimum and
#: maximum projections, GE's "MIN IP", DICOM PS3.3 C.8.3.1 ("PROJECTION IMAGE") and the
#: volume based calculation techniques of enhanced objects ("MIN_IP", "MAX_IP").
_PROJECTION_TYPES = frozenset(
    {"MNIP", "MINIP", "MIN IP", "MIN_IP", "MIP", "MAXIP", "MAX_IP", "PROJECTION IMAGE"}
)
_PHASE_TYPES = frozenset({"P", "PHASE", "PHASE MAP", "PHASE_MAP"})
_MAGNITUDE_TYPES = frozenset({"M", "MAGNITUDE"})

# "minIP" anywhere; "mip" only where it stands alone or is set off by its capitals, as in
# "mIP_Images(SW)" or "swiMIP": it is also a part of ordinary words.
_PROJECTION_NAME = re.compile(
    r"(?i:minip|mnip)|(?<![A-Za-z])(?i:mip)(?![A-Za-z])|mIP(?![a-z])|(?<=[a-z])MIP(?![a-z])"
)
_PHASE_NAME = re.compile(r"(?i)(ph|pha|phase)\d*")

# A slab at least this thick (mm) and this many times its spacing is a sliding projection:
# interpolated acquisitions also overlap, but their slices are thin.
_SLAB_THICKNESS = 8.0
_SLAB_OVERLAP = 2.0

_RENAME_PHASE = (
    "give the magnitude image of this acquisition too, under the same name with part-mag "
    "in the place of part-phase; the phase is then used beside it"
)


@dataclass(frozen=True)
class Verdict:
    """What an image can serve as.

    Parameters
    ----------
    role
        ``magnitude`` (lesions are sought on it), ``phase`` (used beside a magnitude
        image) or ``refused``.
    reason, hint
        Why an image is refused, and what can be done.
    """

    role: Literal["magnitude", "phase", "refused"]
    reason: str = ""
    hint: str = ""


def _refused(reason: str, hint: str) -> Verdict:
    return Verdict("refused", reason, hint)


_PROJECTION = _refused(
    "it is a projection over several slices, which smears microbleeds and joins veins",
    "offer the single slices that the projection was made from",
)
_NAMED_PHASE = _refused(
    "its name says that it is a phase image",
    "name phase images with part-phase and their magnitude images with part-mag",
)


def screen(name: BidsName, metadata: Mapping[str, Any], *, datatype: str) -> Verdict | None:
    """Return the role of an image in ``anat/`` or ``swi/``.

    Parameters
    ----------
    name
        Its name.
    metadata
        Its sidecar after inheritance.
    datatype
        The folder that it lies in.

    Returns
    -------
    Verdict or None
        None for images that nobody would take for a blood-sensitive scan (T1w, FLAIR, ...).
    """
    if is_projection(name, metadata):
        looks_the_part = name.suffix in SEQUENCES or _PROJECTION_NAME.fullmatch(name.suffix)
        return _PROJECTION if looks_the_part or datatype == "swi" else None
    if name.suffix in SEQUENCES:
        return _screen_scan(name, metadata)
    return _screen_other(name, datatype)


def _screen_scan(name: BidsName, metadata: Mapping[str, Any]) -> Verdict:
    part = name.entities.get("part")
    kinds = image_type(metadata)
    says_phase = bool(kinds & _PHASE_TYPES) and not kinds & _MAGNITUDE_TYPES
    says_magnitude = bool(kinds & _MAGNITUDE_TYPES) and not kinds & _PHASE_TYPES
    if part in {"real", "imag"}:
        return _refused(
            f"part-{part} is one half of a complex image",
            "offer the magnitude (part-mag) and, if you have it, the phase (part-phase)",
        )
    if part == "phase":
        if says_magnitude:
            return _refused(
                "its name says phase (part-phase) but ImageType in its sidecar says magnitude",
                "correct the name or the sidecar",
            )
        return Verdict("phase")
    if part == "mag" and says_phase:
        return _refused(
            "its name says magnitude (part-mag) but ImageType in its sidecar says phase",
            "look at the image, and correct the name or ImageType in the sidecar",
        )
    if says_phase:
        return _refused("ImageType in its sidecar says that it is a phase image", _RENAME_PHASE)
    if _has_phase_name(name):
        return _NAMED_PHASE
    if part not in {None, "mag"}:
        return _refused(f"part-{part} is not known to BIDS", "name magnitude images with part-mag")
    return Verdict("magnitude")


def _screen_other(name: BidsName, datatype: str) -> Verdict | None:
    if name.suffix in MAPS:
        return _refused(
            f"microbleeds are not sought on maps such as {name.suffix}",
            "offer the T2*-weighted or susceptibility-weighted image (T2starw, MEGRE, swi)",
        )
    if name.suffix == "T2star":
        return _refused(
            "the suffix T2star does not say whether the image is T2*-weighted or a map of T2*, "
            "and left BIDS for that reason",
            "rename a T2*-weighted image to T2starw",
        )
    if _PHASE_NAME.fullmatch(name.suffix):
        return _NAMED_PHASE
    if datatype == "swi":
        return _refused(
            f"{name.suffix or 'its last part'!s} is no suffix of a blood-sensitive scan",
            f"end its name in one of {', '.join(sorted(SEQUENCES))}",
        )
    return None


def _has_phase_name(name: BidsName) -> bool:
    values = [name.entities[key] for key in ("acq", "rec", "mod") if key in name.entities]
    return any(_PHASE_NAME.fullmatch(value) for value in (*values, *name.oddities))


def is_projection(name: BidsName, metadata: Mapping[str, Any]) -> bool:
    """Return whether an image is a projection (minIP, MIP, thick slab) over several slices."""
    labels = [value for key, value in name.entities.items() if key not in {"sub", "ses"}]
    # SeriesDescription is the series' own; ProtocolName is shared by all series of a scan,
    # the projections and the slices they were made from.
    description = str(metadata.get("SeriesDescription", "")).replace("_", " ")
    texts = (*labels, *name.oddities, name.suffix, description)
    if any(_PROJECTION_NAME.search(text) for text in texts):
        return True
    if image_type(metadata) & _PROJECTION_TYPES:
        return True
    thickness, spacing = metadata.get("SliceThickness"), metadata.get("SpacingBetweenSlices")
    if not isinstance(thickness, int | float) or not isinstance(spacing, int | float):
        return False
    return thickness >= _SLAB_THICKNESS and thickness >= _SLAB_OVERLAP * spacing > 0
