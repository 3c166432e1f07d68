"""Uniform tissue to put sources in, for the tests of the simulator."""

from __future__ import annotations

import numpy as np

from cmbprep.lab.simulate.deformation import Deformation
from cmbprep.lab.simulate.field import Geometry
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.protocols import Protocol
from cmbprep.lab.simulate.scanner import Acquisition, acquire
from cmbprep.lab.simulate.sources import Blob, Source
from cmbprep.lab.simulate.tissue import TISSUES
from cmbprep.lab.simulate.vessels import Tube


def identity_map() -> Deformation:
    """Head coordinates that are the template's."""
    grid = np.diag([100.0, 100.0, 100.0, 1.0])
    grid[:3, 3] = -150
    return Deformation(np.eye(4), np.zeros((3, 4, 4, 4), np.float32), grid)


def uniform_head(size: int = 64) -> Head:
    """White matter all over, centred on the origin."""
    fractions = np.zeros((len(TISSUES), size, size, size), np.uint8)
    fractions[list(TISSUES).index("wm")] = 255
    affine = np.eye(4)
    affine[:3, 3] = -(size - 1) / 2
    iron = np.zeros((size,) * 3, np.float32)
    return Head(affine, fractions, iron, identity_map(), np.zeros((3, *iron.shape), np.float32))


def sphere(diameter: float, chi: float, centre: tuple[float, float, float] = (0, 0, 0)) -> Source:
    """A round deposit."""
    blob = Blob(centre=centre, axes=(diameter / 2,) * 3, chi=chi, signal=0.6)
    return Source(kind="microbleed", place="cortex", blobs=(blob,))


def protocol(**changes: object) -> Protocol:
    """A small 3D protocol at 3 T."""
    values: dict[str, object] = {
        "name": "test",
        "source": "made for tests",
        "three_d": True,
        "field_strength": 3.0,
        "echo_times": (0.020,),
        "repetition_time": 40.0,
        "flip_angle": 15.0,
        "voxel": (0.9, 0.9, 2.0),
        "matrix": (32, 32),
        "slices": 16,
        "filtered": False,
    }
    return Protocol(**{**values, **changes})  # type: ignore[arg-type]


def centred(preset: Protocol, directions: np.ndarray | None = None) -> Geometry:
    """A scan with its middle at the origin and no movement of the head."""
    shape = (*preset.matrix, preset.slices)
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if directions is None else directions) * preset.spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(affine=affine, shape=shape, pose=np.eye(4))


def scan(
    sources: list[Source],
    preset: Protocol,
    tubes: list[Tube] | None = None,
    geometry: Geometry | None = None,
) -> Acquisition:
    """Scan sources in uniform tissue that has no field of its own."""
    head = uniform_head()
    return acquire(
        head,
        tubes or [],
        sources,
        preset,
        geometry or centred(preset),
        np.random.default_rng(0),
        background=np.zeros(head.shape, np.float32),
    )
