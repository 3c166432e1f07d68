"""Reading scans, and telling what is wrong with them before anything is computed.

:func:`read_scan_image` is the door through which every raw image enters: after it, an
image is three-dimensional, finite (but for unknown phase, which is NaN), float32 and has a usable
affine, or there was a :class:`~cmbprep.errors.ScanError` that names the file and the remedy. Axes
are left as they are: oblique, left-handed and anisotropic grids are accepted and kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cmbprep.bids.geometry import Array, ImageGrid, Role, Warnings, read_affine, scan_grid
from cmbprep.bids.nifti_file import NiftiFile, empty_image, open_nifti
from cmbprep.bids.nifti_header import COPY_AGAIN, naming
from cmbprep.bids.overflow import count_overflowed
from cmbprep.bids.phase import LEAST_RADIANS, PHASE_UNITS, phase_scales, to_radians
from cmbprep.errors import ScanError
from cmbprep.spatial.grids import GRID_TOLERANCE, grid_gap, trimmed_shape

if TYPE_CHECKING:
    import nibabel as nib

__all__ = [
    "ECHO_TIME_FLOOR",
    "PHASE_WITHOUT_ECHO_TIME",
    "CheckedImage",
    "ImageGrid",
    "Role",
    "check_files",
    "check_header",
    "check_image",
    "combine_echoes",
    "open_image",
    "phase_not_used",
    "phase_warnings",
    "read_geometry",
    "read_phase",
    "read_phases",
    "read_scan_image",
    "require_echo_grid",
    "require_phase_grid",
    "select_echoes",
    "t1w_warnings",
]


#: With fewer finite voxels than this fraction an image is broken, not masked.
MIN_FINITE = 0.10
#: Interpolation makes a few values negative; more than this fraction come from elsewhere.
MAX_NEGATIVE = 0.25
_STORE_LARGER = "convert the DICOM files again, into a larger data type (uint16, int32 or float32)"
#: Seconds. Echoes from here on show susceptibility; earlier ones hardly do.
ECHO_TIME_FLOOR = 0.015


class CheckedImage(NamedTuple):
    """An image that can be processed, and what was odd about it."""

    image: nib.Nifti1Image
    warnings: tuple[str, ...]


def read_scan_image(path: Path, *, role: Role) -> CheckedImage:
    """Read an image and check that it can be processed.

    Parameters
    ----------
    path
        A NIfTI file.
    role
        ``magnitude``, ``phase`` or ``T1w``: what the image is to be used for.

    Returns
    -------
    CheckedImage
        The image as float32, three-dimensional and finite (a phase image is NaN where it is
        unknown), on its own grid, in mm, and the warnings about it.

    Raises
    ------
    ScanError
        Naming the file, what is wrong with it and what can be done.
    """
    with naming(path):
        file, grid, warnings = _open_scan(path, role)
        with _reading(file.shape):
            warnings += file.check_content()
        return _checked(file, grid, role, warnings)


def check_header(path: Path, *, role: Role) -> tuple[str, ...]:
    """Check all that can be known of an image without reading its voxels.

    Parameters
    ----------
    path
        A NIfTI file.
    role
        What it is to be used for.

    Returns
    -------
    tuple of str
        The warnings that :func:`read_scan_image` gives about file, header and grid.

    Raises
    ------
    ScanError
        The one that :func:`read_scan_image` raises.
    """
    with naming(path):
        return _open_scan(path, role)[2]


def check_files(
    magnitudes: Sequence[Path],
    phases: Sequence[Path | None],
    *,
    units: Sequence[str | None] = (),
    voxels: bool = False,
) -> tuple[str, ...]:
    """Check all images of a scan.

    Parameters
    ----------
    magnitudes
        One image per echo. All must lie on the grid of the first one.
    phases
        One per echo, None where there is none; may be empty.
    units
        ``Units`` of the phases' sidecars; needed with ``voxels`` only.
    voxels
        Whether to read the voxels as well as the headers, as a run does.

    Returns
    -------
    tuple of str
        Warnings, each once. What is wrong with a phase image is a warning, because the scan
        is then processed without it, as in :func:`cmbprep.interfaces.echoes.read_echoes`.

    Raises
    ------
    ScanError
        If a magnitude image cannot be used, or lies on another grid.
    """
    looks = []
    for path in magnitudes:
        looks.append(_look_at(path, "magnitude", voxels=voxels))
        require_echo_grid(looks[-1][0], path, looks[0][0], magnitudes[0])
    warnings = [text for _, found in looks for text in found]
    given = [(n, path) for n, path in enumerate(phases) if path is not None]
    read: list[CheckedImage | ScanError] = []
    if voxels:
        read = read_phases([path for _, path in given], [units[n] for n, _ in given])
    used: dict[int, Warnings] = {}
    for place, (n, path) in enumerate(given):
        try:
            if voxels:
                image, found = usable(read[place])
                grid = ImageGrid(image.shape, image.affine)
            else:
                grid, found = _look_at(path, "phase", voxels=False)
            require_phase_grid(grid, path, looks[0][0])
            used[n] = found
        except ScanError as error:
            warnings.append(phase_not_used(error))
    besides = [text for n in used for text in looks[n][1]]
    for n, found in used.items():
        warnings += phase_warnings(Path(str(phases[n])), found, besides=besides)
    return tuple(dict.fromkeys(warnings))


def _look_at(path: Path, role: Role, *, voxels: bool) -> tuple[ImageGrid, Warnings]:
    """Check an image, by its header or with its voxels."""
    if not voxels:
        with naming(path):
            return _open_scan(path, role)[1:]
    image, warnings = read_scan_image(path, role=role)
    return ImageGrid(image.shape, image.affine), warnings


def check_image(image: Any, path: Path, *, role: Role) -> CheckedImage:
    """Check an image that is open, as :func:`read_scan_image` does.

    Parameters
    ----------
    image
        A nibabel image; its voxels are read here.
    path
        The file that it came from, for messages.
    role
        What it is to be used for.
    """
    with naming(path):
        grid, warnings = scan_grid(image.header, image.shape, role)
        return _checked(image, grid, role, warnings)


def open_image(path: Path) -> tuple[nib.Nifti1Image, Warnings]:
    """Open any single NIfTI file, in its own data type, with a corrected header in mm.

    For images that are no scans: masks, segmentations, images of other programs. Voxels are
    read when they are used.

    Returns
    -------
    image
        nibabel image without extensions, without trailing axes of length one.
    warnings
        What was corrected.

    Raises
    ------
    ScanError
        If file, header or affine cannot be used.
    """
    import nibabel as nib

    with naming(path):
        file = open_nifti(path)
        warnings = list(file.warnings)
        affine = read_affine(file.header, file.shape, warnings)
        warnings += file.check_length()
        with _reading(file.shape):
            warnings += file.check_content(blank=True)
            image = nib.Nifti1Image(file.dataobj, affine, nib.Nifti1Header.from_header(file.header))
    image.header.set_xyzt_units("mm", file.header.get_xyzt_units()[1])
    return nib.squeeze_image(image), tuple(warnings)


def read_geometry(path: Path) -> ImageGrid:
    """Read the grid of a NIfTI file of any kind from its header, in mm.

    Raises
    ------
    ScanError
        If file, header or affine cannot be used.
    """
    with naming(path):
        file = open_nifti(path)
        return ImageGrid(trimmed_shape(file.shape), read_affine(file.header, file.shape, []))


def _open_scan(path: Path, role: Role) -> tuple[NiftiFile, ImageGrid, Warnings]:
    """Open a raw image and check all that does not need its voxels."""
    file = open_nifti(path)
    grid, warnings = scan_grid(file.header, file.shape, role)
    return file, grid, file.warnings + warnings + file.check_length()


def _checked(image: Any, grid: ImageGrid, role: Role, warnings: Sequence[str]) -> CheckedImage:
    """Read the voxels of an image whose header was checked, and check them."""
    found = list(warnings)
    with _reading(image.shape):
        data: Array = np.asarray(image.dataobj, dtype=np.float32)
    data = _finite(data.reshape(grid.shape), found, role)
    _check_content(data, role)
    return CheckedImage(_rebuilt(image.header, data, grid.affine), tuple(found))


def _rebuilt(source: Any, data: Array, affine: Array) -> nib.Nifti1Image:
    """Make the checked image: one affine in sform and qform, millimetres, no extensions."""
    import nibabel as nib

    header = nib.Nifti1Header.from_header(source)
    # Extensions can hold the DICOM header, with the person's name in it.
    header.extensions.clear()
    code = max(int(source["sform_code"]), int(source["qform_code"]), 1)
    header.set_data_dtype(np.float32)
    header.set_xyzt_units("mm", source.get_xyzt_units()[1])
    checked = nib.Nifti1Image(data, affine, header)
    checked.set_sform(affine, code)
    checked.set_qform(affine, code)
    return checked


@contextmanager
def _reading(shape: Sequence[int]) -> Iterator[None]:
    """Explain why voxels cannot be read."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ScanError(f"the file is damaged or cut short ({error})", hint=COPY_AGAIN) from error
    except MemoryError as error:
        needed = 4 * int(np.prod(shape, dtype=object)) / 2**30
        raise ScanError(
            f"there is not enough memory for its voxels ({needed:.1f} GiB)",
            hint="process fewer scans at a time (--nprocs 1), or use a machine with more memory",
        ) from error


