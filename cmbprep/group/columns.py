"""Columns of the table of scans: what each holds, and how it is computed from a row.

The table and its data dictionary are both written from these declarations. A scan without
a result has ``n/a`` where counts stand, never a zero; so has a count that is not known, because
a lesion lacks what decides whether it belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cmbprep.bids.model import ENTITY_ORDER
from cmbprep.group.participants import Participants
from cmbprep.group.rows import Row
from cmbprep.lesions import RATINGS, ZONES
from cmbprep.reports.tally import SCALES, Tally
from cmbprep.reports.text import flatten, quality_title
from cmbprep.zones.burden import BURDEN_SCALES, Pattern
from cmbprep.zones.schemes import SCHEMES

__all__ = ["ACQUISITION", "Column", "acquisition", "entity_columns", "identity", "scan_columns"]

#: Entities that always have a column; the others have one where a scan has them.
USUAL_ENTITIES = ("acq", "rec", "run")
ACQUISITION = {
    "Manufacturer": ("Manufacturer of the scanner.", None),
    "ManufacturersModelName": ("Model of the scanner.", None),
    "MagneticFieldStrength": ("Field strength.", "T"),
    "EchoTime": ("Echo time; of several echoes, the first one's.", "s"),
    "SliceThickness": ("Slice thickness as the sidecar gives it.", "mm"),
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its name, its entry in the data dictionary, and how a row's value is computed."""

    name: str
    description: str
    value: Callable[[Row], Any]
    units: str | None = None
    levels: Mapping[str, str] | None = None

    def entry(self) -> dict[str, Any]:
        """Return the entry of the data dictionary."""
        entry: dict[str, Any] = {"Description": self.description}
        if self.units:
            entry["Units"] = self.units
        if self.levels:
            entry["Levels"] = dict(self.levels)
        return entry


def identity(row: Row) -> tuple[str, str | None, str]:
    """Return participant, session and name of a row."""
    session = row.entities.get("ses")
    return f"sub-{row.subject}", f"ses-{session}" if session else None, row.name


def entity_columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the entities that have a column of their own.

    Only entities that a scan can have: the name of a refused file may hold any word, also the
    name of another column.
    """
    found = {name for row in rows for name in row.entities} & set(ENTITY_ORDER)
    return (*USUAL_ENTITIES, *sorted(found - {"sub", "ses", *USUAL_ENTITIES}))


def scan_columns(rows: Sequence[Row], participants: Participants) -> Iterator[Column]:
    """Declare the columns of the table of scans, for the rows that there are."""
    yield from _identity_columns(rows)
    yield from _count_columns()
    yield from _region_columns(rows)
    yield from _class_columns()
    yield from _acquisition_columns()
    yield from _provenance_columns()
    yield from _quality_columns(rows)
    yield from _participant_columns(participants)


def _identity_columns(rows: Sequence[Row]) -> Iterator[Column]:
    yield Column(
        name="participant_id", description="Participant.", value=lambda row: identity(row)[0]
    )
    yield Column(
        name="session_id",
        description="Session; n/a in a dataset without sessions.",
        value=lambda row: identity(row)[1],
    )
    yield Column(
        name="scan",
        description="Scan: entities and suffix of the source; or the file that was refused.",
        value=lambda row: row.name,
    )
    for name in entity_columns(rows):
        yield Column(
            name=name,
            description=f"BIDS entity {name} of the scan.",
            value=partial(_entity, name),
        )
    yield Column(
        name="suffix",
        description="BIDS suffix of the scan; n/a for a refused file that has no suffix of a scan.",
        value=lambda row: row.suffix,
    )
    yield Column(
        name="status",
        description="Whether there is a result.",
        value=lambda row: row.status,
        levels={
            "complete": "There is a result.",
            "failed": "The scan could not be processed; counts are n/a.",
            "incomplete": "The run ended before the scan was done; counts are n/a.",
            "refused": "The file is no scan that can be used; counts are n/a.",
            "withdrawn": "The scan is no longer in the dataset; counts are n/a, and the scan is "
            "in no other table, summary or map.",
        },
    )
    yield Column(name="reason", description="Why there is no result.", value=lambda row: row.reason)


def _entity(name: str, row: Row) -> str | None:
    return row.entities.get(name)


def _of_participant(participants: Participants, name: str, row: Row) -> str | None:
    return participants.value(row.subject, name)


def _of_tally(function: Callable[[Tally], Any]) -> Callable[[Row], Any]:
    """Make a column's function from one of the tally: n/a where there is no result."""

    def value(row: Row) -> Any:
        tally = row.tally
        return None if tally is None else function(tally)

    return value


def _volume_definite(tally: Tally) -> float | None:
    volume = tally.volume_definite
    return None if volume is None else round(volume, 2)


#: When a count by zone or region is not known.
_UNKNOWN = "n/a where a microbleed was not compared with the zone atlas"


