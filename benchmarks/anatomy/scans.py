"""Scans of simulated people in every contrast, whose way to the template is known.

The contrasts follow real scans (``docs/simulator.md``). Some are changed as sites change theirs:
cut out of the head, interpolated to a common grid, without a unit of length, or cut to a slab.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from cases import slab, thick_slices
from numpy.typing import NDArray


@dataclass(frozen=True)
class Contrast:
    """How a simulated person is scanned.

    Attributes
    ----------
    preset
        Of the simulator.
    slices
        Distance between slices, mm; None keeps the preset's.
    processed
        Skull-stripped, interpolated to 1 mm and without a unit of length.
    rim
        mm of fluid below the skull, in addition to the usual.
    shown
        Height of a slab that is cut out, mm; None shows the whole head.
    """

    preset: str
    slices: float | None = None
    processed: bool = False
    rim: float = 0.0
    shown: float | None = None


#: Name in the tables -> how the person is scanned.
CONTRASTS = {
    "T2*, 6 mm": Contrast("clinical-2d-1.5t"),
    "T2*, 2 mm": Contrast("gre3d-3t", slices=2.0),
    "SWI, flat": Contrast("swi-3t-flat", rim=2.0),
    "SWI, flat, 5 mm": Contrast("swi-3t-flat", slices=5.0),
    "SWI, flat, stripped": Contrast("swi-3t-flat", processed=True),
    "multi-echo, flat": Contrast("megre-3t-flat"),
    "echo-planar": Contrast("epi-3t"),
    "field map": Contrast("gre-field-3t"),
    "field map, 80 mm of the head": Contrast("gre-field-3t", shown=80.0),
}


@dataclass(frozen=True, eq=False)
class LaidScan:
    """A scan, and where its brain lies in the template.

    Attributes
    ----------
    image
        Magnitude of the last echo.
    zones
        The true labels of the atlas on its grid.
    points, in_template
        Points of the brain in scanner mm, and in the template, shape (n, 3).
    brain_ml
        Volume of the person's brain with the fluid around it.
    """

    image: nib.Nifti1Image
    zones: NDArray[np.uint8]
    points: NDArray[np.float64]
    in_template: NDArray[np.float64]
    brain_ml: float


def laid_scan(seed: int, name: str, cache: Path) -> LaidScan:
    """Simulate a scan of :data:`CONTRASTS`, or take the one that the cache has."""
    path = cache / f"scan-{seed}-{_words(name)}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **_simulate(seed, CONTRASTS[name]))
    with np.load(path) as stored:
        data = dict(stored)
    image = nib.Nifti1Image(data["image"].astype(np.float32), data["affine"])
    brain_ml = float(data["brain_ml"])
    return LaidScan(image, data["zones"], data["points"], data["in_template"], brain_ml)


@dataclass(frozen=True, eq=False)
class LaidT1w:
    """A T1w image, and points of its brain in scanner mm and in the template, shape (n, 3)."""

    image: nib.Nifti1Image
    points: NDArray[np.float64]
    in_template: NDArray[np.float64]


def laid_t1w(seed: int, name: str, cache: Path) -> LaidT1w:
    """Simulate the T1w image that goes with a scan, or take the one that the cache has."""
    path = cache / f"t1w-{seed}-{_words(name)}.npz"
    if not path.exists():
        from people import simulate_person

        from cmbprep.lab.simulate.protocols import get_protocol

        person = simulate_person(seed, rim=CONTRASTS[name].rim)
        geometry, _ = person.plan(get_protocol(CONTRASTS[name].preset))
        cache.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **person.t1w(geometry))
    with np.load(path) as stored:
        data = dict(stored)
    image = nib.Nifti1Image(data["t1w_image"].astype(np.float32), data["t1w_affine"])
    return LaidT1w(image, data["t1w_points"], data["t1w_in_template"])


def _words(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _simulate(seed: int, contrast: Contrast) -> dict[str, NDArray[Any]]:
    from people import simulate_person

    from cmbprep.lab.simulate import scanner, sources
    from cmbprep.lab.simulate.dura import draw_dura
    from cmbprep.lab.simulate.protocols import get_protocol
    from cmbprep.lab.simulate.truth import tell_truth
    from cmbprep.lab.simulate.variants import isotropic_grid, resample_image, strip_skull

    person = simulate_person(seed, rim=contrast.rim)
    head, streams = person.head, person.streams
    found = sources.draw_microbleeds(head, sources.place_masks(head), 6, streams[1])
    tubes = person.vessels()
    sheets = draw_dura(head.to_template.inverse, streams[4])
    protocol = get_protocol(contrast.preset)
    geometry, rng = person.plan(protocol)
    scan = scanner.acquire(head, tubes, found, protocol, geometry, rng, sheets=sheets)
    zones = tell_truth(head, found, scan).zones
    assert zones is not None
    if contrast.processed:
        scan = strip_skull(scan, head)
    values, affine = np.abs(scan.echoes[-1]), geometry.affine
    if contrast.processed:
        grid = isotropic_grid(values.shape, affine, 1.0)
        values, affine = resample_image(values, affine, grid), grid.affine
    image = nib.Nifti1Image(np.asarray(values, np.float32), affine)
    if contrast.slices is not None:
        image = thick_slices(image, 2, contrast.slices)
    if contrast.shown is not None:
        middle = geometry.pose[:3, :3] @ person.centre + geometry.pose[:3, 3]
        image = slab(image, 2, contrast.shown, middle)
    in_head = person.brain_points()
    return {
        "image": np.asarray(image.dataobj).astype(np.float16),
        "affine": image.affine,
        "zones": _zones_on(zones, geometry.affine, image),
        "points": in_head @ geometry.pose[:3, :3].T + geometry.pose[:3, 3],
        "in_template": head.to_template(in_head),
        "brain_ml": np.array(head.brain_mask().sum() * np.prod(head.spacing) / 1000),
    }


def _zones_on(
    zones: NDArray[np.uint8], affine: NDArray[np.float64], image: nib.Nifti1Image
) -> NDArray[np.uint8]:
    """Take the labels at the centres of an image's voxels."""
    from scipy import ndimage

    to_source = np.linalg.inv(affine) @ image.affine
    return np.asarray(
        ndimage.affine_transform(zones, to_source, output_shape=image.shape, order=0), np.uint8
    )
