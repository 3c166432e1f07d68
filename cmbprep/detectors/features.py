"""What a dark spot looks like, as numbers at physical scales.

Two views of a candidate are measured. Along rays from its centre: how deep, how large, how
round, how sharp, and enclosed by what. And by flooding: how far the darkness can be
followed from the centre before it ends, which is short for a bleed and long for a vein or
a sulcus, however they bend.

Features use the voxel axes only through the voxel size, so that they do not change when an
image is stored with flipped or swapped axes, and relative intensities only, so that they
do not change with the scanner's gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.detectors.candidates import (
    BRIGHTEST,
    OPPOSITE,
    RAY_VECTORS,
    Candidates,
    edge_distance,
    radial_profiles,
)

#: What each column that :func:`measure` gives is.
MEANINGS: Mapping[str, str] = {
    "response": "blob response, log",
    "depth": "1 - centre / surround",
    "cnr": "depth over noise, log",
    "darkness": "centre against the tissue of the whole brain",
    "radius": "half-depth radius in mm, log",
    "plane_radius_voxels": "half-depth radius in the finest plane, in voxels, log",
    "plane_roundness": "shortest over longest half-depth diameter in the finest plane",
    "roundness": "shortest over longest half-depth diameter over all directions",
    "elongation": "longest half-depth diameter over the median one",
    "enclosed": "part of the rays that reach the surround soon after the edge",
    "plane_enclosed": "part of those in the finest plane",
    "weakest_wall": "lowest surround over directions, in depths",
    "opposite_walls": "lowest over axes of the higher of the two opposite walls",
    "wall_spread": "spread of the surround over directions, in depths",
    "bright_wall": "brightest surround against tissue (fluid beside)",
    "surround_level": "surround against the tissue of the whole brain",
    "sharpness": "steepest descent of the mean profile, in depths a radius",
    "line_in_plane": "lowest over highest curvature across the finest plane",
    "line": "lowest over mean curvature over all axes",
    "edge_distance": "mm to the end of the brain mask",
    "flood_50": "extent of what is at least half as dark, in radii, log",
    "flood_35": "extent of what is at least 35 % as dark, in radii, log",
    "flood_20": "extent of what is at least 20 % as dark, in radii, log",
    "flood_volume_50": "volume of the 50 % flood over that of the sphere, log",
    "flood_volume_35": "volume of the 35 % flood over that of the sphere, log",
    "flood_elongation": "long over middle axis of the 35 % flood, log",
    "flood_flatness": "middle over short axis of the 35 % flood, log",
    "busyness": "how uneven the tissue around is (4-9 mm), over depth",
    "crowding": "dark blobs nearby, weighted by their response",
    "thickness": "slice thickness over in-plane voxel size, log",
}
#: Their names, in order.
FEATURES = tuple(MEANINGS)
_RADII = np.arange(0.0, 10.01, 0.5)
# Candidates that pass the prefilter at most.
_MOST = 1200
# A flood is followed as far as this, mm.
_FLOOD_REACH_MM = 10.0

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The maps that candidates are measured on; all (X, Y, Z) on one grid.

    Parameters
    ----------
    ratio
        Image over its local background.
    background
        That background over the median of the brain.
    mask
        Brain.
    noise
        Standard deviation of the noise in units of the median of the brain.
    spacing
        Voxel size, mm.
    """

    ratio: FloatArray
    background: FloatArray
    mask: NDArray[np.bool_]
    noise: float
    spacing: NDArray[np.float64]


