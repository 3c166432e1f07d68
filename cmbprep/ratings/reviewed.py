"""The reviewed result of a scan as BIDS derivatives beside the automatic one.

The log of acts is the record; these files follow from it and are written anew when the reader ends
a scan, goes on to another one, or ends the session. Their sidecar is written last and names the
last act that went in, so that files that lag behind a log are known (:func:`is_current`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmbprep import __version__
from cmbprep.errors import CmbprepError
from cmbprep.files.tsv import MISSING
from cmbprep.lesions import COLUMNS, Lesion, format_lesions
from cmbprep.outputs.files import read_json, write_image, write_json, write_text
from cmbprep.outputs.sidecars import ACQUISITION_KEYS, own_uri
from cmbprep.outputs.stages import sidecar_path
from cmbprep.ratings.acts import Act
from cmbprep.ratings.automatic import Automatic
from cmbprep.ratings.lesion_view import as_lesion
from cmbprep.ratings.replay import Item, State, replay
from cmbprep.ratings.store import Reader, log_path
from cmbprep.ratings.template import template_mask

#: Key of a review's own block in a sidecar.
BLOCK = "CmbprepReview"
#: Columns of the table of a review besides those of the lesion table.
REVIEW_COLUMNS: Mapping[str, Mapping[str, object]] = {
    "verdict": {
        "Description": "What the reader decided.",
        "Levels": {
            "definite": "A microbleed.",
            "possible": "Possibly a microbleed.",
            "rejected": "No microbleed; kept as a label, not in the mask.",
            "undecided": "Not read yet.",
            "later": "Left for later.",
        },
    },
    "reason": {
        "Description": "Why the reader rejected it.",
        "Levels": {
            "vein": "Vein.",
            "calcification": "Calcification.",
            "sulcus": "Sulcus or flow void.",
            "artefact": "Artefact.",
            "other": "Another reason.",
        },
    },
    "reader": {"Description": "Name of the reader."},
    "reviewed_at": {"Description": "Time of the last act on it, UTC, ISO 8601."},
    "source": {
        "Description": "Where the lesion comes from.",
        "Levels": {
            "automatic": "The detector, listed or below the threshold.",
            "added": "The reader.",
        },
    },
    "automatic_index": {
        "Description": "Index in the automatic lesion table; n/a where it is not listed there.",
        "Format": "integer",
    },
    "comment": {"Description": "Comment of the reader."},
}
_RATING: Mapping[str, object] = {
    "Description": "The verdict of the reader, where it is definite or possible; else n/a.",
    "Levels": {"definite": "A microbleed.", "possible": "Possibly a microbleed."},
}


@dataclass(frozen=True, kw_only=True)
class ReviewedLesion:
    """A row of the table of a review.

    Attributes
    ----------
    lesion
        With the reader's position, region and rating.
    item
        What the reader decided.
    automatic_index
        Index in the automatic table; None where it is not listed there.
    """

    lesion: Lesion
    item: Item
    automatic_index: int | None

    @property
    def source(self) -> str:
        """``automatic`` or ``added``."""
        return "added" if self.item.kind == "added" else "automatic"


@dataclass(frozen=True)
class ReviewedFiles:
    """Paths of the files of a review."""

    automatic: Automatic
    reader: Reader

    def _path(self, stem: str, ending: str) -> Path:
        automatic = self.automatic
        name = f"{automatic.src}_{stem}_desc-{self.reader.label}_{ending}"
        return automatic.folder / name

    @property
    def dseg(self) -> Path:
        """Labels."""
        return self._path("seg-CMB", "dseg.nii.gz")

    @property
    def table(self) -> Path:
        """Table of the labels."""
        return self._path("seg-CMB", "dseg.tsv")

    @property
    def sidecar(self) -> Path:
        """Sidecar of both, written last."""
        return self._path("seg-CMB", "dseg.json")

    @property
    def mask(self) -> Path:
        """Definite and possible lesions."""
        return self._path("label-CMB", "mask.nii.gz")

    @property
    def mask_sidecar(self) -> Path:
        """Sidecar of the mask."""
        return self._path("label-CMB", "mask.json")

    @property
    def template_mask(self) -> Path:
        """The same in the template's space, where the scan is registered to it."""
        template = self.automatic.preproc.files.names.template
        return self._path(f"space-{template}_label-CMB", "mask.nii.gz")

    @property
    def log(self) -> Path:
        """Log of the acts."""
        return log_path(self.automatic.folder, self.automatic.src, self.reader)


def reviewed_rows(automatic: Automatic, state: State) -> list[ReviewedLesion]:
    """Return what the reader was shown or has made, in the order of the labels.

    Automatic lesions keep their index. Candidates that were judged, and lesions that the reader
    made, get the numbers after them. What was merged or split is replaced by what came of it.
    """
    rows = []
    following = max((lesion.index for lesion in automatic.lesions), default=0) + 1
    for key, item in state.items.items():
        if item.deleted_by is not None or (item.outline is None and item.kind != "listed"):
            continue
        own = automatic.by_key.get(key)
        index = following if own is None else own.index
        following += own is None
        lesion = as_lesion(automatic, item, index)
        rows.append(
            ReviewedLesion(lesion=lesion, item=item, automatic_index=own.index if own else None)
        )
    return sorted(rows, key=lambda row: row.lesion.index)


