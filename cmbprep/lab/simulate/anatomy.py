"""The parts of a head: tissue fractions, skull, cavities, white-matter lesions, iron.

Functions here fill arrays on a head's grid. Shapes that the template's priors do not have
(air cavities, iron-rich nuclei of the brainstem, eyes) are ellipsoids in template
coordinates (MNI152, mm, RAS+), evaluated at the template coordinates of each head voxel,
so that they move with the head's deformation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.shared import read_data
from cmbprep.lab.simulate.deformation import Deformation, TemplateHead, Volume, along
from cmbprep.lab.simulate.tissue import IRON, TISSUES

#: Usual spacing of a head's grid, mm.
SPACING = 1.0

Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float]]

_SHAPES = read_data("cmbprep.lab.simulate", "anatomy.json")
#: nucleus -> centre and semi-axes of its right half (x > 0), mm in MNI152; the left mirrors it.
NUCLEI: dict[str, Ellipsoid] = _SHAPES["nuclei"]
#: Air cavities: centre, semi-axes, in MNI152 mm; mirrored where x is not 0.
AIR: dict[str, Ellipsoid] = _SHAPES["air"]
#: Calcified structure -> centre, semi-axes of where its grains lie, chance, number of grains.
CALCIFIED: dict[str, tuple[list[float], list[float], float, tuple[int, int]]] = _SHAPES["calcified"]
EYES: Ellipsoid = ((34.0, 58.0, -40.0), (12.0, 12.0, 12.0))


def head_grid(
    template: TemplateHead, deformation: Deformation, spacing: float = SPACING
) -> tuple[NDArray[np.float32], tuple[int, int, int], NDArray[np.float64]]:
    """Lay a head's grid and give the template coordinates of its voxels.

    Returns
    -------
    points : numpy.ndarray
        float32, shape (3, X, Y, Z): template mm of each voxel.
    shape, affine
        The head's grid; voxel -> head mm.
    """
    from scipy import ndimage

    corners = np.array(np.meshgrid(*[(0, n - 1) for n in template.gm.shape])).reshape(3, -1).T
    corners = corners @ template.affine[:3, :3].T + template.affine[:3, 3]
    inverse = np.linalg.inv(deformation.matrix)
    corners = corners @ inverse[:3, :3].T + inverse[:3, 3]
    low = np.floor(corners.min(axis=0))
    shape_array = np.ceil((corners.max(axis=0) - low) / spacing).astype(int) + 1
    shape = (int(shape_array[0]), int(shape_array[1]), int(shape_array[2]))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    to_coarse = np.linalg.inv(deformation.grid) @ affine
    to_template = deformation.matrix @ affine
    points = np.empty((3, *shape), np.float32)
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    for axis in range(3):
        points[axis] = ndimage.affine_transform(
            deformation.displacement[axis],
            to_coarse[:3, :3],
            offset=to_coarse[:3, 3],
            output_shape=shape,
            order=1,
            mode="nearest",
            output=np.float32,
        )
        for other in range(3):
            line = np.float32(to_template[axis, other]) * axes[other]
            points[axis] += line.reshape(along(other))
        points[axis] += np.float32(to_template[axis, 3])
    return points, shape, affine


def map_volume(deformation: Deformation, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map points of shape (3, X, Y, Z), slab by slab to save memory."""
    mapped = np.empty_like(points)
    for start in range(0, points.shape[1], 8):
        slab = points[:, start : start + 8]
        moved = deformation(slab.reshape(3, -1).T)
        mapped[:, start : start + 8] = moved.T.reshape(slab.shape)
    return mapped


def sample_template(
    image: NDArray[np.generic], affine: NDArray[np.float64], points: NDArray[np.float32]
) -> Volume:
    """Interpolate a template image linearly at template coordinates (3, ...)."""
    from scipy import ndimage

    inverse = np.linalg.inv(affine)
    if np.count_nonzero(inverse[:3, :3]) > 3:
        raise ValueError("the template's axes must be those of its space")
    scale = np.diag(inverse)[:3].astype(np.float32)
    voxels = points * scale.reshape(-1, 1, 1, 1) + inverse[:3, 3].astype(np.float32).reshape(
        -1, 1, 1, 1
    )
    result: Volume = ndimage.map_coordinates(
        np.asarray(image, dtype=np.float32), voxels, order=1, mode="nearest", output=np.float32
    )
    return result


def upsample(image: Volume, factors: Sequence[int]) -> Volume:
    """Interpolate linearly to a grid finer by whole factors; sample 0 stays where it is.

    Along each axis N samples become (N - 1) * factor + 1. Much faster than a general resampling.
    """
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        moved = np.moveaxis(image, axis, 0)
        count = moved.shape[0]
        finer = np.empty(((count - 1) * factor + 1, *moved.shape[1:]), np.float32)
        finer[::factor] = moved
        step = np.diff(moved, axis=0)
        step *= np.float32(1 / factor)
        for part in range(1, factor):
            np.add(finer[part - 1 : -1 : factor], step, out=finer[part::factor])
        image = np.moveaxis(finer, 0, axis)
    return image


