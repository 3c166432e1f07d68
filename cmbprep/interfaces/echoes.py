"""The echoes of a scan as the scanner gave them, for what needs more than their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.bids.images import (
    PHASE_WITHOUT_ECHO_TIME,
    CheckedImage,
    phase_not_used,
    phase_warnings,
    read_phases,
    read_scan_image,
    require_phase_grid,
    usable,
)
from cmbprep.errors import ScanError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Echoes:
    """Magnitude and phase of the echoes that can be used.

    Attributes
    ----------
    magnitudes, phases
        (X, Y, Z) float32, one an echo, phase in rad and NaN where it is unknown; `phases` is
        empty where there is none.
    times
        Seconds, one an echo.
    warnings
        Why the phase, or some of it, is not used, and what is odd about phase that is used.
    """

    magnitudes: tuple[FloatArray, ...] = ()
    phases: tuple[FloatArray, ...] = ()
    times: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()


def read_echoes(
    magnitudes: Sequence[str],
    phases: Sequence[str | None],
    units: Sequence[str | None],
    times: Sequence[float | None],
    like: Any,
) -> Echoes:
    """Read the echoes of a scan; what is wrong with a phase image is a warning, no error.

    Where only some echoes have phase, those are used.

    Parameters
    ----------
    magnitudes, phases, units, times
        Paths, ``Units`` of the phases' sidecars, seconds; one an echo, or none of phases.
    like
        nibabel image whose grid they must have.
    """
    if not magnitudes:
        return Echoes()
    known: list[tuple[int, float]] = [(i, t) for i, t in enumerate(times) if t is not None]
    if len(known) < len(times) or len(magnitudes) != len(times):
        wrong = (PHASE_WITHOUT_ECHO_TIME,) if any(phases) else ()
        return Echoes(warnings=wrong)
    angles: dict[int, CheckedImage] = {}
    warnings = []
    given = [(index, Path(path)) for index, path in enumerate(phases) if path is not None]
    read = read_phases([path for _, path in given], [units[index] for index, _ in given])
    for (index, path), image in zip(given, read, strict=True):
        try:
            angles[index] = _on_grid(usable(image), path, like)
        except ScanError as error:
            warnings.append(phase_not_used(error))
    chosen = [(i, t) for i, t in known if not angles or i in angles]
    images = [
        _on_grid(read_scan_image(Path(magnitudes[i]), role="magnitude"), Path(magnitudes[i]), like)
        for i, _ in chosen
    ]
    # What is odd about the magnitude images is reported where they are combined.
    told = [text for image in images for text in image.warnings]
    for index, checked in angles.items():
        warnings += phase_warnings(Path(str(phases[index])), checked.warnings, besides=told)
    return Echoes(
        tuple(_values(image) for image in images),
        tuple(_values(angles[i]) for i, _ in chosen if i in angles),
        tuple(t for _, t in chosen),
        tuple(warnings),
    )


def _on_grid(checked: CheckedImage, path: Path, like: Any) -> CheckedImage:
    """Return an image if it has the grid of another one; reject it otherwise."""
    require_phase_grid(checked.image, path, like)
    return checked


def _values(checked: CheckedImage) -> FloatArray:
    return np.asarray(checked.image.dataobj, dtype=np.float32)