def reviewed_lesions(automatic: Automatic, state: State) -> tuple[Lesion, ...]:
    """Return the lesions of the reviewed result, to be used in place of the automatic ones.

    A lesion that the phase calls diamagnetic is counted if the reader calls it a microbleed: its
    susceptibility is then ``unknown``.
    """
    found = [row.lesion for row in reviewed_rows(automatic, state) if row.item.positive]
    return tuple(
        replace(lesion, susceptibility="unknown")
        if lesion.susceptibility == "diamagnetic"
        else lesion
        for lesion in found
    )


def paint_labels(
    rows: Sequence[ReviewedLesion], automatic: NDArray[np.integer]
) -> NDArray[np.int16]:
    """Paint the labels of a review.

    Parameters
    ----------
    rows
        From :func:`reviewed_rows`.
    automatic
        Automatic labels, (X, Y, Z).

    Returns
    -------
    array of shape (X, Y, Z)
        Where two lesions claim a voxel, the one with the lower index has it; each has one at least.
    """
    kept = [row.lesion.index for row in rows if row.item.outline is None]
    labels = np.where(np.isin(automatic, kept), automatic, 0).astype(np.int16)
    for row in rows:
        if row.item.outline is None:
            continue
        voxels = row.item.outline.voxels(labels.shape)
        free = voxels[labels[tuple(voxels.T)] == 0]
        labels[tuple((free if len(free) else voxels[:1]).T)] = row.lesion.index
    return labels


def format_table(rows: Sequence[ReviewedLesion], reader: Reader) -> str:
    """Return the text of the table of a review."""
    lines = format_lesions(row.lesion for row in rows).splitlines()
    more = ["\t".join(REVIEW_COLUMNS)]
    for row in rows:
        item = row.item
        index = None if row.automatic_index is None else str(row.automatic_index)
        values = (item.verdict, item.reason, reader.name, item.reviewed_at, row.source, index)
        more.append("\t".join(_cell(value) for value in (*values, item.comment)))
    return "".join(f"{line}\t{cells}\n" for line, cells in zip(lines, more, strict=True))


def _cell(value: str | None) -> str:
    """Return a text as a cell: BIDS tables have no quoting and no line breaks in cells."""
    return " ".join((value or "").replace('"', "'").split()) or MISSING


def write_reviewed(automatic: Automatic, reader: Reader, acts: Sequence[Act]) -> Path:
    """Write labels, table, mask and sidecars of a review; return the sidecar that closes it."""
    files = ReviewedFiles(automatic, reader)
    state = replay(acts, automatic.by_key)
    rows = reviewed_rows(automatic, state)
    image = nib.Nifti1Image.from_filename(automatic.detection.files.path("dseg"))
    labels = paint_labels(rows, np.asanyarray(image.dataobj))
    bleeds = [row.lesion.index for row in rows if row.item.positive]
    files.sidecar.unlink(missing_ok=True)
    write_image(files.dseg, _like(labels, image))
    write_image(files.mask, _like(np.isin(labels, bleeds).astype(np.uint8), image))
    write_text(files.table, format_table(rows, reader))
    sources = [
        own_uri(automatic.preproc.files, "preproc"),
        own_uri(automatic.detection.files, "dseg"),
    ]
    about = {
        "Description": f"Cerebral microbleeds, definite and possible, read by {reader.name}",
        "Type": "Lesion",
        "Sources": sources,
    }
    write_json(files.mask_sidecar, about)
    placed = template_mask(automatic, np.where(np.isin(labels, bleeds), labels, 0))
    if placed is not None:
        write_image(files.template_mask, placed)
        write_json(sidecar_path(files.template_mask), about)
    write_json(files.sidecar, _sidecar(automatic, reader, acts, state, sources))
    return files.sidecar


def _like(data: NDArray[Any], image: nib.Nifti1Image) -> nib.Nifti1Image:
    header = image.header.copy()
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    return nib.Nifti1Image(data, image.affine, header)


def _sidecar(
    automatic: Automatic, reader: Reader, acts: Sequence[Act], state: State, sources: list[str]
) -> dict[str, Any]:
    metadata = automatic.detection.metadata
    last = acts[-1] if acts else None
    return {
        **COLUMNS,
        "rating": _RATING,
        **REVIEW_COLUMNS,
        **{key: metadata[key] for key in ACQUISITION_KEYS if key in metadata},
        "Description": f"Lesions as {reader.name} read them: label image, and the table of the "
        "same name",
        "Sources": sources,
        BLOCK: {
            "Version": __version__,
            "Scan": automatic.name,
            "Reader": reader.name,
            "Round": reader.round,
            "Finished": state.finished,
            "FinishedAt": state.finished_at,
            "BasedOn": asdict(last.based_on) if last else None,
            "Acts": len(acts),
            "LastAct": last.id if last else None,
            "Siderosis": state.scan.siderosis,
            "ImageQuality": state.scan.quality,
            "Findings": list(state.scan.findings),
            "Note": state.scan.note,
            "Comment": state.comment,
        },
    }


def is_current(automatic: Automatic, reader: Reader, acts: Sequence[Act]) -> bool:
    """Return whether the files of a review are there and hold every act."""
    files = ReviewedFiles(automatic, reader)
    if not files.sidecar.is_file():
        return False
    try:
        block = read_json(files.sidecar).get(BLOCK)
    except CmbprepError:
        return False
    last = acts[-1].id if acts else None
    if not isinstance(block, dict):
        return False
    return block.get("Acts") == len(acts) and block.get("LastAct") == last
