"""The report of one participant, on one page or one per session; a page opens offline."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cmbprep.followup.pair import FollowUp, find_pairs
from cmbprep.lesions import RATINGS, ZONES, Lesion
from cmbprep.outputs.files import write_text
from cmbprep.outputs.stages import StageRecord
from cmbprep.ratings.choice import ReaderChoice
from cmbprep.reports.figures.lesions import describe_lesion
from cmbprep.reports.followup import followed_scans, followup_views
from cmbprep.reports.packing import VIEWER_SCRIPTS, viewer_files
from cmbprep.reports.page import embed_figure, link_to, render_page
from cmbprep.reports.quality import summarise, trust
from cmbprep.reports.reading_view import (
    draw_reading,
    heading,
    methods_sentences,
    reader_notes,
    review_cells,
    source_sentence,
)
from cmbprep.reports.results import MIN_COVERAGE, ScanResult, SubjectResult, lesion_number
from cmbprep.reports.reviewed import collect_reviewed
from cmbprep.reports.sessions import remove_other_pages, report_units
from cmbprep.reports.slices import budget, scan_slices
from cmbprep.reports.text import format_value, load_spec, methods_text, quantity, sentence
from cmbprep.zones.burden import BURDEN_SCALES, DEFAULT_RULE, PATTERN_RULES
from cmbprep.zones.tally import SCALES, Tally

if TYPE_CHECKING:
    from markupsafe import Markup

    from cmbprep.ratings.reading import ScanReading

logger = logging.getLogger("cmbprep")


@dataclass(frozen=True)
class Figure:
    """A figure with what stands under it, or why it is missing."""

    anchor: str
    title: str
    caption: str
    svg: Markup | None
    missing: str = ""


def write_subject_report(root: Path, subject: str, choice: ReaderChoice | None = None) -> Path:
    """Write the report of a participant on one page, as :func:`write_reports` does."""
    return write_reports(root, subject, choice)[0]


def write_reports(
    root: Path,
    subject: str,
    choice: ReaderChoice | None = None,
    *,
    per: str = "participant",
    pattern_rule: str = DEFAULT_RULE,
) -> list[Path]:
    """Write the pages of a participant from what the output dataset holds.

    Pages of an earlier arrangement are removed: those of sessions where one page holds all, and
    the other way round.

    Parameters
    ----------
    root
        The output dataset.
    subject
        Label of the participant, without ``sub-``.
    choice
        Whose reviews count; by default those of the only reader.
    per
        What a page is for: ``participant`` or ``session``.
    pattern_rule
        What cerebellar microbleeds count as in the pattern, one of :data:`.PATTERN_RULES`.

    Returns
    -------
    list of Path
        ``sub-<subject>.html`` at the top of the dataset, or ``sub-<subject>_ses-<session>.html``
        for each session. The same results give the same bytes: there are no dates in them but
        those of reviews, and no absolute paths.
    """
    root = Path(root)
    found = collect_reviewed(root, choice or ReaderChoice(), subject=subject)
    result = found[0] if found else SubjectResult(subject=subject)
    for scan in result.scans:
        for text in () if scan.reading is None else scan.reading.warnings:
            logger.warning("warning: %s: %s", scan.name, text)
    units = report_units(result, per)
    followups = find_pairs(root, followed_scans(result))
    written = [
        write_text(
            root / f"{unit}.html",
            _render(root, part, unit, list(units), pattern_rule, followups),
        )
        for unit, part in units.items()
    ]
    remove_other_pages(root, subject, [path.name for path in written])
    return written


def _render(
    root: Path,
    result: SubjectResult,
    unit: str,
    units: Sequence[str],
    pattern_rule: str,
    followups: Sequence[FollowUp],
) -> str:
    """Render the page of a unit; ``units`` and ``followups`` are all of the participant."""
    sessions = {scan.entities.get("ses") for scan in result.scans}
    records = [*result.anatomies, *(record for scan in result.scans for record in scan.records)]
    methods = methods_text(records)
    read = methods_sentences(result.scans)
    scans = [
        _scan_view(root, scan, f"scan-{n}", pattern_rule) for n, scan in enumerate(result.scans, 1)
    ]
    anatomies = [
        _anatomy_view(root, record, f"anatomy-{n}") for n, record in enumerate(result.anatomies, 1)
    ]
    _add_slices(scans, anatomies)
    return render_page(
        "individual.html",
        title=f"{unit}: cerebral microbleeds",
        subject=result.subject,
        unit=unit,
        pages=[(name, quote(f"{name}.html")) for name in units],
        scans=scans,
        followups=followup_views(root, followups, sessions),
        anatomies=anatomies,
        viewer=_viewer() if any(scan["slices"] for scan in scans) else "",
        errors=[scan for scan in result.scans if scan.error is not None],
        refused=result.refused,
        superseded=result.superseded,
        methods=methods._replace(sentences=(*methods.sentences, *read)),
        n_read=sum(scan.reviewed for scan in result.scans),
        n_results=sum(scan.status == "complete" for scan in result.scans),
        versions=sorted({str(record.block.get("Version", "n/a")) for record in records}),
        schemes=sorted({record.files.names.scheme for record in records}),
        templates=sorted({record.files.names.template for record in records}),
        levels={"zone": ZONES, "rating": RATINGS},
        scales=[(name, BURDEN_SCALES[name]) for name in SCALES],
        pattern_rule=(pattern_rule, PATTERN_RULES[pattern_rule]),
        position=_position,
    )


def _viewer() -> Markup:
    """Return the scripts of the viewer: files of the program."""
    from markupsafe import Markup

    files = viewer_files()
    return Markup("\n".join(files[name] for name in VIEWER_SCRIPTS))  # noqa: S704


def _add_slices(scans: Sequence[dict[str, Any]], anatomies: Sequence[Mapping[str, Any]]) -> None:
    """Add the voxels of each scan with a result, as large as the figures of the page allow."""
    figures = [item for view in (*scans, *anatomies) for item in view["figures"]]
    figures += [view["overview"] for view in scans if view["overview"]]
    used = sum(len(item.svg or "") for item in figures)
    used += sum(len(item["figure"] or "") for view in scans for item in view["lesions"])
    complete = [view for view in scans if view["tally"]]
    limit = budget(used, len(complete))
    for view in complete:
        view["slices"] = scan_slices(view["result"], view["anchor"], limit)


def _scan_view(root: Path, result: ScanResult, anchor: str, pattern_rule: str) -> dict[str, Any]:
    """Return what the template shows of a scan."""
    complete = result.status == "complete"
    tally = Tally(result.lesions, pattern_rule, result.unseen) if complete else None
    spec = load_spec()
    folder = root / result.unit.partition("_")[0] / "figures"
    names = {"src": result.src, "suffix": result.suffix}
    shelf = _Shelf.of(folder, result.records)
    overview = None
    lesions: list[dict[str, Any]] = []
    columns = spec["lesion_columns"]
    if tally and result.reviewed and result.reading is not None:
        overview, lesions = _reading_views(result.reading, anchor)
        columns = [column for item in columns for column in item.get("reviewed", (item,))]
    elif tally:
        overview = shelf.figure(spec["overview"], names, anchor) if result.lesions else None
        lesions = _lesion_views(shelf, result, anchor)
    figures = shelf.expected(spec["scan_figures"], names, anchor)
    shown = (overview, *figures) if overview else figures
    source = source_sentence(result) if tally else ""
    trusted = trust(result, tally, source) if tally else ()
    return {
        "anchor": anchor,
        "result": result,
        "tally": tally,
        "acquisition": tuple(_acquisition(result)),
        "flags": (*_flags(result, tally), *_missing_figures(shown, lesions)),
        "counts": count_rows(tally) if tally else (),
        "overview": overview,
        "trust": trusted,
        "trust_in_short": summarise(trusted),
        "slices": None,
        "notes": reader_notes(result),
        "lesions": lesions,
        "lesion_columns": columns,
        "figures": figures,
        "files": (*_files(root, result.records), *_review_files(root, result)),
    }


def _anatomy_view(root: Path, record: StageRecord, anchor: str) -> dict[str, Any]:
    """Return what the template shows of a T1w image."""
    names = record.files.names
    shelf = _Shelf.of(root / f"sub-{names.subject}" / "figures", [record])
    figures = shelf.expected(load_spec()["anatomy_figures"], {"src": names.src}, anchor)
    warnings = (sentence(str(text)) for text in record.block.get("Warnings", ()))
    return {
        "anchor": anchor,
        "name": f"{names.src}_T1w",
        "record": record,
        "figures": figures,
        "warnings": (*warnings, *_missing_figures(figures)),
        "files": _files(root, [record]),
    }


@dataclass(frozen=True)
class _Shelf:
    """Where the figures of a scan or T1w image are, and what its stages say of them.

    Parameters
    ----------
    folder
        The folder of the figures.
    stages
        The finished stages.
    given
        Figures of what another program has made: there is nothing to be drawn.
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
            told, parameters = record.block.get("MissingFigures"), record.block.get("Parameters")
            if isinstance(told, Mapping):
                missing |= {str(name): str(reason) for name, reason in told.items()}
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

    def figure(self, entry: Mapping[str, str], names: Mapping[str, str], anchor: str) -> Figure:
        """Return a figure of the specification with its title and caption."""
        taken = self.take(entry["figure"].format(**names))
        return Figure(f"{anchor}-{entry['key']}", entry["title"], entry["caption"], *taken)

    def expected(
        self, entries: Sequence[Mapping[str, str]], names: Mapping[str, str], anchor: str
    ) -> tuple[Figure, ...]:
        """Return the figures of the specification that belong to what was done."""
        return tuple(
            self.figure(entry, names, anchor)
            for entry in entries
            if entry["stage"] in self.stages and entry["key"] not in self.given
        )


