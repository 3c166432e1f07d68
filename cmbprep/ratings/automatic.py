"""The automatic result of a scan, as a review looks at it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cmbprep.errors import CmbprepError
from cmbprep.files.tsv import parse_integer, parse_number, read_tsv
from cmbprep.lesions import Lesion
from cmbprep.outputs.files import file_digest, read_json
from cmbprep.outputs.stages import BLOCK, StageRecord
from cmbprep.ratings.acts import Act, BasedOn, Point
from cmbprep.ratings.replay import Scope
from cmbprep.zones.schemes import Scheme, get_scheme

#: Diameter in mm of a candidate whose table does not tell its size.
CANDIDATE_MM = 3.0


#: Files of the stage ``lesions`` that a review is tied to.
_TIED = ("table", "dseg", "candidates")


class ReplacedResultError(CmbprepError):
    """The automatic result was replaced after it was read."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A dark spot that the detector has weighed and not listed.

    Attributes
    ----------
    row
        Its ``index`` in the table of candidates.
    centre_ras
        mm, RAS+.
    probability
        0 to 1; None where the table does not tell.
    diameter_mm
        Of the dark region at half its depth.
    """

    row: int
    centre_ras: Point
    probability: float | None
    diameter_mm: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Automatic:
    """The finished stages of a scan with its lesions.

    Attributes
    ----------
    name
        Of the scan, as ``sub-01_T2starw``.
    preproc, detection
        The finished stages ``preproc`` and ``lesions``.
    anatomy
        The stage ``anatomy`` of the T1w image that the scan was registered to; None without one.
    lesions
        Rows of the lesion table.
    """

    name: str
    preproc: StageRecord
    detection: StageRecord
    anatomy: StageRecord | None = None
    lesions: tuple[Lesion, ...] = ()

    def __post_init__(self) -> None:
        # What belongs together: the lesions, the fingerprint, and the files as they are now.
        object.__setattr__(self, "_stamps", self._stamp())

    def _stamp(self) -> tuple[object, ...]:
        """Return what shows that a file was replaced, without reading it."""
        stamps: list[object] = []
        for key in _TIED:
            path = self.detection.paths.get(key)
            try:
                found = None if path is None else path.stat()
            except OSError:
                found = None
            stamps.append(found and (found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(stamps)

    def require_unchanged(self) -> None:
        """Require that the files are those that were read, as before each act.

        Raises
        ------
        ReplacedResultError
            If a file of the result was replaced or removed since.
        """
        try:
            block = read_json(self.detection.files.sidecar).get(BLOCK)
        except CmbprepError:
            block = None
        now = block.get("Fingerprint") if isinstance(block, dict) else None
        # The digest is computed first: it tells nothing where the files change meanwhile.
        known = self.based_on.digest
        same = now == self.detection.block.get("Fingerprint") and known
        if not same or self._stamp() != vars(self)["_stamps"]:
            raise ReplacedResultError(
                f"the result of {self.name} was replaced since the review was started",
                hint="end the review and start it again; nothing of this step was stored",
            )

    @property
    def src(self) -> str:
        """What the names of the scan's outputs start with."""
        return self.detection.files.names.src

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return self.detection.files.sidecar.parent

    @cached_property
    def scheme(self) -> Scheme:
        """Rating scheme of the zones."""
        return get_scheme(self.detection.files.names.scheme)

    @cached_property
    def by_key(self) -> dict[str, Lesion]:
        """Automatic lesions by their key."""
        return {f"L{lesion.index}": lesion for lesion in self.lesions}

    @cached_property
    def candidates(self) -> dict[str, Candidate]:
        """Candidates that are not listed, by their key; empty if the detector does not tell.

        A table that cannot be read stops no review: the listed lesions do not need it.
        """
        path = self.detection.paths.get("candidates")
        if path is None:
            return {}
        try:
            return {f"C{found.row}": found for found in read_candidates(path)}
        except CmbprepError:
            return {}

    @property
    def places(self) -> dict[str, Point]:
        """Centres of the automatic lesions and of the candidates, mm, RAS+, by their key."""
        return {key: lesion.centre for key, lesion in self.by_key.items()} | {
            key: candidate.centre_ras for key, candidate in self.candidates.items()
        }

    @cached_property
    def based_on(self) -> BasedOn:
        """What a review of this result is tied to; no digest if the files were replaced."""
        digest = hashlib.sha256()
        for key in _TIED:
            path = self.detection.paths.get(key)
            digest.update(file_digest(path).encode() if path and path.is_file() else b"none")
        fingerprint = str(self.detection.block.get("Fingerprint", ""))
        same = self._stamp() == vars(self)["_stamps"]
        return BasedOn(fingerprint=fingerprint, digest=digest.hexdigest() if same else "")

    def is_stale(self, acts: Sequence[Act]) -> bool:
        """Return whether acts were made on an earlier result, perhaps with the same lesions."""
        return bool(acts) and acts[-1].based_on != self.based_on

    def has_other_lesions(self, acts: Sequence[Act]) -> bool:
        """Return whether acts were made on lesions that are no longer there."""
        return bool(acts) and acts[-1].based_on.digest != self.based_on.digest

    @cached_property
    def scope(self) -> Scope:
        """What acts may refer to."""
        regions = frozenset(region.name for region in self.scheme.regions)
        return Scope(listed=tuple(self.by_key), candidates=self.candidates.keys(), regions=regions)


def read_candidates(path: Path) -> list[Candidate]:
    """Read the candidates that are not listed.

    Raises
    ------
    CmbprepError
        If the table is damaged.
    """
    table = read_tsv(path, ("index", "x", "y", "z"))
    found = []
    for line, cells in table.dicts():
        try:
            if "lesion" in cells and parse_number(cells["lesion"]) > 0:
                continue
            chance = cells.get("probability")
            radius = cells.get("radius")
            diameter = CANDIDATE_MM if radius is None else 2 * math.exp(parse_number(radius))
            x, y, z = (parse_number(cells[axis]) for axis in ("x", "y", "z"))
            found.append(
                Candidate(
                    row=parse_integer(cells["index"]),
                    centre_ras=(x, y, z),
                    probability=None if chance is None else parse_number(chance),
                    diameter_mm=min(max(diameter, 0.5), 20.0),
                )
            )
        except ValueError as error:
            raise CmbprepError(f"line {line}: {error}", path=path) from error
    return found


def find_anatomy(preproc: StageRecord, anatomies: Sequence[StageRecord]) -> StageRecord | None:
    """Return the stage of the T1w image that a scan was registered to; None without one."""
    name = preproc.block.get("Parameters", {}).get("anatomy")
    for record in anatomies:
        if f"{record.files.names.src}_T1w" == name:
            return record
    return None
