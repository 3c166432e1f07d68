"""What the pages say of the readers of a scan: whose numbers they are, and what was changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cmbprep.lesions import Lesion
from cmbprep.reports.figures.guarded import draw_all, once
from cmbprep.reports.results import ScanResult
from cmbprep.reports.text import format_probability, region_title
from cmbprep.zones.tally import Tally

if TYPE_CHECKING:
    from markupsafe import Markup

    from cmbprep.ratings.consensus import Review
    from cmbprep.ratings.reading import ReadLesion, ScanReading

#: Rule of consensus -> which lesions count, after "lesions that".
_RULES = {
    "any": "any of them calls a microbleed",
    "all": "all of them call microbleeds",
    "majority": "most of them call microbleeds",
}


def source_sentence(result: ScanResult) -> str:
    """Return who has read a scan with a result, and how many lesions the detector had."""
    reading = result.reading
    if reading is None or not reading.reviewed:
        return _unread(reading)
    tally = Tally(reading.automatic.lesions)
    numbers = [tally.count(rating=rating) for rating in ("definite", "possible")]
    definite, possible = ("n/a" if number is None else number for number in numbers)
    names = ", ".join(_who(review) for review in reading.used)
    text = f"Read by {names}"
    if len(reading.used) > 1:
        text += f"; lesions count that {_RULES[str(reading.rule)]}"
    return (
        f"{text}. The detector had {definite} definite and {possible} possible ones: "
        f"{len(reading.rejected)} rejected, {len(reading.added)} added."
    )


def _unread(reading: ScanReading | None) -> str:
    status = "unread" if reading is None else reading.status
    if reading is None or status == "unread":
        return "No person has read this scan."
    names = ", ".join(dict.fromkeys(review.reader.name for review in reading.reviews))
    return {
        "partly read": f"{names} began to read this scan and has not ended the reading.",
        "damaged": f"The review by {names} is damaged.",
        "of an older result": f"{names} read an older result of this scan.",
        "done": f"This scan was read by {names}; that reading is not used here.",
    }[status]


def _who(review: Review) -> str:
    """Name the reader of a finished review, with round and day."""
    day = str(review.state.finished_at)[:10]
    return f"{review.reader.name} (round {review.reader.round}, {day})"


def reader_notes(result: ScanResult) -> list[str]:
    """Return what the readers noted on the scan as a whole, one text a reader."""
    used = () if result.reading is None else result.reading.used
    texts = ((review.reader.name, "; ".join(_notes(review))) for review in used)
    return [f"{name}: {text}" for name, text in texts if text]


def _notes(review: Review) -> Iterator[str]:
    note = review.state.scan
    if note.siderosis is not None:
        yield f"superficial siderosis: {'yes' if note.siderosis else 'no'}"
    if note.quality:
        yield f"image quality: {note.quality}"
    if note.findings:
        yield f"other findings: {', '.join(note.findings)}"
    yield from (text for text in (note.note, review.state.comment) if text)


def review_cells(reading: ScanReading, row: ReadLesion) -> dict[str, str]:
    """Return the cells of the lesion table that a reader fills."""
    own = reading.automatic.by_key.get(f"L{row.row.automatic_index}")
    automatic = "not listed" if own is None else own.rating or "not rated"
    return {
        "verdict": f"{row.verdict}: {_reason(row.reason)}" if row.reason else row.verdict,
        "automatic_rating": automatic,
        "change": row.change,
    }


def _reason(reason: str | None) -> str:
    return (reason or "").replace("sulcus", "sulcus or flow void")


def heading(row: ReadLesion, lesion: Lesion) -> str:
    """Describe a lesion of a review in one line, as its figure has it."""
    reason = f" ({_reason(row.reason)})" if row.reason else ""
    chance = lesion.probability
    probability = "" if chance is None else f"probability {format_probability(chance)}"
    parts = [
        str(lesion.index),
        f"{row.verdict}{reason}",
        row.change,
        probability,
        f"{lesion.diameter_mm:.1f} mm, {lesion.volume_mm3:.0f} mm³",
        region_title(lesion.hemisphere, lesion.region, lesion.zone),
    ]
    return " · ".join(part for part in parts if part)


def draw_reading(reading: ScanReading) -> tuple[dict[str, Markup], dict[str, str]]:
    """Draw the lesions of a review, as the run draws those of the detector.

    Returns
    -------
    drawn
        ``overview``, and the index of each row as text -> figure.
    missing
        The same -> why it could not be drawn.
    """
    import nibabel as nib
    import numpy as np
    from markupsafe import Markup

    from cmbprep.ratings.voxels import read_voxels
    from cmbprep.reports.figures.lesions import lesion_figure, overview_figure

    files = reading.automatic.preproc.files

    @once
    def images() -> tuple[Any, Any, Any, Any]:
        path = files.path("preproc")
        image = np.asarray(read_voxels(path), dtype=np.float32)
        brain = read_voxels(files.path("brain_mask")) > 0
        return image, nib.Nifti1Image.from_filename(path).affine, reading.labels, brain

    def overview() -> str:
        image, affine, labels, brain = images()
        kept = np.where(np.isin(labels, [item.index for item in reading.lesions]), labels, 0)
        return overview_figure(image, affine, kept, reading.lesions, mask=brain)

    def close_up(row: ReadLesion) -> str:
        image, affine, labels, brain = images()
        others = [other.lesion for other in reading.rows if other is not row]
        text = heading(row, row.lesion)
        return lesion_figure(image, affine, labels, row.lesion, others, text=text, mask=brain)

    figures: dict[str, Callable[[], str]] = {"overview": overview}
    figures |= {str(row.lesion.index): partial(close_up, row) for row in reading.rows}
    # Figures made here, their text escaped by the canvas.
    return draw_all(figures, lambda _, svg: Markup(svg))  # noqa: S704


def methods_sentences(scans: Sequence[ScanResult]) -> tuple[str, ...]:
    """Return what a methods section says of the readers, without their names."""
    used = [scan.reading for scan in scans if scan.reading is not None and scan.reading.reviewed]
    texts = []
    for reading in used:
        several = len(reading.used) > 1
        who = f"{len(reading.used)} readers" if several else "a reader"
        rule = f", and lesions counted that {_RULES[str(reading.rule)]}" if several else ""
        texts.append(
            f"The lesions that the detector listed were read by {who}, who looked through the "
            f"whole scan and could reject, correct and add lesions{rule}."
        )
    return tuple(dict.fromkeys(texts))
