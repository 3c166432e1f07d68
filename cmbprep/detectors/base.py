"""What a detector gets, what it gives back, and what it must be able to do.

Any detector, whether classical, a network of ours or a user's own, is an object that meets
:class:`Detector`; the workflow knows nothing else about it. Detectors work on arrays and
affines and read no files of the scan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from cmbprep.lesions import RATINGS, SUSCEPTIBILITIES

SEQUENCES = ("T2starw", "MEGRE", "swi")

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorInput:
    """One blood-sensitive scan, ready for detection.

    Parameters
    ----------
    magnitude
        (X, Y, Z) float32, bias-corrected; for several echoes the image to detect on.
    affine
        4x4, voxel to RAS+ mm.
    brain_mask
        (X, Y, Z) bool.
    sequence
        BIDS suffix: ``T2starw``, ``MEGRE`` or ``swi``.
    field_strength
        T, or None if the sidecar does not tell.
    echo_times
        s, one an echo; may be empty.
    echoes
        Magnitude of each echo, (X, Y, Z) each; empty if there is only ``magnitude``.
    phases
        Phase of each echo, rad, NaN where it is unknown; empty if there is none.

    Raises
    ------
    ValueError
        If shapes, types or counts do not fit each other.
    """

    magnitude: FloatArray
    affine: NDArray[np.float64]
    brain_mask: NDArray[np.bool_]
    sequence: str
    field_strength: float | None = None
    echo_times: tuple[float, ...] = ()
    echoes: tuple[FloatArray, ...] = ()
    phases: tuple[FloatArray, ...] = ()

    def __post_init__(self) -> None:
        shape = self.magnitude.shape
        if len(shape) != 3 or self.magnitude.dtype != np.float32:
            raise ValueError("magnitude must be a three-dimensional float32 array")
        if self.brain_mask.shape != shape or self.brain_mask.dtype != np.bool_:
            raise ValueError("brain_mask must be a bool array of the shape of magnitude")
        if not self.brain_mask.any():
            raise ValueError("brain_mask is empty")
        if not np.isfinite(self.magnitude).all():
            raise ValueError("magnitude holds values that are not finite")
        affine = self.affine
        if affine.shape != (4, 4) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError("affine must be an invertible 4x4 matrix")
        if self.sequence not in SEQUENCES:
            raise ValueError(f"sequence {self.sequence!r} is none of {SEQUENCES}")
        if self.field_strength is not None and not 0 < self.field_strength < 25:
            raise ValueError(f"field strength {self.field_strength} T is not plausible")
        if any(not 0 < te < 1 for te in self.echo_times):
            raise ValueError(f"echo times must be in seconds, not {self.echo_times}")
        for name in ("echoes", "phases"):
            images = getattr(self, name)
            if any(image.shape != shape for image in images):
                raise ValueError(f"{name} must have the shape of magnitude")
            if images and len(images) != len(self.echo_times):
                raise ValueError(f"{len(images)} {name} but {len(self.echo_times)} echo times")

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size along the three axes, mm."""
        return np.asarray(voxel_sizes(np.asarray(self.affine, float)))


@dataclass(frozen=True, kw_only=True)
class DetectedLesion:
    """One detected lesion; see :data:`cmbprep.lesions.COLUMNS` for the meaning of each value.

    ``centre_ras`` is in mm in RAS+ scanner coordinates; ``index`` is its label.
    """

    index: int
    centre_ras: tuple[float, float, float]
    volume_mm3: float
    diameter_mm: float
    probability: float
    rating: str
    contrast: float
    susceptibility: str = "unknown"

    def __post_init__(self) -> None:
        if self.index < 1:
            raise ValueError(f"a lesion's index counts from 1, not {self.index}")
        if not all(map(math.isfinite, self.centre_ras)):
            raise ValueError(f"lesion {self.index}: centre {self.centre_ras} is not a point")
        if not self.volume_mm3 > 0 or not self.diameter_mm > 0:
            raise ValueError(f"lesion {self.index}: its size is not positive")
        if not 0 <= self.probability <= 1 or not 0 <= self.contrast <= 1:
            raise ValueError(f"lesion {self.index}: probability or contrast is outside 0..1")
        if self.rating not in RATINGS:
            raise ValueError(f"lesion {self.index}: rating {self.rating!r} is none of {RATINGS}")
        if self.susceptibility not in SUSCEPTIBILITIES:
            raise ValueError(f"lesion {self.index}: susceptibility {self.susceptibility!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateTable:
    """What a detector has weighed, listed or not: for those who want to check or refit it.

    Parameters
    ----------
    columns
        Name -> meaning.
    rows
        (n, len(columns)).
    """

    columns: Mapping[str, str]
    rows: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != len(self.columns):
            raise ValueError("the rows of candidates do not have the columns that are named")


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """What a detector found in one scan, on the scan's own grid.

    Parameters
    ----------
    probability
        (X, Y, Z) float32 in 0..1: voxel-wise probability of microbleed.
    labels
        (X, Y, Z) int32: 0, or the ``index`` of the lesion.
    lesions
        In the order of their labels 1..n: the more probable first, equal ones by position.
    warnings
        What a reader must know, for instance that the scan is unlike those that the detector
        was made for. Sentences.
    candidates
        What else was weighed; None if the detector does not tell.
    """

    probability: FloatArray
    labels: NDArray[np.int32]
    lesions: tuple[DetectedLesion, ...] = ()
    warnings: tuple[str, ...] = ()
    candidates: CandidateTable | None = None

    def __post_init__(self) -> None:
        if self.probability.dtype != np.float32 or self.labels.dtype != np.int32:
            raise ValueError("probability must be float32 and labels int32")
        if self.probability.shape != self.labels.shape or self.labels.ndim != 3:
            raise ValueError("probability and labels must be three-dimensional and of one shape")
        if self.probability.min(initial=0) < 0 or self.probability.max(initial=0) > 1:
            raise ValueError("probability is outside 0..1")
        present = np.unique(self.labels[self.labels != 0])
        indices = [lesion.index for lesion in self.lesions]
        if indices != list(range(1, len(indices) + 1)) or present.tolist() != indices:
            raise ValueError("labels and lesions do not belong together")


@runtime_checkable
class Detector(Protocol):
    """A way to find microbleeds."""

    @property
    def name(self) -> str:
        """Short name, as given to ``--detector``."""

    @property
    def version(self) -> str:
        """Changes whenever the same input could give another result."""

    @property
    def parameters(self) -> Mapping[str, object]:
        """Everything that the result depends on, JSON-ready: for provenance and cache keys."""

    def detect(self, scan: DetectorInput) -> Detection:
        """Find microbleeds in one scan; the same input gives the same bytes."""
