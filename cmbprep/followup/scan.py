"""A scan of a visit as the output dataset has it, and the scans of two visits that are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import CmbprepError
from cmbprep.followup.protocol import Acquisition, describe_changes
from cmbprep.followup.registration import HeadScan
from cmbprep.followup.status import VisitLesions
from cmbprep.lesions import Lesion, format_lesions
from cmbprep.outputs.files import file_digest
from cmbprep.outputs.stages import StageRecord
from cmbprep.ratings.automatic import Candidate, read_candidates
from cmbprep.ratings.lesion_view import as_lesion
from cmbprep.ratings.reading import ScanReading
from cmbprep.ratings.voxels import read_voxels
from cmbprep.spatial.transforms import LinearMap, read_transform


@dataclass(frozen=True, eq=False, kw_only=True)
class FollowedScan:
    """A scan with a result, of a session.

    Attributes
    ----------
    name
        As ``sub-01_ses-02_T2starw``.
    session
        Label without ``ses-``.
    preproc, detection
        The finished stages.
    anatomy
        The stage of the T1w image that the scan was registered to; None without one.
    lesions
        Rows of the lesion table, or the lesions of the readers.
    reading
        What readers have made of the scan; None where reviews were not looked for.
    voxel_mm
        Distance between voxel centres along each axis.
    coverage
        Part of each zone that is seen, 0 to 1; None where it is not recorded.
    unseen
        Zones that the scan does not show.
    """

    name: str
    session: str
    preproc: StageRecord
    detection: StageRecord
    anatomy: StageRecord | None = None
    lesions: tuple[Lesion, ...]
    reading: ScanReading | None = None
    voxel_mm: tuple[float, float, float]
    coverage: Mapping[str, float | None] = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()

    @property
    def src(self) -> str:
        """What the names of the scan's outputs start with."""
        return self.detection.files.names.src

    @property
    def label(self) -> str:
        """The entities of the scan without the participant, as one BIDS label."""
        return "".join(self.src.split("_")[1:]).replace("-", "")

    @property
    def kind(self) -> tuple[str, ...]:
        """What the scan is besides its session: the other entities and the suffix."""
        return tuple(part for part in self.name.split("_") if not part.startswith("ses-"))

    @property
    def reviewed(self) -> bool:
        """Whether the lesions are those of readers."""
        return self.reading is not None and self.reading.reviewed

    @property
    def source(self) -> str:
        """``automatic`` or ``reviewed``, as the tables say it."""
        return "reviewed" if self.reviewed else "automatic"

    @property
    def readers(self) -> str | None:
        """Names of the readers whose lesions these are; None for the detector's."""
        return self.reading.readers if self.reading is not None and self.reviewed else None

    @cached_property
    def counted(self) -> tuple[Lesion, ...]:
        """Lesions that count as microbleeds."""
        return tuple(item for item in self.lesions if item.susceptibility != "diamagnetic")

    @cached_property
    def dismissed(self) -> tuple[Lesion, ...]:
        """What was looked at and does not count: diamagnetic, or rejected by a reader."""
        found = [item for item in self.lesions if item.susceptibility == "diamagnetic"]
        if self.reading is not None and self.reviewed:
            found += [row.lesion for row in self.reading.rejected]
            found += self._rejected_candidates(self.reading)
        return tuple(found)

    @staticmethod
    def _rejected_candidates(reading: ScanReading) -> Iterable[Lesion]:
        for review in reading.used:
            for item in review.state.items.values():
                if item.kind == "candidate" and not item.positive and item.deleted_by is None:
                    yield as_lesion(reading.automatic, item)

    @cached_property
    def acquisition(self) -> Acquisition:
        """How the scan was acquired."""
        block = self.preproc.block
        return Acquisition.of(
            {**self.preproc.metadata, **self.detection.metadata},
            sequence=block.get("Sequence") or self.detection.files.names.suffix,
            echo_times=block.get("EchoTimes") or (),
            spacing_mm=self.voxel_mm,
        )

    @cached_property
    def digest(self) -> str:
        """What the lesions of this scan are, for a fingerprint."""
        content = hashlib.sha256(str(self.detection.block.get("Fingerprint")).encode())
        for lesions in (self.lesions, self.dismissed):
            content.update(format_lesions(lesions).encode())
        content.update(f"{self.source} {self.readers}".encode())
        # A table of candidates may be there or not; the label image is vouched for by the stage.
        path = self.detection.paths.get("candidates")
        content.update(file_digest(path).encode() if path and path.is_file() else b"none")
        return content.hexdigest()

    def candidates(self) -> tuple[Candidate, ...] | None:
        """Return what the detector has weighed and not listed; None if it does not tell."""
        path = self.detection.paths.get("candidates")
        if path is None:
            return None
        try:
            return tuple(read_candidates(path))
        except CmbprepError:
            return None

    def labels(self) -> NDArray[np.integer]:
        """Return the lesions by their index on the scan's grid, (X, Y, Z)."""
        if self.reading is not None and self.reviewed:
            return self.reading.labels
        return np.asarray(read_voxels(self.detection.files.path("dseg")))

    def head(self) -> HeadScan:
        """Return the corrected image and its brain mask."""
        return _head(self.preproc)

    def visit(self) -> VisitLesions:
        """Return the lesions with what a follow-up needs to know of the scan."""
        head = self.head()
        mask = head.brain_mask
        return VisitLesions(
            lesions=self.counted,
            dismissed=self.dismissed,
            candidates=self.candidates(),
            brain=np.asarray(mask.dataobj) > 0,
            affine=np.asarray(mask.affine, float),
            acquisition=self.acquisition,
            image=np.asarray(head.image.dataobj, np.float32),
        )

    def anatomical_head(self) -> HeadScan | None:
        """Return the T1w image that the scan was brought to the template by; None without one."""
        by_t1w = self.preproc.block.get("Quality", {}).get("route") == "t1w"
        return _head(self.anatomy) if self.anatomy is not None and by_t1w else None

    def to_anatomy(self) -> LinearMap:
        """Return the map of points of the scan to points of its T1w image."""
        # A file is named for the image that it brings over; its map of points goes back.
        found = read_transform(self.preproc.files.path("from_target"))
        if not isinstance(found, LinearMap):
            raise CmbprepError(
                "the transform to the T1w image is not rigid",
                path=self.preproc.files.path("from_target").name,
            )
        return found


def _head(record: StageRecord) -> HeadScan:
    image, mask = (
        nib.Nifti1Image.from_filename(record.files.path(key)) for key in ("preproc", "brain_mask")
    )
    return HeadScan(image=image, brain_mask=mask)


def choose_scans(
    first: Sequence[FollowedScan], second: Sequence[FollowedScan]
) -> tuple[FollowedScan, FollowedScan] | None:
    """Choose the scans of two visits that are compared.

    The pair that was acquired alike is taken: the same names besides the session, then the fewest
    differences of the protocol, then the finest voxels of the coarser scan, then the first by
    name. Which visit is which does not matter.

    Returns
    -------
    pair or None
        None where a visit has no scan.
    """
    pairs = list(product(first, second))
    if not pairs:
        return None

    def rank(pair: tuple[FollowedScan, FollowedScan]) -> tuple[object, ...]:
        one, other = pair
        volumes = [float(np.prod(scan.voxel_mm)) for scan in pair]
        changes = describe_changes(one.acquisition, other.acquisition)
        return one.kind != other.kind, len(changes), max(volumes), sorted((one.name, other.name))

    return min(pairs, key=rank)
