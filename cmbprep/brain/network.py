"""Brain mask of a single image by a network that has seen heads of every contrast.

The image is brought to 4 mm voxels along the scanner's own axes, whatever its slices are, so
that flips, permuted axes and oblique slices make no difference. The network gives log-odds of
brain; they are smooth (they follow the distance to the border), so that the border can be put
between their voxels when they are brought back to the image's own grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources.abc import Traversable
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage

from cmbprep.brain.bias import clean_intensities, head_mask
from cmbprep.errors import ScanError
from cmbprep.models import onnx_session, read_model
from cmbprep.spatial.ants import image_grid
from cmbprep.spatial.grids import Grid, one_piece, resample_to_grid

#: Voxel size of the network, mm.
SPACING = 4.0
#: Sizes of its input are multiples of this.
MULTIPLE = 16
#: ... and at least this: two voxels where it is coarsest.
LEAST = 32
#: Longest side of the field of view that is looked at, mm.
LONGEST = 288.0
#: Largest part of it that the network looks at: the shape of the scans that it learned from.
BOX = (48, 64, 48)
#: Room left above the head where neck and shoulders are cut off, voxels.
TOP_MARGIN = 3
#: Log-odds are rounded to this step: sums that differ in their last bits give the same mask.
LOGIT_STEP = 1 / 64
#: Beyond this much, log-odds say no more about where the border is.
LOGIT_LIMIT = 8.0
#: Smallest volume that is called a brain, ml.
SMALLEST = 20.0

FloatArray = NDArray[np.float32]
#: Gives log-odds (X, Y, Z) of an input (2, X, Y, Z).
Predictor = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class BrainExtraction:
    """What the network makes of an image.

    Attributes
    ----------
    mask
        uint8, 0 and 1, on the image's own grid: one piece without holes.
    volume_ml
        Of the mask.
    sureness
        Mean distance of the probability from one half within 5 mm of the border, 0 to 1: low
        where the network does not know where the brain ends.
    cut_fraction
        Part of the mask's surface that lies on the border of the field of view.
    """

    mask: nib.Nifti1Image
    volume_ml: float
    sureness: float
    cut_fraction: float


def network_grid(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """Lay the network's grid over an image's field of view: 4 mm, along the scanner's axes.

    It is centred on the field of view and holds all of it, to 288 mm along each axis.
    """
    source = Grid(shape, affine)
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in source.shape])).reshape(3, -1)
    points = source.affine[:3, :3] @ corners + source.affine[:3, 3:]
    centre = (points.min(axis=1) + points.max(axis=1)) / 2
    extent = np.minimum(points.max(axis=1) - points.min(axis=1), LONGEST)
    counts = (np.ceil(np.round(extent / SPACING / MULTIPLE, 3)) * MULTIPLE).astype(int)
    counts = np.maximum(counts, LEAST)
    first = centre - (counts - 1) / 2 * SPACING
    return Grid(tuple(counts), from_matvec(np.diag(np.full(3, SPACING)), first))


def scale_intensities(values: FloatArray, inside: NDArray[np.bool_]) -> FloatArray:
    """Bring intensities to about 0..1, whatever their unit; roots, so that the dark side shows.

    Parameters
    ----------
    values
        Not negative.
    inside
        Field of view; zero outside of it in the result.
    """
    known = values[inside]
    known = known[:: max(1, known.size // 100_000)]
    if known.size:
        # A few voxels may be brighter than anything by orders of magnitude.
        known = np.minimum(known, np.percentile(known, 99.5))
    bright = known[known > known.mean()] if known.size else known
    level = float(np.percentile(bright, 90)) if bright.size else 1.0
    scaled = np.sqrt(np.minimum(values / np.float32(max(level, 1e-12)), np.float32(3.0)))
    scaled[~inside] = 0
    return np.asarray(scaled, np.float32)


def network_input(data: FloatArray, grid: Grid, network: Grid) -> FloatArray:
    """Make the network's input: intensities, and where the image has any; (2, X, Y, Z)."""
    values = np.maximum(resample_to_grid(np.maximum(data, 0), grid.affine, network), 0)
    inside = _field_of_view(grid, network)
    return np.stack([scale_intensities(values, inside), inside.astype(np.float32)])


def _field_of_view(grid: Grid, network: Grid) -> NDArray[np.bool_]:
    ones = np.ones(grid.shape, np.float32)
    return resample_to_grid(ones, grid.affine, network, smooth=False) >= 0.5


