"""Nodes that find lesions and place them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NotRequired

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.detectors import CandidateTable, Detection, DetectorInput, get_detector
from cmbprep.detectors.susceptibility import PhaseMaps, phase_maps
from cmbprep.errors import ScanError
from cmbprep.interfaces.base import FileInterface, Record
from cmbprep.interfaces.echoes import read_echoes
from cmbprep.interfaces.files import load_image, save_like, voxels
from cmbprep.lesions import ZONES, Lesion, format_lesions
from cmbprep.outputs.files import write_text
from cmbprep.outputs.sparse import describe_blocks
from cmbprep.phase.swi import FILTER_SIZE, MASK_POWER, slice_axis, swi
from cmbprep.registration.fit import VERDICTS
from cmbprep.registration.scan import EXPECTED_ERROR_MM, error_class
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.empty import empty_regions
from cmbprep.spatial.propagate import carry_atlas, carry_lesions
from cmbprep.spatial.transforms import PointMap, map_points, read_transform
from cmbprep.spatial.view import WHOLE, LabelCount, label_coverage, seen_blocks
from cmbprep.zones.assign import ZoneAssignment, assign_zones
from cmbprep.zones.schemes import Scheme, get_scheme

_ROW_NAMES = {"index": "number of the row", "name": "name of the row"}


class _Detected(Record):
    probseg: str
    dseg: str
    mask: str
    lesions: list[dict[str, Any]]
    swi: NotRequired[str]
    candidates: NotRequired[str]
    details: dict[str, Any]


class DetectLesions(FileInterface):
    """Run a detector on a scan.

    Parameters
    ----------
    in_file, mask
        Scan after bias correction, and its brain mask.
    sequence, field_strength, echo_times
        Kind of scan; tesla; seconds, None where unknown.
    magnitudes, phases, phase_units
        Raw images, one an echo, and ``Units`` of the phases' sidecars; may be empty.
    detector, threshold
        Name or path of the detector, and the lowest probability listed, if not its own.
    detector_version
        Version of the detector when the run was planned. A path tells nothing about the model in
        the file: the version is what tells one model from the next in the node's hash.

    Notes
    -----
    Outputs are the probability that a voxel belongs to a microbleed (``probseg``), the lesions by
    label (``dseg``) and as a list of :class:`~cmbprep.detectors.DetectedLesion`, the mask of the
    microbleeds without diamagnetic lesions, and, if there are any, the susceptibility-weighted
    image and the table of candidates; ``details`` holds what the sidecars of these two say.
    """

    def compute(
        self,
        in_file: str,
        mask: str,
        sequence: str,
        detector: str,
        echo_times: list[Any],
        field_strength: float | None = None,
        magnitudes: list[str] | None = None,
        phases: list[Any] | None = None,
        phase_units: list[Any] | None = None,
        threshold: float | None = None,
        detector_version: Any = None,
        *,
        cwd: Path,
    ) -> _Detected:
        """Detect the lesions."""
        scan = load_image(in_file)
        model = get_detector(detector, threshold=threshold)
        if detector_version not in (None, model.version):
            raise ScanError(
                "the detector has changed since this run was planned",
                path=Path(detector).name,
                hint="leave the model's file as it is while a run goes on, and run again",
            )
        echoes = read_echoes(magnitudes or [], phases or [], phase_units or [], echo_times, scan)
        known = tuple(time for time in echo_times if time is not None)
        seen = DetectorInput(
            magnitude=np.asarray(scan.dataobj, dtype=np.float32),
            affine=scan.affine,
            brain_mask=voxels(mask, bool),
            sequence=sequence,
            field_strength=field_strength,
            echo_times=echoes.times or known,
            echoes=echoes.magnitudes,
            phases=echoes.phases,
        )
        found = model.detect(seen)
        maps = phase_maps(seen)
        results = _save_detection(found, scan, cwd)
        results["warnings"] = [*echoes.warnings, *found.warnings]
        results["quality"] = _phase_quality(maps) if any(phases or ()) else {}
        if maps is not None and maps.sign.sign is not None:
            weighted, about = _weighted(seen, maps.sign.sign)
            results["swi"] = save_like(cwd / "swi.nii.gz", weighted, scan)
            results["details"]["swi"] = about
        return results


def _save_detection(found: Detection, scan: nib.Nifti1Image, cwd: Path) -> _Detected:
    """Write the images and tables of a detection; return the outputs that are known so far."""
    labels = found.labels.astype(np.int16)
    mimics = mimic_voxels(found.labels, found)
    probability = np.where(mimics, 0, found.probability).astype(np.float32)
    bleeds = ((labels > 0) & ~mimics).astype(np.uint8)
    results: _Detected = {
        "probseg": save_like(cwd / "probseg.nii.gz", probability, scan),
        "dseg": save_like(cwd / "dseg.nii.gz", labels, scan),
        "mask": save_like(cwd / "mask.nii.gz", bleeds, scan),
        "lesions": [asdict(lesion) for lesion in found.lesions],
        "details": {},
        "quality": {},
        "warnings": [],
    }
    if found.candidates is not None:
        table = write_text(cwd / "candidates.tsv", format_candidates(found.candidates))
        results["candidates"] = str(table)
        meanings = {**_ROW_NAMES, **found.candidates.columns}
        results["details"]["candidates"] = {
            name: {"Description": f"{text[0].upper()}{text[1:]}."}
            for name, text in meanings.items()
        }
    return results


def format_candidates(table: CandidateTable) -> str:
    """Return the table as TSV, numbers to four decimals, with the columns that BIDS asks for."""
    # Adding zero turns a negative zero into a plain one.
    numbers = np.round(table.rows, 4) + 0.0
    lines = ["\t".join(["index", "name", *table.columns])]
    for index, row in enumerate(numbers, start=1):
        values = [np.format_float_positional(value, trim="-") for value in row]
        lines.append("\t".join([str(index), f"candidate-{index:03d}", *values]))
    return "\n".join(lines) + "\n"


def mimic_voxels(labels: NDArray[Any], found: Detection) -> NDArray[np.bool_]:
    """Return the voxels of diamagnetic lesions, which are not microbleeds."""
    mimics = [one.index for one in found.lesions if one.susceptibility == "diamagnetic"]
    return np.isin(labels, mimics)


def _phase_quality(maps: PhaseMaps | None) -> dict[str, Any]:
    """Return how a scan's phase was used."""
    if maps is None:
        return {"phase_used": False}
    return {
        "phase_used": True,
        "phase_sign": maps.sign.sign,
        "phase_sign_confidence": round(maps.sign.confidence, 1),
    }


