"""Compact sources of susceptibility: microbleeds, and the mimics that are not vessels.

A source is one or more *blobs*: ellipsoids with bumps, of one susceptibility each. All
positions are head coordinates in mm, so that the same source can be scanned with any
protocol.

Where the numbers come from: the shares of the zones and the sizes are those that the docs'
page on the simulator lists; a deposit is smaller than the void that it leaves in an image,
so the sizes drawn here are smaller than those of published masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.anatomy import CALCIFIED, NUCLEI, inside, mirrored
from cmbprep.lab.simulate.deformation import Volume
from cmbprep.lab.simulate.head import Head

#: Place -> share of 957 rated bleeds of five cohorts (they add up to 0.98 there).
PLACES = {
    "subcortical_white_matter": 0.40,
    "cortex": 0.33,
    "cerebellum": 0.08,
    "basal_ganglia": 0.08,
    "thalamus": 0.05,
    "brainstem": 0.04,
}


@dataclass(frozen=True, kw_only=True)
class Blob:
    """An ellipsoid with bumps, of one susceptibility.

    Attributes
    ----------
    centre
        Head mm.
    axes
        Semi-axes in mm.
    rotation
        3x3, its columns are the directions of the axes.
    bumps
        Rows of (direction x, y, z, height): the radius grows by the height, a fraction, in
        that direction.
    chi
        Susceptibility in ppm against the tissue around.
    signal
        Factor on the proton density inside: below 1 for clot, calcium and scar.
    """

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    rotation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    bumps: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    chi: float
    signal: float = 0.7

    @property
    def reach(self) -> float:
        """Radius in mm of a sphere that holds the blob."""
        return max(self.axes) * (1 + float(np.abs(self.bumps[:, 3]).sum()))

    def occupancy(self, points: NDArray[np.floating], cell: float) -> Volume:
        """Volume fraction at points (3, ...) in head mm, with an edge `cell` mm wide."""
        offset = points - np.asarray(self.centre).reshape(3, *[1] * (points.ndim - 1))
        local = np.tensordot(self.rotation.T, offset, 1)
        scaled = local / np.asarray(self.axes).reshape(3, *[1] * (points.ndim - 1))
        norm = np.sqrt((scaled**2).sum(axis=0))
        radius = np.ones_like(norm)
        length = np.maximum(np.sqrt((local**2).sum(axis=0)), 1e-6)
        for x, y, z, height in self.bumps:
            cosine = (local[0] * x + local[1] * y + local[2] * z) / length
            radius += height * np.exp(3.0 * (cosine - 1))
        # Distance to the surface along the ray from the centre.
        distance = length * (1 - radius / np.maximum(norm, 1e-6))
        distance = np.where(norm < 1e-6, -min(self.axes), distance)
        return np.clip(0.5 - distance / cell, 0, 1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something that is dark on a blood-sensitive image: a microbleed or a mimic.

    Attributes
    ----------
    kind
        ``microbleed``, ``calcification``, ``cavernoma``, ``haemorrhagic_infarct``,
        ``postoperative_rim``.
    place
        Where it was put: a key of ``PLACES``, or a structure's name.
    blobs
        What it is made of.
    """

    kind: str
    place: str
    blobs: tuple[Blob, ...]

    @property
    def centre(self) -> tuple[float, float, float]:
        """Mean of the blobs' centres, weighted by their volumes, head mm."""
        weights = [float(np.prod(blob.axes)) for blob in self.blobs]
        mean = np.average([blob.centre for blob in self.blobs], axis=0, weights=weights)
        return (float(mean[0]), float(mean[1]), float(mean[2]))

    @property
    def reach(self) -> float:
        """Radius in mm of a sphere around `centre` that holds all blobs."""
        return max(
            float(np.linalg.norm(np.subtract(blob.centre, self.centre))) + blob.reach
            for blob in self.blobs
        )

    @property
    def volume(self) -> float:
        """Volume of the deposit in mm^3, bumps and overlaps left out."""
        return float(sum(4 / 3 * np.pi * np.prod(blob.axes) for blob in self.blobs))

    @property
    def chi(self) -> float:
        """Mean susceptibility in ppm, weighted by volume."""
        weights = [float(np.prod(blob.axes)) for blob in self.blobs]
        return float(np.average([blob.chi for blob in self.blobs], weights=weights))


