"""The group tables: one row per scan with its counts, quality figures, and one row per lesion.

A scan without a result has ``n/a`` where counts stand, never a zero; so has a count that is not
known, because a lesion lacks what decides whether it belongs to it, or because the scan does not
show the whole zone. :mod:`.dictionary` has the columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from cmbprep.bids.model import ENTITY_ORDER
from cmbprep.files.tsv import format_tsv
from cmbprep.group.dictionary import RATED, Dictionary, describe, region_column
from cmbprep.group.readers import noted
from cmbprep.group.rows import Row
from cmbprep.group.visits import ScanVisit
from cmbprep.lesions import COLUMNS, HEMISPHERES, MISSING, ZONES, Lesion
from cmbprep.outputs.settings import detection_settings, flatten
from cmbprep.reports.results import ScanResult
from cmbprep.reports.text import quality_title
from cmbprep.zones.burden import DEFAULT_RULE
from cmbprep.zones.schemes import BRAINSTEM, CEREBELLUM, SCHEMES
from cmbprep.zones.tally import SCALES, UNKNOWN_ZONE, Count, Tally, is_mimic

#: Keys of the sidecars that have a column of the same name.
ACQUISITION = (
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "EchoTime",
    "SliceThickness",
)
STAGES = ("preproc", "lesions", "anatomy")
IDENTITY = ("participant_id", "session_id", "scan")


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
        return self._text

    # The table of participants is written twice.
    @cached_property
    def _text(self) -> str:
        rows = (map(cell, map(line.get, self.dictionary)) for line in self.values)
        return format_tsv(self.dictionary, rows)


def scan_table(rows: Sequence[Row], visits: Sequence[ScanVisit] | None = None) -> Table:
    """Make the table of scans.

    Parameters
    ----------
    rows
        The scans, and the files that were refused.
    visits
        The visit of each row; None where they are not known.
    """
    rule = rows[0].pattern_rule if rows else DEFAULT_RULE
    visits = [ScanVisit()] * len(rows) if visits is None else visits
    values = tuple(_scan_values(row) | vars(visit) for row, visit in zip(rows, visits, strict=True))
    return Table(describe("scans", pattern_rule=rule), values)


def quality_table(rows: Sequence[Row]) -> Table:
    """Make the table of quality figures, one row per scan."""
    figures = [
        {
            (record.files.stage, key): value
            for record in row.records
            for key, value in flatten(record.block.get("Quality", {})).items()
        }
        for row in rows
    ]
    values = [
        {
            **{name: value for name, value in _identity(row).items() if name in IDENTITY},
            **{f"{stage}_{key}": value for (stage, key), value in own.items()},
        }
        for row, own in zip(rows, figures, strict=True)
    ]
    found = {name for own in figures for name in own}
    return Table(describe("quality", quality=_quality_columns(found)), tuple(values))


def lesion_table(rows: Sequence[Row], scans: Table) -> Table:
    """Make the table of all lesions: how the scan is named, the lesion, and what made it.

    Parameters
    ----------
    rows, scans
        The scans, and the table of them.
    """
    dictionary, values = describe("lesions"), []
    for row, known in zip(rows, scans.values, strict=True):
        if lesions := _listed(row):
            scan = {name: known.get(name) for name in dictionary}
            values += [{**scan, **lesion} for lesion in lesions]
    return Table(dictionary, tuple(values))


def cell(value: Any) -> str:
    """Write a value as BIDS tables have it: ``n/a`` where it is missing, no tabs in text."""
    kind = type(value)
    # The most frequent kinds first: a large cohort has millions of cells.
    if value is None:
        return MISSING
    if kind is int:
        return str(value)
    if kind is float:
        return f"{value:.7g}" if math.isfinite(value) else MISSING
    if kind is bool:
        return "true" if value else "false"
    if isinstance(value, float):
        return cell(float(value))
    if isinstance(value, list | tuple):
        return ",".join(map(cell, value)) or MISSING
    return " ".join(str(value).split()) or MISSING


def _quality_columns(figures: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Return the words for the column of each figure of merit, named by its stage and key."""
    for stage, key in sorted(figures, key=lambda name: (STAGES.index(name[0]), name[1])):
        yield {
            "quality": f"{stage}_{key}",
            "quality_title": quality_title(key),
            "quality_of": "T1w image" if stage == "anatomy" else f"scan, stage {stage}",
        }


def _identity(row: Row) -> dict[str, Any]:
    return {
        **{name: row.entities.get(name) for name in ENTITY_ORDER},
        "participant_id": f"sub-{row.subject}",
        "session_id": f"ses-{row.entities['ses']}" if "ses" in row.entities else None,
        "scan": row.name,
    }


def _scan_values(row: Row) -> dict[str, Any]:
    """Return the values of a row of the table of scans; a column that is left out is ``n/a``."""
    values: dict[str, Any] = {
        **_identity(row),
        "suffix": row.suffix,
        "status": row.status,
        "reason": row.reason,
        "pattern_rule": row.pattern_rule,
        "n_warnings": None if row.scan is None else row.n_warnings,
        "warnings": "; ".join(row.warnings),
    }
    if row.scan is not None:
        values |= {**_acquisition(row.scan), **_settings(row.scan)}
        values |= {f"coverage_{zone}": part for zone, part in row.scan.coverage.items()}
        if row.tally is not None:
            values |= {**_counts(row.tally, row.scan.scheme), **_review(row)}
    return values


