"""The scanner: a head with its sources, and a protocol, give images and the truth.

The fine grid. A scan is computed on a grid with the scan's axes and cells finer than its
voxels. The fields of large structures (air, bone, tissue) are computed on the head's own
grid and interpolated; those of veins are computed on the fine grid; those of compact
sources are computed each in its own box and added, which is exact because fields add.
That a source's field is separate is also how the truth is had: the same region is
acquired with and without the source, free of noise, and the difference is what the source
did to the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import signal as mr
from .anatomy import upsample
from .field import dipole_field, larmor_mhz, shim
from .head import Head, Volume
from .protocols import Protocol
from .sources import Source
from .structures import Structure, find_structures
from .tissue import (
    AIR_SUSCEPTIBILITY,
    BLOOD_SUSCEPTIBILITY,
    TISSUES,
    static_dephasing_rate,
    venous_r2star,
)
from .vessels import Tube, occupancy

__all__ = [
    "Acquisition",
    "Effect",
    "Geometry",
    "acquire",
    "acquire_t1w",
    "head_field",
    "plan_geometry",
    "rotation",
]

#: Cells of the fine grid are at most this large, in the plane and through it, mm.
FINE_IN_PLANE = 0.6
FINE_THROUGH = 1.1

#: Proton density of flowing arterial blood: nearly void.
FLOW_VOID = 0.25

#: A source's own field is computed out to where it falls below this, ppm.
FIELD_FLOOR = 0.002


@dataclass(frozen=True)
class Geometry:
    """Where a scan lies and where the head lies in the scanner.

    Attributes
    ----------
    affine
        4x4, voxel -> scanner mm (RAS+).
    shape
        Voxels of the image.
    pose
        4x4 rigid, head mm -> scanner mm.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    pose: NDArray[np.float64]

    @property
    def head_to_voxel(self) -> NDArray[np.float64]:
        """4x4, head mm -> voxel."""
        result: NDArray[np.float64] = np.linalg.inv(self.affine) @ self.pose
        return result


@dataclass(frozen=True)
class Effect:
    """What one source does to one noise-free image.

    Attributes
    ----------
    origin
        Voxel of the image at which `loss` begins.
    loss
        Relative signal loss, 1 - with / without, of the last echo's magnitude.
    contrast_to_noise
        Largest drop of the magnitude divided by the noise of the image.
    centre_voxel
        Where the source's centre is, in voxels of the image.
    """

    origin: tuple[int, int, int]
    loss: Volume
    contrast_to_noise: float
    centre_voxel: NDArray[np.float64]


@dataclass(frozen=True)
class Acquisition:
    """A simulated scan.

    Attributes
    ----------
    echoes
        Complex image of each echo, with coil sensitivity and noise.
    geometry
        Of the images.
    effects
        One for each source; ``None`` for those outside the field of view.
    structures
        Veins, flow voids and the like that lie in the image.
    """

    echoes: tuple[NDArray[np.complex64], ...]
    geometry: Geometry
    effects: tuple[Effect | None, ...]
    structures: tuple[Structure, ...] = ()


