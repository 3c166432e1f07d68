"""Falx and tentorium: thin sheets of dura, which are dark and diamagnetic.

In a gradient-echo crop of the project's real data (0.47 mm in the plane, three echoes) the falx is
one to two voxels thick, loses signal with an R2* of some 50 /s beyond tissue's, and its field is
that of a sheet along the main field with a susceptibility of -0.1 to -0.2 ppm. The outlines are
round figures in MNI152 coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.shared import read_data
from cmbprep.lab.simulate.vessels import splat

#: R2* of dura beyond that of tissue, 1/s for each tesla, and its signal at TE 0 against tissue's.
R2STAR_PER_TESLA, DURA_SIGNAL = 15.0, 0.75
#: Ranges that a person's sheets are drawn from: thickness in mm, susceptibility in ppm.
THICKNESS_MM, CHI_PPM = (0.5, 1.1), (-0.30, -0.12)
#: Distance of the points that stand for a sheet, mm; grids of larger cells get every one.
STEP_MM = 0.45

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sheet:
    """A thin sheet.

    Attributes
    ----------
    points
        Shape (N, 3), head mm.
    volumes
        Shape (N,): mm^3 that each point stands for.
    chi
        Susceptibility against tissue, ppm.
    """

    points: Points
    volumes: NDArray[np.float64]
    chi: float


def draw_dura(from_template: Callable[[Points], Points], rng: np.random.Generator) -> list[Sheet]:
    """Draw a person's falx and both halves of the tentorium.

    Parameters
    ----------
    from_template
        Template mm -> head mm for points (N, 3).
    rng
        Source of randomness.
    """
    chi = float(rng.uniform(*CHI_PPM))
    outlines = read_data("cmbprep.lab.simulate", "anatomy.json")["dura"]
    free, attached = (
        np.asarray(outlines["tentorium"][edge], float) for edge in ("free", "attached")
    )
    edges = [tuple(np.asarray(outlines["falx"][edge], float) for edge in ("free", "attached"))]
    edges += [(free * [side, 1, 1], attached * [side, 1, 1]) for side in (-1, 1)]
    return [_sheet(inner, outer, chi, from_template, rng) for inner, outer in edges]


def _sheet(
    inner: Points,
    outer: Points,
    chi: float,
    from_template: Callable[[Points], Points],
    rng: np.random.Generator,
) -> Sheet:
    """Span a sheet between two edges (N, 3), with waves of about half a millimetre."""
    from scipy import ndimage

    length = max(float(np.linalg.norm(np.diff(e, axis=0), axis=1).sum()) for e in (inner, outer))
    width = float(np.linalg.norm(_curve(inner, 20) - _curve(outer, 20), axis=1).max())
    along, across = int(length / STEP_MM), max(2, int(width / STEP_MM))
    part = ((np.arange(across) + 0.5) / across)[None, :, None]
    surface = _curve(inner, along)[:, None] * (1 - part) + _curve(outer, along)[:, None] * part
    coarse = rng.normal(0, 1, (8, 5, 3))
    waves = ndimage.zoom(coarse, (along / 8, across / 5, 1), order=1)[:along, :across]
    surface = from_template((surface + 0.5 * waves).reshape(-1, 3)).reshape(surface.shape)
    # The area that a point stands for: that of the parallelogram of the steps to its neighbours.
    steps = (np.gradient(surface, axis=axis) for axis in (0, 1))
    area = np.linalg.norm(np.cross(*steps), axis=2)
    thickness = float(rng.uniform(*THICKNESS_MM))
    return Sheet(surface.reshape(-1, 3), (area * thickness).ravel(), chi)


def _curve(nodes: Points, count: int) -> Points:
    """Points along a smooth line through nodes."""
    from scipy import interpolate

    spline, _ = interpolate.splprep(nodes.T, s=0, k=min(3, len(nodes) - 1))
    return np.stack(interpolate.splev(np.linspace(0, 1, count), spline), axis=1)


def dura_share(
    sheets: Sequence[Sheet], to_grid: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Volume fraction of sheets on a grid, 255 for all of a voxel, and their susceptibility.

    Parameters
    ----------
    sheets
        In head mm.
    to_grid
        4x4, head mm -> voxel of the grid.
    shape
        The grid's.

    Returns
    -------
    share, chi
        uint8; float32 in ppm, weighted by the share.
    """
    cell = float(np.abs(np.linalg.det(to_grid[:3, :3])) ** (-1 / 3))
    chi = np.zeros(shape, np.float32)
    total = np.zeros(int(np.prod(shape)), np.float32)
    for sheet in sheets:
        filled = np.zeros(total.shape, np.float32)
        voxels = sheet.points @ to_grid[:3, :3].T + to_grid[:3, 3]
        splat(
            filled,
            voxels.astype(np.float32),
            (sheet.volumes / cell**3).astype(np.float32),
            shape,
        )
        np.clip(filled, 0, 1, out=filled)
        chi += filled.reshape(shape) * np.float32(sheet.chi)
        total += filled
    np.clip(total, 0, 1, out=total)
    return np.round(total * 255).astype(np.uint8).reshape(shape), chi
