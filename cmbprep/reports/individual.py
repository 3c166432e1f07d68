"""The report of one participant: all sessions and scans, on one page that opens offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbprep.lesions import MISSING, RATINGS, ZONES, Lesion
from cmbprep.outputs.files import write_text
from cmbprep.outputs.stages import StageRecord
from cmbprep.reports.figures.lesions import describe_lesion
from cmbprep.reports.page import embed_figure, link_to, render_page
from cmbprep.reports.results import ScanResult, SubjectResult, collect_results, lesion_number
from cmbprep.reports.tally import SCALES, UNKNOWN_ZONE, Tally, volume_of
from cmbprep.reports.text import (
    flatten,
    format_value,
    load_spec,
    methods_text,
    plain,
    quality_title,
    quantity,
    sentence,
)

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["write_subject_report"]

STAGE_TITLES = {
    "anatomy": "T1w image",
    "preproc": "Preparation of the scan",
    "lesions": "Detection and zones",
}


@dataclass(frozen=True)
class Figure:
    """A figure with what stands under it, or why it is missing."""

    anchor: str
    title: str
    caption: str
    svg: Markup | None
    missing: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is shown, and what it is sorted by."""

    text: str
    key: str
    kind: str = "text"


@dataclass(frozen=True)
class LesionView:
    """A row of the lesion table with its figure."""

    anchor: str
    number: str
    title: str
    details: str
    zone: str
    mimic: bool
    cells: tuple[Cell, ...]
    figure: Markup | None
    missing: str = ""


@dataclass(frozen=True)
class ScanView:
    """One scan as the template shows it."""

    anchor: str
    result: ScanResult
    tally: Tally | None
    acquisition: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]
    counts: tuple[tuple[str, ...], ...]
    burden: tuple[tuple[str, str, str, str], ...]
    overview: Figure | None
    lesions: tuple[LesionView, ...]
    figures: tuple[Figure, ...]
    quality: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    files: tuple[tuple[str, str], ...]
    parameters: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True)
class AnatomyView:
    """One T1w image as the template shows it."""

    anchor: str
    name: str
    figures: tuple[Figure, ...]
    quality: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    warnings: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    parameters: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def write_subject_report(root: Path, subject: str) -> Path:
    """Write the report of a participant from what the output dataset holds.

    Parameters
    ----------
    root
        The output dataset.
    subject
        Label of the participant, without ``sub-``.

    Returns
    -------
    Path
        ``sub-<subject>.html`` at the top of the dataset. The same results give the same
        bytes: there are no dates and no absolute paths in it.
    """
    root = Path(root)
    found = collect_results(root, subject=subject)
    result = found[0] if found else SubjectResult(subject=subject)
    return write_text(root / f"sub-{subject}.html", _render(root, result))


def _render(root: Path, result: SubjectResult) -> str:
    scans = [_scan_view(root, scan, f"scan-{n}") for n, scan in enumerate(result.scans, start=1)]
    anatomies = [
        _anatomy_view(root, record, f"anatomy-{n}")
        for n, record in enumerate(result.anatomies, start=1)
    ]
    records = [*result.anatomies, *(record for scan in result.scans for record in scan.records)]
    versions = sorted({str(record.block.get("Version", "n/a")) for record in records})
    return render_page(
        "individual.html",
        title=f"sub-{result.subject}: cerebral microbleeds",
        subject=result.subject,
        scans=scans,
        anatomies=anatomies,
        refused=result.refused,
        superseded=result.superseded,
        methods=methods_text(records),
        versions=versions,
        schemes=sorted({record.files.names.scheme for record in records}),
        templates=sorted({record.files.names.template for record in records}),
        lesion_columns=load_spec()["lesion_columns"],
        scales=SCALES,
        errors=[scan for scan in scans if scan.result.error is not None],
    )


