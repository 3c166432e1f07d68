"""The field of known shapes, from textbooks."""

import numpy as np
import pytest

from cmbprep.lab.simulate.field import dipole_field, shim


def _ball(shape: tuple[int, ...], spacing: np.ndarray, radius: float) -> np.ndarray:
    """Volume fraction of a ball in the middle, by 4 samples along each axis of a voxel."""
    axes = [((np.arange(n * 4) + 0.5) / 4 - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = (x**2 + y**2 + z**2 <= radius**2).astype(np.float32)
    return inside.reshape(shape[0], 4, shape[1], 4, shape[2], 4).mean((1, 3, 5))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.6)])
@pytest.mark.parametrize("b0", [(0, 0, 1), (1, 0, 0), (0.36, 0.48, -0.8)])
def test_field_of_a_sphere_is_a_dipole_outside_and_nil_inside(spacing, b0):
    """dB/B0 = chi/3 (a/r)^3 (3 cos^2 - 1) outside; 0 inside, with the sphere of Lorentz."""
    spacing, b0 = np.array(spacing), np.array(b0, float)
    shape, radius, chi = (56, 48, 44), 6.0, 2.0
    field = dipole_field(chi * _ball(shape, spacing, radius).astype(np.float32), spacing, b0)
    index = np.moveaxis(np.indices(shape), 0, -1) + 0.5 - np.array(shape) / 2
    points = index * spacing
    r = np.linalg.norm(points, axis=-1)
    cosine = points @ b0 / np.linalg.norm(b0) / r
    expected = chi / 3 * (radius / r) ** 3 * (3 * cosine**2 - 1)
    outside = (r > radius + 2.5) & (r < 16)
    assert np.abs(field - expected)[outside].max() < 0.03 * chi * 2 / 3
    correlation = np.corrcoef(field[outside], expected[outside])[0, 1]
    assert correlation > 0.999
    inside = np.abs(field[r < radius - 2.5])
    # What is left rings from cell to cell at the sphere's edge.
    assert inside.mean() < 0.015 * chi
    assert inside.max() < 0.05 * chi


def test_cylinder_along_and_across_the_field():
    """Inside an infinite cylinder dB/B0 = chi/6 (3 cos^2 - 1): chi/3 along, -chi/6 across."""
    n, radius, chi = 64, 7.0, 1.0
    axis = np.arange(n) + 0.5 - n / 2
    disc = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(np.float32)
    cylinder = np.repeat(disc[:, :, None], n, axis=2) * chi
    # Without padding the cylinder goes on for ever along its axis.
    along = dipole_field(cylinder, (1, 1, 1), (0, 0, 1), padding=1.0)
    across = dipole_field(cylinder, (1, 1, 1), (1, 0, 0), padding=1.0)
    middle = n // 2
    assert along[middle, middle, middle] == pytest.approx(chi / 3, rel=0.1)
    assert across[middle, middle, middle] == pytest.approx(-chi / 6, rel=0.1)
    # Along the field there is nothing outside; across, there are lobes of both signs.
    assert abs(along[middle + 12, middle, middle]) < 0.06 * chi
    assert across[middle + 10, middle, middle] > 0.1 * chi
    assert across[middle, middle + 10, middle] < -0.1 * chi


def test_padding_keeps_the_copies_away():
    """Near the edge of the grid an unpadded field is that of a lattice of spheres."""
    chi = np.zeros((24, 24, 24), np.float32)
    chi[11:13, 11:13, 1:3] = 5.0
    exact = dipole_field(chi, (1, 1, 1), padding=4.0)
    error = [
        np.abs(dipole_field(chi, (1, 1, 1), padding=p) - exact)[12, 12, -3:].max()
        for p in (1.0, 2.0)
    ]
    assert error[1] < 0.2 * error[0]


def test_fields_add_and_change_sign():
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 12, 14, 10)).astype(np.float32)
    spacing = (1, 2, 3)
    total = dipole_field(first - 2 * second, spacing)
    parts = dipole_field(first, spacing) - 2 * dipole_field(second, spacing)
    np.testing.assert_allclose(total, parts, atol=1e-5)


def test_shim_takes_low_harmonics_and_leaves_the_rest():
    shape = (30, 32, 28)
    x, y, z = (np.moveaxis(np.indices(shape), 0, -1) - 14.0).transpose(3, 0, 1, 2)
    smooth = 0.3 + 0.01 * x - 0.02 * z + 0.001 * (x**2 - y**2) + 0.0005 * y * z
    rough = np.cos(x) * np.sin(z)
    mask = (x**2 + y**2 + z**2) < 150
    left = shim((smooth + rough).astype(np.float32), mask, (1, 1, 1))
    assert np.abs(left - rough)[mask].max() < 0.1
    assert np.abs(shim(smooth.astype(np.float32), mask, (1, 1, 1))).max() < 1e-3


def test_no_direction_is_refused():
    with pytest.raises(ValueError, match="direction"):
        dipole_field(np.zeros((4, 4, 4), np.float32), (1, 1, 1), (0, 0, 0))
