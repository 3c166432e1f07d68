"""Checks of all images before anything is computed, with the same verdicts in a dry run.

A run reads headers only: what is wrong with the voxels it finds when it reads the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cmbprep.bids.model import Anatomy, Scan, Unit
from cmbprep.errors import CmbprepError


@dataclass(frozen=True)
class Preflight:
    """The units of a participant after the check.

    Parameters
    ----------
    units
        With the first T1w image that passes the check, or none.
    problems
        Name of a scan that cannot be processed -> why.
    warnings
        Name of a scan -> what was odd about its images.
    """

    units: tuple[Unit, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def preflight(units: Sequence[Unit], *, thorough: bool = False) -> Preflight:
    """Check the headers of a participant's images.

    Parameters
    ----------
    units
        The units of one participant.
    thorough
        Whether to read the voxels as well, as a dry run does to give the verdicts of the run.
    """
    problems: dict[str, str] = {}
    warnings: dict[str, tuple[str, ...]] = {}
    for unit in units:
        for scan in unit.scans:
            try:
                warnings[scan.name] = _check_scan(scan)
                if thorough:
                    found = (*warnings[scan.name], *_check_scan(scan, voxels=True))
                    warnings[scan.name] = tuple(dict.fromkeys(found))
            except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
                problems[scan.name] = _reason(error)
    sound = tuple(_with_sound_anatomy(unit, thorough=thorough) for unit in units)
    return Preflight(sound, problems, warnings)


def _check_scan(scan: Scan, *, voxels: bool = False) -> tuple[str, ...]:
    """Check the images of a scan; return the warnings that the run gives about them."""
    from cmbprep.bids.images import PHASE_WITHOUT_ECHO_TIME, check_files

    magnitudes = [echo.magnitude for echo in scan.echoes]
    phases = [echo.phase for echo in scan.echoes]
    if voxels and any(phases) and any(echo.echo_time is None for echo in scan.echoes):
        return *check_files(magnitudes, [], voxels=True), PHASE_WITHOUT_ECHO_TIME
    units = [echo.phase_units for echo in scan.echoes]
    return check_files(magnitudes, phases, units=units, voxels=voxels)


def _with_sound_anatomy(unit: Unit, *, thorough: bool) -> Unit:
    from cmbprep.bids.images import check_header, read_scan_image

    while unit.anatomy is not None and unit.scans:
        given = unit.anatomy.given
        if given is not None and given.t1w is not None:
            # Other programs' images may be in other formats; they are checked when read.
            return unit
        try:
            check_header(unit.anatomy.path, role="T1w")
            if thorough:
                read_scan_image(unit.anatomy.path, role="T1w")
        except Exception as error:  # noqa: BLE001 - the next image is tried instead
            unit = next_anatomy(unit, _reason(error))
        else:
            return unit
    return unit


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, CmbprepError) else f"{type(error).__name__}: {error}"


def next_anatomy(unit: Unit, reason: str) -> Unit:
    """Replace a T1w image that cannot be used by the next one, or by none.

    What another program has made of the image is given up first, then the image.

    Parameters
    ----------
    unit
        With a T1w image.
    reason
        Why it cannot be used, for the warning that its scans get; the path in front and the
        remedy at the end are left out.
    """
    failed = unit.anatomy
    if failed is None:
        raise ValueError(f"{unit.label} has no T1w image")
    spare = unit.spare_anatomies
    chosen: Anatomy | None
    if failed.given is not None and failed.given.t1w is None:
        chosen = replace(failed, given=None)
        what = f"what other programs have made of the T1w image {failed.path.name}"
        instead = "the raw image is processed instead"
    else:
        chosen, spare = (spare[0], spare[1:]) if spare else (None, ())
        what = f"the T1w image {failed.path.name}"
        instead = (
            "the scan is registered to the template without one"
            if chosen is None
            else f"{chosen.path.name} is used instead"
        )
    why = reason.partition(". What to do: ")[0].removeprefix(f"{failed.path}: ").rstrip(".")
    warning = f"{what} could not be used ({why}); {instead}"
    scans = tuple(replace(scan, warnings=(*scan.warnings, warning)) for scan in unit.scans)
    return replace(unit, scans=scans, anatomy=chosen, spare_anatomies=spare)
