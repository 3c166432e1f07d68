"""Phase: the scale of its values, over all echoes of a scan, and voxels without any."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given

from cmbprep.bids.images import CheckedImage, read_phase, read_phases, read_scan_image
from cmbprep.bids.phase import phase_scale, phase_scales, phase_to_radians
from cmbprep.errors import ScanError
from tests.bidsdata import save, wrapped


@pytest.mark.parametrize(
    ("low", "high", "whole", "how"),
    [
        (-np.pi, np.pi, False, "radians"),
        (0, 2 * np.pi, False, "radians"),
        (-1, 1, False, "multiples of π"),
        (0, 1, False, "cycles"),
        (-180, 180, False, "degrees"),
        (0, 4095, True, "12 bits"),
        (-4096, 4095, True, "13 bits"),
        (-2048, 2047, True, "12 bits"),
        (-3142, 3142, True, "milliradians"),
        (0, 65535, True, "16 bits"),
        (0, 1500, True, "range of the values"),
        (-700, 700, True, "range of the values"),
    ],
)
def test_phase_of_any_range_becomes_the_same_radians(
    low: float, high: float, whole: bool, how: str
) -> None:
    data = wrapped(low, high, whole=whole)
    for claim in (None, "arbitrary", "rad"):
        _check_radians(data, claim, how)


def _check_radians(data: np.ndarray, units: str | None, how: str) -> None:
    assert phase_scale(data, units).how == how
    truth = wrapped(0, 2 * np.pi, whole=False)
    found = phase_to_radians(data, units)
    assert found.dtype == np.float32
    assert found.min() >= -np.float32(np.pi)
    assert found.max() <= np.float32(np.pi)
    # One constant for the whole image is free; all differences must be right.
    error = np.exp(1j * (found - truth))
    offset = error.mean() / abs(error.mean())
    assert np.abs(np.angle(error / offset)).max() < 0.02


def test_signed_and_unsigned_storage_of_a_phase_agree() -> None:
    unsigned = wrapped(0, 4095, whole=True)
    signed = 2 * unsigned - 4096
    difference = phase_to_radians(unsigned) - phase_to_radians(signed)
    np.testing.assert_allclose(np.angle(np.exp(1j * difference)), 0, atol=1e-5)


def test_a_few_outliers_do_not_change_the_scale() -> None:
    data = wrapped(0, 4095, whole=True)
    data[0, 0, :4] = 20000
    assert phase_scale(data).how == "12 bits"


def test_unwrapped_radians_keep_their_scale() -> None:
    data = np.linspace(-20, 20, 1001)
    expected = np.angle(np.exp(1j * data))
    np.testing.assert_allclose(phase_to_radians(data), expected, atol=1e-5)


def test_filtered_radians_are_believed_when_the_sidecar_says_so() -> None:
    data = np.linspace(-0.9, 0.9, 1001)
    np.testing.assert_allclose(phase_to_radians(data, "rad"), data, atol=1e-6)


@pytest.mark.parametrize("data", [np.zeros(8), np.full(8, np.nan), np.array([])])
def test_phase_without_content(data: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no two different values"):
        phase_scale(data)


@given(st.floats(-3.1, 3.1), st.integers(-3, 3))
def test_whole_turns_change_nothing(value: float, turns: int) -> None:
    data = np.array([-3.0, 3.0, value, value + 2 * np.pi * turns])
    radians = phase_to_radians(data, "rad")
    assert radians[2] == pytest.approx(value, abs=1e-5)
    assert radians[3] == pytest.approx(value, abs=1e-5)


# --- all echoes together, and claims that do not hold --------------------------------------------


def test_an_echo_that_does_not_fill_the_circle_has_that_of_the_others() -> None:
    full = wrapped(0, 4095, whole=True)
    rng = np.random.default_rng(0)
    early = np.rint(rng.normal(2000, 150, full.shape))
    assert not phase_scale(early).known
    scales = phase_scales([early, full], [None, None])
    assert scales[0] == scales[1] and scales[1].how == "12 bits"
    # Together, two halves fill a circle, too.
    halves = [np.rint(rng.normal(middle, 330, full.shape)) for middle in (1050, 3050)]
    assert {scale.how for scale in phase_scales(halves, [None, None])} == {"12 bits"}


def test_echoes_that_are_stored_unlike_keep_their_own_scales() -> None:
    whole, radians = wrapped(0, 4095, whole=True), wrapped(-np.pi, np.pi, whole=False)
    odd = wrapped(0, 900, whole=True)
    found = phase_scales([whole, radians, odd], ["rad"] * 3)
    assert [scale.how for scale in found] == ["12 bits", "radians", "range of the values"]
    # An odd circle does not become part of another echo's.
    assert not phase_scales([odd, whole], [None, None])[0].known


@pytest.mark.parametrize(
    ("low", "high"), [(-0.0037, 0.0037), (-0.1, 0.1), (-20, 20), (0, 40), (-0.8, 0.8)]
)
def test_values_that_wrap_elsewhere_are_no_radians(low: float, high: float) -> None:
    data = wrapped(low, high, whole=False)
    for claim in ("rad", None):
        assert not phase_scale(data, claim).known


def test_values_that_span_next_to_nothing_are_no_radians() -> None:
    data = np.random.default_rng(0).normal(0, 0.01, (20, 20, 10))
    assert not phase_scale(data, "rad").known
    assert phase_scale(30 * data, "rad").how == "radians"


def test_the_error_says_what_is_wrong_with_the_claim(tmp_path: Path) -> None:
    small, odd = tmp_path / "small.nii.gz", tmp_path / "odd.nii.gz"
    save(small, np.random.default_rng(0).normal(0, 0.01, (24, 28, 20)).astype(np.float32))
    save(odd, wrapped(-20, 20, whole=False).astype(np.float32))
    for path, words in ((small, "span less than the 0.3 rad"), (odd, "do not look like radians")):
        with pytest.raises(ScanError, match=words) as caught:
            read_phase(path, "rad")
        assert caught.value.path == str(path) and caught.value.hint


def test_one_bad_echo_does_not_cost_the_others(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.nii.gz", tmp_path / "bad.nii.gz"
    save(good, wrapped(0, 4095, whole=True).astype(np.int16))
    save(bad, wrapped(0, 900, whole=True).astype(np.int16))
    first, second, third = read_phases(
        [good, bad, tmp_path / "none.nii.gz"], ["arbitrary", "arbitrary", None]
    )
    assert isinstance(first, CheckedImage)
    assert isinstance(second, ScanError) and isinstance(third, ScanError)


def test_unknown_phase_stays_unknown(tmp_path: Path) -> None:
    data = wrapped(-np.pi, np.pi, whole=False).astype(np.float32)
    data[3:6, 4, 5] = np.nan
    path = tmp_path / "phase.nii.gz"
    save(path, data)
    image, warnings = read_phase(path, "rad")
    found = np.asarray(image.dataobj)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(data))
    assert warnings == (
        "3 voxels that are not a number (NaN or infinite): their phase counts as unknown",
    )
    # A magnitude image has no unknown voxels.
    assert np.isfinite(nib.load(path).get_fdata()).sum() == data.size - 3
    magnitude = tmp_path / "magnitude.nii.gz"
    save(magnitude, np.where(np.isnan(data), np.nan, 500 + 50 * np.abs(data)))
    assert np.isfinite(read_scan_image(magnitude, role="magnitude").image.get_fdata()).all()


def test_real_phase_with_nan(real_phase: Path) -> None:
    """An upsampled first echo beyond a turn, and a second one that fills it; a few NaN."""
    stored = nib.load(real_phase / "gre_nan_phase_with_nan.nii.gz")
    echoes = np.moveaxis(np.asarray(stored.dataobj, np.float32), 3, 0)
    for units in ("rad", None):
        assert [scale.how for scale in phase_scales(echoes, [units] * 2)] == ["radians"] * 2


def test_real_phase_that_was_not_scaled(real_phase: Path, tmp_path: Path) -> None:
    """All echoes of the crop are stored as -0.0037 to 0.0037, which Units rad does not mend."""
    stored = nib.load(real_phase / "gre3_phase.nii.gz")
    paths = []
    for n in range(3):
        paths.append(tmp_path / f"echo-{n}.nii.gz")
        save(paths[-1], np.asarray(stored.dataobj)[..., n].astype(np.float32), stored.affine)
    for units in ("rad", None):
        for found in read_phases(paths, [units] * 3):
            assert isinstance(found, ScanError)
