"""Dark structures of a scan that reach through the brain: veins, flow voids, dropout, iron.

They are no compact sources: a vein tree has no centre and no size that a rater would
measure. Their voxels are told so that it can be said what a detector's mistakes lie on. They
are estimates, made without acquiring the scan again:

- veins and flow voids are the voxels of which they fill at least :data:`VEIN_SHARE` and
  :data:`ARTERY_SHARE`, a vessel being spread over the voxels on both sides of it as by a
  linear interpolation; at 3 T and an echo time of 20 ms these are, within one voxel, those
  that lose a fifth of the signal;
- dropout is where the head's own shimmed field leaves at most :data:`DROPOUT_SIGNAL` of the
  signal of the brain in a voxel at the last echo: the voxel is cut into parts of at most
  :data:`PART_MM`, the field in each is taken for linear (a loss of
  ``sinc(gradient x size x gamma x TE)`` along each axis), and the parts are summed with their
  phases;
- iron-rich nuclei are the voxels with at least :data:`IRON_RICH` of iron beyond cortex's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.lab.simulate.deformation import Volume
from cmbprep.lab.simulate.field import larmor_mhz
from cmbprep.lab.simulate.head import Head
from cmbprep.lab.simulate.tissue import BLOOD_SUSCEPTIBILITY
from cmbprep.lab.simulate.vessels import Tube, occupancy
from cmbprep.spatial.grids import bounding_box

if TYPE_CHECKING:
    from cmbprep.lab.simulate.field import Geometry
    from cmbprep.lab.simulate.protocols import Protocol

#: Part of a voxel that veins fill, from which the voxel counts as theirs.
VEIN_SHARE = 0.15
#: The same of arteries, which lose less signal where they are: no field around them.
ARTERY_SHARE = 0.25
#: Part of the signal that dephasing by the head's own field leaves, up to which it is dropout.
DROPOUT_SIGNAL = 0.5
#: Largest part of a voxel in which the head's field is taken for linear, mm.
PART_MM = 1.5
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
    iron = on_scan(head, head.iron, geometry) >= IRON_RICH
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
    turns_per_ppm = larmor_mhz(protocol.field_strength) * protocol.echo_times[-1]
    counts = np.ceil(np.divide(protocol.voxel, PART_MM) - 1e-6).astype(int)
    # Size of a voxel's part along each axis of the scan, in voxels; a gap is in no slice.
    size = np.divide(protocol.voxel, protocol.spacing) / counts
    kept = np.zeros(head.shape, np.float32)
    box = bounding_box(brain, margin=2) if brain.any() else (slice(None),) * 3
    step = np.linalg.inv(geometry.head_to_voxel)[:3, :3] * size * turns_per_ppm
    kept[box] = _kept_in_part(background[box], head.spacing, step) * brain[box]
    signal = np.zeros(geometry.shape, np.complex64)
    inside = np.zeros(geometry.shape, np.float32)
    for part in np.ndindex(*counts):
        shift = (np.asarray(part) - (counts - 1) / 2) * size
        angle = on_scan(head, background, geometry, shift) * np.float32(2 * np.pi * turns_per_ppm)
        signal += on_scan(head, kept, geometry, shift) * np.exp(1j * angle)
        inside += on_scan(head, brain.astype(np.float32), geometry, shift)
    enough = inside >= 0.5 * np.prod(counts)
    return np.asarray(enough & (np.abs(signal) <= DROPOUT_SIGNAL * inside))


def _kept_in_part(
    background: Volume, spacing: NDArray[np.float64], step: NDArray[np.float64]
) -> Volume:
    """Signal that the gradient across a part leaves; `step` (3, 3) is in turns mm / ppm."""
    gradients = np.gradient(background)
    kept = np.ones(background.shape, np.float32)
    for axis in range(3):
        across = np.zeros(background.shape, np.float32)
        for gradient, length, size in zip(gradients, step[:, axis], spacing, strict=True):
            across += np.float32(length / size) * gradient
        kept *= np.sinc(across)
    return kept


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part of a mask, thin bridges cut: the brain without the eyes."""
    from scipy import ndimage

    labels, _ = ndimage.label(ndimage.binary_erosion(mask, iterations=3))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if not sizes.any():
        return mask
    core = labels == int(np.argmax(sizes))
    return np.asarray(mask & ndimage.binary_dilation(core, iterations=4))


def on_scan(
    head: Head, image: Volume, geometry: Geometry, shift: ArrayLike = (0.0, 0.0, 0.0)
) -> Volume:
    """Interpolate an image on the head's grid at the voxels of a scan, shifted by some of them.

    Parameters
    ----------
    head, image
        The head and an image on its grid.
    geometry, shift
        Of the scan; voxels.
    """
    from scipy import ndimage

    matrix = np.linalg.inv(head.affine) @ np.linalg.inv(geometry.head_to_voxel)
    result: Volume = ndimage.affine_transform(
        image,
        matrix[:3, :3],
        matrix[:3, 3] + matrix[:3, :3] @ np.asarray(shift),
        geometry.shape,
        order=1,
        output=np.float32,
    )
    return result
