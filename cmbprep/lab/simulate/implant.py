"""Physically modelled microbleeds put into a real scan, with their truth.

A microbleed is modelled as a compact deposit of iron (an ellipsoid) whose susceptibility
differs from tissue by some tenths of a ppm to a few ppm. Its dipole field shifts the
precession frequency around it; at the echo time the spins of one voxel point in different
directions and their sum is smaller: a void that is larger than the deposit ("blooming").
The field and the signal are computed on a grid finer than the voxel and then averaged to
it with the scan's point-spread function, so that thick slices and coarse matrices show
the lesion as such a scan would.

References
----------
Haacke EM, Brown RW, Thompson MR, Venkatesan R. Magnetic Resonance Imaging: Physical
Principles and Sequence Design. Wiley, 1999, ch. 25 (field of a sphere).
Marques JP, Bowtell R. Concepts Magn Reson B 2005;25B:65-78 (dipole kernel).
Greenberg SM, et al. Lancet Neurol 2009;8:165-174 (blooming; what is rated).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cmbprep.lab.simulate.deformation import along
from cmbprep.lab.simulate.voids import is_visible, outline_void
from cmbprep.spatial.noise import noise_level

#: Proton gyromagnetic ratio over 2 pi, Hz per tesla (CODATA 2018).
GAMMA_HZ_PER_T = 42.577478518e6
# Distance of a lesion from the edge of the brain and from voids that are there, mm.
_AWAY_MM = 3.0
# Phase below which the far field no longer matters, rad.
_NEGLIGIBLE_PHASE = 0.1
# Most samples of one fine grid; the step is coarsened above it.
_MAX_FINE_SAMPLES = 1_500_000

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Deposit:
    """An ellipsoid of iron.

    Parameters
    ----------
    centre_ras
        Centre, mm, RAS+ scanner coordinates.
    semi_axes_mm
        The three semi-axes, mm; equal for a sphere.
    chi_ppm
        Susceptibility against tissue, ppm; positive is paramagnetic.
    rotation
        3x3 rotation whose columns are the directions of the semi-axes.
    """

    centre_ras: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]
    chi_ppm: float
    rotation: tuple[tuple[float, float, float], ...] = (
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.0, 0.0, 1.0),
    )

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in self.centre_ras):
            raise ValueError("the centre of a deposit must be finite")
        if min(self.semi_axes_mm) <= 0:
            raise ValueError(f"semi-axes must be positive, not {self.semi_axes_mm}")
        if self.chi_ppm == 0:
            raise ValueError("a deposit with no susceptibility difference makes no void")
        rotation = np.asarray(self.rotation)
        if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6):
            raise ValueError("rotation is not a 3x3 orthogonal matrix")

    @property
    def radius_mm(self) -> float:
        """Radius of the sphere of the same volume, mm."""
        return float(np.prod(self.semi_axes_mm) ** (1 / 3))

    @property
    def is_sphere(self) -> bool:
        """Whether the three semi-axes are equal."""
        return max(self.semi_axes_mm) - min(self.semi_axes_mm) < 1e-9


@dataclass(frozen=True, kw_only=True)
class ImplantedLesion:
    """What is known about one implanted lesion.

    ``void_*`` describe what the scan shows, not the deposit, and ``visible`` whether it can
    be seen, both as :mod:`cmbprep.lab.simulate.voids` defines it, before any detector has run.
    ``centre_ras`` is the void's centre of mass if it is visible, else the deposit's centre.
    """

    index: int
    deposit: Deposit
    centre_ras: tuple[float, float, float]
    void_volume_mm3: float
    void_diameter_mm: float
    loss: float
    cnr: float
    visible: bool


@dataclass(frozen=True, kw_only=True)
class Implanted:
    """A scan with implanted lesions.

    ``image`` is the new magnitude, ``labels`` (int32) the mask of each visible lesion
    under its ``index``, ``phase`` (rad) the phase that the lesions add to the scan's own.
    """

    image: FloatArray
    labels: NDArray[np.int32]
    phase: FloatArray
    lesions: tuple[ImplantedLesion, ...] = field(default=())


def deposit_field(
    points_mm: tuple[FloatArray, FloatArray, FloatArray],
    deposit: Deposit,
    b0_direction: Sequence[float] = (0.0, 0.0, 1.0),
) -> tuple[FloatArray, BoolArray]:
    """Relative field change of a deposit, and where the deposit is.

    Parameters
    ----------
    points_mm
        Open or full grids of the position relative to the deposit's centre, mm, along the
        three axes of the coordinate frame in which the deposit's rotation and
        ``b0_direction`` are given. For an ellipsoid the grid must be regular, and the field
        is exact only away from its border (it is periodic behind a zero padding).
    deposit
        The deposit; its ``centre_ras`` is not used.
    b0_direction
        Unit vector of the main field in the same frame.

    Returns
    -------
    shift, inside
        Field change over B0 in ppm, with the sphere of Lorentz taken off (zero inside a
        sphere; Haacke 1999, eq. 25.29), and the mask of the deposit.
    """
    x, y, z = points_mm
    if deposit.is_sphere:
        bx, by, bz = b0_direction
        r2 = x**2 + y**2 + z**2
        a2 = deposit.semi_axes_mm[0] ** 2
        inside = np.asarray(r2 <= a2)
        r2 = np.maximum(r2, a2)
        cos2 = (x * bx + y * by + z * bz) ** 2 / r2
        shift = deposit.chi_ppm / 3 * (a2 / r2) ** 1.5 * (3 * cos2 - 1)
        shift[inside] = 0.0
        return shift.astype(np.float32), inside
    rotation = np.asarray(deposit.rotation)
    reach = 0.0
    for axis, semi_axis in enumerate(deposit.semi_axes_mm):
        u, v, w = rotation[:, axis]
        reach = reach + ((x * u + y * v + z * w) / semi_axis) ** 2
    inside = np.asarray(reach <= 1.0)
    steps = [float(np.ptp(p)) / max(p.size - 1, 1) for p in (x, y, z)]
    shift = _dipole_convolve(inside, steps, b0_direction) * np.float32(deposit.chi_ppm)
    return shift.astype(np.float32), inside


def _dipole_convolve(
    source: BoolArray, steps: Sequence[float], b0_direction: Sequence[float]
) -> FloatArray:
    """Field (ppm for 1 ppm) of a susceptibility map by the dipole kernel in k-space."""
    shape = [fft.next_fast_len(int(1.5 * n), real=True) for n in source.shape]
    k = [fft.fftfreq(n, d=h) for n, h in zip(shape, steps, strict=True)]
    k[2] = fft.rfftfreq(shape[2], d=steps[2])
    kx, ky, kz = np.meshgrid(*(v.astype(np.float32) for v in k), indexing="ij", sparse=True)
    bx, by, bz = (np.float32(b) for b in b0_direction)
    k2 = kx**2 + ky**2 + kz**2
    k2[0, 0, 0] = 1.0
    kernel = np.float32(1 / 3) - (kx * bx + ky * by + kz * bz) ** 2 / k2
    kernel[0, 0, 0] = 0.0
    spectrum = fft.rfftn(source.astype(np.float32), s=shape)
    spectrum *= kernel
    # A sharp source rings at the highest frequencies: blur by 0.6 of a sample.
    for axis, (values, h) in enumerate(zip(k, steps, strict=True)):
        turned = np.exp(-2 * (np.pi * 0.6 * h * values) ** 2).astype(np.float32)
        spectrum *= turned.reshape(along(axis))
    result = fft.irfftn(spectrum, s=shape)
    nx, ny, nz = source.shape
    return np.ascontiguousarray(result[:nx, :ny, :nz], dtype=np.float32)


def signal_factor(
    deposit: Deposit,
    affine: NDArray[np.float64],
    shape: Sequence[int],
    *,
    field_strength: float,
    echo_time: float,
    psf_fwhm: float = 1.2,
) -> tuple[tuple[slice, slice, slice], NDArray[np.complex64]]:
    """Complex factor by which a deposit changes the signal of the voxels around it.

    Parameters
    ----------
    deposit
        The deposit, in scanner coordinates; the main field is along scanner z.
    affine, shape
        The scan's grid: 4x4 voxel to RAS+ mm, and its three sizes.
    field_strength, echo_time
        B0 in T and TE in s.
    psf_fwhm
        Full width at half maximum of the in-plane point-spread function in voxels: 1.2 for
        an unfiltered Fourier encoding. Through the slice the profile is a box.

    Returns
    -------
    window, factor
        Slices into the scan, and the complex64 factor in it (1 where nothing changes).
        The window is empty when the deposit lies outside the grid.
    """
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    centre = np.linalg.solve(affine[:3, :3], np.asarray(deposit.centre_ras) - affine[:3, 3])
    strength = 2 * math.pi * GAMMA_HZ_PER_T * field_strength * echo_time
    reach = _reach_mm(deposit, strength)
    low = np.maximum(np.floor(centre - reach / spacing), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach / spacing) + 1, shape).astype(int)
    window = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    if np.any(high <= low):
        return (slice(0, 0), slice(0, 0), slice(0, 0)), np.ones((0, 0, 0), np.complex64)

    oversampling = _oversampling(deposit, spacing, high - low)
    slice_axis = _slice_axis(spacing)
    samples, weights = [], []
    for axis in range(3):
        fwhm = 0.0 if axis == slice_axis else psf_fwhm
        position, weight = _axis_psf(low[axis], high[axis], int(oversampling[axis]), fwhm)
        samples.append(((position - centre[axis]) * spacing[axis]).astype(np.float32))
        weights.append(weight)
    # The deposit and B0 are turned into the frame of the voxel axes (orthonormal up to a flip).
    axes = affine[:3, :3] / spacing
    local = Deposit(
        centre_ras=(0.0, 0.0, 0.0),
        semi_axes_mm=deposit.semi_axes_mm,
        chi_ppm=deposit.chi_ppm,
        rotation=tuple(map(tuple, _orthonormal(axes.T) @ np.asarray(deposit.rotation))),
    )
    grid = np.meshgrid(*samples, indexing="ij", sparse=True)
    shift, inside = deposit_field((grid[0], grid[1], grid[2]), local, axes[2, :])
    fine = np.exp(1j * np.float32(strength * 1e-6) * shift).astype(np.complex64)
    fine[inside] = 0  # clumped haemosiderin has no signal
    for weight in weights:
        # Contract the first axis and append the result as the last: three turns, all axes.
        fine = np.tensordot(fine, weight, axes=(0, 1))
    return window, fine.astype(np.complex64)


def _orthonormal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nearest orthogonal matrix (affines carry rounding; a shear is not modelled)."""
    u, _, vt = np.linalg.svd(matrix)
    return np.asarray(u @ vt)