def _missing_figures(
    figures: Sequence[Figure], lesions: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, ...]:
    """Name the figures that are missing, if there are any."""
    names = [figure.title for figure in figures if figure.missing]
    lost = [str(lesion["row"].index) for lesion in lesions if lesion["missing"]]
    if len(lost) > 8:
        names.append(f"{len(lost)} lesions")
    elif lost:
        names.append(f"lesion{'' if len(lost) == 1 else 's'} {', '.join(lost)}")
    listed = ", ".join(names)
    return (f"Missing figures (the results do not depend on them): {listed}",) if names else ()


def _acquisition(result: ScanResult) -> Iterable[tuple[str, str]]:
    """Return how the scan was acquired: counts mean little without it."""
    metadata = dict(result.metadata)
    yield "Contrast", str(result.recorded("Sequence") or result.suffix)
    times = result.recorded("EchoTimes")
    if times and len(times) > 1:
        # Several echoes: all of their times, not the first one's.
        metadata["EchoTime"] = [None if t is None else round(1000 * t, 3) for t in times]
    entries = load_spec()["acquisition"]
    for entry in entries:
        text = quantity(metadata, entry)
        if text is not None:
            yield entry["title"], text
    voxel = result.voxel_size
    if voxel is not None:
        yield "Voxel", " × ".join(f"{size:.3g}" for size in voxel) + " mm"
    needed = ("MagneticFieldStrength", "EchoTime", "Manufacturer")
    missing = [
        entry["title"].lower()
        for entry in entries
        if entry["key"] in needed and metadata.get(entry["key"]) is None
    ]
    if missing:
        yield "Not in the sidecar", ", ".join(missing)
    # What another program has made of the scan's anatomy.
    values: dict[str, Any] = {}
    for record in result.records:
        values.update(record.block.get("Parameters", {}))
    if values.get("brain_mask") == "given":
        yield "Brain mask", f"given ({values.get('brain_mask_from')})"
    if values.get("zones") == "segmentation":
        yield "Zones", f"from the person's own segmentation ({values.get('zones_from')})"


