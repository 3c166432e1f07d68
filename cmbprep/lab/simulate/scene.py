"""The fine grid of a scan: what lies in each of its cells.

The grid has the scan's axes and cells finer than its voxels. The fields of large structures
(air, bone, tissue) are computed on the head's own grid and interpolated; those of veins are
computed on the fine grid; those of compact sources are computed each in its own box and added,
which is exact because fields add. That a source's field is separate is also how it can be taken
out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.lab.simulate import signal as mr
from cmbprep.lab.simulate.anatomy import upsample
from cmbprep.lab.simulate.deformation import Volume
from cmbprep.lab.simulate.dura import DURA_SIGNAL, R2STAR_PER_TESLA, Sheet, dura_share
from cmbprep.lab.simulate.field import Geometry, dipole_field, larmor_mhz, shim
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.protocols import Protocol
from cmbprep.lab.simulate.sources import Source
from cmbprep.lab.simulate.tissue import (
    AIR_SUSCEPTIBILITY,
    BLOOD_SUSCEPTIBILITY,
    TISSUES,
    static_dephasing_rate,
    venous_r2star,
)
from cmbprep.lab.simulate.vessels import Tube, occupancy

#: Cells of the fine grid are at most this large, in the plane and through it, mm.
FINE_IN_PLANE = 0.6
FINE_THROUGH = 1.1

#: Proton density of flowing arterial blood: nearly void.
FLOW_VOID = 0.25

#: A source's own field is computed out to where it falls below this, ppm.
FIELD_FLOOR = 0.002

#: Amplitude, R2* (1/s), and field (ppm) or frequency (Hz), of some fine cells.
Cells = tuple[Volume, Volume, Volume]


@dataclass(frozen=True)
class Patch:
    """One compact source on the fine grid.

    Attributes
    ----------
    origin, field
        Cell at which its field begins, and the field, ppm.
    core_origin, amplitude, r2star
        Cell at which the source itself begins, its factor on the amplitude, and the R2* that it
        adds, 1/s.
    """

    origin: tuple[int, int, int]
    field: Volume
    core_origin: tuple[int, int, int]
    amplitude: Volume
    r2star: Volume


@dataclass
class Scene:
    """All that is needed to acquire any box of voxels of a scan.

    Attributes
    ----------
    protocol, geometry
        Of the scan.
    factors, margin
        Cells in a voxel along each axis, and planes beyond each end for the slice's edges.
    steps
        Cells in the plane between samples of the head's maps.
    to_head_grid
        4x4, fine cell -> voxel of the head's grid.
    maps
        Amplitude, R2* (1/s) and field (ppm) on the head's grid.
    veins, voids
        Volume fraction of veins and of flow voids in each cell, 255 for all of it.
    local
        Field of veins, dura and sources, ppm, on the fine grid.
    dura
        Volume fraction of the sheets of dura in each cell, 255 for all of it; None without.
    patches
        One for each source; None for those outside.
    """

    protocol: Protocol
    geometry: Geometry
    factors: tuple[int, int, int]
    margin: int
    steps: tuple[int, int]
    to_head_grid: NDArray[np.float64]
    maps: tuple[Volume, Volume, Volume]
    veins: NDArray[np.uint8]
    voids: NDArray[np.uint8]
    local: Volume
    dura: NDArray[np.uint8] | None = None
    patches: list[Patch | None] = field(default_factory=list)


def lay_scene(
    head: Head,
    maps: tuple[Volume, Volume, Volume],
    tubes: Sequence[Tube],
    sources: Sequence[Source],
    protocol: Protocol,
    geometry: Geometry,
    rng: np.random.Generator,
    sheets: Sequence[Sheet] = (),
) -> Scene:
    """Lay out what a scan of a head sees.

    Parameters
    ----------
    head, tubes, sources
        What is scanned, in head coordinates.
    maps
        Amplitude, R2* (1/s) and field (ppm) on the head's grid: :func:`head_maps` and
        :func:`head_field`.
    protocol, geometry
        How it is scanned and where it lies.
    rng
        Fills vessels.
    sheets
        Falx and tentorium, in head coordinates.
    """
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
    dura = None
    if sheets:
        dura, of_dura = dura_share(sheets, head_to_fine, fine_shape)
        chi += of_dura
        del of_dura
    fine_field = dipole_field(chi, spacing, b0, padding=1.05)
    del chi
    scene = Scene(
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
        dura=dura,
    )
    for source in sources:
        patch = _patch(source, head_to_fine, fine_shape, spacing, b0, protocol.field_strength)
        scene.patches.append(patch)
        if patch is not None:
            scene.local[window(patch.origin, patch.field.shape)] += patch.field
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


def head_maps(head: Head, protocol: Protocol) -> tuple[Volume, Volume]:
    """Signal at TE = 0 and R2* (1/s) on the head's grid."""
    strength = protocol.field_strength
    amplitudes = {
        name: mr.ernst_amplitude(
            t.proton_density, t.t1_at(strength), protocol.repetition_time, protocol.flip_angle
        )
        for name, t in TISSUES.items()
    }
    for name, relative in protocol.tissue_signal:
        # What the tissue loses up to the last echo more than white matter does.
        rate = TISSUES[name].r2star_at(strength) - TISSUES["wm"].r2star_at(strength)
        growth = float(np.exp(protocol.echo_times[-1] * rate))
        amplitudes[name] = amplitudes["wm"] * relative * growth
    return head.mix(amplitudes), head.r2star(strength)


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


def window(origin: ArrayLike, shape: ArrayLike) -> tuple[slice, slice, slice]:
    """Return the part of a grid that begins at a cell and has a shape."""
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
) -> Patch | None:
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
    full[window(origin - low, core_shape)] = chi
    field_ppm = dipole_field(full, spacing, b0, padding=1.5)
    inner = window(clipped_low - low, clipped_high - clipped_low)
    core_low, core_high = np.maximum(origin, 0), np.minimum(origin + core_shape, shape)
    if np.any(core_high - core_low < 1):
        core_low, core_high = clipped_low, clipped_low
    core = window(core_low - origin, np.maximum(core_high - core_low, 0))
    rate = np.abs(chi[core]) * np.float32(static_dephasing_rate(1.0, field_strength))
    return Patch(
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
) -> tuple[Volume, Volume, NDArray[np.int_]]:
    """Susceptibility and signal factor of a source in the cells around it."""
    sub = 3  # samples of a cell along each axis
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


def bare_cells(scene: Scene, low: tuple[int, int, int], high: tuple[int, int, int]) -> Cells:
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
    here = window(low, shape)
    part = scene.veins[here] * np.float32(1 / 255)
    amplitude *= 1 - np.float32(0.15) * part
    r2star += part * (np.float32(venous_r2star(scene.protocol.field_strength)) - r2star)
    amplitude *= 1 - scene.voids[here] * np.float32((1 - FLOW_VOID) / 255)
    if scene.dura is not None:
        dura = scene.dura[here] * np.float32(1 / 255)
        amplitude *= 1 - np.float32(1 - DURA_SIGNAL) * dura
        r2star += dura * np.float32(R2STAR_PER_TESLA * scene.protocol.field_strength)
    ppm += scene.local[here]
    return amplitude, r2star, ppm


def add_sources(
    scene: Scene, low: tuple[int, int, int], cells: Cells, left_out: int | None
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
    into = window(np.subtract(start, low), shape)
    part = values[window(np.subtract(start, origin), shape)]
    if multiply:
        target[into] *= part
    else:
        target[into] += part