def _slice_axis(spacing: NDArray[np.float64]) -> int:
    """Axis of the slices: the coarsest; the last of equals."""
    return int(2 - np.argmax(np.round(spacing, 4)[::-1]))


def _reach_mm(deposit: Deposit, strength: float) -> float:
    """Distance at which the phase of a deposit has become negligible, mm."""
    peak = abs(deposit.chi_ppm) * 1e-6 * strength * 2 / 3
    reach = deposit.radius_mm * max(peak / _NEGLIGIBLE_PHASE, 1.0) ** (1 / 3)
    return max(reach, 1.5 * max(deposit.semi_axes_mm))


def _oversampling(
    deposit: Deposit, spacing: NDArray[np.float64], window: NDArray[np.int_]
) -> NDArray[np.int_]:
    """Fine samples a voxel along each axis: six a radius, as far as memory allows."""
    step = float(np.clip(min(deposit.semi_axes_mm) / 6, 0.05, 0.25))
    while True:
        factors = np.maximum(np.ceil(spacing / step), 3).astype(int)
        if np.prod((window + 4) * factors) <= _MAX_FINE_SAMPLES or step > spacing.min():
            return np.asarray(factors)
        step *= 1.15


def _axis_psf(low: int, high: int, factor: int, fwhm: float) -> tuple[NDArray, NDArray]:
    """Fine positions (voxel units) along an axis, and the weights that average to voxels.

    ``fwhm`` 0 is a box of one voxel, else a Gaussian of that width in voxels.
    """
    margin = 0 if fwhm == 0 else 2
    count = (high - low + 2 * margin) * factor
    position = low - margin - 0.5 + (np.arange(count) + 0.5) / factor
    distance = np.arange(low, high)[:, None] - position[None, :]
    if fwhm == 0:
        weight = (np.abs(distance) < 0.5).astype(np.float64)
    else:
        weight = np.exp(-4 * math.log(2) * (distance / fwhm) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    return position, weight.astype(np.float32)


def plausible_places(
    magnitude: FloatArray, mask: BoolArray, affine: NDArray[np.float64]
) -> BoolArray:
    """Voxels where a lesion may be put: tissue, 3 mm off the edge and from existing voids.

    Tissue is where the local mean lies between 0.65 and 1.35 times the brain's median
    (dropout is below, ventricles and wide sulci are above on T2*-weighted images); a void is
    a voxel darker than 0.7 of its local mean.
    """
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    # With a rim of background, so that the end of the grid counts as an edge.
    inner = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), 3.0 / spacing)
    mean = ndimage.gaussian_filter(np.where(mask, magnitude, 0).astype(np.float32), 3.0 / spacing)
    mean /= np.maximum(weight, 1e-3)
    level = float(np.median(magnitude[mask]))
    void = mask & (magnitude < 0.7 * mean)
    away = ndimage.distance_transform_edt(~void, sampling=spacing) if void.any() else np.inf
    tissue = (mean > 0.65 * level) & (mean < 1.35 * level)
    return np.asarray(mask & (inner >= _AWAY_MM) & tissue & (away >= _AWAY_MM))