def _scan_view(root: Path, result: ScanResult, anchor: str) -> ScanView:
    tally = Tally(result.lesions) if result.status == "complete" else None
    spec = load_spec()
    folder = root / result.unit.partition("_")[0] / "figures"
    names = {"src": result.src, "suffix": result.suffix}
    shelf = _Shelf.of(folder, result.records)
    overview = None
    if tally and result.lesions:
        overview = shelf.figure(spec["overview"], names, anchor)
    figures = _figures(shelf, spec["scan_figures"], names, anchor)
    lesions = _lesion_views(shelf, result, anchor) if tally else ()
    shown = (overview, *figures) if overview else figures
    return ScanView(
        anchor=anchor,
        result=result,
        tally=tally,
        acquisition=_acquisition(result),
        flags=(*_flags(result, tally), *_missing_figures(shown, lesions)),
        counts=_counts(tally) if tally else (),
        burden=_burden(tally) if tally else (),
        overview=overview,
        lesions=lesions,
        figures=figures,
        quality=_quality(result.records),
        files=_files(root, result.records),
        parameters=_parameters(result.records),
    )


def _anatomy_view(root: Path, record: StageRecord, anchor: str) -> AnatomyView:
    names = record.files.names
    shelf = _Shelf.of(root / f"sub-{names.subject}" / "figures", [record])
    figures = _figures(shelf, load_spec()["anatomy_figures"], {"src": names.src}, anchor)
    warnings = (sentence(str(text)) for text in record.block.get("Warnings", ()))
    return AnatomyView(
        anchor=anchor,
        name=f"{names.src}_T1w",
        figures=figures,
        quality=_quality([record]),
        warnings=(*warnings, *_missing_figures(figures)),
        files=_files(root, [record]),
        parameters=_parameters([record]),
    )


@dataclass(frozen=True)
class _Shelf:
    """Where the figures of a scan or T1w image are, and what its stages say of them.

    Parameters
    ----------
    folder
        The folder of the figures.
    given
        Figures of what another program has made: there is nothing to be drawn.
    stages
        The finished stages.
    missing
        File name -> why the figure could not be drawn.
    """

    folder: Path
    stages: frozenset[str]
    given: frozenset[str]
    missing: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path, records: Sequence[StageRecord]) -> _Shelf:
        missing: dict[str, str] = {}
        given = set()
        for record in records:
            told = record.block.get("MissingFigures")
            if isinstance(told, Mapping):
                missing |= {str(name): str(reason) for name, reason in told.items()}
            parameters = record.block.get("Parameters")
            if isinstance(parameters, Mapping) and parameters.get("bias_correction") == "given":
                given.add("bias")
        stages = frozenset(record.files.stage for record in records)
        return cls(folder, stages, frozenset(given), missing)

    def take(self, name: str) -> tuple[Markup | None, str]:
        """Return a figure for the page, or why it is missing."""
        if name in self.missing:
            # A file that is there all the same is one of an earlier run.
            return None, f"the figure {name} is missing: {self.missing[name].rstrip('.')}"
        return embed_figure(self.folder / name)

    def expects(self, entry: Mapping[str, str]) -> bool:
        """Return whether a figure of the specification belongs to what was done."""
        return entry["stage"] in self.stages and entry.get("key") not in self.given

    def figure(self, entry: Mapping[str, str], names: Mapping[str, str], anchor: str) -> Figure:
        """Return a figure of the specification with its title and caption."""
        svg, missing = self.take(entry["figure"].format(**names))
        key = f"{anchor}-{entry['key']}"
        return Figure(key, entry["title"], entry["caption"], svg, missing)


def _figures(
    shelf: _Shelf, specs: Sequence[Mapping[str, str]], names: Mapping[str, str], anchor: str
) -> tuple[Figure, ...]:
    """Gather the figures that are to be expected, in the order of the specification."""
    return tuple(shelf.figure(entry, names, anchor) for entry in specs if shelf.expects(entry))


def _missing_figures(
    figures: Sequence[Figure], lesions: Sequence[LesionView] = ()
) -> tuple[str, ...]:
    """Name the figures that are missing, if there are any."""
    names = [figure.title for figure in figures if figure.missing]
    lost = [lesion.number for lesion in lesions if lesion.missing]
    if len(lost) > 8:
        names.append(f"{len(lost)} lesions")
    elif lost:
        names.append(f"lesion{'' if len(lost) == 1 else 's'} {', '.join(lost)}")
    if not names:
        return ()
    listed = ", ".join(names)
    return (f"Missing figures (the results do not depend on them): {listed}",)