def plan_geometry(
    protocol: Protocol, centre: Sequence[float], rng: np.random.Generator
) -> Geometry:
    """Pose a head in the scanner and lay the slices.

    Parameters
    ----------
    protocol
        Gives matrix, spacing and orientation.
    centre
        Middle of the brain in head mm: it comes to lie near the isocentre.
    rng
        Source of randomness.
    """
    turn = rotation(np.deg2rad(rng.normal(0, (3.5, 2.0, 2.5))))
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = rng.normal(0, (3.0, 8.0, 5.0)) - turn @ np.asarray(centre)
    tilt = np.deg2rad(rng.uniform(-protocol.tilt, protocol.tilt))
    axes = {
        "axial": np.array([[-1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).T,
        "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T,
        "sagittal": np.array([[0, 1.0, 0], [0, 0, 1], [-1, 0, 0]]).T,
    }[protocol.orientation]
    directions = rotation((tilt, 0.0, 0.0)) @ axes
    shape = (*protocol.matrix, protocol.slices)
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(protocol.spacing)
    middle = pose[:3, :3] @ np.asarray(centre) + pose[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(affine=affine, shape=shape, pose=pose)


def rotation(angles: Iterable[float]) -> NDArray[np.float64]:
    """Rotation by angles in radians about x, then y, then z."""
    x, y, z = angles
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    result: NDArray[np.float64] = about_z @ about_y @ about_x
    return result


@dataclass(frozen=True)
class _Patch:
    """One compact source on the fine grid."""

    origin: tuple[int, int, int]
    field: Volume  # ppm
    core_origin: tuple[int, int, int]
    amplitude: Volume  # factor
    r2star: Volume  # 1/s, added


@dataclass
class _Scene:
    """All that is needed to acquire any box of voxels of a scan."""

    protocol: Protocol
    geometry: Geometry
    factors: tuple[int, int, int]
    margin: int
    steps: tuple[int, int]  # cells in the plane between samples of the head's maps
    to_head_grid: NDArray[np.float64]  # fine cell -> voxel of the head's grid
    maps: tuple[Volume, Volume, Volume]  # amplitude, R2*, field in ppm, on the head's grid
    veins: NDArray[np.uint8]
    voids: NDArray[np.uint8]
    local: Volume  # ppm, field of veins and sources, on the fine grid
    patches: list[_Patch | None] = field(default_factory=list)


def acquire(
    head: Head,
    tubes: Sequence[Tube],
    sources: Sequence[Source],
    protocol: Protocol,
    geometry: Geometry,
    rng: np.random.Generator,
    *,
    background: Volume | None = None,
    with_structures: bool = True,
) -> Acquisition:
    """Scan a head.

    Parameters
    ----------
    head, tubes, sources
        What is scanned, all in head coordinates.
    protocol, geometry
        How it is scanned and where it lies.
    rng
        Source of randomness: noise, coil sensitivity, vessel fill.
    background
        The head's own field in ppm on its grid, if it is known already; otherwise it is
        computed by :func:`head_field`.
    with_structures
        Whether to tell the voxels of vessels, dropout and iron as well. It changes nothing else.

    Returns
    -------
    Acquisition
    """
    if background is None:
        background = head_field(head, geometry.pose)
    maps = (*_head_maps(head, protocol), background)
    # A stream each, so that a vessel more does not change the noise.
    fill, receive = rng.spawn(2)
    whole = _unfolded(geometry, protocol.fold)
    scene = _lay_scene(head, maps, tubes, sources, protocol, whole, fill)
    x, y, z = whole.shape
    (clean,) = _acquire_box(scene, ((0, x), (0, y), (0, z)), protocol.echo_times)
    sigma = _noise_level(protocol)
    effects = tuple(
        _folded(_effect(scene, source, patch, index, sigma), geometry, protocol.fold)
        for index, (source, patch) in enumerate(zip(sources, scene.patches, strict=True))
    )
    coil = coil_sensitivity(whole, protocol.field_strength, receive)
    drift = _drift(geometry.shape[1], protocol, receive)
    echoes = []
    for echo in clean:
        image = mr.wrap(echo * coil, 1, protocol.fold)
        if protocol.motion:
            image = mr.move(image, drift)
        echoes.append(mr.add_noise(image, sigma, receive))
    del scene, clean
    return Acquisition(
        echoes=tuple(echoes),
        geometry=geometry,
        effects=effects,
        structures=find_structures(head, tubes, background, protocol, geometry)
        if with_structures
        else (),
    )


def _unfolded(geometry: Geometry, fold: int) -> Geometry:
    """The geometry with `fold` voxels more at both ends of the phase-encoded axis."""
    affine = geometry.affine.copy()
    affine[:3, 3] -= fold * affine[:3, 1]
    x, y, z = geometry.shape
    return Geometry(affine=affine, shape=(x, y + 2 * fold, z), pose=geometry.pose)


def _folded(effect: Effect | None, geometry: Geometry, fold: int) -> Effect | None:
    """An effect on the longer image, on the one that is written."""
    if effect is None or fold == 0:
        return effect
    first, last = effect.origin[1] - fold, effect.origin[1] - fold + effect.loss.shape[1]
    cut_low, cut_high = max(0, -first), max(0, last - geometry.shape[1])
    centre = effect.centre_voxel - [0, fold, 0]
    if (
        cut_low + cut_high >= effect.loss.shape[1]
        or not -0.5 <= centre[1] < geometry.shape[1] - 0.5
    ):
        return None
    return Effect(
        origin=(effect.origin[0], first + cut_low, effect.origin[2]),
        loss=effect.loss[:, cut_low : effect.loss.shape[1] - cut_high],
        contrast_to_noise=effect.contrast_to_noise,
        centre_voxel=centre,
    )


def _drift(lines: int, protocol: Protocol, rng: np.random.Generator) -> NDArray[np.float64]:
    """Position in the plane, voxels, while each phase-encoding line is taken: a slow walk."""
    walk = np.cumsum(rng.standard_normal((2, lines)), axis=1)
    walk -= walk.mean(axis=1, keepdims=True)
    walk *= protocol.motion / np.maximum(walk.std(axis=1, keepdims=True), 1e-9)
    return np.asarray(walk / np.array(protocol.voxel[:2])[:, None])


def acquire_t1w(
    head: Head, geometry: Geometry, field_strength: float, rng: np.random.Generator
) -> Volume:
    """Scan the T1-weighted image of a head: magnetisation-prepared, 3D.

    Parameters
    ----------
    head
        What is scanned.
    geometry
        Where; an isotropic grid near 1 mm, as the head's own.
    field_strength
        Tesla.
    rng
        Source of randomness.
    """
    from scipy import ndimage

    amplitude = head.mix(
        {
            name: mr.mprage_amplitude(t.proton_density, t.t1_at(field_strength), 1100.0, 2300.0)
            for name, t in TISSUES.items()
        }
    )
    matrix = np.linalg.inv(head.affine) @ np.linalg.inv(geometry.pose) @ geometry.affine
    image = ndimage.affine_transform(
        amplitude, matrix[:3, :3], matrix[:3, 3], geometry.shape, order=1
    )
    coil = coil_sensitivity(geometry, field_strength, rng)
    return np.abs(mr.add_noise(image * coil, 0.012, rng)).astype(np.float32)


def coil_sensitivity(
    geometry: Geometry, field_strength: float, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Smooth complex receive profile: brighter near the coil, with a slow phase.

    A head coil sees the surface better than the middle, the more so at high field; the
    transmit field does the opposite at 7 T. A random quadratic around the isocentre.
    """
    strength = 0.25 * np.sqrt(field_strength / 3.0) * np.exp(rng.normal(0, 0.4))
    scaled = (geometry.affine / 100.0).astype(np.float32)
    lines = [
        np.arange(n, dtype=np.float32).reshape(_along(k)) for k, n in enumerate(geometry.shape)
    ]
    curve = rng.normal(0.9, 0.25, 3) * strength
    slope = rng.normal(0, 0.35, 3) * strength
    gain = np.ones(geometry.shape, np.float32)
    for axis in range(3):
        position = scaled[axis, 3] + sum(scaled[axis, k] * lines[k] for k in range(3))
        gain += (np.float32(curve[axis]) * position + np.float32(slope[axis])) * position
    np.clip(gain, 0.2, 3.0, out=gain)
    turn = rng.normal(0, 0.8, 3) @ scaled[:3, :3]
    coil = gain * np.exp(np.complex64(1j * rng.normal(0, 0.8)))
    for rate, line in zip(turn, lines, strict=True):
        # The phase is linear in space, so that its factor is one of each axis.
        coil *= np.exp(1j * rate * line).astype(np.complex64)
    return coil.astype(np.complex64, copy=False)


def _along(axis: int) -> tuple[int, int, int]:
    shape = [1, 1, 1]
    shape[axis] = -1
    return (shape[0], shape[1], shape[2])


def _noise_level(protocol: Protocol) -> float:
    white = TISSUES["wm"]
    amplitude = mr.ernst_amplitude(
        white.proton_density,
        white.t1_at(protocol.field_strength),
        protocol.repetition_time,
        protocol.flip_angle,
    )
    decay = np.exp(-protocol.echo_times[0] * white.r2star_at(protocol.field_strength))
    return float(amplitude * decay / protocol.snr)


def _lay_scene(
    head: Head,
    maps: tuple[Volume, Volume, Volume],
    tubes: Sequence[Tube],
    sources: Sequence[Source],
    protocol: Protocol,
    geometry: Geometry,
    rng: np.random.Generator,
) -> _Scene:
    factors, margin = _fine_factors(protocol)
    fine_affine = _fine_affine(geometry.affine, factors, margin, protocol.three_d)
    fine_shape = (
        geometry.shape[0] * factors[0],
        geometry.shape[1] * factors[1],
        geometry.shape[2] * factors[2] + 2 * margin,
    )
    head_to_fine = np.linalg.inv(fine_affine) @ geometry.pose
    veins = occupancy([t for t in tubes if t.kind != "artery"], head_to_fine, fine_shape, rng)
    voids = occupancy([t for t in tubes if t.kind == "artery"], head_to_fine, fine_shape, rng)
    spacing = np.linalg.norm(fine_affine[:3, :3], axis=0)
    b0 = fine_affine[2, :3] / spacing
    chi = veins * np.float32(BLOOD_SUSCEPTIBILITY / 255)
    fine_field = dipole_field(chi, spacing, b0, padding=1.05)
    del chi
    scene = _Scene(
        protocol=protocol,
        geometry=geometry,
        factors=factors,
        margin=margin,
        steps=_map_steps(protocol, factors),
        to_head_grid=np.linalg.inv(head.affine) @ np.linalg.inv(head_to_fine),
        maps=maps,
        veins=veins,
        voids=voids,
        local=fine_field,
    )
    for source in sources:
        patch = _patch(source, head_to_fine, fine_shape, spacing, b0, protocol.field_strength)
        scene.patches.append(patch)
        if patch is not None:
            scene.local[_window(patch.origin, patch.field.shape)] += patch.field
    return scene


def _fine_factors(protocol: Protocol) -> tuple[tuple[int, int, int], int]:
    """Cells in a voxel along each axis, and planes beyond each end for the slice's edges."""
    in_plane = [max(2, int(np.ceil(v / FINE_IN_PLANE - 1e-6))) for v in protocol.voxel[:2]]
    through = max(2, int(np.ceil(protocol.spacing[2] / FINE_THROUGH - 1e-6)))
    margin = 0 if protocol.three_d or protocol.gap else 1
    return (in_plane[0], in_plane[1], through), margin


def _map_steps(protocol: Protocol, factors: tuple[int, int, int]) -> tuple[int, int]:
    """How many cells in the plane fit in 1.05 mm, the resolution of the head's own maps."""
    first, second = (
        max(1, int(1.05 * factor / size))
        for factor, size in zip(factors[:2], protocol.voxel[:2], strict=True)
    )
    return first, second


def _fine_affine(
    affine: NDArray[np.float64], factors: tuple[int, int, int], margin: int, three_d: bool
) -> NDArray[np.float64]:
    """Fine cell -> scanner mm.

    Along encoded axes voxel i lies at cell i * f (see ``crop_k_space``); along a sliced axis
    its f cells lie around its centre, after `margin` cells before the first slice.
    """
    scale = np.diag([1 / f for f in factors] + [1.0])
    if not three_d:
        scale[2, 3] = -((factors[2] - 1) / 2 + margin) / factors[2]
    result: NDArray[np.float64] = affine @ scale
    return result


def _head_maps(head: Head, protocol: Protocol) -> tuple[Volume, Volume]:
    """Signal at TE = 0 and R2* (1/s) on the head's grid."""
    amplitude = head.mix(
        {
            name: mr.ernst_amplitude(
                t.proton_density,
                t.t1_at(protocol.field_strength),
                protocol.repetition_time,
                protocol.flip_angle,
            )
            for name, t in TISSUES.items()
        }
    )
    return amplitude, head.r2star(protocol.field_strength)


def head_field(head: Head, pose: NDArray[np.float64]) -> Volume:
    """Shimmed field of the head itself in ppm, on its grid.

    Air and bone are strong and coarse: 2 mm, in twice the space. What the brain's tissues
    add is weak and fine: 1 mm. Beyond the lower edge the neck goes on as the head ends.
    """
    from scipy import ndimage

    b0 = pose[2, :3]
    chi = head.chi()
    chi -= np.float32(AIR_SUSCEPTIBILITY)
    below = 40
    padded = np.pad(chi, ((0, 0), (0, 0), (below, 0)), mode="edge")
    even = tuple(n - n % 2 for n in padded.shape)
    blocks = padded[: even[0], : even[1], : even[2]]
    coarse = blocks.reshape(even[0] // 2, 2, even[1] // 2, 2, even[2] // 2, 2).mean((1, 3, 5))
    field_coarse = dipole_field(coarse, 2 * head.spacing, b0)
    # Voxel i of the head's grid lies at (i - 0.5) / 2 of the coarse one.
    total = ndimage.affine_transform(
        field_coarse,
        np.eye(3) / 2,
        [-0.25, -0.25, below / 2 - 0.25],
        head.shape,
        order=1,
        mode="nearest",
    )
    brain = head.brain_mask()
    fine = np.where(brain, chi + np.float32(AIR_SUSCEPTIBILITY), 0).astype(np.float32)
    smooth = ndimage.uniform_filter(fine, 2, origin=0)
    total += dipole_field(fine - smooth, head.spacing, b0, padding=1.1)
    return shim(total.astype(np.float32), brain, head.spacing)


def _window(origin: ArrayLike, shape: ArrayLike) -> tuple[slice, slice, slice]:
    a, b, c = (
        slice(int(o), int(o) + int(n))
        for o, n in zip(np.asarray(origin), np.asarray(shape), strict=True)
    )
    return (a, b, c)


def _patch(
    source: Source,
    head_to_fine: NDArray[np.float64],
    shape: tuple[int, int, int],
    spacing: NDArray[np.float64],
    b0: NDArray[np.float64],
    field_strength: float,
) -> _Patch | None:
    """Put a source on the fine grid: its field around it, its own signal inside."""
    moment = sum(abs(b.chi) * 4 / 3 * np.pi * np.prod(b.axes) for b in source.blobs)
    radius = float(np.clip(np.cbrt(moment / (2 * np.pi * FIELD_FLOOR)), 8.0, 32.0)) + source.reach
    centre = head_to_fine[:3, :3] @ np.asarray(source.centre) + head_to_fine[:3, 3]
    low = np.floor(centre - radius / spacing).astype(int)
    high = np.ceil(centre + radius / spacing).astype(int) + 1
    clipped_low, clipped_high = np.maximum(low, 0), np.minimum(high, shape)
    if np.any(clipped_high - clipped_low < 1):
        return None
    chi, factor, origin = _rasterise(source, head_to_fine, low, high, spacing)
    core_shape = chi.shape
    full = np.zeros(tuple(high - low), np.float32)
    full[_window(origin - low, core_shape)] = chi
    field_ppm = dipole_field(full, spacing, b0, padding=1.5)
    inner = _window(clipped_low - low, clipped_high - clipped_low)
    core_low, core_high = np.maximum(origin, 0), np.minimum(origin + core_shape, shape)
    if np.any(core_high - core_low < 1):
        core_low, core_high = clipped_low, clipped_low
    core = _window(core_low - origin, np.maximum(core_high - core_low, 0))
    rate = np.abs(chi[core]) * np.float32(static_dephasing_rate(1.0, field_strength))
    return _Patch(
        origin=(int(clipped_low[0]), int(clipped_low[1]), int(clipped_low[2])),
        field=field_ppm[inner],
        core_origin=(int(core_low[0]), int(core_low[1]), int(core_low[2])),
        amplitude=factor[core],
        r2star=rate,
    )


def _rasterise(
    source: Source,
    head_to_fine: NDArray[np.float64],
    low: NDArray[np.int_],
    high: NDArray[np.int_],
    spacing: NDArray[np.float64],
    sub: int = 3,
) -> tuple[Volume, Volume, NDArray[np.int_]]:
    """Susceptibility and signal factor of a source in the cells around it."""
    centre = head_to_fine[:3, :3] @ np.asarray(source.centre) + head_to_fine[:3, 3]
    reach = source.reach / spacing + 1
    origin = np.maximum(np.floor(centre - reach).astype(int), low)
    end = np.minimum(np.ceil(centre + reach).astype(int) + 1, high)
    shape = end - origin
    lines = [o - 0.5 + (np.arange(n * sub) + 0.5) / sub for o, n in zip(origin, shape, strict=True)]
    back = np.linalg.inv(head_to_fine)
    chi = np.zeros([len(line) for line in lines], np.float32)
    factor = np.ones(chi.shape, np.float32)
    edge = float(spacing.min()) / sub
    for blob in source.blobs:
        # A blob is small beside a source of many: only the samples around it are looked at.
        middle = head_to_fine[:3, :3] @ np.asarray(blob.centre) + head_to_fine[:3, 3]
        around = (blob.reach + edge) / spacing
        box = tuple(
            slice(*np.searchsorted(line, (m - r, m + r)))
            for line, m, r in zip(lines, middle, around, strict=True)
        )
        index = np.stack(
            np.meshgrid(*(line[part] for line, part in zip(lines, box, strict=True)), indexing="ij")
        ).astype(np.float32)
        points = np.tensordot(back[:3, :3], index, 1) + back[:3, 3].reshape(3, 1, 1, 1)
        part = blob.occupancy(points, edge)
        chi[box] = np.where(part > 0, chi[box] * (1 - part) + part * np.float32(blob.chi), chi[box])
        factor[box] *= 1 - part * np.float32(1 - blob.signal)
    coarse = (shape[0], sub, shape[1], sub, shape[2], sub)
    return (
        chi.reshape(coarse).mean((1, 3, 5)),
        factor.reshape(coarse).mean((1, 3, 5)),
        origin,
    )


Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def _acquire_box(
    scene: _Scene,
    box: Box,
    echo_times: Sequence[float],
    without: Sequence[int | None] = (None,),
) -> list[list[NDArray[np.complex64]]]:
    """Noise-free images of a box of voxels: for each source left out, one for each echo.

    Boxes smaller than the field of view have wrong edges, as k-space is theirs alone. What does
    not depend on the source that is left out is computed once.
    """
    protocol, factors = scene.protocol, scene.factors
    (x0, x1), (y0, y1), (z0, z1) = box
    if protocol.three_d:
        planes = (z1 - z0) * factors[2]
        stacks = _empty((x1 - x0, y1 - y0, planes), len(without), len(echo_times))
        step = max(1, 8_000_000 // ((x1 - x0) * (y1 - y0) * factors[0] * factors[1]))
        for start in range(0, planes, step):
            stop = min(start + step, planes)
            fine = (z0 * factors[2] + start, z0 * factors[2] + stop)
            for version, images in enumerate(_encode(scene, box, fine, echo_times, without)):
                for stack, image in zip(stacks[version], images, strict=True):
                    stack[:, :, start:stop] = image
        return [
            [mr.crop_k_space(stack, 2, z1 - z0, apodise=protocol.filtered) for stack in version]
            for version in stacks
        ]
    cell = protocol.spacing[2] / factors[2]
    profile = mr.slice_profile(factors[2] + 2 * scene.margin, cell, protocol.voxel[2])
    found = _empty((x1 - x0, y1 - y0, z1 - z0), len(without), len(echo_times))
    slice_cells = (x1 - x0) * (y1 - y0) * factors[0] * factors[1] * factors[2]
    group = max(1, 4_000_000 // slice_cells)
    for start in range(z0, z1, group):
        stop = min(start + group, z1)
        fine = (start * factors[2], stop * factors[2] + 2 * scene.margin)
        weights = np.zeros((fine[1] - fine[0], stop - start), np.float32)
        for k in range(stop - start):
            weights[k * factors[2] : k * factors[2] + len(profile), k] = profile
        encoded = _encode(scene, box, fine, echo_times, without, weights)
        for version, images in enumerate(encoded):
            for image, slices in zip(found[version], images, strict=True):
                image[:, :, start - z0 : stop - z0] = slices
    return found


def _empty(
    shape: tuple[int, int, int], versions: int, echoes: int
) -> list[list[NDArray[np.complex64]]]:
    return [[np.empty(shape, np.complex64) for _ in range(echoes)] for _ in range(versions)]


def _encode(
    scene: _Scene,
    box: Box,
    fine_z: tuple[int, int],
    echo_times: Sequence[float],
    without: Sequence[int | None],
    weights: NDArray[np.float32] | None = None,
) -> Iterator[list[NDArray[np.complex64]]]:
    """Signal of some fine planes, encoded in the plane, for each source left out.

    With `weights`, shape (planes, slices), the planes are first summed to slices.
    """
    (x0, x1), (y0, y1) = box[0], box[1]
    lower = max(fine_z[0] - 1, 0)
    upper = min(fine_z[1] + 1, scene.local.shape[2])
    low = (x0 * scene.factors[0], y0 * scene.factors[1], lower)
    high = (x1 * scene.factors[0], y1 * scene.factors[1], upper)
    inner = slice(fine_z[0] - lower, fine_z[1] - lower)
    filtered = scene.protocol.filtered
    bare = _bare_cells(scene, low, high)
    for number, left_out in enumerate(without, start=1):
        amplitude, r2star, frequency = (
            bare if number == len(without) else (part.copy() for part in bare)
        )
        _add_sources(scene, low, (amplitude, r2star, frequency), left_out)
        images = []
        for echo_time in echo_times:
            cells = mr.gradient_echo(
                amplitude, r2star, frequency, echo_time, phase_sign=scene.protocol.phase_sign
            )[:, :, inner]
            if weights is not None:
                cells = cells @ weights
            cells = mr.crop_k_space(cells, 0, x1 - x0, apodise=filtered)
            images.append(mr.crop_k_space(cells, 1, y1 - y0, apodise=filtered))
        yield images


Cells = tuple[Volume, Volume, Volume]


def _bare_cells(scene: _Scene, low: tuple[int, int, int], high: tuple[int, int, int]) -> Cells:
    """Amplitude, R2* and field (ppm) of the fine cells between two corners.

    The field is that of all sources; what the sources do to amplitude and R2* is left out.
    """
    from scipy import ndimage

    shape = tuple(b - a for a, b in zip(low, high, strict=True))
    # The head's grid is 1 mm: interpolating to whole voxels in the plane and from there to
    # cells, which is much faster, loses nothing where voxels are no larger than that.
    steps = (*scene.steps, 1)
    matrix = scene.to_head_grid @ np.diag([*steps, 1.0])
    offset = scene.to_head_grid[:3, :3] @ np.asarray(low) + scene.to_head_grid[:3, 3]
    coarse = tuple(-(-(n - 1) // k) + 1 for n, k in zip(shape, steps, strict=True))
    inner = tuple(slice(0, n) for n in shape)
    amplitude, r2star, ppm = (
        upsample(
            ndimage.affine_transform(
                image, matrix[:3, :3], offset, coarse, order=1, mode="constant", output=np.float32
            ),
            steps,
        )[inner]
        for image in scene.maps
    )
    window = _window(low, shape)
    part = scene.veins[window] * np.float32(1 / 255)
    amplitude *= 1 - np.float32(0.15) * part
    r2star += part * (np.float32(venous_r2star(scene.protocol.field_strength)) - r2star)
    amplitude *= 1 - scene.voids[window] * np.float32((1 - FLOW_VOID) / 255)
    ppm += scene.local[window]
    return amplitude, r2star, ppm


def _add_sources(
    scene: _Scene, low: tuple[int, int, int], cells: Cells, left_out: int | None
) -> None:
    """Put the sources into cells, in place, all but one, and make their field a frequency (Hz)."""
    amplitude, r2star, frequency = cells
    for index, patch in enumerate(scene.patches):
        if patch is None:
            continue
        if index == left_out:
            _add(frequency, low, -patch.field, patch.origin)
        else:
            _add(r2star, low, patch.r2star, patch.core_origin)
            _add(amplitude, low, patch.amplitude, patch.core_origin, multiply=True)
    frequency *= np.float32(larmor_mhz(scene.protocol.field_strength))


def _add(
    target: Volume,
    low: Sequence[int],
    values: Volume,
    origin: Sequence[int],
    *,
    multiply: bool = False,
) -> None:
    """Add (or multiply) a patch to the part of a region that it covers, in place."""
    start = [max(a, b) for a, b in zip(origin, low, strict=True)]
    stop = [
        min(a + n, b + m)
        for a, n, b, m in zip(origin, values.shape, low, target.shape, strict=True)
    ]
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        return
    shape = np.subtract(stop, start)
    into = _window(np.subtract(start, low), shape)
    part = values[_window(np.subtract(start, origin), shape)]
    if multiply:
        target[into] *= part
    else:
        target[into] += part


def _effect(
    scene: _Scene, source: Source, patch: _Patch | None, index: int, sigma: float
) -> Effect | None:
    """Acquire the surroundings of a source with and without it."""
    if patch is None:
        return None
    geometry = scene.geometry
    matrix = geometry.head_to_voxel
    centre = matrix[:3, :3] @ np.asarray(source.centre) + matrix[:3, 3]
    spacing = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    inner = np.ceil((source.reach + 7.0) / spacing).astype(int)
    edge = np.array([6, 6, 4 if scene.protocol.three_d else 0])
    low = np.maximum(np.round(centre).astype(int) - inner - edge, 0)
    high = np.minimum(np.round(centre).astype(int) + inner + edge + 1, geometry.shape)
    if (
        np.any(high <= low)
        or np.any(centre < -0.5)
        or np.any(centre > np.add(geometry.shape, -0.5))
    ):
        return None
    box = tuple((int(a), int(b)) for a, b in zip(low, high, strict=True))
    last = scene.protocol.echo_times[-1:]
    (present,), (absent,) = (
        [np.abs(image) for image in images]
        for images in _acquire_box(scene, box, last, (None, index))  # type: ignore[arg-type]
    )
    drop = absent - present
    trim_low = np.where(low > 0, edge, 0)
    trim_high = np.where(high < geometry.shape, edge, 0)
    kept = _window(trim_low, high - low - trim_low - trim_high)
    if min(drop[kept].shape) < 1:
        return None
    loss = drop / np.maximum(absent, 3 * sigma)
    return Effect(
        origin=tuple(int(v) for v in low + trim_low),  # type: ignore[arg-type]
        loss=loss[kept].astype(np.float32),
        contrast_to_noise=float(drop[kept].max() / sigma),
        centre_voxel=centre,
    )
