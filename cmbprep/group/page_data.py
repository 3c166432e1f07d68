"""The rows of a cohort as the page holds them: columns as JSON, gzip in base64.

The script of the page (``group.js``) unpacks them once; the table, the plots, the search and the
map read the same columns.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cmbprep.group.prevalence import BY_PROTOCOL, GROUPINGS, group_people, stands_for_person
from cmbprep.group.protocols import is_number
from cmbprep.lesions import ZONES
from cmbprep.reports.text import plain, quality_title

if TYPE_CHECKING:
    from cmbprep.group.cohort import Cohort

#: Prefix of a quality figure -> what it was measured on.
STAGES = {"preproc": "scan", "lesions": "lesions", "anatomy": "T1w image"}


@dataclass(frozen=True)
class Column:
    """A column of the table of scans in the page.

    Attributes
    ----------
    name
        In the table of scans; ``{rating}`` stands for the ratings that the reader chooses.
    title, kind
        Heading, and ``text`` or ``number``.
    factor
        What numbers are multiplied with to have the unit of the heading.
    """

    name: str
    title: str
    kind: str = "text"
    factor: float = 1.0


#: Zones whose name is too long for a heading.
_HEADS = {"infratentorial": "Infrat."}
COLUMNS = (
    Column("status", "Status"),
    Column("site", "Site"),
    Column("stands", "For the person"),
    Column("source", "Source"),
    Column("n_{rating}", "All", "number"),
    *(
        Column(f"n_{{rating}}_{zone}", _HEADS.get(zone, zone.capitalize()), "number")
        for zone in ZONES
    ),
    Column("pattern_{rating}", "Pattern"),
    Column("volume_{rating}_mm3", "Volume (mm³)", "number"),
    Column("n_diamagnetic", "Mimics", "number"),
    Column("sequence", "Sequence"),
    Column("MagneticFieldStrength", "Field (T)", "number"),
    Column("EchoTime", "TE (ms)", "number", 1000.0),
    Column("SliceThickness", "Slice (mm)", "number"),
    Column("scanner", "Scanner"),
    Column("n_warnings", "Warnings", "number"),
)


@dataclass(frozen=True)
class Measure:
    """A number that is shown as a strip plot.

    Attributes
    ----------
    name, title
        Name, which is the column if no other is given, and title of the plot.
    low, high
        Usual range; None without a limit.
    count
        Whether it is a number of microbleeds, on a scale that keeps small ones apart.
    column
        Column of the rows; ``{rating}`` stands for the rating that the reader chooses.
    section
        Whether it has a place of its own in the page, apart from the quality figures.
    """

    name: str
    title: str
    low: float | None = None
    high: float | None = None
    count: bool = False
    column: str | None = None
    section: bool = False


def quality_measures(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Measure]:
    """Return the quality figures that are numbers and not the same in all scans.

    Parameters
    ----------
    rows
        Rows of the table of quality figures.
    names
        Its columns.
    """
    from cmbprep.reports.quality import load_ranges

    ranges, found = load_ranges()["ranges"], []
    for name in names:
        stage, _, key = name.partition("_")
        if stage not in STAGES or not any(is_number(row.get(name)) for row in rows):
            continue
        entry = ranges.get(f"{stage}.{key}") or ranges.get(key) or {}
        only = entry.get("one_sided")
        low = entry.get("low") if only != "high" else None
        high = entry.get("high") if only != "low" else None
        found.append(Measure(name, f"{quality_title(key)}, {plain(STAGES[stage])}", low, high))
    return found


def pack(content: Any) -> str:
    """Return JSON as gzip in base64; the same content gives the same text."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii")


def page_rows(
    cohort: Cohort,
    measures: Sequence[Measure],
    points: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the columns of the scans, with their quality figures, groups and reports.

    Parameters
    ----------
    cohort
        The scans.
    measures
        Quality figures.
    points
        Scan -> column -> more numbers; all that have some have the same columns.
    """
    scans = cohort.scans
    named = {"scanner": _scanner, "stands": _stands}
    data: dict[str, list[Any]] = {}
    for column in COLUMNS:
        for rating in ("definite", "any"):
            name = column.name.format(rating=rating)
            read = named.get(name)
            data[name] = [
                _cell(read(values) if read else values.get(name), column) for values in scans
            ]
    for name in ("participant_id", "scan", "reason"):
        data[name] = [values.get(name) for values in scans]
    quality = {values.get("scan"): values for values in cohort.tables["quality"].values}
    for measure in measures:
        data[measure.name] = [
            short_number(quality.get(values.get("scan"), {}).get(measure.name)) for values in scans
        ]
    for name in next(iter(points.values()), ()):
        data[name] = [short_number(points.get(str(v.get("scan")), {}).get(name)) for v in scans]
    groups, order = {}, {}
    for grouping in (BY_PROTOCOL, *GROUPINGS):
        groups[grouping.name] = [grouping.label(values) for values in scans]
        order[grouping.name] = [group.label for group in group_people(scans, grouping)]
    return {
        "groupOrder": order,
        "columns": [{"name": c.name, "title": c.title, "kind": c.kind} for c in COLUMNS],
        "data": data,
        "groups": groups,
        "reports": [cohort.report(values) for values in scans],
    }


def _scanner(values: Mapping[str, Any]) -> str | None:
    names = (values.get("Manufacturer"), values.get("ManufacturersModelName"))
    return " ".join(str(name) for name in names if name) or None


def _stands(values: Mapping[str, Any]) -> str | None:
    return "yes" if stands_for_person(values) else None


def _cell(value: Any, column: Column) -> Any:
    if column.kind == "number":
        return short_number(value * column.factor) if is_number(value) else None
    return None if value is None else str(value)


def short_number(value: Any) -> int | float | None:
    """Round to five digits, which is more than a plot or a cell shows."""
    if not is_number(value):
        return None
    if float(value).is_integer() and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.5g}")