# --- images of one scan ----------------------------------------------------------------


def require_echo_grid(echo: Any, path: Path, first: Any, first_path: Path) -> None:
    """Reject an echo that is not on the grid of the first one.

    Parameters
    ----------
    echo, first
        Anything with ``shape`` and ``affine``.
    path, first_path
        Their files, for the message.

    Raises
    ------
    ScanError
    """
    _require_grid(
        echo,
        first,
        f"this echo is not on the grid of {first_path.name}",
        path,
        "export the echoes again, or leave this one out with a filter file",
    )


def require_phase_grid(phase: Any, path: Path, magnitude: Any) -> None:
    """Reject an image that is not on the grid of the magnitude image.

    Parameters
    ----------
    phase, magnitude
        Anything with ``shape`` and ``affine``.
    path
        The file, for the message.

    Raises
    ------
    ScanError
    """
    what = "it is not on the grid of the magnitude image"
    _require_grid(
        phase, magnitude, what, path, "export magnitude and phase of the same series again"
    )


def _require_grid(image: Any, like: Any, what: str, path: Path, hint: str) -> None:
    gap = grid_gap(image.shape, image.affine, like.shape, like.affine)
    if gap.voxels > GRID_TOLERANCE:
        raise ScanError(f"{what}: {gap}", path=path, hint=hint)


