"""From susceptibility to magnetic field: the dipole kernel, and the shim.

The field that a weak susceptibility distribution causes in a strong main field is its
convolution with the field of a point dipole, which in k-space is a product [1]_ [2]_::

    dB(k) / B0 = (1/3 - (k . b)^2 / k^2) chi(k)

with b the unit vector of the main field. The 1/3 is the sphere of Lorentz: what a
nucleus feels, not the macroscopic field.

References
----------
.. [1] Salomir R, de Senneville BD, Moonen CTW. A fast calculation method for magnetic
   field inhomogeneity due to an arbitrary distribution of bulk susceptibility.
   Concepts Magn Reson B 2003;19B:26-34.
.. [2] Marques JP, Bowtell R. Application of a Fourier-based method for rapid calculation
   of field inhomogeneity due to spatial variation of magnetic susceptibility.
   Concepts Magn Reson B 2005;25B:65-78.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbprep.lab.simulate.deformation import along
from cmbprep.lab.simulate.protocols import Protocol

#: Gyromagnetic ratio of the proton over 2 pi, MHz/T (CODATA).
GAMMA_BAR = 42.577478


def larmor_mhz(field_strength: float) -> float:
    """Return the Larmor frequency in MHz, so that ppm times this is Hz.

    Parameters
    ----------
    field_strength
        Main field in tesla.
    """
    return GAMMA_BAR * field_strength


def dipole_field(
    chi: NDArray[np.float32],
    spacing: ArrayLike,
    b0: ArrayLike = (0.0, 0.0, 1.0),
    *,
    padding: float = 2.0,
) -> NDArray[np.float32]:
    """Compute the relative field that a susceptibility distribution causes.

    Parameters
    ----------
    chi
        Susceptibility in ppm (SI), shape (X, Y, Z), relative to what surrounds the grid.
    spacing
        Voxel size in mm along the three axes.
    b0
        Direction of the main field along the array's axes; any length but zero.
    padding
        The grid is filled up with zeros to at least this many times its size, because the
        Fourier transform would otherwise add the field of its periodic copies.

    Returns
    -------
    numpy.ndarray
        Relative field dB/B0 in ppm, float32, the shape of `chi`.
    """
    from scipy import fft

    direction = np.asarray(b0, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if not length > 0:
        raise ValueError("the main field needs a direction")
    direction = direction / length
    padded = tuple(fft.next_fast_len(int(np.ceil(n * padding)), real=True) for n in chi.shape)
    spectrum = fft.rfftn(np.asarray(chi, dtype=np.float32), s=padded, workers=1)
    _multiply_by_dipole(spectrum, padded, np.asarray(spacing, float), direction)
    field = fft.irfftn(spectrum, s=padded, workers=1, overwrite_x=True)
    x, y, z = chi.shape
    return np.ascontiguousarray(field[:x, :y, :z], dtype=np.float32)


def _multiply_by_dipole(
    spectrum: NDArray[np.complex64],
    shape: Sequence[int],
    spacing: NDArray[np.float64],
    b0: NDArray[np.float64],
) -> None:
    """Multiply a half spectrum (of rfftn) by the dipole kernel, in place, plane by plane."""
    kx = np.fft.fftfreq(shape[0], spacing[0]).astype(np.float32)
    ky = np.fft.fftfreq(shape[1], spacing[1]).astype(np.float32)[:, None]
    kz = np.fft.rfftfreq(shape[2], spacing[2]).astype(np.float32)[None, :]
    bx, by, bz = (np.float32(v) for v in b0)
    in_plane = ky * by + kz * bz
    in_plane_square = ky**2 + kz**2
    for i, k in enumerate(kx):
        square = in_plane_square + k * k
        if k == 0:
            square[0, 0] = 1.0
        kernel = np.float32(1 / 3) - (in_plane + k * bx) ** 2 / square
        if k == 0:
            # The mean field of a whole space is not defined; the sphere of Lorentz's is zero.
            kernel[0, 0] = 0.0
        spectrum[i] *= kernel


def shim(
    field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing: ArrayLike,
) -> NDArray[np.float32]:
    """Take from a field what a scanner's shim coils take: its low-order harmonics.

    The solid harmonics up to the second order are fitted in the mask by least squares, to every
    n-th voxel of it so that at most 20 000 or so are used.

    Parameters
    ----------
    field
        Field in any unit, shape (X, Y, Z).
    mask
        Where the shim is fitted, as a shim box over the brain.
    spacing
        Voxel size in mm.

    Returns
    -------
    numpy.ndarray
        The field without the fitted harmonics, float32.
    """
    points = np.argwhere(mask)
    if len(points) < 10:
        raise ValueError("the shim needs a mask of at least 10 voxels")
    points = points[:: max(1, len(points) // 20_000)]
    centre = (np.asarray(field.shape) - 1) / 2
    scale = np.asarray(spacing) / 100.0
    basis = np.stack(_harmonics(((points - centre) * scale).T.astype(np.float32)))
    weights, *_ = np.linalg.lstsq(basis.T, field[tuple(points.T)], rcond=None)
    axes = [
        ((np.arange(n) - centre[a]) * scale[a]).astype(np.float32).reshape(along(a))
        for a, n in enumerate(field.shape)
    ]
    shimmed = field.astype(np.float32, copy=True)
    for weight, term in zip(weights, _harmonics(axes), strict=True):
        shimmed -= np.float32(weight) * term
    return shimmed


def _harmonics(axes: Iterable[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Evaluate the solid harmonics at points, x, y and z of which broadcast."""
    x, y, z = axes
    quadratic = [x * y, y * z, x * z, x**2 - y**2, 2 * z**2 - x**2 - y**2]
    return [np.ones_like(x), x, y, z, *quadratic]


