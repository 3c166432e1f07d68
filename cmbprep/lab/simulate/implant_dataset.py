"""Microbleeds put into the real scans of a BIDS dataset, as a new BIDS dataset."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.dataset import aside, describe, save_image, write_readme, write_truth
from cmbprep.lab.simulate.truth import Row, add_zones, join_tables, truth_row
from cmbprep.lesions import MISSING
from cmbprep.outputs.files import read_json, write_json

if TYPE_CHECKING:
    import nibabel as nib

    from cmbprep.bids.model import Echo, Scan, Unit
    from cmbprep.lab.simulate.implant import Implanted, ImplantedLesion
    from cmbprep.registration.fit import TemplateRegistration

#: What is taken for granted where a sidecar does not say; the truth's sidecars tell.
ASSUMED_FIELD = 3.0
ASSUMED_ECHO_TIME = 0.025

#: Smallest and largest diameter of a deposit, mm.
DIAMETERS = (1.0, 4.5)


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
        write_readme(folder, "README.implanted.md")
        copy = _Copy(root, folder)
        for unit in units:
            copy.anatomy(unit)
        for index, (unit, scan) in enumerate(scans):
            _implant_scan(scan, copy, [seed, 3, index])
            if progress is not None:
                progress(index + 1, len(scans), unit.subject)


@dataclass(frozen=True)
class _Copy:
    """A dataset and the folder that its copy is made in."""

    root: Path
    folder: Path

    def anatomy(self, unit: Unit) -> None:
        """Copy the T1w image of a unit, with all that is known of it beside it."""
        if unit.anatomy is None:
            return
        path = self.folder / unit.anatomy.path.relative_to(self.root)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(unit.anatomy.path, path)
        write_json(path.with_name(f"{unit.anatomy.name}.json"), dict(unit.anatomy.metadata))

    def save(
        self, original: Path, data: NDArray[Any], affine: NDArray[Any], sidecar: dict[str, Any]
    ) -> None:
        """Write an image in the place of one of the dataset's."""
        path = self.folder / original.relative_to(self.root)
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        save_image(path.with_name(name), data, affine, sidecar)


def _implant_scan(scan: Scan, copy: _Copy, seed: list[int]) -> None:
    from cmbprep.bids.images import read_scan_image, require_echo_grid
    from cmbprep.lab.simulate.implant import draw_deposits, implant, plausible_places

    first = read_scan_image(scan.source, role="magnitude").image
    brain, registration = _anatomy(first)
    rng = np.random.default_rng(seed)
    number = int(np.clip(np.round(np.exp(rng.normal(np.log(6.0), 0.7))), 1, 40))
    data = np.asarray(first.dataobj, dtype=np.float32)
    places = plausible_places(data, brain, first.affine)
    deposits = draw_deposits(places, first.affine, number, rng, diameter_mm=DIAMETERS)
    stated = scan.metadata.get("MagneticFieldStrength")
    known = isinstance(stated, int | float) and stated > 0
    strength = float(stated) if known else ASSUMED_FIELD  # type: ignore[arg-type]
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
        _write_echo(scan, echo, image, result, copy)
    assumed = {"MagneticFieldStrength": strength, "EchoTime": echo_time}
    _write_truth(scan, result, first, registration, copy, assumed)


def _anatomy(image: nib.Nifti1Image) -> tuple[NDArray[np.bool_], TemplateRegistration]:
    """Brain mask of a scan on its own grid, and its way to the template."""
    from cmbprep.brain.bias import correct_bias
    from cmbprep.brain.refine import refine_brain_mask
    from cmbprep.registration.scan import register_head
    from cmbprep.templates import load_template

    template = load_template()
    corrected = correct_bias(image).image
    registration = register_head(corrected, _load(template.t1w), _load(template.brain_mask))
    mask = refine_brain_mask(corrected, registration.brain_prior)
    return np.asarray(mask.dataobj) > 0, registration


def _load(path: Path) -> Any:
    import nibabel as nib

    return nib.load(path)


def _write_echo(
    scan: Scan, echo: Echo, image: nib.Nifti1Image, result: Implanted, copy: _Copy
) -> None:
    from cmbprep.bids.images import read_scan_image, require_phase_grid
    from cmbprep.bids.phase import phase_to_radians

    sidecar = {**scan.metadata}
    if echo.echo_time is not None:
        sidecar["EchoTime"] = echo.echo_time
    copy.save(echo.magnitude, result.image.astype(np.float32), image.affine, sidecar)
    if echo.phase is not None:
        phase = read_scan_image(echo.phase, role="phase").image
        require_phase_grid(phase, echo.phase, image)
        radians = phase_to_radians(np.asarray(phase.dataobj), echo.phase_units) + result.phase
        wrapped = np.angle(np.exp(1j * radians)).astype(np.float32)
        copy.save(echo.phase, wrapped, phase.affine, {**sidecar, "Units": "rad"})


def _write_truth(
    scan: Scan,
    result: Implanted,
    image: nib.Nifti1Image,
    registration: TemplateRegistration,
    copy: _Copy,
    assumed: dict[str, float],
) -> None:
    sources = [f"bids:raw:{path.relative_to(copy.root).as_posix()}" for path in scan.files]
    atlas = _atlas(image, registration)
    segments = {}
    for seg, visible in (("CMB", True), ("mimics", False)):
        chosen = [lesion for lesion in result.lesions if lesion.visible is visible]
        labels = np.zeros(result.labels.shape, np.uint8)
        for index, lesion in enumerate(chosen, start=1):
            labels[result.labels == lesion.index] = index
        rows = [_row(n, lesion, registration) for n, lesion in enumerate(chosen, start=1)]
        segments[seg] = (labels, join_tables(add_zones(rows, labels, image.affine, atlas)))
    folder = copy.folder / "derivatives" / "truth" / scan.source.parent.relative_to(copy.root)
    write_truth(folder / scan.stem, image.affine, segments, {"Sources": sources, **assumed})


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


def _row(index: int, lesion: ImplantedLesion, registration: TemplateRegistration) -> Row:
    centre = np.array([lesion.centre_ras])
    deposit = 4 / 3 * np.pi * float(np.prod(lesion.deposit.semi_axes_mm))
    return truth_row(
        "microbleed",
        index,
        (*lesion.centre_ras, *registration.to_template(centre)[0]),
        lesion.void_volume_mm3 if lesion.visible else deposit,
        lesion.deposit.chi_ppm,
        contrast=float(np.clip(lesion.loss, 0, 1)),
        deposit=deposit,
        cnr=lesion.cnr,
        site=MISSING,
        kind="microbleed",
        extent="compact",
        visible="true" if lesion.visible else "false",
    )
