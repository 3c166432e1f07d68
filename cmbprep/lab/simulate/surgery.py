"""What an operation leaves: a cavity full of fluid, old blood on its wall, a way out.

The cavity lies in or under the cortex. A tract leads from it through the skull, in which
either a burr hole or a bone flap's defect is filled with scar. The blood is a shell of flat
blobs, with gaps, on the wall of the cavity and of the tract: a mimic that is not round but
that looks so where a slice cuts its edge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmbprep.lab.simulate.deformation import along
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.sources import Blob, Source
from cmbprep.lab.simulate.tissue import TISSUES

#: Part of people who have had surgery.
CHANCE = 0.025


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """Where somebody was operated.

    Attributes
    ----------
    centre
        Of the cavity, head mm.
    axes
        Semi-axes of the cavity, mm, the last along `outward`.
    outward
        Unit vector from the cavity to the skull.
    tract_radius
        Of the way from the cavity to the skull, mm.
    defect_radius
        Of the hole in the skull, mm: small for a burr hole, large for a flap.
    """

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    outward: tuple[float, float, float]
    tract_radius: float
    defect_radius: float

    def __post_init__(self) -> None:
        if min(*self.axes, self.tract_radius, self.defect_radius) <= 0:
            raise ValueError("the sizes of a cavity, its tract and its defect must be positive")
        if abs(float(np.linalg.norm(self.outward)) - 1) > 1e-6:
            raise ValueError("the direction of a tract must have a length of 1")

    @property
    def frame(self) -> NDArray[np.float64]:
        """Rotation, 3x3, whose columns are the cavity's axes."""
        return _frame(np.asarray(self.outward))


def _frame(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation whose last column is a unit vector."""
    helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
    first = np.cross(helper, normal)
    first /= np.linalg.norm(first)
    return np.column_stack([first, np.cross(normal, first), normal])


def draw_surgery(
    head: Head, places: dict[str, NDArray[np.intp]], rng: np.random.Generator
) -> Surgery | None:
    """Draw whether somebody was operated, and where; nearly always None.

    Parameters
    ----------
    head, places
        The head, and where in it things lie (:func:`cmbprep.lab.simulate.sources.place_masks`).
    rng
        Source of randomness.
    """
    if rng.random() >= CHANCE:
        return None
    voxels = places["subcortical_white_matter"]
    index = np.unravel_index(voxels[int(rng.integers(len(voxels)))], head.shape)
    point = head.affine[:3, :3] @ np.asarray(index) + head.affine[:3, 3]
    middle = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    outward = point - middle
    outward /= np.linalg.norm(outward)
    width = rng.uniform(4.0, 11.0)
    axes = width * np.exp(rng.normal(0, 0.15, 3))
    flap = rng.random() < 0.5
    return Surgery(
        centre=(float(point[0]), float(point[1]), float(point[2])),
        axes=(float(axes[0]), float(axes[1]), float(axes[2])),
        outward=(float(outward[0]), float(outward[1]), float(outward[2])),
        tract_radius=float(rng.uniform(1.0, 2.5) if not flap else rng.uniform(2.5, 0.6 * width)),
        defect_radius=float(rng.uniform(14.0, 25.0) if flap else rng.uniform(4.0, 7.0)),
    )


def operate(head: Head, surgery: Surgery) -> Head:
    """Return the head after the operation: fluid in cavity and tract, scar in the skull's hole."""
    x, y, z = (
        head.affine[axis, 3] + head.affine[axis, axis] * np.arange(n).reshape(along(axis))
        for axis, n in enumerate(head.shape)
    )
    offset = [
        line - np.float32(value) for line, value in zip((x, y, z), surgery.centre, strict=True)
    ]
    local = [
        sum(np.float32(surgery.frame[k, axis]) * offset[k] for k in range(3)) for axis in range(3)
    ]
    square = sum((part / axis) ** 2 for part, axis in zip(local, surgery.axes, strict=True))
    cavity = np.clip(0.5 - (np.sqrt(square) - 1) * min(surgery.axes), 0, 1)
    away = np.hypot(local[0], local[1])
    ahead = local[2] > 0
    tract = np.clip(0.5 - (away - surgery.tract_radius), 0, 1) * ahead
    hole = np.clip(0.5 - (away - surgery.defect_radius), 0, 1) * ahead
    fractions = head.fractions.copy()
    names = list(TISSUES)
    brain = [names.index(name) for name in ("gm", "wm", "wmh")]
    _turn_into(fractions, brain, names.index("csf"), np.maximum(cavity, tract))
    _turn_into(fractions, [names.index("bone")], names.index("muscle"), hole)
    iron = head.iron * (1 - cavity)
    return replace(head, fractions=fractions, iron=iron.astype(np.float32))


def _turn_into(
    fractions: NDArray[np.uint8], sources: list[int], target: int, part: NDArray[np.floating]
) -> None:
    """Turn a part of some tissues into another one, in place."""
    where = part > 0
    share = part[where]
    for source in sources:
        moved = np.round(fractions[source][where] * share).astype(np.uint8)
        fractions[source][where] -= moved
        fractions[target][where] += moved


def rim(surgery: Surgery, rng: np.random.Generator) -> Source:
    """Draw the old blood on the wall of a cavity and of the inner end of its tract."""
    blobs = []
    frame, axes = surgery.frame, np.asarray(surgery.axes)
    # Patches of about 12 mm^2; a third of the wall is bare.
    area = 4 * np.pi * float(np.mean(axes)) ** 2
    for _ in range(int(np.clip(area * 0.7 / 12.0, 10, 60))):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        normal = direction / axes
        normal /= np.linalg.norm(normal)
        blobs.append(_patch(surgery, frame @ (direction * axes), frame @ normal, rng))
    for _ in range(int(rng.integers(3, 8))):
        angle = rng.uniform(0, 2 * np.pi)
        normal = np.array([np.cos(angle), np.sin(angle), 0.0])
        along = [0.0, 0.0, axes[2] + rng.uniform(0.0, 8.0)]
        wall = frame @ (normal * surgery.tract_radius + along)
        blobs.append(_patch(surgery, wall, frame @ normal, rng))
    return Source(kind="postoperative_rim", place="cavity", blobs=tuple(blobs))


def _patch(
    surgery: Surgery,
    offset: NDArray[np.float64],
    normal: NDArray[np.float64],
    rng: np.random.Generator,
) -> Blob:
    """A flat piece of scar on a wall."""
    point = np.asarray(surgery.centre) + offset
    width = rng.uniform(1.5, 3.0, 2)
    return Blob(
        centre=(float(point[0]), float(point[1]), float(point[2])),
        axes=(float(width[0]), float(width[1]), float(rng.uniform(0.3, 0.8))),
        rotation=_frame(normal),
        chi=float(np.clip(np.exp(rng.normal(np.log(0.6), 0.5)), 0.15, 2.0)),
        signal=float(rng.uniform(0.6, 0.9)),
    )