#: Warning on a scan whose phase cannot be used without the echo times.
PHASE_WITHOUT_ECHO_TIME = "the phase is not used: an echo time is unknown"


def phase_not_used(error: ScanError) -> str:
    """Return the warning that stands for the error of a phase image."""
    return f"a phase image is not used: {error}"


def phase_warnings(path: Path, found: Sequence[str], *, besides: Sequence[str]) -> list[str]:
    """Return the warnings about a phase image, without those that the magnitude has as well."""
    return [f"phase image {path.name}: {text}" for text in found if text not in besides]


def t1w_warnings(path: Path, found: Sequence[str]) -> list[str]:
    """Return the warnings about a T1w image with its name, for they are shown with its scans."""
    return [f"T1w image {path.name}: {text}" for text in found]


# --- values ----------------------------------------------------------------------------


def _finite(data: Array, warnings: list[str], role: Role) -> Array:
    """Put zero in the place of values that are not finite; in a phase image NaN."""
    finite = np.isfinite(data)
    count = int(data.size - np.count_nonzero(finite))
    if count == 0:
        return data
    if count > (1 - MIN_FINITE) * data.size:
        raise ScanError(
            f"{count / data.size:.0%} of its voxels are not a number",
            hint="make it again from the source",
        )
    what = f"{count} voxels that are not a number (NaN or infinite)"
    if role == "phase":
        # No phase is as likely as any other: zero would be a wrong number.
        warnings.append(f"{what}: their phase counts as unknown")
        return np.where(finite, data, np.float32(np.nan))
    warnings.append(f"{what} were set to 0")
    return np.where(finite, data, np.float32(0))