def _listed(row: Row) -> list[dict[str, Any]]:
    """Return the values of the lesions of a scan themselves, those that readers rejected too."""
    if row.tally is None or row.scan is None:
        return []
    if row.scan.reading is None or not row.scan.reviewed:
        return [_lesion_values(lesion, not is_mimic(lesion)) for lesion in row.tally.lesions]
    return [
        {
            **_lesion_values(item.lesion, item.counted),
            "verdict": item.verdict,
            "reject_reason": item.reason,
            "added": item.added,
            "change": item.change,
        }
        for item in row.scan.reading.rows
    ]


def _lesion_values(lesion: Lesion, counted: bool) -> dict[str, Any]:
    return {**{name: getattr(lesion, name) for name in COLUMNS}, "counted": counted}


def _review(row: Row) -> dict[str, Any]:
    """Return whose lesions count, and the numbers of the detector beside them."""
    assert row.scan is not None and row.tally is not None
    reading, tally = row.scan.reading, row.tally
    if reading is not None:
        tally = Tally(row.scan.automatic_lesions, tally.rule, tally.unseen)
    values: dict[str, Any] = {
        "source": "reviewed" if row.scan.reviewed else "automatic",
        "n_readers": 0,
        "review_status": "unread" if reading is None else reading.status,
        **_automatic_counts(tally),
    }
    if reading is not None and reading.reviewed:
        values |= {
            "reader": reading.readers,
            "n_readers": len(reading.used),
            "n_rejected": len(reading.rejected),
            "n_added": len(reading.added),
            **noted(reading),
        }
    return values


def _automatic_counts(tally: Tally) -> dict[str, Any]:
    """Return the numbers of the detector, which stand beside those of readers."""
    values: dict[str, Any] = {}
    for name, definite in RATED.items():
        rating = "definite" if definite else None
        values[f"n_automatic_{name}"] = tally.count(rating=rating)
        for zone in ZONES:
            values[f"n_automatic_{name}_{zone}"] = tally.count(rating=rating, zone=zone)
        values[f"volume_automatic_{name}_mm3"] = _volume(tally, definite)
        values[f"pattern_automatic_{name}"] = tally.pattern_of(definite=definite).value
    return values


@cache
def columns_of_lesions() -> frozenset[str]:
    """Return the columns of the table of scans that are computed from the lesions of the scan."""
    empty = Tally((), DEFAULT_RULE, frozenset())
    counts = (_counts(empty, scheme) for scheme in SCHEMES)
    return frozenset(_automatic_counts(empty)).union(*counts)


@cache
def _counted(scheme: str | None) -> tuple[tuple[str, ...], tuple[Count, ...]]:
    """Return the columns with counts, and what is counted in each, for a scheme."""
    places = {
        "": Count(),
        **{f"_{zone}": Count(zone=zone) for zone in ZONES},
        **{
            f"_{region}": Count(zone="infratentorial", region=region)
            for region in (CEREBELLUM, BRAINSTEM)
        },
        "_zone_unknown": Count(zone=UNKNOWN_ZONE),
    }
    known = SCHEMES.get((scheme or "").lower())
    for region in known.regions if known else ():
        if region.zone is not None:
            for side in HEMISPHERES:
                what = Count(zone=region.zone, region=region.name, hemisphere=side)
                places[f"_{region_column(region.name)}_{side}"] = what
    columns = {
        f"n_{name}{part}": what._replace(rating="definite" if definite else None)
        for name, definite in RATED.items()
        for part, what in places.items()
    }
    return tuple(columns), tuple(columns.values())


def _counts(tally: Tally, scheme: str | None) -> dict[str, Any]:
    columns, wanted = _counted(scheme)
    values: dict[str, Any] = {
        **dict(zip(columns, tally.count_all(wanted), strict=True)),
        "n_possible": tally.count(rating="possible"),
        "n_diamagnetic": len(tally.mimics),
    }
    for name, definite in RATED.items():
        values[f"n_listed_{name}"] = tally.listed.count(rating="definite" if definite else None)
        values[f"n_{name}_boundary"] = tally.near_boundary(definite=definite)
        values[f"volume_{name}_mm3"] = _volume(tally, definite)
        values[f"pattern_{name}"] = tally.pattern_of(definite=definite).value
        values[f"cerebellar_{name}"] = tally.cerebellar_of(definite=definite)
        for scale in SCALES:
            values[f"burden_{scale}_{name}"] = tally.burden(scale, definite=definite)
    return values


def _volume(tally: Tally, definite: bool) -> float | None:
    volume = tally.volume_mm3(definite=definite)
    return None if volume is None else round(volume, 2)


def _acquisition(scan: ScanResult) -> dict[str, Any]:
    sizes, metadata = scan.voxel_size or (None, None, None), scan.metadata
    return {
        **{key: metadata.get(key) for key in ACQUISITION},
        "sequence": scan.recorded("Sequence"),
        "echo_times": scan.recorded("EchoTimes"),
        **{
            f"voxel_{axis}_mm": None if size is None else round(size, 4)
            for axis, size in zip("ijk", sizes, strict=True)
        },
    }


def _settings(scan: ScanResult) -> dict[str, Any]:
    """Return what the result was made with."""
    return {
        **({} if scan.detection is None else detection_settings(scan.detection)),
        "scheme": scan.scheme,
        "template": scan.template,
        "registered_to": scan.records[0].files.names.target if scan.records else None,
        "cmbprep_version": scan.records[-1].block.get("Version") if scan.records else None,
    }