def measure(candidates: Candidates, maps: Surroundings) -> tuple[Candidates, NDArray[np.float64]]:
    """Measure the candidates that pass a generous prefilter.

    The prefilter drops what is hardly darker than its surroundings, is wider than any
    microbleed, or is open on most sides; of the rest the 1200 with the most contrast
    and the best closed walls are kept. Flooding, which is slow, is done for those only.

    Returns
    -------
    kept, table
        The candidates kept, strongest first, and their features: (n, len(FEATURES)), finite.
    """
    if not len(candidates):
        return candidates, np.zeros((0, len(FEATURES)))
    raw, _ = radial_profiles(maps.ratio, candidates.voxels, maps.spacing, _RADII)
    # Fluid beside a spot tells nothing about its depth; it has a feature of its own.
    profiles = np.minimum(raw, np.float32(BRIGHTEST))
    shape = _ray_shape(profiles, candidates.radii_mm)
    columns = _ray_features(profiles, shape, candidates, maps)
    bright = _brightest(raw, shape.radius, shape.radius + 3.0)
    columns["bright_wall"] = np.clip(np.quantile(bright, 0.9, axis=1), 0, 3)
    columns |= _neighbourhood_features(profiles, shape, candidates, maps)
    kept = _prefilter(columns, shape)
    candidates, shape = candidates.take(kept), shape.take(kept)
    columns = {name: values[kept] for name, values in columns.items()}
    columns |= _flood_features(candidates, shape, maps)
    table = np.column_stack([columns[name] for name in FEATURES])
    return candidates, np.nan_to_num(table, nan=0.0, posinf=10.0, neginf=-10.0)


def _prefilter(columns: dict[str, NDArray[np.floating]], shape: _RayShape) -> NDArray[np.int_]:
    """Indices (ascending) of the candidates that pass."""
    fair = (columns["depth"] > 0.08) & (columns["cnr"] > np.log(1.5))
    fair &= (columns["plane_enclosed"] > 0.4) & (shape.radius < 6.5)
    merit = np.where(fair, columns["response"] + 2 * columns["plane_enclosed"], -np.inf)
    best = np.argsort(-merit, kind="stable")[:_MOST]
    return np.sort(best[fair[best]])


class _RayShape(NamedTuple):
    """Levels and half-depth radii that the rays of each of n candidates show."""

    centre: FloatArray  # (n,) intensity in the middle
    surround: FloatArray  # (n,)
    depth: FloatArray  # (n,) surround - centre, at least 0.01
    half: FloatArray  # (n, 50) radius at which each ray crosses the half-way level, mm
    radius: FloatArray  # (n,) its median

    def take(self, index: NDArray[np.integer]) -> _RayShape:
        return _RayShape(*(part[index] for part in self))


def _ray_shape(profiles: FloatArray, radii_mm: NDArray[np.float64]) -> _RayShape:
    centre = profiles[:, :, :2].mean(axis=(1, 2))
    low = radii_mm[:, None] + 1.0
    rim = (_RADII[None] >= low) & (_RADII[None] <= low + 3.5)
    values = np.where(rim[:, None, :], profiles, np.nan).reshape(len(profiles), -1)
    surround = np.nanmedian(values, axis=1)
    # Once more without the voids around, which are no parenchyma.
    middle = (surround + centre)[:, None] / 2
    with np.errstate(invalid="ignore"):
        tissue = np.where(values > middle, values, np.nan)
    counts = np.isfinite(tissue).sum(axis=1)
    tissue[counts == 0] = surround[counts == 0, None]
    surround = np.nanmedian(tissue, axis=1).astype(np.float32)
    depth = np.maximum(surround - centre, 0.01).astype(np.float32)
    half = _crossing(profiles, centre + depth / 2)
    return _RayShape(centre, surround, depth, half, np.median(half, axis=1).astype(np.float32))


def _crossing(profiles: FloatArray, level: FloatArray) -> FloatArray:
    """First radius (mm, interpolated) at which each ray rises through a level."""
    above = profiles > level[:, None, None]
    first, never = np.argmax(above, axis=2), ~above.any(axis=2)
    before = np.maximum(first - 1, 0)
    high = np.take_along_axis(profiles, first[..., None], axis=2)[..., 0]
    low = np.take_along_axis(profiles, before[..., None], axis=2)[..., 0]
    share = (level[:, None] - low) / np.maximum(high - low, 1e-6)
    step = _RADII[1]
    radius = np.where(first == 0, 0.25, _RADII[before] + np.clip(share, 0, 1) * step)
    return np.where(never, _RADII[-1], radius).astype(np.float32)


