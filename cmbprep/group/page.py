"""The page of a cohort: what is missing, who has microbleeds, quality, maps, all scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cmbprep.group.cohort import Absent, Cohort, counts_as_scan
from cmbprep.group.followup_page import MEASURES
from cmbprep.group.outliers import find_outliers
from cmbprep.group.page_data import Measure, pack, page_rows, quality_measures
from cmbprep.group.page_maps import map_views
from cmbprep.group.pooling import compare_protocols
from cmbprep.group.prevalence import (
    BY_PROTOCOL,
    COUNT_CLASSES,
    GROUPINGS,
    OUTCOMES,
    RATINGS,
    Group,
    Grouping,
    Outcome,
    group_people,
)
from cmbprep.lesions import ZONES
from cmbprep.reports.figures.guarded import attempt
from cmbprep.reports.page import render_page
from cmbprep.reports.results import STATUSES

#: Outliers and reasons that are listed; more are in the tables.
MAX_LISTED = 100


def render_group_page(cohort: Cohort) -> str:
    """Make the page of a cohort.

    Parameters
    ----------
    cohort
        The tables, maps and notes.

    Returns
    -------
    str
        The page, which loads nothing; the same results give the same bytes.
    """
    from cmbprep.group.readers import summarise_reading

    quality = cohort.tables["quality"]
    figures = quality_measures(quality.values, list(quality.dictionary))
    count = Measure("count", "Microbleeds", count=True, column="n_{rating}", section=True)
    followup = cohort.followup
    points = {} if followup is None else followup.points()
    strips = [count, *(MEASURES if points else ()), *figures]
    by_scan = {str(values.get("scan")): values for values in quality.values}
    outliers = find_outliers(cohort.scans, by_scan, figures)
    reading = summarise_reading(cohort.rows)
    strip_document, no_strips = attempt("strips", partial(_strips, strips))
    groupings = {
        grouping: group_people(cohort.people, grouping) for grouping in (BY_PROTOCOL, *GROUPINGS)
    }
    return render_page(
        "group.html",
        title="Cerebral microbleeds: group",
        cohort=cohort,
        numbers=summarise(cohort),
        settings=_settings(cohort.scans),
        lost=_lost(cohort.scans),
        absent=_by_reason(cohort.absent),
        groupings=groupings,
        outcomes=OUTCOMES,
        ratings=RATINGS,
        classes=[label for label, _ in COUNT_CLASSES],
        prevalences={item: _prevalences(groupings, item) for item in OUTCOMES},
        distributions={rating: _distributions(groupings, rating) for rating in RATINGS},
        pooling=compare_protocols(cohort.people),
        reading=reading,
        agreement=cohort.agreement,
        strips=strips,
        strip_document=strip_document,
        no_strips=no_strips,
        bokeh=_bokeh(),
        viewer=_viewer(),
        packed_rows=pack(page_rows(cohort, figures, points)),
        packed_pairs=pack(followup.packed(cohort.scans)) if followup and followup.pairs else None,
        maps=map_views(cohort),
        outliers=outliers[:MAX_LISTED],
        n_outliers=len(outliers),
        links={values.get("scan"): cohort.report(values) for values in cohort.scans},
        pattern_rule=cohort.tables["cmb"].dictionary["pattern_definite"]["Description"],
    )


#: Tiles with a number of lesions -> column of the table of scans that is summed.
LISTED = {
    "definite": "n_listed_definite",
    "any": "n_listed_any",
    "diamagnetic": "n_diamagnetic",
}


def summarise(cohort: Cohort) -> dict[str, int | None]:
    """Count what there is, by the name under which the page shows it.

    Numbers of lesions are those of the scans where they are known, and None where they are known
    of no scan; ``_unknown`` after their names are the scans with a result that are left out.
    """
    scans = cohort.scans
    statuses = Counter(values["status"] for values in scans)
    complete = [values for values in scans if values["status"] == "complete"]
    return {
        "participants": len({v["participant_id"] for v in scans if counts_as_scan(v)}),
        "people": len(cohort.people),
        "absent": len(cohort.absent),
        **{status: statuses[status] for status in STATUSES},
        "read": sum(values.get("source") == "reviewed" for values in complete),
        **_listed(complete),
        "unknown": sum(values.get("n_any") is None for values in complete),
        "unrated": sum(
            _known(values, "any") and not _known(values, "definite") for values in complete
        ),
        "unplaced": sum(
            _known(values, "any") and None in (values.get(f"n_any_{zone}") for zone in ZONES)
            for values in complete
        ),
    }


def _listed(complete: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for name, column in LISTED.items():
        known = [values[column] for values in complete if values.get(column) is not None]
        found[name] = sum(known) if known or not complete else None
        found[f"{name}_unknown"] = len(complete) - len(known)
    return found


def _known(values: Mapping[str, Any], rating: str) -> bool:
    return values.get(f"n_{rating}") is not None


def _settings(scans: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return versions, schemes and detectors of the scans with a result."""
    complete = [values for values in scans if values["status"] == "complete"]
    names = {"versions": "cmbprep_version", "schemes": "scheme", "detectors": "detector"}
    return {
        title: sorted({str(v[name]) for v in complete if v.get(name) is not None})
        for title, name in names.items()
    }


@dataclass(frozen=True)
class Reason:
    """Scans or people without a result, for one reason."""

    status: str
    reason: str
    names: tuple[str, ...]


def _lost(scans: Iterable[Mapping[str, Any]]) -> list[Reason]:
    """Return the scans without a result by status and reason, the most frequent reason first."""
    found: dict[tuple[str, str], list[str]] = {}
    for values in scans:
        if values["status"] != "complete":
            key = (values["status"], str(values.get("reason") or "no reason given"))
            found.setdefault(key, []).append(values.get("scan") or "refused file")
    order = list(STATUSES)
    reasons = [Reason(*key, tuple(names)) for key, names in found.items()]
    return sorted(reasons, key=lambda r: (order.index(r.status), -len(r.names), r.reason))


def _by_reason(absent: Iterable[Absent]) -> list[Reason]:
    found: dict[str, list[str]] = {}
    for item in absent:
        found.setdefault(item.reason, []).append(item.participant)
    reasons = [Reason("", reason, tuple(names)) for reason, names in found.items()]
    return sorted(reasons, key=lambda item: (-len(item.names), item.reason))


def _prevalences(
    groupings: Mapping[Grouping, Sequence[Group]], outcome: Outcome
) -> dict[Grouping, list[tuple[Group, dict[str, Any]]]]:
    return {
        grouping: [
            (group, {rating: group.prevalence(outcome, rating) for rating in RATINGS})
            for group in groups
        ]
        for grouping, groups in groupings.items()
    }


def _distributions(
    groupings: Mapping[Grouping, Sequence[Group]], rating: str
) -> dict[Grouping, list[tuple[Group, Any]]]:
    return {
        grouping: [(group, group.distribution(rating)) for group in groups]
        for grouping, groups in groupings.items()
    }


def _strips(measures: Sequence[Measure]) -> Any:
    from markupsafe import Markup

    from cmbprep.group.strips import strip_document

    # No text of the document can end the element that holds it.
    return Markup(strip_document(tuple(measures)).replace("<", "\\u003c"))  # noqa: S704


def _bokeh() -> Any:
    from markupsafe import Markup

    from cmbprep.group.strips import bokeh_script

    return Markup(bokeh_script().replace("</script", "<\\/script"))  # noqa: S704


def _viewer() -> list[Any]:
    from markupsafe import Markup

    from cmbprep.reports.packing import viewer_files

    return [Markup(text) for text in viewer_files().values()]  # noqa: S704
