"""The group tables: one row per scan, and one row per lesion.

``columns.json`` has the entry of each column in the data dictionary, in the order of the table; a
name with a field in braces stands for several columns. A scan without a result has ``n/a`` where
counts stand, never a zero; so has a count that is not known, because a lesion lacks what decides
whether it belongs to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from cmbprep.bids.model import ENTITY_ORDER
from cmbprep.group.participants import Participants
from cmbprep.group.rows import Row
from cmbprep.lesions import COLUMNS, MISSING, RATINGS, ZONES, Lesion
from cmbprep.reports.results import STATUSES, ScanResult
from cmbprep.reports.tally import SCALES, Tally, is_mimic
from cmbprep.reports.text import flatten, quality_title
from cmbprep.zones.schemes import SCHEMES

#: Entities that always have a column; the others have one where a scan has them.
USUAL_ENTITIES = ("acq", "rec", "run")
#: Keys of the sidecars that have a column of the same name.
ACQUISITION = (
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "EchoTime",
    "SliceThickness",
)
STAGES = ("preproc", "lesions", "anatomy")

Dictionary = dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Table:
    """A table with its data dictionary.

    Parameters
    ----------
    dictionary
        Column name -> its entry, in the order of the columns.
    values
        Column name -> value, for each row; a column that is left out is missing.
    """

    dictionary: Dictionary
    values: tuple[dict[str, Any], ...]

    def to_tsv(self) -> str:
        """Return the text of the table."""
        lines = [[cell(line.get(name)) for name in self.dictionary] for line in self.values]
        return "".join("\t".join(line) + "\n" for line in ([*self.dictionary], *lines))


def scan_table(rows: Sequence[Row], participants: Participants) -> Table:
    """Make the table of scans."""
    values = tuple(_scan_values(row, participants) for row in rows)
    return Table(_describe_scans(rows, participants), values)


def lesion_table(rows: Sequence[Row]) -> Table:
    """Make the table of all lesions: the scan's entities, then the columns of its lesion table."""
    dictionary, values = _describe_lesions(rows), []
    for row in rows:
        if lesions := _listed(row):
            known = _scan_values(row, Participants())
            scan = {name: known.get(name) for name in dictionary}
            values += [{**scan, **lesion} for lesion in lesions]
    return Table(dictionary, tuple(values))


