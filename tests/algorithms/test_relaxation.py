"""R2* of decays that are known."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.algorithms.relaxation import fit_decay

TIMES = (0.005, 0.012, 0.02, 0.028)


def _echoes(rate: float, sigma: float, size: int = 20_000) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [
        np.abs(
            np.exp(-rate * t) + sigma * (rng.standard_normal(size) + 1j * rng.standard_normal(size))
        ).astype(np.float32)
        for t in TIMES
    ]


@pytest.mark.parametrize("rate", [0.0, 20.0, 150.0])
def test_without_noise_the_rate_is_exact(rate: float) -> None:
    found = fit_decay(_echoes(rate, 0.0, 10), TIMES, 0.0)
    assert found.r2star == pytest.approx(np.full(10, rate), abs=1e-2)
    assert np.all(found.error == 0)


def test_the_error_is_the_spread() -> None:
    found = fit_decay(_echoes(25.0, 0.02), TIMES, 0.02)
    assert found.r2star.mean() == pytest.approx(25.0, rel=0.01)
    assert found.r2star.std() == pytest.approx(np.median(found.error), rel=0.1)


def test_the_floor_of_the_noise_does_not_slow_a_fast_decay() -> None:
    echoes = _echoes(150.0, 0.03)
    with_floor = fit_decay(echoes, TIMES, 0.0).r2star.mean()
    found = fit_decay(echoes, TIMES, 0.03).r2star
    assert abs(found.mean() - 150.0) < abs(with_floor - 150.0)
    assert found.mean() == pytest.approx(150.0, rel=0.06)


def test_a_void_in_all_echoes_is_not_fitted() -> None:
    found = fit_decay([np.full(3, 0.01, np.float32)] * 4, TIMES, 0.02)
    assert np.all(found.r2star == 0) and np.all(np.isinf(found.error))


def test_the_unit_and_the_order_do_not_matter() -> None:
    echoes = _echoes(30.0, 0.02, 500)
    usual = fit_decay(echoes, TIMES, 0.02)
    other = fit_decay([900 * e for e in echoes[::-1]], TIMES[::-1], 18.0)
    assert np.allclose(usual.r2star, other.r2star, rtol=1e-3)
    assert np.allclose(usual.error, other.error, rtol=1e-3)


@pytest.mark.parametrize("times", [(0.02, 0.02), (0.02,), (0.01, 0.02, 0.03)])
def test_echo_times_that_do_not_do(times: tuple[float, ...]) -> None:
    image = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="two different"):
        fit_decay([image, image], times, 0.1)
