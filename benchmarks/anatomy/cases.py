"""People, scans and probes for ``benchmarks/anatomy``: everything whose truth is known.

A simulated person is scanned with a thin and with a thick protocol and as a T1w image; the
simulator's map from head to template tells which zone any point lies in. Probes are balls
the size of a lesion that are laid all over the brain of a scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: People that figures are reported on, and people that thresholds were set on. No other part
#: of the project uses these seeds.
REPORTED_SEEDS = tuple(range(9500, 9555))
TUNING_SEEDS = tuple(range(9600, 9640))

#: Name in the tables -> preset of the simulator.
PROTOCOLS = {"thin": "gre3d-3t", "thick": "clinical-2d-1.5t"}

PROBES_A_ZONE = 100
#: Radius of a probe and least distance between the centres of two, mm.
PROBE_RADIUS, PROBE_GAP = 2.0, 5.5


@dataclass(frozen=True, eq=False)
class TrueScan:
    """A scan of a simulated person.

    Attributes
    ----------
    image
        Magnitude of the last echo.
    zones
        The true labels of the atlas on its grid.
    bleeds
        Labels of the microbleeds that can be seen.
    points, in_template
        Points of the brain in scanner mm, and where they lie in the template, shape (n, 3).
    """

    image: nib.Nifti1Image
    zones: NDArray[np.uint8]
    bleeds: NDArray[np.uint8]
    points: NDArray[np.float64]
    in_template: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TruePerson:
    """A simulated person: T1w image, and one scan a protocol."""

    seed: int
    t1w: nib.Nifti1Image
    t1w_points: NDArray[np.float64]
    t1w_in_template: NDArray[np.float64]
    scans: dict[str, TrueScan]


def simulated_person(seed: int, cache: Path) -> TruePerson:
    """Simulate a person, or take the one that the cache has."""
    path = cache / f"person-{seed}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **_simulate(seed))
    with np.load(path) as stored:
        data = dict(stored)
    scans = {
        name: TrueScan(
            nib.Nifti1Image(data[f"{name}_image"].astype(np.float32), data[f"{name}_affine"]),
            data[f"{name}_zones"],
            data[f"{name}_bleeds"],
            data[f"{name}_points"],
            data[f"{name}_in_template"],
        )
        for name in PROTOCOLS
    }
    t1w = nib.Nifti1Image(data["t1w_image"].astype(np.float32), data["t1w_affine"])
    return TruePerson(seed, t1w, data["t1w_points"], data["t1w_in_template"], scans)


def _simulate(seed: int) -> dict[str, NDArray[Any]]:
    from people import simulate_person

    from cmbprep.lab.simulate import scanner, sources
    from cmbprep.lab.simulate.protocols import get_protocol
    from cmbprep.lab.simulate.truth import tell_truth

    person = simulate_person(seed)
    head, streams = person.head, person.streams
    places = sources.place_masks(head)
    found = sources.draw_microbleeds(head, places, 14, streams[1])
    found += sources.draw_mimics(head, places, person.age, streams[2])
    tubes = person.vessels()
    in_head = person.brain_points()
    in_template = head.to_template(in_head)
    made: dict[str, NDArray[Any]] = {}
    for name, preset in PROTOCOLS.items():
        protocol = get_protocol(preset)
        geometry, rng = person.plan(protocol)
        scan = scanner.acquire(head, tubes, found, protocol, geometry, rng)
        truth = tell_truth(head, found, scan)
        assert truth.zones is not None
        points = in_head @ geometry.pose[:3, :3].T + geometry.pose[:3, 3]
        made |= {
            f"{name}_image": np.abs(scan.echoes[-1]).astype(np.float16),
            f"{name}_affine": geometry.affine,
            f"{name}_zones": truth.zones,
            f"{name}_bleeds": truth.microbleeds,
            f"{name}_points": points,
            f"{name}_in_template": in_template,
        }
    return made | person.t1w(geometry)


def probes(scan: TrueScan, seed: int) -> NDArray[np.int16]:
    """Lay balls of 4 mm over the brain, as many in each zone, none touching another.

    Centres are voxels; a ball is the voxels whose centres lie within its radius.
    """
    from cmbprep.zones.schemes import MARS

    rng = np.random.default_rng([seed, 5])
    affine = scan.image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    reach = np.floor(PROBE_RADIUS / spacing).astype(int)
    offsets = np.stack(
        np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    offsets = offsets[np.linalg.norm(offsets * spacing, axis=1) <= PROBE_RADIUS]
    labels = np.zeros(scan.zones.shape, np.int16)
    kept: list[NDArray[np.float64]] = []
    for zone in ("lobar", "deep", "infratentorial"):
        indices = [region.index for region in MARS.regions if region.zone == zone]
        inside = np.argwhere(np.isin(scan.zones, indices))
        inside = inside[np.all((inside >= reach) & (inside + reach < labels.shape), axis=1)]
        count = 0
        for voxel in inside[rng.permutation(len(inside))[:5000]]:
            if count == PROBES_A_ZONE:
                break
            place = voxel * spacing
            if kept and np.linalg.norm(np.array(kept) - place, axis=1).min() < PROBE_GAP:
                continue
            kept.append(place)
            count += 1
            labels[tuple((voxel + offsets).T)] = len(kept)
    return labels


def turned(image: nib.Nifti1Image, matrix: NDArray[np.float64]) -> nib.Nifti1Image:
    """Return the image with a header that a rigid motion has been added to."""
    return nib.Nifti1Image(np.asarray(image.dataobj), matrix @ image.affine)


def motion(
    degrees: tuple[float, float, float], shift: tuple[float, float, float], centre: Any
) -> NDArray[np.float64]:
    """Rigid motion of scanner mm: a rotation about a point, and then a shift."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    centre = np.asarray(centre, dtype=float)
    matrix[:3, 3] = centre + np.asarray(shift) - matrix[:3, :3] @ centre
    return matrix


