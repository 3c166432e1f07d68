"""The page of a cohort: numbers by protocol, all scans, maps in template space, what to check."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cmbprep.group.agreement import read
from cmbprep.group.agreement_tables import Agreement
from cmbprep.group.figures import count_figure, frequency_figure
from cmbprep.group.protocols import ProtocolGroup, find_outliers, group_by_protocol
from cmbprep.group.readers import summarise_reading
from cmbprep.group.standard_space import frequency_viewer, glass_brain
from cmbprep.lesions import ZONES, Lesion
from cmbprep.reports.figures.guarded import draw_all
from cmbprep.reports.page import render_page
from cmbprep.reports.results import STATUSES
from cmbprep.reports.text import plain, quality_title

if TYPE_CHECKING:
    from markupsafe import Markup

    from cmbprep.group.frequency import FrequencyMap
    from cmbprep.group.rows import Row
    from cmbprep.group.tables import Table

logger = logging.getLogger("cmbprep")

#: Histograms drawn; smaller protocols are in the table alone.
MAX_HISTOGRAMS = 9


def render_group_page(
    root: Path,
    rows: Sequence[Row],
    table: Table,
    quality: Table,
    maps: Sequence[FrequencyMap],
    notes: Sequence[str],
    *,
    private: bool = False,
) -> str:
    """Make the page of a cohort.

    Parameters
    ----------
    root
        The output dataset, for links to reports that are there.
    rows, table, quality
        The scans, the table of them, and the table of their quality figures.
    maps
        Frequency maps.
    notes
        What could not be done.
    private
        Whether readers are not compared, and reports not linked.

    Returns
    -------
    str
        The page; the same results give the same bytes.
    """
    protocols = group_by_protocol(rows, table)
    drawn, missing = _draw(rows, protocols, maps)
    reading = summarise_reading(rows)
    tallies = [row.tally for row in rows if row.tally is not None]
    # Withdrawn scans and refused files are no part of the dataset.
    scans = [row for row in rows if row.counts_as_scan]
    used = [values for row, values in zip(rows, table.values, strict=True) if row.counts_as_scan]
    order = list(STATUSES)
    return render_page(
        "group.html",
        title="Cerebral microbleeds: group",
        reading=reading,
        agreement=_agreement(root) if reading.read and not private else None,
        n_participants=len({row.subject for row in scans}),
        statuses=Counter(row.status for row in rows),
        n_definite=sum(len(tally.definite) for tally in tallies),
        n_possible=sum(tally.bounds(rating="possible")[0] for tally in tallies),
        n_unrated=sum(len(tally.unrated) for tally in tallies),
        n_unplaced=sum(bool(tally.unplaced) for tally in tallies),
        n_mimics=sum(len(tally.mimics) for tally in tallies),
        versions=_distinct(values["cmbprep_version"] for values in used),
        schemes=_distinct(values["scheme"] for values in used),
        detectors=_detectors(used),
        protocols=[_protocol_view(item) for item in protocols],
        hidden_histograms=max(0, len(protocols) - MAX_HISTOGRAMS),
        maps=maps,
        drawn=drawn,
        missing_figures=missing,
        outliers=find_outliers(rows, quality, protocols),
        lost=sorted(
            (row for row in rows if row.status != "complete"),
            key=lambda row: order.index(row.status),
        ),
        rows=list(zip(rows, table.values, strict=True)),
        reports={row.name: None if private else _report_link(root, row) for row in rows},
        notes=notes,
        pattern_rule=table.dictionary["pattern_definite"]["Description"],
        measure_title=_measure_title,
    )


def _agreement(root: Path) -> Agreement | None:
    """Return the agreement of the readers; None where no scan was read to the end."""
    cohort = read(root)
    return Agreement.compute(cohort) if cohort.read else None


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({str(value) for value in values if value is not None})


def _detectors(used: Sequence[dict[str, Any]]) -> list[str]:
    """Return the detectors that were used, with their versions where one name has several."""
    found = sorted(
        {
            (str(values["detector"]), str(values["detector_version"]))
            for values in used
            if values["detector"] is not None
        }
    )
    several = Counter(name for name, _ in found)
    return [f"{name} (version {version})" if several[name] > 1 else name for name, version in found]


def _report_link(root: Path, row: Row) -> str | None:
    """Return the address of a scan's report: of its session, or of its participant."""
    session = f"_ses-{row.entities['ses']}" if "ses" in row.entities else ""
    names = (f"sub-{row.subject}{session}.html", f"sub-{row.subject}.html")
    return next((quote(name) for name in names if (root / name).exists()), None)


