"""A user's network sees what its contract says, and its result lies where the scan has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from scipy import ndimage, special

from cmbprep.detectors import Detection, Detector, DetectorInput, get_detector
from cmbprep.detectors.network import NetworkDetector, thickest_axis
from tests.detectors.onnxmodels import FREE, convolution, darkness, identity, save_model
from tests.detectors.phantom import Phantom, make_phantom, oblique_affine

RATIO = {"cmbprep.normalisation": "background-ratio"}


def as_input(
    magnitude: NDArray[np.float32], affine: NDArray[np.float64], mask: NDArray[np.bool_]
) -> DetectorInput:
    return DetectorInput(magnitude=magnitude, affine=affine, brain_mask=mask, sequence="swi")


def blobs(shape: tuple[int, int, int] = (40, 48, 30), seed: int = 0) -> DetectorInput:
    """Values in 0..1, smooth enough to be resampled, in a mask that leaves a border."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random(shape), 2)
    image = (image - image.min()) / np.ptp(image)
    mask = np.zeros(shape, bool)
    mask[3:-4, 5:-3, 2:-2] = True
    return as_input(image.astype(np.float32), oblique_affine((0.8, 0.7, 1.3)), mask)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom()


@pytest.fixture(scope="module")
def dark_places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return darkness(tmp_path_factory.mktemp("net") / "dark.onnx", RATIO)


@pytest.fixture(scope="module")
def found(phantom: Phantom, dark_places: Path) -> Detection:
    scan = as_input(phantom.magnitude, phantom.affine, phantom.mask)
    return get_detector(dark_places).detect(scan)


def centres(detection: Detection) -> NDArray[np.float64]:
    return np.array([n.centre_ras for n in detection.lesions]).reshape(-1, 3)


# --- the map ---------------------------------------------------------------------------


def test_an_identity_network_gives_the_image_back(tmp_path: Path) -> None:
    scan = blobs()
    model = identity(tmp_path / "same.onnx", {"cmbprep.normalisation": "none"})
    found = get_detector(model).detect(scan)
    expected = np.where(scan.brain_mask, scan.magnitude, 0)
    np.testing.assert_allclose(found.probability, expected, atol=1e-5)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA"])
def test_any_orientation_comes_back(tmp_path: Path, orientation: str) -> None:
    scan = blobs()
    keys = {"cmbprep.normalisation": "none", "cmbprep.orientation": orientation}
    found = get_detector(identity(tmp_path / "same.onnx", keys)).detect(scan)
    expected = np.where(scan.brain_mask, scan.magnitude, 0)
    np.testing.assert_allclose(found.probability, expected, atol=1e-5)


def test_the_network_sees_its_own_orientation(tmp_path: Path) -> None:
    """A filter that looks to the front, in a scan whose first axis points to the left."""
    shape = (20, 24, 16)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    weights = np.zeros((1, 1, 3, 3, 3), np.float32)
    weights[0, 0, 1, 2, 1] = 1  # the neighbour in the direction of the second axis
    model = convolution(tmp_path / "next.onnx", weights, {"cmbprep.normalisation": "none"})
    affine = np.array([[-1.0, 0, 0, 9], [0, 0, 1.5, 3], [0, 1.2, 0, -5], [0, 0, 0, 1]])
    found = get_detector(model).detect(as_input(image, affine, np.ones(shape, bool)))
    # To the front is the third axis as stored.
    expected = special.expit(np.pad(image, [(0, 0), (0, 0), (0, 1)])[:, :, 1:])
    np.testing.assert_allclose(found.probability, expected, atol=2e-5)


def laplacian() -> NDArray[np.float32]:
    weights = np.zeros((1, 1, 3, 3, 3), np.float32)
    weights[0, 0] = ndimage.generate_binary_structure(3, 1)
    weights[0, 0, 1, 1, 1] = -6
    return weights


@pytest.mark.parametrize("patch", ["16,16,16", "64,64,64", "16,64,20"])
def test_tiles_do_not_show(tmp_path: Path, patch: str) -> None:
    scan = blobs((70, 48, 40))
    keys = {"cmbprep.normalisation": "none", "cmbprep.patch": patch}
    model = convolution(tmp_path / "edges.onnx", 20 * laplacian(), keys)
    found = get_detector(model).detect(scan)
    logit = 20 * ndimage.convolve(scan.magnitude, laplacian()[0, 0], mode="constant")
    expected = np.where(scan.brain_mask, special.expit(logit), 0)
    np.testing.assert_allclose(found.probability, expected, atol=2e-5)


def test_the_size_that_a_model_fixes_is_the_tile(tmp_path: Path) -> None:
    scan = blobs((70, 48, 20))
    model = convolution(
        tmp_path / "fixed.onnx",
        laplacian(),
        {"cmbprep.normalisation": "none"},
        inputs=[("input", (1, 1, 24, 32, 28))],
    )
    found = get_detector(model).detect(scan)
    logit = ndimage.convolve(scan.magnitude, laplacian()[0, 0], mode="constant")
    expected = np.where(scan.brain_mask, special.expit(logit), 0)
    np.testing.assert_allclose(found.probability, expected, atol=2e-5)


