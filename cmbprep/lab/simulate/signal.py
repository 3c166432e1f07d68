"""The gradient-echo signal, and how a scanner samples it.

The signal is computed on a grid finer than the voxel. Dephasing inside one cell of the
fine grid is taken into account analytically (a linear field gradient across a cell
multiplies its signal by a sinc); dephasing between cells follows from summing them. The
fine grid is brought to the voxel in the way a scanner does it: along encoded axes by
keeping the centre of k-space, along a slice-selective axis by the slice profile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ernst_amplitude(
    proton_density: float, t1_ms: float, tr_ms: float, flip_angle_deg: float
) -> float:
    """Steady-state amplitude of a spoiled gradient echo, before T2* decay.

    Ernst RR, Anderson WA. Rev Sci Instrum 1966;37:93-102.
    """
    flip = np.deg2rad(flip_angle_deg)
    e1 = np.exp(-tr_ms / t1_ms)
    return float(proton_density * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1))


def mprage_amplitude(proton_density: float, t1_ms: float, ti_ms: float, tr_ms: float) -> float:
    """Magnitude of an inversion-prepared signal at the centre of k-space.

    The small-flip limit of MPRAGE (the read-out hardly disturbs the recovery):
    ``|1 - 2 exp(-TI/T1) / (1 + exp(-TR/T1))|``.
    """
    recovery = 1 - 2 * np.exp(-ti_ms / t1_ms) / (1 + np.exp(-tr_ms / t1_ms))
    return float(proton_density * abs(recovery))


def gradient_echo(
    amplitude: NDArray[np.float32],
    r2star: NDArray[np.float32],
    frequency: NDArray[np.float32],
    echo_time: float,
    *,
    phase_sign: int = 1,
) -> NDArray[np.complex64]:
    """Complex signal of a gradient echo in each cell of a fine grid.

    Parameters
    ----------
    amplitude
        Signal at TE = 0, shape (X, Y, Z).
    r2star
        Decay rate in 1/s without the decay by the field that `frequency` describes.
    frequency
        Offset from the Larmor frequency in Hz.
    echo_time
        Seconds.
    phase_sign
        +1: phase grows where the field is higher (right-handed, Siemens and Philips);
        -1: it falls (left-handed, GE and some exports).

    Returns
    -------
    numpy.ndarray
        complex64, the shape of the inputs.
    """
    magnitude = amplitude * np.exp(np.float32(-echo_time) * r2star)
    for axis in range(frequency.ndim):
        if frequency.shape[axis] < 2:
            continue
        turns = np.gradient(frequency, axis=axis) * np.float32(echo_time)
        magnitude *= _sinc(turns)
    phase = frequency * np.float32(phase_sign * 2 * np.pi * echo_time)
    signal = np.empty(frequency.shape, np.complex64)
    np.multiply(magnitude, np.cos(phase), out=signal.real)
    np.multiply(magnitude, np.sin(phase), out=signal.imag)
    return signal


def _sinc(turns: NDArray[np.float32]) -> NDArray[np.float32]:
    """sin(pi x) / (pi x) in single precision; numpy.sinc is slower and may upcast."""
    angle = turns * np.float32(np.pi)
    # The sine of an angle this small is the angle itself in single precision.
    np.copyto(angle, np.float32(1e-4), where=np.abs(angle) < 1e-3)
    result: NDArray[np.float32] = np.sin(angle)
    result /= angle
    return result


def crop_k_space(
    signal: NDArray[np.complex64], axis: int, size: int, *, apodise: bool = False
) -> NDArray[np.complex64]:
    """Sample a signal along one axis as an encoded axis does: keep the centre of k-space.

    Sample ``i`` of the result lies at sample ``i * N / size`` of the input (N its length).

    Parameters
    ----------
    signal
        Complex signal, finely sampled along `axis`.
    axis
        The encoded axis.
    size
        Number of samples to keep; even or odd, at most the length of the axis.
    apodise
        Multiply k-space by a Hann-like taper over its outer fifth, as many
        reconstructions do to soften ringing.
    """
    from scipy import fft

    length = signal.shape[axis]
    if not 0 < size <= length:
        raise ValueError(f"{size} samples cannot be kept of {length}")
    spectrum = fft.fft(signal, axis=axis, workers=1)
    frequency = np.fft.fftfreq(size, 1 / size).astype(int)
    kept = np.take(spectrum, frequency % length, axis=axis)
    if apodise:
        reach = np.abs(frequency) / (size / 2)
        taper = np.where(reach > 0.8, 0.5 * (1 + np.cos(np.pi * (reach - 0.8) / 0.2 * 0.75)), 1.0)
        shape = [1] * signal.ndim
        shape[axis] = -1
        kept = kept * taper.astype(np.float32).reshape(shape)
    result: NDArray[np.complex64] = fft.ifft(kept, axis=axis, workers=1, overwrite_x=True)
    result *= np.float32(size / length)
    return result


def slice_profile(samples: int, cell: float, thickness: float) -> NDArray[np.float32]:
    """Weights of fine planes in a slice: flat over the thickness with cosine edges.

    Parameters
    ----------
    samples
        Number of fine planes, centred on the slice.
    cell
        Distance between them in mm.
    thickness
        Full width at half height in mm. Each edge is a fifth of it wide, about what a
        windowed-sinc pulse of usual length gives.
    """
    position = np.abs((np.arange(samples) - (samples - 1) / 2) * cell)
    edge = 0.2 * thickness
    inner, outer = thickness / 2 - edge / 2, thickness / 2 + edge / 2
    ramp = 0.5 * (1 + np.cos(np.pi * np.clip((position - inner) / (outer - inner), 0, 1)))
    weights = np.where(position <= inner, 1.0, np.where(position >= outer, 0.0, ramp))
    if not weights.sum() > 0:
        raise ValueError("no fine plane lies inside the slice")
    return (weights / weights.sum()).astype(np.float32)


def wrap(signal: NDArray[np.complex64], axis: int, margin: int) -> NDArray[np.complex64]:
    """Fold what lies beyond a field of view into it, as undersampled phase encoding does.

    Parameters
    ----------
    signal
        Image that is `margin` samples longer at both ends of `axis` than the result.
    axis, margin
        Where the field of view is too short, and by how much.
    """
    if margin == 0:
        return signal
    length = signal.shape[axis] - 2 * margin
    if not 0 < margin <= length:
        raise ValueError(f"{margin} samples cannot be folded into {length}")
    moved = np.moveaxis(signal, axis, 0)
    folded = moved[margin : margin + length].copy()
    folded[length - margin :] += moved[:margin]
    folded[:margin] += moved[margin + length :]
    return np.moveaxis(folded, 0, axis)


def move(signal: NDArray[np.complex64], drift: NDArray[np.floating]) -> NDArray[np.complex64]:
    """Let the head move in the plane between the phase-encoding steps.

    Parameters
    ----------
    signal
        Complex image, shape (X, Y, Z), phase-encoded along Y.
    drift
        Shape (2, Y): position along X and Y in voxels while each line of k-space was taken,
        in the order from the lowest frequency to the highest.
    """
    from scipy import fft

    spectrum = fft.fftn(signal, axes=(0, 1), workers=1)
    kx = np.fft.fftfreq(signal.shape[0])[:, None]
    ky = np.fft.fftfreq(signal.shape[1])[None, :]
    moved = fft.ifftshift(np.asarray(drift), axes=1)
    turn = np.exp(-2j * np.pi * (kx * moved[0] + ky * moved[1])).astype(np.complex64)
    result: NDArray[np.complex64] = fft.ifftn(
        spectrum * turn[:, :, None], axes=(0, 1), workers=1, overwrite_x=True
    )
    return result


def add_noise(
    signal: NDArray[np.complex64], sigma: float, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Add complex white noise; its magnitude is then Rician (Gudbjartsson, Patz 1995).

    Parameters
    ----------
    signal
        Noise-free complex image.
    sigma
        Standard deviation in each of the real and the imaginary part.
    rng
        Source of randomness.
    """
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    noise *= np.float32(sigma)
    return (signal + noise[0] + 1j * noise[1]).astype(np.complex64)
