"""Simulated scans to train on, as a detector gets them, with their truth.

What the program does to a scan before detection is done here as well: bias correction
within a brain mask, and a mask that is not perfect. Scans hold far more bleeds and mimics
than people do; :mod:`cmbprep.lab.training.calibration` puts that right.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage, special

from cmbprep.bids.images import combine_echoes
from cmbprep.detectors.base import DetectorInput
from cmbprep.lab.simulate.deformation import TemplateHead
from cmbprep.lab.simulate.field import Geometry, plan_geometry
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.implant import draw_deposits, implant, plausible_places
from cmbprep.lab.simulate.protocols import Protocol
from cmbprep.lab.simulate.scanner import Acquisition
from cmbprep.lab.simulate.truth import Truth
from cmbprep.reports.usable import usable_results
from cmbprep.spatial.grids import resample_to_grid, respaced_grid

logger = logging.getLogger("cmbprep")


#: What a spot of the truth can be.
KNOWN_KINDS = ("microbleed", "hidden", "calcification", "other")
# Blur whose level sets are moved borders of the brain mask, mm.
_MASK_BLUR = 3.0

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class KnownSpot:
    """One thing that was put into a scan.

    Attributes
    ----------
    kind
        One of :data:`KNOWN_KINDS`; ``hidden`` is a microbleed that cannot be seen.
    centre
        mm, RAS+ scanner coordinates.
    diameter
        mm, of the void.
    """

    kind: str
    centre: tuple[float, float, float]
    diameter: float

    def __post_init__(self) -> None:
        if self.kind not in KNOWN_KINDS:
            raise ValueError(f"{self.kind!r} is none of {KNOWN_KINDS}")


@dataclass(frozen=True, eq=False)
class TrainingScan:
    """A scan with its truth.

    Attributes
    ----------
    scan
        As the program would hand it to a detector.
    spots
        What is known.
    """

    scan: DetectorInput
    spots: tuple[KnownSpot, ...]


@dataclass(frozen=True, eq=False)
class _Person:
    head: Head
    tubes: list
    sources: list
    centre: NDArray[np.float64]


def simulate_scans(
    template: TemplateHead,
    protocols: list[Protocol],
    *,
    microbleeds: int | None,
    mimic_rounds: int = 1,
    rng: np.random.Generator,
) -> Iterator[TrainingScan]:
    """Make one person and scan them under some protocols.

    Parameters
    ----------
    template
        What the head is deformed from.
    protocols
        One acquisition each.
    microbleeds
        How many are put in; None draws as many as a person of the cohorts has.
    mimic_rounds
        How often mimics are drawn; more than one gives more than a person has.
    rng
        Source of randomness.

    Yields
    ------
    TrainingScan
        One for each acquisition; processed SWI and its magnitude with phase are two.
    """
    from cmbprep.lab.simulate import scanner

    person = _draw_person(template, microbleeds, mimic_rounds, rng)
    for protocol in protocols:
        geometry = plan_geometry(protocol, person.centre.tolist(), rng)
        # Vessels and nuclei are no spots: nothing is learned of where their voxels are.
        acquired = scanner.acquire(
            person.head,
            person.tubes,
            person.sources,
            protocol,
            geometry,
            rng,
            with_structures=False,
        )
        yield from _training_scans(person, acquired, protocol, rng)


def _draw_person(
    template: TemplateHead, microbleeds: int | None, mimic_rounds: int, rng: np.random.Generator
) -> _Person:
    from cmbprep.lab.simulate import sources, vessels
    from cmbprep.lab.simulate.head import build_head

    age = float(np.clip(rng.normal(68, 12), 30, 92))
    head = build_head(
        template,
        rng,
        age=age,
        atrophy=float(np.clip(rng.normal(0.3, 0.2), 0, 1)),
        lesion_load=float(np.clip(rng.normal(0.3, 0.25), 0, 1)),
    )
    places = sources.place_masks(head)
    if microbleeds is None:
        # As in cmbprep.lab.simulate.protocols: two in three people carry some.
        microbleeds = 0
        if rng.random() < 0.67:
            microbleeds = int(np.clip(np.round(np.exp(rng.normal(np.log(2.6), 1.1))), 1, 83))
    found = sources.draw_microbleeds(head, places, microbleeds, rng)
    for _ in range(mimic_rounds):
        found += sources.draw_mimics(head, places, age, rng)
    tubes = vessels.draw_veins(head, head.to_template.inverse, rng)
    tubes += vessels.draw_arteries(head.to_template.inverse, rng)
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    return _Person(head, tubes, found, centre)


def _training_scans(
    person: _Person, acquired: Acquisition, protocol: Protocol, rng: np.random.Generator
) -> Iterator[TrainingScan]:
    from cmbprep.lab.simulate.truth import tell_truth

    truth = tell_truth(person.head, person.sources, acquired, with_zones=False)
    spots = _known(truth)
    mask = rough_mask(person.head, acquired.geometry, rng)
    if np.count_nonzero(mask) < 2000:
        return
    for scan in detector_inputs(acquired.echoes, acquired.geometry.affine, mask, protocol):
        yield TrainingScan(scan, spots)


def detector_inputs(
    signals: Sequence[NDArray[np.complex64]],
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
    protocol: Protocol,
) -> Iterator[DetectorInput]:
    """Return what the program would hand to a detector for an acquisition.

    Parameters
    ----------
    signals
        Complex image of each echo, (X, Y, Z).
    affine
        4x4, voxel to RAS+ mm.
    mask
        Brain.
    protocol
        Of the acquisition.

    Yields
    ------
    DetectorInput
        The magnitude, with phase if the protocol keeps it; and for ``swi`` the processed image.
    """
    from cmbprep.phase.swi import swi

    echoes = [np.abs(signal).astype(np.float32) for signal in signals]
    plain = DetectorInput(
        magnitude=_even(combine_echoes(echoes, protocol.echo_times), affine, mask),
        affine=affine,
        brain_mask=mask,
        sequence="MEGRE" if len(echoes) > 1 else "T2starw",
        field_strength=protocol.field_strength,
        echo_times=protocol.echo_times,
        echoes=tuple(echoes),
        phases=tuple(np.angle(signal).astype(np.float32) for signal in signals)
        if protocol.phase
        else (),
    )
    yield plain
    if protocol.suffix == "swi":
        weighted = swi(signals[-1], phase_sign=protocol.phase_sign)
        yield replace(
            plain,
            magnitude=_even(weighted, affine, mask),
            sequence="swi",
            echoes=(),
            phases=(),
        )


def _even(image: FloatArray, affine: NDArray[np.float64], mask: NDArray[np.bool_]) -> FloatArray:
    """Correct the bias as the program does."""
    import nibabel as nib

    from cmbprep.brain.bias import correct_bias

    corrected = correct_bias(
        nib.Nifti1Image(image, affine), nib.Nifti1Image(mask.astype(np.uint8), affine)
    )
    return np.asarray(corrected.image.dataobj, np.float32)


def rough_mask(head: Head, geometry: Geometry, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The brain mask with the errors that a program's mask has, on the scan's grid.

    The border is moved by up to some millimetres, as a whole and differently from place to
    place.
    """
    soft = ndimage.gaussian_filter(
        head.brain_mask().astype(np.float32), _MASK_BLUR / head.spacing, truncate=2.5
    )
    matrix = np.linalg.inv(head.affine) @ np.linalg.inv(geometry.head_to_voxel)
    soft = ndimage.affine_transform(
        soft, matrix[:3, :3], matrix[:3, 3], output_shape=geometry.shape, order=1
    )
    spacing = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    coarse = [max(2, int(n * s / 14.0)) for n, s in zip(geometry.shape, spacing, strict=True)]
    waves = rng.standard_normal(coarse, dtype=np.float32) * rng.uniform(0.2, 1.2)
    waves += np.float32(rng.normal(0.3, 0.9))
    moved = ndimage.zoom(
        waves, np.array(geometry.shape) / np.array(coarse), order=1, grid_mode=False
    )
    moved = moved[tuple(slice(0, n) for n in geometry.shape)]
    level = special.ndtr(-moved / _MASK_BLUR).astype(np.float32)
    return np.asarray(soft > level)


