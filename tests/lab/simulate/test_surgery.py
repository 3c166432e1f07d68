"""What an operation leaves: fluid, scar, a rim of old blood that is dark."""

from dataclasses import replace

import numpy as np
import pytest

from cmbprep.lab.simulate.scanner import acquire
from cmbprep.lab.simulate.surgery import CHANCE, Surgery, draw_surgery, operate, rim
from cmbprep.lab.simulate.tissue import TISSUES
from tests.lab.simulate.phantoms import centred, protocol, uniform_head

SURGERY = Surgery(
    centre=(0.0, 0.0, -4.0),
    axes=(6.0, 5.0, 7.0),
    outward=(0.0, 0.0, 1.0),
    tract_radius=2.0,
    defect_radius=8.0,
)


@pytest.fixture(scope="module")
def head():
    """White matter with a plate of bone above z = 20 mm."""
    plain = uniform_head()
    names = list(TISSUES)
    plain.fractions[names.index("wm"), :, :, 52:56] = 0
    plain.fractions[names.index("bone"), :, :, 52:56] = 255
    return plain


def test_the_cavity_and_the_tract_are_fluid_and_the_bone_has_a_hole(head):
    before = head.fractions.copy()
    after = operate(head, SURGERY)
    np.testing.assert_array_equal(head.fractions, before)
    np.testing.assert_array_equal(
        after.fractions.sum(axis=0, dtype=int), before.sum(axis=0, dtype=int)
    )
    fluid = after.fraction("csf")
    inside = fluid[:, :, :36].sum()  # below the tract's long part
    assert inside == pytest.approx(4 / 3 * np.pi * 6 * 5 * 7, rel=0.1)
    assert fluid[31, 31, 47] == 1.0
    assert fluid[31, 31, 15] == 0.0
    hole = after.fraction("muscle")
    assert hole[:, :, 53].sum() == pytest.approx(np.pi * 8**2, rel=0.05)
    assert after.fraction("bone")[31, 31, 53] == 0.0
    assert after.fraction("bone")[2, 2, 53] == 1.0


def test_the_rim_is_dark_around_a_bright_cavity(head):
    after = operate(head, SURGERY)
    source = rim(SURGERY, np.random.default_rng(1))
    assert source.kind == "postoperative_rim"
    assert source.chi > 0
    preset = protocol(voxel=(1.0, 1.0, 1.0), slices=32, snr=1e6)
    images = [
        np.abs(
            acquire(
                after,
                [],
                sources,
                preset,
                centred(preset),
                np.random.default_rng(0),
                background=np.zeros(after.shape, np.float32),
            ).echoes[0]
        )
        for sources in ([source], [])
    ]
    loss = 1 - images[0] / images[1]
    x, y, z = (np.indices(loss.shape) - 15.5).astype(float)
    reach = np.sqrt((x / 6) ** 2 + (y / 5) ** 2 + ((z + 4) / 7) ** 2)
    wall = (np.abs(reach - 1) < 0.12) & (z < 2)
    far = (reach > 2.2) & (np.hypot(x, y) > 8)
    assert loss[wall].mean() > 0.3
    assert np.abs(loss[far]).mean() < 0.05
    assert loss[wall].std() > 0.1  # patches, not a shell


def test_surgery_is_rare_and_a_seed_is_a_surgery(head):
    places = {"subcortical_white_matter": np.flatnonzero(head.fraction("wm") > 0.5)}
    drawn = [draw_surgery(head, places, np.random.default_rng(seed)) for seed in range(1500)]
    some = [one for one in drawn if one is not None]
    assert len(some) / 1500 == pytest.approx(CHANCE, abs=0.012)
    seed = next(i for i, one in enumerate(drawn) if one is not None)
    assert draw_surgery(head, places, np.random.default_rng(seed)) == drawn[seed]
    for one in some:
        np.testing.assert_allclose(one.frame @ one.frame.T, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(one.frame[:, 2], one.outward, atol=1e-9)
        assert one.tract_radius < one.defect_radius


def test_a_surgery_checks_itself():
    for wrong in ({"axes": (0.0, 1.0, 1.0)}, {"outward": (0.0, 0.0, 2.0)}, {"tract_radius": -1.0}):
        with pytest.raises(ValueError, match=r"."):
            replace(SURGERY, **wrong)