def _plane_rays(spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rays within the plane of the two finest axes (all rays of a cubic voxel)."""
    if spacing.max() < 1.2 * np.median(spacing):
        return np.ones(len(RAY_VECTORS), bool)
    return np.asarray(RAY_VECTORS[:, int(np.argmax(spacing))] == 0)


def _log(values: NDArray[np.floating], floor: float = 1e-3) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(values, float), floor))


def _ray_features(
    profiles: FloatArray, shape: _RayShape, candidates: Candidates, maps: Surroundings
) -> dict[str, NDArray[np.floating]]:
    plane = _plane_rays(maps.spacing)
    depth = shape.depth[:, None]
    diameters = shape.half + shape.half[:, OPPOSITE]
    flat = diameters[:, plane]
    plane_radius = np.median(shape.half[:, plane], axis=1)
    # The wall: the brightest that a ray gets between its median edge and 3 mm beyond.
    wall = _brightest(profiles, np.minimum(shape.radius, 7.0), shape.radius + 3.0)
    recovered = (wall - shape.centre[:, None]) / depth
    pairs = np.maximum(wall, wall[:, OPPOSITE])
    position = tuple(_nearest_voxels(candidates, maps.mask.shape).T)
    background = maps.background[position]
    noise = maps.noise / np.maximum(background, 0.05)
    mean = profiles.mean(axis=1)
    slope = np.max(np.diff(mean, axis=1)[:, :14], axis=1) / _RADII[1]
    curvature = _curvature(profiles, shape)
    flat_curvature = curvature[:, plane]
    return {
        "response": _log(candidates.responses),
        "depth": shape.depth,
        "cnr": _log(shape.depth / np.maximum(noise, 1e-3)),
        "darkness": shape.centre * background,
        "radius": _log(shape.radius),
        "plane_radius_voxels": _log(plane_radius / maps.spacing.min()),
        "plane_roundness": flat.min(axis=1) / np.maximum(flat.max(axis=1), 0.1),
        "roundness": diameters.min(axis=1) / np.maximum(diameters.max(axis=1), 0.1),
        "elongation": _log(flat.max(axis=1) / np.maximum(np.median(flat, axis=1), 0.1)),
        "enclosed": (recovered > 0.7).mean(axis=1),
        "plane_enclosed": (recovered[:, plane] > 0.7).mean(axis=1),
        "weakest_wall": np.clip(recovered.min(axis=1), -1, 2),
        "opposite_walls": np.clip(((pairs - shape.centre[:, None]) / depth).min(axis=1), -1, 2),
        "wall_spread": np.clip(recovered.std(axis=1), 0, 3),
        "surround_level": np.clip(shape.surround * background, 0, 2),
        "sharpness": np.clip(slope * shape.radius / shape.depth, 0, 3),
        "line_in_plane": flat_curvature.min(axis=1) / np.maximum(flat_curvature.max(axis=1), 0.05),
        "line": curvature.min(axis=1) / np.maximum(curvature.mean(axis=1), 0.05),
        "edge_distance": np.minimum(
            edge_distance(maps.mask, maps.spacing, candidates.voxels), 15.0
        ),
        "thickness": np.full(len(shape.depth), np.log(maps.spacing.max() / maps.spacing.min())),
    }


def _brightest(profiles: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Highest value of each ray between two distances (n,) that differ by candidate."""
    inside = (low[:, None] <= _RADII) & (high[:, None] >= _RADII)
    return np.where(inside[:, None, :], profiles, -np.inf).max(axis=2).astype(np.float32)


def _nearest_voxels(candidates: Candidates, shape: tuple[int, ...]) -> NDArray[np.int_]:
    return np.clip(np.round(candidates.voxels).astype(int), 0, np.array(shape) - 1)


def _curvature(profiles: FloatArray, shape: _RayShape) -> NDArray[np.float64]:
    """Rise from the centre to both sides at 1.3 radii, in depths: a Hessian of finite width.

    Along a vessel there is no rise; the lowest over the highest is a vesselness.
    """
    at = np.clip(1.3 * shape.radius / _RADII[1], 2, len(_RADII) - 2)
    left = at.astype(int)
    share = (at - left)[:, None]
    rows = np.arange(len(profiles))
    value = profiles[rows, :, left] * (1 - share) + profiles[rows, :, left + 1] * share
    rise = (value + value[:, OPPOSITE]) / 2 - shape.centre[:, None]
    return np.asarray(np.clip(rise / shape.depth[:, None], -0.5, 1.5))


def _flood_features(
    candidates: Candidates, shape: _RayShape, maps: Surroundings
) -> dict[str, NDArray[np.floating]]:
    names = [name for name in FEATURES if name.startswith("flood_")]
    table = np.zeros((len(candidates), len(names)))
    half = np.ceil(_FLOOD_REACH_MM / maps.spacing).astype(int)
    for i, middle in enumerate(_nearest_voxels(candidates, maps.mask.shape)):
        low = np.maximum(middle - half, 0)
        high = np.minimum(middle + half + 1, maps.ratio.shape)
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        dark = np.where(maps.mask[window], maps.ratio[window], np.inf)
        loss = (shape.surround[i] - dark) / shape.depth[i]
        offsets = [
            (np.arange(a, b) - c) * h
            for a, b, c, h in zip(low, high, candidates.voxels[i], maps.spacing, strict=True)
        ]
        table[i] = _flood(loss, offsets, tuple(middle - low), float(shape.radius[i]), maps.spacing)
    return {name: table[:, k] for k, name in enumerate(names)}


def _flood(
    loss: NDArray[np.floating],
    offsets: list[NDArray[np.float64]],
    seed: tuple[int, ...],
    radius: float,
    spacing: NDArray[np.float64],
) -> tuple[float, ...]:
    """Extents, volumes and axes of the floods from one candidate, in the order of FEATURES."""
    # A radius below the voxel cannot be measured; the flood of one voxel is then normal.
    radius = max(radius, 0.6 * float(np.cbrt(np.prod(spacing))), 0.5)
    cell = float(np.prod(spacing))
    sphere = 4.19 * radius**3
    extents, volumes = [], []
    elongation = flatness = 0.0
    for level in (0.5, 0.35, 0.2):
        dark = loss >= level
        dark[seed] = True
        parts, _ = ndimage.label(dark, np.ones((3, 3, 3), bool))
        index = np.nonzero(parts == parts[seed])
        points = np.column_stack([o[k] for o, k in zip(offsets, index, strict=True)])
        distance = np.sqrt((points**2).sum(axis=1).max())
        extents.append(float(np.log(max(distance / radius, 0.5))))
        volumes.append(float(np.log(max(len(points) * cell / sphere, 0.1))))
        if level == 0.35:
            # The voxel's own extent keeps the axes of tiny floods finite.
            spread = np.cov(points.T, bias=True) + np.diag(spacing**2 / 12)
            axes = np.sqrt(np.maximum(np.linalg.eigvalsh(spread), 1e-6))
            elongation = float(np.log(axes[2] / axes[1]))
            flatness = float(np.log(axes[1] / axes[0]))
    return (*extents, *volumes[:2], elongation, flatness)


def _neighbourhood_features(
    profiles: FloatArray, shape: _RayShape, candidates: Candidates, maps: Surroundings
) -> dict[str, NDArray[np.floating]]:
    shell = (_RADII >= 4.0) & (_RADII <= 9.0)
    spread = profiles[:, :, shell].reshape(len(profiles), -1)
    low, high = np.quantile(spread, [0.1, 0.75], axis=1)
    points = candidates.voxels * maps.spacing
    crowding = np.zeros(len(points))
    for i, point in enumerate(points):
        near = np.linalg.norm(points - point, axis=1) < 10.0
        near[i] = False
        crowding[i] = candidates.responses[near].sum() / max(candidates.responses[i], 1e-3)
    return {
        "busyness": np.clip((high - low) / shape.depth, 0, 5),
        "crowding": np.log1p(crowding),
    }
