"""Sign of the phase and of a lesion's susceptibility, on objects of known susceptibility."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.algorithms.local_field import LocalField, local_field
from cmbprep.algorithms.susceptibility import (
    Source,
    classify_susceptibility,
    phase_sign,
    susceptibility_map,
)
from cmbprep.simulate.field import dipole_field
from tests.algorithms.ballphantom import FIELD_STRENGTH, Phantom, make_phantom

SPACINGS = {"cubes": (1.0, 1.0, 1.0), "0.8x0.8x3": (0.8, 0.8, 3.0), "1x1x5": (1.0, 1.0, 5.0)}


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


def _judge(phantom: Phantom, sign: int | None = 1) -> Source:
    field = _compute(phantom)
    voxels = np.argwhere(phantom.ball)
    return classify_susceptibility(field, susceptibility_map(field), voxels, sign=sign)


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
@pytest.mark.parametrize("chi", [2.0, -2.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_iron_and_calcium(spacing: tuple[float, float, float], chi: float, sign: int) -> None:
    found = _judge(make_phantom(chi=chi, spacing=spacing, sign=sign), sign)
    assert found.susceptibility == ("paramagnetic" if chi > 0 else "diamagnetic")


def test_the_moment_is_that_of_the_ball() -> None:
    phantom = make_phantom(chi=1.0, radius=3.0)
    found = _judge(phantom)
    assert found.moment == pytest.approx(4 / 3 * np.pi * 27, rel=0.15)


def test_a_flipped_sign_flips_the_score() -> None:
    phantom = make_phantom()
    right, left = _judge(phantom, 1), _judge(phantom, -1)
    assert right.score == pytest.approx(-left.score)
    assert right.moment == pytest.approx(-left.moment)


def test_without_a_sign_nothing_is_said() -> None:
    assert _judge(make_phantom(), None).susceptibility == "unknown"


@pytest.mark.parametrize("seed", range(6))
def test_a_void_without_a_field_is_unknown(seed: int) -> None:
    assert _judge(make_phantom(chi=0.0, snr=15.0, seed=seed)).susceptibility == "unknown"


def test_oblique_main_field() -> None:
    for b0 in ((0.5, 0.0, 0.87), (0.0, 1.0, 0.0), (-0.3, 0.4, 0.86)):
        assert _judge(make_phantom(b0=b0)).susceptibility == "paramagnetic"
        assert _judge(make_phantom(b0=b0, chi=-1.0)).susceptibility == "diamagnetic"


def test_map_of_a_ball() -> None:
    phantom = make_phantom(chi=0.5, radius=5.0, background=1.0)
    field = _compute(phantom)
    chi = susceptibility_map(field)
    around = (field.depth > 4) & (np.abs(phantom.truth) < 0.01) & ~phantom.ball
    contrast = chi[phantom.ball].mean() - chi[around].mean()
    assert 0.2 < contrast < 0.6
    assert np.all(chi[~phantom.mask] == 0)


def _veins(sign: int, chi: float) -> tuple[LocalField, NDArray[np.float32]]:
    """A block of tissue with 60 straight veins, dark and of the given susceptibility."""
    shape, spacing = (90, 90, 50), (1.0, 1.0, 1.5)
    rng = np.random.default_rng(3)
    tubes = np.zeros(shape, bool)
    length = np.arange(-12, 12, 0.3)
    for _ in range(60):
        way = rng.standard_normal(3)
        way /= np.linalg.norm(way)
        start = rng.uniform(0.15, 0.85, 3) * np.asarray(shape)
        points = np.rint(start + length[:, None] * way / np.asarray(spacing)).astype(int)
        points = points[np.all((points >= 0) & (points < shape), axis=1)]
        tubes[tuple(points.T)] = True
    field = dipole_field(chi * tubes.astype(np.float32), spacing)
    angle = sign * 2 * np.pi * 42.577 * 3 * 0.02 * field
    signal = np.where(tubes, 0.7, 1.0) * np.exp(1j * angle)
    signal = signal + (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / 40
    magnitude = np.abs(signal).astype(np.float32)
    phase = np.angle(signal).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[4:-4, 4:-4, 3:-3] = True
    found = local_field(
        [phase], [magnitude], [0.02], mask, spacing, (0, 0, 1), field_strength=FIELD_STRENGTH
    )
    return found, magnitude


@pytest.mark.parametrize("sign", [1, -1])
def test_veins_tell_the_sign_of_the_phase(sign: int) -> None:
    assert phase_sign(*_veins(sign, 0.4)).sign == sign


def test_vessels_without_a_field_tell_nothing() -> None:
    assert phase_sign(*_veins(1, 0.0)).sign is None
