"""Vessels as trees of tubes: veins, which are paramagnetic, and arteries as flow voids.

A tube is a line of points with a radius at each, in head coordinates (mm). Tubes are
brought onto a grid by splatting their volume, so that a vein far thinner than a voxel
has the right part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.lab.shared import read_data
from cmbprep.lab.simulate.deformation import Volume
from cmbprep.lab.simulate.head import Head


@dataclass(frozen=True)
class Tube:
    """A vessel: its axis and radii.

    Attributes
    ----------
    points
        Shape (N, 3), head mm, in order.
    radii
        Shape (N,), mm.
    kind
        ``cortical``, ``medullary``, ``deep``, ``sinus`` or ``artery``.
    """

    points: NDArray[np.float64]
    radii: NDArray[np.float64]
    kind: str


def occupancy(
    tubes: list[Tube],
    to_grid: NDArray[np.float64],
    shape: tuple[int, int, int],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Volume fraction of tubes on a grid, 255 for all of a voxel.

    Parameters
    ----------
    tubes
        Vessels in head mm.
    to_grid
        4x4, head mm -> voxel of the grid.
    shape
        The grid's.
    rng
        Jitters the points that stand for a tube's volume.
    """
    cell = float(np.abs(np.linalg.det(to_grid[:3, :3])) ** (-1 / 3))
    volume = np.zeros(int(np.prod(shape)), np.float32)
    for tube in tubes:
        points, parts = _fill(tube, cell, rng)
        voxels = points @ to_grid[:3, :3].T + to_grid[:3, 3]
        splat(volume, voxels.astype(np.float32), (parts / cell**3).astype(np.float32), shape)
    np.clip(volume, 0, 1, out=volume)
    return np.round(volume * 255).astype(np.uint8).reshape(shape)