def _known(truth: Truth) -> tuple[KnownSpot, ...]:
    """Everything that was put in, and what each is."""
    spots = []
    for table in (truth.microbleed_table, truth.other_table):
        for row in csv.DictReader(io.StringIO(table), delimiter="\t"):
            kind = row["kind"]
            if kind == "microbleed" and row["visible"] != "true":
                kind = "hidden"
            spots.append(
                KnownSpot(
                    kind=kind if kind in KNOWN_KINDS else "other",
                    centre=(float(row["x"]), float(row["y"]), float(row["z"])),
                    diameter=float(row["diameter_mm"]),
                )
            )
    return tuple(spots)


# --- Real scans without microbleeds to train on: their sulci, veins and artefacts are real -------
#
# Microbleeds are implanted (:mod:`cmbprep.lab.simulate.implant`), so that the positives are still
# simulated; the negatives are not. A scan of fine voxels is shown as coarser protocols would show
# it, another one each time, so that its veins and sulci are met at many resolutions.


#: Bleeds put into a scan, of these diameters (mm, of the deposit).
BLEEDS = 14
DIAMETERS = (0.8, 4.5)
#: A scan whose voxels are smaller than this within the slices is shown coarser, mm.
FINE_MM = 1.6
# How many times larger its voxels become within the slices, and how thick its slices, mm.
_ENLARGED = (1.0, 2.4)
_SLICES_MM = (1.0, 6.0)
# Power of the intensities: fluid is less bright against tissue in T2* than in T2 images.
_POWER = (0.4, 1.0)
# Noise that averaging has taken away is put back, as a part of the brain's median.
_NOISE = (0.01, 0.05)


