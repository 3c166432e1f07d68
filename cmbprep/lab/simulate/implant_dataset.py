"""Microbleeds put into the real scans of a BIDS dataset, as a new BIDS dataset."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.dataset import aside, describe, scanner_image
from cmbprep.lab.simulate.truth import TRUTH_COLUMNS, join_tables
from cmbprep.lesions import COLUMNS, Lesion
from cmbprep.outputs.files import read_json, write_image, write_json, write_text

if TYPE_CHECKING:
    import nibabel as nib

    from cmbprep.bids.model import Echo, Scan, Unit
    from cmbprep.lab.simulate.implant import Implanted, ImplantedLesion
    from cmbprep.registration.fit import TemplateRegistration

__all__ = ["implant_dataset"]

#: What is taken for granted where a sidecar does not say; the truth's sidecars tell.
ASSUMED_FIELD = 3.0
ASSUMED_ECHO_TIME = 0.025

#: Smallest and largest diameter of a deposit, mm.
DIAMETERS = (1.0, 4.5)

_README = """\
# Real scans with microbleeds put in

The scans are real; the microbleeds are not. Each was computed as a deposit of iron whose field
dephases the signal around it, at the scan's own echo time and voxel size.
`derivatives/truth` says where they are. Microbleeds that the people have of their own are not
in it. Results on these images are results on simulated lesions and must be called so.
"""


def implant_dataset(
    source: Path,
    dest: Path,
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write a copy of a dataset's scans with microbleeds put in, and the truth about them.

    Parameters
    ----------
    source
        BIDS dataset with blood-sensitive scans; its T1w images are copied.
    dest
        Folder to make; it must not exist or be empty.
    seed
        The same seed gives the same files.
    progress
        Called with the number of scans done, of scans in all, and the participant's label.

    Raises
    ------
    UsageError
        If `source` is no dataset with scans, or `dest` is in the way.
    """
    from cmbprep.bids.units import find_units

    root = Path(source).absolute()
    units = [unit for unit in find_units(root) if unit.scans]
    scans = [(unit, scan) for unit in units for scan in unit.scans]
    description = read_json(root / "dataset_description.json")
    name = str(description.get("Name", "Real scans"))
    with aside(Path(dest)) as folder:
        describe(
            folder,
            f"{name}, with microbleeds put in",
            "What was put into the scans",
            description.get("License"),
        )
        write_text(folder / "README.md", _README)
        write_text(folder / "derivatives" / "truth" / "README.md", _README)
        for unit in units:
            _copy_anatomy(unit, root, folder)
        for index, (unit, scan) in enumerate(scans):
            _implant_scan(scan, root, folder, [seed, 3, index])
            if progress is not None:
                progress(index + 1, len(scans), unit.subject)


