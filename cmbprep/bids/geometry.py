"""Grids of raw images, read from their headers and checked: shape, affine, voxel sizes, units.

Oblique, left-handed and anisotropic grids are accepted and kept. Errors do not name the file:
that is done where it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from cmbprep.bids.nifti_header import check_shape
from cmbprep.errors import ScanError

Role = Literal["magnitude", "phase", "T1w"]
Array = np.ndarray[Any, np.dtype[Any]]
Warnings = tuple[str, ...]

#: Fewest slices: less is neither registered nor can a bleed be told from a vein.
MIN_SLICES = 5
#: A grid with fewer voxels than this in a slice is no image of a head.
MIN_MATRIX = 16
#: Voxel sizes outside of these (mm) are mistakes in the header.
VOXEL_LIMITS_MM = (0.05, 10.0)
#: A scan that covers less than this (mm) is a slab: registration is less certain.
SLAB_MM = 40.0
#: Largest angle (degrees) by which axes may miss the right angle: ITK knows no shear.
SHEAR_LIMIT_DEG = 0.5
#: sform and qform differ when they put some corner of the grid this far apart (mm).
FORM_TOLERANCE_MM = 1.0
#: Voxel sizes of sform and qform that differ by more than this fraction are named.
SIZE_TOLERANCE = 0.01
#: Units of length that are converted: name, and mm per unit.
_UNIT_NAMES = {"meter": ("metres", 1000.0), "micron": ("micrometres", 0.001)}

_ONE_VOLUME = (
    "put each echo into a file of its own (echo-1, echo-2, ...), or average repetitions into one "
    "volume"
)
_CORRECT_SIZES = (
    "correct the voxel sizes (and units: millimetres) in its header, or convert the DICOM files "
    "again"
)
_ONE_T1W = "offer one volume: a single echo, or the average"


class ImageGrid(NamedTuple):
    """Grid of an image in space: voxels per axis, and the affine to RAS+ mm."""

    shape: tuple[int, ...]
    affine: Array


def scan_grid(header: Any, shape: Sequence[int], role: Role) -> tuple[ImageGrid, Warnings]:
    """Check shape, affine, voxel sizes and data type of a raw image.

    Parameters
    ----------
    header
        nibabel header, corrected by :func:`cmbprep.bids.nifti_header.parse_header`.
    shape
        Of the image, all axes.
    role
        What the image is to be used for.

    Returns
    -------
    grid
        Three axes, affine in RAS+ mm.
    warnings
        What was odd about the header.

    Raises
    ------
    ScanError
        If the image cannot be used as such a scan.
    """
    warnings: list[str] = []
    space = _spatial_shape(shape, role)
    affine = read_affine(header, space, warnings)
    _check_grid(space, affine, header, warnings)
    _check_data_type(header.get_data_dtype())
    return ImageGrid(space, affine), tuple(warnings)


def _spatial_shape(shape: Sequence[int], role: Role) -> tuple[int, int, int]:
    """Return the shape in space; trailing axes of length one are dropped."""
    shape = tuple(int(n) for n in shape)
    check_shape(shape)
    if (volumes := int(np.prod(shape[3:], dtype=int))) > 1:
        raise ScanError(
            f"it has {volumes} volumes (shape {shape}) where one is needed",
            hint=_ONE_T1W if role == "T1w" else _ONE_VOLUME,
        )
    if len(shape) < 3:
        raise ScanError(
            f"it has no third dimension (shape {shape})",
            hint="offer the whole scan, not a single slice",
        )
    return shape[0], shape[1], shape[2]


def read_affine(header: Any, shape: Sequence[int], warnings: list[str]) -> Array:
    """Return the voxel-to-RAS+ affine in mm, by sform before qform as nibabel and ITK do.

    Parameters
    ----------
    header
        nibabel header, corrected by :func:`cmbprep.bids.nifti_header.parse_header`.
    shape
        Of the image, to compare sform and qform at its corners.
    warnings
        What was odd about the header is added here.

    Raises
    ------
    ScanError
        If no usable affine is in the header.
    """
    affine, other = _stored_affine(header, warnings)
    factor = _millimetres(header, affine, warnings)
    if other is not None:
        corners = [*shape[:3], *[1] * (3 - len(shape))]
        gap = factor * _largest_gap(affine, other, corners)
        if gap > FORM_TOLERANCE_MM:
            warnings.append(_disagreement(factor * affine, factor * other, gap))
    if factor != 1:
        affine[:3] *= factor
    return affine


def _disagreement(sform: Array, qform: Array, gap: float) -> str:
    """Return the warning on two affines (mm) that differ by a gap (mm), the worst first."""
    text = f"sform and qform of its header differ by up to {gap:.1f} mm; the sform is used"
    # World to world, with lengths of 1 along the voxel axes: voxel sizes play no part.
    turn = _directions(sform) @ np.linalg.inv(_directions(qform))
    if np.linalg.det(turn) < 0 or turn[0, 0] < 0:
        text = (
            f"left and right may be exchanged: {text}; check the sides in the DICOM files, or "
            "convert them again"
        )
    (by_sform, sizes), (by_qform, others) = _voxel_sizes(sform), _voxel_sizes(qform)
    ratio = by_sform / by_qform
    change = float(np.abs(ratio - 1).max())
    if change > SIZE_TOLERANCE:
        text += (
            f"; voxels are {sizes} mm by the sform and {others} mm by the qform "
            f"(up to {change:.0%} apart)"
        )
    return text


def _directions(affine: Array) -> Array:
    """Return the directions of the voxel axes as columns of length 1."""
    return np.asarray(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))


def _stored_affine(header: Any, warnings: list[str]) -> tuple[Array, Array | None]:
    """Return the affine of a header in its own unit, and the qform where the sform is used."""
    sform, sform_code = header.get_sform(coded=True)
    qform, qform_code = _qform(header)
    if sform is not None and sform_code > 0:
        if _usable(sform):
            return np.array(sform, dtype=float), qform
        if qform is None:
            raise ScanError(
                "the affine in its header is singular: voxels have no place in space",
                hint="set the header's sform anew, or convert the DICOM files again",
            )
        warnings.append("the sform of its header is unusable; the qform is used")
    if qform is not None:
        return np.array(qform, dtype=float), None
    if qform_code > 0:
        warnings.append("the qform of its header is unusable")
    affine = np.array(header.get_base_affine(), dtype=float)
    if not _usable(affine):
        raise ScanError(
            "its header has neither an orientation nor voxel sizes",
            hint="convert the DICOM files again",
        )
    warnings.append(
        "its header gives no orientation (no sform, no qform): left and right are a guess; "
        "convert the DICOM files again"
    )
    return affine, None


def _millimetres(header: Any, affine: Array, warnings: list[str]) -> float:
    """Return the factor that brings an affine to mm.

    Metres and micrometres are converted. A header that claims one of them while its voxel
    sizes are those of a head in mm, and no sizes in its unit, is taken to be in mm.
    """
    unit = header.get_xyzt_units()[0]
    if unit not in _UNIT_NAMES:
        return 1.0
    name, factor = _UNIT_NAMES[unit]
    sizes, text = _voxel_sizes(affine)
    if _plausible(sizes * factor):
        warnings.append(f"its header is in {name}; it was converted to mm")
        return factor
    if _plausible(sizes):
        warnings.append(f"its header gives {text} {name} as voxel size, which is taken to be in mm")
        return 1.0
    raise ScanError(
        f"voxels of {text} {name} make no sense",
        hint=_CORRECT_SIZES,
    )


def _voxel_sizes(affine: Array) -> tuple[Array, str]:
    """Return the voxel sizes of an affine, and how messages write them."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return sizes, " × ".join(f"{size:.4g}" for size in sizes)