@dataclass(frozen=True, eq=False)
class RealBackground:
    """A real scan after bias correction, and its brain mask."""

    name: str
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]

    @cached_property
    def places(self) -> NDArray[np.bool_]:
        """Where bleeds may be put."""
        return plausible_places(self.image, self.mask, self.affine)


def load_backgrounds(output_dir: Path, subjects: list[str]) -> list[RealBackground]:
    """Read the preprocessed scans of some participants from results of cmbprep.

    Scans that are withdrawn, failed or incomplete are left out with a warning.
    """
    import nibabel as nib

    found = []
    for subject in subjects:
        known = usable_results(output_dir, subject=subject)
        for stem, reason in sorted(known.unusable.items()):
            logger.warning("%s is not used for training: %s", stem, reason)
        records = [scan.preproc for scan in known.complete.values()]
        if not records:
            logger.warning("sub-%s has no scan with a result to train on", subject)
        for record in sorted(records, key=lambda record: record.files.sidecar):
            image: Any = nib.load(record.files.path("preproc"))
            data = np.asarray(image.dataobj, np.float32)
            outline: Any = nib.load(record.files.path("brain_mask"))
            mask = np.asarray(outline.dataobj) > 0
            affine = np.asarray(image.affine, np.float64)
            found.append(RealBackground(subject, data, mask, affine))
    return found


def shown_coarser(background: RealBackground, rng: np.random.Generator) -> RealBackground:
    """Return a scan as a protocol with larger voxels would, if its voxels are fine.

    Parameters
    ----------
    background
        A scan; with voxels of :data:`FINE_MM` or more it is given back as it is.
    rng
        Source of the voxel size, the contrast and the noise.
    """
    sizes = voxel_sizes(background.affine)
    axis = int(np.argmax(sizes))
    within = np.delete(sizes, axis)
    if within.min() >= FINE_MM:
        return background
    wanted = sizes * rng.uniform(*_ENLARGED)
    wanted[axis] = max(sizes[axis], rng.uniform(*_SLICES_MM), wanted.min())
    grid = respaced_grid(background.image.shape, background.affine, wanted)
    image = np.maximum(background.image, 0) ** np.float32(rng.uniform(*_POWER))
    image = resample_to_grid(image, background.affine, grid, extend=True)
    part = resample_to_grid(background.mask, background.affine, grid)
    mask = part > 0.5
    level = np.float32(rng.uniform(*_NOISE) * np.median(image[mask]))
    noise = rng.standard_normal((2, *image.shape), dtype=np.float32) * level
    image = np.hypot(image + noise[0], noise[1])
    return RealBackground(background.name, image, mask, grid.affine)


def implant_scan(background: RealBackground, rng: np.random.Generator) -> TrainingScan:
    """Put bleeds into a background, at a random field and echo time."""
    strength = 3.0 if rng.random() < 0.7 else 1.5
    echo_time = float(rng.uniform(0.018, 0.040))
    deposits = draw_deposits(
        background.places, background.affine, BLEEDS, rng, diameter_mm=DIAMETERS
    )
    result = implant(
        background.image,
        background.affine,
        background.mask,
        deposits,
        field_strength=strength,
        echo_time=echo_time,
        seed=int(rng.integers(2**31)),
    )
    spots = tuple(
        KnownSpot(
            kind="microbleed" if lesion.visible else "hidden",
            centre=lesion.centre_ras,
            diameter=lesion.void_diameter_mm,
        )
        for lesion in result.lesions
    )
    scan = DetectorInput(
        magnitude=result.image,
        affine=background.affine,
        brain_mask=background.mask,
        sequence="T2starw",
        field_strength=strength,
        echo_times=(echo_time,),
    )
    return TrainingScan(scan, spots)