def draw_deposits(
    places: BoolArray,
    affine: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
    *,
    diameter_mm: tuple[float, float] = (0.5, 5.0),
) -> tuple[Deposit, ...]:
    """Draw deposits inside a mask, no two closer than 16 mm.

    Diameters are log-uniform (small ones are common), susceptibilities uniform from 0.5 to
    2.5 ppm, shapes ellipsoids whose shortest axis is at least 0.7 of the longest. Fewer than
    ``count`` are given where the mask has no more room.
    """
    voxels = np.argwhere(places)
    if not len(voxels):
        return ()
    order = rng.permutation(len(voxels))
    deposits: list[Deposit] = []
    centres = np.empty((0, 3))
    for voxel in voxels[order[: 400 * count]]:
        if len(deposits) == count:
            break
        jittered = voxel + rng.uniform(-0.5, 0.5, 3)
        centre = affine[:3, :3] @ jittered + affine[:3, 3]
        if len(centres) and np.min(np.linalg.norm(centres - centre, axis=1)) < 16.0:
            continue
        centres = np.vstack([centres, centre])
        radius = math.exp(rng.uniform(*np.log(diameter_mm))) / 2
        ratios = rng.uniform(0.7, 1.0, 3)
        semi_axes = radius * ratios / np.prod(ratios) ** (1 / 3)
        rotation = _orthonormal(rng.normal(size=(3, 3)))
        deposits.append(
            Deposit(
                centre_ras=(float(centre[0]), float(centre[1]), float(centre[2])),
                semi_axes_mm=(float(semi_axes[0]), float(semi_axes[1]), float(semi_axes[2])),
                chi_ppm=float(rng.uniform(0.5, 2.5)),
                rotation=tuple((float(a), float(b), float(c)) for a, b, c in rotation),
            )
        )
    return tuple(deposits)


