"""The scans of an output dataset that can be read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError
from cmbprep.files.text import read_object
from cmbprep.outputs.stages import StageRecord, find_records
from cmbprep.ratings.automatic import Automatic
from cmbprep.reports.results import ScanResult
from cmbprep.reports.reviewed import automatic_result
from cmbprep.reports.usable import usable_results


@dataclass(frozen=True, eq=False, kw_only=True)
class ReviewScan:
    """A scan with a complete automatic result.

    Attributes
    ----------
    result
        What the output dataset says of the scan.
    automatic
        What a review looks at.
    """

    result: ScanResult
    automatic: Automatic

    @property
    def id(self) -> str:
        """What requests name the scan by."""
        return self.automatic.name


def find_scans(root: Path) -> dict[str, ReviewScan]:
    """Find the scans of an output dataset with a complete result, by name."""
    anatomies: dict[str, list[StageRecord]] = defaultdict(list)
    for record in find_records(root, "anatomy"):
        anatomies[record.files.names.subject].append(record)
    found = {}
    for scan in usable_results(root).complete.values():
        own = anatomies[scan.preproc.files.names.subject]
        automatic = automatic_result(scan.scan, own)
        if automatic is not None:
            found[scan.scan.name] = ReviewScan(result=scan.scan, automatic=automatic)
    # By participant, then session: sub-02_ses-a before sub-020.
    return dict(sorted(found.items(), key=lambda item: item[0].split("_")))


def dataset_name(root: Path) -> str:
    """Return the name of an output dataset, as its description has it."""
    name = _description(root).get("Name")
    return name if isinstance(name, str) else root.resolve().name


def raw_dataset(root: Path) -> Path | None:
    """Return the raw dataset that an output dataset was made from; None if it is not there."""
    links = _description(root).get("DatasetLinks")
    link = links.get("raw") if isinstance(links, dict) else None
    if not isinstance(link, str):
        return None
    path = (root.resolve() / link.removeprefix("file://")).resolve()
    return path if path.is_dir() else None


def _description(root: Path) -> dict[str, Any]:
    try:
        return read_object(root / "dataset_description.json").content
    except CmbprepError:
        return {}
