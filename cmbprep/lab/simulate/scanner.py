"""The scanner: a head with its sources, and a protocol, give images and the truth.

What lies in the fine cells of a scan is laid out by :mod:`.scene`, and how a scanner samples them
is below; coils, motion and noise are added here. The ground truth is computed by acquiring the
same region with and without a source, free of noise: the difference is what the source did to the
image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate import signal as mr
from cmbprep.lab.simulate.deformation import Volume, along
from cmbprep.lab.simulate.dura import Sheet
from cmbprep.lab.simulate.field import Geometry, unfolded
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.protocols import Protocol
from cmbprep.lab.simulate.scene import (
    Patch,
    Scene,
    add_sources,
    bare_cells,
    head_field,
    head_maps,
    lay_scene,
    window,
)
from cmbprep.lab.simulate.sources import Source
from cmbprep.lab.simulate.structures import Structure, find_structures
from cmbprep.lab.simulate.tissue import TISSUES
from cmbprep.lab.simulate.vessels import Tube

# --- What a scanner makes of a scene: fine cells become noise-free voxels ------------------------


#: First voxel and the one after the last, along each axis.
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def acquire_box(
    scene: Scene,
    box: Box,
    echo_times: Sequence[float],
    without: Sequence[int | None] = (None,),
) -> list[list[NDArray[np.complex64]]]:
    """Noise-free images of a box of voxels: for each source left out, one for each echo.

    Boxes smaller than the field of view have wrong edges, as k-space is theirs alone. What does
    not depend on the source that is left out is computed once.
    """
    (x0, x1), (y0, y1), (z0, z1) = box
    three_d = scene.protocol.three_d
    planes = (z1 - z0) * (scene.factors[2] if three_d else 1)
    found = [
        [np.empty((x1 - x0, y1 - y0, planes), np.complex64) for _ in echo_times] for _ in without
    ]
    for fine, part, weights in _groups(scene, box):
        for version, images in zip(
            found, _encode(scene, box, fine, echo_times, without, weights), strict=True
        ):
            for whole, image in zip(version, images, strict=True):
                whole[:, :, part] = image
    if not three_d:
        return found
    filtered = scene.protocol.filtered
    return [
        [mr.crop_k_space(stack, 2, z1 - z0, apodise=filtered) for stack in version]
        for version in found
    ]


def _groups(
    scene: Scene, box: Box
) -> Iterator[tuple[tuple[int, int], slice, NDArray[np.float32] | None]]:
    """Share a box out to groups of planes that are encoded at a time.

    Yields
    ------
    fine, part, weights
        First fine plane and the one after the last; planes (3D) or slices (2D) of the box; and
        for slices the weights of the fine planes, shape (planes, slices).
    """
    (x0, x1), (y0, y1), (z0, z1) = box
    protocol, (fx, fy, fz) = scene.protocol, scene.factors
    cells = (x1 - x0) * (y1 - y0) * fx * fy
    if protocol.three_d:
        planes, step = (z1 - z0) * fz, max(1, 8_000_000 // cells)
        for start in range(0, planes, step):
            stop = min(start + step, planes)
            yield (z0 * fz + start, z0 * fz + stop), slice(start, stop), None
        return
    profile = mr.slice_profile(fz + 2 * scene.margin, protocol.spacing[2] / fz, protocol.voxel[2])
    step = max(1, 4_000_000 // (cells * fz))
    for start in range(z0, z1, step):
        stop = min(start + step, z1)
        fine = (start * fz, stop * fz + 2 * scene.margin)
        weights = np.zeros((fine[1] - fine[0], stop - start), np.float32)
        for k in range(stop - start):
            weights[k * fz : k * fz + len(profile), k] = profile
        yield fine, slice(start - z0, stop - z0), weights


def _encode(
    scene: Scene,
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
    bare = bare_cells(scene, low, high)
    for number, left_out in enumerate(without, start=1):
        # Sources are added in place: all but the last get a copy.
        amplitude, r2star, frequency = (
            bare if number == len(without) else (part.copy() for part in bare)
        )
        add_sources(scene, low, (amplitude, r2star, frequency), left_out)
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
    sheets: Sequence[Sheet] = (),
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
        computed by :func:`.scene.head_field`.
    with_structures
        Whether to tell the voxels of vessels, dropout and iron as well. It changes nothing else.
    sheets
        Falx and tentorium (:func:`.dura.draw_dura`); without them there are none.

    Returns
    -------
    Acquisition
    """
    if background is None:
        background = head_field(head, geometry.pose)
    maps = (*head_maps(head, protocol), background)
    # A stream each, so that a vessel more does not change the noise.
    fill, receive = rng.spawn(2)
    whole = unfolded(geometry, protocol.fold)
    scene = lay_scene(head, maps, tubes, sources, protocol, whole, fill, sheets)
    x, y, z = whole.shape
    (clean,) = acquire_box(scene, ((0, x), (0, y), (0, z)), protocol.echo_times)
    sigma = _noise_level(protocol)
    effects = tuple(
        _folded(_effect(scene, source, patch, index, sigma), geometry, protocol.fold)
        for index, (source, patch) in enumerate(zip(sources, scene.patches, strict=True))
    )
    coil = coil_sensitivity(whole, protocol.field_strength, receive, protocol.shading)
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
    geometry: Geometry, field_strength: float, rng: np.random.Generator, shading: float = 1.0
) -> NDArray[np.complex64]:
    """Smooth complex receive profile: brighter near the coil, with a slow phase.

    A head coil sees the surface better than the middle, the more so at high field; the
    transmit field does the opposite at 7 T. A random quadratic around the isocentre.
    """
    strength = 0.25 * shading * np.sqrt(field_strength / 3.0) * np.exp(rng.normal(0, 0.4))
    scaled = (geometry.affine / 100.0).astype(np.float32)
    lines = [np.arange(n, dtype=np.float32).reshape(along(k)) for k, n in enumerate(geometry.shape)]
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


def _effect(
    scene: Scene, source: Source, patch: Patch | None, index: int, sigma: float
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
        for images in acquire_box(scene, box, last, (None, index))  # type: ignore[arg-type]
    )
    drop = absent - present
    trim_low = np.where(low > 0, edge, 0)
    trim_high = np.where(high < geometry.shape, edge, 0)
    kept = window(trim_low, high - low - trim_low - trim_high)
    if min(drop[kept].shape) < 1:
        return None
    loss = drop / np.maximum(absent, 3 * sigma)
    return Effect(
        origin=tuple(int(v) for v in low + trim_low),  # type: ignore[arg-type]
        loss=loss[kept].astype(np.float32),
        contrast_to_noise=float(drop[kept].max() / sigma),
        centre_voxel=centre,
    )
