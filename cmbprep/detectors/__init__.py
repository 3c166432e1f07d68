"""Detectors of microbleeds, and how one is chosen.

A further detector is added by writing a module whose object meets
:class:`~cmbprep.detectors.base.Detector` and naming it in :data:`DETECTORS`. A network of the
user's own needs no code: its ONNX file is given in the place of a name. So is the last stage of
``learned`` that was fitted to a site's own ratings (``.json``).
"""

from __future__ import annotations

import importlib
from pathlib import Path

from cmbprep.detectors.base import (
    CandidateTable,
    DetectedLesion,
    Detection,
    Detector,
    DetectorInput,
)
from cmbprep.errors import UsageError

__all__ = [
    "DETECTORS",
    "CandidateTable",
    "DetectedLesion",
    "Detection",
    "Detector",
    "DetectorInput",
    "get_detector",
]

#: Name -> (module of this package, class). Imported only when asked for.
DETECTORS: dict[str, tuple[str, str]] = {
    "learned": ("learned", "LearnedDetector"),
    "classical": ("classical", "ClassicalDetector"),
}


def get_detector(name_or_path: str | Path, threshold: float | None = None) -> Detector:
    """Make the detector that ``--detector`` names.

    Parameters
    ----------
    name_or_path
        One of :data:`DETECTORS`, or a file that ends in ``.onnx`` or ``.json``.
    threshold
        Probability from which a lesion is listed; None for the detector's own.

    Raises
    ------
    UsageError
        If there is no such detector, the threshold is not within 0..1, or the network cannot
        be used.
    """
    name = str(name_or_path)
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(
            f"the threshold {threshold} is not a probability between 0 and 1",
            hint="give --threshold a value such as 0.5, or leave it out",
        )
    if Path(name).suffix.lower() == ".onnx":
        from cmbprep.detectors.network import NetworkDetector

        return NetworkDetector(name, threshold=threshold)
    if Path(name).suffix.lower() == ".json":
        from cmbprep.detectors.learned import LearnedDetector

        return LearnedDetector(threshold, site=Path(name))
    if name not in DETECTORS:
        raise UsageError(
            f"there is no detector {name!r}",
            hint=f"choose one of: {', '.join(sorted(DETECTORS))}; or give the file of a network, "
            "which ends in .onnx, or of a model fitted to your ratings, which ends in .json",
        )
    module, kind = DETECTORS[name]
    make = getattr(importlib.import_module(f".{module}", __name__), kind)
    detector: Detector = make(threshold=threshold)
    return detector