def test_slices_are_those_across_the_thickest_voxels(tmp_path: Path) -> None:
    """A 2D network on a scan whose slices are stored along the first axis."""
    shape = (9, 40, 44)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    affine = np.array([[0, 0.6, 0, 0], [0, 0, 0.6, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
    weights = laplacian()[:, :, 1]
    keys = {"cmbprep.normalisation": "none", "cmbprep.patch": "16,20"}
    model = convolution(
        tmp_path / "flat.onnx", weights, keys, inputs=[("input", (1, 1, *FREE[:2]))]
    )
    mask = np.ones(shape, bool)
    mask[4] = False
    found = get_detector(model).detect(as_input(image, affine, mask))
    logit = np.stack([ndimage.convolve(s, weights[0, 0], mode="constant") for s in image])
    expected = np.where(mask, special.expit(logit), 0)
    np.testing.assert_allclose(found.probability, expected, atol=2e-5)
    assert thickest_axis(np.array([1.0, 1.0, 1.0])) == 2
    assert thickest_axis(np.array([0.6, 4.0, 0.6])) == 1


def test_channels_come_in_the_order_named(tmp_path: Path) -> None:
    scan = blobs()
    weights = np.zeros((1, 3, 1, 1, 1), np.float32)
    weights[0, :, 0, 0, 0] = (5.0, 1.0, -2.0)
    keys = {
        "cmbprep.normalisation": "none",
        "cmbprep.channels": "brain_mask, magnitude,magnitude_brain",
        "cmbprep.orientation": "LAS",
    }
    model = convolution(tmp_path / "three.onnx", weights, keys, inputs=[("input", (1, 3, *FREE))])
    found = get_detector(model).detect(scan)
    expected = np.where(scan.brain_mask, special.expit(5 - scan.magnitude), 0)
    np.testing.assert_allclose(found.probability, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"cmbprep.activation": "sigmoid"}, lambda x: special.expit(2 * x)),
        ({"cmbprep.activation": "softmax"}, lambda x: special.expit(2 * x - x)),
        (
            {"cmbprep.activation": "softmax", "cmbprep.output_channel": "0"},
            lambda x: special.expit(x - 2 * x),
        ),
    ],
)
def test_activation_and_channel_of_the_output(
    tmp_path: Path, keys: dict[str, str], expected: object
) -> None:
    scan = blobs()
    weights = np.array([1, 2], np.float32).reshape(2, 1, 1, 1, 1)
    model = save_model(
        tmp_path / "logits.onnx",
        [helper.make_node("Conv", ["input", "weights"], ["output"])],
        {"weights": weights},
        metadata={"cmbprep.normalisation": "none", **keys},
    )
    found = get_detector(model).detect(scan)
    inside = found.probability[scan.brain_mask]
    np.testing.assert_allclose(inside, expected(scan.magnitude[scan.brain_mask]), atol=2e-5)


@pytest.mark.parametrize("spacing", ["0.5,0.5,0.5", "1,1,1", "1.2,1.2,2"])
def test_a_network_of_another_voxel_size_finds_lesions_where_they_are(
    phantom: Phantom, found: Detection, tmp_path: Path, spacing: str
) -> None:
    model = darkness(tmp_path / "dark.onnx", {**RATIO, "cmbprep.spacing_mm": spacing})
    other = get_detector(model).detect(as_input(phantom.magnitude, phantom.affine, phantom.mask))
    for bleed in phantom.bleeds_ras:
        near = [min(np.linalg.norm(centres(each) - bleed, axis=1)) for each in (found, other)]
        assert max(near) < 0.5, near


# --- lesions ---------------------------------------------------------------------------


def test_lesions_are_the_parts_of_the_map(phantom: Phantom, found: Detection) -> None:
    parts, count = ndimage.label(found.probability >= 0.5)
    assert count == len(found.lesions) > 5
    np.testing.assert_array_equal(found.labels > 0, parts > 0)
    probabilities = [n.probability for n in found.lesions]
    assert probabilities == sorted(probabilities, reverse=True)
    for one in found.lesions:
        values = found.probability[found.labels == one.index]
        assert values.max() == pytest.approx(one.probability, abs=1e-6)
        assert one.rating == ("definite" if one.probability >= 0.8 else "possible")
    assert not found.probability[~phantom.mask].any()


def test_small_parts_are_left_out_by_volume(
    phantom: Phantom, found: Detection, tmp_path: Path
) -> None:
    model = darkness(tmp_path / "dark.onnx", {**RATIO, "cmbprep.min_volume_mm3": "8"})
    fewer = get_detector(model).detect(as_input(phantom.magnitude, phantom.affine, phantom.mask))
    volume = float(abs(np.linalg.det(phantom.affine[:3, :3])))
    sizes = [volume * np.count_nonzero(found.labels == n.index) for n in found.lesions]
    assert 0 < len(fewer.lesions) == np.count_nonzero(np.array(sizes) > 7.9) < len(sizes)