def cell(value: Any) -> str:
    """Write a value as BIDS tables have it: ``n/a`` where it is missing, no tabs in text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, list | tuple):
        return ",".join(cell(item) for item in value) or MISSING
    return " ".join(str(value).split()) or MISSING


@cache
def _declared() -> dict[str, Dictionary]:
    text = resources.files("cmbprep.group").joinpath("columns.json").read_text(encoding="utf-8")
    declared: dict[str, Dictionary] = json.loads(text)
    declared["scans"]["status"]["Levels"] = dict(STATUSES)
    return declared


def _describe_scans(rows: Sequence[Row], participants: Participants) -> Dictionary:
    """Return the data dictionary of the table of scans, for the rows that there are."""
    repeated: dict[str, Iterable[Mapping[str, str]]] = {
        "{entity}": _entities(rows),
        "n_region_{column}": _regions(rows),
        "{stage}_{key}": _quality(rows),
        "participants_{name}": ({"name": name} for name in participants.columns),
    }
    entries: Dictionary = {}
    for name, entry in _declared()["scans"].items():
        for words in repeated.get(name, [{}]):
            entries[name.format(**words)] = {
                **entry,
                "Description": entry["Description"].format(**words),
            }
    return entries


def _describe_lesions(rows: Sequence[Row]) -> Dictionary:
    """Return the data dictionary of the table of lesions."""
    known = {**_describe_scans(rows, Participants()), **_declared()["lesions"], **COLUMNS}
    names = ["participant_id", "session_id", "scan", *(item["entity"] for item in _entities(rows))]
    own = ("counted", "source", "verdict", "reject_reason", "added", "change", "reader")
    return {name: known[name] for name in (*names, *COLUMNS, *own, "sequence", *ACQUISITION)}


def _entities(rows: Iterable[Row]) -> Iterator[dict[str, str]]:
    """Return the entities that have a column of their own.

    Only entities that a scan can have: the name of a refused file may hold any word, also the
    name of another column.
    """
    found = {name for row in rows for name in row.entities} & set(ENTITY_ORDER)
    for name in (*USUAL_ENTITIES, *sorted(found - {"sub", "ses", *USUAL_ENTITIES})):
        yield {"entity": name}


def _regions(rows: Iterable[Row]) -> Iterator[dict[str, str]]:
    """Return the regions of the schemes in use."""
    used = {row.scan.scheme for row in rows if row.scan is not None}
    regions: dict[str, set[str]] = {}
    for scheme in (item for item in SCHEMES.values() if item.name in used):
        for name in scheme.region_names:
            regions.setdefault(name, set()).add(scheme.name)
    for region, schemes in regions.items():
        yield {
            "column": _region_column(region),
            "region": region,
            "schemes": ", ".join(sorted(schemes)),
        }


def _region_column(region: str) -> str:
    return region.replace(" ", "_").replace("-", "_")


def _quality(rows: Iterable[Row]) -> Iterator[dict[str, str]]:
    """Return the figures of merit that any scan has."""
    found = {
        (STAGES.index(record.files.stage), key)
        for row in rows
        for record in row.records
        for key in flatten(record.block.get("Quality", {}))
    }
    for number, key in sorted(found):
        stage = STAGES[number]
        where = "T1w image" if stage == "anatomy" else f"scan, stage {stage}"
        yield {"stage": stage, "key": key, "title": quality_title(key), "where": where}


def _scan_values(row: Row, participants: Participants) -> dict[str, Any]:
    """Return the values of a row of the table of scans; a column that is left out is ``n/a``."""
    values: dict[str, Any] = {
        **{name: row.entities.get(name) for name in ENTITY_ORDER},
        "participant_id": f"sub-{row.subject}",
        "session_id": f"ses-{row.entities['ses']}" if "ses" in row.entities else None,
        "scan": row.name,
        "suffix": row.suffix,
        "status": row.status,
        "reason": row.reason,
        "n_warnings": None if row.scan is None else len(row.warnings),
        "warnings": "; ".join(row.warnings),
    }
    for name in participants.columns:
        values[f"participants_{name}"] = participants.value(row.subject, name)
    for record in row.records:
        for key, value in flatten(record.block.get("Quality", {})).items():
            values[f"{record.files.stage}_{key}"] = value
    if row.scan is not None:
        values |= {**_acquisition(row.scan), **_provenance(row.scan)}
        if row.tally is not None:
            values |= {**_counts(row.tally, row.scan.scheme), **_review(row.scan)}
    return values


def _listed(row: Row) -> list[dict[str, Any]]:
    """Return the values of the lesions of a scan themselves, those that readers rejected too."""
    if row.tally is None or row.scan is None:
        return []
    if row.scan.reading is None or not row.scan.reviewed:
        return [_lesion_values(lesion, not is_mimic(lesion)) for lesion in row.tally.lesions]
    reading = row.scan.reading
    return [
        {
            **_lesion_values(item.lesion, item.counted),
            "verdict": item.verdict,
            "reject_reason": item.reason,
            "added": item.added,
            "change": item.change,
        }
        for item in reading.rows
    ]


def _lesion_values(lesion: Lesion, counted: bool) -> dict[str, Any]:
    return {**{name: getattr(lesion, name) for name in COLUMNS}, "counted": counted}


def _review(scan: ScanResult) -> dict[str, Any]:
    """Return whose lesions count, and the numbers of the detector beside them."""
    tally, reading = Tally(scan.automatic_lesions), scan.reading
    values: dict[str, Any] = {
        "source": "reviewed" if scan.reviewed else "automatic",
        "n_readers": 0,
        "review_status": "unread" if reading is None else reading.status,
        "n_automatic_total": len(tally.counted),
        **{f"n_automatic_{rating}": tally.count(rating=rating) for rating in RATINGS},
        **{f"n_automatic_{zone}": tally.count(zone=zone) for zone in ZONES},
        "automatic_volume_mm3": round(tally.volume, 2),
        "automatic_pattern": tally.pattern.value,
    }
    if reading is not None and reading.reviewed:
        values |= {
            "reader": reading.readers,
            "n_readers": len(reading.used),
            "n_rejected": len(reading.rejected),
            "n_added": len(reading.added),
        }
    return values


def _counts(tally: Tally, scheme: str | None) -> dict[str, Any]:
    definite = tally.volume_definite
    values: dict[str, Any] = {
        "n_total": len(tally.counted),
        "n_zone_unknown": sum(item.zone is None for item in tally.counted),
        "n_boundary": tally.near_boundary,
        "n_diamagnetic": len(tally.mimics),
        "volume_mm3": round(tally.volume, 2),
        "volume_definite_mm3": None if definite is None else round(definite, 2),
        "pattern": tally.pattern.value,
        "pattern_with_possible": tally.pattern_of_all.value,
        "cerebellar": tally.cerebellar,
    }
    values |= {f"n_{rating}": tally.count(rating=rating) for rating in RATINGS}
    for zone in ZONES:
        values[f"n_{zone}"] = tally.count(zone=zone)
        values[f"n_definite_{zone}"] = tally.count(zone=zone, rating="definite")
    known = SCHEMES.get((scheme or "").lower())
    for region in known.region_names if known else ():
        values[f"n_region_{_region_column(region)}"] = tally.count(region=region)
    for scale in SCALES:
        values[f"burden_{scale}"] = tally.burden(scale)
        values[f"burden_{scale}_with_possible"] = tally.burden(scale, definite=False)
    return values


def _acquisition(scan: ScanResult) -> dict[str, Any]:
    sizes = scan.voxel_size or (None, None, None)
    return {
        **{key: scan.metadata.get(key) for key in ACQUISITION},
        "sequence": scan.recorded("Sequence"),
        "echo_times": scan.recorded("EchoTimes"),
        **{
            f"voxel_{axis}_mm": None if size is None else round(size, 4)
            for axis, size in zip("ijk", sizes, strict=True)
        },
    }


def _provenance(scan: ScanResult) -> dict[str, Any]:
    detection = {} if scan.detection is None else scan.detection.block.get("Parameters", {})
    ran = {key: value for key, value in flatten(detection).items() if value is not None}
    return {
        "scheme": scan.scheme,
        "border_mm": ran.get("border_mm"),
        "detector": ran.get("detector"),
        "detector_version": ran.get("detector_parameters_version"),
        "threshold": ran.get("threshold", ran.get("detector_parameters_threshold")),
        "registered_to": scan.records[0].files.names.target if scan.records else None,
        "cmbprep_version": scan.records[-1].block.get("Version") if scan.records else None,
    }
