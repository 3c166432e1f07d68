import dataclasses
import hashlib
import itertools
import json
import shutil
from importlib import resources

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmbprep.detectors import DetectorInput, get_detector
from cmbprep.detectors.learned import LearnedDetector, blended, log_odds
from tests.detectors.phantom import make_phantom


def scan_of(phantom, **more):
    return DetectorInput(
        magnitude=phantom.magnitude,
        affine=phantom.affine,
        brain_mask=phantom.mask,
        sequence="T2starw",
        field_strength=3.0,
        echo_times=(0.02,),
        **more,
    )


@pytest.fixture(scope="module")
def detector():
    return get_detector("learned", threshold=0.05)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom()


@pytest.fixture(scope="module")
def found(detector, phantom):
    return detector.detect(scan_of(phantom))


def rows(detection):
    return [
        (*np.round(one.centre_ras, 3), round(one.volume_mm3, 3), one.probability, one.rating)
        for one in detection.lesions
    ]


def test_round_voids_are_found_and_tubes_are_not(found, phantom):
    sure = np.array([one.centre_ras for one in found.lesions if one.probability > 0.5])
    gaps = np.linalg.norm(sure[:, None] - phantom.bleeds_ras[None], axis=2)
    assert (gaps.min(axis=0) < 2).sum() >= 4, "of five voids"
    assert (gaps.min(axis=1) > 5).sum() <= 1, "what is no void"


def test_the_same_scan_gives_the_same_bytes(detector, found, phantom):
    again = detector.detect(scan_of(phantom))
    assert rows(again) == rows(found)
    assert again.probability.tobytes() == found.probability.tobytes()
    assert again.labels.tobytes() == found.labels.tobytes()


@pytest.mark.parametrize(
    ("axes", "flips"),
    list(
        zip(
            [order for order in itertools.permutations(range(3)) if order != (0, 1, 2)],
            [(-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1), (-1, -1, -1)],
            strict=True,
        )
    ),
)
def test_however_it_is_stored(detector, found, phantom, axes, flips):
    turn = np.column_stack([axes, flips])
    image = nib.Nifti1Image(phantom.magnitude, phantom.affine).as_reoriented(turn)
    mask = nib.Nifti1Image(phantom.mask.astype(np.uint8), phantom.affine).as_reoriented(turn)
    other = detector.detect(
        DetectorInput(
            magnitude=np.ascontiguousarray(np.asarray(image.dataobj, np.float32)),
            affine=image.affine,
            brain_mask=np.ascontiguousarray(np.asarray(mask.dataobj) > 0),
            sequence="T2starw",
            field_strength=3.0,
            echo_times=(0.02,),
        )
    )
    assert rows(other) == rows(found)
    back = nib.Nifti1Image(found.labels, phantom.affine).as_reoriented(turn)
    assert np.array_equal(other.labels, np.asarray(back.dataobj))


@pytest.mark.parametrize("gain", [0.01, 7.0])
def test_the_gain_of_the_scanner_plays_no_part(detector, found, phantom, gain):
    louder = dataclasses.replace(phantom, magnitude=(phantom.magnitude * gain).astype(np.float32))
    other = detector.detect(scan_of(louder))
    one, two = np.array([r[:5] for r in rows(found)]), np.array([r[:5] for r in rows(other)])
    assert one.shape == two.shape
    assert np.abs(one - two).max() < 0.05


def sure(detection):
    return np.array([one.centre_ras for one in detection.lesions if one.probability > 0.5])


def test_resampled_by_a_fifth(detector, found, phantom):
    factor = np.array([1.2, 1.2, 1.2])
    image = ndimage.zoom(phantom.magnitude, factor, order=1, grid_mode=True, mode="nearest")
    soft = phantom.mask.astype(np.float32)
    mask = ndimage.zoom(soft, factor, order=1, grid_mode=True, mode="nearest") > 0.5
    affine = phantom.affine.copy()
    real = np.array(phantom.magnitude.shape) / np.array(image.shape)
    affine[:3, :3] = affine[:3, :3] * real
    affine[:3, 3] += phantom.affine[:3, :3] @ ((real - 1) / 2)
    finer = dataclasses.replace(phantom, magnitude=image, mask=mask, affine=affine)
    other = detector.detect(scan_of(finer))
    gaps = np.linalg.norm(sure(found)[:, None] - sure(other)[None], axis=2)
    assert (gaps.min(axis=1) < 2).all()