def place_masks(head: Head) -> dict[str, NDArray[np.intp]]:
    """Find the voxels of a head in which each place's microbleeds can lie.

    Returns
    -------
    dict
        Place -> flat voxel indices, ascending.
    """
    points = head.points
    x, y, z = points
    gm, wm = head.fraction("gm"), head.fraction("wm") + head.fraction("wmh")
    tissue = (gm + wm) > 0.85
    # The tentorium: it rises from the petrous ridges to the straight sinus.
    below = (z < -9 - 0.12 * np.abs(x) + 0.1 * (y + 60)) & (y < -38)
    stem = (np.abs(x) < 13) & (y > -42) & (y < -12) & (z < -9)
    basal, thalamus = np.zeros(head.shape, bool), np.zeros(head.shape, bool)
    for name in ("caudate", "putamen", "pallidum", "thalamus"):
        for one in mirrored(NUCLEI[name]):
            target = thalamus if name == "thalamus" else basal
            target |= inside(points, one) > 0.5
    upper = tissue & ~below & ~stem & (z > -45) & ~((np.abs(x) < 16) & (z < 0) & (y < 0))
    deep_box = (np.abs(x) < 34) & (y > -32) & (y < 26) & (np.abs(z - 2) < 18)
    cerebrum = upper & ~basal & ~thalamus
    masks = {
        "subcortical_white_matter": cerebrum & (wm > 0.9) & ~deep_box,
        "cortex": cerebrum & (gm > 0.35) & ~deep_box,
        "cerebellum": tissue & below & (z > -62),
        "basal_ganglia": tissue & basal,
        "thalamus": tissue & thalamus,
        "brainstem": tissue & stem & (z > -48),
    }
    return {place: np.flatnonzero(mask) for place, mask in masks.items()}


def draw_microbleeds(
    head: Head, places: dict[str, NDArray[np.intp]], number: int, rng: np.random.Generator
) -> list[Source]:
    """Draw a person's microbleeds.

    The shares of the places vary between people (a Dirichlet distribution around the
    cohorts' shares), as lobar and deep disease do; about one in six lies near another.
    """
    names = list(PLACES)
    shares = rng.dirichlet(4.0 * np.array([PLACES[name] for name in names]))
    found: list[Source] = []
    for _ in range(200 * number):
        if len(found) == number:
            break
        place = names[int(rng.choice(len(names), p=shares))]
        centre = _position(head, places[place], rng)
        if found and rng.random() < 0.15:
            near = found[int(rng.integers(len(found)))]
            place, centre = near.place, _neighbour(head, places[near.place], near, rng, centre)
        bleed = draw_microbleed(place, centre, rng)
        gaps = [
            np.linalg.norm(np.subtract(s.centre, centre)) - s.reach - bleed.reach for s in found
        ]
        if min(gaps, default=9.0) > 2.0:
            found.append(bleed)
    return found


def _position(
    head: Head, voxels: NDArray[np.intp], rng: np.random.Generator
) -> tuple[float, float, float]:
    index = np.array(np.unravel_index(voxels[int(rng.integers(len(voxels)))], head.shape))
    point = head.affine[:3, :3] @ (index + rng.uniform(-0.5, 0.5, 3)) + head.affine[:3, 3]
    return (float(point[0]), float(point[1]), float(point[2]))


def _neighbour(
    head: Head,
    voxels: NDArray[np.intp],
    near: Source,
    rng: np.random.Generator,
    fallback: tuple[float, float, float],
) -> tuple[float, float, float]:
    """Position within 15 mm of another source, in the same place."""
    index = np.array(np.unravel_index(voxels, head.shape)).T
    points = index @ head.affine[:3, :3].T + head.affine[:3, 3]
    distance = np.linalg.norm(points - np.asarray(near.centre), axis=1)
    close = voxels[(distance < 15) & (distance > 6)]
    return _position(head, close, rng) if close.size else fallback


def draw_microbleed(
    place: str, centre: tuple[float, float, float], rng: np.random.Generator
) -> Source:
    """Draw size, susceptibility and shape of one microbleed at a place (head mm)."""
    diameter = float(np.clip(np.exp(rng.normal(np.log(1.9), 0.42)), 0.8, 6.0))
    chi = float(np.clip(np.exp(rng.normal(np.log(1.0), 0.55)), 0.25, 3.5))
    irregular = rng.random() < 0.25
    stretch = np.exp(rng.normal(0, 0.28 if irregular else 0.12, 3))
    axes = diameter / 2 * stretch / np.cbrt(np.prod(stretch))
    bumps = _bumps(rng, 4 if irregular else 2, 0.25 if irregular else 0.10)
    blob = Blob(
        centre=centre,
        axes=(float(axes[0]), float(axes[1]), float(axes[2])),
        rotation=_rotation(rng),
        bumps=bumps,
        chi=chi,
        signal=0.6,
    )
    return Source(kind="microbleed", place=place, blobs=(blob,))


