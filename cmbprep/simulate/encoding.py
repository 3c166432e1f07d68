"""What a scanner makes of a scene: fine cells become noise-free voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from . import signal as mr
from .scene import Scene, add_sources, bare_cells

__all__ = ["Box", "acquire_box"]

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
