"""Real scans without microbleeds to train on: their sulci, veins and artefacts are real.

Microbleeds are implanted (:mod:`cmbprep.simulate.implant`), so that the positives are still
simulated; the negatives are not. A scan of fine voxels is shown as coarser protocols would show
it, another one each time, so that its veins and sulci are met at many resolutions.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from ..algorithms.grids import resample_to_grid, respaced_grid
from ..detectors.base import DetectorInput
from ..reports.usable import usable_results
from ..simulate.implant import draw_deposits, implant, plausible_places
from .scans import KnownSpot, TrainingScan

__all__ = ["RealBackground", "implant_scan", "load_backgrounds", "shown_coarser"]

logger = logging.getLogger("cmbprep")

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
    """Give a scan as a protocol with larger voxels would, if its voxels are fine.

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
