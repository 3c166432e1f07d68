"""What a source leaves in an image: its mask, its size, where it lies, whether it is seen.

There is one definition for simulated people and for microbleeds put into real scans, and it
is the one by which the program outlines what it finds: the *half-depth region*. Losses are
those of the noise-free signal, within 0 and 1; the *depth* is the largest loss at the source.

- The void is the region, connected to the source, that has lost at least half of the depth.
  Its volume counts each voxel for the part of the depth that it has lost
  (:func:`cmbprep.detectors.segmentation.partial_volume`); its centre is weighted by loss.
- The mask is the part of it that has lost at least :data:`MASK_LOSS` of the signal, connected
  to the source: the whole of it for voids that are twice as deep, less for faint ones, whose
  border nobody could see.
- It is visible if the depth is at least :data:`MASK_LOSS` and the largest drop of the
  magnitude at least :data:`VISIBLE_CNR` times the noise. How small a lesion one may be
  expected to find is no part of it: an evaluation can ask for a smallest diameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.detectors.segmentation import partial_volume
from cmbprep.lab.simulate.deformation import along

#: Relative loss of signal from which a voxel can belong to a mask.
MASK_LOSS = 0.2
#: Contrast-to-noise ratio from which a source is visible.
VISIBLE_CNR = 5.0


@dataclass(frozen=True)
class Void:
    """The dark region that a source makes.

    Attributes
    ----------
    voxels
        Shape (N, 3): indices of the mask's voxels; none if the depth is below the mask's loss.
    centre
        Centre of mass of the void, weighted by loss; voxels.
    volume_mm3
        Volume of the void with partial volumes.
    depth
        Largest loss at the source, 0..1.
    """

    voxels: NDArray[np.intp]
    centre: NDArray[np.float64]
    volume_mm3: float
    depth: float

    @property
    def diameter_mm(self) -> float:
        """Diameter of the sphere of the same volume."""
        return float(np.cbrt(6 * self.volume_mm3 / np.pi))


def is_visible(depth: float, contrast_to_noise: float) -> bool:
    """Return whether a void of this depth and contrast-to-noise ratio can be seen."""
    return depth >= MASK_LOSS and contrast_to_noise >= VISIBLE_CNR


def outline_void(
    loss: NDArray[np.floating], source: ArrayLike, reach: float, spacing: ArrayLike
) -> Void | None:
    """Outline the void of a source.

    Parameters
    ----------
    loss
        Relative signal loss, shape (X, Y, Z); what is outside 0..1 is clipped.
    source
        Centre of the source, voxels of `loss`.
    reach
        Radius in mm of a sphere that holds the source. What is dark must come as near as
        that, or one voxel nearer, to belong to it.
    spacing
        Voxel size, mm.

    Returns
    -------
    Void or None
        None where nothing is lost at the source.
    """
    loss = np.clip(loss, 0, 1)
    size = np.asarray(spacing, dtype=np.float64)
    near = _sphere(loss.shape, np.asarray(source), reach + float(size.max()), size)
    depth = float(loss[near].max(initial=0))
    if not depth > 0:
        return None
    half = _connected(loss >= depth / 2, near)
    mask = _connected(half & (loss >= MASK_LOSS), near)
    inside = np.argwhere(half)
    centre = np.average(inside, axis=0, weights=loss[half])
    return Void(
        voxels=np.argwhere(mask),
        centre=np.asarray(centre, dtype=np.float64),
        volume_mm3=partial_volume(loss, half, depth, float(np.prod(size))),
        depth=depth,
    )


def _sphere(
    shape: tuple[int, ...], centre: NDArray[np.float64], radius: float, size: NDArray[np.float64]
) -> NDArray[np.bool_]:
    square = np.zeros(shape)
    for axis, count in enumerate(shape):
        line = ((np.arange(count) - centre[axis]) * size[axis]) ** 2
        square += line.reshape(along(axis))
    return np.asarray(square <= radius**2)


def _connected(dark: NDArray[np.bool_], near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a region, 26-connected, that reach into another one."""
    from scipy import ndimage

    labels, _ = ndimage.label(dark, np.ones((3, 3, 3)))
    touched = np.unique(labels[near & dark])
    return np.asarray(dark & np.isin(labels, touched))
