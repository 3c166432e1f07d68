"""The page of a cohort: numbers by protocol, all scans, the frequency map, what to check."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cmbprep.group.protocols import ProtocolGroup, find_outliers, group_by_protocol
from cmbprep.lesions import ZONES
from cmbprep.reports.figures.guarded import draw_all
from cmbprep.reports.page import render_page
from cmbprep.reports.text import format_value, plain

if TYPE_CHECKING:
    from markupsafe import Markup

    from cmbprep.group.frequency import FrequencyMap
    from cmbprep.group.rows import Row
    from cmbprep.group.tables import ScanTable

__all__ = ["render_group_page"]

logger = logging.getLogger("cmbprep")

#: Statuses without a result, in the order in which they are listed.
LOST = ("failed", "incomplete", "refused", "withdrawn")
#: Histograms drawn; smaller protocols are in the table alone.
MAX_HISTOGRAMS = 9
#: Columns of the table of scans on the page; the file has them all.
COLUMNS = (
    ("status", "Status", "text"),
    ("n_definite", "Definite", "number"),
    ("n_possible", "Possible", "number"),
    ("n_lobar", "Lobar", "number"),
    ("n_deep", "Deep", "number"),
    ("n_infratentorial", "Infrat.", "number"),
    ("volume_mm3", "Volume (mm³)", "number"),
    ("pattern", "Pattern", "text"),
    ("n_diamagnetic", "Mimics", "number"),
    ("sequence", "Sequence", "text"),
    ("MagneticFieldStrength", "Field (T)", "number"),
    ("EchoTime", "TE (s)", "number"),
    ("SliceThickness", "Slice (mm)", "number"),
    ("ManufacturersModelName", "Scanner", "text"),
    ("n_warnings", "To check", "number"),
)


@dataclass(frozen=True)
class ProtocolView:
    """A protocol as the template shows it."""

    title: str
    scans: int
    participants: int
    definite: str
    any_rating: str
    median: str
    zones: tuple[tuple[str, str, float], ...]


def render_group_page(
    root: Path, table: ScanTable, maps: Sequence[FrequencyMap], notes: Sequence[str]
) -> str:
    """Make the page of a cohort.

    Parameters
    ----------
    root
        The output dataset, for links to reports that are there.
    table
        The table of scans.
    maps
        Frequency maps.
    notes
        What could not be done.

    Returns
    -------
    str
        The page; the same results give the same bytes.
    """
    protocols = group_by_protocol(table)
    drawn, missing = _draw(protocols, maps)
    reports = {row.subject: _report_link(root, row.subject) for row in table.rows}
    tallies = [row.tally for row in table.rows if row.tally is not None]
    return render_page(
        "group.html",
        title="Cerebral microbleeds: group",
        n_participants=len({row.subject for row in table.rows if row.counts_as_scan}),
        n_complete=table.count("complete"),
        n_failed=table.count("failed") + table.count("incomplete"),
        n_refused=table.count("refused"),
        n_withdrawn=table.count("withdrawn"),
        n_definite=sum(len(tally.definite) for tally in tallies),
        n_possible=sum(tally.bounds(rating="possible")[0] for tally in tallies),
        n_unrated=sum(len(tally.unrated) for tally in tallies),
        n_unplaced=sum(bool(tally.unplaced) for tally in tallies),
        n_mimics=sum(len(tally.mimics) for tally in tallies),
        versions=_distinct(table, "cmbprep_version"),
        schemes=_distinct(table, "scheme"),
        detectors=_detectors(table),
        protocols=[_protocol_view(item) for item in protocols],
        histograms=drawn.get("histograms"),
        hidden_histograms=max(0, len(protocols) - MAX_HISTOGRAMS),
        maps=[(item, drawn.get(item.path.name)) for item in maps],
        missing_figures=missing,
        outliers=find_outliers(table, protocols),
        lost=_lost(table.rows),
        columns=COLUMNS,
        rows=_table_rows(table),
        reports=reports,
        notes=notes,
        measure_title=_measure_title,
    )


def _distinct(table: ScanTable, column: str) -> list[str]:
    """Return the values of a column, each once, over the scans of the dataset."""
    values = zip(table.rows, table.column(column), strict=True)
    return sorted({str(value) for row, value in values if row.counts_as_scan and value is not None})


def _detectors(table: ScanTable) -> list[str]:
    """Return the detectors that were used, with their versions where one name has several."""
    names, versions = table.column("detector"), table.column("detector_version")
    found = sorted(
        {
            (str(name), str(version))
            for row, name, version in zip(table.rows, names, versions, strict=True)
            if row.counts_as_scan and name is not None
        }
    )
    names = [name for name, _ in found]
    return [
        f"{name} (version {version})" if names.count(name) > 1 else name for name, version in found
    ]


def _report_link(root: Path, subject: str) -> str | None:
    name = f"sub-{subject}.html"
    return quote(name) if (root / name).exists() else None


def _lost(rows: Sequence[Row]) -> list[Row]:
    """Return the scans without a result, failures first."""
    lost = [row for row in rows if row.status != "complete"]
    return sorted(lost, key=lambda row: LOST.index(row.status) if row.status in LOST else len(LOST))


def _protocol_view(protocol: ProtocolGroup) -> ProtocolView:
    counts = protocol.counts()
    zones = [(zone, *protocol.zone(zone)) for zone in ZONES]
    total = sum(least for _, least, _ in zones)
    return ProtocolView(
        title=protocol.title,
        scans=len(protocol.rows),
        participants=len(protocol.participants),
        definite=_prevalence(protocol, definite=True),
        any_rating=_prevalence(protocol, definite=False),
        median=_positive_median(counts),
        zones=tuple(
            (zone, _at_least(least, most), 100 * least / total if total else 0.0)
            for zone, least, most in zones
        ),
    )


def _at_least(least: int, most: int) -> str:
    """Write a sum of counts of which some may not be known."""
    if least == most:
        return str(least)
    return f"{least} or more" if least else "n/a"


def _prevalence(protocol: ProtocolGroup, *, definite: bool) -> str:
    positive, total, low, high = protocol.prevalence(definite=definite)
    if total == 0:
        return "n/a"
    share = 100 * positive / total
    return f"{positive} of {total}, {share:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def _positive_median(counts: Sequence[int]) -> str:
    positive = [count for count in counts if count > 0]
    if not positive:
        return "n/a"
    return f"{np.median(positive):g} (max. {max(positive)})"


def _draw(
    protocols: Sequence[ProtocolGroup], maps: Sequence[FrequencyMap]
) -> tuple[dict[str, Markup], dict[str, str]]:
    """Draw the figures of the page; what cannot be drawn is named with the reason."""
    from markupsafe import Markup

    figures = {item.path.name: partial(_draw_map, item) for item in maps if item.data.any()}
    if protocols:
        figures["histograms"] = partial(_draw_histograms, protocols[:MAX_HISTOGRAMS])
    # Figures made here, their text escaped by the canvas.
    return draw_all(figures, lambda _, svg: Markup(svg))  # noqa: S704


def _draw_histograms(protocols: Sequence[ProtocolGroup]) -> str:
    from cmbprep.group.figures import count_figure

    return count_figure([(item.physics, item.place, item.counts()) for item in protocols])


def _draw_map(item: FrequencyMap) -> str:
    from cmbprep.group.figures import frequency_figure

    return frequency_figure(item.data, item.affine, _background(item))


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


def _table_rows(table: ScanTable) -> list[tuple[Row, list[tuple[str, str]]]]:
    """Return the cells of each row: what is shown, and what it is sorted by."""
    columns = [table.column(name) for name, _, _ in COLUMNS]
    return [
        (row, [_cell(value) for value in values])
        for row, *values in zip(table.rows, *columns, strict=True)
    ]


def _cell(value: Any) -> tuple[str, str]:
    if value is None:
        return "n/a", ""
    key = repr(value) if isinstance(value, int | float) else str(value)
    return format_value(value), key


def _measure_title(name: str) -> str:
    from cmbprep.reports.text import quality_title

    stage, _, key = name.partition("_")
    titles = {"preproc": "scan", "lesions": "lesions", "anatomy": "T1w image"}
    return f"{quality_title(key)}, {plain(titles.get(stage, stage))}"