# --- Where a scan lies, and where the head lies in the scanner -----------------------------------


@dataclass(frozen=True)
class Geometry:
    """Where a scan lies and where the head lies in the scanner.

    Attributes
    ----------
    affine
        4x4, voxel -> scanner mm (RAS+).
    shape
        Voxels of the image.
    pose
        4x4 rigid, head mm -> scanner mm.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    pose: NDArray[np.float64]

    @property
    def head_to_voxel(self) -> NDArray[np.float64]:
        """4x4, head mm -> voxel."""
        result: NDArray[np.float64] = np.linalg.inv(self.affine) @ self.pose
        return result


def plan_geometry(
    protocol: Protocol, centre: Sequence[float], rng: np.random.Generator
) -> Geometry:
    """Pose a head in the scanner and lay the slices.

    Parameters
    ----------
    protocol
        Gives matrix, spacing and orientation.
    centre
        Middle of the brain in head mm: it comes to lie near the isocentre.
    rng
        Source of randomness.
    """
    turn = rotation(np.deg2rad(rng.normal(0, (3.5, 2.0, 2.5))))
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = rng.normal(0, (3.0, 8.0, 5.0)) - turn @ np.asarray(centre)
    tilt = np.deg2rad(rng.uniform(-protocol.tilt, protocol.tilt))
    axes = {
        "axial": np.array([[-1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).T,
        "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T,
        "sagittal": np.array([[0, 1.0, 0], [0, 0, 1], [-1, 0, 0]]).T,
    }[protocol.orientation]
    directions = rotation((tilt, 0.0, 0.0)) @ axes
    shape = (*protocol.matrix, protocol.slices)
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(protocol.spacing)
    middle = pose[:3, :3] @ np.asarray(centre) + pose[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(affine=affine, shape=shape, pose=pose)


def rotation(angles: Iterable[float]) -> NDArray[np.float64]:
    """Rotation by angles in radians about x, then y, then z."""
    x, y, z = angles
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    result: NDArray[np.float64] = about_z @ about_y @ about_x
    return result


def unfolded(geometry: Geometry, fold: int) -> Geometry:
    """The geometry with `fold` voxels more at both ends of the phase-encoded axis."""
    affine = geometry.affine.copy()
    affine[:3, 3] -= fold * affine[:3, 1]
    x, y, z = geometry.shape
    return Geometry(affine=affine, shape=(x, y + 2 * fold, z), pose=geometry.pose)
