"""Sizes of the voids that the simulator's microbleeds leave, and how they bloom.

``python benchmarks/simulator_voids.py`` draws 80 deposits as the simulator does, scans each in
uniform white matter at 3 T, and prints the diameters of the visible voids at TE 20 ms and the
factors by which their volumes grow from TE 20 to 40 ms, for the program's own outline and for
outlines at fixed losses. The docs' page on the simulator has its figures.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.deformation import Deformation
from cmbprep.lab.simulate.field import Geometry
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.protocols import Protocol
from cmbprep.lab.simulate.scanner import Effect, acquire
from cmbprep.lab.simulate.sources import Source, draw_microbleed
from cmbprep.lab.simulate.tissue import TISSUES
from cmbprep.lab.simulate.voids import is_visible, outline_void

NUMBER = 80
LOSSES = (0.2, 0.3, 0.4, 0.5, 0.6)
VOXELS = ((0.5, 0.5, 2.0), (0.9, 0.9, 3.0))
SIDE_MM = 32


def main() -> int:
    """Print the figures."""
    for voxel in VOXELS:
        print(f"voxels of {voxel[0]:g} x {voxel[1]:g} x {voxel[2]:g} mm")
        _print_voxel(voxel)
    return 0


def _print_voxel(voxel: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(20)
    spacing = np.array(voxel)
    diameters, grown, sums = [], [], np.zeros(2)
    by_loss: dict[float, list[float]] = {loss: [] for loss in LOSSES}
    for _ in range(NUMBER):
        x, y, z = rng.uniform(-0.5, 0.5, 3)
        bleed = draw_microbleed("cortex", (x, y, z), rng)
        effects = [_effect(bleed, voxel, echo_time) for echo_time in (0.020, 0.040)]
        for loss, factors in by_loss.items():
            short, long = ((effect.loss >= loss).sum() for effect in effects)
            if short:
                factors.append(long / short)
        voids = [
            outline_void(effect.loss, effect.centre_voxel - effect.origin, bleed.reach, spacing)
            for effect in effects
        ]
        if voids[0] is None or not is_visible(voids[0].depth, effects[0].contrast_to_noise):
            continue
        volumes = np.array([void.volume_mm3 for void in voids if void is not None])
        diameters.append(voids[0].diameter_mm)
        grown.append(volumes[1] / volumes[0])
        sums += volumes
    low, middle, high = np.percentile(diameters, (5, 50, 95))
    print(f"  visible: {len(diameters)} of {NUMBER}")
    print(f"  diameter, mm: median {middle:.1f}, 5 to 95 % {low:.1f} to {high:.1f}")
    print(f"  growth of the half-depth volume: mean {np.mean(grown):.2f}, SD {np.std(grown):.2f}")
    print(f"  growth of the summed volumes: {sums[1] / sums[0]:.2f}")
    for loss, factors in by_loss.items():
        print(f"  growth outlined at a loss of {loss:.0%}: mean {np.mean(factors):.2f}")


def _effect(bleed: Source, voxel: tuple[float, float, float], echo_time: float) -> Effect:
    """What a bleed does in uniform white matter without a field of its own."""
    size = np.array(voxel)
    shape = tuple(int(np.ceil(SIDE_MM / s)) for s in voxel)
    protocol = Protocol(
        name="voids",
        source="made for this benchmark",
        three_d=True,
        field_strength=3.0,
        echo_times=(echo_time,),
        repetition_time=40.0,
        flip_angle=15.0,
        voxel=voxel,
        matrix=(shape[0], shape[1]),
        slices=shape[2],
        filtered=False,
    )
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * size
    head = _white_matter()
    scan = acquire(
        head,
        [],
        [bleed],
        protocol,
        Geometry(affine=affine, shape=(shape[0], shape[1], shape[2]), pose=np.eye(4)),
        np.random.default_rng(0),
        background=np.zeros(head.shape, np.float32),
    )
    effect = scan.effects[0]
    assert effect is not None
    return effect


def _white_matter(size: int = 64) -> Head:
    fractions: NDArray[np.uint8] = np.zeros((len(TISSUES), size, size, size), np.uint8)
    fractions[list(TISSUES).index("wm")] = 255
    affine = np.eye(4)
    affine[:3, 3] = -(size - 1) / 2
    grid = np.diag([100.0, 100.0, 100.0, 1.0])
    grid[:3, 3] = -150
    same = Deformation(np.eye(4), np.zeros((3, 4, 4, 4), np.float32), grid)
    iron = np.zeros((size,) * 3, np.float32)
    return Head(affine, fractions, iron, same, np.zeros((3, *iron.shape), np.float32))


if __name__ == "__main__":
    sys.exit(main())