def extract_brain(image: SpatialImage, predict: Predictor) -> BrainExtraction:
    """Find the brain.

    Parameters
    ----------
    image
        Magnitude image of any contrast and geometry, in which the head is upright to about
        40 degrees by its affine; bias is fine.
    predict
        The network (see :func:`cmbprep.brain.network.load_brain_model`).

    Raises
    ------
    ScanError
        If there is no brain in it.
    """
    data, grid = clean_intensities(image), image_grid(image)
    network = network_grid(grid.shape, grid.affine)
    given = network_input(data, grid, network)
    logits = _log_odds(given, predict)
    fine = resample_to_grid(logits, network.affine, grid, smooth=False, extend=True)
    mask = one_piece(fine > 0)
    volume = float(mask.sum() * np.prod(grid.spacing) / 1000)
    if volume < SMALLEST:
        raise ScanError(
            "no brain was found in it",
            hint="check that the image shows a head, and that its header says which way is up",
        )
    return BrainExtraction(
        nib.Nifti1Image(mask.astype(np.uint8), grid.affine),
        volume_ml=volume,
        sureness=_sureness(logits, given[1] > 0),
        cut_fraction=_cut_fraction(mask),
    )


def _log_odds(given: FloatArray, predict: Predictor) -> FloatArray:
    """Log-odds on the network's grid, of the mean over the head and its mirror image."""
    box = head_box(given)
    part = given[:, *box]
    # Heads have no handedness that matters here.
    mirrored = predict(np.ascontiguousarray(part[:, ::-1]))[::-1]
    mean = (predict(np.ascontiguousarray(part)) + mirrored) / 2
    mean = np.clip(np.nan_to_num(mean, nan=-LOGIT_LIMIT), -LOGIT_LIMIT, LOGIT_LIMIT)
    logits = np.full(given.shape[1:], -LOGIT_LIMIT, np.float32)
    logits[box] = np.round(mean / LOGIT_STEP) * np.float32(LOGIT_STEP)
    return logits


def head_box(given: FloatArray) -> tuple[slice, slice, slice]:
    """Box around the head, of what the network has learned on at most, in its input.

    Where the field of view is larger, the box lies about the middle of the head sideways and
    from front to back, and hangs from its top: below are neck and shoulders.
    """
    shape = given.shape[1:]
    if all(n <= most for n, most in zip(shape, BOX, strict=True)):
        return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])
    head = head_mask(given[0] ** 2, np.full(3, SPACING))
    parts = []
    for axis, (n, most) in enumerate(zip(shape, BOX, strict=True)):
        others = tuple(k for k in range(3) if k != axis)
        shown = np.flatnonzero(head.any(axis=others))
        first, last = (int(shown[0]), int(shown[-1])) if shown.size else (0, n - 1)
        start = last + TOP_MARGIN - most if axis == 2 else (first + last + 1 - most) // 2
        start = min(max(start, 0), max(n - most, 0))
        parts.append(slice(start, min(start + most, n)))
    return parts[0], parts[1], parts[2]


def _sureness(logits: FloatArray, inside: NDArray[np.bool_]) -> float:
    border = ndimage.distance_transform_edt(logits > 0)
    border += ndimage.distance_transform_edt(logits <= 0)
    near = (border <= 2.0) & inside
    if not near.any():
        return 0.0
    return float(np.abs(np.tanh(logits[near].astype(np.float64) / 2)).mean())


def _cut_fraction(mask: NDArray[np.bool_]) -> float:
    """Part of the voxels' outer faces that are on the border of the grid."""
    padded = np.pad(mask, 1)
    total, cut = 0, 0
    for axis in range(3):
        total += int(np.count_nonzero(np.diff(padded, axis=axis)))
        first = np.take(mask, 0, axis=axis)
        last = np.take(mask, -1, axis=axis)
        cut += int(np.count_nonzero(first)) + int(np.count_nonzero(last))
    return cut / total if total else 0.0


# --- The brain-mask network that comes with the program, ready to run ----------------------------


#: Name of the model's files.
MODEL = "brain"


@dataclass(frozen=True, eq=False)
class BrainModel:
    """A network and its card.

    Attributes
    ----------
    predict
        Gives log-odds (X, Y, Z) of an input (2, X, Y, Z); see
        :mod:`cmbprep.brain.network`.
    card
        What is known of it.
    sha256
        Of its file.
    """

    predict: Callable[[FloatArray], FloatArray]
    card: Mapping[str, Any]
    sha256: str


@cache
def load_brain_model(folder: Traversable | None = None) -> BrainModel:
    """Load the network.

    Parameters
    ----------
    folder
        Where the model's two files are; None for the packaged ones.

    Raises
    ------
    ValueError
        If the card is of another file.
    """
    content, card, digest = read_model(MODEL, folder)
    if card["sha256"] != digest:
        raise ValueError("the brain model's card is of another file")
    session = onnx_session(content)

    def predict(channels: FloatArray) -> FloatArray:
        (logits,) = session.run(["logits"], {"channels": channels[None]})
        return np.asarray(logits[0, 0], np.float32)

    return BrainModel(predict, card, digest)


def find_brain(image: SpatialImage) -> BrainExtraction | None:
    """Find the brain with the network that comes with the program; None if there is none."""
    try:
        return extract_brain(image, load_brain_model().predict)
    except ScanError:
        return None