def test_a_threshold_replaces_that_of_the_contract(
    phantom: Phantom, found: Detection, dark_places: Path
) -> None:
    scan = as_input(phantom.magnitude, phantom.affine, phantom.mask)
    strict = get_detector(dark_places, threshold=0.97).detect(scan)
    assert 0 < np.count_nonzero(strict.labels) < np.count_nonzero(found.labels)
    assert all(n.probability >= 0.97 and n.rating == "definite" for n in strict.lesions)


def same_lesions(one: Detection, other: Detection) -> None:
    assert len(one.lesions) == len(other.lesions) > 0
    distance = np.linalg.norm(centres(one)[:, None] - centres(other)[None], axis=2)
    partner = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-3
    for name in ("probability", "volume_mm3", "contrast"):
        a = [getattr(n, name) for n in one.lesions]
        b = [getattr(other.lesions[k], name) for k in partner]
        np.testing.assert_allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", ["native", "1,1,1"])
def test_flipped_storage_gives_the_same_lesions(
    phantom: Phantom, tmp_path: Path, axis: int, spacing: str
) -> None:
    model = darkness(tmp_path / "dark.onnx", {**RATIO, "cmbprep.spacing_mm": spacing})
    detector = get_detector(model)
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (phantom.magnitude.shape[axis] - 1)
    affine[:3, axis] *= -1
    flipped = as_input(
        np.ascontiguousarray(np.flip(phantom.magnitude, axis)),
        affine,
        np.ascontiguousarray(np.flip(phantom.mask, axis)),
    )
    straight = as_input(phantom.magnitude, phantom.affine, phantom.mask)
    one, other = detector.detect(straight), detector.detect(flipped)
    same_lesions(one, other)
    np.testing.assert_allclose(np.flip(other.probability, axis), one.probability, atol=2e-5)


def test_permuted_storage_gives_the_same_lesions(
    phantom: Phantom, found: Detection, dark_places: Path
) -> None:
    affine = phantom.affine[:, [2, 0, 1, 3]]
    turned = as_input(
        np.ascontiguousarray(phantom.magnitude.transpose(2, 0, 1)),
        affine,
        np.ascontiguousarray(phantom.mask.transpose(2, 0, 1)),
    )
    same_lesions(found, get_detector(dark_places).detect(turned))


# --- sameness --------------------------------------------------------------------------


def test_the_same_scan_gives_the_same_bytes_whatever_the_threads(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(0).normal(0, 0.3, (1, 1, 5, 5, 5)).astype(np.float32)
    model = convolution(tmp_path / "random.onnx", weights, {})
    scan = as_input(phantom.magnitude, phantom.affine, phantom.mask)
    results = []
    for threads in ("1", "8"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        before = {path.name for path in Path("/proc/self/task").iterdir()}
        detector = get_detector(model)
        results.append(detector.detect(scan).probability.tobytes())
        # A thread of an earlier test may end meanwhile.
        assert {path.name for path in Path("/proc/self/task").iterdir()} <= before
    assert results[0] == results[1]


def test_provenance_follows_content_not_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = identity(tmp_path / "net.onnx", RATIO)
    moved = tmp_path / "other" / "net.onnx"
    moved.write_bytes(here.read_bytes())
    one, other = get_detector(here), get_detector(moved)
    assert isinstance(one, Detector)
    assert one.name == "net.onnx"
    assert one.parameters == other.parameters
    assert str(tmp_path) not in repr(one.parameters)
    changed = [get_detector(darkness(moved, RATIO)), get_detector(here, threshold=0.3)]
    here.with_suffix(".json").write_text('{"connectivity": 26}')
    changed.append(get_detector(here))
    versions = {each.version for each in (one, *changed)}
    assert len(versions) == 4


# --- warnings --------------------------------------------------------------------------


def test_a_result_that_cannot_be_true_is_said_to_be_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (40, 40, 40)
    noise = as_input(rng.random(shape, dtype=np.float32), np.eye(4), np.ones(shape, bool))
    model = identity(tmp_path / "same.onnx", {"cmbprep.normalisation": "none"})
    result = NetworkDetector(model, threshold=0.9).detect(noise)
    assert any("10% of the brain" in warning for warning in result.warnings)
    assert any("places; the 1000 most" in warning for warning in result.warnings)
    assert len(result.lesions) == 1000
    quiet = replace(noise, magnitude=noise.magnitude * np.float32(0.5))
    assert NetworkDetector(model, threshold=0.9).detect(quiet).warnings == ()


def test_far_resampling_is_said(tmp_path: Path) -> None:
    model = identity(
        tmp_path / "same.onnx", {"cmbprep.normalisation": "none", "cmbprep.spacing_mm": "1,1,1"}
    )
    shape = (30, 30, 8)
    thick = as_input(
        np.zeros(shape, np.float32), np.diag([1.0, 1.0, 5.0, 1.0]), np.ones(shape, bool)
    )
    (warning,) = get_detector(model).detect(thick).warnings
    assert "interpolated from 1.00 x 1.00 x 5.00 mm" in warning
