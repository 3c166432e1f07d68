"""Real scans without microbleeds to train on: their sulci, veins and artefacts are real.

Microbleeds are implanted (:mod:`cmbprep.simulate.implant`), so that the positives are still
simulated; the negatives are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..detectors.base import DetectorInput
from ..outputs import find_records
from ..simulate.implant import draw_deposits, implant, plausible_places
from .scans import KnownSpot, TrainingScan

__all__ = ["RealBackground", "implant_scan", "load_backgrounds"]

#: Bleeds put into a scan, of these diameters (mm, of the deposit).
BLEEDS = 14
DIAMETERS = (0.8, 4.5)


@dataclass(frozen=True, eq=False)
class RealBackground:
    """A real scan after bias correction, its brain mask, and where bleeds may be put."""

    name: str
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    places: NDArray[np.bool_]


def load_backgrounds(output_dir: Path, subjects: list[str]) -> list[RealBackground]:
    """Read the preprocessed scans of some subjects from results of cmbprep."""
    import nibabel as nib

    found = []
    for subject in subjects:
        for record in find_records(output_dir, "preproc", subject=subject):
            image: Any = nib.load(record.files.path("preproc"))
            data = np.asarray(image.dataobj, np.float32)
            outline: Any = nib.load(record.files.path("brain_mask"))
            mask = np.asarray(outline.dataobj) > 0
            affine = np.asarray(image.affine, np.float64)
            places = plausible_places(data, mask, affine)
            found.append(RealBackground(subject, data, mask, affine, places))
    return found


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