def _weighted(scan: DetectorInput, sign: int) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Compute the susceptibility-weighted image of the latest echo, and say how."""
    last = int(np.argmax(scan.echo_times))
    signal = scan.echoes[last] * np.exp(1j * _filled(scan.phases[last]))
    across = slice_axis(scan.spacing)
    image = swi(signal.astype(np.complex64), phase_sign=sign, across=across)
    return image, {
        "EchoTime": scan.echo_times[last],
        "PhaseSign": sign,
        "PhaseFilter": f"homodyne, in plane, Hann window of {FILTER_SIZE} of 512 samples",
        "PhaseMaskPower": MASK_POWER,
    }


def _filled(phase: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the nearest known phase in the place of an unknown one."""
    unknown = np.isnan(phase)
    if not unknown.any():
        return phase
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    filled: NDArray[np.float32] = phase[tuple(nearest)]
    return filled


class _Placed(Record):
    table: str
    atlas: str
    template_mask: str
    view: dict[str, Any]


class PlaceLesions(FileInterface):
    """Assign zone, region, side and template coordinates to every lesion.

    Parameters
    ----------
    in_file
        Scan after bias correction.
    dseg, lesions
        From :class:`DetectLesions`.
    brain_mask
        On the scan's grid.
    atlas, person_atlas
        Zone atlas in the reference space, or in that of the T1w image if ``person_atlas``.
    template
        Image on the output template's grid.
    scheme
        Name of the zone scheme.
    to_target, from_target
        Transforms to and from the T1w image, or the reference if there is no T1w image.
    to_reference, from_reference
        Transforms of the T1w image to and from the reference, if there is a T1w image.
    to_direct, from_direct
        Transforms of the scan to and from the reference, past the T1w image.
    to_template, from_template
        Transforms from the reference to the output template and back, if they differ.
    judgement, t1w_judgement
        Quality of the scan's registration, with its route, and of the T1w image's.

    Notes
    -----
    Outputs are the lesion table, the atlas on the scan's grid (``atlas``), the lesions in the
    template's space (``template_mask``), and what the scan shows of the brain (``view``): the part
    of each zone (``Coverage``) and, unless all zones are seen, the blocks of the template
    (``SeenBlocks``). Large empty regions of the image are not seen, and warnings name the zones
    that they lie in. Both are left out where the scan could not be registered.
    """

    def compute(
        self,
        in_file: str,
        dseg: str,
        lesions: list[dict[str, Any]],
        brain_mask: str,
        atlas: str,
        template: str,
        scheme: str,
        to_target: str,
        from_target: str,
        to_reference: str | None = None,
        from_reference: str | None = None,
        to_direct: str | None = None,
        from_direct: str | None = None,
        to_template: str | None = None,
        from_template: str | None = None,
        judgement: dict[str, Any] | None = None,
        t1w_judgement: dict[str, Any] | None = None,
        person_atlas: bool = False,
        *,
        cwd: Path,
    ) -> _Placed:
        """Place the lesions by the route that the scan's registration has taken."""
        route, verdict = _route(judgement or {}, t1w_judgement or {}, with_t1w=bool(from_reference))
        placed = route != "none"
        # A person's own zones lie in the space of the T1w image.
        zoned = placed and (route == "t1w" or not person_atlas)
        # A file is named for the image that it brings over, and its map of points goes the other
        # way (see cmbprep.spatial.transforms): points of the scan reach the reference through the
        # files that bring the reference onto the scan.
        forth: list[str | None] = [from_target, from_reference]
        back: list[str | None] = [to_reference, to_target]
        if route == "template" and from_direct is not None:
            forth, back = [from_direct], [to_direct]
        image, brain, zones = load_image(dseg), voxels(brain_mask, bool), get_scheme(scheme)
        labels, grid = np.asarray(image.dataobj), image_grid(image)
        regions, tolerance = np.zeros(grid.shape, np.uint8), zones.tolerance_mm
        if zoned:
            error = EXPECTED_ERROR_MM[error_class(route, float(grid.spacing.max()))]
            tolerance = max(tolerance, error)
            to_atlas = _maps(forth[:1] if person_atlas else forth)
            regions = carry_atlas(load_image(atlas), brain, grid, to_atlas)
        places = assign_zones(labels, grid.affine, regions, zones, tolerance_mm=tolerance)
        if verdict != "ok" or not zoned:
            note = "" if zoned else _NO_ZONE[placed]
            places = [replace(p, boundary=True, note=note or p.note) for p in places]
        rows = _rows(lesions, places, _maps(forth), placed=placed)
        target = load_image(template)
        ways = _maps([*forth, from_template]), _maps([to_template, *back])
        bleeds = _bleeds(labels, rows) if placed else np.zeros_like(labels)
        carried = carry_lesions(bleeds, grid, image_grid(target), *ways)
        view: dict[str, Any] = {}
        unshown: list[str] = []
        values, empty = voxels(in_file, np.float32), None
        if zoned:
            to_scan = _maps(back[-1:] if person_atlas else back)
            drawn = load_image(atlas)
            found = label_coverage(
                np.asarray(drawn.dataobj), image_grid(drawn), to_scan, grid, values
            )
            view["Coverage"], unshown, empty = *_zone_coverage(found.counts, zones), found.empty
        elif placed:
            empty = empty_regions(values, brain, grid.spacing)
        if placed and min(view.get("Coverage", {}).values(), default=0.0) < WHOLE:
            seen = seen_blocks(image_grid(target), ways[1], grid, empty)
            view["SeenBlocks"] = describe_blocks(seen, image_grid(target))
        notes = [f"{row.name}: {p.note}" for row, p in zip(rows, places, strict=True) if p.note]
        return {
            "table": str(write_text(cwd / "lesions.tsv", format_lesions(rows))),
            "atlas": save_like(cwd / "atlas.nii.gz", regions, image),
            "template_mask": save_like(cwd / "template_mask.nii.gz", carried, target),
            "view": view,
            "quality": {
                "brain_with_region_fraction": _covered(regions, brain),
                "zone_route": route,
                "zone_verdict": verdict,
                "zone_tolerance_mm": tolerance,
            },
            "warnings": [*unshown, *notes],
        }