def _copy_anatomy(unit: Unit, root: Path, folder: Path) -> None:
    if unit.anatomy is None:
        return
    path = folder / unit.anatomy.path.relative_to(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(unit.anatomy.path, path)
    write_json(path.with_name(f"{unit.anatomy.name}.json"), dict(unit.anatomy.metadata))


def _implant_scan(scan: Scan, root: Path, folder: Path, seed: list[int]) -> None:
    from cmbprep.bids.images import read_scan_image, require_echo_grid
    from cmbprep.lab.simulate.implant import draw_deposits, implant, plausible_places

    first = read_scan_image(scan.source, role="magnitude").image
    brain, registration = _anatomy(first)
    rng = np.random.default_rng(seed)
    number = int(np.clip(np.round(np.exp(rng.normal(np.log(6.0), 0.7))), 1, 40))
    data = np.asarray(first.dataobj, dtype=np.float32)
    places = plausible_places(data, brain, first.affine)
    deposits = draw_deposits(places, first.affine, number, rng, diameter_mm=DIAMETERS)
    strength = _number(scan.metadata.get("MagneticFieldStrength"), ASSUMED_FIELD)
    for echo in scan.echoes:
        image = read_scan_image(echo.magnitude, role="magnitude").image
        require_echo_grid(image, echo.magnitude, first, scan.source)
        echo_time = echo.echo_time or ASSUMED_ECHO_TIME
        result = implant(
            np.asarray(image.dataobj, dtype=np.float32),
            image.affine,
            brain,
            deposits,
            field_strength=strength,
            echo_time=echo_time,
            seed=int(np.random.default_rng([*seed, 1]).integers(2**31)),
        )
        _write_echo(scan, echo, image, result, root, folder)
    assumed = {"MagneticFieldStrength": strength, "EchoTime": echo_time}
    _write_truth(scan, result, first, registration, root, folder, assumed)


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else otherwise


def _anatomy(image: nib.Nifti1Image) -> tuple[NDArray[np.bool_], TemplateRegistration]:
    """Brain mask of a scan on its own grid, and its way to the template."""
    from cmbprep.brain.bias import correct_bias
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.fit import register_to_template
    from cmbprep.templates import load_template

    template = load_template()
    corrected = correct_bias(image).image
    registration = register_to_template(corrected, _load(template.t1w), _load(template.brain_mask))
    mask = refine_brain_mask(corrected, registration.brain_prior)
    return np.asarray(mask.dataobj) > 0, registration


def _load(path: Path) -> Any:
    import nibabel as nib

    return nib.load(path)


def _write_echo(
    scan: Scan, echo: Echo, image: nib.Nifti1Image, result: Implanted, root: Path, folder: Path
) -> None:
    from cmbprep.bids.images import phase_to_radians, read_scan_image, require_phase_grid

    sidecar = {**scan.metadata}
    if echo.echo_time is not None:
        sidecar["EchoTime"] = echo.echo_time
    _write(root, folder, echo.magnitude, result.image.astype(np.float32), image.affine, sidecar)
    if echo.phase is not None:
        phase = read_scan_image(echo.phase, role="phase").image
        require_phase_grid(phase, echo.phase, image)
        radians = phase_to_radians(np.asarray(phase.dataobj), echo.phase_units) + result.phase
        wrapped = np.angle(np.exp(1j * radians)).astype(np.float32)
        _write(root, folder, echo.phase, wrapped, phase.affine, {**sidecar, "Units": "rad"})


def _write(
    root: Path,
    folder: Path,
    original: Path,
    data: NDArray[Any],
    affine: NDArray[np.float64],
    sidecar: dict[str, Any],
) -> None:
    path = folder / original.relative_to(root)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    write_image(path.with_name(f"{stem}.nii.gz"), scanner_image(data, affine))
    write_json(path.with_name(f"{stem}.json"), sidecar)


def _write_truth(
    scan: Scan,
    result: Implanted,
    image: nib.Nifti1Image,
    registration: TemplateRegistration,
    root: Path,
    folder: Path,
    assumed: dict[str, float],
) -> None:
    truth = folder / "derivatives" / "truth" / scan.source.parent.relative_to(root)
    sources = [f"bids:raw:{path.relative_to(root).as_posix()}" for path in scan.files]
    common: dict[str, Any] = {"Sources": sources, **assumed}
    atlas = _atlas(image, registration)
    for seg, visible in (("CMB", True), ("mimics", False)):
        chosen = [lesion for lesion in result.lesions if lesion.visible is visible]
        labels = np.zeros(result.labels.shape, np.uint8)
        for index, lesion in enumerate(chosen, start=1):
            labels[result.labels == lesion.index] = index
        table = _table(chosen, labels, image.affine, registration, atlas)
        stem = f"{scan.stem}_seg-{seg}_dseg"
        write_image(truth / f"{stem}.nii.gz", scanner_image(labels, image.affine))
        write_text(truth / f"{stem}.tsv", table)
        write_json(truth / f"{stem}.json", {**common, **COLUMNS, **TRUTH_COLUMNS})
        if visible:
            stem = f"{scan.stem}_label-CMB_mask"
            mask = (labels > 0).astype(np.uint8)
            write_image(truth / f"{stem}.nii.gz", scanner_image(mask, image.affine))
            write_json(truth / f"{stem}.json", {"Type": "Lesion", **common})


def _atlas(image: nib.Nifti1Image, registration: TemplateRegistration) -> NDArray[np.uint8] | None:
    """Zones on the scan's grid, by the registration."""
    from cmbprep.spatial.ants import image_grid
    from cmbprep.spatial.transforms import apply_transforms
    from cmbprep.templates import load_template

    path = load_template().atlas("mars")
    if path is None:
        return None
    carried = apply_transforms(
        _load(path), image_grid(image), (registration.to_template,), interpolation="nearest"
    )
    return np.asarray(carried.dataobj).astype(np.uint8)


def _table(
    lesions: list[ImplantedLesion],
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64],
    registration: TemplateRegistration,
    atlas: NDArray[np.uint8] | None,
) -> str:
    from cmbprep.zones.assign import assign_zones
    from cmbprep.zones.schemes import MARS

    zones = {}
    if atlas is not None and lesions:
        zones = {zone.label: zone for zone in assign_zones(labels, affine, atlas, MARS)}
    rows, extra = [], []
    for index, lesion in enumerate(lesions, start=1):
        x, y, z = lesion.centre_ras
        template = registration.to_template(np.array([[x, y, z]]))[0]
        deposit = 4 / 3 * np.pi * float(np.prod(lesion.deposit.semi_axes_mm))
        size = (lesion.void_volume_mm3, lesion.void_diameter_mm)
        if not lesion.visible:
            size = (deposit, float(np.cbrt(6 * deposit / np.pi)))
        zone = zones.get(index)
        rows.append(
            Lesion(
                index=index,
                name=f"microbleed-{index:03d}",
                x=x,
                y=y,
                z=z,
                x_mni=float(template[0]),
                y_mni=float(template[1]),
                z_mni=float(template[2]),
                volume_mm3=size[0],
                diameter_mm=size[1],
                zone=zone.zone if zone else None,
                region=zone.region if zone else None,
                hemisphere=zone.hemisphere if zone else None,
                region_fraction=zone.region_fraction if zone else None,
                boundary_distance_mm=zone.boundary_distance_mm if zone else None,
                boundary=zone.boundary if zone else None,
                contrast=float(np.clip(lesion.loss, 0, 1)),
                susceptibility="paramagnetic" if lesion.deposit.chi_ppm > 0 else "diamagnetic",
            )
        )
        extra.append(
            {
                "kind": "microbleed",
                "extent": "compact",
                "place": "n/a",
                "susceptibility_ppm": f"{lesion.deposit.chi_ppm:.3f}",
                "deposit_mm3": f"{deposit:.2f}",
                "contrast_to_noise": f"{lesion.cnr:.1f}",
                "visible": "true" if lesion.visible else "false",
            }
        )
    return join_tables(rows, extra)