def smooth_noise(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> Volume:
    """Gaussian random field of unit variance with features of about `width` voxels."""
    from scipy import ndimage

    step = max(1, int(width // 2))
    coarse = tuple(int(np.ceil(n / step)) + 2 for n in shape)
    noise = ndimage.gaussian_filter(
        rng.standard_normal(coarse, dtype=np.float32), width / step / 2, mode="wrap"
    )
    noise /= noise.std()
    finer = upsample(noise, [step] * len(shape))
    return np.ascontiguousarray(finer[tuple(slice(0, n) for n in shape)])


def brain_fractions(
    template: TemplateHead,
    points: NDArray[np.float32],
    distance: Volume,
    rng: np.random.Generator,
    atrophy: float,
    spacing: float = SPACING,
) -> NDArray[np.float32]:
    """Turn the template's tissue probabilities into the tissue fractions of one brain.

    Averaged priors are blurred. Raising them to a power makes tissue out of probability,
    after a random field has pushed them apart, so that gyri differ between people; more
    weight on fluid is atrophy.

    Parameters
    ----------
    template, points
        See :func:`head_grid`.
    distance
        Signed distance to the brain's surface, mm, negative inside.
    rng
        Source of randomness.
    atrophy
        0..1.
    spacing
        Of the head's grid, mm.

    Returns
    -------
    numpy.ndarray
        float32, shape (tissues, X, Y, Z), brain tissues filled, the rest zero.
    """
    shape = distance.shape
    gm, wm = (
        sample_template(image, template.affine, points) for image in (template.gm, template.wm)
    )
    brain = np.clip(0.5 - distance, 0, 1)
    csf = np.clip(brain - gm - wm, 0, 1)
    fractions = np.zeros((len(TISSUES), *shape), np.float32)
    names = list(TISSUES)
    weights = {"csf": csf * (0.9 + 0.9 * atrophy), "gm": gm, "wm": wm}
    for name, weight in weights.items():
        # The third power, and the exponential of three times a field of 0.22.
        tissue = np.exp(np.float32(0.66) * smooth_noise(shape, 7.0 / spacing, rng))
        tissue *= weight
        tissue *= weight
        tissue *= weight
        fractions[names.index(name)] = tissue
    total = fractions.sum(axis=0)
    total[total < 1e-9] = 1e-9
    fractions *= brain / total
    return fractions


def add_white_matter_lesions(
    fractions: NDArray[np.float32],
    affine: NDArray[np.float64],
    rng: np.random.Generator,
    load: float,
) -> None:
    """Turn white matter into lesions, in place: caps at the ventricles and separate foci."""
    from scipy import ndimage

    names = list(TISSUES)
    wm, csf = fractions[names.index("wm")], fractions[names.index("csf")]
    origin, spacing = np.linalg.inv(affine)[:3, 3], affine[0, 0]
    box = [
        slice(max(0, int(origin[a] + (c - r) / spacing)), int(origin[a] + (c + r) / spacing))
        for a, (c, r) in enumerate(((0, 42), (-18, 70), (18, 42)))
    ]
    window = (box[0], box[1], box[2])
    ventricle = csf[window] > 0.8
    ventricle = ndimage.binary_opening(ventricle, iterations=2)
    near = ndimage.distance_transform_edt(~ventricle, sampling=spacing).astype(np.float32)
    roughness = smooth_noise(near.shape, 9.0 / spacing, rng)
    foci = smooth_noise(near.shape, 6.0 / spacing, rng)
    caps = np.clip(1.5 + 4.0 * load + 2.0 * load * roughness - near, 0, 1)
    spots = np.clip((foci - (3.6 - 1.5 * load)) * 3.0, 0, 1) * np.clip((22 - near) / 6, 0, 1)
    lesion = np.clip(caps + spots, 0, 1) * wm[window]
    fractions[names.index("wmh")][window] += lesion
    wm[window] -= lesion


def inside(points: NDArray[np.float32], shape: Ellipsoid) -> Volume:
    """Fraction of an ellipsoid in voxels, with an edge of about 1 mm."""
    centre, axes = shape
    square = np.zeros(points.shape[1:], np.float32)
    for k in range(3):
        square += ((points[k] - np.float32(centre[k])) / np.float32(axes[k])) ** 2
    distance = (np.sqrt(square) - 1) * np.float32(min(axes))
    return np.clip(0.5 - distance, 0, 1)


def around(
    points: NDArray[np.float32], shape: Ellipsoid, margin: float = 6.0
) -> tuple[slice, slice, slice]:
    """Box of voxels that holds an ellipsoid (template axes and head axes nearly agree)."""
    slices = []
    centre, axes = shape
    middle = [n // 2 for n in points.shape[1:]]
    for k in range(3):
        index: list[int | slice] = [*middle]
        index[k] = slice(None)
        line = points[(k, *index)]
        reach = axes[k] + margin
        where = np.flatnonzero(np.abs(line - centre[k]) < reach)
        slices.append(slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 0))
    return (slices[0], slices[1], slices[2])


def mirrored(shape: Ellipsoid) -> list[Ellipsoid]:
    """Return an ellipsoid and its mirror image, or itself if it lies on the midline."""
    (x, y, z), axes = shape
    return [shape] if x == 0 else [shape, ((-x, y, z), axes)]


def add_skull_and_scalp(
    fractions: NDArray[np.float32],
    points: NDArray[np.float32],
    distance: Volume,
    depth: Volume,
    rng: np.random.Generator,
    rim: float = 0.0,
    spacing: float = SPACING,
) -> None:
    """Put fluid, bone with marrow, soft tissue, eyes and air cavities around the brain.

    `distance` is the signed distance to the brain, `depth` that below the skin, `rim` how much
    thicker than usual the fluid is, `spacing` that of the grid, all in mm.
    """
    shape = distance.shape
    names = list(TISSUES)
    left = np.clip(1 - fractions.sum(axis=0), 0, 1) * np.clip(depth, 0, 1)
    fluid = rng.uniform(0.5, 1.5) + rim
    thickness = rng.uniform(5.0, 7.5) + 0.8 * smooth_noise(shape, 30.0 / spacing, rng)
    bone = np.clip(distance - fluid + 0.5, 0, 1) * np.clip(fluid + thickness - distance, 0, 1)
    # The skull ends below the brain's level only where the head does: keep 3 mm of scalp.
    bone *= np.clip(depth / 3.0, 0, 1)
    marrow = bone * np.clip(1.2 - np.abs(distance - fluid - 0.5 * thickness), 0, 1) * 0.5
    fluid_part = np.clip(fluid + 0.5 - distance, 0, 1)
    fractions[names.index("csf")] += left * fluid_part
    rest = left * (1 - fluid_part)
    fractions[names.index("bone")] += rest * (bone - marrow)
    # Fat under the skin and in the marrow, muscle and fat in streaks below.
    streaks = smooth_noise(shape, 5.0 / spacing, rng)
    streaks *= np.float32(0.5)
    streaks += np.clip((8.0 - depth) / 6.0, 0, 1)
    np.clip(streaks, 0.1, 0.9, out=streaks)
    soft = rest * (1 - bone)
    fractions[names.index("fat")] += soft * streaks + rest * marrow
    fractions[names.index("muscle")] += soft * (1 - streaks)
    for eye in mirrored(EYES):
        _replace(fractions, points, distance, eye, "csf")
    for cavity in AIR.values():
        for one in mirrored(cavity):
            _replace(fractions, points, distance, _vary(one, rng), None)


def _vary(shape: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    centre, axes = shape
    moved = np.asarray(centre) + rng.normal(0, 1.0, 3)
    grown = np.asarray(axes) * np.exp(rng.normal(0, 0.15, 3))
    return ((moved[0], moved[1], moved[2]), (grown[0], grown[1], grown[2]))


def _replace(
    fractions: NDArray[np.float32],
    points: NDArray[np.float32],
    brain_distance: Volume,
    shape: Ellipsoid,
    tissue: str | None,
) -> None:
    """Fill an ellipsoid outside the brain with one tissue (None: air), in place."""
    box = around(points, shape)
    window = (slice(None), *box)
    part = inside(points[window], shape) * np.clip((brain_distance[box] - 2.5) / 1.5, 0, 1)
    fractions[window] *= 1 - part
    if tissue is not None:
        fractions[window][list(TISSUES).index(tissue)] += part


def iron_map(
    fractions: NDArray[np.float32],
    points: NDArray[np.float32],
    shape: tuple[int, int, int],
    content: Callable[[str], float],
) -> Volume:
    """Iron of the deep nuclei beyond that of cortex, mg per 100 g."""
    names = list(TISSUES)
    iron = np.zeros(shape, np.float32)
    for name in IRON:
        for one in mirrored(NUCLEI[name]):
            box = around(points, one)
            window = (slice(None), *box)
            part = inside(points[window], one)
            tissue = fractions[window]
            part *= 1 - np.clip(tissue[names.index("csf")], 0, 1)
            np.maximum(iron[box], part * np.float32(content(name)), out=iron[box])
            _to_grey(tissue, part, name)
    return iron


def _to_grey(tissue: NDArray[np.float32], part: Volume, nucleus: str) -> None:
    """Make a nucleus grey (in place): the priors show part of them as white matter."""
    names = list(TISSUES)
    share = {"pallidum": 0.5, "thalamus": 0.5, "dentate": 0.4}.get(nucleus, 0.8)
    moved = tissue[names.index("wm")] * part * np.float32(share)
    tissue[names.index("wm")] -= moved
    tissue[names.index("gm")] += moved
