"""A reference drawn anew in the contrast of another image, and local contrast.

Where two images show one head in different contrasts, mutual information follows what is
strong in both: the outline. Once they lie roughly on each other, what each tissue of the
reference looks like in the image can be read off, and the reference can be redrawn so
(the idea of the correlation ratio, Roche et al. 1998). Weighing every place by its own
contrast then lets ventricles, nuclei and sulci count as much as the outline does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Grey values of the reference between which the image's are interpolated, within the brain
#: and outside it.
_KNOTS_INSIDE, _KNOTS_OUTSIDE = 7, 5
#: Depths in the brain between which they are interpolated, mm. Fluid of sulci shares its voxels
#: with bone and veins, and lies in dropout; that of ventricles does not. With one function for
#: all depths, ventricles of three real echo-planar scans were laid onto what is dark there.
_DEPTHS_MM = (2.0, 8.0, 16.0)
#: How fast what surrounds the brain fades into what lies further out, mm.
_FADE_MM = 4.0
#: The border of the brain is soft by this much (standard deviation, voxels).
_BORDER_VOXELS = 0.5
#: Residuals of this many robust standard deviations count half.
_ROBUST = 2.5
_ROUNDS = 5
#: Two dozen numbers need not all voxels: one in so many is looked at.
_EVERY = 3
#: Weight of one value for each part, against all voxels: 0 is drawn where nothing is seen.
_RIDGE = 1e-4
#: Contrast below this part of the image's bright end is noise, and is not raised further.
_FLOOR = 0.03
#: Local contrast in standard deviations is cut here.
_MOST = 3.0


#: Width of the surroundings that local contrast is measured in, mm. Of 2 to 10 mm, 3 and 4 left
#: the smallest errors on a tuning person.
LOCAL_MM = 3.0


@dataclass(frozen=True, eq=False)
class Drawing:
    """A reference in the contrast of an image that lies on it, and the image.

    Attributes
    ----------
    drawn, shown
        Of the reference and of the image, in units of the image, shape (X, Y, Z); 0 where the
        image shows nothing.
    contrast
        Local contrast of ``drawn`` (:func:`normalise_locally`).
    seen
        Where the image shows anything.
    explained
        How much of the image the drawing explains: correlation of their local contrast in the
        brain.
    """

    drawn: FloatArray
    shown: FloatArray
    contrast: FloatArray
    seen: Mask
    explained: float


def draw_as(
    parts: Sequence[FloatArray],
    image: FloatArray,
    near: Mask,
    brain: Mask,
    spacing: NDArray[np.floating],
) -> Drawing:
    """Redraw a reference as an image that lies on it.

    Parameters
    ----------
    parts
        Of the reference (:func:`tissue_parts`), shape (X, Y, Z) each.
    image
        On the same grid, NaN where it shows nothing.
    near
        The brain of the reference and what is around it, which the drawing looks at.
    brain
        Of the reference.
    spacing
        Voxel size, mm.
    """
    seen = np.isfinite(image)
    shown = np.where(seen, image, np.float32(0))
    if not (near & seen).any():
        nothing = np.zeros(image.shape, np.float32)
        return Drawing(nothing, shown, nothing, seen, 0.0)
    drawn = redraw(parts, shown, near & seen)
    one, other = (normalise_locally(part, spacing, LOCAL_MM) for part in (drawn, shown))
    inside = brain & seen
    return Drawing(drawn, shown, one, seen, _correlation(one[inside], other[inside]))


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Pearson's correlation; 0 where one of the two is even. Not by BLAS (threads)."""
    if not one.size:
        return 0.0
    a, b = (values.astype(np.float64) - float(values.mean()) for values in (one, other))
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0