def _flags(result: ScanResult, tally: Tally | None) -> Iterable[str]:
    """List what a reader should look at before trusting the counts."""
    for text in result.doubts:
        yield sentence(text)
    if tally is None:
        return
    found = {
        "boundary": [item for item in tally.counted if item.boundary],
        "zone": [item for item in tally.counted if item.zone is None],
        "unplaced": tally.unplaced,
        "unrated": tally.unrated,
        "mimics": tally.mimics,
    }
    for key, entry in load_spec()["flags"].items():
        if lesions := found[key]:
            numbers = ", ".join(str(item.index) for item in lesions)
            what = entry["one" if len(lesions) == 1 else "several"]
            yield f"{len(lesions)} {what} {entry['text'].format(numbers=numbers)}"
    if tally.unseen:
        zones = ", ".join(zone for zone in ZONES if zone in tally.unseen)
        yield (
            f"Less than {MIN_COVERAGE:.0%} of these zones is known to be seen: {zones}; counts of "
            f"them and of the whole brain are n/a. {_listed(tally)} on this scan, and there may be "
            "more. Pattern and burden classes are given only where more microbleeds could not "
            "change them"
        )


def _listed(tally: Tally) -> str:
    """Return how many microbleeds are listed, as the beginning of a sentence."""
    counts = {rating: tally.listed.count(rating=rating) for rating in RATINGS}
    numbers = " and ".join(f"{format_value(n)} {rating}" for rating, n in counts.items())
    one = sum(n or 0 for n in counts.values()) == 1
    return f"{numbers} microbleed{' is' if one else 's are'} listed"


