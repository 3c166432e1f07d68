"""The page of a cohort: numbers by protocol, all scans, the frequency map, what to check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import CmbprepError
from cmbprep.group.protocols import ProtocolGroup, find_outliers, group_by_protocol
from cmbprep.lesions import ZONES

from .page import render_page
from .palette import plain
from .text import format_value

if TYPE_CHECKING:
    from markupsafe import Markup

    from cmbprep.group.frequency import FrequencyMap
    from cmbprep.group.rows import Row
    from cmbprep.group.tables import ScanTable

__all__ = ["render_group_page"]

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
    zones: tuple[tuple[str, int, float], ...]


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
    reports = {row.subject: _report_link(root, row.subject) for row in table.rows}
    tallies = [row.tally for row in table.rows if row.tally is not None]
    return render_page(
        "group.html",
        title="Cerebral microbleeds: group",
        n_participants=len({row.subject for row in table.rows}),
        n_complete=table.count("complete"),
        n_failed=table.count("failed") + table.count("incomplete"),
        n_refused=table.count("refused"),
        n_definite=sum(len(tally.definite) for tally in tallies),
        n_possible=sum(len(tally.counted) - len(tally.definite) for tally in tallies),
        n_mimics=sum(len(tally.mimics) for tally in tallies),
        versions=_distinct(table, "cmbprep_version"),
        schemes=_distinct(table, "scheme"),
        detectors=_detectors(table),
        protocols=[_protocol_view(item) for item in protocols],
        histograms=_histograms(protocols),
        hidden_histograms=max(0, len(protocols) - MAX_HISTOGRAMS),
        maps=[(item, _map_figure(item)) for item in maps],
        outliers=find_outliers(table, protocols),
        lost=[row for row in table.rows if row.status != "complete"],
        columns=COLUMNS,
        rows=_table_rows(table),
        reports=reports,
        notes=notes,
        measure_title=_measure_title,
    )


def _distinct(table: ScanTable, column: str) -> list[str]:
    return sorted({str(value) for value in table.column(column) if value is not None})


def _detectors(table: ScanTable) -> list[str]:
    """Detectors that were used, with their versions where one name has several."""
    pairs = zip(table.column("detector"), table.column("detector_version"), strict=True)
    found = sorted({(str(name), str(version)) for name, version in pairs if name is not None})
    names = [name for name, _ in found]
    return [
        f"{name} (version {version})" if names.count(name) > 1 else name for name, version in found
    ]


def _report_link(root: Path, subject: str) -> str | None:
    name = f"sub-{subject}.html"
    return quote(name) if (root / name).exists() else None


def _protocol_view(protocol: ProtocolGroup) -> ProtocolView:
    counts = protocol.counts()
    zones = [(zone, protocol.zone(zone)) for zone in ZONES]
    total = sum(number for _, number in zones)
    return ProtocolView(
        title=protocol.title,
        scans=len(protocol.rows),
        participants=len(protocol.participants),
        definite=_prevalence(protocol, definite=True),
        any_rating=_prevalence(protocol, definite=False),
        median=_positive_median(counts),
        zones=tuple(
            (zone, number, 100 * number / total if total else 0.0) for zone, number in zones
        ),
    )


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


def _histograms(protocols: Sequence[ProtocolGroup]) -> Markup | None:
    from markupsafe import Markup

    from .group_figures import count_figure

    groups = [(item.physics, item.place, item.counts()) for item in protocols[:MAX_HISTOGRAMS]]
    # A figure made here, its text escaped by the canvas.
    return Markup(count_figure(groups)) if groups else None  # noqa: S704


def _map_figure(item: FrequencyMap) -> Markup | None:
    from markupsafe import Markup

    from .group_figures import frequency_figure

    if not item.data.any():
        return None
    return Markup(frequency_figure(item.data, item.affine, _background(item)))  # noqa: S704


def _background(item: FrequencyMap) -> NDArray[np.float32] | None:
    """Bring the template onto the map's grid; None where it is not available offline."""
    import nibabel as nib

    from cmbprep.algorithms.grids import Grid, resample_to_grid
    from cmbprep.templates import load_template

    try:
        image = nib.Nifti1Image.from_filename(load_template(item.template, offline=True).t1w)
        data, shape = np.asarray(image.dataobj, np.float32), item.data.shape
        if data.shape == shape and np.allclose(image.affine, item.affine, atol=1e-3):
            return data
        grid = Grid((shape[0], shape[1], shape[2]), item.affine)
        return resample_to_grid(data, image.affine, grid)
    except (CmbprepError, OSError, ImportError):
        return None


def _table_rows(table: ScanTable) -> list[tuple[Row, list[tuple[str, str]]]]:
    """Give the cells of each row: what is shown, and what it is sorted by."""
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
    from .text import quality_title

    stage, _, key = name.partition("_")
    titles = {"preproc": "scan", "lesions": "lesions", "anatomy": "T1w image"}
    return f"{quality_title(key)}, {plain(titles.get(stage, stage))}"
