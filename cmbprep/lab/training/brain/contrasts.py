"""Training scans for the brain-mask network: heads in random colours, geometry and quality.

A network that has seen every contrast at random learns what brains are without learning what
a contrast looks like (Billot B et al. Med Image Anal 2023;86:102789; for brain masks, Hoopes A
et al. NeuroImage 2022;260:119474). Nothing here imitates a scanner closely; it goes well
beyond what scanners do, in all that must not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cmbprep.brain.network import BOX, LEAST, MULTIPLE, SPACING, scale_intensities
from cmbprep.lab.shared import read_data
from cmbprep.lab.simulate.anatomy import smooth_noise, upsample
from cmbprep.lab.simulate.deformation import along
from cmbprep.lab.simulate.tissue import TISSUES
from cmbprep.lab.training.brain.heads import TrainingHead

FloatArray = NDArray[np.float32]
Range = tuple[float, float]

#: Range of intensity of each tissue in sequences that are met (none is imitated): T2*-weighted,
#: T1-weighted and T2-weighted.
CONTRASTS: list[dict[str, Range]] = list(
    read_data("cmbprep.lab.training.brain", "contrasts.json").values()
)


@dataclass(frozen=True, eq=False)
class TrainingScan:
    """What a step of the fit sees.

    Attributes
    ----------
    channels
        float32, shape (2, X, Y, Z): the network's input.
    distance
        float32, shape (X, Y, Z): mm to the border of the brain, positive inside.
    """

    channels: FloatArray
    distance: FloatArray


def draw_scan(head: TrainingHead, rng: np.random.Generator) -> TrainingScan:
    """Draw a scan of a head at random."""
    image = _coloured(head, rng)
    image = _suppress_outside(image, head.distance, rng)
    image = _drop_signal(image, head.distance, rng)
    image, distance = _move(image, head.distance, rng)
    # Nothing is known of what lies beyond the head's own grid.
    known = image >= 0
    image = np.maximum(image, 0) * _bias(image.shape, rng)
    image = _acquire(image, rng)
    inside = _field_of_view(rng) & known
    image[~inside] = 0
    scaled = scale_intensities(image, inside)
    box = _box_around(inside)
    channels = np.stack([scaled[box], inside[box].astype(np.float32)])
    return TrainingScan(channels, distance[box])


def _box_around(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Box that the network's grid would be for a scan that shows this much."""
    parts = []
    for axis, n in enumerate(inside.shape):
        others = tuple(k for k in range(3) if k != axis)
        shown = np.flatnonzero(inside.any(axis=others))
        extent = int(shown[-1] - shown[0]) + 1 if shown.size else MULTIPLE
        first = int(shown[0]) if shown.size else 0
        count = max(-(-extent // MULTIPLE) * MULTIPLE, LEAST)
        start = min(max(first - (count - extent) // 2, 0), n - count)
        parts.append(slice(start, start + count))
    return parts[0], parts[1], parts[2]


def _coloured(head: TrainingHead, rng: np.random.Generator) -> FloatArray:
    image = _tissue_image(head, rng) if head.image is None else _recoloured(head, rng)
    if rng.random() < 0.5:
        image = np.maximum(image, 0) ** np.float32(rng.uniform(0.7, 1.5))
    return image


def _tissue_image(head: TrainingHead, rng: np.random.Generator) -> FloatArray:
    """Draw an intensity for each tissue: of a kind of sequence, or any."""
    assert head.fractions is not None
    kind = CONTRASTS[rng.choice(3, p=(0.6, 0.25, 0.15))]
    anything = rng.random() < 0.25
    shape = head.distance.shape
    texture = smooth_noise(shape, float(rng.uniform(2, 8)), rng)
    image = np.zeros(shape, np.float32)
    air = np.float32(rng.uniform(0, 0.05))
    left = np.full(shape, 255, np.float32)
    for number, name in enumerate(TISSUES):
        level = rng.uniform(0, 1) if anything else rng.uniform(*kind[name])
        spread = rng.uniform(0, 0.25) * level
        part = head.fractions[number].astype(np.float32)
        left -= part
        image += part * (np.float32(level) + np.float32(spread) * texture)
    image += np.maximum(left, 0) * air
    return np.maximum(image / np.float32(255), 0)


def _recoloured(head: TrainingHead, rng: np.random.Generator) -> FloatArray:
    """Map the intensities of a real head by random curves, inside and outside apart."""
    assert head.image is not None
    image = head.image
    choice = rng.random()
    if choice < 0.33:
        return image.copy()
    outer = _curve(image, rng)
    if choice < 0.46:
        return outer
    inner = _curve(image, rng)
    # Over a voxel, as partial volume does.
    part = np.clip(head.distance / np.float32(SPACING) + 0.5 + rng.uniform(-0.3, 0.3), 0, 1)
    return np.asarray(inner * part + outer * (1 - part), np.float32)


def _curve(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    knots = np.array([0.0, 0.15, 0.35, 0.55, 0.75, 1.0, 1.5, 3.0])
    levels = rng.uniform(0, 1, knots.size)
    # Air and compact bone are dark in every sequence.
    levels[0] = rng.uniform(0, 0.06)
    if rng.random() < 0.5:
        levels[1] *= rng.uniform(0, 0.6)
    if rng.random() < 0.3:
        levels = np.sort(levels)
    return np.interp(image, knots, levels).astype(np.float32)


def _suppress_outside(
    image: FloatArray, distance: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Take signal away outside of the brain: suppressed fat, or a head that was stripped."""
    if rng.random() >= 0.35:
        return image
    margin = rng.uniform(0, 8)
    left = rng.uniform(0, 0.5)
    part = np.clip((distance + np.float32(margin)) / 2 + 0.5, 0, 1)
    return np.asarray(image * (left + (1 - left) * part), np.float32)


def _drop_signal(image: FloatArray, distance: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Take signal away around points of the brain's surface, mostly low ones; also cavities."""
    surface = np.argwhere(np.abs(distance) < SPACING)
    if not len(surface):
        return image
    low = surface[surface[:, 2] < np.percentile(surface[:, 2], 30)]
    image = image.copy()
    for _ in range(max(0, int(rng.integers(-2, 4)))):
        pool = low if rng.random() < 0.75 else surface
        centre = pool[rng.integers(len(pool))]
        sigma = rng.uniform(5, 14, 3) / SPACING
        _blend(image, centre, sigma, None, rng.uniform(0.5, 1.0))
    if rng.random() < 0.12:
        centre = surface[rng.integers(len(surface))]
        fluid = float(np.percentile(image[distance > 0], rng.choice([3, 97])))
        _blend(image, centre, rng.uniform(6, 18, 3) / SPACING, fluid, 1.0, sharp=True)
    return image


def _blend(
    image: FloatArray,
    centre: NDArray[np.intp],
    sigma: NDArray[np.float64],
    level: float | None,
    strength: float,
    *,
    sharp: bool = False,
) -> None:
    """Bring the image towards a level (None: zero) in a blob, in place."""
    reach = np.ceil(3 * sigma).astype(int)
    box = tuple(
        slice(max(0, c - r), min(n, c + r + 1))
        for c, r, n in zip(centre, reach, image.shape, strict=True)
    )
    axes = np.ogrid[box]
    square = sum(((a - c) / s) ** 2 for a, c, s in zip(axes, centre, sigma, strict=True))
    part = np.clip(2.5 - np.sqrt(square) * 1.5, 0, 1) if sharp else np.exp(-square / 2)
    part = (part * strength).astype(np.float32)
    image[box] = image[box] * (1 - part) + part * np.float32(level or 0.0)


def _move(
    image: FloatArray, distance: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Turn, scale, shift and bend the head, into the box of a training scan."""
    widest = 40.0 if rng.random() < 0.3 else 18.0
    angles = rng.uniform(-widest, widest, 3) * np.array([1.0, 0.7, 0.7])
    scale = np.exp(rng.normal(0, 0.07) + rng.normal(0, 0.04, 3))
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() / scale
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    brain = np.argwhere(distance[::3, ::3, ::3] > 0) * 3.0
    middle = (brain.min(axis=0) + brain.max(axis=0)) / 2
    far = np.array([25.0, 30.0, 36.0]) if rng.random() < 0.4 else np.array([10.0, 12.0, 16.0])
    centre = (np.array(BOX) - 1) / 2 + (rng.uniform(-far, far) + np.array([0, 0, 9.0])) / SPACING
    axes = [np.arange(n, dtype=np.float32) for n in BOX]
    bend = rng.uniform(0, 3.3) / SPACING
    points = np.empty((3, *BOX), np.float32)
    for row in range(3):
        points[row] = np.float32(middle[row] - matrix[row] @ centre)
        points[row] += np.float32(bend) * _waves(BOX, rng)
        for column in range(3):
            line = np.float32(matrix[row, column]) * axes[column]
            points[row] += line.reshape(along(column))
    moved = ndimage.map_coordinates(
        image, points, order=1, mode="constant", cval=-9.0, output=np.float32
    )
    border = ndimage.map_coordinates(distance, points, order=1, mode="nearest", output=np.float32)
    # Distances grow with the head.
    return moved, border * np.float32(np.cbrt(np.prod(scale)))


def _waves(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Smooth random field of unit variance with features of about 40 mm."""
    step = 5
    coarse = tuple(-(-n // step) + 1 for n in shape)
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), 1.1, mode="wrap")
    finer = upsample(noise / noise.std(), [step] * 3)
    return finer[tuple(slice(0, n) for n in shape)]


def _bias(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Draw a smooth factor: waves of 80 mm and a fall-off to one side."""
    step = 8
    coarse = tuple(-(-n // step) + 1 for n in shape)
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), 1.3, mode="wrap")
    logarithm = noise / noise.std() * np.float32(rng.uniform(0, 0.45))
    if rng.random() < 0.35:
        direction = rng.normal(size=3)
        direction *= rng.uniform(0, 1.2) / np.linalg.norm(direction)
        for axis in range(3):
            line = np.linspace(-1, 1, coarse[axis], dtype=np.float32) * np.float32(direction[axis])
            logarithm += line.reshape(along(axis))
    finer = upsample(logarithm, [step] * 3)
    return np.exp(finer[tuple(slice(0, n) for n in shape)])


def _acquire(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Blur, sample in voxels or slices of some size, add noise, and bring it back to the grid."""
    image = ndimage.gaussian_filter(image, float(rng.uniform(0, 1.8)) / SPACING, truncate=3)
    choice = rng.random()
    sizes = np.full(3, SPACING)
    if choice < 0.35:
        axis = 2 if rng.random() < 0.75 else int(rng.integers(0, 2))
        sizes[axis] = rng.uniform(SPACING, 8.0)
    elif choice < 0.6:
        sizes[:] = rng.uniform(SPACING, 5.0)
    blur = np.sqrt(np.maximum(sizes**2 - SPACING**2, 0)) / SPACING / 2.355
    if blur.any():
        image = ndimage.gaussian_filter(image, blur, truncate=3)
    shape = image.shape
    counts = np.maximum(np.round(np.array(shape) * SPACING / sizes), 4).astype(int)
    for axis, count in enumerate(counts):
        if count != shape[axis]:
            places = np.linspace(0, shape[axis] - 1, count)
            image = _line_sample(image, axis, places)
    level = rng.uniform(0, 0.08) * float(np.percentile(image[::3, ::3, ::3], 95))
    real = image + level * rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.7:
        other = level * rng.standard_normal(image.shape, dtype=np.float32)
        real = np.sqrt(real**2 + other**2)
    image = np.maximum(real, 0)
    for axis, count in enumerate(counts):
        if count != shape[axis]:
            places = np.linspace(0, count - 1, shape[axis])
            image = _line_sample(image, axis, places)
    return image


def _line_sample(image: FloatArray, axis: int, places: NDArray[np.float64]) -> FloatArray:
    """Interpolate linearly at places along one axis."""
    first = np.minimum(places.astype(int), image.shape[axis] - 2)
    part = (places - first).astype(np.float32).reshape(along(axis))
    low, high = np.take(image, first, axis), np.take(image, first + 1, axis)
    return np.asarray(low + part * (high - low), np.float32)


def _field_of_view(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw where the scan ends: often a box within the training box, sometimes a slab."""
    inside = np.zeros(BOX, bool)
    ends = [[0, n] for n in BOX]
    if rng.random() < 0.5:
        for pair, n in zip(ends, BOX, strict=True):
            pair[0] = int(rng.integers(0, n // 8))
            pair[1] = n - int(rng.integers(0, n // 8))
    if rng.random() < 0.35:
        axis = 2 if rng.random() < 0.8 else int(rng.integers(0, 2))
        width = int(rng.uniform(24, 90) / SPACING)
        start = int(rng.integers(3, BOX[axis] - width - 3))
        ends[axis] = [start, start + width]
    inside[tuple(slice(a, b) for a, b in ends)] = True
    return inside
