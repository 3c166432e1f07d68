"""Data dictionaries of the group tables: every column with units, levels and meaning.

Files in ``dictionaries/`` have the entry of each column, in the order of the table. A name with
fields in braces stands for several columns, one for each combination of what the fields can be;
texts of its entry have the same fields. Columns do not depend on the dataset, so that tables of
two sites can be bound; figures of merit alone (``group_quality.tsv``) are those that there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import product
from string import Formatter
from typing import Any

from cmbprep.bids.model import ENTITY_ORDER
from cmbprep.group.primary import PRIMARY_RULE
from cmbprep.group.timeline import RULES
from cmbprep.lesions import COLUMNS, HEMISPHERES, ZONES
from cmbprep.reports.results import MIN_COVERAGE, STATUSES
from cmbprep.zones.burden import BURDEN_SCALES, DEFAULT_RULE, PATTERN_RULES
from cmbprep.zones.schemes import SCHEMES
from cmbprep.zones.tally import SCALES

Dictionary = dict[str, dict[str, Any]]
Words = Mapping[str, Any]

#: Ratings that are counted together -> whether only definite microbleeds are.
RATED: Mapping[str, bool] = {"definite": True, "any": False}
#: Entities that have a column: all that a scan can have besides participant and session.
ENTITIES = ENTITY_ORDER[2:]


def region_column(region: str) -> str:
    """Return a region as names of columns have it, ``basal_ganglia``."""
    return region.replace(" ", "_").replace("-", "_")


@cache
def _fields() -> dict[str, Sequence[Words]]:
    """Return what the fields of names can be, each with the words for descriptions."""
    regions: dict[str, list[str]] = {}
    for scheme in SCHEMES.values():
        for region in scheme.region_names:
            regions.setdefault(region, []).append(scheme.name)
    sides = {"left": "on the left", "right": "on the right", "midline": "on the midline"}
    return {
        "entity": [{"entity": name} for name in ENTITIES],
        "rating": [
            {
                "rating": name,
                "Microbleeds": "Definite microbleeds" if definite else "Microbleeds of any rating",
                "microbleeds": "definite microbleeds" if definite else "microbleeds of any rating",
                "rated": "definite" if definite else "definite or possible",
            }
            for name, definite in RATED.items()
        ],
        "zone": [{"zone": name} for name in ZONES],
        "region": [
            {"region": region_column(name), "region_title": name, "schemes": ", ".join(schemes)}
            for name, schemes in regions.items()
        ],
        "side": [{"side": side, "side_title": sides[side]} for side in HEMISPHERES],
        "scale": [
            {
                "scale": name,
                "counts": BURDEN_SCALES[name].counts,
                "classes": {key: f"{text}." for key, text in BURDEN_SCALES[name].titles.items()},
                "source": BURDEN_SCALES[name].source,
            }
            for name in SCALES
        ],
        "axis": [{"axis": name} for name in "ijk"],
        "lesion": [{"lesion": name} for name in COLUMNS],
    }


@cache
def _declared(table: str) -> Dictionary:
    path = resources.files("cmbprep.group").joinpath(f"dictionaries/{table}.json")
    declared: Dictionary = json.loads(path.read_text(encoding="utf-8"))
    return declared


def describe(
    table: str,
    *,
    pattern_rule: str = DEFAULT_RULE,
    quality: Iterable[Words] = (),
) -> Dictionary:
    """Return the data dictionary of a table.

    Parameters
    ----------
    table
        Name of a file in ``dictionaries/``.
    pattern_rule
        Rule by which patterns were made; the dictionary states it.
    quality
        Figures of merit that have a column: ``quality`` (its name), ``quality_title``,
        ``quality_of``.
    """
    fields = {**_fields(), "quality": list(quality)}
    always = _always(pattern_rule)
    entries: Dictionary = {}
    for name, entry in _declared(table).items():
        names = _names_in(name)
        for chosen in product(*(fields[field] for field in names)):
            words = {key: value for item in chosen for key, value in item.items()}
            column = name.format(**words)
            known = COLUMNS[column] if names == ["lesion"] else entry
            entries[column] = {
                key: _fill(value, {**always, **words}) for key, value in known.items()
            }
    if "status" in entries:
        entries["status"]["Levels"] = {**STATUSES, **entries["status"].get("Levels", {})}
    for entry in entries.values():
        scale = BURDEN_SCALES.get(str(entry.get("Levels")))
        if scale is not None:
            entry["Levels"] = {key: f"{text}." for key, text in scale.titles.items()}
            entry["Description"] = f"{entry['Description']} {scale.source}"
    return entries


def outline(table: str) -> Dictionary:
    """Return the dictionary of a table for people: columns that differ in a field are one entry.

    Names have the fields in angle brackets, ``n_<rating>_<zone>``.
    """
    words = {field: f"<{field}>" for field in _fields()}
    words |= {
        "Microbleeds": "Microbleeds of the rating",
        "microbleeds": "microbleeds of the rating",
        "rated": "of the rating",
        "region_title": "<region>",
        "schemes": "of the scheme that has it",
        "side_title": "on the side",
        "counts": "microbleeds (caa: lobar ones)",
        "quality": "<stage>_<figure>",
        "quality_title": "<figure>",
        "quality_of": "scan or T1w image, as the stage says",
    }
    found: Dictionary = {}
    for name, entry in _declared(table).items():
        if name == "{lesion}":
            found |= COLUMNS
            continue
        levels = {"Levels": {**STATUSES, **entry.get("Levels", {})}} if name == "status" else {}
        filled = {**_always(DEFAULT_RULE), **words}
        found[name.format(**words)] = {
            key: _fill(value, filled)
            for key, value in {**entry, **levels}.items()
            if value not in ("{classes}", "{source}")
        }
    return found


def _always(pattern_rule: str) -> Words:
    return {
        "min_coverage": MIN_COVERAGE,
        "rule": pattern_rule,
        "rule_text": PATTERN_RULES[pattern_rule],
        "rules": dict(PATTERN_RULES),
        "primary_rule": PRIMARY_RULE,
        "baseline_rules": dict(RULES),
    }


def _names_in(name: str) -> list[str]:
    """Return the fields in braces of a name."""
    return [field for _, field, _, _ in Formatter().parse(name) if field is not None]


def _fill(value: Any, words: Words) -> Any:
    """Fill the fields in a text; a text that is one field stands for the field's own value."""
    if isinstance(value, dict):
        return {key: _fill(item, words) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    own = words.get(value[1:-1]) if value.startswith("{") and value.endswith("}") else None
    return dict(own) if isinstance(own, dict) else value.format(**words)
