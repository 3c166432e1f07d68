"""Signal equations, sampling, noise and SWI against what is known of them."""

import numpy as np
import pytest

from cmbprep.lab.simulate.signal import (
    add_noise,
    crop_k_space,
    ernst_amplitude,
    gradient_echo,
    move,
    mprage_amplitude,
    slice_profile,
    wrap,
)
from cmbprep.phase.swi import high_pass_phase, phase_mask, swi


def test_ernst_angle_gives_the_largest_signal():
    angles = np.arange(1.0, 90.0)
    signal = [ernst_amplitude(1.0, 800.0, 30.0, a) for a in angles]
    expected = np.rad2deg(np.arccos(np.exp(-30 / 800)))
    assert angles[int(np.argmax(signal))] == pytest.approx(expected, abs=1)


def test_mprage_is_null_at_its_inversion_time():
    t1 = 1000.0
    assert mprage_amplitude(1.0, t1, np.log(2) * t1, 1e6) == pytest.approx(0, abs=1e-9)
    assert mprage_amplitude(0.7, 832.0, 900, 2300) > mprage_amplitude(0.82, 1331.0, 900, 2300)


def test_gradient_across_a_cell_dephases_as_a_sinc():
    """The mean over a voxel does not depend on how finely it was cut."""
    hz_per_voxel, echo_time = 42.0, 0.020
    means = []
    for cells in (2, 4, 64):
        position = (np.arange(3 * cells) + 0.5) / cells
        frequency = np.broadcast_to((hz_per_voxel * position), (2, 2, 3 * cells))
        ones = np.ones(frequency.shape, np.float32)
        signal = gradient_echo(ones, 0 * ones, frequency.astype(np.float32), echo_time)
        means.append(abs(signal[0, 0, cells : 2 * cells].mean()))
    expected = abs(np.sinc(hz_per_voxel * echo_time))
    np.testing.assert_allclose(means, expected, rtol=1e-4)


def test_decay_and_both_signs_of_the_phase():
    ones = np.ones((3, 3, 3), np.float32)
    right = gradient_echo(ones, 20 * ones, 5 * ones, 0.030)
    left = gradient_echo(ones, 20 * ones, 5 * ones, 0.030, phase_sign=-1)
    assert abs(right[1, 1, 1]) == pytest.approx(np.exp(-0.6), rel=1e-5)
    assert np.angle(right[1, 1, 1]) == pytest.approx(2 * np.pi * 5 * 0.030, rel=1e-5)
    np.testing.assert_allclose(left, right.conj(), rtol=1e-6)


@pytest.mark.parametrize("size", [15, 16])
def test_cropping_k_space_keeps_what_it_can_sample(size):
    """A wave below the new Nyquist frequency is sampled exactly; one above is gone."""
    n = size * 3
    position = np.arange(n) / n
    low = np.exp(2j * np.pi * 4 * position).astype(np.complex64)
    high = np.exp(2j * np.pi * (size // 2 + 3) * position).astype(np.complex64)
    kept = crop_k_space(low[None, :], 1, size)
    np.testing.assert_allclose(kept[0], low[::3], atol=1e-5)
    assert np.abs(crop_k_space(high[None, :], 1, size)).max() < 1e-5
    with pytest.raises(ValueError, match="cannot be kept"):
        crop_k_space(low[None, :], 1, n + 1)


def test_slice_profile_has_the_width_of_the_slice():
    weights = slice_profile(81, 0.1, 5.0)
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(weights, weights[::-1], atol=1e-7)
    assert (weights > weights.max() / 2).sum() * 0.1 == pytest.approx(5.0, abs=0.2)


def test_noise_is_rayleigh_in_air_and_rician_in_tissue():
    rng = np.random.default_rng(2)
    signal = np.zeros((60, 60, 60), np.complex64)
    signal[30:] = 3.0
    noisy = np.abs(add_noise(signal, 0.5, rng))
    assert noisy[:30].mean() == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.01)
    assert np.sqrt((noisy[30:] ** 2).mean()) == pytest.approx(np.sqrt(9 + 2 * 0.25), rel=0.01)


def test_high_pass_phase_drops_slow_phase_and_keeps_small_things():
    x, y = np.meshgrid(np.arange(96), np.arange(96), indexing="ij")
    slow = 0.05 * x + 0.0004 * (y - 40.0) ** 2
    small = 0.8 * np.exp(-((x - 50) ** 2 + (y - 44) ** 2) / 3.0)
    signal = np.exp(1j * (slow + small))[:, :, None].astype(np.complex64)
    phase = high_pass_phase(signal, size=64)[:, :, 0]
    assert phase[50, 44] == pytest.approx(0.8, abs=0.2)
    # Away from the vein and the edges, where the slow phase jumps around the circle.
    assert np.abs(phase[60:80, 20:36]).max() < 0.15


def test_phase_mask_darkens_one_sign_of_either_convention():
    phase = np.array([-np.pi / 2, 0, np.pi / 2, np.pi], np.float32)
    np.testing.assert_allclose(phase_mask(phase), [1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(phase_mask(-phase, -1), phase_mask(phase), atol=1e-6)


def test_swi_is_never_brighter_than_the_magnitude():
    rng = np.random.default_rng(3)
    signal = (rng.standard_normal((32, 32, 4)) + 1j * rng.standard_normal((32, 32, 4))).astype(
        np.complex64
    )
    assert np.all(swi(signal) <= np.abs(signal) + 1e-6)


def test_a_constant_drift_shifts_the_image_and_a_changing_one_smears_it():
    rng = np.random.default_rng(4)
    image = np.zeros((24, 20, 2), np.complex64)
    image[10:14, 8:12] = rng.random((4, 4, 2)) + 1
    shift = np.stack([np.full(20, 3.0), np.full(20, -2.0)])
    np.testing.assert_allclose(
        np.abs(move(image, shift)), np.abs(np.roll(image, (3, -2), (0, 1))), atol=1e-4
    )
    walk = np.cumsum(rng.standard_normal((2, 20)), axis=1)
    smeared = np.abs(move(image, walk))
    assert smeared[:, :5].sum() > 0.3  # ghosts along the phase-encoded axis
    assert (smeared**2).sum() == pytest.approx((np.abs(image) ** 2).sum(), rel=1e-4)


def test_wrap_folds_both_ends_in():
    line = np.arange(12, dtype=np.complex64)[None, :, None]
    folded = wrap(line, 1, 2)[0, :, 0].real
    np.testing.assert_array_equal(folded, [2 + 10, 3 + 11, 4, 5, 6, 7, 8 + 0, 9 + 1])
    assert wrap(line, 1, 0) is line
    with pytest.raises(ValueError, match="folded"):
        wrap(line, 1, 6)
