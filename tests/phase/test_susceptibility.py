"""Sign of the phase and of a lesion's susceptibility, on objects of known susceptibility."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.phase.local_field import LocalField, local_field
from cmbprep.phase.sign import phase_sign
from cmbprep.phase.susceptibility import (
    Source,
    classify_susceptibility,
    susceptibility_map,
)
from tests.phase.ballphantom import FIELD_STRENGTH, Phantom, make_phantom, make_veined_block

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


def test_the_moment_is_most_of_that_of_the_ball() -> None:
    found = _judge(make_phantom(chi=1.0, radius=3.0))
    assert 0.6 < found.moment / (4 / 3 * np.pi * 27) < 1.1


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
    block = make_veined_block(sign, chi)
    return _compute(block), block.magnitudes[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_veins_tell_the_sign_of_the_phase(sign: int) -> None:
    assert phase_sign(*_veins(sign, 0.4)).sign == sign


def test_vessels_without_a_field_tell_nothing() -> None:
    assert phase_sign(*_veins(1, 0.0)).sign is None
