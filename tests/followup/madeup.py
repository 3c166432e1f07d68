"""Visits of a made-up participant: a round brain, and lesions where a test wants them."""

from typing import Any

import numpy as np

from cmbprep.followup.protocol import Acquisition
from cmbprep.followup.status import VisitLesions
from cmbprep.lesions import Lesion
from cmbprep.ratings.automatic import Candidate

ACQUIRED: dict[str, Any] = {
    "sequence": "T2starw",
    "field_strength": 3.0,
    "echo_time": 0.02,
    "scanner": "Maker One",
}


def acquisition(**changes: Any) -> Acquisition:
    return Acquisition(**{**ACQUIRED, "spacing_mm": (1.0, 1.0, 2.0), **changes})


def lesion(index: int, centre: Any, **changes: Any) -> Lesion:
    x, y, z = map(float, centre)
    values: dict[str, Any] = {
        "index": index,
        "name": f"CMB-{index:03d}",
        "x": x,
        "y": y,
        "z": z,
        "volume_mm3": 33.5,
        "diameter_mm": 4.0,
        "probability": 0.9,
        "rating": "definite",
        "zone": "lobar",
        "contrast": 0.6,
    }
    return Lesion(**{**values, **changes})


def candidate(centre: Any, probability: float | None, row: int = 1) -> Candidate:
    x, y, z = map(float, centre)
    return Candidate(row=row, centre_ras=(x, y, z), probability=probability, diameter_mm=3.0)


def visit(
    *lesions: Lesion,
    candidates: tuple[Candidate, ...] | None = (),
    dismissed: tuple[Lesion, ...] = (),
    radius: float = 60.0,
    acquired: Acquisition | None = None,
    height: int = 80,
) -> VisitLesions:
    """A ball of brain around the origin, on a grid of that spacing."""
    acquired = acquired or acquisition()
    spacing = np.array(acquired.spacing_mm)
    shape = np.ceil(np.array([160, 160, 2 * height]) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(shape - 1) / 2 * spacing
    points = np.indices(shape).reshape(3, -1).T * spacing + affine[:3, 3]
    return VisitLesions(
        lesions=lesions,
        dismissed=dismissed,
        candidates=candidates,
        brain=(np.linalg.norm(points, axis=1) <= radius).reshape(shape),
        affine=affine,
        acquisition=acquired,
    )
