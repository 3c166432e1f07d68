"""Nodes that find lesions and place them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from numpy.typing import NDArray

from cmbprep.detectors import CandidateTable, Detection, DetectorInput, get_detector
from cmbprep.detectors.susceptibility import PhaseMaps, phase_maps
from cmbprep.errors import ScanError
from cmbprep.interfaces.echoes import read_echoes
from cmbprep.interfaces.files import load_image, save_like, voxels
from cmbprep.lesions import Lesion, format_lesions
from cmbprep.outputs.files import write_text
from cmbprep.phase.swi import FILTER_SIZE, MASK_POWER, slice_axis, swi
from cmbprep.registration.fit import VERDICTS
from cmbprep.registration.scan import EXPECTED_ERROR_MM, error_class
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.propagate import carry_atlas, carry_lesions
from cmbprep.spatial.transforms import PointMap, map_points, read_transform
from cmbprep.zones.assign import ZoneAssignment, assign_zones
from cmbprep.zones.schemes import get_scheme

__all__ = ["DetectLesions", "PlaceLesions"]


_ROW_NAMES = {"index": "number of the row", "name": "name of the row"}


class _DetectInput(BaseInterfaceInputSpec):
    in_file = traits.Str(mandatory=True, desc="scan after bias correction")
    mask = traits.Str(mandatory=True, desc="brain mask on the scan's grid")
    sequence = traits.Str(mandatory=True)
    field_strength = traits.Any(desc="tesla, or None")
    echo_times = traits.List(traits.Any(), desc="seconds, or None where unknown")
    magnitudes = traits.List(traits.Str(), desc="raw magnitudes, one an echo; may be empty")
    phases = traits.List(traits.Any(), desc="raw phases or None, one an echo; may be empty")
    phase_units = traits.List(traits.Any(), desc="of the phases' sidecars, or None")
    detector = traits.Str(mandatory=True)
    # A path tells nothing about the model in the file: the version makes the node's hash do so.
    detector_version = traits.Any(None, usedefault=True, desc="as the run was planned, or None")
    threshold = traits.Any(desc="lowest probability listed; None for the detector's own")


class _DetectOutput(TraitedSpec):
    probseg = traits.Str(desc="probability that a voxel belongs to a microbleed")
    dseg = traits.Str(desc="lesions by label")
    mask = traits.Str(desc="all microbleeds; diamagnetic lesions are none")
    lesions = traits.List(traits.Dict(), desc="fields of DetectedLesion")
    swi = traits.Str(desc="susceptibility-weighted image, where there is phase")
    candidates = traits.Str(desc="table of what the detector has weighed, if it tells")
    details = traits.Dict(desc="what the sidecars of these two files say")
    quality = traits.Dict(desc="what became of the phase")
    warnings = traits.List(traits.Str())


class DetectLesions(SimpleInterface):
    """Run a detector on a scan."""

    input_spec = _DetectInput
    output_spec = _DetectOutput

    def _run_interface(self, runtime: Any) -> Any:
        given, cwd = self.inputs, Path(runtime.cwd)
        scan = load_image(given.in_file)
        detector = get_detector(given.detector, threshold=given.threshold)
        if given.detector_version not in (None, detector.version):
            raise ScanError(
                "the detector has changed since this run was planned",
                path=Path(given.detector).name,
                hint="leave the model's file as it is while a run goes on, and run again",
            )
        phases = given.phases if isdefined(given.phases) else []
        echoes = read_echoes(
            given.magnitudes if isdefined(given.magnitudes) else [],
            phases,
            given.phase_units if isdefined(given.phase_units) else [],
            given.echo_times,
            scan,
        )
        known = tuple(time for time in given.echo_times if time is not None)
        seen = DetectorInput(
            magnitude=np.asarray(scan.dataobj, dtype=np.float32),
            affine=scan.affine,
            brain_mask=voxels(given.mask, bool),
            sequence=given.sequence,
            field_strength=given.field_strength,
            echo_times=echoes.times or known,
            echoes=echoes.magnitudes,
            phases=echoes.phases,
        )
        found = detector.detect(seen)
        labels = found.labels.astype(np.int16)
        mimics = mimic_voxels(found.labels, found)
        probability = np.where(mimics, 0, found.probability).astype(np.float32)
        bleeds = ((labels > 0) & ~mimics).astype(np.uint8)
        self._results["probseg"] = save_like(cwd / "probseg.nii.gz", probability, scan)
        self._results["dseg"] = save_like(cwd / "dseg.nii.gz", labels, scan)
        self._results["mask"] = save_like(cwd / "mask.nii.gz", bleeds, scan)
        self._results["lesions"] = [asdict(lesion) for lesion in found.lesions]
        self._results["warnings"] = [*echoes.warnings, *found.warnings]
        self._results["details"] = {}
        if found.candidates is not None:
            table = write_text(cwd / "candidates.tsv", format_candidates(found.candidates))
            self._results["candidates"] = str(table)
            meanings = {**_ROW_NAMES, **found.candidates.columns}
            self._results["details"]["candidates"] = {
                name: {"Description": f"{text[0].upper()}{text[1:]}."}
                for name, text in meanings.items()
            }
        maps = phase_maps(seen)
        self._results["quality"] = _phase_quality(maps) if any(phases) else {}
        if maps is not None and maps.sign.sign is not None:
            weighted, about = _weighted(seen, maps.sign.sign)
            self._results["swi"] = save_like(cwd / "swi.nii.gz", weighted, scan)
            self._results["details"]["swi"] = about
        return runtime


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
    signal = scan.echoes[last] * np.exp(1j * scan.phases[last])
    across = slice_axis(scan.spacing)
    image = swi(signal.astype(np.complex64), phase_sign=sign, across=across)
    return image, {
        "EchoTime": scan.echo_times[last],
        "PhaseSign": sign,
        "PhaseFilter": f"homodyne, in plane, Hann window of {FILTER_SIZE} of 512 samples",
        "PhaseMaskPower": MASK_POWER,
    }


class _PlaceInput(BaseInterfaceInputSpec):
    dseg = traits.Str(mandatory=True, desc="lesions by label")
    lesions = traits.List(traits.Dict(), mandatory=True, desc="from DetectLesions")
    brain_mask = traits.Str(mandatory=True)
    atlas = traits.Str(mandatory=True, desc="zone atlas, in the reference space as a rule")
    scan_to_atlas = traits.List(
        traits.Str(), desc="maps of points to the atlas's space, where that is another one"
    )
    template = traits.Str(mandatory=True, desc="image on the output template's grid")
    scheme = traits.Str(mandatory=True)
    # A file is named for the image that it brings over; the points go the other way, so
    # these two lists hold files of opposite names (see cmbprep.spatial.transforms).
    scan_to_reference = traits.List(
        traits.Str(), mandatory=True, desc="maps of points, in the order of use"
    )
    template_to_scan = traits.List(
        traits.Str(), mandatory=True, desc="maps of points, in the order of use"
    )
    reference_to_template = traits.Str(desc="map of points; not given where they are the same")
    direct_to_reference = traits.Str(desc="map of points of the scan, past the T1w image")
    reference_to_scan = traits.Str(desc="the same, the other way")
    judgement = traits.Dict(desc="figures of the scan's registration, and its route")
    t1w_judgement = traits.Dict(desc="figures of the T1w image's registration")


class _PlaceOutput(TraitedSpec):
    table = traits.Str(desc="lesion table")
    atlas = traits.Str(desc="zone atlas on the scan's grid")
    template_mask = traits.Str(desc="lesions in the template's space")
    quality = traits.Dict()
    warnings = traits.List(traits.Str())


class PlaceLesions(SimpleInterface):
    """Assign zone, region, side and template coordinates to every lesion."""

    input_spec = _PlaceInput
    output_spec = _PlaceOutput

    def _run_interface(self, runtime: Any) -> Any:
        given, cwd = self.inputs, Path(runtime.cwd)
        scheme = get_scheme(given.scheme)
        dseg = load_image(given.dseg)
        labels, grid = np.asarray(dseg.dataobj), image_grid(dseg)
        brain = voxels(given.brain_mask, bool)
        route, verdict = self._route()
        to_reference, to_template, to_scan = self._maps(route)
        placed = route != "none"
        tolerance = scheme.tolerance_mm
        zoned = placed and not (isdefined(given.scan_to_atlas) and route != "t1w")
        if zoned:
            spacing = float(grid.spacing.max())
            tolerance = max(tolerance, EXPECTED_ERROR_MM[error_class(route, spacing)])
            to_atlas = to_reference
            if isdefined(given.scan_to_atlas):
                to_atlas = [read_transform(Path(path)) for path in given.scan_to_atlas]
            atlas = carry_atlas(load_image(given.atlas), brain, grid, to_atlas)
        else:
            atlas = np.zeros(grid.shape, np.uint8)
        places = assign_zones(labels, grid.affine, atlas, scheme, tolerance_mm=tolerance)
        if verdict != "ok" or not zoned:
            note = "" if zoned else "no zone, because the registration has failed"
            if placed and not zoned:
                note = (
                    "no zone, because the scan could not be registered to the segmented T1w image"
                )
            places = [replace(p, boundary=True, note=note or p.note) for p in places]
        centres = [lesion["centre_ras"] for lesion in given.lesions]
        in_reference = map_points(np.reshape(centres, (-1, 3)), to_reference)
        lesions = [
            _join(found, place, point if placed else None)
            for found, place, point in zip(given.lesions, places, in_reference, strict=True)
        ]
        template = load_image(given.template)
        mimics = [item.index for item in lesions if item.susceptibility == "diamagnetic"]
        bleeds = np.where(np.isin(labels, mimics), 0, labels)
        if not placed:
            bleeds = np.zeros_like(bleeds)
        carried = carry_lesions(bleeds, grid, image_grid(template), to_template, to_scan)
        self._results["table"] = str(write_text(cwd / "lesions.tsv", format_lesions(lesions)))
        self._results["atlas"] = save_like(cwd / "atlas.nii.gz", atlas, dseg)
        self._results["template_mask"] = save_like(cwd / "template_mask.nii.gz", carried, template)
        self._results["quality"] = {
            "brain_with_region_fraction": _covered(atlas, brain),
            "zone_route": route,
            "zone_verdict": verdict,
            "zone_tolerance_mm": tolerance,
        }
        self._results["warnings"] = [
            f"{lesion.name}: {place.note}"
            for lesion, place in zip(lesions, places, strict=True)
            if place.note
        ]
        return runtime

    def _route(self) -> tuple[str, str]:
        """Return the registration route of the scan and its QC status."""
        given = self.inputs
        own = given.judgement if isdefined(given.judgement) else {}
        t1w = given.t1w_judgement if isdefined(given.t1w_judgement) else {}
        route = own.get("route", "t1w" if len(given.scan_to_reference) > 1 else "template")
        used = {
            "t1w": (own.get("t1w_registration"), t1w.get("template_registration")),
            "template": (own.get("template_registration"),),
            "none": ({"verdict": "failed"},),
        }[route]
        verdicts = [one["verdict"] for one in used if one]
        return route, max(verdicts, key=VERDICTS.index, default="ok")

    def _maps(self, route: str) -> tuple[list[PointMap], list[PointMap], list[PointMap]]:
        """Maps of points: scan to reference, scan to template, and template to scan."""
        given = self.inputs
        forth, back = list(given.scan_to_reference), list(given.template_to_scan)
        bridge = isdefined(given.reference_to_template)
        if route == "template" and isdefined(given.direct_to_reference):
            forth, back = [given.direct_to_reference], [*back[:bridge], given.reference_to_scan]
        to_reference = [read_transform(Path(path)) for path in forth]
        to_scan = [read_transform(Path(path)) for path in back]
        to_template = list(to_reference)
        if bridge:
            to_template.append(read_transform(Path(given.reference_to_template)))
        return to_reference, to_template, to_scan


def _join(found: dict[str, Any], place: ZoneAssignment, in_reference: Any) -> Lesion:
    """Make a row of the lesion table from what was detected and where it lies."""
    index = int(found["index"])
    if place.label != index:
        raise RuntimeError(f"lesion {index} of the detector is label {place.label} of its image")
    x, y, z = (float(value) for value in found["centre_ras"])
    x_mni, y_mni, z_mni = (
        (None, None, None) if in_reference is None else (float(value) for value in in_reference)
    )
    return Lesion(
        index=index,
        name=f"CMB-{index:03d}",
        x=x,
        y=y,
        z=z,
        x_mni=x_mni,
        y_mni=y_mni,
        z_mni=z_mni,
        volume_mm3=float(found["volume_mm3"]),
        diameter_mm=float(found["diameter_mm"]),
        probability=float(found["probability"]),
        rating=found["rating"],
        contrast=float(found["contrast"]),
        susceptibility=found["susceptibility"],
        **place.columns(),
    )


def _covered(atlas: Any, brain: Any) -> float:
    """Part of the brain mask that the atlas has a label for: low where they do not fit."""
    total = int(brain.sum())
    return round(float((atlas[brain] > 0).sum() / total), 4) if total else 0.0
