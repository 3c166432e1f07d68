"""Falx and tentorium: where they lie, how large they are, and what a scan shows of them."""

import numpy as np
import pytest

from cmbprep.lab.simulate.dura import CHI_PPM, THICKNESS_MM, Sheet, draw_dura, dura_share
from cmbprep.lab.simulate.field import dipole_field
from cmbprep.lab.simulate.scanner import acquire
from tests.lab.simulate.phantoms import centred, protocol, uniform_head


def test_sheets_have_the_size_and_place_of_dura():
    falx, left, right = draw_dura(lambda points: points, np.random.default_rng(0))
    assert np.abs(falx.points[:, 0]).max() < 4
    assert left.points[:, 0].max() < 4 and right.points[:, 0].min() > -4
    for sheet, low, high in ((falx, 45, 110), (left, 15, 60), (right, 15, 60)):
        # cm^2, at the thinnest and at the thickest.
        assert sheet.volumes.sum() / THICKNESS_MM[1] / 100 < high
        assert sheet.volumes.sum() / THICKNESS_MM[0] / 100 > low
        assert CHI_PPM[0] <= sheet.chi <= CHI_PPM[1]
    assert left.chi == right.chi == falx.chi


def _plane(thickness: float, side: int = 30, step: float = 0.4) -> Sheet:
    """A square across x, at the origin."""
    line = np.arange(-side, side, step) + step / 2
    y, z = np.meshgrid(line, line, indexing="ij")
    points = np.stack([np.zeros_like(y), y, z], -1).reshape(-1, 3)
    return Sheet(points, np.full(len(points), thickness * step**2), -0.2)


def test_the_share_keeps_the_volume():
    grid = np.eye(4)
    grid[:3, 3] = 40
    share, chi = dura_share([_plane(0.5)], grid, (81, 81, 81))
    assert share.sum() / 255 == pytest.approx(0.5 * 60 * 60, rel=0.01)
    assert chi.sum() == pytest.approx(-0.1 * 60 * 60, rel=0.01)


def test_a_wide_sheet_along_the_field_lowers_it_by_a_third_of_its_susceptibility():
    grid = np.eye(4)
    grid[:3, 3] = 40
    _, chi = dura_share([_plane(1.0)], grid, (81, 81, 81))
    inside = dipole_field(chi, (1, 1, 1), (0, 0, 1))[40, 40, 40]
    assert inside == pytest.approx(-0.2 / 3, rel=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sheet_is_dark_and_its_phase_follows_the_convention(sign):
    preset = protocol(voxel=(1.0, 1.0, 1.0), slices=32, snr=1e6, phase_sign=sign)
    head = uniform_head()
    images = [
        acquire(
            head,
            [],
            [],
            preset,
            centred(preset),
            np.random.default_rng(0),
            background=np.zeros(head.shape, np.float32),
            sheets=sheets,
        ).echoes[0]
        for sheets in ([], [_plane(1.0)])
    ]
    ratio = (images[1] / images[0])[:, 12:20, 12:20].mean((1, 2))
    column = int(np.argmin(np.abs(ratio)))
    assert abs(column - 15.5) <= 0.5
    assert 0.3 < abs(ratio[column]) < 0.9
    # The plane lies between two voxels, half of each; dura has lost most of its signal.
    assert -0.4 < sign * np.angle(ratio[column]) < -0.03
