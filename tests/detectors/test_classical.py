"""The classical detector finds round voids, not tubes, however the image is stored."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.detectors import Detection, DetectorInput, get_detector
from tests.detectors.phantom import Phantom, make_phantom


def detect(
    magnitude: NDArray[np.float32], affine: NDArray[np.float64], mask: NDArray[np.bool_]
) -> Detection:
    scan = DetectorInput(magnitude=magnitude, affine=affine, brain_mask=mask, sequence="T2starw")
    return get_detector("classical").detect(scan)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom()


@pytest.fixture(scope="module")
def found(phantom: Phantom) -> Detection:
    return detect(phantom.magnitude, phantom.affine, phantom.mask)


def centres(detection: Detection, rating: str | None = None) -> NDArray[np.float64]:
    chosen = [n.centre_ras for n in detection.lesions if rating in (None, n.rating)]
    return np.array(chosen).reshape(-1, 3)


def test_every_bleed_is_found_and_no_tube_is_definite(phantom: Phantom, found: Detection) -> None:
    points = centres(found)
    for bleed in phantom.bleeds_ras:
        assert np.linalg.norm(points - bleed, axis=1).min() < 1.5
    for point in centres(found, "definite"):
        assert np.linalg.norm(phantom.bleeds_ras - point, axis=1).min() < 2.0


def test_lesions_are_ordered_and_lie_in_their_labels(phantom: Phantom, found: Detection) -> None:
    probabilities = [n.probability for n in found.lesions]
    assert probabilities == sorted(probabilities, reverse=True)
    for one in found.lesions:
        voxels = np.argwhere(found.labels == one.index)
        inverse = np.linalg.inv(phantom.affine)
        centre = inverse[:3, :3] @ one.centre_ras + inverse[:3, 3]
        assert np.abs(voxels.mean(axis=0) - centre).max() < 1.0
        peak = found.probability[found.labels == one.index].max()
        assert peak == pytest.approx(one.probability, abs=1e-6)
    assert not found.probability[~phantom.mask].any()


def test_the_same_scan_gives_the_same_bytes(phantom: Phantom, found: Detection) -> None:
    again = detect(phantom.magnitude.copy(), phantom.affine, phantom.mask)
    assert again.labels.tobytes() == found.labels.tobytes()
    assert again.probability.tobytes() == found.probability.tobytes()
    assert again.lesions == found.lesions


def same_lesions(one: Detection, other: Detection, tolerance_mm: float) -> None:
    a, b = centres(one), centres(other)
    assert len(a) == len(b) > 0
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    assert distance.min(axis=1).max() < tolerance_mm
    probability = [n.probability for n in one.lesions]
    partner = [other.lesions[k].probability for k in distance.argmin(axis=1)]
    np.testing.assert_allclose(probability, partner, atol=0.02)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipped_axes_give_the_same_lesions(phantom: Phantom, found: Detection, axis: int) -> None:
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (phantom.magnitude.shape[axis] - 1)
    affine[:3, axis] *= -1
    flipped = detect(
        np.ascontiguousarray(np.flip(phantom.magnitude, axis)),
        affine,
        np.ascontiguousarray(np.flip(phantom.mask, axis)),
    )
    same_lesions(found, flipped, 0.1)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_permuted_axes_give_the_same_lesions(
    phantom: Phantom, found: Detection, order: tuple[int, int, int]
) -> None:
    affine = phantom.affine.copy()
    affine[:, :3] = affine[:, list(order)]
    turned = detect(
        np.ascontiguousarray(phantom.magnitude.transpose(order)),
        affine,
        np.ascontiguousarray(phantom.mask.transpose(order)),
    )
    same_lesions(found, turned, 0.1)


def test_the_gain_of_the_scanner_does_not_matter(phantom: Phantom, found: Detection) -> None:
    same_lesions(found, detect(phantom.magnitude * 37.5, phantom.affine, phantom.mask), 0.05)


def test_the_position_in_the_scanner_does_not_matter(phantom: Phantom, found: Detection) -> None:
    straight = np.diag([1.0, 1.0, 2.0, 1.0])
    other = detect(phantom.magnitude, straight, phantom.mask)
    back = phantom.affine @ np.linalg.inv(straight)
    moved = centres(other) @ back[:3, :3].T + back[:3, 3]
    np.testing.assert_allclose(moved, centres(found), atol=0.05)


def test_a_threshold_lists_fewer(phantom: Phantom, found: Detection) -> None:
    scan = DetectorInput(
        magnitude=phantom.magnitude,
        affine=phantom.affine,
        brain_mask=phantom.mask,
        sequence="T2starw",
    )
    cut = (found.lesions[0].probability + found.lesions[-1].probability) / 2
    fewer = get_detector("classical", threshold=cut).detect(scan)
    expected = [n for n in found.lesions if n.probability >= cut]
    assert [n.probability for n in fewer.lesions] == [n.probability for n in expected]


def test_an_even_image_has_no_lesions() -> None:
    detection = detect(np.full((20, 20, 12), 7, np.float32), np.eye(4), np.ones((20, 20, 12), bool))
    assert detection.lesions == ()
    assert not detection.labels.any()


def test_coarse_voxels_are_said_to_be_coarse() -> None:
    shape = (12, 12, 8)
    detection = detect(
        np.ones(shape, np.float32), np.diag([3.0, 3.0, 3.3, 1.0]), np.ones(shape, bool)
    )
    assert any("coarse" in warning for warning in detection.warnings)