def _bumps(rng: np.random.Generator, number: int, height: float) -> NDArray[np.float64]:
    directions = rng.standard_normal((number, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.column_stack([directions, rng.uniform(-0.3, 1.0, number) * height])


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return np.asarray(q, dtype=np.float64)


def draw_mimics(
    head: Head,
    places: dict[str, NDArray[np.intp]],
    age: float,
    rng: np.random.Generator,
) -> list[Source]:
    """Draw calcifications, cavernomas and haemorrhagic infarcts.

    Parameters
    ----------
    head, places
        The head and where in it things can lie.
    age
        Years; calcifications grow more frequent with it.
    rng
        Source of randomness.
    """
    found: list[Source] = []
    for structure, (centre, spread, chance, grains) in CALCIFIED.items():
        sides = (1,) if centre[0] == 0 else (-1, 1)
        present = rng.random() < chance * np.clip((age - 20) / 50, 0.2, 1.2)
        for side in sides:
            number = int(rng.integers(grains[0], grains[1] + 1))
            blobs = tuple(
                _grain(head, np.multiply(centre, (side, 1, 1)), spread, rng) for _ in range(number)
            )
            if present and rng.random() < 0.85:
                found.append(Source(kind="calcification", place=structure, blobs=blobs))
    if rng.random() < 0.08:
        where = "subcortical_white_matter" if rng.random() < 0.75 else "brainstem"
        found.append(_cavernoma(where, _position(head, places[where], rng), rng))
    if rng.random() < 0.10:
        found.append(_infarct(_position(head, places["cortex"], rng), rng))
    return found


def _grain(
    head: Head,
    centre: NDArray[np.float64],
    spread: Sequence[float],
    rng: np.random.Generator,
) -> Blob:
    point = centre + rng.uniform(-1, 1, 3) * np.asarray(spread)
    point = head.to_template.inverse(point[None])[0]
    radius = rng.uniform(0.5, 1.6)
    stretch = np.exp(rng.normal(0, 0.2, 3)) * radius
    return Blob(
        centre=(float(point[0]), float(point[1]), float(point[2])),
        axes=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        rotation=_rotation(rng),
        bumps=_bumps(rng, 2, 0.2),
        chi=-float(rng.uniform(0.6, 2.5)),
        signal=0.3,
    )


def _cavernoma(place: str, centre: tuple[float, float, float], rng: np.random.Generator) -> Source:
    """A cluster of caverns of old blood, 6 to 14 mm across."""
    size = rng.uniform(2.5, 5.0)
    blobs = []
    for _ in range(int(rng.integers(7, 14))):
        point = np.asarray(centre) + rng.standard_normal(3) * size * 0.55
        radius = rng.uniform(0.25, 0.5) * size
        blobs.append(
            Blob(
                centre=(float(point[0]), float(point[1]), float(point[2])),
                axes=(radius, radius * rng.uniform(0.7, 1.2), radius * rng.uniform(0.7, 1.2)),
                rotation=_rotation(rng),
                chi=float(rng.uniform(0.2, 1.2)),
                signal=float(rng.uniform(0.6, 1.1)),
            )
        )
    return Source(kind="cavernoma", place=place, blobs=tuple(blobs))


def _infarct(centre: tuple[float, float, float], rng: np.random.Generator) -> Source:
    """A patch of cortex with petechiae: many faint flat blobs along a plane."""
    normal = rng.standard_normal(3)
    normal /= np.linalg.norm(normal)
    size = rng.uniform(6.0, 13.0)
    blobs = []
    for _ in range(int(rng.integers(14, 30))):
        step = rng.standard_normal(3) * size * 0.5
        step -= 0.8 * normal * (step @ normal)
        point = np.asarray(centre) + step
        axes = rng.uniform(0.8, 3.0, 3)
        blobs.append(
            Blob(
                centre=(float(point[0]), float(point[1]), float(point[2])),
                axes=(float(axes[0]), float(axes[1]), float(axes[2])),
                rotation=_rotation(rng),
                bumps=_bumps(rng, 3, 0.3),
                chi=float(rng.uniform(0.15, 0.6)),
                signal=float(rng.uniform(0.9, 1.1)),
            )
        )
    return Source(kind="haemorrhagic_infarct", place="cortex", blobs=tuple(blobs))
