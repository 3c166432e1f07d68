"""From the files of a scan to its lesions.

Nothing that is damaged is read as far as it goes: a table or image that is cut short would give
fewer lesions, and an empty table none. Results of cmbprep are held to all that their own files
say (:func:`cmbprep.lesions.read_lesions`); tables of other tools must be whole and consistent.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.errors import ScanError, UsageError
from cmbprep.files.tsv import read_tsv
from cmbprep.lab.evaluate.files import ScanFiles, is_own_result
from cmbprep.lab.evaluate.matching import LesionSet, Mark, label_components
from cmbprep.lab.shared import usage_errors
from cmbprep.lesions import COLUMNS, read_lesions
from cmbprep.spatial.grids import GRID_TOLERANCE, grid_gap

logger = logging.getLogger(__name__)

#: What tables call a microbleed in their column ``kind``.
MICROBLEED_KINDS = ("microbleed", "CMB", "cmb")

_HINT = "give the centre of each lesion in scanner coordinates, mm, RAS+, tab-separated"
_REMAKE = "run the participant level again for this scan, or restore the file from a backup"
_MISSING = (None, "", "n/a", "nan", "NaN", "None")
_NUMBERS = ("volume_mm3", "diameter_mm", "probability")
_TEXTS = ("zone", "region", "rating", "susceptibility", "kind")


def read_lesion_set(
    files: ScanFiles, *, connectivity: int = 6, threshold: float | None = None
) -> LesionSet:
    """Read the lesions of a scan from the richest of its files.

    The order is: table (with its labelled image), labelled image, mask, probability map. A
    probability map beside a labelled image or mask without a table gives each lesion its
    largest probability.

    Parameters
    ----------
    connectivity
        For masks and maps: which voxels belong to one lesion.
    threshold
        Smallest probability that counts; where probabilities come from a map alone, it is 0.5
        unless it is given.

    Raises
    ------
    UsageError
        If a file cannot be read or contradicts itself.
    """
    roles = files.roles
    if "table" in roles:
        lesions = _from_table(roles["table"], roles.get("dseg"))
    elif "dseg" in roles and is_own_result(roles["dseg"]):
        # The image alone would count mimics, and knows no ratings.
        raise UsageError(
            "the lesion table of this result is missing",
            path=roles["dseg"].with_name(roles["dseg"].name.partition(".")[0] + ".tsv"),
            hint=_REMAKE,
        )
    elif "dseg" in roles:
        labels, affine = _read_labels(roles["dseg"])
        lesions = _from_labels(labels, affine, "labelled image")
    elif "mask" in roles:
        data, affine = read_image(roles["mask"])
        lesions = _from_labels(label_components(data > 0, connectivity), affine, "mask")
    elif "probseg" in roles:
        return _from_map(*_read_map(roles["probseg"]), connectivity, threshold)
    else:
        return _from_values(roles["any"], connectivity, threshold)
    if "table" not in roles and "probseg" in roles:
        lesions = _with_probabilities(lesions, *_read_map(roles["probseg"]), roles["probseg"])
    return _at_least(lesions, threshold)


def read_mimics(files: ScanFiles) -> tuple[LesionSet | None, tuple[Mark, ...]]:
    """Read the known mimics of a scan, and the microbleeds that their table lists as hidden.

    A simulator lists with the mimics what nobody can see: microbleeds among them belong to
    the truth as lesions that are not visible; other things that cannot be seen explain no
    false positive and are left out.

    Returns
    -------
    mimics
        None if the files name none.
    hidden
        Microbleeds that cannot be seen.
    """
    table, image = files.roles.get("mimic_table"), files.roles.get("mimic_dseg")
    if table is None and image is None:
        return None, ()
    if table is None:
        assert image is not None
        return _from_labels(*_read_labels(image), "labelled image"), ()
    listed = _from_table(table, image)
    hidden = tuple(m for m in listed.marks if m.kind in MICROBLEED_KINDS and not m.visible)
    shown = tuple(m for m in listed.marks if m.kind not in MICROBLEED_KINDS and m.visible)
    return replace(listed, marks=shown), hidden


def with_hidden(truth: LesionSet, hidden: tuple[Mark, ...]) -> LesionSet:
    """Add microbleeds that cannot be seen to a truth, under indices that it does not use."""
    used = [mark.index for mark in truth.marks]
    if truth.labels is not None:
        used.append(int(truth.labels.max(initial=0)))
    first = max(used, default=0) + 1
    more = tuple(replace(mark, index=first + number) for number, mark in enumerate(hidden))
    return replace(truth, marks=truth.marks + more)


def read_image(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read a 3D image and its voxel-to-RAS+ affine (trailing dimensions of 1 are dropped)."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    from cmbprep.bids.images import open_image

    image: Any
    try:
        if path.name.endswith((".nii", ".nii.gz")):
            image, warnings = open_image(path)
            for warning in warnings:
                logger.warning("%s: %s", path, warning)
        else:
            image = nibabel.load(path)
        data = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except ScanError as error:
        raise UsageError(
            f"the image cannot be read ({error.message})", path=path, hint=error.hint
        ) from error
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        ImageFileError,
    ) as error:
        raise UsageError(f"the image cannot be read ({error})", path=path) from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise UsageError(f"the image has {data.ndim} dimensions, not 3", path=path)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise UsageError("the affine of the image cannot be inverted", path=path)
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise UsageError("the image has values that are not finite", path=path)
    return data, affine


def marks_of_labels(labels: NDArray[np.int32], affine: NDArray[np.float64]) -> tuple[Mark, ...]:
    """Return a mark for every label: centre of mass (mm RAS+) and volume (mm^3)."""
    voxels = np.argwhere(labels != 0)
    if not len(voxels):
        return ()
    names, owner, counts = np.unique(
        labels[tuple(voxels.T)], return_inverse=True, return_counts=True
    )
    sums = np.stack([np.bincount(owner, weights=voxels[:, axis]) for axis in range(3)], axis=1)
    centres = (sums / counts[:, None]) @ affine[:3, :3].T + affine[:3, 3]
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    return tuple(
        Mark(index=int(name), centre=(float(x), float(y), float(z)), volume_mm3=float(n * voxel))
        for name, (x, y, z), n in zip(names, centres, counts, strict=True)
    )


def read_marks(path: Path) -> tuple[Mark, ...]:
    """Read a lesion table: x, y, z (mm RAS+) are required, what else it has is used.

    Raises
    ------
    UsageError
        With the line, if a row is not whole or a value is not of its column's kind.
    """
    with usage_errors():
        hint = _REMAKE if is_own_result(path) else _HINT
        table = read_tsv(path, "xyz", unquote=True, hint=hint)
    marks = []
    for number, (line, row) in enumerate(table.dicts(), start=1):
        try:
            marks.append(_mark(row, number))
        except ValueError as error:
            raise UsageError(
                f"line {line} is not a row of a lesion table ({error})", path=path
            ) from error
    if len({mark.index for mark in marks}) != len(marks):
        raise UsageError("two rows of the table have the same index", path=path)
    return tuple(marks)


def _mark(row: dict[str, str], number: int) -> Mark:
    values: dict[str, Any] = {k: v for k, v in row.items() if v not in _MISSING}
    if missing := [name for name in "xyz" if name not in values]:
        raise ValueError(f"{', '.join(missing)} is missing")
    known: dict[str, Any] = {k: float(values[k]) for k in _NUMBERS if k in values}
    known |= {k: values[k] for k in _TEXTS if k in values}
    if "visible" in values:
        known["visible"] = _truth_value(values["visible"])
    if "extent" in values:
        known["extended"] = values["extent"] == "extended"
    x, y, z = (float(values[name]) for name in "xyz")
    return Mark(index=int(values.get("index", number)), centre=(x, y, z), **known)


def _truth_value(text: str) -> bool:
    lower = text.lower()
    if lower not in ("true", "false", "1", "0"):
        raise ValueError(f"visible is {text!r}, neither true nor false")
    return lower in ("true", "1")


def _check_own(table: Path, labels: set[int] | None) -> None:
    """Check a table that has all columns of ours as strictly as our own reports do.

    Whether every row has a label is known of our own results only: a truth may list what has
    no voxels.
    """
    own = is_own_result(table)
    with usage_errors():
        if own or set(COLUMNS) <= set(read_tsv(table).header):
            read_lesions(table, labels=labels if own else None)


def _from_table(table: Path, image: Path | None) -> LesionSet:
    marks = read_marks(table)
    if image is None:
        _check_own(table, None)
        return LesionSet(marks=marks, origin="table")
    labels, affine = _read_labels(image)
    measured = {mark.index: mark for mark in marks_of_labels(labels, affine)}
    _check_own(table, set(measured))
    if unknown := sorted(set(measured) - {mark.index for mark in marks}):
        raise UsageError(f"label {unknown[0]} has no row in {table.name}", path=image)
    marks = tuple(
        replace(mark, volume_mm3=measured[mark.index].volume_mm3)
        if mark.volume_mm3 is None and mark.index in measured
        else mark
        for mark in marks
    )
    return LesionSet(marks=marks, labels=labels, affine=affine, origin="table with labels")


def _read_labels(path: Path) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    data, affine = read_image(path)
    whole = data.dtype.kind in "biu"
    # Compared before they are converted: a larger number would become another label.
    if data.size and (data.min() < -1e-3 or data.max() > np.iinfo(np.int32).max):
        raise UsageError("a labelled image has whole numbers from 0", path=path)
    labels = data.astype(np.int32) if whole else np.rint(data).astype(np.int32)
    if data.size and not whole and np.abs(data - labels).max() > 1e-3:
        raise UsageError("a labelled image has whole numbers from 0", path=path)
    return labels, affine


def _read_map(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    data, affine = read_image(path)
    if data.size and (data.min() < -1e-6 or data.max() > 1 + 1e-6):
        raise UsageError(
            f"a probability map lies within 0..1, not {data.min():g}..{data.max():g}", path=path
        )
    return np.clip(data.astype(float), 0, 1), affine


def _from_labels(labels: NDArray[np.int32], affine: NDArray[np.float64], origin: str) -> LesionSet:
    return LesionSet(
        marks=marks_of_labels(labels, affine), labels=labels, affine=affine, origin=origin
    )


def _from_map(
    probability: NDArray[np.float64],
    affine: NDArray[np.float64],
    connectivity: int,
    threshold: float | None,
) -> LesionSet:
    least = 0.5 if threshold is None else threshold
    # A threshold of 0 still leaves out the background.
    mask = (probability >= least) & (probability > 0)
    lesions = _from_labels(label_components(mask, connectivity), affine, "probability map")
    return _with_probabilities(lesions, probability, affine)


def _with_probabilities(
    lesions: LesionSet,
    probability: NDArray[np.float64],
    affine: NDArray[np.float64],
    path: Path | None = None,
) -> LesionSet:
    from scipy import ndimage

    assert lesions.labels is not None and lesions.affine is not None
    gap = grid_gap(probability.shape, affine, lesions.labels.shape, lesions.affine)
    if gap.voxels > GRID_TOLERANCE:
        raise UsageError(
            f"the probability map is not on the grid of its lesions: {gap}",
            path=path,
            hint="make both again from the same image, or leave the map out",
        )
    if not lesions.marks:
        return lesions
    largest = ndimage.maximum(probability, lesions.labels, [m.index for m in lesions.marks])
    marks = tuple(
        replace(mark, probability=float(value))
        for mark, value in zip(lesions.marks, largest, strict=True)
    )
    return replace(lesions, marks=marks)


def _from_values(path: Path, connectivity: int, threshold: float | None) -> LesionSet:
    """Take an image for what its values say: a mask, a labelled image or a probability map."""
    data, affine = read_image(path)
    values = np.unique(data)
    if np.abs(values - np.rint(values)).max(initial=0) > 1e-3:
        return _from_map(*_read_map(path), connectivity, threshold)
    # 0 and one other value (1, or 255 as drawing programs write) is a mask.
    if len(values[values != 0]) <= 1:
        return _from_labels(label_components(data > 0, connectivity), affine, "mask")
    return _from_labels(*_read_labels(path), "labelled image")


def _at_least(lesions: LesionSet, threshold: float | None) -> LesionSet:
    if threshold is None:
        return lesions
    kept = tuple(
        mark for mark in lesions.marks if mark.probability is None or mark.probability >= threshold
    )
    return replace(lesions, marks=kept)
