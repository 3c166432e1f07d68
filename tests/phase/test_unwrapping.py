"""Unwrapping over runs of voxels against a tree that is grown voxel by voxel."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.phase import unwrapping as phase_unwrapping
from cmbprep.phase.unwrapping import unwrap, wrapped

Image = NDArray[np.float32]


def _grown(phases: list[Image], magnitudes: list[Image], mask: NDArray[np.bool_]) -> list[Image]:
    """Unwrap along the cheapest edges, from the first voxel outwards (Prim's algorithm)."""
    edges: dict[int, list[tuple[float, int]]] = {}
    for first, second, cost in phase_unwrapping._pairs(phases, magnitudes, mask):
        for a, b, c in zip(first.tolist(), second.tolist(), cost.tolist(), strict=True):
            edges.setdefault(a, []).append((c, b))
            edges.setdefault(b, []).append((c, a))
    values = [phase[mask].astype(float) for phase in phases]
    queue, done = [(0.0, 0, 0)], set()
    while queue:
        _, here, there = heapq.heappop(queue)
        if here in done:
            continue
        done.add(here)
        for value in values:
            value[here] += 2 * np.pi * np.rint((value[there] - value[here]) / (2 * np.pi))
        for cost, other in edges.get(here, []):
            if other not in done:
                heapq.heappush(queue, (cost, other, here))
    assert len(done) == len(values[0])
    results = []
    for value in values:
        image = np.zeros(mask.shape, np.float32)
        image[mask] = value
        results.append(image)
    return results


def _scan(seed: int, noise: float, turns: float) -> tuple[list[Image], list[Image], NDArray]:
    """Two echoes of a bent field with voids and noise, in a ball with a hole."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (20, 17, 15)], indexing="ij")
    mask = (x**2 + y**2 + z**2 < 1) & ((x - 0.2) ** 2 + y**2 + z**2 > 0.03)
    lumps = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 1.2)
    field = turns * (x + y * z + 0.4 * lumps / lumps.std())
    phases, magnitudes = [], []
    for time in (0.7, 1.0):
        signal = (0.05 + (lumps < lumps.std())) * np.exp(2j * np.pi * time * field)
        signal += noise * (rng.standard_normal(mask.shape) + 1j * rng.standard_normal(mask.shape))
        phases.append(np.angle(signal).astype(np.float32))
        magnitudes.append(np.abs(signal).astype(np.float32))
    return phases, magnitudes, mask


@pytest.mark.parametrize("turns", [0.5, 1.5])
@pytest.mark.parametrize("noise", [0.02, 0.15, 0.6])
@pytest.mark.parametrize("seed", [0, 1])
def test_runs_change_nothing(seed: int, noise: float, turns: float) -> None:
    phases, magnitudes, mask = _scan(seed, noise, turns)
    found = unwrap(phases, magnitudes, mask)
    for one, other in zip(found, _grown(phases, magnitudes, mask), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_vortex_is_cut_where_the_signal_is_weakest(axes: tuple[int, int, int]) -> None:
    # Once round the axis, the phase has grown by a full turn: no way along cheap edges holds.
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 24, 6)], indexing="ij")
    phase = np.arctan2(y, x).astype(np.float32)
    weak = (np.abs(x) < 0.06) & (y > 0)
    magnitude = np.where(weak, 0.8, 1.0).astype(np.float32)
    mask = x**2 + y**2 > 0.2
    given = [np.ascontiguousarray(np.transpose(a, axes)) for a in (phase, magnitude, mask)]
    pairs = phase_unwrapping._pairs([given[0]], [given[1]], given[2])
    values = [given[0][given[2]].astype(float)]
    assert phase_unwrapping._turns(values, pairs, 0.4) is None
    (found,) = unwrap([given[0]], [given[1]], given[2])
    (expected,) = _grown([given[0]], [given[1]], given[2])
    assert np.array_equal(found, expected)
    back = np.transpose(found, np.argsort(axes))
    jumps = [np.abs(np.diff(back, axis=axis)) > np.pi for axis in (0, 1)]
    inside = [mask[1:] & mask[:-1], mask[:, 1:] & mask[:, :-1]]
    torn = [np.argwhere(jump & both) for jump, both in zip(jumps, inside, strict=True)]
    assert len(torn[0]) and not len(torn[1])
    assert np.all(np.abs(x[1:][jumps[0] & inside[0]]) < 0.2)


def test_runs_are_joined_in_a_calm_scan() -> None:
    phases, magnitudes, mask = _scan(0, 0.02, 0.5)
    pairs = phase_unwrapping._pairs(phases, magnitudes, mask)
    values = [phase[mask].astype(float) for phase in phases]
    assert phase_unwrapping._turns(values, pairs, phase_unwrapping._CALM[0]) is not None


def test_parts_that_do_not_touch_start_from_the_first() -> None:
    phases, magnitudes, mask = _scan(1, 0.02, 1.5)
    mask = mask.copy()
    mask[9:11] = False
    whole = unwrap(phases, magnitudes, mask)
    for low, high in ((0, 9), (11, 20)):
        alone = unwrap(
            [p[low:high] for p in phases], [m[low:high] for m in magnitudes], mask[low:high]
        )
        for one, other in zip(whole, alone, strict=True):
            difference = (one[low:high] - other)[mask[low:high]]
            assert np.ptp(difference) < 1e-4
            assert np.abs(wrapped(difference)).max() < 1e-4
