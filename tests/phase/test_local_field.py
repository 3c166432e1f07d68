"""Local field of a ball of known susceptibility under a strong harmonic background."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cmbprep.lab.simulate.field import dipole_field
from cmbprep.phase.dipole import dipole_kernel, main_field_direction
from cmbprep.phase.local_field import LocalField, local_field
from cmbprep.phase.unwrapping import unwrap, wrapped
from tests.phase.ballphantom import FIELD_STRENGTH, Phantom, make_phantom


def _compute(phantom: Phantom) -> LocalField:
    return local_field(
        phantom.phases,
        phantom.magnitudes,
        phantom.echo_times,
        phantom.mask,
        phantom.spacing,
        phantom.b0,
        field_strength=FIELD_STRENGTH,
    )


def _error(phantom: Phantom, found: LocalField, sign: int = 1) -> tuple[float, float]:
    """RMS of the error and of the truth near the ball, ppm, where the field is trusted."""
    near = (np.abs(phantom.truth) > 0.01) & (found.trust > 0.5) & ~phantom.ball
    assert near.sum() > 100
    wrong = sign * found.local[near] - phantom.truth[near]
    wrong -= wrong.mean()
    return float(np.sqrt((wrong**2).mean())), float(np.sqrt((phantom.truth[near] ** 2).mean()))


def test_unwrapping_is_exact_where_there_is_no_noise() -> None:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 36, 20)], indexing="ij")
    true = (30 * x + 18 * y**2 - 12 * x * z).astype(np.float32)
    mask = x**2 + y**2 + z**2 < 0.9
    (found,) = unwrap([wrapped(true)], [np.ones_like(true)], mask)
    difference = (found - true)[mask]
    assert np.abs(difference - difference[0]).max() < 1e-3
    assert np.all(found[~mask] == 0)


def test_noise_in_a_void_does_not_leave_it() -> None:
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 40, 20)], indexing="ij")
    true = (25 * x + 10 * y).astype(np.float32)
    void = (x**2 + y**2 < 0.09) & (np.abs(z) < 0.5)
    phase = np.where(void, rng.uniform(-np.pi, np.pi, x.shape), wrapped(true)).astype(np.float32)
    magnitude = np.where(void, 0.05, 1.0).astype(np.float32)
    (found,) = unwrap([phase], [magnitude], np.ones(x.shape, bool))
    outside = (found - true)[~void]
    assert np.abs(outside - outside[0]).max() < 1e-3


def test_parts_of_a_mask_are_unwrapped_each() -> None:
    true = np.broadcast_to(np.linspace(0, 40, 60)[:, None, None], (60, 12, 8)).astype(np.float32)
    mask = np.ones(true.shape, bool)
    mask[25:35] = False
    (found,) = unwrap([wrapped(true)], [np.ones_like(true)], mask)
    for part in (slice(0, 25), slice(35, 60)):
        difference = (found - true)[part]
        assert np.ptp(difference) < 1e-3


@pytest.mark.parametrize(
    "spacing",
    [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (1.5, 0.9, 1.2)],
    ids=["cubes", "0.8x0.8x3", "three-sizes"],
)
def test_field_of_a_ball_under_a_background_many_times_stronger(
    spacing: tuple[float, float, float],
) -> None:
    phantom = make_phantom(spacing=spacing)
    found = _compute(phantom)
    error, size = _error(phantom, found)
    assert np.ptp(found.total[phantom.mask]) > 20 * size
    assert error < 0.35 * size
    assert not found.in_plane_only


def test_thick_slices_are_taken_one_by_one() -> None:
    phantom = make_phantom(spacing=(1.0, 1.0, 5.0), chi=2.0)
    found = _compute(phantom)
    assert found.in_plane_only
    near = (np.abs(phantom.truth) > 0.02) & (found.trust > 0.5) & ~phantom.ball
    assert np.corrcoef(found.local[near], phantom.truth[near])[0, 1] > 0.8


def test_noise_and_trust_say_what_the_noise_is() -> None:
    phantom = make_phantom(chi=0.0, background=0.0, snr=20.0)
    found = _compute(phantom)
    inner = phantom.mask & (found.depth > 9) & ~phantom.ball
    # What high-passing takes from white noise is little.
    assert found.local[inner].std() == pytest.approx(np.median(found.noise[inner]), rel=0.25)
    assert found.trust[phantom.ball].mean() < 0.5 < found.trust[inner].mean()
    assert found.trust.min() >= 0 and found.trust.max() <= 1
    assert np.all(found.trust[~phantom.mask] == 0) and np.all(found.local[~phantom.mask] == 0)


def test_more_echoes_make_less_noise_and_the_same_field() -> None:
    one = make_phantom(echo_times=(0.02,), snr=15.0)
    many = make_phantom(echo_times=(0.008, 0.014, 0.02, 0.026), snr=15.0)
    error_one, size = _error(one, _compute(one))
    error_many, _ = _error(many, _compute(many))
    assert error_many < error_one
    assert error_many < 0.35 * size


def test_the_sign_of_the_phase_is_the_sign_of_the_field() -> None:
    plus, minus = _compute(make_phantom()), _compute(make_phantom(sign=-1))
    inner = plus.depth > 2
    assert np.corrcoef(plus.local[inner], minus.local[inner])[0, 1] < -0.9


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (0, 2, 1)])
def test_axes_may_come_in_any_order_and_direction(order: tuple[int, int, int]) -> None:
    b0 = (0.2, -0.3, 0.93)
    phantom = make_phantom(spacing=(1.0, 1.2, 2.0), b0=b0)
    straight = _compute(phantom)

    def turned(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(image.transpose(order)[::-1])

    flip = np.array([-1, 1, 1])
    other = local_field(
        [turned(p) for p in phantom.phases],
        [turned(m) for m in phantom.magnitudes],
        phantom.echo_times,
        turned(phantom.mask),
        phantom.spacing[list(order)],
        phantom.b0[list(order)] * flip,
        field_strength=FIELD_STRENGTH,
    )
    assert np.allclose(turned(straight.local), other.local, atol=2e-3)
    assert np.allclose(turned(straight.trust), other.trust, atol=2e-3)


def test_the_unit_of_the_magnitude_does_not_matter() -> None:
    phantom = make_phantom()
    usual = _compute(phantom)
    scaled = local_field(
        phantom.phases,
        [1000 * m for m in phantom.magnitudes],
        phantom.echo_times,
        phantom.mask,
        phantom.spacing,
        phantom.b0,
        field_strength=FIELD_STRENGTH,
    )
    assert np.allclose(usual.local, scaled.local, atol=1e-4)


def test_main_field_of_an_oblique_image() -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:3, :3] = [
        [-1, 0, 0],
        [0, np.cos(angle), -np.sin(angle)],
        [0, np.sin(angle), np.cos(angle)],
    ] @ np.diag([0.8, 0.8, 3.0])
    assert main_field_direction(affine) == pytest.approx([0, np.sin(angle), np.cos(angle)])


def test_kernel_in_k_space_agrees_with_the_simulator() -> None:
    rng = np.random.default_rng(2)
    chi = rng.standard_normal((16, 20, 12)).astype(np.float32)
    spacing, b0 = (1.0, 0.8, 2.0), (0.1, 0.4, 0.9)
    spectrum = np.fft.rfftn(chi) * dipole_kernel(chi.shape, spacing, b0)
    here = np.fft.irfftn(spectrum, s=chi.shape, axes=(0, 1, 2))
    assert np.allclose(here, dipole_field(chi, spacing, b0, padding=1.0), atol=1e-4)


@pytest.mark.parametrize("wrong", ["count", "shape", "mask", "time", "direction"])
def test_input_that_does_not_fit_is_refused(wrong: str) -> None:
    image = np.ones((8, 8, 8), np.float32)
    mask = np.zeros(image.shape, bool) if wrong == "mask" else np.ones(image.shape, bool)
    with pytest.raises(ValueError, match=r"must|needs|empty"):
        local_field(
            [image, image] if wrong == "count" else [image],
            [image[:4]] if wrong == "shape" else [image],
            [0.0] if wrong == "time" else [0.02],
            mask,
            (1, 1, 1),
            (0, 0, 0) if wrong == "direction" else (0, 0, 1),
            field_strength=3.0,
        )


def test_unknown_phase_is_filled_in_and_not_trusted() -> None:
    """NaN in one echo costs little; NaN in all of them is a hole without trust."""
    phantom = make_phantom(echo_times=(0.01, 0.02), snr=100.0)
    whole = _compute(phantom)
    hole = np.zeros(phantom.mask.shape, bool)
    hole[tuple(slice(n // 2 - 9, n // 2 - 5) for n in hole.shape)] = True
    for echoes in ([1], [0, 1]):
        phases = [
            np.where(hole, np.float32(np.nan), phase) if n in echoes else phase
            for n, phase in enumerate(phantom.phases)
        ]
        found = _compute(replace(phantom, phases=phases))
        for image in (found.local, found.total, found.trust, found.noise):
            assert np.isfinite(image).all()
        far = (whole.trust > 0.5) & (ndimage.distance_transform_edt(~hole) > 8)
        assert np.abs(found.local - whole.local)[far].max() < 0.02
        if len(echoes) == 2:
            assert found.trust[hole].max() < 0.01
        else:
            assert found.trust[hole & phantom.mask].mean() > 0.1