#: Why a lesion has no zone, by whether the scan is registered to the template.
_NO_ZONE = {
    False: "no zone, because the registration has failed",
    True: "no zone, because the scan could not be registered to the segmented T1w image",
}


def _route(own: dict[str, Any], t1w: dict[str, Any], *, with_t1w: bool) -> tuple[str, str]:
    """Return the registration route of the scan and its QC status."""
    route = own.get("route", "t1w" if with_t1w else "template")
    used = {
        "t1w": (own.get("t1w_registration"), t1w.get("template_registration")),
        "template": (own.get("template_registration"),),
        "none": ({"verdict": "failed"},),
    }[route]
    verdicts = [one["verdict"] for one in used if one]
    return route, max(verdicts, key=VERDICTS.index, default="ok")


def _maps(paths: list[str | None]) -> list[PointMap]:
    """Read maps of points, in the order of use."""
    return [read_transform(Path(path)) for path in paths if path is not None]


def _rows(
    lesions: list[dict[str, Any]],
    places: list[ZoneAssignment],
    to_reference: list[PointMap],
    *,
    placed: bool,
) -> list[Lesion]:
    """Make the rows of the lesion table; lesions that are not placed get no coordinates."""
    centres = [lesion["centre_ras"] for lesion in lesions]
    in_reference = map_points(np.reshape(centres, (-1, 3)), to_reference)
    return [
        _join(found, place, point if placed else None)
        for found, place, point in zip(lesions, places, in_reference, strict=True)
    ]