def _protocol_view(group: ProtocolGroup) -> dict[str, Any]:
    """Return what the page says of a protocol."""
    positive = [count for count in group.counts() if count > 0]
    zones = [(zone, *group.zone(zone)) for zone in ZONES]
    return {
        "title": group.protocol.title,
        "scans": len(group.rows),
        "definite": group.prevalence(definite=True),
        "any_rating": group.prevalence(definite=False),
        "median": f"{median(positive):g} (max. {max(positive)})" if positive else "n/a",
        "zones": zones,
        "total": sum(least for _, least, _ in zones),
    }


def _draw(
    rows: Sequence[Row], protocols: Sequence[ProtocolGroup], maps: Sequence[FrequencyMap]
) -> tuple[dict[str, Markup], dict[str, str]]:
    """Draw the figures of the page; what cannot be drawn is named with the reason."""
    from markupsafe import Markup

    figures: dict[str, Callable[[], str]] = {}
    for item in maps:
        if not item.data.any():
            continue
        figures[f"sections {item.template}"] = partial(_draw_map, frequency_figure, item)
        figures[f"viewer {item.template}"] = partial(_draw_map, frequency_viewer, item)
        if points := _points(rows, item.template):
            figures[f"glass {item.template}"] = partial(glass_brain, points)
    if protocols:
        groups = [
            (item.protocol.physics, item.protocol.place, item.counts())
            for item in protocols[:MAX_HISTOGRAMS]
        ]
        figures["histograms"] = partial(count_figure, groups)
    # Figures made here, their text escaped by the canvas.
    return draw_all(figures, lambda _, svg: Markup(svg))  # noqa: S704


def _points(rows: Sequence[Row], template: str) -> list[Lesion]:
    """Return the microbleeds with a place in a template that nilearn has an outline of."""
    if not template.startswith("MNI152"):
        return []
    return [
        lesion
        for row in rows
        if row.tally and row.scan and row.scan.template == template
        for lesion in row.tally.counted
        if lesion.x_mni is not None
    ]


def _draw_map(draw: Callable[..., str], item: FrequencyMap) -> str:
    return draw(item.data, item.affine, _background(item))


def _background(item: FrequencyMap) -> NDArray[np.float32] | None:
    """Bring the template onto the map's grid; None where it is not available offline."""
    import nibabel as nib

    from cmbprep.spatial.grids import Grid, resample_to_grid, same_grid
    from cmbprep.templates import load_template

    try:
        image = nib.Nifti1Image.from_filename(load_template(item.template, offline=True).t1w)
        data, shape = np.asarray(image.dataobj, np.float32), item.data.shape
        if same_grid(data.shape, image.affine, shape, item.affine):
            return data
        grid = Grid((shape[0], shape[1], shape[2]), item.affine)
        return resample_to_grid(data, image.affine, grid)
    # Whatever a damaged template makes the readers raise: the map is shown without it.
    except Exception:
        logger.debug("the template %s cannot be shown", item.template, exc_info=True)
        return None


def _measure_title(name: str) -> str:
    stage, _, key = name.partition("_")
    titles = {"preproc": "scan", "lesions": "lesions", "anatomy": "T1w image"}
    return f"{quality_title(key)}, {plain(titles.get(stage, stage))}"