def _plausible(sizes: Array) -> bool:
    low, high = VOXEL_LIMITS_MM
    return bool(sizes.min() >= low and sizes.max() <= high)


def _qform(header: Any) -> tuple[Array | None, int]:
    from nibabel.spatialimages import HeaderDataError

    code = int(header["qform_code"])
    if code <= 0:
        return None, code
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError):  # a quaternion that is none
        return None, code
    return (qform if _usable(qform) else None), code


def _usable(affine: Array) -> bool:
    """Return whether an affine gives every voxel a place of its own."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() > 0 and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def _largest_gap(one: Array, other: Array, shape: Sequence[int]) -> float:
    """Return the largest distance (mm) between corners of a grid under two affines."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij"))
    points = corners.reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ points)[:3], axis=0).max())


def _check_grid(
    shape: tuple[int, int, int], affine: Array, header: Any, warnings: list[str]
) -> None:
    sizes, text = _voxel_sizes(affine)
    if not _plausible(sizes):
        raise ScanError(
            f"voxels of {text} mm make no sense",
            hint=_CORRECT_SIZES,
        )
    if header.get_xyzt_units()[0] == "unknown":
        warnings.append(f"its header gives no unit of length; {text} is taken to be in mm")
    cosines = (affine[:3, :3] / sizes).T @ (affine[:3, :3] / sizes)
    tilt = np.degrees(np.arcsin(np.clip(np.abs(cosines - np.eye(3)).max(), 0, 1)))
    if tilt > SHEAR_LIMIT_DEG:
        raise ScanError(
            f"its axes are sheared by {tilt:.1f} degrees",
            hint="resample it onto a grid with right angles, or restore the original header",
        )
    if min(shape) < MIN_SLICES:
        raise ScanError(
            f"it has only {min(shape)} slices (shape {shape}); at least {MIN_SLICES} are needed",
            hint="offer the whole scan",
        )
    if sorted(shape)[1] < MIN_MATRIX:
        raise ScanError(
            f"its shape {shape} is too small for an image of a head",
            hint="offer the whole scan",
        )
    extent = float(min(n * size for n, size in zip(shape, sizes, strict=True)))
    if extent < SLAB_MM:
        warnings.append(f"it covers a slab of {extent:.0f} mm only; its registration is uncertain")


def _check_data_type(dtype: Any) -> None:
    if dtype.fields is not None:
        raise ScanError(
            "it is a colour (RGB) image",
            hint="offer the grey-level image that the scanner made, not a screenshot",
        )
    if dtype.kind == "c":
        raise ScanError(
            "it holds complex numbers",
            hint="split it into a magnitude (part-mag) and a phase image (part-phase)",
        )
