"""The follow-up of a pair of visits in the output dataset: its files, and reading it.

The files of a pair lie with its two scans. Their names hold the other scan's entities, and do not
depend on which visit is the earlier one:

- ``<src>_from-<suffix>_to-<other>_mode-image_desc-followup_xfm.txt`` with its sidecar: the
  registration, with the scan whose name comes later;
- ``<src>_seg-CMB_desc-followup<other>_dseg.tsv`` with its sidecar, which closes the follow-up: the
  table, in the same place;
- ``<src>_seg-CMB_desc-followup<other>_dseg.nii.gz`` with each scan: the lesions of that visit, by
  the ``index`` of the table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError
from cmbprep.followup.limits import describe_coverage, describe_settings
from cmbprep.followup.protocol import describe_changes
from cmbprep.followup.scan import FollowedScan, choose_scans
from cmbprep.followup.status import RULES
from cmbprep.followup.table import FollowedLesion, read_followup
from cmbprep.lesions import Lesion
from cmbprep.outputs.files import file_digest, read_json
from cmbprep.outputs.stages import fingerprint
from cmbprep.registration.quality import VERDICTS
from cmbprep.zones.tally import UNKNOWN_ZONE, Tally

logger = logging.getLogger("cmbprep")

#: Key of the block in the sidecars.
BLOCK = "CmbprepFollowup"
#: Limit of a follow-up whose table is not as the program wrote it.
EDITED = "the table of the follow-up was changed after the program wrote it"


@dataclass(frozen=True, eq=False, kw_only=True)
class ScanPair:
    """Two scans of a participant that are compared.

    Attributes
    ----------
    root
        The output dataset.
    first, second
        The earlier and the later one; in the order of their names where that is not known.
    ordered
        Whether it is known which is the earlier one.
    """

    root: Path
    first: FollowedScan
    second: FollowedScan
    ordered: bool

    @property
    def by_name(self) -> tuple[FollowedScan, FollowedScan]:
        """The two scans in the order of their names."""
        one, other = sorted((self.first, self.second), key=lambda scan: scan.name)
        return one, other

    def _place(self, scan: FollowedScan, ending: str) -> Path:
        return scan.detection.files.sidecar.with_name(f"{scan.src}_{ending}")

    @property
    def transform(self) -> Path:
        """Brings the scan with the later name onto the other one."""
        one, other = self.by_name
        suffix = other.detection.files.names.suffix
        ending = f"from-{suffix}_to-{one.label}_mode-image_desc-followup_xfm.txt"
        return self._place(other, ending)

    @property
    def registration(self) -> Path:
        """Sidecar of the transform."""
        return self.transform.with_suffix(".json")

    def image(self, scan: FollowedScan) -> Path:
        """Label image on the grid of one of the two scans."""
        other = self.second if scan is self.first else self.first
        return self._place(scan, f"seg-CMB_desc-followup{other.label}_dseg.nii.gz")

    @property
    def table(self) -> Path:
        """The table."""
        stem = self.image(self.by_name[1]).name.removesuffix(".nii.gz")
        return self.image(self.by_name[1]).with_name(f"{stem}.tsv")

    @property
    def sidecar(self) -> Path:
        """Data dictionary of the table, and what closes the follow-up."""
        return self.table.with_suffix(".json")

    @cached_property
    def unseen(self) -> frozenset[str]:
        """Zones that one of the scans does not show."""
        return self.first.unseen | self.second.unseen

    @cached_property
    def limits(self) -> tuple[str, ...]:
        """What is known to limit the comparison before it is made."""
        scans = self.first, self.second
        acquired = describe_changes(self.first.acquisition, self.second.acquisition)
        return (*acquired, *describe_settings(*scans), *describe_coverage(*scans))

    @property
    def registration_fingerprint(self) -> str:
        """What the registration depends on."""
        inputs = {
            f"scan {n}": str(scan.preproc.block.get("Fingerprint"))
            for n, scan in enumerate(self.by_name)
        }
        for n, scan in enumerate(self.by_name):
            made = None if scan.anatomy is None else scan.anatomy.block.get("Fingerprint")
            inputs[f"anatomy {n}"] = str(made)
        return fingerprint("followup registration", inputs=inputs, parameters={})

    @property
    def fingerprint(self) -> str:
        """What the follow-up depends on."""
        inputs = {
            "registration": self.registration_fingerprint,
            "first": f"{self.first.name} {self.first.digest}",
            "second": f"{self.second.name} {self.second.digest}",
        }
        acquired = [str(scan.acquisition) for scan in (self.first, self.second)]
        parameters = {
            "ordered": self.ordered,
            "acquired": acquired,
            "rules": RULES,
            "limits": self.limits,
        }
        return fingerprint("followup", inputs=inputs, parameters=parameters)

    def block(self, path: Path, wanted: str) -> Mapping[str, Any] | None:
        """Read the block of a sidecar; None if it is not there, or of other input.

        A damaged sidecar closes nothing.
        """
        if not path.is_file():
            return None
        try:
            block = read_json(path).get(BLOCK)
        except CmbprepError:
            return None
        if not isinstance(block, Mapping) or block.get("Fingerprint") != wanted:
            return None
        sizes = block.get("Files")
        if not isinstance(sizes, Mapping) or not _is_whole(block):
            return None
        for name, size in sizes.items():
            file = self.root / str(name)
            # A table that a person has changed is read, and its change is named.
            if not file.is_file() or (file != self.table and file.stat().st_size != size):
                return None
        return block


def _is_whole(block: Mapping[str, Any]) -> bool:
    """Return whether a block has the registration, and its texts where they are expected."""
    registration = block.get("Registration")
    return (
        isinstance(registration, Mapping)
        and registration.get("Verdict") in VERDICTS
        and isinstance(registration.get("Reasons", []), list)
        and isinstance(block.get("Limits", []), list)
    )


def pair_visits(
    root: Path,
    scans: Sequence[FollowedScan],
    order: Sequence[str] | None,
    baseline: str | None = None,
) -> list[ScanPair]:
    """Choose the pairs of visits that are compared.

    Where the order of the visits is known, each visit is compared with the one before it, and the
    last with the baseline. Where it is not known, every two visits are compared.

    Parameters
    ----------
    root
        The output dataset.
    scans
        The scans of one participant that have a result.
    order
        Labels of the sessions from the earliest on; None where it is not known. Sessions that it
        does not name are left out.
    baseline
        Label of the baseline session; the earliest one if None.

    Returns
    -------
    list of ScanPair
        The earlier visit first.
    """
    by_session: dict[str, list[FollowedScan]] = {}
    for scan in scans:
        by_session.setdefault(scan.session, []).append(scan)
    visits = sorted(by_session) if order is None else [one for one in order if one in by_session]
    wanted = list(combinations(visits, 2))
    if order is not None:
        ends = {(visits[0] if baseline is None else baseline, visits[-1])} if visits else set()
        wanted = [pair for pair in wanted if pair in ends or _next(visits, *pair)]
    pairs = []
    for one, other in wanted:
        chosen = choose_scans(by_session[one], by_session[other])
        if chosen is not None:
            first, second = chosen
            pairs.append(ScanPair(root=root, first=first, second=second, ordered=order is not None))
    return pairs


def _next(visits: Sequence[str], one: str, other: str) -> bool:
    return visits.index(other) - visits.index(one) == 1


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """The finished follow-up of a pair of visits.

    Attributes
    ----------
    pair
        The two scans.
    lesions
        What became of each.
    registration
        Verdict and figures of the registration (``Verdict``, ``Reasons``, ``Gap``, ...).
    limits
        Of the comparison of the two scans.
    protocol_changed
        Whether the protocols differ, or are not known to be the same.
    settings_changed
        Whether the lists of lesions were made differently (:func:`.describe_settings`).
    edited
        Whether the table was changed after the program wrote it.
    """

    pair: ScanPair
    lesions: tuple[FollowedLesion, ...]
    registration: Mapping[str, Any]
    limits: tuple[str, ...]
    protocol_changed: bool
    settings_changed: bool = False
    edited: bool = False

    @property
    def failed(self) -> bool:
        """Whether the scans could not be registered to each other."""
        return self.registration.get("Verdict") == "failed"

    def count(
        self,
        status: str,
        *,
        definite: bool = False,
        zone: str | None = None,
    ) -> int | None:
        """Count the lesions of a status.

        Parameters
        ----------
        status
            Key of :data:`.STATUSES`.
        definite
            Whether only those count that are definite at one of the visits; else possible ones
            do, too.
        zone
            Only those of a zone, or ``unknown`` for those without one; None for all.

        Returns
        -------
        int or None
            None where it is not known: nothing could be compared, the order of the visits is
            not known and the status depends on it, a scan does not show the zone, or a lesion may
            belong to the count or not (:class:`.Tally`).
        """
        if self._is_open(status):
            return None
        # What is at one visit only and not assessable is a list, wherever others may lie.
        seen = status in ("not assessable", "one visit")
        unseen = frozenset[str]() if seen else self.pair.unseen
        return self._count(self._of(status), unseen, definite=definite, zone=zone)

    def count_listed(self, status: str, *, definite: bool = False) -> int | None:
        """Count the lesions of a status that are listed, also where a zone was not seen."""
        if self._is_open(status):
            return None
        return self._count(self._of(status), frozenset(), definite=definite)

    def count_at(self, visit: int, status: str, *, definite: bool = False) -> int | None:
        """Count the lesions of a status that are listed at one visit only, 0 or 1."""
        rows = [row for row in self._of(status) if row.indices[1 - visit] is None]
        return self._count(rows, frozenset(), definite=definite)

    def count_below(self, *, definite: bool = False) -> int | None:
        """Count the persistent lesions that are below the threshold at one of the visits."""
        if self.failed:
            return None
        rows = [row for row in self.lesions if row.below_threshold]
        return self._count(rows, frozenset(), definite=definite)

    def _is_open(self, status: str) -> bool:
        """Return whether no lesion can have a status: a failed registration, or no order."""
        undirected = status in ("new", "gone") and not self.pair.ordered
        return undirected or (self.failed and status != "not assessable")

    def _of(self, status: str) -> list[FollowedLesion]:
        return [row for row in self.lesions if row.status == status]

    def _count(
        self,
        rows: Iterable[FollowedLesion],
        unseen: frozenset[str],
        *,
        definite: bool,
        zone: str | None = None,
    ) -> int | None:
        tally = Tally(tuple(map(self._as_lesion, rows)), unseen=unseen)
        where = UNKNOWN_ZONE if zone == "unknown" else zone
        return tally.count(zone=where, rating="definite" if definite else None)

    def _as_lesion(self, row: FollowedLesion) -> Lesion:
        """Return the lesion of the later visit, else of the earlier one, as the row rates it."""
        second = row.indices[1] is not None
        own = self._listed[second][row.indices[second]]
        return replace(own, rating=row.rating, zone=row.zone, region=row.region)

    @cached_property
    def _listed(self) -> tuple[dict[int | None, Lesion], ...]:
        scans = (self.pair.first, self.pair.second)
        return tuple({lesion.index: lesion for lesion in scan.counted} for scan in scans)


def read_pair(pair: ScanPair) -> FollowUp | None:
    """Read the follow-up of a pair; None if it is not there or of other input.

    A table that a person has changed is read if it still lists every lesion of both visits once.
    """
    block = pair.block(pair.sidecar, pair.fingerprint)
    if block is None:
        return None
    try:
        lesions = read_followup(pair.table)
    except CmbprepError as error:
        logger.warning("%s", error)
        return None
    if not all(_lists_all(lesions, n, scan) for n, scan in enumerate((pair.first, pair.second))):
        logger.warning("%s: its lesions are not those of the two visits", pair.table.name)
        return None
    edited = block.get("Table") != file_digest(pair.table)
    limits = [str(text) for text in block.get("Limits", ())]
    return FollowUp(
        pair=pair,
        lesions=lesions,
        registration=block["Registration"],
        limits=(*limits, *([EDITED] if edited else ())),
        protocol_changed=bool(describe_changes(pair.first.acquisition, pair.second.acquisition)),
        settings_changed=bool(describe_settings(pair.first, pair.second)),
        edited=edited,
    )


def _lists_all(lesions: Sequence[FollowedLesion], visit: int, scan: FollowedScan) -> bool:
    """Return whether a table has each lesion of a visit once: one that lacks rows has no counts."""
    listed = [index for lesion in lesions if (index := lesion.indices[visit]) is not None]
    return sorted(listed) == sorted(lesion.index for lesion in scan.counted)


def find_pairs(root: Path, scans: Sequence[FollowedScan]) -> list[FollowUp]:
    """Find the finished follow-ups of a participant, whatever order of visits they were made for.

    Parameters
    ----------
    root
        The output dataset.
    scans
        The scans of the participant that have a result.

    Returns
    -------
    list of FollowUp
        In the order of the sessions' names.
    """
    found = []
    for pair in pair_visits(root, scans, None):
        exchanged = replace(pair, first=pair.second, second=pair.first, ordered=True)
        for made in (replace(pair, ordered=True), exchanged, pair):
            if (followed := read_pair(made)) is not None:
                found.append(followed)
                break
    return found