def _acquisition(result: ScanResult) -> tuple[tuple[str, str], ...]:
    """Return how the scan was acquired: counts mean little without it."""
    metadata = dict(result.metadata)
    sequence = next((str(r.block["Sequence"]) for r in result.records if "Sequence" in r.block), "")
    rows = [("Contrast", sequence or result.suffix)]
    times = next((r.block["EchoTimes"] for r in result.records if r.block.get("EchoTimes")), None)
    if times and len(times) > 1:
        # Several echoes: all of their times, not the first one's.
        metadata["EchoTime"] = [None if t is None else round(1000 * t, 3) for t in times]
    for entry in load_spec()["acquisition"]:
        text = quantity(metadata, entry)
        if text is not None:
            rows.append((entry["title"], text))
    voxel = result.voxel_size
    if voxel is not None:
        rows.append(("Voxel", " × ".join(f"{size:.3g}" for size in voxel) + " mm"))
    missing = [
        entry["title"].lower()
        for entry in load_spec()["acquisition"]
        if entry["key"] in ("MagneticFieldStrength", "EchoTime", "Manufacturer")
        and metadata.get(entry["key"]) is None
    ]
    if missing:
        rows.append(("Not in the sidecar", ", ".join(missing)))
    return (*rows, *_given(result))


def _given(result: ScanResult) -> Iterable[tuple[str, str]]:
    """Return which parts of a scan's anatomy another program has made."""
    values: dict[str, Any] = {}
    for record in result.records:
        values.update(record.block.get("Parameters", {}))
    if values.get("brain_mask") == "given":
        yield "Brain mask", f"given ({values.get('brain_mask_from')})"
    if values.get("zones") == "segmentation":
        yield "Zones", f"from the person's own segmentation ({values.get('zones_from')})"


def _flags(result: ScanResult, tally: Tally | None) -> tuple[str, ...]:
    """List what a reader should look at before trusting the counts."""
    flags = [sentence(text) for text in result.doubts]
    if tally is None:
        return tuple(flags)
    near = [str(item.index) for item in tally.counted if item.boundary]
    if near:
        flags.append(
            f"{_plural(len(near), 'lesion lies', 'lesions lie')} so near to the border of a zone "
            f"that the zone could change (no. {', '.join(near)})"
        )
    unknown = [str(item.index) for item in tally.counted if item.zone is None]
    if unknown:
        flags.append(
            f"{_plural(len(unknown), 'lesion has', 'lesions have')} no zone "
            f"(no. {', '.join(unknown)})"
        )
    if tally.unplaced:
        flags.append(
            f"{_plural(len(tally.unplaced), 'lesion was', 'lesions were')} not compared with the "
            "zone atlas: counts by zone and region are not known and are n/a"
        )
    if tally.unrated:
        flags.append(
            f"{_plural(len(tally.unrated), 'lesion has', 'lesions have')} no rating: numbers of "
            "definite and possible ones are not known and are n/a"
        )
    if tally.mimics:
        flags.append(
            f"{_plural(len(tally.mimics), 'spot is', 'spots are')} diamagnetic, as calcium is: "
            "listed, not counted"
        )
    return tuple(flags)


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _counts(tally: Tally) -> tuple[tuple[str, ...], ...]:
    """Count by zone and rating: zone, definite, possible, all, volume."""
    rows = []
    for zone in tally.zones:
        counts = [tally.count(zone=zone, rating=rating) for rating in (*RATINGS, None)]
        known = counts[-1] is not None
        volume = f"{volume_of(tally.select(zone=zone)):.1f}" if known else MISSING
        rows.append((zone, *map(_known, counts), volume))
    totals = [tally.count(rating=rating) for rating in (*RATINGS, None)]
    rows.append(("all", *map(_known, totals), f"{tally.volume:.1f}"))
    return tuple(rows)


def _known(value: int | str | None) -> str:
    """Write a count or a class; a value that is not known is never written as zero."""
    return MISSING if value is None else str(value)


def _burden(tally: Tally) -> tuple[tuple[str, str, str, str], ...]:
    """Burden classes: what is counted, class, class with possible ones, source."""
    from cmbprep.zones.burden import BURDEN_SCALES

    return tuple(
        (
            BURDEN_SCALES[scale].counts,
            _known(tally.burden(scale)),
            _known(tally.burden(scale, definite=False)),
            BURDEN_SCALES[scale].source,
        )
        for scale in SCALES
    )