def redraw(parts: Sequence[FloatArray], image: FloatArray, region: Mask) -> FloatArray:
    """Draw a reference in the contrast of an image that roughly lies on it.

    The image's values are fitted by a sum of the reference's parts, by robust least squares
    (Cauchy's weights). What the image shows in other places than the reference is an outlier to
    that, so that it is drawn where the reference has it.

    Parameters
    ----------
    parts
        Of the reference (:func:`tissue_parts`), shape (X, Y, Z) each.
    image
        On the same grid, finite within the region.
    region
        Voxels that the fit looks at.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) float32, in units of the image.

    Raises
    ------
    ValueError
        If the region is empty.

    References
    ----------
    Roche A, Malandain G, Pennec X, Ayache N. The correlation ratio as a new similarity
    measure for multimodal image registration. MICCAI 1998, LNCS 1496:1115-1124.
    """
    if not region.any():
        raise ValueError("a reference cannot be redrawn by an image that shows nothing of it")
    seen = np.stack([part[region][::_EVERY] for part in parts]).astype(np.float64)
    values = image[region][::_EVERY].astype(np.float64)
    middle = float(np.median(values))
    values -= middle
    ridge = _RIDGE * values.size * np.eye(len(parts))
    weights = np.ones_like(values)
    levels = np.zeros(len(parts))
    for _ in range(_ROUNDS):
        # Not by BLAS, whose sums depend on the number of threads.
        weighted = seen * weights
        normal = np.einsum("in,jn->ij", weighted, seen, optimize=False) + ridge
        levels = np.linalg.solve(normal, np.einsum("in,n->i", weighted, values, optimize=False))
        residual = values - np.einsum("in,i->n", seen, levels, optimize=False)
        spread = 1.4826 * float(np.median(np.abs(residual)))
        if spread == 0:
            break
        weights = 1 / (1 + (residual / (_ROBUST * spread)) ** 2)
    drawn = np.full(image.shape, middle, np.float32)
    for part, level in zip(parts, levels, strict=True):
        drawn += np.float32(level) * part
    return drawn


def tissue_parts(reference: FloatArray, distance: NDArray[np.floating]) -> list[FloatArray]:
    """Return functions whose sum can draw a reference in any contrast.

    Their sums are functions of the reference's value and of the depth in the brain, and others
    outside the brain; all are continuous, and linear between knots.

    Parameters
    ----------
    reference
        Shape (X, Y, Z).
    distance
        From the surface of its brain, mm; negative within.

    Returns
    -------
    list of numpy.ndarray
        (X, Y, Z) float32 each, 0 to 1.
    """
    brain = distance <= 0
    soft = ndimage.gaussian_filter(brain.astype(np.float32), _BORDER_VOXELS)
    around = (distance > 0) & (distance <= 4 * _FADE_MM)
    layers = [soft * layer for layer in _hats(-distance, np.array(_DEPTHS_MM))]
    hats = _hats(reference, _knots(reference[brain], _KNOTS_INSIDE))
    parts = [layer * hat for layer in layers for hat in hats]
    if around.any():
        hats = _hats(reference, _knots(reference[around], _KNOTS_OUTSIDE))
        fading = np.exp(-np.maximum(distance, 0) / _FADE_MM).astype(np.float32)
        parts += [(1 - soft) * part for part in (*hats, fading)]
    return parts


def _knots(values: FloatArray, count: int) -> NDArray[np.float64]:
    """Knots that are spread evenly over the range of some values."""
    low, high = (float(v) for v in np.percentile(values, (1.0, 99.0)))
    return np.linspace(low, max(high, low + 1e-6), count)


def _hats(values: NDArray[np.floating], knots: NDArray[np.float64]) -> list[FloatArray]:
    """Hat functions on knots; beyond the first and the last, those of the two are 1."""
    peaks = np.eye(len(knots))
    return [np.interp(values, knots, peak).astype(np.float32) for peak in peaks]


def normalise_locally(
    image: FloatArray, spacing: NDArray[np.floating], width: float, region: Mask | None = None
) -> FloatArray:
    """Return how far each voxel lies above or below its surroundings, by their contrast.

    Parameters
    ----------
    image
        Shape (X, Y, Z).
    spacing
        Voxel size, mm.
    width
        Of the surroundings: standard deviation of a Gaussian, mm.
    region
        Surroundings are looked at in it alone, and the result is 0 outside; None is everywhere.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) float32: (value - local mean) / (local standard deviation + floor), within
        ±3. The floor is 3 % of the image's 90th percentile, in the region.
    """
    sigma = width / np.asarray(spacing, dtype=np.float64)
    if region is None:
        weight: FloatArray | float = 1.0
        level = float(np.percentile(image, 90))
    else:
        image = np.where(region, image, np.float32(0))
        weight = np.maximum(ndimage.gaussian_filter(region.astype(np.float32), sigma), 1e-3)
        level = float(np.percentile(image[region], 90)) if region.any() else 0.0
    mean = ndimage.gaussian_filter(image, sigma) / weight
    square = ndimage.gaussian_filter(image * image, sigma) / weight
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    floor = max(_FLOOR * level, 1e-6)
    contrast = np.clip((image - mean) / (spread + floor), -_MOST, _MOST)
    if region is not None:
        contrast = np.where(region, contrast, 0)
    return contrast.astype(np.float32)
