"""The lesions of one scan as an evaluation sees them, and when two of them may be matched.

They are then matched one to one by :func:`cmbprep.ratings.matching.assign`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# --- Value objects: one lesion as an evaluation sees it, and all lesions of one scan -------------


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


BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When two lesions may be matched, and what is left out.

    Parameters
    ----------
    match
        ``centroid``: centres of mass at most ``distance_mm`` apart. ``overlap``: voxels in
        common and an intersection over union of at least ``min_overlap``.
    distance_mm
        Largest distance of two centres, mm. The limit itself counts as matched.
    min_overlap
        Smallest intersection over union, 0..1; at 0 any common voxel does.
    connectivity
        6, 18 or 26: which voxels of a mask belong to one lesion. Labelled images and tables
        keep the lesions that they name.
    count_invisible
        Whether truth lesions flagged as not visible count like the others.
    min_diameter_mm
        Truth lesions of a smaller diameter are left out of account as those are that cannot
        be seen. A lesion whose size the truth does not tell counts.
    """

    match: Literal["centroid", "overlap"] = "centroid"
    distance_mm: float = 5.0
    min_overlap: float = 0.0
    connectivity: int = 6
    count_invisible: bool = False
    min_diameter_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.match not in ("centroid", "overlap"):
            raise ValueError(f"match is {self.match!r}, not centroid or overlap")
        if not (np.isfinite(self.distance_mm) and self.distance_mm > 0):
            raise ValueError(f"the distance must be above 0 mm, not {self.distance_mm}")
        if not 0 <= self.min_overlap <= 1:
            raise ValueError(f"the smallest overlap is 0..1, not {self.min_overlap}")
        if self.connectivity not in (6, 18, 26):
            raise ValueError(f"connectivity is 6, 18 or 26, not {self.connectivity}")
        if not (np.isfinite(self.min_diameter_mm) and self.min_diameter_mm >= 0):
            raise ValueError(f"the smallest diameter is 0 mm or more, not {self.min_diameter_mm}")

    def counts(self, mark: Mark) -> bool:
        """Return whether a truth lesion counts."""
        # Sizes to 0.001 mm, as the tables have them.
        small = mark.diameter_mm is not None and round(mark.diameter_mm, 3) < self.min_diameter_mm
        return (mark.visible or self.count_invisible) and not small

    @property
    def short(self) -> str:
        """The rule in one word, for a column of a table."""
        if self.match == "centroid":
            when = f"centroid<={self.distance_mm:g}mm"
        else:
            when = f"overlap:IoU>={self.min_overlap:g}" if self.min_overlap else "overlap:IoU>0"
        size = f",true>={self.min_diameter_mm:g}mm" if self.min_diameter_mm else ""
        return f"{when},{self.connectivity}-connected{size}"


def label_components(mask: BoolArray, connectivity: int) -> NDArray[np.int32]:
    """Number the connected components of a mask.

    Parameters
    ----------
    mask
        Shape (i, j, k).
    connectivity
        6 (common faces), 18 (faces and edges) or 26 (faces, edges and corners).
    """
    from scipy import ndimage

    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    labels, _ = ndimage.label(mask, structure)
    return np.asarray(labels, dtype=np.int32)


def intersections(
    truth: NDArray[np.int32],
    truth_affine: FloatArray,
    predicted: NDArray[np.int32],
    predicted_affine: FloatArray,
) -> dict[tuple[int, int], float]:
    """Return the volumes that labelled regions of two images have in common.

    The grids may differ in spacing, orientation and extent. Every labelled voxel of the finer
    grid is looked up, by its centre, in the voxel of the other grid in which it falls.

    Parameters
    ----------
    truth, predicted
        Label images, shape (i, j, k) each; 0 is background.
    truth_affine, predicted_affine
        Voxel to RAS+ mm, shape (4, 4) each.

    Returns
    -------
    dict
        (label in truth, label in predicted) -> common volume in mm^3, where above 0.
    """
    truth_voxel = abs(np.linalg.det(truth_affine[:3, :3]))
    predicted_voxel = abs(np.linalg.det(predicted_affine[:3, :3]))
    swap = bool(predicted_voxel < truth_voxel * (1 - 1e-6))
    fine, fine_affine = (predicted, predicted_affine) if swap else (truth, truth_affine)
    other, other_affine = (truth, truth_affine) if swap else (predicted, predicted_affine)

    voxels = np.argwhere(fine != 0)
    if not len(voxels):
        return {}
    to_other = np.linalg.inv(other_affine) @ fine_affine
    # Halves go up by adding 0.5 and flooring; 1e-6 keeps rounding noise out of exact grids.
    position = voxels @ to_other[:3, :3].T + to_other[:3, 3]
    nearest = np.floor(position + 0.5 + 1e-6).astype(np.int64)
    inside = np.all((nearest >= 0) & (nearest < np.array(other.shape)), axis=1)
    first = fine[tuple(voxels[inside].T)]
    second = other[tuple(nearest[inside].T)]
    both = second != 0
    pairs, counts = np.unique(
        np.stack([first[both], second[both]], axis=1), axis=0, return_counts=True
    )
    volume = min(truth_voxel, predicted_voxel)
    return {
        ((int(b), int(a)) if swap else (int(a), int(b))): float(count * volume)
        for (a, b), count in zip(pairs, counts, strict=True)
    }
