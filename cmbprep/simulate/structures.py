"""Dark structures of a scan that reach through the brain: veins, flow voids, dropout, iron.

They are no compact sources: a vein tree has no centre and no size that a rater would
measure. Their voxels are told so that it can be said what a detector's mistakes lie on. They
are estimates, made without acquiring the scan again:

- veins and flow voids are the voxels of which they fill at least :data:`VEIN_SHARE` and
  :data:`ARTERY_SHARE`, a vessel being spread over the voxels on both sides of it as by a
  linear interpolation; at 3 T and an echo time of 20 ms these are, within one voxel, those
  that lose a fifth of the signal;
- dropout is where the gradient of the head's own shimmed field across the voxel, taken for
  linear, leaves at most :data:`DROPOUT_SIGNAL` of the signal at the last echo: the product of
  ``sinc(gradient x size x gamma x TE)`` over the three axes;
- iron-rich nuclei are the voxels with at least :data:`IRON_RICH` of iron beyond cortex's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .field import larmor_mhz
from .head import Head, Volume
from .tissue import BLOOD_SUSCEPTIBILITY
from .vessels import Tube, occupancy

if TYPE_CHECKING:
    from .protocols import Protocol
    from .scanner import Geometry

__all__ = [
    "ARTERY_SHARE",
    "DROPOUT_SIGNAL",
    "IRON_RICH",
    "VEIN_SHARE",
    "Structure",
    "dropout",
    "find_structures",
]

#: Part of a voxel that veins fill, from which the voxel counts as theirs.
VEIN_SHARE = 0.15
#: The same of arteries, which lose less signal where they are: no field around them.
ARTERY_SHARE = 0.25
#: Part of the signal that dephasing by the head's own field leaves, up to which it is dropout.
DROPOUT_SIGNAL = 0.5
#: Iron beyond that of cortex, mg per 100 g: about half of the putamen's at 60 years.
IRON_RICH = 5.0

# Kind of vessel -> kind of structure and place, in the order in which they keep voxels.
_VESSELS = {
    "artery": ("flow_void", "base"),
    "sinus": ("vein", "sinus"),
    "deep": ("vein", "deep"),
    "cortical": ("vein", "cortical"),
    "medullary": ("vein", "medullary"),
}


@dataclass(frozen=True)
class Structure:
    """One kind of structure in one scan.

    Attributes
    ----------
    kind, place
        ``vein`` (``sinus``, ``deep``, ``cortical``, ``medullary``), ``flow_void``
        (``base``), ``dropout`` (``brain``), ``iron_rich_nucleus`` (``nuclei``).
    voxels
        Shape (N, 3); of two structures at a voxel the one listed first has it.
    chi
        Susceptibility against tissue, ppm; None where it is none of the structure's own.
    """

    kind: str
    place: str
    voxels: NDArray[np.intp]
    chi: float | None = None


def find_structures(
    head: Head,
    tubes: Sequence[Tube],
    background: Volume,
    protocol: Protocol,
    geometry: Geometry,
) -> tuple[Structure, ...]:
    """Find the voxels of each kind of structure.

    Parameters
    ----------
    head, tubes
        What was scanned.
    background
        The head's own shimmed field on its grid, ppm.
    protocol, geometry
        How and where.

    Returns
    -------
    tuple of Structure
        Those that have voxels in the scan.
    """
    masks = [
        (*_VESSELS[name], mask, None if name == "artery" else BLOOD_SUSCEPTIBILITY)
        for name, mask in _vessel_masks(tubes, geometry).items()
    ]
    masks.append(("dropout", "brain", dropout(head, background, protocol, geometry), None))
    iron = _on_scan(head, head.iron, geometry) >= IRON_RICH
    masks.append(("iron_rich_nucleus", "nuclei", iron, None))
    taken = np.zeros(geometry.shape, bool)
    found = []
    for kind, place, mask, chi in masks:
        own = mask & ~taken
        taken |= mask
        if own.any():
            found.append(Structure(kind, place, np.argwhere(own), chi))
    return tuple(found)


def _vessel_masks(tubes: Sequence[Tube], geometry: Geometry) -> dict[str, NDArray[np.bool_]]:
    """Voxels of each kind of vessel; those of veins go to the kind that fills most of them."""
    shares = {
        name: occupancy(
            [tube for tube in tubes if tube.kind == name],
            geometry.head_to_voxel,
            geometry.shape,
            np.random.default_rng(0),
        )
        for name in _VESSELS
    }
    masks = {"artery": shares.pop("artery") >= 255 * ARTERY_SHARE}
    total = np.zeros(geometry.shape, np.uint16)
    largest = np.zeros(geometry.shape, np.uint8)
    for share in shares.values():
        total += share
        np.maximum(largest, share, out=largest)
    filled = total >= 255 * VEIN_SHARE
    for name, share in shares.items():
        masks[name] = filled & (share == largest)
    return masks


def dropout(
    head: Head, background: Volume, protocol: Protocol, geometry: Geometry
) -> NDArray[np.bool_]:
    """Voxels of the brain in which the head's own field dephases most of the signal.

    Parameters
    ----------
    head
        Its brain is looked at.
    background
        Field on the head's grid, ppm.
    protocol, geometry
        The last echo time, field strength and voxels.
    """
    brain = _largest_part(head.brain_mask())  # its fluid is that of the eyes, too
    box = _bounding_box(brain, margin=2)
    gradients = [
        g / np.float32(s) for g, s in zip(np.gradient(background[box]), head.spacing, strict=True)
    ]
    # What one step along each axis of the scan is in the head, mm; a gap is no part of a slice.
    steps = np.linalg.inv(geometry.head_to_voxel)[:3, :3]
    steps = steps * np.divide(protocol.voxel, protocol.spacing)
    turns_per_ppm = larmor_mhz(protocol.field_strength) * protocol.echo_times[-1]
    kept = np.ones(gradients[0].shape, np.float32)
    for axis in range(3):
        across = sum(np.float32(steps[k, axis] * turns_per_ppm) * gradients[k] for k in range(3))
        kept *= np.sinc(np.asarray(across, np.float32))
    lost = np.zeros(head.shape, np.float32)
    lost[box] = (1 - np.abs(kept)) * brain[box]
    return np.asarray(
        (_on_scan(head, lost, geometry) >= 1 - DROPOUT_SIGNAL)
        & (_on_scan(head, brain.astype(np.float32), geometry) >= 0.5)
    )


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(mask & (labels == int(np.argmax(sizes))))


def _bounding_box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    slices = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(k for k in range(mask.ndim) if k != axis)))
        if not line.size:
            return tuple(slice(0, n) for n in mask.shape)
        slices.append(slice(max(int(line[0]) - margin, 0), int(line[-1]) + 1 + margin))
    return tuple(slices)


def _on_scan(head: Head, image: Volume, geometry: Geometry) -> Volume:
    """Interpolate an image on the head's grid at the voxels of a scan."""
    from scipy import ndimage

    matrix = np.linalg.inv(head.affine) @ np.linalg.inv(geometry.head_to_voxel)
    result: Volume = ndimage.affine_transform(
        image, matrix[:3, :3], matrix[:3, 3], geometry.shape, order=1, output=np.float32
    )
    return result