def _bleeds(labels: NDArray[Any], rows: list[Lesion]) -> NDArray[Any]:
    """Leave diamagnetic lesions out of a label image."""
    mimics = [row.index for row in rows if row.susceptibility == "diamagnetic"]
    return np.where(np.isin(labels, mimics), 0, labels)


def _join(found: dict[str, Any], place: ZoneAssignment, in_reference: Any) -> Lesion:
    """Make a row of the lesion table from what was detected and where it lies."""
    index = int(found["index"])
    if place.label != index:
        raise RuntimeError(f"lesion {index} of the detector is label {place.label} of its image")
    x, y, z = map(float, found["centre_ras"])
    x_mni, y_mni, z_mni = (None,) * 3 if in_reference is None else map(float, in_reference)
    return Lesion(
        index=index,
        name=f"CMB-{index:03d}",
        x=x,
        y=y,
        z=z,
        x_mni=x_mni,
        y_mni=y_mni,
        z_mni=z_mni,
        rating=found["rating"],
        susceptibility=found["susceptibility"],
        volume_mm3=float(found["volume_mm3"]),
        diameter_mm=float(found["diameter_mm"]),
        probability=float(found["probability"]),
        contrast=float(found["contrast"]),
        **place.columns(),
    )


def _zone_coverage(
    counts: Mapping[int, LabelCount], scheme: Scheme
) -> tuple[dict[str, float], list[str]]:
    """Return the part of each zone that is seen, 0 to 1, and warnings on zones that are empty.

    A zone that is not in the atlas is left out.
    """
    parts, warnings = {}, []
    for zone in ZONES:
        own = [counts[r.index] for r in scheme.regions if r.zone == zone and r.index in counts]
        total = sum(one.total for one in own)
        if not total:
            continue
        parts[zone] = round(sum(one.seen for one in own) / total, 4)
        empty = sum(one.in_field - one.seen for one in own) / total
        if empty > 1 - WHOLE:
            warnings.append(
                f"the image is empty in {empty:.0%} of the {zone} brain: "
                "no microbleed can be seen there"
            )
    return parts, warnings


def _covered(atlas: Any, brain: Any) -> float:
    """Part of the brain mask that the atlas has a label for: low where they do not fit."""
    total = int(brain.sum())
    return round(float((atlas[brain] > 0).sum() / total), 4) if total else 0.0