def implant(
    magnitude: FloatArray,
    affine: NDArray[np.float64],
    mask: BoolArray,
    deposits: Sequence[Deposit],
    *,
    field_strength: float,
    echo_time: float,
    seed: int,
) -> Implanted:
    """Put deposits into a magnitude image.

    The image is multiplied with the magnitude of each deposit's signal factor. That would
    take the noise away with the signal, so the missing part of it is put back (Rician,
    seeded). Deposits outside ``mask`` are left out.

    Parameters
    ----------
    magnitude
        (X, Y, Z) magnitude image.
    affine
        4x4, voxel to RAS+ mm.
    mask
        Brain, (X, Y, Z); the noise and the surroundings are measured in it.
    deposits
        What to put in, for instance from :func:`draw_deposits`.
    field_strength, echo_time
        B0 in T and TE in s of the scan.
    seed
        Of the noise.

    Returns
    -------
    Implanted
        New image and truth; the same bytes for the same arguments.
    """
    magnitude = np.asarray(magnitude, dtype=np.float32)
    if magnitude.ndim != 3 or mask.shape != magnitude.shape:
        raise ValueError("magnitude and mask must be three-dimensional and of one shape")
    factor = np.ones(magnitude.shape, np.complex64)
    labels = np.zeros(magnitude.shape, np.int32)
    sigma = noise_level(magnitude, mask)
    lesions: list[ImplantedLesion] = []
    scan = {"field_strength": field_strength, "echo_time": echo_time}
    for deposit in deposits:
        window, change = signal_factor(deposit, affine, magnitude.shape, **scan)
        if not change.size or not mask[window].any():
            continue
        factor[window] *= change
        lesion = _describe(
            len(lesions) + 1, deposit, window, change, magnitude, labels, affine, sigma
        )
        lesions.append(lesion)
    return Implanted(
        image=_lessened(magnitude, np.abs(factor), sigma, seed),
        labels=labels,
        phase=np.angle(factor).astype(np.float32),
        lesions=tuple(lesions),
    )