def test_a_part_of_the_field_of_view(detector, found, phantom):
    cut = phantom.magnitude.shape[0] // 8
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, 0] * cut
    part = dataclasses.replace(
        phantom,
        magnitude=np.ascontiguousarray(phantom.magnitude[cut:]),
        mask=np.ascontiguousarray(phantom.mask[cut:]),
        affine=affine,
    )
    other = sure(detector.detect(scan_of(part)))
    voxels = np.linalg.inv(affine) @ np.column_stack([sure(found), np.ones(len(sure(found)))]).T
    inside = voxels[0] > 8
    gaps = np.linalg.norm(sure(found)[inside][:, None] - other[None], axis=2)
    assert (gaps.min(axis=1) < 2).all()


def test_nothing_is_found_in_noise(detector):
    rng = np.random.default_rng(0)
    image = (100 + 5 * rng.standard_normal((48, 48, 20))).astype(np.float32)
    scan = DetectorInput(
        magnitude=image,
        affine=np.diag([1.0, 1.0, 3.0, 1.0]),
        brain_mask=np.ones(image.shape, bool),
        sequence="T2starw",
    )
    assert all(one.rating == "possible" for one in detector.detect(scan).lesions)


def test_a_scan_unlike_the_known_ones_is_said_to_be(detector, found, phantom):
    strange = dataclasses.replace(scan_of(phantom), field_strength=7.0, echo_times=(0.06,))
    assert any("Echo time" in text for text in detector.detect(strange).warnings)
    assert not any("Echo time" in text for text in found.warnings)


def test_parameters_tell_the_model(detector):
    values = detector.parameters
    assert values["detector"] == "learned"
    assert len(values["sha256"]) == 64
    assert 0 < values["threshold"] <= values["definite"] < 1


LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -4.0], [-1.0, 0.0, 1.0]])
OTHERS = np.array([1.0, -2.0, 0.0])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_odds_of_a_bleed_are_averaged(share):
    mixed = blended(LOGITS, OTHERS, share)
    expected = (1 - share) * log_odds(LOGITS, 1) + share * OTHERS
    assert np.allclose(log_odds(mixed, 1), expected)
    assert np.array_equal(mixed[:, [0, 2]], LOGITS[:, [0, 2]]), "nothing against calcification"


def test_models_that_do_not_belong_together_are_refused(tmp_path):
    for name in ("models/candidates.onnx", "models/candidates.json", "detectors/classical.json"):
        with resources.as_file(resources.files("cmbprep").joinpath(name)) as path:
            shutil.copy(path, tmp_path)
    assert LearnedDetector(folder=tmp_path).sha256 == LearnedDetector().sha256
    other = json.loads((tmp_path / "classical.json").read_text("utf-8"))
    other["model"]["intercept"] += 0.1
    (tmp_path / "classical.json").write_text(json.dumps(other), "utf-8")
    with pytest.raises(ValueError, match="classical"):
        LearnedDetector(folder=tmp_path)


def test_the_classical_model_has_a_say(tmp_path, found, phantom):
    """Probabilities follow it, by the share that the card names."""
    classical = resources.files("cmbprep.detectors").joinpath("classical.json")
    values = json.loads(classical.read_text("utf-8"))
    values["model"]["intercept"] += 4.0
    content = json.dumps(values).encode()
    (tmp_path / "classical.json").write_bytes(content)
    models = resources.files("cmbprep.models")
    (tmp_path / "candidates.onnx").write_bytes(models.joinpath("candidates.onnx").read_bytes())
    card = json.loads(models.joinpath("candidates.json").read_text("utf-8"))
    card["classical"]["sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "candidates.json").write_text(json.dumps(card), "utf-8")
    changed = LearnedDetector(folder=tmp_path).detect(scan_of(phantom)).candidates
    usual = found.candidates
    column = list(usual.columns).index("odds")
    at = {tuple(row[:3]): row[column] for row in usual.rows}
    both = [(row[column], at[tuple(row[:3])]) for row in changed.rows if tuple(row[:3]) in at]
    assert len(both) >= 5
    rise = np.array([new - old for new, old in both])
    assert np.allclose(rise, 4 * card["classical"]["share"], atol=2e-4)