def _fill(
    tube: Tube, cell: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spread points through a tube; each stands for a part of its volume in mm^3."""
    steps = np.linalg.norm(np.diff(tube.points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    pitch = 0.33 * cell
    count = max(2, int(np.ceil(along[-1] / pitch)))
    where = (np.arange(count) + 0.5) * along[-1] / count
    axis = np.column_stack([np.interp(where, along, tube.points[:, k]) for k in range(3)])
    radius = np.interp(where, along, tube.radii)
    disc = max(1, int(np.ceil((3.5 * tube.radii.max() / cell) ** 2)))
    # A sunflower fills a disc evenly; the jitter keeps rings from repeating along the tube.
    turn = np.arange(disc) * np.pi * (3 - np.sqrt(5))
    turn = turn[None, :] + rng.uniform(0, 2 * np.pi, (count, 1))
    reach = np.sqrt((np.arange(disc) + 0.5) / disc)[None, :] * radius[:, None]
    first, second = _normals(axis)
    points = (
        axis[:, None, :]
        + (reach * np.cos(turn))[..., None] * first[:, None, :]
        + (reach * np.sin(turn))[..., None] * second[:, None, :]
    )
    part = np.pi * radius**2 * (along[-1] / count) / disc
    return points.reshape(-1, 3), np.repeat(part, disc)


def _normals(axis: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    tangent = np.gradient(axis, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(tangent[:, :1]) < 0.8, [[1.0, 0, 0]], [[0, 1.0, 0]])
    first = np.cross(tangent, helper)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
    return first, np.cross(tangent, first)


def splat(
    volume: NDArray[np.float32],
    voxels: NDArray[np.float32],
    parts: NDArray[np.float32],
    shape: tuple[int, int, int],
) -> None:
    """Add parts to the eight voxels around each point, by distance (in place).

    Parameters
    ----------
    volume
        What is added to, flat.
    voxels, parts
        Places, shape (N, 3), in voxels of a grid of the shape `shape`; what each adds.
    shape
        The grid's.
    """
    low = np.floor(voxels).astype(np.int64)
    inside = np.all((low >= 0) & (low < np.asarray(shape) - 1), axis=1)
    low, share = low[inside], (voxels - low)[inside]
    parts = parts[inside]
    for corner in np.ndindex(2, 2, 2):
        weight = parts.copy()
        for k in range(3):
            weight *= share[:, k] if corner[k] else 1 - share[:, k]
        index = np.ravel_multi_index(tuple((low + corner).T), shape)
        np.add.at(volume, index, weight)


def draw_veins(
    head: Head,
    from_template: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rng: np.random.Generator,
) -> list[Tube]:
    """Draw a person's veins: sinuses, deep, medullary and cortical veins.

    Parameters
    ----------
    head
        The head they are in.
    from_template
        Template mm -> head mm for points (N, 3).
    rng
        Source of randomness.
    """
    tubes = _named("veins", from_template, rng)
    tubes += _medullary(from_template, rng)
    tubes += _cortical(head, rng)
    return tubes


def _named(
    group: str,
    from_template: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rng: np.random.Generator,
) -> list[Tube]:
    """Draw the vessels of ``vessels.json``: those off the midline on both sides.

    Each row there is an axis in MNI152 mm, the first and last radius in mm, and the kind.
    """
    mirror = np.array([-1.0, 1, 1])
    rows: list[Any] = read_data("cmbprep.lab.simulate", "vessels.json")[group]
    for points, radii, kind in list(rows):
        if abs(points[0][0]) > 0.5:
            rows.append((np.asarray(points) * mirror, radii, kind))
    return [_tube(points, radii, kind, from_template, rng) for points, radii, kind in rows]


def _tube(
    points: ArrayLike,
    radii: tuple[float, float],
    kind: str,
    from_template: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rng: np.random.Generator,
) -> Tube:
    from scipy import interpolate

    nodes = np.asarray(points, dtype=np.float64)
    nodes = nodes + rng.normal(0, 0.6, nodes.shape)
    degree = min(3, len(nodes) - 1)
    curve, _ = interpolate.splprep(nodes.T, s=0, k=degree)
    axis = np.stack(interpolate.splev(np.linspace(0, 1, 40), curve), axis=1)
    radius = np.linspace(*radii, 40) * np.exp(rng.normal(0, 0.12))
    return Tube(points=from_template(axis), radii=radius, kind=kind)


def _medullary(
    from_template: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rng: np.random.Generator,
) -> list[Tube]:
    """Thin veins that run through deep white matter to the ventricle's wall."""
    tubes = []
    for side in (-1, 1):
        for _ in range(int(rng.integers(22, 45))):
            y = rng.uniform(-50, 30)
            wall = np.array([side * rng.uniform(8, 24), y, rng.uniform(18, 26)])
            outward = np.array(
                [side * rng.uniform(0.3, 1.0), rng.normal(0, 0.3), rng.uniform(0.2, 1)]
            )
            outward /= np.linalg.norm(outward)
            along = np.linspace(0, rng.uniform(12, 34), 12)
            wiggle = np.cumsum(rng.normal(0, 0.25, (12, 3)), axis=0)
            axis = wall + along[:, None] * outward + wiggle
            radius = np.linspace(rng.uniform(0.2, 0.42), 0.1, 12)
            tubes.append(Tube(points=from_template(axis), radii=radius, kind="medullary"))
    return tubes


def _cortical(head: Head, rng: np.random.Generator) -> list[Tube]:
    """Veins in the sulci and on the surface, climbing towards the midline.

    Each starts at a random point in the fluid between the gyri and follows the fluid:
    at every step it takes, of several directions near its last one, the one with most
    fluid, drawn upwards and inwards.
    """
    fluid = head.fraction("csf")
    tissue = head.fraction("gm")
    # Fluid beside cortex, not the ventricles: the grey matter is on both sides of a sulcus.
    voxels = np.argwhere((fluid > 0.35) & (tissue > 0.2))
    inverse = np.linalg.inv(head.affine)
    number = int(rng.integers(320, 440))
    chosen = voxels[rng.integers(len(voxels), size=number)]
    axes = _follow(fluid, inverse, chosen @ head.affine[:3, :3].T + head.affine[:3, 3], rng)
    tubes = []
    for axis in axes:
        kept = axis[: int(rng.uniform(15, 60) / STEP) + 1]
        first = float(np.clip(np.exp(rng.normal(np.log(0.30), 0.45)), 0.12, 0.9))
        radius = np.linspace(first, first * rng.uniform(1.2, 2.0), len(kept))
        tubes.append(Tube(points=kept, radii=radius, kind="cortical"))
    return tubes


#: Length of a step along a cortical vein, mm, and the number of steps of the longest.
STEP, STEPS = 1.2, 51


def _follow(
    fluid: Volume, inverse: NDArray[Any], start: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Let veins (N, 3) find their ways through the fluid, all at once: (N, steps, 3)."""
    at = np.asarray(start, dtype=np.float64)
    goal = np.column_stack([-0.35 * np.sign(at[:, 0]), np.zeros(len(at)), np.full(len(at), 0.6)])
    heading = goal + rng.normal(0, 0.8, at.shape)
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    limit = np.asarray(fluid.shape) - 1
    axes = [at]
    for _ in range(STEPS - 1):
        tries = (heading + 0.12 * goal)[:, None] + rng.normal(0, 0.45, (len(at), 14, 3))
        tries /= np.linalg.norm(tries, axis=2, keepdims=True)
        ahead = at[:, None] + 2 * STEP * tries
        index = np.round(ahead @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        index = np.clip(index, 0, limit)
        score = fluid[index[..., 0], index[..., 1], index[..., 2]]
        score = score + 0.25 * np.einsum("ntk,nk->nt", tries, heading)
        heading = tries[np.arange(len(at)), np.argmax(score, axis=1)]
        at = at + STEP * heading
        axes.append(at)
    return np.stack(axes, axis=1)


def draw_arteries(
    from_template: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rng: np.random.Generator,
) -> list[Tube]:
    """Draw the arteries at the base of the brain, which fast flow makes dark."""
    return _named("arteries", from_template, rng)
