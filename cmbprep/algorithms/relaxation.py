"""R2*: how fast the gradient-echo signal decays, from several echoes.

The logarithm of the magnitude falls linearly with the echo time. The slope is fitted by
least squares with the squared magnitude as weight, which is the inverse of the logarithm's
variance at high signal. Low magnitudes stand on the floor that Rician noise has
(Gudbjartsson H, Patz S. Magn Reson Med 1995;34:910-914) and would make the decay seem
slower: points below :data:`FLOOR_SIGMAS` standard deviations of the noise are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOOR_SIGMAS", "Decay", "fit_decay"]

FloatArray = NDArray[np.float32]

#: Magnitudes below this many standard deviations of the noise are left out.
FLOOR_SIGMAS = 3.0
#: Fastest decay that is reported, 1/s.
FASTEST = 1000.0


@dataclass(frozen=True, eq=False)
class Decay:
    """A mono-exponential decay at each voxel.

    Attributes
    ----------
    r2star
        1/s, float32, 0..1000; 0 where fewer than two echoes are above the noise.
    error
        Standard error of `r2star` by the noise, 1/s; infinite where it could not be fitted.
    """

    r2star: FloatArray
    error: FloatArray


def fit_decay(magnitudes: Sequence[FloatArray], echo_times: Sequence[float], noise: float) -> Decay:
    """Fit R2* at each voxel.

    Parameters
    ----------
    magnitudes
        One an echo, of one shape and unit.
    echo_times
        Seconds, two different ones at least.
    noise
        Standard deviation of the noise in the unit of the magnitudes; 0 if unknown: then
        only magnitudes of zero are left out.

    Raises
    ------
    ValueError
        If counts or shapes do not fit or the echo times are all the same.
    """
    if len(magnitudes) != len(echo_times) or len(set(echo_times)) < 2:
        raise ValueError("R2* needs a magnitude for each of two different echo times or more")
    if len({image.shape for image in magnitudes}) > 1:
        raise ValueError("the echoes must have one shape")
    if noise < 0:
        raise ValueError("the noise cannot be negative")
    shape = magnitudes[0].shape
    sums = np.zeros((5, *shape))  # of w, w t, w t^2, w y, w t y
    count = np.zeros(shape, np.int16)
    for image, time in zip(magnitudes, echo_times, strict=True):
        used = image > max(FLOOR_SIGMAS * noise, 0.0)
        weight = np.where(used, image.astype(np.float64) ** 2, 0.0)
        logarithm = np.log(np.where(used, image, 1).astype(np.float64))
        sums += np.stack(
            [
                weight,
                weight * time,
                weight * time**2,
                weight * logarithm,
                weight * time * logarithm,
            ]
        )
        count += used
    w, wt, wtt, wy, wty = sums
    spread = w * wtt - wt**2
    fitted = (count >= 2) & (spread > 1e-12 * w * wtt)
    safe = np.where(fitted, spread, 1.0)
    rate = np.where(fitted, -(w * wty - wt * wy) / safe, 0.0)
    error = np.where(fitted, noise * np.sqrt(np.where(fitted, w, 0.0) / safe), np.inf)
    return Decay(np.clip(rate, 0, FASTEST).astype(np.float32), error.astype(np.float32))
