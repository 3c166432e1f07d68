"""The physics of an implanted bleed against formulas, and what the truth says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbprep.lab.simulate.implant import (
    GAMMA_HZ_PER_T,
    Deposit,
    deposit_field,
    draw_deposits,
    implant,
    plausible_places,
    signal_factor,
)


def sphere(radius: float = 1.0, chi: float = 1.0, **changes: object) -> Deposit:
    values: dict[str, object] = {
        "centre_ras": (0.0, 0.0, 0.0),
        "semi_axes_mm": (radius, radius, radius),
        "chi_ppm": chi,
    }
    return Deposit(**{**values, **changes})  # type: ignore[arg-type]


def grids(n: int, step: float) -> tuple[NDArray, NDArray, NDArray]:
    axis = ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    return x, y, z


def test_field_of_a_sphere_at_pole_and_equator() -> None:
    point = np.array([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0]], np.float32)
    shift, inside = deposit_field((point[:, 0], point[:, 1], point[:, 2]), sphere(1.0, 0.9))
    # chi / 3 * (a / r)^3 * (3 cos^2 - 1): 0.3 / 8 * 2 and * -1
    np.testing.assert_allclose(shift, [0.075, -0.0375], rtol=1e-5)
    assert not inside.any()


def test_the_kernel_agrees_with_the_formula() -> None:
    direction = (0.6, 0.0, 0.8)
    points = grids(65, 0.25)
    exact, inside = deposit_field(points, sphere(2.0), direction)
    # An ellipsoid that is a sphere up to rounding goes through the dipole kernel.
    nearly = sphere(2.0, semi_axes_mm=(2.0, 2.0, 2.0 + 1e-6))
    kernel, _ = deposit_field(points, nearly, direction)
    r = np.sqrt(sum(p**2 for p in points))
    outside = (r > 2.6) & (r < 6)
    assert np.abs(kernel - exact)[outside].max() < 0.02
    assert abs(float(kernel[inside & (r < 1.5)].mean())) < 0.02


def far_phase(tesla: float, te: float, chi: float) -> float:
    affine = np.eye(4)
    affine[:3, 3] = -20
    window, factor = signal_factor(
        sphere(1.0, chi), affine, (41, 41, 41), field_strength=tesla, echo_time=te, psf_fwhm=0.5
    )
    at = tuple(20 - s.start for s in window)
    return float(np.angle(factor[at[0], at[1], at[2] + 3]))


def test_the_phase_follows_field_echo_time_and_sign() -> None:
    expected = 2 * math.pi * GAMMA_HZ_PER_T * 1e-6 * 3.0 * 0.01 * (0.2 / 3) * 2 / 27
    assert far_phase(3.0, 0.01, 0.2) == pytest.approx(expected, rel=0.1)
    assert far_phase(1.5, 0.02, 0.2) == pytest.approx(far_phase(3.0, 0.01, 0.2), rel=1e-3)
    assert far_phase(3.0, 0.01, -0.2) == pytest.approx(-far_phase(3.0, 0.01, 0.2), rel=1e-3)


def void_volume(te: float, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> float:
    shape = tuple(int(30 / s) for s in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    image = np.full(shape, 100, np.float32)
    scan = implant(
        image,
        affine,
        np.ones(shape, bool),
        [sphere(1.2, 1.0)],
        field_strength=3.0,
        echo_time=te,
        seed=0,
    )
    return scan.lesions[0].void_volume_mm3


def test_blooming_grows_with_echo_time_and_exceeds_the_deposit() -> None:
    short, long = void_volume(0.02), void_volume(0.04)
    assert short > 4.19 * 1.2**3
    # In vivo, doubling the echo time from 20 ms multiplies the volume by about 2.3.
    assert 1.4 < long / short < 3.0


def test_thick_slices_make_the_void_shallower() -> None:
    losses = []
    for thickness in (1.0, 5.0):
        shape = (30, 30, int(30 / thickness))
        affine = np.diag([1.0, 1.0, thickness, 1.0])
        affine[:3, 3] = -(np.array(shape) - 1) / 2 * [1, 1, thickness]
        _, factor = signal_factor(sphere(0.6), affine, shape, field_strength=1.5, echo_time=0.02)
        losses.append(1 - np.abs(factor).min())
    assert losses[1] < 0.6 * losses[0]


def test_the_orientation_of_the_grid_does_not_matter() -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = (-15, -15, -15)
    turned = affine[:, [2, 0, 1, 3]].copy()
    turned[:3, 3] -= turned[:3, 0] * -15
    turned[:3, 0] *= -1
    bleed = sphere(1.5, 1.2, semi_axes_mm=(1.2, 1.5, 1.7), centre_ras=(1.2, -0.4, 0.3))
    values = []
    for grid, shape in ((affine, (31, 31, 16)), (turned, (16, 31, 31))):
        window, factor = signal_factor(bleed, grid, shape, field_strength=3, echo_time=0.02)
        whole = np.ones(shape, np.complex64)
        whole[window] = factor
        values.append(whole)
    back = np.flip(values[1], 0).transpose(1, 2, 0)
    assert np.abs(values[0]).min() < 0.5
    assert np.abs(np.abs(back) - np.abs(values[0])).max() < 0.03


@pytest.fixture(scope="module")
def background() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(5)
    image = rng.normal(100, 3, (60, 60, 30)).astype(np.float32)
    mask = np.zeros(image.shape, bool)
    mask[4:-4, 4:-4, 2:-2] = True
    image[28:32, 28:32] = 20
    return image, mask, np.diag([1.0, 1.0, 2.0, 1.0])


def test_truth_and_image_agree(
    background: tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]],
) -> None:
    image, mask, affine = background
    places = plausible_places(image, mask, affine)
    assert not places[26:34, 26:34].any()
    assert not (places & ~mask).any()
    deposits = draw_deposits(places, affine, 6, np.random.default_rng(1), diameter_mm=(1.5, 4))
    assert len(deposits) == 6
    scan = implant(image, affine, mask, deposits, field_strength=3.0, echo_time=0.02, seed=2)
    again = implant(image, affine, mask, deposits, field_strength=3.0, echo_time=0.02, seed=2)
    assert scan.image.tobytes() == again.image.tobytes()
    assert any(lesion.visible for lesion in scan.lesions)
    assert set(np.unique(scan.labels)) - {0} == {one.index for one in scan.lesions if one.visible}
    for lesion in scan.lesions:
        if not lesion.visible:
            assert lesion.centre_ras == lesion.deposit.centre_ras
            continue
        owned = scan.labels == lesion.index
        drop = 1 - scan.image[owned].mean() / image[owned].mean()
        assert drop > 0.4 * lesion.loss
        voxel = np.array(lesion.centre_ras) / [1, 1, 2]
        distance = (np.argwhere(owned) - voxel) * [1, 1, 2]
        assert np.linalg.norm(distance, axis=1).min() < 2
        assert np.linalg.norm(np.subtract(lesion.centre_ras, lesion.deposit.centre_ras)) < 1.5
    far = np.abs(scan.phase) < 1e-6
    assert np.array_equal(scan.image[far & (scan.labels == 0)], image[far & (scan.labels == 0)])


def test_a_faint_deposit_is_not_visible(
    background: tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]],
) -> None:
    image, mask, affine = background
    faint = sphere(0.25, 0.3, centre_ras=(15.0, 15.0, 30.0))
    strong = sphere(1.5, 1.5, centre_ras=(45.0, 45.0, 30.0))
    scan = implant(image, affine, mask, [faint, strong], field_strength=3, echo_time=0.02, seed=0)
    assert [lesion.visible for lesion in scan.lesions] == [False, True]
    assert scan.lesions[0].centre_ras == (15.0, 15.0, 30.0)
    assert set(np.unique(scan.labels)) == {0, 2}


def test_a_deposit_outside_the_grid_changes_nothing() -> None:
    window, factor = signal_factor(
        sphere(centre_ras=(500.0, 0.0, 0.0)),
        np.eye(4),
        (10, 10, 10),
        field_strength=3,
        echo_time=0.02,
    )
    assert factor.size == 0
    assert np.zeros((10, 10, 10))[window].size == 0