def _check_content(data: Array, role: Role) -> None:
    low, high = float(np.nanmin(data)), float(np.nanmax(data))
    if low == high:
        raise empty_image(low)
    if bool(np.all((data == low) | (data == high) | np.isnan(data))):
        raise ScanError(
            f"it has only two values ({low:g} and {high:g}), as a mask has",
            hint="offer the image itself",
        )
    if role != "magnitude":
        return
    hint = "offer the magnitude image (part-mag); name a phase image part-phase"
    negative = np.count_nonzero(data < 0) / np.count_nonzero(data)
    if negative > MAX_NEGATIVE:
        raise ScanError(
            f"{negative:.0%} of its values are negative, which no magnitude image has: it looks "
            "like a phase image, one that was standardised, or one with integer overflow",
            hint=f"{hint}; after an integer overflow {_STORE_LARGER}",
        )
    if _looks_like_phase(data, low, high):
        raise ScanError(
            f"it looks like a phase image: values from {low:g} to {high:g} are spread evenly "
            "where there is only air",
            hint=hint,
        )
    if overflowed := count_overflowed(data):
        raise ScanError(
            f"integer overflow: {overflowed} voxels next to the brightest ones have large negative "
            f"values (down to {low:g}; the maximum is {high:g}), which no magnitude image has",
            hint=_STORE_LARGER,
        )


