"""The plug-in place: values check themselves, detectors are found by name."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.detectors import Detection, Detector, DetectorInput, get_detector
from cmbprep.detectors.base import DetectedLesion
from cmbprep.errors import UsageError

SHAPE = (6, 7, 8)


def scan(**changes: object) -> DetectorInput:
    values: dict[str, object] = {
        "magnitude": np.ones(SHAPE, np.float32),
        "affine": np.eye(4),
        "brain_mask": np.ones(SHAPE, bool),
        "sequence": "T2starw",
    }
    return DetectorInput(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"magnitude": np.ones(SHAPE, np.float64)},
        {"magnitude": np.full(SHAPE, np.nan, np.float32)},
        {"magnitude": np.ones((*SHAPE, 2), np.float32)},
        {"brain_mask": np.zeros(SHAPE, bool)},
        {"brain_mask": np.ones((6, 7, 9), bool)},
        {"affine": np.zeros((4, 4))},
        {"sequence": "bold"},
        {"field_strength": 3000.0},
        {"echo_times": (20.0,)},
        {"echo_times": (0.02,), "phases": (np.zeros((2, 2, 2), np.float32),)},
        {"echoes": (np.ones(SHAPE, np.float32),)},
    ],
)
def test_a_wrong_scan_is_refused(changes: dict[str, object]) -> None:
    scan()
    with pytest.raises(ValueError, match=r"magnitude|mask|affine|sequence|field|echo"):
        scan(**changes)


def lesion(index: int = 1) -> DetectedLesion:
    return DetectedLesion(
        index=index,
        centre_ras=(0.0, 0.0, 0.0),
        volume_mm3=10.0,
        diameter_mm=2.7,
        probability=0.9,
        rating="definite",
        contrast=0.5,
    )


def test_labels_and_lesions_must_agree() -> None:
    labels = np.zeros(SHAPE, np.int32)
    labels[2, 2, 2] = 1
    heat = np.zeros(SHAPE, np.float32)
    assert Detection(probability=heat, labels=labels, lesions=(lesion(),)).lesions
    with pytest.raises(ValueError, match="belong together"):
        Detection(probability=heat, labels=labels, lesions=())
    with pytest.raises(ValueError, match="belong together"):
        Detection(probability=heat, labels=labels, lesions=(lesion(2),))
    with pytest.raises(ValueError, match="outside"):
        Detection(probability=heat + 2, labels=labels, lesions=(lesion(),))


def test_a_detector_is_found_by_name() -> None:
    detector = get_detector("classical", threshold=0.4)
    assert isinstance(detector, Detector)
    assert detector.parameters["threshold"] == 0.4


@pytest.mark.parametrize("name", ["learnt", "somebody.pt", ""])
def test_an_unknown_detector_is_named_with_those_that_exist(name: str) -> None:
    with pytest.raises(UsageError, match="classical"):
        get_detector(name)


@pytest.mark.parametrize("threshold", [-0.1, 0.0, 1.0, 40.0])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(UsageError, match="threshold"):
        get_detector("classical", threshold=threshold)
