"""Voxels and place of one lesion, as a review stores them.

The voxels are kept as runs along the last axis of the scan's own grid, so that an act in a log
holds the lesion that the reader saw, whatever becomes of the images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Most runs of one lesion: some hundred times what a lesion of 12 mm has.
MAX_RUNS = 200_000


def encode_runs(voxels: NDArray[np.integer], shape: Sequence[int]) -> tuple[int, ...]:
    """Encode voxels as runs.

    Parameters
    ----------
    voxels
        (m, 3) voxel coordinates.
    shape
        Of the grid.

    Returns
    -------
    tuple of int
        Start and length of each run, in C order of the grid.

    Examples
    --------
    >>> encode_runs(np.array([[0, 0, 1], [0, 0, 2], [0, 1, 0]]), (1, 2, 4))
    (1, 2, 4, 1)
    """
    flat = np.unique(np.ravel_multi_index(tuple(np.asarray(voxels).T), tuple(shape)))
    breaks = np.flatnonzero(np.diff(flat) != 1) + 1
    starts = flat[np.concatenate([[0], breaks])]
    lengths = np.diff(np.concatenate([[0], breaks, [len(flat)]]))
    return tuple(int(n) for n in np.stack([starts, lengths], axis=1).ravel())


def decode_runs(runs: Sequence[int], shape: Sequence[int]) -> NDArray[np.int_]:
    """Return the (m, 3) voxel coordinates of runs.

    Raises
    ------
    ValueError
        If a run leaves the grid.
    """
    pairs = np.asarray(runs, dtype=np.int64).reshape(-1, 2)
    size = math.prod(shape)
    if (pairs < 0).any() or (pairs.sum(axis=1) > size).any() or pairs[:, 1].sum() > size:
        raise ValueError("the voxels of a lesion lie outside the scan")
    flat = np.concatenate([np.arange(start, start + length) for start, length in pairs])
    return np.stack(np.unravel_index(flat, tuple(shape)), axis=1)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """One lesion as it was segmented and placed.

    Attributes
    ----------
    centre_ras
        Centre of mass, mm, RAS+ scanner coordinates.
    runs
        Voxels on the scan's grid (:func:`encode_runs`).
    volume_mm3, diameter_mm, contrast
        As in the lesion table.
    segmented
        False where nothing dark was found, and a ball stands for the lesion.
    x_mni, y_mni, z_mni, zone, region, hemisphere, region_fraction, boundary_distance_mm, boundary
        As in the lesion table; None where unknown.
    """

    centre_ras: tuple[float, float, float]
    runs: tuple[int, ...]
    volume_mm3: float
    diameter_mm: float
    contrast: float
    segmented: bool
    x_mni: float | None = None
    y_mni: float | None = None
    z_mni: float | None = None
    zone: str | None = None
    region: str | None = None
    hemisphere: str | None = None
    region_fraction: float | None = None
    boundary_distance_mm: float | None = None
    boundary: bool | None = None

    def __post_init__(self) -> None:
        numbers = (*self.centre_ras, self.volume_mm3, self.diameter_mm, self.contrast)
        if len(self.centre_ras) != 3 or not all(map(math.isfinite, numbers)):
            raise ValueError("position and size of a lesion must be finite")
        if not self.volume_mm3 > 0 or not self.diameter_mm > 0 or not 0 <= self.contrast <= 1:
            raise ValueError("the size of a lesion must be positive and its contrast in 0..1")
        if not self.runs or len(self.runs) % 2 or len(self.runs) > MAX_RUNS:
            raise ValueError("a lesion needs at least one run of voxels")
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in self.runs):
            raise ValueError("runs of voxels are whole numbers")

    def voxels(self, shape: Sequence[int]) -> NDArray[np.int_]:
        """Return the (m, 3) voxel coordinates on the scan's grid."""
        return decode_runs(self.runs, shape)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; unknown values are left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Outline:
        """Make an outline of a JSON object.

        Raises
        ------
        ValueError
            If it is not one.
        """
        try:
            values = dict(content)
            values["centre_ras"] = tuple(float(n) for n in values["centre_ras"])
            values["runs"] = tuple(values["runs"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"the outline of a lesion is damaged ({error})") from error
