"""Integer overflow in magnitude images: values that were too large for the data type.

A 16-bit signed integer ends at 32767. A larger value wraps around to the negative end, so the
brightest voxels become the most negative ones. A detector takes them for microbleeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["count_overflowed"]

#: Voxels below minus this fraction of the maximum are far too negative for interpolation, which
#: undershoots by about a tenth of an edge.
DEEP = 0.5
#: Voxels above this fraction of the maximum are bright.
BRIGHT = 0.3
#: Overflow is assumed if at least this fraction of the neighbours of very negative voxels that
#: are not negative themselves is bright.
SHARE = 0.7


def count_overflowed(data: np.ndarray[Any, np.dtype[Any]]) -> int:
    """Count the voxels of a magnitude image whose values have overflowed.

    Parameters
    ----------
    data
        Magnitude image of any scale, three axes, finite.

    Returns
    -------
    int
        Number of very negative voxels, if these border mainly on bright voxels; otherwise 0. The
        result does not depend on the scale of the values or on the direction of the axes.

    Examples
    --------
    >>> import numpy as np
    >>> true = np.full((5, 5, 5), 30000)
    >>> true[1:4, 1:4, 1:4] = 34000
    >>> count_overflowed(true)
    0
    >>> count_overflowed(true.astype(np.int16))
    27
    """
    high = float(data.max())
    deep = data < -DEEP * high
    found = int(np.count_nonzero(deep))
    if high <= 0 or found == 0:
        return 0
    positive, bright = data >= 0, data > BRIGHT * high
    borders = shared = 0
    for axis in range(data.ndim):
        low, up = _halves(axis)
        for one, other in ((low, up), (up, low)):
            borders += int(np.count_nonzero(deep[one] & positive[other]))
            shared += int(np.count_nonzero(deep[one] & bright[other]))
    return found if shared >= SHARE * max(borders, 1) else 0


def _halves(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of all voxels with a next one along an axis, and of those next ones."""
    before = (slice(None),) * axis
    return (*before, slice(None, -1)), (*before, slice(1, None))