def _lessened(magnitude: FloatArray, kept: FloatArray, sigma: float, seed: int) -> FloatArray:
    """Keep a part (0..1) of the signal of each voxel, and the noise (sigma) as it was."""
    rng = np.random.default_rng(seed)
    lost = np.sqrt(np.maximum(1 - kept**2, 0)) * sigma
    noise = rng.standard_normal((2, *magnitude.shape), dtype=np.float32) * lost
    image = np.hypot(magnitude * kept + noise[0], noise[1]).astype(np.float32)
    return np.where(lost > 0, image, magnitude)


def _describe(
    index: int,
    deposit: Deposit,
    window: tuple[slice, slice, slice],
    change: NDArray[np.complex64],
    magnitude: FloatArray,
    labels: NDArray[np.int32],
    affine: NDArray[np.float64],
    sigma: float,
) -> ImplantedLesion:
    """Measure the void of one deposit and write its mask into ``labels`` if it is visible."""
    loss = 1 - np.abs(change)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    corner = np.array([s.start for s in window])
    source = np.linalg.solve(affine[:3, :3], np.asarray(deposit.centre_ras) - affine[:3, 3])
    void = outline_void(loss, source - corner, max(deposit.semi_axes_mm), spacing)
    depth = cnr = volume = diameter = 0.0
    centre = np.asarray(deposit.centre_ras)
    visible = False
    if void is not None:
        depth, volume, diameter = void.depth, void.volume_mm3, void.diameter_mm
        signal = float(magnitude[window][loss >= depth / 2].mean())
        cnr = depth * signal / sigma if sigma > 0 else math.inf
        visible = is_visible(depth, cnr)
    if void is not None and visible:
        centre = affine[:3, :3] @ (void.centre + corner) + affine[:3, 3]
        owned = labels[window]
        mask = tuple(void.voxels.T)
        owned[mask] = np.where(owned[mask] == 0, index, owned[mask])
    return ImplantedLesion(
        index=index,
        deposit=deposit,
        centre_ras=(float(centre[0]), float(centre[1]), float(centre[2])),
        void_volume_mm3=volume,
        void_diameter_mm=diameter,
        loss=depth,
        cnr=cnr,
        visible=visible,
    )