def _lesion_views(shelf: _Shelf, result: ScanResult, anchor: str) -> tuple[LesionView, ...]:
    pattern = load_spec()["lesion"]["figure"]
    views = []
    for lesion in result.lesions:
        number = lesion_number(lesion)
        name = pattern.format(src=result.src, suffix=result.suffix, number=number)
        svg, missing = shelf.take(name)
        views.append(
            LesionView(
                anchor=f"{anchor}-lesion-{lesion.index}",
                number=str(lesion.index),
                title=describe_lesion(lesion),
                details=_lesion_details(lesion),
                zone=lesion.zone or UNKNOWN_ZONE,
                mimic=lesion.susceptibility == "diamagnetic",
                cells=tuple(_lesion_cells(lesion)),
                figure=svg,
                missing=missing,
            )
        )
    return tuple(views)


def _lesion_details(lesion: Lesion) -> str:
    """Return the text under a lesion's figure: everything that its heading leaves out."""
    parts = [f"at {_position(lesion, ('x', 'y', 'z'))} mm"]
    if lesion.x_mni is not None:
        parts.append(f"template {_position(lesion, ('x_mni', 'y_mni', 'z_mni'))} mm")
    if lesion.contrast is not None:
        parts.append(f"contrast {lesion.contrast:.2f}")
    if lesion.region_fraction is not None:
        parts.append(f"{lesion.region_fraction:.0%} in the region")
    if lesion.boundary_distance_mm is not None:
        near = ", which could change it" if lesion.boundary else ""
        parts.append(f"{lesion.boundary_distance_mm:.1f} mm to the next zone{near}")
    return " · ".join(parts)


def _position(lesion: Lesion, axes: Sequence[str], decimals: int = 1) -> str:
    values = [format_value(getattr(lesion, axis), decimals=decimals) for axis in axes]
    return "n/a" if set(values) == {"n/a"} else ", ".join(values)


def _lesion_cells(lesion: Lesion) -> Iterable[Cell]:
    order = {"zone": ZONES, "rating": RATINGS}
    for column in load_spec()["lesion_columns"]:
        if "columns" in column:
            text = _position(lesion, column["columns"], column["decimals"])
            yield Cell(text, text.replace("−", "-"), "position")
            continue
        name = column["column"]
        value = getattr(lesion, name)
        text = plain(format_value(value, decimals=column.get("decimals")))
        if column["kind"] == "number":
            # Missing values sort below all others.
            key = "" if value is None else repr(value)
        elif name in order and value in order[name]:
            key = str(order[name].index(value))
        else:
            key = text
        yield Cell(text, key, column["kind"])


def _quality(
    records: Sequence[StageRecord],
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """List the figures of merit of each stage that has any."""
    return tuple(
        (
            STAGE_TITLES[record.files.stage],
            tuple(
                (quality_title(key), format_value(value))
                for key, value in flatten(record.block["Quality"]).items()
                if value is not None
            ),
        )
        for record in records
        if record.block.get("Quality")
    )


def _parameters(
    records: Sequence[StageRecord],
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """List what each stage ran with."""
    rows = []
    for record in records:
        pairs = [("cmbprep", str(record.block.get("Version", "n/a")))]
        pairs += _pairs(record.block.get("Parameters", {}))
        pairs += [("sources", ", ".join(map(str, record.metadata.get("Sources", ()))) or "n/a")]
        pairs += [("fingerprint", str(record.block.get("Fingerprint", "n/a"))[:16])]
        rows.append((STAGE_TITLES[record.files.stage], tuple(pairs)))
    return tuple(rows)


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((plain(key), format_value(value)) for key, value in flatten(values).items())


def _files(root: Path, records: Sequence[StageRecord]) -> tuple[tuple[str, str], ...]:
    """Link to every file of the stages: name and address."""
    found: dict[str, str] = {}
    for record in records:
        paths = [record.files.path(key) for key in record.files.keys]
        paths.append(record.files.sidecar)
        found.update({path.name: link_to(path, root) for path in paths if path.exists()})
    return tuple(found.items())
