"""How the values of phase images become radians.

Scanners and converters store phase in many ranges, and ``Units`` of the sidecar is often wrong.
The scale is judged by the values, over all echoes of a scan together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cmbprep.bids.geometry import Array


class PhaseScale(NamedTuple):
    """How the values of a phase image become radians: ``(value - zero) * 2π / period``."""

    period: float
    zero: float
    how: str

    @property
    def known(self) -> bool:
        """Whether the values fill one of the usual circles, or are radians."""
        return self.how != _BY_RANGE


#: Full circles that images are stored with. In those of bits the scanner's zero lies in the
#: middle (0..4095 and -4096..4095 both stand for -π..π); in the others 0 is 0.
_PERIODS = (
    (1.0, "cycles"),
    (2.0, "multiples of π"),
    (360.0, "degrees"),
    (4096.0, "12 bits"),
    (2000 * np.pi, "milliradians"),
    (8192.0, "13 bits"),
    (65536.0, "16 bits"),
)
_BY_RANGE = "range of the values"
_RADIANS = PhaseScale(2 * np.pi, 0.0, "radians")
#: ``Units`` that a phase image can have (BIDS 1.10 asks for one of the first two).
PHASE_UNITS = ("rad", "arbitrary", "radians", "a.u.")
#: Phase that was unwrapped does not go beyond this many radians in a head.
_UNWRAPPED_LIMIT = 100.0
#: Filtered phase of a head spans at least this many radians; less was not scaled.
LEAST_RADIANS = 0.3
# Neighbours that differ by this part of the range lie on both sides of a wrap; an image with
# this part of such neighbours is wrapped (of the noise of air 0.06 are, of Gaussian noise 0.001).
# It is asked of images with enough voxels alone.
_WRAP, _WRAPPED, _ENOUGH = 0.75, 3e-3, 1000


class _Values(NamedTuple):
    """What the scale of an image is judged by: its range without outliers, and its kind."""

    low: float
    high: float
    whole: bool
    wrapped: bool

    @property
    def span(self) -> float:
        return self.high - self.low


def _look(data: Array) -> _Values:
    values = np.asarray(data)
    finite = np.asarray(values[np.isfinite(values)], dtype=np.float64)
    if finite.size == 0 or finite.min() == finite.max():
        raise ValueError("the phase image has no two different values")
    low, high = (float(value) for value in np.percentile(finite, (0.1, 99.9)))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    jumps = [np.abs(np.diff(values, axis=a)) > _WRAP * (high - low) for a in range(values.ndim)]
    pairs = sum(jump.size for jump in jumps)
    share = sum(int(np.count_nonzero(jump)) for jump in jumps) / max(pairs, 1)
    whole = bool(np.all(finite == np.round(finite)))
    return _Values(low, high, whole, finite.size >= _ENOUGH and share > _WRAPPED)


def _scale(seen: _Values, units: str | None) -> PhaseScale:
    """Judge a range of values."""
    fractions = not seen.whole and seen.span < _UNWRAPPED_LIMIT
    full = 0.9 * 2 * np.pi <= seen.span <= 1.01 * 2 * np.pi
    claimed = units in ("rad", "radians") and seen.span >= LEAST_RADIANS
    if fractions and (full or (not seen.wrapped and (claimed or seen.span > np.pi))):
        return _RADIANS
    for period, how in _PERIODS:
        if 0.9 * period <= seen.span <= 1.01 * period and not (seen.whole and period <= 2):
            centred = not how.endswith("bits") or seen.low < -0.25 * seen.span
            return PhaseScale(period, 0.0 if centred else period / 2, how)
    return PhaseScale(seen.span, (seen.low + seen.high) / 2, _BY_RANGE)


def phase_scales(images: Sequence[Array], units: Sequence[str | None]) -> list[PhaseScale]:
    """Find out how the phase images of a scan are scaled, all echoes together.

    Parameters
    ----------
    images
        The values, one image an echo; values that are not finite are left out.
    units
        ``Units`` of their sidecars: ``rad``, ``arbitrary`` or None. They are not simply
        believed: converters write ``rad`` beside integers and ``arbitrary`` beside radians.

    Returns
    -------
    list of PhaseScale
        Full circle and zero in units of the image, one an echo; ``known`` is false where the
        values do not tell them.

    Raises
    ------
    ValueError
        If an image has no two different values.

    Notes
    -----
    Wrapped phase fills its circle, if only with the noise of air, so the range of the values, a
    thousandth left out at each end, tells the circle: the one of the usual circles that holds
    the range and is filled to nine tenths. Fractions that span more than π and less than a
    hundred are radians, unwrapped if they exceed a turn, and so are fractions of a smaller span
    (filtered phase) if the sidecar says so; but not if they wrap at the ends of another range,
    or span less than :data:`LEAST_RADIANS`.

    All echoes of a scan are stored alike: one that does not fill the circle has that of those
    that do, and where none does, the range of all together is judged.
    """
    seen = [_look(image) for image in images]
    own = [_scale(one, unit) for one, unit in zip(seen, units, strict=True)]
    known = {scale for scale in own if scale.known}
    if not own:
        return []
    if not known:
        whole = _Values(
            min(one.low for one in seen),
            max(one.high for one in seen),
            all(one.whole for one in seen),
            any(one.wrapped for one in seen),
        )
        together = _scale(whole, units[0] if len(set(units)) == 1 else None)
        return [together if together.known else scale for scale in own]
    if len(known) > 1:
        return own
    (common,) = known
    return [
        common if not scale.known and _holds(common, one) else scale
        for scale, one in zip(own, seen, strict=True)
    ]


def _holds(scale: PhaseScale, seen: _Values) -> bool:
    """Whether values lie on the circle of another echo; radians may be unwrapped."""
    if scale == _RADIANS:
        return not seen.whole and seen.span < _UNWRAPPED_LIMIT
    middle = (seen.low + seen.high) / 2
    fits = seen.span <= 1.01 * scale.period and abs(middle - scale.zero) <= scale.period
    return fits and (not seen.wrapped)


def phase_scale(data: Array, units: str | None = None) -> PhaseScale:
    """Find out how one phase image is scaled (see :func:`phase_scales`)."""
    return phase_scales([data], [units])[0]


def to_radians(data: Array, scale: PhaseScale) -> Array:
    """Scale values to radians in [-π, π).

    Parameters
    ----------
    data
        Values of any shape; those that are not finite become NaN.
    scale
        Theirs.

    Returns
    -------
    ndarray of float32
        Same shape. A constant offset may remain, as scanners differ in where they put
        zero; differences between voxels are right.
    """
    turns = (np.asarray(data, dtype=np.float64) - scale.zero) / scale.period
    turns[~np.isfinite(turns)] = np.nan
    wrapped = turns - np.floor(turns + 0.5)
    return np.asarray(wrapped * 2 * np.pi, dtype=np.float32)


def phase_to_radians(data: Array, units: str | None = None) -> Array:
    """Scale one phase image to radians in [-π, π), judged by itself.

    Parameters
    ----------
    data
        Values in any of the usual ranges (-π..π, 0..2π, 0..4095, -4096..4095, ...).
    units
        ``Units`` of its sidecar.

    Returns
    -------
    ndarray of float32
        See :func:`to_radians`.
    """
    return to_radians(data, phase_scale(data, units))