def stored_as(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """Return the image with its axes in another order; its place in space stays."""
    wanted = nib.orientations.axcodes2ornt(codes)
    there = nib.orientations.io_orientation(image.affine)
    return image.as_reoriented(nib.orientations.ornt_transform(there, wanted))


def thick_slices(image: nib.Nifti1Image, axis: int, thickness: float) -> nib.Nifti1Image:
    """Average slices along an axis of the array to (about) a thickness in mm."""
    step = float(np.linalg.norm(image.affine[:3, axis]))
    size = max(1, round(thickness / step))
    data = np.asarray(image.dataobj, dtype=np.float32)
    count = data.shape[axis] // size
    data = np.moveaxis(data, axis, 0)[: count * size]
    data = data.reshape(count, size, *data.shape[1:]).mean(axis=1)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (size - 1) / 2
    affine[:3, axis] *= size
    return nib.Nifti1Image(np.ascontiguousarray(np.moveaxis(data, 0, axis)), affine)


def slab(image: nib.Nifti1Image, axis: int, width: float, middle: Any) -> nib.Nifti1Image:
    """Cut a slab (mm) across an axis of the array, about a point in scanner mm."""
    step = float(np.linalg.norm(image.affine[:3, axis]))
    inverse = np.linalg.inv(image.affine)
    at = float(inverse[axis, :3] @ np.asarray(middle) + inverse[axis, 3])
    half = width / step / 2
    first = int(np.clip(round(at - half), 0, image.shape[axis] - 2))
    last = int(np.clip(round(at + half), first + 1, image.shape[axis]))
    return image.slicer[tuple(slice(first, last) if a == axis else slice(None) for a in range(3))]


def smooth_warp(
    shape: tuple[int, int, int], affine: NDArray[np.float64], amplitude: float, seed: int
) -> Any:
    """Draw a smooth map of points in scanner mm: displacements of 35 mm width.

    Parameters
    ----------
    shape, affine
        The field of view that it covers.
    amplitude
        Standard deviation of each component, mm.
    """
    from cmbprep.spatial.grids import working_grid
    from cmbprep.spatial.transforms import DisplacementMap

    grid = working_grid(shape, affine, 5.0)
    rng = np.random.default_rng([seed, 6])
    field = np.stack(
        [
            ndimage.gaussian_filter(rng.standard_normal(grid.shape), 25.0 / grid.spacing)
            for _ in range(3)
        ],
        axis=-1,
    )
    field *= amplitude / field.std(axis=(0, 1, 2))
    return DisplacementMap(field.astype(np.float32), grid.affine)