def count_rows(tally: Tally) -> list[tuple[Any, ...]]:
    """Return counts of each zone and all: zone, definite, possible, all, volume in mm³.

    The numbers are those of the group tables: None where a zone was not seen, or where a lesion
    lacks what decides its count.
    """
    places: list[tuple[str, str | None]] = [(zone, zone) for zone in tally.zones]
    return [
        (
            name,
            *(tally.count(zone=zone, rating=rating) for rating in (*RATINGS, None)),
            tally.volume_mm3(definite=False, zone=zone),
        )
        for name, zone in (*places, ("all", None))
    ]


def _lesion_views(shelf: _Shelf, result: ScanResult, anchor: str) -> list[dict[str, Any]]:
    """Return what the template shows of each lesion: its row, heading, text and figure."""
    pattern = load_spec()["lesion"]["figure"]
    views = []
    for lesion in result.lesions:
        number = lesion_number(lesion)
        figure, missing = shelf.take(
            pattern.format(src=result.src, suffix=result.suffix, number=number)
        )
        views.append(
            {
                "anchor": f"{anchor}-lesion-{lesion.index}",
                "row": lesion,
                "read": {},
                "title": describe_lesion(lesion),
                "details": _lesion_details(lesion),
                "figure": figure,
                "missing": missing,
            }
        )
    return views


def _reading_views(reading: ScanReading, anchor: str) -> tuple[Figure | None, list[dict[str, Any]]]:
    """Return the overview of the lesions of a review, and what the template shows of each."""
    drawn, missing = draw_reading(reading)
    entry = load_spec()["overview"]
    overview = None
    if reading.lesions:
        place, picture = f"{anchor}-{entry['key']}", drawn.get("overview")
        reason = missing.get("overview", "")
        overview = Figure(place, entry["title"], entry["caption"], picture, reason)
    views = []
    for row in reading.rows:
        lesion, key = row.lesion, str(row.lesion.index)
        details = _lesion_details(lesion)
        if row.row.item.comment:
            details += f" · comment: {row.row.item.comment}"
        views.append(
            {
                "anchor": f"{anchor}-lesion-{key}",
                "row": lesion,
                "read": review_cells(reading, row),
                "title": heading(row, lesion),
                "details": details,
                "figure": drawn.get(key),
                "missing": missing.get(key, ""),
            }
        )
    return overview, views


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


def _files(root: Path, records: Sequence[StageRecord]) -> tuple[tuple[str, str], ...]:
    """Link to every file of the stages: name and address."""
    found: dict[str, str] = {}
    for record in records:
        paths = [record.files.path(key) for key in record.files.keys]
        paths.append(record.files.sidecar)
        found.update({path.name: link_to(path, root) for path in paths if path.exists()})
    return tuple(found.items())


def _review_files(root: Path, result: ScanResult) -> Iterable[tuple[str, str]]:
    """Link to the files of the reviews that are used."""
    from cmbprep.ratings.reviewed import ReviewedFiles

    used = () if result.reading is None else result.reading.used
    for review in used:
        files = ReviewedFiles(review.automatic, review.reader)
        paths = (files.dseg, files.table, files.sidecar, files.mask, files.template_mask, files.log)
        for path in paths:
            if path.exists():
                yield path.name, link_to(path, root)