def _count_columns() -> Iterator[Column]:
    yield Column(
        name="n_total",
        description="Microbleeds, definite and possible; diamagnetic ones are not counted.",
        value=_of_tally(lambda tally: len(tally.counted)),
    )
    for rating in RATINGS:
        yield Column(
            name=f"n_{rating}",
            description=f"{rating.capitalize()} microbleeds; n/a where one has no rating.",
            value=_of_tally(partial(Tally.count, rating=rating)),
        )
    for zone in ZONES:
        yield Column(
            name=f"n_{zone}",
            description=f"Microbleeds in the zone {zone}, definite and possible; {_UNKNOWN}.",
            value=_of_tally(partial(Tally.count, zone=zone)),
        )
    for zone in ZONES:
        yield Column(
            name=f"n_definite_{zone}",
            description=f"Definite microbleeds in the zone {zone}; {_UNKNOWN}.",
            value=_of_tally(partial(Tally.count, zone=zone, rating="definite")),
        )
    yield Column(
        name="n_zone_unknown",
        description="Microbleeds without a zone: in a ventricle, outside the brain, or not "
        "compared with the zone atlas because the registration failed.",
        value=_of_tally(lambda tally: sum(item.zone is None for item in tally.counted)),
    )
    yield Column(
        name="n_boundary",
        description="Microbleeds so near to another zone that theirs could be wrong.",
        value=_of_tally(lambda tally: tally.near_boundary),
    )
    yield Column(
        name="n_diamagnetic",
        description="Spots that the phase shows to be diamagnetic: mimics, in no count.",
        value=_of_tally(lambda tally: len(tally.mimics)),
    )
    yield Column(
        name="volume_mm3",
        description="Total volume of the microbleeds, definite and possible, blooming included.",
        value=_of_tally(lambda tally: round(tally.volume, 2)),
        units="mm^3",
    )
    yield Column(
        name="volume_definite_mm3",
        description="Total volume of the definite microbleeds, blooming included; n/a where a "
        "microbleed has no rating.",
        value=_of_tally(_volume_definite),
        units="mm^3",
    )


def _region_columns(rows: Sequence[Row]) -> Iterator[Column]:
    """One column per region of the schemes in use."""
    used = {_scheme(row) for row in rows} - {None}
    regions: dict[str, set[str]] = {}
    for scheme in (item for item in SCHEMES.values() if item.name in used):
        for name in scheme.region_names:
            regions.setdefault(name, set()).add(scheme.name)
    for region, schemes in regions.items():
        yield Column(
            name=f"n_region_{region.replace(' ', '_').replace('-', '_')}",
            description=f"Microbleeds in the region {region} ({', '.join(sorted(schemes))}), "
            f"definite and possible; {_UNKNOWN}.",
            value=partial(_in_region, region=region, schemes=frozenset(schemes)),
        )


def _in_region(row: Row, *, region: str, schemes: frozenset[str]) -> int | None:
    """Count the microbleeds of a region; None for a scan whose scheme has no such region."""
    tally = row.tally
    return tally.count(region=region) if tally is not None and _scheme(row) in schemes else None


def _scheme(row: Row) -> str | None:
    if row.scan is None or row.scan.detection is None:
        return None
    return row.scan.detection.files.names.scheme.upper()


def _class_columns() -> Iterator[Column]:
    levels = {
        Pattern.NONE.value: "No microbleeds.",
        Pattern.LOBAR.value: "Lobar ones only.",
        Pattern.DEEP.value: "Deep ones, in the brainstem or both only.",
        Pattern.MIXED.value: "Both.",
        Pattern.CEREBELLAR.value: "In the cerebellum only, which is neither lobar nor deep.",
        Pattern.UNDETERMINED.value: "It depends on microbleeds whose zone or rating is not known.",
    }
    for name, which, give in (
        ("pattern", "definite microbleeds", lambda tally: tally.pattern.value),
        (
            "pattern_with_possible",
            "microbleeds, definite and possible",
            lambda tally: tally.pattern_of_all.value,
        ),
    ):
        yield Column(
            name=name,
            description=f"Distribution of the {which} over the zones.",
            value=_of_tally(give),
            levels=levels,
        )
    yield Column(
        name="cerebellar",
        description="Whether a definite microbleed lies in the cerebellum; n/a where none is "
        "known to and the place or rating of one is not known.",
        value=_of_tally(lambda tally: tally.cerebellar),
        levels={"true": "It does.", "false": "None does."},
    )
    for scale in SCALES:
        for definite, ending, which in (
            (True, "", "definite"),
            (False, "_with_possible", "definite and possible"),
        ):
            yield Column(
                name=f"burden_{scale}{ending}",
                description=f"Class of the number of {BURDEN_SCALES[scale].counts}, {which}; "
                "n/a where microbleeds without a zone or rating could change it. "
                f"{BURDEN_SCALES[scale].source}",
                value=_of_tally(partial(Tally.burden, scale=scale, definite=definite)),
            )


