"""Value objects: one lesion as an evaluation sees it, and all lesions of one scan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["LesionSet", "Mark"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One lesion that a rater, a simulator or a detector has marked.

    Parameters
    ----------
    index
        Label of the lesion in its scan; counts from 1.
    centre
        Centre of mass, mm, RAS+ scanner coordinates.
    volume_mm3, diameter_mm
        Size. Each is derived from the other, as of a sphere, where only one is given.
    probability
        How sure the detector is, 0..1; None where it does not say.
    zone, region, rating, susceptibility, kind
        What the source tells about it; None where it does not.
    visible
        False if the source says that the lesion cannot be seen in this scan.
    extended
        True if it is no single thing but all that there is of a structure, such as the veins:
        its centre and size then mean little.
    """

    index: int
    centre: tuple[float, float, float]
    volume_mm3: float | None = None
    diameter_mm: float | None = None
    probability: float | None = None
    zone: str | None = None
    region: str | None = None
    rating: str | None = None
    susceptibility: str | None = None
    kind: str | None = None
    visible: bool = True
    extended: bool = False

    def __post_init__(self) -> None:
        if self.index < 1:
            raise ValueError(f"a lesion's index counts from 1, not {self.index}")
        if not all(math.isfinite(value) for value in self.centre):
            raise ValueError(f"lesion {self.index}: its centre is not finite")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"lesion {self.index}: probability {self.probability} is outside 0..1")
        for name in ("volume_mm3", "diameter_mm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"lesion {self.index}: {name} {value} is not a size")
        if self.volume_mm3 is None and self.diameter_mm is not None:
            object.__setattr__(self, "volume_mm3", math.pi / 6 * self.diameter_mm**3)
        if self.diameter_mm is None and self.volume_mm3 is not None:
            object.__setattr__(self, "diameter_mm", (6 * self.volume_mm3 / math.pi) ** (1 / 3))


@dataclass(frozen=True, kw_only=True)
class LesionSet:
    """All lesions of one scan from one source, with their voxels where the source has them.

    Parameters
    ----------
    marks
        The lesions; their indices differ from each other.
    labels
        Integer image, shape (i, j, k): 0 is background, other values are ``Mark.index``.
        None if the source is a table alone.
    affine
        Voxel to RAS+ mm, shape (4, 4); None where ``labels`` is None.
    origin
        What it was made from, in words, for the outputs ("table", "mask", ...).
    """

    marks: tuple[Mark, ...]
    labels: NDArray[np.int32] | None = field(default=None, repr=False)
    affine: NDArray[np.float64] | None = None
    origin: str = "table"

    def __post_init__(self) -> None:
        indices = [mark.index for mark in self.marks]
        if len(set(indices)) != len(indices):
            raise ValueError("two lesions have the same index")
        if (self.labels is None) != (self.affine is None):
            raise ValueError("labels and affine come together")
        if self.labels is not None and self.labels.ndim != 3:
            raise ValueError(f"labels have {self.labels.ndim} dimensions, not 3")

    @property
    def centres(self) -> NDArray[np.float64]:
        """Centres of mass, mm RAS+, shape (n, 3)."""
        return np.array([mark.centre for mark in self.marks], dtype=float).reshape(-1, 3)