def _looks_like_phase(data: Array, low: float, high: float) -> bool:
    """Return whether a phase image is wrapped, judged by the air around the head.

    Noise has a phase that is spread evenly over the whole range, so its mean lies in the
    middle and its standard deviation is the range over the root of 12. The magnitude of
    air is close to zero. Looked at are the eight corners of the field of view.
    """
    widths = [max(1, n // 8) for n in data.shape]
    ends = [(slice(0, width), slice(-width, None)) for width in widths]
    corners = np.concatenate(
        [data[i, j, k].ravel() for i in ends[0] for j in ends[1] for k in ends[2]]
    )
    scaled = (corners.astype(np.float64) - low) / (high - low)
    evenly = abs(scaled.std() - 12**-0.5) < 0.04
    return bool(evenly and abs(scaled.mean() - 0.5) < 0.1)


# --- phase -----------------------------------------------------------------------------


def read_phase(path: Path, units: str | None = None) -> CheckedImage:
    """Read one phase image and bring it to radians, judged by itself.

    See :func:`read_phases` for parameters and errors.
    """
    return usable(read_phases([path], [units])[0])


def usable(read: CheckedImage | ScanError) -> CheckedImage:
    """Return an image of :func:`read_phases`, or raise its error."""
    if isinstance(read, ScanError):
        raise read
    return read


def read_phases(
    paths: Sequence[Path], units: Sequence[str | None]
) -> list[CheckedImage | ScanError]:
    """Read the phase images of a scan and bring them to radians, judged together.

    Parameters
    ----------
    paths
        NIfTI files, one an echo.
    units
        ``Units`` of their sidecars; ``rad``, ``arbitrary`` or None.

    Returns
    -------
    list
        For each echo the phase in [-π, π), float32, on its own grid, NaN where it is unknown,
        with the warnings about the image; or the error, if the file cannot be read, the units
        are not those of a phase, or the values fill no circle that scanners use: then it cannot
        be known how many of them make a turn.
    """
    found: list[CheckedImage | ScanError] = []
    for path, unit in zip(paths, units, strict=True):
        try:
            found.append(_read_values(path, unit))
        except ScanError as error:
            found.append(error)
    good = [(n, one) for n, one in enumerate(found) if not isinstance(one, ScanError)]
    values = [np.asarray(one.image.dataobj, dtype=np.float32) for _, one in good]
    scales = phase_scales(values, [units[n] for n, _ in good])
    for (n, (image, warnings)), data, scale in zip(good, values, scales, strict=True):
        if scale.known:
            radians = _rebuilt(image.header, to_radians(data, scale), image.affine)
            found[n] = CheckedImage(radians, warnings)
        else:
            found[n] = _unknown_scale(data, units[n], paths[n])
    return found


def _read_values(path: Path, units: str | None) -> CheckedImage:
    """Read a phase image as it is stored."""
    if units is not None and units not in PHASE_UNITS:
        raise ScanError(
            f"its Units are {units!r}, which is no phase",
            path=path,
            hint="offer the phase that the scanner made, with Units rad or arbitrary; a field "
            "map in Hz is something else",
        )
    return read_scan_image(path, role="phase")


def _unknown_scale(values: Array, units: str | None, path: Path) -> ScanError:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if units in ("rad", "radians"):
        why = (
            f"span less than the {LEAST_RADIANS:g} rad that phase in a head has at least"
            if high - low < LEAST_RADIANS
            else "do not look like radians: they wrap at the ends of another range, or go too far"
        )
        return ScanError(
            f"its Units are rad, but its values ({low:g} to {high:g}) {why}",
            path=path,
            hint="scale it to radians (-π to π), or offer the phase as the scanner stored it",
        )
    return ScanError(
        f"its values ({low:g} to {high:g}) fill none of the ranges that scanners store phase "
        "in (-π to π, 0 to 2π, 0 to 4095, -4096 to 4095, ...)",
        path=path,
        hint="convert it to radians and write Units rad into its sidecar",
    )


# --- echoes ----------------------------------------------------------------------------


def select_echoes(echo_times: Sequence[float | None]) -> tuple[int, ...]:
    """Choose the echoes that the image for detection and registration is made of.

    Those of 15 ms and later, in which microbleeds bloom; the latest where all are earlier;
    all of them where a time is unknown.

    Parameters
    ----------
    echo_times
        Seconds, or None where unknown.

    Examples
    --------
    >>> select_echoes([0.005, 0.015, 0.025])
    (1, 2)
    >>> select_echoes([0.004, 0.009])
    (1,)
    >>> select_echoes([0.005, None])
    (0, 1)
    """
    if not echo_times:
        raise ValueError("there are no echoes")
    known = [time for time in echo_times if time is not None]
    if len(known) < len(echo_times):
        return tuple(range(len(echo_times)))
    late = tuple(i for i, time in enumerate(known) if time >= ECHO_TIME_FLOOR)
    return late or (int(np.argmax(known)),)


def combine_echoes(magnitudes: Sequence[Array], echo_times: Sequence[float | None]) -> Array:
    """Average the late echoes of a scan (see :func:`select_echoes`).

    Parameters
    ----------
    magnitudes
        Images of the same shape, one an echo.
    echo_times
        Seconds, or None where unknown, one an echo.

    Returns
    -------
    ndarray of float32
        Same shape as each image.
    """
    if len(magnitudes) != len(echo_times):
        raise ValueError("each echo needs a magnitude image and an echo time (or None)")
    shapes = {magnitude.shape for magnitude in magnitudes}
    if len(shapes) > 1:
        raise ValueError(f"the echoes differ in shape: {sorted(shapes)}")
    chosen = select_echoes(echo_times)
    total = np.zeros(magnitudes[0].shape, dtype=np.float64)
    for index in chosen:
        total += magnitudes[index]
    return np.asarray(total / len(chosen), dtype=np.float32)