def acquisition(row: Row, key: str) -> Any:
    """Return how a scan was acquired: ``sequence``, ``echo_times`` or a key of its sidecar."""
    if row.scan is None:
        return None
    if key == "sequence":
        found = (record.block.get("Sequence") for record in row.scan.records)
        return next((value for value in found if value), None)
    if key == "echo_times":
        found = (record.block.get("EchoTimes") for record in row.scan.records)
        return next((value for value in found if value), None)
    return row.scan.metadata.get(key)


def _acquisition_columns() -> Iterator[Column]:
    yield Column(
        name="sequence",
        description="Kind of image that the detector took the scan for.",
        value=lambda row: acquisition(row, "sequence"),
    )
    for name, (description, units) in ACQUISITION.items():
        yield Column(
            name=name,
            description=description,
            value=partial(acquisition, key=name),
            units=units,
        )
    yield Column(
        name="echo_times",
        description="Echo times of all echoes, separated by commas.",
        value=lambda row: acquisition(row, "echo_times"),
        units="s",
    )
    for axis, name in enumerate("ijk"):
        yield Column(
            name=f"voxel_{name}_mm",
            description=f"Voxel size along the axis {name} of the image.",
            value=partial(_voxel, axis=axis),
            units="mm",
        )


def _voxel(row: Row, axis: int) -> float | None:
    size = row.scan.voxel_size if row.scan is not None else None
    return None if size is None else round(size[axis], 4)


def _of_detection(row: Row, *keys: str) -> Any:
    """Return the first of these parameters that the detection recorded."""
    if row.scan is None or row.scan.detection is None:
        return None
    parameters = flatten(row.scan.detection.block.get("Parameters", {}))
    return next((parameters[key] for key in keys if parameters.get(key) is not None), None)


def _provenance_columns() -> Iterator[Column]:
    yield Column(name="scheme", description="Scheme of the zones.", value=_scheme)
    yield Column(
        name="border_mm",
        description="Border in the white matter that the scheme's atlas was made with.",
        value=lambda row: _of_detection(row, "border_mm"),
        units="mm",
    )
    yield Column(
        name="detector",
        description="Detector.",
        value=lambda row: _of_detection(row, "detector"),
    )
    yield Column(
        name="detector_version",
        description="Version of the detector; a hash of model and parameters where it is a "
        "network of the user's own.",
        value=lambda row: _of_detection(row, "detector_parameters_version"),
    )
    yield Column(
        name="threshold",
        description="Lowest probability of a lesion that is listed.",
        value=lambda row: _of_detection(row, "threshold", "detector_parameters_threshold"),
    )
    yield Column(
        name="registered_to",
        description="What the scan was registered to: the T1w image, or the template.",
        value=lambda row: (
            row.scan.records[0].files.names.target
            if row.scan is not None and row.scan.records
            else None
        ),
    )
    yield Column(
        name="n_warnings",
        description="Number of doubts that checks of the input and the stages raised.",
        value=_n_warnings,
    )
    yield Column(
        name="warnings",
        description="These doubts, separated by semicolons.",
        value=lambda row: "; ".join(_warnings(row)),
    )
    yield Column(
        name="cmbprep_version",
        description="Version of the program that made the result.",
        value=lambda row: (
            row.scan.records[-1].block.get("Version")
            if row.scan is not None and row.scan.records
            else None
        ),
    )


def _warnings(row: Row) -> tuple[str, ...]:
    """Return the warnings on a scan and on its T1w image, each once."""
    if row.scan is None:
        return ()
    own = list(row.scan.doubts)
    if row.anatomy is not None:
        own += map(str, row.anatomy.block.get("Warnings", ()))
    return tuple(dict.fromkeys(own))


def _n_warnings(row: Row) -> int | None:
    return None if row.scan is None else len(_warnings(row))


def _quality_columns(rows: Sequence[Row]) -> Iterator[Column]:
    """One column for each figure of merit that any scan has."""
    found: dict[tuple[str, str], None] = {}
    for row in rows:
        for record in row.records:
            for key in flatten(record.block.get("Quality", {})):
                found[record.files.stage, key] = None
    order = ("preproc", "lesions", "anatomy")
    for stage, key in sorted(found, key=lambda item: (order.index(item[0]), item[1])):
        where = "T1w image" if stage == "anatomy" else f"scan, stage {stage}"
        yield Column(
            name=f"{stage}_{key}",
            description=f"{quality_title(key)}; figure of merit of the {where}.",
            value=partial(_quality, stage=stage, key=key),
        )


def _quality(row: Row, *, stage: str, key: str) -> Any:
    for record in row.records:
        if record.files.stage == stage:
            return flatten(record.block.get("Quality", {})).get(key)
    return None


def _participant_columns(participants: Participants) -> Iterator[Column]:
    for name in participants.columns:
        yield Column(
            name=f"participants_{name}",
            description=f"Column {name} of participants.tsv.",
            value=partial(_of_participant, participants, name),
        )
