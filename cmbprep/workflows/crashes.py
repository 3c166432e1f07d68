"""Which scans a run has lost by the nodes that crashed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cmbprep.plan import ScanPlan, SubjectPlan
from cmbprep.workflows.names import SHARED, anatomy_name, scan_name, subject_wf_name, zones_name

if TYPE_CHECKING:
    from cmbprep.engine import Crash


def lost_by_anatomy(plan: ScanPlan, crash: Crash) -> bool:
    """Return whether a scan was lost by its T1w image, or by what other programs made of it.

    A process that was killed, or a full disk, is no fault of the image.
    """
    return not crash.transient and not _anatomy_parts(plan).isdisjoint(crash.node.split("."))


def crashed_scans(
    plans: Sequence[SubjectPlan], crashes: Sequence[Crash], *, scope: str
) -> dict[str, Crash]:
    """Return the scans that a run has lost: scan name -> the first crash that it depends on.

    A crash in a T1w image's workflow loses every scan that needed it; one between the templates,
    in the atlas that all share, or of the run itself, loses all.
    """
    lost: dict[str, Crash] = {}
    for plan in plans:
        owner = subject_wf_name(plan, scope=scope)
        for scan in plan.scans:
            own = {scan_name(scan.scan, stage) for stage in ("preproc", "lesions")}
            own |= _anatomy_parts(scan)
            for crash in crashes:
                parts = crash.node.split(".")
                shared = len(parts) == 1 or any(part.startswith(SHARED) for part in parts)
                if shared or (owner in parts and not own.isdisjoint(parts)):
                    lost.setdefault(scan.scan.name, crash)
    return lost


def _anatomy_parts(plan: ScanPlan) -> set[str]:
    """Return the names of what works on a scan's T1w image."""
    if plan.anatomy is None:
        return set()
    return {anatomy_name(plan.anatomy.anatomy), zones_name(plan.anatomy.anatomy)}
