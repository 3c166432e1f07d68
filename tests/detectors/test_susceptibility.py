"""What detectors are told of lesions by the phase."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.detectors import DetectedLesion, DetectorInput
from cmbprep.detectors.susceptibility import judge, marked, phase_maps
from tests.phase.ballphantom import BALLS, FIELD_STRENGTH, Phantom, make_veined_block


def _input(block: Phantom, **changes: object) -> DetectorInput:
    given: dict[str, object] = {
        "magnitude": block.magnitudes[0],
        "affine": np.diag([*block.spacing, 1.0]),
        "brain_mask": block.mask,
        "sequence": "T2starw",
        "field_strength": FIELD_STRENGTH,
        "echo_times": tuple(block.echo_times),
        "echoes": tuple(block.magnitudes),
        "phases": tuple(block.phases),
    }
    return DetectorInput(**{**given, **changes})  # type: ignore[arg-type]


def _labels(block: Phantom) -> NDArray[np.int32]:
    """Label 1: the first ball, of iron; label 3: the second, of calcium; 2 is missing."""
    middle = (BALLS[0][0] + BALLS[1][0]) // 2
    labels = np.where(block.ball, 3, 0).astype(np.int32)
    labels[:middle][labels[:middle] > 0] = 1
    return labels


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("strength", [FIELD_STRENGTH, None])
def test_iron_is_told_from_calcium(sign: int, strength: float | None) -> None:
    block = make_veined_block(sign, 0.4, (1.0, -1.5))
    scan = _input(block, field_strength=strength)
    sources, warnings = judge(scan, _labels(block))
    assert {k: s.susceptibility for k, s in sources.items()} == {
        1: "paramagnetic",
        3: "diamagnetic",
    }
    assert len(warnings) == (strength is None)
    maps = phase_maps(scan)
    assert maps is not None and maps.sign.sign == sign


def test_without_veins_susceptibility_is_unknown_and_the_report_says_so() -> None:
    block = make_veined_block(1, 0.0, (1.0, -1.5))
    sources, warnings = judge(_input(block), _labels(block))
    assert {s.susceptibility for s in sources.values()} == {"unknown"}
    assert any("sign convention of the phase is unknown" in warning for warning in warnings)


def test_without_phase_lesions_are_left_as_they_are() -> None:
    block = make_veined_block(1, 0.4, (1.0, -1.5))
    scan = _input(block, phases=())
    lesion = DetectedLesion(
        index=1,
        centre_ras=(1.0, 2.0, 3.0),
        volume_mm3=10.0,
        diameter_mm=2.7,
        probability=0.8,
        rating="definite",
        contrast=0.7,
    )
    assert phase_maps(scan) is None
    assert marked(scan, _labels(block), [lesion]) == ((lesion,), ())


def test_the_maps_are_computed_once_a_scan() -> None:
    scan = _input(make_veined_block(1, 0.4))
    assert phase_maps(scan) is phase_maps(scan)
    other = replace(scan, field_strength=1.5)
    assert phase_maps(other) is not phase_maps(scan)
